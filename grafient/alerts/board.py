"""What people see of incidents, and what they say to them: that they know, or that they want to hear nothing for a
while. A link in a message lets whoever has it say so without signing in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from itsdangerous import BadData, URLSafeTimedSerializer
from sqlalchemy import func, select
from sqlalchemy.orm import selectinload

from grafient import audit, members
from grafient.alerts import wording
from grafient.extensions import db, settings
from grafient.models import Channel, Incident, IncidentEvent, Workspace
from grafient.states import Action

PAGE = 50
MOST_OPEN = 200
"""Open incidents that are listed; the latest come first."""

MOST_EVENTS = 200

SNOOZES = (1, 7, 30)
"""For how many days nobody is told of an incident, if somebody wants that."""

LINK_DAYS = 30
"""How long a link in a message works."""


@dataclass(frozen=True)
class Found:
    """Incidents that are over, the latest first: ``page`` (from 1 on) of ``pages`` has some of those ``found``."""

    incidents: Sequence[Incident]
    page: int
    pages: int
    found: int

    @property
    def first(self) -> int:
        """Which of those found the first one is, from 1 on."""
        return (self.page - 1) * PAGE + 1


def open_of(workspace_id: int) -> Sequence[Incident]:
    """The open incidents of a workspace, the latest first, at most MOST_OPEN."""
    mine = select(Incident).where(Incident.workspace_id == workspace_id, Incident.resolved_at.is_(None))
    return (
        db.session.execute(mine.order_by(Incident.opened_at.desc(), Incident.id.desc()).limit(MOST_OPEN))
        .scalars()
        .all()
    )


def resolved(workspace_id: int, page: int) -> Found:
    """A page of the incidents of a workspace that are over."""
    mine = Incident.workspace_id == workspace_id, Incident.resolved_at.is_not(None)
    found = db.session.execute(select(func.count()).select_from(Incident).where(*mine)).scalar_one()
    rows = select(Incident).where(*mine).order_by(Incident.resolved_at.desc(), Incident.id.desc())
    incidents = db.session.execute(rows.limit(PAGE).offset((page - 1) * PAGE)).scalars().all() if found else []
    return Found(incidents, page, max(1, -(-found // PAGE)), found)


def owned(workspace_id: int, incident_id: int) -> Incident | None:
    """The incident, if it is this workspace's."""
    mine = select(Incident).where(Incident.workspace_id == workspace_id, Incident.id == incident_id)
    return db.session.execute(mine).scalar_one_or_none()


def events(incident: Incident) -> Sequence[IncidentEvent]:
    """What became of an incident, the latest first, at most MOST_EVENTS."""
    mine = select(IncidentEvent).where(IncidentEvent.incident_id == incident.id)
    newest = mine.options(selectinload(IncidentEvent.incident)).order_by(IncidentEvent.id.desc()).limit(MOST_EVENTS)
    return db.session.execute(newest).scalars().all()


def acknowledge(incident: Incident, who: str, now: datetime) -> None:
    """Note that somebody knows: nobody is reminded of it, unless it gets worse. Does not commit. Who said so first
    stays. Raises Deleted."""
    members.lock(incident.workspace_id)
    if incident.resolved_at is None and incident.acknowledged_at is None:
        incident.acknowledged_at, incident.acknowledged_by = now, who[:255]
        audit.note(Action.INCIDENT_ACKNOWLEDGED, incident.workspace_id, wording.title(incident))


def snooze(incident: Incident, days: int, now: datetime) -> None:
    """Have nobody told of it for so many days. Does not commit. Raises Deleted."""
    members.lock(incident.workspace_id)
    if incident.resolved_at is None:
        incident.snoozed_until = now + timedelta(days=days)
        length = "1 day" if days == 1 else f"{days} days"
        audit.note(Action.INCIDENT_SNOOZED, incident.workspace_id, f"{wording.title(incident)}, for {length}")


def answer_token(incident_id: int, channel_id: int) -> str:
    """What a link in a message to a channel has in it: it works for LINK_DAYS, for this incident alone."""
    return _signed().dumps([incident_id, channel_id])


def answered(token: str) -> tuple[Incident, Channel] | None:
    """The incident that a link is about, and the channel that it was sent to; None if the link is too old, was not made
    here, or one of both or their workspace was deleted."""
    try:
        incident_id, channel_id = _signed().loads(token, max_age=LINK_DAYS * 86_400)
    except (BadData, ValueError, TypeError):
        return None
    incident, channel = db.session.get(Incident, incident_id), db.session.get(Channel, channel_id)
    if incident is None or channel is None or incident.workspace_id != channel.workspace_id:
        return None
    if db.session.get_one(Workspace, incident.workspace_id).deleted_at is not None:
        return None
    return incident, channel


def _signed() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(settings.secret_key or "", salt="answer to an alert")
