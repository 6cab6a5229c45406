"""Who may see what: every user belongs to a workspace, and everything else hangs on one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask_security import UserMixin
from sqlalchemy import ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from grafient.extensions import Base
from grafient.models.columns import UtcDateTime, utc_now


class Workspace(Base):
    """What a plan is bought for and integrations belong to. Nobody outside sees anything of it."""

    __tablename__ = "workspace"

    id: Mapped[int] = mapped_column(primary_key=True)
    plan: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class User(Base, UserMixin):
    """An account that signs in. The columns are those that Flask-Security asks for."""

    __tablename__ = "user"

    id: Mapped[int] = mapped_column(primary_key=True)
    workspace_id: Mapped[int] = mapped_column(ForeignKey("workspace.id"), index=True)
    email: Mapped[str] = mapped_column(String(255), unique=True)
    password: Mapped[str] = mapped_column(String(255))
    active: Mapped[bool]
    fs_uniquifier: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)

    workspace: Mapped[Workspace] = relationship()

    roles: list[Any] = []


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
