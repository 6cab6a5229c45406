"""The channels of a workspace: set up, changed, tested, turned off and on, deleted; and what is shown of them.

What a channel was set up with is sealed as a whole, bound to its row. ``shown`` and the audit log have no secret.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any

from sqlalchemy import delete as deletion
from sqlalchemy import func, select, update

from grafient import audit, keyring, mail, members
from grafient.alerts.channels import webhooks
from grafient.alerts.channels.kinds import KINDS
from grafient.extensions import db, vault
from grafient.members import Refused
from grafient.models import Channel, Delivery, utc_now
from grafient.states import Action, ChannelKind, DeliveryState, Sending, Summary, Topic
from grafient.vault import Sealed, VaultError

MOST_CHANNELS = 20
MOST_NAME = 100
HISTORY = 50
MORNING = 7
"""The hour, in UTC, at which what comes once a day is sent: the daily syncs begin at six."""
TURNED_OFF = "Turned off by hand."


@dataclass(frozen=True)
class Options:
    """What a channel is told of, and when. Hours are UTC; ``quiet_from`` and ``quiet_to`` are both None, or neither."""

    topics: tuple[Topic, ...] = tuple(Topic)
    quiet_from: int | None = None
    quiet_to: int | None = None
    alerts_daily: bool = False
    summary: Summary | None = None


@dataclass(frozen=True)
class Listed:
    """A channel in a list. ``last``: what was last sent there, or was to be."""

    id: int
    kind: ChannelKind
    label: str
    name: str
    shown: Mapping[str, str]
    topics: Sequence[Topic]
    is_off: bool
    why: str
    failing_since: datetime | None
    last: Delivery | None


def available() -> Sequence[ChannelKind]:
    """The kinds that can be set up here: email needs a mail server."""
    return [kind for kind in KINDS if kind is not ChannelKind.EMAIL or mail.can_be_sent()]


def find(workspace_id: int, channel_id: int) -> Channel | None:
    """The channel, if it is this workspace's."""
    query = select(Channel).where(Channel.id == channel_id, Channel.workspace_id == workspace_id)
    return db.session.execute(query).scalar_one_or_none()


def listed(workspace_id: int) -> Sequence[Listed]:
    """All channels of a workspace, by name."""
    query = select(Channel).where(Channel.workspace_id == workspace_id).order_by(func.lower(Channel.name), Channel.id)
    channels = db.session.execute(query).scalars().all()
    latest = select(func.max(Delivery.id)).where(Delivery.channel_id.in_(one.id for one in channels))
    rows = select(Delivery).where(Delivery.id.in_(latest.group_by(Delivery.channel_id)))
    last = {one.channel_id: one for one in db.session.execute(rows).scalars()}
    return [
        Listed(
            one.id,
            one.kind,
            KINDS[one.kind].label,
            one.name,
            one.shown,
            [Topic(topic) for topic in one.topics],
            one.disabled_at is not None,
            one.disabled_why,
            one.failing_since,
            last.get(one.id),
        )
        for one in channels
    ]


def history(channel: Channel) -> Sequence[Delivery]:
    """What it was sent last, and what became of it; the latest first."""
    query = select(Delivery).where(Delivery.channel_id == channel.id).order_by(Delivery.id.desc()).limit(HISTORY)
    return db.session.execute(query).scalars().all()


def opened(channel: Channel) -> dict[str, str]:
    """What it was set up with, secrets among it. Raises VaultError if it does not open, or was given up."""
    if channel.config_ciphertext is None:
        raise VaultError(keyring.LOST_SETTINGS)
    sealed = Sealed(channel.config_encryption_id or "", channel.config_ciphertext)
    config: dict[str, str] = json.loads(vault.decrypt(sealed, keyring.of_channel(channel.id)))
    return config


def create(
    workspace_id: int, kind: ChannelKind, name: str, config: Mapping[str, str], options: Options
) -> tuple[Channel, str]:
    """Set one up, from what ``kinds.parsed`` gave; the channel, and the secret of a webhook, which nobody is told
    again. Commits. Raises Refused if there are too many."""
    members.lock(workspace_id)
    count = db.session.execute(select(func.count()).where(Channel.workspace_id == workspace_id)).scalar_one()
    if count >= MOST_CHANNELS:
        raise Refused(f"A workspace can have {MOST_CHANNELS} channels. Delete one to add another.")
    secret = webhooks.new_secret() if kind is ChannelKind.WEBHOOK else ""
    channel = Channel(workspace_id=workspace_id, kind=kind, name=name or KINDS[kind].label, shown={}, topics=[])
    _set(channel, options)
    db.session.add(channel)
    db.session.flush()  # the seal is bound to the id
    _seal(channel, {**config, "secret": secret} if secret else config)
    audit.note(Action.CHANNEL_ADDED, workspace_id, _called(channel))
    db.session.commit()
    return channel, secret


def change(channel: Channel, name: str, config: Mapping[str, str] | None, options: Options) -> None:
    """Set it up anew; what is None stays. Commits. One that is off because its settings were lost, or that was gone,
    is on again once other settings are entered. Raises Refused if it was deleted meanwhile, as all below do."""
    _hold(channel)
    before = _opened_or_empty(channel)
    kept = {key: before[key] for key in _OURS if key in before}
    if config is not None and before != {**config, **kept}:
        if channel.kind is ChannelKind.WEBHOOK and "secret" not in kept:
            kept["secret"] = webhooks.new_secret()
        _seal(channel, {**config, **kept})
        if channel.disabled_at is not None and channel.disabled_why != TURNED_OFF:
            _turn_on(channel)
        channel.failing_since = None
    channel.name = name or KINDS[channel.kind].label
    _set(channel, options)
    audit.note(Action.CHANNEL_CHANGED, channel.workspace_id, _called(channel))
    db.session.commit()


