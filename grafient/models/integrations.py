"""A connected account, and the runs that read it."""

from __future__ import annotations

import secrets
from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from grafient.extensions import Base
from grafient.models.columns import UtcDateTime, one_of, utc_now
from grafient.money import Usd
from grafient.states import Problem, RunStatus, Stage, Trigger


def new_revision() -> int:
    """A number that was not used before: one of a million million, so that nothing has to be counted."""
    return secrets.randbits(40)


class EncryptionKey(Base):
    """An encryption key that something here was sealed with: its id, and what tells it from another of that id."""

    __tablename__ = "encryption_key"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    check_value: Mapped[bytes] = mapped_column(LargeBinary(32))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Integration(Base):
    """One account at a provider.

    ``problem`` is what the last run ended with, None if nothing is wrong; with ``problem_detail``, a sentence (a
    success can have one too), and ``problem_since``. A removed integration whose history is kept has ``removed_at``
    and no key. Ids are never used twice: encrypted keys are bound to them. ``no_history``, ``no_keys``,
    ``no_credits``: why the provider does not report days before its window (or today), API keys, or credits; None
    where it does.
    """

    __tablename__ = "integration"
    __table_args__ = (
        Index("ix_integration_workspace_id_account_ref", "workspace_id", "provider", "account_ref"),
        Index("ix_integration_last_success_at", "last_success_at"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    workspace_id: Mapped[int] = mapped_column(ForeignKey("workspace.id", ondelete="CASCADE"))
    provider: Mapped[str] = mapped_column(String(32))
    label: Mapped[str] = mapped_column(String(100))
    account_ref: Mapped[str | None] = mapped_column(String(255))

    key_ciphertext: Mapped[bytes | None] = mapped_column(LargeBinary)
    key_encryption_id: Mapped[str | None] = mapped_column(String(32))
    key_hint: Mapped[str] = mapped_column(String(4))
    key_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the key ends, as the provider said when it was checked; None if it said nothing."""

    problem: Mapped[Problem | None] = mapped_column(one_of(Problem))
    problem_detail: Mapped[str | None] = mapped_column(Text)
    problem_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_success_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    no_history: Mapped[str | None] = mapped_column(Text)
    no_keys: Mapped[str | None] = mapped_column(Text)
    no_credits: Mapped[str | None] = mapped_column(Text)
    key_scopes: Mapped[str | None] = mapped_column(Text)
    """Where the provider keeps the account's API keys, in JSON, and when that was asked; see ``KeyList``."""
    key_scopes_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_restated_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When a sync last changed a settled day. Where none ever did, no page has to look for what changed."""
    paused_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    removed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revision: Mapped[int] = mapped_column(BigInteger, default=new_revision, onupdate=new_revision, server_default="0")
    """Another number after each commit that changed the integration or anything that is stored of its account. Pages
    that were kept are shown as long as the numbers are what they were."""

    def changed(self) -> None:
        """Something that is stored of the account is another now, if not the row itself."""
        self.revision = new_revision()

    def set_problem(self, problem: Problem, detail: str, since: datetime | None) -> None:
        """What the last run ended with; the moment it began is kept while it stays the same."""
        if self.problem != problem:
            self.problem_since = since
        self.problem, self.problem_detail = problem, detail

    def clear_problem(self, detail: str | None = None) -> None:
        """Nothing is wrong; ``detail`` may still have something to say."""
        self.problem, self.problem_detail, self.problem_since = None, detail, None


_IS_OPEN = "status IN ('due', 'running')"
AWAITED = f"{_IS_OPEN} AND \"trigger\" <> 'daily'"
CLOCKED = f"{_IS_OPEN} AND \"trigger\" = 'daily'"
_OPEN, _AWAITED, _CLOCKED, _SLOTTED = text(_IS_OPEN), text(AWAITED), text(CLOCKED), text("slot IS NOT NULL")
IS_OPEN = text(f"sync_run.{_IS_OPEN}")
"""The conditions of the indexes of open runs, of those among them that a person waits for, and of those that only the
clock asked for: for statements that are to be answered from one.

SQLite uses such an index only if its condition is in the statement word for word. Asked with bound values, it read all
runs there ever were at every tick and every claim: 92 ms with 600,000 of them, none of which was due.
"""


class SyncRun(Base):
    """One sync, from the moment somebody wanted it. The ledger of ``runs`` is made of these rows.

    ``status``: ``due`` (to be claimed from ``next_attempt_at`` on), ``running`` (claimed, by whoever holds
    ``token``, until ``lease_until``), ``done``, ``failed`` (ended, with ``error``) or ``cancelled``.
    ``trigger``: ``backfill``, ``manual`` or ``daily``; a daily run has the UTC day it is for in ``slot``.
    An integration has at most one open run, and at most one daily run for a day: the database holds that.
    """

    __tablename__ = "sync_run"
    __table_args__ = (
        CheckConstraint("status IN ('due', 'running', 'done', 'failed', 'cancelled')", name="status"),
        CheckConstraint("\"trigger\" IN ('backfill', 'manual', 'daily')", name="trigger"),
        Index("uq_sync_run_open", "integration_id", unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN),
        Index("uq_sync_run_slot", "integration_id", "slot", unique=True),
        Index("ix_sync_run_awaited", "next_attempt_at", "id", sqlite_where=_AWAITED, postgresql_where=_AWAITED),
        Index("ix_sync_run_clocked", "next_attempt_at", "id", sqlite_where=_CLOCKED, postgresql_where=_CLOCKED),
        Index("ix_sync_run_history", "integration_id", "id"),
        Index("ix_sync_run_slot", "slot", "status", "finished_at", sqlite_where=_SLOTTED, postgresql_where=_SLOTTED),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    integration_id: Mapped[int] = mapped_column(ForeignKey("integration.id", ondelete="CASCADE"))
    trigger: Mapped[Trigger] = mapped_column(one_of(Trigger))
    slot: Mapped[date | None]
    status: Mapped[RunStatus] = mapped_column(one_of(RunStatus), default=RunStatus.DUE)
    attempt: Mapped[int] = mapped_column(default=0)
    token: Mapped[str | None] = mapped_column(String(32))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    next_attempt_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)

    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error: Mapped[str | None] = mapped_column(Text)
    stage: Mapped[Stage | None] = mapped_column(one_of(Stage))
    """What is being read, of which ``steps_done`` of ``steps_asked`` (days of history, or keys) are."""
    steps_done: Mapped[int | None]
    steps_asked: Mapped[int | None]

    first_day: Mapped[date | None]
    last_day: Mapped[date | None]
    lines_read: Mapped[int | None]
    lines_added: Mapped[int | None]
    lines_changed: Mapped[int | None]
    lines_removed: Mapped[int | None]
    days_restated: Mapped[int | None]

    days_settled: Mapped[int | None]
    settled_usd: Mapped[Decimal | None] = mapped_column(Usd)
    """Days that this sync settled, and what they cost."""
    restated_usd: Mapped[Decimal | None] = mapped_column(Usd)
    """By how much the total of the restated days grew; less than nothing where it shrank."""
    provisional_usd: Mapped[Decimal | None] = mapped_column(Usd)
    """By how much what is known so far of days that are not settled grew."""

    integration: Mapped[Integration] = relationship()
