"""How much was bought of the credits, at each reading of them.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    usd = sa.Numeric(24, 12).with_variant(sa.String(40), "sqlite")
    op.add_column("credit_reading", sa.Column("bought_usd", usd, nullable=True))


def downgrade() -> None:
    op.drop_column("credit_reading", "bought_usd")
