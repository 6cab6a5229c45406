"""The forecast of a month: better than what people do by hand, honest about its range, and never made from nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from random import Random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import forecast as compared
from grafient import forecast
from grafient.days import Period, span
from grafient.forecast import DAYS_TRIED, Forecast, Reason

NOVEMBER = Period(date(2026, 11, 1), date(2026, 11, 30))
YEAR = Period(date(2025, 11, 25), date(2026, 11, 24))
CENT = Decimal("0.01")

costs = st.decimals(0, 10_000, places=12)
with_refunds = st.decimals(-10_000, 10_000, places=12)
lengths = st.integers(30, 150)
ends = st.dates(date(2026, 10, 31), date(2026, 11, 29))


def through(last: date, amounts: Iterable[Decimal]) -> dict[date, Decimal]:
    """The amounts of the days that end with this one, the last day's first."""
    return {last - timedelta(days=ago): amount for ago, amount in enumerate(amounts)}


def every_day(last: date, days: int, amount: str = "10") -> dict[date, Decimal]:
    return through(last, [Decimal(amount)] * days)


@st.composite
def histories(draw: st.DrawFn, amounts: st.SearchStrategy[Decimal] = costs) -> tuple[dict[date, Decimal], date]:
    """Known days up to one of November's. The days before the month may have gaps, the month's own have none."""
    last = draw(ends)
    known = through(last, draw(st.lists(amounts, min_size=28, max_size=150)))
    unknown = draw(st.sets(st.integers(1, 150), max_size=10))
    return {day: cost for day, cost in known.items() if (NOVEMBER.first - day).days not in unknown}, last


@pytest.mark.parametrize("amount", ["10", "0.01", "0.07", "3.3", "19.99", "1234.56"])
def test_the_same_every_day_comes_to_just_that(amount: str) -> None:
    last, each = date(2026, 11, 10), Decimal(amount)
    found = forecast.of(every_day(last, 365, amount), NOVEMBER, last)
    assert found == Forecast(NOVEMBER, 10 * each, 30 * each, 30 * each, 30 * each, 26)


def test_fractions_of_a_cent_are_within_the_range() -> None:
    last = date(2026, 11, 10)
    found = forecast.of(every_day(last, 365, "1.0001"), NOVEMBER, last)
    assert found is not None
    assert (found.settled, found.low) == (Decimal("10.001"), Decimal("30.00"))
    assert found.expected == found.high == Decimal("30.01")


def test_the_month_may_not_have_begun() -> None:
    """At 03:00 UTC on the 1st the last day that is due is the one before yesterday."""
    last = date(2026, 10, 30)
    found = forecast.of(every_day(last, 365), NOVEMBER, last)
    assert found is not None
    assert (found.settled, found.expected) == (0, 300)


def test_a_weekday_costs_what_that_weekday_cost() -> None:
    last = date(2026, 11, 26)
    week = [Decimal(amount) for amount in (10, 20, 30, 40, 50, 1, 2)]
    amounts = {day: week[day.weekday()] for day in span(last - timedelta(days=100), last)}
    found = forecast.of(amounts, NOVEMBER, last)
    assert found is not None
    assert found.expected - found.settled == 50 + 1 + 2 + 10, "a Friday, the weekend and a Monday"


def test_a_trend_goes_on_and_fades() -> None:
    last = date(2026, 10, 31)
    rising = {day: 100 + Decimal((day - last).days) / 7 for day in span(last - timedelta(days=200), last)}
    found = forecast.of(rising, NOVEMBER, last)
    assert found is not None
    the_same_again = 30 * sum(rising[last - timedelta(days=ago)] for ago in range(7)) / 7
    straight_on = sum(100 + Decimal(ahead) / 7 for ahead in range(1, 31))
    assert the_same_again < found.expected < straight_on


@pytest.mark.parametrize("day", [date(2026, 10, 20), date(2026, 11, 3)])
def test_a_spike_does_not_decide_the_month_however_high_it_is(day: date) -> None:
    last = date(2026, 11, 10)
    noise = Random(1)
    amounts = {each: Decimal(noise.randrange(900, 1100)) / 100 for each in span(last - timedelta(days=364), last)}
    usual, high, higher = (
        forecast.of(amounts | {day: Decimal(spike)}, NOVEMBER, last) for spike in (10, 1_000, 1_000_000)
    )
    assert usual is not None
    assert high is not None
    assert higher is not None
    assert high.expected - high.settled == higher.expected - higher.settled
    assert high.expected - high.settled == pytest.approx(usual.expected - usual.settled, rel=Decimal("0.02"))
    assert usual.high < high.high, "but it says that it may come again"


