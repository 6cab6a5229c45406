"""Column types that both databases keep alike, and exact sums."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Any

from sqlalchemy import Date, DateTime, Dialect, Enum, Integer, String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import TypeDecorator, TypeEngine

from grafient.money import from_steps


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


class Day(TypeDecorator[date]):
    """A UTC day: a date in PostgreSQL; in SQLite, which has none, its number, a third of the size of the text."""

    impl = Date
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Integer() if dialect.name == "sqlite" else Date())

    def process_bind_param(self, value: date | None, dialect: Dialect) -> Any:
        return value.toordinal() if value is not None and dialect.name == "sqlite" else value

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        """Instead of ``process_result_value``, around which SQLAlchemy puts a function of its own: a chart of a year
        has 6,000 days and amounts to read, and neither type has anything below it to be processed. PostgreSQL's dates
        are dates already.
        """
        return _from_ordinal if dialect.name == "sqlite" else None


@lru_cache(4096)
def _from_ordinal(number: int | None) -> date | None:
    return None if number is None else date.fromordinal(number)


def one_of(states: type[StrEnum]) -> Enum:
    """A column of one of these states, kept as text. Reading any other text raises LookupError."""
    return Enum(
        states, native_enum=False, create_constraint=False, length=16, values_callable=lambda known: [*map(str, known)]
    )


def utc_now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)


class _Whole(TypeDecorator[int]):
    """A whole number of any size, from PostgreSQL's numeric, or from SQLite's integer or halves."""

    impl = String
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        return _whole


def _whole(value: Any) -> int | None:
    if isinstance(value, str):
        high, low = value.split(":")
        return (int(high) << 32) + int(low)
    return None if value is None else int(value)


class _Amount(TypeDecorator[Decimal]):
    """The same, of 10^-12 USD."""

    impl = String
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        return _amount


def _amount(value: Any) -> Decimal | None:
    steps = _whole(value)
    return None if steps is None else from_steps(steps)


class count_sum(GenericFunction[int]):  # noqa: N801 - a SQL function, named as SQL names it
    """Exact sum of 64-bit columns; NULL for no rows, as SQL's own. NULLs in the columns are left out, and the first of
    several columns has none.

    PostgreSQL's sum of them has no end. SQLite's own ends at 64 bits with an error, and there the upper and the lower
    32 bits are summed apart, which holds for two thousand million lines of any size. They are put together there where
    the sum fits into 64 bits, and here where it does not.
    """

    type = _Whole()
    inherit_cache = True


class usd_sum(GenericFunction[Decimal]):  # noqa: N801 - the same
    """The same of one or more LineUsd columns, in USD."""

    type = _Amount()
    inherit_cache = True


@compiles(count_sum)
@compiles(usd_sum)
def _sum(element: count_sum | usd_sum, compiler: SQLCompiler, **kw: Any) -> str:
    columns = [compiler.process(column, **kw) for column in element.clauses]
    return " + ".join([f"sum({columns[0]})", *(f"coalesce(sum({column}), 0)" for column in columns[1:])])


@compiles(count_sum, "sqlite")
@compiles(usd_sum, "sqlite")
def _sum_of_halves(element: count_sum | usd_sum, compiler: SQLCompiler, **kw: Any) -> str:
    columns = [compiler.process(column, **kw) for column in element.clauses]
    high, low = (
        " + ".join([f"({columns[0]}{part})", *(f"coalesce({column}{part}, 0)" for column in columns[1:])])
        for part in (" >> 32", " & 4294967295")
    )
    high, low = f"sum({high})", f"sum({low})"
    return f"(CASE WHEN abs({high}) < 1 << 30 THEN ({high} << 32) + {low} ELSE {high} || ':' || {low} END)"
