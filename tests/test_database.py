"""The schema fits the models in both databases, and SQLite behaves."""

from __future__ import annotations

import gzip
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from msgspec.structs import replace
from sqlalchemy import create_engine, delete, event, func, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import NullPool

from grafient import create_app, database, evidence, ledger, lines, runs
from grafient.extensions import db
from grafient.models import (
    CoveredDay,
    DayCheck,
    Integration,
    KeyReading,
    Membership,
    Restatement,
    SyncRun,
    User,
    Workspace,
)
from grafient.providers import Activity, BilledLine
from grafient.states import Trigger
from tests.conftest import environ
from tests.syncing import by_keys, parts_add_up


def test_the_migrations_make_what_the_models_say(context: Flask) -> None:
    with db.engine.connect() as connection:
        migration = MigrationContext.configure(connection, opts={"render_as_batch": True})
        differences = compare_metadata(migration, db.metadata)
    assert differences == []


def test_an_index_that_says_one_open_run_is_in_the_database(context: Flask) -> None:
    indexes = {index["name"]: index for index in inspect(db.engine).get_indexes("sync_run")}
    assert indexes["uq_sync_run_open"]["unique"]
    assert indexes["uq_sync_run_slot"]["unique"]


def test_a_migration_has_the_number_that_its_file_begins_with() -> None:
    """``pending`` reads no more than the names, so that nobody has to load Alembic to know what is new."""
    scripts = ScriptDirectory(str(database.MIGRATIONS))
    found = [script.revision for script in scripts.walk_revisions()]
    names = sorted((path.name[:4] for path in database.MIGRATIONS.glob("versions/*.py")), reverse=True)
    assert (found, [scripts.get_current_head()]) == (names, names[:1])


def test_what_is_up_to_date_is_not_pending(context: Flask) -> None:
    assert database.pending(db.engine) is False
    database.upgrade(db.engine)


def test_a_database_of_a_newer_version_is_refused_and_left_alone(context: Flask) -> None:
    present = db.session.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    db.session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    db.session.commit()
    try:
        for ask in (database.pending, database.upgrade):
            with pytest.raises(database.SchemaError, match="made by a newer version of Grafient"):
                ask(db.engine)
        assert db.session.execute(text("SELECT version_num FROM alembic_version")).scalar() == "9999"
    finally:
        db.session.execute(text("UPDATE alembic_version SET version_num = :present"), {"present": present})
        db.session.commit()


