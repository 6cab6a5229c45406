"""The write side: connect, replace a key, pause, remove; against the sandbox over HTTP, in both databases."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import func, select

from grafient import integrations, runs, sync
from grafient.extensions import db
from grafient.integrations import AlreadyConnected, Refused
from grafient.models import (
    ApiKey,
    CostLine,
    CoveredDay,
    CreditReading,
    DayCheck,
    Integration,
    KeyLine,
    RawReply,
    SyncRun,
    Workspace,
    utc_now,
)
from grafient.providers import KeyInfo, KeyRejected, NotManagementKey, Unreachable
from grafient.sandbox import Sandbox
from tests.syncing import again, at, connect, last_run, lines, run_due, synced, total, truth


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


def count(table: type) -> int:
    return db.session.execute(select(func.count()).select_from(table)).scalar_one()


def test_removing_with_the_history_deletes_all_of_it(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = synced(workspace, sandbox)
    tables = (Integration, SyncRun, CostLine, KeyLine, ApiKey, CoveredDay, DayCheck, CreditReading, RawReply)
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
    claim = runs.claim(utc_now())
    db.session.commit()
    assert claim is not None
    integrations.remove(integration, keep_history=True)
    with pytest.raises(runs.LeaseLost):
        sync.perform(claim)
    db.session.rollback()
    assert lines() == []
