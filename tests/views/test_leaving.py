"""Leaving: everything is taken along, and a workspace or an account is gone for good, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import io
import json
import re
import threading
import zipfile
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select

from grafient import accounts, audit, integrations, leaving, members, runs, sync
from grafient.extensions import db
from grafient.jobs import work
from grafient.models import Integration, Line, Membership, SyncRun, User, Workspace, utc_now
from grafient.providers.openrouter import OpenRouterReader
from grafient.sandbox import Sandbox
from grafient.states import Role, Trigger
from tests.conftest import EMAIL, PASSWORD
from tests.pages import Pages, lint
from tests.stored import told_of_something
from tests.syncing import at, claim_one, later, leave_out_keys, on_sqlite
from tests.views.test_audit import noted
from tests.views.test_integrations import connected, run_due
from tests.views.test_members import OTHER, joined, link, roles

PAGE = "/account/data"
NAME = "Books & Co"
THIRD = "third@example.com"

Key = tuple[str, tuple[Any, ...]]


@pytest.fixture(autouse=True)
def _noon() -> Iterator[None]:
    with at():
        yield


def registered(app: Flask, email: str) -> Pages:
    """Somebody with a workspace of their own."""
    app.extensions["settings"].__dict__["registration"] = "open"
    other = Pages(app)
    other.register(email, PASSWORD)
    return other


def named(pages: Pages, name: str = NAME) -> None:
    pages.post("/account/workspace", page="/account/members", name=name)


def delete_workspace(pages: Pages, typed: str = "delete", status: int = 303) -> str:
    return pages.post(f"{PAGE}/workspace", status, PAGE, **{"workspace-typed": typed}).text


def delete_account(pages: Pages, typed: str = "delete", status: int = 303) -> str:
    return pages.post(f"{PAGE}/account", status, PAGE, **{"account-typed": typed}).text


def words(pages: Pages) -> str:
    """What the page says."""
    return " ".join(lint(pages.get(PAGE).text).to_text().split()).replace(" .", ".")


def contents(app: Flask) -> dict[Key, dict[str, Any]]:
    """Every row of every table, by its table and primary key."""
    with app.app_context():
        found = {}
        for table in db.metadata.sorted_tables:
            for row in db.session.execute(select(table)):
                values = dict(row._mapping)
                found[table.name, tuple(values[column.name] for column in table.primary_key)] = values
        db.session.rollback()
    return found


def belonging(rows: dict[Key, dict[str, Any]], *roots: Key) -> set[Key]:
    """The roots, and all rows that refer to them, or to those that do, by the foreign keys of the metadata."""
    found = set(roots)
    for table in db.metadata.sorted_tables:
        refers = [
            (foreign.parent.name, foreign.column.table.name)
            for foreign in table.foreign_keys
            if foreign.parent.name != "workspace_id" or table.name != "user"
        ]
        for (name, key), row in rows.items():
            if name == table.name and any((to, (row[column],)) in found for column, to in refers):
                found.add((name, key))
    return found


def chain(rows: dict[Key, dict[str, Any]], number: int) -> set[Key]:
    return {key for key in rows if key[0] == "audit_entry" and key[1][0] == number}


def entries(app: Flask) -> list[tuple[str, str, str]]:
    """What the installation's audit log says."""
    return noted(app, audit.INSTALLATION)


