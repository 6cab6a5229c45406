"""Workspaces that were deleted and of which something is left, and an index in which they are found.

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_DELETED = sa.text("deleted_at IS NOT NULL")


def upgrade() -> None:
    op.add_column("workspace", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    where = {"sqlite_where": _DELETED, "postgresql_where": _DELETED}
    op.create_index("ix_workspace_deleted_at", "workspace", ["deleted_at"], **where)


def downgrade() -> None:
    op.drop_index("ix_workspace_deleted_at", "workspace")
    op.drop_column("workspace", "deleted_at")
