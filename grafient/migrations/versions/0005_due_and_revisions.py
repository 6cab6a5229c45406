"""Indexes for what is due, in the order in which it is claimed; and a number that says whether an integration changed.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_OPEN = "status IN ('due', 'running')"
_PARTS = {
    "ix_sync_run_awaited": f"{_OPEN} AND \"trigger\" <> 'daily'",
    "ix_sync_run_clocked": f"{_OPEN} AND \"trigger\" = 'daily'",
}


def upgrade() -> None:
    for name, part in _PARTS.items():
        where = {"sqlite_where": sa.text(part), "postgresql_where": sa.text(part)}
        op.create_index(name, "sync_run", ["next_attempt_at", "id"], **where)
    op.drop_index("ix_sync_run_due", "sync_run")
    op.add_column("integration", sa.Column("revision", sa.BigInteger(), nullable=False, server_default="0"))


def downgrade() -> None:
    raise NotImplementedError("Restore the backup from before the upgrade: what was learned since would be lost.")
