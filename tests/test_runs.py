"""The run ledger: who may do what is due, whatever dies in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event, func, insert, select

from grafient import integrations, runs, sync
from grafient.extensions import db
from grafient.models import Integration, SyncRun, Workspace, utc_now
from grafient.sandbox import Sandbox
from tests.syncing import at, claim_one

SIX = datetime(2026, 6, 4, 6, 0, tzinfo=UTC)


@pytest.fixture
def integration(workspace: Workspace) -> Integration:
    """An integration made long ago, with nothing to do."""
    integration = Integration(
        workspace_id=workspace.id,
        provider="openrouter",
        label="one",
        key_hint="abcd",
        created_at=SIX - timedelta(days=9),
    )
    db.session.add(integration)
    db.session.commit()
    return integration


def count() -> int:
    return db.session.execute(select(func.count()).select_from(SyncRun)).scalar_one()


def finish_all(now: datetime) -> None:
    while (claim := claim_one(now)) is not None:
        runs.finish(runs.hold(claim), "done")


def test_nothing_is_due_before_six_and_one_run_from_six_on(integration: Integration) -> None:
    integration.last_success_at = SIX - timedelta(hours=25)
    assert runs.insert_daily(SIX - timedelta(seconds=1)) == 1, "yesterday's, which was missed"
    finish_all(SIX)
    assert runs.insert_daily(SIX - timedelta(seconds=1)) == 0
    assert runs.insert_daily(SIX) == 1
    finish_all(SIX)
    for later in (0, 1, 60, 3600, 86399):
        assert runs.insert_daily(SIX + timedelta(seconds=later)) == 0
    assert runs.insert_daily(SIX + timedelta(days=1)) == 1


def test_a_run_missed_for_days_is_made_up_for_once(integration: Integration) -> None:
    integration.last_success_at = SIX - timedelta(days=6)
    assert runs.insert_daily(SIX + timedelta(hours=11)) == 1
    assert runs.insert_daily(SIX + timedelta(hours=12)) == 0


def test_who_was_synced_since_six_owes_nothing(integration: Integration) -> None:
    integration.last_success_at = SIX + timedelta(minutes=1)
    db.session.flush()
    assert runs.insert_daily(SIX + timedelta(hours=1)) == 0


@pytest.mark.parametrize("state", ["paused", "removed", "needs_key", "just connected"])
def test_who_can_not_be_synced_is_left_out(integration: Integration, state: str) -> None:
    if state == "paused":
        integration.paused_at = SIX
    elif state == "removed":
        integration.removed_at = SIX
    elif state == "needs_key":
        integration.problem = "needs_key"
    else:
        integration.created_at = SIX
    db.session.flush()
    assert runs.insert_daily(SIX) == 0


def test_a_run_is_claimed_once(integration: Integration) -> None:
    runs.request(integration.id, "manual")
    now = utc_now()
    assert claim_one(now) is not None
    assert claim_one(now) is None


def test_when_the_lease_ends_another_takes_over_and_the_first_can_not_commit(integration: Integration) -> None:
    runs.request(integration.id, "manual")
    now = utc_now()
    first = claim_one(now)
    assert claim_one(now + runs.LEASE - timedelta(seconds=1)) is None
    second = claim_one(now + runs.LEASE + timedelta(seconds=1))
    assert first is not None
    assert second is not None
    assert (second.run_id, second.attempt) == (first.run_id, 2)
    with pytest.raises(runs.LeaseLost):
        runs.hold(first)
    assert runs.hold(second).status == "running"


def test_a_run_that_kills_its_workers_rests_longer_each_time(integration: Integration) -> None:
    runs.request(integration.id, "manual")
    now = utc_now()
    waited = []
    for _ in range(6):
        assert claim_one(now) is not None
        lease = db.session.execute(select(SyncRun.lease_until)).scalar_one()
        waited.append((lease - now) / runs.LEASE)
        now = lease + timedelta(seconds=1)
    assert waited == [1, 2, 4, 8, 8, 8]


def test_a_held_run_can_be_held_for_another_lease_and_says_how_far_it_is(integration: Integration) -> None:
    runs.request(integration.id, "manual")
    now = utc_now()
    claim = claim_one(now)
    assert claim is not None
    run = runs.hold(claim)
    with at(now + runs.LEASE - timedelta(seconds=10)):
        assert runs.extend(run) >= now + 2 * runs.LEASE - timedelta(seconds=10)
        runs.progress(run, "keys", 3, 500)
        assert (run.stage, run.steps_done, run.steps_asked) == ("keys", 3, 500)
    db.session.flush()
    assert claim_one(now + runs.LEASE + timedelta(seconds=60)) is None
    again = claim_one(now + 2 * runs.LEASE)
    assert again is not None
    with pytest.raises(runs.LeaseLost):
        runs.hold(claim)


def test_a_lease_that_was_made_longer_is_not_cut(integration: Integration) -> None:
    runs.request(integration.id, "manual")
    now = utc_now()
    for _ in range(4):
        claim = claim_one(now)
        assert claim is not None
        until = db.session.execute(select(SyncRun.lease_until)).scalar_one()
        now = until + timedelta(seconds=1)
    run = runs.hold(claim)
    assert runs.extend(run) == until
    assert run.lease_until == until


@pytest.mark.parametrize("end", [lambda run: runs.finish(run, "done"), lambda run: runs.retry_later(run, "away", None)])
def test_what_has_ended_is_at_no_stage_and_held_by_nobody(
    integration: Integration, end: Callable[[SyncRun], None]
) -> None:
    runs.request(integration.id, "manual")
    claim = claim_one(utc_now())
    assert claim is not None
    run = runs.hold(claim)
    runs.progress(run, "history", 1, 2)
    end(run)
    db.session.flush()
    assert (run.stage, run.token, run.lease_until) == (None, None, None)
    with pytest.raises(runs.LeaseLost):
        runs.hold(claim)


def test_people_come_before_the_clock(workspace: Workspace, integration: Integration) -> None:
    runs.insert_daily(SIX)
    other = Integration(workspace_id=workspace.id, provider="openrouter", label="two", key_hint="abcd")
    db.session.add(other)
    db.session.flush()
    runs.request(other.id, "manual")
    claim = claim_one(utc_now())
    assert claim is not None
    assert claim.integration_id == other.id


def test_pauses_grow_have_jitter_and_an_end() -> None:
    minutes = [runs.pause(attempt, None) / timedelta(minutes=1) for attempt in (1, 2, 3, 6, 7, 50)]
    for got, least in zip(minutes, (1, 2, 4, 32, 60, 60), strict=True):
        assert least <= got <= least * 1.2
    assert runs.pause(1, 7200) == timedelta(hours=2)
    assert runs.pause(1, 1e9) == timedelta(hours=24)
    assert len({runs.pause(1, None) for _ in range(20)}) > 1


def test_a_dead_worker_leaves_no_half_and_is_replaced(context: Flask, workspace: Workspace, sandbox: Sandbox) -> None:
    integrations.connect(workspace.id, "openrouter", "", sandbox.key("lively"))
    now = utc_now()
    assert claim_one(now) is not None
    db.session.commit()
    assert runs.count_claimable(now) == 0
    later = now + runs.LEASE + timedelta(seconds=1)
    assert runs.count_claimable(later) == 1
    claim = claim_one(later)
    db.session.commit()
    assert claim is not None
    sync.perform(claim)
    run = db.session.execute(select(SyncRun)).scalar_one()
    assert (run.status, run.attempt) == ("done", 2)


def many(workspace: Workspace, number: int) -> list[int]:
    """So many integrations made long ago, by their ids."""
    long_ago = SIX - timedelta(days=9)
    own = {"workspace_id": workspace.id, "provider": "openrouter", "key_hint": "abcd", "created_at": long_ago}
    db.session.execute(insert(Integration), [own | {"label": str(one)} for one in range(number)])
    db.session.commit()
    return sorted(db.session.execute(select(Integration.id)).scalars())


def test_many_that_are_due_at_once_begin_one_after_another(workspace: Workspace) -> None:
    many(workspace, 250)
    assert runs.insert_daily(SIX) == 250
    begin = Counter(db.session.execute(select(SyncRun.next_attempt_at)).scalars())
    assert set(begin) == {SIX + timedelta(seconds=number) for number in range(3)}
    assert all(count > 50 for count in begin.values())
    assert runs.count_claimable(SIX + timedelta(seconds=3)) == 250


def test_a_few_that_are_due_at_once_begin_at_once(workspace: Workspace) -> None:
    many(workspace, 99)
    assert runs.insert_daily(SIX) == 99
    assert runs.count_claimable(SIX) == 99


def test_several_are_claimed_at_once_those_that_a_person_waits_for_first(workspace: Workspace) -> None:
    ids = many(workspace, 9)
    with at(SIX):
        runs.insert_daily(utc_now())
        runs.cancel_open(ids[7])
        runs.request(ids[7], "manual")
        db.session.commit()
    later = SIX + timedelta(minutes=5)
    first = runs.claim(later, 3)
    assert [(claim.integration_id, claim.is_awaited) for claim in first] == [
        (ids[7], True),
        (ids[0], False),
        (ids[1], False),
    ]
    rest = runs.claim(later, 100)
    assert [claim.integration_id for claim in rest] == [*ids[2:7], ids[8]]
    assert runs.claim(later, 100) == []
    for claim in (*first, *rest):
        assert runs.hold(claim).integration_id == claim.integration_id


def test_a_daily_run_that_a_person_asks_for_overtakes_the_others_and_stays_that_days_run(workspace: Workspace) -> None:
    ids = many(workspace, 3)
    with at(SIX):
        runs.insert_daily(utc_now())
        runs.request(ids[2], "manual")
        db.session.commit()
        assert count() == 3
        (claim,) = runs.claim(utc_now(), 4, awaited_only=True)
        assert claim.integration_id == ids[2]
        runs.finish(runs.hold(claim), "done")
        db.session.commit()
        assert runs.insert_daily(utc_now()) == 0, "its slot is taken"


def test_when_all_threads_are_taken_only_what_a_person_waits_for_is_claimed(workspace: Workspace) -> None:
    ids = many(workspace, 3)
    runs.insert_daily(SIX)
    runs.cancel_open(ids[1])
    runs.request(ids[1], "backfill")
    db.session.commit()
    claims = runs.claim(utc_now(), 4, awaited_only=True)
    assert [claim.integration_id for claim in claims] == [ids[1]]


def test_runs_that_were_tried_before_keep_their_longer_lease_beside_others(workspace: Workspace) -> None:
    many(workspace, 2)
    runs.insert_daily(SIX)
    (tried,) = runs.claim(SIX, 1)
    db.session.commit()
    later = tried.until + timedelta(seconds=1)
    leases = {claim.run_id: (claim.attempt, claim.until - later) for claim in runs.claim(later, 2)}
    assert leases.pop(tried.run_id) == (2, 2 * runs.LEASE)
    assert list(leases.values()) == [(1, runs.LEASE)]


def test_what_is_due_is_found_by_an_index_in_its_order(workspace: Workspace) -> None:
    """Among ten thousand that are due, sorting them for each claim would take longer than a sync."""
    if db.engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL's plan depends on how many rows there are")
    plans: list[str] = []

    def watch(_connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT sync_run.id"):
            plans.extend(row[3] for row in cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

    event.listen(db.engine, "before_cursor_execute", watch)
    try:
        runs.claim(SIX, 3)
    finally:
        event.remove(db.engine, "before_cursor_execute", watch)
    assert [plan.split("INDEX ")[1].split()[0] for plan in plans] == ["ix_sync_run_awaited", "ix_sync_run_clocked"]
