"""Pages that are kept until something on them changes.

At nine in the morning a team opens the same dashboard again and again, and nothing on it changes before the next sync.
A page that is kept costs one statement: who is signed in, and whether anything has changed since it was made. Each
commit that changes an integration, or anything stored of its account, gives the integration another number
(``Integration.revision``); their sum says whether it is still the same. Both are asked in the database each time, so
the first request after a sync's commit gets the new figures, whichever process answers it, and a user who was disabled,
or whose password was changed elsewhere, gets none.

What becomes true by the clock alone, such as that an integration is overdue, is counted in the same statement, and so
are open incidents, whose number stands in the navigation.

A page is kept for one user, one address and one UTC day. The browser keeps it too, and asks each time whether it is
still the same: then it is answered in a few bytes (304).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from cachetools import LRUCache
from flask import Flask, Response, current_app, g, make_response, request, session
from flask.typing import ResponseReturnValue
from sqlalchemy import and_, bindparam, case, func, select

from grafient import database, disk, sample, sessions, trouble
from grafient.days import last_due, last_settled
from grafient.extensions import db, settings
from grafient.models import Incident, Integration, Membership, RestatementSeen, User, UserSession, Workspace, utc_now
from grafient.states import Role
from grafient.views import access, assets, delivery

MOST_BYTES = 16 * 1024 * 1024
"""Of all pages that a process keeps; the one that was not asked for longest is given up first."""


class KeptPages:
    """The bodies of pages as they are sent, by their ETags and how they are compressed."""

    def __init__(self) -> None:
        self._bodies: LRUCache[str, bytes] = LRUCache(MOST_BYTES, getsizeof=len)
        self._lock = threading.Lock()

    def get(self, etag: str) -> bytes | None:
        with self._lock:
            return self._bodies.get(etag)

    def keep(self, etag: str, body: bytes) -> None:
        with self._lock:
            if len(body) <= MOST_BYTES:
                self._bodies[etag] = body


def register(app: Flask) -> None:
    """Give the app its kept pages, and a name for what they are made with: another version makes others."""
    app.extensions["kept_pages"] = KeptPages()
    folders = (Path(app.root_path), Path(app.template_folder or ""))
    files = (file for folder in folders for kind in ("*.py", "*.html") for file in folder.rglob(kind))
    changed = max(file.stat().st_mtime_ns for file in files)  # compiled files come and go while processes start
    with app.app_context():
        app.extensions["made_with"] = f"{app.extensions['version']} {changed} {assets.version()}"


def kept(view: Callable[..., ResponseReturnValue]) -> Callable[..., ResponseReturnValue]:
    """A page of costs, for who is signed in: kept, if it can be."""

    def made_anew(**address: str) -> ResponseReturnValue:
        refusal = access.enforce()
        return view(**address) if refusal is None else refusal

    @access.needs(Role.VIEWER)
    @wraps(view)
    def wrapped(**address: str) -> ResponseReturnValue:
        state = _state()
        if state is None:
            return made_anew(**address)
        etag = hashlib.sha256(repr(state).encode()).hexdigest()[:32]
        if request.if_none_match.contains_weak(etag):
            return delivery.revalidated(Response(status=304), etag)
        pages: KeptPages = current_app.extensions["kept_pages"]
        encoding = delivery.encoding()
        body = pages.get(etag + encoding)
        if body is not None:
            response = Response(body, mimetype="text/html")
            if encoding:
                response.content_encoding = encoding
            return delivery.revalidated(response, etag)
        response = make_response(made_anew(**address))
        if response.status_code != 200:
            return response
        delivery.compress(response)
        pages.keep(etag + (response.content_encoding or ""), response.get_data())
        return delivery.revalidated(response, etag)

    wrapped.is_kept = True  # type: ignore[attr-defined]
    return wrapped


_SEEN = select(func.sum(RestatementSeen.restatement_id)).where(RestatementSeen.user_id == User.id).scalar_subquery()
_INCIDENTS = (
    select(func.count(Incident.id))
    .where(Incident.workspace_id == User.workspace_id, Incident.resolved_at.is_(None))
    .scalar_subquery()
)
_UNREAD = case((Integration.last_success_at.is_(None) & Integration.removed_at.is_(None), 1))
_SAMPLE = case((Integration.provider == sample.SLUG, 1))
_USER = User.__table__.c
_STATE = (
    select(
        *_USER,
        func.count(Integration.id).label("integrations"),
        func.sum(Integration.revision).label("revisions"),
        func.count(_UNREAD).label("unread"),
        func.count(_SAMPLE).label("samples"),
        func.count(case((trouble.IS_OVERDUE, 1))).label("overdue"),
        func.count(case((trouble.IS_FAILING, 1))).label("failing"),
        func.count(case((trouble.IS_EXPIRING, 1))).label("expiring"),
        _SEEN.label("seen"),
        _INCIDENTS.label("incidents"),
        UserSession.id.label("session_id"),
        UserSession.seen_at.label("session_seen_at"),
        Membership.role.label("role"),
        Workspace.name.label("workspace_name"),
    )
    .select_from(User)
    .join(UserSession, UserSession.user_id == User.id)
    .join(Membership, and_(Membership.user_id == User.id, Membership.workspace_id == User.workspace_id))
    .join(Workspace, Workspace.id == User.workspace_id)
    .outerjoin(Integration, Integration.workspace_id == User.workspace_id)
    .where(UserSession.token_hash == bindparam("token_hash"), sessions.IS_ALIVE)
    .where(User.fs_uniquifier == bindparam("who"), User.active)
    .group_by(_USER.id, UserSession.id, Membership.role, Workspace.id)
)
"""Made once: it is asked with each page, and SQLAlchemy takes longer to make it than the database to answer.

Who is signed in is who Flask-Security would find: the active user of the session (``sessions.find``). They have to be a
member of the workspace; any member may read.
"""


def _state() -> Any:
    """All that a page of this address is made of; None for one that is not kept.

    Not kept are pages for somebody without a session; with a message for this request alone; of a first sync's
    progress; those that say that the disk is full; and those with a form that adds or removes sample data: its CSRF
    token is of one session.
    """
    token = session.get(sessions.TOKEN)
    if token is None:
        return None
    now = utc_now()
    asked: dict[str, Any] = {"who": session.get("_user_id"), "token_hash": sessions.hashed(token)}
    asked.update(sessions.moments(now), **trouble.moments(now))
    with database.for_one_statement(db.engine).connect() as connection:
        found = g.signed_in = connection.execute(_STATE, asked).one_or_none()
    full = disk.is_full(settings.data_dir)
    if found is None:
        return None
    g.session = (found.session_id, found.session_seen_at)
    g.role, g.workspace_name = found.role, found.workspace_name
    g.has_sample = bool(found.samples)
    has_form = found.samples or not found.integrations
    if found.unread or has_form or "_flashes" in session or full:
        return None
    return (
        current_app.extensions["made_with"],
        request.full_path,
        (found.id, found.email, found.workspace_id, found.role, found.workspace_name),
        (now.date(), last_due(now), last_settled(now)),
        (found.integrations, str(found.revisions), str(found.seen)),
        (found.overdue, found.failing, found.expiring, found.incidents),
    )
