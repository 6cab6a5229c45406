"""The pages of integrations, with the sandbox behind them."""

from __future__ import annotations

import html
import io
import json
import re
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import time_machine
from flask import Flask
from sqlalchemy import delete, event, func, select, update
from sqlalchemy.orm.exc import StaleDataError

from grafient import integrations, leaving
from grafient.extensions import db
from grafient.models import Integration, RawReply, Restatement, RestatementSeen, Workspace
from grafient.providers import Activity, KeyInfo
from grafient.providers.openrouter import OpenRouterReader
from grafient.restatements import mark_restatements_seen
from grafient.sandbox import Sandbox
from grafient.sync import stages
from grafient.views.formats import usd
from tests import syncing
from tests.conftest import EMAIL, PASSWORD
from tests.pages import Pages, lint
from tests.syncing import NOON, a_day, at, later, on_sqlite

NEW = "/integrations/new"
TODAY = NOON.date()


@pytest.fixture(autouse=True)
def _at_noon() -> Iterator[None]:
    with at():
        yield


def run_due(app: Flask) -> None:
    """What a worker would do now."""
    with app.app_context():
        syncing.run_due()


def connected(app: Flask, pages: Pages, sandbox: Sandbox, name: str = "lively") -> None:
    pages.connect(sandbox.key(name))
    run_due(app)