@pytest.fixture(params=["sqlite", "postgresql"])
def first_version(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Flask]:
    """An app on a database as the first version of Grafient left it, with a failed sync and some costs."""
    url, server = f"sqlite:///{tmp_path}/first.db", None
    if request.param == "postgresql":
        address = make_url(str(request.getfixturevalue("postgres_url"))).set(drivername="postgresql+psycopg")
        server = create_engine(address, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        url = address.set(database="first_version").render_as_string(hide_password=False)
        with server.connect() as connection:
            connection.execute(text("CREATE DATABASE first_version"))
    app = create_app(environ(url, "redis://127.0.0.1:1", "http://127.0.0.1:1", str(tmp_path)))
    with app.app_context():
        database.upgrade(db.engine, "0001")
        for statement in FIRST_VERSION:
            db.session.execute(text(statement), {"reply": gzip.compress(b'{"data": null}')})
        db.session.commit()
        yield app
        db.session.remove()
        db.engine.dispose()
    if server is not None:
        with server.connect() as connection:
            connection.execute(text("DROP DATABASE first_version"))


FIRST_VERSION = (
    "INSERT INTO workspace (id, plan, created_at) VALUES (1, 'ultimate', '2026-06-01 06:00:00')",
    "INSERT INTO integration (id, workspace_id, provider, label, key_hint, created_at) "
    "VALUES (7, 1, 'openrouter', 'One', 'abcd', '2026-06-01 06:00:00')",
    'INSERT INTO sync_run (id, integration_id, "trigger", status, attempt, next_attempt_at, created_at, finished_at, '
    "raw_reply) VALUES (3, 7, 'manual', 'failed', 1, '2026-06-01 06:00:00', '2026-06-01 06:00:00', "
    "'2026-06-01 06:00:05', :reply)",
    'INSERT INTO sync_run (id, integration_id, "trigger", status, attempt, next_attempt_at, created_at) '
    "VALUES (4, 7, 'manual', 'done', 1, '2026-06-02 06:00:00', '2026-06-02 06:00:00')",
    "INSERT INTO cost_line (integration_id, day, permaslug, endpoint_id, host, model, usage_usd, requests) "
    "VALUES (7, '2026-06-01', 'p', 'e', 'h', 'm', '1.000000000001', 5)",
    "INSERT INTO cost_line (integration_id, day, permaslug, endpoint_id, host, model, usage_usd) "
    "VALUES (7, '2026-05-31', 'p', '', '', 'm', '-0.250000000000')",
    "INSERT INTO covered_day (integration_id, day, state, first_run_id, changed_at) "
    "VALUES (7, '2026-06-01', 'final', 4, '2026-06-02 06:00:00')",
)


def test_an_upgrade_from_the_first_version_keeps_what_was_stored(first_version: Flask) -> None:
    database.upgrade(db.engine)
    assert database.pending(db.engine) is False
    found = {(line.day, line.usage_usd, line.requests) for line in lines.stored(7)}
    assert found == {(date(2026, 6, 1), Decimal("1.000000000001"), 5), (date(2026, 5, 31), Decimal("-0.25"), None)}
    assert parts_add_up(7), "what is stored is unattributed"
    assert {row[0]: (row[1], row[2]) for row in db.session.execute(COVERED)} == {
        date(2026, 6, 1): ("final", "activity")
    }
    file = evidence.archive(7, 3)
    assert file is not None
    with file, zipfile.ZipFile(file) as replies:
        assert replies.read("0001.json") == b'{"data": null}'
        assert b"2026-06-01T06:00:05" in replies.read("index.json")
    assert evidence.archive(7, 4) is None
    db.session.rollback()
    with db.engine.connect() as connection:
        migration = MigrationContext.configure(connection, opts={"render_as_batch": True})
        assert compare_metadata(migration, db.metadata) == []


def test_an_upgrade_makes_who_had_a_workspace_its_owner_and_keeps_what_they_had_seen(first_version: Flask) -> None:
    database.upgrade(db.engine, "0009")
    db.session.execute(
        text(
            'INSERT INTO "user" (id, workspace_id, email, password, active, fs_uniquifier, created_at) '
            "VALUES (5, 1, 'one@example.com', 'x', true, 'u', '2026-06-01 06:00:00')"
        )
    )
    db.session.execute(text("INSERT INTO restatement_seen (user_id, integration_id, restatement_id) VALUES (5, 7, 9)"))
    db.session.commit()
    database.upgrade(db.engine)
    assert [(m.user_id, m.workspace_id, m.role) for m in db.session.execute(select(Membership)).scalars()] == [
        (5, 1, "owner")
    ]
    assert db.session.execute(text("SELECT user_id, integration_id, restatement_id FROM restatement_seen")).all() == [
        (5, 7, 9)
    ]
    user = db.session.get_one(User, 5)
    assert (user.email, user.workspace_id) == ("one@example.com", 1)
    db.session.execute(text("DELETE FROM integration"))
    db.session.execute(text("DELETE FROM workspace"))
    db.session.commit()
    assert db.session.get_one(User, 5, populate_existing=True).workspace_id is None


def test_an_upgrade_finds_out_from_the_evidence_which_days_were_read_for_each_key(first_version: Flask) -> None:
    """Each reply on a key spoke of the 30 days before it, if it was a whole one; a day with a line was read too."""
    database.upgrade(db.engine, "0002")
    key, line = (
        {"name": "n", "disabled": False, "read_at": None},
        "INSERT INTO key_line (integration_id, day, permaslug, ",
    )
    line += (
        "endpoint_id, host, key_hash, model, usage_usd) VALUES (7, :day, 'p', 'e', 'h', :hash, 'm', '1.000000000000')"
    )
    for key_hash in ("aaa", "bbb", "ccc"):
        insert = "INSERT INTO api_key (integration_id, key_hash, name, disabled) VALUES (7, :hash, :name, :disabled)"
        db.session.execute(text(insert), {"hash": key_hash} | key)
    for key_hash, day in (("aaa", "2026-06-30"), ("bbb", "2026-03-01"), ("bbb", "2026-03-02"), ("bbb", "2026-03-04")):
        db.session.execute(text(line), {"hash": key_hash, "day": day})
    for number in range(120):  # more than are read at a time
        _reply(f"GET /models?page={number}", "2026-07-01 06:00:00", b"{}")
    _reply("GET /activity?api_key_hash=aaa", "2026-06-15 06:00:00", b'{"data": []}')
    _reply("GET /activity?api_key_hash=aaa", "2026-07-01 06:00:00", b'{"data": []}')
    _reply("GET /activity?api_key_hash=aaa", "2026-07-02 00:10:00", b'{"data": []}')  # the 1st was not settled
    _reply("GET /activity?api_key_hash=ddd", "2026-07-31 23:57:00", b'{"data": []}')  # perhaps answered on the 1st
    _reply("GET /activity?api_key_hash=aaa", "2026-09-01 06:00:00", b'{"error": {"code": 400}}')
    _reply("GET /activity?api_key_hash=ccc", "2026-07-01 06:00:00", b"cut of")
    db.session.commit()
    database.upgrade(db.engine)
    found = db.session.execute(select(KeyReading.key_hash, KeyReading.first_day, KeyReading.last_day))
    assert sorted(map(tuple, found)) == [
        ("aaa", date(2026, 5, 16), date(2026, 6, 30)),
        ("bbb", date(2026, 3, 1), date(2026, 3, 2)),
        ("bbb", date(2026, 3, 4), date(2026, 3, 4)),
        ("ddd", date(2026, 7, 2), date(2026, 7, 30)),
    ]


WIDE_LINES = (
    "INSERT INTO integration (id, workspace_id, provider, label, key_hint, created_at) "
    "VALUES (8, 1, 'openrouter', 'Two', 'abcd', '2026-06-01 06:00:00')",
    "INSERT INTO cost_line (integration_id, day, permaslug, endpoint_id, host, model, usage_usd, byok_usd, requests, "
    "cached_tokens) VALUES (8, '2024-02-29', 'p', 'e', 'h', 'm', '8999998.999999999999', '0.000000000001', 9, 3)",
    "INSERT INTO cost_line (integration_id, day, permaslug, endpoint_id, host, model, usage_usd) "
    "VALUES (8, '2024-02-29', 'p', 'f', 'h', 'm', '-0.000000000001')",
    "INSERT INTO api_key (integration_id, key_hash, name, disabled) VALUES (8, 'aaa', 'n', false)",
    "INSERT INTO key_line (integration_id, day, permaslug, endpoint_id, host, key_hash, model, usage_usd, requests) "
    "VALUES (8, '2024-02-29', 'p', 'e', 'h', 'aaa', 'other', '0.500000000000', 2)",
    "INSERT INTO key_line (integration_id, day, permaslug, endpoint_id, host, key_hash, model, usage_usd) "
    "VALUES (8, '2024-02-29', 'p', 'e', 'h', '', 'm', '8999998.499999999999')",
    "INSERT INTO covered_day (integration_id, day, state, source, first_run_id, changed_at) "
    "VALUES (8, '2024-02-29', 'restated', 'analytics', 4, '2026-06-02 06:00:00')",
    "INSERT INTO day_check (integration_id, day, analytics_usd, checked_at) "
    "VALUES (8, '2024-02-29', '12345678.000000000000', '2026-06-02 06:00:00')",
    "INSERT INTO key_reading (integration_id, key_hash, first_day, last_day) "
    "VALUES (8, 'aaa', '2024-02-28', '2024-03-01')",
    "INSERT INTO restatement (id, integration_id, run_id, changed_at, day, permaslug, endpoint_id, host, "
    "usage_before_usd) VALUES (5, 8, 4, '2026-06-02 06:00:00', '2024-02-29', 'p', 'e', 'h', '-1.250000000000')",
)
LEAP_DAY = date(2024, 2, 29)


class _Interrupted(Exception):
    pass


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_upgrade_makes_lines_narrow_and_keeps_every_figure(first_version: Flask, interrupted: bool) -> None:
    database.upgrade(db.engine, "0003")
    for statement in WIDE_LINES:
        db.session.execute(text(statement))
    db.session.commit()
    if interrupted:
        _interrupt_in_the_second_integration()
    database.upgrade(db.engine)
    whole = BilledLine(LEAP_DAY, "p", "e", "h", "m", Decimal("8999998.999999999999"), Decimal("0.000000000001"), 9)
    whole, tiny = replace(whole, cached_tokens=3), BilledLine(LEAP_DAY, "p", "f", "h", "m", Decimal("-0.000000000001"))
    assert sorted(lines.stored(8), key=lines.identity) == [whole, tiny]
    assert by_keys(8, "aaa") == [BilledLine(LEAP_DAY, "p", "e", "h", "other", Decimal("0.5"), requests=2)]
    assert len(lines.stored(7)) == 2
    assert parts_add_up(7)
    assert parts_add_up(8)
    check, reading = (
        db.session.get_one(DayCheck, (8, LEAP_DAY)),
        db.session.get_one(KeyReading, (8, "aaa", date(2024, 2, 28))),
    )
    assert (check.analytics_usd, reading.last_day) == (Decimal(12345678), date(2024, 3, 1))
    covered, restated = db.session.get_one(CoveredDay, (8, LEAP_DAY)), db.session.get_one(Restatement, 5)
    assert (covered.state, covered.source, covered.digest) == ("restated", "analytics", None)
    assert (restated.day, restated.usage_before_usd, restated.usage_after_usd) == (LEAP_DAY, Decimal("-1.25"), None)
    told = {one.id: one.last_restated_at for one in db.session.execute(select(Integration)).scalars()}
    assert told == {7: None, 8: datetime(2026, 6, 2, 6, tzinfo=UTC)}


def _interrupt_in_the_second_integration() -> None:
    def stop(_c: object, _cursor: object, statement: str, parameters: object, *_more: object) -> None:
        if statement.startswith("INSERT INTO narrowed") and "8" in str(parameters):
            raise _Interrupted

    event.listen(db.engine, "before_cursor_execute", stop)
    with pytest.raises(_Interrupted):
        database.upgrade(db.engine)
    event.remove(db.engine, "before_cursor_execute", stop)
    db.session.remove()
    assert database.pending(db.engine), "the version before can be started again"
    assert db.session.execute(text("SELECT integration_id FROM narrowed")).scalars().all() == [7]
    assert db.session.execute(text("SELECT count(*) FROM cost_line")).scalar_one() == 4
    db.session.rollback()


def test_an_upgrade_refuses_a_day_that_it_could_not_keep(first_version: Flask) -> None:
    database.upgrade(db.engine, "0003")
    for host in ("h", "i"):
        line = "INSERT INTO cost_line (integration_id, day, permaslug, endpoint_id, host, model, usage_usd) "
        db.session.execute(text(line + f"VALUES (7, '2026-05-01', 'p', 'e', '{host}', 'm', '4500000.000000000000')"))
    db.session.commit()
    with pytest.raises(database.SchemaError, match=r"On 2026-05-01 an account has \$9 million or more"):
        database.upgrade(db.engine)
    db.session.remove()
    assert database.pending(db.engine)
    assert db.session.execute(text("SELECT count(*) FROM cost_line")).scalar_one() == 4
    db.session.rollback()


def _reply(request: str, received_at: str, body: bytes) -> None:
    statement = "INSERT INTO raw_reply (run_id, request, received_at, body) VALUES (4, :request, :at, :body)"
    db.session.execute(text(statement), {"request": request, "at": received_at, "body": gzip.compress(body)})


COVERED = select(CoveredDay.day, CoveredDay.state, CoveredDay.source)


def test_an_upgraded_database_goes_on_where_it_was(first_version: Flask) -> None:
    database.upgrade(db.engine)
    db.session.execute(delete(SyncRun).where(SyncRun.id == 4))
    if db.engine.dialect.name == "sqlite":
        runs.request(7, Trigger.MANUAL)
        assert db.session.execute(select(func.max(SyncRun.id))).scalar_one() == 5, "no id is used twice"
    day = Activity.of(
        date(2026, 6, 1), date(2026, 6, 1), [BilledLine(date(2026, 6, 1), "p", "e", "h", "m", Decimal(2))]
    )
    assert ledger.record(7, 3, day, datetime(2026, 6, 3, 6, tzinfo=UTC)).days_restated == 1
    assert parts_add_up(7)
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