@pytest.mark.parametrize("days", [14, 20, 35, 60])
@pytest.mark.parametrize("level", ["0.5", "25"])
def test_a_new_level_is_known_after_two_weeks(level: str, days: int) -> None:
    last = date(2026, 10, 31)
    amounts = every_day(last, 365, "10") | every_day(last, days, level)
    found = forecast.of(amounts, NOVEMBER, last)
    assert found is not None
    assert found.expected == pytest.approx(30 * Decimal(level), rel=Decimal("0.05"))


def test_one_week_is_no_new_level() -> None:
    last = date(2026, 10, 31)
    found = forecast.of(every_day(last, 365, "10") | every_day(last, 7, "25"), NOVEMBER, last)
    assert found is not None
    assert found.expected < 400


def test_after_a_pause_the_range_is_not_that_of_the_pause() -> None:
    """Half a year without usage was foretold exactly, week after week. That says nothing about the weeks since."""
    last = date(2026, 11, 10)
    pause = {day: Decimal(0) for day in span(date(2026, 5, 1), date(2026, 10, 31))}
    found = forecast.of(every_day(last, 365) | pause, NOVEMBER, last)
    assert found is not None
    assert found.tries < 26
    assert found.high - found.low > 50


def test_an_account_that_is_new_has_the_history_since_its_first_use() -> None:
    """The provider reports the year before as well: nothing, on each day."""
    last, nothing = date(2026, 11, 29), every_day(date(2026, 11, 29), 365, "0")
    assert forecast.why_not(nothing | every_day(last, 27), NOVEMBER, last) is Reason.TOO_LITTLE_HISTORY
    found = forecast.of(nothing | every_day(last, 28), NOVEMBER, last)
    assert found is not None
    assert found.expected == 280 + 10


def test_with_few_earlier_forecasts_the_range_is_wide() -> None:
    last = date(2026, 11, 20)
    new, older = (forecast.of(every_day(last, days), NOVEMBER, last) for days in (28, 28 + 14 + 3 * 7))
    assert new is not None
    assert older is not None
    assert (new.tries, new.low, new.expected, new.high) == (0, 250, 300, 350)
    assert (older.tries, older.low, older.high) == (4, 300, 300)


def test_with_fewer_than_28_known_days_in_8_weeks_there_is_no_forecast() -> None:
    last = date(2026, 11, 3)
    assert forecast.of(every_day(last, 27), NOVEMBER, last) is None
    assert forecast.why_not(every_day(last, 27), NOVEMBER, last) is Reason.TOO_LITTLE_HISTORY
    assert forecast.why_not(every_day(last, 28), NOVEMBER, last) is None
    long_ago = every_day(last - timedelta(days=56), 300) | every_day(last, 3)
    assert forecast.why_not(long_ago, NOVEMBER, last) is Reason.TOO_LITTLE_HISTORY


@pytest.mark.parametrize("missing", [1, 5, 10])
def test_with_a_day_of_the_month_missing_there_is_no_forecast(missing: int) -> None:
    last = date(2026, 11, 10)
    amounts = every_day(last, 365)
    del amounts[date(2026, 11, missing)]
    assert forecast.of(amounts, NOVEMBER, last) is None
    assert forecast.why_not(amounts, NOVEMBER, last) is Reason.DAYS_MISSING


def test_a_month_that_is_over_needs_no_history_but_all_of_its_days() -> None:
    amounts = every_day(NOVEMBER.last, 30, "1.000000000001")
    for last in (NOVEMBER.last, NOVEMBER.last + timedelta(days=40)):
        exact = Decimal("30.00000000003")
        assert forecast.of(amounts, NOVEMBER, last) == Forecast(NOVEMBER, exact, exact, exact, exact, 0)
    del amounts[NOVEMBER.first]
    assert forecast.why_not(amounts, NOVEMBER, NOVEMBER.last) is Reason.DAYS_MISSING


@given(histories(), st.integers(2, 7), st.data())
def test_unknown_days_never_count_as_zero(
    history: tuple[dict[date, Decimal], date], modulo: int, data: st.DataObject
) -> None:
    """Whatever days before the month are unknown: what cost the same on all others still does."""
    known, last = history
    without = {day for day in known if day < NOVEMBER.first and day.toordinal() % modulo == 0}
    found = forecast.of({day: Decimal(7) for day in known if day not in without}, NOVEMBER, last)
    assert found is None or found.expected == 210


