"""The one queue, and the one kind of job in it."""

from __future__ import annotations

import logging
from typing import Any

from flask import current_app
from redis import Redis, RedisError
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import BaseTimeoutException

log = logging.getLogger(__name__)

QUEUE = "grafient"
SYNC_DUE = "grafient.jobs.work.sync_due"
JOB_TIMEOUT = 3600
"""Longer than claiming and the longest sync together."""

MOST_WAITING = 16
"""Jobs in the queue beyond which another would say nothing new. Without it, a button that was pressed while no worker
was there left a job each time."""

_OF_OLD = ("grafient.jobs.sync_due", "grafient.jobs.tick")
"""What jobs were called before; some may still be in the queue of a Grafient that was just upgraded."""


def connect(url: str, **options: Any) -> Redis:
    """A client for REDIS_URL; opens nothing.

    Heroku's ``rediss://`` has a self-signed certificate: it is encrypted and not verified, unless the address itself
    says ``?ssl_cert_reqs=required``.
    """
    if url.startswith("rediss://"):
        options = {"ssl_cert_reqs": "none", "ssl_check_hostname": False} | options
    return Redis.from_url(url, **({"socket_connect_timeout": 3, "socket_timeout": 5} | options))


class JobFailed(Exception):
    """A job failed. Redis gets this; the reason, which may have anything in it, is in the log alone."""


class GrafientJob(Job):
    """A job in JSON, of one function and no other: whoever can write to Redis can't make a worker run anything else."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["serializer"] = kwargs.get("serializer") or JSONSerializer
        super().__init__(*args, **kwargs)

    def restore(self, raw_data: Any) -> Any:
        restored = super().restore(raw_data)
        self._success_callback_name = self._failure_callback_name = self._stopped_callback_name = None
        self.webhooks = []
        return restored

    def perform(self) -> Any:
        if self.func_name in _OF_OLD:
            return None  # the next tick wakes a worker for whatever it was about
        if self.func_name != SYNC_DUE:
            raise ValueError(f"{self.func_name} is no job of Grafient")
        try:
            return super().perform()
        except BaseTimeoutException:
            raise
        except Exception:
            log.exception("a job failed")
            raise JobFailed("The worker's log says why.") from None


def client() -> Redis:
    """The app's Redis."""
    found: Redis = current_app.extensions["redis"]
    return found


def queue() -> Queue:
    """The one queue."""
    return Queue(QUEUE, connection=client(), job_class=GrafientJob, serializer=JSONSerializer)


def wake() -> None:
    """Have a worker look for due syncs now. If Redis is away, the next tick does it.

    Call it without an open transaction: a Redis that accepts connections and never answers takes 5 seconds to give up
    on, and all the while an open transaction on SQLite keeps every other writer out.
    """
    try:
        if queue().count >= MOST_WAITING:
            return
        queue().enqueue(SYNC_DUE, job_timeout=JOB_TIMEOUT, result_ttl=0, failure_ttl=0)
    except RedisError as error:
        log.warning("Redis is away (%s); the next tick will start what is due", type(error).__name__)
