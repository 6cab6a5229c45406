"""Integrations, days and lines put into the database by hand, for tests of what pages say about them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal

from sqlalchemy import select

from grafient import attribution, lines, totals
from grafient.alerts.channels import store
from grafient.extensions import db
from grafient.models import (
    UNATTRIBUTED,
    AlertRule,
    AlertWatch,
    ApiKey,
    Budget,
    CostLine,
    CoveredDay,
    DayCheck,
    Delivery,
    DeliveryEvent,
    Incident,
    IncidentEvent,
    Integration,
    JudgedDays,
    Restatement,
    SyncRun,
    Workspace,
)
from grafient.providers import BilledLine
from grafient.states import (
    AlertKind,
    BudgetPeriod,
    ChannelKind,
    DayState,
    Happened,
    RunStatus,
    Sending,
    Source,
    Trigger,
)
from tests.syncing import NOON

TODAY = NOON.date()


def ago(days: int) -> date:
    return TODAY - timedelta(days=days)


def add(workspace: Workspace, label: str, **columns: object) -> Integration:
    integration = Integration(workspace_id=workspace.id, provider="openrouter", label=label, key_hint="abcd", **columns)
    integration.created_at = NOON - timedelta(days=400)
    db.session.add(integration)
    db.session.flush()
    return integration


def cover(
    integration: Integration,
    days: Iterable[date],
    usd: int | None = 10,
    state: DayState = DayState.FINAL,
    source: Source = Source.ACTIVITY,
    key: str = UNATTRIBUTED,
    model: str = "m",
    **measures: object,
) -> None:
    """Days of an integration, each with one line unless it had no usage. All at once: one by one, half a year took a
    second."""
    found = list(days)
    mine = CoveredDay.integration_id == integration.id, CoveredDay.day.in_(found)
    known = {one.day: one for one in db.session.execute(select(CoveredDay).where(*mine)).scalars()}
    for day in found:
        one = known.get(day) or CoveredDay(integration_id=integration.id, day=day)
        one.state, one.source, one.first_run_id, one.changed_at = state, source, 1, NOON
        db.session.add(one)
    if usd is not None:
        put(integration, *(BilledLine(day, model, "e", "h", model, Decimal(usd), **measures) for day in found), key=key)
    db.session.flush()


def restate(
    integration: Integration, day: date, at: datetime, before: str, after: str, model: str = "m"
) -> Restatement:
    """A sync that found another amount for a line than the one before it."""
    run = SyncRun(integration_id=integration.id, trigger=Trigger.MANUAL, status=RunStatus.DONE)
    db.session.add(run)
    db.session.flush()
    found = Restatement(
        integration_id=integration.id,
        run_id=run.id,
        changed_at=at,
        day=day,
        permaslug=model,
        endpoint_id="e",
        host="h",
        usage_before_usd=Decimal(before),
        usage_after_usd=Decimal(after),
    )
    db.session.add(found)
    db.session.flush()
    return found


def put(integration: Integration, *found: BilledLine, key: str = UNATTRIBUTED) -> None:
    """Lines, all of which an API key spent if one is named."""
    db.session.flush()
    numbers, days = lines.ids(integration.id, found), {line.day for line in found}
    lines.replace(integration.id, numbers, [], lines.rows(integration.id, numbers, found))
    totals.clear(integration.id, days)
    whole = lines.stored(integration.id, CostLine.day.in_(days))
    totals.write(integration.id, numbers, lines.rows(integration.id, numbers, whole))
    if key != UNATTRIBUTED:
        owner = key_id(integration, key)
        lines.replace_parts(owner, numbers, [], lines.rows(owner, numbers, found))


def key_id(integration: Integration, key_hash: str) -> int:
    """The id of an API key, which is made if it is not there."""
    mine = ApiKey.integration_id == integration.id, ApiKey.key_hash == key_hash
    found = db.session.execute(select(ApiKey).where(*mine)).scalar_one_or_none()
    if found is None:
        found = ApiKey(integration_id=integration.id, key_hash=key_hash, name=key_hash, disabled=False, read_at=NOON)
        db.session.add(found)
        db.session.flush()
    return found.id


KeyLine = attribution.by_key(select(Integration.id)).c
"""What each key spent of each line, and the rest, of all integrations."""


def told_of_something(workspace_id: int, integration_id: int, name: str = "Everything") -> Incident:
    """A budget, a rule that somebody set, an open incident of an account that was looked at, and a channel that was
    told of it. Commits."""
    budget = Budget(
        workspace_id=workspace_id,
        name=name,
        amount_usd=Decimal(300),
        period=BudgetPeriod.MONTH,
        filters={},
        byok=False,
        actual=[100],
        forecast=[],
    )
    db.session.add(budget)
    db.session.flush()
    incident = Incident(
        workspace_id=workspace_id,
        integration_id=integration_id,
        budget_id=budget.id,
        kind=AlertKind.NO_SYNC,
        subject=str(integration_id),
        facts={"label": name, "since": "2026-11-20T06:01:00+00:00"},
        marks=[],
        opened_at=NOON,
        told_at=NOON,
    )
    incident.events = [IncidentEvent(what=Happened.OPENED, at=NOON, facts=incident.facts, marks=[])]
    rule = AlertRule(workspace_id=workspace_id, kind=AlertKind.NEW, is_on=False, settings={})
    db.session.merge(AlertWatch(workspace_id=workspace_id, next_at=NOON))  # it was looked at if it was read
    db.session.merge(JudgedDays(integration_id=integration_id, through=ago(1)))
    db.session.add_all([incident, rule])
    entered = {"url": "https://hooks.example.com/s3cr3t"}
    channel, _ = store.create(workspace_id, ChannelKind.WEBHOOK, name, entered, store.Options())
    uid = f"delivery {incident.id}"
    delivery = Delivery(channel_id=channel.id, uid=uid, sending=Sending.ALERTS, about={}, due_at=NOON)
    db.session.add(delivery)
    db.session.flush()
    db.session.add(DeliveryEvent(delivery_id=delivery.id, event_id=incident.events[0].id))
    db.session.commit()
    return incident


def check(integration: Integration, days: Iterable[date], usd: int = 10) -> None:
    """What analytics says of days."""
    for day in days:
        db.session.add(DayCheck(integration_id=integration.id, day=day, analytics_usd=Decimal(usd), checked_at=NOON))
    db.session.flush()
