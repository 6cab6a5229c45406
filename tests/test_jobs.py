"""RQ carries wake-ups: real Redis, real forked workers, and faults in between."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import redis as redis_py
from flask import Flask
from rq import Queue
from rq.serializers import JSONSerializer
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from grafient import integrations, jobs, runs
from grafient.extensions import db
from grafient.jobs import work as jobs_work
from grafient.jobs.schedule import SCHEDULE, Entry, GrafientScheduler
from grafient.jobs.worker import GrafientWorker
from grafient.models import CostLine, CoveredDay, Integration, SyncRun, Workspace, utc_now
from grafient.models.columns import usd_sum
from grafient.providers import Credits
from grafient.providers.openrouter import OpenRouterReader
from grafient.sandbox import Sandbox
from grafient.states import Trigger
from tests.certificates import self_signed
from tests.syncing import window
from tests.workers import children, end, now, until

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parent.parent
StartWorker = Callable[..., subprocess.Popen[bytes]]


def status(integration_id: int) -> str:
    query = select(SyncRun.status).where(SyncRun.integration_id == integration_id).order_by(SyncRun.id.desc())
    return db.session.execute(query.limit(1)).scalar_one()


@pytest.fixture
def start_worker(context: Flask, settings: dict[str, str]) -> Iterator[StartWorker]:
    """Starts real workers, each with its scheduler, and ends them after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**changed: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "flask", "--app", "wsgi", "worker"]
        environment = {**os.environ, **settings, **changed}
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        end(process)


def scheduler(redis: redis_py.Redis) -> GrafientScheduler:
    return GrafientScheduler(jobs.queue.QUEUE, connection=redis)


def entries(redis: redis_py.Redis) -> dict[str, tuple[object, ...]]:
    found = scheduler(redis).get_jobs(with_times=True)
    return {job.id: (job.meta.get("interval"), job.meta.get("cron_string"), at) for job, at in found}


def windows() -> dict[str, Decimal]:
    """What /activity told of each integration; today is there too, by analytics."""
    sums = select(Integration.label, usd_sum(CostLine.usage_usd)).join_from(CostLine, Integration)
    same_day = (CoveredDay.integration_id == CostLine.integration_id) & (CoveredDay.day == CostLine.day)
    query = sums.join(CoveredDay, same_day).where(CoveredDay.source == "activity")
    return {row[0]: row[1] for row in db.session.execute(query.group_by(Integration.label))}


