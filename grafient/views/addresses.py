"""What an address asks for: a period, filters, a group. One query in the address is shared by pages and exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from flask import abort, request
from flask_security import current_user

from grafient.days import ONE_DAY, Period, last_due
from grafient.models import UNATTRIBUTED, utc_now
from grafient.query import Group, Match, Measure, Query, all_owned, first_stored, matching, owned
from grafient.reports.chart import Step
from grafient.reports.pivot import By

LENGTHS = (7, 30, 90, 365)
"""In days, of the periods that are chosen by their length."""

NAMED_PERIODS = {
    "yesterday": "Yesterday",
    "month": "This month",
    "last-month": "Last month",
    "year": "This year",
    "all": "All time",
}
"""The periods that are chosen by their name, and what they are called."""

MAX_DAYS = 20 * 366
_YEARS = range(2000, 2201)

PERIOD = ("days", "period", "from", "to")
SEVERAL = ("integration", "model", "host", "key")
"""What can be asked for several times, to have any of them; and by name, where there is too much to choose from."""

FILTERS = (*PERIOD, *SEVERAL, "q", "group", "columns", "find", "byok", "against", "measure", "by", "view")
AGAINST = {"previous": "Previous period", "month": "A month before", "year": "A year before", "none": "Nothing"}
"""What a period can be compared with, other than days that are named, and what that is called."""

NO_KEY = "unattributed"
"""In the address, for what no key explains."""

Address = dict[str, str | list[str]]
"""What an address asks for, for ``url_for``: what may be there several times as a list."""


class BadPeriod(ValueError):
    """The address asks for days that can't be shown. The message is a sentence for the user."""


def query() -> Query:
    """What the address of this request asks for. 400 or 404 where it can't be answered; raises BadPeriod."""
    chosen = integrations()
    return _query(chosen, period(request.args, chosen))


def query_of(of: Period) -> Query:
    """The same of a period that the address says in another way."""
    return _query(integrations(), of)


def query_or_latest() -> tuple[Query, str]:
    """The same for a page that says itself what is wrong with a period: the last 30 days then, and the sentence."""
    chosen = integrations()
    try:
        return _query(chosen, period(request.args, chosen)), ""
    except BadPeriod as error:
        return _query(chosen, Period.latest(30, utc_now())), str(error)


def _query(chosen: tuple[int, ...], of: Period) -> Query:
    return Query(
        workspace_id=current_user.workspace_id,
        period=of,
        integrations=chosen,
        models=_texts("model"),
        hosts=_texts("host"),
        keys=tuple(UNATTRIBUTED if one == NO_KEY else one for one in _texts("key")),
        text=_text("q").strip() or None,
        byok=request.args.get("byok") == "1",
    )


def kept() -> Address:
    """The filters as they stand in the address, for links that keep them."""
    found: Address = {name: request.args[name] for name in FILTERS if request.args.get(name)}
    return found | {name: several for name in SEVERAL if (several := list(_texts(name)))}


def days_until(day: date, integrations: Sequence[int] = ()) -> Address:
    """The 30 days that end with a day, for links from it to what was used on it."""
    of = Period(day - timedelta(days=29), day)
    narrow: Address = {"integration": [str(one) for one in integrations]} if integrations else {}
    return narrow | {"from": of.first.isoformat(), "to": of.last.isoformat()}


def group() -> Group:
    """What costs are added up by; 400 for anything else."""
    return _one_of(Group, "group") or Group.MODEL


def rows() -> By:
    """What a breakdown has a row for; 400 for anything else."""
    return _by("group") or Group.MODEL


def columns() -> By | None:
    """What it has a column for, if it has; 400 for anything else, and for what it has a row for."""
    found = _by("columns")
    if found is not None and found == rows():
        abort(400)
    return found


def _by(name: str) -> By | None:
    return _one_of(Step, name) if request.args.get(name) in set(Step) else _one_of(Group, name)


def find() -> str:
    """A part of the names of a breakdown's rows."""
    return _text("find").strip()


def page() -> int:
    """Which page of a list, from 1 on; 404 for no number."""
    return int(place().get("page", 1))


def measure() -> Measure:
    """What the chart, or a breakdown with columns, adds up; 400 for anything else."""
    return _one_of(Measure, "measure") or Measure.USD


