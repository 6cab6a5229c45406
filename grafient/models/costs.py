"""What was billed: cost lines and which key spent them, the days that are covered, what restated days were before,
and everything else the provider reports that the figures can be compared with."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from grafient.extensions import Base
from grafient.models.columns import Day, UtcDateTime, one_of
from grafient.money import LineUsd, Usd
from grafient.states import DayState, Source


class Model(Base):
    """What people call a model, kept once for each integration, so that sums by model add up small numbers."""

    __tablename__ = "model"
    __table_args__ = (UniqueConstraint("integration_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    integration_id: Mapped[int] = mapped_column(ForeignKey("integration.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(Text)


class Series(Base):
    """What the provider bills apart: a permaslug at an endpoint of a host, by the name of its model.

    An account has tens to hundreds of them, and a line a day of each that was used. The names are most of a
    line's bytes, so they are kept here once and a line has their number. What a further provider bills by (a line
    item, a service tier, a project) becomes a column here, and no line grows.
    """

    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("integration_id", "permaslug", "endpoint_id", "host", "model_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    integration_id: Mapped[int] = mapped_column(ForeignKey("integration.id", ondelete="CASCADE"))
    permaslug: Mapped[str] = mapped_column(Text)
    endpoint_id: Mapped[str] = mapped_column(Text)
    host: Mapped[str] = mapped_column(Text)
    model_id: Mapped[int]


class Figures:
    """What is measured of a line. NULL is unknown."""

    usage_usd: Mapped[Decimal] = mapped_column(LineUsd)
    byok_usd: Mapped[Decimal | None] = mapped_column(LineUsd)
    requests: Mapped[int | None] = mapped_column(BigInteger)
    byok_requests: Mapped[int | None] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int | None] = mapped_column(BigInteger)
    completion_tokens: Mapped[int | None] = mapped_column(BigInteger)
    reasoning_tokens: Mapped[int | None] = mapped_column(BigInteger)
    cached_tokens: Mapped[int | None] = mapped_column(BigInteger)


class Line(Figures, Base):
    """USD, requests and tokens of one series of an integration on one UTC day.

    ``series_id`` has no foreign key: deleting a series would have to look through all lines, or every line be in one
    more index. Both go with their integration.
    """

    __tablename__ = "line"
    __table_args__ = (PrimaryKeyConstraint("integration_id", "day", "series_id"), {"sqlite_with_rowid": False})

    integration_id: Mapped[int] = mapped_column(ForeignKey("integration.id", ondelete="CASCADE"))
    day: Mapped[date] = mapped_column(Day)
    series_id: Mapped[int]


class KeyPart(Figures, Base):
    """The part of a line that one API key spent. What no key explains is not stored: it is the line less its parts."""

    __tablename__ = "key_part"
    __table_args__ = (PrimaryKeyConstraint("key_id", "day", "series_id"), {"sqlite_with_rowid": False})

    key_id: Mapped[int] = mapped_column(ForeignKey("api_key.id", ondelete="CASCADE"))
    day: Mapped[date] = mapped_column(Day)
    series_id: Mapped[int]


class _Sums:
    """Lines added up: each sum with the number of lines in which it is known, and the number of lines.

    A sum of which nothing is known is NULL. They are written in the transaction that changes the lines, see ``totals``.
    """

    usage_usd: Mapped[Decimal] = mapped_column(LineUsd)
    byok_usd: Mapped[Decimal | None] = mapped_column(LineUsd)
    byok_usd_known: Mapped[int]
    requests: Mapped[int | None] = mapped_column(BigInteger)
    requests_known: Mapped[int]
    prompt_tokens: Mapped[int | None] = mapped_column(BigInteger)
    prompt_tokens_known: Mapped[int]
    completion_tokens: Mapped[int | None] = mapped_column(BigInteger)
    completion_tokens_known: Mapped[int]
    reasoning_tokens: Mapped[int | None] = mapped_column(BigInteger)
    reasoning_tokens_known: Mapped[int]
    cached_tokens: Mapped[int | None] = mapped_column(BigInteger)
    cached_tokens_known: Mapped[int]
    lines: Mapped[int]


class DayTotal(_Sums, Base):
    """All lines of an integration on one UTC day, added up."""

    __tablename__ = "day_total"
    __table_args__ = (PrimaryKeyConstraint("integration_id", "day"), {"sqlite_with_rowid": False})

    integration_id: Mapped[int] = mapped_column(ForeignKey("integration.id", ondelete="CASCADE"))
    day: Mapped[date] = mapped_column(Day)


class ModelTotal(_Sums, Base):
    """All lines of one model of an integration on one UTC day, added up; the days of a model lie together."""

    __tablename__ = "model_total"
    __table_args__ = (PrimaryKeyConstraint("model_id", "day"), {"sqlite_with_rowid": False})

    model_id: Mapped[int] = mapped_column(ForeignKey("model.id", ondelete="CASCADE"))
    day: Mapped[date] = mapped_column(Day)


UNATTRIBUTED = ""
"""In place of a key's hash: what no key explains."""


