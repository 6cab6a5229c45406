"""What the page of two periods says, in words, figures and links, and in every state."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import date
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from justhtml import JustHTML
from sqlalchemy import select

from grafient.days import Period
from grafient.extensions import db
from grafient.models import Integration, KeyReading, Workspace
from grafient.providers import BilledLine
from grafient.states import DayState, Source
from tests.pages import Pages, lint
from tests.statements import asked
from tests.stored import TODAY, add, ago, cover, put
from tests.syncing import NOON, at, on_sqlite

WEEK, BEFORE = Period(ago(7), ago(1)), Period(ago(14), ago(8))  # 13-19 and 6-12 November 2026
HERE = f"/changes?from={WEEK.first}&to={WEEK.last}"

pytestmark = on_sqlite


@pytest.fixture(autouse=True)
def _noon() -> Iterator[None]:
    with at():
        yield


def words(html: str) -> str:
    """What the page says; between elements there is a space, also where one ends before a comma."""
    return re.sub(r" (?=[.,:)])", "", " ".join(lint(html).to_text().split()))


def integration(app: Flask, days: Iterable[date], *found: BilledLine, label: str = "one", key: str = "") -> int:
    """Of the only account: an integration that had no usage on these days, but for these lines."""
    with app.app_context():
        workspace = db.session.execute(select(Workspace)).scalar_one()
        one = add(workspace, label, last_success_at=NOON)
        cover(one, days, usd=None, state=DayState.NO_USAGE)
        cover(one, {line.day for line in found}, usd=None)
        if found:
            put(one, *found, key=key)
        db.session.commit()
        return one.id


def line(days_ago: int, model: str, usd: str, tokens: int | None = None, host: str = "h") -> BilledLine:
    return BilledLine(
        ago(days_ago), model, "e", host, model, Decimal(usd), prompt_tokens=tokens, completion_tokens=tokens and 0
    )


HAND = (
    line(9, "cheap", "10", 10),
    line(9, "dear", "30", 10),
    line(8, "old", "5", 1),
    line(7, "cheap", "16", 16),
    line(1, "dear", "48", 24),
    line(1, "new", "7", 1),
)
"""As in tests/test_split.py."""


def amounts(html: str, section: str) -> list[list[Decimal]]:
    """The figures of each row of a section's table."""
    (found,) = lint(html).query(f"section[aria-labelledby={section}]")
    rows = found.query("tbody tr") + found.query("tfoot tr")
    return [[Decimal(str(one.attrs["value"])) for one in row.query("data")] for row in rows]


