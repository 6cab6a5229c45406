"""Is this the bill? The figures compared with everything else the provider reports.

Activity, analytics (per day) and credits (over the account's lifetime) are three counts of the same money at one
provider. Where they agree, a figure is *verified*; where they do not, it *differs*, and the page says by how much and
where. All amounts are USD.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, or_, select

from grafient import lines
from grafient.coverage import Counted, Known
from grafient.days import ONE_DAY, Period, span
from grafient.extensions import db
from grafient.models import CreditReading, DayCheck, Integration, Restatement
from grafient.models.columns import usd_sum
from grafient.providers import Activity, Credits
from grafient.query import is_expected
from grafient.states import Source

ROUNDED_USD = Decimal("0.000001")
"""Analytics rounds to 6 decimals: so much is no difference."""

CREDITS_LAG = timedelta(minutes=5)
"""/credits may be a minute old and analytics some more; what the account spends in so long is no difference."""

_Key = tuple[int, date]
_Days = Mapping[_Key, Counted]
"""Of an integration, by its id, and a day."""


def record_checks(integration_id: int, window: Activity, totals: Mapping[date, Decimal], now: datetime) -> None:
    """Write what analytics says of the window's days, in the caller's transaction. No entry: nothing was charged.

    Only what it has not said before: of thirty days, one.
    """
    asked = {"of": integration_id, "first": window.first_day, "last": window.last_day}
    known = {row.day: row.analytics_usd for row in db.session.connection().execute(_CHECKS, asked)}
    said = {day: totals.get(day, Decimal(0)) for day in span(window.first_day, window.last_day)}
    fresh = [day for day, amount in said.items() if known.get(day) != amount]
    if not fresh:
        return
    db.session.execute(
        delete(DayCheck)
        .where(DayCheck.integration_id == integration_id, DayCheck.day.in_(fresh))
        .execution_options(synchronize_session=False)
    )
    own = {"integration_id": integration_id, "checked_at": now}
    lines.execute_many(_WRITE_CHECK, [own | {"day": day, "analytics_usd": said[day]} for day in fresh])


_WRITE_CHECK, _WRITE_READING = insert(DayCheck), insert(CreditReading)
_CHECKS = select(DayCheck.day, DayCheck.analytics_usd).where(
    DayCheck.integration_id == bindparam("of"), DayCheck.day.between(bindparam("first"), bindparam("last"))
)


def record_reading(integration_id: int, found: Credits, read_at: datetime, today_usd: Decimal | None) -> None:
    """Write a reading of the credits, in the caller's transaction. ``today_usd``: see ``own_day``."""
    reading = {"integration_id": integration_id, "read_at": read_at, "today_usd": today_usd}
    read = {"lifetime_usd": found.used_usd, "bought_usd": found.bought_usd}
    lines.execute_many(_WRITE_READING, [reading | read])


def own_day(read_at: datetime, totals: Mapping[date, Decimal], days: Period, answered_at: datetime) -> Decimal | None:
    """How much of a reading of the credits was charged on its own UTC day; None if that can't be said.

    ``totals`` is what analytics says was charged per day, asked for ``days`` and answered then; no entry is nothing.
    The activity of a sync can be read at 23:59 and the credits a minute later, on the next day. What was charged on
    the day before has nothing to do with that reading: subtracted from it, it looked like costs that were missing. And
    a laptop can sleep between the credits and analytics, whose total then has hours of spending that the reading
    lacks, or the other way round. In these cases the part of the reading's own day stays unknown.
    """
    day = read_at.date()
    if day not in days or abs(answered_at - read_at) > CREDITS_LAG:
        return None
    return totals.get(day, Decimal(0))


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

    ``slack_usd``: what the readings' age and unknown parts of days can explain. A reading includes what was charged up
    to its moment. What was charged on its own UTC day is subtracted; where that is unknown, it is in the slack.
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


class VerdictState(StrEnum):
    """What a period's figures are worth."""

    VERIFIED = "verified"
    """Each day of each integration agrees with analytics, and the credits with the days."""
    DIFFERS = "differs"
    """By ``Verdict.difference_usd``, on its ``differing`` days or over its ``wrong_spans``."""
    UNVERIFIED = "unverified"
    """There is too little to compare with, for the reason in ``Verdict.why``. That is no fault as long as
    ``Verdict.unasked`` is zero: no second count can exist of a day that is known from analytics only."""


