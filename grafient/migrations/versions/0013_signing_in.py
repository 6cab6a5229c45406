"""More ways to sign in: confirmed addresses, authenticator apps, recovery codes, passkeys, single sign-on; and mail.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    for column in (
        sa.Column("confirmed_at", moment, nullable=True),
        sa.Column("tf_primary_method", sa.String(32), nullable=True),
        sa.Column("tf_totp_secret", sa.String(512), nullable=True),
        sa.Column("tf_counter", sa.BigInteger(), nullable=True),
        sa.Column("mf_recovery_codes", sa.Text(), nullable=True),
        sa.Column("fs_webauthn_user_handle", sa.String(64), nullable=True),
        sa.Column("oidc_subject", sa.String(512), nullable=True),
    ):
        op.add_column("user", column)
    op.create_index("ix_user_fs_webauthn_user_handle", "user", ["fs_webauthn_user_handle"], unique=True)
    op.create_index("ix_user_oidc_subject", "user", ["oidc_subject"], unique=True)
    op.execute('UPDATE "user" SET confirmed_at = created_at')
    op.create_table(
        "passkey",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("usage", sa.String(16), nullable=False),
        sa.Column("credential_id", sa.LargeBinary(1024), nullable=False),
        sa.Column("public_key", sa.LargeBinary(1024), nullable=False),
        sa.Column("sign_count", sa.BigInteger(), nullable=False),
        sa.Column("transports", sa.JSON(), nullable=True),
        sa.Column("backup_state", sa.Boolean(), nullable=False),
        sa.Column("device_type", sa.String(32), nullable=False),
        sa.Column("extensions", sa.String(255), nullable=True),
        sa.Column("create_datetime", moment, nullable=False),
        sa.Column("lastuse_datetime", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_passkey"),
        sa.UniqueConstraint("credential_id", name="uq_passkey_credential_id"),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name="fk_passkey_user_id_user", ondelete="CASCADE"),
    )
    op.create_index("ix_passkey_user_id", "passkey", ["user_id"])
    op.add_column("invitation", sa.Column("email", sa.String(255), nullable=False, server_default=""))
    op.create_table(
        "mail",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("email", sa.String(255), nullable=False),
        sa.Column("invitation_id", sa.Integer(), nullable=True),
        sa.Column("due_at", moment, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mail"),
        sa.ForeignKeyConstraint(
            ["invitation_id"], ["invitation.id"], name="fk_mail_invitation_id_invitation", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_mail_due_at", "mail", ["due_at"])
    op.create_index("ix_mail_invitation_id", "mail", ["invitation_id"])


def downgrade() -> None:
    op.drop_table("mail")
    op.drop_column("invitation", "email")
    op.drop_table("passkey")
    op.drop_index("ix_user_oidc_subject", "user")
    op.drop_index("ix_user_fs_webauthn_user_handle", "user")
    for name in (
        *("oidc_subject", "fs_webauthn_user_handle", "mf_recovery_codes"),
        *("tf_counter", "tf_totp_secret", "tf_primary_method", "confirmed_at"),
    ):
        op.drop_column("user", name)
