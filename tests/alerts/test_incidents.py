"""What becomes of incidents: each state is said once, nothing flaps, nothing is said twice."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from grafient.alerts import incidents
from grafient.alerts.findings import Finding, Key
from grafient.models import Incident
from grafient.states import AlertKind, Happened

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def finding(*marks: str, kind: AlertKind = AlertKind.CREDITS, **more: object) -> Finding:
    return Finding(kind, "1", {"label": "one"}, marks, **more)  # type: ignore[arg-type]


def incident(*marks: str, kind: AlertKind = AlertKind.CREDITS, **more: object) -> Incident:
    columns = {"opened_at": NOW - HOUR, "told_at": NOW - HOUR, "facts": {"label": "one"}, **more}
    return Incident(kind=kind, subject="1", marks=list(marks), **columns)


def happened(
    known: Sequence[Incident], found: Sequence[Finding], keeps: Sequence[Key] = (), now: datetime = NOW
) -> list[tuple[str | None, tuple[str, ...], bool]]:
    by_key = {(one.kind, one.subject): one for one in known}
    changes = incidents.step(by_key, found, keeps, [AlertKind.CREDITS], now)
    return [(change.happened, tuple(change.marks), change.is_told) for change in changes]


OPENED, WORSENED, REMINDED, RESOLVED = Happened


class TestOpening:
    def test_what_is_found_is_opened_and_told(self) -> None:
        assert happened([], [finding("usd")]) == [(OPENED, ("usd",), True)]

    def test_what_was_so_before_is_opened_and_not_told(self) -> None:
        assert happened([], [finding("usd", is_news=False)]) == [(OPENED, ("usd",), False)]

    def test_what_is_nearly_so_opens_nothing(self) -> None:
        assert happened([], [finding(stays=("usd",))]) == []

    def test_what_came_and_went_is_said_once(self) -> None:
        assert happened([], [finding("usd", is_over=True)]) == [(OPENED, ("usd",), True), (RESOLVED, (), False)]

    def test_after_it_was_over_it_opens_again(self) -> None:
        assert happened([incident("usd", resolved_at=NOW)], [finding("usd")]) == [(OPENED, ("usd",), True)]

    @pytest.mark.parametrize("more", [{"lasts": HOUR}, {"first_day": NOW.date()}])
    def test_but_not_what_only_happened(self, more: dict[str, object]) -> None:
        assert happened([incident("usd", resolved_at=NOW)], [finding("usd", **more)]) == []

    def test_nor_a_restatement_that_was_told(self) -> None:
        before = incident("run 1", "run 2", kind=AlertKind.RESTATED, resolved_at=NOW)
        assert happened([before], [finding("run 2", kind=AlertKind.RESTATED)]) == []
        assert happened([before], [finding("run 2", "run 3", kind=AlertKind.RESTATED)]) == [
            (OPENED, ("run 2", "run 3"), True)
        ]


class TestGoingOn:
    def test_what_is_as_it_was_says_nothing(self) -> None:
        assert happened([incident("usd")], [finding("usd")]) == []

    def test_other_figures_are_kept_and_say_nothing(self) -> None:
        assert happened([incident("usd", facts={"label": "two"})], [finding("usd")]) == [(None, (), True)]

    def test_a_further_step_is_told(self) -> None:
        assert happened([incident("days")], [finding("days", "usd")]) == [(WORSENED, ("usd",), True)]

    def test_a_step_back_is_not(self) -> None:
        assert happened([incident("days", "usd")], [finding("days")]) == []

    def test_nor_the_same_step_once_more(self) -> None:
        """Below a sum, above it, and below it again, while the account never had enough for some days."""
        assert happened([incident("days", "usd")], [finding("days", "usd")]) == []

    def test_what_is_nearly_so_stays(self) -> None:
        assert happened([incident("usd")], [finding(stays=("usd",))]) == []

    def test_what_is_nearly_so_and_never_was_does_not(self) -> None:
        assert happened([incident("days")], [finding(stays=("usd",))]) == [(RESOLVED, (), True)]


class TestResolving:
    def test_what_is_no_longer_found_is_over(self) -> None:
        assert happened([incident("usd")], []) == [(RESOLVED, (), True)]

    def test_it_is_over_once(self) -> None:
        assert happened([incident("usd", resolved_at=NOW)], []) == []

    def test_unless_nothing_can_be_said_of_it(self) -> None:
        assert happened([incident("usd")], [], [(AlertKind.CREDITS, "1")]) == []

    def test_what_gives_way_to_another_cause_ends_quietly(self) -> None:
        key = AlertKind.CREDITS, "1"
        changes = incidents.step({key: incident("usd")}, [], [], [], NOW, quiet=[key])
        assert [(change.happened, change.is_told) for change in changes] == [(RESOLVED, False)]

    def test_what_happened_ends_quietly(self) -> None:
        assert happened([incident("found", kind=AlertKind.NEW)], []) == [(RESOLVED, (), False)]
        was_told = incident("found", kind=AlertKind.NEW, told_at=NOW - 8 * HOUR)
        found = finding("found", kind=AlertKind.NEW, lasts=8 * HOUR)
        assert happened([was_told], [found]) == [(RESOLVED, (), False)]
        assert happened([was_told], [found], now=NOW - timedelta(seconds=1)) == []


class TestReminding:
    DAY = 24 * HOUR

    def test_once_a_day(self) -> None:
        one = incident("usd", told_at=NOW - self.DAY)
        assert happened([one], [finding("usd")]) == [(REMINDED, (), True)]
        assert happened([one], [finding("usd")], now=NOW - timedelta(seconds=1)) == []

    def test_only_of_what_reminds(self) -> None:
        one = incident("found", told_at=NOW - 9 * self.DAY, kind=AlertKind.DIFFERENCE)
        assert happened([one], [finding("found", kind=AlertKind.DIFFERENCE)]) == []

    def test_not_of_what_somebody_knows(self) -> None:
        one = incident("usd", told_at=NOW - self.DAY, acknowledged_at=NOW - self.DAY)
        assert happened([one], [finding("usd")]) == []
        assert happened([one], [finding("usd", "gone")]) == [(WORSENED, ("gone",), True)]

    def test_not_while_it_is_snoozed(self) -> None:
        one = incident("usd", told_at=NOW - self.DAY, snoozed_until=NOW + HOUR)
        assert happened([one], [finding("usd")]) == []
        assert happened([one], [finding("usd")], now=NOW + HOUR) == [(REMINDED, (), True)]
