"""One field at a time: what OpenRouter's replies have to hold to, whatever they are about.

Every field is checked before use. A reply of another shape is UnexpectedResponse with the path that is off; one
that was cut off or garbled on the way is Unreachable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from operator import attrgetter
from typing import Any, TypeVar, cast

import msgspec
from msgspec.structs import replace

from grafient import money
from grafient.money import LINE_LIMIT_USD
from grafient.providers.contract import COUNTS, BilledLine, UnexpectedResponse, Unreachable

_NAME_BYTES = 2500  # PostgreSQL's index rows end at 2,704 bytes
_MOST = 2**63 - 1
Number = int | Decimal
"""A JSON number, or one in a string. OpenRouter's analytics already sends counts as strings, and other providers have
changed amounts from numbers to strings without notice. Both are exact, so both are read."""

UNKNOWN_SHAPE = "OpenRouter's reply has a shape that Grafient does not know:"
_T = TypeVar("_T")


class Misfit(Exception):
    """Something that decodes and still can't be. The message says what is off."""


def unexpected(misfit: Misfit, number: int) -> UnexpectedResponse:
    """What is off, and in which row."""
    return UnexpectedResponse(f"{UNKNOWN_SHAPE} {misfit} - at `$.data[{number}]`.")


def check_sums(on: date, lines: Sequence[BilledLine]) -> None:
    """What a day adds up to has to fit where the day's total is kept. Raises UnexpectedResponse."""
    for name in ("usage_usd", "byok_usd"):
        if sum(map(abs, filter(None, map(attrgetter(name), lines))), Decimal(0)) >= LINE_LIMIT_USD:
            much = f"{LINE_LIMIT_USD / 1_000_000:f} million"
            raise UnexpectedResponse(f"OpenRouter reports ${much} or more for {on}, which Grafient cannot keep.")
    for name in COUNTS:
        if sum(filter(None, map(attrgetter(name), lines))) > _MOST:
            raise UnexpectedResponse(f"{UNKNOWN_SHAPE} `{name}` adds up to more than 64 bits, on {on}.")


def number(row: Mapping[str, Any], name: str) -> Decimal | None:
    """A finite number, or None. Raises Misfit."""
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, (int, Decimal, str)) and not isinstance(value, bool):
        try:
            number = Decimal(value)
        except InvalidOperation:
            raise Misfit(f"`{name}` is {str(value)[:40]!r}, not a number") from None
        if number.is_finite():
            return number
    raise Misfit(f"`{name}` is not a number")


def count(number: Number | None, name: str) -> int | None:
    """A whole number of up to 64 bits, such as 12, "12" or 12.0."""
    if number is None:
        return None
    if type(number) is int and 0 <= number <= _MOST:
        return number
    if isinstance(number, Decimal) and (not number.is_finite() or number != number.to_integral_value()):
        raise Misfit(f"`{name}` is not a count")
    if not 0 <= number <= _MOST:
        raise Misfit(f"`{name}` is not a count")
    return int(number)


def counts(name: str, numbers: Sequence[Number | None]) -> Sequence[int | None]:
    """The counts of many rows."""
    if set(map(type, numbers)) == {int}:
        whole = cast(Sequence[int], numbers)
        if min(whole) >= 0 and max(whole) <= _MOST:
            return whole
    return [count(number, name) for number in numbers]


def decode(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    """The body in its shape. Raises UnexpectedResponse or Unreachable."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise UnexpectedResponse(f"{UNKNOWN_SHAPE} {error}.") from None
    except RecursionError:
        raise UnexpectedResponse(f"{UNKNOWN_SHAPE} it is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, InvalidOperation):
        raise Unreachable("OpenRouter's reply was cut off or garbled on the way.") from None


def merged(lines: Iterable[BilledLine]) -> list[BilledLine]:
    """Lines of one identity summed."""
    merged: dict[tuple[date, str, str, str], BilledLine] = {}
    for line in lines:
        identity = (line.day, line.permaslug, line.endpoint_id, line.host)
        try:
            merged[identity] = _added(merged[identity], line) if identity in merged else line
        except Misfit as misfit:
            raise UnexpectedResponse(f"{UNKNOWN_SHAPE} {misfit}, on {line.day}.") from None
    return list(merged.values())


def check_names(*names: str) -> None:
    """Raise Misfit for what an index can't hold."""
    if max(len(name.encode()) for name in names) > _NAME_BYTES:
        raise Misfit("names longer than can be kept")


def text(value: str | None) -> str:
    """Any characters but NUL, which PostgreSQL can't keep. Absent is the empty value."""
    return (value or "").replace("\0", "\N{REPLACEMENT CHARACTER}")


def day(value: str) -> date:
    """``2026-06-03``, as documented, or with a time after it, as it arrives."""
    try:
        if value[4:5] + value[7:8] != "--" or value[10:11] not in ("", " ", "T"):
            raise ValueError
        return date.fromisoformat(value[:10])
    except ValueError:
        raise Misfit(f"`date` is {value[:40]!r}, not a day") from None


def usd(value: Number) -> Decimal:
    """USD at 12 decimals. Raises Misfit."""
    try:
        return money.usd(value)
    except ValueError as error:
        raise Misfit(str(error)) from None


def usds(values: Iterable[Number | None]) -> list[Decimal | None]:
    """The amounts of many rows, None where there is none. Raises Misfit."""
    try:
        return [None if value is None else money.usd(value) for value in values]
    except ValueError as error:
        raise Misfit(str(error)) from None


def _added(line: BilledLine, repeat: BilledLine) -> BilledLine:
    """The sum of two rows with one identity; a sum with an unknown is unknown."""

    sums: dict[str, Any] = {}
    for name in ("usage_usd", "byok_usd", *COUNTS):
        one, two = getattr(line, name), getattr(repeat, name)
        sums[name] = None if one is None or two is None else one + two
        if name in COUNTS and (sums[name] or 0) > _MOST:
            raise Misfit(f"`{name}` adds up to more than 64 bits")
    sums["usage_usd"] = usd(sums["usage_usd"])
    sums["byok_usd"] = None if sums["byok_usd"] is None else usd(sums["byok_usd"])
    return replace(line, **sums)