@given(histories(with_refunds))
def test_the_range_is_in_order_and_in_cents(history: tuple[dict[date, Decimal], date]) -> None:
    amounts, last = history
    found = forecast.of(amounts, NOVEMBER, last)
    assert (found is None) == (forecast.why_not(amounts, NOVEMBER, last) is not None)
    if found:
        assert found.low <= found.expected <= found.high
        assert found.settled == sum(amounts[day] for day in span(NOVEMBER.first, last))
        assert found.expected == found.expected.quantize(CENT)


@given(histories())
def test_a_month_never_comes_to_less_than_what_is_settled(history: tuple[dict[date, Decimal], date]) -> None:
    amounts, last = history
    found = forecast.of(amounts, NOVEMBER, last)
    assert found is None or found.settled <= found.low


def test_where_there_were_refunds_it_may() -> None:
    last = date(2026, 11, 10)
    amounts = {day: Decimal(day.toordinal() % 5 - 2) for day in span(last - timedelta(days=300), last)}
    found = forecast.of(amounts, NOVEMBER, last)
    assert found is not None
    assert found.low < found.settled


@given(histories(), st.decimals("0.01", 1_000, places=2))
def test_so_many_times_the_amounts_come_to_so_many_times_the_forecast(
    history: tuple[dict[date, Decimal], date], times: Decimal
) -> None:
    amounts, last = history
    one = forecast.of(amounts, NOVEMBER, last)
    many = forecast.of({day: amount * times for day, amount in amounts.items()}, NOVEMBER, last)
    if one is None or many is None:
        assert one == many
        return
    for part in ("expected", "low", "high"):
        assert getattr(many, part) == pytest.approx(
            getattr(one, part) * times, abs=CENT * (times + 1), rel=Decimal("1e-9")
        )


def test_what_adding_up_floats_leaves_over_is_no_trend() -> None:
    """Weeks that cost the same differ in their last digit when other days of them are unknown."""
    dice, last = Random(1), date(2026, 10, 31)
    for _ in range(200):
        known = every_day(last, 56, "19.99") | every_day(last, 28, "29.98")
        for day in dice.sample(sorted(known), 14):
            del known[day]
        one = forecast.of(known, NOVEMBER, last)
        seven = forecast.of({day: amount * 7 for day, amount in known.items()}, NOVEMBER, last)
        assert one is not None
        assert seven is not None
        assert seven.expected == pytest.approx(one.expected * 7, abs=CENT * 8)


def test_who_spends_on_few_days_may_spend_nothing_more_unless_there_are_refunds() -> None:
    last = date(2026, 11, 20)
    rare = {day: Decimal("12.345") * (day.day % 11 == 0) for day in span(last - timedelta(days=200), last)}
    found = forecast.of(rare, NOVEMBER, last)
    assert found is not None
    assert found.low == found.settled == Decimal("12.345"), "to the last digit, or the range would miss just that"
    assert found.high > found.expected
    refund = {last + timedelta(days=1): Decimal(-1)}
    assert forecast.of(rare | refund, NOVEMBER, last) == found, "one that comes later is none yet"


@given(histories(with_refunds), st.lists(with_refunds, min_size=40, max_size=40))
def test_what_comes_later_says_nothing(history: tuple[dict[date, Decimal], date], later: list[Decimal]) -> None:
    amounts, last = history
    known_later = through(last + timedelta(days=40), later)
    assert forecast.of(amounts | known_later, NOVEMBER, last) == forecast.of(amounts, NOVEMBER, last)


@given(st.lists(with_refunds, min_size=30, max_size=100))
def test_the_last_day_makes_it_exact(amounts: list[Decimal]) -> None:
    known = through(NOVEMBER.last, amounts)
    found = forecast.of(known, NOVEMBER, NOVEMBER.last)
    exact = sum(known[day] for day in NOVEMBER)
    assert found == Forecast(NOVEMBER, exact, exact, exact, exact, 0)


@given(ends, lengths)
def test_nothing_comes_to_nothing(last: date, days: int) -> None:
    found = forecast.of(every_day(last, days, "0"), NOVEMBER, last)
    assert found is not None
    assert found.settled == found.expected == found.low == found.high == 0


