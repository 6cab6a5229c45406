"""Of the days asked for, which are known: the query that every page and export is about, and its coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, select

from grafient.extensions import db
from grafient.models import CoveredDay, Integration
from grafient.periods import Period


@dataclass(frozen=True)
class Query:
    """What a page or an export is about: a workspace's period, perhaps one integration, host, key, or part of a name.

    ``key``: an API key's hash, or ``UNATTRIBUTED`` for what no key explains. ``byok``: amounts are with the estimate
    of what the user's own provider keys were charged.
    """

    workspace_id: int
    period: Period
    integration_id: int | None = None
    host: str | None = None
    model: str | None = None
    key: str | None = None
    byok: bool = False

    @property
    def told(self) -> ColumnElement[bool]:
        """The condition that a covered day is of the period and tells of this: analytics knows no hosts and no keys."""
        within = self.period.holds(CoveredDay.day)
        return and_(within, CoveredDay.source == "activity") if self.host or self.key else within


@dataclass(frozen=True)
class Coverage:
    """Of ``asked`` days, how many are settled, so that the figures cover them whole; how many of these were restated;
    and how many are provisional, which no total counts."""

    asked: int
    covered: int
    provisional: int
    restated: int

    @property
    def complete(self) -> bool:
        return self.asked == self.covered


@dataclass(frozen=True)
class Choice:
    """An integration to filter by."""

    id: int
    label: str
    removed: bool


def coverage(query: Query) -> Coverage:
    """How much of the period is known, over all integrations asked for."""
    return counted(day_states(query))


def counted(states: Mapping[date, str]) -> Coverage:
    """The coverage that the states of days come to."""
    count = list(states.values()).count
    settled = len(states) - count("missing") - count("partial") - count("provisional")
    return Coverage(len(states), settled, count("provisional"), count("restated"))


def day_states(query: Query) -> dict[date, str]:
    """The state of each day of the period, over all integrations asked for.

    A day is covered when each integration that it could have had usage of is; one that covers fewer days because it
    was removed is not asked for the days after.
    """
    asked = integrations_of(query)
    if not asked:
        return dict.fromkeys(query.period, "missing")
    rows = db.session.execute(
        select(
            CoveredDay.day,
            func.count().label("covered"),
            func.sum(case((CoveredDay.state == "provisional", 1), else_=0)).label("provisional"),
            func.sum(case((CoveredDay.state == "restated", 1), else_=0)).label("restated"),
            func.sum(case((CoveredDay.state == "no_usage", 1), else_=0)).label("no_usage"),
        )
        .where(CoveredDay.integration_id.in_([i.id for i in asked]), query.told)
        .group_by(CoveredDay.day)
    )
    by_day = {row.day: row for row in rows}
    states = {}
    for day in query.period:
        expected = sum(1 for i in asked if i.removed_at is None or day < i.removed_at.date()) or len(asked)
        states[day] = _day_state(by_day.get(day), expected)
    return states


def _day_state(row: Any, expected: int) -> str:
    if row is None:
        return "missing"
    if row.covered < expected:
        return "partial"
    if row.provisional:
        return "provisional"
    if row.restated:
        return "restated"
    return "no_usage" if row.no_usage == row.covered else "final"


def choices(workspace_id: int) -> list[Choice]:
    """The integrations that pages can filter by, removed ones with history last."""
    query = select(Integration.id, Integration.label, Integration.removed_at).where(
        Integration.workspace_id == workspace_id
    )
    rows = db.session.execute(query.order_by(Integration.removed_at.is_not(None), Integration.label, Integration.id))
    return [Choice(row.id, row.label, row.removed_at is not None) for row in rows]


def covered_days(integration_ids: Sequence[int], query: Query) -> dict[int, tuple[int, int, int]]:
    """For each of these integrations, its settled, provisional and restated days of the query's."""
    rows = db.session.execute(
        select(
            CoveredDay.integration_id,
            func.sum(case((CoveredDay.state == "provisional", 0), else_=1)),
            func.sum(case((CoveredDay.state == "provisional", 1), else_=0)),
            func.sum(case((CoveredDay.state == "restated", 1), else_=0)),
        )
        .where(CoveredDay.integration_id.in_(integration_ids), query.told)
        .group_by(CoveredDay.integration_id)
    )
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


def integrations_of(query: Query) -> list[Integration]:
    """Those that the query is about, removed ones included: their history counts."""
    statement = select(Integration).where(Integration.workspace_id == query.workspace_id)
    if query.integration_id is not None:
        statement = statement.where(Integration.id == query.integration_id)
    return list(db.session.execute(statement.order_by(Integration.id)).scalars())
