"""Who may see what: every user belongs to a workspace, and everything else hangs on one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask_security import UserMixin
from sqlalchemy import ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from grafient.extensions import Base
from grafient.models.columns import UtcDateTime, one_of, utc_now
from grafient.states import Role


class Workspace(Base):
    """What a plan is bought for and integrations belong to. Nobody outside sees anything of it."""

    __tablename__ = "workspace"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), default="", server_default="")
    """Empty until somebody names it."""
    plan: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class User(Base, UserMixin):
    """An account that signs in. The columns are those that Flask-Security asks for."""

    __tablename__ = "user"

    id: Mapped[int] = mapped_column(primary_key=True)
    workspace_id: Mapped[int | None] = mapped_column(ForeignKey("workspace.id", ondelete="SET NULL"), index=True)
    """The one of their workspaces that they are looking at; None if they have none."""
    email: Mapped[str] = mapped_column(String(255), unique=True)
    password: Mapped[str] = mapped_column(String(255))
    active: Mapped[bool]
    fs_uniquifier: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)

    workspace: Mapped[Workspace | None] = relationship()

    roles: list[Any] = []


class Membership(Base):
    """Somebody's role in a workspace."""

    __tablename__ = "membership"

    workspace_id: Mapped[int] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), primary_key=True, index=True)
    role: Mapped[Role] = mapped_column(one_of(Role))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class Invitation(Base):
    """A link that makes whoever opens it a member, once. Used or taken back, it is gone."""

    __tablename__ = "invitation"

    id: Mapped[int] = mapped_column(primary_key=True)
    workspace_id: Mapped[int] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"), index=True)
    role: Mapped[Role] = mapped_column(one_of(Role))
    note: Mapped[str] = mapped_column(String(255))
    """For whom it is meant, in the words of who made it."""
    token_hash: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class AuditEntry(Base):
    """Something that somebody did. ``chain``: the workspace, or 0 for the installation; it outlives what it tells of.
    See ``grafient.audit``."""

    __tablename__ = "audit_entry"

    chain: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    actor: Mapped[str] = mapped_column(String(255))
    address: Mapped[str] = mapped_column(String(45))
    action: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(String(255))
    hash: Mapped[bytes] = mapped_column(LargeBinary(32))


class UserSession(Base):
    """Somebody signed in on a device. Without this row the cookie there is worth nothing; of what the cookie says, the
    row has only a hash, so that a copy of the database opens no session."""

    __tablename__ = "user_session"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    device: Mapped[str] = mapped_column(String(80))
    """Such as "Firefox on Linux", as the browser said when signing in."""
    address: Mapped[str] = mapped_column(String(45))
    """Where that came from: an IP address."""
    began_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """When it was last used, to ten minutes."""

    user: Mapped[User] = relationship()
