"""What was billed: cost lines, the days that are covered, and what restated days were before."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from grafient.extensions import Base
from grafient.models.columns import UtcDateTime
from grafient.money import Usd


class CostLine(Base):
    """USD, requests and tokens of one (integration, UTC day, permaslug, endpoint, host). NULL is unknown."""

    __tablename__ = "cost_line"
    __table_args__ = (
        Index("ix_cost_line_day_model", "integration_id", "day", "model", "usage_usd"),
        {"sqlite_with_rowid": False},
    )

    integration_id: Mapped[int] = mapped_column(ForeignKey("integration.id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    permaslug: Mapped[str] = mapped_column(Text, primary_key=True)
    endpoint_id: Mapped[str] = mapped_column(Text, primary_key=True)
    host: Mapped[str] = mapped_column(Text, primary_key=True)

    model: Mapped[str] = mapped_column(Text)
    usage_usd: Mapped[Decimal] = mapped_column(Usd)
    byok_usd: Mapped[Decimal | None] = mapped_column(Usd)
    requests: Mapped[int | None] = mapped_column(BigInteger)
    byok_requests: Mapped[int | None] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int | None] = mapped_column(BigInteger)
    completion_tokens: Mapped[int | None] = mapped_column(BigInteger)
    reasoning_tokens: Mapped[int | None] = mapped_column(BigInteger)
    cached_tokens: Mapped[int | None] = mapped_column(BigInteger)


class CoveredDay(Base):
    """A UTC day of which a whole reply spoke: with lines, or known to be without usage.

    ``state``: ``final``, ``no_usage`` or ``restated``. A day without a row is missing: unknown, not zero.
    """

    __tablename__ = "covered_day"
    __table_args__ = ({"sqlite_with_rowid": False},)

    integration_id: Mapped[int] = mapped_column(ForeignKey("integration.id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    first_run_id: Mapped[int]
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Restatement(Base):
    """A cost line that a later sync changed: what it was and what it became, kept for good.

    ``before`` and ``after`` are the whole line as JSON (USD as strings), None where there was or is no line.
    """

    __tablename__ = "restatement"
    __table_args__ = (
        ForeignKeyConstraint(["integration_id"], ["integration.id"], ondelete="CASCADE"),
        Index("ix_restatement_integration_id_day", "integration_id", "day"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    integration_id: Mapped[int]
    run_id: Mapped[int] = mapped_column(ForeignKey("sync_run.id", ondelete="CASCADE"), index=True)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    day: Mapped[date]
    permaslug: Mapped[str] = mapped_column(Text)
    endpoint_id: Mapped[str] = mapped_column(Text)
    host: Mapped[str] = mapped_column(Text)
    usage_before_usd: Mapped[Decimal | None] = mapped_column(Usd)
    usage_after_usd: Mapped[Decimal | None] = mapped_column(Usd)
    before: Mapped[str | None] = mapped_column(Text)
    after: Mapped[str | None] = mapped_column(Text)
