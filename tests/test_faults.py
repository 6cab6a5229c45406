"""What can go wrong around a sync goes wrong here for real: killed processes, a lost Redis, a locked, absent or full
database, a provider that dies, midnight. Afterwards no day is lost, none counts twice, and the states are true.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis as redis_py
import time_machine
from flask import Flask
from sqlalchemy import func, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from werkzeug.wrappers import Request, Response

from grafient import disk, integrations, jobs, runs, status, supervisor, sync
from grafient.days import last_settled
from grafient.extensions import db
from grafient.models import (
    UNATTRIBUTED,
    ApiKey,
    CostLine,
    CoveredDay,
    Integration,
    SyncRun,
    Workspace,
    utc_now,
)
from grafient.models.columns import usd_sum
from grafient.providers.openrouter import calls
from grafient.sandbox import ActivityRow, Sandbox
from grafient.sandbox.server import _QuietHandler
from tests.pages import Pages, lint
from tests.stored import KeyLine
from tests.syncing import at, claim_one, days, on_sqlite, parts_add_up, restatements, run_due, spent_by, with_the_year
from tests.workers import children, end, kill, until

ROOT = Path(__file__).resolve().parent.parent
ACCOUNT = "lively"
MICRO = Decimal("0.000001")
STEP = Decimal("1E-12")

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


# is everything exact?


def assert_true(sandbox: Sandbox, integration_id: int, *, whole: bool = False) -> None:
    """Every settled day equals the truth and none is claimed beyond it, each line is the sum of its parts, and nothing
    was restated, since the provider restates nothing here. ``whole``: the year is all there, and each key's part.

    The year ends with the last day that was settled ten minutes ago: just after midnight the day before is not, and at
    00:31 UTC it is, but the sync may have begun at 00:29. The window is that of ten minutes from now: at 23:56 UTC its
    first day may be gone already by the provider's clock, so that nobody counts on it.
    """
    stored, told = _stored(integration_id), _told(integration_id)
    today = sandbox.today
    now, margin = utc_now(), timedelta(minutes=10)
    year = days(today - timedelta(days=365), today - (now.date() - last_settled(now - margin)))
    window = today + ((now + margin).date() - now.date()) - timedelta(days=30)
    assert max(told, default=today) <= today
    assert stored.keys() <= told.keys()
    for day, (state, source) in told.items():
        if state == "provisional":
            assert day >= today - timedelta(days=1), f"{day} was never settled"
            continue
        rows = sandbox.truth(ACCOUNT, day, day).rows
        assert state == ("final" if rows else "no_usage"), day
        assert stored.get(day, {}) == (_by_endpoint(rows) if source == "activity" else _by_model(rows)), day
    assert parts_add_up(integration_id)
    assert restatements() == 0
    if whole:
        assert {*year} <= told.keys()
        assert [day for day in year if day >= window and told[day][1] != "activity"] == []
        _assert_keys(sandbox, integration_id, window, year[-1])
    db.session.rollback()


_FIGURES = ("usage_usd", "byok_usd", "requests", "prompt_tokens", "completion_tokens", "reasoning_tokens")
_Lines = dict[tuple[str, str, str], tuple[Any, ...]]


def _stored(integration_id: int) -> dict[date, _Lines]:
    names = ("permaslug", "endpoint_id", "host")
    columns = [getattr(CostLine, name) for name in ("day", *names, *_FIGURES)]
    found: dict[date, _Lines] = defaultdict(dict)
    for row in db.session.execute(select(*columns).where(CostLine.integration_id == integration_id)):
        found[row[0]][tuple(row[1:4])] = tuple(row[4:])
    return found


def _told(integration_id: int) -> dict[date, tuple[str, str]]:
    query = select(CoveredDay.day, CoveredDay.state, CoveredDay.source)
    rows = db.session.execute(query.where(CoveredDay.integration_id == integration_id))
    return {row[0]: (row[1], row[2]) for row in rows}


def _by_endpoint(rows: list[ActivityRow]) -> _Lines:
    return {
        (row.model_permaslug, row.endpoint_id, row.provider_name): (
            row.usage.quantize(STEP),
            row.byok_usage_inference.quantize(STEP),
            row.requests,
            row.prompt_tokens,
            row.completion_tokens,
            row.reasoning_tokens,
        )
        for row in rows
    }


def _by_model(rows: list[ActivityRow]) -> _Lines:
    """As analytics tells it: summed per model, USD rounded."""
    sums: dict[str, list[Any]] = defaultdict(lambda: [Decimal(0), Decimal(0), 0, 0, 0, 0])
    for (permaslug, _, _), figures in _by_endpoint(rows).items():
        sums[permaslug] = [one + other for one, other in zip(sums[permaslug], figures, strict=True)]
    return {(name, "", ""): (f[0].quantize(MICRO), f[1].quantize(MICRO), *f[2:]) for name, f in sums.items()}


def _assert_keys(sandbox: Sandbox, integration_id: int, first: date, last: date) -> None:
    """Each key that is listed has spent what it really spent."""
    truth = spent_by(sandbox, ACCOUNT, first, last)
    query = (
        select(ApiKey.name, KeyLine.day, usd_sum(KeyLine.usage_usd))
        .join(ApiKey, (ApiKey.integration_id == KeyLine.integration_id) & (ApiKey.key_hash == KeyLine.key_hash))
        .where(KeyLine.integration_id == integration_id, KeyLine.key_hash != UNATTRIBUTED)
        .where(KeyLine.day.between(first, last))
        .group_by(ApiKey.name, KeyLine.day)
    )
    found: dict[str, dict[date, Decimal]] = defaultdict(dict)
    for name, day, usage in db.session.execute(query):
        found[name][day] = usage
    listed = select(ApiKey.name).where(ApiKey.integration_id == integration_id)
    for name in db.session.execute(listed).scalars():
        assert found.get(name, {}) == truth.get(name, {}), name


# what the tests stand on


StartWorker = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start_worker(context: Flask, settings: dict[str, str]) -> Iterator[StartWorker]:
    """Starts real workers, each with its scheduler, and ends them after the test with all that they started."""
    started: list[subprocess.Popen[bytes]] = []

    def start(prepare: Callable[[], None] | None = None, **changed: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", "wsgi", "worker"],
            cwd=ROOT,
            env={**os.environ, **settings, **changed},
            start_new_session=True,
            stderr=subprocess.DEVNULL,
            preexec_fn=prepare,
        )
        started.append(process)
        until(lambda: not jobs.health())
        return process

    yield start
    for process in started:
        end(process)


def horses(worker: subprocess.Popen[bytes]) -> list[int]:
    return [child for child, name in children(worker.pid).items() if name != "scheduler"]


@dataclass
class Watch:
    """Looks at what is asked of the sandbox, and makes its answers slower."""

    pause: float = 0.0
    asked: int = 0
    before: Callable[[Request], None] | None = None
    after: Callable[[Request], None] | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, real: Callable[..., Response], request: Request, *rest: Any) -> Response:
        with self._changed:
            self.asked += 1
            self._changed.notify_all()
        if self.before:
            self.before(request)
        time.sleep(self.pause)
        response = real(request, *rest)
        if self.after:
            self.after(request)
        return response

    def wait_for(self, number: int) -> None:
        """Until so many requests have come since ``asked`` was set to 0."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.asked >= number, 30)


