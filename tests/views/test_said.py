"""What pages say where accounts differ: one missing, one removed, one read in part; and refunds and comparisons."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextvars import Context
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask

from grafient.extensions import db
from grafient.models import ApiKey, Integration, KeyReading, Workspace
from grafient.providers import BilledLine
from grafient.states import DayState, Source
from tests.pages import Pages, lint
from tests.stored import TODAY, add, ago, cover, put, restate
from tests.syncing import NOON, at

D = Decimal
WEEK, WEEK_BEFORE = range(1, 8), range(8, 15)


@pytest.fixture(autouse=True)
def _noon() -> Iterator[None]:
    with at():
        yield


@pytest.fixture
def account(app: Flask) -> Iterator[Any]:
    """Makes an integration of the only workspace; what is put into it is there once the test asks for a page."""
    with app.app_context():

        def made(label: str = "a", **columns: object) -> Integration:
            return add(db.session.get_one(Workspace, 1), label, **{"last_success_at": NOON, **columns})

        yield made


def days(numbers: range | list[int], but: int = 0) -> list[date]:
    return [ago(number) for number in numbers if number != but]


def line(back: int, usd: str = "1", model: str = "m", host: str = "h", **more: Any) -> BilledLine:
    return BilledLine(ago(back), model, "e", host, model, D(usd), **more)


def texts(page: str, selector: str) -> list[str]:
    found = [" ".join(one.to_text().split()) for one in lint(page).query(selector)]
    return [re.sub(r" (?=[.,:;)])", "", one).replace("$ ", "$") for one in found]


def said(page: str, selector: str = "main") -> str:
    return " | ".join(texts(page, selector))


def asked(pages: Pages, address: str) -> str:
    """A page, asked for as from outside: a request within the test's own context would share what it keeps."""
    db.session.commit()
    return Context().run(pages.get, address).text


def so_far(account: Any) -> None:
    """Today, of which some is known."""
    cover(account, [TODAY], usd=3, state=DayState.PROVISIONAL, source=Source.ANALYTICS)


class TestMonth:
    def test_one_that_failed_last_night_is_in_it_with_what_is_known(self, account: Any, pages: Pages) -> None:
        cover(account("a"), days(range(1, 100)), usd=10)
        cover(account("b"), days(range(2, 100)), usd=100)
        page = asked(pages, "/?period=month")
        assert "Total $1,990.00" in said(page, ".figure")
        headline = said(page, ".headline")
        assert "November so far $1,990.00 At least this much: 18 of 19 days complete" in headline
        assert "Covers 1 of 2 integrations; the other is not complete for this day yet." in headline

    def test_one_that_is_over_says_its_forecast_to_the_cent(self, account: Any, pages: Pages) -> None:
        morning = datetime(2026, 12, 1, 8, tzinfo=UTC)
        one, last = account(), morning.date() - timedelta(days=1)
        cover(one, [last - timedelta(days=back) for back in range(200)], usd=None)
        put(one, *[BilledLine(last - timedelta(days=b), "m", "e", "h", "m", D("10.01")) for b in range(200)])
        with at(morning):
            headline = said(asked(pages, "/"), ".headline")
        assert "November $300.30" in headline
        assert "Forecast for November $300.30 The month is over" in headline

    def test_its_forecast_is_no_less_than_what_is_spent(self, account: Any, pages: Pages) -> None:
        evening = datetime(2026, 11, 30, 20, tzinfo=UTC)
        one, last = account(), date(2026, 11, 29)
        cover(one, [last - timedelta(days=back) for back in range(200)], usd=10)
        cover(one, [date(2026, 11, 30)], usd=500, state=DayState.PROVISIONAL, source=Source.ANALYTICS)
        with at(evening):
            headline = said(asked(pages, "/"), ".headline")
        assert "Forecast for November $790 Spent already, with today so far" in headline

    def test_its_forecast_is_not_spent_where_nothing_is_expected_any_more(self, account: Any, pages: Pages) -> None:
        """Used from Tuesday to Friday alone, and the month ends with a Monday."""
        one, last = account(), date(2026, 11, 28)
        past = [last - timedelta(days=back) for back in range(100)]
        cover(one, past, usd=None)
        put(one, *[BilledLine(day, "m", "e", "h", "m", D(10)) for day in past if day.weekday() in (1, 2, 3, 4)])
        with at(datetime(2026, 11, 29, 12, tzinfo=UTC)):
            headline = said(asked(pages, "/"), ".headline")
        assert "Forecast for November $160 Costs were steady in the last weeks" in headline


