"""The dashboard: what a period cost, by day and by model, host or key, and by integration."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from grafient import coverage, reconciliation, restatements
from grafient.coverage import Coverage, Known
from grafient.days import Period, last_due
from grafient.extensions import providers
from grafient.models import Integration, utc_now
from grafient.query import Group, Measure, Query
from grafient.reconciliation import Verdict
from grafient.reports import changes, chart, parts, sums
from grafient.reports.changes import Difference
from grafient.reports.chart import Bar, Chart, Running, Step
from grafient.reports.parts import Filters, Provisional
from grafient.reports.sums import Measures, Slot, Tally, Total, added_usd
from grafient.restatements import Unseen
from grafient.states import Problem

TOTALS = 20
PROVIDERS = 20


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

    The chart's days are the period's, and those after it until today of which something is known, where the period ends
    with the last day that is due. What is not settled is in ``provisional``, and otherwise in the chart alone.
    """

    period: Period
    integrations: Sequence[Integration]
    """The workspace's, removed ones too."""
    filters: Filters
    coverage: Coverage
    verdict: Verdict
    total_usd: Decimal | None
    provisional: Sequence[Provisional]
    settled_since: Sequence[Bar]
    """Days after the period that are settled already: early, by a sync before 06:00 UTC."""
    byok_usd: Tally
    daily_average_usd: Decimal | None
    """Over the days that are settled for every integration."""
    top: Total | None
    change: Difference | None
    """From the period before, over the integrations that are complete in both; None where there are none."""
    compared: int
    """How many these are."""
    comparable: int
    """How many should cover one of the two periods, or have data for it."""
    before: Period | None
    """What the period is compared with."""
    group: Group
    chart: Chart
    running: Running | None
    """In place of the chart, if it was asked for."""
    days: Sequence[Bar]
    """The chart's days in USD, whatever it shows."""
    totals: Sequence[Total]
    """The most expensive first, at most TOTALS; of ``found``."""
    found: int
    floors: Collection[str]
    """Those of the totals, by id, that are the least they can be."""
    providers: Sequence[ProviderTotal]
    unseen: Sequence[Unseen]
    """What changed on settled days since the viewer last looked."""

    @property
    def largest(self) -> list[ProviderTotal]:
        """The integrations that cost the most, at most PROVIDERS; those of which nothing is known come last."""
        return sorted(self.providers, key=lambda one: (one.usage_usd is None, -(one.usage_usd or 0)))[:PROVIDERS]

    @property
    def others_usd(self) -> Decimal:
        """What is known of what all other integrations cost."""
        shown = {one.integration_id for one in self.largest}
        return added_usd(one.usage_usd or Decimal(0) for one in self.providers if one.integration_id not in shown)


def report(
    query: Query,
    group: Group = Group.MODEL,
    viewer: int | None = None,
    *,
    against: Callable[[Period], Period | None] = lambda period: period.previous,
    measure: Measure = Measure.USD,
    step: Step | None = None,
    cumulative: bool = False,
) -> Dashboard:
    """The period's figures, chart, totals by model, host, key or integration, and integrations.

    ``viewer``: a user's id. ``against``: what a period is compared with. ``step``: what a bar is of, if not what suits
    the period. ``cumulative``: the running total too, unless the period is too long for it.
    """
    before, shown = against(query.period), _until_today(query.period)
    integrations, unseen = restatements.with_unseen(viewer, query.workspace_id)
    known = coverage.load(query, integrations, group, _around(shown, before))
    query = known.query
    totals, measured = sums.overview(query, group, shown)
    totals = _labelled(totals, group, integrations)
    total = added_usd(one.usage_usd for one in totals) if known.any_settled else None
    wide = replace(query, period=shown)
    series, days = chart.of(wide, known, group, totals)
    bars = days if measure == Measure.USD else chart.of(wide, known, group, totals, measure)[1]
    step = step or Step.of(shown.days)
    compared = _compared(known, before) if before else []
    comparable = {one.id for some in (query.period, before) if some for one in known.asked_in(some)}
    running = None
    if cumulative and query.period.days <= chart.MOST_RUNNING:
        running = chart.running(query, known, bars, before, measure)
    return Dashboard(
        period=query.period,
        integrations=integrations,
        filters=parts.filters(query, integrations),
        coverage=known.coverage,
        verdict=reconciliation.verdict(known),
        total_usd=total,
        provisional=parts.provisional(known, measured, shown.last),
        settled_since=[bar for bar in days if bar.day > query.period.last and bar.state.is_settled],
        byok_usd=sums.added(one.byok_usd for (_, slot), one in measured.items() if slot == Slot.PERIOD),
        daily_average_usd=_average([bar for bar in days if bar.day in query.period]),
        top=totals[0] if totals and totals[0].usage_usd > 0 else None,
        change=changes.between(query, before, compared) if before and compared else None,
        compared=len(compared),
        comparable=len(comparable),
        before=before,
        group=group,
        days=days,
        running=running,
        chart=Chart(group, measure, step, series, chart.stepped(bars, step)),
        totals=totals[:TOTALS],
        found=len(totals),
        floors=parts.floors(known, group, [one.id for one in totals[:TOTALS]]),
        unseen=unseen,
        providers=[_provider(known, one, measured.get((one.id, Slot.PERIOD))) for one in known.asked],
    )


def _around(shown: Period, before: Period | None) -> Period:
    return shown if before is None else Period(min(shown.first, before.first), max(shown.last, before.last))


def _labelled(totals: list[Total], group: Group, integrations: Sequence[Integration]) -> list[Total]:
    if group != Group.INTEGRATION:
        return totals
    labels = {str(one.id): one.label for one in integrations}
    return [replace(one, name=labels[one.id]) for one in totals]


def _until_today(period: Period) -> Period:
    """The period and the days after it until today, where it ends with the last day that is due, or later."""
    now = utc_now()
    return Period(period.first, max(period.last, now.date())) if period.last >= last_due(now) else period


def _average(bars: Sequence[Bar]) -> Decimal | None:
    """USD a day, over the days that are settled for every integration."""
    settled = [bar.total for bar in bars if bar.total is not None and bar.state.is_settled]
    return added_usd(settled) / len(settled) if settled else None


def _compared(known: Known, before: Period) -> list[int]:
    """Like is compared with like: an integration that was connected in the middle of the period before, or has a day
    missing in either, would look like a rise or a fall, and is left out of both sums.
    """
    complete = [one for one in known.integrations if known.is_complete(one, known.period)]
    return [one.id for one in complete if known.is_complete(one, before)]


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
