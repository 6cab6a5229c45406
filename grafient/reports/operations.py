"""The six o'clock run as those who run Grafient see it: how far it is, how late, and what is slow.

It is of all workspaces, whose business is nobody else's: there is no money here, and of an integration nothing but its
id, its provider, and which kind of problem it has.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, case, exists, func, literal, or_, select, text

from grafient import evidence
from grafient.days import DUE_AT
from grafient.extensions import db
from grafient.models import IS_OPEN, Integration, SyncRun
from grafient.runs import slot_of
from grafient.states import Problem, RunStatus, Trigger

SLOTS = 14
SLOWEST = 10
ASK_SECONDS = 5
"""How often the page asks how far a run is."""


@dataclass(frozen=True)
class Slow:
    """A sync that took long: so many seconds in its last try, up to now if it is under way. ``replies``: how many are
    kept of it."""

    integration_id: int
    provider: str
    status: RunStatus
    seconds: float
    attempts: int
    replies: int


@dataclass(frozen=True)
class Waiting:
    """Open runs: under way, to be tried again (the first of them at ``next_try_at``), and not claimed yet."""

    under_way: int = 0
    retrying: int = 0
    unclaimed: int = 0
    next_try_at: datetime | None = None

    @property
    def number(self) -> int:
        return self.under_way + self.retrying + self.unclaimed

    def to_go(self, now: datetime) -> bool:
        """Whether any of them can change now, and not only at a next try."""
        again = self.next_try_at is not None and self.next_try_at <= now
        return self.under_way + self.unclaimed > 0 or again


@dataclass(frozen=True)
class Slot:
    """The daily runs that were due at 06:00 UTC of a day, but for those of integrations that were removed before.
    ``last_at``: when the last of those that ended did."""

    day: date
    done: int
    failed: int
    open: int
    last_at: datetime | None

    @property
    def due(self) -> int:
        return self.done + self.failed + self.open

    @property
    def due_at(self) -> datetime:
        return datetime.combine(self.day, DUE_AT)

    def late(self, now: datetime) -> timedelta:
        """How late the last one was, or has become by now."""
        return (now if self.open else self.last_at or self.due_at) - self.due_at


@dataclass(frozen=True)
class SixOClock:
    """The latest slot, closely. ``half_done_at``: when half of those that are done were."""

    slot: Slot
    waiting: Waiting
    began_at: datetime | None
    half_done_at: datetime | None
    last_done_at: datetime | None
    slowest: Sequence[Slow]


@dataclass(frozen=True)
class Trouble:
    """How many of the latest slot's runs failed or are tried again, at integrations with that problem."""

    provider: str
    problem: Problem | None
    failed: int
    retrying: int


@dataclass(frozen=True)
class Others:
    """Open runs that are not of the latest slot, by why they were wanted, and since when the first one was."""

    trigger: Trigger
    waiting: Waiting
    since: datetime


@dataclass(frozen=True)
class Operations:
    """What changes on the page. ``ask_after``: in how many seconds something can have changed; None if only
    the clock or a person can change anything."""

    now: datetime
    run: SixOClock
    troubles: Sequence[Trouble]
    others: Sequence[Others]
    ask_after: int | None
    database: str
    database_bytes: int


def operations(now: datetime) -> Operations:
    """All that the database knows of it."""
    run, others = six_oclock(now, SLOWEST), _others(slot_of(now))
    return Operations(
        now=now,
        run=run,
        troubles=_troubles(run.slot.day) if run.slot.failed or run.waiting.retrying else [],
        others=others,
        ask_after=_ask_after([run.waiting, *(other.waiting for other in others)], now),
        database={"sqlite": "SQLite", "postgresql": "PostgreSQL"}[db.engine.dialect.name],
        database_bytes=_database_bytes(),
    )


def is_under_way(now: datetime) -> bool:
    """Whether any run of the latest slot is open. As cheap at any number of accounts: every tick asks."""
    return bool(db.session.execute(select(exists().where(IS_OPEN, SyncRun.slot == slot_of(now)))).scalar())


def six_oclock(now: datetime, slowest: int) -> SixOClock:
    """The latest slot, with so many of its slowest syncs."""
    day = slot_of(now)
    found = _ended(SyncRun.slot == day).get(day, {})
    done, done_at = found.get(RunStatus.DONE, (0, None))
    failed, failed_at = found.get(RunStatus.FAILED, (0, None))
    open_runs = db.session.execute(_open().where(SyncRun.slot == day)).all()
    waiting = _waiting(open_runs)
    began_at = db.session.execute(select(func.min(SyncRun.started_at)).where(SyncRun.slot == day)).scalar()
    last_at = max(filter(None, (done_at, failed_at)), default=None)
    return SixOClock(
        slot=Slot(day, done, failed, waiting.number, last_at),
        waiting=waiting,
        began_at=began_at,
        half_done_at=_half_done_at(day, done) if done else None,
        last_done_at=done_at,
        slowest=_slowest(day, now, slowest),
    )


def _ended(which: ColumnElement[bool]) -> dict[date, dict[RunStatus, tuple[int, datetime | None]]]:
    """By slot and status, how many runs there are and when the last one ended."""
    query = select(SyncRun.slot, SyncRun.status, func.count(), func.max(SyncRun.finished_at)).where(which)
    found: dict[date, dict[RunStatus, tuple[int, datetime | None]]] = defaultdict(dict)
    for slot, status, number, last_at in db.session.execute(query.group_by(SyncRun.slot, SyncRun.status)):
        if slot is not None:
            found[slot][status] = number, last_at
    return found


