"""Which days were read for each API key, and what each sync brought.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from grafient.money import Usd

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "key_reading",
        sa.Column("integration_id", sa.Integer(), nullable=False),
        sa.Column("key_hash", sa.String(128), nullable=False),
        sa.Column("first_day", sa.Date(), nullable=False),
        sa.Column("last_day", sa.Date(), nullable=False),
        sa.ForeignKeyConstraint(
            ["integration_id", "key_hash"],
            ["api_key.integration_id", "api_key.key_hash"],
            name="fk_key_reading_integration_id_api_key",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("integration_id", "key_hash", "first_day", name="pk_key_reading"),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("sync_run") as run:
        run.add_column(sa.Column("days_settled", sa.Integer()))
        for name in ("settled_usd", "restated_usd", "provisional_usd"):
            run.add_column(sa.Column(name, Usd()))
