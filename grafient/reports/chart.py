"""The chart: what each day, week or month had, by the models, hosts, keys or integrations that cost most; or what the
period's days add up to, one after the other, beside those of the period that it is compared with.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import zip_longest

from grafient.coverage import Known
from grafient.days import Period
from grafient.query import Group, Measure, Query
from grafient.reports import colours, sums
from grafient.reports.sums import MeasuredDay, Total
from grafient.states import DayState

MOST_SERIES = 7
"""Models, hosts, keys or integrations with a colour of their own in a chart; the others are one."""

MOST_DAYS = 92
MOST_WEEKS = 60
"""Bars of a day or a week each; of more days, bars would be noise."""

MOST_RUNNING = 366
"""Days of a period whose running total is shown, one by one."""

_NOTHING = Decimal(0)


class Step(StrEnum):
    """What one bar is of."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"

    def first_of(self, day: date) -> date:
        """The first day of the bar that a day is in; weeks begin on Monday (ISO 8601)."""
        if self == Step.WEEK:
            return day - timedelta(days=day.weekday())
        return day.replace(day=1) if self == Step.MONTH else day

    def parts(self, period: Period) -> list[Period]:
        """The days, weeks or months of a period; the first and the last may be cut off by its ends."""
        together: dict[date, list[date]] = defaultdict(list)
        for day in period:
            together[self.first_of(day)].append(day)
        return [Period(days[0], days[-1]) for days in together.values()]

    @classmethod
    def of(cls, days: int) -> Step:
        """What suits a period of so many days."""
        if days <= MOST_DAYS:
            return cls.DAY
        return cls.WEEK if days <= 7 * MOST_WEEKS else cls.MONTH


@dataclass(frozen=True)
class Series:
    """One model, host, key or integration, or all others (``is_rest``). ``colour``: see ``colours``."""

    id: str
    name: str
    colour: str
    is_rest: bool = False


@dataclass(frozen=True)
class Bar:
    """Some UTC days. ``total`` is None where nothing of them is known, and each series' amount (``by_series``, parallel
    to the chart's series) where it is not known what it had.

    Of a bar of several days the amounts are of those that are known; its state is that of the worst of them, and
    ``missing`` of ``asked`` counts days. Of one day, it counts integrations that should cover it. ``least``: whether
    the total, and each series' amount, is the least it can be, since it is not known of a day that is not missing.
    """

    period: Period
    state: DayState
    total: Decimal | None
    by_series: Sequence[Decimal | None]
    missing: int
    asked: int
    least: Sequence[bool] = ()

    @property
    def day(self) -> date:
        return self.period.first


@dataclass(frozen=True)
class Chart:
    """``measure`` in USD, requests or tokens, a bar for each ``step``. ``series``: those that cost most first."""

    group: Group
    measure: Measure
    step: Step
    series: Sequence[Series]
    bars: Sequence[Bar]

    @property
    def has_unknown(self) -> bool:
        """Whether of any bar the days are known and the total is not: a line of it has no number of tokens, say."""
        return any(bar.total is None and bar.state != DayState.MISSING for bar in self.bars)

    @property
    def has_amounts(self) -> bool:
        """Whether there is anything to show: of USD, an amount other than nothing, even where refunds make the total
        nothing. Requests and tokens were asked for, and are shown even where all of them are unknown."""
        return self.measure != Measure.USD or any(bar.total or any(bar.by_series) for bar in self.bars)

    def shows(self, state: DayState) -> bool:
        """Whether a bar is in that state."""
        return any(bar.state == state for bar in self.bars)

    def colour_of(self, total_id: str) -> str:
        """The colour of a model, host, key or integration in the chart."""
        return next((one.colour for one in self.series if one.id == total_id and not one.is_rest), colours.OTHER)


@dataclass(frozen=True)
class RunningDay:
    """The nth day of a period (None where that of the period before is longer), what the period had by its end, and
    what the period before had by its own nth day. An amount is None from the first day on of which not all is known.
    """

    bar: Bar | None
    total: Decimal | None
    before: Decimal | None


@dataclass(frozen=True)
class Running:
    """``ends`` and ``before_ends``: where a running total ends, the first day of which not all is known."""

    days: Sequence[RunningDay]
    ends: date | None
    before_ends: date | None


def running(query: Query, known: Known, bars: Sequence[Bar], before: Period | None, measure: Measure) -> Running:
    """The running total of the query's period, of bars of its days, and that of the period before (one statement)."""
    own = [bar for bar in bars if bar.day in query.period]
    now = {bar.day: bar.total if bar.state.is_settled else None for bar in own}
    then: dict[date, Decimal | None] = {}
    if before is not None:
        own_ids = tuple(one.id for one in known.integrations)
        amounts = sums.totals_by_day(replace(query, period=before, integrations=own_ids), measure)
        then = {day: amounts.get(day, _NOTHING) if known.state(day).is_settled else None for day in before}
    paired = zip_longest(own, _running(now.values()), _running(then.values()))
    ends, before_ends = (next((day for day, one in some.items() if one is None), None) for some in (now, then))
    return Running([RunningDay(*one) for one in paired], ends, before_ends)


