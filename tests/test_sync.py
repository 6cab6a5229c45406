"""What a sync reads and stores, stage by stage, against the sandbox over HTTP, in both databases."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from flask import Flask, current_app
from sqlalchemy import event, func, select, update

from grafient import database, evidence, integrations, runs, status, sync, vault
from grafient.extensions import db
from grafient.models import CostLine, CreditReading, Integration, Restatement, SyncRun, Workspace, utc_now
from grafient.models.columns import usd_sum
from grafient.providers import Credits
from grafient.providers.http import Reply
from grafient.providers.openrouter import OpenRouterReader, _Pace
from grafient.providers.openrouter.calls import Calls
from grafient.sandbox import Sandbox
from grafient.sync import hold, stages
from grafient.vault import Vault
from tests.syncing import (
    NOON,
    a_day,
    again,
    at,
    by_day,
    claim_one,
    connect,
    days,
    days_asked,
    last_run,
    later,
    leave_out_keys,
    lines,
    on_sqlite,
    questions,
    restatements,
    run_due,
    states,
    synced,
    told_by_analytics,
    total,
    truth,
    window,
    with_the_year,
)


@pytest.fixture(autouse=True)
def _at_noon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Far from midnight, and without the pauses before what failed is asked again."""
    monkeypatch.setattr("grafient.providers.openrouter.calls._jitter", lambda state: 0.0)
    with at():
        yield


@pytest.fixture
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_keys(monkeypatch)