class TestUsual:
    def of(self, account: Any, pages: Pages, before: list[str], yesterday: str) -> str:
        one = account()
        cover(one, days(range(1, 100)), usd=None)
        put(one, *[line(1 + 7 * week, usd) for week, usd in enumerate(before, 1)], line(1, yesterday))
        return said(asked(pages, "/"), ".headline")

    def test_a_cent_above_is_said_in_cents(self, account: Any, pages: Pages) -> None:
        before = ["20.40", "20.45", "30.55", "30.55", "25", "25", "25", "25"]
        assert "$30.80 Above the usual $20.45 to $30.55 for" in self.of(account, pages, before, "30.80")

    def test_a_cent_below_is_said_in_cents(self, account: Any, pages: Pages) -> None:
        assert "$20.10 Below the usual $20.40 for" in self.of(account, pages, ["20.40"] * 8, "20.10")

    def test_far_above_is_said_in_dollars(self, account: Any, pages: Pages) -> None:
        assert "$90.00 Above the usual $20 for" in self.of(account, pages, ["20.40"] * 8, "90")

    def test_models_that_moved_the_other_way_are_not_most_of_it(self, account: Any, pages: Pages) -> None:
        one = account()
        cover(one, days(range(1, 100)), usd=None)
        for back, big, small in ((1, "10", "10"), *((1 + 7 * week, "50", "5") for week in range(1, 9))):
            put(one, line(back, big, model="big"), *[line(back, small, model=f"m{number}") for number in range(12)])
        assert "The largest changes since 12 Nov 2026: big −$40.00" in said(asked(pages, "/"), ".headline")

    @pytest.mark.parametrize(("models", "words"), [(40, "The largest changes since"), (4, "Most of the change since")])
    def test_three_of_forty_models_are_not_most_of_it(
        self, account: Any, pages: Pages, models: int, words: str
    ) -> None:
        one = account()
        cover(one, days(range(1, 100)), usd=None)
        for back, usd in ((1, "2"), *((1 + 7 * week, "1") for week in range(1, 9))):
            put(one, *[line(back, usd, model=f"m{number}") for number in range(models)])
        assert words in said(asked(pages, "/"), ".headline")


class TestRemoved:
    def test_what_it_had_read_of_today_is_not_in_the_days_total(self, account: Any, pages: Pages) -> None:
        for one in (account("alive"), account("gone", removed_at=NOON - timedelta(hours=2))):
            cover(one, [ago(1)], usd=10)
            so_far(one)
        page = said(asked(pages, f"/days/{TODAY}"))
        assert "So far $3.00" in page
        assert "not in the total $3.00" in page

    def test_yesterday_is_usual_for_those_whose_costs_it_has(self, account: Any, pages: Pages) -> None:
        """An early sync had settled yesterday when an account was removed at 03:00: it is in the sum, and so it is in
        what is usual."""
        early = NOON - timedelta(hours=9)
        cover(account("alive"), days(range(1, 100)), usd=10)
        cover(account("gone", removed_at=early), days(range(1, 100)), usd=100)
        headline = said(asked(pages, "/"), ".headline")
        assert "Yesterday, 19 Nov 2026 $110.00 Usual for a Thursday ($110)." in headline
        day = said(asked(pages, f"/days/{ago(1)}"))
        assert "Total $110.00" in day
        assert "$110.00 This day is within the usual range." in day

    def test_a_change_says_that_it_leaves_one_out(self, account: Any, pages: Pages) -> None:
        cover(account("alive"), days(range(1, 61)), usd=10)
        cover(account("gone", removed_at=NOON - timedelta(days=10)), days(range(11, 61)), usd=100)
        page = asked(pages, "/?days=7&view=cumulative")
        assert "vs $70.00 for 6–12 Nov 2026" in said(page, ".figure")
        assert "For 1 of 2 integrations: those complete in both periods" in said(page, ".figure")
        rows = said(asked(pages, "/breakdown?days=7"))
        assert "Change is against 6–12 Nov 2026, for 1 of 2 integrations; it is" in rows
        assert texts(page, "table.days tbody tr")[-1] == "19 Nov 2026 $70.00 Final $70.00", "the line is of the same"


