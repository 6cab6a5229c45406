"""Alerts: budgets, rules, incidents, channels and what is sent to them.

Revision ID: 0015
Revises: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    day = sa.Date().with_variant(sa.Integer(), "sqlite")
    usd = sa.Numeric(24, 12).with_variant(sa.String(40), "sqlite")
    op.create_table(
        "budget",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("amount_usd", usd, nullable=False),
        sa.Column("period", sa.String(16), nullable=False),
        sa.Column("filters", sa.JSON(), nullable=False),
        sa.Column("byok", sa.Boolean(), nullable=False),
        sa.Column("actual", sa.JSON(), nullable=False),
        sa.Column("forecast", sa.JSON(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("since", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_budget"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspace.id"], name="fk_budget_workspace_id_workspace", ondelete="CASCADE"),
    )
    op.create_index("ix_budget_workspace_id", "budget", ["workspace_id"])
    op.create_table(
        "alert_rule",
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("is_on", sa.Boolean(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("since", moment, nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "kind", name="pk_alert_rule"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspace.id"], name="fk_alert_rule_workspace_id_workspace", ondelete="CASCADE"),
    )
    op.create_table(
        "alert_watch",
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column("since", moment, nullable=False),
        sa.Column("seen", sa.BigInteger(), nullable=False),
        sa.Column("next_at", moment, nullable=False),
        sa.Column("looked_at", moment, nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", name="pk_alert_watch"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspace.id"], name="fk_alert_watch_workspace_id_workspace", ondelete="CASCADE"),
    )
    op.create_index("ix_alert_watch_next_at", "alert_watch", ["next_at"])
    op.create_table(
        "judged_days",
        sa.Column("integration_id", sa.Integer(), nullable=False),
        sa.Column("through", day, nullable=False),
        sa.PrimaryKeyConstraint("integration_id", name="pk_judged_days"),
        sa.ForeignKeyConstraint(["integration_id"], ["integration.id"], name="fk_judged_days_integration_id_integration", ondelete="CASCADE"),
    )
    op.create_table(
        "incident",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(600), nullable=False),
        sa.Column("integration_id", sa.Integer(), nullable=True),
        sa.Column("budget_id", sa.Integer(), nullable=True),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("marks", sa.JSON(), nullable=False),
        sa.Column("first_day", day, nullable=True),
        sa.Column("last_day", day, nullable=True),
        sa.Column("opened_at", moment, nullable=False),
        sa.Column("told_at", moment, nullable=False),
        sa.Column("resolved_at", moment, nullable=True),
        sa.Column("acknowledged_at", moment, nullable=True),
        sa.Column("acknowledged_by", sa.String(255), nullable=False),
        sa.Column("snoozed_until", moment, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_incident"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspace.id"], name="fk_incident_workspace_id_workspace", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["budget_id"], ["budget.id"], name="fk_incident_budget_id_budget", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["integration_id"], ["integration.id"], name="fk_incident_integration_id_integration", ondelete="CASCADE"),
    )
    op.create_index("ix_incident_budget_id", "incident", ["budget_id"])
    op.create_index("ix_incident_integration_id", "incident", ["integration_id"])
    op.create_index("ix_incident_workspace_id_resolved_at", "incident", ["workspace_id", "resolved_at"])
    op.create_index("uq_incident_open", "incident", ["workspace_id", "kind", "subject"], unique=True, sqlite_where=sa.text("resolved_at IS NULL"), postgresql_where=sa.text("resolved_at IS NULL"))
    op.create_table(
        "incident_event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("incident_id", sa.Integer(), nullable=False),
        sa.Column("what", sa.String(16), nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("marks", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_incident_event"),
        sa.ForeignKeyConstraint(["incident_id"], ["incident.id"], name="fk_incident_event_incident_id_incident", ondelete="CASCADE"),
    )
    op.create_index("ix_incident_event_incident_id", "incident_event", ["incident_id"])
    op.create_table(
        "channel",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("config_ciphertext", sa.LargeBinary(), nullable=True),
        sa.Column("config_encryption_id", sa.String(32), nullable=True),
        sa.Column("shown", sa.JSON(), nullable=False),
        sa.Column("topics", sa.JSON(), nullable=False),
        sa.Column("quiet_from", sa.Integer(), nullable=True),
        sa.Column("quiet_to", sa.Integer(), nullable=True),
        sa.Column("alerts_daily", sa.Boolean(), nullable=False),
        sa.Column("summary", sa.String(16), nullable=True),
        sa.Column("summary_at", moment, nullable=True),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("failing_since", moment, nullable=True),
        sa.Column("disabled_at", moment, nullable=True),
        sa.Column("disabled_why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_channel"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspace.id"], name="fk_channel_workspace_id_workspace", ondelete="CASCADE"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_channel_summary_at", "channel", ["summary_at"])
    op.create_index("ix_channel_workspace_id", "channel", ["workspace_id"])
    op.create_table(
        "delivery",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("channel_id", sa.Integer(), nullable=False),
        sa.Column("uid", sa.String(40), nullable=False),
        sa.Column("sending", sa.String(16), nullable=False),
        sa.Column("about", sa.JSON(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("due_at", moment, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("tried_at", moment, nullable=True),
        sa.Column("ended_at", moment, nullable=True),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_delivery"),
        sa.ForeignKeyConstraint(["channel_id"], ["channel.id"], name="fk_delivery_channel_id_channel", ondelete="CASCADE"),
        sa.UniqueConstraint("uid", name="uq_delivery_uid"),
    )
    op.create_index("ix_delivery_channel_id", "delivery", ["channel_id", "id"])
    op.create_index("ix_delivery_due_at", "delivery", ["due_at"], sqlite_where=sa.text("state = 'due'"), postgresql_where=sa.text("state = 'due'"))
    op.create_table(
        "delivery_event",
        sa.Column("delivery_id", sa.Integer(), nullable=False),
        sa.Column("event_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("delivery_id", "event_id", name="pk_delivery_event"),
        sa.ForeignKeyConstraint(["event_id"], ["incident_event.id"], name="fk_delivery_event_event_id_incident_event", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["delivery_id"], ["delivery.id"], name="fk_delivery_event_delivery_id_delivery", ondelete="CASCADE"),
    )
    op.create_index("ix_delivery_event_event_id", "delivery_event", ["event_id"])
    op.add_column("api_key", sa.Column("limit_usd", usd))
    op.add_column("api_key", sa.Column("limit_left_usd", usd))
    op.add_column("api_key", sa.Column("limit_reset", sa.String(16)))
    op.add_column("api_key", sa.Column("limit_read_at", moment))


def downgrade() -> None:
    for name in ("limit_usd", "limit_left_usd", "limit_reset", "limit_read_at"):
        op.drop_column("api_key", name)
    for name in (
        "delivery_event",
        "delivery",
        "channel",
        "incident_event",
        "incident",
        "judged_days",
        "alert_watch",
        "alert_rule",
        "budget",
    ):
        op.drop_table(name)
