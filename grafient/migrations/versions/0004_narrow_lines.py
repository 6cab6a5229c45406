"""Lines that are narrow: their names once in a series, USD as 64-bit integers, totals of each day and model.

The lines of one integration are copied in one transaction each, so that an upgrade which is interrupted goes on with
the next integration when it is started again. What is there already stays readable until the last transaction, which
takes the old tables away and says that the schema is of this version.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

from contextlib import nullcontext

import sqlalchemy as sa
from alembic import op

from grafient.database import SchemaError

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_DAY = sa.Date().with_variant(sa.Integer(), "sqlite")
_NAMES = "permaslug, endpoint_id, host"
_COUNTS = ("requests", "byok_requests", "prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens")
_COUNTED = ("byok_usd", *(name for name in _COUNTS if name != "byok_requests"))
_LIMIT_USD = 9_000_000


def upgrade() -> None:
    with nullcontext() if _is_part_of_a_transaction() else op.get_context().autocommit_block():
        connection = op.get_bind()
        if not sa.inspect(connection).has_table("narrowed"):
            _refuse_what_is_too_large(connection)
            _in_one_transaction(connection, _create)
        for integration_id in connection.execute(sa.text(_LEFT)).scalars().all():
            _in_one_transaction(connection, lambda one=integration_id: _copy(connection, one))
    with op.batch_alter_table("integration") as integration:
        integration.add_column(sa.Column("key_scopes", sa.Text()))
        integration.add_column(sa.Column("key_scopes_at", sa.DateTime(timezone=True)))
        integration.add_column(sa.Column("last_restated_at", sa.DateTime(timezone=True)))
    op.execute(
        "UPDATE integration SET last_restated_at = "
        "(SELECT max(changed_at) FROM restatement WHERE restatement.integration_id = integration.id)"
    )
    for table in ("narrowed", "key_line", "cost_line"):
        op.drop_table(table)
    if _on_sqlite():
        _number_the_days()
    else:
        op.add_column("covered_day", sa.Column("digest", sa.LargeBinary()))
        for name in ("usage_before_usd", "usage_after_usd"):
            op.alter_column(
                "restatement", name, type_=sa.BigInteger(), postgresql_using=f"({name} * 1000000000000)::bigint"
            )


_LEFT = "SELECT id FROM integration WHERE id NOT IN (SELECT integration_id FROM narrowed) ORDER BY id"


def _on_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def _is_part_of_a_transaction() -> bool:
    """Whether the caller commits all of it, as where a backup of this schema is restored."""
    return isinstance(op.get_context().config.attributes.get("engine"), sa.Connection)


def _in_one_transaction(connection, work) -> None:
    """The block around it commits each statement by itself, but for SQLite's first, see ``database.prepare``."""
    if _is_part_of_a_transaction():
        work()
        return
    if _on_sqlite() and connection.connection.dbapi_connection.in_transaction:
        connection.exec_driver_sql("COMMIT")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if _on_sqlite() else "BEGIN")
    try:
        work()
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")


def _refuse_what_is_too_large(connection) -> None:
    number = "CAST({} AS REAL)" if _on_sqlite() else "CAST({} AS double precision)"
    usd = " OR ".join(f"sum(abs({number.format(name)})) >= {_LIMIT_USD}" for name in ("usage_usd", "byok_usd"))
    counts = " OR ".join(f"sum({number.format(name)}) >= 9.2e18" for name in _COUNTS)
    for table, days in (("cost_line", "integration_id, day"), ("key_line", "integration_id, day, key_hash")):
        query = f"SELECT day FROM {table} GROUP BY {days} HAVING {usd} OR {counts} LIMIT 1"  # noqa: S608 - no input
        day = connection.execute(sa.text(query)).scalar()
        if day is not None:
            raise SchemaError(
                f"On {day} an account has $9 million or more, or counts that add up to more than 64 bits, which this "
                "version of Grafient cannot keep. Go on with the version before; nothing was changed."
            )


