"""When a workspace is looked at, and by whom.

After each sync, and at each tick if anything else may have changed: a workspace whose integrations have another
revision than at the last look, or for which time alone may raise something (``AlertWatch.next_at``), such as 26 hours
without a sync. So a worker that is killed between a sync's commit and the look loses nothing: the next tick sees that
the revisions differ.

A look reads first, with no lock, and then writes what was found in one transaction with what is to be sent. Two that
look at once find the same; who writes first counts ``turn`` up, and the other one's findings are thrown away. If a
sync ended in the very second of a tick, each incident would be opened twice otherwise, or one of the two would end
with an error from the index that allows only one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any

from sqlalchemy import exists, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import aliased

from grafient import database, members
from grafient.alerts import data, incidents, outbox, rules, spend, thresholds
from grafient.alerts.findings import Key, Look
from grafient.days import ONE_DAY
from grafient.extensions import db
from grafient.models import IS_OPEN, AlertWatch, Incident, Integration, JudgedDays, SyncRun, Workspace, utc_now
from grafient.query import all_integrations
from grafient.states import AlertKind

log = logging.getLogger(__name__)

MOST_LOOKS = 200
"""Workspaces that one worker looks at in a row."""

APART = timedelta(seconds=20)
"""A workspace of 1,000 accounts is not looked at 1,000 times while these are read: a tick looks at it then."""

_LONGEST = timedelta(days=1, seconds=1)
"""Each look says that there is another one at midnight. One that is further off was noted by a clock that was wrong."""

_TRIES = 3


def due(now: datetime, most: int = MOST_LOOKS) -> Sequence[int]:
    """The workspaces to be looked at."""
    revisions = (
        select(Integration.workspace_id, func.sum(Integration.revision).label("seen"))
        .group_by(Integration.workspace_id)
        .subquery()
    )
    statement = (
        select(Workspace.id)
        .join(revisions, revisions.c.workspace_id == Workspace.id)
        .outerjoin(AlertWatch, AlertWatch.workspace_id == Workspace.id)
        .where(
            Workspace.deleted_at.is_(None),
            or_(
                AlertWatch.turn.is_(None),
                AlertWatch.seen != revisions.c.seen,
                AlertWatch.next_at <= now,
                AlertWatch.next_at > now + _LONGEST,
            ),
        )
        .order_by(AlertWatch.looked_at, Workspace.id)
        .limit(most)
    )
    return db.session.execute(statement).scalars().all()


def look_at_due() -> None:
    """Look at all of these. Commits."""
    with database.only_reading():
        found = due(utc_now())
        db.session.rollback()
    for workspace_id in found:
        try:
            look(workspace_id)
        except Exception:  # such as a database that restarts; one workspace must not keep others from being told
            db.session.rollback()
            log.exception("alerts: workspace %s could not be looked at; the next tick tries again", workspace_id)


def look_after_sync(integration_id: int) -> None:
    """Look at the workspace of an account that was just read. Commits. As long as others of it are read, once in a
    while is enough: whoever ends last looks."""
    others = aliased(Integration)
    is_read = exists(SyncRun.id).where(
        IS_OPEN, SyncRun.integration_id == others.id, others.workspace_id == Integration.workspace_id
    )
    with database.only_reading():
        row = db.session.execute(
            select(Integration.workspace_id, AlertWatch.looked_at, is_read.label("is_read"))
            .outerjoin(AlertWatch, AlertWatch.workspace_id == Integration.workspace_id)
            .where(Integration.id == integration_id)
        ).one_or_none()
        db.session.rollback()
    if row is not None and not (row.is_read and row.looked_at and row.looked_at + APART > utc_now()):
        look(row.workspace_id)


def look_again(workspace_id: int) -> None:
    """Have the next tick look, and whoever looks now begin anew: somebody has changed what is watched over. Does not
    commit."""
    db.session.execute(
        update(AlertWatch)
        .where(AlertWatch.workspace_id == workspace_id)
        .values(next_at=utc_now(), turn=AlertWatch.turn + 1),
        execution_options={"synchronize_session": False},
    )


def look(workspace_id: int, now: datetime | None = None) -> None:
    """Look at a workspace, and write what was found and what is to be sent. Commits."""
    for _ in range(_TRIES):
        with database.only_reading():
            db.session.rollback()
            watch = db.session.get(AlertWatch, workspace_id)
        if watch is None:
            _begin(workspace_id, now or utc_now())
        elif _look(watch, now or utc_now()):
            return


def _begin(workspace_id: int, now: datetime) -> None:
    values = {"workspace_id": workspace_id, "since": now, "seen": 0, "next_at": now, "looked_at": now, "turn": 0}
    mine = select(Workspace.id).where(Workspace.id == workspace_id, Workspace.deleted_at.is_(None))
    db.session.rollback()
    if db.session.execute(mine).scalar() is not None:
        db.session.execute(_insert(AlertWatch).values(**values).on_conflict_do_nothing())
    db.session.commit()


def _insert(table: Any) -> Any:
    """An INSERT that can say what happens if the row is there."""
    return (sqlite.insert if db.engine.dialect.name == "sqlite" else postgresql.insert)(table)


def _look(watch: AlertWatch, now: datetime) -> bool:
    """Whether it was written; not if somebody else wrote meanwhile."""
    workspace_id, turn = watch.workspace_id, watch.turn
    with database.only_reading():
        integrations = all_integrations(workspace_id)
        seen = sum(one.revision for one in integrations)
        found = Look(
            workspace_id=workspace_id,
            now=now,
            since=watch.since,
            looked_at=watch.looked_at,
            rules=rules.of(workspace_id),
            integrations=integrations,
            incidents=_incidents(workspace_id, now),
            judged=_judged([one.id for one in integrations]),
        )
        spend.find(found)
        data.find(found)
        thresholds.find(found)
        reminding = [kind for kind, rule in found.rules.items() if rule.reminds]
        changes = incidents.step(found.incidents, found.findings, found.keeps, reminding, now, found.quiet)
        next_at = _next(found)
        db.session.rollback()
    try:
        members.lock(workspace_id)  # who answers an incident has it locked, and would wait for us as we for them
    except members.Deleted:
        db.session.rollback()
        return True
    taken = db.session.execute(
        update(AlertWatch)
        .where(AlertWatch.workspace_id == workspace_id, AlertWatch.turn == turn)
        .values(seen=seen, next_at=next_at, looked_at=now, turn=turn + 1),
        execution_options={"synchronize_session": False},
    )
    if not taken.rowcount:  # type: ignore[attr-defined]
        db.session.rollback()
        return False
    if found.judges:
        rows = [{"integration_id": one, "through": through} for one, through in found.judges.items()]
        judged = _insert(JudgedDays)
        newer = {"through": judged.excluded.through}
        db.session.execute(judged.on_conflict_do_update(index_elements=["integration_id"], set_=newer), rows)
    outbox.tell(workspace_id, *incidents.write(workspace_id, changes, now), now)
    db.session.commit()
    return True


def _incidents(workspace_id: int, now: datetime) -> dict[Key, Incident]:
    """The latest of each subject: those that are open, and those that were until not long ago. Silent workers are the
    business of the web process."""
    statement = (
        select(Incident)
        .where(
            Incident.workspace_id == workspace_id,
            Incident.kind != AlertKind.SILENT,
            or_(Incident.resolved_at.is_(None), Incident.resolved_at > now - incidents.REMEMBERED),
        )
        .order_by(Incident.id)
    )
    return {(one.kind, one.subject): one for one in db.session.execute(statement).scalars()}


def _judged(ids: Sequence[int]) -> dict[int, Any]:
    rows = db.session.execute(select(JudgedDays).where(JudgedDays.integration_id.in_(ids))).scalars()
    return {row.integration_id: row.through for row in rows}


def _next(look: Look) -> datetime:
    """When time alone may raise something: the next UTC day, an account that becomes overdue, a key that is about to
    expire, a reminder, a snooze that ends."""
    overdue = timedelta(hours=look.rules[AlertKind.NO_SYNC]["hours"])
    expires = timedelta(days=look.rules[AlertKind.KEY]["days"])
    moments = [datetime.combine(look.today + ONE_DAY, time(), UTC), *look.again_at]
    moments += [(one.last_success_at or one.created_at) + overdue for one in look.read_daily]
    moments += [one.key_expires_at - expires for one in look.read_daily if one.key_expires_at is not None]
    for one in look.incidents.values():
        if one.resolved_at is None:
            moments.append(one.told_at + incidents.REMIND_AFTER)
            moments += [one.snoozed_until] if one.snoozed_until is not None else []
    return min(moment for moment in moments if moment > look.now) + timedelta(seconds=1)
