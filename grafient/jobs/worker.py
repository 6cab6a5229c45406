"""The worker: forks a process for each job, and runs a scheduler beside itself."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from multiprocessing import connection
from typing import Any

from redis import RedisError
from rq import Queue, worker_registration
from rq.exceptions import StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.worker import HerokuWorker

from grafient import database, logs
from grafient.extensions import db
from grafient.jobs.processes import Forked, end_with_parent
from grafient.jobs.queue import GrafientJob, client, queue
from grafient.jobs.schedule import REDIS_PAUSE, run_scheduler

log = logging.getLogger(__name__)

WORKER_TTL = 35
"""RQ's worker waits 15 seconds less than this for a job, and says that it is there in between. A Redis that dies and
comes back empty in the moment after it said so does not know it until the next time: with 90 seconds, /readyz said for
75 that there was no worker.
"""


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


def run_worker() -> None:
    """Work until told to stop, with a scheduler beside. Returns when told to, raises SystemExit if the other died."""
    logs.name_process("worker")
    database.reading.set(False)
    db.engine.dispose()  # no connection is there to be shared with a fork
    scheduler, stopping = Forked(target=_schedule, args=(os.getpid(),), name="scheduler"), threading.Event()
    scheduler.start()
    threading.Thread(target=_stop_with, args=(scheduler, stopping), daemon=True).start()
    try:
        while not _work():
            log.warning("worker: it ended unasked, as with a Redis that goes away; another one goes on")
            time.sleep(REDIS_PAUSE)
    except StopRequested:
        pass  # ordered to during the pause
    finally:
        stopping.set()
        scheduler.terminate()
    if scheduler.wait() not in (0, -signal.SIGTERM):
        raise SystemExit(f"The scheduler beside the worker ended with code {scheduler.exitcode}.")


def _schedule(worker_pid: int) -> None:
    os.environ["TZ"] = "UTC"
    time.tzset()
    run_scheduler(worker_pid)


def _work() -> bool:
    """Work until told to stop. False if RQ's worker ended without being told, as it does if Redis goes away while it
    waits for or finishes a job."""
    worker = GrafientWorker(
        [queue()],
        connection=client(),
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


def _stop_with(scheduler: Forked, stopping: threading.Event) -> None:
    """End this worker when the scheduler ends: without it nothing would be due by itself any more."""
    connection.wait([scheduler.sentinel])
    if not stopping.is_set():
        os.kill(os.getpid(), signal.SIGTERM)
