"""The page for operators and its line in the log say what the database holds, of whom they may, and for little."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import redis as redis_py
from flask import Flask
from justhtml import JustHTML
from sqlalchemy import update

from grafient import jobs, runs
from grafient.extensions import db
from grafient.jobs import progress, schedule
from grafient.models import Integration, SyncRun, Workspace
from grafient.reports import operations
from grafient.reports.operations import Operations
from grafient.runs import Claim
from grafient.states import Problem, RunStatus, Trigger
from tests import stored
from tests.conftest import PASSWORD
from tests.pages import Pages
from tests.statements import asked
from tests.syncing import NOON, at

SIX = datetime(2026, 11, 20, 6, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def morning(app: Flask) -> Iterator[list[int]]:
    """The morning below, of a workspace that nobody signs in to, eight minutes past six; the ids of its accounts."""
    with app.app_context():
        workspace = Workspace(plan="free")
        db.session.add(workspace)
        db.session.commit()
        ids = [integration.id for integration in a_morning(workspace)[0]]
    with at(SIX + 8 * MINUTE):
        yield ids


def connected(workspace: Workspace, number: int) -> list[Integration]:
    """So many integrations that were there long before."""
    found = [
        stored.add(workspace, f"Secret {one}", problem_detail=f"secret-{one}@example.com") for one in range(number)
    ]
    db.session.commit()
    return found


def due(now: datetime) -> None:
    """What a tick writes."""
    runs.insert_daily(now)
    db.session.commit()


def claim(now: datetime) -> Claim:
    (found,) = runs.claim(now, 1)
    db.session.commit()
    return found


def end(one: Claim, moment: datetime, status: RunStatus = RunStatus.DONE) -> None:
    with at(moment):
        runs.finish(runs.hold(one), status)
        db.session.commit()


def put_back(one: Claim, moment: datetime, retry_after: float | None = None) -> datetime:
    """Fail for a while; the moment of the next try."""
    with at(moment):
        run = runs.hold(one)
        runs.retry_later(run, "secret: busy", retry_after)
        next_try = run.next_attempt_at
        db.session.commit()
    return next_try


def page(now: datetime) -> Operations:
    found = operations.operations(now)
    db.session.rollback()
    return found


def a_morning(workspace: Workspace) -> tuple[list[Integration], datetime]:
    """Eight accounts were due at six: three are done, one failed, one waits for a try again, one is under way, one was
    not claimed yet, and one was removed. Somebody forced another sync, and connected an account."""
    integrations = connected(workspace, 8)
    due(SIX + MINUTE)
    runs.cancel_open(integrations[7].id)
    db.session.commit()
    first, second, third, fails, waits, _under_way = (claim(SIX + MINUTE) for _ in range(6))
    end(first, SIX + 2 * MINUTE)
    end(second, SIX + 5 * MINUTE)
    end(third, SIX + 3 * MINUTE)
    end(fails, SIX + 4 * MINUTE, RunStatus.FAILED)
    next_try = put_back(waits, SIX + 2 * MINUTE, 3600)
    others = connected(workspace, 2)
    with at(SIX + 6 * MINUTE):
        runs.request(others[0].id, Trigger.MANUAL)
        runs.request(others[1].id, Trigger.BACKFILL)
        db.session.commit()
    claimed = claim(SIX + 7 * MINUTE)
    assert claimed.integration_id == others[0].id
    db.session.execute(
        update(Integration).where(Integration.id == fails.integration_id).values(problem=Problem.NEEDS_KEY)
    )
    db.session.execute(update(Integration).where(Integration.id == waits.integration_id).values(problem=Problem.FAULT))
    db.session.commit()
    return integrations, next_try


def test_each_count_is_what_the_database_holds(workspace: Workspace) -> None:
    integrations, next_try = a_morning(workspace)
    now = SIX + 8 * MINUTE
    found = page(now)
    run = found.run
    assert (run.slot.day, run.slot.due, run.slot.done, run.slot.failed, run.slot.open) == (SIX.date(), 7, 3, 1, 3)
    assert (run.waiting.under_way, run.waiting.retrying, run.waiting.unclaimed) == (1, 1, 1)
    assert run.waiting.next_try_at == next_try
    assert run.began_at == SIX + MINUTE
    late = [run.half_done_at, run.last_done_at, run.slot.last_at]
    assert [moment and round((moment - SIX) / MINUTE, 1) for moment in late] == [3, 5, 5]
    assert run.slot.late(now) == 8 * MINUTE
    assert [(one.provider, one.problem, one.failed, one.retrying) for one in found.troubles] == [
        ("openrouter", Problem.FAULT, 0, 1),
        ("openrouter", Problem.NEEDS_KEY, 1, 0),
    ]
    waiting = {other.trigger: (other.waiting.number, other.waiting.under_way) for other in found.others}
    assert waiting == {Trigger.MANUAL: (1, 1), Trigger.BACKFILL: (1, 0)}
    assert [(other.since - SIX) // MINUTE for other in found.others] == [6, 6]
    slow = [(one.integration_id, one.status, round(one.seconds / 60), one.attempts) for one in run.slowest]
    ids = [one.id for one in integrations]
    assert slow == [
        (ids[5], RunStatus.RUNNING, 7, 1),
        (ids[1], RunStatus.DONE, 4, 1),
        (ids[3], RunStatus.FAILED, 3, 1),
        (ids[2], RunStatus.DONE, 2, 1),
        (ids[0], RunStatus.DONE, 1, 1),
    ]
    assert found.ask_after == operations.ASK_SECONDS
    assert found.database_bytes > 10_000


def test_a_sync_that_was_put_back_did_not_take_the_pause(workspace: Workspace) -> None:
    connected(workspace, 1)
    due(SIX)
    next_try = put_back(claim(SIX), SIX + MINUTE)
    end(claim(next_try), next_try + timedelta(seconds=9))
    (slow,) = page(SIX + timedelta(hours=1)).run.slowest
    assert (round(slow.seconds), slow.attempts) == (9, 2)


def test_half_of_two_is_the_first(workspace: Workspace) -> None:
    connected(workspace, 2)
    due(SIX)
    for one, minutes in ((claim(SIX), 1), (claim(SIX), 9)):
        end(one, SIX + minutes * MINUTE)
    half_done_at = page(SIX + timedelta(hours=1)).run.half_done_at
    assert half_done_at is not None
    assert (half_done_at - SIX) // MINUTE == 1


def test_recent_runs_are_told_for_two_weeks(workspace: Workspace) -> None:
    (integration,) = connected(workspace, 1)
    for day in range(16):
        six = SIX + timedelta(days=day)
        due(six)
        one = claim(six)
        if day < 15:
            end(one, six + (day + 1) * MINUTE, RunStatus.FAILED if day == 14 else RunStatus.DONE)
        else:
            runs.cancel_open(integration.id)
    found = operations.recent(SIX + timedelta(days=15, hours=1))
    assert [slot.day for slot in found] == [(SIX + timedelta(days=day)).date() for day in range(14, 1, -1)]
    assert [(slot.due, slot.done, slot.failed, slot.open) for slot in found[:2]] == [(1, 0, 1, 0), (1, 1, 0, 0)]
    assert round(found[1].late(NOON) / MINUTE) == 14


def test_a_run_of_yesterday_that_still_waits_is_told_apart(workspace: Workspace) -> None:
    connected(workspace, 1)
    due(SIX)
    put_back(claim(SIX), SIX, 24 * 3600)
    tomorrow = SIX + timedelta(days=1, minutes=1)
    found = page(tomorrow)
    assert found.run.slot.due == 0
    (other,) = found.others
    assert (other.trigger, other.waiting.retrying, other.since) == (Trigger.DAILY, 1, SIX)


def test_the_page_asks_again_only_while_something_can_change(workspace: Workspace) -> None:
    assert page(SIX).ask_after is None
    connected(workspace, 1)
    due(SIX)
    assert page(SIX).ask_after == operations.ASK_SECONDS
    one = claim(SIX)
    assert page(SIX).ask_after == operations.ASK_SECONDS
    next_try = put_back(one, SIX, 3600)
    assert page(next_try - 10 * MINUTE).ask_after == 601
    assert page(next_try).ask_after == operations.ASK_SECONDS
    end(claim(next_try), next_try)
    assert page(next_try).ask_after is None


def test_it_takes_few_statements_at_any_number_of_accounts(context: Flask, workspace: Workspace) -> None:
    a_morning(workspace)
    with asked(context) as statements:
        page(SIX + 8 * MINUTE)
        operations.recent(SIX + 8 * MINUTE)
    assert len(statements) == 10


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_nothing_reads_all_runs_or_all_integrations(context: Flask, workspace: Workspace) -> None:
    """SQLite says how it is going to answer. Without an index for it, a statement scans a table."""
    a_morning(workspace)
    now = SIX + 8 * MINUTE
    with asked(context) as statements:
        page(now)
        operations.recent(now)
        operations.is_under_way(now)
        runs.insert_daily(now)
        runs.count_claimable(now)
        runs.claim(now, 3)
    db.session.rollback()
    plans = []
    with db.engine.connect() as connection:
        for statement, parameters in statements:
            if statement.startswith(("SELECT", "INSERT", "UPDATE")):
                rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                plans += [(row[-1], statement) for row in rows]
    assert len(plans) > 15
    scans = [plan for plan in plans if plan[0].startswith("SCAN") and not re.search("pragma|CONSTANT", plan[0])]
    of_what_is_open = re.compile("uq_sync_run_open|ix_sync_run_awaited|ix_sync_run_clocked")
    assert not [plan for plan in scans if not of_what_is_open.search(plan[0])]


class TestLog:
    """Once a minute while it goes on, once when it has ended, by one of any number of schedulers."""

    @pytest.fixture(autouse=True)
    def _told(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "grafient")

    @staticmethod
    def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
        said = [record.getMessage() for record in caplog.records if record.name == progress.__name__]
        caplog.clear()
        return said

    def test_the_line_says_it_all(
        self, workspace: Workspace, redis: redis_py.Redis, caplog: pytest.LogCaptureFixture
    ) -> None:
        integrations, _ = a_morning(workspace)
        progress.say(SIX + 8 * MINUTE)
        assert self._said(caplog) == [
            "six o'clock run 2026-11-20: 7 due, 3 done, 1 failed, 1 retrying, 2 to go; 8 min late at most; "
            f"slowest 7 min (integration {integrations[5].id})"
        ]

    def test_many_schedulers_say_it_once(
        self, workspace: Workspace, redis: redis_py.Redis, caplog: pytest.LogCaptureFixture
    ) -> None:
        connected(workspace, 1)
        for _ in range(3):
            progress.say(SIX + MINUTE)
        assert self._said(caplog) == [], "nothing was due"
        due(SIX + MINUTE)
        for _ in range(3):
            progress.say(SIX + MINUTE)
        assert len(self._said(caplog)) == 1
        assert 0 < redis.ttl(progress._SAID) <= progress.MINUTE
        redis.delete(progress._SAID)  # a minute has passed
        progress.say(SIX + 2 * MINUTE)
        assert len(self._said(caplog)) == 1
        end(claim(SIX + 2 * MINUTE), SIX + 3 * MINUTE)
        for _ in range(3):
            progress.say(SIX + 4 * MINUTE)
        (said,) = self._said(caplog)
        assert said.startswith("six o'clock run 2026-11-20 has ended: 1 due, 1 done, 0 failed; 3 min late at most;")
        assert redis.dbsize() <= 2

    def test_a_slot_that_has_more_to_do_later_ends_once_more(
        self, workspace: Workspace, redis: redis_py.Redis, caplog: pytest.LogCaptureFixture
    ) -> None:
        for minutes in (1, 100):
            connected(workspace, 1)
            due(SIX + minutes * MINUTE)
            progress.say(SIX + minutes * MINUTE)
            end(claim(SIX + minutes * MINUTE), SIX + (minutes + 1) * MINUTE)
            db.session.execute(update(Integration).values(last_success_at=SIX + MINUTE))
            db.session.commit()
            progress.say(SIX + (minutes + 2) * MINUTE)
            assert "has ended" in self._said(caplog)[-1]

    def test_what_only_waits_for_a_try_is_said_less_often(
        self, workspace: Workspace, redis: redis_py.Redis, caplog: pytest.LogCaptureFixture
    ) -> None:
        connected(workspace, 1)
        due(SIX)
        put_back(claim(SIX), SIX, 3600)
        progress.say(SIX + MINUTE)
        assert "1 retrying, 0 to go" in self._said(caplog)[0]
        assert progress.MINUTE < redis.ttl(progress._SAID) <= progress.PATIENCE

    def test_a_tick_of_the_scheduler_says_it_and_a_redis_that_is_away_does_not(
        self,
        context: Flask,
        workspace: Workspace,
        redis: redis_py.Redis,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        connected(workspace, 1)
        with at(NOON):
            schedule.tick_or_say_why_not()
            assert "1 due, 0 done" in self._said(caplog)[0]
            away = jobs.connect("redis://127.0.0.1:1/0")
            monkeypatch.setitem(context.extensions, "redis", away)
            schedule.tick_or_say_why_not()
            assert self._said(caplog) == []
            away.close()


@pytest.fixture
def open_to_all(settings: dict[str, str]) -> None:
    settings["GRAFIENT_REGISTRATION"] = "open"
    settings["GRAFIENT_OPERATORS"] = " Named@Example.COM ,  "


class TestAccess:
    @pytest.fixture(autouse=True)
    def _open(self, open_to_all: None) -> None:
        pass

    def test_the_first_account_and_those_named_see_it_and_nobody_else(
        self, app: Flask, morning: list[int], pages: Pages
    ) -> None:
        named, other = Pages(app), Pages(app)
        named.register("Named@example.com", PASSWORD)
        other.register("other@example.com", PASSWORD)
        for operator in (pages, named):
            assert "Six o'clock run of 20 Nov 2026" in operator.get("/operations").text.replace("&#39;", "'")
            assert 'href="/operations"' in operator.get("/account").text
        assert "Page not found" in other.get("/operations", 404).text
        other.get("/operations", 404, HX_Request="true")
        assert "/operations" not in other.get("/account").text
        assert Pages(app).get("/operations", 302).headers["Location"].startswith("/login")

    def test_it_tells_nothing_of_anybodys_account(self, app: Flask, morning: list[int], pages: Pages) -> None:
        with app.app_context():
            db.session.execute(update(SyncRun).values(settled_usd=Decimal(1234567), error="secret: of an account"))
            db.session.commit()
        html = pages.get("/operations").text
        for never in ("ecret", "$", "1234567", "1,234,567", "abcd"):
            assert never not in html

    def test_htmx_gets_what_changes(self, app: Flask, morning: list[int], pages: Pages) -> None:
        fragment = pages.get("/operations", HX_Request="true")
        assert "<html" not in fragment.text
        assert "HX-Request" in fragment.headers["Vary"]
        assert 'hx-trigger="every 5s"' in fragment.text

    def test_a_page_of_nothing_asks_nothing(self, pages: Pages) -> None:
        html = pages.get("/operations").text
        assert "Nothing was due" in html
        assert "hx-trigger" not in html


def test_the_page_prints_each_count(app: Flask, morning: list[int], pages: Pages, redis: redis_py.Redis) -> None:
    with app.app_context():
        jobs.tick()
        jobs.wake()
    tree = JustHTML(pages.get("/operations").text, sanitize=False)
    figures = {node.to_text().split()[0]: " ".join(node.to_text().split()) for node in tree.query(".figure")}
    assert figures["Done"] == "Done 3 of 7 due"
    assert figures["To"] == "To go 2 1 under way, 1 not claimed yet"
    assert figures["Retrying"].startswith("Retrying 1 next try in 5")
    assert figures["Failed"].startswith("Failed 1")
    words = " ".join(tree.to_text().split())
    for said in (
        "OpenRouter: needs a new key 1 failed",
        "OpenRouter: unreachable, busy, or failed in Grafient 1 retrying",
        "No worker is known to Redis",
        "Last tick 0.",
        f"{redis.dbsize()} keys",
        "20 Nov 2026 7 3 1 3 not yet",
    ):
        assert said in words, said


def test_a_redis_that_is_away_is_said(app: Flask, pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    away = jobs.connect("redis://127.0.0.1:1/0")
    monkeypatch.setitem(app.extensions, "redis", away)
    assert "Does not answer" in pages.get("/operations").text
    away.close()
