"""The headline: what the last day cost and whether that is usual, how the month will end, and how long credits last."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import bindparam, func, select

from grafient import coverage, usual
from grafient import forecast as forecasts
from grafient.coverage import Known
from grafient.days import ONE_DAY, Period, last_due, span
from grafient.extensions import db
from grafient.forecast import Forecast, Reason
from grafient.models import CreditReading, Integration, utc_now
from grafient.query import Group, Query
from grafient.reports import changes, parts, sums
from grafient.reports.changes import Contribution
from grafient.reports.sums import added_usd
from grafient.states import DayState
from grafient.usual import Usual

HISTORY_DAYS = 400
"""Before the last day: what the forecast and its back-test look at. Fewer where there are very many integrations."""

_MOST_ROWS = 40_000
_LEAST_DAYS = 7 * usual.WEEKS + 31

_WORTH_NAMING = Decimal("0.05")
"""A model is named where it changed by so much of what the first one did."""

PACE_DAYS = 14
"""Credits last as many days as at the pace of the last so many."""


@dataclass(frozen=True)
class MonthSoFar:
    """What is settled of the month so far, None where nothing is; ``covered`` of its days are so for all integrations.
    And what the same days of the month before cost, None where one of them is unknown. Whoever was removed since is in
    both."""

    period: Period
    before: Period
    usage_usd: Decimal | None
    covered: int
    before_usd: Decimal | None

    @property
    def is_complete(self) -> bool:
        return self.covered == self.period.days

    @property
    def fraction(self) -> Decimal | None:
        """The change as a part of the month before; None where that cost nothing."""
        if self.usage_usd is None or self.before_usd is None or not self.is_complete:
            return None
        return sums.share(self.usage_usd - self.before_usd, self.before_usd)


@dataclass(frozen=True)
class DaySince:
    """A day after the last one that is due, as far as it is known: today so far, and before 06:00 UTC yesterday."""

    day: date
    state: DayState
    usage_usd: Decimal
    read_at: datetime | None


@dataclass(frozen=True)
class CreditsLeft:
    """What is left of the credits of ``accounts`` (of ``asked``), as they were read; the earliest ``read_at`` of them.

    ``days``: how many days that lasts at what the last PACE_DAYS cost a day; None where that is unknown or nothing.
    """

    left_usd: Decimal
    bought_usd: Decimal
    used_usd: Decimal
    days: int | None
    read_at: datetime
    accounts: int
    asked: int


@dataclass(frozen=True)
class Headline:
    """The last day that is due, in words and figures. ``usage_usd`` is None where it is not known; it is of the
    ``counted`` of ``asked`` integrations of which the day is known. The month and the forecast are of all, and of what
    others cost in it before they were removed.

    ``usual`` and what follows are of the integrations that have this day and enough history, ``compared`` of ``asked``;
    ``usual_usd`` is what these cost on the day. ``like``: the latest of the same weekdays before whose cost was
    usual; the change since then is that of ``drivers`` and of other models. ``month`` is that of the last day;
    ``forecast`` is of all of it (``is_spent``: with what is known since the last day, the month has cost more than it
    went up to), ``no_forecast`` says why there is none, and ``off`` how far off forecasts would have
    been in the middle of the last ``tried`` months.
    """

    day: date
    state: DayState
    usage_usd: Decimal | None
    counted: int
    compared: int
    asked: int
    usual: Usual | None
    usual_usd: Decimal | None
    like: date | None
    change_usd: Decimal | None
    drivers: Sequence[Contribution]
    since: Sequence[DaySince]
    month: MonthSoFar
    forecast: Forecast | None
    is_spent: bool
    no_forecast: Reason | None
    off: Decimal | None
    tried: int
    credits: CreditsLeft | None

    @property
    def where(self) -> str | None:
        """Whether the day is below, within or above what is usual."""
        if self.usual is None or self.usual_usd is None:
            return None
        return self.usual.where(self.usual_usd)

    @property
    def is_close(self) -> bool:
        """Whether whole dollars are too coarse to tell on which side of what is usual the day is: $30.80 is above $20
        to $30.55, which would be said as $20 to $31."""
        if self.usual is None or self.usual_usd is None or self.where == "within":
            return False
        return any(abs(self.usual_usd - end) < 1 for end in (self.usual.low, self.usual.high))

    @property
    def names_most(self) -> bool:
        """Whether the ``drivers`` together went the way of the change, and at least half as far."""
        change, named = self.change_usd or Decimal(0), added_usd(one.change_usd for one in self.drivers)
        return bool(change) and (named * 2 >= change if change > 0 else named * 2 <= change)

    @property
    def like_day(self) -> tuple[Period, Period] | None:
        """The day, and the one it is like, as periods to compare."""
        return None if self.like is None else (Period(self.day, self.day), Period(self.like, self.like))

    @property
    def whole(self) -> Period:
        """All of the month."""
        return Period.month(self.day)

    @property
    def is_known(self) -> bool:
        """Whether there is any figure at all to say."""
        return self.usage_usd is not None or self.month.usage_usd is not None or self.credits is not None


def report(query: Query, integrations: Sequence[Integration]) -> Headline | None:
    """The headline of whatever the query is about, but for its period; ``integrations``: the workspace's.

    None where no integration of it is still connected: there is no last day.
    """
    day, today = last_due(utc_now()), utc_now().date()
    live = [one for one in integrations if one.removed_at is None]
    scope = len(query.integrations) or len(integrations)
    if not live:
        return None
    days = max(_LEAST_DAYS, min(HISTORY_DAYS, _MOST_ROWS // scope))
    history = replace(query, period=Period(day - timedelta(days=days - 1), day))
    known = coverage.load(history, integrations, around=Period(history.period.first, today))
    asked, here = parts.expected_or_there(known, day)
    if not asked:
        return None
    whole, so_far = Period.month(day), Period(day.replace(day=1), day)
    settled = parts.settled_per_day(known, known.asked, history.period)
    month = _month_so_far(known, settled, so_far)

    def amounts_of(some: Sequence[Integration]) -> dict[date, Decimal]:
        if some == known.asked:
            return {one: settled.get(one, Decimal(0)) for one in parts.days_of_all(known, some, history.period)}
        return parts.amounts_per_day(known, some, history.period) if some else {}

    grown = parts.with_history(known, here, day)
    amounts = amounts_of(grown)
    found = usual.of(amounts, day)
    like = _like(amounts, day, found)
    of_live = amounts_of([one for one in here if one.removed_at is None])
    is_whole = len(here) == len(asked) and month.is_complete
    since = _since(known, day, today)
    why_not = forecasts.why_not(of_live, whole, day) if is_whole else Reason.DAYS_MISSING
    tried = None if why_not else forecasts.backtest(of_live, day)
    forecast, is_spent = (None, False) if why_not else _forecast(of_live, month, whole, since)
    return Headline(
        day=day,
        state=known.state(day),
        usage_usd=settled.get(day, Decimal(0)) if here else None,
        counted=len(here),
        compared=len(grown),
        asked=len(asked),
        usual=found,
        usual_usd=amounts.get(day),
        like=like,
        change_usd=None if like is None else amounts[day] - amounts[like],
        drivers=[] if like is None else _drivers(known.query, grown, day, like),
        since=since,
        month=month,
        forecast=forecast,
        is_spent=is_spent,
        no_forecast=why_not,
        off=tried.off() if tried else None,
        tried=tried.months if tried else 0,
        credits=None if query.is_filtered else _credits([one for one in asked if one.removed_at is None], known, day),
    )


def _forecast(
    of_live: Mapping[date, Decimal], month: MonthSoFar, whole: Period, since: Sequence[DaySince]
) -> tuple[Forecast | None, bool]:
    """Of the integrations that go on, and what others had cost in the month when they were removed. It is no less than
    what the month has cost already, and whether it would be: with $500 of today's on the last evening, the forecast of
    $300 is out of date."""
    found = forecasts.of(of_live, whole, month.period.last)
    if found is None or month.usage_usd is None:
        return None, False
    gone = month.usage_usd - found.settled
    spent = month.usage_usd + added_usd(one.usage_usd for one in since if one.day in whole)
    expected, low, high = (max(amount + gone, spent) for amount in (found.expected, found.low, found.high))
    is_spent = found.high + gone < spent
    return replace(found, settled=found.settled + gone, expected=expected, low=low, high=high), is_spent


def _like(amounts: Mapping[date, Decimal], day: date, found: Usual | None) -> date | None:
    """The latest of these weekdays whose cost was usual. A real day can be compared exactly, model by model; a median
    of two days can't."""
    if found is None or day not in amounts:
        return None
    before = [one for weeks in range(1, usual.WEEKS + 1) if (one := day - timedelta(weeks=weeks)) in amounts]
    return max(one for one in before if found.where(amounts[one]) == "within")