@dataclass(frozen=True)
class Verdict:
    """What a period's figures are worth, and how that was checked. ``asked`` counts days times integrations.

    ``unasked``: how many days should have a second count and have none, because analytics was not asked or failed.
    """

    state: VerdictState
    asked: int
    days: Sequence[CheckedDay]
    spans: Sequence[Span]
    why: str
    unasked: int = 0

    @property
    def differing(self) -> list[CheckedDay]:
        return [day for day in self.days if not day.agrees]

    @property
    def wrong_spans(self) -> list[Span]:
        return [span for span in self.spans if not span.agrees]

    @property
    def agreeing(self) -> int:
        return len(self.days) - len(self.differing)

    @property
    def unchecked(self) -> int:
        """How many of the days asked for have nothing to be compared with."""
        return max(self.asked - len(self.days), 0)

    @property
    def days_differ_usd(self) -> Decimal:
        """What the days are off by, over all integrations."""
        return sum((abs(day.difference_usd) for day in self.differing), Decimal(0))

    @property
    def difference_usd(self) -> Decimal:
        """The larger of what the days and what the credits are off by, over all integrations."""
        return max(self.days_differ_usd, sum((abs(span.difference_usd) for span in self.wrong_spans), Decimal(0)))


def verdict(known: Known) -> Verdict:
    """Compare the figures of a period with everything else the provider says.

    Asked are the days that each integration should cover (see ``query.is_expected``), so that an integration which was
    removed last month does not leave this month unverified.
    """
    settled = _settled(known, known.integrations)
    return _verdict(known, known.integrations, settled, _spans(known, known.integrations, settled))


def verdicts(known: Known) -> dict[int, Verdict]:
    """The same of each integration by itself, by its id, also of those that are left out of the query's figures."""
    settled = _settled(known, known.asked)
    spans = _spans(known, known.asked, settled)
    found = {}
    for one in known.asked:
        own = {name: day for name, day in settled.items() if name[0] == one.id}
        found[one.id] = _verdict(known, [one], own, [span for span in spans if span.integration_id == one.id])
    return found


def _settled(known: Known, integrations: Sequence[Integration]) -> _Days:
    ids, period = {integration.id for integration in integrations}, known.period
    return {
        name: day
        for name, day in known.counted.items()
        if name[0] in ids and name[1] in period and day.state.is_settled
    }


def _verdict(known: Known, integrations: Sequence[Integration], settled: _Days, spans: Sequence[Span]) -> Verdict:
    checked = [
        CheckedDay(integration_id, day, found.usage_usd, found.analytics_usd)
        for (integration_id, day), found in settled.items()
        if found.analytics_usd is not None and found.source == Source.ACTIVITY
    ]
    expected = {(i.id, day) for i in integrations for day in known.period if is_expected(i, day)}
    if not all(day.agrees for day in checked) or not all(span.agrees for span in spans):
        state = VerdictState.DIFFERS
    else:
        proven = {(day.integration_id, day.day) for day in checked}
        state = VerdictState.VERIFIED if proven and expected <= proven else VerdictState.UNVERIFIED
    why = _why(integrations, expected, len(checked), settled) if state == VerdictState.UNVERIFIED else ""
    offered = {i.id for i in integrations if i.no_history is None and i.removed_at is None}
    unasked = [
        name
        for name, found in settled.items()
        if name[0] in offered and found.source == Source.ACTIVITY and found.analytics_usd is None
    ]
    return Verdict(state, len(expected | settled.keys()), checked, spans, why, len(unasked))


def _spans(known: Known, integrations: Sequence[Integration], settled: _Days) -> list[Span]:
    """For each integration the longest stretch of settled days that lies between two readings, if there is one."""
    ids = sorted(integration.id for integration in integrations)
    restated = any(integration.last_restated_at for integration in integrations)
    ends: dict[int, list[CreditReading]] = {}
    for reading in end_readings(ids, known.period):
        ends.setdefault(reading.integration_id, []).append(reading)
    found = []
    for integration_id, readings in ends.items():
        first, last = readings[0], readings[-1]
        between = Period(first.read_at.date(), last.read_at.date() - ONE_DAY)
        if between.days > 0 and all((integration_id, day) in settled for day in between):
            found.append((between, first, last))
    changes = _changes(ids, min(first.read_at for _, first, _ in found)) if found and restated else []
    spans = []
    for between, first, last in found:
        own = [change for change in changes if change.integration_id == first.integration_id]
        stored = sum((settled[first.integration_id, day].usage_usd for day in between), Decimal(0))
        spans.append(_span(between, first, last, stored + _restated_between(between, first, last, own), known.counted))
    return spans


def end_readings(ids: Sequence[int], period: Period) -> list[CreditReading]:
    """The first and the last reading of each integration on days of a period and the day after, in order."""
    begin = datetime.combine(period.first, time(), tzinfo=UTC)
    end = datetime.combine(period.last + timedelta(days=2), time(), tzinfo=UTC)
    return list(db.session.execute(_READINGS, {"ids": list(ids), "begin": begin, "end": end}).scalars())