def test_connecting_shows_costs_within_seconds(
    workspace: Workspace, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    start_worker()
    until(lambda: not jobs.health())
    started = time.monotonic()
    integration_id = integrations.connect(workspace.id, "openrouter", "", sandbox.key("lively")).id
    jobs.wake()
    until(lambda: status(integration_id) == "done")
    assert time.monotonic() - started < 5
    assert windows() == {"OpenRouter": sandbox.truth("lively", *window(sandbox)).usage}


def test_a_worker_killed_in_a_sync_is_replaced_when_its_lease_ends(
    workspace: Workspace, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    first = start_worker()
    sandbox.fault("lively", "slow", times=1, path="/activity")
    integration_id = integrations.connect(workspace.id, "openrouter", "", sandbox.key("lively")).id
    jobs.wake()
    until(lambda: any(request.path.endswith("/activity") for request in sandbox.requests()))
    assert now(lambda: status(integration_id)) == "running"
    end(first)
    assert now(lambda: db.session.execute(select(CostLine.day)).first()) is None
    _end_leases()
    start_worker()
    until(lambda: status(integration_id) == "done")
    run = db.session.execute(select(SyncRun)).scalar_one()
    assert run.attempt == 2


def _scheduler(pid: int) -> int:
    """The scheduler beside a worker; a horse may be there too, at work on a tick."""
    (beside,) = (child for child, name in children(pid).items() if name == "scheduler")
    return beside


def _end_leases() -> None:
    """Let the time pass that a lease lasts."""
    db.session.execute(update(SyncRun).values(lease_until=utc_now() - timedelta(seconds=1)))
    db.session.commit()


def test_a_flushed_redis_loses_nothing(
    workspace: Workspace, sandbox: Sandbox, start_worker: StartWorker, redis: redis_py.Redis
) -> None:
    integration_id = integrations.connect(workspace.id, "openrouter", "", sandbox.key("lively")).id
    jobs.wake()
    redis.flushall()
    start_worker()
    until(lambda: status(integration_id) == "done")
    redis.flushall()
    integrations.force_sync(db.session.get_one(Integration, integration_id))
    until(lambda: status(integration_id) == "done", 60)


def test_two_workers_and_many_wishes_are_one_sync(
    workspace: Workspace, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    start_worker()
    start_worker()
    until(lambda: not jobs.health())
    integration_id = integrations.connect(workspace.id, "openrouter", "", sandbox.key("lively")).id
    for _ in range(20):
        jobs.wake()
    until(lambda: status(integration_id) == "done")
    assert len([r for r in sandbox.requests() if r.path.endswith("/activity") and not r.query]) == 1


THREADS = 16


@pytest.fixture
def crowd(settings: dict[str, str]) -> Iterator[Sandbox]:
    """A provider with many accounts, in place of the usual one."""
    with Sandbox(crowd=THREADS + 1) as crowd:
        opened = crowd.today - timedelta(days=40)  # what each spent in all its life is summed up quickly
        for name, part in crowd.state.cast.items():
            crowd.state.cast[name] = replace(part, account=replace(part.account, opened=opened))
        settings |= {"OPENROUTER_BASE_URL": crowd.base_url, "GRAFIENT_SYNC_THREADS": str(THREADS)}
        yield crowd


def test_many_integrations_are_synced_at_a_time(
    crowd: Sandbox, workspace: Workspace, start_worker: StartWorker
) -> None:
    names = [f"crowd-{number}" for number in range(1, THREADS + 2)]
    workspace.plan = "ultimate"
    db.session.commit()
    for name in names:
        integrations.connect(workspace.id, "openrouter", name, crowd.key(name))
    start_worker()
    unfinished = select(SyncRun.id).where(SyncRun.status != "done")
    until(lambda: db.session.execute(unfinished).first() is None)
    assert windows() == {name: crowd.truth(name, *window(crowd)).usage for name in names}


def test_where_many_are_due_on_postgresql_a_worker_uses_several_processes(
    crowd: Sandbox, workspace: Workspace, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    """SQLite lets one process write at a time. They end with the horse that forked them, however that dies."""
    names, asked, real, goes_on = [f"crowd-{number}" for number in range(1, 7)], [], crowd._provide, threading.Event()

    def provide(request: Request, secret: str | None, name: str | None) -> Response:
        asked.append(name)
        assert goes_on.wait(60)
        return real(request, secret, name)

    for name in names:
        integrations.connect(workspace.id, "openrouter", name, crowd.key(name))
    with monkeypatch.context() as patch:
        patch.setattr(crowd, "_provide", provide)
        worker = start_worker(GRAFIENT_SYNC_THREADS="2", GRAFIENT_SYNC_PROCESSES="3")
        processes = 3 if database_url.startswith("postgresql") else 0
        until(lambda: len(set(asked)) == max(2 * processes, 2))
        (horse,) = (pid for pid, name in children(worker.pid).items() if name != "scheduler")
        copies = children(horse)
        assert [*copies.values()] == ["sync"] * processes
        os.kill(horse, signal.SIGKILL)
        until(lambda: not any(Path(f"/proc/{pid}/comm").exists() for pid in copies))
        goes_on.set()
    unfinished = select(SyncRun.id).where(SyncRun.status != "done")
    db.session.execute(update(SyncRun).values(lease_until=utc_now()))  # as if its two minutes were over
    db.session.commit()
    jobs.wake()
    until(lambda: db.session.execute(unfinished).first() is None)
    assert windows() == {name: crowd.truth(name, *window(crowd)).usage for name in names}


DUE = 60


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_four_workers_share_what_is_due_and_one_that_comes_later_takes_its_part(
    settings: dict[str, str], workspace: Workspace, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has an address of its own for the one provider, which so knows who reads which account."""
    read: Counter[tuple[str | None, str]] = Counter()
    helped = threading.Event()
    with Sandbox(crowd=DUE) as crowd, ExitStack() as stack:
        for name, part in crowd.state.cast.items():
            opened = crowd.today - timedelta(days=5)
            crowd.state.cast[name] = replace(part, account=replace(part.account, opened=opened))
        few = {"GRAFIENT_SYNC_THREADS": "2", "GRAFIENT_SYNC_PROCESSES": "1"}
        settings |= {"OPENROUTER_BASE_URL": crowd.base_url} | few
        for number in range(1, DUE + 1):
            key = crowd.key(f"crowd-{number}")
            integration = Integration(workspace_id=workspace.id, provider="openrouter", label="", key_hint=key[-4:])
            db.session.add(integration)
            db.session.flush()
            integrations._seal(integration, key)
            runs.request(integration.id, Trigger.BACKFILL)
        db.session.commit()
        real = crowd._provide

        def provide(request: Request, secret: str | None, name: str | None) -> Response:
            if request.path.endswith("/activity") and "api_key_hash" not in request.args:
                read[name, request.host] += 1
                if request.host == later:
                    helped.set()
                elif len(read) > DUE // 3:
                    assert helped.wait(50), "half of it is left for the one that comes later"
            return real(request, secret, name)

        def address() -> str:
            server = make_server("127.0.0.1", 0, crowd, threaded=True)
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return f"127.0.0.1:{server.port}"

        first, later = [address() for _ in range(4)], address()
        monkeypatch.setattr(crowd, "_provide", provide)
        for host in first:
            start_worker(OPENROUTER_BASE_URL=f"http://{host}/api/v1")
            jobs.wake()
        until(lambda: len(read) > DUE // 3)
        start_worker(OPENROUTER_BASE_URL=f"http://{later}/api/v1")
        jobs.wake()
        unfinished = select(SyncRun.id).where(SyncRun.status != "done")
        until(lambda: db.session.execute(unfinished).first() is None)
    assert sorted(count for count in Counter(name for name, _ in read).values()) == [1] * DUE
    assert set(read.values()) == {1}
    assert {host for _, host in read} == {*first, later}
    done = db.session.execute(select(SyncRun.integration_id, SyncRun.attempt)).all()
    assert len(done) == len({row.integration_id for row in done}) == DUE
    assert {row.attempt for row in done} == {1}


def test_one_account_that_takes_long_keeps_no_other_waiting(
    context: Flask, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    credits_, released = OpenRouterReader.credits, threading.Event()

    def held_up(self: OpenRouterReader) -> Credits:
        assert self._calls._key != sandbox.key("lively") or released.wait(30)
        return credits_(self)

    def work() -> None:
        with context.app_context():
            jobs.sync_due()

    monkeypatch.setattr(OpenRouterReader, "credits", held_up)
    monkeypatch.setattr(jobs_work, "CLAIM_SECONDS", 0.2)
    slow = integrations.connect(workspace.id, "openrouter", "", sandbox.key("lively")).id
    worker = threading.Thread(target=work)
    worker.start()
    until(lambda: status(slow) == "running")
    time.sleep(1)  # longer than the job would go on claiming, and than one look for others
    quick = integrations.connect(workspace.id, "openrouter", "", sandbox.key("other")).id
    until(lambda: status(quick) == "done")
    assert now(lambda: status(slow)) == "running"
    released.set()
    worker.join(30)
    assert not worker.is_alive()
    assert now(lambda: status(slow)) == "done"


def test_a_job_whose_time_is_up_makes_way_for_another(
    context: Flask, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    integration_id = integrations.connect(workspace.id, "openrouter", "", sandbox.key("lively")).id
    with monkeypatch.context() as hurried:
        hurried.setattr(jobs_work, "CLAIM_SECONDS", 0)
        jobs.sync_due()
    assert (status(integration_id), jobs.queue.queue().count) == ("due", 1)
    jobs.sync_due()
    assert (status(integration_id), jobs.queue.queue().count) == ("done", 1), "nothing is due any more"


def test_garbage_is_looked_for_less_often_during_a_job_and_as_before_after_it(
    context: Flask, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked(self: OpenRouterReader) -> Credits:
        seen.append((gc.get_freeze_count() > 0, gc.get_threshold() > before))
        return Credits(Decimal(1))

    seen: list[tuple[bool, bool]] = []
    before = gc.get_threshold()
    integrations.connect(workspace.id, "openrouter", "", sandbox.key("empty"))
    monkeypatch.setattr(OpenRouterReader, "credits", looked)
    jobs.sync_due()
    assert seen == [(True, True)]
    assert (gc.get_freeze_count(), gc.get_threshold()) == (0, before)


def test_a_fault_of_our_own_is_said_and_tried_again(
    context: Flask,
    workspace: Workspace,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    integration_id = integrations.connect(workspace.id, "openrouter", "", sandbox.key("lively")).id
    with monkeypatch.context() as broken:
        broken.setattr(OpenRouterReader, "credits", lambda self: 1 / 0)
        jobs.sync_due()
    assert "ZeroDivisionError" in caplog.text
    assert sandbox.key("lively") not in caplog.text
    integration = db.session.get_one(Integration, integration_id)
    assert (status(integration_id), integration.problem) == ("due", "fault")
    assert "Grafient itself failed" in (integration.problem_detail or "")
    assert windows(), "the costs were committed before"
    db.session.execute(update(SyncRun).values(next_attempt_at=utc_now()))
    db.session.commit()
    jobs.sync_due()
    assert status(integration_id) == "done"
    db.session.rollback()


def test_a_worker_told_to_stop_stops_with_its_scheduler(start_worker: StartWorker) -> None:
    worker = start_worker()
    until(lambda: not jobs.health())
    beside = _scheduler(worker.pid)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(15) == 0
    assert not Path(f"/proc/{beside}").exists()


def test_a_worker_ends_when_its_scheduler_dies(start_worker: StartWorker) -> None:
    worker = start_worker()
    until(lambda: not jobs.health())
    beside = _scheduler(worker.pid)
    os.kill(beside, signal.SIGKILL)
    assert worker.wait(15) != 0


def test_a_tick_wakes_workers_only_for_what_is_due(
    context: Flask, workspace: Workspace, sandbox: Sandbox, redis: redis_py.Redis
) -> None:
    jobs.tick()
    assert jobs.queue.queue().count == 0
    integrations.connect(workspace.id, "openrouter", "", sandbox.key("lively"))
    jobs.tick()
    jobs.tick()
    assert jobs.queue.queue().count == 1


def test_many_wishes_while_no_worker_is_there_are_few_jobs(context: Flask, redis: redis_py.Redis) -> None:
    for _ in range(100):
        jobs.wake()
    assert jobs.queue.queue().count == jobs.queue.MOST_WAITING


def test_redis_holds_no_more_after_many_jobs_ticks_and_dead_workers(
    workspace: Workspace, sandbox: Sandbox, start_worker: StartWorker, redis: redis_py.Redis
) -> None:
    """Each worker dies in the middle of a job, with others in the queue."""
    integration_id = integrations.connect(workspace.id, "openrouter", "", sandbox.key("lively")).id
    sandbox.fault("lively", "slow")
    left = []
    for _ in range(4):
        _end_leases()
        worker = start_worker()
        until(lambda: not jobs.health())
        for _ in range(20):
            jobs.wake()
            redis.zadd(GrafientScheduler.scheduled_jobs_key, {"grafient-tick": 0})
            scheduler(redis).enqueue_jobs()
        until(lambda: any(one.busy for one in _crew().workers))
        until(lambda: status(integration_id) == "running")
        end(worker)
        left.append(_left(redis))
    assert left[1:] == left[:1] * 3


def _crew() -> jobs.Crew:
    crew = jobs.crew()
    assert crew is not None
    return crew


def _left(redis: redis_py.Redis) -> dict[str, int]:
    """What is in Redis, and how much in each key, after so much time that whatever was given an end has come to it, and
    after what a worker does every minute, with the queue empty."""
    jobs.queue.queue().empty()
    for key in redis.scan_iter():
        if redis.ttl(key) >= 0:
            redis.delete(key)
    for job in redis.zrange("rq:wip:grafient", 0, -1):
        redis.zadd("rq:wip:grafient", {job: 1})
    cleaner = GrafientWorker([jobs.queue.queue()], connection=redis, serializer=JSONSerializer)
    for _ in range(2):
        cleaner.run_maintenance_tasks()
        for key in redis.scan_iter("rq:clean*"):
            redis.delete(key)
    count = {b"set": redis.scard, b"zset": redis.zcard, b"list": redis.llen}
    return {key.decode(): count.get(redis.type(key), lambda _: 1)(key) for key in redis.scan_iter()}


def test_a_redis_that_is_away_stops_no_page(context: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    away = jobs.connect("redis://127.0.0.1:1/0")
    monkeypatch.setitem(context.extensions, "redis", away)
    jobs.wake()
    assert set(jobs.health()) == {"redis"}
    away.close()


class TestSchedule:
    def test_new_entries_come_in_once_however_often(self, context: Flask, redis: redis_py.Redis) -> None:
        for _ in range(3):
            scheduler(redis).reconcile()
        assert set(entries(redis)) == {"grafient-tick", "grafient-daily"}
        daily = entries(redis)["grafient-daily"]
        assert daily[:2] == (None, "0 6 * * *")

    def test_the_same_entry_keeps_a_time_that_was_missed(self, context: Flask, redis: redis_py.Redis) -> None:
        scheduler(redis).reconcile()
        missed = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
        redis.zadd(GrafientScheduler.scheduled_jobs_key, {"grafient-daily": missed.timestamp()})
        scheduler(redis).reconcile()
        assert entries(redis)["grafient-daily"][2] == missed.replace(tzinfo=None)

    def test_a_changed_entry_is_replaced_and_a_removed_one_goes(self, context: Flask, redis: redis_py.Redis) -> None:
        scheduler(redis).reconcile()
        scheduler(redis).reconcile((Entry("grafient-tick", jobs.tick, every=60),))
        assert {name: entry[0] for name, entry in entries(redis).items()} == {"grafient-tick": 60}

    def test_a_tick_that_is_due_is_done_by_the_scheduler_itself(
        self, context: Flask, redis: redis_py.Redis, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        integrations.connect(workspace.id, "openrouter", "", sandbox.key("lively"))
        scheduler(redis).enqueue_jobs()
        assert [job.func_name for job in jobs.queue.queue().jobs] == [jobs.queue.SYNC_DUE]
        assert redis.get("grafient:ticked_at")
        after = entries(redis)
        due = datetime.now(UTC).replace(tzinfo=None)
        assert timedelta(seconds=20) < after["grafient-tick"][2] - due <= timedelta(seconds=31)
        scheduler(redis).enqueue_jobs()
        assert entries(redis) == after, "nothing was due"

    def test_a_scheduler_outlives_a_database_that_is_away(
        self, context: Flask, redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def away(_now: datetime) -> int:
            raise OperationalError("INSERT", {}, Exception("no connection"))

        monkeypatch.setattr(jobs_work.runs, "insert_daily", away)
        scheduler(redis).enqueue_jobs()
        assert [record.levelname for record in caplog.records if "tick failed" in record.message] == ["WARNING"]
        assert redis.get("grafient:ticked_at") is None
        assert "grafient-tick" in entries(redis), "the next tick is due"

    def test_jobs_of_the_version_before_do_nothing(self, context: Flask, redis: redis_py.Redis) -> None:
        old = Queue(jobs.queue.QUEUE, connection=redis, job_class=jobs.queue.GrafientJob)
        for name in ("grafient.jobs.sync_due", "grafient.jobs.tick"):
            old.enqueue(name).perform()

    def test_it_has_to_run_in_utc(self, context: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(time, "tzname", ("CET", "CEST"))
        with pytest.raises(SystemExit, match="TZ=UTC"):
            jobs.run_scheduler()


def test_the_clock_does_not_wait_for_syncs(
    start_worker: StartWorker,
    context: Flask,
    workspace: Workspace,
    sandbox: Sandbox,
    redis: redis_py.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The only worker is busy with an account that takes for ever; ticks go on, and what is due is written."""
    start_worker()
    until(lambda: not jobs.health())
    first = redis.get("grafient:ticked_at")
    slow = integrations.connect(workspace.id, "openrouter", "", sandbox.key("lively")).id
    sandbox.fault("lively", "slow")
    jobs.wake()
    until(lambda: status(slow) == "running")
    other = integrations.connect(workspace.id, "openrouter", "", sandbox.key("other"))
    runs.cancel_open(other.id)
    other.created_at -= timedelta(days=2)
    db.session.commit()
    redis.zadd(GrafientScheduler.scheduled_jobs_key, {"grafient-tick": 0})
    until(lambda: redis.get("grafient:ticked_at") != first)
    assert now(lambda: status(other.id)) != "cancelled", "the daily run was written"
    assert now(lambda: status(slow)) == "running"
    assert jobs.health() == {}


def test_nobody_waits_for_a_redis_that_never_answers(
    context: Flask, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts connections and is silent: each call to it takes seconds, and must hold no lock meanwhile."""
    integrations.connect(workspace.id, "openrouter", "", sandbox.key("lively"))
    asked, written = threading.Event(), list[float]()

    def write() -> None:
        assert asked.wait(30)
        with context.app_context():
            begun = time.monotonic()
            db.session.add(Workspace(plan="free"))
            db.session.commit()
            written.append(time.monotonic() - begun)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        deaf = jobs.connect(f"redis://127.0.0.1:{silent.getsockname()[1]}", socket_timeout=2)
        monkeypatch.setitem(context.extensions, "redis", deaf)
        monkeypatch.setattr(jobs_work, "CLAIM_SECONDS", 0)
        enqueue = jobs.queue.wake

        def watched() -> None:
            asked.set()
            enqueue()

        monkeypatch.setattr(jobs_work.queue, "wake", watched)
        writer = threading.Thread(target=write)
        writer.start()
        begun = time.monotonic()
        jobs.sync_due()
        assert time.monotonic() - begun > 1, "Redis was waited for"
        writer.join()
        deaf.close()
    assert written
    assert written[0] < 1


def test_redis_can_not_make_a_worker_run_anything_else(context: Flask, redis: redis_py.Redis) -> None:
    foreign = Queue(jobs.queue.QUEUE, connection=redis, job_class=jobs.queue.GrafientJob).enqueue("os.getcwd")
    with pytest.raises(ValueError, match="no job of Grafient"):
        foreign.perform()


def test_redis_can_not_add_a_callback_to_a_job_either(context: Flask, redis: redis_py.Redis) -> None:
    jobs.wake()
    (job,) = jobs.queue.queue().jobs
    redis.hset(job.key, mapping={"success_callback_name": "os.getcwd", "failure_callback_name": "os.getcwd"})
    redis.hset(job.key, "webhooks", '[{"url": "http://127.0.0.1:1/", "event": "success"}]')
    job.refresh()
    assert (job.success_callback, job.webhooks) == (None, [])


def test_jobs_carry_no_arguments_and_no_pickle(context: Flask, redis: redis_py.Redis) -> None:
    jobs.wake()
    (job,) = jobs.queue.queue().jobs
    assert (job.args, job.kwargs) == ([], {})
    assert redis.hget(job.key, "data")[:1] != b"\x80"  # where a pickle begins
    scheduler(redis).reconcile()
    assert SCHEDULE


@pytest.fixture
def rediss_port(redis_url: str, tmp_path: Path) -> Iterator[int]:
    """The same Redis behind TLS with a self-signed certificate, as managed ones have it."""
    certificate = self_signed(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with (
                contextlib.suppress(OSError),
                socket.socket(socket.AF_UNIX) as inner,
                tls.wrap_socket(self.request, server_side=True) as outer,
            ):
                inner.connect(redis_url.removeprefix("unix://"))
                back = threading.Thread(target=_pour, args=(inner, outer), daemon=True)
                back.start()
                _pour(outer, inner)
                back.join()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def _pour(source: socket.socket, drain: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            drain.sendall(chunk)
        drain.shutdown(socket.SHUT_RDWR)


def test_a_rediss_address_with_a_self_signed_certificate_works_as_it_comes(rediss_port: int) -> None:
    url = f"rediss://127.0.0.1:{rediss_port}"
    client = jobs.connect(url)
    assert client.ping()
    client.close()
    verified = jobs.connect(f"{url}?ssl_cert_reqs=required")
    with pytest.raises(redis_py.ConnectionError, match="certificate verify failed"):
        verified.ping()
    verified.close()
