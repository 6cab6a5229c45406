"""What a sync reads, in stages that commit what they read.

First the costs of the recent days, which decide whether the sync succeeded. All else is optional. The account's
credits, analytics (a second count of each day, and today so far) and the list of API keys don't need each other: they
are asked for side by side and written together, in a daily sync with the costs. For a quiet account that is all. Then
come the days before the window that are not known yet, and what each key spent. What the provider does not offer there
is noted on the integration; what fails is tried again with the next attempt. No transaction is open while a provider is
asked.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import bindparam, func, select

from grafient import attribution, ledger, reconciliation, runs
from grafient.days import ONE_DAY, Period, span
from grafient.extensions import db
from grafient.ledger import Recorded
from grafient.models import CoveredDay, Integration, SyncRun, Workspace, utc_now
from grafient.money import LIMIT_USD
from grafient.plans import PLANS
from grafient.providers import Activity, Credits, KeyList, NotOffered, ProviderError, UnexpectedResponse, Unreachable
from grafient.runs import Claimed
from grafient.states import DayState, Source, Stage, Trigger
from grafient.sync.hold import Hold

MOST_SECONDS = 20 * 60
"""After this long a sync leaves the rest to the next one."""

HISTORY_CHUNK = 170
"""Days of history in one request. Two requests reach a year back; where a reply can't hold so many, it has fewer."""

SCOPES_LAST = timedelta(days=7)

COMMIT_SECONDS = 5.0
"""How often what single keys spent is committed."""

_SILENT = "The reply was empty although usage is stored for its days. Nothing that is stored was changed."
_NO_TIME = "There was more to read than one sync may take; the next one goes on."


@dataclass
class Window:
    """The reply about the recent days. ``today``: the UTC day it is at the provider.

    ``stop_at``: when, by the monotonic clock, the sync should leave the rest to the next one. ``scopes``: where to look
    for API keys, if that need not be asked. ``is_whole``: the reply was not an empty one for days whose usage is
    stored; known once it is recorded. ``is_stored``: whether it is committed.
    """

    activity: Activity
    today: date
    asked_at: datetime
    stop_at: float
    scopes: Sequence[str]
    is_whole: bool = True
    is_stored: bool = False


def read_costs(hold: Hold, scopes: Sequence[str]) -> Window:
    """All recent days, in one reply. This is what makes a sync a success. Raises ProviderError."""
    stop_at = time.monotonic() + MOST_SECONDS
    asked_at = utc_now()
    activity = hold.reader.activity()
    return Window(activity, activity.today or asked_at.date(), asked_at, stop_at, scopes)


def record_costs(hold: Hold, run: SyncRun, window: Window) -> None:
    """Write the recent days, in the caller's transaction."""
    activity = window.activity
    recorded = ledger.record(run.integration_id, run.id, activity, window.asked_at)
    run.first_day, run.last_day = activity.first_day, activity.last_day
    run.lines_read = activity.rows
    add_to(run, recorded)
    run.integration.clear_problem()
    run.integration.last_success_at = window.asked_at
    window.is_whole = not recorded.silent
    if recorded.silent:
        hold.notes.append(_SILENT)


_LINES = ("lines_added", "lines_changed", "lines_removed", "days_restated")
_BROUGHT = ("days_settled", "settled_usd", "restated_usd", "provisional_usd")


def add_to(run: SyncRun, recorded: Recorded) -> None:
    """Add what a reply changed to what the run's earlier replies did, those of earlier attempts too.

    The counts of lines are of the window alone, as ``lines_read`` is. A sum that its column can't hold is unknown: it
    is there to be read on the card, and must not keep the costs themselves from being stored. It stays unknown,
    whatever is added to it.
    """
    is_first = run.days_settled is None
    for name in (*_LINES, *_BROUGHT) if recorded.source == Source.ACTIVITY else _BROUGHT:
        before = getattr(run, name)
        if before is None and not is_first and name in _BROUGHT:
            continue
        total = (before or 0) + getattr(recorded, name)
        setattr(run, name, total if abs(total) < LIMIT_USD or name in _LINES else None)


def _first_day(integration: Integration, today: date, history_days: int) -> date:
    """The first day to be read: the plan's history before connecting, and every day since."""
    plan = PLANS[db.session.connection().execute(_PLAN, {"of": integration.workspace_id}).scalar_one()]
    furthest = today - timedelta(days=history_days)
    if plan.history_days is None:
        return furthest
    return max(furthest, min(today, integration.created_at.date()) - timedelta(days=plan.history_days))


_PLAN = select(Workspace.plan).where(Workspace.id == bindparam("of"))

NOT_OFFERED = ("no_credits", "no_history", "no_keys")
"""The columns of an integration that say why the provider does not offer something."""


