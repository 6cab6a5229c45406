"""The dashboard: what a period cost, by day and by model, host or key, and by integration."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal

from grafient import coverage, reconciliation, restatements
from grafient.coverage import Coverage, Known
from grafient.days import Period, last_due
from grafient.extensions import providers
from grafient.models import Integration, utc_now
from grafient.query import Group, Query
from grafient.reconciliation import Verdict
from grafient.reports import parts, sums
from grafient.reports.parts import Filters, Provisional
from grafient.reports.sums import Measures, Slot, Tally, Total, added_usd
from grafient.restatements import Unseen
from grafient.states import DayState, Problem

CHART_NAMES = 7
"""Models, hosts or keys with a colour of their own in the chart; the others are one."""

TOTALS = 20
PROVIDERS = 20
_NOTHING = Decimal(0)


@dataclass(frozen=True)
class Series:
    """A column of the chart: one model, host or key, or all others (``is_rest``). ``colour``: a number, or "other"."""

    id: str
    name: str
    colour: str
    is_rest: bool = False


@dataclass(frozen=True)
class Day:
    """One UTC day of the chart. ``total_usd`` is None where the day is missing.

    ``by_series_usd`` runs parallel to ``Dashboard.series``, None where it is not known what a series had on the day.
    ``missing`` of ``asked`` integrations that should cover the day do not.
    """

    day: date
    state: DayState
    total_usd: Decimal | None
    by_series_usd: Sequence[Decimal | None]
    missing: int
    asked: int


@dataclass(frozen=True)
class Change:
    """A period's total against that of the period before, over the integrations that are complete in both.

    ``fraction``: None where the period before cost nothing. ``integrations`` of ``asked`` could be compared.
    """

    before: Period
    before_usd: Decimal
    fraction: Decimal | None
    integrations: int
    asked: int


@dataclass(frozen=True)
class ProviderTotal:
    """What one integration's provider billed over the period. Figures are None where no day of it is settled."""

    integration_id: int
    label: str
    provider: str
    provider_name: str
    removed: bool
    problem: Problem | None
    paused: bool
    usage_usd: Decimal | None
    byok_usd: Tally
    requests: Tally
    coverage: Coverage
    last_success_at: datetime | None
    no_history: str | None


@dataclass(frozen=True)
class Dashboard:
    """Everything on the dashboard. ``total_usd`` and what derives from it is None when no day is settled.

    ``days`` are the period's, and those after it until today of which something is known, where the period ends with
    the last day that is due. What is not settled is in ``provisional``, and in no other figure but the days'.
    """

    period: Period
    filters: Filters
    coverage: Coverage
    verdict: Verdict
    total_usd: Decimal | None
    provisional: Sequence[Provisional]
    settled_since: Sequence[Day]
    """Days after the period that are settled already: early, by a sync before 06:00 UTC."""
    byok_usd: Tally
    daily_average_usd: Decimal | None
    """Over the days that are settled for every integration."""
    top: Total | None
    change: Change | None
    """None unless something is complete in both periods."""
    group: Group
    series: Sequence[Series]
    days: Sequence[Day]
    totals: Sequence[Total]
    """The most expensive first, at most TOTALS; of ``found``."""
    found: int
    providers: Sequence[ProviderTotal]
    unseen: Sequence[Unseen]
    """What changed on settled days since the viewer last looked."""

    @property
    def has_amounts(self) -> bool:
        """Whether any day cost something."""
        return any(day.total_usd for day in self.days)

    @property
    def only(self) -> ProviderTotal | None:
        """The integration that all of it is of, if it is one."""
        return self.providers[0] if len(self.providers) == 1 else None

    @property
    def largest(self) -> list[ProviderTotal]:
        """The integrations that cost the most, at most PROVIDERS; those of which nothing is known come last."""
        return sorted(self.providers, key=lambda one: (one.usage_usd is None, -(one.usage_usd or 0)))[:PROVIDERS]

    @property
    def others_usd(self) -> Decimal:
        """What is known of what all other integrations cost."""
        shown = {one.integration_id for one in self.largest}
        return added_usd(one.usage_usd or Decimal(0) for one in self.providers if one.integration_id not in shown)

    def shows(self, state: DayState) -> bool:
        """Whether a day is in that state."""
        return any(day.state == state for day in self.days)

    def colour_of(self, total_id: str) -> str:
        """The colour that a model, host or key has in the chart."""
        return next((one.colour for one in self.series if one.id == total_id and not one.is_rest), "other")


