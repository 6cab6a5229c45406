"""Services that keep alerts of their own, such as PagerDuty: which of them may have one of which incidents, and what
they have to close because it is deleted here.

Such an alert calls somebody until it is closed. One of a budget that was deleted stayed open for good: nothing was left
here that could have said that it is over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, or_, select

from grafient.alerts import wording
from grafient.extensions import db
from grafient.models import Channel, Delivery, DeliveryEvent, Incident, IncidentEvent
from grafient.states import ChannelKind, DeliveryState, Happened, Sending

LEASE = timedelta(minutes=2)
"""For so long a delivery is left to the worker that sends it."""

AT_ONCE = 20
"""Of incidents that one delivery closes: each is a request, and there are 30 seconds for all of them."""

_KINDS = [kind for kind in ChannelKind if kind.keeps_alerts]


def told(
    workspace_id: int, incidents: ColumnElement[bool], *deliveries: ColumnElement[bool]
) -> Sequence[tuple[Channel, Incident]]:
    """Of these incidents those that a channel may have an alert of its own about, with that channel. In one statement:
    an account that was removed may take hundreds of them along.

    Anything but a delivery that was dropped may have got there: one that failed may have arrived all the same, and one
    that is due may be under way. ``deliveries``: what else has to be so of it.
    """
    delivery = (
        select(Delivery.id)
        .join(DeliveryEvent, DeliveryEvent.delivery_id == Delivery.id)
        .join(IncidentEvent, IncidentEvent.id == DeliveryEvent.event_id)
        .where(
            Delivery.channel_id == Channel.id,
            Delivery.state != DeliveryState.DROPPED,
            IncidentEvent.incident_id == Incident.id,
            *deliveries,
        )
    )
    found = (
        select(Channel, Incident)
        .join(Incident, Incident.workspace_id == Channel.workspace_id)
        .where(
            Channel.workspace_id == workspace_id,
            Channel.kind.in_(_KINDS),
            Channel.disabled_at.is_(None),
            incidents,
            delivery.exists(),
        )
        .order_by(Channel.id, Incident.id)
    )
    return [(row[0], row[1]) for row in db.session.execute(found)]


def before_deletion(workspace_id: int, incidents: ColumnElement[bool], now: datetime) -> None:
    """Have what is open elsewhere of these incidents closed, which are about to be deleted. Does not commit. The
    workspace should be locked, or a look adds to them meanwhile.

    That is also so of one that is over if a message about it is due, since it is deleted with the incident. What a
    worker sends in this moment would open it again, so it is closed only when that worker's time is over.
    """
    by_channel: dict[int, list[dict[str, Any]]] = defaultdict(list)
    is_to_be_closed = or_(Incident.resolved_at.is_(None), Delivery.state == DeliveryState.DUE)
    for channel, incident in told(workspace_id, incidents, is_to_be_closed):
        said = wording.said(incident.kind, Happened.RESOLVED, {**incident.facts, "closed": True})
        by_channel[channel.id].append({"incident": incident.id, "title": said.title})
    for channel_id, found in by_channel.items():
        for first in range(0, len(found), AT_ONCE):
            about = {"closed": found[first : first + AT_ONCE]}
            times = {"created_at": now, "due_at": now + LEASE}
            db.session.add(Delivery(channel_id=channel_id, sending=Sending.ALERTS, about=about, **times))
    db.session.flush()
