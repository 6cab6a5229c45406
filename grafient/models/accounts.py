"""Who may see what: every user belongs to a workspace, and everything else hangs on one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask_security import UserMixin, WebAuthnMixin
from sqlalchemy import JSON, BigInteger, ForeignKey, Index, LargeBinary, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from grafient.extensions import Base
from grafient.models.columns import UtcDateTime, one_of, utc_now
from grafient.states import Letter, Role

_DELETED = text("deleted_at IS NOT NULL")


class Workspace(Base):
    """What a plan is bought for and integrations belong to. Nobody outside sees anything of it."""

    __tablename__ = "workspace"
    __table_args__ = (Index("ix_workspace_deleted_at", "deleted_at", sqlite_where=_DELETED, postgresql_where=_DELETED),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), default="", server_default="")
    """Empty until somebody names it."""
    plan: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When somebody deleted it. From then on nobody belongs to it, and what is stored of it goes in portions."""


class User(Base, UserMixin):
    """An account that signs in. The columns are those that Flask-Security asks for."""

    __tablename__ = "user"

    id: Mapped[int] = mapped_column(primary_key=True)
    workspace_id: Mapped[int | None] = mapped_column(ForeignKey("workspace.id", ondelete="SET NULL"), index=True)
    """The one of their workspaces that they are looking at; None if they have none."""
    email: Mapped[str] = mapped_column(String(255), unique=True)
    password: Mapped[str] = mapped_column(String(255))
    """Empty for who signs in with the company's account and never chose one."""
    active: Mapped[bool]
    fs_uniquifier: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    confirmed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When it was known that the address is theirs. Before, they can't log in."""
    tf_primary_method: Mapped[str | None] = mapped_column(String(32))
    """"authenticator" once they have to type a code from an app; None for who does not."""
    tf_totp_secret: Mapped[str | None] = mapped_column(String(512))
    """What the app makes codes of, sealed: see ``grafient.second_factor``."""
    tf_counter: Mapped[int | None] = mapped_column(BigInteger)
    """Which half minute the last accepted code was of: no code works twice."""
    mf_recovery_codes: Mapped[str | None] = mapped_column(Text)  # type: ignore[assignment]
    """Hashes of those that were not used yet, with commas between them."""
    fs_webauthn_user_handle: Mapped[str | None] = mapped_column(  # type: ignore[assignment]
        String(64), unique=True, index=True
    )
    oidc_subject: Mapped[str | None] = mapped_column(String(512), unique=True, index=True)
    """Who they are at the identity provider: its issuer and its name for them."""

    workspace: Mapped[Workspace | None] = relationship()
    webauthn: Mapped[list[Passkey]] = relationship(  # type: ignore[assignment]
        back_populates="user", order_by="Passkey.id", cascade="all, delete-orphan", passive_deletes=True
    )

    roles: list[Any] = []
    is_expected = False
    """Whether somebody who has just registered is the first, or was invited."""


class Passkey(Base, WebAuthnMixin):
    """A key on somebody's device that signs them in. The columns are those that Flask-Security asks for; of a key
    there is only the public half."""

    __tablename__ = "passkey"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(64))
    usage: Mapped[str] = mapped_column(String(16))
    credential_id: Mapped[bytes] = mapped_column(LargeBinary(1024), unique=True)
    public_key: Mapped[bytes] = mapped_column(LargeBinary(1024))
    sign_count: Mapped[int] = mapped_column(BigInteger)
    transports: Mapped[list[str] | None] = mapped_column(JSON)
    backup_state: Mapped[bool]
    device_type: Mapped[str] = mapped_column(String(32))
    extensions: Mapped[str | None] = mapped_column(String(255))
    create_datetime: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    lastuse_datetime: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)

    user: Mapped[User] = relationship(back_populates="webauthn")

    def get_user_mapping(self) -> dict[str, Any]:
        """How Flask-Security finds whose it is."""
        return {"id": self.user_id}


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
    email: Mapped[str] = mapped_column(String(255), default="", server_default="")
    """Where it was sent by mail; empty if its link was shown instead."""
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


class Mail(Base):
    """A letter that is to be sent: what about and to whom. What it says is written when it is sent, so that no link
    that lets somebody in is stored. See ``grafient.mail``."""

    __tablename__ = "mail"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[Letter] = mapped_column(one_of(Letter))
    email: Mapped[str] = mapped_column(String(255))
    """Whether anybody has an account with this address is looked up when it is sent."""
    invitation_id: Mapped[int | None] = mapped_column(ForeignKey("invitation.id", ondelete="CASCADE"), index=True)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    """When it is to be sent, or, while somebody sends it, when somebody else may."""
    attempts: Mapped[int] = mapped_column(default=0)

    MOST_ATTEMPTS = 5

    @property
    def is_given_up(self) -> bool:
        """Whether it is not tried again."""
        return self.attempts >= self.MOST_ATTEMPTS
