"""How much a sync asks of the provider: all of it once, and then what can have changed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from flask import Flask
from sqlalchemy import select

from grafient import integrations, runs
from grafient.extensions import db, providers
from grafient.models import ApiKey, Integration, KeyReading, Workspace, utc_now
from grafient.providers.openrouter import _Pace
from grafient.providers.openrouter.calls import Calls
from grafient.sandbox import NewRow, Sandbox
from tests.syncing import NOON, a_day, again, at, by_key, connect, on_sqlite, parts_add_up, run_due, spent_by, window

pytestmark = on_sqlite


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, context: Flask) -> Iterator[None]:
    monkeypatch.setattr(_Pace, "wait", lambda self: None)
    with at():
        yield


def daily(sandbox: Sandbox, days: int) -> Counter[str]:
    """The requests of the daily sync, so many days after the first one."""
    with time_machine.travel(NOON + timedelta(days=days), tick=True):
        sandbox.clear_requests()
        runs.insert_daily(utc_now())
        db.session.commit()
        assert run_due() == 1
        return Counter(
            request.path.removeprefix("/api/v1") + ("?key" if "api_key_hash" in request.query else "")
            for request in sandbox.requests()
        )


def synced(workspace: Workspace, sandbox: Sandbox, name: str) -> Integration:
    integration = connect(workspace, sandbox, name)
    sandbox.clear_requests()
    assert run_due() == 1
    return integration


WORKSPACES = 2
"""Each account of the sandbox has so many."""


def test_the_first_sync_asks_for_everything(workspace: Workspace, sandbox: Sandbox) -> None:
    synced(workspace, sandbox, "lively")
    asked = Counter(r.path.removeprefix("/api/v1") for r in sandbox.requests())
    keys = len(sandbox.account("lively").keys(sandbox.today))
    assert asked == {
        "/activity": 1 + keys,
        "/credits": 1,
        "/analytics/meta": 1,
        "/analytics/query": 2,
        "/workspaces": 1,
        "/keys": WORKSPACES,
    }


def test_a_quiet_account_costs_four_requests_and_one_for_each_further_workspace(
    workspace: Workspace, sandbox: Sandbox
) -> None:
    synced(workspace, sandbox, "empty")
    quiet = {"/activity": 1, "/credits": 1, "/analytics/query": 1, "/keys": WORKSPACES}
    assert sum(daily(sandbox, 1).values()) == sum(quiet.values()) + 5, "its keys are read, settled days first"
    assert daily(sandbox, 2) == quiet
    assert daily(sandbox, 3) == quiet


def test_only_keys_that_were_used_since_they_were_read_are_read(workspace: Workspace, sandbox: Sandbox) -> None:
    """Each day of this account, other keys than the day before spend something. Whether one that has spent today did so
    yesterday too, the list of keys does not say.
    """
    integration = synced(workspace, sandbox, "many-keys")
    assert daily(sandbox, 1)["/activity?key"] == 500, "on the first day, each of them may have been used"
    for days in (2, 3):
        with at(NOON + timedelta(days=days)):
            account, today = sandbox.account("many-keys"), sandbox.today
            lately = account.slices(today - timedelta(days=1)), account.slices(today)
            used = {part.key.hash for slices in lately for part in slices}
        assert 0 < daily(sandbox, days)["/activity?key"] <= len(used) < 100
    with at(NOON + timedelta(days=3)):
        assert parts_add_up(integration.id)
        spent = spent_by(sandbox, "many-keys", *window(sandbox))
        for name in list(spent)[:20]:
            assert {day: usd for day, usd in by_key(integration, name).items() if day in spent[name]} == spent[name]


def test_days_on_which_a_key_was_not_used_count_as_read(workspace: Workspace, sandbox: Sandbox) -> None:
    synced(workspace, sandbox, "many-keys")
    for days in (1, 2, 3):
        daily(sandbox, days)
    last = {row[0]: row[1] for row in db.session.execute(select(KeyReading.key_hash, KeyReading.last_day))}
    assert set(last.values()) == {(NOON + timedelta(days=2)).date()}
    assert len(last) == 500


def test_a_settled_day_that_has_changed_has_all_keys_read_again(workspace: Workspace, sandbox: Sandbox) -> None:
    """The correction may have moved costs from one key to another."""
    integration = synced(workspace, sandbox, "lively")
    daily(sandbox, 1)
    with at(NOON + timedelta(days=2)):
        sandbox.restate("lively", a_day(sandbox), Decimal("1.25"))
        keys = len(sandbox.account("lively").keys(sandbox.today))
    assert daily(sandbox, 2)["/activity?key"] == keys
    assert parts_add_up(integration.id)


def test_a_free_request_is_use_too(workspace: Workspace, sandbox: Sandbox) -> None:
    """It adds nothing to what the key spent, and its day has to be read all the same."""
    integration = synced(workspace, sandbox, "empty")
    for days in (1, 2):
        daily(sandbox, days)
    with at(NOON + timedelta(days=2)):
        sandbox.add_row("empty", sandbox.today, NewRow(model="vendor/free", usage=Decimal(0), key="Staging"))
    assert daily(sandbox, 3)["/activity?key"] == 1
    assert parts_add_up(integration.id)


def test_what_a_server_offers_is_asked_once_for_all_accounts(workspace: Workspace, sandbox: Sandbox) -> None:
    synced(workspace, sandbox, "lively")
    for name in ("byok", "free"):
        synced(workspace, sandbox, name)
        assert not [r for r in sandbox.requests() if r.path.endswith("/analytics/meta")]
    with time_machine.travel(NOON + timedelta(days=1), tick=True):
        providers["openrouter"]._metrics._until = 0.0  # type: ignore[attr-defined]
        synced(workspace, sandbox, "hostile")
        assert len([r for r in sandbox.requests() if r.path.endswith("/analytics/meta")]) == 1


@pytest.mark.parametrize(("wait", "asked"), [(60.0, 1), (0.0, 12)])
def test_many_that_want_it_at_once_wait_for_one_that_asks(
    workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, wait: float, asked: int
) -> None:
    """But not for long: where it is slow, each asks for itself."""
    monkeypatch.setattr("grafient.providers.openrouter.METRICS_WAIT_SECONDS", wait)
    provider, days, together = providers["openrouter"], window(sandbox), threading.Barrier(12)
    sandbox.clear_requests()

    def ask(_number: int) -> object:
        together.wait()
        return provider.reader(sandbox.key("lively")).day_totals(*days)

    def slowly(real: Any, *args: Any, **options: Any) -> Any:
        time.sleep(0.3)
        return real(*args, **options)

    real = Calls.get
    monkeypatch.setattr(Calls, "get", lambda *args, **options: slowly(real, *args, **options))
    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(ask, range(12)))
    assert found[0]
    assert found.count(found[0]) == 12
    assert len([r for r in sandbox.requests() if r.path.endswith("/analytics/meta")]) == asked


def test_new_workspaces_are_looked_for_once_a_week_and_on_force_sync(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = synced(workspace, sandbox, "empty")
    assert [daily(sandbox, days)["/workspaces"] for days in (1, 2, 6, 8, 9)] == [0, 0, 0, 1, 0]
    with at(NOON + timedelta(days=9, hours=1)):
        sandbox.clear_requests()
        again(integration)
        assert [r.path for r in sandbox.requests()].count("/api/v1/workspaces") == 1


def test_a_workspace_that_is_gone_has_them_looked_for_at_once(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = synced(workspace, sandbox, "empty")
    integration.key_scopes = '["00000000-0000-0000-0000-000000000000"]'
    db.session.commit()
    asked = daily(sandbox, 1)
    assert (asked["/workspaces"], asked["/keys"]) == (1, 1 + WORKSPACES)
    assert daily(sandbox, 2)["/keys"] == WORKSPACES


def test_a_key_that_is_gone_is_read_until_its_last_day_is_settled(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = synced(workspace, sandbox, "empty")
    key = db.session.execute(select(ApiKey).where(ApiKey.integration_id == integration.id).limit(1)).scalar_one()
    db.session.add(ApiKey(integration_id=integration.id, key_hash="ab" * 32, name="gone", disabled=False))
    db.session.commit()
    assert key.gone_at is None
    assert [daily(sandbox, days)["/activity?key"] for days in (1, 2, 3)] == [6, 1, 0]


def test_nothing_here_waits_for_a_person(workspace: Workspace, sandbox: Sandbox) -> None:
    """Force Sync twice on one day asks for no key the second time."""
    integration = synced(workspace, sandbox, "lively")
    sandbox.clear_requests()
    integrations.force_sync(integration)
    assert run_due() == 1
    assert not [request for request in sandbox.requests() if "api_key_hash" in request.query]
