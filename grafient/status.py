"""The read side of integrations: the live cards, and the page of one. Unknown is never shown as zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import case, func, select

from grafient.extensions import db, providers
from grafient.models import CoveredDay, Integration, Restatement, SyncRun, utc_now
from grafient.money import usd_sum
from grafient.periods import Period

HISTORY_ROWS = 50
CALENDAR_DAYS = 91
OVERDUE_AFTER = timedelta(hours=26)


@dataclass(frozen=True)
class Card:
    """An integration's live status.

    ``state`` is one of the words a person reads (``Up to date``, ``Retrying``, ...); ``tone`` is ``good``,
    ``busy``, ``warn`` or ``bad``; ``detail`` says what happened and what to do; ``since`` when it began.
    ``busy``: something is under way, so the card asks again.
    """

    id: int
    label: str
    provider: str
    provider_name: str
    key_url: str
    key_hint: str
    state: str
    tone: str
    detail: str
    since: datetime | None
    next_attempt_at: datetime | None
    last_success_at: datetime | None
    first_day: date | None
    last_day: date | None
    days_covered: int
    busy: bool
    paused: bool


@dataclass(frozen=True)
class RestatedDay:
    """A UTC day that a sync changed: its USD before and after, over the lines that changed."""

    day: date
    changed_at: datetime
    run_id: int
    lines: int
    before_usd: Decimal
    after_usd: Decimal


@dataclass(frozen=True)
class IntegrationPage:
    """One integration: its card, the state of each recent day (oldest first), its syncs and restatements."""

    card: Card
    calendar: Sequence[tuple[date, str]]
    runs: Sequence[SyncRun]
    restatements: Sequence[RestatedDay]


def cards(workspace_id: int) -> list[Card]:
    """The cards of all integrations, in the order in which they were added."""
    statement = select(Integration).where(Integration.workspace_id == workspace_id, Integration.removed_at.is_(None))
    return _cards(list(db.session.execute(statement.order_by(Integration.id)).scalars()))


def card(integration: Integration) -> Card:
    """The card of one integration, as it is now."""
    return _cards([integration])[0]


def backfilling(workspace_id: int) -> bool:
    """Whether a first sync is under way, so that a page without figures will have some soon."""
    statement = (
        select(SyncRun.id)
        .join(Integration)
        .where(
            Integration.workspace_id == workspace_id,
            Integration.last_success_at.is_(None),
            Integration.removed_at.is_(None),
            SyncRun.status.in_(("due", "running")),
        )
    )
    return db.session.execute(statement.limit(1)).first() is not None


def _cards(integrations: list[Integration]) -> list[Card]:
    ids = [i.id for i in integrations]
    open_runs = {
        run.integration_id: run
        for run in db.session.execute(
            select(SyncRun).where(SyncRun.integration_id.in_(ids), SyncRun.status.in_(("due", "running")))
        ).scalars()
    }
    days = {
        row.integration_id: row
        for row in db.session.execute(
            select(
                CoveredDay.integration_id,
                func.count().label("days"),
                func.sum(case((CoveredDay.state == "no_usage", 1), else_=0)).label("empty"),
                func.min(CoveredDay.day).label("first"),
                func.max(CoveredDay.day).label("last"),
            )
            .where(CoveredDay.integration_id.in_(ids))
            .group_by(CoveredDay.integration_id)
        )
    }
    return [_card(i, open_runs.get(i.id), days.get(i.id)) for i in integrations]


def _card(integration: Integration, run: SyncRun | None, days: Any) -> Card:
    provider = providers[integration.provider]
    state, tone, detail, since = _status(integration, run, days, utc_now())
    waits = run is not None and run.status == "due" and run.attempt > 0
    return Card(
        id=integration.id,
        label=integration.label,
        provider=integration.provider,
        provider_name=provider.name,
        key_url=provider.key_url,
        key_hint=integration.key_hint,
        state=state,
        tone=tone,
        detail=detail,
        since=since,
        next_attempt_at=run.next_attempt_at if run is not None and waits else None,
        last_success_at=integration.last_success_at,
        first_day=days.first if days else None,
        last_day=days.last if days else None,
        days_covered=days.days if days else 0,
        busy=run is not None,
        paused=integration.paused_at is not None,
    )


def _status(
    integration: Integration, run: SyncRun | None, days: Any, now: datetime
) -> tuple[str, str, str, datetime | None]:
    """State, tone, what happened and what to do, and since when."""
    detail, since = integration.problem_detail or "", integration.problem_since
    if run is not None:
        wanted_at = run.lease_until if run.status == "running" else run.next_attempt_at
        unattended = f" {_NO_WORKER}" if wanted_at and now - wanted_at > timedelta(minutes=2) else ""
        if run.status == "due" and run.attempt > 0:
            return "Retrying", "warn", detail + unattended, since
        state = "Syncing" if integration.last_success_at else "Backfilling"
        return state, "busy", unattended.strip(), run.started_at or run.created_at
    if integration.problem == "needs_key":
        return (
            "Needs a new key",
            "bad",
            f"{detail} Paste a new {providers[integration.provider].key_name}.",
            since,
        )
    if integration.problem == "api_changed":
        return "Provider changed its API", "bad", f"{detail} What is stored was left as it is.", since
    if integration.paused_at is not None:
        return "Paused", "warn", "Nothing is read until you resume it.", integration.paused_at
    last = integration.last_success_at
    if last is None or now - last > OVERDUE_AFTER:
        return "Overdue", "bad", f"No sync has come through for a day. {_NO_WORKER}", last or integration.created_at
    if days is None or days.days == days.empty:
        return "No usage yet", "good", "Today's usage appears tomorrow, after 06:00 UTC.", last
    return "Up to date", "good", detail, last


_NO_WORKER = "It is overdue. Is a worker running? The page /readyz says what is missing."


def integration_page(integration: Integration) -> IntegrationPage:
    """One integration's card, calendar, syncs and restatements, the latest of each."""
    period = Period.latest(CALENDAR_DAYS)
    covered = select(CoveredDay.day, CoveredDay.state).where(
        CoveredDay.integration_id == integration.id, period.holds(CoveredDay.day)
    )
    states = {row.day: row.state for row in db.session.execute(covered)}
    history = select(SyncRun).where(SyncRun.integration_id == integration.id).order_by(SyncRun.id.desc())
    return IntegrationPage(
        card=card(integration),
        calendar=[(day, states.get(day, "missing")) for day in period],
        runs=list(db.session.execute(history.limit(HISTORY_ROWS)).scalars()),
        restatements=_restated_days(integration.id),
    )


def _restated_days(integration_id: int) -> list[RestatedDay]:
    rows = db.session.execute(
        select(
            Restatement.day,
            Restatement.run_id,
            func.max(Restatement.changed_at, type_=Restatement.changed_at.type).label("changed_at"),
            func.count().label("lines"),
            usd_sum(Restatement.usage_before_usd).label("before"),
            usd_sum(Restatement.usage_after_usd).label("after"),
        )
        .where(Restatement.integration_id == integration_id)
        .group_by(Restatement.day, Restatement.run_id)
        .order_by(Restatement.run_id.desc(), Restatement.day.desc())
        .limit(HISTORY_ROWS)
    )
    nothing = Decimal(0)
    return [
        RestatedDay(row.day, row.changed_at, row.run_id, row.lines, row.before or nothing, row.after or nothing)
        for row in rows
    ]