def _half_done_at(day: date, done: int) -> datetime | None:
    query = select(SyncRun.finished_at).where(SyncRun.slot == day, SyncRun.status == RunStatus.DONE)
    return db.session.execute(query.order_by(SyncRun.finished_at).offset((done - 1) // 2).limit(1)).scalar()


def _slowest(day: date, now: datetime, limit: int) -> list[Slow]:
    """The longest last tries.

    A sync that was put back and tried again an hour later did not take an hour. Its last try began when that was due,
    or moments later; where nothing was put back, that moment lies before ``started_at``, which is the first try's.
    """
    began = case((SyncRun.started_at > SyncRun.next_attempt_at, SyncRun.started_at), else_=SyncRun.next_attempt_at)
    ended = func.coalesce(SyncRun.finished_at, literal(now, SyncRun.finished_at.type))
    took = func.julianday(ended) - func.julianday(began) if db.engine.dialect.name == "sqlite" else ended - began
    query = (
        select(SyncRun, Integration.provider)
        .join(Integration)
        .where(SyncRun.slot == day, SyncRun.status.in_((RunStatus.DONE, RunStatus.FAILED, RunStatus.RUNNING)))
        .where(SyncRun.started_at.is_not(None))
        .order_by(took.desc(), SyncRun.id)
        .limit(limit)
    )
    found = db.session.execute(query).all()
    replies = evidence.counts([run.id for run, _ in found])
    return [
        Slow(run.integration_id, provider, run.status, _seconds(run, now), run.attempt, replies.get(run.id, 0))
        for run, provider in found
    ]


def _seconds(run: SyncRun, now: datetime) -> float:
    began = max(run.started_at or run.next_attempt_at, run.next_attempt_at)
    return ((run.finished_at or now) - began).total_seconds()


def _open() -> Select[Any]:
    """Open runs by trigger, status, and whether they are tried again: the number, since when, and the next try."""
    again = case((SyncRun.attempt > 0, 1), else_=0)
    columns = (
        SyncRun.trigger,
        SyncRun.status,
        again.label("again"),
        func.count().label("number"),
        func.min(SyncRun.created_at).label("since"),
        func.min(SyncRun.next_attempt_at).label("next_at"),
    )
    return select(*columns).where(IS_OPEN).group_by(SyncRun.trigger, SyncRun.status, again)


def _waiting(rows: Sequence[Any]) -> Waiting:
    under_way = sum(row.number for row in rows if row.status == RunStatus.RUNNING)
    again = [row for row in rows if row.status == RunStatus.DUE and row.again]
    unclaimed = sum(row.number for row in rows if row.status == RunStatus.DUE and not row.again)
    next_try_at = min((row.next_at for row in again), default=None)
    return Waiting(under_way, sum(row.number for row in again), unclaimed, next_try_at)


def _others(day: date) -> list[Others]:
    rows = db.session.execute(_open().where(or_(SyncRun.slot.is_(None), SyncRun.slot != day))).all()
    mine = {trigger: [row for row in rows if row.trigger == trigger] for trigger in Trigger}
    return [Others(one, _waiting(its), min(row.since for row in its)) for one, its in mine.items() if its]


def _troubles(day: date) -> list[Trouble]:
    failed = func.sum(case((SyncRun.status == RunStatus.FAILED, 1), else_=0))
    query = (
        select(Integration.provider, Integration.problem, failed, func.count() - failed)
        .select_from(SyncRun)
        .join(Integration)
        .where(SyncRun.slot == day, SyncRun.status.in_((RunStatus.FAILED, RunStatus.DUE)))
        .where(or_(SyncRun.status == RunStatus.FAILED, SyncRun.attempt > 0))
        .group_by(Integration.provider, Integration.problem)
        .order_by(func.count().desc(), Integration.provider, Integration.problem)
    )
    return [Trouble(*row) for row in db.session.execute(query)]


def recent(now: datetime) -> list[Slot]:
    """The recent slots that had runs, the latest first.

    At 10,000 accounts these take longer than all the rest, and hardly change: a page that looks again leaves them out.
    """
    slots = []
    for day, found in _ended(SyncRun.slot > slot_of(now) - timedelta(days=SLOTS)).items():
        ended = {status: found.get(status, (0, None)) for status in (RunStatus.DONE, RunStatus.FAILED)}
        still = sum(found.get(status, (0, None))[0] for status in (RunStatus.DUE, RunStatus.RUNNING))
        last_at = max((at for _, at in ended.values() if at), default=None)
        slots.append(Slot(day, ended[RunStatus.DONE][0], ended[RunStatus.FAILED][0], still, last_at))
    return sorted((slot for slot in slots if slot.due), key=lambda slot: slot.day, reverse=True)


def _ask_after(waiting: Sequence[Waiting], now: datetime) -> int | None:
    if any(one.to_go(now) for one in waiting):
        return ASK_SECONDS
    tries = [one.next_try_at for one in waiting if one.next_try_at is not None]
    return max(ASK_SECONDS, math.ceil((min(tries) - now).total_seconds()) + 1) if tries else None


def _database_bytes() -> int:
    sizes = {
        "sqlite": "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
        "postgresql": "SELECT pg_database_size(current_database())",
    }
    return int(db.session.execute(text(sizes[db.engine.dialect.name])).scalar_one())
