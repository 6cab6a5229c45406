"""How figures, days, moments and keys are written. Jinja filters; amounts stay Decimal from end to end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

from flask import Flask
from markupsafe import Markup, escape

from grafient.days import Period
from grafient.extensions import providers
from grafient.models import UNATTRIBUTED
from grafient.query import Group, KeyChoice
from grafient.reports.chart import Step
from grafient.reports.pivot import By
from grafient.restatements import Change
from grafient.states import DayState, Problem, Stage
from grafient.status import Brought, Card, in_reach

UNKNOWN = "—"
MINUS = "−"
NBSP = "\N{NO-BREAK SPACE}"

_CENT = Decimal("0.01")
_EXACT = Context(prec=60, rounding=ROUND_HALF_UP)
"""Room for any sum that a column can hold; the default context would refuse to round the largest."""

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_UNITS = ((3, "K"), (6, "M"), (9, "B"), (12, "T"))


def register(app: Flask) -> None:
    """Give the app's templates the filters."""
    for filter_ in (
        usd,
        usd_parts,
        usd_rate,
        usd_about,
        usd_exact,
        exact_parts,
        breakable,
        plain,
        whole,
        compact,
        percent,
        day,
        days,
        period,
        month,
        month_name,
        by_month,
        moment,
        clock,
        weekday,
        iso,
        duration,
        span,
        size,
        problem,
        provider_name,
        differences,
        day_state,
        day_state_meaning,
        group_one,
        group_many,
        group_head,
        group_unknown,
        card_progress,
        brought,
    ):
        app.add_template_filter(filter_)
    app.jinja_env.globals |= {"groups": list(Group), "in_reach": in_reach}


def usd(amount: Decimal | int | None, signed: bool = False) -> str:
    """``$1,234.56``. Below a cent, the first two digits that say something: ``$0.0043``."""
    return ("+" if signed and amount is not None and amount > 0 else "") + "".join(usd_parts(amount))


def usd_parts(amount: Decimal | int | None) -> tuple[str, str]:
    """The same in two, to set whole dollars big and what follows small."""
    if amount is None:
        return UNKNOWN, ""
    value = _decimal(amount)
    size = value.copy_abs()
    last_place = size.adjusted() - 1 if 0 < size < _CENT else -2
    dollars, _, cents = f"{_rounded(size, last_place):,f}".partition(".")
    return f"{_sign(value)}${dollars}", f".{cents.rstrip('0'):0<2}"


def usd_rate(amount: Decimal | None) -> str:
    """What one of something costs: cents, and three digits that say something at least: ``$2.80``, ``$0.0225``."""
    if amount is None:
        return UNKNOWN
    size = amount.copy_abs()
    last_place = min(-2, size.adjusted() - 2) if size else -2
    return f"{_sign(amount)}${_rounded(size, last_place):,f}"


def usd_about(amount: Decimal | None, signed: bool = False) -> str:
    """For an estimate: whole dollars from ten on, ``$31``; below, as ``usd``."""
    if amount is None or amount.copy_abs() < 10:
        return usd(amount, signed)
    return f"{'+' if signed and amount > 0 else _sign(amount)}${_rounded(amount.copy_abs(), 0):,f}"


def usd_exact(amount: Decimal | int | None, decimals: int = 2, signed: bool = False) -> str:
    """Every digit that is known, and at least so many decimals: ``$1,234.5678``."""
    return "".join(exact_parts(amount, decimals, signed))


def exact_parts(amount: Decimal | int | None, decimals: int = 2, signed: bool = False) -> tuple[str, str]:
    """The same in two, after the cents."""
    if amount is None:
        return UNKNOWN, ""
    value = _decimal(amount)
    dollars, _, rest = plain(value.copy_abs()).partition(".")
    rest = rest.ljust(max(decimals, 2), "0")
    return f"{'+' if signed and value > 0 else _sign(value)}${int(dollars):,}.{rest[:2]}", rest[2:]


def breakable(name: str) -> Markup:
    """A name such as ``deepseek/deepseek-chat-v3.5``, which a narrow column breaks after a slash, not inside a word."""
    return escape(name).replace("/", Markup("/<wbr>"))


def plain(number: Decimal | int) -> str:
    """For a machine: all digits, no exponent, no separators, nothing superfluous."""
    value = _decimal(number)
    digits = f"{value:f}"
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return digits if value else "0"


def whole(number: Decimal | int | None) -> str:
    """``1,234,567``."""
    if number is None:
        return UNKNOWN
    value = _decimal(number)
    return f"{_sign(value)}{_rounded(value.copy_abs(), 0):,f}"


def compact(number: Decimal | int | None) -> str:
    """``15.0M``; below ten thousand, the number itself."""
    if number is None:
        return UNKNOWN
    value = _decimal(number)
    if value.copy_abs() < 10_000:
        return whole(value)
    scaled = [(_rounded(value.copy_abs().scaleb(-power, _EXACT), -1), letter) for power, letter in _UNITS]
    size, letter = next((pair for pair in scaled if pair[0] < 1000), scaled[-1])
    return f"{_sign(value)}{size:,f}{letter}"


