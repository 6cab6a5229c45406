"""The run ledger: the database decides what is due, and who may do it.

A run is one row of ``sync_run``. Whoever wants a sync, by hand, on connecting or by the clock, writes the same row,
and the database allows an integration one open run. A worker claims a run with a token for the length of a lease;
what it found and "done" are committed together and only while the token still holds. Nothing here needs Redis.
"""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import ColumnElement, and_, case, exists, func, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from grafient.extensions import db
from grafient.models import Integration, SyncRun, utc_now

DAILY_AT = time(6, 0, tzinfo=UTC)
"""OpenRouter settles a day about 30 minutes after midnight UTC."""

LEASE = timedelta(seconds=120)
"""Longer than any one call to a provider, its 60 seconds and the writing; a sync takes another in time before each."""

LONGEST_LEASE = 8
"""Leases double with each attempt up to so many times the first, so that a run that kills its workers rests."""

FIRST_PAUSE = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(hours=1)
LONGEST_ASKED = timedelta(hours=24)


@dataclass(frozen=True)
class Claim:
    """The right to do one run until the lease ends. ``token`` guards every write that follows."""

    run_id: int
    integration_id: int
    token: str
    attempt: int


class LeaseLost(Exception):
    """The claim no longer holds: another worker took over, or the integration was removed. Write nothing."""


def slot_of(now: datetime) -> date:
    """The UTC day whose 06:00 is the latest that has come."""
    return (now - timedelta(hours=DAILY_AT.hour, minutes=DAILY_AT.minute)).astimezone(UTC).date()


def request(integration_id: int, trigger: str) -> None:
    """Want a sync now. If one is open already it is that one, brought forward if it waits for a retry."""
    now = utc_now()
    values = {"integration_id": integration_id, "trigger": trigger, "status": "due", "attempt": 0}
    db.session.execute(_insert_or_nothing().values(**values, next_attempt_at=now, created_at=now))
    db.session.execute(
        update(SyncRun)
        .where(SyncRun.integration_id == integration_id, SyncRun.status == "due", SyncRun.next_attempt_at > now)
        .values(next_attempt_at=now)
    )


def insert_daily(now: datetime) -> int:
    """Write what the clock owes: one run per integration and day, from 06:00 UTC on, however late it is noticed.

    Left out: those that nobody could sync (paused, removed, waiting for a new key), those that have an open run,
    and those that were synced since 06:00 anyway. Returns the number of new runs.
    """
    slot = slot_of(now)
    due_at = datetime.combine(slot, DAILY_AT)
    open_or_slotted = exists().where(
        SyncRun.integration_id == Integration.id,
        or_(SyncRun.slot == slot, SyncRun.status.in_(("due", "running"))),
    )
    owed = select(
        Integration.id,
        literal("daily"),
        literal(slot),
        literal("due"),
        literal(0),
        literal(now, SyncRun.next_attempt_at.type),
        literal(now, SyncRun.created_at.type),
    ).where(
        Integration.removed_at.is_(None),
        Integration.paused_at.is_(None),
        or_(Integration.problem.is_(None), Integration.problem != "needs_key"),
        Integration.created_at < due_at,
        or_(Integration.last_success_at.is_(None), Integration.last_success_at < due_at),
        ~open_or_slotted,
    )
    columns = ["integration_id", "trigger", "slot", "status", "attempt", "next_attempt_at", "created_at"]
    inserted = db.session.execute(_insert_or_nothing().from_select(columns, owed).returning(SyncRun.id))
    return len(inserted.all())


def count_claimable(now: datetime) -> int:
    """How many runs could be claimed at that moment."""
    return db.session.execute(select(func.count()).select_from(SyncRun).where(_claimable(now))).scalar_one()


def claim(now: datetime) -> Claim | None:
    """Take one run that is due, or whose worker's lease has ended; those that a person waits for come first."""
    due = db.session.execute(
        select(SyncRun.id, SyncRun.attempt)
        .where(_claimable(now))
        .order_by(case((SyncRun.trigger == "daily", 1), else_=0), SyncRun.next_attempt_at, SyncRun.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).first()
    if due is None:
        return None
    token = secrets.token_hex(16)
    row = db.session.execute(
        update(SyncRun)
        .where(SyncRun.id == due.id, _claimable(now))
        .values(
            status="running",
            token=token,
            lease_until=now + LEASE * min(2**due.attempt, LONGEST_LEASE),
            attempt=SyncRun.attempt + 1,
            started_at=func.coalesce(SyncRun.started_at, literal(now, SyncRun.started_at.type)),
        )
        .returning(SyncRun.integration_id, SyncRun.attempt)
    ).one_or_none()
    return None if row is None else Claim(due.id, row.integration_id, token, row.attempt)


def hold(claim: Claim) -> SyncRun:
    """The claimed run, locked until the transaction ends. Raises LeaseLost if it is no longer this claim's.

    Call it first in the transaction that writes: from then on nobody else can take the run.
    """
    run = db.session.execute(
        select(SyncRun)
        .where(SyncRun.id == claim.run_id, SyncRun.status == "running", SyncRun.token == claim.token)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).scalar_one_or_none()
    if run is None:
        raise LeaseLost(f"run {claim.run_id} belongs to another worker now, or was cancelled")
    return run


def extend(run: SyncRun) -> datetime:
    """Hold a held run for at least another lease's length; until when."""
    run.lease_until = max(run.lease_until or utc_now(), utc_now() + LEASE)
    return run.lease_until


def progress(run: SyncRun, stage: str, done: int | None = None, asked: int | None = None) -> None:
    """Say how far a held run is."""
    run.stage, run.steps_done, run.steps_asked = stage, done, asked


def finish(run: SyncRun, status: str, error: str | None = None) -> None:
    """End a held run: ``done``, ``failed`` or ``cancelled``."""
    run.status, run.error, run.finished_at = status, error, utc_now()
    run.token = run.lease_until = run.stage = None


def retry_later(run: SyncRun, error: str, retry_after: float | None) -> None:
    """Put a held run back: due again after a pause that grows, and is never shorter than what was asked for."""
    run.status, run.error = "due", error
    run.token = run.lease_until = run.stage = None
    run.next_attempt_at = utc_now() + pause(run.attempt, retry_after)


def pause(attempt: int, retry_after: float | None) -> timedelta:
    """1, 2, 4, ... up to 60 minutes, and up to a fifth more at random; or what the provider asks, up to a day."""
    growing: timedelta = min(FIRST_PAUSE * 2 ** min(attempt - 1, 10), LONGEST_PAUSE)
    jittered = growing * (1 + random.random() / 5)  # noqa: S311 - spreads load, keeps no secret
    return max(jittered, min(timedelta(seconds=retry_after or 0), LONGEST_ASKED))


def cancel_open(integration_id: int) -> None:
    """End whatever is open for an integration; a worker that is at it can't commit any more."""
    db.session.execute(
        update(SyncRun)
        .where(SyncRun.integration_id == integration_id, SyncRun.status.in_(("due", "running")))
        .values(status="cancelled", token=None, lease_until=None, stage=None, finished_at=utc_now())
    )


def _claimable(now: datetime) -> ColumnElement[bool]:
    return or_(
        and_(SyncRun.status == "due", SyncRun.next_attempt_at <= now),
        and_(SyncRun.status == "running", SyncRun.lease_until < now),
    )


def _insert_or_nothing() -> sqlite.Insert | postgresql.Insert:
    if db.engine.dialect.name == "sqlite":
        return sqlite.insert(SyncRun).on_conflict_do_nothing()
    return postgresql.insert(SyncRun).on_conflict_do_nothing()
