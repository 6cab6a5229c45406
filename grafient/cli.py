"""The flask commands: ``flask --app wsgi keys generate``, ``upgrade``, ``verify``, ``plans set``, ``worker`` ..."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any

import click
from flask import Flask, current_app
from flask.cli import AppGroup, with_appcontext
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError

from grafient import (
    accounts,
    archive,
    audit,
    backup,
    database,
    disk,
    doctor,
    jobs,
    keyring,
    mail,
    members,
    second_factor,
    sessions,
    totals,
    vault,
    web,
)
from grafient.config import ConfigError
from grafient.extensions import db, settings
from grafient.models import Membership, User, Workspace
from grafient.plans import PLANS
from grafient.states import Action, Role

keys = AppGroup("keys", help="Encryption keys for the providers' keys.")
audits = AppGroup("audit", help="The audit log.")
people = AppGroup("members", help="Who has an account, and letting in who can't log in.")
plans = AppGroup("plans", help="What accounts may do.")
workspaces = AppGroup("workspace", help="All that belongs to a workspace.")

NOT_SET_UP = "The database is not set up for this version. Run: flask --app wsgi upgrade"


@keys.command("generate")
def generate() -> None:
    """Print a new entry for GRAFIENT_ENCRYPTION_KEYS."""
    click.echo(vault.generate())


@keys.command("rotate")
@with_appcontext
def rotate() -> None:
    """Encrypt everything that is encrypted with the first of GRAFIENT_ENCRYPTION_KEYS.

    First put the new key in front of the old ones and restart every process; then run this, as often as you like.
    """
    _require_everything()
    _require_keys()
    ring = current_app.extensions["vault"]
    done, newest = keyring.rotate(ring), next(iter(ring.keys))
    apps, shut = second_factor.reseal()
    audit.note(Action.COMMAND, None, f"keys rotate: {done.sealed + done.channels + apps} to {newest}")
    db.session.commit()
    click.echo(f"Provider keys that were encrypted anew, with the key {newest!r}: {done.sealed}.")
    if done.channels:
        click.echo(f"Settings of alert channels: {done.channels}.")
    if apps:
        click.echo(f"Secrets of authenticator apps: {apps}.")
    if shut:
        click.echo(f"Users who need a recovery code, since the secret of their app does not open: {len(shut)}.")
    if done.unreadable_channels:
        ids = ", ".join(map(str, done.unreadable_channels[:20]))
        click.echo(f"Alert channels whose settings do not open, and have to be entered again: {ids}.")
    if done.unreadable:
        ids = ", ".join(map(str, done.unreadable[:20]))
        raise click.ClickException(f"The keys of these integrations do not open, and were left as they are: {ids}.")
    if unused := keyring.unused(ring):
        click.echo(f"No longer in use, but needed for older backups: {', '.join(unused)}.")


@keys.command("forget")
@click.argument("key_id")
@click.option("--yes", is_flag=True, help="Don't ask.")
@with_appcontext
def forget(key_id: str, yes: bool) -> None:
    """Give up what the lost encryption key KEY_ID encrypts; provider keys have to be pasted again, and so on."""
    count = keyring.in_use().get(key_id, 0)
    if not yes:
        click.confirm(f"Secrets that will have to be entered again: {count}. Go on?", abort=True)
    audit.note(Action.COMMAND, None, f"keys forget {key_id}")
    given_up = keyring.forget(key_id)
    click.echo(f"Integrations that need a new key now: {given_up.integrations}. What they cost so far is kept.")
    if given_up.channels:
        click.echo(f"Alert channels that are off until their settings are entered again: {given_up.channels}.")
    if users := second_factor.give_up(key_id):
        click.echo(f"Users who need a recovery code to log in, until they set up their app again: {users}.")


@audits.command("verify")
@with_appcontext
def verify_audit() -> None:
    """Check that no entry of the audit log was changed or taken out, and print the last hash of each chain."""
    broken, heads = audit.verify()
    for chain, (count, last) in sorted(heads.items()):
        click.echo(f"{_chain(chain)}: {count} entries, the last hash is {last}")
    if broken:
        found = "; ".join(f"{_chain(one.chain)}, entry {one.number} ({one.at:%Y-%m-%d %H:%M:%S} UTC)" for one in broken)
        raise click.ClickException(f"The audit log was changed. The first entry that is not what it was: {found}.")


def _chain(number: int) -> str:
    return f"workspace {number}" if number else "installation"


@people.command("list")
@with_appcontext
def list_members() -> None:
    """Print each account, with its workspaces and roles."""
    for email, places in members.everybody():
        click.echo(f"{email}: {places or 'no workspace'}")


@people.command("reset-link")
@click.argument("email")
@with_appcontext
def reset_link(email: str) -> None:
    """Print a link with which EMAIL can choose a new password. It works for an hour, and once."""
    _require_everything()
    user = _account_of(email)
    audit.note(Action.COMMAND, None, f"members reset-link {user.email}")
    db.session.commit()
    click.echo(mail.reset_link(user))


@people.command("codes-off")
@click.argument("email")
@with_appcontext
def codes_off(email: str) -> None:
    """Let EMAIL log in without a code, for who has lost the app and the recovery codes. Make sure that it is them."""
    user = _account_of(email)
    second_factor.turn_off(user)
    audit.note(Action.COMMAND, None, f"members codes-off {user.email}")
    db.session.commit()
    click.echo(f"{user.email} needs no code to log in any more.")


@people.command("log-out")
@click.argument("email", required=False)
@click.option("--everybody", is_flag=True, help="End the sessions of all accounts.")
@with_appcontext
def log_out(email: str | None, everybody: bool) -> None:
    """End every session of EMAIL, or of everybody."""
    if bool(email) == everybody:
        raise click.ClickException("Name one account, or say --everybody.")
    user = _account_of(email) if email else None
    ended = sessions.end_of(user.id) if user else sessions.end_every()
    audit.note(Action.COMMAND, None, f"members log-out {user.email if user else 'everybody'}")
    db.session.commit()
    click.echo(f"Sessions ended: {ended}.")


def _account_of(email: str) -> User:
    user = accounts.find(email)
    if user is None:
        raise click.ClickException(f"No account has the address {email}.")
    return user


@plans.command("set")
@click.argument("email")
@click.argument("plan", type=click.Choice(list(PLANS)))
def set_plan(email: str, plan: str) -> None:
    """Put the account of EMAIL on PLAN."""
    user = _account_of(email)
    if not accounts.set_plan(user, plan):
        raise click.ClickException(f"{user.email} belongs to no workspace, so there is nothing to put on a plan.")
    click.echo(f"{user.email} is on the plan {PLANS[plan].name} now.")


@workspaces.command("export")
@click.argument("which")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@with_appcontext
def export(which: str, file: Path) -> None:
    """Write everything of a workspace to FILE, a ZIP. WHICH: its number, or the address of its owner."""
    workspace_id = _workspace(which.strip().lower())
    audit.note(Action.EXPORTED, workspace_id, "everything")
    db.session.commit()
    unfinished = file.with_name(f"{file.name}.part")
    try:
        with database.only_reading(), unfinished.open("wb") as written:
            for portion in archive.packed(workspace_id, current_app.extensions["version"]):
                written.write(portion)
        unfinished.replace(file)
    except OSError as error:
        raise click.ClickException(f"Can't write {file}: {error.strerror}.") from None
    click.echo(f"Workspace {workspace_id} is in {file}.")


def _workspace(which: str) -> int:
    """The number of the workspace that is meant."""
    if which.isascii() and which.isdigit():
        is_meant = Workspace.id == int(which[:9])
    else:
        owned = select(Membership.workspace_id).join(User, User.id == Membership.user_id)
        is_meant = Workspace.id.in_(owned.where(User.email == which, Membership.role == Role.OWNER))
    found = db.session.execute(select(Workspace.id).where(is_meant, Workspace.deleted_at.is_(None))).scalars().all()
    if not found:
        raise click.ClickException(f"No workspace has the number or the owner {which}.")
    if len(found) > 1:
        numbers = ", ".join(map(str, sorted(found)))
        raise click.ClickException(f"{which} owns several workspaces. Say which by its number: {numbers}.")
    return found[0]


@click.command("upgrade")
@with_appcontext
def upgrade() -> None:
    """Bring the database to this version of Grafient, and check that the encryption keys open what is stored."""
    database.upgrade(db.engine)
    if link := accounts.setup_link(settings):
        click.echo(f"To make the first account, open: {link}")
    if "vault" in current_app.extensions:
        keyring.verify(current_app.extensions["vault"])


@click.command("setup-link")
@with_appcontext
def setup_link() -> None:
    """Print the link with which the first account is made. It works for seven days, and once."""
    _require_everything()
    link = accounts.setup_link(settings)
    if not link:
        raise click.ClickException("Nothing is to be set up: there is an account, or GRAFIENT_SETUP_LINK is off.")
    click.echo(link)


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for a machine.")
@with_appcontext
def look(as_json: bool) -> None:
    """Check everything that Grafient needs, and say how to mend what is wrong. The exit code is 1 if anything is."""
    found = list(doctor.checks())
    if as_json:
        click.echo(json.dumps({"ok": all(check.ok for check in found), "checks": [asdict(check) for check in found]}))
    else:
        for line in doctor.told(found):
            click.echo(line)
    if not all(check.ok for check in found):
        raise SystemExit(1)


@click.command("verify")
@click.option("--repair", is_flag=True, help="Work out anew what is wrong.")
@with_appcontext
def verify(repair: bool) -> None:
    """Check that the totals that pages show are what their lines add up to."""
    found = len(totals.wrong())
    if not found:
        click.echo("All totals are what their lines add up to.")
        return
    if not repair:
        raise click.ClickException(f"The totals of {found} days are wrong. To mend them, run it with --repair.")
    totals.repair()
    db.session.commit()
    click.echo(f"The totals of {found} days were wrong, and are mended.")


@click.command("backup")
@click.argument("file")
@with_appcontext
def back_up(file: str) -> None:
    """Write everything that is stored into one new FILE; - is standard output. Grafient may go on running.

    Keep GRAFIENT_ENCRYPTION_KEYS and SECRET_KEY elsewhere: they are not in it, and provider keys don't open without.
    """
    with database.only_reading():
        is_current = not database.pending(db.engine)
    version = current_app.extensions["version"]
    if file == "-" and sys.stdout.isatty():
        raise click.ClickException("A backup is no text. Name a file, or add: > FILE")
    made = backup.to_standard_output(version) if file == "-" else backup.to_file(Path(file), version)
    if is_current:  # what is backed up before an upgrade may have no audit log yet
        with disk.tolerated():
            audit.note(Action.COMMAND, None, f"backup {file}")
            db.session.commit()
    if file != "-":  # a platform may send what goes to standard error the same way, into the file
        rows, size = sum(made.rows.values()), made.members[0].size / 1e6
        click.echo(f"Backed up: {rows} rows of {len(made.rows)} tables, {size:.1f} MB.")


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--without-keys", is_flag=True, help="Restore although encryption keys are missing.")
@with_appcontext
def restore(file: Path, yes: bool, without_keys: bool) -> None:
    """Replace everything that is stored by the backup FILE. It is verified before; if anything is wrong, nothing is
    changed."""
    with backup.checked(file, current_app.extensions.get("vault"), without_keys=without_keys) as found:
        if not yes:
            click.confirm(
                f"What is stored now ({backup.now()}) will be replaced by {found.manifest}. Go on?", abort=True
            )
        done = found.restore()
    click.echo(f"Restored: {found.manifest}. Everybody has to log in again. Syncs that begin anew: {done.put_back}.")
    if done.kept is not None:
        click.echo(f"What was there before is kept in {done.kept}.")
    if done.restart:
        click.echo("That was no database any more. Restart web and workers: they still have that file open.")
    for key_id, count in done.shut.items():
        click.echo(
            f"Secrets that don't open without the encryption key {key_id!r}: {count}. Put it back, or enter them "
            f"again after: flask --app wsgi keys forget {key_id}"
        )


@click.command("web")
@click.option("--host", envvar="HOST", default="0.0.0.0", show_default=True)  # noqa: S104 - what a dyno has to do
@with_appcontext
def serve(host: str) -> None:
    """Serve the pages, on PORT."""
    _require_everything()
    _require_keys()
    db.engine.dispose()  # no connection is there to be shared with a fork
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    try:
        web.run(app, host, settings.port, settings.web_processes)
    except OSError as error:
        raise click.ClickException(f"Can't listen on {host}, port {settings.port}: {error.strerror}.") from None


@click.command("worker")
@with_appcontext
def worker() -> None:
    """Run a worker, with a scheduler beside it."""
    _require_everything()
    _require_keys()
    jobs.run_worker()


@click.command("scheduler")
@with_appcontext
def scheduler() -> None:
    """Run a scheduler alone (TZ=UTC)."""
    _require_everything()
    _require_keys()
    jobs.run_scheduler()


def register(app: Flask) -> None:
    """Give the app its commands, and have all of them, Flask-Security's too, fail in one sentence."""
    for command in (
        *(keys, audits, people, plans, workspaces, upgrade, setup_link, look, verify, back_up, restore),
        *(serve, worker, scheduler),
    ):
        app.cli.add_command(command)
    for command in app.cli.commands.values():
        _fail_plainly(command)


