"""What an incident says: one line, and sentences below it, from its facts. Pure.

The same words are on the page and in each message. They are plain text; whoever shows them escapes them. What a model
or key is called can be anything, so line breaks are taken out and long names are cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Any
from urllib.parse import quote, urlencode

from grafient.alerts import rules
from grafient.states import AlertKind, Happened

_CENT = Decimal("0.01")
_MOST_LETTERS = 80

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Said:
    """``title``: one line; ``lines``: what made it so, since when, and how sure the figures are."""

    title: str
    lines: Sequence[str]


def said(kind: AlertKind, what: Happened, facts: Facts, marks: Sequence[str] = ()) -> Said:
    """What an event says. ``marks``: the steps that are new with it.

    Facts are kept for as long as the incident is, and a later version may find others: what an old one lacks must not
    take the whole page away.
    """
    try:
        if what is Happened.RESOLVED and facts.get("closed"):
            return _closed(kind, facts)
        return _BY_KIND[kind](what, facts, marks)
    except (KeyError, ValueError, TypeError):
        return Said(kind_name(kind), [])


def title(one: Any) -> str:
    """That of an incident, or of an event of one."""
    return _said(one).title


def lines(one: Any) -> Sequence[str]:
    """The sentences below it."""
    return _said(one).lines


def _said(one: Any) -> Said:
    """Of an incident what it was about, also when it is over; of today, what it came to."""
    if hasattr(one, "what"):
        return said(one.incident.kind, one.what, one.facts, one.marks)
    what = Happened.RESOLVED if one.facts.get("is_settled") else Happened.OPENED
    return said(one.kind, what, one.facts, one.marks)


def kind_name(kind: AlertKind) -> str:
    """What an alert of this kind is called."""
    return rules.KINDS[kind].label if kind in rules.KINDS else "Budget"


def path(kind: AlertKind, facts: Facts, integration_id: int | None) -> str:
    """The address, on this Grafient, of the page about it; that of all alerts where its facts are another version's."""
    try:
        return _path(kind, facts, integration_id)
    except (KeyError, ValueError, TypeError):
        return "/alerts"


def _path(kind: AlertKind, facts: Facts, integration_id: int | None) -> str:
    day, here = facts.get("day"), f"/integrations/{integration_id}"
    if kind is AlertKind.BUDGET or kind is AlertKind.SILENT:
        return "/alerts"
    if kind in (AlertKind.UNUSUAL_DAY, AlertKind.TODAY):
        return f"/days/{day}?" + urlencode({"integration": integration_id})
    if kind is AlertKind.NEW:
        group, name = str(facts["of"]), str(facts["id"])
        if _fits_in_a_path(name):
            return f"/{group}s/{quote(name, safe='/' if group == 'model' else '')}"
        return f"/days/{day}?" + urlencode({"integration": integration_id})
    if kind is AlertKind.RESTATED:
        return "/statement?" + urlencode({"month": str(facts["month"])[:7], "integration": integration_id})
    return here


def usd(amount: Decimal | str | None) -> str:
    """``$1,234.50``; below a cent all digits there are, so that nothing looks like nothing."""
    if amount is None:
        return "an unknown amount"
    exact = Decimal(amount)
    if exact and abs(exact) < _CENT:
        return f"{'−' if exact < 0 else ''}${abs(exact).normalize():f}"
    rounded = exact.quantize(_CENT, ROUND_HALF_UP)
    return f"{'−' if rounded < 0 else ''}${abs(rounded):,.2f}"


def percent(amount: Decimal, of: Decimal) -> str:
    """``99%`` of 99.6 and 100: what is not all of it is not said to be."""
    return f"{(amount * 100 / of).quantize(Decimal(1), ROUND_DOWN):,f}%"


def on(day: date | str) -> str:
    """``Wednesday, 18 November 2026``."""
    found = date.fromisoformat(day) if isinstance(day, str) else day
    return f"{found:%A}, {found.day} {found:%B %Y}"


def short(day: date | str) -> str:
    """``18 November``."""
    found = date.fromisoformat(day) if isinstance(day, str) else day
    return f"{found.day} {found:%B}"


def moment(at: datetime | str) -> str:
    """``18 November 2026, 06:01 UTC``."""
    found = (datetime.fromisoformat(at) if isinstance(at, str) else at).astimezone(UTC)
    return f"{found.day} {found:%B %Y, %H:%M} UTC"


