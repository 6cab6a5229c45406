"""The write side against the sandbox over HTTP, in both databases."""

from __future__ import annotations

import threading
import zipfile
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from flask import Flask
from sqlalchemy import func, select, update

from grafient import evidence, integrations, runs, status, sync, vault
from grafient.extensions import db
from grafient.integrations import AlreadyConnected, Refused
from grafient.models import CostLine, CoveredDay, Integration, Restatement, SyncRun, Workspace, utc_now
from grafient.money import usd_sum
from grafient.providers import KeyInfo, KeyRejected, NotManagementKey, Unreachable
from grafient.sandbox import Sandbox
from grafient.vault import Vault


def connect(workspace: Workspace, sandbox: Sandbox, name: str = "lively", **options: bool) -> Integration:
    return integrations.connect(workspace.id, "openrouter", "", sandbox.key(name), **options)


def run_due() -> int:
    """Do everything that is due, as a worker would; how many runs that was."""
    done = 0
    while (claim := runs.claim(utc_now())) is not None:
        db.session.commit()
        sync.perform(claim)
        done += 1
    db.session.rollback()
    db.session.expire_all()
    return done


def synced(workspace: Workspace, sandbox: Sandbox, name: str = "lively") -> Integration:
    integration = connect(workspace, sandbox, name)
    assert run_due() == 1
    return integration


def again(integration: Integration) -> SyncRun:
    """Force a sync and return its run."""
    integrations.force_sync(integration)
    assert run_due() == 1
    return last_run(integration)


def last_run(integration: Integration) -> SyncRun:
    query = select(SyncRun).where(SyncRun.integration_id == integration.id).order_by(SyncRun.id.desc()).limit(1)
    return db.session.execute(query).scalar_one()


def total(integration: Integration) -> Decimal:
    query = select(usd_sum(CostLine.usage_usd)).where(CostLine.integration_id == integration.id)
    return db.session.execute(query).scalar_one() or Decimal(0)


def lines() -> list[tuple[object, ...]]:
    query = select(*CostLine.__table__.columns).order_by(*CostLine.__table__.primary_key.columns)
    return [tuple(row) for row in db.session.execute(query)]


def window(sandbox: Sandbox) -> tuple[date, date]:
    return sandbox.today - timedelta(days=30), sandbox.today - timedelta(days=1)


def truth(sandbox: Sandbox, name: str = "lively") -> Decimal:
    return sandbox.truth(name, *window(sandbox)).usage


def a_day(sandbox: Sandbox, name: str = "lively", ago: int = 5) -> date:
    """A day with usage, some days back."""
    day = sandbox.today - timedelta(days=ago)
    while not sandbox.truth(name, day, day).usage:
        day -= timedelta(days=1)
    return day


