"""``flask --app wsgi doctor``: is everything there that Grafient needs, and if not, how is it mended?

Each check is independent of the others and says one line: what is, and where something is wrong, what to do.
"""

from __future__ import annotations

import shutil
import smtplib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from flask import current_app
from sqlalchemy.exc import SQLAlchemyError

from grafient import database, disk, jobs, keyring, mail
from grafient.extensions import db, settings
from grafient.models import utc_now
from grafient.providers import PROVIDERS, ProviderError

LITTLE_BYTES = 1024**3
CLOCKS_DIFFER = timedelta(minutes=2)
MOST_OPENED = 10_000
"""Stored keys that are tried; to open one takes some microseconds."""


@dataclass(frozen=True)
class Check:
    """What was looked at, whether it is as it should be, and a sentence that says so, or what to do."""

    name: str
    ok: bool
    said: str


def checks() -> Iterator[Check]:
    """All of them, in the order in which one thing needs another. What needs something that is missing is left out."""
    yield from _settings()
    stored = [*_database()]
    yield from stored
    if all(check.ok for check in stored) and "vault" in current_app.extensions:
        yield from _keys()
    if settings.redis_url is not None:
        yield from _jobs()
    yield _disk()
    yield from _providers()
    if mail.can_be_sent():
        yield _mail()


def _mail() -> Check:
    try:
        with mail.server() as post_office:
            post_office.noop()
    except (OSError, smtplib.SMTPException) as error:
        return Check("mail", False, f"the server does not let us in ({type(error).__name__}). Mend GRAFIENT_SMTP_URL.")
    return Check("mail", True, f"the server lets us in; letters are from {settings.mail_from}")


def _settings() -> Iterator[Check]:
    missing = settings.missing()
    yield Check("settings", not missing, " ".join(missing) or f"all are set; it goes by {', '.join(settings.hosts)}")


def _database() -> Iterator[Check]:
    try:
        behind = database.pending(db.engine)
    except database.SchemaError as error:
        yield Check("database", False, str(error))
        return
    except SQLAlchemyError as error:
        yield Check("database", False, f"does not answer ({type(error).__name__}). Start it, or mend DATABASE_URL.")
        return
    yield Check("database", True, f"{db.engine.dialect.name} answers")
    mend = "is of an older version. Run: flask --app wsgi upgrade"
    yield Check("migrations", not behind, mend if behind else "the database is of this version")


def _keys() -> Iterator[Check]:
    vault = current_app.extensions["vault"]
    wrong = keyring.problem(vault)
    if wrong:
        yield Check("encryption keys", False, wrong)
        return
    shut = keyring.unreadable(vault, MOST_OPENED)
    used = ", ".join(
        f"{key_id} encrypts {count} stored key{'' if count == 1 else 's'}"
        for key_id, count in sorted(keyring.in_use().items())
    )
    idle = ", ".join(keyring.unused(vault))
    said = (used or "nothing is encrypted yet") + (f"; not in use: {idle}" if idle else "")
    if shut:
        said = (
            f"the stored keys of integrations {', '.join(map(str, shut[:10]))} do not open: replace them on their pages"
        )
    yield Check("encryption keys", not shut, said)


def _jobs() -> Iterator[Check]:
    mends = {
        "redis": "Start it, or mend REDIS_URL.",
        "worker": "Run: flask --app wsgi worker",
        "scheduler": "It runs beside each worker: flask --app wsgi worker",
    }
    problems = jobs.health()
    for name in ("redis", "worker", "scheduler"):
        if "redis" in problems and name != "redis":
            return
        said = f"{problems[name]}. {mends[name]}" if name in problems else "is there"
        yield Check(name, name not in problems, said)


def _disk() -> Check:
    try:
        free = shutil.disk_usage(settings.data_dir if settings.data_dir.exists() else settings.data_dir.parent).free
    except OSError as error:
        return Check(
            "disk", False, f"{settings.data_dir} can't be looked at ({error.strerror}). Set GRAFIENT_DATA_DIR."
        )
    said = f"{free / 1e9:.1f} GB free at {settings.data_dir}"
    if disk.is_full(settings.data_dir):
        return Check("disk", False, disk.FULL)
    return Check("disk", free > LITTLE_BYTES, said if free > LITTLE_BYTES else f"only {said}. Make room.")


def _providers() -> Iterator[Check]:
    for slug in PROVIDERS:
        provider = current_app.extensions["providers"][slug]
        before = utc_now()
        try:
            theirs = provider.clock()
        except ProviderError as error:
            yield Check(slug, False, f"{error} Look at this machine's network, or OPENROUTER_BASE_URL.")
            continue
        yield Check(slug, True, "can be reached")
        if theirs is not None:
            off = max(before - theirs, theirs - utc_now(), timedelta(0))
            said = f"differs from {provider.name}'s by {off.total_seconds():.0f} s. Set it by NTP."
            right = off <= CLOCKS_DIFFER
            yield Check("clock", right, f"agrees with {provider.name}'s" if right else said)


def told(found: Sequence[Check]) -> Iterator[str]:
    """A line for each check."""
    width = max(len(check.name) for check in found)
    for check in found:
        yield f"{'ok   ' if check.ok else 'WRONG'} {check.name:{width}}  {check.said}"