class TestPartly:
    def test_today_is_so_far_also_where_one_was_not_read_yet(self, account: Any, pages: Pages) -> None:
        a, b = account("a"), account("b")
        for one in (a, b):
            cover(one, days(range(1, 100)), usd=10)
        so_far(a)
        page = said(asked(pages, f"/days/{TODAY}"))
        assert "So far $3.00 20 Nov 2026, provisional, as of 20 Nov 2026, 12:00 UTC, 1 of 2 integrations" in page
        assert "b has no data for this day, so what is known is of the others." in page
        assert "Total" not in page
        assert texts(asked(pages, "/"), "table.days tbody tr")[-1] == "20 Nov 2026 $3.00 Incomplete (1 of 2) $3.00"

    def test_of_three_one_settled_one_so_far_and_one_missing(self, account: Any, pages: Pages) -> None:
        a, b, c = account("a"), account("b"), account("c")
        for one in (a, b, c):
            cover(one, days(range(2, 20)), usd=10)
        cover(a, [ago(1)], usd=10)
        cover(b, [ago(1)], usd=7, state=DayState.PROVISIONAL, source=Source.ANALYTICS)
        page = said(asked(pages, f"/days/{ago(1)}"))
        assert "So far $17.00 19 Nov 2026, provisional, as of 20 Nov 2026, 12:00 UTC, 2 of 3 integrations" in page
        assert "c has no data for this day, so what is known is of the others." in page

    def test_no_usage_of_one_is_no_known_zero_of_both(self, account: Any, pages: Pages) -> None:
        a, b = account("a"), account("b")
        for one in (a, b):
            cover(one, days(range(1, 31)), usd=10, model=f"m{one.label}")
        cover(a, [TODAY], usd=None, state=DayState.PROVISIONAL, source=Source.ANALYTICS)
        page = said(asked(pages, f"/days/{TODAY}"))
        assert "The provider reported no usage so far for the integrations that have data." in page
        assert "known zero" not in page
        assert "$0.00" not in texts(asked(pages, "/models/mb"), "table.days tbody tr")[-1]

    def test_a_day_that_is_settled_in_one_is_partly_in_totals(self, account: Any, pages: Pages) -> None:
        a, b = account("a"), account("b")
        cover(a, days(range(1, 20)), usd=10)
        cover(b, days(range(2, 20)), usd=10)
        cover(b, [ago(1)], usd=7, state=DayState.PROVISIONAL, source=Source.ANALYTICS)
        page = said(asked(pages, f"/days/{ago(1)}"))
        assert "So far $17.00" in page
        assert "Provisional: known so far; only what is settled is in totals." in page
        figures = said(asked(pages, f"/?from={ago(1)}&to={ago(1)}"), ".figure")
        assert "Total $10.00" in figures
        assert "1 of 2 integrations; b has no complete day" in figures

    def test_today_is_not_zero_beside_a_comparison_that_has_it(self, account: Any, pages: Pages) -> None:
        one = account()
        cover(one, days(range(1, 91)), usd=10)
        so_far(one)
        address = f"/?from={ago(80)}&to={ago(60)}&against={ago(20)}/{TODAY}"
        assert "so far" not in said(asked(pages, address), "dl.lines").lower()

    def test_a_model_of_an_account_that_is_missing_is_unknown(self, account: Any, pages: Pages) -> None:
        cover(account("a"), days(range(1, 31)), usd=10, model="ma")
        cover(account("b"), days(range(2, 31)), usd=20, model="mb")
        here = "/breakdown{}?days=7&group=model&columns=day"
        rows = list(csv.DictReader(io.StringIO(asked(pages, here.format(".csv")))))
        assert {row["model"]: row[str(ago(1))] for row in rows} == {"ma": "10", "mb": ""}
        assert [row["total"] for row in rows] == ["120", "70"], "what is missing is told by the coverage, of all alike"
        chart = texts(asked(pages, "/?days=7"), "table.days tbody tr")[-1]
        assert chart == "19 Nov 2026 $10.00 Incomplete (1 of 2) — $10.00"
        week = texts(asked(pages, "/?days=7&by=week"), "table.days tbody tr")[-1]
        assert week.startswith("16–19 Nov 2026 $100.00 Incomplete")
        assert "≥" not in week
        by_week = said(asked(pages, "/breakdown?days=7&group=model&columns=week"), "table.pivot")
        assert "≥" not in by_week
        assert "unknown" not in by_week
        assert "$0.00" not in texts(asked(pages, "/models/mb?days=7"), "table.days tbody tr")[-1]

    def test_a_price_is_not_compared_over_a_missing_day(self, account: Any, pages: Pages) -> None:
        def marked(but: int) -> str:
            one = account(f"without {but}")
            numbers = [number for number in range(1, 31) if number != but]
            cover(one, days(numbers), usd=None)
            tokens = {"prompt_tokens": 100, "completion_tokens": 100}
            put(one, *[line(n, "10" if n > 9 else "30", f"m{but}", **tokens) for n in numbers])
            return said(asked(pages, f"/models/m{but}?days=30&integration={one.id}"), "table.by-step tbody tr")

        assert "from $" in marked(0)
        assert "from $" not in marked(6)

    def test_a_week_is_the_least_it_can_be_where_a_days_tokens_are_unknown(self, account: Any, pages: Pages) -> None:
        one = account()
        counts = {"requests": 1, "prompt_tokens": 100, "completion_tokens": 0}
        cover(one, days(range(1, 31)), usd=10, model="ma", **counts)
        cover(one, [ago(2)], usd=10, model="unknown")
        week = texts(asked(pages, "/?days=30&measure=tokens&by=week"), "table.days tbody tr")[-1]
        assert week.startswith("16–19 Nov 2026 ≥ 300 Final 400")
        line_ends = said(asked(pages, "/?days=30&measure=tokens&view=cumulative"), ".chart-panel > p.muted")
        assert "The line ends before 18 Nov 2026, of which not all is known." in line_ends

    def test_a_host_is_the_least_it_can_be_where_days_name_none(self, account: Any, pages: Pages) -> None:
        one = account()
        cover(one, days(range(1, 4)), usd=None)
        cover(one, days(range(4, 31)), usd=None, source=Source.ANALYTICS)
        put(one, *[line(n, "10") for n in range(1, 4)], *[line(n, "10", host="") for n in range(4, 31)])
        week = texts(asked(pages, "/?days=30&group=host&by=week"), "table.days tbody tr")[-1]
        assert week == "16–19 Nov 2026 $40.00 Final $10.00 ≥ $30.00"
        for address, table in (("/breakdown?group=host", "table.breakdown"), ("/?group=host", "table.models")):
            rows = texts(asked(pages, address), f"{table} tbody tr")
            assert any(row.startswith("h ≥ $30.00") for row in rows)
            assert any(row.startswith("Host unknown $270.00") for row in rows)

    def test_what_may_help_is_said_where_one_of_several_was_not_read(self, account: Any, pages: Pages) -> None:
        a, b = account("a"), account("b")
        cover(a, [ago(2)], usd=10)
        cover(b, [ago(1)], usd=10)
        page = said(asked(pages, f"/changes?from={ago(1)}&to={ago(1)}"))
        assert "19 Nov 2026: complete, 1 of 2 integrations." in page
        assert "Or check your integrations: one may need a new key, or a Force Sync." in page


