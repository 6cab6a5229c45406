"""Who may see what: every user belongs to a workspace, and everything else hangs on one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask_security import UserMixin
from sqlalchemy import ForeignKey, String
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