@pytest.mark.parametrize("amount", ["100000000", "-100000000", "0.000000000001"])
def test_the_largest_and_the_smallest_amounts_there_are(amount: str) -> None:
    """Beside each other they make an error of 10^20 times what was estimated."""
    last, least = date(2026, 11, 20), "0.000000000001"
    for known in (
        every_day(last, 365, least) | every_day(last - timedelta(days=30), 60, amount),
        every_day(last, 365, least) | every_day(last, 10, amount),
        every_day(last, 63, least) | every_day(last, 13, amount),
    ):
        found = forecast.of(known, NOVEMBER, last)
        assert found is not None
        assert found.low <= found.expected <= found.high


def test_the_back_test_makes_the_forecasts_that_were_made_then() -> None:
    amounts = growing(1)
    tested = forecast.backtest(amounts, YEAR.last)
    assert tested is not None
    months = [Period.month(date(2026, month, 1)) for month in (10, 9, 8)]
    assert [(one.month, one.day) for one in tested.tries] == [(month, day) for month in months for day in DAYS_TRIED]
    for one in tested.tries:
        last = one.month.first + timedelta(days=one.day - 1)
        then = forecast.of({day: amounts[day] for day in amounts if day <= last}, one.month, last)
        assert then is not None
        assert one.expected == then.expected
        assert one.actual == sum(amounts[day] for day in one.month)
        assert one.off == abs(one.expected - one.actual) / one.actual
    assert tested.months == 3
    middle = [one.off for one in tested.tries if one.day == 15 and one.off is not None]
    assert tested.off() == tested.off(15) == pytest.approx(sum(middle) / 3)
    assert tested.off(25) != tested.off(15)


def test_the_back_test_leaves_out_months_that_are_not_wholly_known() -> None:
    amounts = growing(1)
    del amounts[date(2026, 9, 30)]
    tested = forecast.backtest(amounts, date(2026, 10, 31))
    assert tested is not None
    assert [one.month.first.month for one in tested.tries[:: len(DAYS_TRIED)]] == [10, 8, 7]
    whole_year = forecast.backtest(amounts, YEAR.last, months=12)
    assert whole_year is not None
    assert whole_year.months == 9, "nor is November, and December had no history"


def test_without_a_month_to_try_there_is_no_back_test() -> None:
    assert forecast.backtest({}, YEAR.last) is None
    assert forecast.backtest(every_day(YEAR.last, 50), YEAR.last) is None


def test_an_error_is_no_part_of_nothing() -> None:
    tested = forecast.backtest(every_day(YEAR.last, 365, "0"), YEAR.last)
    assert tested is not None
    assert tested.months == 3
    assert tested.off() is None


def rhythm(seed: int, level: Callable[[int], float] = lambda _: 20.0) -> dict[date, Decimal]:
    """A year with quiet weekends and days that vary by a fifth, on a level that may change from day to day."""
    dice, week = Random(seed), (1.0, 1.05, 1.1, 1.0, 0.9, 0.4, 0.35)
    return {
        day: Decimal(round(1e6 * level(number) * week[day.weekday()] * dice.uniform(0.8, 1.2))).scaleb(-6)
        for number, day in enumerate(YEAR)
    }


def growing(seed: int) -> dict[date, Decimal]:
    return rhythm(seed, lambda number: 10 * math.pow(1.1, number / 30))


def shrinking(seed: int) -> dict[date, Decimal]:
    return rhythm(seed, lambda number: 50 * math.pow(0.9, number / 30))


def with_a_spike(seed: int) -> dict[date, Decimal]:
    return rhythm(seed, lambda number: 400 if number == 150 else 20)


def with_spikes(seed: int) -> dict[date, Decimal]:
    dice = Random(-seed)
    return rhythm(seed, lambda _: 20 * (dice.uniform(3, 8) if dice.random() < 0.05 else 1))


def with_a_step(seed: int) -> dict[date, Decimal]:
    return rhythm(seed, lambda number: 10 if number < 200 else 25)


@pytest.mark.parametrize("kind", [rhythm, growing, shrinking, with_a_spike, with_spikes, with_a_step])
def test_it_beats_last_month_and_the_mean_day_on_all_kinds_of_years(
    kind: Callable[[int], Mapping[date, Decimal]],
) -> None:
    found = [compared.errors(kind(seed), YEAR.last) for seed in range(1, 5)]
    ours, last_month, mean_day = (
        median(error for one in found for error in getattr(one, name)) for name in ("ours", "last_month", "mean_day")
    )
    assert ours < mean_day
    assert ours < last_month


@pytest.fixture(scope="module")
def sandbox() -> list[dict[date, Decimal]]:
    return [year for account in compared.accounts() if any((year := compared.year(account)).values())]


