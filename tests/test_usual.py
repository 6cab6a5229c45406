"""What is usual for a day: the same weekday of the eight weeks before, and no single spike decides it."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grafient import usual
from grafient.usual import Usual

TUESDAY = date(2026, 11, 24)
usd = st.decimals(-1_000_000, 1_000_000, places=12)


def weeks_before(*amounts: str | int | Decimal, day: date = TUESDAY) -> dict[date, Decimal]:
    """The amounts of the weeks before the day, the latest first."""
    return {day - timedelta(weeks=weeks): Decimal(amount) for weeks, amount in enumerate(amounts, 1)}


def test_usual_is_the_same_weekday_of_the_last_eight_weeks_without_the_lowest_and_the_highest() -> None:
    amounts = weeks_before("10.5", 12, 900, 11, "9.25", 13, 0, 14)
    assert usual.of(amounts, TUESDAY) == Usual(Decimal("9.25"), Decimal("11.5"), Decimal(14), 8)


def test_other_weekdays_earlier_weeks_and_the_day_itself_say_nothing() -> None:
    amounts = weeks_before(10, 11, 12, 13)
    found = usual.of(amounts, TUESDAY)
    others = {TUESDAY - timedelta(days=ago): Decimal(5_000) for ago in range(-70, 200) if ago % 7}
    later = {TUESDAY + timedelta(weeks=weeks): Decimal(5_000) for weeks in range(5)}
    earlier = {TUESDAY - timedelta(weeks=weeks): Decimal(5_000) for weeks in range(9, 30)}
    assert usual.of(amounts | others | later | earlier, TUESDAY) == found
    assert found == Usual(Decimal(11), Decimal("11.5"), Decimal(12), 4)


def test_with_fewer_than_four_there_is_too_little_history() -> None:
    assert usual.of({}, TUESDAY) is None
    assert usual.of(weeks_before(1, 2, 3), TUESDAY) is None
    five_weeks_ago = weeks_before(1, 2, 3, 4, 5)
    del five_weeks_ago[TUESDAY - timedelta(weeks=2)]
    assert usual.of(five_weeks_ago, TUESDAY) == Usual(Decimal(3), Decimal("3.5"), Decimal(4), 4), "unknown is not zero"


def test_a_day_without_usage_is_a_day() -> None:
    assert usual.of(weeks_before(0, 0, 0, 0, 8), TUESDAY) == Usual(Decimal(0), Decimal(0), Decimal(0), 5)


@pytest.mark.parametrize(
    ("amount", "where"), [("10.99", "below"), ("11", "within"), ("12", "within"), ("12.01", "above"), ("-3", "below")]
)
def test_an_amount_is_below_within_or_above(amount: str, where: str) -> None:
    found = usual.of(weeks_before(10, 11, 12, 13), TUESDAY)
    assert found is not None
    assert found.where(Decimal(amount)) == where


@given(st.lists(usd, min_size=4, max_size=8))
def test_the_range_is_in_order_and_made_of_what_days_cost(amounts: list[Decimal]) -> None:
    found = usual.of(weeks_before(*amounts), TUESDAY)
    assert found is not None
    assert found.low <= found.middle <= found.high
    assert found.middle == median(amounts)
    assert {found.low, found.high} <= set(amounts)


@given(st.lists(usd, min_size=4, max_size=8), st.data())
def test_whatever_one_day_had_cost_both_ends_lie_within_what_the_others_cost(
    amounts: list[Decimal], data: st.DataObject
) -> None:
    spike = data.draw(st.integers(0, len(amounts) - 1))
    others = amounts[:spike] + amounts[spike + 1 :]
    amounts[spike] = data.draw(usd)
    found = usual.of(weeks_before(*amounts), TUESDAY)
    assert found is not None
    assert min(others) <= found.low <= found.high <= max(others)


@given(st.lists(usd, min_size=4, max_size=8))
def test_no_wider_range_could_promise_that(amounts: list[Decimal]) -> None:
    """The lowest day is the one that may be a spike: the end must not be lower than the lowest of the others."""
    found = usual.of(weeks_before(*amounts), TUESDAY)
    ordered = sorted(amounts)
    assert found is not None
    assert (found.low, found.high) == (min(ordered[1:]), max(ordered[:-1]))
