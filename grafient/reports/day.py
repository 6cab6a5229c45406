"""One UTC day over all integrations: what it cost, whether that is usual, and what made the difference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal

from grafient import coverage, restatements, usual
from grafient.coverage import Coverage, Known
from grafient.days import ONE_DAY, Period
from grafient.models import Integration, utc_now
from grafient.query import Group, Query, all_integrations
from grafient.reports import changes, parts, sums
from grafient.reports.changes import Difference
from grafient.reports.parts import MOST_PARTS, Parts
from grafient.reports.sums import Piece, added_usd
from grafient.states import DayState
from grafient.usual import WEEKS, Usual

_NOTHING = Decimal(0)


@dataclass(frozen=True)
class OfIntegration:
    """The day in one integration. ``usage_usd`` is None where nothing is known. ``counted``: whether it is in the
    day's total: what a removed integration had read of its last, unfinished day is not."""

    id: int
    label: str
    removed: bool
    state: DayState
    usage_usd: Decimal | None
    counted: bool


@dataclass(frozen=True)
class Restated:
    """What one sync made of the whole day in one integration, whatever the page is filtered by."""

    integration_id: int
    label: str
    changed_at: datetime
    lines: int
    before_usd: Decimal
    after_usd: Decimal
    is_latest: bool
    """Whether the day has cost that ever since in this integration."""


@dataclass(frozen=True)
class Day:
    """Everything on a day's page. ``total_usd`` is None where nothing is known of the day.

    ``state`` is over all integrations that should cover the day; ``coverage`` counts them, and names those without it.
    ``usual``: of the integrations that have the day and enough history, so many (``usual_of``), which cost
    ``usual_usd`` on it; None where there are none. ``difference``: from the day before, over the integrations of which
    both days are settled, ``compared`` of them; None where there are none.
    """

    day: date
    state: DayState
    is_so_far: bool
    """Whether a part of what is known may still grow, and is in no total."""
    any_settled: bool
    """Whether a part of it is settled, and so in totals."""
    to_come: bool
    is_today: bool
    coverage: Coverage
    total_usd: Decimal | None
    read_at: datetime | None
    """When what is known of an unsettled day was last read."""
    restated: Sequence[Restated]
    usual: Usual | None
    usual_usd: Decimal | None
    usual_of: int
    difference: Difference | None
    compared: int
    models: Parts
    keys: Parts
    hosts: Parts
    integrations: Sequence[OfIntegration]
    integrations_left_out: int
    others_usd: Decimal
    """What is known of what these cost, as far as the total counts it."""
    connected: bool
    """Whether the workspace has an integration at all, removed or not."""

    @property
    def against_usual(self) -> str | None:
        """Whether the day is "below", "within" or "above" what is usual."""
        return self.usual.where(self.usual_usd) if self.usual and self.usual_usd is not None else None


def report(query: Query) -> Day:
    """The day that is the query's period."""
    day = query.period.last
    integrations = all_integrations(query.workspace_id)
    wide = replace(query, period=Period(day - timedelta(weeks=WEEKS), day))
    known = coverage.load(wide, integrations)
    states = known.states_on(day)
    mine = sums.pieces(replace(known.query, period=query.period), keys=True)
    is_so_far = DayState.PROVISIONAL in states.values()
    known_in = [one for one in mine if states.get(one.integration_id) != DayState.MISSING]
    counted = [one for one in known_in if one.settled or (is_so_far and one.integration_id in states)]
    state = coverage.joint(states.values())
    of_integrations = _integrations(integrations, states, mine, counted)
    compared = _compared(known, day)
    found, usual_usd, usual_of = _usual(known, day)
    now = utc_now()
    return Day(
        day=day,
        state=state,
        is_so_far=is_so_far,
        any_settled=any(one.is_settled for one in states.values()),
        to_come=state == DayState.MISSING and day > now.date(),
        is_today=day == now.date(),
        coverage=_coverage(states, integrations),
        total_usd=None if state == DayState.MISSING else added_usd(one.usage_usd for one in counted),
        read_at=known.provisional(removed=False).get(day),
        restated=_restated(known, day),
        usual=found,
        usual_usd=usual_usd,
        usual_of=usual_of,
        difference=changes.between(query, query.period.previous, compared) if compared else None,
        compared=len(compared),
        models=parts.made_of(counted, Group.MODEL),
        keys=parts.made_of(counted, Group.KEY),
        hosts=parts.made_of(counted, Group.HOST),
        integrations=of_integrations[:MOST_PARTS],
        integrations_left_out=max(0, len(of_integrations) - MOST_PARTS),
        others_usd=added_usd(one.usage_usd or _NOTHING for one in of_integrations[MOST_PARTS:] if one.counted),
        connected=bool(integrations),
    )


def _coverage(states: Mapping[int, DayState], integrations: Sequence[Integration]) -> Coverage:
    missing = [one.label for one in integrations if states.get(one.id) == DayState.MISSING]
    return Coverage.of([coverage.joint(states.values())], len(states), missing)


def _integrations(
    integrations: Sequence[Integration], states: Mapping[int, DayState], mine: Iterable[Piece], counted: Iterable[Piece]
) -> list[OfIntegration]:
    """Those that should cover the day or have lines of it; the missing ones first, since they need somebody to look."""
    whole, in_total = _by_integration(mine), _by_integration(counted)
    found = []
    for one in integrations:
        state = states.get(one.id, DayState.PROVISIONAL)
        if one.id in states or one.id in whole:
            is_counted = one.id in states
            amount = (in_total if is_counted else whole).get(one.id, _NOTHING)
            usage = None if state == DayState.MISSING else amount
            found.append(OfIntegration(one.id, one.label, one.removed_at is not None, state, usage, is_counted))
    return sorted(found, key=lambda one: (one.usage_usd is not None, -(one.usage_usd or _NOTHING), one.label, one.id))


def _by_integration(pieces: Iterable[Piece]) -> dict[int, Decimal]:
    found: dict[int, Decimal] = defaultdict(Decimal)
    for one in pieces:
        found[one.integration_id] += one.usage_usd
    return found


def _restated(known: Known, day: date) -> list[Restated]:
    """The latest first. Each sync's amounts are of the lines it changed; the whole day's are worked out backwards from
    what it is now: $72.65 that a sync raised by $41.50 was $31.15."""
    amounts = {
        integration_id: counted.usage_usd
        for (integration_id, of), counted in known.counted.items()
        if of == day and counted.state == DayState.RESTATED
    }
    found: list[Restated] = []
    for row in restatements.restated_days(list(amounts), MOST_PARTS, Period(day, day)) if amounts else ():
        after = amounts[row.integration_id]
        before = amounts[row.integration_id] = after - row.change_usd
        is_latest = row.integration_id not in {one.integration_id for one in found}
        found.append(Restated(row.integration_id, row.label, row.changed_at, row.lines, before, after, is_latest))
    return found


def _usual(known: Known, day: date) -> tuple[Usual | None, Decimal | None, int]:
    """As the dashboard says it: of the integrations that have the day and enough history. What is usual for them, what
    they cost on the day, and how many they are."""
    grown = parts.with_history(known, parts.expected_or_there(known, day)[1], day)
    amounts = parts.amounts_per_day(known, grown, known.period) if grown else {}
    return usual.of(amounts, day), amounts.get(day), len(grown)


def _compared(known: Known, day: date) -> list[int]:
    """The integrations, by their ids, of which the day and the day before are settled."""
    states, before = known.states_on(day), known.states_on(day - ONE_DAY)
    return [one for one, state in states.items() if state.is_settled and one in before and before[one].is_settled]
