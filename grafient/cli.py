"""The flask commands: ``flask --app wsgi keys generate``, ``upgrade``, ``plans set``, ``worker``, ``scheduler``."""

from __future__ import annotations

import click
from flask import Flask, current_app
from flask.cli import AppGroup, with_appcontext
from sqlalchemy.exc import OperationalError

from grafient import accounts, database, jobs, vault
from grafient.config import ConfigError
from grafient.extensions import db
from grafient.plans import PLANS

keys = AppGroup("keys", help="Encryption keys for the providers' keys.")
plans = AppGroup("plans", help="What accounts may do.")


@keys.command("generate")
def generate() -> None:
    """Print a new entry for GRAFIENT_ENCRYPTION_KEYS."""
    click.echo(vault.generate())


@plans.command("set")
@click.argument("email")
@click.argument("plan", type=click.Choice(list(PLANS)))
def set_plan(email: str, plan: str) -> None:
    """Put the account of EMAIL on PLAN."""
    _require_schema()
    if not accounts.set_plan(email.strip().lower(), plan):
        raise click.ClickException(f"No account has the address {email}.")
    click.echo(f"{email} is on the plan {PLANS[plan].name} now.")


@click.command("upgrade")
@with_appcontext
def upgrade() -> None:
    """Bring the database to this version of Grafient."""
    try:
        database.upgrade(db.engine)
    except database.SchemaError as error:
        raise click.ClickException(str(error)) from None
    except OperationalError as error:
        raise click.ClickException(_no_answer(error)) from None


@click.command("worker")
@with_appcontext
def worker() -> None:
    """Run a worker, with a scheduler beside it."""
    _require_everything()
    jobs.run_worker()


@click.command("scheduler")
@click.option("--beside", type=int, metavar="PID", help="The worker that started it, to end with.")
@with_appcontext
def scheduler(beside: int | None) -> None:
    """Run a scheduler alone (TZ=UTC)."""
    _require_everything()
    jobs.run_scheduler(beside)


def _require_everything() -> None:
    """Secrets, Redis, and a database of this version; without one of them, one sentence and an exit code."""
    try:
        current_app.extensions["settings"].require()
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    _require_schema()


def _require_schema() -> None:
    try:
        behind = database.pending(db.engine)
    except database.SchemaError as error:
        raise click.ClickException(str(error)) from None
    except OperationalError as error:
        raise click.ClickException(_no_answer(error)) from None
    if behind:
        raise click.ClickException("The database is not set up for this version. Run: flask --app wsgi upgrade")


def _no_answer(error: OperationalError) -> str:
    return f"The database does not answer ({type(error.orig).__name__}). Start it, or correct DATABASE_URL."


def register(app: Flask) -> None:
    """Give the app its commands."""
    for command in (keys, plans, upgrade, worker, scheduler):
        app.cli.add_command(command)
