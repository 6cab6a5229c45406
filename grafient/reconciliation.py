"""Is this the bill? The figures held against what else the provider says: analytics per day, credits over time.

Activity, analytics and credits are three counts of the same money at one provider. Where they agree, a figure is
*verified*; where they do not, it *differs*, and the page says by how much and where. All amounts are USD.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from grafient import lines
from grafient.extensions import db
from grafient.models import CostLine, CoveredDay, CreditReading, DayCheck, Integration, Restatement
from grafient.money import usd_sum
from grafient.periods import Period
from grafient.providers import Activity

ROUNDED_USD = Decimal("0.000001")
"""Analytics rounds to 6 decimals: so much is no difference."""

CREDITS_LAG = timedelta(minutes=5)
"""/credits may be a minute old and analytics some more; what the account spends in so long is no difference."""


def record_checks(integration_id: int, window: Activity, totals: Mapping[date, Decimal], now: datetime) -> None:
    """Write what analytics says of the window's days, in the caller's transaction. No entry: nothing was charged."""
    days = [window.first_day + timedelta(days=n) for n in range((window.last_day - window.first_day).days + 1)]
    known = DayCheck.day.between(window.first_day, window.last_day)
    db.session.execute(delete(DayCheck).where(DayCheck.integration_id == integration_id, known))
    own = {"integration_id": integration_id, "checked_at": now}
    lines.many(insert(DayCheck), [own | {"day": day, "analytics_usd": totals.get(day, Decimal(0))} for day in days])


def record_reading(integration_id: int, lifetime_usd: Decimal, now: datetime) -> int:
    """Write a reading of the credits, in the caller's transaction; its id."""
    reading = CreditReading(integration_id=integration_id, read_at=now, lifetime_usd=lifetime_usd)
    db.session.add(reading)
    db.session.flush()
    return reading.id


def add_today(reading_id: int | None, today_usd: Decimal) -> None:
    """Say how much of a reading was charged on its own UTC day, in the caller's transaction."""
    if reading_id is not None:
        db.session.execute(update(CreditReading).where(CreditReading.id == reading_id).values(today_usd=today_usd))


@dataclass(frozen=True)
class CheckedDay:
    """A settled day of one integration, by both counts; ``difference_usd`` is activity less analytics."""

    integration_id: int
    day: date
    activity_usd: Decimal
    analytics_usd: Decimal

    @property
    def difference_usd(self) -> Decimal:
        return self.activity_usd - self.analytics_usd

    @property
    def agrees(self) -> bool:
        return abs(self.difference_usd) <= ROUNDED_USD


@dataclass(frozen=True)
class Span:
    """The credits' growth over whole days, between two readings, against the sum of these days.

    ``slack_usd``: what the readings' age and unknown parts of days can explain. A reading tells what was charged up to
    its moment; what was charged on its own UTC day is taken off, or is within the slack where that is not known.
    """

    integration_id: int
    days: Period
    first_read_at: datetime
    last_read_at: datetime
    credits_usd: Decimal
    days_usd: Decimal
    slack_usd: Decimal

    @property
    def difference_usd(self) -> Decimal:
        return self.credits_usd - self.days_usd

    @property
    def agrees(self) -> bool:
        return abs(self.difference_usd) <= self.slack_usd


@dataclass(frozen=True)
class Verdict:
    """What a period's figures are worth.

    ``state``: ``verified`` (each day of each integration agrees with analytics, and the credits with the days),
    ``differs`` (by ``difference_usd``, on the ``differing`` days or over the differing ``spans``) or ``unverified``,
    for the reason in ``why``. ``asked`` counts days times integrations.
    """

    state: str
    asked: int
    days: Sequence[CheckedDay]
    spans: Sequence[Span]
    why: str

    @property
    def differing(self) -> list[CheckedDay]:
        return [day for day in self.days if not day.agrees]

    @property
    def agreeing(self) -> int:
        return len(self.days) - len(self.differing)

    @property
    def difference_usd(self) -> Decimal:
        """The larger of what the days and what the credits are off by, over all integrations."""
        days = sum((abs(day.difference_usd) for day in self.differing), Decimal(0))
        spans = sum((abs(span.difference_usd) for span in self.spans if not span.agrees), Decimal(0))
        return max(days, spans)


