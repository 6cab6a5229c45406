"""What a day is expected to cost, and which are unusual, on amounts that can be checked by eye."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grafient.alerts import unusual
from grafient.alerts.unusual import Margin
from grafient.sandbox.account import Account, _event_day, _spike

D = Decimal
DAY = date(2026, 11, 18)  # a Wednesday


def ago(days: int) -> date:
    return DAY - timedelta(days=days)


def weeks(amount: int = 20, weekend: int = 5, noise: float = 0.0, days: int = 56) -> dict[date, Decimal]:
    """Eight weeks before DAY: working days, and cheaper weekends, perhaps a part more or less."""
    dice = Random(1)
    found = {}
    for before in range(1, days + 1):
        usual = weekend if ago(before).weekday() > 4 else amount
        found[ago(before)] = round(D(usual * (1 + dice.uniform(-noise, noise))), 2)
    return found


def direction(amounts: Mapping[date, Decimal], amount: float, **more: object) -> str:
    expected = unusual.expected(amounts, DAY, **more)  # type: ignore[arg-type]
    assert expected is not None
    return expected.direction(D(str(amount)))


class TestExpected:
    def test_each_weekday_is_compared_with_its_own(self) -> None:
        wednesday = unusual.expected(weeks(), DAY)
        saturday = unusual.expected(weeks(), DAY + timedelta(days=3))
        assert wednesday is not None
        assert saturday is not None
        assert (wednesday.usd, saturday.usd) == (D("20.00"), D("5.00"))

    @pytest.mark.parametrize(
        ("usd", "found"), [(20, ""), (25.99, ""), (26.01, "up"), (14.01, ""), (13.99, "down"), (0, "down")]
    )
    def test_it_takes_thirty_percent(self, usd: float, found: str) -> None:
        assert direction(weeks(), usd) == found

    @pytest.mark.parametrize(("usd", "found"), [(0.99, ""), (1.01, ""), (1.11, "up"), (0, "")])
    def test_and_a_dollar(self, usd: float, found: str) -> None:
        small = {day: amount / 200 for day, amount in weeks().items()}  # ten cents a working day
        assert direction(small, usd) == found

    def test_the_margins_can_be_set(self) -> None:
        assert direction(weeks(), 26.01, margin=Margin(D(10))) == ""
        assert direction(weeks(), 30.01, margin=Margin(D(10))) == "up"
        assert direction(weeks(), 22.5, margin=Margin(D(1), D("0.1"))) == "up"

    def test_who_is_irregular_is_given_more_room(self) -> None:
        assert direction(weeks(noise=0.5), 29) == ""
        assert direction(weeks(noise=0.02), 29) == "up"

    def test_spikes_before_change_nothing(self) -> None:
        """Of a weekday's eight weeks three can have been anything."""
        spiky = weeks() | {ago(7): D(500), ago(14): D(300), ago(28): D(0)}
        assert unusual.expected(spiky, DAY) == unusual.expected(weeks(), DAY)

    def test_a_week_of_holidays_changes_nothing(self) -> None:
        quiet = weeks() | {ago(days): D(0) for days in range(15, 22)}
        expected = unusual.expected(quiet, DAY)
        assert expected is not None
        assert expected.usd == D("20.00")