class TestKeys:
    def test_one_of_a_complete_account_had_nothing_where_another_account_is_missing(
        self, account: Any, pages: Pages
    ) -> None:
        a, b = account("a"), account("b")
        cover(a, days(WEEK), usd=None)
        cover(b, days(range(2, 8)), usd=10)
        self.keyed(a, "k1", 1, 7)
        put(a, *[line(n, "7") for n in range(2, 8)], key="k1")
        put(a, line(1, "1"))
        chart = texts(asked(pages, "/?days=7&group=key"), "table.days tbody tr")[-1]
        assert chart.startswith("19 Nov 2026 $1.00 Incomplete (1 of 2)")
        assert chart.endswith("$0.00")
        row = texts(asked(pages, "/breakdown?days=7&group=key&columns=day"), "table.pivot tbody tr")[1]
        assert row.startswith("k1 $42.00")
        assert "unknown" not in row
        assert "k1 $42.00" in said(asked(pages, "/breakdown?days=7&group=key"), "table.breakdown")

    def keyed(self, one: Integration, key: str, last: int, first: int) -> None:
        db.session.add(ApiKey(integration_id=one.id, key_hash=key, name=key, disabled=False, read_at=NOON))
        db.session.add(KeyReading(integration_id=one.id, key_hash=key, first_day=ago(first), last_day=ago(last)))
        db.session.flush()

    def four_of_seven(self, account: Any) -> None:
        one = account()
        cover(one, days(WEEK), usd=None)
        self.keyed(one, "k1", 4, 7)
        put(one, *[line(n, "10") for n in range(1, 4)])
        put(one, *[line(n, "10") for n in range(4, 8)], key="k1")

    def test_one_that_was_not_read_every_day_has_at_least_that(self, account: Any, pages: Pages) -> None:
        self.four_of_seven(account)
        assert texts(asked(pages, "/breakdown?days=7&group=key"), "table.breakdown tbody tr")[0].startswith("k1 ≥ $40")
        assert "k1 ≥ $40.00" in said(asked(pages, "/?days=7&group=key"), "table.models")

    def test_the_ledger_has_the_days_that_the_pages_count(self, account: Any, pages: Pages) -> None:
        one = account()
        cover(one, days(WEEK), usd=None)
        self.keyed(one, "k1", 4, 7)
        put(one, *[line(n, "10") for n in WEEK])
        assert "Total $40.00" in said(asked(pages, "/breakdown?days=7&key=unattributed"), "tfoot")
        rows = list(csv.DictReader(io.StringIO(asked(pages, "/ledger.csv?days=7&key=unattributed"))))
        assert sum(D(row["usage_usd"]) for row in rows) == 40


