"""The statement: a month to close the books on, every figure to the last digit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal

from grafient import coverage, reconciliation, restatements
from grafient.coverage import Coverage, Known
from grafient.days import Period, last_due
from grafient.models import CreditReading, Integration, utc_now
from grafient.money import places
from grafient.query import Group, Query, all_integrations, selected
from grafient.reconciliation import Verdict
from grafient.reports import breakdown, parts, sums
from grafient.reports.parts import Choice, Keys, Provisional
from grafient.reports.sums import Measures, Slot, Tally, Total, added
from grafient.restatements import RestatedDay
from grafient.states import DayState

MOST_ROWS = 200
"""Models, restated days and days that differ, of each."""


@dataclass(frozen=True)
class StatementDay:
    """A day of a statement; figures are None where nothing is known. ``to_come``: it has not begun."""

    day: date
    state: DayState
    to_come: bool
    usage_usd: Decimal | None
    byok_usd: Tally
    requests: Tally


@dataclass(frozen=True)
class Used:
    """All that an account had ever used of its credits, at a moment. ``bought_usd``: all that was ever paid into it, as
    of the reading that the amount comes from, which may be hours later; None where the provider did not say."""

    usd: Decimal
    at: datetime
    bought_usd: Decimal | None


@dataclass(frozen=True)
class Credits:
    """What one integration's account had used of its credits when the month began and when it ended, or at the first
    and the last moment of it at which that can be said; None where it can't.

    ``first_read_at``: when its credits were first read. ``why``: why they never are.
    """

    label: str
    opening: Used | None
    closing: Used | None
    first_read_at: datetime | None
    why: str | None

    @property
    def used_usd(self) -> Decimal | None:
        """Between the two."""
        return None if self.opening is None or self.closing is None else self.closing.usd - self.opening.usd

    @property
    def bought_usd(self) -> Decimal | None:
        """Between the readings of the two."""
        before, after = (None if one is None else one.bought_usd for one in (self.opening, self.closing))
        return None if before is None or after is None else after - before

    @property
    def left_usd(self) -> Decimal | None:
        """At the end, if what was bought between it and its reading is counted."""
        last = self.closing
        return None if last is None or last.bought_usd is None else last.bought_usd - last.usd


@dataclass(frozen=True)
class Statement:
    """A month, and what its figures are worth. ``closed``: whether all of its days are due.

    ``models``: the most expensive; ``other_models`` are the ``models_left_out`` past the limit, in one.
    """

    period: Period
    closed: bool
    integrations: Sequence[Choice]
    coverage: Coverage
    total_usd: Decimal | None
    byok_usd: Tally
    provisional: Sequence[Provisional]
    days: Sequence[StatementDay]
    models: Sequence[breakdown.Row]
    models_left_out: int
    other_models: breakdown.Row | None
    keys: Keys
    totals: breakdown.Row | None
    restated: Sequence[RestatedDay]
    verdict: Verdict
    providers: Sequence[str]
    credits: Sequence[Credits]
    """Of each integration, at most MOST_ROWS."""

    @property
    def decimals(self) -> int:
        """Decimals that every amount in USD fits in, so that columns line up; 2 at least."""
        groups: tuple[Sequence[StatementDay | breakdown.Row | Total], ...] = (self.days, self._models, self.keys.rows)
        return places([self.keys.others_usd, *(one.usage_usd for group in groups for one in group)])

    @property
    def _models(self) -> list[breakdown.Row]:
        return [*self.models, *([self.other_models] if self.other_models else [])]

    @property
    def byok_decimals(self) -> int:
        """The same for the BYOK estimates."""
        groups: tuple[Sequence[StatementDay | breakdown.Row], ...] = (self.days, self._models)
        return places(one.byok_usd.known for group in groups for one in group)

    @property
    def restated_decimals(self) -> int:
        """The same for what was restated."""
        return places(amount for one in self.restated for amount in (one.before_usd, one.after_usd))


def report(query: Query) -> Statement:
    """The statement of the query's period, which is a month."""
    integrations = all_integrations(query.workspace_id)
    known = coverage.load(query, integrations)
    models = sorted(breakdown.rows(query, Group.MODEL), key=lambda row: (-(row.usage_usd or 0), row.name, row.id))
    total = breakdown.usd(models) if known.any_settled else None
    others = models[MOST_ROWS:]
    by_integration = sums.by_integration(query)
    by_day = sums.measures_by_day(query)
    return Statement(
        period=query.period,
        closed=query.period.last <= last_due(utc_now()),
        integrations=parts.choices(integrations),
        coverage=known.coverage,
        total_usd=total,
        byok_usd=added(one.byok_usd for (_, slot), one in by_integration.items() if slot == Slot.PERIOD),
        provisional=parts.provisional(known, by_integration, query.period.last),
        days=[_day(known, day, by_day.get(day)) for day in query.period],
        models=models[:MOST_ROWS],
        models_left_out=len(others),
        other_models=breakdown.totals(others, breakdown.usd(others)) if others else None,
        keys=parts.keys(sums.totals_by(query, Group.KEY)),
        totals=None if total is None else breakdown.totals(models, total),
        restated=restatements.restated_days([i.id for i in known.asked], limit=MOST_ROWS, period=query.period),
        verdict=reconciliation.verdict(known),
        providers=sorted({one.provider for one in selected(query, integrations)}),
        credits=_credits(known.asked[:MOST_ROWS], query.period),
    )


def _credits(integrations: Sequence[Integration], month: Period) -> list[Credits]:
    ends: dict[int, list[CreditReading]] = defaultdict(list)
    for reading in reconciliation.end_readings([one.id for one in integrations], month):
        ends[reading.integration_id].append(reading)
    both = {one.id: (_opening(ends[one.id], month), _closing(ends[one.id], month)) for one in integrations}
    late = [of for of, (opening, _) in both.items() if opening is None or opening.at.date() > month.first]
    first = reconciliation.first_readings(late) if late else {}
    return [Credits(one.label, *both[one.id], first.get(one.id), one.no_credits) for one in integrations]


def _opening(ends: Sequence[CreditReading], month: Period) -> Used | None:
    return _when_its_day_began(ends[0]) if ends and ends[0].read_at.date() in month else None


def _closing(ends: Sequence[CreditReading], month: Period) -> Used | None:
    """When the month ended; of a month that goes on, or whose end was not read, at its last reading."""
    if not ends:
        return None
    last = ends[-1]
    found = (
        Used(last.lifetime_usd, last.read_at, last.bought_usd)
        if last.read_at.date() in month
        else _when_its_day_began(last)
    )
    opening = _opening(ends, month)
    return None if opening is not None and found.at <= opening.at else found


def _when_its_day_began(reading: CreditReading) -> Used:
    """What a reading says, less what was charged on its own UTC day, where that is known."""
    if reading.today_usd is None:
        return Used(reading.lifetime_usd, reading.read_at, reading.bought_usd)
    midnight = datetime.combine(reading.read_at.date(), time(), tzinfo=UTC)
    return Used(reading.lifetime_usd - reading.today_usd, midnight, reading.bought_usd)


def _day(known: Known, day: date, measures: Measures | None) -> StatementDay:
    state = known.state(day)
    to_come = state == DayState.MISSING and day > utc_now().date()
    if measures is None:
        nothing = Tally(0, True) if state.is_settled else Tally(None, False)
        return StatementDay(day, state, to_come, Decimal(0) if state.is_settled else None, nothing, nothing)
    return StatementDay(day, state, to_come, measures.usage_usd, measures.byok_usd, measures.requests)
