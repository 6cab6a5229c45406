"""Sync runs: the database decides what is due, and who may do it.

A run is one row of ``sync_run``. Force Sync, Add Integration and the clock all write such a row, and the database
allows an integration one open run. A worker claims a run with a token, for the length of a lease: until then nobody
else takes it. What the worker found and "done" are committed together, and only while the token is still in the row.

For example: a worker is killed in the middle of a sync. Its lease of two minutes ends, another worker claims the run
with a new token, and does it again. Should the first one come back to life (a laptop that slept), its token is no
longer in the row, and nothing that it still wants to write is committed. Nothing here needs Redis.
"""

from __future__ import annotations

import random
import secrets
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import NamedTuple, TypeVar

from sqlalchemy import ColumnElement, and_, bindparam, case, exists, func, literal, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import joinedload

from grafient.days import DUE_AT, ONE_DAY, last_due
from grafient.extensions import db
from grafient.models import AWAITED, CLOCKED, IS_OPEN, Integration, SyncRun, utc_now
from grafient.states import OPEN, Problem, RunStatus, Stage, Trigger

LEASE = timedelta(seconds=120)
"""Longer than any one call to a provider (60 seconds) and writing what it brought. A sync renews its lease before a
call that might end after it."""

LONGEST_LEASE = 8
"""Each attempt's first lease is twice as long as the last one's, up to this many times LEASE: a run that kills every
worker which takes it, say by a reply that fills the memory, then does so every 16 minutes instead of every two."""

FIRST_PAUSE = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(hours=1)
LONGEST_ASKED = timedelta(hours=24)

DUE_A_SECOND = 100
MOST_SPREAD_SECONDS = 59
"""Daily runs become due at that rate, more of them over a minute."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Claim:
    """The right to do one run until the lease ends, ``until`` at least. Every write checks that ``token`` is still the
    run's. ``is_awaited``: whether a person asked for it."""

    run_id: int
    integration_id: int
    token: str
    attempt: int
    until: datetime
    is_awaited: bool


class LeaseLost(Exception):
    """The claim no longer holds: another worker took over, or the integration was removed. Write nothing."""


def slot_of(now: datetime) -> date:
    """The UTC day whose 06:00 is the latest that has come."""
    return last_due(now) + ONE_DAY


def request(integration_id: int, trigger: Trigger) -> None:
    """Ask for a sync now. If one is open already, it is that one: it no longer waits for its next try, nor, if it is
    the daily one, behind those that nobody waits for."""
    now = utc_now()
    values = {"integration_id": integration_id, "trigger": trigger, "status": RunStatus.DUE, "attempt": 0}
    db.session.execute(_insert_or_nothing().values(**values, next_attempt_at=now, created_at=now))
    waiting = SyncRun.integration_id == integration_id, SyncRun.status == RunStatus.DUE
    db.session.execute(update(SyncRun).where(*waiting, SyncRun.next_attempt_at > now).values(next_attempt_at=now))
    db.session.execute(update(SyncRun).where(*waiting, SyncRun.trigger == Trigger.DAILY).values(trigger=trigger))