def percent(fraction: Decimal | None, signed: bool = False) -> str:
    """``12.4%`` of a fraction. A part does not round to nothing, nor to the whole: ``<0.1%``, ``>99.9%``."""
    if fraction is None:
        return UNKNOWN
    value = _decimal(fraction)
    size = _rounded(value.copy_abs().scaleb(2, _EXACT), -1)
    sign = "+" if signed and value > 0 else _sign(value)
    if value and not size:
        return f"{sign}<0.1%"
    if size == 100 and not signed and value.copy_abs() < 1:
        return f"{sign}>99.9%"
    return f"{sign}{size:,f}%"


def day(value: date | None) -> str:
    """``3 Jun 2026``."""
    return UNKNOWN if value is None else f"{value.day} {_MONTHS[value.month - 1][:3]} {value.year}"


def period(value: Period) -> str:
    """``1–30 Jun 2026``, ``30 May – 28 Jun 2026``: what both ends share is said once."""
    return days(value.first, value.last)


def days(first: date | None, last: date | None) -> str:
    """The same, of two days."""
    if first is None or last is None:
        return UNKNOWN
    if first == last:
        return day(last)
    if (first.year, first.month) == (last.year, last.month):
        return f"{first.day}–{day(last)}"
    if first.year == last.year:
        return f"{first.day} {_MONTHS[first.month - 1][:3]} – {day(last)}"
    return f"{day(first)} – {day(last)}"


def month(value: date, short: bool = False) -> str:
    """``June 2026``; short, ``Jun 2026``."""
    name = _MONTHS[value.month - 1]
    return f"{name[:3] if short else name} {value.year}"


def month_name(value: date) -> str:
    """``June``, where the year is said beside it."""
    return _MONTHS[value.month - 1]


def by_month(entries: Iterable[tuple[date, DayState]]) -> list[tuple[date, Sequence[tuple[date, DayState] | None]]]:
    """Entries of days as a row for each month: its first day, and a cell for each of 31 days."""
    rows: dict[date, list[tuple[date, DayState] | None]] = {}
    for entry in entries:
        rows.setdefault(entry[0].replace(day=1), [None] * 31)[entry[0].day - 1] = entry
    return list(rows.items())


def moment(value: datetime | None) -> str:
    """``3 Jun 2026, 06:00 UTC``."""
    return UNKNOWN if value is None else f"{day(_utc(value))}, {clock(value)}"


def clock(value: datetime) -> str:
    """``06:00 UTC``, where the day is said beside it."""
    return f"{_utc(value):%H:%M} UTC"


def weekday(value: date) -> str:
    """``Friday``."""
    return _WEEKDAYS[value.weekday()]


def iso(value: date | datetime) -> str:
    """For ``<time datetime>``: ``2026-06-03`` or ``2026-06-03T06:00:00Z``."""
    if isinstance(value, datetime):
        return f"{_utc(value):%Y-%m-%dT%H:%M:%SZ}"
    return value.isoformat()


def duration(first: datetime | None, last: datetime | None) -> str:
    """How long it took: ``0.8 s``, ``2 min 5 s``."""
    if first is None or last is None:
        return UNKNOWN
    return span((last - first).total_seconds())