def test_the_test_of_a_good_key_is_a_green_check_and_stores_nothing(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    fields = {"provider": "openrouter", "label": "", "api_key": f"  {sandbox.key('lively')}\n"}
    fragment = pages.post("/integrations/test", 200, NEW, htmx=True, **fields)
    assert "<html" not in fragment.text
    assert "Connection works" in fragment.text
    assert fragment.headers["Vary"].count("HX-Request")
    page = pages.post("/integrations/test", 200, NEW, **fields)
    assert "Connection works" in page.text
    assert "<html" in page.text
    assert sandbox.key("lively") not in page.text
    with app.app_context():
        assert db.session.execute(select(func.count()).select_from(Integration)).scalar_one() == 0


def found_by_test(pages: Pages, key: str) -> str:
    fragment = pages.post("/integrations/test", 200, NEW, htmx=True, provider="openrouter", label="", api_key=key)
    return " ".join(lint(fragment.text).to_text().split())


@on_sqlite
def test_the_test_shows_whose_account_it_is_and_what_was_spent_lately(
    app: Flask, pages: Pages, sandbox: Sandbox
) -> None:
    said = found_by_test(pages, sandbox.key("lively"))
    assert [request.path.removeprefix("/api/v1") for request in sandbox.requests()] == ["/auth/key", "/activity"]
    assert "Kind of key Management key" in said
    label = json.loads(sandbox_key_info(sandbox, "lively"))["data"]
    assert f"Name of the key {label['label']}" in said
    assert str(label.get("organization_id") or label["creator_user_id"]) in said
    last = TODAY - timedelta(days=1)
    used = {row.date for row in sandbox.truth("lively", TODAY - timedelta(days=30), last).rows}
    assert 0 < len(used) < 30
    assert f"Days with usage {len(used)} of 30 days, 21 Oct – 19 Nov 2026" in said
    lately = sandbox.truth("lively", TODAY - timedelta(days=14), last).usage
    assert f"Last 14 days {usd(lately)} , 6–19 Nov 2026 (UTC)" in said
    with app.app_context():
        assert db.session.execute(select(func.count()).select_from(Integration)).scalar_one() == 0
        assert db.session.execute(select(func.count()).select_from(RawReply)).scalar_one() == 0


def sandbox_key_info(sandbox: Sandbox, name: str) -> str:
    """What the sandbox says of a key."""
    key = sandbox.key(name)
    return httpx.get(f"{sandbox.base_url}/auth/key", headers={"Authorization": f"Bearer {key}"}).text


@on_sqlite
def test_an_account_without_usage_is_known_to_have_spent_nothing(pages: Pages, sandbox: Sandbox) -> None:
    said = found_by_test(pages, sandbox.key("empty"))
    assert "Days with usage 0 of 30 days" in said
    assert "Last 14 days $0.00" in said


@on_sqlite
@pytest.mark.parametrize(
    ("fault", "why"),
    [("down", "OpenRouter returned an error (500)."), ("misshapen", "a shape that Grafient does not know")],
)
def test_what_was_spent_lately_is_unknown_where_it_can_not_be_read(
    pages: Pages, sandbox: Sandbox, fault: str, why: str
) -> None:
    sandbox.fault("lively", fault, path="/activity")
    said = found_by_test(pages, sandbox.key("lively"))
    assert "Connection works" in said
    assert "could not be read just now" in said
    assert why in said
    assert "Last 14 days" not in said


@on_sqlite
def test_a_key_that_is_refused_its_costs_does_not_work(pages: Pages, sandbox: Sandbox) -> None:
    sandbox.fault("lively", "revoked", path="/activity")
    fields = {"provider": "openrouter", "label": "", "api_key": sandbox.key("lively")}
    answer = pages.post("/integrations/test", 422, NEW, htmx=True, **fields)
    assert "Connection failed" in answer.text
    assert "OpenRouter does not know this key" in answer.text


def test_an_integration_can_be_renamed(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    pages.get("/account")
    assert "Our team" not in pages.get("/").text
    page = "/integrations/1"
    (field,) = lint(pages.get(page).text).query("input[name=label]")
    assert field.attrs["value"] == "OpenRouter"
    assert pages.post(f"{page}/rename", 303, page, label="  Our team  ").headers["Location"] == page
    assert "The integration is called “Our team” now." in pages.get(page).text
    for path in (page, "/", "/integrations", "/statement", "/ledger.csv"):
        assert "Our team" in pages.get(path).text, path


@pytest.mark.parametrize(
    ("label", "said"),
    [("", "Enter a label."), ("  ", "Enter a label."), ("x" * 101, "up to 100 characters"), ("a\nb", "can't be shown")],
)
def test_a_label_that_can_not_be_one_is_refused(
    app: Flask, pages: Pages, sandbox: Sandbox, label: str, said: str
) -> None:
    connected(app, pages, sandbox)
    answer = pages.post("/integrations/1/rename", 422, "/integrations/1", label=label)
    assert said in html.unescape(answer.text)
    assert answer.text.count('aria-invalid="true"') == 1
    assert "Error: OpenRouter" in answer.text


@on_sqlite
def test_keys_that_are_still_being_read_are_said_where_their_costs_are_missed(
    app: Flask, pages: Pages, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "COMMIT_SECONDS", 0.0)
    pages.connect(sandbox.key("lively"))
    pages.get("/account")
    read, seen = OpenRouterReader.key_activity, list[list[str]]()

    def watched(self: OpenRouterReader, key_hash: str) -> Activity:
        seen.append([pages.get(path).text for path in ("/?group=key", "/breakdown?group=key", "/integrations/1", "/")])
        return read(self, key_hash)

    monkeypatch.setattr(OpenRouterReader, "key_activity", watched)
    run_due(app)
    count = len(sandbox.account("lively").keys(sandbox.today))
    for number, texts in ((count, seen[0]), (count - 2, seen[2]), (1, seen[-1])):
        *by_key, by_model = (" ".join(lint(text).to_text().split()) for text in texts)
        for words in by_key:
            assert f"{number} of {count} API keys {'is' if number == 1 else 'are'} still being read." in words
        assert "still being read" not in by_model
    for path in ("/?group=key", "/breakdown?group=key", "/integrations/1"):
        assert "still being read" not in pages.get(path).text


@on_sqlite
def test_a_sync_names_the_days_before_the_window_that_it_read(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    with app.app_context():
        db.session.execute(update(Workspace).values(plan="ultimate"))
        db.session.commit()
    connected(app, pages, sandbox)
    pages.post("/integrations/1/sync", 303, "/integrations")
    run_due(app)
    rows = [" ".join(row.to_text().split()) for row in lint(pages.get("/integrations/1").text).query("#syncs tbody tr")]
    assert "and 335 earlier days, 20 Nov 2025 – 20 Oct 2026" in rows[1]
    assert "21 Oct – 19 Nov 2026" in rows[1]
    assert "21 Oct – 19 Nov 2026" in rows[0]
    assert "earlier" not in rows[0]


@pytest.mark.parametrize(
    ("name", "sentence", "link"),
    [
        ("inference", "This is a regular inference key. Grafient needs a Management key", True),
        ("revoked", "OpenRouter does not know this key", True),
        ("down", "OpenRouter returned an error (500).", False),
        ("cloudflare", "OpenRouter could not be reached", False),
        ("limited", "OpenRouter is rate-limiting; try again in", False),
        ("null-data", "a shape that Grafient does not know", False),
    ],
)
def test_a_bad_key_gets_one_clear_sentence(
    pages: Pages, sandbox: Sandbox, name: str, sentence: str, link: bool
) -> None:
    for path, htmx in (("/integrations/test", True), ("/integrations/test", False), ("/integrations", False)):
        answer = pages.post(path, 422, NEW, htmx=htmx, provider="openrouter", label="", api_key=sandbox.key(name))
        assert sentence in answer.text
        assert "User not found" not in answer.text
        assert sandbox.key(name) not in answer.text
        if htmx:
            assert ("settings/management-keys" in answer.text) == link


@pytest.mark.parametrize("bad", ["", "   ", "sk-or\nv1", "sk or v1", "sk-or-v1-ключ", "x" * 513, "a\tb", "a\x7fb"])
def test_what_can_be_no_key_is_refused_before_anything_is_sent(pages: Pages, sandbox: Sandbox, bad: str) -> None:
    for path in ("/integrations/test", "/integrations"):
        answer = pages.post(path, 422, NEW, provider="openrouter", label="", api_key=bad)
        assert 'aria-invalid="true"' in answer.text
    assert sandbox.requests() == []


@pytest.mark.parametrize("fields", [{"label": "x" * 101}, {"label": "a\nb"}, {"provider": "nobody"}])
def test_other_fields_are_checked_too(pages: Pages, sandbox: Sandbox, fields: dict[str, str]) -> None:
    data = {"provider": "openrouter", "label": "", "api_key": sandbox.key("lively"), **fields}
    pages.post("/integrations", 422, NEW, **data)
    pages.post("/integrations/test", 422, NEW, htmx=True, **data)
    assert sandbox.requests() == []


def test_adding_leads_to_the_cards_and_the_card_goes_from_backfilling_to_up_to_date(
    app: Flask, pages: Pages, sandbox: Sandbox
) -> None:
    assert pages.connect(sandbox.key("lively"), "Production — OpenRouter").headers["Location"] == "/integrations"
    page = pages.get("/integrations").text
    assert "Production — OpenRouter" in page
    assert "Backfilling" in page
    assert "every 2s" in pages.get("/integrations/1/card").text
    run_due(app)
    card = pages.get("/integrations/1/card").text
    assert "Up to date" in card
    assert "every" not in card
    assert "<html" not in card


def test_htmx_is_sent_to_the_cards_by_a_header(pages: Pages, sandbox: Sandbox) -> None:
    fields = {"provider": "openrouter", "label": "", "api_key": sandbox.key("lively")}
    answer = pages.post("/integrations", 200, NEW, htmx=True, **fields)
    assert answer.headers["HX-Redirect"] == "/integrations"


def test_the_same_account_twice_is_refused_with_its_name_unless_insisted(pages: Pages, sandbox: Sandbox) -> None:
    pages.connect(sandbox.key("lively"), "First one")
    fields = {"provider": "openrouter", "label": "", "api_key": sandbox.key("lively-again")}
    answer = pages.post("/integrations", 422, NEW, **fields)
    assert "First one" in answer.text
    assert 'name="twice"' in answer.text
    pages.post("/integrations", 303, NEW, twice="y", **fields)


def test_force_sync_is_the_card_and_only_one_run(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    card = pages.post("/integrations/1/sync", 200, "/integrations", htmx=True)
    assert "Syncing" in card.text
    assert pages.post("/integrations/1/sync", 303, "/integrations").headers["Location"] == "/integrations"
    run_due(app)
    assert len([r for r in sandbox.requests() if r.path.endswith("/activity") and not r.query]) == 2


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        ("down", "Retrying"),
        ("revoked", "Needs a new key"),
        ("misshapen", "Provider changed its API"),
    ],
)
def test_each_fault_has_its_state_and_says_what_to_do(
    app: Flask, pages: Pages, sandbox: Sandbox, fault: str, state: str
) -> None:
    connected(app, pages, sandbox)
    sandbox.fault("lively", fault)
    pages.post("/integrations/1/sync", 303, "/integrations")
    run_due(app)
    for path in ("/integrations", "/integrations/1", "/integrations/1/card"):
        assert state in pages.get(path).text
    assert "User not found" not in pages.get("/integrations/1").text


def test_no_usage_is_said_and_is_not_zero_dollars(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox, "empty")
    assert "No usage yet" in pages.get("/integrations").text


def test_pause_and_resume(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    pages.post("/integrations/1/pause", 303, "/integrations/1")
    assert "Paused" in pages.get("/integrations").text
    pages.post("/integrations/1/resume", 303, "/integrations/1")
    run_due(app)
    assert "Up to date" in pages.get("/integrations").text


def test_force_sync_leaves_a_pause_as_it_is(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    pages.post("/integrations/1/pause", 303, "/integrations/1")
    card = pages.post("/integrations/1/sync", 200, "/integrations", htmx=True)
    assert "Syncing" in card.text
    run_due(app)
    assert "Paused" in pages.get("/integrations/1/card").text
    assert "Resume" in pages.get("/integrations/1").text


def test_a_card_says_what_the_last_sync_brought(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    whole = sandbox.truth("lively", TODAY - timedelta(days=30), TODAY - timedelta(days=1)).usage
    assert f"30 days, {usd(whole)}" in _words(pages)
    assert "See your costs of OpenRouter" in _words(pages)
    (costs,) = [link.attrs["href"] for link in lint(pages.get("/integrations").text).query("article a[href^='/?']")]
    assert str(costs) == "/?integration=1"
    assert usd(whole) in pages.get(str(costs)).text
    day = a_day(sandbox)
    sandbox.restate("lively", day, "1.5")
    grown = sandbox.truth("lively", day, day).usage / 3
    pages.post("/integrations/1/sync", 303, "/integrations")
    run_due(app)
    assert f"1 day changed, {usd(grown, signed=True)}" in _words(pages)
    assert "See your costs" not in _words(pages), "that is for the first sync"
    with time_machine.travel(NOON + timedelta(hours=1), tick=False):  # so that today stands still too
        for _ in range(2):
            pages.post("/integrations/1/sync", 303, "/integrations")
            run_due(app)
    assert "Nothing new" in _words(pages)


def _words(pages: Pages) -> str:
    return " ".join(lint(pages.get("/integrations/1/card").text).to_text().split())


@on_sqlite
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lively", "Verified"),
        ("no-analytics", "0 of 30 days cross-checked"),
        ("analytics-off", "Differs by $"),
    ],
)
def test_a_card_says_how_its_last_days_were_checked(
    app: Flask, pages: Pages, sandbox: Sandbox, name: str, said: str
) -> None:
    pages.connect(sandbox.key(name))
    assert "Last 30 days" not in pages.get("/integrations").text, "nothing has been read yet"
    run_due(app)
    (row,) = lint(pages.get("/integrations").text).query(".card-check")
    assert " ".join(row.to_text().split()).startswith(f"Last 30 days {said}")


def test_a_card_asks_again_only_when_something_can_have_changed(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    def trigger() -> list[str]:
        return re.findall(r'hx-trigger="([^"]*)"', pages.get("/integrations/1/card").text)

    connected(app, pages, sandbox)
    assert trigger() == []
    pages.post("/integrations/1/sync", 303, "/integrations")
    assert trigger() == ["every 2s"]
    sandbox.fault("lively", "limited")  # and asks for two minutes of peace
    run_due(app)
    assert "Retrying" in pages.get("/integrations/1/card").text
    ((word, seconds),) = [found.split() for found in trigger()]
    assert word == "every"
    assert 60 < int(seconds.removesuffix("s")) <= 150


def test_two_tabs_that_see_the_same_restatements_at_once(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    """Both find that nothing was seen yet, and both note it: the second updates what the first wrote."""
    connected(app, pages, sandbox)
    sandbox.restate("lively", a_day(sandbox), "1.5")
    pages.post("/integrations/1/sync", 303, "/integrations")
    run_due(app)
    asked, answered = threading.Barrier(2, timeout=20), list[int]()

    def both_have_looked(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("INSERT INTO restatement_seen"):
            asked.wait()

    def look() -> None:
        with app.app_context():
            mark_restatements_seen(1, 1)
            answered.append(1)

    with app.app_context():
        event.listen(db.engine, "before_cursor_execute", both_have_looked)
        try:
            if db.engine.dialect.name == "sqlite":  # its writers wait for each other before they look
                asked = threading.Barrier(1)
            tabs = [threading.Thread(target=look) for _ in range(2)]
            for tab in tabs:
                tab.start()
            for tab in tabs:
                tab.join()
        finally:
            event.remove(db.engine, "before_cursor_execute", both_have_looked)
        seen = db.session.execute(select(RestatementSeen.restatement_id)).scalars().all()
        latest = db.session.execute(select(func.max(Restatement.id))).scalar_one()
        db.session.rollback()
    assert answered == [1, 1]
    assert seen == [latest]
    assert "since you last looked" not in pages.get("/").text


def test_the_raw_replies_of_every_sync_can_be_had(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    sandbox.fault("lively", "misshapen")
    pages.post("/integrations/1/sync", 303, "/integrations")
    run_due(app)
    links = re.findall(r'href="(/integrations/1/runs/\d+/replies.zip)"', pages.get("/integrations/1").text)
    assert len(links) == 2
    whole, unread = (_unzipped(pages, link) for link in sorted(links))
    assert len(whole) > 10
    assert set(unread) == {"0001.json", "index.json"}
    assert unread["0001.json"].startswith(b'{"data":[')
    assert json.loads(unread["index.json"])[0]["request"] == "GET /activity"
    assert not any(sandbox.key("lively").encode() in body for body in (*whole.values(), *unread.values()))
    pages.get("/integrations/1/runs/9/replies.zip", 404)
    pages.get("/integrations/1/runs/1/reply", 404)


def _unzipped(pages: Pages, link: str) -> dict[str, bytes]:
    with pages.get(link) as answer:
        assert answer.mimetype == "application/zip"
        assert answer.headers["Content-Disposition"].startswith("attachment; filename=grafient-sync-")
        data = answer.data
    with zipfile.ZipFile(io.BytesIO(data)) as folder:
        return {name: folder.read(name) for name in folder.namelist()}


@on_sqlite
def test_a_sync_under_way_says_how_far_it_is(
    app: Flask, pages: Pages, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages.connect(sandbox.key("lively"))
    read, seen = OpenRouterReader.key_activity, []

    def watched(self: OpenRouterReader, key_hash: str) -> Activity:
        if not seen:
            seen.extend(pages.get(f"/integrations/1{path}").text for path in ("/card", ""))
        return read(self, key_hash)

    monkeypatch.setattr(OpenRouterReader, "key_activity", watched)
    run_due(app)
    card, page = (" ".join(re.sub(r"<[^>]*>", " ", text).split()) for text in seen)
    assert "every 2s" in seen[0]
    count = len(sandbox.account("lively").keys(sandbox.today))
    assert f"0 of {count}" in card
    assert f"Running: API keys, 0 of {count}" in page
    assert "Up to date" in pages.get("/integrations/1/card").text


@on_sqlite
def test_what_the_provider_does_not_tell_is_said(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox, "no-analytics")
    assert "does not offer analytics" in pages.get("/integrations/1").text
    assert "Up to date" in pages.get("/integrations/1/card").text


@on_sqlite
@pytest.mark.parametrize(
    ("name", "afterwards"),
    [("lively", "only per model, in its analytics"), ("no-analytics", "it can no longer be read")],
)
def test_days_that_are_about_to_leave_the_window_raise_an_alarm(
    app: Flask, pages: Pages, sandbox: Sandbox, name: str, afterwards: str
) -> None:
    connected(app, pages, sandbox, name)
    assert 'class="alarm"' not in pages.get("/integrations/1/card").text
    with later(23):
        pages.log_in(EMAIL, PASSWORD)
        assert 'class="alarm"' not in pages.get("/integrations/1/card").text
    with later(25):  # once, and never later(0): a clock that goes back is before the session began
        said = re.sub(r"<[^>]+>", "", pages.get("/integrations/1/card").text)
        assert "2 days are missing; the oldest is 20 Nov 2026. OpenRouter reports it in full until 20 Dec 2026;" in said
        assert afterwards in said
        pages.post("/integrations/1/sync", 303, "/integrations")
        run_due(app)
        assert 'class="alarm"' not in pages.get("/integrations/1/card").text


def test_a_new_key_in_place_of_a_rejected_one(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    page = "/integrations/1"
    assert "another account" in pages.post(f"{page}/key", 422, page, api_key=sandbox.key("other")).text
    assert "regular inference key" in pages.post(f"{page}/key", 422, page, api_key=sandbox.key("inference")).text
    pages.post(f"{page}/key", 422, page, api_key="")
    pages.post(f"{page}/key", 303, page, api_key=sandbox.key("lively-again"))
    assert sandbox.key("lively-again")[-4:] in pages.get(page).text
    assert sandbox.key("lively-again") not in pages.get(page).text


@pytest.mark.parametrize(("history", "kept"), [("keep", True), ("delete", False)])
def test_removing_lets_one_choose_what_becomes_of_the_history(
    app: Flask, pages: Pages, sandbox: Sandbox, history: str, kept: bool
) -> None:
    connected(app, pages, sandbox)
    pages.post("/integrations/1/delete", 422, "/integrations/1", history="perhaps")
    pages.post("/integrations/1/delete", 303, "/integrations/1", history=history)
    pages.get("/integrations/1", 404)
    assert ("OpenRouter" in pages.get("/ledger.csv").text) == kept


@pytest.mark.parametrize("name", ["lively-again", "inference"])
def test_a_key_for_what_another_tab_removes_meanwhile_is_no_error(
    pages: Pages, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Asking the provider takes seconds; whether it likes the key makes no difference then."""
    pages.connect(sandbox.key("lively"))
    check = integrations.check

    def slow_check(provider: str, key: str) -> KeyInfo:
        try:
            return check(provider, key)
        finally:
            with db.engine.begin() as another:
                another.execute(delete(Integration))

    monkeypatch.setattr(integrations, "check", slow_check)
    answer = pages.post("/integrations/1/key", 404, "/integrations/1", api_key=sandbox.key(name))
    assert "This page doesn't exist, or it isn't yours." in html.unescape(answer.text)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # on SQLite nobody else can write in between
@pytest.mark.parametrize("action", ["rename", "sync", "pause", "resume"])
def test_what_another_tab_removes_at_that_moment_is_no_error(
    app: Flask, pages: Pages, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    connected(app, pages, sandbox)
    find = integrations.find

    def find_just_before(workspace_id: int, integration_id: int) -> Integration | None:
        found = find(workspace_id, integration_id)
        with db.engine.begin() as another:
            another.execute(delete(Integration))
        return found

    token = pages.token("/integrations/1")
    monkeypatch.setattr(integrations, "find", find_just_before)
    fields = {"csrf_token": token, "label": "Another"}
    assert pages.client.post(f"/integrations/1/{action}", data=fields).status_code == 404


@on_sqlite
@pytest.mark.parametrize(
    ("path", "name", "status"),
    [
        ("/integrations/1/key", "lively-again", 403),
        ("/integrations/1/key", "inference", 404),
        ("/integrations", "lively-again", 403),
        ("/integrations", "inference", 302),
        ("/integrations/test", "lively-again", 302),
    ],
)
def test_who_deletes_the_account_while_a_key_is_checked_is_told_no_error(
    app: Flask, pages: Pages, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, path: str, name: str, status: int
) -> None:
    pages.connect(sandbox.key("lively"))
    check = integrations.check

    def delete_account() -> None:
        with app.app_context():
            leaving.delete_account(1, "delete", ())

    def slow_check(provider: str, key: str) -> KeyInfo:
        try:
            return check(provider, key)
        finally:
            other_tab = threading.Thread(target=delete_account)
            other_tab.start()
            other_tab.join()

    monkeypatch.setattr(integrations, "check", slow_check)
    pages.post(path, status, NEW, provider="openrouter", api_key=sandbox.key(name))
    pages.get("/account", 302)


@on_sqlite
def test_a_fault_of_what_is_still_there_stays_one(
    app: Flask, pages: Pages, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected(app, pages, sandbox)

    def fail(integration: Integration, label: str) -> None:
        raise StaleDataError

    token = pages.token("/integrations/1")
    monkeypatch.setattr(integrations, "rename", fail)
    with pytest.raises(StaleDataError):
        pages.client.post("/integrations/1/rename", data={"csrf_token": token, "label": "Another"})


def test_a_restated_day_is_shown(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    day = a_day(sandbox)
    sandbox.restate("lively", day, 2)
    pages.post("/integrations/1/sync", 303, "/integrations")
    run_due(app)
    page = pages.get("/integrations/1").text.lower()
    assert "restated" in page
    assert day.isoformat() in page


def test_nobody_sees_what_is_someone_elses(
    app: Flask, settings: dict[str, str], pages: Pages, sandbox: Sandbox
) -> None:
    connected(app, pages, sandbox)
    app.extensions["settings"].__dict__["registration"] = "open"
    other = Pages(app)
    other.register("other@example.com", "another fine password")
    for path in ("", "/card", "/runs/1/replies.zip", f"/days/{a_day(sandbox)}"):
        other.get(f"/integrations/1{path}", 404)
    for path in ("/sync", "/key", "/delete", "/pause", "/resume", "/rename"):
        other.post(f"/integrations/1{path}", 404, NEW, label="Mine", api_key=sandbox.key("other"), history="delete")
    other.get("/?integration=1", 404)
    other.get("/ledger.csv?integration=1", 404)
    assert "lively" not in other.get("/integrations").text
    assert other.get("/ledger.csv").text.count("\n") == 1
    pages.get("/integrations/1")


def test_without_a_session_everything_leads_to_the_login(app: Flask) -> None:
    anonymous = Pages(app)
    for path in ("/", "/breakdown", "/ledger.csv", "/breakdown.csv", "/integrations", "/integrations/1", "/account"):
        assert "/login" in anonymous.get(path, 302).headers["Location"]


def test_a_form_without_its_token_changes_nothing(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    for path in ("", "/test", "/1/sync", "/1/key", "/1/delete", "/1/pause", "/1/rename"):
        answer = pages.client.post(f"/integrations{path}", data={"history": "delete"})
        assert answer.status_code == 400
        assert "expired" in answer.text
    pages.get("/integrations/1")


def test_when_a_key_expires_is_kept_until_another_one_is_there(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox, "other")
    ends = f"and expires 31 Dec {sandbox.today.year + 1}, 23:59 UTC."
    assert ends in " ".join(lint(pages.get("/integrations/1").text).to_text().split()).replace(" .", ".")
    connected(app, pages, sandbox, "lively")
    assert "expires" not in pages.get("/integrations/2").text


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (None, None),
        ("", None),
        ("never", None),
        ("2027-12-31T23:59:59Z", datetime(2027, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("2027-12-31T23:59:59+02:00", datetime(2027, 12, 31, 21, 59, 59, tzinfo=UTC)),
        ("2027-12-31", datetime(2027, 12, 31, tzinfo=UTC)),
    ],
)
def test_what_a_provider_says_of_a_keys_end(text: str | None, moment: datetime | None) -> None:
    assert integrations._expiry(KeyInfo(None, None, text)) == moment