class TestSteps:
    def step(self, days_before: int, factor: int) -> dict[date, Decimal]:
        """Everything costs so many times as much since some days ago."""
        return {day: amount * (factor if day >= ago(days_before) else 1) for day, amount in weeks().items()}

    @pytest.mark.parametrize("days_before", [0, 1, 2])
    def test_another_level_is_unusual_for_three_days(self, days_before: int) -> None:
        assert direction(self.step(days_before, 3), 60) == "up"

    @pytest.mark.parametrize("days_before", range(3, 56))
    def test_then_it_is_what_is_expected(self, days_before: int) -> None:
        """At no day after it, while ever more of the weeks before are on the new level, does it look unusual again."""
        assert direction(self.step(days_before, 3), 60) == ""

    @pytest.mark.parametrize("days_before", range(8, 50))
    def test_what_is_expected_then_is_the_new_level(self, days_before: int) -> None:
        expected = unusual.expected(self.step(days_before, 3), DAY)
        assert expected is not None
        assert D(57) <= expected.usd <= D(63)

    @pytest.mark.parametrize("days_before", range(3, 56))
    @pytest.mark.parametrize("usd", [45, 75])
    def test_nor_is_a_quarter_more_or_less(self, days_before: int, usd: int) -> None:
        """The margin is of the new level too."""
        assert direction(self.step(days_before, 3), usd) == ""

    @pytest.mark.parametrize("days_before", range(3, 56))
    def test_nor_does_it_hide_what_is_far_off(self, days_before: int) -> None:
        assert direction(self.step(days_before, 3), 150) == "up"

    @pytest.mark.parametrize("days_before", range(11, 56))
    def test_the_way_back_is_unusual_too(self, days_before: int) -> None:
        assert direction(self.step(days_before, 3), 20) == "down"

    def test_a_slow_rise_is_never_unusual(self) -> None:
        rising = {ago(days): D(20) * D("1.03") ** (56 - days) for days in range(1, 57)}
        assert direction(rising, float(D(20) * D("1.03") ** 56)) == ""


class TestTooLittle:
    def test_history_is_needed(self) -> None:
        assert unusual.expected(weeks(days=20), DAY) is None
        assert unusual.expected(weeks(days=21), DAY) is not None
        assert unusual.expected(weeks(days=20), DAY, least_days=14) is not None

    def test_it_begins_with_the_first_use(self) -> None:
        unused = {ago(days): D(0) for days in range(1, 57)}
        assert unusual.expected(unused, DAY) is None
        assert unusual.expected(unused | {ago(20): D(5)}, DAY) is None
        assert unusual.expected(unused | {ago(21): D(5)}, DAY) is not None

    def test_days_that_are_missing_are_not_zero(self) -> None:
        known = {day: amount for day, amount in weeks().items() if day.toordinal() % 2}
        expected = unusual.expected(known, DAY)
        assert expected is not None
        assert expected.usd == D("20.00")

    def test_who_spends_on_few_days_is_not_told_of_each(self) -> None:
        """$30 once a week, on no weekday in particular."""
        rare = {ago(days): D(30) if days % 8 == 0 else D(0) for days in range(1, 57)}
        assert direction(rare, 0) == ""
        assert direction(rare, 200) == "up"


@given(
    st.dictionaries(st.integers(1, 70), st.decimals(0, 5000, places=2), min_size=21, max_size=70),
    st.decimals(0, 9000, places=2),
)
def test_it_holds_its_margins_whatever_happened(history: dict[int, Decimal], amount: Decimal) -> None:
    expected = unusual.expected({ago(days): usd for days, usd in history.items()}, DAY)
    if expected is not None:
        assert D(0) <= expected.low <= expected.usd <= expected.high
        if expected.direction(amount):
            off = abs(amount - expected.usd)
            assert off > D(1) - D("0.02")
            assert off >= D("0.3") * expected.usd - D("0.02")


def test_a_year_of_accounts_has_its_events_and_hardly_anything_else() -> None:
    """Of the spikes and the days without usage in a year of twelve accounts nearly all are found, and of all other days
    one in two hundred: such on which hosts of the large models were away."""
    events, missed, others, extra = 0, [], 0, []
    for seed in ["lively", *(f"crowd-{number}" for number in range(1, 12))]:
        account, first = Account(seed, seed), date(2025, 11, 28)
        days = [first + timedelta(days=number) for number in range(365)]
        amounts = {day: sum((one.usage for one in account.slices(day)), D(0)) for day in days}
        for day in days[30:]:
            expected = unusual.expected({one: usd for one, usd in amounts.items() if one < day}, day)
            assert expected is not None
            is_event = bool(_spike(seed, day)[0]) or _event_day(seed, "quiet", day, (5, 6))
            found = expected.direction(amounts[day])
            events, others = events + is_event, others + (not is_event)
            if is_event and not found:
                missed.append((seed, day, amounts[day], expected))
            if found and not is_event:
                extra.append((seed, day, amounts[day], expected))
    assert events > 300
    assert len(missed) <= events * 0.02, missed
    assert len(extra) <= others * 0.005, extra
    assert all(amount < expected.usd * D("1.8") for _, _, amount, expected in missed)