class TestCompared:
    def test_with_later_days(self, account: Any, pages: Pages) -> None:
        cover(account(), days(range(1, 91)), usd=10)
        here = f"?from={ago(80)}&to={ago(61)}&against={ago(20)}/{ago(1)}"
        assert said(asked(pages, f"/breakdown{here}"), "tfoot").startswith("Total $200.00 100.0% $0.00 0.0%")

    @pytest.mark.parametrize(
        ("against", "words"),
        [
            ("previous", "the period before each row"),
            ("month", "a month before each row"),
            ("year", "a year before each row"),
            (f"{ago(60)}/{ago(31)}", "21 Sep – 20 Oct 2026"),
        ],
    )
    def test_what_each_row_is_compared_with(self, account: Any, pages: Pages, against: str, words: str) -> None:
        cover(account(), days(range(1, 420)), usd=10)
        page = said(asked(pages, f"/breakdown?days=30&group=week&against={against}"))
        assert f"Change is against {words}; it is" in page

    def test_shares_of_found_rows_are_of_all(self, account: Any, pages: Pages) -> None:
        one = account()
        cover(one, days(WEEK), usd=10, model="x")
        cover(one, days(WEEK), usd=30, model="y")
        page = asked(pages, "/breakdown?days=7&find=x")
        assert texts(page, "table.breakdown tbody tr")[0].startswith("x $70.00 25.0%")
        assert said(page, "tfoot").startswith("Total $70.00 25.0%")

    def test_one_that_cost_nothing_has_no_share_but_a_known_one(self, account: Any, pages: Pages) -> None:
        cover(account("a"), days(range(1, 31)), usd=10)
        cover(account("b"), days(range(1, 31)), usd=None, state=DayState.NO_USAGE)
        page = asked(pages, "/breakdown?days=7&group=integration")
        assert texts(page, "table.breakdown tbody tr")[1].startswith("b $0.00 0.0%")

    def test_a_model_that_was_used_for_nothing_is_not_new(self, account: Any, pages: Pages) -> None:
        one = account()
        cover(one, days(range(1, 31)), usd=None)
        free = {"requests": 5, "prompt_tokens": 0, "completion_tokens": 0}
        put(one, *[line(n, "0", **free) for n in WEEK_BEFORE], *[line(n, **free | {"prompt_tokens": 9}) for n in WEEK])
        page = said(asked(pages, f"/changes?from={ago(7)}&to={ago(1)}"))
        assert "(new)" not in page
        assert "New models +" not in page


