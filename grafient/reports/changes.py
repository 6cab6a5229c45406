"""Why one period cost more, or less, than another: in parts, and by model, host, key and integration."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from grafient import coverage
from grafient import split as splits
from grafient.coverage import Coverage, Known
from grafient.days import Period, last_due
from grafient.models import Integration, utc_now
from grafient.money import places
from grafient.query import Group, Query, all_integrations
from grafient.reports import sums
from grafient.reports.sums import Measures, Slot, added_usd
from grafient.split import Kind, ModelChange, Split, Usage

MOST_ROWS = 50
MOST_LEFT_OUT = 10
"""Integrations that could not be compared and are named."""

MOST_DRIVERS = 3
_NOTHING = Decimal(0)


class Compared:
    """An amount before and after."""

    before_usd: Decimal
    after_usd: Decimal

    @property
    def change_usd(self) -> Decimal:
        return self.after_usd - self.before_usd

    @property
    def fraction(self) -> Decimal | None:
        """The change as a part of what it was; None where it cost nothing before."""
        return sums.share(self.change_usd, self.before_usd)


@dataclass(frozen=True)
class Contribution(Compared):
    """What one model, host, key or integration, or several of them, added to the difference.

    ``before_known`` and ``after_known``: whether it is known on each day what it cost. Days from analytics have no
    hosts and no keys, and a key may be unread; then the amount is what is known, and there is nothing to compare.
    ``kind``: whether it is NEW or GONE. ``volume_usd`` and ``price_usd`` are of models that have both, see
    ``ModelChange``.
    """

    id: str
    name: str
    before_usd: Decimal
    after_usd: Decimal
    kind: Kind = Kind.USED
    volume_usd: Decimal | None = None
    price_usd: Decimal | None = None
    model: ModelChange | None = None
    before_known: bool = True
    after_known: bool = True

    @property
    def is_known(self) -> bool:
        """Whether its change can be told."""
        return self.before_known and self.after_known


@dataclass(frozen=True)
class Contributions:
    """Those that changed the most first, at most MOST_ROWS; ``others`` (so many) past the limit are one row, ``rest``.
    ``whole``: all of them added up.
    """

    rows: Sequence[Contribution]
    others: int
    rest: Contribution
    whole: Contribution

    @property
    def drivers(self) -> list[Contribution]:
        """Those that changed the most, at most MOST_DRIVERS."""
        return _largest(self.rows)

    @property
    def is_known(self) -> bool:
        """Whether the change of each of them can be told."""
        return self.rest.is_known and all(row.is_known for row in self.rows)


@dataclass(frozen=True)
class Side:
    """One of the two periods. ``is_over``: whether all of its days are due."""

    period: Period
    coverage: Coverage
    is_over: bool


@dataclass(frozen=True)
class LeftOut:
    """An integration that is not compared, and which days are known of it in each period."""

    label: str
    before: Coverage
    after: Coverage


@dataclass(frozen=True)
class Bar:
    """A bar of the waterfall, from left to right in percent of its width; ``joint``: where the next one begins.

    ``part``: "before", "after", or the part of the difference that it shows.
    """

    part: str
    amount_usd: Decimal
    left: Decimal
    width: Decimal
    joint: Decimal

    @property
    def is_total(self) -> bool:
        return self.part in ("before", "after")

    @property
    def direction(self) -> str:
        """Whether it is a "total", or more ("up") or less ("down")."""
        return "total" if self.is_total else "down" if self.amount_usd < 0 else "up"


@dataclass(frozen=True)
class Difference(Compared):
    """What the same integrations cost in two periods, and what makes up the difference.

    ``bars``: none where all amounts are zero. ``byok_complete``: whether the BYOK estimate is known throughout both.
    """

    before: Period
    after: Period
    before_usd: Decimal
    after_usd: Decimal
    split: Split
    bars: Sequence[Bar]
    by_model: Contributions
    byok_complete: bool

    @property
    def decimals(self) -> int:
        """Decimals that every part fits in, so that they line up; 2 at least."""
        return places(bar.amount_usd for bar in self.bars)


@dataclass(frozen=True)
class Changes:
    """Two periods, compared over the integrations that are complete in both: ``compared`` of ``asked``; ``left_out``
    are at most MOST_LEFT_OUT of the others.

    Where there are none, ``difference`` and what derives from it are None. ``connected``: whether the workspace has an
    integration at all, removed or not. ``linked``: the ids of those that have pages.
    """

    before: Side
    after: Side
    group: Group
    connected: bool
    compared: int
    asked: int
    left_out: Sequence[LeftOut]
    linked: Collection[int]
    difference: Difference | None = None
    by_group: Contributions | None = None
    by_integration: Contributions | None = None


def report(query: Query, against: Period, by: Group = Group.MODEL) -> Changes:
    """What the query's period cost, against another one, with contributions by model, host or key.

    Like is compared with like, as on the dashboard: an integration of which a day is missing in either period would
    look like a rise or a fall.
    """
    integrations = all_integrations(query.workspace_id)
    before, after = (
        coverage.load(replace(query, period=period), integrations, by) for period in (against, query.period)
    )
    asked = sorted({one.id: one for one in (*before.asked, *after.asked)}.values(), key=lambda one: one.id)
    compared: list[Integration] = []
    left_out: list[Integration] = []
    for one in asked:
        is_whole = before.is_complete(one, before.period) and after.is_complete(one, after.period)
        (compared if is_whole else left_out).append(one)
    found = Changes(
        before=_side(before),
        after=_side(after),
        group=by,
        connected=bool(integrations),
        compared=len(compared),
        asked=len(asked),
        left_out=[
            LeftOut(one.label, before.coverage_of(one), after.coverage_of(one)) for one in left_out[:MOST_LEFT_OUT]
        ],
        linked={one.id for one in asked if one.removed_at is None},
    )
    if not compared:
        return found
    difference = between(query, before.period, [one.id for one in compared])
    by_integration = _by_integration(before, after, compared)
    known_by = {Group.MODEL: difference.by_model, Group.INTEGRATION: by_integration}
    by_part = known_by.get(by) or _by_part(by, before, after, compared)
    return replace(found, difference=difference, by_group=by_part, by_integration=by_integration)


def between(query: Query, before: Period, integration_ids: Collection[int]) -> Difference:
    """What these integrations cost in the query's period and in another one. Every day of both has to be known."""
    models = sums.measures_in([before, query.period], query, Group.MODEL, integration_ids)
    before_usd, after_usd = (added_usd(one.usage_usd for one in side.values()) for side in models)
    split = splits.split(*({name: _usage(one) for name, one in side.items()} for side in models))
    return Difference(
        before=before,
        after=query.period,
        before_usd=before_usd,
        after_usd=after_usd,
        split=split,
        bars=_bars(before_usd, after_usd, split),
        by_model=_by_model(split),
        byok_complete=all(one.byok_usd.complete for side in models for one in side.values()),
    )