def test_everything_is_downloaded_with_one_button_and_noted(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    page = pages.get("/account").text
    assert f'href="{PAGE}"' in page
    answer = pages.post(f"{PAGE}/download", 200, PAGE)
    assert answer.mimetype == "application/zip"
    assert answer.headers["Content-Disposition"] == "attachment; filename=grafient-workspace-2026-11-20.zip"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Content-Length" not in answer.headers, "it is sent as it is made"
    folder = zipfile.ZipFile(io.BytesIO(answer.data))
    assert folder.testzip() is None
    manifest = json.loads(folder.read("manifest.json"))
    assert manifest["grafient"] == app.extensions["version"]
    assert folder.read("costs.csv").count(b"\n") > 100
    assert noted(app)[-1] == (EMAIL, "exported", "everything")
    assert json.loads(folder.read("audit.jsonl").splitlines()[-1])["subject"] == "everything"
    pages.post(f"{PAGE}/download", 200, PAGE)


@on_sqlite
def test_sample_data_says_so_in_the_name_of_the_file(app: Flask, pages: Pages) -> None:
    pages.post("/sample", page="/")
    answer = pages.post(f"{PAGE}/download", 200, PAGE)
    assert "filename=grafient-sample-workspace-2026-11-20.zip" in answer.headers["Content-Disposition"]


@on_sqlite
def test_another_page_can_not_start_a_download(app: Flask, pages: Pages) -> None:
    before = noted(app)
    assert pages.get(f"{PAGE}/download", 302).location == f"{PAGE}#download"
    assert pages.client.post(f"{PAGE}/download").status_code == 400
    assert noted(app) == before


@on_sqlite
@pytest.mark.parametrize("form", ["download", "workspace", "account"])
def test_a_sign_in_of_long_ago_is_asked_for_the_password(app: Flask, pages: Pages, form: str) -> None:
    with pages.client.session_transaction() as session:
        session["fs_paa"] -= 31 * 60
    before = contents(app)
    typed = {f"{form}-typed": "delete"}
    answer = pages.post(f"{PAGE}/{form}", 303, PAGE, **typed)
    assert answer.location == f"/verify?next={PAGE}/{form}"
    assert contents(app) == before
    confirmed = pages.post(answer.location, 302, "/verify", password=PASSWORD)
    page = pages.client.get(confirmed.location, follow_redirects=True)
    assert (page.status_code, page.request.path) == (200, PAGE)
    assert contents(app).keys() == before.keys(), "nothing happens before the button is pressed again"
    assert pages.post(f"{PAGE}/{form}", page=PAGE, status=200 if form == "download" else 303, **typed)


@on_sqlite
def test_too_many_downloads_are_told_to_wait(app: Flask, pages: Pages) -> None:
    for _ in range(4):
        pages.post(f"{PAGE}/download", 200, PAGE)
    assert "Too many attempts" in pages.post(f"{PAGE}/download", 429, PAGE).text


@on_sqlite
def test_others_than_owners_see_no_button_and_have_no_way(app: Flask, pages: Pages) -> None:
    with app.app_context():
        accounts.set_plan(db.session.query(User).filter_by(email=EMAIL).one(), "pro")
    for role in (Role.VIEWER, Role.MEMBER, Role.ADMIN):
        other = joined(app, pages, role.value, f"{role}@example.com")
        page = other.get(PAGE).text
        assert "An owner of a workspace can download all of it, or delete it." in page
        assert "Delete the workspace" not in page
        before = contents(app)
        for form in ("download", "workspace"):
            answer = other.post(f"{PAGE}/{form}", 403, PAGE, **{"workspace-typed": "delete"})
            assert "for owners" in answer.text
        assert contents(app) == before


def test_a_deleted_workspace_leaves_no_row_and_all_others_as_they_were(
    app: Flask, pages: Pages, sandbox: Sandbox
) -> None:
    connected(app, pages, sandbox)
    with app.app_context():
        sandbox.restate("lively", sandbox.today.replace(day=10), 2)
    pages.post("/integrations/1/sync", page="/integrations")
    run_due(app)
    pages.get("/integrations/1")  # what changed was seen
    other = registered(app, THIRD)
    connected(app, other, sandbox, "no-flag")
    named(pages)
    link(pages, note="For the bookkeeper")
    link(other)
    with app.app_context():
        told_of_something(1, 1)
        told_of_something(2, 2)
    page = words(pages)
    assert f"{NAME} goes for good, with 1 integration and its key, 31 days of costs" in page
    assert f"Type {NAME} to confirm" in page
    assert page.index("Download everything") < page.index("Delete the workspace")

    before = contents(app)
    goes = belonging(before, ("workspace", (1,))) | chain(before, 1)
    assert {name for name, _ in goes} == set(db.metadata.tables) - {
        "user",
        "user_session",
        "passkey",
        "mail",
        "encryption_key",
    }
    theirs = belonging(before, ("workspace", (2,))) | chain(before, 2)
    assert len(theirs) > 100
    delete_workspace(pages, f"  {NAME.upper()} ")
    after = contents(app)
    assert not goes & after.keys()
    for key in before.keys() - goes:
        if key not in {("user", (1,)), *_sessions(before)}:
            assert after[key] == before[key], key
    assert {key for key in after if key not in before} <= chain(after, audit.INSTALLATION)
    assert entries(app)[-1] == (EMAIL, "workspace deleted", "workspace 1")
    with app.app_context():
        assert audit.verify()[0] == []
    assert NAME not in str([values for key, values in after.items() if key[0] != "user"])

    page = pages.get("/account").text
    assert "The workspace was deleted, with everything in it." in page
    assert "Ask for an invitation" in page
    assert "You don't belong to a workspace" in pages.get("/", 403).text
    assert "$" in other.get("/").text


def _sessions(rows: dict[Key, dict[str, Any]]) -> set[Key]:
    return {key for key in rows if key[0] == "user_session"}


@on_sqlite
@pytest.mark.parametrize("typed", ["", "delete", "Books", "Books  and Co", f"{NAME}.", "x" * 300])
def test_another_name_deletes_nothing(app: Flask, pages: Pages, typed: str) -> None:
    named(pages)
    before = contents(app)
    page = delete_workspace(pages, typed, 422)
    assert "Error: Your data" in page
    said = "That is longer than any name." if len(typed) > 200 else "Type “Books &amp; Co” to delete it. Nothing was"
    assert said in page
    assert contents(app) == before
    page = delete_account(pages, NAME, 422)
    assert "Type “delete” to delete it. Nothing was deleted." in page
    assert contents(app) == before


def test_its_members_look_at_another_of_theirs_or_at_none(app: Flask, pages: Pages) -> None:
    both, alone = registered(app, THIRD), joined(app, pages, "admin")
    address = link(pages)
    both.post(address, page=address)
    page = words(pages)
    assert f"2 other members lose it: {OTHER}, {THIRD}. Their accounts stay." in page
    delete_workspace(pages)
    with app.app_context():
        looks = {user.email: user.workspace_id for user in db.session.execute(select(User)).scalars()}
    assert looks == {EMAIL: None, OTHER: None, THIRD: 2}
    assert "You don't belong to a workspace" in alone.get("/", 403).text
    assert both.client.get("/integrations/new").status_code == 200, "they own this one"
    address = link(both)
    pages.post(address, page=address)
    assert roles(app, 2) == {THIRD: "owner", EMAIL: "viewer"}


def test_a_sync_under_way_writes_nothing_into_what_is_gone(
    app: Flask, pages: Pages, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_keys(monkeypatch)
    pages.connect(sandbox.key("lively"))
    ask = OpenRouterReader.activity

    def meanwhile(reader: OpenRouterReader) -> Any:
        found = ask(reader)
        leaving.delete_workspace(1, "delete")
        return found

    monkeypatch.setattr(OpenRouterReader, "activity", meanwhile)
    with app.app_context():
        claim = claim_one(utc_now())
        assert claim is not None
        db.session.commit()
        with pytest.raises(runs.LeaseLost):
            sync.perform(claim)
        db.session.rollback()
        assert db.session.execute(select(func.count()).select_from(Line)).scalar() == 0
        integration = db.session.execute(select(Integration)).scalar_one()
        assert (integration.key_ciphertext, integration.key_hint) == (None, "")
        leaving.finish(10)
    _is_gone(app)


def _is_gone(app: Flask, workspace_id: int = 1) -> None:
    rows = contents(app)
    assert not {name for name, _ in rows} & {"workspace", "integration", "sync_run", "line", "membership", "series"}
    assert not chain(rows, workspace_id)


def test_a_deletion_waits_for_a_sync_that_is_just_committing(
    app: Flask, pages: Pages, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_keys(monkeypatch)
    pages.connect(sandbox.key("lively"))
    threads: list[threading.Thread] = []
    hold = runs.hold

    def held(claim: runs.Claim) -> SyncRun:
        run = hold(claim)
        if not threads:
            threads.append(_in_background(app, lambda: leaving.delete_workspace(1, "delete")))
            threads[0].join(0.3)
            assert threads[0].is_alive(), "it waits"
        return run

    monkeypatch.setattr(runs, "hold", held)
    with app.app_context():
        claim = claim_one(utc_now())
        assert claim is not None
        db.session.commit()
        with contextlib.suppress(runs.LeaseLost):  # on SQLite the sync may be faster a second time
            sync.perform(claim)
        db.session.rollback()
        threads[0].join(20)
        assert db.session.execute(select(func.count()).select_from(Line)).scalar_one() > 100, "it had committed"
        db.session.rollback()
        leaving.finish(10)
    _is_gone(app)


def _in_background(app: Flask, change: Callable[[], None], ended: list[str] | None = None) -> threading.Thread:
    def run() -> None:
        with app.app_context():
            try:
                change()
                said = "done"
            except (members.Deleted, members.Refused) as error:
                db.session.rollback()
                said = type(error).__name__
            finally:
                db.session.remove()
            if ended is not None:
                ended.append(said)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_of_two_who_delete_it_at_once_one_does(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    joined(app, pages, "owner")
    ended: list[str] = []
    threads = [_in_background(app, lambda: leaving.delete_workspace(1, "delete"), ended) for _ in range(2)]
    for thread in threads:
        thread.join(20)
    assert sorted(ended) == ["Deleted", "done"]
    threads = [_in_background(app, lambda: leaving.finish(10)) for _ in range(2)]
    for thread in threads:
        thread.join(20)
    with app.app_context():
        leaving.finish(10)
    _is_gone(app)
    assert [action for _, action, _ in entries(app)].count("workspace deleted") == 1


@on_sqlite
def test_who_changes_a_workspace_that_was_just_deleted_is_told_so(
    app: Flask, pages: Pages, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key was being checked when somebody else deleted the workspace."""
    check = integrations.check

    def meanwhile(provider: str, key: str) -> Any:
        found = check(provider, key)
        leaving.delete_workspace(1, "delete")
        return found

    monkeypatch.setattr(integrations, "check", meanwhile)
    fields = {"provider": "openrouter", "api_key": sandbox.key("lively"), "label": ""}
    page = pages.post("/integrations", 403, page="/integrations/new", **fields)
    assert "You don't belong to a workspace" in page.text
    with app.app_context():
        assert not db.session.execute(select(Integration)).all(), "no key is kept for anybody"


def test_who_uses_an_invitation_meanwhile_is_taken_out_too(app: Flask, pages: Pages) -> None:
    registered(app, OTHER)
    token = link(pages).rpartition("/")[2]
    ended: list[str] = []
    with app.app_context():
        assert members.invited(token, for_update=True) is not None
        thread = _in_background(app, lambda: leaving.delete_workspace(1, "delete"), ended)
        thread.join(0.3)
        assert thread.is_alive(), "it waits"
        assert members.accept(token, db.session.get_one(User, 2))
        db.session.commit()
        thread.join(20)
        assert ended == ["done"]
        assert [row.workspace_id for row in db.session.execute(select(Membership)).scalars()] == [2]
        assert db.session.get_one(User, 2, populate_existing=True).workspace_id == 2


def test_whoever_joins_meanwhile_is_not_deleted_with_an_account_that_was_alone(app: Flask, pages: Pages) -> None:
    registered(app, OTHER)
    token = link(pages).rpartition("/")[2]
    ended: list[str] = []
    with app.app_context():
        assert members.invited(token, for_update=True) is not None
        thread = _in_background(app, lambda: leaving.delete_account(1, "delete", {OTHER}), ended)
        thread.join(0.3)
        assert thread.is_alive(), "it waits"
        assert members.accept(token, db.session.get_one(User, 2))
        db.session.commit()
        thread.join(20)
    assert ended == ["Refused"], "they are the last owner of a workspace that others belong to"
    assert roles(app) == {EMAIL: "owner", OTHER: "viewer"}


def test_what_was_cut_off_nobody_sees_and_a_tick_goes_on(
    app: Flask, pages: Pages, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected(app, pages, sandbox)
    lines = _count(app, Line)
    portions: list[int] = []
    delete_portion = integrations.delete_portion

    def dies(integration_id: int) -> None:
        portions.append(integration_id)
        if len(portions) == 3:
            raise KeyboardInterrupt
        delete_portion(integration_id)

    monkeypatch.setattr(integrations, "delete_portion", dies)
    with pytest.raises(KeyboardInterrupt):
        delete_workspace(pages)
    assert 0 < _count(app, Line) < lines, "it goes in portions"
    for path in ("/", "/integrations", "/ledger.csv", "/account/members"):
        assert "You don't belong to a workspace" in pages.get(path, 403).text
    with app.app_context():
        assert runs.insert_daily(utc_now().replace(day=22)) == 0, "nobody reads it any more"
        db.session.rollback()
        work.tick()
    _is_gone(app)
    with app.app_context():
        work.tick()


@on_sqlite
def test_a_request_deletes_no_longer_than_it_may(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    lines = _count(app, Line)
    with app.app_context():
        leaving.delete_workspace(1, "delete")
        leaving.finish(0)
    assert 0 < _count(app, Line) < lines


def test_a_sync_that_the_clock_asked_for_meanwhile_goes_too(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    with app.app_context():
        leaving.delete_workspace(1, "delete")
        runs.request(1, Trigger.DAILY)
        db.session.commit()
        leaving.finish(10)
    _is_gone(app)


def _count(app: Flask, rows: type[Any]) -> int:
    with app.app_context():
        return db.session.execute(select(func.count()).select_from(rows)).scalar_one()


def test_an_account_goes_with_all_of_its_sessions_and_the_workspaces_in_which_it_is_alone(
    app: Flask, pages: Pages, sandbox: Sandbox
) -> None:
    other = registered(app, OTHER)
    named(other, "Alone")
    connected(app, other, sandbox)
    address = link(pages)
    other.post(address, page=address)
    second = Pages(app)
    second.log_in(OTHER, PASSWORD)
    page = words(other)
    assert "A workspace in which you are alone is deleted with it: Alone." in page
    assert "Audit logs keep your e-mail address" in page
    before = contents(app)
    goes = belonging(before, ("user", (2,))) | belonging(before, ("workspace", (2,))) | chain(before, 2)
    delete_account(other)
    after = contents(app)
    assert not goes & after.keys()
    for key in before.keys() - goes - _sessions(before):
        assert after[key] == before[key], key
    assert OTHER not in str([row for key, row in after.items() if key[0] != "audit_entry"])
    assert noted(app)[-1] == (OTHER, "account deleted", OTHER)
    assert entries(app)[-2:] == [(OTHER, "workspace deleted", "workspace 2"), (OTHER, "account deleted", OTHER)]
    assert "Your account was deleted." in other.get("/login").text
    for gone in (other, second):
        gone.get("/", 302)
    assert "Email or password is wrong." in Pages(app).post("/login", 200, email=OTHER, password=PASSWORD).text
    assert roles(app) == {EMAIL: "owner"}


@on_sqlite
def test_the_last_owner_of_a_workspace_with_others_stays(app: Flask, pages: Pages) -> None:
    owner = registered(app, OTHER)
    named(owner)
    viewer = registered(app, THIRD)
    address = link(owner)
    viewer.post(address, page=address)
    before = contents(app)
    page = owner.get(PAGE).text
    said = "You are the last owner of a workspace that others belong to (Books &amp; Co). Make somebody else an owner"
    assert said in page
    assert "Delete my account" not in page
    token = owner.token(PAGE)
    refused = owner.client.post(f"{PAGE}/account", data={"csrf_token": token, "account-typed": "delete"})
    assert refused.status_code == 409
    assert said in refused.text
    assert contents(app) == before
    owner.post("/account/members/3/role", page="/account/members", role="owner")
    delete_account(owner)
    assert roles(app, 2) == {THIRD: "owner"}
    delete_account(viewer)
    assert roles(app, 2) == {}
    assert _count(app, Workspace) == 1


@on_sqlite
def test_who_belongs_to_no_workspace_can_go(app: Flask, pages: Pages) -> None:
    other = joined(app, pages)
    pages.post("/account/members/2/remove", page="/account/members")
    other.log_in(OTHER, PASSWORD)
    assert "An owner of a workspace can download" in other.get(PAGE).text
    delete_account(other)
    assert _count(app, User) == 1


@on_sqlite
def test_whoever_runs_it_can_not_leave_it_to_nobody(app: Flask, pages: Pages) -> None:
    second, third = registered(app, OTHER), registered(app, THIRD)
    page = delete_account_refused(pages)
    assert "Name one of them in GRAFIENT_OPERATORS first" in page
    app.extensions["settings"].__dict__["operators"] = frozenset({"typo@example.com", EMAIL})
    assert "Name one of them in GRAFIENT_OPERATORS first" in delete_account_refused(pages)
    app.extensions["settings"].__dict__["operators"] = frozenset({THIRD})
    delete_account(pages)
    assert entries(app)[-1] == (EMAIL, "first account deleted", EMAIL)
    assert third.client.get("/operations").status_code == 200
    assert second.client.get("/operations").status_code == 404, "nobody becomes the operator by that"
    fourth = registered(app, "fourth@example.com")
    delete_account(second)
    delete_account(third)
    assert fourth.client.get("/operations").status_code == 404
    delete_account(fourth)
    with later(1):
        assert registered(app, OTHER).client.get("/operations").status_code == 200, "the first of a new beginning"


def delete_account_refused(pages: Pages) -> str:
    answer = pages.client.post(
        f"{PAGE}/account", data={"csrf_token": pages.token("/account"), "account-typed": "delete"}
    )
    assert answer.status_code == 409
    return answer.text


@on_sqlite
def test_after_the_last_account_the_set_up_link_counts_again(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    settings = app.extensions["settings"]
    settings.__dict__["setup_link"] = True
    with app.app_context():
        assert accounts.setup_link(settings) == ""
    delete_account(pages)
    _is_gone(app)
    assert {name for name, _ in contents(app)} == {"audit_entry"}
    with app.app_context():
        assert accounts.first_is_wanted()
        found = re.search(r"/register\?setup=.*", accounts.setup_link(settings))
    assert found
    assert "set-up link" in pages.get("/register", 403).text
    pages.get(found[0])
    pages.register(EMAIL, PASSWORD)
    assert pages.client.get("/operations").status_code == 200


def test_two_owners_who_delete_their_accounts_at_once_leave_nothing(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    joined(app, pages, "owner")
    both: list[str] = []
    threads = [
        _in_background(app, lambda n=number: leaving.delete_account(n, "delete", {OTHER}), both) for number in (1, 2)
    ]
    for thread in threads:
        thread.join(20)
    assert both == ["done", "done"]
    with app.app_context():
        leaving.finish(10)
    _is_gone(app)
    assert _count(app, User) == 0


def test_an_account_that_another_tab_has_just_deleted_is_gone(
    app: Flask, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete = leaving.delete_account

    def twice(user_id: int, typed: str, operators: Collection[str]) -> None:
        delete(user_id, typed, operators)
        delete(user_id, typed, operators)

    monkeypatch.setattr(leaving, "delete_account", twice)
    delete_account(pages)
    assert "Your account was deleted." in pages.get("/register").text
    assert [action for _, action, _ in entries(app)] == ["workspace deleted", "account deleted"]
