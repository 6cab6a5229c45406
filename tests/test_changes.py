"""Two periods compared, on lines that are few enough to add up by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal

import pytest
from flask import Flask
from sqlalchemy import delete, select

from grafient.days import Period
from grafient.extensions import db
from grafient.models import ApiKey, Integration, KeyReading, Workspace
from grafient.providers import BilledLine
from grafient.query import Group, Query
from grafient.reports import changes, dashboard
from grafient.reports.changes import MOST_LEFT_OUT, MOST_ROWS, Bar, Changes, Contributions, Difference
from grafient.sandbox import Sandbox
from grafient.split import Kind, Unit
from grafient.states import DayState, Source
from tests.statements import asked, scanned
from tests.stored import TODAY, add, ago, cover, put
from tests.syncing import at, synced

D = Decimal
WEEK = Period(ago(7), ago(1))
BEFORE = WEEK.before


@pytest.fixture(autouse=True)
def _at_noon() -> Iterator[None]:
    with at():
        yield


@pytest.fixture
def one(workspace: Workspace) -> Integration:
    """Two covered weeks, without usage where no line is put."""
    one = add(workspace, "one")
    cover(one, [*BEFORE, *WEEK], usd=None, state=DayState.NO_USAGE)
    return one


def spend(one: Integration, *found: tuple[date, str, str, int | None], host: str = "h", key: str = "") -> None:
    """Lines: day, model, USD, and tokens, of which a tenth is completion."""
    lines = [
        BilledLine(
            day,
            model,
            "e",
            host,
            model,
            D(usd),
            prompt_tokens=None if tokens is None else tokens - tokens // 10,
            completion_tokens=None if tokens is None else tokens // 10,
        )
        for day, model, usd, tokens in found
    ]
    for day in {line.day for line in lines}:
        cover(one, [day], usd=None)
    put(one, *lines, key=key)


def report(workspace: Workspace, by: Group = Group.MODEL, **more: object) -> Changes:
    return changes.report(Query(workspace.id, WEEK, **more), BEFORE, by)  # type: ignore[arg-type]


def rows(found: Contributions | None) -> list[tuple[str, Decimal, Kind]]:
    assert found is not None
    return [(row.name, row.change_usd, row.kind) for row in found.rows]


def of(found: Changes) -> Difference:
    assert found.difference is not None
    return found.difference


def known(found: Changes) -> list[tuple[str, bool, bool]]:
    assert found.by_group is not None
    return [(row.name, row.before_known, row.after_known) for row in found.by_group.rows]


def adds_up(found: Changes) -> bool:
    """Whether everything that says how the difference came about adds up to it."""
    difference, s = of(found), of(found).split
    parts = [s.volume_usd, s.price_usd, s.mix_usd, s.new_usd, s.gone_usd, s.unsplit_usd]
    sums = [sum(parts, D(0))]
    for group in (found.by_group, found.by_integration, difference.by_model):
        assert group is not None
        sums += [sum((row.change_usd for row in group.rows), D(0)) + group.rest.change_usd, group.whole.change_usd]
    return set(sums) == {difference.change_usd} == {difference.after_usd - difference.before_usd}


class TestSplit:
    def test_by_hand(self, one: Integration, workspace: Workspace) -> None:
        """As in tests/test_split.py, from lines: $45 before and $71 after."""
        spend(one, (ago(9), "cheap", "10", 10), (ago(9), "dear", "30", 10), (ago(8), "old", "5", 1))
        spend(one, (ago(7), "cheap", "16", 16), (ago(1), "dear", "48", 24), (ago(1), "new", "7", 1))
        found = report(workspace)
        assert (of(found).before_usd, of(found).after_usd, of(found).change_usd) == (45, 71, 26)
        assert of(found).fraction == D(26) / 45
        assert (of(found).split.volume_usd, of(found).split.price_usd, of(found).split.mix_usd) == (40, -24, 8)
        assert (of(found).split.new_usd, of(found).split.gone_usd, of(found).split.unsplit_usd) == (7, -5, 0)
        assert rows(found.by_group) == [
            ("dear", D(18), Kind.USED), ("new", D(7), Kind.NEW), ("cheap", D(6), Kind.USED), ("old", D(-5), Kind.GONE),
        ]  # fmt: skip
        assert [one.name for one in of(found).by_model.drivers] == ["dear", "new", "cheap"]
        assert found.by_group is not None
        dear = found.by_group.rows[0]
        assert (dear.volume_usd, dear.price_usd, dear.fraction) == (D(42), D(-24), D("0.6"))
        assert dear.model is not None
        assert (dear.model.unit, dear.model.prices_usd) == (Unit.TOKENS, (D(3_000_000), D(2_000_000)))
        assert (found.by_group.whole.volume_usd, found.by_group.whole.price_usd) == (D(48), D(-24))
        assert adds_up(found)

    def test_tokens_of_which_a_part_is_unknown_are_not_counted(self, one: Integration, workspace: Workspace) -> None:
        spend(one, (ago(9), "m", "10", 10), (ago(8), "m", "10", None))
        spend(one, (ago(2), "m", "10", 10))
        found = report(workspace)
        assert (of(found).split.unsplit_usd, of(found).split.volume_usd) == (D(-10), 0)
        assert of(found).bars[-2].part == "unsplit"
        assert adds_up(found)

    def test_with_byok_it_is_of_both(self, one: Integration, workspace: Workspace) -> None:
        put(one, BilledLine(ago(2), "m", "e", "h", "m", D(1), byok_usd=D(4)))
        assert of(report(workspace)).change_usd == 1
        assert of(report(workspace, byok=True)).change_usd == 5
        assert of(report(workspace, byok=True)).byok_complete
        put(one, BilledLine(ago(9), "m", "e", "h", "m", D(1)))
        assert not of(report(workspace, byok=True)).byok_complete

    def test_the_sandbox_adds_up_to_the_last_digit(self, workspace: Workspace, sandbox: Sandbox) -> None:
        synced(workspace, sandbox)
        for by in Group:
            found = changes.report(Query(workspace.id, Period(ago(15), ago(1))), Period(ago(30), ago(16)), by)
            assert of(found).after_usd == sandbox.truth("lively", ago(15), ago(1)).usage
            assert of(found).before_usd == sandbox.truth("lively", ago(30), ago(16)).usage
            assert adds_up(found)
        assert of(found).split.unsplit_usd == 0


class TestWhatIsCompared:
    def test_like_with_like_as_on_the_dashboard(self, one: Integration, workspace: Workspace) -> None:
        new, broken = add(workspace, "new"), add(workspace, "broken")
        spend(one, (ago(9), "m", "10", 10), (ago(2), "m", "12", 10))
        cover(new, WEEK, usd=1000)
        cover(broken, Period(ago(14), ago(3)), usd=500)
        found = report(workspace)
        assert (found.compared, found.asked, of(found).change_usd) == (1, 3, 2)
        left_out = [(out.label, out.before.covered, out.after.covered) for out in found.left_out]
        assert left_out == [("new", 0, 7), ("broken", 7, 5)]
        page = dashboard.report(Query(workspace.id, WEEK))
        change = page.change
        assert change is not None
        assert (change.before_usd, change.fraction) == (of(found).before_usd, of(found).fraction)
        assert (page.compared, page.coverage.integrations) == (found.compared, found.asked)

    def test_each_integration_has_its_row(self, one: Integration, workspace: Workspace) -> None:
        two = add(workspace, "two")
        cover(two, [*BEFORE, *WEEK], usd=3)
        spend(one, (ago(9), "m", "10", 10))
        found = report(workspace)
        assert rows(found.by_integration) == [("one", D(-10), Kind.USED), ("two", D(0), Kind.USED)]
        assert (of(found).before_usd, of(found).after_usd) == (31, 21)
        assert adds_up(found)

    def test_nothing_is_said_where_nothing_is_complete(self, workspace: Workspace) -> None:
        cover(add(workspace, "one"), WEEK)
        found = report(workspace)
        assert (found.connected, found.compared, found.asked) == (True, 0, 1)
        assert found.difference is found.by_group is found.by_integration is None
        assert (found.before.coverage.covered, found.after.coverage.is_complete) == (0, True)

    def test_a_period_that_is_not_over_is_said_to_be(self, one: Integration, workspace: Workspace) -> None:
        found = changes.report(Query(workspace.id, Period(ago(1), TODAY)), Period(ago(3), ago(2)))
        assert (found.before.is_over, found.after.is_over, found.compared) == (True, False, 0)

    def test_without_integrations_there_is_nothing_to_compare(self, workspace: Workspace) -> None:
        found = report(workspace)
        assert (found.connected, found.compared, found.asked) == (False, 0, 0)

    def test_from_nothing_there_is_no_percentage(self, one: Integration, workspace: Workspace) -> None:
        spend(one, (ago(2), "m", "10", 10))
        found = report(workspace)
        assert (of(found).change_usd, of(found).fraction) == (10, None)
        assert of(found).split.new_usd == 10

    def test_of_nothing_and_nothing_there_is_no_waterfall(self, one: Integration, workspace: Workspace) -> None:
        found = report(workspace)
        assert (found.compared, of(found).change_usd, of(found).fraction, of(found).bars) == (1, 0, None, [])

    def test_other_workspaces_are_not_counted(self, one: Integration, workspace: Workspace) -> None:
        spend(one, (ago(2), "m", "10", 10))
        other = Workspace(plan="free")
        db.session.add(other)
        db.session.flush()
        cover(add(other, "theirs"), [*BEFORE, *WEEK], usd=500)
        assert of(report(workspace)).change_usd == 10


class TestHostsAndKeys:
    def test_hosts_that_are_new_or_gone_are_said_to_be(self, one: Integration, workspace: Workspace) -> None:
        spend(one, (ago(9), "m", "10", 10), host="old")
        spend(one, (ago(2), "m", "12", 10), host="new")
        assert rows(report(workspace, Group.HOST).by_group) == [("new", D(12), Kind.NEW), ("old", D(-10), Kind.GONE)]

    def test_where_days_have_no_hosts_none_is_new(self, one: Integration, workspace: Workspace) -> None:
        """The same host served the same model in both weeks, but analytics, which has no hosts, told of the first."""
        spend(one, (ago(9), "m", "10", 10), host="")
        cover(one, [ago(9)], usd=None, source=Source.ANALYTICS)
        spend(one, (ago(2), "m", "12", 10), host="h")
        found = report(workspace, Group.HOST)
        assert rows(found.by_group) == [("h", D(12), Kind.USED), ("", D(-10), Kind.USED)]
        assert known(found) == [("h", False, True), ("", False, True)]
        assert found.by_group is not None
        assert found.by_group.drivers == []
        assert adds_up(found)

    def test_a_key_is_new_if_it_was_read_on_the_days_before(self, one: Integration, workspace: Workspace) -> None:
        spend(one, (ago(2), "m", "12", 10), key="aa")
        db.session.add(KeyReading(integration_id=one.id, key_hash="aa", first_day=ago(7), last_day=ago(1)))
        assert rows(report(workspace, Group.KEY).by_group) == [("aa", D(12), Kind.USED)]
        assert known(report(workspace, Group.KEY)) == [("aa", False, True)]
        db.session.execute(delete(KeyReading))
        db.session.add(KeyReading(integration_id=one.id, key_hash="aa", first_day=BEFORE.first, last_day=ago(1)))
        db.session.execute(select(ApiKey)).scalar_one().name = "Production"
        db.session.flush()
        assert rows(report(workspace, Group.KEY).by_group) == [("Production", D(12), Kind.NEW)]
        assert known(report(workspace, Group.KEY)) == [("Production", True, True)]

    def test_what_is_not_known_of_an_account_that_is_left_out_hides_nothing(
        self, one: Integration, workspace: Workspace
    ) -> None:
        """The other account has days from analytics, and too few days to be compared."""
        spend(one, (ago(9), "m", "10", 10), host="old")
        spend(one, (ago(2), "m", "12", 10), host="new")
        cover(add(workspace, "two"), [ago(9), ago(2)], usd=3, source=Source.ANALYTICS)
        found = report(workspace, Group.HOST)
        assert (found.compared, found.asked) == (1, 2)
        assert rows(found.by_group) == [("new", D(12), Kind.NEW), ("old", D(-10), Kind.GONE)]
        assert known(found) == [("new", True, True), ("old", True, True)]

    def test_one_unread_key_leaves_the_others_comparable(self, one: Integration, workspace: Workspace) -> None:
        spend(one, (ago(2), "m", "12", 10), key="aa")
        spend(one, (ago(3), "m", "5", 10), key="bb")
        db.session.add(KeyReading(integration_id=one.id, key_hash="aa", first_day=BEFORE.first, last_day=ago(1)))
        db.session.flush()
        found = report(workspace, Group.KEY)
        assert known(found) == [("aa", True, True), ("bb", False, False)]
        assert found.by_group is not None
        assert [driver.name for driver in found.by_group.drivers] == ["aa"]
        assert not found.by_group.is_known

    def test_what_no_key_explains_is_neither_new_nor_gone(self, one: Integration, workspace: Workspace) -> None:
        spend(one, (ago(9), "m", "10", 10))
        found = report(workspace, Group.KEY)
        assert rows(found.by_group) == [("Unattributed", D(-10), Kind.USED)]
        assert adds_up(found)


class TestBounds:
    def test_rows_past_the_limit_are_one(self, one: Integration, workspace: Workspace) -> None:
        spend(one, *((ago(2), f"m{n:03}", str(n), n) for n in range(1, MOST_ROWS + 11)))
        found = report(workspace)
        assert found.by_group is not None
        assert (len(found.by_group.rows), found.by_group.others) == (MOST_ROWS, 10)
        assert found.by_group.rest.change_usd == sum(range(1, 11))
        assert adds_up(found)

    def test_of_many_that_are_left_out_some_are_named(self, one: Integration, workspace: Workspace) -> None:
        for number in range(MOST_LEFT_OUT + 5):
            cover(add(workspace, f"more {number}"), WEEK)
        found = report(workspace)
        assert (len(found.left_out), found.asked - found.compared) == (MOST_LEFT_OUT, MOST_LEFT_OUT + 5)

    @pytest.mark.parametrize(("by", "most"), [(Group.MODEL, 6), (Group.HOST, 7), (Group.KEY, 10)])
    def test_statements_are_few_however_much_there_is(
        self, context: Flask, one: Integration, workspace: Workspace, by: Group, most: int
    ) -> None:
        counts, query = [], Query(workspace.id, WEEK)
        for number in (2, 10):
            for n in range(number):
                two = add(workspace, f"{number} {n}")
                cover(two, [*BEFORE, *WEEK], usd=None, state=DayState.NO_USAGE)
                cover(two, [ago(9)], model=f"m{n}", key=f"key {n}")
            db.session.commit()
            with asked(context) as statements:
                assert changes.report(query, BEFORE, by).compared > number
            counts.append(len(statements))
            db.session.rollback()
            assert not scanned(context, statements)
        assert counts == [most, most]


class TestDrivers:
    def test_the_largest_up_or_down_come_first(self) -> None:
        before = {"a": D(10), "b": D(5), "c": D(1), "same": D(100), "gone": D(2)}
        after = {"a": D(9), "b": D(9), "c": D(1), "same": D(100), "new": D(3)}
        found = changes.drivers(before, after)
        assert [(one.id, one.change_usd, one.kind) for one in found] == [
            ("b", 4, Kind.USED), ("new", 3, Kind.NEW), ("gone", -2, Kind.GONE),
        ]  # fmt: skip
        assert [one.id for one in changes.drivers(before, after, most=9)] == ["b", "new", "gone", "a"]
        assert changes.drivers(before, before) == changes.drivers({}, {}) == []


def spans(bars: Sequence[Bar]) -> list[tuple[str, Decimal, Decimal]]:
    return [(bar.part, bar.left, bar.left + bar.width) for bar in bars]


def test_the_waterfall_goes_from_what_it_was_to_what_it_is(one: Integration, workspace: Workspace) -> None:
    """$40 before; twice the tokens, $80; half the price, $40; $10 of a new model, $50. $80 is the full width."""
    spend(one, (ago(9), "m", "40", 10))
    spend(one, (ago(2), "m", "40", 20), (ago(2), "n", "10", 10))
    found = report(workspace)
    assert spans(of(found).bars) == [
        ("before", 0, 50), ("volume", 50, 100), ("price", 50, 100), ("mix", 50, 50), ("new", 50, D("62.5")),
        ("gone", D("62.5"), D("62.5")), ("after", 0, D("62.5")),
    ]  # fmt: skip
    assert [bar.joint for bar in of(found).bars] == [50, 100, 50, 50, D("62.5"), D("62.5"), D("62.5")]
    assert [bar.direction for bar in of(found).bars] == ["total", "up", "down", "up", "up", "up", "total"]
    assert [bar.amount_usd for bar in of(found).bars] == [40, 40, -40, 0, 10, 0, 50]


def test_refunds_take_the_waterfall_below_zero(one: Integration, workspace: Workspace) -> None:
    spend(one, (ago(9), "m", "10", 10))
    spend(one, (ago(2), "n", "-30", 10))
    bars = {bar.part: (bar.left, bar.width) for bar in of(report(workspace)).bars}
    assert bars["before"] == (75, 25)
    assert bars["after"] == (0, 75)