def drivers(
    before: Mapping[str, Decimal], after: Mapping[str, Decimal], most: int = MOST_DRIVERS
) -> list[Contribution]:
    """Those whose amounts changed the most, up or down: for a headline. NEW and GONE are those of one side alone."""
    return _largest(_contributions(before, after), most)


def _side(known: Known) -> Side:
    return Side(known.period, known.coverage, known.period.last <= last_due(utc_now()))


def _usage(measures: Measures) -> Usage:
    """What is known of it in part only is unknown."""
    tokens = sums.added([measures.prompt_tokens, measures.completion_tokens])
    requests = measures.requests
    return Usage(
        measures.usage_usd,
        int(tokens.known) if tokens.complete else None,
        int(requests.known) if requests.complete else None,
    )


def _by_model(split: Split) -> Contributions:
    return _limited(
        Contribution(name, name, one.before_usd, one.after_usd, one.kind, one.volume_usd, one.price_usd, one)
        for name, one in split.models.items()
    )


def _by_part(group: Group, before: Known, after: Known, compared: Sequence[Integration]) -> Contributions:
    """By host or key. What is known of it is told of the rows that are shown, since each of their days is looked at."""
    measured = sums.measures_in([before.period, after.period], after.query, group, [one.id for one in compared])
    amounts = [{name: one.usage_usd for name, one in side.items()} for side in measured]
    names = sums.key_names(after.query) if group == Group.KEY else {}
    all_known = [known.knows_throughout(known.period, group, None, compared) for known in (before, after)]

    def checked(row: Contribution) -> Contribution:
        before_known, after_known = (
            is_known
            or (group == Group.KEY and row.id != "" and known.knows_throughout(known.period, group, row.id, compared))
            for is_known, known in zip(all_known, (before, after), strict=True)
        )
        is_known = before_known and after_known
        return replace(
            row, before_known=before_known, after_known=after_known, kind=row.kind if is_known and row.id else Kind.USED
        )

    found = _limited(_contributions(amounts[0], amounts[1], names))
    rest = replace(found.rest, before_known=all_known[0], after_known=all_known[1])
    return replace(found, rows=[checked(row) for row in found.rows], rest=rest)


