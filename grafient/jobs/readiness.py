"""Whether what a Grafient needs besides its database is there, for /readyz."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from redis import RedisError, ResponseError
from rq import Worker
from rq.serializers import JSONSerializer
from rq.worker import WorkerStatus

from grafient import disk
from grafient.jobs.queue import GrafientJob, client, queue
from grafient.models import utc_now

_TICKED = "grafient:ticked_at"
_FULL = "grafient:disk_full"
_PROBED = "grafient:probed_at"
SEEN_SECONDS = 180
FULL_SECONDS = 60
"""How long a full disk is remembered after it last got in the way: a minute after there is room, all is well again."""


@dataclass(frozen=True)
class SeenWorker:
    """A worker that Redis knows of."""

    name: str
    host: str
    busy: bool
    seen_at: datetime | None


@dataclass(frozen=True)
class Crew:
    """The workers, when the last tick was done, and how much Redis holds: all keys of its database, all memory."""

    workers: Sequence[SeenWorker]
    ticked_at: datetime | None
    waiting_jobs: int
    redis_keys: int
    redis_bytes: int | None


def crew() -> Crew | None:
    """Who is at work; None if Redis does not answer."""
    try:
        ticked, keys = client().get(_TICKED), client().dbsize()
        workers = _HealthWorker.all(connection=client(), serializer=JSONSerializer)
        waiting = queue().count
    except RedisError:
        return None
    seen = [
        SeenWorker(worker.name, worker.hostname or "", worker.get_state() == WorkerStatus.BUSY, worker.last_heartbeat)
        for worker in workers
    ]
    seen.sort(key=lambda worker: (worker.host, worker.name))
    ticked_at = datetime.fromisoformat(_text(ticked)) if ticked else None
    return Crew(seen, ticked_at, waiting, keys, _memory())


def _memory() -> int | None:
    """Managed Redis may refuse to say."""
    with contextlib.suppress(RedisError):
        return int(client().info("memory")["used_memory"])
    return None


def note_tick(now: datetime) -> None:
    """Let it be known that the scheduler is there. Raises RedisError."""
    client().set(_TICKED, now.isoformat())


def note_full_disk() -> None:
    """Let the web processes know for a while that something could not be stored because a disk is full.

    The disk can be the database server's, which the web process cannot look at.
    """
    with contextlib.suppress(RedisError):
        client().set(_FULL, utc_now().isoformat(), ex=FULL_SECONDS)


def health() -> dict[str, str]:
    """What is wrong with the disk, Redis, the worker or the scheduler, by name; empty if nothing is.

    Redis is also asked to store something: one whose disk is full still answers whatever is read.
    """
    try:
        client().set(_PROBED, utc_now().isoformat(), ex=SEEN_SECONDS)
        ticked, full = client().mget(_TICKED, _FULL)
        workers = _HealthWorker.all(connection=client(), serializer=JSONSerializer)
    except ResponseError as error:
        return {"disk": disk.FULL} if disk.is_why(error) else _no_answer(error)
    except RedisError as error:
        return _no_answer(error)
    problems = {"disk": disk.FULL} if full else {}
    now = utc_now()
    if not any(w.last_heartbeat and (now - w.last_heartbeat).total_seconds() < SEEN_SECONDS for w in workers):
        problems["worker"] = "no worker was seen in the last 3 minutes"
    if not ticked or (now - datetime.fromisoformat(_text(ticked))).total_seconds() > SEEN_SECONDS:
        problems["scheduler"] = "no tick was done in the last 3 minutes"
    return problems


class _HealthWorker(Worker):
    job_class = GrafientJob


def _no_answer(error: RedisError) -> dict[str, str]:
    return {"redis": f"does not answer ({type(error).__name__})"}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
