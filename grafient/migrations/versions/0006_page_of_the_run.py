"""Indexes for whose daily run is due, and for the page of the six o'clock run.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_integration_last_success_at", "integration", ["last_success_at"])
    slotted = sa.text("slot IS NOT NULL")
    columns = ["slot", "status", "finished_at"]
    op.create_index("ix_sync_run_slot", "sync_run", columns, sqlite_where=slotted, postgresql_where=slotted)


def downgrade() -> None:
    op.drop_index("ix_sync_run_slot", "sync_run")
    op.drop_index("ix_integration_last_success_at", "integration")