def verdict(integrations: Sequence[Integration], period: Period) -> Verdict:
    """Hold a period's figures of these integrations against all that is known besides."""
    ids = [integration.id for integration in integrations]
    sources = _sources(ids, period)
    usage = _usage(ids, Period(period.first, period.last + timedelta(days=1)))
    days = _checked(ids, period, sources, usage)
    spans = _spans(ids, period, sources, usage)
    asked = period.days * len(ids)
    if not all(day.agrees for day in days) or not all(span.agrees for span in spans):
        state = "differs"
    else:
        state = "verified" if days and len(days) == asked else "unverified"
    why = _why(integrations, asked, len(days), sources) if state == "unverified" else ""
    return Verdict(state, asked, days, spans, why)


_Key = tuple[int, date]


def _sources(ids: Sequence[int], period: Period) -> dict[_Key, str]:
    """Where each settled day is known from."""
    query = select(CoveredDay.integration_id, CoveredDay.day, CoveredDay.source).where(
        CoveredDay.integration_id.in_(ids), period.holds(CoveredDay.day), CoveredDay.state != "provisional"
    )
    return {(integration_id, day): source for integration_id, day, source in db.session.execute(query)}


def _usage(ids: Sequence[int], period: Period) -> dict[_Key, Decimal]:
    """What each day came to."""
    sums = select(CostLine.integration_id, CostLine.day, usd_sum(CostLine.usage_usd)).where(
        CostLine.integration_id.in_(ids), period.holds(CostLine.day)
    )
    rows = db.session.execute(sums.group_by(CostLine.integration_id, CostLine.day))
    return {(integration_id, day): amount for integration_id, day, amount in rows}


def _checked(
    ids: Sequence[int], period: Period, sources: Mapping[_Key, str], usage: Mapping[_Key, Decimal]
) -> list[CheckedDay]:
    checks = (
        select(DayCheck.integration_id, DayCheck.day, DayCheck.analytics_usd)
        .where(DayCheck.integration_id.in_(ids), period.holds(DayCheck.day))
        .order_by(DayCheck.day, DayCheck.integration_id)
    )
    return [
        CheckedDay(integration_id, day, usage.get((integration_id, day), Decimal(0)), analytics_usd)
        for integration_id, day, analytics_usd in db.session.execute(checks)
        if sources.get((integration_id, day)) == "activity"
    ]


def _spans(
    ids: Sequence[int], period: Period, sources: Mapping[_Key, str], usage: Mapping[_Key, Decimal]
) -> list[Span]:
    """For each integration the longest stretch of settled days that lies between two readings, if there is one."""
    ends: dict[int, list[CreditReading]] = {}
    for reading in _readings(ids, period):
        ends.setdefault(reading.integration_id, []).append(reading)
    changes = _changes(ids, min((readings[0].read_at for readings in ends.values()), default=None))
    spans = []
    for integration_id, readings in ends.items():
        first, last = readings[0], readings[-1]
        if first.read_at.date() >= last.read_at.date():
            continue
        days = Period(first.read_at.date(), last.read_at.date() - timedelta(days=1))
        if all((integration_id, day) in sources for day in days):
            own = [change for change in changes if change.integration_id == integration_id]
            known = sum((usage.get((integration_id, day), Decimal(0)) for day in days), Decimal(0))
            spans.append(_span(days, first, last, known + _restated_between(days, first, last, own), usage))
    return spans