_OURS = ("secret", "old_secret", "old_until")
"""What of a config is not entered by anybody."""


def rotate_secret(channel: Channel, now: datetime) -> str:
    """Another secret for a webhook, shown once; the one before signs for a day as well. Commits."""
    _hold(channel)
    config = webhooks.rotated(opened(channel), now)
    _seal(channel, config)
    audit.note(Action.CHANNEL_CHANGED, channel.workspace_id, f"{_called(channel)}: new secret")
    db.session.commit()
    return config["secret"]


def turn_on(channel: Channel) -> None:
    """Send there again. What was due while it was off is not sent later. Commits. Raises Refused without settings."""
    _hold(channel)
    if channel.config_ciphertext is None:
        raise Refused(keyring.LOST_SETTINGS)
    _turn_on(channel)
    audit.note(Action.CHANNEL_CHANGED, channel.workspace_id, f"{_called(channel)}: turned on")
    db.session.commit()


def _turn_on(channel: Channel) -> None:
    channel.disabled_at, channel.disabled_why, channel.failing_since = None, "", None
    if channel.summary is not None:
        channel.summary_at = next_summary(channel.summary, utc_now())


def turn_off(channel: Channel, why: str = TURNED_OFF) -> None:
    """Send nothing there until it is turned on. Commits."""
    _hold(channel)
    channel.disabled_at, channel.disabled_why = utc_now(), why
    audit.note(Action.CHANNEL_CHANGED, channel.workspace_id, f"{_called(channel)}: turned off")
    db.session.commit()


def delete(channel: Channel) -> None:
    """Forget it, and what it was sent. Commits."""
    audit.note(Action.CHANNEL_DELETED, channel.workspace_id, _called(channel))
    db.session.execute(deletion(Channel).where(Channel.id == channel.id))
    db.session.commit()


def test(channel: Channel) -> None:
    """Have a test sent by the next worker; one that waits already is enough. Commits; wake a worker after that."""
    _hold(channel)
    waits = Delivery.channel_id == channel.id, Delivery.state == DeliveryState.DUE, Delivery.sending == Sending.TEST
    if db.session.execute(select(func.count()).where(*waits)).scalar_one() == 0:
        db.session.add(Delivery(channel_id=channel.id, sending=Sending.TEST, about={}, due_at=utc_now()))
    db.session.commit()


def close(workspace_id: int) -> None:
    """Forget the settings of all channels of a workspace that is deleted, and send nothing there. Does not commit."""
    gone: dict[str, Any] = {
        "config_ciphertext": None,
        "config_encryption_id": None,
        "shown": {},
        "disabled_at": utc_now(),
        "disabled_why": "The workspace was deleted.",
    }
    here = Channel.workspace_id == workspace_id
    db.session.execute(update(Channel).where(here).values(gone), execution_options={"synchronize_session": False})


def next_summary(summary: Summary, now: datetime) -> datetime:
    """When the next digest is due: in the morning, of Monday or of the first where it is of a week or month."""
    due = datetime.combine(now.date(), time(MORNING), now.tzinfo)
    while due <= now or not _is_of(summary, due):
        due += timedelta(days=1)
    return due


def last_summary(summary: Summary, now: datetime) -> datetime:
    """When the one before that was due."""
    due = datetime.combine(now.date(), time(MORNING), now.tzinfo)
    while due > now or not _is_of(summary, due):
        due -= timedelta(days=1)
    return due


def _is_of(summary: Summary, due: datetime) -> bool:
    return (summary is not Summary.WEEKLY or due.weekday() == 0) and (summary is not Summary.MONTHLY or due.day == 1)


def _hold(channel: Channel) -> None:
    """Keep it as it is now until the transaction ends: other changes, and its deletion, wait."""
    members.lock(channel.workspace_id)
    now = select(Channel).where(Channel.id == channel.id).with_for_update()
    if db.session.execute(now.execution_options(populate_existing=True)).scalar_one_or_none() is None:
        raise Refused("The channel was deleted meanwhile.")


def _set(channel: Channel, options: Options) -> None:
    channel.topics = [str(topic) for topic in options.topics]
    channel.quiet_from, channel.quiet_to = options.quiet_from, options.quiet_to
    channel.alerts_daily = options.alerts_daily
    if channel.summary != options.summary:
        channel.summary = options.summary
        channel.summary_at = next_summary(options.summary, utc_now()) if options.summary else None


def _seal(channel: Channel, config: Mapping[str, str]) -> None:
    sealed = vault.encrypt(json.dumps(dict(config)), keyring.of_channel(channel.id))
    channel.config_ciphertext, channel.config_encryption_id = sealed.ciphertext, sealed.key_id
    channel.shown = KINDS[channel.kind].shown(config)


def _opened_or_empty(channel: Channel) -> dict[str, str]:
    try:
        return opened(channel)
    except VaultError:
        return {}


def _called(channel: Channel) -> str:
    return f"{channel.name} ({KINDS[channel.kind].label})"
