"""RQ: the queue, the jobs, the schedule as data, the worker and the scheduler.

Redis carries wake-ups and holds no truth: jobs have no arguments, any number of them may be lost or doubled, and
what is due is asked of the run ledger each time.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flask import Flask, current_app
from redis import Redis, RedisError
from rq import Queue, worker_registration
from rq.exceptions import StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.worker import HerokuWorker
from rq_scheduler import Scheduler
from sqlalchemy.exc import SQLAlchemyError

from grafient import database, evidence, runs, sync
from grafient.extensions import db
from grafient.models import utc_now
from grafient.runs import Claim, LeaseLost

log = logging.getLogger(__name__)

QUEUE = "grafient"
TICK_SECONDS = 30
THREADS = 16
CLAIM_SECONDS = 60.0
"""How long one job goes on claiming runs before it makes way for another; longer while a long run is under way."""

MOST_CLAIM_SECONDS = 20 * 60.0
LOOK_SECONDS = 0.5
"""How often a job with a long run under way looks for others that are due."""

RUNS_PER_JOB = 200
MOST_JOBS = 8
"""A job does as many runs as it has time for; many that are due wake more workers, if there are more."""

JOB_TIMEOUT = 3600
"""Longer than claiming and the longest sync together."""
WORKER_TTL = 90
REDIS_PAUSE = 2.0
"""Seconds before another try at a Redis that is away."""

_TICKED_KEY = "grafient:ticked_at"
_SEEN_SECONDS = 180


def connect(url: str, **options: Any) -> Redis:
    """A client for REDIS_URL; opens nothing.

    Heroku's ``rediss://`` has a self-signed certificate: it is encrypted and not verified, unless the address itself
    says ``?ssl_cert_reqs=required``.
    """
    if url.startswith("rediss://"):
        options = {"ssl_cert_reqs": "none", "ssl_check_hostname": False} | options
    return Redis.from_url(url, socket_connect_timeout=3, socket_timeout=5, **options)


class GrafientJob(Job):
    """A job in JSON, of a function of this module and no other: Redis can't make a worker run anything else."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["serializer"] = kwargs.get("serializer") or JSONSerializer
        super().__init__(*args, **kwargs)

    def restore(self, raw_data: Any) -> Any:
        restored = super().restore(raw_data)
        self._success_callback_name = self._failure_callback_name = self._stopped_callback_name = None
        self.webhooks = []
        return restored

    def perform(self) -> Any:
        if self.func_name not in _ALLOWED:
            raise ValueError(f"{self.func_name} is no job of Grafient")
        return super().perform()


def _redis() -> Redis:
    client: Redis = current_app.extensions["redis"]
    return client


def queue() -> Queue:
    """The one queue."""
    return Queue(QUEUE, connection=_redis(), job_class=GrafientJob, serializer=JSONSerializer)


def wake() -> None:
    """Have a worker look at the run ledger now. If Redis is away, the next tick does it."""
    try:
        queue().enqueue(sync_due, job_timeout=JOB_TIMEOUT, result_ttl=0, failure_ttl=0)
    except RedisError as error:
        log.warning("Redis is away (%s); the next tick will start what is due", type(error).__name__)


def tick() -> None:
    """Write what the clock owes, and have workers look. Stateless: any number of ticks does what one does."""
    now = utc_now()
    runs.insert_daily(now)
    evidence.sweep(now, current_app.extensions["settings"].raw_reply_days)
    due = runs.count_claimable(now)
    db.session.commit()
    _redis().set(_TICKED_KEY, now.isoformat())
    for _ in range(min(math.ceil(due / RUNS_PER_JOB), MOST_JOBS) - queue().count):
        wake()


def sync_due() -> None:
    """Claim and do runs on threads, until none is due or the time is up; then another job goes on.

    A run can take minutes, for an account with hundreds of API keys. Others that become due meanwhile are not kept
    waiting for it: as long as it goes on, so does the claiming.
    """
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    started, under_way = time.monotonic(), set[Future[None]]()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="sync") as pool:
        while time.monotonic() < started + (MOST_CLAIM_SECONDS if under_way else CLAIM_SECONDS):
            while len(under_way) < THREADS and (claim := _claim()) is not None:
                under_way.add(pool.submit(_sync, app, claim))
            if not under_way:
                break
            done, under_way = wait(under_way, LOOK_SECONDS, FIRST_COMPLETED)
            for future in done:
                future.result()
    if runs.count_claimable(utc_now()):
        wake()


def _claim() -> Claim | None:
    claim = runs.claim(utc_now())
    db.session.commit()
    return claim


def _sync(app: Flask, claim: Claim) -> None:
    """Do a claimed run; whatever fails is said in the ledger, or at least in the log."""
    with app.app_context():
        try:
            sync.perform(claim)
        except LeaseLost as lost:
            log.warning("%s", lost)
        except Exception:
            log.exception("run %d failed", claim.run_id)
            db.session.rollback()
            try:
                sync.fail(claim, "Grafient itself failed; the worker's log says why.")
            except LeaseLost:
                pass
            except SQLAlchemyError:
                log.exception("run %d is left to the end of its lease", claim.run_id)


