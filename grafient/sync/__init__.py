"""Doing a claimed run: its stages, and how it ends."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from sqlalchemy.exc import OperationalError

from grafient import database, runs
from grafient.extensions import db, vault
from grafient.models import SyncRun
from grafient.providers import KeyRejected, NotOffered, ProviderError, UnexpectedResponse, Unreachable
from grafient.runs import Claim, Claimed, LeaseLost
from grafient.states import Problem, RunStatus, Stage
from grafient.sync import stages
from grafient.sync.hold import Hold
from grafient.vault import Sealed, VaultError

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 5
"""How often a sync is tried again for what goes beyond the costs."""


def perform(claim: Claim) -> None:
    """Do a claimed run. A provider's failure becomes the run's and the integration's status.

    Raises LeaseLost, having written nothing since the last commit, if the claim no longer holds.
    """
    try:
        with database.only_reading():
            claimed = runs.claimed(claim)
            key = _open(claimed)
            db.session.rollback()
        _read(Hold(claim, claimed.provider, key), stages.known_scopes(claimed))
    except (ProviderError, VaultError) as error:
        db.session.rollback()
        _record_failure(claim, error)


def fail(claim: Claim, reason: str) -> None:
    """Note a fault of our own for a claimed run, to be tried again later. Commits; raises LeaseLost."""
    _record_failure(claim, Unreachable(reason))


def _read(hold: Hold, scopes: Sequence[str]) -> None:
    """All stages. A passing fault in an optional one does not keep the others from being read."""
    with hold.keeping_replies():
        window = stages.read_costs(hold, scopes)
        store_costs = partial(_store_costs, hold, window)
        if hold.claim.is_awaited:
            store_costs()
        answers = stages.ask_further(hold, window, late=store_costs)
        try:
            with hold.committed() as run:
                if not window.is_stored:
                    stages.record_costs(hold, run, window)
                further = stages.record_further(hold, run, window, answers)
                if further.is_nothing:
                    _finish(hold, run, None)
                    return
            window.is_stored = True
        except (LeaseLost, OperationalError):
            raise
        except Exception:  # such as a key that was revoked in between: the costs stand
            db.session.rollback()
            store_costs()
            raise
        faults: list[Unreachable | None] = [*further.faults]
        if further.days:
            read_history = partial(stages.read_history, hold, window, further.days)
            faults.append(stages.optional_stage(hold, "no_history", read_history))
        if further.hashes:
            read_keys = partial(stages.read_keys, hold, window, further.hashes)
            faults.append(stages.optional_stage(hold, "no_keys", read_keys))
    with hold.committed() as run:
        _finish(hold, run, next((fault for fault in faults if fault is not None), None))


def _store_costs(hold: Hold, window: stages.Window) -> None:
    """Commit the costs by themselves, unless they are."""
    if not window.is_stored:
        with hold.committed(Stage.CHECKS) as run:
            stages.record_costs(hold, run, window)
        window.is_stored = True


def _finish(hold: Hold, run: SyncRun, fault: Unreachable | None) -> None:
    """End the run, or put it back if something beyond the costs failed in passing, a few times; in the caller's
    transaction."""
    note = " ".join(dict.fromkeys(hold.notes)) or None
    if fault is not None and run.attempt < MOST_ATTEMPTS:
        message = f"The costs are up to date; credits, history or API keys are not yet. {fault}"
        runs.retry_later(run, message, fault.retry_after)
        run.integration.set_problem(Problem.FAULT, message, run.started_at)
        return
    if fault is not None:
        note = f"{note or ''} {fault} Credits, history or API keys are read with the next sync.".strip()
    runs.finish(run, RunStatus.DONE, note)
    run.integration.clear_problem(note)


def _record_failure(claim: Claim, error: ProviderError | VaultError) -> None:
    """The one place where a failure turns into a stored status."""
    run = runs.hold(claim)
    integration, message = run.integration, str(error)
    if isinstance(error, Unreachable):
        runs.retry_later(run, message, error.retry_after)
        integration.set_problem(Problem.FAULT, message, run.started_at)
    else:
        runs.finish(run, RunStatus.FAILED, message)
        integration.set_problem(_problem(error), message, run.started_at)
    ended = runs.told(run)
    db.session.commit()
    log.warning("%s", ended)


def _problem(error: ProviderError | VaultError) -> Problem:
    if isinstance(error, VaultError):
        return Problem.KEY_UNREADABLE
    return Problem.API_CHANGED if isinstance(error, (UnexpectedResponse, NotOffered)) else Problem.NEEDS_KEY


def _open(claimed: Claimed) -> str:
    if claimed.key_ciphertext is None or claimed.key_encryption_id is None:
        raise KeyRejected("No key is stored for this integration.")
    sealed = Sealed(claimed.key_encryption_id, claimed.key_ciphertext)
    return vault.open(sealed, integration_id=claimed.integration_id, provider=claimed.provider)
