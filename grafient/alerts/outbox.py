"""What is to be sent, and what became of it.

A delivery is written in the transaction that opens the incident, so neither a killed worker nor an emptied Redis loses
it. A worker claims one for two minutes, sends it with no transaction open, and notes the outcome. If it is killed in
between, another sends it again with the same ``uid``: at least once, and twice only then.

Events wait a minute before they are sent, so that what a morning's syncs find comes as one message; longer in a
channel's quiet hours, or if it is told once a day. As long as a delivery waits, further events are added to it.

A message that can't be written, because of a fault of Grafient's own, is tried again as one that can't be sent: others
must not wait behind it, and a version that mends the fault within a day still sends it.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, delete, func, select, update
from sqlalchemy.exc import SQLAlchemyError

from grafient import database
from grafient.alerts import closing, compose
from grafient.alerts.channels import sending, store
from grafient.alerts.channels.sending import Ended, Outcome
from grafient.alerts.closing import LEASE
from grafient.alerts.digest import TooEarly
from grafient.alerts.message import Message
from grafient.extensions import db
from grafient.models import IS_DUE, Channel, Delivery, DeliveryEvent, Incident, IncidentEvent, utc_now
from grafient.states import ChannelKind, DeliveryState, Happened, Sending, Summary
from grafient.vault import VaultError

log = logging.getLogger(__name__)

GATHER = timedelta(seconds=60)
LONGEST = timedelta(hours=24)
"""For so long a message is tried again; a webhook as long as its schedule goes."""

PAUSES = tuple(timedelta(seconds=seconds) for seconds in (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400))
"""After each failure, as Standard Webhooks suggests (https://www.standardwebhooks.com), and up to a fifth more."""

MOST_TRIES = len(PAUSES) + 1
"""Also of a message at which each worker ends, such as for want of memory: the syncs beside it end with them."""

SEND_SECONDS = 60.0
"""How long one go at sending takes: a job is ended after an hour, and many that don't answer take longer than that."""

KEPT = timedelta(days=90)
INCIDENTS_KEPT = timedelta(days=366)
_SWEPT = 500
"""Rows, the oldest there are, that are looked at in one go."""


def tell(workspace_id: int, events: Sequence[IncidentEvent], ended: Sequence[IncidentEvent], now: datetime) -> None:
    """Note for each channel that wants to know what it is to be told. Does not commit.

    ``ended``: ends that nobody is to be told of, such as that of an incident whose rule was turned off. PagerDuty would
    call somebody about it for good, so a service that keeps alerts of its own is told of the end of whatever it may
    have been told of, also if that is none of its topics any more.
    """
    if not events and not ended:
        return
    channels = _channels(workspace_id)
    over = [one for one in (*events, *ended) if one.what is Happened.RESOLVED]
    known: set[tuple[int, int]] = set()
    if over and any(channel.kind.keeps_alerts for channel in channels):
        ids = [one.incident_id for one in over]
        known = {(channel.id, incident.id) for channel, incident in closing.told(workspace_id, Incident.id.in_(ids))}
    for channel in channels:
        mine = {one.id: one for one in events if one.incident.kind.topic in channel.topics}
        mine |= {one.id: one for one in over if (channel.id, one.incident_id) in known}
        if mine:
            _add(channel, mine.values(), now)


def _channels(workspace_id: int) -> Sequence[Channel]:
    on = Channel.workspace_id == workspace_id, Channel.disabled_at.is_(None)
    return db.session.execute(select(Channel).where(*on).order_by(Channel.id)).scalars().all()


def _add(channel: Channel, events: Collection[IncidentEvent], now: datetime) -> None:
    """To the delivery that waits, or to a new one; not to one that closes what was deleted, which is due at another
    time.

    The one that waits is locked: a worker that claims it in this moment either does so before, so that it no longer
    waits, or has what was added.
    """
    waiting = (
        select(Delivery)
        .where(
            Delivery.channel_id == channel.id,
            Delivery.sending == Sending.ALERTS,
            IS_DUE,
            Delivery.attempts == 0,
        )
        .order_by(Delivery.id.desc())
        .limit(1)
        .with_for_update()
    )
    delivery = db.session.execute(waiting).scalar()
    if delivery is None or delivery.about:
        delivery = _new(channel.id, Sending.ALERTS, _when(channel, now + GATHER), now)
    for event in events:
        db.session.add(DeliveryEvent(delivery_id=delivery.id, event_id=event.id))


def _new(channel_id: int, what: Sending, due_at: datetime, now: datetime, **about: Any) -> Delivery:
    delivery = Delivery(
        channel_id=channel_id,
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
    return _after_quiet(channel, at)


def _after_quiet(channel: Channel, at: datetime) -> datetime:
    """The moment itself, or the end of the quiet hours that it is in."""
    if channel.quiet_from is None or channel.quiet_to is None or channel.quiet_from == channel.quiet_to:
        return at
    begins, ends, hour = channel.quiet_from, channel.quiet_to, at.astimezone(UTC).hour
    is_quiet = begins <= hour < ends if begins < ends else hour >= begins or hour < ends
    return _next_hour(ends, at) if is_quiet else at


def _next_hour(hour: int, after: datetime) -> datetime:
    found = datetime.combine(after.astimezone(UTC).date(), time_of_day(hour), UTC)
    return found if found >= after else found + timedelta(days=1)


def add_digests(now: datetime) -> int:
    """Note the digests that are due; how many they are. Does not commit.

    Any number of ticks may do so at once: whoever moves ``summary_at`` on is the one that writes it. The first tick
    after days without any writes the latest digest, not that of the first day.
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
            day = store.last_summary(summary, now).date()
            _new(channel.id, Sending.DIGEST, now, now, summary=str(summary), day=day.isoformat())
            found += 1
    return found


def count_due(now: datetime) -> int:
    """How many deliveries are to be sent."""
    return db.session.execute(select(func.count()).select_from(Delivery).where(*_due(now))).scalar_one()


def _due(now: datetime) -> tuple[Any, ...]:
    return IS_DUE, Delivery.due_at <= now


def send_due() -> None:
    """Send what is to be sent by now, for SEND_SECONDS. Commits; what can't be sent is tried again later."""
    until = time.monotonic() + SEND_SECONDS
    while time.monotonic() < until and (claimed := _claim(utc_now())) is not None:
        _send(*claimed)


def _claim(now: datetime) -> tuple[int, int] | None:
    """A delivery that nobody else sends for the next two minutes, and which try this is. Commits."""
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
            .where(*as_it_was, IS_DUE)
            .values(due_at=now + LEASE, attempts=row.attempts + 1, tried_at=func.coalesce(Delivery.tried_at, now))
        )
        db.session.commit()
        if taken:
            return row.id, row.attempts + 1


def _updated(statement: Any) -> int:
    result = db.session.execute(statement, execution_options={"synchronize_session": False})
    return cast(CursorResult[Any], result).rowcount


@dataclass(frozen=True)
class _Ready:
    """A message, and where it is sent."""

    kind: ChannelKind
    config: Mapping[str, str]
    message: Message


@dataclass(frozen=True)
class _Waits:
    """It is too early; that is no try."""

    until: datetime


@dataclass(frozen=True)
class _Dropped:
    """There is nothing to be sent."""

    why: str


def _send(delivery_id: int, attempt: int) -> None:
    """Try once. No transaction is open while somebody else's server is waited for, and while a digest adds up a month
    no lock is held that would keep SQLite's other writers waiting."""
    title = ""
    try:
        with database.only_reading():
            became = _ready(delivery_id, attempt)
            db.session.rollback()
        if isinstance(became, _Ready):
            title = became.message.title
            became = sending.send(became.kind, became.config, became.message, now=utc_now())
    except SQLAlchemyError:
        raise
    except Exception:
        db.session.rollback()
        log.exception("alerts: delivery %s failed; it is tried again later", delivery_id)
        became = Outcome(Ended.AGAIN, "Grafient itself failed; the worker's log says why.")
    if became is not None:
        _note(delivery_id, attempt, title, became)


def _ready(delivery_id: int, attempt: int) -> _Ready | _Waits | _Dropped | Outcome | None:
    """What there is to send; None if the channel was deleted."""
    if attempt > MOST_TRIES:
        return Outcome(Ended.AGAIN, "The worker ended at each try; its log says why.")
    now = utc_now()
    delivery = db.session.get(Delivery, delivery_id)
    if delivery is None:
        return None
    channel = db.session.get_one(Channel, delivery.channel_id)
    if channel.disabled_at is not None:
        return _Dropped("The channel was turned off.")
    awake_at = _after_quiet(channel, now)
    if awake_at > now and delivery.sending is not Sending.TEST:
        return _Waits(awake_at)
    try:
        message = compose.of(delivery, channel)
    except TooEarly:
        return _Waits(now + timedelta(hours=6))
    if message is None:
        return _Dropped("There was nothing left to say.")
    try:
        return _Ready(channel.kind, store.opened(channel), message)
    except VaultError as error:
        return Outcome(Ended.AGAIN, str(error))


def _note(delivery_id: int, attempt: int, title: str, became: Outcome | _Waits | _Dropped) -> None:
    """What a try ended with. Commits; nothing if somebody else has tried it since.

    The channel is locked before its delivery, as by who deletes it: each waited for the other otherwise.
    """
    now = utc_now()
    its = Channel.id == select(Delivery.channel_id).where(Delivery.id == delivery_id).scalar_subquery()
    channel = db.session.execute(select(Channel).where(its).with_for_update(key_share=True)).scalar()
    delivery = db.session.get(Delivery, delivery_id, populate_existing=True, with_for_update=True)
    if channel is None or delivery is None or delivery.attempts != attempt or delivery.state is not DeliveryState.DUE:
        db.session.rollback()
        return
    if isinstance(became, _Dropped):
        _end(delivery, DeliveryState.DROPPED, became.why)
    elif isinstance(became, _Waits):
        delivery.due_at, delivery.attempts = became.until, attempt - 1
        delivery.tried_at = delivery.tried_at if delivery.attempts else None
    else:
        delivery.title = title or delivery.title
        _note_outcome(channel, delivery, became, now)
    db.session.commit()


def _note_outcome(channel: Channel, delivery: Delivery, outcome: Outcome, now: datetime) -> None:
    if outcome.state is Ended.SENT:
        _end(delivery, DeliveryState.SENT, outcome.sentence)
        channel.failing_since = None
        return
    delivery.outcome = outcome.sentence
    channel.failing_since = channel.failing_since or now
    log.warning("alerts: %s (channel %s), try %s", outcome.sentence, channel.id, delivery.attempts)
    pause = _pause(channel.kind, delivery, outcome, now)
    if outcome.state is Ended.GONE:
        channel.disabled_at, channel.disabled_why = now, outcome.sentence
    if outcome.state is Ended.GONE or pause is None or delivery.sending is Sending.TEST:
        _end(delivery, DeliveryState.FAILED, outcome.sentence)
    else:
        delivery.due_at = now + pause
    is_given_up, fails_for_long = delivery.ended_at is not None, now - channel.failing_since >= LONGEST
    if delivery.sending is not Sending.TEST and (is_given_up or fails_for_long):
        _tell_others(channel, now)


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
        told = select(Delivery.about).where(
            Delivery.channel_id == channel.id,
            Delivery.sending == Sending.FAILING,
            Delivery.created_at >= (failing.failing_since or now),
        )
        if not any(about.get("channel") == failing.id for about in db.session.execute(told).scalars()):
            _new(channel.id, Sending.FAILING, _when(channel, now), now, channel=failing.id)


def sweep(now: datetime) -> None:
    """Forget what was sent long ago, and incidents that ended a year ago. Does not commit.

    No index has their age. Rows are written in the order of their ids, so it is enough to look at the oldest few; each
    tick read the whole table otherwise.
    """
    _sweep(Delivery.id, Delivery.state != DeliveryState.DUE, Delivery.created_at < now - KEPT)
    _sweep(Incident.id, Incident.resolved_at < now - INCIDENTS_KEPT)


def _sweep(number: Any, *is_old: ColumnElement[bool]) -> None:
    oldest = select(number).order_by(number).limit(_SWEPT).scalar_subquery()
    _updated(delete(number.class_).where(number.in_(oldest), *is_old))


def forget_every() -> None:
    """Send nothing that waits, and no digest that is due. Does not commit. For a restored backup: it was sent long
    ago."""
    now = utc_now()
    dropped = {"state": DeliveryState.DROPPED, "outcome": "A backup was restored.", "ended_at": now}
    _updated(update(Delivery).where(IS_DUE).values(dropped))
    for summary in Summary:
        late = update(Channel).where(Channel.summary == summary, Channel.summary_at <= now)
        _updated(late.values(summary_at=store.next_summary(summary, now)))