def _require_everything() -> None:
    """Secrets, Redis, and a database of this version."""
    settings.require()
    if database.pending(db.engine):
        raise click.ClickException(NOT_SET_UP)


def _require_keys() -> None:
    """The encryption keys that open what is stored."""
    keyring.verify(current_app.extensions["vault"])
    db.session.remove()


def _fail_plainly(command: click.Command) -> None:
    """Turn what can be missing at a start into one sentence and an exit code, in a command and those below it."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _fail_plainly(below)
    elif command.callback is not None and not hasattr(command.callback, "fails_plainly"):
        command.callback = _plainly(command.callback)


def _plainly(callback: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(callback)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            with audit.acting("command"):
                return callback(*args, **kwargs)
        except (ConfigError, database.SchemaError, keyring.KeyringError, backup.BackupError) as error:
            raise click.ClickException(str(error)) from None
        except (OperationalError, ProgrammingError) as error:
            raise click.ClickException(_why(error)) from None

    wrapped.fails_plainly = True  # type: ignore[attr-defined]
    return wrapped


def _why(error: DBAPIError) -> str:
    if disk.is_why(error):
        return disk.FULL
    text = str(error.orig)
    if "no such table" in text or "no such column" in text or isinstance(error, ProgrammingError):
        return NOT_SET_UP
    return f"The database does not answer ({type(error.orig).__name__}). Start it, or correct DATABASE_URL."
