"""How Alembic reaches the app's database; Flask-Migrate runs it inside an app context."""

from alembic import context
from flask import current_app

from grafient.models.columns import UtcDateTime
from grafient.money import Usd

db = current_app.extensions["migrate"].db


def plainly(kind, item, _context):
    """Write our own column types as what they are in the database, so that migrations outlive the classes."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, Usd):
        return "sa.Numeric(24, 12).with_variant(sa.String(40), 'sqlite')"
    return False


def run() -> None:
    with db.engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=db.metadata,
            render_as_batch=True,
            render_item=plainly,
            transaction_per_migration=False,
        )
        with context.begin_transaction():
            context.run_migrations()


run()
