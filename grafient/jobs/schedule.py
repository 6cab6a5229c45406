"""When: the schedule as data, and the scheduler that keeps to it."""

from __future__ import annotations

import contextlib
import logging
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redis import RedisError
from rq.job import Job
from rq_scheduler import Scheduler
from rq_scheduler.utils import get_next_scheduled_time, to_unix
from sqlalchemy.exc import SQLAlchemyError

from grafient import disk
from grafient.extensions import db
from grafient.jobs import progress
from grafient.jobs.queue import JOB_TIMEOUT, QUEUE, GrafientJob, client
from grafient.jobs.readiness import note_full_disk
from grafient.jobs.work import tick
from grafient.models import utc_now

log = logging.getLogger(__name__)

TICK_SECONDS = 30
REDIS_PAUSE = 2.0
"""Seconds before another try at a Redis that is away."""


@dataclass(frozen=True)
class Entry:
    """One line of the schedule. ``cron`` is in UTC, ``every`` in seconds; one of them is set."""

    id: str
    function: Callable[[], None]
    every: int | None = None
    cron: str | None = None


SCHEDULE = (
    Entry("grafient-tick", tick, every=TICK_SECONDS),
    Entry("grafient-daily", tick, cron="0 6 * * *"),
)


class GrafientScheduler(Scheduler):  # type: ignore[misc]
    """rq-scheduler, which does the ticks itself instead of putting them into the queue.

    A tick writes the daily runs that are due, and that must not wait for syncs. In the queue it did: with one worker,
    which is the default, and five slow accounts, a tick waited four minutes behind them. /readyz called the scheduler
    dead, and no run was written meanwhile. A tick takes milliseconds, so the scheduler does it in its own process.

    Its entries are put back at every look: a Redis that was emptied has them again within seconds.
    """

    job_class = GrafientJob
    worker_pid: int | None = None
    """The parent to end with, if there is one."""

    def enqueue_jobs(self) -> Any:
        if self.worker_pid not in (None, os.getppid()):
            raise SystemExit("The scheduler ends, since the worker it ran beside is gone.")
        self.reconcile()
        return super().enqueue_jobs()

    def enqueue_job(self, job: Job) -> None:
        """Do what an entry says, and note when it is due next."""
        tick_or_say_why_not()
        interval, cron = job.meta.get("interval"), job.meta.get("cron_string")
        next_at = to_unix(get_next_scheduled_time(cron)) if cron else time.time() + int(interval or TICK_SECONDS)
        self.connection.zadd(self.scheduled_jobs_key, {job.id: next_at})

    def register_death(self) -> None:
        """A Redis that is away must not swallow the order to end, in whose handler this runs."""
        with contextlib.suppress(RedisError):
            super().register_death()

    def remove_lock(self) -> None:
        """The same."""
        with contextlib.suppress(RedisError):
            super().remove_lock()

    def reconcile(self, schedule: tuple[Entry, ...] = SCHEDULE) -> None:
        """Make the entries in Redis those of the schedule; one that is the same keeps its time."""
        wanted = {entry.id: entry for entry in schedule}
        for job in self.get_jobs():
            entry = wanted.get(job.id)
            if entry is not None and _same(job, entry):
                del wanted[job.id]
            elif job.origin == QUEUE:
                self.cancel(job)
        for entry in wanted.values():
            self._add(entry)

    def _add(self, entry: Entry) -> None:
        options = {"id": entry.id, "queue_name": QUEUE, "timeout": JOB_TIMEOUT}
        if entry.cron is None:
            self.schedule(datetime.now(UTC), entry.function, interval=entry.every, **options)
            return
        self.cron(entry.cron, entry.function, **options)


def _same(job: Job, entry: Entry) -> bool:
    return (job.func_name, job.meta.get("interval"), job.meta.get("cron_string")) == (
        f"{entry.function.__module__}.{entry.function.__qualname__}",
        entry.every,
        entry.cron,
    )


def tick_or_say_why_not() -> None:
    """A tick for whoever must go on: a database or a Redis that is away gets one line in the log, and the next tick."""
    try:
        tick()
        progress.say(utc_now())
    except (SQLAlchemyError, RedisError) as error:
        if disk.is_why(error):
            log.error(disk.FULL)
            note_full_disk()
        else:
            log.warning("scheduler: a tick failed (%s); the next one follows", type(error).__name__)
    finally:
        db.session.remove()


def run_scheduler(worker_pid: int | None = None) -> None:
    """Put jobs into the queue by the clock until told to stop; a Redis that is away is waited for.

    With ``worker_pid``, its parent's, it ends when that process does, however it died.
    """
    if time.tzname[0] != "UTC":
        raise SystemExit("The scheduler has to run with TZ=UTC: rq-scheduler reads cron lines in local time.")
    warnings.simplefilter("ignore", FutureWarning)  # crontab: its choice of UTC or local time is going to change
    while worker_pid in (None, os.getppid()):
        try:
            scheduler = GrafientScheduler(QUEUE, connection=client(), interval=5)
            scheduler.worker_pid = worker_pid
            scheduler.run()
        except RedisError as error:
            log.warning("scheduler: Redis is away (%s)", type(error).__name__)
            time.sleep(REDIS_PAUSE)
