"""What both databases need said once: SQLite's pragmas and transactions, and whether the schema fits this version."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event, inspect, text

MIGRATIONS = Path(__file__).with_name("migrations")
BUSY_SECONDS = 15

reading: ContextVar[bool] = ContextVar("reading", default=False)
"""Set while nothing is going to be written. SQLite then takes no lock that keeps writers out."""


@contextmanager
def only_reading() -> Iterator[None]:
    """Nothing is written inside: a transaction that begins there keeps no writer waiting."""
    token = reading.set(True)
    try:
        yield
    finally:
        reading.reset(token)


@contextmanager
def writing() -> Iterator[None]:
    """Something is written inside, in a request that otherwise only reads: a transaction that begins there says so."""
    token = reading.set(False)
    try:
        yield
    finally:
        reading.reset(token)


class SchemaError(Exception):
    """The database does not fit this version of Grafient. The message says what to do."""


def prepare(engine: Engine) -> None:
    """Make SQLite behave: foreign keys, WAL, waiting for locks, and transactions that begin when they should."""
    if engine.dialect.name != "sqlite":
        return

    @event.listens_for(engine, "connect")
    def connect(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy's begin event, below, says BEGIN
        for pragma in (
            f"busy_timeout = {BUSY_SECONDS * 1000}",
            "journal_mode = WAL",
            "foreign_keys = ON",
            "synchronous = NORMAL",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        """A transaction that reads and then writes fails at once, whatever the timeout: writers say so first."""
        connection.exec_driver_sql("BEGIN" if reading.get() else "BEGIN IMMEDIATE")


def for_one_statement(engine: Engine) -> Engine:
    """An engine for a statement that is a transaction by itself, so that PostgreSQL is asked two times less.

    SQLite has its own beginnings, above, and is not asked over a wire.
    """
    return engine.execution_options(isolation_level="AUTOCOMMIT") if engine.dialect.name == "postgresql" else engine


def pending(engine: Engine | Connection) -> bool:
    """Whether the schema is older than this version. Raises SchemaError if it is newer; changes nothing."""
    path = engine.engine.url.database
    if engine.dialect.name == "sqlite" and path and not Path(path).exists():
        return True
    with connected(engine) as connection:
        current = revision(connection)
    if current is not None and current not in revisions():
        raise SchemaError(
            f"The database was made by a newer version of Grafient (schema {current}). "
            "Start that version, or restore a backup from before the upgrade; nothing was changed."
        )
    return current != revisions()[-1]


def revisions() -> list[str]:
    """The revisions of the schema that this version knows, the oldest first."""
    return sorted(path.name[:4] for path in MIGRATIONS.glob("versions/[0-9]*.py"))


def revision(connection: Connection) -> str | None:
    """That of a database; None of one in which nothing was made yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def connected(engine: Engine | Connection) -> AbstractContextManager[Connection]:
    """A connection; the very one if it is one, which then stays open."""
    return nullcontext(engine) if isinstance(engine, Connection) else engine.connect()


def upgrade(engine: Engine | Connection, to: str = "head") -> None:
    """Bring the schema to this version, or an earlier one. Raises SchemaError if it is of a newer one.

    On a connection to PostgreSQL all of it becomes part of its transaction, which the caller commits. Alembic is loaded
    where there is something to do, and by nobody else.
    """
    if not pending(engine):
        return
    from alembic import command
    from alembic.config import Config

    if engine.dialect.name == "sqlite" and engine.engine.url.database:
        private_folder(Path(engine.engine.url.database).parent)
    config = Config(attributes={"engine": engine})
    config.set_main_option("script_location", str(MIGRATIONS))
    command.upgrade(config, to)


def private_folder(folder: Path) -> None:
    """Costs are nobody else's business: what is made here is readable to its owner alone."""
    if not folder.exists():
        folder.mkdir(parents=True)
        folder.chmod(0o700)