@pytest.mark.usefixtures("_no_keys")
class TestCosts:
    def test_the_first_sync_stores_the_whole_window_exactly(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = synced(workspace, sandbox)
        assert total(integration) == truth(sandbox)
        settled = {day for day, (state, _) in states().items() if state in ("final", "no_usage")}
        assert settled == set(days(*window(sandbox)))
        run = last_run(integration)
        assert (run.status, run.error, run.days_restated, run.stage) == ("done", None, 0, None)
        stored = select(func.count()).where(CostLine.day <= window(sandbox)[1])
        assert run.lines_added == run.lines_read == db.session.execute(stored).scalar_one()
        assert (run.first_day, run.last_day) == window(sandbox)
        assert integration.last_success_at is not None
        assert (integration.problem, integration.problem_detail) == (None, None)

    def test_the_same_sync_twice_changes_nothing(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = synced(workspace, sandbox)
        before, covered = lines(), states()
        run = again(integration)
        assert (lines(), states()) == (before, covered)
        assert (run.lines_added, run.lines_changed, run.lines_removed, run.days_restated) == (0, 0, 0, 0)

    def test_a_restated_day_is_replaced_and_what_it_was_is_kept(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = synced(workspace, sandbox)
        day = a_day(sandbox)
        was = sandbox.truth("lively", day, day).usage
        sandbox.restate("lively", day, Decimal("1.25"))
        run = again(integration)
        assert run.days_restated == 1
        assert total(integration) == truth(sandbox)
        before, after = db.session.execute(
            select(usd_sum(Restatement.usage_before_usd), usd_sum(Restatement.usage_after_usd))
        ).one()
        assert after - before == sandbox.truth("lively", day, day).usage - was
        assert {day for day, (state, _) in states().items() if state == "restated"} == {day}

    def test_a_row_that_goes_is_a_restatement(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = synced(workspace, sandbox)
        sandbox.remove_row("lively", a_day(sandbox), 0)
        run = again(integration)
        assert (run.lines_removed, run.days_restated) == (1, 1)
        assert total(integration) == truth(sandbox)
        kept = db.session.execute(select(Restatement).where(Restatement.usage_after_usd.is_(None))).scalar_one()
        assert kept.before is not None
        assert kept.after is None

    def test_a_day_that_a_whole_reply_leaves_out_is_restated_to_nothing(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        integration = synced(workspace, sandbox)
        day = a_day(sandbox)
        sandbox.drop_day("lively", day)
        assert again(integration).days_restated == 1
        assert total(integration) == truth(sandbox)
        assert day not in by_day(integration)

    def test_an_empty_reply_erases_nothing(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = synced(workspace, sandbox)
        before = lines()
        for day in days(*window(sandbox)):
            sandbox.drop_day("lively", day)
        run = again(integration)
        assert lines() == before
        assert run.status == "done"
        assert "Nothing that is stored was changed" in (run.error or "")
        assert "Nothing that is stored was changed" in status.card(integration).detail

    def test_an_account_without_usage_is_covered_and_empty(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = synced(with_the_year(workspace), sandbox, "empty")
        assert lines() == []
        found = [state for day, (state, _) in sorted(states().items())]
        assert found == ["no_usage"] * 365 + ["provisional"]
        assert integration.no_history is None

    @on_sqlite
    @pytest.mark.parametrize("fault", ["down", "bad-gateway", "cloudflare", "not-json", "cut", "redirect"])
    def test_a_passing_fault_is_tried_again_later(self, workspace: Workspace, sandbox: Sandbox, fault: str) -> None:
        integration = synced(workspace, sandbox)
        before = lines()
        sandbox.fault("lively", fault)
        started = utc_now()
        run = again(integration)
        assert (run.status, run.attempt, run.token) == ("due", 1, None)
        assert run.next_attempt_at > started + timedelta(seconds=55)
        assert integration.problem == "fault"
        assert lines() == before
        sandbox.fault("lively", None)
        assert _tried_again(run) == "done"
        assert integration.problem is None

    def test_what_the_provider_asks_to_wait_is_waited(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = synced(workspace, sandbox)
        sandbox.fault("lively", "limited")
        run = again(integration)
        assert run.next_attempt_at - utc_now() > timedelta(seconds=100)
        assert "rate-limiting" in (run.error or "")

    @on_sqlite
    @pytest.mark.parametrize("fault", ["misshapen", "wrong-types", "null-data", "bad-date", "deep"])
    def test_an_unknown_shape_is_said_kept_and_stores_nothing(
        self, workspace: Workspace, sandbox: Sandbox, fault: str
    ) -> None:
        integration = synced(workspace, sandbox)
        before = lines()
        sandbox.fault("lively", fault)
        run = again(integration)
        assert run.status == "failed"
        assert integration.problem == "api_changed"
        assert lines() == before
        file = evidence.archive(integration.id, run.id)
        assert file is not None
        with file, zipfile.ZipFile(file) as replies:
            assert b"data" in replies.read("0001.json")

    @on_sqlite
    @pytest.mark.parametrize("fault", ["revoked", "expired", "inference"])
    def test_a_rejected_key_waits_until_someone_acts(self, workspace: Workspace, sandbox: Sandbox, fault: str) -> None:
        integration = synced(workspace, sandbox)
        sandbox.fault("lively", fault)
        run = again(integration)
        assert run.status == "failed"
        assert integration.problem == "needs_key"
        assert "User not found" not in (run.error or "")
        assert runs.insert_daily(utc_now() + timedelta(days=1)) == 0
        sandbox.fault("lively", None)
        integrations.replace_key(integration, sandbox.key("lively-again"))
        assert run_due() == 1
        assert (integration.problem, integration.key_hint) == (None, sandbox.key("lively-again")[-4:])

    @on_sqlite
    def test_a_wrong_encryption_key_is_the_operators_to_mend_and_heals(
        self, context: Flask, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        integration = synced(workspace, sandbox)
        with monkeypatch.context() as other:
            other.setitem(context.extensions, "vault", Vault.parse(vault.generate()))
            run = again(integration)
            assert (run.status, integration.problem) == ("failed", "key_unreadable")
            assert runs.insert_daily(utc_now() + timedelta(days=1)) == 1, "each morning looks again"
            db.session.rollback()
            assert "GRAFIENT_ENCRYPTION_KEYS" in (run.error or "")
        integrations.force_sync(integration)
        assert run_due() == 1
        assert (last_run(integration).status, integration.problem) == ("done", None)

    @on_sqlite
    def test_a_changed_reply_is_said_and_loses_no_figure(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = synced(workspace, sandbox, "new-field")
        assert total(integration) == truth(sandbox, "new-field")
        assert (last_run(integration).status, integration.problem) == ("done", None)
        assert "new fields: audio_tokens" in (integration.problem_detail or "")
        assert "new fields: audio_tokens" in status.card(integration).detail

    def test_yesterday_is_provisional_until_the_provider_has_settled_it(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        yesterday = NOON.date() - timedelta(days=1)
        with at(datetime(2026, 11, 20, 0, 10, tzinfo=UTC)):
            integration = synced(workspace, sandbox)
            assert states()[yesterday] == ("provisional", "activity")
            assert states()[NOON.date()] == ("provisional", "analytics")
        again(integration)
        assert states()[yesterday] == ("final", "activity")
        assert (restatements(), total(integration)) == (0, truth(sandbox))

    @on_sqlite
    @pytest.mark.parametrize("seconds", [0.02, 0.1, 0.3])
    def test_a_midnight_on_the_way_makes_no_day_look_empty_or_double(
        self, workspace: Workspace, sandbox: Sandbox, seconds: float
    ) -> None:
        with at(datetime(2026, 11, 20, tzinfo=UTC) - timedelta(seconds=seconds)):
            integration = synced(with_the_year(workspace), sandbox)
            assert last_run(integration).status == "done"
        _is_the_truth(integration, sandbox, "lively")
        again(integration)
        _is_the_truth(integration, sandbox, "lively")
        assert restatements() == 0
        assert len(states()) >= 366


def _tried_again(run: SyncRun) -> str:
    """Let the pause pass; what the run ends with."""
    db.session.execute(update(SyncRun).where(SyncRun.id == run.id).values(next_attempt_at=utc_now()))
    db.session.commit()
    assert run_due() == 1
    db.session.refresh(run)
    return run.status


def _is_the_truth(integration: Integration, sandbox: Sandbox, name: str) -> None:
    """Each settled day is what it was: exactly by activity, rounded per model by analytics; and is named rightly."""
    found = by_day(integration)
    for day, (state, source) in states().items():
        if state == "provisional":
            continue
        of_day = sandbox.truth(name, day, day)
        usage = of_day.usage if source == "activity" else sum(told_by_analytics(sandbox, name, day, day).values())
        assert found.get(day, 0) == usage, day
        assert (state == "no_usage") == (not of_day.rows), day


@pytest.mark.usefixtures("_no_keys")
class TestHistory:
    @pytest.mark.parametrize("name", ["lively", "other"])
    def test_the_first_day_has_a_year(self, workspace: Workspace, sandbox: Sandbox, name: str) -> None:
        integration = synced(with_the_year(workspace), sandbox, name)
        first, last = sandbox.today - timedelta(days=365), sandbox.today - timedelta(days=1)
        assert set(states()) == set(days(first, sandbox.today))
        assert {day for day, (_, source) in states().items() if source == "activity"} == set(days(*window(sandbox)))
        _is_the_truth(integration, sandbox, name)
        before_window = window(sandbox)[0] - timedelta(days=1)
        query = select(CostLine.day, CostLine.permaslug, CostLine.usage_usd).where(CostLine.day <= before_window)
        found = {(row.day, row.permaslug): row.usage_usd for row in db.session.execute(query)}
        assert found == told_by_analytics(sandbox, name, first, before_window)
        assert abs(total(integration) - sandbox.truth(name, first, last).usage) < len(found) * Decimal("5E-7")
        assert (last_run(integration).status, integration.no_history) == ("done", None)
        assert last_run(integration).days_restated == 0

    @on_sqlite
    def test_its_models_have_the_names_of_the_windows(self, workspace: Workspace, sandbox: Sandbox) -> None:
        synced(with_the_year(workspace), sandbox)
        names: dict[str, set[str]] = {}
        for row in db.session.execute(select(CostLine.permaslug, CostLine.model).distinct()):
            names.setdefault(row.permaslug, set()).add(row.model)
        assert {permaslug: found for permaslug, found in names.items() if len(found) > 1} == {}
        known = {row.model_permaslug for row in sandbox.truth("lively", *window(sandbox)).rows}
        assert not any(permaslug in names[permaslug] for permaslug in known if permaslug.count("-20"))

    def test_the_free_plan_keeps_the_window(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = synced(workspace, sandbox)
        assert set(states()) == set(days(window(sandbox)[0], sandbox.today))
        assert days_asked(sandbox) == [sandbox.today]
        assert integration.no_history is None

    @on_sqlite
    def test_replies_that_are_cut_to_200_rows_give_the_same_year(
        self, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_Pace, "wait", lambda self: None)
        sandbox.settings.analytics_row_limit, sandbox.settings.analytics_per_minute = 200, 10_000
        integration = synced(with_the_year(workspace), sandbox)
        assert len(questions(sandbox)) > 20
        assert len(states()) == 366
        _is_the_truth(integration, sandbox, "lively")

    @on_sqlite
    @pytest.mark.parametrize("name", ["no-analytics", "analytics-forbidden"])
    def test_an_account_without_analytics_keeps_the_window_and_says_why(
        self, workspace: Workspace, sandbox: Sandbox, name: str
    ) -> None:
        integration = synced(with_the_year(workspace), sandbox, name)
        assert set(states()) == set(days(*window(sandbox)))
        assert total(integration) == truth(sandbox, name)
        assert "does not offer analytics" in (integration.no_history or "")
        assert (last_run(integration).status, last_run(integration).error, integration.problem) == ("done", None, None)

    @on_sqlite
    def test_analytics_that_comes_later_fills_the_year(self, workspace: Workspace, sandbox: Sandbox) -> None:
        sandbox.fault("lively", "no-analytics")
        integration = synced(with_the_year(workspace), sandbox)
        sandbox.fault("lively", None)
        again(integration)
        assert (len(states()), integration.no_history) == (366, None)
        _is_the_truth(integration, sandbox, "lively")

    @on_sqlite
    @pytest.mark.parametrize(
        "name",
        [
            "analytics-silent",
            pytest.param(
                "byok",
            ),
            pytest.param(
                "free",
            ),
        ],
    )
    def test_analytics_that_is_silent_is_not_believed(self, workspace: Workspace, sandbox: Sandbox, name: str) -> None:
        sandbox.fault(name, "analytics-silent")
        integration = synced(with_the_year(workspace), sandbox, name)
        assert set(states()) == set(days(*window(sandbox)))
        assert "empty, even for days whose costs are known" in (integration.no_history or "")
        assert (last_run(integration).status, integration.problem) == ("done", None)

    def test_a_sync_killed_between_two_parts_goes_on_with_what_is_left(
        self, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        integration = connect(with_the_year(workspace), sandbox)
        with monkeypatch.context() as deadly:
            deadly.setattr(OpenRouterReader, "history", _dying(OpenRouterReader.history, at_call=3))
            with pytest.raises(Killed):
                run_due()
        db.session.rollback()
        assert last_run(integration).status == "running"
        known = set(states())
        assert 30 < len(known) < 366
        sandbox.clear_requests()
        with at(NOON + timedelta(minutes=30)):
            assert run_due() == 1
        asked = days_asked(sandbox)
        assert len(asked) == len(set(asked))
        assert set(asked) & known == {sandbox.today}
        assert len(states()) == 366
        run = last_run(integration)
        assert (run.status, run.attempt) == ("done", 2)
        _is_the_truth(integration, sandbox, "lively")

    @on_sqlite
    def test_a_day_is_settled_once_and_not_asked_again(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = synced(with_the_year(workspace), sandbox)
        with later(1):
            sandbox.clear_requests()
            again(integration)
            assert days_asked(sandbox) == [sandbox.today]

    def test_forty_days_away_are_filled_and_what_was_provisional_is_settled(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        integration = synced(with_the_year(workspace), sandbox)
        with later(40):
            again(integration)
            assert set(states()) == set(days(NOON.date() - timedelta(days=365), sandbox.today))
            gap = days(NOON.date(), window(sandbox)[0] - timedelta(days=1))
            assert len(gap) == 10
            assert {states()[day] for day in gap} <= {("final", "analytics"), ("no_usage", "analytics")}
            assert states()[gap[0]] == ("final", "analytics")
            whole = sum(told_by_analytics(sandbox, "lively", gap[0], gap[0]).values())
            assert by_day(integration)[gap[0]] == whole, "activity never told of the day that was provisional"
            _is_the_truth(integration, sandbox, "lively")
        assert restatements() == 0

    @on_sqlite
    def test_where_a_day_has_both_sources_activity_counts(self, workspace: Workspace, sandbox: Sandbox) -> None:
        """Lines of analytics have no endpoint; those of lively's activity do."""
        integration = synced(with_the_year(workspace), sandbox)
        for after in (1, 2, 35):
            with later(after):
                again(integration)
                query = select(CostLine.day, CostLine.endpoint_id == "").distinct()
                found = {tuple(row) for row in db.session.execute(query)}
                sources = {(day, source == "analytics") for day, (_, source) in states().items()}
                assert found <= sources
                assert {day for day, (_, source) in states().items() if source == "activity"} >= set(
                    days(*window(sandbox))
                )
                _is_the_truth(integration, sandbox, "lively")


class Killed(BaseException):
    """What a worker that dies raises: nothing catches it."""


def _dying(method: Any, at_call: int) -> Any:
    calls = 0

    def call(self: Any, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at_call:
            raise Killed
        return method(self, *args)

    return call


@pytest.mark.usefixtures("_no_keys")
class TestToday:
    def test_it_is_provisional_and_in_no_total(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = synced(workspace, sandbox)
        today = sandbox.today
        assert states()[today] == ("provisional", "analytics")
        so_far = sum(part.usage for part in sandbox.account("lively").slices_so_far(today))
        assert abs(by_day(integration)[today] - so_far) < Decimal("1E-5")
        assert total(integration) == truth(sandbox)

    @on_sqlite
    def test_asked_twice_it_is_not_there_twice(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = synced(workspace, sandbox)
        before = lines()
        with at(NOON + timedelta(hours=3)):
            assert again(integration).days_restated == 0
        assert (lines(), restatements()) == (before, 0)

    def test_the_day_after_it_is_settled_and_was_not_restated(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = synced(workspace, sandbox)
        with later(1):
            run = again(integration)
            assert states()[NOON.date()] == ("final", "activity")
            assert states()[sandbox.today] == ("provisional", "analytics")
            assert (
                total(integration) == truth(sandbox) + sandbox.truth("lively", *[NOON.date() - timedelta(30)] * 2).usage
            )
        assert (run.lines_changed, run.lines_removed, run.days_restated, restatements()) == (0, 0, 0, 0)

    @on_sqlite
    def test_on_the_free_plan_it_does_not_stay_provisional_for_ever(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        integration = synced(workspace, sandbox)
        with later(40):
            again(integration)
        assert states()[NOON.date()][0] != "provisional"


class TestBeyondTheCosts:
    def test_what_does_not_answer_is_tried_again_and_the_costs_stand(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        sandbox.fault("lively", "analytics-down")
        integration = synced(with_the_year(workspace), sandbox)
        run = last_run(integration)
        assert (run.status, run.attempt, run.token, run.stage) == ("due", 1, None, None)
        assert run.next_attempt_at > utc_now() + timedelta(seconds=50)
        assert (integration.problem, integration.no_history) == ("fault", None)
        assert "costs are up to date" in (integration.problem_detail or "")
        assert integration.last_success_at is not None
        assert total(integration) == truth(sandbox)
        assert db.session.execute(select(func.count()).select_from(CreditReading)).scalar_one() == 1
        sandbox.fault("lively", None)
        assert _tried_again(run) == "done"
        assert (len(states()), integration.problem) == (366, None)

    @on_sqlite
    def test_it_is_given_up_after_some_attempts_with_a_note(self, workspace: Workspace, sandbox: Sandbox) -> None:
        sandbox.fault("lively", "analytics-down")
        integration = synced(workspace, sandbox)
        run = last_run(integration)
        for _ in range(sync.MOST_ATTEMPTS - 2):
            assert _tried_again(run) == "due"
        assert _tried_again(run) == "done"
        assert run.attempt == sync.MOST_ATTEMPTS
        assert "read with the next sync" in (run.error or "")
        assert (integration.problem, integration.problem_detail) == (None, run.error)
        assert run_due() == 0

    @on_sqlite
    @pytest.mark.parametrize("path", ["/credits", "/analytics/query", "/analytics/meta", "/keys"])
    def test_an_unknown_shape_there_is_a_note_and_keeps_nothing_else_back(
        self, workspace: Workspace, sandbox: Sandbox, path: str
    ) -> None:
        sandbox.fault("lively", "null-data", path=path)
        integration = synced(workspace, sandbox)
        run = last_run(integration)
        assert (run.status, integration.problem) == ("done", None)
        assert "a shape that Grafient does not know" in (run.error or "")
        assert total(integration) == truth(sandbox)
        asked = {request.path.removeprefix("/api/v1") for request in sandbox.requests()}
        assert asked >= {"/activity", "/credits", "/analytics/meta", "/keys"}
        file = evidence.archive(integration.id, run.id)
        assert file is not None
        with file, zipfile.ZipFile(file) as replies:
            assert [name for name in replies.namelist() if replies.read(name) == b'{"data":null}']

    @on_sqlite
    def test_what_is_not_offered_is_said_until_it_is(self, workspace: Workspace, sandbox: Sandbox) -> None:
        sandbox.fault("lively", "no-credits")
        integration = synced(workspace, sandbox)
        assert "does not report this account's credits" in (integration.no_credits or "")
        assert (integration.no_keys, integration.no_history, integration.problem) == (None, None, None)
        sandbox.fault("lively", "no-keys")
        again(integration)
        assert "API keys" in (integration.no_keys or "")
        assert (integration.no_credits, integration.no_history, integration.problem) == (None, None, None)

    def test_a_key_that_is_revoked_meanwhile_is_said_and_the_costs_stand(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        sandbox.fault("lively", "revoked", path="/credits")
        integration = synced(workspace, sandbox)
        assert (last_run(integration).status, integration.problem) == ("failed", "needs_key")
        assert total(integration) == truth(sandbox)

    def test_who_is_stopped_meanwhile_writes_nothing_more(
        self, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        integration = connect(workspace, sandbox)
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]

        def paused(self: OpenRouterReader) -> Credits:
            with app.app_context():
                integrations.pause(db.session.get_one(Integration, 1))
            return Credits(Decimal(1))

        monkeypatch.setattr(OpenRouterReader, "credits", paused)
        claim = claim_one(utc_now())
        db.session.commit()
        assert claim is not None
        with pytest.raises(runs.LeaseLost):
            sync.perform(claim)
        db.session.rollback()
        assert db.session.execute(select(func.count()).select_from(CreditReading)).scalar_one() == 0
        assert total(integration) == truth(sandbox), "what was committed before stays"
        assert last_run(integration).status == "cancelled"

    @on_sqlite
    def test_a_sync_ends_in_time_and_the_next_one_goes_on(
        self, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as hurried:
            hurried.setattr(stages, "MOST_SECONDS", 0)
            integration = synced(with_the_year(workspace), sandbox)
        run = last_run(integration)
        assert (run.status, len(states())) == ("done", 31)
        assert (run.error or "").count("the next one goes on") == 1
        assert again(integration).error is None
        assert len(states()) == 366


class TestWrittenTogether:
    """A daily sync writes the costs with the answers to everything else, unless something keeps these back."""

    @pytest.fixture
    def claim(self, workspace: Workspace, sandbox: Sandbox) -> Iterator[runs.Claim]:
        """That of a daily sync, the second since the account was connected."""
        synced(workspace, sandbox)
        for day in (1, 2):
            with later(day):
                runs.insert_daily(utc_now())
                if day == 1:
                    assert run_due() == 1
                    continue
                claim = claim_one(utc_now())
                assert claim is not None
                db.session.commit()
                yield claim
                db.session.rollback()
                read = sandbox.truth("lively", window(sandbox)[0] - timedelta(days=2), window(sandbox)[1])
                assert total(db.session.get_one(Integration, 1)) == read.usage, "the costs stand"

    def test_one_transaction_has_both(self, claim: runs.Claim) -> None:
        seen: list[str | None] = []

        def committing(_: object) -> None:
            with db.engine.connect() as other, database.only_reading():
                seen.append(other.execute(select(SyncRun.stage).where(SyncRun.id == claim.run_id)).scalar_one())

        event.listen(db.engine, "commit", committing)
        try:
            sync.perform(claim)
        finally:
            event.remove(db.engine, "commit", committing)
        assert seen[:2] == ["costs", "keys"], "before the first commit, and after it"

    @pytest.mark.parametrize("path", ["/credits", "/keys"])
    def test_a_key_that_is_revoked_meanwhile(self, claim: runs.Claim, sandbox: Sandbox, path: str) -> None:
        sandbox.fault("lively", "revoked", path=path)
        sync.perform(claim)
        run = db.session.get_one(SyncRun, claim.run_id)
        assert (run.status, run.integration.problem) == ("failed", "needs_key")

    def test_a_fault_of_our_own_in_what_is_not_the_costs(
        self, claim: runs.Claim, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("grafient.reconciliation.record_reading", _failing)
        with pytest.raises(ZeroDivisionError):
            sync.perform(claim)

    def test_costs_wait_for_slow_answers_no_longer_than_some_seconds(
        self, claim: runs.Claim, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hold, "LOOK_SECONDS", 0.05)
        stored, app = threading.Event(), current_app._get_current_object()  # type: ignore[attr-defined]

        def slow(self: OpenRouterReader) -> Credits:
            with app.app_context():
                for _ in range(200):
                    if db.session.get_one(SyncRun, claim.run_id).lines_read is not None:
                        stored.set()
                        break
                    db.session.rollback()
                    stored.wait(0.02)
                db.session.rollback()
            return Credits(Decimal(1))

        monkeypatch.setattr(OpenRouterReader, "credits", slow)
        sync.perform(claim)
        assert stored.is_set()
        assert db.session.get_one(SyncRun, claim.run_id).status == "done"


def _failing(*_: object) -> None:
    raise ZeroDivisionError


class TestOnTheWay:
    @on_sqlite
    def test_no_transaction_is_open_while_the_provider_is_asked(
        self, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        once, session = Calls._once, db.session()
        open_at = []

        def watched(self: Calls, request: str, send: Any) -> Reply:
            if session.in_transaction():
                open_at.append(request)
            return once(self, request, send)

        monkeypatch.setattr(Calls, "_once", watched)
        synced(with_the_year(workspace), sandbox)
        assert open_at == []

    @on_sqlite
    def test_how_far_it_is_can_be_seen_by_others(
        self, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        once, engine = Calls._once, db.engine
        seen = []

        def watched(self: Calls, request: str, send: Any) -> Reply:
            columns = select(SyncRun.stage, SyncRun.steps_done, SyncRun.steps_asked, SyncRun.lease_until)
            with engine.connect() as other:
                row = other.execute(columns).one()
            kind = "key" if "api_key_hash" in request else request.split("?")[0].split(" {")[0]
            seen.append((kind, *row[:3]))
            assert row.lease_until > utc_now() + timedelta(seconds=60)
            return once(self, request, send)

        integration = connect(with_the_year(workspace), sandbox)
        monkeypatch.setattr(Calls, "_once", watched)
        monkeypatch.setattr(stages, "COMMIT_SECONDS", 0)
        assert run_due() == 1
        count = len(sandbox.account("lively").keys(sandbox.today))
        assert seen[0] == ("GET /activity", "costs", None, None)
        assert sorted(seen[1:8]) == [
            ("GET /analytics/meta", "checks", None, None),
            ("GET /credits", "checks", None, None),
            ("GET /keys", "checks", None, None),
            ("GET /keys", "checks", None, None),
            ("GET /workspaces", "checks", None, None),
            ("POST /analytics/query", "checks", None, None),
            ("POST /analytics/query", "checks", None, None),
        ]
        assert seen[8:] == [
            ("POST /analytics/query", "history", 0, 335),
            ("POST /analytics/query", "history", 170, 335),
            ("key", "history", 335, 335),
            *(("key", "keys", done, count) for done in range(1, count)),
        ]
        assert last_run(integration).stage is None

    @on_sqlite
    def test_a_provider_that_takes_its_time_does_not_cost_a_sync_its_run(
        self, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each request takes 55 seconds, by a clock that is moved. Those that go side by side do so in turn here, and
        the worker has the time to look at its lease that it would have had."""
        once, engine, in_turn = Calls._once, db.engine, threading.Lock()
        lost = []
        connect(with_the_year(workspace), sandbox)
        monkeypatch.setattr(stages, "COMMIT_SECONDS", 0)
        monkeypatch.setattr(hold, "LOOK_SECONDS", 0.005)
        with time_machine.travel(NOON + timedelta(minutes=1), tick=True) as clock:

            def slow(self: Calls, request: str, send: Any) -> Reply:
                with in_turn:
                    reply = once(self, request, send)
                    clock.shift(55)
                    with engine.connect() as other:
                        if other.execute(select(SyncRun.lease_until)).scalar_one() < utc_now():
                            lost.append(request.split(" {")[0])
                    threading.Event().wait(0.1)
                    return reply

            monkeypatch.setattr(Calls, "_once", slow)
            assert run_due() == 1
        assert lost == []

    @on_sqlite
    def test_nothing_but_reading_is_ever_sent(self, workspace: Workspace, sandbox: Sandbox) -> None:
        synced(with_the_year(workspace), sandbox)
        sent = {(request.method, request.path.removeprefix("/api/v1")) for request in sandbox.requests()}
        assert {path for method, path in sent if method != "GET"} == {"/analytics/query"}
        assert {method for method, _ in sent} == {"GET", "POST"}
