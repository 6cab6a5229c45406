"""Sessions: who is signed in where, since when, and until when.

A session has a row, and its cookie has a random token. It ends when its user logs out on that device, ends it from
another, or changes the password; after 14 days without a visit; and after 90 days in any case. Before, the cookie said
by itself who it was, and logging out only asked the browser to forget it: a copy of the cookie went on working for 30
days, and one that "stayed logged in" for as long as the account had that password.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, delete, select, update
from sqlalchemy.exc import DBAPIError

from grafient import database
from grafient.extensions import db
from grafient.models import Membership, User, UserSession, Workspace, utc_now

IDLE = timedelta(days=14)
ABSOLUTE = timedelta(days=90)
SEEN_EVERY = timedelta(minutes=10)
"""How exactly it is known when a session was last used; so a page that is only read seldom makes a write."""
TOKEN = "token"  # noqa: S105 - the name under which the cookie has it
MOST = 50
"""Sessions of one user; the one not used for longest makes room for the next."""


def hashed(token: str) -> bytes:
    """What the database has of a token."""
    return hashlib.sha256(token.encode()).digest()


def moments(now: datetime) -> dict[str, datetime]:
    """The parameters of IS_ALIVE."""
    return {"idle_since": now - IDLE, "older_than": now - ABSOLUTE}


IS_ALIVE: ColumnElement[bool] = and_(
    UserSession.seen_at > bindparam("idle_since"), UserSession.began_at > bindparam("older_than")
)
_FIND = (
    select(User, UserSession.id, UserSession.seen_at, Membership.role, Workspace.name)
    .join(UserSession, UserSession.user_id == User.id)
    .outerjoin(Workspace, Workspace.id == User.workspace_id)
    .outerjoin(Membership, and_(Membership.user_id == User.id, Membership.workspace_id == User.workspace_id))
    .where(UserSession.token_hash == bindparam("token_hash"), IS_ALIVE, User.active)
)


def find(token: str) -> Any:
    """The user, the session's id and when it was last used, the user's role in the workspace that they are looking at
    and its name (None without one); None if the session has ended, or its user may not come in."""
    return db.session.execute(_FIND, {"token_hash": hashed(token), **moments(utc_now())}).one_or_none()


def begin(user: User, device: str, address: str) -> str:
    """A new session's token. Does not commit."""
    now, token = utc_now(), secrets.token_urlsafe(32)
    db.session.flush()  # a user who has just registered has no id before
    live = select(UserSession.id).where(UserSession.user_id == user.id, IS_ALIVE)
    kept = live.order_by(UserSession.seen_at.desc(), UserSession.id.desc()).limit(MOST - 1)
    others = delete(UserSession).where(UserSession.user_id == user.id, UserSession.id.not_in(kept))
    db.session.execute(others, moments(now), execution_options={"synchronize_session": False})
    db.session.add(
        UserSession(
            user_id=user.id, token_hash=hashed(token), device=device[:80], address=address, began_at=now, seen_at=now
        )
    )
    return token


def renewed(token: str) -> str:
    """Another token for the session that has this one, which is worth nothing then. Does not commit."""
    another = secrets.token_urlsafe(32)
    changed = update(UserSession).where(UserSession.token_hash == hashed(token)).values(token_hash=hashed(another))
    db.session.execute(changed.execution_options(synchronize_session=False))
    return another


def end(token: str) -> None:
    """End the session with this token. Does not commit."""
    db.session.execute(delete(UserSession).where(UserSession.token_hash == hashed(token)))


def end_of(user_id: int, session_id: int | None = None, *, but: str = "") -> int:
    """End a session of a user, or all of them, but that with this token; how many that were. Does not commit."""
    statement = delete(UserSession).where(UserSession.user_id == user_id)
    if session_id is not None:
        statement = statement.where(UserSession.id == session_id)
    if but:
        statement = statement.where(UserSession.token_hash != hashed(but))
    return int(db.session.execute(statement).rowcount)  # type: ignore[attr-defined]


def end_every() -> int:
    """End all sessions of everybody; how many that were. Does not commit."""
    return int(db.session.execute(delete(UserSession)).rowcount)  # type: ignore[attr-defined]


def of(user_id: int) -> Sequence[UserSession]:
    """The sessions of a user that are alive, the one used last first."""
    statement = (
        select(UserSession)
        .where(UserSession.user_id == user_id, IS_ALIVE)
        .order_by(UserSession.seen_at.desc(), UserSession.id.desc())
        .limit(MOST)
    )
    return db.session.execute(statement, moments(utc_now())).scalars().all()


def seen(session_id: int, before: datetime) -> None:
    """Note that a session is in use, if that was not noted lately.

    In a transaction of its own, since a page that is read has one that writes nothing; a database that can't be written
    to, such as on a full disk, keeps nobody from reading.
    """
    now = utc_now()
    if now - before < SEEN_EVERY:
        return
    noted = update(UserSession).where(UserSession.id == session_id).values(seen_at=now)
    with contextlib.suppress(DBAPIError), database.writing(), db.engine.begin() as connection:
        connection.execute(noted)
