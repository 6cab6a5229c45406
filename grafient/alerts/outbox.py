"""What is to be sent, and what became of it.

A delivery is written in the transaction that opens the incident, so neither a killed worker nor an emptied Redis loses
it. A worker claims one for two minutes, sends it with no transaction open, and notes the outcome. If it is killed in
between, another sends it again with the same ``uid``: at least once, and twice only then.

Events wait a minute before they are sent, so that what a morning's syncs find comes as one message; longer in a
channel's quiet hours, or if it is told once a day. As long as a delivery waits, further events are added to it.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, delete, func, select, update

from grafient.alerts import compose
from grafient.alerts.channels import sending, store
from grafient.alerts.channels.sending import Ended, Outcome
from grafient.alerts.digest import TooEarly
from grafient.extensions import db
from grafient.models import Channel, Delivery, DeliveryEvent, IncidentEvent, utc_now
from grafient.states import ChannelKind, DeliveryState, Sending
from grafient.vault import VaultError

log = logging.getLogger(__name__)

GATHER = timedelta(seconds=60)
LEASE = timedelta(minutes=2)
LONGEST = timedelta(hours=24)
"""For so long a message is tried again; a webhook as long as its schedule goes."""

PAUSES = tuple(timedelta(seconds=seconds) for seconds in (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400))
"""After each failure, as Standard Webhooks suggests (https://www.standardwebhooks.com), and up to a fifth more."""

KEPT = timedelta(days=90)


def tell(workspace_id: int, events: Sequence[IncidentEvent], now: datetime) -> None:
    """Note for each channel that wants to know what it is to be told. Does not commit."""
    if not events:
        return
    for channel in _channels(workspace_id):
        mine = [one for one in events if one.incident.kind.topic in channel.topics]
        if mine:
            _add(channel, mine, now)


def _channels(workspace_id: int) -> Sequence[Channel]:
    on = Channel.workspace_id == workspace_id, Channel.disabled_at.is_(None)
    return db.session.execute(select(Channel).where(*on).order_by(Channel.id)).scalars().all()


def _add(channel: Channel, events: Sequence[IncidentEvent], now: datetime) -> None:
    """To the delivery that waits, or to a new one.

    The one that waits is locked: a worker that claims it in this moment either does so before, so that it no longer
    waits, or has what was added.
    """
    waiting = (
        select(Delivery)
        .where(
            Delivery.channel_id == channel.id,
            Delivery.sending == Sending.ALERTS,
            Delivery.state == DeliveryState.DUE,
            Delivery.attempts == 0,
        )
        .order_by(Delivery.id.desc())
        .limit(1)
        .with_for_update()
    )
    delivery = db.session.execute(waiting).scalar()
    if delivery is None:
        delivery = _new(channel.id, Sending.ALERTS, _when(channel, now + GATHER), now)
    for event in events:
        db.session.add(DeliveryEvent(delivery_id=delivery.id, event_id=event.id))


def _new(channel_id: int, what: Sending, due_at: datetime, now: datetime, **about: Any) -> Delivery:
    delivery = Delivery(
        channel_id=channel_id,
        uid=f"msg_{secrets.token_hex(16)}",
        sending=what,
        due_at=due_at,
        created_at=now,
        about=about,
    )
    db.session.add(delivery)
    db.session.flush()
    return delivery


def _when(channel: Channel, at: datetime) -> datetime:
    """When a channel may be told: not in its quiet hours, and if it is told once a day, then."""
    if channel.alerts_daily:
        hour = store.MORNING if channel.quiet_to is None else channel.quiet_to
        return _next_hour(hour, at)
    if channel.quiet_from is None or channel.quiet_to is None or channel.quiet_from == channel.quiet_to:
        return at
    begins, ends, hour = channel.quiet_from, channel.quiet_to, at.astimezone(UTC).hour
    is_quiet = begins <= hour < ends if begins < ends else hour >= begins or hour < ends
    return _next_hour(ends, at) if is_quiet else at


def _next_hour(hour: int, after: datetime) -> datetime:
    found = datetime.combine(after.astimezone(UTC).date(), time(hour), UTC)
    return found if found >= after else found + timedelta(days=1)


def add_digests(now: datetime) -> int:
    """Note the digests that are due; how many they are. Does not commit.

    Any number of ticks may do so at once: whoever moves ``summary_at`` on is the one that writes it.
    """
    due = Channel.summary.is_not(None), Channel.summary_at <= now, Channel.disabled_at.is_(None)
    found = 0
    for channel in db.session.execute(select(Channel).where(*due).limit(200)).scalars().all():
        was, summary = channel.summary_at, channel.summary
        if was is None or summary is None:
            continue
        moved = _updated(
            update(Channel)
            .where(Channel.id == channel.id, Channel.summary_at == was)
            .values(summary_at=store.next_summary(summary, now))
        )
        if moved:
            _new(channel.id, Sending.DIGEST, now, now, summary=str(summary), day=was.date().isoformat())
            found += 1
    return found


def count_due(now: datetime) -> int:
    """How many deliveries are to be sent."""
    return db.session.execute(select(func.count()).select_from(Delivery).where(*_due(now))).scalar_one()


def _due(now: datetime) -> tuple[Any, ...]:
    return Delivery.state == DeliveryState.DUE, Delivery.due_at <= now


def send_due() -> None:
    """Send what is to be sent by now. Commits; what can't be sent is tried again later."""
    while (claimed := _claim(utc_now())) is not None:
        _send(claimed)


def _claim(now: datetime) -> int | None:
    """A delivery that nobody else sends for the next two minutes. Commits."""
    while True:
        row = db.session.execute(
            select(Delivery.id, Delivery.due_at, Delivery.attempts)
            .where(*_due(now))
            .order_by(Delivery.due_at, Delivery.id)
            .limit(1)
        ).one_or_none()
        if row is None:
            db.session.rollback()
            return None
        as_it_was = Delivery.id == row.id, Delivery.due_at == row.due_at, Delivery.attempts == row.attempts
        taken = _updated(
            update(Delivery)
            .where(*as_it_was, Delivery.state == DeliveryState.DUE)
            .values(due_at=now + LEASE, attempts=row.attempts + 1, tried_at=func.coalesce(Delivery.tried_at, now))
        )
        db.session.commit()
        if taken:
            return int(row.id)


def _updated(statement: Any) -> int:
    result = db.session.execute(statement, execution_options={"synchronize_session": False})
    return cast(CursorResult[Any], result).rowcount


def _send(delivery_id: int) -> None:
    delivery = db.session.get(Delivery, delivery_id)
    channel = db.session.get(Channel, delivery.channel_id) if delivery is not None else None
    if delivery is None or channel is None:
        db.session.rollback()
        return
    if channel.disabled_at is not None:
        _end(delivery, DeliveryState.DROPPED, "The channel was turned off.")
        db.session.commit()
        return
    try:
        message = compose.of(delivery, channel)
    except TooEarly:
        delivery.due_at, delivery.attempts = utc_now() + timedelta(hours=6), delivery.attempts - 1
        db.session.commit()
        return
    if message is None:
        _end(delivery, DeliveryState.DROPPED, "There was nothing left to say.")
        db.session.commit()
        return
    kind, attempt = channel.kind, delivery.attempts
    try:
        config = store.opened(channel)
    except VaultError as error:
        outcome = Outcome(Ended.AGAIN, str(error))
    else:
        db.session.rollback()  # no transaction is open while somebody else's server is waited for
        outcome = sending.send(kind, config, message, now=utc_now())
    _note(delivery_id, attempt, message.title, outcome)


def _note(delivery_id: int, attempt: int, title: str, outcome: Outcome) -> None:
    """What a try ended with. Commits; nothing if somebody else has tried it since."""
    now = utc_now()
    delivery = db.session.get(Delivery, delivery_id, populate_existing=True, with_for_update=True)
    if delivery is None or delivery.attempts != attempt or delivery.state is not DeliveryState.DUE:
        db.session.rollback()
        return
    channel = db.session.get_one(Channel, delivery.channel_id)
    delivery.title, delivery.outcome = title, outcome.sentence
    if outcome.state is Ended.SENT:
        _end(delivery, DeliveryState.SENT, outcome.sentence)
        channel.failing_since = None
    else:
        was_failing = channel.failing_since
        channel.failing_since = was_failing or now
        log.warning("alerts: %s (channel %s), try %s", outcome.sentence, channel.id, attempt)
        pause = _pause(channel.kind, delivery, outcome, now)
        if outcome.state is Ended.GONE:
            _end(delivery, DeliveryState.FAILED, outcome.sentence)
            channel.disabled_at, channel.disabled_why = now, outcome.sentence
        elif pause is None or delivery.sending is Sending.TEST:
            _end(delivery, DeliveryState.FAILED, outcome.sentence)
        else:
            delivery.due_at = now + pause
        fails_for_long = now - channel.failing_since >= LONGEST
        is_given_up = delivery.ended_at is not None
        if delivery.sending is Sending.ALERTS and (is_given_up or fails_for_long):
            _tell_others(channel, now)
    db.session.commit()


def _pause(kind: ChannelKind, delivery: Delivery, outcome: Outcome, now: datetime) -> timedelta | None:
    """How long to wait before the next try; None to give up."""
    if delivery.attempts > len(PAUSES):
        return None
    jittered = PAUSES[delivery.attempts - 1] * (1 + random.random() / 5)  # noqa: S311 - spreads load
    pause = max(jittered, min(timedelta(seconds=outcome.retry_after or 0), LONGEST))
    if kind is ChannelKind.WEBHOOK:
        return pause
    first = delivery.tried_at or now
    return pause if now + pause - first <= LONGEST else None


def _end(delivery: Delivery, state: DeliveryState, outcome: str) -> None:
    delivery.state, delivery.outcome, delivery.ended_at = state, outcome, utc_now()


def _tell_others(failing: Channel, now: datetime) -> None:
    """Say on the workspace's other channels that this one can't be reached; once, until it was reached again."""
    for channel in _channels(failing.workspace_id):
        if channel.id == failing.id or channel.failing_since is not None:
            continue
        told = (
            select(Delivery.id)
            .where(
                Delivery.channel_id == channel.id,
                Delivery.sending == Sending.FAILING,
                Delivery.created_at >= (failing.failing_since or now),
            )
            .limit(50)
        )
        about = [db.session.get_one(Delivery, one).about for one in db.session.execute(told).scalars().all()]
        if not any(one.get("channel") == failing.id for one in about):
            _new(channel.id, Sending.FAILING, _when(channel, now), now, channel=failing.id, name=failing.name)


def sweep(now: datetime) -> None:
    """Forget what was sent long ago, and incidents that ended a year ago. Does not commit."""
    old = Delivery.state != DeliveryState.DUE, Delivery.created_at < now - KEPT
    some = select(Delivery.id).where(*old).limit(500)
    db.session.execute(delete(Delivery).where(Delivery.id.in_(some)), execution_options={"synchronize_session": False})


def forget_every() -> None:
    """Send nothing that waits. Does not commit. For a restored backup: it was sent long ago."""
    waiting = update(Delivery).where(Delivery.state == DeliveryState.DUE)
    _updated(waiting.values(state=DeliveryState.DROPPED, outcome="A backup was restored.", ended_at=utc_now()))
