"""The read side of integrations: the live cards, and the page of one. Unknown is never shown as zero."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, case, false, func, or_, select

from grafient import coverage, evidence, reconciliation, restatements
from grafient.days import Period, last_due
from grafient.extensions import db, providers
from grafient.models import ApiKey, CoveredDay, Integration, SyncRun, utc_now
from grafient.query import Query, within
from grafient.reconciliation import Verdict
from grafient.restatements import RestatedDay
from grafient.states import OPEN, DayState, Problem, RunStatus, Stage, Trigger


class CardState(StrEnum):
    """What a person reads on a card."""

    BACKFILLING = "Backfilling"
    SYNCING = "Syncing"
    UP_TO_DATE = "Up to date"
    NO_USAGE = "No usage yet"
    RETRYING = "Retrying"
    NEEDS_KEY = "Needs a new key"
    KEY_UNREADABLE = "Key can't be read"
    API_CHANGED = "Provider changed its API"
    PAUSED = "Paused"
    OVERDUE = "Overdue"


class Tone(StrEnum):
    """How a state is coloured."""

    GOOD = "good"
    BUSY = "busy"
    WARN = "warn"
    BAD = "bad"


CARDS_A_PAGE = 50
HISTORY_ROWS = 50
CALENDAR_DAYS = 366
WINDOW_DAYS = 30
ALARM_DAYS = 7
OVERDUE_AFTER = timedelta(hours=26)
"""After the last successful sync: a day, and two hours for a sync that is slow or tried again."""

ASK_SECONDS = 2
"""How often a card asks how far a sync is."""


@dataclass(frozen=True)
class Alarm:
    """Missing days that are about to leave the provider's window: how many, the first, until when it can be read in
    full, and whether analytics would still have it per model afterwards."""

    days: int
    first: date
    until: date
    later_per_model: bool


@dataclass(frozen=True)
class Brought:
    """What the last successful sync brought: days that it settled and what they cost, settled days that
    it changed and by how much, and by how much what is known of unsettled days, such as today so far, grew.
    ``first``: whether it was the first one, which brings the history."""

    first: bool
    days_settled: int
    settled_usd: Decimal
    days_restated: int
    restated_usd: Decimal
    provisional_usd: Decimal

    @property
    def is_nothing(self) -> bool:
        return not (self.days_settled or self.days_restated or self.provisional_usd)


@dataclass(frozen=True)
class Card:
    """An integration's live status.

    ``detail`` says what happened and what to do; ``since`` when it began. ``busy``: something is under way or waits.
    ``ask_after``: in how many seconds something can have changed, so that the card should ask again; None if only a
    person or the clock at 06:00 UTC can change anything.
    """

    id: int
    label: str
    provider: str
    provider_name: str
    key_url: str
    key_hint: str
    key_expires_at: datetime | None
    state: CardState
    tone: Tone
    detail: str
    since: datetime | None
    next_attempt_at: datetime | None
    last_success_at: datetime | None
    first_day: date | None
    last_day: date | None
    days_covered: int
    stage: Stage | None
    steps_done: int | None
    steps_asked: int | None
    """How far the sync under way is: its stage (see SyncRun), and days or keys done of those asked for."""
    alarm: Alarm | None
    no_history: str | None
    busy: bool
    waits: bool
    """Whether it is to be tried again, at ``next_attempt_at``."""
    ask_after: int | None
    paused: bool
    brought: Brought | None
    verdict: Verdict
    """What the last 30 days that are due are worth."""

    @property
    def counts_steps(self) -> bool:
        """Whether it is known how much the sync's stage still has to read."""
        return bool(self.steps_asked) and self.stage in (Stage.HISTORY, Stage.KEYS)


class Earlier(NamedTuple):
    """So many days, from ``first`` to ``last``; there can be others in between."""

    days: int
    first: date
    last: date


@dataclass(frozen=True)
class IntegrationPage:
    """One integration: its card, the state of each recent day (oldest first), its syncs and restatements."""

    card: Card
    calendar: Sequence[tuple[date, DayState]]
    runs: Sequence[SyncRun]
    earlier: Mapping[int, Earlier]
    """The days before the provider's window that a run read, by its id, where there are any."""
    replies: Mapping[int, int]
    """How many raw replies are kept of a run, by its id."""
    restatements: Sequence[RestatedDay]
    keys: int
    keys_unread: int
    """How many of these have not been read yet; what they spent is not known as theirs."""
    no_keys: str | None
    no_credits: str | None

    @property
    def settled_days(self) -> int:
        """How many days of the calendar are settled."""
        return sum(state.is_settled for _, state in self.calendar)

    @property
    def completed_days(self) -> int:
        """How many days of the calendar are over; its last is today."""
        return len(self.calendar) - 1

    def count(self, state: DayState) -> int:
        """How many days of the calendar are in a state."""
        return sum(one == state for _, one in self.calendar)