def _create() -> None:
    mine = ["integration_id"], ["integration.id"]
    op.create_table(
        "model",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("integration_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(*mine, name="fk_model_integration_id_integration", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_model"),
        sa.UniqueConstraint("integration_id", "name", name="uq_model_integration_id_name"),
    )
    op.create_table(
        "series",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("integration_id", sa.Integer(), nullable=False),
        sa.Column("permaslug", sa.Text(), nullable=False),
        sa.Column("endpoint_id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(*mine, name="fk_series_integration_id_integration", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_series"),
        sa.UniqueConstraint(
            "integration_id",
            "permaslug",
            "endpoint_id",
            "host",
            "model_id",
            name="uq_series_integration_id_permaslug_endpoint_id_host_model_id",
        ),
    )
    _recreate_keys()
    for name, owner, last in (("line", "integration", "series_id"), ("key_part", "api_key", "series_id")):
        own = "integration_id" if name == "line" else "key_id"
        op.create_table(
            name,
            sa.Column(own, sa.Integer(), nullable=False),
            sa.Column("day", _DAY, nullable=False),
            sa.Column(last, sa.Integer(), nullable=False),
            sa.Column("usage_usd", sa.BigInteger(), nullable=False),
            *(sa.Column(column, sa.BigInteger()) for column in ("byok_usd", *_COUNTS)),
            sa.ForeignKeyConstraint([own], [f"{owner}.id"], name=f"fk_{name}_{own}_{owner}", ondelete="CASCADE"),
            sa.PrimaryKeyConstraint(own, "day", last, name=f"pk_{name}"),
            sqlite_with_rowid=False,
        )
    for name, own, owner in (("day_total", "integration_id", "integration"), ("model_total", "model_id", "model")):
        counted = [(sa.Column(c, sa.BigInteger()), sa.Column(f"{c}_known", sa.Integer(), nullable=False)) for c in _COUNTED]
        op.create_table(
            name,
            sa.Column(own, sa.Integer(), nullable=False),
            sa.Column("day", _DAY, nullable=False),
            sa.Column("usage_usd", sa.BigInteger(), nullable=False),
            *(column for pair in counted for column in pair),
            sa.Column("lines", sa.Integer(), nullable=False),
            sa.ForeignKeyConstraint([own], [f"{owner}.id"], name=f"fk_{name}_{own}_{owner}", ondelete="CASCADE"),
            sa.PrimaryKeyConstraint(own, "day", name=f"pk_{name}"),
            sqlite_with_rowid=False,
        )
    op.create_table("narrowed", sa.Column("integration_id", sa.Integer(), primary_key=True, autoincrement=False))


