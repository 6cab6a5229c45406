"""What a sync reads, in stages that each commit what they read.

First the costs of the recent days, which decide whether the sync succeeded. The other stages are optional: the
account's credits, analytics (a second count of each day, today so far, and the days before the window), and API keys.
What the provider does not offer there is noted on the integration; what fails is tried again with the next attempt.
No transaction is open while a provider is asked.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import select

from grafient import attribution, ledger, reconciliation, runs
from grafient.days import ONE_DAY, Period, span
from grafient.extensions import db
from grafient.ledger import Recorded
from grafient.models import CoveredDay, Integration, SyncRun, Workspace, utc_now
from grafient.money import LIMIT_USD
from grafient.plans import PLANS
from grafient.providers import Activity, NotOffered, ProviderError, UnexpectedResponse, Unreachable
from grafient.reconciliation import Reading
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


@dataclass(frozen=True)
class Window:
    """What the first stage learned. ``today``: the UTC day it is at the provider.

    ``is_whole``: the reply was not an empty one for days whose usage is stored. ``first_day``: the first day that the
    plan reaches. ``stop_at``: when, by the monotonic clock, the sync should leave the rest to the next one. ``scopes``:
    where to look for API keys, if that need not be asked.
    """

    activity: Activity
    today: date
    asked_at: datetime
    started_at: datetime
    is_whole: bool
    first_day: date
    stop_at: float
    scopes: Sequence[str]


def read_costs(hold: Hold) -> Window:
    """All recent days, in one reply. This is what makes a sync a success. Raises ProviderError."""
    stop_at = time.monotonic() + MOST_SECONDS
    asked_at = utc_now()
    activity = hold.reader.activity()
    today = activity.today or asked_at.date()
    with hold.committed(Stage.CHECKS) as run:
        recorded = ledger.record(run.integration_id, run.id, activity, asked_at)
        run.first_day, run.last_day = activity.first_day, activity.last_day
        run.lines_read = activity.rows
        add_to(run, recorded)
        run.integration.clear_problem()
        run.integration.last_success_at = asked_at
        first_day = _first_day(run.integration, today, hold.provider.history_days)
        started_at, scopes = run.started_at or asked_at, _scopes(run)
        hold.not_offered = {name: getattr(run.integration, name) for name in NOT_OFFERED}
    if recorded.silent:
        hold.notes.append(_SILENT)
    return Window(activity, today, asked_at, started_at, not recorded.silent, first_day, stop_at, scopes)


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
    plan = PLANS[db.session.get_one(Workspace, integration.workspace_id).plan]
    furthest = today - timedelta(days=history_days)
    if plan.history_days is None:
        return furthest
    return max(furthest, min(today, integration.created_at.date()) - timedelta(days=plan.history_days))


NOT_OFFERED = ("no_credits", "no_history", "no_keys")
"""The columns of an integration that say why the provider does not offer something."""


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
    if hold.not_offered[column] != why:
        with hold.committed() as run:
            setattr(run.integration, column, why)
    return None


def read_credits(hold: Hold) -> Reading | None:
    """A reading of everything that was ever charged to credits.

    None if midnight UTC passed between the question and the answer: nobody can say then on which side of it the amount
    was read, so how much of it is of the reading's own day stays unknown.
    """
    asked_at = utc_now()
    lifetime_usd = hold.reader.lifetime_usd()
    read_at = utc_now()
    with hold.committed(Stage.CHECKS) as run:
        reading = reconciliation.record_reading(run.integration_id, lifetime_usd, read_at)
    return reading if asked_at.date() == read_at.date() else None


def read_analytics(hold: Hold, window: Window, reading: Reading | None) -> None:
    """What each day cost by another count, today so far, and the days before the window."""
    last = window.today if reading is None else max(window.today, reading.day)
    asked = Period(window.activity.first_day, last)
    totals, answered_at = hold.reader.day_totals(asked.first, asked.last), utc_now()
    if not totals and window.activity.by_day:
        raise NotOffered(f"{hold.provider.name}'s analytics is empty, even for days whose costs are known.")
    if window.today in totals:
        today = _named(hold, hold.reader.history(window.today, window.today))
    else:
        today = Activity.of(window.today, window.today, [])
    with hold.committed(Stage.HISTORY) as run:
        reconciliation.record_checks(run.integration_id, window.activity, totals, utc_now())
        if reading is not None:
            reconciliation.add_own_day(reading, totals, asked, answered_at)
        add_to(run, ledger.record(run.integration_id, run.id, today, window.asked_at, Source.ANALYTICS))
    _read_history(hold, window)


def _read_history(hold: Hold, window: Window) -> None:
    """The days before the window that are not known yet, the latest first."""
    days, size = _unknown_days(hold, window), HISTORY_CHUNK
    asked = len(days)
    while days and has_time(hold, window):
        first = max(days[0], days[-1] - timedelta(days=size - 1))
        chunk = _named(hold, hold.reader.history(first, days[-1]))
        if chunk.first_day > first:  # the reply could not hold as many days as were asked for
            size = (chunk.last_day - chunk.first_day).days + 1
        with hold.committed(Stage.HISTORY) as run:
            add_to(run, ledger.record(run.integration_id, run.id, chunk, window.asked_at, Source.ANALYTICS))
            days = [day for day in days if day < chunk.first_day]
            runs.progress(run, Stage.HISTORY, asked - len(days), asked)


def _unknown_days(hold: Hold, window: Window) -> list[date]:
    """The days before the window that are missing or provisional, as far back as the plan reaches."""
    wanted = span(window.first_day, window.activity.first_day - ONE_DAY)
    query = select(CoveredDay.day).where(
        CoveredDay.integration_id == hold.claim.integration_id,
        CoveredDay.day.between(window.first_day, window.activity.first_day),
        CoveredDay.state != DayState.PROVISIONAL,
    )
    settled = set(db.session.execute(query).scalars())
    db.session.rollback()
    return [day for day in wanted if day not in settled]


def _named(hold: Hold, activity: Activity) -> Activity:
    """The same with models named as in the window's lines; analytics only has their permaslugs."""
    names = ledger.model_names(hold.claim.integration_id)
    db.session.rollback()
    return ledger.renamed(activity, names)


def read_keys(hold: Hold, window: Window) -> None:
    """Which keys there are, and what each spent within the window."""
    listed = hold.reader.api_keys(window.scopes)
    with hold.committed(Stage.KEYS) as run:
        now = utc_now()
        _remember_scopes(run.integration, listed.scopes, window.scopes, now)
        attribution.record_keys(run.integration_id, listed.keys, now)
        attribution.record_unused_days(run.integration_id, now)
        restated = bool(run.days_restated)
        hashes = attribution.to_read(run.integration_id, window.started_at, now, all_of_them=restated)
        runs.progress(run, Stage.KEYS, 0, len(hashes))
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


def _scopes(run: SyncRun) -> Sequence[str]:
    """Where a daily sync looks for API keys without asking again; everyone else asks, and it does once a week."""
    integration = run.integration
    if run.trigger != Trigger.DAILY or integration.key_scopes is None or integration.key_scopes_at is None:
        return ()
    is_old = integration.key_scopes_at < utc_now() - SCOPES_LAST
    found: Sequence[str] = () if is_old else json.loads(integration.key_scopes)
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
