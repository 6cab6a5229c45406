"""What a delivery says, written when it is sent: the events as they were, and what became of them since."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import date

from sqlalchemy import select

from grafient.alerts import board, digest, wording
from grafient.alerts.incidents import is_snoozed
from grafient.alerts.message import Item, Message
from grafient.extensions import db, settings
from grafient.models import Channel, Delivery, DeliveryEvent, Incident, IncidentEvent, Workspace, utc_now
from grafient.states import Happened, Sending, Summary

_MOST_ITEMS = 50
_WEIGHT = (Happened.OPENED, Happened.WORSENED, Happened.REMINDED, Happened.RESOLVED)


def of(delivery: Delivery, channel: Channel) -> Message | None:
    """The message; None if there is nothing to say any more. Raises digest.TooEarly."""
    if delivery.sending is Sending.TEST:
        return Message(
            delivery.uid,
            "test",
            f"A test from Grafient{_workspace(channel)}",
            delivery.created_at,
            lines=(f"Alerts for “{wording.name(channel.name)}” arrive here.",),
            link=f"{settings.base_url}/alerts",
        )
    if delivery.sending is Sending.FAILING:
        failing = db.session.get(Channel, delivery.about["channel"])
        if failing is None or failing.failing_since is None:
            return None
        name = wording.name(failing.name)
        return Message(
            delivery.uid,
            "channel.failing",
            f"The channel “{name}” can't be reached{_workspace(channel)}",
            delivery.created_at,
            lines=("Alerts that were meant for it did not arrive. Its page says why.",),
            link=f"{settings.base_url}/alerts/channels/{failing.id}",
        )
    if delivery.sending is Sending.DIGEST:
        summary, day = Summary(delivery.about["summary"]), date.fromisoformat(delivery.about["day"])
        return digest.of(channel.workspace_id, delivery.uid, summary, day, _workspace(channel), delivery.created_at)
    return _alerts(delivery, channel)


def _alerts(delivery: Delivery, channel: Channel) -> Message | None:
    """One item an incident. If it got worse or ended while the message waited, in a channel's quiet hours, all of that
    is in it: what it came to, and below that what was said first."""
    now = utc_now()
    by_incident: dict[int, list[tuple[IncidentEvent, Incident]]] = defaultdict(list)
    for event, incident in _events_of(delivery.id):
        if _closes(channel, incident) or not is_snoozed(incident, now):
            by_incident[incident.id].append((event, incident))
    items = [*_deleted(delivery), *(_item(some, channel) for some in by_incident.values())]
    if not items:
        return None
    items.sort(key=lambda item: _WEIGHT.index(item.what or Happened.OPENED))
    if channel.kind.keeps_alerts:  # what is left out of a flood must not be what is over
        items.sort(key=lambda item: item.what is not Happened.RESOLVED)
    title = items[0].title if len(items) == 1 else _together(items)
    left_out = len(items) - _MOST_ITEMS
    return Message(
        delivery.uid,
        "alerts",
        f"{title}{_workspace(channel)}",
        delivery.created_at,
        items=items[:_MOST_ITEMS],
        foot=f"{left_out} more {'is' if left_out == 1 else 'are'} on the page." if left_out > 0 else "",
        link=f"{settings.base_url}/alerts",
    )


def _together(items: Sequence[Item]) -> str:
    over = sum(item.what is Happened.RESOLVED for item in items)
    new = len(items) - over
    if not over:
        return f"{new} alerts"
    return f"{over} alerts are over" if not new else f"{new} alert{'' if new == 1 else 's'}, {over} over"


def _closes(channel: Channel, incident: Incident) -> bool:
    """Whether all that is left to say of an incident, in a service that keeps alerts of its own, is that it is over.

    A message that failed and was tried again after that of the end opened the alert anew, and nothing closed it.
    """
    return channel.kind.keeps_alerts and incident.resolved_at is not None


def _deleted(delivery: Delivery) -> list[Item]:
    """The ends of incidents that were deleted, see ``closing``. On SQLite a new one may have the number of the last one
    that was deleted; it is not over."""
    closed = delivery.about.get("closed", ())
    if not closed:
        return []
    again = Incident.id.in_([one["incident"] for one in closed]), Incident.resolved_at.is_(None)
    is_open = set(db.session.execute(select(Incident.id).where(*again)).scalars())
    return [
        Item(one["title"], what=Happened.RESOLVED, key=_key(one["incident"]))
        for one in closed
        if one["incident"] not in is_open
    ]


def _key(incident_id: int) -> str:
    return f"grafient-{incident_id}"


def _item(events: Sequence[tuple[IncidentEvent, Incident]], channel: Channel) -> Item:
    event, incident = events[-1]
    closes = _closes(channel, incident)
    what, facts = (Happened.RESOLVED, incident.facts) if closes else (event.what, event.facts)
    marks = [mark for one, _ in events for mark in one.marks]
    said = wording.said(incident.kind, what, facts, marks)
    lines = list(said.lines)
    if what is Happened.RESOLVED:
        for one, _ in events[:-1]:
            lines.append(
                f"{wording.moment(one.at)}: {wording.said(incident.kind, one.what, one.facts, one.marks).title}"
            )
    if what is Happened.REMINDED:
        lines.append(f"It has been so since {wording.moment(incident.opened_at)}.")
    if what is not Happened.RESOLVED and incident.resolved_at is not None:
        lines.append(f"It was over at {wording.moment(incident.resolved_at)}.")
    is_open = incident.resolved_at is None and incident.acknowledged_at is None
    return Item(
        title=said.title,
        lines=lines,
        link=f"{settings.base_url}{wording.path(incident.kind, facts, incident.integration_id)}",
        answer=_answer(incident, channel) if is_open else "",
        what=what,
        key=_key(incident.id),
        data={
            "type": f"{incident.kind}.{what}",
            "incident": incident.id,
            "event": event.id,
            "at": event.at.isoformat(),
            "opened_at": incident.opened_at.isoformat(),
            "facts": facts,
        },
    )


def _answer(incident: Incident, channel: Channel) -> str:
    return f"{settings.base_url}/alerts/answer/{board.answer_token(incident.id, channel.id)}"


def _events_of(delivery_id: int) -> Sequence[tuple[IncidentEvent, Incident]]:
    """What a delivery tells of, in order."""
    found = (
        select(IncidentEvent, Incident)
        .join(DeliveryEvent, DeliveryEvent.event_id == IncidentEvent.id)
        .join(Incident, Incident.id == IncidentEvent.incident_id)
        .where(DeliveryEvent.delivery_id == delivery_id)
        .order_by(IncidentEvent.id)
    )
    return [(row[0], row[1]) for row in db.session.execute(found)]


def _workspace(channel: Channel) -> str:
    """Its name, if it has one: somebody may belong to several."""
    name = db.session.get_one(Workspace, channel.workspace_id).name
    return f" · {wording.name(name)}" if name else ""
