"""Who did what, when, and from where: entries that are only ever added, each chained to the one before by a hash.

A workspace has a chain of its own, and so has the installation (``INSTALLATION``), for what belongs to no workspace,
such as commands. An entry is written in the transaction of what it tells of, so neither is there without the other. Its
hash is of itself and of the hash before it: whoever changes or takes out an entry later has to change all that follow,
and whoever has noted a hash, as ``audit verify`` prints it, sees that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from sqlalchemy import ColumnElement, delete, func, select, text
from sqlalchemy.orm import Session

from grafient import database, logs
from grafient.days import ONE_DAY, Period
from grafient.extensions import db
from grafient.models import AuditEntry, utc_now
from grafient.states import Action

INSTALLATION = 0
PAGE = 100


@dataclass(frozen=True)
class Actor:
    """Who does something: an e-mail address or "command", and the IP address that it comes from, if any."""

    name: str
    address: str = ""


_NOBODY = Actor("Grafient")
_ACTOR: ContextVar[Actor] = ContextVar("actor", default=_NOBODY)


@dataclass(frozen=True)
class Found:
    """Entries, the latest first: ``page`` (from 1 on) of ``pages`` has some of those ``found``."""

    entries: Sequence[AuditEntry]
    page: int
    pages: int
    found: int

    @property
    def first(self) -> int:
        """Which of those found the first one is, from 1 on."""
        return (self.page - 1) * PAGE + 1


@dataclass(frozen=True)
class Wanted:
    """Which entries: of a period of UTC days, of an action, of an actor whose name has this in it. None is all."""

    period: Period | None = None
    action: Action | None = None
    actor: str = ""


@contextmanager
def acting(name: str, address: str = "") -> Iterator[None]:
    """What is noted inside was done by this one."""
    token = _ACTOR.set(Actor(name, address))
    try:
        yield
    finally:
        _ACTOR.reset(token)


def set_actor(name: str, address: str) -> None:
    """The same until it is said again, as each request says it."""
    _ACTOR.set(Actor(name, address))


def note(action: Action, workspace_id: int | None, subject: str = "", *, actor: str | None = None) -> None:
    """Add an entry to the chain of the workspace, or of the installation. Does not commit.

    Entries of one chain wait for each other until the transaction ends: two that read the same last entry would both
    want to be the next. ``subject`` is what it was done to; nothing that looks like a key is kept of it, and no letter
    that breaks a line.
    """
    _note(db.session(), action, workspace_id, subject, actor)


def note_apart(action: Action, workspace_id: int | None, subject: str = "") -> None:
    """The same in a transaction of its own, for what only reads, such as an export. Commits."""
    with database.writing(), Session(db.engine) as session, session.begin():
        _note(session, action, workspace_id, subject, None)


def _note(session: Session, action: Action, workspace_id: int | None, subject: str, actor: str | None) -> None:
    who, chain = _ACTOR.get(), workspace_id or INSTALLATION
    if db.engine.dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:lock, :chain)"), {"lock": 0x61756469, "chain": chain})
    last = session.execute(
        select(AuditEntry.number, AuditEntry.hash)
        .where(AuditEntry.chain == chain)
        .order_by(AuditEntry.number.desc())
        .limit(1)
    ).one_or_none()
    entry = AuditEntry(
        chain=chain,
        number=last.number + 1 if last else 1,
        at=utc_now().replace(microsecond=0),
        actor=_plain(who.name if actor is None else actor),
        address=who.address,
        action=action,
        subject=_plain(subject),
    )
    entry.hash = _hash(last.hash if last else b"", entry)
    session.add(entry)
    session.flush()


def entries(workspace_id: int, wanted: Wanted, page: int = 1) -> Found:
    """A page of a workspace's entries."""
    where = _where(workspace_id, wanted)
    count = db.session.execute(select(func.count()).select_from(AuditEntry).where(*where)).scalar_one()
    pages = max(1, -(-count // PAGE))
    page = min(max(page, 1), pages)
    statement = (
        select(AuditEntry).where(*where).order_by(AuditEntry.number.desc()).limit(PAGE).offset((page - 1) * PAGE)
    )
    return Found(db.session.execute(statement).scalars().all(), page, pages, count)


def every(workspace_id: int, wanted: Wanted) -> Iterator[AuditEntry]:
    """All of them, oldest first, read in portions as they are used."""
    statement = select(AuditEntry).where(*_where(workspace_id, wanted)).order_by(AuditEntry.number)
    yield from db.session.execute(statement.execution_options(yield_per=500)).scalars()


def _where(workspace_id: int, wanted: Wanted) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = [AuditEntry.chain == workspace_id]
    if wanted.period is not None:
        where += [
            AuditEntry.at >= _midnight(wanted.period.first),
            AuditEntry.at < _midnight(wanted.period.last + ONE_DAY),
        ]
    if wanted.action is not None:
        where.append(AuditEntry.action == wanted.action)
    if wanted.actor:
        where.append(AuditEntry.actor.icontains(wanted.actor, autoescape=True))
    return where


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


@dataclass(frozen=True)
class Broken:
    """The first entry of a chain that is not what it was, or before which one is missing."""

    chain: int
    number: int
    at: datetime


def verify() -> tuple[Sequence[Broken], dict[int, tuple[int, str]]]:
    """The first broken entry of each chain that has one; and for each chain how many entries it has, and its last hash
    in hex."""
    broken: dict[int, Broken] = {}
    heads: dict[int, tuple[int, str]] = {}
    before: dict[int, tuple[int, bytes]] = {}
    statement = select(AuditEntry).order_by(AuditEntry.chain, AuditEntry.number)
    for entry in db.session.execute(statement.execution_options(yield_per=500)).scalars():
        number, previous = before.get(entry.chain, (0, b""))
        if entry.chain not in broken and (entry.number != number + 1 or entry.hash != _hash(previous, entry)):
            broken[entry.chain] = Broken(entry.chain, entry.number, entry.at)
        before[entry.chain] = (entry.number, entry.hash)
        heads[entry.chain] = (entry.number, entry.hash.hex())
    return list(broken.values()), heads


def delete_chain(workspace_id: int) -> None:
    """Forget all of a workspace that is deleted for good. Does not commit."""
    db.session.execute(delete(AuditEntry).where(AuditEntry.chain == workspace_id))


def _hash(previous: bytes, entry: AuditEntry) -> bytes:
    fields = (entry.chain, entry.number, entry.at.isoformat(), entry.actor, entry.address, entry.action, entry.subject)
    return hashlib.sha256(previous + json.dumps(fields).encode()).digest()


def _plain(words: str) -> str:
    return logs.one_line(logs.without_keys(words))[:255]