def test_connecting_checks_seals_and_wants_the_backfill(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = connect(workspace, sandbox)
    key = sandbox.key("lively")
    assert integration.label == "OpenRouter"
    assert integration.key_hint == key[-4:]
    assert key.encode() not in (integration.key_ciphertext or b"")
    run = last_run(integration)
    assert (run.trigger, run.status) == ("backfill", "due")
    assert connect(workspace, sandbox, "other").label == "OpenRouter 2"


def test_the_first_sync_stores_the_whole_window_exactly(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = synced(workspace, sandbox)
    first, last = window(sandbox)
    assert total(integration) == truth(sandbox)
    covered = db.session.execute(select(func.count(), func.min(CoveredDay.day), func.max(CoveredDay.day))).one()
    assert tuple(covered) == (30, first, last)
    run = last_run(integration)
    assert (run.status, run.error, run.days_restated) == ("done", None, 0)
    assert run.lines_added == run.lines_read == len(lines())
    assert integration.last_success_at is not None
    assert integration.problem is None


def test_the_same_sync_twice_changes_nothing(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = synced(workspace, sandbox)
    before = lines()
    run = again(integration)
    assert lines() == before
    assert (run.lines_added, run.lines_changed, run.lines_removed, run.days_restated) == (0, 0, 0, 0)


def test_a_restated_day_is_replaced_and_what_it_was_is_kept(workspace: Workspace, sandbox: Sandbox) -> None:
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
    state = db.session.execute(select(CoveredDay.state).where(CoveredDay.day == day)).scalar_one()
    assert state == "restated"


def test_a_row_that_goes_and_a_row_that_comes_are_restatements(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = synced(workspace, sandbox)
    day = a_day(sandbox)
    sandbox.remove_row("lively", day, 0)
    run = again(integration)
    assert (run.lines_removed, run.days_restated) == (1, 1)
    assert total(integration) == truth(sandbox)
    kept = db.session.execute(select(Restatement).where(Restatement.usage_after_usd.is_(None))).scalar_one()
    assert kept.before is not None
    assert kept.after is None


def test_a_day_that_a_whole_reply_leaves_out_is_restated_to_nothing(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = synced(workspace, sandbox)
    day = a_day(sandbox)
    sandbox.drop_day("lively", day)
    assert again(integration).days_restated == 1
    assert total(integration) == truth(sandbox)
    assert db.session.execute(select(func.count()).where(CostLine.day == day)).scalar_one() == 0


def test_an_empty_reply_erases_nothing(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = synced(workspace, sandbox)
    before = lines()
    first, last = window(sandbox)
    for number in range((last - first).days + 1):
        sandbox.drop_day("lively", first + timedelta(days=number))
    run = again(integration)
    assert lines() == before
    assert run.status == "done"
    assert "left as it is" in (run.error or "")
    assert "left as it is" in status.card(integration).detail


def test_an_account_without_usage_is_covered_and_empty(workspace: Workspace, sandbox: Sandbox) -> None:
    synced(workspace, sandbox, "empty")
    states = db.session.execute(select(CoveredDay.state, func.count()).group_by(CoveredDay.state)).all()
    assert [tuple(row) for row in states] == [("no_usage", 30)]


@pytest.mark.parametrize("fault", ["down", "bad-gateway", "cloudflare", "not-json", "cut", "redirect"])
def test_a_passing_fault_is_tried_again_later(workspace: Workspace, sandbox: Sandbox, fault: str) -> None:
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
    db.session.execute(update(SyncRun).where(SyncRun.id == run.id).values(next_attempt_at=utc_now()))
    db.session.commit()
    assert run_due() == 1
    assert (last_run(integration).id, last_run(integration).status) == (run.id, "done")
    assert integration.problem is None


def test_what_the_provider_asks_to_wait_is_waited(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = synced(workspace, sandbox)
    sandbox.fault("lively", "limited")
    run = again(integration)
    assert run.next_attempt_at - utc_now() > timedelta(seconds=100)
    assert "busy" in (run.error or "")


@pytest.mark.parametrize("fault", ["misshapen", "wrong-types", "null-data", "bad-date", "deep"])
def test_an_unknown_shape_is_said_kept_and_stores_nothing(workspace: Workspace, sandbox: Sandbox, fault: str) -> None:
    integration = synced(workspace, sandbox)
    before = lines()
    sandbox.fault("lively", fault)
    run = again(integration)
    assert run.status == "failed"
    assert integration.problem == "api_changed"
    assert lines() == before
    file = evidence.archive(integration.id, run.id)
    assert file is not None
    with zipfile.ZipFile(file) as replies:
        assert b"data" in replies.read("0001.json")


@pytest.mark.parametrize("fault", ["revoked", "expired", "inference"])
def test_a_rejected_key_waits_until_someone_acts(workspace: Workspace, sandbox: Sandbox, fault: str) -> None:
    integration = synced(workspace, sandbox)
    sandbox.fault("lively", fault)
    run = again(integration)
    assert run.status == "failed"
    assert integration.problem == "needs_key"
    assert "User not found" not in (run.error or "")
    tomorrow = utc_now() + timedelta(days=1)
    assert runs.insert_daily(tomorrow) == 0
    sandbox.fault("lively", None)
    integrations.replace_key(integration, sandbox.key("lively-again"))
    assert run_due() == 1
    db.session.refresh(integration)
    assert (integration.problem, integration.key_hint) == (None, sandbox.key("lively-again")[-4:])


def test_a_sync_under_way_with_the_old_key_does_not_speak_of_the_new_one(
    workspace: Workspace, sandbox: Sandbox
) -> None:
    integration = synced(workspace, sandbox)
    integrations.force_sync(integration)
    claim = runs.claim(utc_now())
    db.session.commit()
    assert claim is not None
    integrations.replace_key(integration, sandbox.key("lively-again"))
    with pytest.raises(runs.LeaseLost):
        sync.perform(claim)
    db.session.rollback()
    assert run_due() == 1
    assert (last_run(integration).status, integration.problem) == ("done", None)


def test_a_key_of_another_account_does_not_replace(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = synced(workspace, sandbox)
    with pytest.raises(Refused, match="another account"):
        integrations.replace_key(integration, sandbox.key("other"))
    with pytest.raises(KeyRejected):
        integrations.replace_key(integration, sandbox.key("revoked"))
    assert integration.key_hint == sandbox.key("lively")[-4:]


def test_the_same_account_twice_is_refused_by_name_unless_insisted(workspace: Workspace, sandbox: Sandbox) -> None:
    connect(workspace, sandbox)
    with pytest.raises(AlreadyConnected, match="“OpenRouter”"):
        connect(workspace, sandbox, "lively-again")
    assert connect(workspace, sandbox, "lively-again", twice=True).label == "OpenRouter 2"


@pytest.mark.parametrize(
    ("name", "error"), [("inference", NotManagementKey), ("revoked", KeyRejected), ("down", Unreachable)]
)
def test_connecting_with_a_bad_key_stores_nothing(
    workspace: Workspace, sandbox: Sandbox, name: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        connect(workspace, sandbox, name)
    assert db.session.execute(select(func.count()).select_from(Integration)).scalar_one() == 0


def test_any_number_of_wishes_is_one_open_run(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = connect(workspace, sandbox)
    integrations.force_sync(integration)
    integrations.force_sync(integration)
    runs.insert_daily(utc_now() + timedelta(days=1))
    db.session.commit()
    assert db.session.execute(select(func.count()).select_from(SyncRun)).scalar_one() == 1
    assert run_due() == 1
    assert run_due() == 0


def test_forcing_brings_a_waiting_retry_forward(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = synced(workspace, sandbox)
    sandbox.fault("lively", "down")
    run = again(integration)
    sandbox.fault("lively", None)
    assert run_due() == 0
    integrations.force_sync(integration)
    assert run_due() == 1
    assert last_run(integration).id == run.id


def test_removing_with_the_history_kept_forgets_the_key_and_keeps_the_costs(
    workspace: Workspace, sandbox: Sandbox
) -> None:
    integration = synced(workspace, sandbox)
    integrations.remove(integration, keep_history=True)
    assert (integration.key_ciphertext, integration.key_hint) == (None, "")
    assert total(integration) == truth(sandbox)
    assert integrations.find(workspace.id, integration.id) is None
    assert runs.insert_daily(utc_now() + timedelta(days=1)) == 0


def test_removing_with_the_history_deletes_all_of_it(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = synced(workspace, sandbox)
    integrations.remove(integration, keep_history=False)
    for table in (Integration, CostLine, CoveredDay, SyncRun):
        assert db.session.execute(select(func.count()).select_from(table)).scalar_one() == 0


def test_an_account_that_comes_back_goes_on_where_it_ended(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = synced(workspace, sandbox)
    integrations.remove(integration, keep_history=True)
    back = connect(workspace, sandbox, "lively-again")
    assert back.id == integration.id
    assert run_due() == 1
    assert total(back) == truth(sandbox)
    assert integrations.find(workspace.id, back.id) is not None


def test_there_is_nothing_to_keep_of_an_account_that_was_never_read(workspace: Workspace, sandbox: Sandbox) -> None:
    integrations.remove(connect(workspace, sandbox), keep_history=True)
    assert db.session.execute(select(func.count()).select_from(Integration)).scalar_one() == 0


@pytest.mark.parametrize("keep_history", [True, False])
def test_a_key_for_what_was_removed_meanwhile_is_not_stored(
    workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, keep_history: bool
) -> None:
    integration = synced(workspace, sandbox)
    check = integrations.check

    def slow_check(provider: str, key: str) -> KeyInfo:
        info = check(provider, key)
        integrations.remove(db.session.get_one(Integration, 1), keep_history=keep_history)
        return info

    monkeypatch.setattr(integrations, "check", slow_check)
    with pytest.raises(Refused, match="removed meanwhile"):
        integrations.replace_key(integration, sandbox.key("lively-again"))
    db.session.rollback()
    assert db.session.execute(select(Integration.key_ciphertext)).scalar() is None


def test_two_who_connect_one_account_at_once_get_one(context: Flask, workspace: Workspace, sandbox: Sandbox) -> None:
    workspace_id, outcomes = workspace.id, []
    db.session.rollback()

    def add() -> None:
        with context.app_context():
            try:
                outcomes.append(integrations.connect(workspace_id, "openrouter", "", sandbox.key("lively")).id)
            except AlreadyConnected:
                outcomes.append(None)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4
    assert [found for found in outcomes if found] == [1]


def test_a_wrong_encryption_key_is_the_operators_to_mend_and_heals(
    context: Flask, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    integration = synced(workspace, sandbox)
    with monkeypatch.context() as other:
        other.setitem(context.extensions, "vault", Vault.parse(vault.generate()))
        run = again(integration)
        assert (run.status, integration.problem) == ("due", "fault")
        assert "GRAFIENT_ENCRYPTION_KEYS" in (run.error or "")
    integrations.force_sync(integration)
    assert run_due() == 1
    assert (last_run(integration).status, integration.problem) == ("done", None)


def test_a_removed_integration_gets_nothing_from_a_sync_under_way(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = connect(workspace, sandbox)
    claim = runs.claim(utc_now())
    db.session.commit()
    assert claim is not None
    integrations.remove(integration, keep_history=True)
    with pytest.raises(runs.LeaseLost):
        sync.perform(claim)
    db.session.rollback()
    assert lines() == []


def test_provisional_until_the_provider_has_settled_the_day(workspace: Workspace, sandbox: Sandbox) -> None:
    from grafient import ledger
    from grafient.providers import Activity
    from grafient.providers import CostLine as Line

    integration = connect(workspace, sandbox)
    run_id = last_run(integration).id
    day = date(2026, 6, 3)
    early = datetime(2026, 6, 4, 0, 10, tzinfo=UTC)
    half = Line(day, "p", "", "", "m", Decimal("1.5"))
    whole = Line(day, "p", "", "", "m", Decimal("2.5"))
    ledger.record(integration.id, run_id, Activity(day, day, [half]), early)
    assert db.session.execute(select(CoveredDay.state)).scalar_one() == "provisional"
    recorded = ledger.record(integration.id, run_id, Activity(day, day, [whole]), early + timedelta(hours=6))
    assert (recorded.lines_changed, recorded.days_restated) == (1, 0)
    assert db.session.execute(select(CoveredDay.state)).scalar_one() == "final"
    recorded = ledger.record(integration.id, run_id, Activity(day, day, [half]), early + timedelta(days=1))
    assert recorded.days_restated == 1
    assert total(integration) == Decimal("1.5")