def span(seconds: float) -> str:
    """So many seconds: ``0.8 s``, ``2 min 5 s``, ``3 h 20 min``, ``2 d 5 h``."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, days = minutes // 60, minutes // (24 * 60)
    parts = ((days, "d", hours % 24, "h"), (hours, "h", minutes % 60, "min"), (minutes, "min", rest, "s"))
    found = next((part for part in parts if part[0]), None)
    return f"{rest}{NBSP}s" if found is None else f"{found[0]}{NBSP}{found[1]} {found[2]}{NBSP}{found[3]}"


def size(number: int) -> str:
    """``512 B``, ``79.3 MB``."""
    if number < 1000:
        return f"{number}{NBSP}B"
    return next(
        f"{number / factor:.1f}{NBSP}{unit}"
        for factor, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
        if number >= factor
    )


_PROBLEMS = {
    Problem.NEEDS_KEY: "needs a new key",
    Problem.KEY_UNREADABLE: "key can't be read",
    Problem.API_CHANGED: "changed its API",
    Problem.FAULT: "unreachable, busy, or failed in Grafient",
}


def problem(value: Problem | None) -> str:
    """Which kind of problem it is, in words that fit any integration."""
    return "no problem any more" if value is None else _PROBLEMS[value]


def provider_name(slug: str) -> str:
    """What a provider is called."""
    return providers[slug].name if slug in providers else slug


def key_names(keys: Iterable[KeyChoice]) -> dict[str, str]:
    """What to call each API key, by its hash, and what no key explains. Keys of one name get some of their hash."""
    named: dict[str, KeyChoice] = {}
    for key in keys:
        named.setdefault(key.key_hash, key)
    count = Counter(key.name for key in named.values())
    names = {}
    for key_hash, key in named.items():
        name = key.name.strip() or "Unnamed"
        twice = f" {key_hash[:8]}" if count[key.name] > 1 or not key.name.strip() else ""
        names[key_hash] = f"{name}{twice}{' (deleted)' if key.gone else ''}"
    return names | {UNATTRIBUTED: "Unattributed"}


_DAY_STATES = {
    DayState.FINAL: ("Final", "complete; it has not changed since it was first read"),
    DayState.PROVISIONAL: ("Provisional", "known so far; it may still grow and is in no total"),
    DayState.RESTATED: ("Restated", "changed after it was first read; the earlier amounts are kept"),
    DayState.NO_USAGE: ("No usage", "the provider reported no usage"),
    DayState.PARTIAL: ("Incomplete", "missing for some of the integrations"),
    DayState.MISSING: ("Missing", "not read, so it is in no total, and not zero"),
}


def day_state(state: DayState) -> str:
    """What the state of a day is called."""
    return _DAY_STATES[state][0]


def day_state_meaning(state: DayState) -> str:
    """What it means, to follow its name."""
    return _DAY_STATES[state][1]


_STAGES = {
    Stage.COSTS: "Costs of recent days",
    Stage.CHECKS: "Credits and analytics",
    Stage.HISTORY: "History",
    Stage.KEYS: "API keys",
}


def card_progress(card: Card) -> str:
    """How far the sync of a card is: ``History: 170 of 335 days``."""
    if card.stage is None:
        return "Waiting to start"
    of = f": {whole(card.steps_done)} of {whole(card.steps_asked)}" if card.counts_steps else ""
    return f"{_STAGES[card.stage]}{of}{' days' if of and card.stage == Stage.HISTORY else ''}"


def brought(found: Brought) -> str:
    """What a sync brought: ``1 new day, $29.07; 3 days changed, +$41.51``, or ``Nothing new``; a first one ``365 days,
    $1,234.56``."""
    if found.is_nothing:
        return "Nothing new"
    parts = []
    if found.days_settled:
        parts.append(f"{_days(found.days_settled, 'day' if found.first else 'new day')}, {usd(found.settled_usd)}")
    if found.days_restated:
        parts.append(f"{_days(found.days_restated, 'day')} changed, {usd(found.restated_usd, signed=True)}")
    if found.provisional_usd:
        parts.append(f"today so far {usd(found.provisional_usd, signed=True)}")
    text = "; ".join(parts)
    return text[0].upper() + text[1:]


def _days(number: int, name: str) -> str:
    return f"{whole(number)} {name}{'' if number == 1 else 's'}"


_GROUPS: dict[By, tuple[str, str]] = {
    Group.MODEL: ("model", "models"),
    Group.HOST: ("host", "hosts"),
    Group.KEY: ("API key", "API keys"),
    Group.INTEGRATION: ("integration", "integrations"),
    Step.DAY: ("day", "days"),
    Step.WEEK: ("week", "weeks"),
    Step.MONTH: ("month", "months"),
}


def group_one(group: By) -> str:
    """What one thing that costs are added up by is called."""
    return _GROUPS[group][0]


def group_many(group: By) -> str:
    """The same, of several."""
    return _GROUPS[group][1]


def group_head(group: By) -> str:
    """The same, as a column's head."""
    name = _GROUPS[group][0]
    return name[0].upper() + name[1:]


def group_unknown(group: By) -> str:
    """What stands for one without a name."""
    return f"{group_head(group)} unknown"


_MEASURES = {
    "requests": "Requests",
    "byok_requests": "BYOK requests",
    "prompt_tokens": "Prompt",
    "completion_tokens": "Completion",
    "reasoning_tokens": "Reasoning",
    "cached_tokens": "Cached",
}


def differences(change: Change) -> list[str]:
    """What else than USD differs in a line that was and is: ``Requests 4 → 5``."""
    before, after = _measured(change.before or {}), _measured(change.after or {})
    return [f"{name} {one} → {after[name]}" for name, one in before.items() if one != after[name]]


def _measured(line: Mapping[str, Any]) -> dict[str, str]:
    byok = line.get("byok_usd")
    found = {"Name": line.get("model") or UNKNOWN, "BYOK": usd_exact(None if byok is None else Decimal(byok))}
    return found | {label: whole(line.get(name)) for name, label in _MEASURES.items()}


def _decimal(number: Decimal | int) -> Decimal:
    if isinstance(number, Decimal) or (isinstance(number, int) and not isinstance(number, bool)):
        return Decimal(number)
    raise TypeError(f"a figure has to be Decimal or int, not {type(number).__name__}")


def _sign(value: Decimal) -> str:
    return MINUS if value < 0 else ""


def _rounded(size: Decimal, exponent: int) -> Decimal:
    return size.quantize(Decimal(1).scaleb(exponent), context=_EXACT)


def _utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise TypeError("a moment without a time zone")
    return value.astimezone(UTC)