class TestWords:
    def test_it_is_said_in_a_sentence_with_what_changed_the_most(self, app: Flask, pages: Pages) -> None:
        integration(app, [*BEFORE, *WEEK], *HAND)
        html = pages.get(HERE).text
        said = words(html)
        assert "Costs rose by $26.00 (+57.8%), from $45.00 for 6–12 Nov 2026 to $71.00 for 13–19 Nov 2026." in said
        assert "The largest changes by model: dear +$18.00, new +$7.00 (new), cheap +$6.00." in said
        assert lint(html).query("h1")[0].to_text() == "13–19 Nov 2026 compared with 6–12 Nov 2026"
        assert lint(html).query("title")[0].to_text() == "Changes, 13–19 Nov 2026 vs 6–12 Nov 2026 · Grafient"

    def test_the_parts_are_drawn_and_tabled_alike(self, app: Flask, pages: Pages) -> None:
        integration(app, [*BEFORE, *WEEK], *HAND)
        html = pages.get(HERE).text
        (drawn,) = lint(html).query("svg.waterfall")
        assert drawn.attrs["role"] == "img"
        assert drawn.attrs["aria-label"] == (
            "Waterfall: Before $45.00, Volume +$40.00, Price −$24.00, Mix +$8.00, New models +$7.00, "
            "Gone models −$5.00, After $71.00. The table below has the same figures."
        )
        assert [one.to_text() for one in drawn.query("text.waterfall-amount")] == [
            "$45.00", "+$40.00", "−$24.00", "+$8.00", "+$7.00", "−$5.00", "$71.00",
        ]  # fmt: skip
        assert [row[0] for row in amounts(html, "parts")] == [45, 40, -24, 8, 7, -5, 71]

    def test_models_have_a_volume_and_a_price_of_their_own(self, app: Flask, pages: Pages) -> None:
        integration(app, [*BEFORE, *WEEK], *HAND)
        html = pages.get(HERE).text
        rows = amounts(html, "contributions")
        assert rows[0] == [30, 48, 18, 42, -24]
        assert rows[-1] == [45, 71, 26, 48, -24]
        (section,) = lint(html).query("section[aria-labelledby=contributions]")
        texts = [" ".join(row.to_text().split()) for row in section.query("tbody tr")]
        assert texts[0].endswith("10 → 24 tokens $3,000,000.00 → $2,000,000.00")
        assert texts[1].startswith("new new $0.00 $7.00 +$7.00 —")
        assert texts[3].startswith("old gone $5.00 $0.00 −$5.00 −100.0%")

    def test_hosts_and_keys_are_one_click_away(self, app: Flask, pages: Pages) -> None:
        integration(app, [*BEFORE, *WEEK], line(9, "m", "10", 10, "a"), line(2, "m", "4", 10, "b"))
        html = pages.get(f"{HERE}&group=host").text
        assert "The largest changes by host: a −$10.00 (gone), b +$4.00 (new)." in words(html)
        assert amounts(html, "contributions") == [[10, 0, -10], [0, 4, 4], [10, 4, -6]]
        groups = [str(one.attrs["href"]) for one in lint(html).query("nav[aria-label='Costs by'] a")]
        assert parse_qs(urlsplit(groups[2]).query) == {
            "from": ["2026-11-13"], "to": ["2026-11-19"], "group": ["key"],
        }  # fmt: skip
        assert "Unattributed −$6.00" in words(pages.get(groups[2]).text)

    def test_several_integrations_have_a_table_of_their_own(self, app: Flask, pages: Pages) -> None:
        integration(app, [*BEFORE, *WEEK], line(9, "m", "10"), label="Team A")
        assert "By integration" not in words(pages.get(HERE).text)
        integration(app, [*BEFORE, *WEEK], line(2, "m", "3"), label="Team B")
        assert amounts(pages.get(HERE).text, "by-integration") == [[10, 0, -10], [0, 3, 3], [10, 3, -7]]

    def test_amounts_with_the_byok_estimate_say_so(self, app: Flask, pages: Pages) -> None:
        one = BilledLine(ago(2), "m", "e", "h", "m", Decimal(1), byok_usd=Decimal(4))
        integration(app, [*BEFORE, *WEEK], one, line(9, "m", "1"))
        said = words(pages.get(f"{HERE}&byok=1").text)
        assert "Costs with the BYOK estimate rose by $4.00 (+400.0%)" in said
        assert "Part of the BYOK estimate is unknown" in said
        assert "Costs were the same in both periods: $1.00." in words(pages.get(HERE).text)