def insert_daily(now: datetime) -> int:
    """Write the daily runs that are due: one per integration and day, from 06:00 UTC on, however late that is noticed.

    A Grafient that was switched off until 14:00 has them at 14:00. Left out are integrations that can't be synced
    (paused, removed, waiting for a new key), that have an open run, or that were synced since 06:00 anyway. Returns
    the number of new runs. Where they are many they don't all begin in the same second: ten thousand are spread over a
    minute, a hundred over two seconds.
    """
    slot = slot_of(now)
    due_at = datetime.combine(slot, DUE_AT)
    owes = _owes(slot, due_at)
    due = db.session.execute(select(func.count()).select_from(Integration).where(*owes)).scalar_one()
    if not due:
        return 0
    seconds = min(due // DUE_A_SECOND, MOST_SPREAD_SECONDS) + 1
    starts = {
        number: literal(now + timedelta(seconds=number), SyncRun.next_attempt_at.type) for number in range(seconds)
    }
    owed = (
        select(
            Integration.id,
            literal(Trigger.DAILY, SyncRun.trigger.type),
            literal(slot),
            literal(RunStatus.DUE, SyncRun.status.type),
            literal(0),
            case(starts, value=Integration.id % seconds),
            literal(now, SyncRun.created_at.type),
        )
        .where(*owes)
        .order_by(Integration.id)
    )
    columns = ["integration_id", "trigger", "slot", "status", "attempt", "next_attempt_at", "created_at"]
    inserted = db.session.execute(_insert_or_nothing().from_select(columns, owed).returning(SyncRun.id))
    return len(inserted.all())


def _owes(slot: date, due_at: datetime) -> tuple[ColumnElement[bool], ...]:
    """The condition that an integration has to have a daily run for that day."""
    mine = exists().where(SyncRun.integration_id == Integration.id)
    return (
        Integration.removed_at.is_(None),
        Integration.paused_at.is_(None),
        or_(Integration.problem.is_(None), Integration.problem != Problem.NEEDS_KEY),
        Integration.created_at < due_at,
        or_(Integration.last_success_at.is_(None), Integration.last_success_at < due_at),
        ~mine.where(SyncRun.slot == slot),
        ~mine.where(IS_OPEN),
    )


def count_claimable(now: datetime) -> int:
    """How many runs could be claimed at that moment."""
    return db.session.execute(select(func.count()).select_from(SyncRun).where(_claimable(now))).scalar_one()


def claim(now: datetime, most: int, *, awaited_only: bool = False) -> list[Claim]:
    """Take so many runs that are due, or whose worker's lease has ended, those that a person waits for first.

    ``awaited_only``: those alone.
    """
    found: list[Claim] = []
    for is_awaited in (True,) if awaited_only else (True, False):
        if len(found) < most:
            found += _claim(now, most - len(found), is_awaited)
    return found


def _claim(now: datetime, most: int, is_awaited: bool) -> list[Claim]:
    """The same of those that a person waits for, or of the others.

    Each kind is found by an index of its own that has the runs in this order: sorted anew for each claim, ten thousand
    that are due at 06:00 took longer to choose from than a sync takes.
    """
    due = db.session.execute(
        select(SyncRun.id, SyncRun.attempt)
        .where(text(AWAITED if is_awaited else CLOCKED), _claimable(now))
        .order_by(SyncRun.next_attempt_at, SyncRun.id)
        .limit(most)
        .with_for_update(skip_locked=True)
    ).all()
    by_attempt: dict[int, list[int]] = defaultdict(list)
    for run in due:
        by_attempt[run.attempt].append(run.id)
    taken = {
        claim.run_id: claim for attempt, ids in by_attempt.items() for claim in _take(now, ids, attempt, is_awaited)
    }
    return [taken[run.id] for run in due if run.id in taken]


def _take(now: datetime, ids: Sequence[int], attempt: int, is_awaited: bool) -> list[Claim]:
    """Claim these runs, all tried as often so far."""
    token, until = secrets.token_hex(16), now + LEASE * min(2**attempt, LONGEST_LEASE)
    taken = db.session.execute(
        update(SyncRun)
        .where(SyncRun.id.in_(ids), _claimable(now))
        .values(
            status=RunStatus.RUNNING,
            token=token,
            lease_until=until,
            stage=Stage.COSTS,
            attempt=SyncRun.attempt + 1,
            started_at=func.coalesce(SyncRun.started_at, literal(now, SyncRun.started_at.type)),
        )
        .returning(SyncRun.id, SyncRun.integration_id, SyncRun.attempt)
        .execution_options(synchronize_session=False)
    )
    return [Claim(row.id, row.integration_id, token, row.attempt, until, is_awaited) for row in taken]


_HELD = (
    SyncRun.id == bindparam("run_id"),
    SyncRun.status == RunStatus.RUNNING,
    SyncRun.token == bindparam("token"),
)
_CLAIMED = (
    select(
        Integration.id,
        Integration.provider,
        Integration.key_ciphertext,
        Integration.key_encryption_id,
        SyncRun.trigger,
        Integration.key_scopes,
        Integration.key_scopes_at,
    )
    .join(SyncRun, SyncRun.integration_id == Integration.id)
    .where(*_HELD)
)
_RUN = (
    select(SyncRun)
    .where(*_HELD)
    .with_for_update(of=SyncRun)
    .options(joinedload(SyncRun.integration, innerjoin=True))
    .execution_options(populate_existing=True)
)
"""Made once: SQLAlchemy takes longer to make a statement anew than the database to answer it."""


class Claimed(NamedTuple):
    """What a sync begins with."""

    integration_id: int
    provider: str
    key_ciphertext: bytes | None
    key_encryption_id: str | None
    trigger: Trigger
    key_scopes: str | None
    key_scopes_at: datetime | None


def claimed(claim: Claim) -> Claimed:
    """What a claimed run begins with. Raises LeaseLost if it is no longer this claim's."""
    return Claimed(*_found(claim, db.session.connection().execute(_CLAIMED, _named(claim)).one_or_none()))


def hold(claim: Claim) -> SyncRun:
    """The claimed run with its integration, locked until the transaction ends. Raises LeaseLost if it is no longer this
    claim's.

    Call it first in the transaction that writes: from then on nobody else can take the run.
    """
    return _found(claim, db.session.execute(_RUN, _named(claim)).scalar_one_or_none())


def _named(claim: Claim) -> dict[str, object]:
    return {"run_id": claim.run_id, "token": claim.token}


def _found(claim: Claim, found: _T | None) -> _T:
    if found is None:
        raise LeaseLost(f"run {claim.run_id} belongs to another worker now, or was cancelled")
    return found


def extend(run: SyncRun) -> datetime:
    """Hold a held run for at least another lease's length; until when."""
    run.lease_until = max(run.lease_until or utc_now(), utc_now() + LEASE)
    return run.lease_until


def progress(run: SyncRun, stage: Stage, done: int | None = None, asked: int | None = None) -> None:
    """Note how far a held run is."""
    run.stage, run.steps_done, run.steps_asked = stage, done, asked


def finish(run: SyncRun, status: RunStatus, error: str | None = None) -> None:
    """End a held run."""
    run.status, run.error, run.finished_at = status, error, utc_now()
    run.token = run.lease_until = run.stage = None


def retry_later(run: SyncRun, error: str, retry_after: float | None) -> None:
    """Put a held run back: due again after a pause that grows with each attempt, and is no shorter than asked for."""
    run.status, run.error = RunStatus.DUE, error
    run.token = run.lease_until = run.stage = None
    run.next_attempt_at = utc_now() + pause(run.attempt, retry_after)


def pause(attempt: int, retry_after: float | None) -> timedelta:
    """1, 2, 4, ... up to 60 minutes, and up to a fifth more at random; or what the provider asks, up to a day."""
    growing: timedelta = min(FIRST_PAUSE * 2 ** min(attempt - 1, 10), LONGEST_PAUSE)
    jittered = growing * (1 + random.random() / 5)  # noqa: S311 - spreads load, keeps no secret
    return max(jittered, min(timedelta(seconds=retry_after or 0), LONGEST_ASKED))


def told(run: SyncRun) -> str | None:
    """What an operator wants to know of a held run that has just ended, or was put back; None of one that goes on."""
    if run.token is not None:
        return None
    took = (utc_now() - (run.started_at or utc_now())).total_seconds()
    if run.status is RunStatus.FAILED:
        return f"{run.trigger} sync failed after {took:.1f} s: {run.error}"
    if run.status is RunStatus.DUE:
        wait = (run.next_attempt_at - utc_now()).total_seconds()
        return f"{run.trigger} sync, try {run.attempt}, ended after {took:.1f} s; again in {wait:.0f} s: {run.error}"
    parts = [f"{run.lines_read or 0} lines read", f"{run.lines_added or 0} added", f"{run.lines_changed or 0} changed"]
    days = run.days_settled or 0
    parts += [f"{run.lines_removed or 0} removed", f"{days} day{'' if days == 1 else 's'} settled"]
    if run.settled_usd is not None:
        parts[-1] += f" (${run.settled_usd.normalize():f})"
    parts.append(f"{run.days_restated or 0} restated")
    return f"{run.trigger} sync done in {took:.1f} s: {', '.join(parts)}{f'. {run.error}' if run.error else ''}"


def put_back_every() -> int:
    """Have all runs that are under way done anew, at once; how many that were. No claim on them holds any longer.

    For a restored backup: the leases in it are of workers that are gone, and a claim that was alive when it was made
    must not come back to life with it.
    """
    put_back = (
        update(SyncRun)
        .where(SyncRun.status == RunStatus.RUNNING)
        .values(status=RunStatus.DUE, token=None, lease_until=None, stage=None, next_attempt_at=utc_now())
    )
    return int(db.session.execute(put_back).rowcount)  # type: ignore[attr-defined]


def cancel_open(integration_id: int) -> None:
    """End whatever is open for an integration; a worker that is doing it can't commit any more."""
    db.session.execute(
        update(SyncRun)
        .where(SyncRun.integration_id == integration_id, SyncRun.status.in_(OPEN))
        .values(status=RunStatus.CANCELLED, token=None, lease_until=None, stage=None, finished_at=utc_now())
    )


def _claimable(now: datetime) -> ColumnElement[bool]:
    return and_(
        IS_OPEN,
        or_(
            and_(SyncRun.status == RunStatus.DUE, SyncRun.next_attempt_at <= now),
            and_(SyncRun.status == RunStatus.RUNNING, SyncRun.lease_until < now),
        ),
    )


def _insert_or_nothing() -> sqlite.Insert | postgresql.Insert:
    if db.engine.dialect.name == "sqlite":
        return sqlite.insert(SyncRun).on_conflict_do_nothing()
    return postgresql.insert(SyncRun).on_conflict_do_nothing()
