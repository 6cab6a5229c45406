"""The doing of a claimed run: everything the provider tells, in stages that each commit what they read.

First the costs of the recent days, which decide whether the sync succeeded. Then what goes beyond: the account's
credits, analytics (a second opinion on each day, today so far, and the days before the window), and API keys. What
fails there is tried again later or said in a note; the costs stand. No transaction is open while a provider is
asked, and every commit is guarded by the claim's token.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from decimal import Decimal

from sqlalchemy import select

from grafient import attribution, evidence, ledger, reconciliation, runs
from grafient.extensions import db, providers, vault
from grafient.models import CoveredDay, Integration, SyncRun, Workspace, utc_now
from grafient.plans import PLANS
from grafient.providers import (
    Activity,
    KeyRejected,
    NotManagementKey,
    NotOffered,
    ProviderError,
    UnexpectedResponse,
    Unreachable,
)
from grafient.runs import Claim
from grafient.vault import Sealed, VaultError

MOST_SECONDS = 20 * 60
"""After so long a sync leaves what is left to the next one."""

MOST_ATTEMPTS = 5
"""So often is a sync tried again for what goes beyond the costs."""

HISTORY_CHUNK = 170
"""Days asked for at a time. Two reach a year back; a reply that can't hold so many is narrowed."""

ONE_REQUEST = timedelta(seconds=70)
"""Longer than any one request to a provider takes."""

COMMIT_SECONDS = 5.0
"""What single keys spent is committed so often."""


def perform(claim: Claim) -> None:
    """Do a claimed run. A provider's failure becomes the run's and the integration's status.

    Raises LeaseLost, having written nothing since the last commit, if the claim no longer holds.
    """
    run = runs.hold(claim)
    provider = run.integration.provider
    try:
        key = _open(run.integration)
        db.session.rollback()
        _Sync(claim, provider, key).perform()
    except (ProviderError, VaultError) as error:
        db.session.rollback()
        _record_failure(claim, error)


def fail(claim: Claim, reason: str) -> None:
    """Note a fault of our own for a claimed run, to be tried again later. Commits; raises LeaseLost."""
    _record_failure(claim, Unreachable(reason))


