"""How Alembic reaches the database: ``database.upgrade`` hands it over, and ``flask db`` has an app context."""

from alembic import context

from grafient import database
from grafient.extensions import db
from grafient.models.columns import UtcDateTime
from grafient.money import Usd


def plainly(kind, item, _context):
    """Write our own column types as what they are in the database, so that migrations outlive the classes."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, Usd):
        return "sa.Numeric(24, 12).with_variant(sa.String(40), 'sqlite')"
    return False


def run() -> None:
    engine = context.config.attributes.get("engine") or db.engine
    with database.connected(engine) as connection:
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
