"""What several pages show alike: what is known so far of unsettled days, what can be filtered by, what costs are made
of, and the days that tell what is usual."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal

from grafient import query as queries
from grafient import usual
from grafient.coverage import Known
from grafient.days import Period, intervals
from grafient.models import UNATTRIBUTED, Integration
from grafient.query import Group, KeyChoice, Measure, Query, is_expected
from grafient.reports import sums
from grafient.reports.sums import Measures, Piece, Slot, Total, added_usd


@dataclass(frozen=True)
class Choice:
    """An integration to filter by."""

    id: int
    label: str
    removed: bool


@dataclass(frozen=True)
class Filters:
    """What a page can be filtered by."""

    integrations: Sequence[Choice]
    models: Sequence[str]
    hosts: Sequence[str]
    keys: Sequence[KeyChoice]


@dataclass(frozen=True)
class Keys:
    """What each API key spent, the most expensive first; ``others`` (so many) past the limit are one amount."""

    rows: Sequence[Total]
    others: int
    others_usd: Decimal


@dataclass(frozen=True)
class Provisional:
    """What is known so far of days that are not settled: a floor. ``read_at``: when.

    ``removed``: of integrations that were removed before these days were settled, so that they stay as they are.
    """

    days: Sequence[date]
    usage_usd: Decimal
    read_at: datetime
    removed: bool


@dataclass(frozen=True)
class Part:
    """What one model, host, key, integration or endpoint cost, its share (see ``sums.share``), and the days between
    which it was used. ``note``: what tells it apart from others of its name."""

    id: str
    name: str
    usage_usd: Decimal
    share: Decimal | None
    first: date
    last: date
    note: str = ""


@dataclass(frozen=True)
class Parts:
    """What costs are made of, the most expensive first, at most MOST_PARTS; ``others`` (so many) are one amount."""

    rows: Sequence[Part]
    others: int
    others_usd: Decimal

    @property
    def found(self) -> int:
        return len(self.rows) + self.others

    @property
    def names_any(self) -> bool:
        """Whether any part of the costs is under a name."""
        return any(row.id for row in self.rows)

    @property
    def has_unnamed(self) -> bool:
        """Whether a part of the costs is under no name."""
        return any(not row.id for row in self.rows)


MOST_PARTS = 50
MOST_KEYS = 200


def made_of(
    pieces: Iterable[Piece], group: Group | None, names: Mapping[str, str] | None = None, most: int = MOST_PARTS
) -> Parts:
    """What pieces come to by model, host, key or integration; None: by endpoint. ``names``: by id, where they differ.

    What has no name is listed, however little it is, because it needs a sentence.
    """
    found: dict[str, list[Piece]] = defaultdict(list)
    for piece in pieces:
        found[_ID_OF[group](piece)].append(piece)
    amounts = {one: sums.added_usd(part.usage_usd for part in some) for one, some in found.items()}
    whole = sums.added_usd(amounts.values())
    ranked = sorted(found, key=lambda one: (-amounts[one], one))
    others = [one for one in ranked[most:] if one]
    rows = []
    for part_id in (one for number, one in enumerate(ranked) if number < most or not one):
        some = found[part_id]
        name, note = (names or {}).get(part_id, part_id), ""
        if group is None:
            name, note = some[0].permaslug, _endpoint(some[0])
        first, last = min(one.first for one in some), max(one.last for one in some)
        rows.append(Part(part_id, name, amounts[part_id], sums.share(amounts[part_id], whole), first, last, note))
    return Parts(rows, len(others), sums.added_usd(amounts[one] for one in others))


_ID_OF: Mapping[Group | None, Callable[[Piece], str]] = {
    Group.MODEL: lambda one: one.model,
    Group.HOST: lambda one: one.host,
    Group.KEY: lambda one: one.key,
    Group.INTEGRATION: lambda one: str(one.integration_id),
    None: lambda one: f"{one.permaslug}\n{one.endpoint_id}\n{one.host}",
}


def _endpoint(one: Piece) -> str:
    return " at ".join(filter(None, (one.endpoint_id, one.host)))


def keys(totals: Sequence[Total]) -> Keys:
    """The first MOST_KEYS of them and what no key explains, and the others."""
    shown = [one for number, one in enumerate(totals) if number < MOST_KEYS or one.id == UNATTRIBUTED]
    others = [one for one in totals[MOST_KEYS:] if one.id != UNATTRIBUTED]
    return Keys(shown, len(others), sums.added_usd(one.usage_usd for one in others))


def choices(integrations: Sequence[Integration]) -> list[Choice]:
    """The integrations of a workspace to filter by."""
    return [Choice(one.id, one.label, one.removed_at is not None) for one in integrations]


def filters(query: Query, integrations: Sequence[Integration]) -> Filters:
    """What a page of this query can be filtered by."""
    return Filters(choices(integrations), *queries.choices(query))


def provisional(known: Known, by_integration: Mapping[tuple[int, Slot], Measures], until: date) -> list[Provisional]:
    """What is known so far of the days of a query, and after it until a day, that are not settled: what may grow comes
    first. ``by_integration``: what is measured of the same days."""
    found = []
    for removed in (False, True):
        days = known.provisional(removed=removed, until=until)
        ids = [i.id for i in known.integrations if (i.removed_at is not None) == removed]
        measured = [by_integration[i, Slot.UNSETTLED] for i in ids if (i, Slot.UNSETTLED) in by_integration]
        if days:
            amount = sums.added_usd(one.usage_usd for one in measured)
            found.append(Provisional(list(days), amount, max(days.values()), removed))
    return found


def floors(known: Known, group: Group, names: Iterable[str]) -> set[str]:
    """Those of these hosts or keys whose amounts are the least they can be, since on a settled day it is not known what
    they had. Days that are missing are told by the coverage, and concern all."""
    if group not in (Group.HOST, Group.KEY):
        return set()
    settled = intervals(day for day in known.period if known.state(day).is_settled)
    return {one for one in names if one and not all(known.knows_throughout(days, group, one) for days in settled)}


def expected_or_there(known: Known, day: date) -> tuple[list[Integration], list[Integration]]:
    """The integrations that a day is about, and those of them of which it is settled. Removed at 03:00, an integration
    need not have the day before; but where a sync had settled it already, that is in every total, so it is here too."""
    about = [one for one in known.asked if is_expected(one, day) or known.has(one, day)]
    return about, [one for one in about if known.has(one, day)]


def with_history(known: Known, integrations: Sequence[Integration], day: date) -> list[Integration]:
    """Those whose costs are known on enough of the same weekdays before to say what is usual for the day."""
    before = [day - timedelta(weeks=weeks) for weeks in range(1, usual.WEEKS + 1)]
    return [one for one in integrations if sum(known.is_complete(one, Period(on, on)) for on in before) >= usual.LEAST]


def amounts_per_day(known: Known, integrations: Sequence[Integration], period: Period) -> dict[date, Decimal]:
    """What these integrations cost together on each day that is settled for all of them, but for those that were
    removed before it."""
    found = settled_per_day(known, integrations, period)
    return {day: found.get(day, Decimal(0)) for day in days_of_all(known, integrations, period)}


def days_of_all(known: Known, integrations: Sequence[Integration], period: Period) -> list[date]:
    """The days that are settled for all of these integrations, but for those that were removed before."""
    return [day for day in period if all(known.has(one, day) or not is_expected(one, day) for one in integrations)]


def settled_per_day(known: Known, integrations: Sequence[Integration], period: Period) -> dict[date, Decimal]:
    """What is settled of each day in any of these integrations: where one of them is missing, the least it can be."""
    if known.query.is_filtered or known.query.byok:
        mine = replace(known.query, period=period, integrations=tuple(one.id for one in integrations))
        return {day: amount or Decimal(0) for day, amount in sums.totals_by_day(mine, Measure.USD).items()}
    ids = {one.id for one in integrations}
    found: dict[date, list[Decimal]] = defaultdict(list)
    for (one, day), counted in known.counted.items():
        if one in ids and day in period and counted.state.is_settled:
            found[day].append(counted.usage_usd)
    return {day: added_usd(some) for day, some in found.items()}


def usage_of(known: Known, integrations: Sequence[Integration], day: date) -> Decimal:
    """What a covered day cost in these integrations, whatever is filtered by."""
    return added_usd(known.counted[one.id, day].usage_usd for one in integrations)