@pytest.fixture
def watch(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch, real = Watch(), sandbox._provide
    monkeypatch.setattr(sandbox, "_provide", lambda *args: watch(real, *args))
    sandbox.settings.analytics_per_minute = 100_000
    return watch


@pytest.fixture
def year(workspace: Workspace, sandbox: Sandbox) -> Workspace:
    """A workspace whose plan reaches a year back, where the account had usage on every third day, for speed."""
    for day in days(sandbox.today - timedelta(days=480), sandbox.today):
        if day.toordinal() % 3:
            sandbox.drop_day(ACCOUNT, day)
        else:
            sandbox.truth(ACCOUNT, day, day)  # which the sandbox works out once
    return with_the_year(workspace)


def connect(workspace: Workspace, sandbox: Sandbox) -> int:
    integration_id = integrations.connect(workspace.id, "openrouter", "", sandbox.key(ACCOUNT), twice=True).id
    db.session.rollback()
    return integration_id


def latest(integration_id: int) -> SyncRun:
    query = select(SyncRun).where(SyncRun.integration_id == integration_id).order_by(SyncRun.id.desc())
    return db.session.execute(query.limit(1).execution_options(populate_existing=True)).scalar_one()


def is_done(integration_id: int) -> bool:
    return latest(integration_id).status == "done"


def end_leases() -> None:
    """Let the time pass that leases last, and the pauses before another attempt."""
    past = utc_now() - timedelta(seconds=1)
    db.session.execute(update(SyncRun).where(SyncRun.status == "running").values(lease_until=past))
    db.session.commit()
    end_pauses()


def end_pauses() -> None:
    """Let the time pass before another attempt, and have a worker look."""
    now = utc_now()
    waiting = update(SyncRun).where(SyncRun.status == "due", SyncRun.next_attempt_at > now)
    ended = db.session.execute(waiting.values(next_attempt_at=now - timedelta(seconds=1)))
    db.session.commit()
    if ended.rowcount:
        jobs.wake()


def until_worked(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for something that workers do, without the pauses between their attempts.

    Ending the pauses once is not enough. A worker gives up 0.7 to 3.4 seconds after its provider died; one that does
    so just after the pauses were ended puts its run off by another minute, and nothing happens in time.
    """
    end_leases()
    jobs.wake()

    def met() -> object:
        end_pauses()
        return condition()

    until(met, seconds)


def go_on(*integration_ids: int) -> None:
    """Let workers take up what is left, until it is done."""
    until_worked(lambda: all(is_done(one) for one in integration_ids), 90)


def says_up_to_date(integration_id: int) -> bool:
    card = status.card(db.session.get_one(Integration, integration_id))
    db.session.rollback()
    return card.state == "Up to date"


# the worker dies

MOMENTS = 12


@pytest.mark.long
@pytest.mark.processes
def test_a_year_is_read_whole_whenever_its_worker_is_killed(
    year: Workspace, sandbox: Sandbox, watch: Watch, start_worker: StartWorker
) -> None:
    """Each of many first syncs is killed at another moment, from its first request to its last commit."""
    watch.pause = 0.02
    worker = start_worker()
    requests = _requests(year, sandbox, watch)
    ids, killed = [], 0
    for number in range(MOMENTS):
        ids.append(connect(year, sandbox))
        watch.asked = 0
        jobs.wake()
        watch.wait_for(1 + requests * number // MOMENTS)
        time.sleep(watch.pause * (number % 3))  # while it waits for the reply, reads it, or writes it
        for horse in horses(worker):
            kill(horse)
            killed += 1
        until(lambda: not horses(worker))
        assert_true(sandbox, ids[-1])
        assert not says_up_to_date(ids[-1]) or is_done(ids[-1])
    assert killed >= MOMENTS - 2, "the syncs were over before they could be killed"
    assert worker.poll() is None
    go_on(*ids)
    for one in ids:
        assert_true(sandbox, one, whole=True)


def _requests(workspace: Workspace, sandbox: Sandbox, watch: Watch) -> int:
    """How many a whole first sync takes."""
    integration_id = connect(workspace, sandbox)
    watch.asked = 0
    jobs.wake()
    until(lambda: is_done(integration_id))
    assert_true(sandbox, integration_id, whole=True)
    return watch.asked


@pytest.mark.processes
def test_a_year_is_read_whole_though_worker_and_scheduler_are_killed(
    year: Workspace, sandbox: Sandbox, watch: Watch, start_worker: StartWorker
) -> None:
    watch.pause = 0.02
    integration_id = connect(year, sandbox)
    for request in (1, 6):
        watch.asked = 0
        worker = start_worker()
        end_leases()
        jobs.wake()
        watch.wait_for(request)
        below, at_work = children(worker.pid), horses(worker)
        worker.kill()
        worker.wait()
        try:
            until(lambda at_work=at_work: not any(_lives(horse) for horse in at_work), 15)
        finally:
            for child in filter(_lives, below):  # the scheduler takes some seconds to see it
                kill(child)
        assert_true(sandbox, integration_id)
    start_worker()
    go_on(integration_id)
    assert_true(sandbox, integration_id, whole=True)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.processes
@on_sqlite
def test_any_number_of_wishes_and_workers_is_one_sync_at_a_time(
    year: Workspace, sandbox: Sandbox, watch: Watch, start_worker: StartWorker
) -> None:
    lock, most = threading.Lock(), 0
    under_way: Counter[str] = Counter()

    def before(request: Request) -> None:
        nonlocal most
        with lock:
            under_way[request.path] += 1
            most = max(most, under_way[request.path])

    def after(request: Request) -> None:
        with lock:
            under_way[request.path] -= 1

    start_worker()
    start_worker()
    integration_id = connect(year, sandbox)
    watch.before, watch.after, watch.pause = before, after, 0.02
    for _ in range(40):
        integrations.force_sync(db.session.get_one(Integration, integration_id))
        jobs.wake()
    until(lambda: is_done(integration_id))
    until(lambda: jobs.queue.queue().count == 0 and is_done(integration_id))
    windows = [r for r in sandbox.requests() if r.path.endswith("/activity") and "api_key_hash" not in r.query]
    done = select(func.count()).where(SyncRun.integration_id == integration_id, SyncRun.status == "done")
    assert len(windows) == db.session.execute(done).scalar_one()
    assert most == 1, "a sync never asks the same address twice at once"
    assert_true(sandbox, integration_id, whole=True)


# Redis dies


class MortalRedis:
    """A Redis of its own for the app and the workers, that can be killed, and begun again with nothing in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.start()

    def start(self) -> None:
        shutil.rmtree(self._folder / "redis", ignore_errors=True)
        child, self.url = supervisor.start_redis(self._folder)
        self._process = child.process

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def mortal_redis(settings: dict[str, str]) -> Iterator[MortalRedis]:
    folder = Path(tempfile.mkdtemp(prefix="grafient-"))
    mortal = MortalRedis(folder)
    settings["REDIS_URL"] = mortal.url
    yield mortal
    mortal.kill()
    shutil.rmtree(folder)


@pytest.mark.processes
@on_sqlite
def test_a_sync_that_is_wanted_while_redis_is_dead_happens(
    mortal_redis: MortalRedis, year: Workspace, sandbox: Sandbox, watch: Watch, start_worker: StartWorker
) -> None:
    worker = start_worker()
    until(lambda: not horses(worker) and jobs.queue.queue().count == 0)
    mortal_redis.kill()
    integration_id = connect(year, sandbox)
    jobs.wake()  # nobody hears it
    assert set(jobs.health()) == {"redis"}
    mortal_redis.start()
    until(lambda: is_done(integration_id))
    assert worker.poll() is None
    assert_true(sandbox, integration_id, whole=True)


@pytest.mark.processes
@on_sqlite
def test_redis_may_die_in_the_middle_of_a_sync(
    mortal_redis: MortalRedis, year: Workspace, sandbox: Sandbox, watch: Watch, start_worker: StartWorker
) -> None:
    worker = start_worker()
    watch.pause = 0.02
    integration_id = connect(year, sandbox)
    watch.asked = 0
    jobs.wake()
    watch.wait_for(3)
    mortal_redis.kill()
    until(lambda: is_done(integration_id))
    assert_true(sandbox, integration_id, whole=True)
    integrations.force_sync(db.session.get_one(Integration, integration_id))
    assert not is_done(integration_id)
    mortal_redis.start()
    until(lambda: is_done(integration_id))
    assert worker.poll() is None
    assert_true(sandbox, integration_id, whole=True)


@pytest.mark.long
@pytest.mark.processes
@on_sqlite
def test_a_worker_survives_a_redis_that_dies_at_any_moment(
    mortal_redis: MortalRedis, year: Workspace, sandbox: Sandbox, watch: Watch, start_worker: StartWorker
) -> None:
    """RQ's own worker does in its pauses alone, and ends if Redis dies around a job."""
    worker = start_worker()
    until(lambda: not horses(worker) and jobs.queue.queue().count == 0)
    jobs.queue.client().flushall()  # as one that came back empty while the worker waits for a job
    assert "worker" in jobs.health()
    until(lambda: not jobs.health(), 45)  # 20 are enough where nothing else is busy; it took 75 once
    for number in range(6):
        jobs.wake()
        until(lambda: horses(worker))
        time.sleep(0.02 * number)
        mortal_redis.kill()
        mortal_redis.start()
        until(lambda: not jobs.health() and not horses(worker) and jobs.queue.queue().count == 0)
    assert worker.poll() is None
    integration_id = connect(year, sandbox)
    jobs.wake()
    until(lambda: is_done(integration_id))
    assert_true(sandbox, integration_id, whole=True)


# the database is away


@pytest.mark.processes
@on_sqlite
def test_a_locked_sqlite_is_waited_for(
    year: Workspace, sandbox: Sandbox, watch: Watch, start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker()
    lock = sqlite3.connect(tmp_path / "grafient.db", isolation_level=None, check_same_thread=False)
    integration_id = connect(year, sandbox)

    def hold(request: Request) -> None:
        if watch.asked == 1:  # for the costs
            lock.execute("BEGIN IMMEDIATE")

    watch.before, watch.asked = hold, 0
    jobs.wake()
    watch.wait_for(1)
    time.sleep(3)  # several times as long as the sync takes
    assert lock.in_transaction
    assert latest_status(tmp_path) == "running"
    lock.execute("ROLLBACK")
    lock.close()
    until(lambda: is_done(integration_id))
    assert latest(integration_id).attempt == 1
    assert_true(sandbox, integration_id, whole=True)


def latest_status(folder: Path) -> str:
    """Asked with a reading connection, which no lock keeps out."""
    with contextlib.closing(sqlite3.connect(folder / "grafient.db", isolation_level=None)) as reading:
        found: str = reading.execute("SELECT status FROM sync_run ORDER BY id DESC LIMIT 1").fetchone()[0]
        return found


class Proxy:
    """A door to PostgreSQL that can be shut: connections are cut, new ones refused."""

    def __init__(self, server: str) -> None:
        self._server, self._pairs, self._lock = server, set[socket.socket](), threading.Lock()
        self._listener = self._listen(0)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _listen(self, port: int) -> socket.socket:
        return socket.create_server(("127.0.0.1", port), backlog=64)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                outer = listener.accept()[0]
            except OSError:
                return
            inner = socket.socket(socket.AF_UNIX)
            inner.connect(self._server)
            with self._lock:
                self._pairs |= {outer, inner}
            for pair in ((outer, inner), (inner, outer)):
                threading.Thread(target=self._pour, args=pair, daemon=True).start()

    def _pour(self, source: socket.socket, drain: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                drain.sendall(chunk)
        for side in (source, drain):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._pairs -= {source, drain}
        source.close()

    def shut(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for one in self._pairs:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def open(self) -> None:
        self._listener = self._listen(self.port)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()


@pytest.mark.processes
@on_postgresql
@pytest.mark.parametrize("request_number", [1, 7])
def test_a_postgresql_that_goes_away_for_a_while_costs_nothing(
    year: Workspace,
    sandbox: Sandbox,
    watch: Watch,
    start_worker: StartWorker,
    database_url: str,
    request_number: int,
) -> None:
    address = make_url(database_url)
    proxy = Proxy(_server_socket(address))
    through = address.set(host="127.0.0.1", port=proxy.port, query={})
    worker = start_worker(DATABASE_URL=through.render_as_string(hide_password=False))
    integration_id = connect(year, sandbox)
    watch.pause, watch.asked = 0.02, 0
    jobs.wake()
    watch.wait_for(request_number)
    proxy.shut()
    until(lambda: not horses(worker))
    assert_true(sandbox, integration_id)
    assert not is_done(integration_id)
    proxy.open()
    go_on(integration_id)
    assert_true(sandbox, integration_id, whole=True)
    assert worker.poll() is None
    proxy.shut()


def _server_socket(address: Any) -> str:
    folder = address.query.get("host") or address.host
    return f"{folder}/.s.PGSQL.{address.port or 5432}"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own for the database; only root can mount one."""
    mounting = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", tmp_path], capture_output=True)
    if mounting.returncode:
        pytest.skip(f"no disk could be mounted: {mounting.stderr.decode().strip()}")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


@pytest.mark.processes
@on_sqlite
@pytest.mark.parametrize("room", [0, 100_000, 300_000])
def test_a_full_disk_leaves_nothing_half_written(
    small_disk: Path, year: Workspace, sandbox: Sandbox, watch: Watch, start_worker: StartWorker, room: int
) -> None:
    """Something else fills the disk, but for some bytes, when a first sync is wanted."""
    integration_id = connect(year, sandbox)
    filler = small_disk / "filler"
    worker = start_worker()
    with contextlib.suppress(OSError), filler.open("wb") as full:
        full.write(bytes(shutil.disk_usage(small_disk).free - room))
    _want_of_room(worker, integration_id, sandbox)
    filler.unlink()
    _read_what_did_not_fit(worker, integration_id, sandbox, small_disk)


@pytest.fixture
def fill(small_disk: Path) -> Callable[[], Path]:
    """Fills the disk; what comes back is the file to delete for room."""

    def now() -> Path:
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as full:
            for size in (65536, 4096, 1):
                with contextlib.suppress(OSError):
                    while full.write(b"x" * size) == size:
                        pass
        return filler

    return now


@on_sqlite
def test_a_full_disk_is_said_on_pages_in_readyz_and_in_one_line_of_the_log(
    small_disk: Path,
    fill: Callable[[], Path],
    app: Flask,
    pages: Pages,
    sandbox: Sandbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pages.connect(sandbox.key(ACCOUNT))
    with app.app_context():
        run_due()
    assert disk.FULL not in pages.get("/integrations").text
    token = pages.token("/integrations")
    with app.app_context():
        for _ in range(300):  # room that SQLite has in its files already
            db.session.add(Workspace(plan="free"))
            db.session.commit()
    filler = fill()
    caplog.clear()
    refused = _post_until_full(pages, token)
    assert (refused.status_code, disk.FULL in refused.text) == (507, True)
    lint(refused.text)
    assert {record.getMessage() for record in caplog.records if record.levelname == "ERROR"} == {disk.FULL}
    for path in ("/", "/integrations", "/integrations/1"):
        assert disk.FULL in pages.get(path).text
    assert pages.client.get("/readyz").json["problems"]["disk"] == disk.FULL
    filler.unlink()
    assert disk.FULL not in pages.get("/integrations").text
    assert "disk" not in pages.client.get("/readyz").json["problems"]
    pages.post("/integrations/1/sync", 303, "/integrations")
    with app.app_context():
        run_due()
    assert "Up to date" in pages.get("/integrations/1/card").text


def _post_until_full(pages: Pages, token: str) -> Any:
    """Pause and resume until SQLite wants another page of the disk."""
    for number in range(500):
        action = ("pause", "resume")[number % 2]
        answer = pages.client.post(f"/integrations/1/{action}", data={"csrf_token": token})
        if answer.status_code != 303:
            return answer
    raise AssertionError("the disk was never full")


@pytest.mark.processes
@on_sqlite
def test_a_redis_whose_disk_is_full_says_so_and_recovers(
    small_disk: Path, fill: Callable[[], Path], context: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    child, url = supervisor.start_redis(small_disk)
    client = jobs.connect(url)
    monkeypatch.setitem(context.extensions, "redis", client)

    def is_refused() -> bool:
        try:
            client.set("filling", "x" * 100_000)
        except redis_py.ResponseError as error:
            return disk.is_why(error)
        return False

    try:
        filler = fill()
        until(is_refused)
        assert jobs.health()["disk"] == disk.FULL
        jobs.wake()
        filler.unlink()
        until(lambda: not is_refused())
        assert "disk" not in jobs.health()
    finally:
        client.close()
        child.process.terminate()
        child.process.wait()


@on_sqlite
def test_every_way_to_say_that_a_disk_is_full_is_understood(context: Flask) -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    assert disk.is_why(OperationalError("INSERT", {}, full))
    assert disk.is_why(OperationalError("INSERT", {}, psycopg.errors.DiskFull("no space left on device")))
    assert disk.is_why(OSError(errno.ENOSPC, "No space left on device"))
    assert not disk.is_why(OperationalError("INSERT", {}, sqlite3.OperationalError("database is locked")))
    assert not disk.is_why(OperationalError("INSERT", {}, psycopg.errors.AdminShutdown("ended")))
    assert not disk.is_why(redis_py.ResponseError("WRONGTYPE"))
    assert not disk.is_why(FileNotFoundError(errno.ENOENT, "none"))


@pytest.mark.processes
@on_sqlite
@pytest.mark.parametrize("room", [40_000, 150_000])
def test_a_database_that_can_not_grow_leaves_nothing_half_written(
    year: Workspace, sandbox: Sandbox, watch: Watch, start_worker: StartWorker, tmp_path: Path, room: int
) -> None:
    """The worker may make no file larger than the database is, and a little."""
    integration_id = connect(year, sandbox)
    db.session.remove()
    db.engine.dispose()  # the last connection to close empties the journal
    most = (tmp_path / "grafient.db").stat().st_size + room

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    worker = start_worker(limit)
    _want_of_room(worker, integration_id, sandbox)
    end(worker)
    assert_true(sandbox, integration_id)
    _read_what_did_not_fit(start_worker(), integration_id, sandbox, tmp_path)


def _want_of_room(worker: subprocess.Popen[bytes], integration_id: int, sandbox: Sandbox) -> None:
    jobs.wake()
    until(lambda: jobs.queue.queue().count == 0)
    time.sleep(0.5)  # from taking a job to having a horse for it
    until(lambda: not horses(worker) and jobs.queue.queue().count == 0)
    assert not is_done(integration_id)
    assert_true(sandbox, integration_id)
    assert not says_up_to_date(integration_id)


def _read_what_did_not_fit(
    worker: subprocess.Popen[bytes], integration_id: int, sandbox: Sandbox, folder: Path
) -> None:
    go_on(integration_id)
    assert worker.poll() is None
    assert_true(sandbox, integration_id, whole=True)
    with contextlib.closing(sqlite3.connect(folder / "grafient.db")) as check:
        assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# the provider dies


class MortalProvider:
    """The sandbox as a process of its own, that can be killed and started again at its address."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self.port}/api/v1"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "grafient.sandbox", "--port", str(self.port)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith(b"Sandbox at")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def control(self, path: str, what: dict[str, Any] | None = None) -> Any:
        body = None if what is None else json.dumps(what).encode()
        headers = {"Content-Type": "application/json"}
        method = "GET" if what is None else "PUT" if path == "settings" else "POST"
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/sandbox/{path}", data=body, headers=headers, method=method
        )
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.load(reply)

    def asked(self) -> int:
        """How many requests of a sync have come."""
        found = self.control("requests")["requests"]
        return sum(1 for one in found if not one["path"].endswith("/auth/key"))


@pytest.fixture
def provider(settings: dict[str, str]) -> Iterator[MortalProvider]:
    provider = MortalProvider()
    settings["OPENROUTER_BASE_URL"] = provider.base_url
    yield provider
    if provider.process.poll() is None:
        provider.kill()


@pytest.mark.long
@pytest.mark.processes
@on_sqlite
def test_a_provider_that_dies_in_the_middle_is_waited_for(
    provider: MortalProvider, workspace: Workspace, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    start_worker()
    integration_id = connect(with_the_year(workspace), sandbox)
    for path, requests in (("/activity", 1), ("/analytics/query", 4), (None, 9)):
        if path:  # an answer that goes on for ever, cut by the death
            provider.control("fault", {"key": ACCOUNT, "fault": "drip-body", "times": 1, "path": path})
        until_worked(lambda requests=requests: provider.asked() >= requests)
        provider.kill()
        assert_true(sandbox, integration_id)
        provider.start()
    until(lambda: latest(integration_id).status in ("done", "due"))
    go_on(integration_id)
    assert_true(sandbox, integration_id, whole=True)


@on_sqlite
@pytest.mark.parametrize(
    ("path", "times"),
    [("/activity", 3), ("/activity", None), ("/analytics/query", 5), ("/analytics/query", None), ("/keys", None)],
)
def test_replies_that_are_cut_are_no_replies(
    year: Workspace, sandbox: Sandbox, watch: Watch, monkeypatch: pytest.MonkeyPatch, path: str, times: int | None
) -> None:
    monkeypatch.setattr(calls, "_jitter", lambda state: 0)
    integration_id = connect(year, sandbox)
    sandbox.fault(ACCOUNT, "cut", times, path)
    work()
    assert_true(sandbox, integration_id)
    if times is None:
        assert status.card(db.session.get_one(Integration, integration_id)).state == "Retrying"
        assert latest(integration_id).status == "due"
    sandbox.fault(ACCOUNT, None)
    end_leases()
    work()
    assert says_up_to_date(integration_id)
    assert_true(sandbox, integration_id, whole=True)


def work() -> None:
    """Do here what is due, as a worker does."""
    while (claim := claim_one(utc_now())) is not None:
        db.session.commit()
        sync.perform(claim)
    db.session.rollback()
    db.session.expire_all()


# midnight

DAY = date(2026, 8, 20)
MIDNIGHT = datetime(2026, 8, 21, tzinfo=UTC)


@on_sqlite
@pytest.mark.parametrize(
    ("request_number", "answered"), [(1, "before"), (1, "after"), (5, "before"), (5, "after"), (6, "after")]
)
def test_midnight_on_the_way_of_a_reply(
    year: Workspace, sandbox: Sandbox, watch: Watch, request_number: int, answered: str
) -> None:
    """The provider may find what it answers before midnight or after it."""
    turn = itertools.count(1)

    def slowly(request: Request) -> None:
        if next(turn) == request_number:
            while utc_now() < MIDNIGHT:
                time.sleep(0.01)

    with at(MIDNIGHT - timedelta(seconds=60)):
        integration_id = connect(year, sandbox)
    setattr(watch, "before" if answered == "after" else "after", slowly)
    with at(MIDNIGHT - timedelta(seconds=0.7)):
        work()
        assert_true(sandbox, integration_id)
        assert latest(integration_id).status == "done"
        watch.before = watch.after = None
        _settle(integration_id, sandbox)


def _settle(integration_id: int, sandbox: Sandbox, after: timedelta = timedelta(hours=6)) -> None:
    """The sync of the morning after makes everything exact, and restates nothing."""
    with at(MIDNIGHT + after):
        assert runs.insert_daily(utc_now()) in (0, 1)
        db.session.commit()
        integrations.force_sync(db.session.get_one(Integration, integration_id))
        work()
        assert_true(sandbox, integration_id, whole=True)


@on_sqlite
@pytest.mark.parametrize("request_number", [2, 4, 5])
def test_a_machine_that_sleeps_in_the_middle_of_a_sync_settles_no_day_too_early(
    year: Workspace, sandbox: Sandbox, watch: Watch, request_number: int
) -> None:
    """A laptop is shut in the evening and opened in the morning: what was told of the day then was not all of it."""
    today, turn = MIDNIGHT.date() - timedelta(days=1), itertools.count(1)
    with time_machine.travel(MIDNIGHT - timedelta(minutes=15), tick=True) as traveller:
        integration_id = connect(year, sandbox)

        def sleep(request: Request) -> None:
            if next(turn) == request_number:
                traveller.move_to(MIDNIGHT + timedelta(hours=8))

        watch.after = sleep
        work()
        watch.after = None
        assert (_told(integration_id)[today][1] == "activity") or _told(integration_id)[today][0] == "provisional"
    _settle(integration_id, sandbox, timedelta(hours=9))


def of_its_own_clock(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sandbox's replies be dated by the day it plays."""
    off = timedelta(days=(sandbox.today - utc_now().date()).days)
    dated = lambda self, timestamp=None: format_datetime(utc_now() + off, usegmt=True)  # noqa: E731
    monkeypatch.setattr(_QuietHandler, "date_time_string", dated)


@on_sqlite
@pytest.mark.parametrize("hour", [0, 12])
@pytest.mark.parametrize("ahead", [-1, 1])
def test_a_provider_whose_clock_is_a_day_off(
    year: Workspace, sandbox: Sandbox, watch: Watch, monkeypatch: pytest.MonkeyPatch, hour: int, ahead: int
) -> None:
    with at(datetime(2026, 8, 21, hour, 10, tzinfo=UTC)) as moment:
        sandbox.today = moment.date() + timedelta(days=ahead)
        with monkeypatch.context() as patch:
            of_its_own_clock(sandbox, patch)
            integration_id = connect(year, sandbox)
            work()
        sandbox.today = None
        _assert_nothing_false(sandbox, integration_id)
    _settle(integration_id, sandbox, timedelta(days=1, hours=6))


@on_sqlite
@pytest.mark.parametrize("ahead", [-1, 1])
def test_a_backend_whose_midnight_is_two_seconds_off(
    workspace: Workspace, sandbox: Sandbox, watch: Watch, ahead: int
) -> None:
    """What answers has another clock than what dates the answer; a day with usage must not be told to be without."""
    moment = MIDNIGHT + timedelta(days=1, seconds=-2) if ahead > 0 else MIDNIGHT + timedelta(seconds=2)
    with at(MIDNIGHT - timedelta(hours=12)):
        integration_id = connect(workspace, sandbox)
        work()
    with at(moment):
        sandbox.today = utc_now().date() + timedelta(days=ahead)
        integrations.force_sync(db.session.get_one(Integration, integration_id))
        work()
        sandbox.today = None
        _assert_nothing_false(sandbox, integration_id)


def _assert_nothing_false(sandbox: Sandbox, integration_id: int) -> None:
    """No settled day without the usage that it had, and today is not settled."""
    stored, told = _stored(integration_id), _told(integration_id)
    today = utc_now().date()
    for day, (state, source) in told.items():
        if state == "provisional":
            continue
        assert day < today, f"{day} is not over, and was settled"
        rows = sandbox.truth(ACCOUNT, day, day).rows
        assert stored.get(day, {}) == (_by_endpoint(rows) if source == "activity" else _by_model(rows)), day
    assert restatements() == 0
    db.session.rollback()
