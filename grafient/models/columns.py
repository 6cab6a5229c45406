"""Column types that both databases keep alike."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import DateTime, Dialect, Enum, String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, aware and in UTC on both sides. SQLite has no zones, so it is stored without one there."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise TypeError("a moment without a time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def one_of(states: type[StrEnum]) -> Enum:
    """A column of one of these states, kept as text. Reading any other text raises LookupError."""
    return Enum(
        states, native_enum=False, create_constraint=False, length=16, values_callable=lambda known: [*map(str, known)]
    )


def utc_now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)


class _Count(TypeDecorator[int]):
    """A whole number of any size, from PostgreSQL's numeric or from SQLite's halves."""

    impl = String
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        if value is None:
            return None
        high, _, low = str(value).rpartition(":")
        return (int(high or 0) << 32) + int(low)


class count_sum(GenericFunction[int]):  # noqa: N801 - a SQL function, named as SQL names it
    """Exact sum of 64-bit counts. SQLite's own ends at 64 bits with an error, so there the halves are summed."""

    type = _Count()
    inherit_cache = True


@compiles(count_sum)
def _sum(element: count_sum, compiler: SQLCompiler, **kw: Any) -> str:
    return f"sum({compiler.process(element.clauses, **kw)})"


@compiles(count_sum, "sqlite")
def _sum_of_halves(element: count_sum, compiler: SQLCompiler, **kw: Any) -> str:
    column = compiler.process(element.clauses, **kw)
    return f"(sum({column} >> 32) || ':' || sum({column} & 4294967295))"
