"""UTC days: which are settled, which are due, and the fewest periods that hold them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grafient.days import Period, intervals, last_due, last_settled, settles_at, span

DAY = date(2026, 6, 3)
days = st.dates(date(2026, 1, 1), date(2026, 3, 1))


def test_a_span_has_both_ends_and_is_empty_backwards() -> None:
    assert span(DAY, DAY) == [DAY]
    assert span(DAY, DAY + timedelta(days=2)) == [DAY, DAY + timedelta(days=1), DAY + timedelta(days=2)]
    assert span(DAY, DAY - timedelta(days=1)) == []


@pytest.mark.parametrize("length", [1, 2, 7, 30, 31, 365])
def test_a_period_has_as_many_days_as_it_says(length: int) -> None:
    period = Period.latest(length, datetime(2026, 6, 4, 12, tzinfo=UTC))
    assert (period.last, period.days, len(list(period))) == (DAY, length, length)
    assert (period.before.last, period.before.days) == (period.first - timedelta(days=1), length)


def test_the_last_settled_day_is_yesterday_from_half_past_midnight_on() -> None:
    for minute, last in ((29, DAY - timedelta(days=2)), (30, DAY - timedelta(days=1))):
        now = datetime(2026, 6, 3, 0, minute, tzinfo=UTC)
        assert last_settled(now) == last
        assert settles_at(last) <= now < settles_at(last + timedelta(days=1))


def test_a_day_settles_half_an_hour_after_it_is_over() -> None:
    assert settles_at(DAY) == datetime(2026, 6, 4, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("hour", "minute", "second", "last"),
    [(0, 0, 0, 1), (5, 59, 59, 1), (6, 0, 0, 2), (23, 59, 59, 2)],
)
def test_yesterday_is_due_from_six_on(hour: int, minute: int, second: int, last: int) -> None:
    now = datetime(2026, 6, 3, hour, minute, second, tzinfo=UTC)
    assert last_due(now) == date(2026, 6, last)
    assert last_due(now.astimezone(timezone(timedelta(hours=-9)))) == date(2026, 6, last), "wherever the clock stands"
    assert Period.latest(3, now) == Period(date(2026, 6, last) - timedelta(days=2), date(2026, 6, last))


def test_a_period_knows_its_days_and_the_one_before() -> None:
    period = Period(DAY, DAY + timedelta(days=6))
    assert (period.days, len(list(period))) == (7, 7)
    assert period.before == Period(DAY - timedelta(days=7), DAY - timedelta(days=1))
    assert DAY in period
    assert period.last in period
    assert DAY - timedelta(days=1) not in period
    assert period.last + timedelta(days=1) not in period


@pytest.mark.parametrize(("month", "last"), [(1, 31), (2, 28), (4, 30), (12, 31)])
def test_a_month_has_all_its_days(month: int, last: int) -> None:
    for day in (1, 15, last):
        assert Period.month(date(2026, month, day)) == Period(date(2026, month, 1), date(2026, month, last))


@pytest.mark.parametrize(
    ("first", "last", "months", "found"),
    [
        ("2026-11-13", "2026-11-19", 1, ("2026-10-13", "2026-10-19")),
        ("2026-01-31", "2026-01-31", 1, ("2025-12-31", "2025-12-31")),
        ("2026-03-30", "2026-03-31", 1, ("2026-02-28", "2026-02-28")),
        ("2026-02-15", "2026-02-28", 1, ("2026-01-15", "2026-01-28")),
        ("2026-02-01", "2026-02-28", 1, ("2026-01-01", "2026-01-31")),
        ("2026-01-01", "2026-12-31", 12, ("2025-01-01", "2025-12-31")),
        ("2028-02-29", "2028-02-29", 12, ("2027-02-28", "2027-02-28")),
        ("2029-02-01", "2029-02-28", 12, ("2028-02-01", "2028-02-29")),
    ],
)
def test_months_earlier_are_the_same_days_and_whole_months_stay_whole(
    first: str, last: str, months: int, found: tuple[str, str]
) -> None:
    period = Period(date.fromisoformat(first), date.fromisoformat(last))
    assert period.months_earlier(months) == Period(*map(date.fromisoformat, found))


@given(first=st.dates(date(2000, 1, 1), date(2200, 1, 1)), length=st.integers(0, 365), months=st.integers(1, 12))
def test_a_period_months_earlier_ends_before_it_and_is_none_backwards(first: date, length: int, months: int) -> None:
    period = Period(first, first + timedelta(days=length))
    earlier = period.months_earlier(months)
    assert earlier.first <= earlier.last < period.last


@given(found=st.sets(days))
def test_intervals_hold_the_days_and_no_others_and_do_not_touch(found: set[date]) -> None:
    periods = intervals(found)
    assert sorted(day for period in periods for day in period) == sorted(found)
    for earlier, later in pairwise(periods):
        assert later.first - earlier.last > timedelta(days=1)