def step() -> Step | None:
    """What a bar of the chart is of, if the address says so; 400 for anything else."""
    return _one_of(Step, "by")


def is_cumulative() -> bool:
    """Whether the chart shows the running total; 400 for a view that is none."""
    view = request.args.get("view") or ""
    if view not in ("", "cumulative"):
        abort(400)
    return bool(view)


_Enum = TypeVar("_Enum", bound=StrEnum)


def _one_of(kind: type[_Enum], name: str) -> _Enum | None:
    try:
        return kind(request.args[name]) if request.args.get(name) else None
    except ValueError:
        abort(400)


def integrations() -> tuple[int, ...]:
    """The integrations asked for; 404 where one is not the user's own."""
    texts = _texts("integration")
    if any(not (text.isascii() and text.isdigit() and len(text) < 10 and str(int(text)) == text) for text in texts):
        abort(404)
    numbers = tuple(map(int, texts))
    if len(all_owned(current_user.workspace_id, numbers)) != len(numbers):
        abort(404)
    return numbers


@dataclass(frozen=True)
class Search:
    """A name to filter by that no one thing has: ``what`` is searched, the ``text``, what has it in its name (perhaps
    not all ``found``), and the rest of the address."""

    what: str
    text: str
    matches: Sequence[Match]
    found: int
    rest: Address

    def address(self, match: Match) -> Address:
        """The address for one of them, beside what was chosen before."""
        before = self.rest.get(self.what, [])
        return {**self.rest, self.what: list(dict.fromkeys([*before, match.value or NO_KEY]))}


def without_empty() -> Address | None:
    """The address without its empty parameters, or None if it has none: a form that is sent without JavaScript has all
    of its fields in it."""
    if all(all(values) for _, values in request.args.lists()):
        return None
    return {name: several for name, values in request.args.lists() if (several := [one for one in values if one])}


def has_names() -> bool:
    """Whether the address has names to filter by."""
    return any(f"{what}_name" in request.args for what in SEVERAL)


def named() -> Address | Search:
    """The address that says by ids what this one says by names; or, for the first name that can't be told, what was
    found."""
    args: Address = {name: value for name, value in request.args.items() if value and name not in SEVERAL}
    args |= {name: list(several) for name in SEVERAL if (several := _texts(name))}
    names = {what: _text(f"{what}_name").strip() for what in SEVERAL if f"{what}_name" in request.args}
    for what, text in names.items():
        args.pop(f"{what}_name", "")
        if text:
            matches, found = matching(current_user.workspace_id, what, text.removesuffix(" (deleted)"))
            if what == "key" and text.lower() in NO_KEY:
                matches, found = [Match(UNATTRIBUTED, "Unattributed"), *matches], found + 1
            search = Search(what, text, matches, found, args)
            if found != 1:
                return search
            args = search.address(matches[0])
    return args


def name_of(what: str, chosen: str) -> str:
    """What something that is filtered by is called; of an API key, its hash."""
    if what == "integration":
        one = owned(current_user.workspace_id, int(chosen)) if chosen.isascii() and chosen.isdigit() else None
        return one.label if one else chosen
    return chosen


def period(args: Mapping[str, str], integrations: Sequence[int] = ()) -> Period:
    """From ``from`` and ``to``; or what ``period`` names; or ``days`` up to the last one that is due, or the last 30.

    ``integrations``: of which all that is stored is asked for, if it is. Raises BadPeriod.
    """
    if args.get("from") or args.get("to"):
        return between(args.get("from", ""), args.get("to", ""))
    if args.get("period"):
        return _named_period(args["period"], integrations)
    days = args.get("days", "") or "30"
    if days not in {str(length) for length in LENGTHS}:
        choices = ", ".join(map(str, LENGTHS[:-1]))
        raise BadPeriod(f"“days” is {days[:20]!r}, but must be {choices} or {LENGTHS[-1]}.")
    return Period.latest(int(days), utc_now())


def against(period: Period) -> Period | None:
    """What to compare a period with, from ``against``: ``previous`` (the default: as many days just before, or before a
    whole month the month before), ``month`` and ``year`` (the same days, a month or a year earlier), ``none``, or days
    such as ``2026-05-01/2026-05-31`` or ``2026-05-01``. Raises BadPeriod.
    """
    text = request.args.get("against") or "previous"
    if text in AGAINST:
        months = {"month": 1, "year": 12}
        return None if text == "none" else period.months_earlier(months[text]) if text in months else period.previous
    first, _, last = text.partition("/")
    try:
        Period(_day(first), _day(last or first))
    except ValueError:
        raise BadPeriod(
            "“against” must be previous, month or year, or days such as 2026-05-01/2026-05-31 or 2026-05-01."
        ) from None
    return between(first, last or first)


