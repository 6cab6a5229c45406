"""first schema"""

import sqlalchemy as sa
from alembic import op



revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade():

    op.create_table('workspace',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('plan', sa.String(length=16), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_workspace'))
    )
    op.create_table('integration',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('workspace_id', sa.Integer(), nullable=False),
    sa.Column('provider', sa.String(length=32), nullable=False),
    sa.Column('label', sa.String(length=100), nullable=False),
    sa.Column('account_ref', sa.String(length=255), nullable=True),
    sa.Column('key_ciphertext', sa.LargeBinary(), nullable=True),
    sa.Column('key_encryption_id', sa.String(length=32), nullable=True),
    sa.Column('key_hint', sa.String(length=4), nullable=False),
    sa.Column('problem', sa.String(length=16), nullable=True),
    sa.Column('problem_detail', sa.Text(), nullable=True),
    sa.Column('problem_since', sa.DateTime(timezone=True), nullable=True),
    sa.Column('last_success_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('paused_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('removed_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['workspace_id'], ['workspace.id'], name=op.f('fk_integration_workspace_id_workspace'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_integration')),
    sqlite_autoincrement=True
    )
    with op.batch_alter_table('integration', schema=None) as batch_op:
        batch_op.create_index('ix_integration_workspace_id_account_ref', ['workspace_id', 'provider', 'account_ref'], unique=False)

    op.create_table('user',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('workspace_id', sa.Integer(), nullable=False),
    sa.Column('email', sa.String(length=255), nullable=False),
    sa.Column('password', sa.String(length=255), nullable=False),
    sa.Column('active', sa.Boolean(), nullable=False),
    sa.Column('fs_uniquifier', sa.String(length=64), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['workspace_id'], ['workspace.id'], name=op.f('fk_user_workspace_id_workspace')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_user')),
    sa.UniqueConstraint('email', name=op.f('uq_user_email')),
    sa.UniqueConstraint('fs_uniquifier', name=op.f('uq_user_fs_uniquifier'))
    )
    with op.batch_alter_table('user', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_user_workspace_id'), ['workspace_id'], unique=False)

    op.create_table('cost_line',
    sa.Column('integration_id', sa.Integer(), nullable=False),
    sa.Column('day', sa.Date(), nullable=False),
    sa.Column('permaslug', sa.Text(), nullable=False),
    sa.Column('endpoint_id', sa.Text(), nullable=False),
    sa.Column('host', sa.Text(), nullable=False),
    sa.Column('model', sa.Text(), nullable=False),
    sa.Column('usage_usd', sa.Numeric(24, 12).with_variant(sa.String(40), 'sqlite'), nullable=False),
    sa.Column('byok_usd', sa.Numeric(24, 12).with_variant(sa.String(40), 'sqlite'), nullable=True),
    sa.Column('requests', sa.BigInteger(), nullable=True),
    sa.Column('byok_requests', sa.BigInteger(), nullable=True),
    sa.Column('prompt_tokens', sa.BigInteger(), nullable=True),
    sa.Column('completion_tokens', sa.BigInteger(), nullable=True),
    sa.Column('reasoning_tokens', sa.BigInteger(), nullable=True),
    sa.Column('cached_tokens', sa.BigInteger(), nullable=True),
    sa.ForeignKeyConstraint(['integration_id'], ['integration.id'], name=op.f('fk_cost_line_integration_id_integration'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('integration_id', 'day', 'permaslug', 'endpoint_id', 'host', name=op.f('pk_cost_line')),
    sqlite_with_rowid=False
    )
    with op.batch_alter_table('cost_line', schema=None) as batch_op:
        batch_op.create_index('ix_cost_line_day_model', ['integration_id', 'day', 'model', 'usage_usd'], unique=False)

    op.create_table('covered_day',
    sa.Column('integration_id', sa.Integer(), nullable=False),
    sa.Column('day', sa.Date(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('first_run_id', sa.Integer(), nullable=False),
    sa.Column('changed_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['integration_id'], ['integration.id'], name=op.f('fk_covered_day_integration_id_integration'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('integration_id', 'day', name=op.f('pk_covered_day')),
    sqlite_with_rowid=False
    )
    op.create_table('sync_run',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('integration_id', sa.Integer(), nullable=False),
    sa.Column('trigger', sa.String(length=16), nullable=False),
    sa.Column('slot', sa.Date(), nullable=True),
    sa.Column('status', sa.String(length=16), nullable=False),
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('token', sa.String(length=32), nullable=True),
    sa.Column('lease_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('next_attempt_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('started_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('finished_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.Column('raw_reply', sa.LargeBinary(), nullable=True),
    sa.Column('first_day', sa.Date(), nullable=True),
    sa.Column('last_day', sa.Date(), nullable=True),
    sa.Column('lines_read', sa.Integer(), nullable=True),
    sa.Column('lines_added', sa.Integer(), nullable=True),
    sa.Column('lines_changed', sa.Integer(), nullable=True),
    sa.Column('lines_removed', sa.Integer(), nullable=True),
    sa.Column('days_restated', sa.Integer(), nullable=True),
    sa.CheckConstraint("status IN ('due', 'running', 'done', 'failed', 'cancelled')", name=op.f('ck_sync_run_status')),
    sa.CheckConstraint('"trigger" IN (\'backfill\', \'manual\', \'daily\')', name=op.f('ck_sync_run_trigger')),
    sa.ForeignKeyConstraint(['integration_id'], ['integration.id'], name=op.f('fk_sync_run_integration_id_integration'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_sync_run')),
    sqlite_autoincrement=True
    )
    with op.batch_alter_table('sync_run', schema=None) as batch_op:
        batch_op.create_index('ix_sync_run_due', ['next_attempt_at'], unique=False, sqlite_where=sa.text("status IN ('due', 'running')"), postgresql_where=sa.text("status IN ('due', 'running')"))
        batch_op.create_index('ix_sync_run_history', ['integration_id', 'id'], unique=False)
        batch_op.create_index('uq_sync_run_open', ['integration_id'], unique=True, sqlite_where=sa.text("status IN ('due', 'running')"), postgresql_where=sa.text("status IN ('due', 'running')"))
        batch_op.create_index('uq_sync_run_slot', ['integration_id', 'slot'], unique=True)

    op.create_table('restatement',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('integration_id', sa.Integer(), nullable=False),
    sa.Column('run_id', sa.Integer(), nullable=False),
    sa.Column('changed_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('day', sa.Date(), nullable=False),
    sa.Column('permaslug', sa.Text(), nullable=False),
    sa.Column('endpoint_id', sa.Text(), nullable=False),
    sa.Column('host', sa.Text(), nullable=False),
    sa.Column('usage_before_usd', sa.Numeric(24, 12).with_variant(sa.String(40), 'sqlite'), nullable=True),
    sa.Column('usage_after_usd', sa.Numeric(24, 12).with_variant(sa.String(40), 'sqlite'), nullable=True),
    sa.Column('before', sa.Text(), nullable=True),
    sa.Column('after', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['integration_id'], ['integration.id'], name=op.f('fk_restatement_integration_id_integration'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['run_id'], ['sync_run.id'], name=op.f('fk_restatement_run_id_sync_run'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_restatement'))
    )
    with op.batch_alter_table('restatement', schema=None) as batch_op:
        batch_op.create_index('ix_restatement_integration_id_day', ['integration_id', 'day'], unique=False)
        batch_op.create_index(batch_op.f('ix_restatement_run_id'), ['run_id'], unique=False)




def downgrade():

    with op.batch_alter_table('restatement', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_restatement_run_id'))
        batch_op.drop_index('ix_restatement_integration_id_day')

    op.drop_table('restatement')
    with op.batch_alter_table('sync_run', schema=None) as batch_op:
        batch_op.drop_index('uq_sync_run_slot')
        batch_op.drop_index('uq_sync_run_open', sqlite_where=sa.text("status IN ('due', 'running')"), postgresql_where=sa.text("status IN ('due', 'running')"))
        batch_op.drop_index('ix_sync_run_history')
        batch_op.drop_index('ix_sync_run_due', sqlite_where=sa.text("status IN ('due', 'running')"), postgresql_where=sa.text("status IN ('due', 'running')"))

    op.drop_table('sync_run')
    op.drop_table('covered_day')
    with op.batch_alter_table('cost_line', schema=None) as batch_op:
        batch_op.drop_index('ix_cost_line_day_model')

    op.drop_table('cost_line')
    with op.batch_alter_table('user', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_user_workspace_id'))

    op.drop_table('user')
    with op.batch_alter_table('integration', schema=None) as batch_op:
        batch_op.drop_index('ix_integration_workspace_id_account_ref')

    op.drop_table('integration')
    op.drop_table('workspace')