class ApiKey(Base):
    """An API key of the account, kept when it no longer exists there.

    ``gone_at``: since when it is no longer listed. ``read_at``: when its costs were last read. ``spent`` is what the
    provider said when it was last listed, see ``ListedKey``; ``spent_on`` the UTC day on which that was last seen to
    have changed, so that nothing was spent on the days after. ``limit_usd`` is where the provider stops it, None if
    nowhere; ``limit_left_usd`` what was left of that at ``limit_read_at``, ``limit_reset`` when it begins anew.
    """

    __tablename__ = "api_key"
    __table_args__ = (UniqueConstraint("integration_id", "key_hash"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    integration_id: Mapped[int] = mapped_column(ForeignKey("integration.id", ondelete="CASCADE"))
    key_hash: Mapped[str] = mapped_column(String(128))
    name: Mapped[str] = mapped_column(Text)
    disabled: Mapped[bool] = mapped_column(default=False)
    gone_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    read_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    spent: Mapped[str | None] = mapped_column(Text)
    spent_on: Mapped[date | None] = mapped_column(Day)
    limit_usd: Mapped[Decimal | None] = mapped_column(Usd)
    limit_left_usd: Mapped[Decimal | None] = mapped_column(Usd)
    limit_reset: Mapped[str | None] = mapped_column(String(16))
    limit_read_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class KeyReading(Base):
    """UTC days, from ``first_day`` to ``last_day``, for which a whole reply said what one API key spent.

    Days outside every such interval are unknown for that key, whatever is known of the account: the stage that reads
    keys can fail, or run out of time, in a sync that read the account's costs. The intervals of a key neither touch
    nor overlap, so that a key which is read every day has one row.
    """

    __tablename__ = "key_reading"
    __table_args__ = ({"sqlite_with_rowid": False},)

    integration_id: Mapped[int] = mapped_column(ForeignKey("integration.id", ondelete="CASCADE"), primary_key=True)
    key_hash: Mapped[str] = mapped_column(String(128), primary_key=True)
    first_day: Mapped[date] = mapped_column(Day, primary_key=True)
    last_day: Mapped[date] = mapped_column(Day)


class CoveredDay(Base):
    """A UTC day that a whole reply covered: it has lines, or is known to have no usage.

    A day without a row is missing: unknown, not zero. ``digest`` is that of what was last read of it, see
    ``DayReply``; NULL where it can't be known whether the next reply says the same.
    """

    __tablename__ = "covered_day"
    __table_args__ = ({"sqlite_with_rowid": False},)

    integration_id: Mapped[int] = mapped_column(ForeignKey("integration.id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[date] = mapped_column(Day, primary_key=True)
    state: Mapped[DayState] = mapped_column(one_of(DayState))
    source: Mapped[Source] = mapped_column(one_of(Source), server_default=Source.ACTIVITY)
    first_run_id: Mapped[int]
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    digest: Mapped[bytes | None] = mapped_column(LargeBinary)


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
    day: Mapped[date] = mapped_column(Day)
    permaslug: Mapped[str] = mapped_column(Text)
    endpoint_id: Mapped[str] = mapped_column(Text)
    host: Mapped[str] = mapped_column(Text)
    usage_before_usd: Mapped[Decimal | None] = mapped_column(LineUsd)
    usage_after_usd: Mapped[Decimal | None] = mapped_column(LineUsd)
    before: Mapped[str | None] = mapped_column(Text)
    after: Mapped[str | None] = mapped_column(Text)


class DayCheck(Base):
    """What analytics says was charged to credits on a UTC day, rounded to 6 decimals, and when it first said so."""

    __tablename__ = "day_check"
    __table_args__ = ({"sqlite_with_rowid": False},)

    integration_id: Mapped[int] = mapped_column(ForeignKey("integration.id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[date] = mapped_column(Day, primary_key=True)
    analytics_usd: Mapped[Decimal] = mapped_column(Usd)
    checked_at: Mapped[datetime] = mapped_column(UtcDateTime)


class CreditReading(Base):
    """All that was ever charged to the account's credits, as the provider said at a moment.

    ``today_usd``: how much of it was on the UTC day of the moment, where analytics said so. ``bought_usd``: all that
    was ever paid into the account, where the provider said so; what is left is that less what was charged.
    """

    __tablename__ = "credit_reading"
    __table_args__ = (Index("ix_credit_reading_integration_id_read_at", "integration_id", "read_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    integration_id: Mapped[int] = mapped_column(ForeignKey("integration.id", ondelete="CASCADE"))
    read_at: Mapped[datetime] = mapped_column(UtcDateTime)
    lifetime_usd: Mapped[Decimal] = mapped_column(Usd)
    today_usd: Mapped[Decimal | None] = mapped_column(Usd)
    bought_usd: Mapped[Decimal | None] = mapped_column(Usd)


class RestatementSeen(Base):
    """The last restatement of an integration that a user has looked at."""

    __tablename__ = "restatement_seen"
    __table_args__ = ({"sqlite_with_rowid": False},)

    user_id: Mapped[int] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), primary_key=True)
    integration_id: Mapped[int] = mapped_column(ForeignKey("integration.id", ondelete="CASCADE"), primary_key=True)
    restatement_id: Mapped[int]


class RawReply(Base):
    """What the provider answered, gzip-compressed, without any secret; kept for a time as evidence."""

    __tablename__ = "raw_reply"
    __table_args__ = (
        Index("ix_raw_reply_run_id", "run_id"),
        Index("ix_raw_reply_received_at", "received_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("sync_run.id", ondelete="CASCADE"))
    request: Mapped[str] = mapped_column(Text)
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    body: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