def first_readings(ids: Sequence[int]) -> dict[int, datetime]:
    """When the credits of each integration were first read; without those of which they never were."""
    first = select(CreditReading.integration_id, func.min(CreditReading.read_at).label("read_at"))
    first = first.group_by(CreditReading.integration_id)
    found = db.session.execute(first.where(CreditReading.integration_id.in_(ids)))
    return {row.integration_id: row.read_at for row in found}


_ENDS = (
    select(func.min(CreditReading.id).label("first"), func.max(CreditReading.id).label("last"))
    .where(
        CreditReading.integration_id.in_(bindparam("ids", expanding=True)),
        CreditReading.read_at >= bindparam("begin"),
        CreditReading.read_at < bindparam("end"),
    )
    .group_by(CreditReading.integration_id)
    .subquery()
)
_READINGS = (
    select(CreditReading)
    .join(_ENDS, or_(CreditReading.id == _ENDS.c.first, CreditReading.id == _ENDS.c.last))
    .order_by(CreditReading.read_at, CreditReading.id)
)


def _changes(ids: Sequence[int], since: datetime) -> Sequence[Any]:
    """What restatements changed on each day, by the moment they were learned of."""
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


def _span(between: Period, first: CreditReading, last: CreditReading, days_usd: Decimal, days: _Days) -> Span:
    growth = (last.lifetime_usd - (last.today_usd or 0)) - (first.lifetime_usd - (first.today_usd or 0))
    slack = ROUNDED_USD + _slack(first, days) + _slack(last, days)
    return Span(first.integration_id, between, first.read_at, last.read_at, growth, days_usd, slack)


def _slack(reading: CreditReading, days: _Days) -> Decimal:
    """What is uncertain at a reading: what its age hides, or all of a day whose part so far is unknown.

    Credits can be minutes old, so what the account spends in CREDITS_LAG at its pace of that day is no difference. A
    reading a minute after midnight can lack the last minutes of the day before, at the pace of that one.
    """
    day = reading.read_at.date()
    if reading.today_usd is None:
        return _usage(days, reading, day)
    elapsed = reading.read_at - datetime.combine(day, time(), tzinfo=UTC)
    hidden = abs(reading.today_usd) * _seconds(CREDITS_LAG) / _seconds(max(elapsed, timedelta(hours=1)))
    if elapsed < CREDITS_LAG:
        hidden += _usage(days, reading, day - ONE_DAY) * _seconds(CREDITS_LAG) / _seconds(ONE_DAY)
    return hidden


def _usage(days: _Days, reading: CreditReading, day: date) -> Decimal:
    known = days.get((reading.integration_id, day))
    return abs(known.usage_usd) if known else Decimal(0)


def _seconds(length: timedelta) -> int:
    return int(length.total_seconds())


def _why_unchecked(integrations: Sequence[Integration], settled: _Days) -> str:
    """Of several integrations with reasons of their own, none speaks for the others."""
    ids = {one for (one, _), day in settled.items() if day.source != Source.ANALYTICS and day.analytics_usd is None}
    found = {one.no_history for one in integrations if one.id in ids}
    if len(found) > 1:
        return "analytics can't be read, or has not been asked yet"
    return next(iter(found), None) or "analytics has not been asked yet"


def _why(integrations: Sequence[Integration], expected: Set[_Key], checked: int, settled: _Days) -> str:
    """What keeps a period from being verified, in a sentence."""
    asked = len(expected | settled.keys())
    if not asked:
        return ""
    reasons = []
    alone = sum(1 for day in settled.values() if day.source == Source.ANALYTICS)
    if alone:
        reasons.append(f"{_are(alone)} known from analytics only, so there is nothing to compare {_it(alone)} with")
    missing = len(expected - settled.keys())
    if missing:
        reasons.append(f"{_are(missing)} missing or not settled yet")
    unchecked = len(settled) - alone - checked
    if unchecked:
        said = _why_unchecked(integrations, settled)
        reasons.append(
            f"{unchecked:,} {'has' if unchecked == 1 else 'have'} nothing to compare with: {said.rstrip('.')}"
        )
    agree = "day agrees" if asked == 1 else "days agree"
    return f"{checked:,} of {asked:,} {agree} with analytics; {'; '.join(reasons)}."


def _are(number: int) -> str:
    return f"{number:,} {'is' if number == 1 else 'are'}"


def _it(number: int) -> str:
    return "it" if number == 1 else "them"