_ALLOWED = {f"{function.__module__}.{function.__qualname__}" for function in (tick, sync_due)}


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
    """rq-scheduler, which puts its entries back at every look: a flushed Redis is whole again within seconds."""

    job_class = GrafientJob

    def enqueue_jobs(self) -> Any:
        if self.worker_pid not in (None, os.getppid()):
            raise SystemExit("The scheduler ends, since the worker it ran beside is gone.")
        self.reconcile()
        return super().enqueue_jobs()

    def register_death(self) -> None:
        """A Redis that is away must not swallow the order to end, in whose handler this runs."""
        with contextlib.suppress(RedisError):
            super().register_death()

    def remove_lock(self) -> None:
        """The same."""
        with contextlib.suppress(RedisError):
            super().remove_lock()

    worker_pid: int | None = None
    """The parent to end with, if there is one."""

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


class GrafientWorker(HerokuWorker):
    """Forks a horse for each job from an app that is loaded already."""

    job_class = GrafientJob
    max_connection_wait_time = 10.0
    told_to_stop = False

    def request_stop(self, signum: int, frame: Any) -> None:
        """A Redis that is away must not swallow the order to end."""
        self.told_to_stop = True
        with contextlib.suppress(RedisError):
            super().request_stop(signum, frame)  # type: ignore[no-untyped-call]

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """With its name each time: a Redis that came back empty, as some do, knows its worker again."""
        worker_registration.register(self, pipeline)
        super().heartbeat(timeout, pipeline)

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        end_with_parent(signal.SIGKILL)  # what it was at is done again when the lease ends
        db.engine.dispose(close=False)  # connections of the parent are not the child's
        super().main_work_horse(job, queue)

    def request_force_stop_sigrtmin(self, signum: int, frame: Any) -> None:
        """End at once: an exception would wait for the threads, which wait for a provider."""
        os._exit(1)


def end_with_parent(order: signal.Signals = signal.SIGTERM) -> None:
    """Have Linux send this process a signal when its parent dies, however that dies; elsewhere do nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, order)  # PR_SET_PDEATHSIG, see prctl(2)


def run_worker() -> None:
    """Work until told to stop, with a scheduler beside. Returns when told to, raises SystemExit if the other died."""
    database.reading.set(False)
    scheduler = subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", "wsgi", "scheduler", "--beside", str(os.getpid())],
        env=os.environ | {"TZ": "UTC"},
    )
    threading.Thread(target=_stop_with, args=(scheduler,), daemon=True).start()
    try:
        while not _work():
            log.warning("worker: it ended unasked, as with a Redis that goes away; another one goes on")
            time.sleep(REDIS_PAUSE)
    except StopRequested:
        pass  # told so in the pause
    finally:
        scheduler.terminate()
    if scheduler.wait() not in (0, -15):
        raise SystemExit(f"The scheduler beside the worker ended with code {scheduler.returncode}.")


def _work() -> bool:
    """Work until told to stop. RQ's worker ends with a Redis that goes away at the wrong moment: then it is False."""
    worker = GrafientWorker(
        [queue()],
        connection=_redis(),
        serializer=JSONSerializer,
        worker_ttl=WORKER_TTL,
        maintenance_interval=60,
        log_job_description=False,
    )
    with contextlib.suppress(RedisError):
        worker.work(logging_level="WARNING")
    if worker.pubsub_thread:
        worker.pubsub_thread.stop()
    if not worker.told_to_stop and worker.horse_pid:
        worker.wait_for_horse()  # its syncs don't need Redis
    return worker.told_to_stop


def _stop_with(scheduler: subprocess.Popen[bytes]) -> None:
    """End this worker when the scheduler ends: without it nothing would be due by itself any more."""
    scheduler.wait()
    os.kill(os.getpid(), 15)


def run_scheduler(worker_pid: int | None = None) -> None:
    """Put jobs into the queue by the clock until told to stop; a Redis that is away is waited for.

    With ``worker_pid``, its parent's, it ends when that process does, however it died.
    """
    if time.tzname[0] != "UTC":
        raise SystemExit("The scheduler has to run with TZ=UTC: rq-scheduler reads cron lines in local time.")
    warnings.simplefilter("ignore", FutureWarning)  # crontab: its choice of UTC or local time is going to change
    while worker_pid in (None, os.getppid()):
        try:
            scheduler = GrafientScheduler(QUEUE, connection=_redis(), interval=5)
            scheduler.worker_pid = worker_pid
            scheduler.run()
        except RedisError as error:
            log.warning("scheduler: Redis is away (%s)", type(error).__name__)
            time.sleep(REDIS_PAUSE)


def health() -> dict[str, str]:
    """What is wrong with Redis, the worker or the scheduler, by name; empty if each was seen lately."""
    try:
        ticked = _redis().get(_TICKED_KEY)
        workers = GrafientWorker.all(connection=_redis(), serializer=JSONSerializer)
    except RedisError as error:
        return {"redis": f"does not answer ({type(error).__name__})"}
    problems = {}
    now = utc_now()
    if not any(w.last_heartbeat and (now - w.last_heartbeat).total_seconds() < _SEEN_SECONDS for w in workers):
        problems["worker"] = "no worker was seen in the last 3 minutes"
    if not ticked or (now - datetime.fromisoformat(_text(ticked))).total_seconds() > _SEEN_SECONDS:
        problems["scheduler"] = "no tick was done in the last 3 minutes"
    return problems


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