@dataclass(frozen=True)
class CardsPage:
    """Some of a workspace's cards: those that need a person first, then first syncs under way, then by label.

    ``found`` of the integrations that ``there_are`` match what was searched; ``page`` (from 1 on) of ``pages`` has some
    of these.
    """

    cards: Sequence[Card]
    page: int
    pages: int
    found: int
    there_are: int

    @property
    def first(self) -> int:
        """Which of those found the first card is, from 1 on."""
        return (self.page - 1) * CARDS_A_PAGE + 1


def cards(workspace_id: int, page: int = 1, label: str = "") -> CardsPage:
    """One page of a workspace's cards, with ``label`` in theirs. After the last page there is the last one again."""
    urgency = _urgency(utc_now())
    found = Integration.label.icontains(label, autoescape=True) if label else ~false()
    mine = Integration.workspace_id == workspace_id, Integration.removed_at.is_(None)
    open_run = and_(SyncRun.integration_id == Integration.id, SyncRun.status.in_(OPEN))
    counts = select(func.count(), func.count(case((found, 1)))).select_from(Integration).where(*mine)
    there_are, matching = db.session.execute(counts).one()
    pages = max(1, math.ceil(matching / CARDS_A_PAGE))
    page = min(page, pages)
    chosen = select(Integration).outerjoin(SyncRun, open_run).where(*mine, found)
    chosen = chosen.order_by(urgency, func.lower(Integration.label), Integration.label, Integration.id)
    chosen = chosen.limit(CARDS_A_PAGE).offset((page - 1) * CARDS_A_PAGE)
    shown = _cards(list(db.session.execute(chosen).scalars()))
    return CardsPage(shown, page, pages, matching, there_are)


def _urgency(now: datetime) -> ColumnElement[int]:
    """The order of cards, by what ``_status`` says of them, for the database; SyncRun is the open run, if any."""
    wanted_at = case((SyncRun.status == RunStatus.RUNNING, SyncRun.lease_until), else_=SyncRun.next_attempt_at)
    retries = and_(SyncRun.status == RunStatus.DUE, SyncRun.attempt > 0)
    first = or_(SyncRun.trigger == Trigger.BACKFILL, Integration.last_success_at.is_(None))
    overdue = or_(Integration.last_success_at.is_(None), Integration.last_success_at < now - OVERDUE_AFTER)
    return case(
        (or_(retries, wanted_at < now - UNATTENDED_AFTER), 2),
        (and_(SyncRun.id.is_not(None), first), 4),
        (SyncRun.id.is_not(None), 5),
        (Integration.problem.in_((Problem.NEEDS_KEY, Problem.KEY_UNREADABLE)), 0),
        (Integration.problem == Problem.API_CHANGED, 1),
        (Integration.paused_at.is_not(None), 3),
        (or_(overdue, Integration.problem == Problem.FAULT), 2),
        else_=5,
    )


def some_cards(workspace_id: int, ids: Sequence[int]) -> list[Card]:
    """The cards of these integrations of a workspace, those that there are."""
    statement = select(Integration).where(Integration.workspace_id == workspace_id, Integration.removed_at.is_(None))
    return _cards(list(db.session.execute(statement.where(Integration.id.in_(ids)).order_by(Integration.id)).scalars()))


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
            SyncRun.status.in_(OPEN),
        )
    )
    return db.session.execute(statement.limit(1)).first() is not None


def _cards(integrations: list[Integration]) -> list[Card]:
    ids = [i.id for i in integrations]
    open_runs = {
        run.integration_id: run
        for run in db.session.execute(
            select(SyncRun).where(SyncRun.integration_id.in_(ids), SyncRun.status.in_(OPEN))
        ).scalars()
    }
    missing, brought = missing_soon(ids), _brought(ids)
    days = {
        row.integration_id: row
        for row in db.session.execute(
            select(
                CoveredDay.integration_id,
                func.count().label("days"),
                func.sum(case((CoveredDay.state == DayState.NO_USAGE, 1), else_=0)).label("empty"),
                func.min(CoveredDay.day).label("first"),
                func.max(CoveredDay.day).label("last"),
            )
            .where(CoveredDay.integration_id.in_(ids), CoveredDay.state != DayState.PROVISIONAL)
            .group_by(CoveredDay.integration_id)
        )
    }
    verdicts = _verdicts(integrations)
    return [
        _card(i, open_runs.get(i.id), days.get(i.id), missing.get(i.id, []), brought.get(i.id), verdicts[i.id])
        for i in integrations
    ]


