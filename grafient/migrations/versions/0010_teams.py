"""Members of workspaces with their roles, and invitations. Whoever had a workspace owns it.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.add_column("workspace", sa.Column("name", sa.String(100), nullable=False, server_default=""))
    op.create_table(
        "membership",
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "user_id", name="pk_membership"),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspace.id"], name="fk_membership_workspace_id_workspace", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name="fk_membership_user_id_user", ondelete="CASCADE"),
    )
    op.create_index("ix_membership_user_id", "membership", ["user_id"])
    op.create_table(
        "invitation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("note", sa.String(255), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_invitation"),
        sa.UniqueConstraint("token_hash", name="uq_invitation_token_hash"),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspace.id"], name="fk_invitation_workspace_id_workspace", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_invitation_workspace_id", "invitation", ["workspace_id"])
    _let_users_be_without_workspace()
    op.execute(
        "INSERT INTO membership (workspace_id, user_id, role, created_at) "
        "SELECT workspace_id, id, 'owner', created_at FROM \"user\""
    )


def _let_users_be_without_workspace() -> None:
    """SQLite makes the table anew, and what hangs on its rows goes with the old one; sessions may."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    if sqlite:
        op.execute("CREATE TEMP TABLE seen AS SELECT * FROM restatement_seen")
    with op.batch_alter_table("user") as user:
        user.alter_column("workspace_id", existing_type=sa.Integer(), nullable=True)
        user.drop_constraint("fk_user_workspace_id_workspace", type_="foreignkey")
        user.create_foreign_key(
            "fk_user_workspace_id_workspace", "workspace", ["workspace_id"], ["id"], ondelete="SET NULL"
        )
    if sqlite:
        op.execute("INSERT INTO restatement_seen SELECT * FROM seen")
        op.execute("DROP TABLE seen")


def downgrade() -> None:
    raise NotImplementedError("Restore the backup from before the upgrade: who is a member of what would be lost.")