def name(text: str) -> str:
    """A name in one line."""
    plain = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return plain if len(plain) <= _MOST_LETTERS else plain[: _MOST_LETTERS - 1] + "…"


def _fits_in_a_path(text: str) -> bool:
    """As views.lives takes it: no dots alone between slashes, none in front, no line break."""
    parts = text.split("/")
    return bool(text) and text.isprintable() and all(part.strip(".") for part in parts)


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _as_of(facts: Facts) -> list[str]:
    return [f"As of {moment(facts['as_of'])}."] if facts.get("as_of") else []


def _listed(some: Sequence[str]) -> str:
    return some[0] if len(some) == 1 else ", ".join(some[:-1]) + " and " + some[-1]


def _closed(kind: AlertKind, facts: Facts) -> Said:
    """Of one that can't be found any more, which is not to say that all is well: an account that was paused because its
    key was rejected is not read again."""
    about = name(facts["name"] if kind is AlertKind.BUDGET else facts["label"])
    why = "The rule, the budget or the account that it was about was changed, paused or removed."
    return Said(f"{about}: “{kind_name(kind)}” was closed", [why])


def _budget(what: Happened, facts: Facts, marks: Sequence[str]) -> Said:
    budget, amount, spent = name(facts["name"]), Decimal(facts["amount_usd"]), Decimal(facts["spent_usd"])
    part = percent(spent, amount)
    of = f"{usd(spent)} of {usd(amount)}"
    when = _period(facts)
    actual = [int(mark.split()[1]) for mark in marks if mark.startswith("actual")]
    forecast = [int(mark.split()[1]) for mark in marks if mark.startswith("forecast")]
    over = facts.get("is_over")
    if what is Happened.RESOLVED:
        title = f"{budget}: {when} ended at {part}, {of}" if over else f"{budget}: below its thresholds again, {of}"
    elif actual and spent > amount:
        title = f"{budget}: over budget by {usd(spent - amount)} ({of}, {when})"
    elif actual:
        title = f"{budget}: {part} spent, {of} ({when})"
    elif forecast and facts.get("forecast_usd"):
        expected = Decimal(facts["forecast_usd"])
        title = f"{budget}: {when} is expected to end at {usd(expected)}, {percent(expected, amount)} of {usd(amount)}"
    else:
        title = f"{budget}: {part} spent, {of} ({when})"
    lines = []
    if not over:
        most, least = ("At most ", "At least ") if facts.get("missing") else ("", "")
        left = f"{most}{usd(amount - spent)} left."
        lines.append(left if spent <= amount else f"{least}{usd(spent - amount)} over the budget.")
        if facts.get("forecast_usd"):
            lines.append(f"At the present pace {when} ends at about {usd(facts['forecast_usd'])}.")
        if facts.get("used_up_on") and spent < amount:
            lines.append(f"The budget is expected to be used up on {on(facts['used_up_on'])}.")
    if facts.get("byok"):
        lines.append("Estimated costs of your own provider keys (BYOK) are included.")
    if facts.get("missing"):
        verb = "has" if facts["missing"] == 1 else "have"
        missing = _count(facts["missing"], "day")
        lines.append(f"{missing} of it {verb} not been read, so at least that much was spent.")
    return Said(title, [*lines, *_as_of(facts)])


def _period(facts: Facts) -> str:
    first = date.fromisoformat(facts["first"])
    kind = facts["period"]
    if kind == "day":
        return short(first)
    if kind == "week":
        return f"the week of {short(first)}"
    if kind == "quarter":
        return f"Q{(first.month + 2) // 3} {first.year}"
    return f"{first:%B %Y}" if kind == "month" else str(first.year)