def _verdicts(integrations: Sequence[Integration]) -> dict[int, Verdict]:
    """What the last 30 days of each are worth; all are of one workspace."""
    if not integrations:
        return {}
    ids = tuple(one.id for one in integrations)
    lately = Query(integrations[0].workspace_id, Period.latest(WINDOW_DAYS, utc_now()), ids)
    return reconciliation.verdicts(coverage.load(lately, integrations))


def _brought(ids: Sequence[int]) -> dict[int, Brought]:
    """What the last successful sync of each integration brought, where that is known."""
    latest = select(func.max(SyncRun.id)).where(SyncRun.integration_id.in_(ids), SyncRun.status == RunStatus.DONE)
    query = select(SyncRun).where(SyncRun.id.in_(latest.group_by(SyncRun.integration_id)))
    nothing = Decimal(0)
    return {
        run.integration_id: Brought(
            run.trigger == Trigger.BACKFILL,
            run.days_settled,
            run.settled_usd or nothing,
            run.days_restated or 0,
            run.restated_usd or nothing,
            run.provisional_usd or nothing,
        )
        for run in db.session.execute(query).scalars()
        if run.days_settled is not None
    }


def missing_soon(ids: Sequence[int]) -> dict[int, list[date]]:
    """By integration, the days in the window's last week that are not settled, the first to go first."""
    if not ids:
        return {}
    window = soon()
    query = select(CoveredDay.integration_id, CoveredDay.day).where(
        CoveredDay.integration_id.in_(ids), within(CoveredDay.day, window), CoveredDay.state != DayState.PROVISIONAL
    )
    settled = {(row[0], row[1]) for row in db.session.execute(query)}
    return {i: [day for day in window if (i, day) not in settled] for i in ids}


def in_reach() -> Period:
    """The days that should have been read by now and that a sync can still read."""
    now = utc_now()
    return Period(now.date() - timedelta(days=WINDOW_DAYS), last_due(now))


def soon() -> Period:
    """The days that OpenRouter's window, the shortest there is, loses within a week."""
    first = in_reach().first
    return Period(first, first + timedelta(days=ALARM_DAYS - 1))


def _alarm(integration: Integration, missing: Sequence[date], run: SyncRun | None) -> Alarm | None:
    """None while a first attempt may yet bring them."""
    if not missing or (run is not None and run.attempt == 0):
        return None
    return alarm_of(integration.provider, missing, per_model=integration.no_history is None)


def alarm_of(provider: str, missing: Sequence[date], *, per_model: bool) -> Alarm:
    """What to say of these missing days, in order; ``per_model``: whether analytics would still have them."""
    until = missing[0] + timedelta(days=providers[provider].window_days)
    return Alarm(len(missing), missing[0], until, per_model)


def _card(
    integration: Integration,
    run: SyncRun | None,
    days: Any,
    missing: Sequence[date],
    brought: Brought | None,
    verdict: Verdict,
) -> Card:
    provider, now = providers[integration.provider], utc_now()
    state, tone, detail, since = _status(integration, run, days, now)
    waits = run is not None and run.status == RunStatus.DUE and run.attempt > 0
    return Card(
        id=integration.id,
        label=integration.label,
        provider=integration.provider,
        provider_name=provider.name,
        key_url=provider.key_url,
        key_hint=integration.key_hint,
        key_expires_at=integration.key_expires_at,
        state=state,
        tone=tone,
        detail=detail,
        since=since,
        next_attempt_at=run.next_attempt_at if run is not None and waits else None,
        last_success_at=integration.last_success_at,
        first_day=days.first if days else None,
        last_day=days.last if days else None,
        days_covered=days.days if days else 0,
        stage=run.stage if run is not None and run.status == RunStatus.RUNNING else None,
        steps_done=run.steps_done if run is not None else None,
        steps_asked=run.steps_asked if run is not None else None,
        alarm=_alarm(integration, missing, run),
        no_history=integration.no_history,
        busy=run is not None,
        waits=waits,
        ask_after=None if run is None else _ask_after(run, waits, now),
        paused=integration.paused_at is not None,
        brought=brought,
        verdict=verdict,
    )


def _ask_after(run: SyncRun, waits: bool, now: datetime) -> int:
    """Nothing changes before the next try, which can be a day away: a provider may ask for so long a pause. A card that
    asked every 2 seconds all the while sent 43,200 requests for the same answer."""
    if not waits:
        return ASK_SECONDS
    return max(ASK_SECONDS, math.ceil((run.next_attempt_at - now).total_seconds()) + 1)


_Status = tuple[CardState, Tone, str, datetime | None]