@dataclass(frozen=True)
class _Credits:
    """What was ever charged to credits and bought of them, and between which moments that was so."""

    credits: Credits
    asked_at: datetime
    read_at: datetime


@dataclass(frozen=True)
class _Analytics:
    """What each of the days ``asked`` for cost by another count, and today so far."""

    asked: Period
    totals: Mapping[date, Decimal]
    answered_at: datetime
    today: Activity


@dataclass(frozen=True)
class Further:
    """What is left to be read, and the passing ``faults`` there were: ``days`` before the window, and what the keys of
    ``hashes`` spent.
    """

    days: Sequence[date]
    hashes: Sequence[str]
    faults: Sequence[Unreachable]

    @property
    def is_nothing(self) -> bool:
        return not (self.days or self.hashes or self.faults)


Answers = Mapping[str, Any]
"""What was answered to the questions beside the costs, or the ProviderError, by the column of the integration that says
why the provider does not offer it."""


def ask_further(hold: Hold, window: Window, late: Callable[[], None]) -> Answers:
    """Credits, analytics, and which API keys there are, side by side. ``late`` is called if that takes long."""
    answers = hold.side_by_side(
        lambda: _read_credits(hold),
        lambda: _read_analytics(hold, window),
        lambda: hold.reader.api_keys(window.scopes),
        late=late,
    )
    return dict(zip(NOT_OFFERED, answers, strict=True))


def _read_credits(hold: Hold) -> _Credits:
    asked_at = utc_now()
    found = hold.reader.credits()
    return _Credits(found, asked_at, utc_now())


def _read_analytics(hold: Hold, window: Window) -> _Analytics:
    asked = Period(window.activity.first_day, max(window.today, utc_now().date()))
    totals, answered_at = hold.reader.day_totals(asked.first, asked.last), utc_now()
    if not totals and window.activity.by_day:
        raise NotOffered(f"{hold.provider.name}'s analytics is empty, even for days whose costs are known.")
    if window.today in totals:
        today = hold.reader.history(window.today, window.today)
    else:
        today = Activity.of(window.today, window.today, [])
    return _Analytics(asked, totals, answered_at, today)


def record_further(hold: Hold, run: SyncRun, window: Window, answers: Answers) -> Further:
    """Write what was answered, in the caller's transaction, and find out what is left to be read."""
    found_credits, analytics, listed = (answers[column] for column in NOT_OFFERED)
    days: Sequence[date] = ()
    hashes: Sequence[str] = ()
    if isinstance(found_credits, _Credits):
        own_day = _own_day(found_credits, analytics) if isinstance(analytics, _Analytics) else None
        reconciliation.record_reading(run.integration_id, found_credits.credits, found_credits.read_at, own_day)
    if isinstance(analytics, _Analytics):
        reconciliation.record_checks(run.integration_id, window.activity, analytics.totals, utc_now())
        today = ledger.renamed(analytics.today, lambda: ledger.model_names(run.integration_id))
        add_to(run, ledger.record(run.integration_id, run.id, today, window.asked_at, Source.ANALYTICS))
        days = _unknown_days(hold, run.integration, window)
    if isinstance(listed, KeyList):
        hashes = _record_keys(run, window, listed)
    _note_offers(hold, run.integration, answers, {"no_history": bool(days), "no_keys": bool(hashes)})
    if days:
        runs.progress(run, Stage.HISTORY, 0, len(days))
    elif hashes:
        runs.progress(run, Stage.KEYS, 0, len(hashes))
    return Further(days, hashes, [answer for answer in answers.values() if isinstance(answer, Unreachable)])


def _own_day(found: _Credits, analytics: _Analytics) -> Decimal | None:
    """How much of a reading of the credits was charged on the reading's own UTC day; None if that can't be said.

    If midnight passed between the question and the answer, nobody knows on which side of it the amount was read.
    """
    if found.asked_at.date() != found.read_at.date():
        return None
    return reconciliation.own_day(found.read_at, analytics.totals, analytics.asked, analytics.answered_at)


def _record_keys(run: SyncRun, window: Window, listed: KeyList) -> Sequence[str]:
    """Write which keys there are; the hashes of those whose costs are to be read."""
    now = utc_now()
    _remember_scopes(run.integration, listed.scopes, window.scopes, now)
    return attribution.record_keys(
        run.integration_id,
        listed.keys,
        run.started_at or window.asked_at,
        now,
        all_of_them=bool(run.days_restated),
    )