def _unusual(what: Happened, facts: Facts, marks: Sequence[str]) -> Said:
    label, day = name(facts["label"]), facts["day"]
    about = "" if facts["of"] == "total" else f", {'API key ' if facts['of'] == 'key' else ''}{name(facts['name'])}"
    amount, expected = Decimal(facts["usd"]), Decimal(facts["expected_usd"])
    first, more = facts.get("first_day", day), "more" if amount > expected else "less"
    if what is Happened.RESOLVED:
        days = short(first) if first == day else f"{short(first)} to {short(day)}"
        what_now = f"no longer {more} than expected" if facts.get("turned") else "as expected again"
        return Said(f"{label}{about}: {what_now} after {days}", _as_of(facts))
    title = f"{label}{about}: {usd(amount)} on {short(day)}, {usd(abs(amount - expected))} {more} than expected"
    lines = [f"{_about(expected)} was expected for {on(day)}, from the weeks before."]
    if first != day:
        lines.append(f"It has been so since {short(first)}.")
    if drivers := facts.get("drivers"):
        each = [f"{name(d['name'])} ({usd(d['usd'])}, expected {_about(d['expected_usd']).lower()})" for d in drivers]
        lines.append(f"Mostly {_listed(each)}.")
    return Said(title, [*lines, *_as_of(facts)])


def _about(expected: Decimal | str) -> str:
    return f"About {usd(expected)}" if Decimal(expected) else "Nothing"


def _today(what: Happened, facts: Facts, marks: Sequence[str]) -> Said:
    label, day = name(facts["label"]), facts["day"]
    if what is Happened.RESOLVED:
        ended = f"{short(day)} came to {usd(facts['usd'])}" if facts.get("is_settled") else f"{short(day)} is over"
        return Said(f"{label}: {ended}, about {usd(facts['expected_usd'])} was expected", [])
    title = f"{label}: {usd(facts['usd'])} so far on {short(day)}, more than a whole day is expected to cost"
    return Said(title, [f"About {usd(facts['expected_usd'])} was expected for {on(day)}.", *_as_of(facts)])


def _new(what: Happened, facts: Facts, marks: Sequence[str]) -> Said:
    label = name(facts["label"])
    kind = {"model": "model", "key": "API key", "host": "host"}[facts["of"]]
    called = name(facts["name"]) or "without a name"
    if what is Happened.RESOLVED:
        return Said(f"{label}: {called} is no longer new", [])
    title = f"{label}: new {kind} {called} has cost {usd(facts['usd'])}"
    return Said(title, [f"It was first used on {on(facts['day'])}. Costs up to {short(facts['through'])} are counted."])


def _credits(what: Happened, facts: Facts, marks: Sequence[str]) -> Said:
    label, left = name(facts["label"]), Decimal(facts["left_usd"])
    if what is Happened.RESOLVED:
        return Said(f"{label}: {usd(left)} of credits left again", _as_of(facts))
    lasts = facts["days"]
    days = "" if lasts is None else ", less than a day" if lasts == 0 else f", about {_count(lasts, 'day')}"
    title = f"{label}: no credits left" if left <= 0 else f"{label}: {usd(left)} of credits left{days}"
    lines = []
    if left <= 0:
        lines.append(f"The balance is {usd(left)}. {name(facts['provider'])} refuses requests without credits.")
    if facts.get("pace_usd"):
        lines.append(f"The last 14 days cost {usd(facts['pace_usd'])} a day on average.")
    return Said(title, [*lines, *_as_of(facts)])


def _losing(facts: Facts) -> list[str]:
    lost = facts.get("losing")
    if not lost:
        return []
    first, until = short(lost["first"]), short(lost["until"])
    if lost["days"] == 1:
        return [f"{first} is missing. The provider reports that day until {until}."]
    return [f"{lost['days']:,} days are missing, the first is {first}. The provider reports that one until {until}."]


def _no_sync(what: Happened, facts: Facts, marks: Sequence[str]) -> Said:
    label = name(facts["label"])
    if what is Happened.RESOLVED:
        return Said(f"{label} is read again", [])
    since = moment(facts["since"])
    if not facts.get("last_read", facts["since"]):
        title = f"{label} has never been read; it was connected on {since}"
    elif "losing" in marks:
        title = f"{label}: days will soon be lost, it has not been read since {since}"
    else:
        title = f"{label} has not been read since {since}"
    detail = [facts["detail"]] if facts.get("detail") else []
    return Said(title, ["What it has cost since then is not known.", *detail, *_losing(facts)])


