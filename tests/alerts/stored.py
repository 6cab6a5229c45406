"""Rows of alerts that are there without anything having happened."""

from __future__ import annotations

from decimal import Decimal

from grafient.alerts.channels import store
from grafient.extensions import db
from grafient.models import (
    AlertRule,
    AlertWatch,
    Budget,
    Delivery,
    DeliveryEvent,
    Incident,
    IncidentEvent,
    JudgedDays,
    utc_now,
)
from grafient.states import AlertKind, BudgetPeriod, ChannelKind, Happened, Sending


def one_of_each(workspace_id: int, integration_id: int, name: str = "") -> None:
    """A row in each table of alerts. Commits."""
    now = utc_now()
    channel, _ = store.create(
        workspace_id, ChannelKind.WEBHOOK, name, {"url": "https://hooks.example.com/s3cr3t"}, store.Options()
    )
    budget = Budget(
        workspace_id=workspace_id, name=name or "All", amount_usd=Decimal(100), period=BudgetPeriod.MONTH, filters={},
        actual=[100], forecast=[],
    )  # fmt: skip
    event = IncidentEvent(what=Happened.OPENED, at=now, facts={}, marks=[])
    incident = Incident(
        workspace_id=workspace_id, kind=AlertKind.NO_SYNC, subject=f"integration {integration_id}", facts={}, marks=[],
        integration_id=integration_id, opened_at=now, told_at=now, events=[event],
    )  # fmt: skip
    delivery = Delivery(
        channel_id=channel.id, uid=f"msg_{channel.id}", sending=Sending.ALERTS, about={}, due_at=now, title=name
    )
    rule = AlertRule(workspace_id=workspace_id, kind=AlertKind.TODAY, is_on=False, settings={})
    watch = AlertWatch(workspace_id=workspace_id, next_at=now)
    judged = JudgedDays(integration_id=integration_id, through=now.date())
    db.session.add_all([budget, incident, delivery, rule, watch, judged])
    db.session.flush()
    db.session.add(DeliveryEvent(delivery_id=delivery.id, event_id=event.id))
    db.session.commit()