def _status(integration: Integration, run: SyncRun | None, days: Any, now: datetime) -> _Status:
    """State, tone, what happened and what to do, and since when."""
    if run is not None:
        return _open_status(integration, run, now)
    detail, since = integration.problem_detail or "", integration.problem_since
    if integration.problem == Problem.NEEDS_KEY:
        what_to_do = f"Paste a new {providers[integration.provider].key_name}."
        return CardState.NEEDS_KEY, Tone.BAD, f"{detail} {what_to_do}", since
    if integration.problem == Problem.KEY_UNREADABLE:
        what_to_do = f"Or paste the {providers[integration.provider].key_name} again."
        return CardState.KEY_UNREADABLE, Tone.BAD, f"{detail} {what_to_do}", since
    if integration.problem == Problem.API_CHANGED:
        return CardState.API_CHANGED, Tone.BAD, f"{detail} Nothing that is stored was changed.", since
    if integration.paused_at is not None:
        return CardState.PAUSED, Tone.WARN, "There are no daily syncs until you resume it.", integration.paused_at
    if integration.problem == Problem.FAULT:
        return CardState.RETRYING, Tone.WARN, f"{detail} The next daily sync tries again.", since
    last = integration.last_success_at
    if last is None or now - last > OVERDUE_AFTER:
        what = f"There has been no successful sync for more than a day. {_NO_WORKER}"
        return CardState.OVERDUE, Tone.BAD, what, last or integration.created_at
    if days is None or days.days == days.empty:
        return CardState.NO_USAGE, Tone.GOOD, "Today's usage appears tomorrow, after 06:00 UTC.", last
    return CardState.UP_TO_DATE, Tone.GOOD, detail, last


def _open_status(integration: Integration, run: SyncRun, now: datetime) -> _Status:
    """The same while a sync is under way, or waits."""
    wanted_at = run.lease_until if run.status == RunStatus.RUNNING else run.next_attempt_at
    unattended = f"This sync is overdue. {_NO_WORKER}" if wanted_at and now - wanted_at > UNATTENDED_AFTER else ""
    if run.status == RunStatus.DUE and run.attempt > 0:
        detail = f"{integration.problem_detail or ''} {unattended}".strip()
        return CardState.RETRYING, Tone.WARN, detail, integration.problem_since
    first = run.trigger == Trigger.BACKFILL or integration.last_success_at is None
    state = CardState.BACKFILLING if first else CardState.SYNCING
    return state, Tone.BUSY, unattended, run.started_at or run.created_at


UNATTENDED_AFTER = timedelta(minutes=2)
"""After a sync was due, or its worker's lease ended: workers take what is due within seconds."""

_NO_WORKER = "Is a worker running? The page /readyz says what is missing."


def integration_page(integration: Integration) -> IntegrationPage:
    """One integration's card, calendar, syncs and restatements, the latest of each."""
    today = utc_now().date()
    period = Period(today - timedelta(days=CALENDAR_DAYS - 1), today)
    covered = select(CoveredDay.day, CoveredDay.state).where(
        CoveredDay.integration_id == integration.id, within(CoveredDay.day, period)
    )
    states = {row.day: row.state for row in db.session.execute(covered)}
    history = select(SyncRun).where(SyncRun.integration_id == integration.id).order_by(SyncRun.id.desc())
    runs = list(db.session.execute(history.limit(HISTORY_ROWS)).scalars())
    unread = case((ApiKey.read_at.is_(None) & ApiKey.gone_at.is_(None), 1))
    count_keys = select(func.count(), func.count(unread)).where(ApiKey.integration_id == integration.id)
    keys, keys_unread = db.session.execute(count_keys).one()
    return IntegrationPage(
        card=card(integration),
        calendar=[(day, states.get(day, DayState.MISSING)) for day in period],
        runs=runs,
        earlier=_earlier(integration.id, runs),
        replies=evidence.counts([run.id for run in runs]),
        restatements=restatements.restated_days([integration.id], HISTORY_ROWS),
        keys=keys,
        keys_unread=keys_unread,
        no_keys=integration.no_keys,
        no_credits=integration.no_credits,
    )


def _earlier(integration_id: int, runs: Sequence[SyncRun]) -> dict[int, Earlier]:
    """The days before the window that each run read. These are read once, so a day belongs to the run it came with."""
    before = [
        and_(CoveredDay.first_run_id == run.id, CoveredDay.day < run.first_day)
        for run in runs
        if run.first_day is not None
    ]
    if not before:
        return {}
    query = (
        select(CoveredDay.first_run_id, func.count(), func.min(CoveredDay.day), func.max(CoveredDay.day))
        .where(CoveredDay.integration_id == integration_id, or_(*before))
        .group_by(CoveredDay.first_run_id)
    )
    return {row[0]: Earlier(row[1], row[2], row[3]) for row in db.session.execute(query)}
