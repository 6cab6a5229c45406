"""What is watched over, what was found, and who is told: budgets, rules, incidents, channels and deliveries."""

from __future__ import annotations

import secrets
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, LargeBinary, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from grafient.extensions import Base
from grafient.models.columns import Day, UtcDateTime, one_of, utc_now
from grafient.money import SumUsd
from grafient.states import (
    AlertKind,
    BudgetPeriod,
    ChannelKind,
    DeliveryState,
    Happened,
    Sending,
    Summary,
)


class Budget(Base):
    """A sum in USD that each day, week, month, quarter or year is not meant to exceed.

    ``filters``: what it is about, as lists of integration ids (``integration``) and of names (``model``, ``host``,
    ``key``: hashes); an empty list, or none, is all. ``actual`` and ``forecast``: percent of the sum at which somebody
    is told, in order.
    """

    __tablename__ = "budget"

    id: Mapped[int] = mapped_column(primary_key=True)
    workspace_id: Mapped[int] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    amount_usd: Mapped[Decimal] = mapped_column(SumUsd)
    period: Mapped[BudgetPeriod] = mapped_column(one_of(BudgetPeriod))
    filters: Mapped[dict[str, list[Any]]] = mapped_column(JSON)
    byok: Mapped[bool] = mapped_column(default=False)
    actual: Mapped[list[int]] = mapped_column(JSON)
    forecast: Mapped[list[int]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    since: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    """When it was last set: what was so already is no news."""


class AlertRule(Base):
    """A rule of a workspace that is not as it comes, see ``alerts.rules``."""

    __tablename__ = "alert_rule"

    workspace_id: Mapped[int] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[AlertKind] = mapped_column(one_of(AlertKind), primary_key=True)
    is_on: Mapped[bool] = mapped_column(default=True)
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)
    since: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    """When it was last set: what happened before is no news."""


class AlertWatch(Base):
    """How far a workspace has been looked at. ``since``: when that began, and what happened before is no news.

    ``seen``: the sum of its integrations' revisions then; ``next_at``: when time alone may make another look worth
    while. ``turn`` counts the looks: who writes what was found checks that nobody else did since.
    """

    __tablename__ = "alert_watch"

    workspace_id: Mapped[int] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"), primary_key=True)
    since: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    seen: Mapped[int] = mapped_column(BigInteger, default=0)
    next_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    looked_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    turn: Mapped[int] = mapped_column(default=0)


class JudgedDays(Base):
    """Up to which day an integration's days were judged as usual or not; a day is judged once."""

    __tablename__ = "judged_days"

    integration_id: Mapped[int] = mapped_column(ForeignKey("integration.id", ondelete="CASCADE"), primary_key=True)
    through: Mapped[date] = mapped_column(Day)


_OPEN = text("resolved_at IS NULL")


class Incident(Base):
    """Something that somebody should know, from when it was found until it is over.

    ``subject`` tells it from others of its kind, such as the integration and the model it is about; of one subject at
    most one is open. ``marks``: the steps of getting worse that it has taken, such as the thresholds of a budget.
    ``first_day`` and ``last_day``: the UTC days it is about, if it is about days. ``facts``: the figures as they were
    last found, with USD as strings, see ``alerts.wording``.
    """

    __tablename__ = "incident"
    __table_args__ = (
        Index(
            "uq_incident_open",
            "workspace_id",
            "kind",
            "subject",
            unique=True,
            sqlite_where=_OPEN,
            postgresql_where=_OPEN,
        ),
        Index("ix_incident_workspace_id_resolved_at", "workspace_id", "resolved_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    workspace_id: Mapped[int] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"))
    kind: Mapped[AlertKind] = mapped_column(one_of(AlertKind))
    subject: Mapped[str] = mapped_column(String(600))
    integration_id: Mapped[int | None] = mapped_column(ForeignKey("integration.id", ondelete="CASCADE"), index=True)
    budget_id: Mapped[int | None] = mapped_column(ForeignKey("budget.id", ondelete="CASCADE"), index=True)
    facts: Mapped[dict[str, Any]] = mapped_column(JSON)
    marks: Mapped[list[str]] = mapped_column(JSON)
    first_day: Mapped[date | None] = mapped_column(Day)
    last_day: Mapped[date | None] = mapped_column(Day)
    opened_at: Mapped[datetime] = mapped_column(UtcDateTime)
    told_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """When it was last said: opened, worse, or still so."""
    resolved_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    acknowledged_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When somebody said that they know. From then on nobody is reminded of it, unless it gets worse."""
    acknowledged_by: Mapped[str] = mapped_column(String(255), default="")
    snoozed_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Until then nobody is told of it at all; a service that has an alert of its own closes that once it is over."""

    events: Mapped[list[IncidentEvent]] = relationship(
        order_by="IncidentEvent.id", back_populates="incident", cascade="all, delete-orphan", passive_deletes=True
    )