def _recreate_keys() -> None:
    """Give API keys a number, for the parts of lines to name them by."""
    columns = "integration_id, key_hash, name, disabled, gone_at, read_at"
    if not _on_sqlite():
        op.execute("ALTER TABLE api_key ADD COLUMN id SERIAL")
        op.add_column("api_key", sa.Column("spent", sa.Text()))
        op.add_column("api_key", sa.Column("spent_on", _DAY))
        op.drop_constraint("pk_api_key", "api_key")
        op.create_primary_key("pk_api_key", "api_key", ["id"])
        op.create_unique_constraint("uq_api_key_integration_id_key_hash", "api_key", ["integration_id", "key_hash"])
        return
    op.create_table(
        "numbered",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("integration_id", sa.Integer(), nullable=False),
        sa.Column("key_hash", sa.String(128), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("gone_at", sa.DateTime(timezone=True)),
        sa.Column("read_at", sa.DateTime(timezone=True)),
        sa.Column("spent", sa.Text()),
        sa.Column("spent_on", _DAY),
        sa.ForeignKeyConstraint(
            ["integration_id"], ["integration.id"], name="fk_api_key_integration_id_integration", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_api_key"),
        sa.UniqueConstraint("integration_id", "key_hash", name="uq_api_key_integration_id_key_hash"),
    )
    op.execute(f"INSERT INTO numbered ({columns}) SELECT {columns} FROM api_key")  # noqa: S608 - no input
    op.drop_table("api_key")
    op.rename_table("numbered", "api_key")


def _day(name: str) -> str:
    """A day as a number in SQLite: 1 January of the year 1 is 1, as in Python."""
    return f"CAST(julianday({name}) - 1721424.5 AS INTEGER)" if _on_sqlite() else name


def _usd(name: str) -> str:
    """USD as a whole number of 10^-12; the text in SQLite has always 12 decimals."""
    if _on_sqlite():
        return f"CAST(replace({name}, '.', '') AS INTEGER)"
    return f"CAST({name} * 1000000000000 AS bigint)"


def _copy(connection, integration_id: int) -> None:
    """Take over all lines of an integration."""
    figures = f"{_usd('l.usage_usd')}, {_usd('l.byok_usd')}, " + ", ".join(f"l.{name}" for name in _COUNTS)
    names = f"usage_usd, byok_usd, {', '.join(_COUNTS)}"
    every = " UNION ".join(
        f"SELECT {_NAMES}, model FROM {table} WHERE integration_id = :id"  # noqa: S608 - no input
        for table in ("cost_line", "key_line")
    )
    series = (
        "JOIN model m ON m.integration_id = l.integration_id AND m.name = l.model "
        "JOIN series s ON s.integration_id = l.integration_id AND s.permaslug = l.permaslug "
        "AND s.endpoint_id = l.endpoint_id AND s.host = l.host AND s.model_id = m.id"
    )
    sums = ", ".join(["sum(l.usage_usd)", *(f"sum(l.{c}), count(l.{c})" for c in _COUNTED), "count(*)"])
    summed = ", ".join(["usage_usd", *(f"{c}, {c}_known" for c in _COUNTED), "lines"])
    for statement in (
        f"INSERT INTO model (integration_id, name) SELECT DISTINCT :id, model FROM ({every}) AS l",
        f"INSERT INTO series (integration_id, {_NAMES}, model_id) SELECT :id, {_NAMES}, m.id FROM ({every}) AS l "
        "JOIN model m ON m.integration_id = :id AND m.name = l.model",
        f"INSERT INTO line (integration_id, day, series_id, {names}) "
        f"SELECT l.integration_id, {_day('l.day')}, s.id, {figures} FROM cost_line l {series} WHERE l.integration_id = :id",
        f"INSERT INTO key_part (key_id, day, series_id, {names}) SELECT k.id, {_day('l.day')}, s.id, {figures} "
        f"FROM key_line l {series} JOIN api_key k ON k.integration_id = l.integration_id AND k.key_hash = l.key_hash "
        "WHERE l.integration_id = :id AND l.key_hash <> ''",
        f"INSERT INTO model_total (model_id, day, {summed}) SELECT s.model_id, l.day, {sums} FROM line l "
        "JOIN series s ON s.id = l.series_id WHERE l.integration_id = :id GROUP BY s.model_id, l.day",
        f"INSERT INTO day_total (integration_id, day, {summed}) SELECT l.integration_id, l.day, {sums} FROM line l "
        "WHERE l.integration_id = :id GROUP BY l.integration_id, l.day",
        "INSERT INTO narrowed (integration_id) VALUES (:id)",
    ):
        connection.execute(sa.text(statement), {"id": integration_id})


def _number_the_days() -> None:
    """In SQLite, days as numbers wherever they are compared with a line's."""
    mine = ["integration_id"], ["integration.id"]
    _exchange(
        "covered_day",
        {"integration_id": "integration_id", "day": _day("day")}
        | {name: name for name in ("state", "source", "first_run_id", "changed_at")},
        sa.Column("integration_id", sa.Integer(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("source", sa.String(16), server_default="activity", nullable=False),
        sa.Column("first_run_id", sa.Integer(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("digest", sa.LargeBinary()),
        sa.ForeignKeyConstraint(*mine, name="fk_covered_day_integration_id_integration", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("integration_id", "day", name="pk_covered_day"),
        sqlite_with_rowid=False,
    )
    _exchange(
        "day_check",
        {"integration_id": "integration_id", "day": _day("day")}
        | {name: name for name in ("analytics_usd", "checked_at")},
        sa.Column("integration_id", sa.Integer(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("analytics_usd", sa.String(40), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(*mine, name="fk_day_check_integration_id_integration", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("integration_id", "day", name="pk_day_check"),
        sqlite_with_rowid=False,
    )
    _exchange(
        "key_reading",
        {"integration_id": "integration_id", "key_hash": "key_hash"}
        | {name: _day(name) for name in ("first_day", "last_day")},
        sa.Column("integration_id", sa.Integer(), nullable=False),
        sa.Column("key_hash", sa.String(128), nullable=False),
        sa.Column("first_day", sa.Integer(), nullable=False),
        sa.Column("last_day", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(*mine, name="fk_key_reading_integration_id_integration", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("integration_id", "key_hash", "first_day", name="pk_key_reading"),
        sqlite_with_rowid=False,
    )
    _exchange(
        "restatement",
        {name: name for name in ("id", "integration_id", "run_id", "changed_at")}
        | {"day": _day("day")}
        | {name: name for name in ("permaslug", "endpoint_id", "host", "before", "after")}
        | {name: _usd(name) for name in ("usage_before_usd", "usage_after_usd")},
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("integration_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("permaslug", "endpoint_id", "host")),
        *(sa.Column(name, sa.BigInteger()) for name in ("usage_before_usd", "usage_after_usd")),
        *(sa.Column(name, sa.Text()) for name in ("before", "after")),
        sa.ForeignKeyConstraint(*mine, name="fk_restatement_integration_id_integration", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["sync_run.id"], name="fk_restatement_run_id_sync_run", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_restatement"),
    )
    op.create_index("ix_restatement_run_id", "restatement", ["run_id"])
    op.create_index("ix_restatement_integration_id_day", "restatement", ["integration_id", "day"])


def _exchange(table: str, columns: dict[str, str], *definition, **options) -> None:
    op.create_table(f"new_{table}", *definition, **options)
    op.execute(  # noqa: S608 - no input
        f"INSERT INTO new_{table} ({', '.join(columns)}) SELECT {', '.join(columns.values())} FROM {table}"
    )
    op.drop_table(table)
    op.rename_table(f"new_{table}", table)


def downgrade() -> None:
    raise NotImplementedError("Restore the backup from before the upgrade: what was learned since would be lost.")