def _readings(ids: Sequence[int], period: Period) -> list[CreditReading]:
    """The first and the last reading of each integration that have days of the period between them, in order."""
    begin = datetime.combine(period.first, time(), tzinfo=UTC)
    end = datetime.combine(period.last + timedelta(days=2), time(), tzinfo=UTC)
    within = CreditReading.integration_id.in_(ids), CreditReading.read_at >= begin, CreditReading.read_at < end
    ends = select(func.min(CreditReading.id), func.max(CreditReading.id)).where(*within)
    rows = db.session.execute(ends.group_by(CreditReading.integration_id)).all()
    chosen = [reading_id for row in rows for reading_id in row]
    query = select(CreditReading).where(CreditReading.id.in_(chosen)).order_by(CreditReading.read_at, CreditReading.id)
    return list(db.session.execute(query).scalars())


def _changes(ids: Sequence[int], since: datetime | None) -> Sequence[Any]:
    """What restatements changed on each day, by the moment they were learned of."""
    if since is None:
        return []
    query = (
        select(
            Restatement.integration_id,
            Restatement.day,
            Restatement.changed_at,
            usd_sum(Restatement.usage_before_usd).label("before"),
            usd_sum(Restatement.usage_after_usd).label("after"),
        )
        .where(Restatement.integration_id.in_(ids), Restatement.changed_at > since)
        .group_by(Restatement.integration_id, Restatement.day, Restatement.changed_at)
    )
    return db.session.execute(query).all()


def _restated_between(days: Period, first: CreditReading, last: CreditReading, changes: Sequence[Any]) -> Decimal:
    """What takes the days' present sum back to how much the ledger grew from one reading to the other.

    What was learned of these days after the last reading was not in it; what was learned between the readings of
    days before them was.
    """
    correction = Decimal(0)
    for change in changes:
        growth = (change.after or Decimal(0)) - (change.before or Decimal(0))
        if change.day in days and change.changed_at > last.read_at:
            correction -= growth
        elif change.day < days.first and first.read_at < change.changed_at <= last.read_at:
            correction += growth
    return correction


def _span(
    days: Period, first: CreditReading, last: CreditReading, days_usd: Decimal, usage: Mapping[_Key, Decimal]
) -> Span:
    growth = (last.lifetime_usd - (last.today_usd or 0)) - (first.lifetime_usd - (first.today_usd or 0))
    slack = ROUNDED_USD + _slack(first, usage) + _slack(last, usage)
    return Span(first.integration_id, days, first.read_at, last.read_at, growth, days_usd, slack)


def _slack(reading: CreditReading, usage: Mapping[_Key, Decimal]) -> Decimal:
    """What can't be told apart at a reading: what its age hides, or all of a day whose part so far is not known."""
    day = reading.read_at.date()
    if reading.today_usd is None:
        return abs(usage.get((reading.integration_id, day), Decimal(0)))
    midnight = datetime.combine(day, time(), tzinfo=UTC)
    elapsed = max(reading.read_at - midnight, timedelta(hours=1))
    return abs(reading.today_usd) * int(CREDITS_LAG.total_seconds()) / int(elapsed.total_seconds())


def _why(integrations: Sequence[Integration], asked: int, checked: int, sources: Mapping[_Key, str]) -> str:
    """What keeps a period from being verified, in a sentence."""
    reasons = []
    alone = sum(1 for source in sources.values() if source == "analytics")
    if alone:
        reasons.append(f"{_are(alone)} known from analytics alone, which there is nothing to hold against")
    if len(sources) < asked:
        reasons.append(f"{_are(asked - len(sources))} missing or not settled")
    unchecked = len(sources) - alone - checked
    if unchecked:
        said = next((i.no_history for i in integrations if i.no_history), "analytics has not been asked of them")
        reasons.append(f"{unchecked} {'has' if unchecked == 1 else 'have'} no second count: {said.rstrip('.')}")
    agree = "day agrees" if asked == 1 else "days agree"
    return f"{checked} of {asked} {agree} with a second count; {'; '.join(reasons)}." if asked else ""


def _are(number: int) -> str:
    return f"{number} {'is' if number == 1 else 'are'}"
