"""Exact USD in both databases: the column types, and nothing else.

A line of costs has its USD as a 64-bit integer of 10^-12 USD, in both databases: it is narrow, and the database adds it
up itself. Such an integer ends at $9.2 million, so what a provider reports for one day of one account is refused from
$9 million on. What can be more than that, such as an account's lifetime, is NUMERIC in PostgreSQL and a fixed-point
text in SQLite, which has no exact decimal (SQLAlchemy's Numeric is a float there); no query adds it up.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Any

from sqlalchemy import BigInteger, Dialect, Numeric, String
from sqlalchemy.types import TypeDecorator, TypeEngine

PLACES = 12
STEP_USD = Decimal(1).scaleb(-PLACES)
LIMIT_USD = Decimal(100_000_000)
"""No single amount is this large or larger; sums may be, up to 10^20."""
_LEAST_USD = -LIMIT_USD

LINE_LIMIT_USD = Decimal(9_000_000)
"""No line of costs is this large or larger, nor are all lines of an account and a UTC day together."""

_LINE_LIMIT = int(LINE_LIMIT_USD.scaleb(PLACES))
_NOTHING = Decimal(0).quantize(STEP_USD)
_exact = Context(prec=60, rounding=ROUND_HALF_EVEN)
_quantize, _scaleb, _multiply = _exact.quantize, _exact.scaleb, _exact.multiply


def usd(amount: Decimal | int | str) -> Decimal:
    """The amount at 12 decimals, half to even. Raises ValueError if it is no number or $100 million or more."""
    if type(amount) is int and amount == 0:
        return _NOTHING
    value = amount if type(amount) is Decimal else Decimal(amount)
    try:
        exact = _quantize(value, STEP_USD)
        if _LEAST_USD < exact < LIMIT_USD:
            return exact
    except InvalidOperation:  # NaN, infinite, or longer than any amount
        pass
    raise ValueError(f"not an amount in USD that can be kept: {value:.6E}")


def rounded(figure: Decimal) -> Decimal:
    """What was divided, at 12 decimals, half to even; of any size."""
    return _quantize(figure, STEP_USD)


def places(amounts: Iterable[Decimal | int | None]) -> int:
    """The most decimals that one of these has, and at least two: a column of all of them lines up."""
    shown = (Decimal(amount).normalize().as_tuple().exponent for amount in amounts if amount)
    return max([2, *(-exponent for exponent in shown if isinstance(exponent, int))])


def in_steps(amount: Decimal) -> int:
    """The amount as a whole number of 10^-12 USD. Raises ValueError if it is finer, or too much for a line."""
    if not amount:
        return 0
    steps = int(scaled := _scaleb(amount, PLACES))
    if steps != scaled:
        raise ValueError(f"finer than {PLACES} decimals: {amount}")
    if not -_LINE_LIMIT < steps < _LINE_LIMIT:
        raise ValueError(f"not an amount in USD that can be kept: {amount:.6E}")
    return steps


def from_steps(steps: int) -> Decimal:
    """The amount of so many 10^-12 USD."""
    return _multiply(STEP_USD, steps)


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
        exact = usd(_decimal(value))
        if exact != value:
            raise ValueError(f"finer than {PLACES} decimals: {value}")
        return f"{exact:f}" if dialect.name == "sqlite" else exact

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


class SumUsd(Usd):
    """The same for a sum that somebody sets: of any size that the column has room for, so LIMIT_USD and more too."""

    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        exact = rounded(_decimal(value))
        if exact != value:
            raise ValueError(f"finer than {PLACES} decimals: {value}")
        return f"{exact:f}" if dialect.name == "sqlite" else exact


class LineUsd(TypeDecorator[Decimal]):
    """A column of a line's USD, exact to 12 decimals; what ``Usd`` refuses, and LINE_LIMIT_USD or more, is refused."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> int | None:
        return None if value is None else in_steps(_decimal(value))

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        """See ``Day.result_processor``: there is nothing below it to be processed."""
        return lambda steps: None if steps is None else from_steps(steps)


def _decimal(value: object) -> Decimal:
    if not isinstance(value, Decimal):
        raise TypeError(f"USD must be a Decimal, not {type(value).__name__}")
    return value
