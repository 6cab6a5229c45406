"""The read side of integrations: the live cards, and the page of one. Unknown is never shown as zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import and_, case, func, select

from grafient import database, evidence, reconciliation, reports
from grafient.extensions import db, providers
from grafient.models import ApiKey, CoveredDay, Integration, Restatement, RestatementSeen, SyncRun, utc_now
from grafient.money import usd_sum
from grafient.periods import Period
from grafient.reconciliation import Verdict
from grafient.reports import RestatedDay

HISTORY_ROWS = 50
CALENDAR_DAYS = 366
WINDOW_DAYS = 30
ALARM_DAYS = 7
OVERDUE_AFTER = timedelta(hours=26)


@dataclass(frozen=True)
class Alarm:
    """Missing days that are about to leave the provider's window: how many, the first, until when it can be had whole,
    and whether analytics would still tell of it per model afterwards."""

    days: int
    first: date
    until: date
    later_per_model: bool


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
    stage: str | None
    steps_done: int | None
    steps_asked: int | None
    """How far the sync under way is: its stage (see SyncRun), and days or keys done of those asked for."""
    alarm: Alarm | None
    no_history: str | None
    busy: bool
    paused: bool


@dataclass(frozen=True)
class IntegrationPage:
    """One integration: its card, the state of each recent day (oldest first), its syncs and restatements."""

    card: Card
    calendar: Sequence[tuple[date, str]]
    runs: Sequence[SyncRun]
    replies: Mapping[int, int]
    """How many raw replies are kept of a run, by its id."""
    restatements: Sequence[RestatedDay]
    verdict: Verdict
    """What the last 30 completed days are worth."""
    keys: int
    no_keys: str | None
    no_credits: str | None


@dataclass(frozen=True)
class Unseen:
    """Days of an integration that changed since a user last looked, and by how much in USD, all together."""

    integration_id: int
    label: str
    days: int
    change_usd: Decimal


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
    missing = _missing_soon(ids)
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
            .where(CoveredDay.integration_id.in_(ids), CoveredDay.state != "provisional")
            .group_by(CoveredDay.integration_id)
        )
    }
    return [_card(i, open_runs.get(i.id), days.get(i.id), missing.get(i.id, [])) for i in integrations]


def _missing_soon(ids: Sequence[int]) -> dict[int, list[date]]:
    """By integration, the days in the window's last week that are not settled, the first to go first."""
    soon = _soon()
    query = select(CoveredDay.integration_id, CoveredDay.day).where(
        CoveredDay.integration_id.in_(ids), soon.holds(CoveredDay.day), CoveredDay.state != "provisional"
    )
    settled = {(row[0], row[1]) for row in db.session.execute(query)}
    return {i: [day for day in soon if (i, day) not in settled] for i in ids}


def _soon() -> Period:
    """The days that OpenRouter's window, the shortest there is, loses within a week."""
    today = utc_now().date()
    return Period(today - timedelta(days=WINDOW_DAYS), today - timedelta(days=WINDOW_DAYS - ALARM_DAYS + 1))


def _alarm(integration: Integration, missing: Sequence[date], run: SyncRun | None) -> Alarm | None:
    """None while a first attempt may yet bring them."""
    if not missing or (run is not None and run.attempt == 0):
        return None
    until = missing[0] + timedelta(days=providers[integration.provider].window_days)
    return Alarm(len(missing), missing[0], until, integration.no_history is None)


def _card(integration: Integration, run: SyncRun | None, days: Any, missing: Sequence[date]) -> Card:
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
        stage=run.stage if run is not None and run.status == "running" else None,
        steps_done=run.steps_done if run is not None else None,
        steps_asked=run.steps_asked if run is not None else None,
        alarm=_alarm(integration, missing, run),
        no_history=integration.no_history,
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
        state = "Backfilling" if run.trigger == "backfill" or integration.last_success_at is None else "Syncing"
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
    today = utc_now().date()
    period = Period(today - timedelta(days=CALENDAR_DAYS - 1), today)
    covered = select(CoveredDay.day, CoveredDay.state).where(
        CoveredDay.integration_id == integration.id, period.holds(CoveredDay.day)
    )
    states = {row.day: row.state for row in db.session.execute(covered)}
    history = select(SyncRun).where(SyncRun.integration_id == integration.id).order_by(SyncRun.id.desc())
    runs = list(db.session.execute(history.limit(HISTORY_ROWS)).scalars())
    return IntegrationPage(
        card=card(integration),
        calendar=[(day, states.get(day, "missing")) for day in period],
        runs=runs,
        replies=evidence.counts([run.id for run in runs]),
        restatements=reports.restated_days([integration.id], HISTORY_ROWS),
        verdict=reconciliation.verdict([integration], Period.latest(WINDOW_DAYS)),
        keys=db.session.execute(
            select(func.count()).select_from(ApiKey).where(ApiKey.integration_id == integration.id)
        ).scalar_one(),
        no_keys=integration.no_keys,
        no_credits=integration.no_credits,
    )


def unseen(user_id: int, workspace_id: int) -> list[Unseen]:
    """The integrations with days that changed since the user last looked at their pages."""
    seen = func.coalesce(RestatementSeen.restatement_id, 0)
    query = (
        select(
            Integration.id,
            Integration.label,
            func.count(Restatement.day.distinct()),
            usd_sum(Restatement.usage_before_usd),
            usd_sum(Restatement.usage_after_usd),
        )
        .join(Restatement, Restatement.integration_id == Integration.id)
        .outerjoin(
            RestatementSeen,
            and_(RestatementSeen.integration_id == Integration.id, RestatementSeen.user_id == user_id),
        )
        .where(Integration.workspace_id == workspace_id, Integration.removed_at.is_(None), Restatement.id > seen)
        .group_by(Integration.id, Integration.label)
        .order_by(Integration.id)
    )
    nothing = Decimal(0)
    rows = db.session.execute(query)
    return [Unseen(row[0], row[1], row[2], (row[4] or nothing) - (row[3] or nothing)) for row in rows]


def look(user_id: int, integration_id: int) -> None:
    """The user has looked at what changed in an integration so far. Commits if that is news."""
    query = select(func.max(Restatement.id)).where(Restatement.integration_id == integration_id)
    latest = db.session.execute(query).scalar()
    seen = db.session.get(RestatementSeen, (user_id, integration_id))
    if latest is None or (seen is not None and seen.restatement_id == latest):
        return
    db.session.rollback()
    database.reading.set(False)
    db.session.merge(RestatementSeen(user_id=user_id, integration_id=integration_id, restatement_id=latest))
    db.session.commit()