class TestRefunds:
    def test_amounts_that_refunds_bring_to_nothing_are_shown(self, account: Any, pages: Pages) -> None:
        one = account()
        cover(one, days(range(1, 61)), usd=None)
        for back in range(1, 61):
            put(one, line(back, "5", "m1"), line(back, "-5", "m2"))
        page = said(asked(pages, "/?days=30"))
        assert "charged nothing for it" not in page
        assert "Cost per day and model" in page
        assert "Nothing was billed" not in said(asked(pages, f"/changes?from={ago(7)}&to={ago(1)}"))

    def test_refunds_alone_are_not_nothing(self, account: Any, pages: Pages) -> None:
        cover(account(), days(range(1, 20)), usd=-6)
        figures = said(asked(pages, "/?days=7"), ".figure")
        assert "Total −$42.00" in figures
        assert "Refunds were larger than costs in 13–19 Nov 2026." in figures


def test_yesterday_is_the_day_before_today_also_at_night(account: Any, pages: Pages) -> None:
    one = account()
    cover(one, days(range(1, 100)), usd=10)
    cover(one, [TODAY], usd=30)
    with at(datetime(2026, 11, 21, 3, tzinfo=UTC)):
        page = asked(pages, "/?period=yesterday")
    assert "Yesterday: $30.00" in said(page, ".headline")
    assert "Total $30.00" in said(page, ".figure")


@pytest.mark.parametrize("known", [False, True])
def test_yesterday_is_nobodys_fault_before_it_is_due(account: Any, pages: Pages, known: bool) -> None:
    one = account()
    cover(one, days(range(1, 100)), usd=10)
    if known:
        cover(one, [TODAY], usd=30, state=DayState.PROVISIONAL, source=Source.ANALYTICS)
    with at(datetime(2026, 11, 21, 3, tzinfo=UTC)):
        found = [
            said(asked(pages, path))
            for path in (
                "/?period=yesterday",
                "/breakdown?period=yesterday",
                "/changes?period=yesterday",
                "/days/2026-11-20",
            )
        ]
    for page in found:
        assert "may need a new key" not in page
        assert "has not ended" not in page
        assert "There is no data" not in page
        assert "Nothing was billed" not in page
    assert "Not all of it is due yet: a day counts from 06:00 UTC of the next day." in found[2]
    assert ("$30.00" in found[0]) is known


def test_a_page_that_renews_itself_has_not_been_seen_by_anybody(account: Any, pages: Pages) -> None:
    one = account("a", last_restated_at=NOON)
    cover(one, days(range(1, 10)), usd=10)
    cover(one, [ago(3)], usd=None, state=DayState.RESTATED)
    restate(one, ago(3), NOON, "4", "10")
    changed = "1 day changed since you last looked"
    assert changed in said(asked(pages, "/"))
    Context().run(pages.client.get, f"/integrations/{one.id}", headers={"HX-Request": "true"})
    assert changed in said(asked(pages, "/"))
    asked(pages, f"/integrations/{one.id}")
    assert changed not in said(asked(pages, "/"))


def test_of_two_that_changed_once_each_is_so_now(account: Any, pages: Pages) -> None:
    for hours, label in enumerate("ab"):
        one = account(label, last_restated_at=NOON)
        cover(one, days(range(1, 10)), usd=10)
        cover(one, [ago(3)], usd=None, state=DayState.RESTATED)
        restate(one, ago(3), NOON - timedelta(hours=hours), "4", "10")
    assert said(asked(pages, f"/days/{ago(3)}"), ".restated").count("was $4.00, now $10.00") == 2


def test_the_reason_of_one_is_not_said_of_others(account: Any, pages: Pages) -> None:
    cover(account("a", no_history="This plan has no analytics."), days(range(1, 31)), usd=10)
    alone = said(asked(pages, "/?days=7"), "dl.lines")
    assert "7 have nothing to compare with: This plan has no analytics." in alone
    cover(account("b"), days(range(1, 31)), usd=10)
    both = said(asked(pages, "/?days=7"), "dl.lines")
    assert "14 have nothing to compare with: analytics can't be read, or has not been asked yet." in both