def _drivers(query: Query, integrations: Sequence[Integration], day: date, like: date) -> list[Contribution]:
    """The models that changed the most between two days."""
    days = [Period(one, one) for one in (like, day)]
    sides = sums.measures_in(days, query, Group.MODEL, [one.id for one in integrations])
    before, after = ({name: one.usage_usd for name, one in side.items()} for side in sides)
    largest = changes.drivers(before, after)
    return [one for one in largest if abs(one.change_usd) >= abs(largest[0].change_usd) * _WORTH_NAMING]


def _since(known: Known, day: date, today: date) -> list[DaySince]:
    """What a removed integration had read of a day that was not over is in no figure here."""
    live, open_days = [one for one in known.integrations if one.removed_at is None], known.provisional(removed=False)
    read = {later: [one for one in live if (one.id, later) in known.counted] for later in span(day + ONE_DAY, today)}
    shown = [later for later, of in read.items() if of and known.state(later) != DayState.MISSING]
    if shown and (known.query.is_filtered or known.query.byok):
        mine = replace(known.query, period=Period(shown[0], shown[-1]), integrations=tuple(one.id for one in live))
        amounts: dict[date, Decimal] = defaultdict(Decimal)
        for some in sums.by_day(mine, Group.MODEL, []):
            amounts[some.day] += some.amount or Decimal(0)
    else:
        amounts = {later: parts.usage_of(known, read[later], later) for later in shown}
    return [DaySince(later, known.state(later), amounts[later], open_days.get(later)) for later in shown]


