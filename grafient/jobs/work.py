"""What gets done: a tick writes the runs that are due, a job does them."""

from __future__ import annotations

import logging
import math
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime

from flask import Flask, current_app
from sqlalchemy.exc import SQLAlchemyError

from grafient import database, disk, evidence, leaving, logs, mail, runs, sync
from grafient.alerts import outbox, watch
from grafient.config import Settings
from grafient.extensions import db, settings
from grafient.jobs import alerting, queue
from grafient.jobs.processes import Forked, few_collections
from grafient.jobs.readiness import note_full_disk, note_tick
from grafient.models import utc_now
from grafient.runs import Claim, LeaseLost

log = logging.getLogger(__name__)

CLAIM_SECONDS = 60.0
"""How long one job goes on claiming runs before it makes way for another; longer while a long run is under way."""

MOST_CLAIM_SECONDS = 20 * 60.0
LOOK_SECONDS = 0.5
"""How often a job with a long run under way looks for others that are due."""

ALERTS_SECONDS = 5.0
"""How often a job looks whether alerts are to be sent, or a workspace is to be looked at for them."""

SWEEP_SECONDS = 5.0
"""How long a tick goes on deleting raw replies that are too old, and then what is left of deleted workspaces."""

AWAITED_THREADS = 4
"""Threads that are left for the runs which a person waits for."""

RUNS_PER_JOB = 64
MOST_JOBS = 8
"""A job does as many runs as it has time for; many that are due wake more workers, if there are more."""


def tick() -> None:
    """Write the runs that are due by the clock, and wake workers for all that are. Stateless: any number of ticks does
    what one does.

    The transaction ends before Redis is asked for anything, see ``queue.wake``.
    """
    now = utc_now()
    runs.insert_daily(now)
    outbox.add_digests(now)
    due = runs.count_claimable(now) + mail.count_due(now) + alerting.count_due(now)
    db.session.commit()
    note_tick(now)
    for _ in range(min(math.ceil(due / RUNS_PER_JOB), MOST_JOBS) - queue.queue().count):
        queue.wake()
    _sweep(now)
    outbox.sweep(now)
    db.session.commit()
    leaving.finish(SWEEP_SECONDS)


def _sweep(now: datetime) -> None:
    """Delete old raw replies for some seconds, in transactions of milliseconds, so that writers on SQLite get their
    turn. One batch a tick was too few: from 144,000 accounts on, more replies came than went.
    """
    until = time.monotonic() + SWEEP_SECONDS
    while evidence.sweep(now, settings.raw_reply_days) and time.monotonic() < until:
        db.session.commit()
    db.session.commit()


def sync_due() -> None:
    """Claim and do runs until none is due or the time is up; then another job goes on.

    Python runs one thread of a process at a time, so a process uses one core, however many threads it has. Where more
    are due than one has threads, the job is done by as many processes as the settings say; not on SQLite, which lets
    one process write at a time. Another finds out by trying again and again when it may, and under the load of a first
    sync of 120 accounts some tried in vain for the 15 seconds that a transaction waits.
    """
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    settings: Settings = app.extensions["settings"]
    processes = min(math.ceil(_due() / settings.sync_threads), settings.sync_processes)
    if processes < 2 or db.engine.dialect.name == "sqlite":
        _sync_all(app, settings.sync_threads)
    else:
        db.engine.dispose()  # two processes that speak on one connection get each other's answers
        copies = [Forked(target=_sync_all, args=(app, settings.sync_threads), name="sync") for _ in range(processes)]
        for copy in copies:
            copy.start()
        for copy in copies:
            copy.wait()
    if _due():
        queue.wake()


def _due() -> int:
    with database.only_reading():
        due = runs.count_claimable(utc_now())
        db.session.rollback()
    return due


def _sync_all(app: Flask, threads: int) -> None:
    """Claim and do runs on threads.

    A run can take minutes, for an account with hundreds of API keys. Others that become due meanwhile are not kept
    waiting for it: as long as it goes on, so does the claiming. And when each thread waits for a provider that has
    stopped answering, a few are left for the runs that a person waits for.

    Several runs are claimed at once, when a quarter of the threads is free: claimed one by one, as each thread becomes
    free, that was a sixth of a run's work.
    """
    started, under_way = time.monotonic(), set[Future[None]]()
    alerts: Future[None] | None = None
    look_at = alerts_at = started
    with few_collections(), ThreadPoolExecutor(threads + AWAITED_THREADS, thread_name_prefix="sync") as pool:
        while (now := time.monotonic()) < started + (MOST_CLAIM_SECONDS if under_way else CLAIM_SECONDS):
            if mail.is_due():
                under_way.add(pool.submit(_send_mail, app))
            if now >= alerts_at and (alerts is None or alerts.done()):
                alerts_at = now + ALERTS_SECONDS
                if alerting.is_due():
                    alerts = pool.submit(_alert, app)
                    under_way.add(alerts)
            free = threads - len(under_way)
            if free >= max(threads // 4, 1) or now >= look_at:
                under_way |= {pool.submit(_sync, app, claim) for claim in _claims(free)}
                look_at = now + LOOK_SECONDS
            if not under_way:
                break
            done, under_way = wait(under_way, LOOK_SECONDS, FIRST_COMPLETED)
            for future in done:
                future.result()


def _claims(free: int) -> list[Claim]:
    """Runs for as many threads as are free, and for those that are left for what a person waits for."""
    if free > 0:
        claims = runs.claim(utc_now(), free)
    else:
        claims = runs.claim(utc_now(), free + AWAITED_THREADS, awaited_only=True)
    db.session.commit()
    return claims


def _sync(app: Flask, claim: Claim) -> None:
    """Do a claimed run; whatever fails is noted with the run, or at least in the log."""
    with app.app_context(), logs.about(run=claim.run_id, integration=claim.integration_id):
        try:
            sync.perform(claim)
        except LeaseLost as lost:
            log.warning("%s", lost)
        except Exception as error:
            db.session.rollback()
            if disk.is_why(error):
                log.error(disk.FULL)
                note_full_disk()
            else:
                log.exception("a sync failed")
            _note_failure(claim, disk.FULL if disk.is_why(error) else _FAILED)
        _look(claim.integration_id)


def _look(integration_id: int) -> None:
    """Whatever fails here is no fault of the sync, and must not end the job; the next tick looks again."""
    try:
        watch.look_after_sync(integration_id)
    except Exception:
        db.session.rollback()
        log.exception("alerts: a look after a sync failed; the next tick looks again")


def _send_mail(app: Flask) -> None:
    with app.app_context():
        try:
            mail.send_due()
        except SQLAlchemyError:
            log.exception("mail: letters could not be looked up; the next look follows")


def _alert(app: Flask) -> None:
    with app.app_context():
        try:
            alerting.do_due()
        except Exception:
            db.session.rollback()
            log.exception("alerts: a look failed; the next one follows")


_FAILED = "Grafient itself failed; the worker's log says why."


def _note_failure(claim: Claim, reason: str) -> None:
    try:
        sync.fail(claim, reason)
    except LeaseLost:
        pass
    except SQLAlchemyError as error:
        db.session.rollback()
        log.warning("the sync is tried again when its lease ends (%s)", type(error).__name__)