def test_it_beats_them_on_the_sandbox_s_year(sandbox: list[dict[date, Decimal]]) -> None:
    found = [compared.errors(year, YEAR.last) for year in sandbox]
    ours, last_month, mean_day = (
        median(error for one in found for error in getattr(one, name)) for name in ("ours", "last_month", "mean_day")
    )
    assert len(found) == 18
    assert ours < Decimal("0.03")
    assert ours < mean_day / Decimal("1.4")
    assert ours < last_month / 2


def test_the_range_is_right_four_times_in_five(sandbox: list[dict[date, Decimal]]) -> None:
    """Of months that could not be known when their forecasts were made, on each of the days 0 to 25."""
    held = []
    for year in sandbox:
        for month in (Period.month(date(2026, number, 1)) for number in range(2, 11)):
            actual = sum(year[day] for day in month)
            for days in (0, *DAYS_TRIED):
                found = forecast.of(year, month, month.first + timedelta(days=days - 1))
                assert found is not None
                held.append(found.low <= actual <= found.high)
    assert 0.76 < sum(held) / len(held) < 0.92


@pytest.mark.parametrize(
    ("period", "last", "expected"),
    [
        (Period(date(2026, 11, 23), date(2026, 11, 29)), date(2026, 11, 24), 70),
        (Period(date(2026, 10, 1), date(2026, 12, 31)), date(2026, 11, 24), 920),
        (Period(date(2026, 1, 1), date(2026, 12, 31)), date(2026, 11, 24), 3650),
    ],
)
def test_any_period_has_one(period: Period, last: date, expected: int) -> None:
    found = forecast.of(every_day(last, 400), period, last)
    assert found is not None
    assert (found.period, found.settled) == (period, 10 * ((last - period.first).days + 1))
    assert found.low == found.expected == found.high == expected


def test_a_year_that_has_hardly_begun_has_a_range_as_wide_as_that_is_uncertain() -> None:
    last = date(2026, 1, 20)
    found = forecast.of(every_day(last, 360), Period(date(2026, 1, 1), date(2026, 12, 31)), last)
    assert found is not None
    assert (found.expected, found.tries) == (3650, 0)
    assert (found.low, found.high) == (Decimal("1925.00"), Decimal("5375.00")), "half of the 345 days left"


def test_a_day_has_none_until_it_is_over() -> None:
    today = date(2026, 11, 25)
    amounts = every_day(today, 400)
    day = Period(today, today)
    assert forecast.of(amounts, day, today - timedelta(days=1)) is None
    assert forecast.why_not(amounts, day, today - timedelta(days=1)) == Reason.ONE_DAY
    assert forecast.of(amounts, day, today) == Forecast(day, *[Decimal(10)] * 4, 0)


class TestReaches:
    LAST = date(2026, 11, 10)

    @pytest.mark.parametrize(
        ("limit", "so_far", "day"),
        [
            ("95", "100", 10),
            ("100", "100", 10),
            ("101", "100", 11),
            ("150", "100", 15),
            ("150", "145", 12),
            ("150", "150", 11),
            ("300", "100", 30),
            ("300.01", "100", None),
        ],
    )
    def test_the_day_on_which_it_does(self, limit: str, so_far: str, day: int | None) -> None:
        found = forecast.reaches(every_day(self.LAST, 100), NOVEMBER, self.LAST, Decimal(limit), Decimal(so_far))
        assert found == (None if day is None else date(2026, 11, day))

    def test_without_a_forecast_nobody_knows(self) -> None:
        amounts = every_day(self.LAST, 100)
        del amounts[date(2026, 11, 3)]
        assert forecast.reaches(amounts, NOVEMBER, self.LAST, Decimal(1), Decimal(500)) is None

    def test_of_a_period_that_is_over(self) -> None:
        amounts = every_day(NOVEMBER.last, 100)
        assert forecast.reaches(amounts, NOVEMBER, NOVEMBER.last, Decimal(300), Decimal(300)) == NOVEMBER.last
        assert forecast.reaches(amounts, NOVEMBER, NOVEMBER.last, Decimal(301), Decimal(300)) is None

    @given(histories())
    def test_it_comes_to_what_the_forecast_expects(self, history: tuple[dict[date, Decimal], date]) -> None:
        amounts, last = history
        found = forecast.of(amounts, NOVEMBER, last)
        if found is None:
            return
        over = forecast.reaches(amounts, NOVEMBER, last, found.expected + CENT, found.settled)
        assert over is None
        if found.expected > found.settled + 2 * CENT:
            assert forecast.reaches(amounts, NOVEMBER, last, found.expected - 2 * CENT, found.settled) is not None
