"""What later syncs changed on settled days, and what of it a user has seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import and_, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite

from grafient import database
from grafient.days import Period
from grafient.extensions import db
from grafient.models import Integration, Restatement, RestatementSeen
from grafient.models.columns import usd_sum
from grafient.query import IN_ORDER, within

NOTHING = Decimal(0)


@dataclass(frozen=True)
class RestatedDay:
    """A UTC day that a sync changed: its USD before and after, over the lines that changed."""

    integration_id: int
    label: str
    day: date
    changed_at: datetime
    run_id: int
    lines: int
    before_usd: Decimal
    after_usd: Decimal

    @property
    def change_usd(self) -> Decimal:
        return self.after_usd - self.before_usd


@dataclass(frozen=True)
class Change:
    """A line that a sync changed on a settled day: what it was and what it became (None: there was or is no line)."""

    day: date
    model: str
    permaslug: str
    endpoint_id: str
    host: str
    run_id: int
    changed_at: datetime
    usage_before_usd: Decimal | None
    usage_after_usd: Decimal | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None

    @property
    def change_usd(self) -> Decimal:
        return (self.usage_after_usd or NOTHING) - (self.usage_before_usd or NOTHING)


@dataclass(frozen=True)
class Unseen:
    """Days of an integration that changed since a user last looked, and by how much in USD, all together."""

    integration_id: int
    label: str
    days: int
    change_usd: Decimal


def restated_days(integration_ids: Sequence[int], limit: int | None, period: Period | None = None) -> list[RestatedDay]:
    """What syncs changed, per day and sync, the latest first."""
    query = (
        select(
            Restatement.integration_id,
            Integration.label,
            Restatement.day,
            Restatement.run_id,
            func.max(Restatement.changed_at, type_=Restatement.changed_at.type).label("changed_at"),
            func.count().label("lines"),
            usd_sum(Restatement.usage_before_usd).label("before"),
            usd_sum(Restatement.usage_after_usd).label("after"),
        )
        .join(Integration, Integration.id == Restatement.integration_id)
        .where(Restatement.integration_id.in_(integration_ids))
        .group_by(Restatement.integration_id, Integration.label, Restatement.day, Restatement.run_id)
        .order_by(Restatement.run_id.desc(), Restatement.day.desc())
        .limit(limit)
    )
    if period is not None:
        query = query.where(within(Restatement.day, period))
    return [
        RestatedDay(
            r.integration_id, r.label, r.day, r.changed_at, r.run_id, r.lines, r.before or NOTHING, r.after or NOTHING
        )
        for r in db.session.execute(query)
    ]


def changes_of_day(integration_id: int, day: date, limit: int) -> tuple[list[Change], int]:
    """The lines of a day that were ever changed, the latest first; and how many there are."""
    query = select(Restatement).where(Restatement.integration_id == integration_id, Restatement.day == day)
    found = db.session.execute(select(func.count()).select_from(query.subquery())).scalar_one()
    latest = query.order_by(Restatement.id.desc()).limit(limit)
    return [_change_of(row) for row in db.session.execute(latest).scalars()], found


def _change_of(row: Restatement) -> Change:
    before, after = (None if text is None else json.loads(text) for text in (row.before, row.after))
    return Change(
        day=row.day,
        model=(after or before or {}).get("model") or row.permaslug,
        permaslug=row.permaslug,
        endpoint_id=row.endpoint_id,
        host=row.host,
        run_id=row.run_id,
        changed_at=row.changed_at,
        usage_before_usd=row.usage_before_usd,
        usage_after_usd=row.usage_after_usd,
        before=before,
        after=after,
    )


_SEEN = and_(RestatementSeen.integration_id == Integration.id, RestatementSeen.user_id == bindparam("user"))
_CHANGED = and_(
    Restatement.integration_id == Integration.id,
    Restatement.id > func.coalesce(RestatementSeen.restatement_id, 0),
    Integration.last_restated_at.is_not(None),
    Integration.removed_at.is_(None),
)
_INTEGRATIONS = (
    select(
        Integration,
        func.count(Restatement.day.distinct()),
        usd_sum(Restatement.usage_after_usd),
        usd_sum(Restatement.usage_before_usd),
    )
    .outerjoin(RestatementSeen, _SEEN)
    .outerjoin(Restatement, _CHANGED)
    .where(Integration.workspace_id == bindparam("workspace"))
    .group_by(Integration.id)
    .order_by(*IN_ORDER)
)


def with_unseen(user_id: int | None, workspace_id: int) -> tuple[list[Integration], list[Unseen]]:
    """The workspace's integrations, as ``all_integrations``; and those with days that changed since the user last
    looked at their pages."""
    rows = db.session.execute(_INTEGRATIONS, {"user": user_id, "workspace": workspace_id}).all()
    changed = [
        Unseen(one.id, one.label, days, (after or NOTHING) - (before or NOTHING))
        for one, days, after, before in rows
        if days
    ]
    return [row[0] for row in rows], sorted(changed, key=lambda one: one.integration_id)


def mark_restatements_seen(user_id: int, integration_id: int) -> None:
    """Note that the user has seen what changed in an integration so far. Commits if that is news.

    The page that calls this is a GET, which two tabs may ask for at the same moment. Both find no row, and both insert
    one; with a plain INSERT the second of them failed with an error page on PostgreSQL. Here the second updates the
    row of the first.
    """
    latest = db.session.execute(
        select(func.max(Restatement.id)).where(Restatement.integration_id == integration_id)
    ).scalar()
    seen = db.session.execute(
        select(RestatementSeen.restatement_id).where(
            RestatementSeen.user_id == user_id, RestatementSeen.integration_id == integration_id
        )
    ).scalar()
    if latest is None or seen == latest:
        return
    db.session.rollback()
    database.reading.set(False)
    insert = sqlite.insert if db.engine.dialect.name == "sqlite" else postgresql.insert
    statement = insert(RestatementSeen).values(user_id=user_id, integration_id=integration_id, restatement_id=latest)
    name = RestatementSeen.user_id, RestatementSeen.integration_id
    db.session.execute(statement.on_conflict_do_update(index_elements=name, set_={"restatement_id": latest}))
    db.session.commit()