def _by_integration(before: Known, after: Known, compared: Sequence[Integration]) -> Contributions:
    measured = [sums.by_integration(known.query) for known in (before, after)]

    def usage_usd(side: int, integration: Integration) -> Decimal:
        found = measured[side].get((integration.id, Slot.PERIOD))
        return found.usage_usd if found else _NOTHING

    return _limited(Contribution(str(one.id), one.label, usage_usd(0, one), usage_usd(1, one)) for one in compared)


def _contributions(
    before: Mapping[str, Decimal], after: Mapping[str, Decimal], names: Mapping[str, str] | None = None
) -> list[Contribution]:
    found = []
    for one in before.keys() | after.keys():
        kind = Kind.NEW if one not in before else Kind.GONE if one not in after else Kind.USED
        name = (names or {}).get(one, one)
        found.append(Contribution(one, name, before.get(one, _NOTHING), after.get(one, _NOTHING), kind))
    return found


def _ranked(rows: Iterable[Contribution]) -> list[Contribution]:
    return sorted(rows, key=lambda one: (-abs(one.change_usd), -abs(one.after_usd), one.name, one.id))


def _largest(rows: Iterable[Contribution], most: int = MOST_DRIVERS) -> list[Contribution]:
    return [one for one in _ranked(rows) if one.change_usd and one.is_known][:most]


def _limited(rows: Iterable[Contribution]) -> Contributions:
    ranked = _ranked(rows)
    others = ranked[MOST_ROWS:]
    return Contributions(ranked[:MOST_ROWS], len(others), _together(others), _together(ranked))


def _together(rows: Sequence[Contribution]) -> Contribution:
    volumes = [one.volume_usd for one in rows if one.volume_usd is not None]
    prices = [one.price_usd for one in rows if one.price_usd is not None]
    return Contribution(
        "",
        "",
        added_usd(one.before_usd for one in rows),
        added_usd(one.after_usd for one in rows),
        volume_usd=added_usd(volumes) if volumes else None,
        price_usd=added_usd(prices) if prices else None,
    )


def _bars(before_usd: Decimal, after_usd: Decimal, split: Split) -> list[Bar]:
    """The waterfall: what it was, each part from where the one before it ended, and what it is. None if all is zero."""
    parts = [
        ("volume", split.volume_usd),
        ("price", split.price_usd),
        ("mix", split.mix_usd),
        ("new", split.new_usd),
        ("gone", split.gone_usd),
    ]
    if any(one.kind == Kind.UNSPLIT for one in split.models.values()):
        parts.append(("unsplit", split.unsplit_usd))
    spans = [("before", _NOTHING, before_usd)]
    for part, amount in parts:
        level = spans[-1][2]
        spans.append((part, level, level + amount))
    spans.append(("after", _NOTHING, after_usd))
    ends = [end for _, *both in spans for end in both]
    low, high = min(ends), max(ends)
    if low == high:
        return []
    at = _scale(low, high)
    return [
        Bar(part, end - start, min(at(start), at(end)), abs(at(end) - at(start)), at(end)) for part, start, end in spans
    ]


def _scale(low: Decimal, high: Decimal) -> Callable[[Decimal], Decimal]:
    return lambda amount: round((amount - low) / (high - low) * 100, 3)