def _note_offers(hold: Hold, integration: Integration, answers: Answers, goes_on: Mapping[str, bool]) -> None:
    """Note what the provider does not offer, and what was odd. Whether it offers what ``goes_on`` is seen later."""
    for column, answer in answers.items():
        if isinstance(answer, NotOffered):
            setattr(integration, column, str(answer))
        elif isinstance(answer, UnexpectedResponse):
            hold.notes.append(str(answer))
        elif isinstance(answer, ProviderError) and not isinstance(answer, Unreachable):
            raise answer
        elif not goes_on.get(column) and not isinstance(answer, Unreachable):
            setattr(integration, column, None)


def optional_stage(hold: Hold, column: str, stage: Callable[[], None]) -> Unreachable | None:
    """Do a stage that a sync can do without. Returns the passing fault that ended it, if one did.

    What the provider does not offer is noted in the integration's ``column``, which is emptied where it does.
    """
    why: str | None = None
    try:
        stage()
    except NotOffered as error:
        why = str(error)
    except UnexpectedResponse as error:
        hold.notes.append(str(error))
    except Unreachable as error:
        return error
    with hold.committed() as run:
        setattr(run.integration, column, why)
    return None


def read_history(hold: Hold, window: Window, days: Sequence[date]) -> None:
    """These days, which are before the window, the latest first."""
    size, asked = HISTORY_CHUNK, len(days)
    while days and has_time(hold, window):
        first = max(days[0], days[-1] - timedelta(days=size - 1))
        chunk = hold.reader.history(first, days[-1])
        if chunk.first_day > first:  # the reply could not hold as many days as were asked for
            size = (chunk.last_day - chunk.first_day).days + 1
        with hold.committed(Stage.HISTORY) as run:
            named = ledger.renamed(chunk, lambda: ledger.model_names(hold.claim.integration_id))
            add_to(run, ledger.record(run.integration_id, run.id, named, window.asked_at, Source.ANALYTICS))
            days = [day for day in days if day < chunk.first_day]
            runs.progress(run, Stage.HISTORY, asked - len(days), asked)


def _unknown_days(hold: Hold, integration: Integration, window: Window) -> Sequence[date]:
    """The days before the window that are missing or provisional, as far back as the plan reaches."""
    first = _first_day(integration, window.today, hold.provider.history_days)
    wanted = span(first, window.activity.first_day - ONE_DAY)
    settled = (
        CoveredDay.integration_id == integration.id,
        CoveredDay.day.between(first, window.activity.first_day - ONE_DAY),
        CoveredDay.state != DayState.PROVISIONAL,
    )
    if not wanted or db.session.execute(select(func.count()).where(*settled)).scalar_one() == len(wanted):
        return ()
    known = set(db.session.execute(select(CoveredDay.day).where(*settled)).scalars())
    return [day for day in wanted if day not in known]


def read_keys(hold: Hold, window: Window, hashes: Sequence[str]) -> None:
    """What each of these keys spent within the window."""
    done = 0
    while done < len(hashes) and has_time(hold, window):
        parts, fault = _some_keys(hold, hashes[done:])
        done += len(parts)
        with hold.committed(Stage.KEYS) as run:
            read = {key_hash: activity for key_hash, activity in parts.items() if activity is not None}
            attribution.record(run.integration_id, read, utc_now(), account_is_whole=window.is_whole)
            runs.progress(run, Stage.KEYS, done, len(hashes))
        if fault is not None:
            raise fault


def known_scopes(claimed: Claimed) -> Sequence[str]:
    """Where a daily sync looks for API keys without asking again; everyone else asks, and it does once a week."""
    if claimed.trigger != Trigger.DAILY or claimed.key_scopes is None or claimed.key_scopes_at is None:
        return ()
    is_old = claimed.key_scopes_at < utc_now() - SCOPES_LAST
    found: Sequence[str] = () if is_old else json.loads(claimed.key_scopes)
    return found


def _remember_scopes(integration: Integration, found: Sequence[str], asked: Sequence[str], now: datetime) -> None:
    if found != asked:
        integration.key_scopes, integration.key_scopes_at = json.dumps(list(found)), now


def _some_keys(hold: Hold, hashes: Sequence[str]) -> tuple[dict[str, Activity | None], ProviderError | None]:
    """What the first of these keys spent, as many as some seconds allow; and what ended it, if anything did."""
    parts: dict[str, Activity | None] = {}
    commit_at = time.monotonic() + COMMIT_SECONDS
    for key_hash in hashes:
        try:
            parts[key_hash] = hold.reader.key_activity(key_hash)
        except NotOffered:
            parts[key_hash] = None  # a key that no longer exists there
        except ProviderError as error:
            return parts, error
        if time.monotonic() > commit_at:
            break
    return parts, None


def has_time(hold: Hold, window: Window) -> bool:
    """Whether the sync may go on; if not, it says so."""
    if time.monotonic() < window.stop_at:
        return True
    hold.notes.append(_NO_TIME)
    return False