def _key(what: Happened, facts: Facts, marks: Sequence[str]) -> Said:
    label = name(facts["label"])
    expires = facts["problem"] == "expires"
    if what is Happened.RESOLVED:
        return Said(f"{label}: its key {'no longer expires soon' if expires else 'works again'}", [])
    if expires:
        mend = "Make a new management key there, and replace the one that is stored here."
        verb = "expired" if facts.get("has_expired") else "expires"
        return Said(f"{label}: its key {verb} on {moment(facts['expires'])}", [mend, *_losing(facts)])
    why = "was rejected" if facts["problem"] == "needs_key" else "can't be opened"
    title = f"{label}: its key {why}"
    if "losing" in marks:
        title = f"{label}: days will soon be lost, because its key {why}"
    since = [f"Nothing has been read since {moment(facts['last_read'])}."] if facts.get("last_read") else []
    detail = [facts["detail"]] if facts.get("detail") else []
    return Said(title, [*since, *detail, *_losing(facts)])


def _api_changed(what: Happened, facts: Facts, marks: Sequence[str]) -> Said:
    label, provider = name(facts["label"]), name(facts["provider"])
    if what is Happened.RESOLVED:
        return Said(f"{label}: {provider}'s replies can be read again", [])
    title = f"{label}: {provider} changed its API"
    if "losing" in marks:
        title = f"{label}: days will soon be lost, because {provider} changed its API"
    detail = [facts["detail"]] if facts.get("detail") else []
    return Said(title, [*detail, "Nothing that is stored was overwritten.", *_losing(facts)])


def _days_leaving(what: Happened, facts: Facts, marks: Sequence[str]) -> Said:
    label = name(facts["label"])
    if what is Happened.RESOLVED:
        return Said(f"{label}: the missing days were read, or can no longer be", [])
    title = f"{label}: {_count(facts['losing']['days'], 'missing day')} will soon be lost"
    return Said(title, [*_losing(facts), "Force Sync on its page reads what can still be read."])


def _difference(what: Happened, facts: Facts, marks: Sequence[str]) -> Said:
    label, provider = name(facts["label"]), name(facts["provider"])
    if what is Happened.RESOLVED:
        return Said(f"{label}: the figures no longer differ much from {provider}'s", [])
    title = f"{label}: the figures differ from {provider}'s by {usd(facts['usd'])}"
    lines = [f"Compared were {short(facts['first'])} to {short(facts['last'])}."]
    if facts["count"]:
        days = [short(day) for day in facts["days"]]
        more = facts["count"] - len(days)
        lines.append(f"Analytics says otherwise of {_listed([*days, f'{more} more'] if more else days)}.")
    if facts["credits"]:
        lines.append("What was charged to the credits is not what the days add up to.")
    return Said(title, lines)


def _restated(what: Happened, facts: Facts, marks: Sequence[str]) -> Said:
    label, provider = name(facts["label"]), name(facts["provider"])
    month = date.fromisoformat(facts["month"])
    change = Decimal(facts["change_usd"])
    if what is Happened.RESOLVED:
        return Said(f"{label}: {month:%B %Y} was restated", [])
    by = f"{usd(abs(change))} {'more' if change > 0 else 'less'}" if change else "other amounts, the same in all"
    title = f"{label}: {provider} restated {month:%B %Y}, now {by}"
    lines = [f"{_count(facts['days'], 'day')} of it changed within a week, the last time on {moment(facts['at'])}."]
    return Said(title, lines)


def _silent(what: Happened, facts: Facts, marks: Sequence[str]) -> Said:
    if what is Happened.RESOLVED:
        return Said("Workers and scheduler run again", [])
    lines = [
        "Until that is mended, no account is read and no other alert is sent. The page /readyz says what is missing."
    ]
    return Said(f"{facts['who']} since {moment(facts['since'])}", lines)


_BY_KIND: Mapping[AlertKind, Callable[[Happened, Facts, Sequence[str]], Said]] = {
    AlertKind.BUDGET: _budget,
    AlertKind.UNUSUAL_DAY: _unusual,
    AlertKind.TODAY: _today,
    AlertKind.NEW: _new,
    AlertKind.CREDITS: _credits,
    AlertKind.NO_SYNC: _no_sync,
    AlertKind.KEY: _key,
    AlertKind.API_CHANGED: _api_changed,
    AlertKind.DAYS_LEAVING: _days_leaving,
    AlertKind.DIFFERENCE: _difference,
    AlertKind.RESTATED: _restated,
    AlertKind.SILENT: _silent,
}
