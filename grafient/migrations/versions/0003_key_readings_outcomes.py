"""Which days were read for each API key, and what each sync brought.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from datetime import date, datetime, timedelta

import sqlalchemy as sa
from alembic import op

from grafient.days import ONE_DAY, SETTLES_AFTER, intervals, span
from grafient.money import Usd

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_REQUEST = "GET /activity?api_key_hash="
_WINDOW = timedelta(days=30)
_CLOCKS_DIFFER = timedelta(minutes=5)
_AT_A_TIME = 50


def upgrade() -> None:
    op.create_table(
        "key_reading",
        sa.Column("integration_id", sa.Integer(), nullable=False),
        sa.Column("key_hash", sa.String(128), nullable=False),
        sa.Column("first_day", sa.Date(), nullable=False),
        sa.Column("last_day", sa.Date(), nullable=False),
        sa.ForeignKeyConstraint(
            ["integration_id"], ["integration.id"], name="fk_key_reading_integration_id_integration", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("integration_id", "key_hash", "first_day", name="pk_key_reading"),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("sync_run") as run:
        run.add_column(sa.Column("days_settled", sa.Integer()))
        for name in ("settled_usd", "restated_usd", "provisional_usd"):
            run.add_column(sa.Column(name, Usd()))
    _fill_in_readings()


def _fill_in_readings() -> None:
    """Work out from the evidence which days were read for each key so far: from the replies that are still kept (90 days
    of them), each of which spoke of the settled ones of the 30 days before it, and from the days on which a key has
    lines. Days that neither shows stay unknown.
    """
    connection = op.get_bind()
    days: dict[tuple[int, str], set[date]] = defaultdict(set)
    line = sa.table("key_line", sa.column("integration_id"), sa.column("key_hash"), sa.column("day", sa.Date()))
    with_lines = sa.select(line.c.integration_id, line.c.key_hash, line.c.day).where(line.c.key_hash != "").distinct()
    for integration_id, key_hash, day in connection.execute(with_lines):
        days[integration_id, key_hash].add(day)
    for integration_id, key_hash, received_at in _readings(connection):
        first, last = (received_at + _CLOCKS_DIFFER).date() - _WINDOW, (received_at - SETTLES_AFTER).date() - ONE_DAY
        days[integration_id, key_hash] |= {*span(first, last)}
    reading = sa.table(
        "key_reading",
        sa.column("integration_id"),
        sa.column("key_hash"),
        sa.column("first_day", sa.Date()),
        sa.column("last_day", sa.Date()),
    )
    for (integration_id, key_hash), found in days.items():
        for known in intervals(found):
            row = {"first_day": known.first, "last_day": known.last}
            connection.execute(sa.insert(reading).values(integration_id=integration_id, key_hash=key_hash, **row))


def _readings(connection: sa.Connection) -> list[tuple[int, str, datetime]]:
    """The integration, key and moment of each kept reply on one key that is whole; a few replies at a time in memory."""
    reply = sa.table(
        "raw_reply",
        sa.column("id"),
        sa.column("run_id"),
        sa.column("request"),
        sa.column("received_at", sa.DateTime(timezone=True)),
        sa.column("body", sa.LargeBinary()),
    )
    run = sa.table("sync_run", sa.column("id"), sa.column("integration_id"))
    query = (
        sa.select(reply.c.id, run.c.integration_id, reply.c.request, reply.c.received_at, reply.c.body)
        .join(run, run.c.id == reply.c.run_id)
        .where(reply.c.request.startswith(_REQUEST, autoescape=True))
        .order_by(reply.c.id)
        .limit(_AT_A_TIME)
    )
    found, after = [], 0
    while rows := connection.execute(query.where(reply.c.id > after)).all():
        after = rows[-1].id
        for row in rows:
            if _is_whole(row.body):
                received_at: datetime = row.received_at
                found.append((row.integration_id, row.request.removeprefix(_REQUEST), received_at))
    return found


def _is_whole(body: bytes) -> bool:
    try:
        reply = json.loads(gzip.decompress(body))
    except (OSError, EOFError, ValueError):
        return False
    return isinstance(reply, dict) and isinstance(reply.get("data"), list)


def downgrade() -> None:
    raise NotImplementedError("Restore the backup from before the upgrade: what was learned since would be lost.")