class IncidentEvent(Base):
    """Something that became of an incident, and what there was to say of it then: the facts at that moment."""

    __tablename__ = "incident_event"

    id: Mapped[int] = mapped_column(primary_key=True)
    incident_id: Mapped[int] = mapped_column(ForeignKey("incident.id", ondelete="CASCADE"), index=True)
    what: Mapped[Happened] = mapped_column(one_of(Happened))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    facts: Mapped[dict[str, Any]] = mapped_column(JSON)
    marks: Mapped[list[str]] = mapped_column(JSON)
    """Those that are new with it."""

    incident: Mapped[Incident] = relationship(back_populates="events")


class Channel(Base):
    """Where a workspace's alerts are sent. What lets Grafient in there is sealed, bound to the row's id, and never
    shown again; ``shown`` has what may be, such as a host. Ids are never used twice.

    ``topics``: what it is told of. ``quiet_from`` and ``quiet_to``: hours in UTC between which nothing is sent; what
    happens then is sent at their end. ``alerts_daily``: alerts wait for ``quiet_to``, or 07:00 UTC, and come as one
    message a day. ``summary``: how often a digest is sent, and ``summary_at`` when the next one is due.
    """

    __tablename__ = "channel"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)
    workspace_id: Mapped[int] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"), index=True)
    kind: Mapped[ChannelKind] = mapped_column(one_of(ChannelKind))
    name: Mapped[str] = mapped_column(String(100))
    config_ciphertext: Mapped[bytes | None] = mapped_column(LargeBinary)
    config_encryption_id: Mapped[str | None] = mapped_column(String(32))
    shown: Mapped[dict[str, str]] = mapped_column(JSON)
    topics: Mapped[list[str]] = mapped_column(JSON)
    quiet_from: Mapped[int | None]
    quiet_to: Mapped[int | None]
    alerts_daily: Mapped[bool] = mapped_column(default=False)
    summary: Mapped[Summary | None] = mapped_column(one_of(Summary))
    summary_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    failing_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Since when every try failed; None after one that did not."""
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the other end said that it is gone for good, or somebody turned it off. Nothing is sent."""
    disabled_why: Mapped[str] = mapped_column(Text, default="")


_IS_DUE = "state = 'due'"
_DUE = text(_IS_DUE)
IS_DUE = text(f"delivery.{_IS_DUE}")
"""The condition of the index of deliveries that are due, word for word, see ``IS_OPEN``."""


class Delivery(Base):
    """One message to one channel: what is in it, when it is due, and what became of it. See ``alerts.outbox``.

    ``uid`` is the same for every try, so that the other end can tell a message that comes twice.
    """

    __tablename__ = "delivery"
    __table_args__ = (
        Index("ix_delivery_due_at", "due_at", sqlite_where=_DUE, postgresql_where=_DUE),
        Index("ix_delivery_channel_id", "channel_id", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    channel_id: Mapped[int] = mapped_column(ForeignKey("channel.id", ondelete="CASCADE"))
    uid: Mapped[str] = mapped_column(String(40), unique=True, default=lambda: f"msg_{secrets.token_hex(16)}")
    sending: Mapped[Sending] = mapped_column(one_of(Sending))
    about: Mapped[dict[str, Any]] = mapped_column(JSON)
    """What a digest is of, which other channel fails, or which incidents were deleted and are closed by it, see
    ``alerts.closing``; empty for all other alerts."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """When it is to be sent, or, while somebody sends it, when somebody else may."""
    state: Mapped[DeliveryState] = mapped_column(one_of(DeliveryState), default=DeliveryState.DUE)
    attempts: Mapped[int] = mapped_column(default=0)
    tried_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When it was first tried."""
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    title: Mapped[str] = mapped_column(Text, default="")
    """The message's first line, once it was written."""
    outcome: Mapped[str] = mapped_column(Text, default="")
    """What the last try ended with: a sentence, without anything that the other end said."""


class DeliveryEvent(Base):
    """That a delivery tells of an event."""

    __tablename__ = "delivery_event"

    delivery_id: Mapped[int] = mapped_column(ForeignKey("delivery.id", ondelete="CASCADE"), primary_key=True)
    event_id: Mapped[int] = mapped_column(
        ForeignKey("incident_event.id", ondelete="CASCADE"), primary_key=True, index=True
    )
