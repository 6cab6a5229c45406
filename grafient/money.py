"""Exact USD in both databases: the column type, its sum, and nothing else.

PostgreSQL has NUMERIC. SQLite has no exact decimal: SQLAlchemy's Numeric is a float there, and 64-bit integers
of 10^-12 USD end at $9.2 million. So SQLite keeps a fixed-point text and sums it with a Python aggregate.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal
from sqlite3 import Connection
from typing import Any

from sqlalchemy import Dialect, Numeric, String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import ReturnTypeFromArgs
from sqlalchemy.types import TypeDecorator, TypeEngine

PLACES = 12
STEP_USD = Decimal(1).scaleb(-PLACES)
LIMIT_USD = Decimal(100_000_000)
"""No single amount is this large or larger; sums may be, up to 10^20."""

_exact = Context(prec=60, rounding=ROUND_HALF_EVEN)


def usd(amount: Decimal | int | str) -> Decimal:
    """The amount at 12 decimals, half to even. Raises ValueError if it is no number or $100 million or more."""
    value = Decimal(amount)
    if not value.is_finite() or value.copy_abs() >= LIMIT_USD:
        raise ValueError(f"not an amount in USD that can be kept: {value:.6E}")
    return value.quantize(STEP_USD, context=_exact)


def places(amounts: Iterable[Decimal | int | None]) -> int:
    """The most decimals that one of these has, and at least two: a column of all of them lines up."""
    shown = (Decimal(amount).normalize().as_tuple().exponent for amount in amounts if amount)
    return max([2, *(-exponent for exponent in shown if isinstance(exponent, int))])


class Usd(TypeDecorator[Decimal]):
    """A column of USD, exact to 12 decimals. Floats are refused, finer amounts too: round with ``usd`` first."""

    impl = Numeric(24, PLACES)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(String(40))
        return dialect.type_descriptor(Numeric(24, PLACES))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if not isinstance(value, Decimal):
            raise TypeError(f"USD must be a Decimal, not {type(value).__name__}")
        exact = usd(value)
        if exact != value:
            raise ValueError(f"finer than {PLACES} decimals: {value}")
        return f"{exact:f}" if dialect.name == "sqlite" else exact

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


class usd_sum(ReturnTypeFromArgs[Any]):  # noqa: N801 - a SQL function, named as SQL names it
    """Exact sum of one or more Usd columns. NULL for no rows, as SQL's own; NULLs in the columns are left out."""

    inherit_cache = True


@compiles(usd_sum)
def _sum(element: usd_sum, compiler: SQLCompiler, **kw: Any) -> str:
    amounts = [compiler.process(column, **kw) for column in element.clauses]
    return f"sum({amounts[0]})" if len(amounts) == 1 else f"sum({' + '.join(f'coalesce({a}, 0)' for a in amounts)})"


@compiles(usd_sum, "sqlite")
def _sum_sqlite(element: usd_sum, compiler: SQLCompiler, **kw: Any) -> str:
    return f"usd_sum({compiler.process(element.clauses, **kw)})"


class _Sum:
    """SQLite's aggregate: adds integers of 10^-12 USD, which in Python have no end."""

    def __init__(self) -> None:
        self.total: int | None = None

    def step(self, *values: str | None) -> None:
        for value in values:
            if value is not None:
                self.total = (self.total or 0) + int(value.replace(".", "", 1))

    def finalize(self) -> str | None:
        return None if self.total is None else f"{Decimal(self.total).scaleb(-PLACES, _exact):f}"


def register(connection: Connection) -> None:
    """Give a SQLite connection the aggregate that ``usd_sum`` compiles to."""
    connection.create_aggregate("usd_sum", -1, _Sum)  # type: ignore[arg-type]
