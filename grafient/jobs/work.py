"""What gets done: a tick writes the runs that are due, a job does them."""

from __future__ import annotations

import logging
import math
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from flask import Flask, current_app
from sqlalchemy.exc import SQLAlchemyError

from grafient import disk, evidence, runs, sync
from grafient.extensions import db
from grafient.jobs import queue
from grafient.jobs.readiness import note_full_disk, note_tick
from grafient.models import utc_now
from grafient.runs import Claim, LeaseLost

log = logging.getLogger(__name__)

CLAIM_SECONDS = 60.0
"""How long one job goes on claiming runs before it makes way for another; longer while a long run is under way."""

MOST_CLAIM_SECONDS = 20 * 60.0
LOOK_SECONDS = 0.5
"""How often a job with a long run under way looks for others that are due."""

RUNS_PER_JOB = 200
MOST_JOBS = 8
"""A job does as many runs as it has time for; many that are due wake more workers, if there are more."""


def tick() -> None:
    """Write the runs that are due by the clock, and wake workers for all that are. Stateless: any number of ticks does
    what one does.

    The transaction ends before Redis is asked for anything, see ``queue.wake``.
    """
    now = utc_now()
    runs.insert_daily(now)
    evidence.sweep(now, current_app.extensions["settings"].raw_reply_days)
    due = runs.count_claimable(now)
    db.session.commit()
    note_tick(now)
    for _ in range(min(math.ceil(due / RUNS_PER_JOB), MOST_JOBS) - queue.queue().count):
        queue.wake()


def sync_due() -> None:
    """Claim and do runs on threads, until none is due or the time is up; then another job goes on.

    A run can take minutes, for an account with hundreds of API keys. Others that become due meanwhile are not kept
    waiting for it: as long as it goes on, so does the claiming.
    """
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    started, under_way = time.monotonic(), set[Future[None]]()
    threads: int = app.extensions["settings"].sync_threads
    with ThreadPoolExecutor(threads, thread_name_prefix="sync") as pool:
        while time.monotonic() < started + (MOST_CLAIM_SECONDS if under_way else CLAIM_SECONDS):
            while len(under_way) < threads and (claim := _claim()) is not None:
                under_way.add(pool.submit(_sync, app, claim))
            if not under_way:
                break
            done, under_way = wait(under_way, LOOK_SECONDS, FIRST_COMPLETED)
            for future in done:
                future.result()
    due = runs.count_claimable(utc_now())
    db.session.rollback()
    if due:
        queue.wake()


def _claim() -> Claim | None:
    claim = runs.claim(utc_now())
    db.session.commit()
    return claim


def _sync(app: Flask, claim: Claim) -> None:
    """Do a claimed run; whatever fails is noted with the run, or at least in the log."""
    with app.app_context():
        try:
            sync.perform(claim)
        except LeaseLost as lost:
            log.warning("%s", lost)
        except Exception as error:
            db.session.rollback()
            if disk.is_why(error):
                log.error("run %d: %s", claim.run_id, disk.FULL)
                note_full_disk()
            else:
                log.exception("run %d failed", claim.run_id)
            _note_failure(claim, disk.FULL if disk.is_why(error) else _FAILED)


_FAILED = "Grafient itself failed; the worker's log says why."


def _note_failure(claim: Claim, reason: str) -> None:
    try:
        sync.fail(claim, reason)
    except LeaseLost:
        pass
    except SQLAlchemyError as error:
        db.session.rollback()
        log.warning("run %d is tried again when its lease ends (%s)", claim.run_id, type(error).__name__)
