"""What workers do for alerts: look at workspaces, send what is to be sent. And what the web process does when no worker
is there: say so, since they can't."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError

from grafient import database
from grafient.alerts import incidents, outbox, rules, watch
from grafient.alerts.findings import Finding
from grafient.extensions import db
from grafient.jobs import readiness
from grafient.models import AlertRule, Incident, Integration, Workspace, utc_now
from grafient.states import AlertKind

log = logging.getLogger(__name__)

MOST_WORKSPACES = 500
"""That are told in one go."""

_WHO = {
    "worker": "The workers have not been running",
    "scheduler": "The scheduler has not been running",
    "redis": "Redis has not answered",
}


def count_due(now: datetime) -> int:
    """How much there is to look at or to send, as far as a tick wants to know."""
    return len(watch.due(now)) + outbox.count_due(now)


def is_due() -> bool:
    """Whether anything is. Reads only."""
    with database.only_reading():
        found = count_due(utc_now())
        db.session.rollback()
    return bool(found)


def do_due() -> None:
    """Look at the workspaces that are due, and send what is. Commits."""
    watch.look_at_due()
    outbox.send_due()


def say_silence(since: datetime | None) -> bool:
    """Tell of workers that are silent, or that they are back; whether they are silent. Commits.

    ``since``: when whoever asks first saw that. It is what counts if Redis does not answer either.
    """
    now = utc_now()
    missing = [name for name in readiness.health() if name in _WHO]
    if not missing:
        _resolve(now)
        return False
    _open(missing, since or now, now)
    outbox.send_due()
    return True


def _open(missing: Sequence[str], since: datetime, now: datetime) -> None:
    """Of each workspace whose rule waits no longer. Another machine's web process may open one first."""
    facts = {"who": _WHO[missing[0]], "since": since.isoformat(timespec="seconds")}
    for workspace_id in _not_told(since, now)[:MOST_WORKSPACES]:
        changes = incidents.step({}, [Finding(AlertKind.SILENT, "", facts)], [], [], now)
        try:
            outbox.tell(workspace_id, *incidents.write(workspace_id, changes, now), now)
            db.session.commit()
        except IntegrityError:
            db.session.rollback()


def _not_told(since: datetime, now: datetime) -> list[int]:
    """The workspaces with an account that are to be told of a silence since then, and were not yet."""
    default = rules.default(AlertKind.SILENT)["minutes"]
    has_open = select(Incident.workspace_id).where(Incident.kind == AlertKind.SILENT, Incident.resolved_at.is_(None))
    connected = select(Integration.workspace_id).where(Integration.removed_at.is_(None))
    with database.only_reading():
        found = db.session.execute(
            select(Workspace.id, AlertRule.settings)
            .outerjoin(AlertRule, (AlertRule.workspace_id == Workspace.id) & (AlertRule.kind == AlertKind.SILENT))
            .where(
                Workspace.deleted_at.is_(None),
                Workspace.id.in_(connected),
                Workspace.id.not_in(has_open),
                or_(AlertRule.is_on.is_(None), AlertRule.is_on),
            )
            .order_by(Workspace.id)
        ).all()
        db.session.rollback()
    return [row.id for row in found if since + timedelta(minutes=(row.settings or {}).get("minutes", default)) <= now]


def _resolve(now: datetime) -> None:
    with database.only_reading():
        open_ = Incident.kind == AlertKind.SILENT, Incident.resolved_at.is_(None)
        ids = db.session.execute(select(Incident.id).where(*open_).limit(MOST_WORKSPACES)).scalars().all()
        db.session.rollback()
    for number in ids:
        incident = db.session.get(Incident, number, with_for_update=True, populate_existing=True)
        if incident is not None and incident.resolved_at is None:
            changes = incidents.step({(incident.kind, incident.subject): incident}, [], [], [], now)
            outbox.tell(incident.workspace_id, *incidents.write(incident.workspace_id, changes, now), now)
        db.session.commit()