def report(query: Query, group: Group = Group.MODEL, viewer: int | None = None) -> Dashboard:
    """The period's figures, chart, totals by model, host or key, and integrations; ``viewer``: a user's id."""
    shown = _until_today(query.period)
    integrations, unseen = restatements.with_unseen(viewer, query.workspace_id)
    around = Period(query.period.before.first, shown.last)
    known = coverage.load(query, integrations, group, around)
    query = known.query
    totals, measured = sums.overview(query, group, around)
    total = added_usd(one.usage_usd for one in totals) if known.any_settled else None
    series, days = _chart(replace(query, period=shown), known, group, totals)
    return Dashboard(
        period=query.period,
        filters=parts.filters(query, integrations),
        coverage=known.coverage,
        verdict=reconciliation.verdict(known),
        total_usd=total,
        provisional=parts.provisional(known, measured),
        settled_since=[day for day in days if day.day > query.period.last and day.state.is_settled],
        byok_usd=sums.added(one.byok_usd for (_, slot), one in measured.items() if slot == Slot.PERIOD),
        daily_average_usd=_average([day for day in days if day.day in query.period]),
        top=totals[0] if totals and totals[0].usage_usd > 0 else None,
        change=_change(known, measured),
        group=group,
        series=series,
        days=days,
        totals=totals[:TOTALS],
        found=len(totals),
        unseen=unseen,
        providers=[_provider(known, one, measured.get((one.id, Slot.PERIOD))) for one in known.asked],
    )


def _until_today(period: Period) -> Period:
    """The period and the days after it until today, where it ends with the last day that is due, or later."""
    now = utc_now()
    return Period(period.first, max(period.last, now.date())) if period.last >= last_due(now) else period


def _chart(query: Query, known: Known, group: Group, totals: Sequence[Total]) -> tuple[list[Series], list[Day]]:
    """The chart's columns, and a row for each day; of the days after the period, those of which something is known."""
    named = [one for one in totals if one.usage_usd][:CHART_NAMES]
    amounts = _amounts(query, known, group, [one.id for one in named])
    series = [Series(one.id, one.name, str(number)) for number, one in enumerate(named, 1)]
    if any(by_name.get(None) for by_name in amounts.values()):
        series.append(Series("", "All others", "other", is_rest=True))
    drawn = [day for day in query.period if day in known.period or known.state(day) != DayState.MISSING]
    names = [None if one.is_rest else one.id for one in series]
    return series, [_day(day, known, group, names, amounts.get(day, {})) for day in drawn]


_ByName = dict[str | None, Decimal]


def _amounts(query: Query, known: Known, group: Group, names: Sequence[str]) -> dict[date, _ByName]:
    """What each day cost, by the chart's names; None is all others.

    What a removed integration had read of its last, unfinished day is not counted on a day that is settled for all
    others, here as in the total.
    """
    found: dict[date, _ByName] = defaultdict(dict)
    for day, name, settled, usage_usd in sums.by_day(query, group, names):
        if settled or not known.state(day).is_settled:
            of_day = found[day]
            of_day[name] = of_day[name] + usage_usd if name in of_day else usage_usd
    return found


def _day(day: date, known: Known, group: Group, names: Sequence[str | None], amounts: _ByName) -> Day:
    state = known.state(day)
    missing, asked = known.missing_part(day)
    if state == DayState.MISSING:
        return Day(day, state, None, [None] * len(names), missing, asked)
    by_series = [
        amounts[name] if name in amounts else _NOTHING if known.knows_part(day, group, name) else None for name in names
    ]
    return Day(day, state, added_usd(amounts.values()), by_series, missing, asked)


def _average(days: Sequence[Day]) -> Decimal | None:
    """USD a day, over the days that are settled for every integration."""
    settled = [day.total_usd for day in days if day.total_usd is not None and day.state.is_settled]
    return added_usd(settled) / len(settled) if settled else None


def _change(known: Known, measured: Mapping[tuple[int, Slot], Measures]) -> Change | None:
    """Like is compared with like: an integration that was connected in the middle of the period before, or has a day
    missing in either, would look like a rise or a fall, and is left out of both sums.
    """
    before = known.period.before
    complete = [
        one for one in known.integrations if known.is_complete(one, known.period) and known.is_complete(one, before)
    ]
    if not complete:
        return None

    def total(slot: Slot) -> Decimal:
        return added_usd(measured[i.id, slot].usage_usd for i in complete if (i.id, slot) in measured)

    before_usd, now_usd = total(Slot.BEFORE), total(Slot.PERIOD)
    fraction = (now_usd - before_usd) / before_usd if before_usd > 0 else None
    return Change(before, before_usd, fraction, len(complete), len(known.asked))


def _provider(known: Known, integration: Integration, measures: Measures | None) -> ProviderTotal:
    has_data = integration in known.integrations and known.any_settled
    nothing = Tally(Decimal(0), True) if has_data else Tally(None, False)
    return ProviderTotal(
        integration_id=integration.id,
        label=integration.label,
        provider=integration.provider,
        provider_name=providers[integration.provider].name,
        removed=integration.removed_at is not None,
        problem=integration.problem,
        paused=integration.paused_at is not None,
        usage_usd=measures.usage_usd if measures else nothing.known,
        byok_usd=measures.byok_usd if measures else Tally(nothing.known, True),
        requests=measures.requests if measures else nothing,
        coverage=known.coverage_of(integration),
        last_success_at=integration.last_success_at,
        no_history=integration.no_history,
    )