def _month_so_far(known: Known, settled: Mapping[date, Decimal], now: Period) -> MonthSoFar:
    """Nothing stands for a month of which nothing is known, not $0.00: of an integration that was never read, say."""
    before = now.months_earlier(1)
    usage, earlier = (added_usd(settled[day] for day in period if day in settled) for period in (now, before))
    covered, covered_before = (sum(known.state(day).is_settled for day in period) for period in (now, before))
    any_known = covered or any(known.is_complete(one, Period(day, day)) for one in known.asked for day in now)
    return MonthSoFar(
        now, before, usage if any_known else None, covered, earlier if covered_before == before.days else None
    )


def _credits(integrations: Sequence[Integration], known: Known, day: date) -> CreditsLeft | None:
    """What is left of all accounts whose credits were read. An account that is connected twice has its credits once."""
    accounts = list({(one.provider, one.account_ref or one.id): one for one in integrations}.values())
    readings = latest_readings([one.id for one in accounts])
    read = [one for one in readings if one.bought_usd is not None]
    if not read:
        return None
    left = added_usd(one.bought_usd - one.lifetime_usd for one in read)
    pace = _pace([one for one in accounts if one.id in {row.integration_id for row in read}], known, day)
    return CreditsLeft(
        left_usd=left,
        bought_usd=added_usd(one.bought_usd for one in read),
        used_usd=added_usd(one.lifetime_usd for one in read),
        days=None if pace is None else max(0, int(left / pace)),
        read_at=min(one.read_at for one in read),
        accounts=len(read),
        asked=len(accounts),
    )


def _pace(integrations: Sequence[Integration], known: Known, day: date) -> Decimal | None:
    """USD a day over the last PACE_DAYS, if they are known; None where nothing was spent."""
    lately = Period(day - timedelta(days=PACE_DAYS - 1), day)
    if not all(known.is_complete(one, lately) for one in integrations):
        return None
    total = added_usd(parts.usage_of(known, integrations, one) for one in lately)
    return total / PACE_DAYS if total > 0 else None


def latest_readings(ids: Sequence[int]) -> Sequence[Any]:
    """The latest reading of the credits of each of these integrations."""
    return db.session.execute(_LATEST, {"ids": ids}).all()


_NEWEST = (
    select(func.max(CreditReading.id))
    .where(CreditReading.integration_id.in_(bindparam("ids", expanding=True)))
    .group_by(CreditReading.integration_id)
)
_LATEST = select(
    CreditReading.integration_id, CreditReading.read_at, CreditReading.lifetime_usd, CreditReading.bought_usd
).where(CreditReading.id.in_(_NEWEST))
