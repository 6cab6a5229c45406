"""What an address asks for: a period, filters, a group. One query in the address is shared by pages and exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from flask import abort, request
from flask_security import current_user

from grafient.days import ONE_DAY, Period, last_due
from grafient.models import UNATTRIBUTED, utc_now
from grafient.query import Group, Match, Query, keys_called, matching, owned
from grafient.views.formats import key_names

LENGTHS = (7, 30, 90, 365)
"""In days, of the periods that are chosen by their length."""

MAX_DAYS = 366
_YEARS = range(2000, 2201)

FILTERS = ("days", "from", "to", "integration", "host", "key", "q", "group", "byok")
AGAINST = ("previous", "month", "year")
"""What a period can be compared with, other than days that are named."""

NO_KEY = "unattributed"
"""In the address, for what no key explains."""


class BadPeriod(ValueError):
    """The address asks for days that can't be shown. The message is a sentence for the user."""


def query() -> Query:
    """What the address of this request asks for. 400 or 404 where it can't be answered; raises BadPeriod."""
    return Query(
        workspace_id=current_user.workspace_id,
        period=period(request.args),
        integration_id=integration(),
        host=_text("host") or None,
        model=_text("q").strip() or None,
        key=_key(),
        byok=request.args.get("byok") == "1",
    )


def kept() -> dict[str, str]:
    """The filters as they stand in the address, for links that keep them."""
    return {name: request.args[name] for name in FILTERS if request.args.get(name)}


def group() -> Group:
    """What costs are added up by; 400 for anything else."""
    try:
        return Group(request.args.get("group") or Group.MODEL)
    except ValueError:
        abort(400)


def integration() -> int | None:
    """The integration asked for; 404 where it is not the user's own."""
    text = request.args.get("integration", "")
    if not text:
        return None
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if str(number) != text or owned(current_user.workspace_id, number) is None:
        abort(404)
    return number


@dataclass(frozen=True)
class Search:
    """A name to filter by that no one thing has: ``what`` is searched, the ``text``, what has it in its name (perhaps
    not all ``found``), and the rest of the address."""

    what: str
    text: str
    matches: Sequence[Match]
    found: int
    rest: Mapping[str, str]

    def address(self, match: Match) -> dict[str, str]:
        """The address for one of them."""
        return {**self.rest, self.what: match.value or NO_KEY}


NAMED = ("integration", "host", "key")
"""What can be filtered by its name. The form asks for the name where there is too much to choose from."""


def has_names() -> bool:
    """Whether the address has names to filter by."""
    return any(f"{what}_name" in request.args for what in NAMED)


def named() -> dict[str, str] | Search:
    """The address that says by ids what this one says by names; or, for the first name that can't be told, what was
    found."""
    args = {name: value for name, value in request.args.items() if value}
    names = {what: _text(f"{what}_name").strip() for what in NAMED if f"{what}_name" in request.args}
    for what, text in names.items():
        chosen = args.pop(what, "")
        args.pop(f"{what}_name", "")
        if chosen and text == name_of(what, chosen):
            args[what] = chosen
        elif text:
            matches, found = matching(current_user.workspace_id, what, text.removesuffix(" (deleted)"))
            if what == "key" and text.lower() in NO_KEY:
                matches, found = [Match(UNATTRIBUTED, "Unattributed"), *matches], found + 1
            search = Search(what, text, matches, found, args)
            if found != 1:
                return search
            args = search.address(matches[0])
    return args


def name_of(what: str, chosen: str) -> str:
    """What something that is filtered by is called, as in the form."""
    if what == "integration":
        one = owned(current_user.workspace_id, int(chosen)) if chosen.isascii() and chosen.isdigit() else None
        return one.label if one else chosen
    if what == "key":
        key_hash = UNATTRIBUTED if chosen == NO_KEY else chosen
        return key_names(keys_called(current_user.workspace_id, [key_hash])).get(key_hash, chosen)
    return chosen


def period(args: Mapping[str, str]) -> Period:
    """From ``from`` and ``to``, or ``days`` up to the last one that is due, or the last 30. Raises BadPeriod."""
    if args.get("from") or args.get("to"):
        return _between(args.get("from", ""), args.get("to", ""))
    days = args.get("days", "") or "30"
    if days not in {str(length) for length in LENGTHS}:
        choices = ", ".join(map(str, LENGTHS[:-1]))
        raise BadPeriod(f"“days” is {days[:20]!r}, but must be {choices} or {LENGTHS[-1]}.")
    return Period.latest(int(days), utc_now())


def against(period: Period) -> Period:
    """What to compare a period with, from ``against``: ``previous`` (the default: as many days just before, or before a
    whole month the month before), ``month`` and ``year`` (the same days, a month or a year earlier), or days such as
    ``2026-05-01/2026-05-31`` or ``2026-05-01``. Raises BadPeriod.
    """
    text = request.args.get("against") or AGAINST[0]
    if text == "previous":
        return period.months_earlier(1) if period == Period.month(period.first) else period.before
    if text in AGAINST:
        return period.months_earlier(12 if text == "year" else 1)
    first, _, last = text.partition("/")
    try:
        Period(_day(first), _day(last or first))
    except ValueError:
        raise BadPeriod(
            "“against” must be previous, month or year, or days such as 2026-05-01/2026-05-31 or 2026-05-01."
        ) from None
    return _between(first, last or first)


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
    return _between(text, text).first


def place() -> dict[str, Any]:
    """Where on a list of several pages the user is: the ``page``, and ``q``, what is searched; 404 for no number."""
    page, text = request.args.get("page") or "1", _text("q").strip()
    if not (page.isascii() and page.isdigit() and len(page) <= 6 and int(page)):
        abort(404)
    return ({"page": page} if int(page) > 1 else {}) | ({"q": text} if text else {})


def _next_due() -> date:
    """The day that is due next, at 06:00 UTC of the one after it."""
    return last_due(utc_now()) + timedelta(days=1)


def _between(first: str, last: str) -> Period:
    try:
        found = Period(_day(first), _day(last))
    except ValueError:
        raise BadPeriod("“From” and “To” must both be days, such as 2026-06-03.") from None
    if found.first > found.last:
        raise BadPeriod("“From” must be on or before “To”.")
    if found.days > MAX_DAYS:
        raise BadPeriod(f"A period can have up to {MAX_DAYS} days; this one has {found.days:,}.")
    if found.first.year not in _YEARS or found.last.year not in _YEARS:
        raise BadPeriod("“From” and “To” must be between the years 2000 and 2200.")
    return found


def _day(text: str) -> date:
    if len(text) != 10:
        raise ValueError
    return date.fromisoformat(text)


def _key() -> str | None:
    """An API key's hash, what no key explains, or None for all."""
    text = _text("key")
    return UNATTRIBUTED if text == NO_KEY else text or None


def _text(name: str) -> str:
    """A filter as it stands in the address; 400 with a NUL in it, which no database stores."""
    value = request.args.get(name, "")
    if "\0" in value:
        abort(400)
    return value
