"""The schema fits the models in both databases, and SQLite behaves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from flask import Flask
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from grafient import create_app, database
from grafient.extensions import db
from grafient.models import Integration, Workspace
from tests.conftest import environ


def test_the_migrations_make_what_the_models_say(context: Flask) -> None:
    with db.engine.connect() as connection:
        migration = MigrationContext.configure(connection, opts={"render_as_batch": True})
        differences = compare_metadata(migration, db.metadata)
    assert differences == []


def test_an_index_that_says_one_open_run_is_in_the_database(context: Flask) -> None:
    indexes = {index["name"]: index for index in inspect(db.engine).get_indexes("sync_run")}
    assert indexes["uq_sync_run_open"]["unique"]
    assert indexes["uq_sync_run_slot"]["unique"]


def test_what_is_up_to_date_is_not_pending(context: Flask) -> None:
    assert database.pending(db.engine) is False
    database.upgrade(db.engine)


def test_a_database_of_a_newer_version_is_refused_and_left_alone(context: Flask) -> None:
    db.session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    db.session.commit()
    try:
        for ask in (database.pending, database.upgrade):
            with pytest.raises(database.SchemaError, match="made by a newer version of Grafient"):
                ask(db.engine)
        assert db.session.execute(text("SELECT version_num FROM alembic_version")).scalar() == "9999"
    finally:
        db.session.execute(text("UPDATE alembic_version SET version_num = '0002'"))
        db.session.commit()


def test_foreign_keys_are_held(workspace: Workspace) -> None:
    db.session.add(Integration(workspace_id=workspace.id + 1, provider="openrouter", label="x", key_hint=""))
    with pytest.raises(IntegrityError):
        db.session.commit()
    db.session.rollback()


@pytest.fixture
def sqlite(tmp_path: Path, sqlite_template: Path) -> Iterator[Flask]:
    path = tmp_path / "one.db"
    path.write_bytes(sqlite_template.read_bytes())
    app = create_app(environ(f"sqlite:///{path}", "redis://127.0.0.1:1", "http://127.0.0.1:1", str(tmp_path)))
    yield app
    with app.app_context():
        db.session.remove()
        db.engine.dispose()


def test_sqlite_has_its_pragmas(sqlite: Flask) -> None:
    with sqlite.app_context(), db.engine.connect() as connection:
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "busy_timeout")
        }
        assert values == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 15000}


def test_many_writers_that_read_first_are_never_locked_out(sqlite: Flask) -> None:
    errors: list[Exception] = []

    def write() -> None:
        with sqlite.app_context():
            for _ in range(20):
                try:
                    count = db.session.query(Workspace).count()
                    db.session.add(Workspace(plan=f"p{count}"))
                    db.session.commit()
                except Exception as error:  # noqa: BLE001 - whatever it is, the test fails with it
                    errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with sqlite.app_context():
        assert errors == []
        assert db.session.query(Workspace).count() == 120


def test_a_page_that_reads_leaves_writers_as_they_were(sqlite: Flask) -> None:
    sqlite.test_client().get("/login")
    assert database.reading.get() is False
