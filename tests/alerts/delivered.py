"""What tests of deliveries have alike: incidents that happen, channels to stand-ins, and what arrived there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

from grafient.alerts import incidents, outbox
from grafient.alerts.channels import store
from grafient.alerts.channels.store import Options
from grafient.alerts.findings import Finding
from grafient.extensions import db
from grafient.models import Channel, Delivery, Incident, IncidentEvent, Workspace, utc_now
from grafient.states import AlertKind, ChannelKind, Happened
from tests.alerts.stand_ins import StandIn
from tests.syncing import at

GATHERED = outbox.GATHER + timedelta(seconds=20)
"""When what happens now is due; the clock goes on while a test runs."""


def webhook(workspace: Workspace, name: str = "one", host: str = "hooks.example.com", **options: Any) -> Channel:
    """A channel to a stand-in. Commits."""
    config = {"url": f"https://{host}/s3cr3t"}
    return store.create(workspace.id, ChannelKind.WEBHOOK, name, config, Options(**options))[0]


def credits_of(label: str, left: str = "5") -> dict[str, Any]:
    return {"label": label, "left_usd": left, "days": 3, "provider": "OpenRouter"}


def opened(workspace: Workspace, *labels: str, kind: AlertKind = AlertKind.CREDITS, **more: Any) -> list[Incident]:
    """Incidents that are opened now, and what is to be told of them. Commits."""
    facts = more.pop("facts", None)
    found = [Finding(kind, label, facts or credits_of(label), **more) for label in labels]
    changes = incidents.step({}, found, [], [], utc_now())
    told, ended = incidents.write(workspace.id, changes, utc_now())
    outbox.tell(workspace.id, told, ended, utc_now())
    db.session.commit()
    return [event.incident for event in told]


def goes_on(incident: Incident, finding: Finding | None) -> None:
    """What becomes of an incident now that this is found, or nothing any more. Commits."""
    known = {(incident.kind, incident.subject): incident}
    changes = incidents.step(known, [finding] if finding is not None else [], [], [AlertKind.CREDITS], utc_now())
    outbox.tell(incident.workspace_id, *incidents.write(incident.workspace_id, changes, utc_now()), utc_now())
    db.session.commit()


def resolved(incident: Incident) -> None:
    """It is over now. Commits."""
    goes_on(incident, None)


def happened(incident: Incident, what: Happened, **more: Any) -> IncidentEvent:
    """Another event of an incident, that nobody is told of yet."""
    event = IncidentEvent(what=what, at=utc_now(), facts=more.get("facts", incident.facts), marks=more.get("marks", []))
    incident.events.append(event)
    db.session.flush()
    return event


def sent(moment: datetime) -> None:
    """What a worker sends at that moment."""
    with at(moment):
        outbox.send_due()
    db.session.rollback()
    db.session.expire_all()


def deliveries(channel: Channel | None = None) -> Sequence[Delivery]:
    """All there are, or a channel's, as they are now."""
    query = select(Delivery).order_by(Delivery.id)
    if channel is not None:
        query = query.where(Delivery.channel_id == channel.id)
    return db.session.execute(query, execution_options={"populate_existing": True}).scalars().all()


def states(channel: Channel | None = None) -> list[str]:
    return [str(one.state) for one in deliveries(channel)]


def arrived(machine: StandIn) -> list[str]:
    """The titles of what came, in order."""
    return [one.json["data"]["title"] for one in machine.requests]


def uids(machine: StandIn) -> list[str]:
    return [one.headers["webhook-id"] for one in machine.requests]