class TestStates:
    def test_before_anything_is_connected_it_says_how(self, pages: Pages) -> None:
        assert "Nothing is connected yet" in words(pages.get("/changes").text)

    def test_of_nothing_and_nothing_there_is_nothing_to_draw(self, app: Flask, pages: Pages) -> None:
        integration(app, [*BEFORE, *WEEK])
        html = pages.get(HERE).text
        assert "Nothing was billed in either period." in words(html)
        assert "waterfall" not in html
        assert "%" not in words(html)

    def test_the_same_in_both(self, app: Flask, pages: Pages) -> None:
        integration(app, [*BEFORE, *WEEK], line(9, "m", "10", 5), line(2, "m", "10", 10))
        html = pages.get(HERE).text
        assert "Costs were the same in both periods: $10.00." in words(html)
        assert [row[0] for row in amounts(html, "parts")] == [10, 10, -10, 0, 0, 0, 10]

    def test_from_nothing_there_is_no_percentage(self, app: Flask, pages: Pages) -> None:
        integration(app, [*BEFORE, *WEEK], line(2, "m", "10", 10))
        said = words(pages.get(HERE).text)
        assert "Costs rose by $10.00, from $0.00 for 6–12 Nov 2026 to $10.00 for 13–19 Nov 2026." in said
        assert "Total $0.00 $10.00 +$10.00 —" in said

    def test_one_side_without_data_is_not_compared(self, app: Flask, pages: Pages) -> None:
        integration(app, WEEK, line(2, "m", "10", 10))
        html = pages.get(HERE).text
        assert "These periods can't be compared" in words(html)
        assert "13–19 Nov 2026: complete." in words(html)
        assert "6–12 Nov 2026: 0 of 7 days known." in words(html)
        assert "$" not in words(html)
        assert "left out" not in words(html), "it is the only one"

    def test_what_is_left_out_is_named(self, app: Flask, pages: Pages) -> None:
        integration(app, [*BEFORE, *WEEK], line(2, "m", "10", 10))
        integration(app, WEEK, line(2, "m", "1000", 10), label="Late")
        said = words(pages.get(HERE).text)
        assert "1 of 2 integrations compared: those complete in both periods." in said
        assert "Late is left out: 0 of 7 days known before, 7 of 7 days after." in said
        assert "Costs rose by $10.00," in said

    def test_a_period_in_the_future(self, app: Flask, pages: Pages) -> None:
        integration(app, [*BEFORE, *WEEK])
        said = words(pages.get("/changes?from=2026-12-01&to=2026-12-31").text)
        assert "1–31 Dec 2026: 0 of 31 days known. Not all of it is due yet: a day counts from 06:00 UTC" in said
        assert "1–30 Nov 2026: 14 of 30 days known. Not all of it is due yet" in said

    def test_today_is_not_compared_before_it_is_over(self, app: Flask, pages: Pages) -> None:
        integration(app, [*BEFORE, *WEEK])
        said = words(pages.get(f"/changes?from={TODAY}&to={TODAY}").text)
        assert "20 Nov 2026: 0 of 1 day known. Not all of it is due yet" in said

    def test_models_that_cannot_be_split_are_said_to_be(self, app: Flask, pages: Pages) -> None:
        integration(app, [*BEFORE, *WEEK], line(9, "m", "10"), line(2, "m", "12"))
        html = pages.get(HERE).text
        assert [row[0] for row in amounts(html, "parts")] == [10, 0, 0, 0, 0, 0, 2, 12]
        assert "m not split $10.00 $12.00 +$2.00" in words(html)

    def test_where_hosts_are_unknown_it_is_said_why_nothing_is_compared(self, app: Flask, pages: Pages) -> None:
        one = integration(app, [*BEFORE, *WEEK], line(2, "m", "12"))
        with app.app_context():
            found = db.session.get(Integration, one)
            assert found is not None
            cover(found, BEFORE, usd=None, source=Source.ANALYTICS)
            db.session.commit()
        said = words(pages.get(f"{HERE}&host=h").text)
        assert "Only the host h." in said
        assert "Days known from analytics only have no hosts and no API keys; here they count as missing." in said
        assert "6–12 Nov 2026: 0 of 7 days known." in said

    def test_what_a_key_cost_on_days_without_keys_is_unknown_and_not_zero(self, app: Flask, pages: Pages) -> None:
        one = integration(app, [*BEFORE, *WEEK], line(9, "m", "10"), line(2, "m", "12"))
        with app.app_context():
            found = db.session.get(Integration, one)
            assert found is not None
            cover(found, BEFORE, usd=None, source=Source.ANALYTICS)
            put(found, line(3, "m", "5"), key="aa")
            db.session.add(KeyReading(integration_id=one, key_hash="aa", first_day=WEEK.first, last_day=WEEK.last))
            db.session.commit()
        html = pages.get(f"{HERE}&group=key").text
        assert "aa — unknown $5.00 — unknown — unknown" in words(html)
        assert "Unattributed $10.00 $12.00 — unknown — unknown" in words(html)
        assert "it is not known what each API key cost" in words(html)
        assert "largest changes" not in words(html)
        assert amounts(html, "contributions")[-1] == [10, 17, 7]