def _running(amounts: Iterable[Decimal | None]) -> list[Decimal | None]:
    found: list[Decimal | None] = []
    total: Decimal | None = _NOTHING
    for amount in amounts:
        total = None if total is None or amount is None else total + amount
        found.append(total)
    return found


def of(
    query: Query, known: Known, group: Group, totals: Sequence[Total], measure: Measure = Measure.USD
) -> tuple[list[Series], list[Bar]]:
    """The series, and a bar for each day of the query's period; of days after ``known``'s own period, those of which
    something is known."""
    named = [one for one in totals if one.usage_usd][:MOST_SERIES]
    amounts = _amounts(query, known, group, [one.id for one in named], measure)
    chosen = colours.of(query.workspace_id, group, [one.id for one in named]) if named else {}
    series = [Series(one.id, one.name, chosen[one.id]) for one in named]
    if len(named) == len(totals):
        # Where tokens of a model are unknown, so are the day's; that says nothing of models that there are not.
        amounts = {day: {k: v for k, v in one.items() if k is not None or v} for day, one in amounts.items()}
    if any(None in by_name for by_name in amounts.values()):
        series.append(Series("", "All others", colours.OTHER, is_rest=True))
    drawn = [day for day in query.period if day in known.period or known.state(day) != DayState.MISSING]
    names = [None if one.is_rest else one.id for one in series]
    return series, [_bar(day, known, group, names, amounts.get(day, {})) for day in drawn]


def of_one(query: Query, known: Known, group: Group, name: str, days: Sequence[MeasuredDay]) -> Chart:
    """One model, host or key alone, in USD. ``days``: what is measured of its days, see ``sums.every_day``."""
    amounts: dict[date, _ByName] = defaultdict(dict)
    for day, settled, measures in days:
        if settled or not known.state(day).is_settled:
            amounts[day][name] = amounts[day].get(name, _NOTHING) + measures.usage_usd  # type: ignore[operator]
    colour = colours.of(query.workspace_id, group, [name])[name]
    bars = [_bar(day, known, group, [name], amounts.get(day, {})) for day in query.period]
    step = Step.of(query.period.days)
    return Chart(group, Measure.USD, step, [Series(name, name, colour)], stepped(bars, step))


def stepped(bars: Sequence[Bar], step: Step) -> list[Bar]:
    """The same bars of days as bars of weeks or months."""
    if step == Step.DAY:
        return list(bars)
    together: dict[date, list[Bar]] = defaultdict(list)
    for bar in bars:
        together[step.first_of(bar.day)].append(bar)
    return [_together(some) for some in together.values()]


def _together(bars: Sequence[Bar]) -> Bar:
    states = [bar.state for bar in bars]
    missing = states.count(DayState.MISSING)
    whole = [state not in (DayState.MISSING, DayState.PARTIAL) for state in states]
    columns = [[bar.total for bar in bars], *zip(*(bar.by_series for bar in bars), strict=True)]
    return Bar(
        Period(bars[0].day, bars[-1].day),
        _worst(states),
        _sum(columns[0]),
        [_sum(amounts) for amounts in columns[1:]],
        missing,
        len(bars),
        [any(is_whole and one is None for is_whole, one in zip(whole, some, strict=True)) for some in columns],
    )


def _worst(states: Sequence[DayState]) -> DayState:
    if DayState.MISSING in states:
        return DayState.MISSING if set(states) == {DayState.MISSING} else DayState.PARTIAL
    order = (DayState.PARTIAL, DayState.PROVISIONAL, DayState.RESTATED, DayState.FINAL, DayState.NO_USAGE)
    return next(state for state in order if state in states)


def _sum(amounts: Sequence[Decimal | None]) -> Decimal | None:
    known = [amount for amount in amounts if amount is not None]
    return sums.added_usd(known) if known else None


_ByName = dict[str | None, Decimal | None]


def _amounts(query: Query, known: Known, group: Group, names: Sequence[str], measure: Measure) -> dict[date, _ByName]:
    """What each day had, by the chart's names; None is all others.

    What a removed integration had read of its last, unfinished day is not counted on a day that is settled for all
    others, here as in the total.
    """
    found: dict[date, _ByName] = defaultdict(dict)
    for day, name, settled, amount in sums.by_day(query, group, names, measure):
        if settled or not known.state(day).is_settled:
            of_day = found[day]
            before = of_day.get(name, _NOTHING)
            of_day[name] = None if before is None or amount is None else before + amount
    return found


def _bar(day: date, known: Known, group: Group, names: Sequence[str | None], amounts: _ByName) -> Bar:
    state, period = known.state(day), Period(day, day)
    missing, asked = known.missing_part(day)
    if state == DayState.MISSING:
        return Bar(period, state, None, [None] * len(names), missing, asked)
    by_series = [
        amounts[name] if name in amounts else _NOTHING if known.knows_nothing(day, group, name) else None
        for name in names
    ]
    values = list(amounts.values())
    nothing_known = state == DayState.PARTIAL and not values
    total = None if None in values or nothing_known else sums.added_usd(value for value in values if value is not None)
    return Bar(period, state, total, by_series, missing, asked)
