"""The write side: connect, replace a key, pause, remove; against the sandbox over HTTP, in both databases."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from flask import Flask
from sqlalchemy import ColumnElement, func, select

from grafient import evidence, integrations, runs, status, sync
from grafient.extensions import db
from grafient.integrations import AlreadyConnected, Refused
from grafient.models import (
    ApiKey,
    CostLine,
    CoveredDay,
    CreditReading,
    DayCheck,
    DayTotal,
    Integration,
    KeyPart,
    Model,
    ModelTotal,
    RawReply,
    Series,
    SyncRun,
    Workspace,
    utc_now,
)
from grafient.models.columns import usd_sum
from grafient.providers import KeyCannotReadCosts, KeyInfo, KeyRejected, Unreachable
from grafient.sandbox import NewRow, Sandbox
from tests.syncing import (
    a_day,
    again,
    at,
    claim_one,
    connect,
    last_run,
    later,
    lines,
    on_sqlite,
    run_due,
    synced,
    total,
    truth,
)


@pytest.fixture(autouse=True)
def _at_noon() -> Iterator[None]:
    with at():
        yield


def test_connecting_checks_seals_and_wants_the_backfill(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = connect(workspace, sandbox)
    key = sandbox.key("lively")
    assert integration.label == "OpenRouter"
    assert integration.key_hint == key[-4:]
    assert key.encode() not in (integration.key_ciphertext or b"")
    run = last_run(integration)
    assert (run.trigger, run.status) == ("backfill", "due")
    assert connect(workspace, sandbox, "other").label == "OpenRouter 2"


def test_a_sync_under_way_with_the_old_key_does_not_speak_of_the_new_one(
    workspace: Workspace, sandbox: Sandbox
) -> None:
    integration = synced(workspace, sandbox)
    integrations.force_sync(integration)
    claim = claim_one(utc_now())
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


def test_a_key_does_not_bring_a_second_integration_to_an_account(workspace: Workspace, sandbox: Sandbox) -> None:
    """Where the provider did not say whose key it was at first, the account turns out with a later key."""
    connect(workspace, sandbox)
    unknown = connect(workspace, sandbox, "other")
    unknown.account_ref = None
    db.session.commit()
    hint = unknown.key_hint
    with pytest.raises(AlreadyConnected, match="already connected, as “OpenRouter”"):
        integrations.replace_key(unknown, sandbox.key("lively-again"))
    db.session.rollback()
    assert (unknown.account_ref, unknown.key_hint) == (None, hint)
    integrations.replace_key(unknown, sandbox.key("other"))
    assert unknown.account_ref is not None, "its own account is no second one"


def test_a_key_does_not_bring_the_account_of_a_removed_history_either(workspace: Workspace, sandbox: Sandbox) -> None:
    removed = synced(workspace, sandbox)
    integrations.remove(removed, keep_history=True)
    unknown = connect(workspace, sandbox, "other")
    unknown.account_ref = None
    db.session.commit()
    with pytest.raises(Refused, match="Use Add Integration"):
        integrations.replace_key(unknown, sandbox.key("lively"))
    db.session.rollback()
    assert integrations.connect(workspace.id, "openrouter", "", sandbox.key("lively")).id == removed.id


def without_account(integration: Integration) -> Integration:
    """As it was made at a time when the provider did not say whose account a key is of."""
    integration.account_ref = None
    db.session.commit()
    return integration


def test_of_two_integrations_one_gets_the_account_when_both_keys_are_replaced_at_once(
    context: Flask, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have been told by the provider whose key it is before either has written it down."""
    ids = [without_account(connect(workspace, sandbox, name)).id for name in ("other", "organization")]
    db.session.rollback()
    both_know, check, outcomes = threading.Barrier(2), integrations.check, []

    def checked_by_both(provider: str, key: str) -> KeyInfo:
        info = check(provider, key)
        both_know.wait(20)
        return info

    def replace(integration_id: int) -> None:
        with context.app_context():
            try:
                integrations.replace_key(db.session.get_one(Integration, integration_id), sandbox.key("lively"))
                outcomes.append("replaced")
            except Refused:
                outcomes.append("refused")

    monkeypatch.setattr(integrations, "check", checked_by_both)
    threads = [threading.Thread(target=replace, args=(integration_id,)) for integration_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused", "replaced"]
    assert count(Integration, Integration.account_ref.is_not(None)) == 1


def test_one_that_was_connected_twice_on_purpose_can_have_its_key_replaced(
    workspace: Workspace, sandbox: Sandbox
) -> None:
    connect(workspace, sandbox)
    twin = connect(workspace, sandbox, "lively-again", twice=True)
    integrations.replace_key(twin, sandbox.key("lively"))
    assert twin.key_hint == sandbox.key("lively")[-4:]


def test_forcing_reads_a_paused_integration_once_and_it_stays_paused(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = synced(workspace, sandbox)
    integrations.pause(integration)
    before = integration.last_success_at
    with later(1):
        integrations.force_sync(integration)
        assert status.card(integration).state == "Syncing"
        assert run_due() == 1
        assert integration.last_success_at != before
        assert status.card(integration).state == "Paused"
        assert runs.insert_daily(utc_now() + timedelta(days=1)) == 0
        integrations.resume(integration)
        assert run_due() == 1
        assert status.card(integration).state == "Up to date"


class TestBrought:
    """A sync says what it brought, to the last digit."""

    def test_the_first_one_brought_every_day(self, workspace: Workspace, sandbox: Sandbox) -> None:
        run = last_run(synced(workspace, sandbox))
        assert (run.days_settled, run.settled_usd) == (30, truth(sandbox))
        assert (run.days_restated, run.restated_usd) == (0, 0)
        assert run.provisional_usd == so_far(run.integration_id) > 0

    def test_the_same_again_brought_nothing(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = synced(workspace, sandbox)
        run = again(integration)
        assert (run.days_settled, run.settled_usd, run.restated_usd) == (0, 0, 0)
        brought = status.card(integration).brought
        assert brought is not None
        assert brought.is_nothing == (run.provisional_usd == 0)

    def test_a_day_later_it_brought_that_day_and_what_was_restated(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        integration = synced(workspace, sandbox)
        days = [a_day(sandbox, ago=5), a_day(sandbox, ago=9)]
        before = [sandbox.truth("lively", day, day).usage for day in days]
        for day, factor in zip(days, ("1.5", "0.5"), strict=True):
            sandbox.restate("lively", day, factor)
        with later(1):
            run = again(integration)
            yesterday = sandbox.today - timedelta(days=1)
            assert (run.days_settled, run.settled_usd) == (1, sandbox.truth("lively", yesterday, yesterday).usage)
            assert (run.days_restated, run.restated_usd) == (2, before[0] / 2 - before[1] / 2)
            card = status.card(integration)
            assert card.brought is not None
            assert (card.brought.days_settled, card.brought.restated_usd) == (1, run.restated_usd)

    def test_tries_of_one_sync_are_added_up(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = connect(workspace, sandbox)
        sandbox.fault("lively", "down", path="/credits")
        assert run_due() == 1
        assert status.card(integration).state == "Retrying"
        assert status.card(integration).brought is None, "it is not done yet"
        sandbox.fault("lively", None)
        integrations.force_sync(integration)
        assert run_due() == 1
        run = last_run(integration)
        assert (run.attempt, run.days_settled, run.settled_usd) == (2, 30, truth(sandbox))


@on_sqlite
def test_sums_beyond_what_can_be_kept_stop_no_sync(workspace: Workspace, sandbox: Sandbox) -> None:
    usage = Decimal("8499999.999999999999")
    for ago in range(3, 15):
        sandbox.add_row("lively", sandbox.today - timedelta(days=ago), NewRow(model="vendor/huge", usage=usage))
    run = last_run(synced(workspace, sandbox))
    assert (run.status, run.days_settled, run.settled_usd, run.restated_usd) == ("done", 30, None, 0)


def test_a_day_of_more_than_can_be_kept_is_refused_in_a_sentence(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = synced(workspace, sandbox)
    before, day = lines(), sandbox.today - timedelta(days=3)
    for model in ("vendor/large", "vendor/larger"):
        sandbox.add_row("lively", day, NewRow(model=model, usage=Decimal("4500000")))
    sandbox.restate("lively", sandbox.today - timedelta(days=5), Decimal("1.25"))
    run = again(integration)
    assert (run.status, integration.problem) == ("failed", "api_changed")
    assert run.error == f"OpenRouter reports $9 million or more for {day}, which Grafient cannot keep."
    assert lines() == before, "nothing was written"
    assert evidence.counts([run.id])[run.id] >= 1, "the reply is kept"


def so_far(integration_id: int) -> Decimal:
    """What is stored of unsettled days."""
    query = (
        select(usd_sum(CostLine.usage_usd))
        .join(CoveredDay, (CoveredDay.integration_id == CostLine.integration_id) & (CoveredDay.day == CostLine.day))
        .where(CostLine.integration_id == integration_id, CoveredDay.state == "provisional")
    )
    return db.session.execute(query).scalar() or Decimal(0)


@pytest.mark.parametrize(
    ("name", "error"), [("inference", KeyCannotReadCosts), ("revoked", KeyRejected), ("down", Unreachable)]
)
def test_connecting_with_a_bad_key_stores_nothing(
    workspace: Workspace, sandbox: Sandbox, name: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        connect(workspace, sandbox, name)
    assert count(Integration) == 0


def test_any_number_of_wishes_is_one_open_run(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = connect(workspace, sandbox)
    integrations.force_sync(integration)
    integrations.force_sync(integration)
    runs.insert_daily(utc_now() + timedelta(days=1))
    db.session.commit()
    assert count(SyncRun) == 1
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


def count(table: type, *conditions: ColumnElement[bool]) -> int:
    return db.session.execute(select(func.count()).select_from(table).where(*conditions)).scalar_one()


def test_removing_with_the_history_deletes_all_of_it(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = synced(workspace, sandbox)
    tables = (
        Integration,
        SyncRun,
        CostLine,
        KeyPart,
        ApiKey,
        CoveredDay,
        DayCheck,
        CreditReading,
        RawReply,
        Series,
        Model,
        DayTotal,
        ModelTotal,
    )
    tables += (Series, Model, DayTotal, ModelTotal)
    assert all(count(table) for table in tables)
    integrations.remove(integration, keep_history=False)
    assert not any(count(table) for table in tables)


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
    assert count(Integration) == 0


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
    with pytest.raises(Refused, match="removed in the meantime"):
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


def test_a_removed_integration_gets_nothing_from_a_sync_under_way(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = connect(workspace, sandbox)
    claim = claim_one(utc_now())
    db.session.commit()
    assert claim is not None
    integrations.remove(integration, keep_history=True)
    with pytest.raises(runs.LeaseLost):
        sync.perform(claim)
    db.session.rollback()
    assert lines() == []