class TestAddresses:
    @pytest.mark.parametrize(
        ("query", "against"),
        [
            ("from=2026-11-13&to=2026-11-19", "6–12 Nov 2026"),
            ("from=2026-11-13&to=2026-11-19&against=previous", "6–12 Nov 2026"),
            ("from=2026-10-01&to=2026-10-31", "1–30 Sep 2026"),
            ("from=2026-10-01&to=2026-10-30", "1–30 Sep 2026"),
            ("from=2026-02-01&to=2026-02-28", "1–31 Jan 2026"),
            ("from=2026-03-30&to=2026-03-31&against=month", "28 Feb 2026"),
            ("from=2026-11-13&to=2026-11-19&against=month", "13–19 Oct 2026"),
            ("from=2026-02-01&to=2026-02-28&against=month", "1–31 Jan 2026"),
            ("from=2028-02-29&to=2028-02-29&against=year", "28 Feb 2027"),
            ("from=2029-02-01&to=2029-02-28&against=year", "1–29 Feb 2028"),
            ("from=2026-01-10&to=2026-02-20&against=month", "10 Dec 2025 – 20 Jan 2026"),
            ("from=2026-11-13&to=2026-11-19&against=2026-05-01/2026-05-31", "1–31 May 2026"),
            ("from=2026-11-13&to=2026-11-19&against=2026-05-01", "1 May 2026"),
            ("days=7", "6–12 Nov 2026"),
        ],
    )
    def test_what_is_compared_is_in_the_address(self, app: Flask, pages: Pages, query: str, against: str) -> None:
        integration(app, [])
        heading = lint(pages.get(f"/changes?{query}").text).query("h1")[0].to_text()
        assert heading.endswith(f" compared with {against}")

    @pytest.mark.parametrize(
        ("against", "said"),
        [
            ("yesterday", "“against” must be previous, month or year"),
            ("2026-05-01/", ""),
            ("2026-05-01/2026-13-01", "“against” must be"),
            ("2026-05-31/2026-05-01", "must be on or before"),
            ("1999-05-01", "between the years 2000 and 2200"),
            ("2000-01-01/2026-01-01", "up to 7,320 days"),
            ("2026-05-01/2026-05-02/2026-05-03", "“against” must be"),
        ],
    )
    def test_days_that_are_none_get_a_sentence(self, pages: Pages, against: str, said: str) -> None:
        html = pages.get(f"{HERE}&against={against}", 400 if said else 200).text
        assert said in words(html)

    def test_the_forms_lead_to_an_address_that_can_be_shared(self, app: Flask, pages: Pages) -> None:
        integration(app, [*BEFORE, *WEEK], *HAND)
        html = pages.get(f"{HERE}&against=month&q=dear&byok=1").text
        period, compared = lint(html).query("form.inline")
        assert fields(period) == {
            "from": "2026-11-13", "to": "2026-11-19", "against": "month", "q": "dear", "byok": "1",
        }  # fmt: skip
        assert fields(compared) == {
            "from": "2026-11-13", "to": "2026-11-19", "q": "dear", "byok": "1",
            "against_from": "2026-10-13", "against_to": "2026-10-19",
        }  # fmt: skip
        sent = "/changes?from=2026-11-13&to=2026-11-19&q=dear&against_from=2026-11-06&against_to=2026-11-12"
        address = pages.get(sent, 302).headers["Location"]
        assert parse_qs(urlsplit(address).query) == {
            "from": ["2026-11-13"], "to": ["2026-11-19"], "q": ["dear"], "against": ["2026-11-06/2026-11-12"],
        }  # fmt: skip
        said = words(pages.get(address).text)
        assert "Only models containing “dear”." in said
        assert "Costs rose by $18.00 (+60.0%), from $30.00" in said

    def test_filters_narrow_it_and_there_is_a_way_out(self, app: Flask, pages: Pages) -> None:
        one = integration(app, [*BEFORE, *WEEK], line(9, "m", "10", 1, "a"), line(2, "m", "4", 1, "b"), label="Team A")
        two = integration(app, [*BEFORE, *WEEK], line(2, "m", "100", 1, "b"), label="Team B", key="aa")
        for query, change, said in (
            (f"integration={one}", "fell by $6.00", "the integration Team A"),
            (f"integration={two}", "rose by $100.00", "the integration Team B"),
            (f"host=b&integration={one}", "rose by $4.00", "the integration Team A, the host b"),
            (f"key=unattributed&integration={one}", "fell by $6.00", "the integration Team A, unattributed costs"),
        ):
            html = pages.get(f"{HERE}&{query}").text
            assert f"Costs {change}" in words(html)
            assert f"Only {said}." in words(html)
            (out,) = [a for a in lint(html).query("a") if a.to_text() == "Show everything"]
            assert parse_qs(urlsplit(str(out.attrs["href"])).query).keys() == {"from", "to"}

    def test_what_is_someone_elses_is_not_found(self, app: Flask, pages: Pages) -> None:
        one = integration(app, [*BEFORE, *WEEK], *HAND)
        app.extensions["settings"].__dict__["registration"] = "open"
        other = Pages(app)
        other.register("other@example.com", "another fine password")
        other.get(f"{HERE}&integration={one}", 404)
        assert "$" not in words(other.get(HERE).text)
        assert "/login" in Pages(app).get(HERE, 302).headers["Location"]

    def test_the_dashboard_leads_here_with_the_same_figures(self, app: Flask, pages: Pages) -> None:
        integration(app, [*BEFORE, *WEEK], *HAND)
        html = pages.get("/?days=7&q=dear").text
        assert "+60.0%" in words(html)
        (why,) = [str(a.attrs["href"]) for a in lint(html).query("a") if a.to_text() == "Why?"]
        assert "Costs rose by $18.00 (+60.0%), from $30.00 for 6–12 Nov 2026" in words(pages.get(why).text)

    def test_the_dashboard_says_what_makes_up_the_change(self, app: Flask, pages: Pages) -> None:
        """Of the integrations that are complete in both periods: the other has cost $100 since Tuesday."""
        integration(app, [*BEFORE, *WEEK], *HAND)
        integration(app, [ago(3)], line(3, "other", "100", 10), label="two")
        (panel,) = lint(pages.get("/?days=7").text).query("section[aria-labelledby=why]")
        said = words(panel.to_html())
        assert "Costs rose by $26.00 (+57.8%), from $45.00 for 6–12 Nov 2026 to $71.00 for 13–19 Nov 2026." in said
        assert "The largest changes by model: dear +$18.00, new +$7.00 (new), cheap +$6.00." in said
        assert [one.to_text() for one in panel.query("text.waterfall-amount")] == [
            "$45.00", "+$40.00", "−$24.00", "+$8.00", "+$7.00", "−$5.00", "$71.00",
        ]  # fmt: skip
        assert [Decimal(str(one.attrs["value"])) for one in panel.query("table.parts tbody data")] == [
            45, 40, -24, 8, 7, -5, 71,
        ]  # fmt: skip

    def test_by_integration_they_have_their_names_once(self, app: Flask, pages: Pages) -> None:
        one = integration(app, [*BEFORE, *WEEK], *HAND, label="Team A")
        integration(app, [*BEFORE, *WEEK], line(2, "m", "3"), label="Team B")
        html = pages.get(f"{HERE}&group=integration").text
        assert "The largest changes by integration: Team A +$26.00, Team B +$3.00." in words(html)
        assert amounts(html, "contributions") == [[45, 71, 26], [0, 3, 3], [45, 74, 29]]
        assert not lint(html).query("section[aria-labelledby=by-integration]")
        assert f"/integrations/{one}" in [a.attrs["href"] for a in lint(html).query("section a")]

    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ("from=2026-11-19&to=2026-11-13", "“From” must be on or before “To”. The last 30 days are shown."),
            ("from=x&to=2026-11-13", "“From” and “To” must both be days, such as 2026-06-03."),
            ("against=2026-11-19/2026-11-13", "“From” must be on or before “To”. The period before is shown."),
            ("against_from=x&against_to=", "“against” must be previous, month or year, or days"),
        ],
    )
    def test_what_is_wrong_is_said_beside_the_days(self, app: Flask, pages: Pages, query: str, said: str) -> None:
        integration(app, [*BEFORE, *WEEK], *HAND)
        answer = pages.get(f"/changes?{query}", 302 if "_from" in query else 400)
        html = pages.get(answer.headers["Location"], 400).text if answer.status_code == 302 else answer.text
        (alert,) = lint(html).query("form [role=alert]")
        assert said in " ".join(alert.to_text().split())
        (field,) = lint(html).query(f"[aria-describedby='{alert.attrs['id']}']")[-1:]
        assert field.attrs["type"] == "date"

    def test_the_dashboard_does_not_explain_what_it_does_not_compare(self, app: Flask, pages: Pages) -> None:
        integration(app, [*BEFORE, *WEEK], *HAND)
        for query in ("days=7&against=none", "days=30", "days=7&q=nothing"):
            assert "Why it changed" not in pages.get(f"/?{query}").text, query

    def test_every_name_leads_to_its_page(self, app: Flask, pages: Pages) -> None:
        one = integration(app, [*BEFORE, *WEEK], *HAND, key="aa")
        integration(app, [*BEFORE, *WEEK], label="two")

        def leads(query: str, section: str = "contributions") -> list[str]:
            (found,) = lint(pages.get(f"{HERE}{query}").text).query(f"section[aria-labelledby={section}]")
            return [urlsplit(str(a.attrs["href"])).path for a in found.query("tbody th a")]

        assert leads("") == ["/models/dear", "/models/new", "/models/cheap", "/models/old"]
        assert leads("&group=host") == ["/hosts/h"]
        assert leads("&group=key") == ["/keys/aa"]
        assert leads("", "by-integration") == [f"/integrations/{one}", f"/integrations/{one + 1}"]

    def test_hostile_names_are_text(self, app: Flask, pages: Pages) -> None:
        integration(app, [*BEFORE, *WEEK], line(2, "<script>alert(1)</script>", "4", 1), label="<b>x</b>")
        assert "<script>alert" not in pages.get(HERE).text

    def test_asked_again_it_takes_one_statement(self, app: Flask, pages: Pages) -> None:
        integration(app, [*BEFORE, *WEEK], *HAND)
        for most in (10, 1):
            with asked(app) as statements:
                pages.get(HERE)
            assert len(statements) <= most, "\n\n".join(one.text for one in statements)


def fields(form: JustHTML) -> dict[str, str]:
    """What a form sends as it is."""
    return {str(one.attrs["name"]): re.sub(r"\s", "", str(one.attrs["value"])) for one in form.query("input")}