class _Sync:
    """One run on its way. What a stage learns, the next ones use."""

    def __init__(self, claim: Claim, provider: str, key: str) -> None:
        self._claim = claim
        self._provider = providers[provider]
        self._reader = self._provider.reader(key, self._keep_hold)
        self._stop_at = time.monotonic() + MOST_SECONDS
        self._notes: list[str] = []
        self._fault: Unreachable | None = None
        self._held_until = utc_now()

    def perform(self) -> None:
        try:
            self._costs()
            self._beyond("no_credits", self._credits)
            self._beyond("no_history", self._analytics)
            self._beyond("no_keys", self._keys)
        except UnexpectedResponse:
            self._keep_replies()
            raise
        self._finish()

    def _costs(self) -> None:
        """The window, whole. This is what makes a sync a success."""
        with self._committed("costs"):
            pass
        self._asked_at = utc_now()
        self._window = self._reader.activity()
        self._today = self._window.today or self._asked_at.date()
        with self._committed("checks") as run:
            recorded = ledger.record(run.integration_id, run.id, self._window, self._asked_at)
            run.first_day, run.last_day = self._window.first_day, self._window.last_day
            run.lines_read = len(self._window.lines)
            for count in ("lines_added", "lines_changed", "lines_removed", "days_restated"):  # over all attempts
                setattr(run, count, (getattr(run, count) or 0) + getattr(recorded, count))
            run.integration.clear_problem()
            run.integration.last_success_at = self._asked_at
            self._started_at = run.started_at or self._asked_at
            self._first_day = self._reach(run.integration)
        if recorded.silent:
            self._notes.append(_SILENT)

    def _reach(self, integration: Integration) -> date:
        """The first day to be had: the plan's history before connecting, and every day since."""
        plan = PLANS[db.session.get_one(Workspace, integration.workspace_id).plan]
        furthest = self._today - timedelta(days=self._provider.history_days)
        if plan.history_days is None:
            return furthest
        return max(furthest, min(self._today, integration.created_at.date()) - timedelta(days=plan.history_days))

    def _beyond(self, column: str, stage: Callable[[], None]) -> None:
        """Do a stage that a sync can do without. What is not offered is said in the integration's column."""
        why: str | None = None
        try:
            stage()
        except NotOffered as error:
            why = str(error)
        except UnexpectedResponse as error:
            self._notes.append(str(error))
        except Unreachable as error:
            self._fault = self._fault or error
            return
        with self._committed(None) as run:
            setattr(run.integration, column, why)

    def _credits(self) -> None:
        """A reading of all that was ever charged."""
        self._reading_id: int | None = None
        lifetime_usd = self._reader.lifetime_usd()
        with self._committed("checks") as run:
            self._reading_id = reconciliation.record_reading(run.integration_id, lifetime_usd, utc_now())

    def _analytics(self) -> None:
        """What each day came to by another count, today so far, and the days before the window."""
        totals = self._reader.day_totals(self._window.first_day, self._today)
        if not totals and self._window.lines:
            raise NotOffered(
                f"{self._provider.name}'s analytics tells nothing, not even of days whose costs are known."
            )
        today = self._named(self._reader.history(self._today, self._today))
        with self._committed("history") as run:
            reconciliation.record_checks(run.integration_id, self._window, totals, utc_now())
            reconciliation.add_today(self._reading_id, totals.get(self._today, Decimal(0)))
            ledger.record(run.integration_id, run.id, today, self._asked_at, "analytics")
        self._history()

    def _history(self) -> None:
        """The days before the window that are not known yet, the latest first."""
        days, size = self._unknown_days(), HISTORY_CHUNK
        asked = len(days)
        while days and self._has_time():
            first = max(days[0], days[-1] - timedelta(days=size - 1))
            chunk = self._named(self._reader.history(first, days[-1]))
            if chunk.first_day > first:  # a reply holds no more than so many days
                size = (chunk.last_day - chunk.first_day).days + 1
            with self._committed("history") as run:
                ledger.record(run.integration_id, run.id, chunk, self._asked_at, "analytics")
                days = [day for day in days if day < chunk.first_day]
                runs.progress(run, "history", asked - len(days), asked)

    def _unknown_days(self) -> list[date]:
        """Those before the window that were never told of, or only provisionally, as far as the plan reaches."""
        first, end = self._first_day, self._window.first_day
        query = select(CoveredDay.day).where(
            CoveredDay.integration_id == self._claim.integration_id,
            CoveredDay.day.between(first, end),
            CoveredDay.state != "provisional",
        )
        settled = set(db.session.execute(query).scalars())
        db.session.rollback()
        days = (first + timedelta(days=n) for n in range((end - first).days))
        return [day for day in days if day not in settled]

    def _named(self, activity: Activity) -> Activity:
        """Under the names that the window's lines give to models; analytics knows permaslugs alone."""
        names = ledger.model_names(self._claim.integration_id)
        db.session.rollback()
        return ledger.renamed(activity, names)

    def _keys(self) -> None:
        """Which keys there are, and what each spent within the window."""
        listed = self._reader.api_keys()
        with self._committed("keys") as run:
            now = utc_now()
            attribution.record_keys(run.integration_id, listed, now)
            hashes = attribution.to_read(run.integration_id, self._started_at, now)
            runs.progress(run, "keys", 0, len(hashes))
        done = 0
        while done < len(hashes) and self._has_time():
            parts, fault = self._some_keys(hashes[done:])
            done += len(parts)
            with self._committed("keys") as run:
                read = {key_hash: activity for key_hash, activity in parts.items() if activity is not None}
                attribution.record(run.integration_id, read, utc_now())
                runs.progress(run, "keys", done, len(hashes))
            if fault is not None:
                raise fault

    def _some_keys(self, hashes: Sequence[str]) -> tuple[dict[str, Activity | None], ProviderError | None]:
        """What the first of these keys spent, as many as some seconds allow; and what ended it, if anything did."""
        parts: dict[str, Activity | None] = {}
        commit_at = time.monotonic() + COMMIT_SECONDS
        for key_hash in hashes:
            try:
                parts[key_hash] = self._reader.key_activity(key_hash)
            except NotOffered:
                parts[key_hash] = None  # a key that is gone there
            except ProviderError as error:
                return parts, error
            if time.monotonic() > commit_at:
                break
        return parts, None

    def _has_time(self) -> bool:
        if time.monotonic() < self._stop_at:
            return True
        self._notes.append("There was more to read than one sync may take; the next one goes on.")
        return False

    def _finish(self) -> None:
        note = " ".join(dict.fromkeys(self._notes)) or None
        with self._committed(None) as run:
            if self._fault is not None and run.attempt < MOST_ATTEMPTS:
                message = f"The costs are read; what goes beyond them is not yet. {self._fault}"
                runs.retry_later(run, message, self._fault.retry_after)
                run.integration.set_problem("fault", message, run.started_at)
            else:
                if self._fault is not None:
                    note = f"{note or ''} {self._fault} What goes beyond the costs is read with the next sync.".strip()
                runs.finish(run, "done", note)
                run.integration.clear_problem(note)

    @contextmanager
    def _committed(self, stage: str | None) -> Iterator[SyncRun]:
        """One transaction of the run, while the claim holds, with the replies that came since the last one.

        Raises LeaseLost. ``stage`` is what is read from here on.
        """
        run = runs.hold(self._claim)
        held_until = runs.extend(run)
        yield run
        evidence.keep(run.id, self._reader.take_replies())
        self._notes += self._reader.take_notes()
        if stage is not None and run.stage != stage:
            runs.progress(run, stage)
        db.session.commit()
        self._held_until = held_until

    def _keep_hold(self) -> None:
        """Take another lease where this one might end before the request that comes next."""
        if self._held_until - utc_now() < ONE_REQUEST:
            with self._committed(None):
                pass

    def _keep_replies(self) -> None:
        """What could not be read is what one wants to see most."""
        db.session.rollback()
        with self._committed(None):
            pass


_SILENT = "The reply was empty although usage of its days is stored. What is stored is left as it is."


def _record_failure(claim: Claim, error: ProviderError | VaultError) -> None:
    """The one place where a failure turns into a stored status."""
    run = runs.hold(claim)
    integration, message = run.integration, str(error)
    if isinstance(error, (Unreachable, VaultError)):
        runs.retry_later(run, message, error.retry_after if isinstance(error, Unreachable) else None)
        integration.set_problem("fault", message, run.started_at)
    elif isinstance(error, (UnexpectedResponse, NotOffered)):
        runs.finish(run, "failed", message)
        integration.set_problem("api_changed", message, run.started_at)
    elif isinstance(error, (KeyRejected, NotManagementKey)):
        runs.finish(run, "failed", message)
        integration.set_problem("needs_key", message, run.started_at)
    else:
        raise error
    db.session.commit()


def _open(integration: Integration) -> str:
    if integration.key_ciphertext is None or integration.key_encryption_id is None:
        raise VaultError("The integration has no key.")
    sealed = Sealed(integration.key_encryption_id, integration.key_ciphertext)
    return vault.open(sealed, integration_id=integration.id, provider=integration.provider)
