"""history checks keys"""

import sqlalchemy as sa
from alembic import op



revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


LINE = (
    'integration_id, day, permaslug, endpoint_id, host, model, usage_usd, byok_usd, requests, byok_requests, '
    'prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens'
)


def upgrade():
    op.create_table('api_key',
    sa.Column('integration_id', sa.Integer(), nullable=False),
    sa.Column('key_hash', sa.String(length=128), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('disabled', sa.Boolean(), nullable=False),
    sa.Column('gone_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('read_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['integration_id'], ['integration.id'], name=op.f('fk_api_key_integration_id_integration'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('integration_id', 'key_hash', name=op.f('pk_api_key')),
    sqlite_with_rowid=False
    )
    op.create_table('credit_reading',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('integration_id', sa.Integer(), nullable=False),
    sa.Column('read_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('lifetime_usd', sa.Numeric(24, 12).with_variant(sa.String(40), 'sqlite'), nullable=False),
    sa.Column('today_usd', sa.Numeric(24, 12).with_variant(sa.String(40), 'sqlite'), nullable=True),
    sa.ForeignKeyConstraint(['integration_id'], ['integration.id'], name=op.f('fk_credit_reading_integration_id_integration'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_credit_reading'))
    )
    with op.batch_alter_table('credit_reading', schema=None) as batch_op:
        batch_op.create_index('ix_credit_reading_integration_id_read_at', ['integration_id', 'read_at'], unique=False)

    op.create_table('day_check',
    sa.Column('integration_id', sa.Integer(), nullable=False),
    sa.Column('day', sa.Date(), nullable=False),
    sa.Column('analytics_usd', sa.Numeric(24, 12).with_variant(sa.String(40), 'sqlite'), nullable=False),
    sa.Column('checked_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['integration_id'], ['integration.id'], name=op.f('fk_day_check_integration_id_integration'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('integration_id', 'day', name=op.f('pk_day_check')),
    sqlite_with_rowid=False
    )
    op.create_table('key_line',
    sa.Column('key_hash', sa.String(length=128), nullable=False),
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
    sa.ForeignKeyConstraint(['integration_id'], ['integration.id'], name=op.f('fk_key_line_integration_id_integration'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('integration_id', 'day', 'permaslug', 'endpoint_id', 'host', 'key_hash', name=op.f('pk_key_line')),
    sqlite_with_rowid=False
    )
    with op.batch_alter_table('key_line', schema=None) as batch_op:
        batch_op.create_index('ix_key_line_integration_id_key_hash_day', ['integration_id', 'key_hash', 'day'], unique=False)

    op.create_table('restatement_seen',
    sa.Column('user_id', sa.Integer(), nullable=False),
    sa.Column('integration_id', sa.Integer(), nullable=False),
    sa.Column('restatement_id', sa.Integer(), nullable=False),
    sa.ForeignKeyConstraint(['integration_id'], ['integration.id'], name=op.f('fk_restatement_seen_integration_id_integration'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['user_id'], ['user.id'], name=op.f('fk_restatement_seen_user_id_user'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('user_id', 'integration_id', name=op.f('pk_restatement_seen')),
    sqlite_with_rowid=False
    )
    op.create_table('raw_reply',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('run_id', sa.Integer(), nullable=False),
    sa.Column('request', sa.Text(), nullable=False),
    sa.Column('received_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('body', sa.LargeBinary(), nullable=False),
    sa.ForeignKeyConstraint(['run_id'], ['sync_run.id'], name=op.f('fk_raw_reply_run_id_sync_run'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_raw_reply'))
    )
    with op.batch_alter_table('raw_reply', schema=None) as batch_op:
        batch_op.create_index('ix_raw_reply_received_at', ['received_at'], unique=False)
        batch_op.create_index('ix_raw_reply_run_id', ['run_id'], unique=False)

    with op.batch_alter_table('covered_day', schema=None) as batch_op:
        batch_op.add_column(sa.Column('source', sa.String(length=16), server_default='activity', nullable=False))

    with op.batch_alter_table('integration', schema=None) as batch_op:
        batch_op.add_column(sa.Column('no_history', sa.Text(), nullable=True))
        batch_op.add_column(sa.Column('no_keys', sa.Text(), nullable=True))
        batch_op.add_column(sa.Column('no_credits', sa.Text(), nullable=True))

    with op.batch_alter_table('sync_run', schema=None) as batch_op:
        batch_op.add_column(sa.Column('stage', sa.String(length=16), nullable=True))
        batch_op.add_column(sa.Column('steps_done', sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column('steps_asked', sa.Integer(), nullable=True))

    # What could not be read so far; and no key is known yet for what is stored.
    op.execute(
        "INSERT INTO raw_reply (run_id, request, received_at, body) "
        "SELECT id, 'GET /activity', coalesce(finished_at, created_at), raw_reply FROM sync_run "
        "WHERE raw_reply IS NOT NULL"
    )
    op.execute("ALTER TABLE sync_run DROP COLUMN raw_reply")  # in place: a batch would lose SQLite's AUTOINCREMENT
    op.execute(f"INSERT INTO key_line (key_hash, {LINE}) SELECT '', {LINE} FROM cost_line")



def downgrade():
    raise NotImplementedError('Restore the backup from before the upgrade: what was learned since would be lost.')
