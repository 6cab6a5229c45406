"""What somebody has to do for a workspace's integrations, the most urgent first. Pages of costs say it at their top, so
that nobody reads figures for days without noticing that no new ones arrive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import and_, bindparam, case, exists, func, select

from grafient import status
from grafient.extensions import db, providers
from grafient.models import IS_OPEN, CoveredDay, Incident, Integration, SyncRun, utc_now
from grafient.states import DayState, Problem
from grafient.status import ALARM_DAYS, OVERDUE_AFTER, Alarm

MOST_SHOWN = 5
FAILING_AFTER = timedelta(hours=3)
"""A provider that is down for a moment is not worth a person's time."""

EXPIRES_SOON = timedelta(days=14)

JUST_ASKED = timedelta(minutes=10)
"""An integration that was resumed after a week is not overdue while its first sync is still under way."""


class Kind(StrEnum):
    """What keeps an integration from being read, the most urgent first."""

    NEEDS_KEY = "needs_key"
    KEY_UNREADABLE = "key_unreadable"
    API_CHANGED = "api_changed"
    OVERDUE = "overdue"
    FAILING = "failing"
    KEY_EXPIRES = "key_expires"
    DAYS_LEAVING = "days_leaving"
    """Nothing does, but some days are missing that the provider will soon no longer report."""
    PAUSED = "paused"


@dataclass(frozen=True)
class Trouble:
    """One integration that needs a person.

    ``since`` when; for one that is overdue, when it was last read, or None if it never was; of a key, when it ends.
    ``detail`` is what the last sync ended with, a sentence, or empty. ``alarm``: days that will soon be out of reach
    because of it.
    """

    integration_id: int
    label: str
    provider_name: str
    kind: Kind
    since: datetime | None
    detail: str
    alarm: Alarm | None


@dataclass(frozen=True)
class Troubles:
    """The most urgent, at most MOST_SHOWN, of ``found``. ``incidents``: how many alerts are open, which each page says
    beside them."""

    shown: Sequence[Trouble]
    found: int
    incidents: int

    @property
    def left_out(self) -> int:
        return self.found - len(self.shown)


def moments(now: datetime) -> Mapping[str, datetime]:
    """The values of what ``IS_OVERDUE``, ``IS_FAILING`` and ``IS_EXPIRING`` compare with."""
    return {
        "overdue": now - OVERDUE_AFTER,
        "failing": now - FAILING_AFTER,
        "expires": now + EXPIRES_SOON,
        "asked": now - JUST_ASKED,
    }


_IS_READ_DAILY = and_(Integration.removed_at.is_(None), Integration.paused_at.is_(None))
_JUST_ASKED = exists(SyncRun.id).where(
    SyncRun.integration_id == Integration.id, IS_OPEN, SyncRun.created_at > bindparam("asked")
)
IS_OVERDUE = and_(
    _IS_READ_DAILY,
    func.coalesce(Integration.last_success_at, Integration.created_at) < bindparam("overdue"),
    ~_JUST_ASKED,
)
IS_FAILING = and_(
    _IS_READ_DAILY, Integration.problem == Problem.FAULT, Integration.problem_since < bindparam("failing")
)
IS_EXPIRING = and_(_IS_READ_DAILY, Integration.key_expires_at < bindparam("expires"))
"""These become true by the clock alone; all else that is asked here changes the integration's revision."""

_SETTLED_SOON = (
    select(func.count())
    .where(
        CoveredDay.integration_id == Integration.id,
        CoveredDay.day.between(bindparam("soon_first"), bindparam("soon_last")),
        CoveredDay.state != DayState.PROVISIONAL,
    )
    .scalar_subquery()
)
_MISSES_DAYS = and_(Integration.last_success_at.is_not(None), _SETTLED_SOON < ALARM_DAYS)
_RANK = case(
    *(
        (condition, list(Kind).index(kind))
        for kind, condition in (
            (Kind.NEEDS_KEY, Integration.problem == Problem.NEEDS_KEY),
            (Kind.KEY_UNREADABLE, Integration.problem == Problem.KEY_UNREADABLE),
            (Kind.API_CHANGED, Integration.problem == Problem.API_CHANGED),
            (Kind.PAUSED, Integration.paused_at.is_not(None)),
            (Kind.OVERDUE, IS_OVERDUE),
            (Kind.FAILING, IS_FAILING),
            (Kind.KEY_EXPIRES, IS_EXPIRING),
            (Kind.DAYS_LEAVING, _MISSES_DAYS),
        )
    )
).label("rank")
_RANKED = (
    select(Integration, _RANK)
    .where(Integration.workspace_id == bindparam("workspace"), Integration.removed_at.is_(None))
    .subquery()
)
_OPEN = (
    select(func.count().label("incidents"))
    .where(Incident.workspace_id == bindparam("workspace"), Incident.resolved_at.is_(None))
    .subquery()
)
_FOUND = (
    select(_RANKED, func.count(_RANKED.c.id).over().label("found"), _OPEN.c.incidents)
    .select_from(_OPEN.outerjoin(_RANKED, _RANKED.c.rank.is_not(None)))
    .order_by(_RANKED.c.rank, func.lower(_RANKED.c.label), _RANKED.c.id)
    .limit(MOST_SHOWN)
)
"""Made once: every page that is not kept asks it. Where there is no trouble, its one row says so and has the number of
incidents."""


def of(workspace_id: int) -> Troubles:
    """What a workspace's people have to do now."""
    soon = status.soon()
    values = {"workspace": workspace_id, "soon_first": soon.first, "soon_last": soon.last, **moments(utc_now())}
    found = db.session.connection().execute(_FOUND, values).all()
    rows = [row for row in found if row.id is not None]
    missing = status.missing_soon([row.id for row in rows if row.last_success_at is not None])
    return Troubles([_trouble(row, missing) for row in rows], found[0].found, found[0].incidents)


def _trouble(row: Any, missing: Mapping[int, Sequence[Any]]) -> Trouble:
    kind = list(Kind)[row.rank]
    days = missing.get(row.id, [])
    since = {
        Kind.OVERDUE: row.last_success_at,
        Kind.PAUSED: row.paused_at,
        Kind.KEY_EXPIRES: row.key_expires_at,
    }.get(kind, row.problem_since)
    return Trouble(
        integration_id=row.id,
        label=row.label,
        provider_name=providers[row.provider].name,
        kind=kind,
        since=since,
        detail=(row.problem_detail or "") if row.problem else "",
        alarm=status.alarm_of(row.provider, days, per_model=row.no_history is None) if days else None,
    )