def against_or_previous(of: Period) -> tuple[Period, str]:
    """The same for a page that says itself what is wrong, and that has to compare with something."""
    try:
        return against(of) or of.previous, ""
    except BadPeriod as error:
        return of.previous, str(error)


def month(text: str) -> Period:
    """All days of a month such as ``2026-06``; without one, of the last month whose days are all due.

    Raises BadPeriod.
    """
    if not text:
        return Period.month(_next_due().replace(day=1) - ONE_DAY)
    try:
        if len(text) != 7:
            raise ValueError
        found = Period.month(date.fromisoformat(f"{text}-01"))
    except (ValueError, OverflowError):
        raise BadPeriod("“month” must look like 2026-06.") from None
    if found.first.year not in _YEARS:
        raise BadPeriod("“month” must be between the years 2000 and 2200.")
    return found


def day(text: str) -> date:
    """One day such as ``2026-06-03``. Raises BadPeriod."""
    try:
        _day(text)
    except ValueError:
        raise BadPeriod("A day in an address must look like 2026-06-03.") from None
    return between(text, text).first


def place() -> dict[str, Any]:
    """Where on a list of several pages the user is: the ``page``, and ``q``, what is searched; 404 for no number."""
    page, text = request.args.get("page") or "1", _text("q").strip()
    if not (page.isascii() and page.isdigit() and len(page) <= 6 and int(page)):
        abort(404)
    return ({"page": page} if int(page) > 1 else {}) | ({"q": text} if text else {})


def _named_period(name: str, integrations: Sequence[int]) -> Period:
    """Up to the last day that is due; of a month or year that has none yet, its first day. Yesterday is the day before
    today, also before 06:00 UTC, when it is not due yet."""
    due = last_due(utc_now())
    if name == "yesterday":
        yesterday = utc_now().date() - ONE_DAY
        return Period(yesterday, yesterday)
    if name == "last-month":
        return Period.month((utc_now().date().replace(day=1)) - ONE_DAY)
    if name == "all":
        first = first_stored(current_user.workspace_id, integrations)
        return Period.latest(30, utc_now()) if first is None else Period(min(first, due), due)
    first_of = {"month": utc_now().date().replace(day=1), "year": utc_now().date().replace(month=1, day=1)}
    if name not in first_of:
        raise BadPeriod(f"“period” is {name[:20]!r}, but must be one of: {', '.join(NAMED_PERIODS)}.")
    return Period(first_of[name], max(first_of[name], due))


def _next_due() -> date:
    """The day that is due next, at 06:00 UTC of the one after it."""
    return last_due(utc_now()) + timedelta(days=1)


def between(first: str, last: str) -> Period:
    """A period from two days as an address has them. Raises BadPeriod."""
    try:
        found = Period(_day(first), _day(last))
    except ValueError:
        raise BadPeriod("“From” and “To” must both be days, such as 2026-06-03.") from None
    if found.first > found.last:
        raise BadPeriod("“From” must be on or before “To”.")
    if found.days > MAX_DAYS:
        raise BadPeriod(f"A period can have up to {MAX_DAYS:,} days; this one has {found.days:,}.")
    if found.first.year not in _YEARS or found.last.year not in _YEARS:
        raise BadPeriod("“From” and “To” must be between the years 2000 and 2200.")
    return found


def _day(text: str) -> date:
    if len(text) != 10:
        raise ValueError
    return date.fromisoformat(text)


MOST_VALUES = 100
"""Of one filter."""


def _texts(name: str) -> tuple[str, ...]:
    """The values of a filter as they stand in the address, each once, without empty ones; 400 with too many of them, or
    with a NUL in one, which no database stores."""
    values = tuple(dict.fromkeys(filter(None, request.args.getlist(name))))
    if len(values) > MOST_VALUES or any("\0" in value for value in values):
        abort(400)
    return values


def _text(name: str) -> str:
    return next(iter(_texts(name)), "")
