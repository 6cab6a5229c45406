from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from flask import Flask, render_template_string
from hypothesis import given
from hypothesis import strategies as st

from grafient import tables
from grafient.days import Period
from grafient.query import KeyChoice
from grafient.restatements import Change
from grafient.views import formats
from grafient.views.formats import (
    by_month,
    clock,
    compact,
    day,
    days,
    differences,
    duration,
    exact_parts,
    iso,
    key_names,
    moment,
    month,
    percent,
    period,
    plain,
    usd,
    usd_exact,
    usd_parts,
    usd_rate,
    weekday,
    whole,
)

NOON = datetime(2026, 6, 3, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "—"),
        ("0", "$0.00"),
        ("2.8", "$2.80"),
        ("1234.567", "$1,234.57"),
        ("0.946", "$0.946"),
        ("0.023", "$0.0230"),
        ("0.00031249", "$0.000312"),
        ("-0.5", "−$0.500"),
    ],
)
def test_a_price_has_three_digits_that_say_something(amount: str | None, text: str) -> None:
    assert usd_rate(None if amount is None else Decimal(amount)) == text


def test_days_of_the_week_have_names() -> None:
    assert [weekday(date(2026, 11, number)) for number in (16, 22)] == ["Monday", "Sunday"]


amounts = st.decimals(min_value=Decimal("-1e15"), max_value=Decimal("1e15"), places=12)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "—"),
        ("0", "$0.00"),
        ("0E-12", "$0.00"),
        ("-0", "$0.00"),
        ("1234.56", "$1,234.56"),
        ("1234567.891", "$1,234,567.89"),
        ("-3.2", "−$3.20"),
        ("12", "$12.00"),
        ("0.01", "$0.01"),
        ("0.015", "$0.02"),
        ("2.675", "$2.68"),
        ("0.0043", "$0.0043"),
        ("-0.0043", "−$0.0043"),
        ("0.004312", "$0.0043"),
        ("0.004", "$0.004"),
        ("0.00999", "$0.01"),
        ("0.000000000001", "$0.000000000001"),
        ("1E-12", "$0.000000000001"),
        ("0.999", "$1.00"),
        ("999.995", "$1,000.00"),
        ("1E+6", "$1,000,000.00"),
        ("123456789012345678901234567890.123", "$123,456,789,012,345,678,901,234,567,890.12"),
    ],
)
def test_usd(amount, text):
    assert usd(amount and Decimal(amount)) == text


def test_usd_of_a_known_nothing():
    assert usd(0) == "$0.00"


def test_usd_parts():
    assert usd_parts(Decimal("1234.5")) == ("$1,234", ".50")
    assert usd_parts(Decimal("-1234.5")) == ("−$1,234", ".50")
    assert usd_parts(Decimal("0.0043")) == ("$0", ".0043")
    assert usd_parts(Decimal("0.996")) == ("$1", ".00")
    assert usd_parts(None) == ("—", "")


@pytest.mark.parametrize("wrong", [1.5, "1.5", True])
def test_what_is_no_exact_figure_is_refused(wrong):
    for write in (usd, usd_parts, usd_exact, plain, whole, compact, percent):
        with pytest.raises(TypeError):
            write(wrong)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "—"),
        ("0", "$0.00"),
        ("0.000000000000", "$0.00"),
        ("12.5", "$12.50"),
        ("1234.567800000000", "$1,234.5678"),
        ("1E+3", "$1,000.00"),
        ("1E-12", "$0.000000000001"),
        ("-0.25", "−$0.25"),
        (
            "12345678901234567890123456789.000000000001",
            "$12,345,678,901,234,567,890,123,456,789.000000000001",
        ),
    ],
)
def test_usd_exact(amount, text):
    assert usd_exact(amount and Decimal(amount)) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (Decimal("0E-12"), "0"),
        (Decimal("-0.0"), "0"),
        (Decimal("12.340000000000"), "12.34"),
        (Decimal("100"), "100"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E-12"), "0.000000000001"),
        (Decimal("-5.10"), "-5.1"),
        (7, "7"),
    ],
)
def test_plain(number, text):
    assert plain(number) == text


@given(amounts)
def test_plain_and_exact_keep_every_digit(amount):
    assert Decimal(plain(amount)) == amount
    assert Decimal(usd_exact(amount).replace("$", "").replace(",", "").replace("−", "-")) == amount


@pytest.mark.parametrize(
    ("amount", "decimals", "signed", "parts"),
    [
        (None, 6, True, ("—", "")),
        ("1.5", 2, False, ("$1.50", "")),
        ("1.5", 6, False, ("$1.50", "0000")),
        ("0.123456789", 4, False, ("$0.12", "3456789")),
        ("7", 0, True, ("+$7.00", "")),
        ("-0.125", 2, True, ("−$0.12", "5")),
        ("0", 3, True, ("$0.00", "0")),
    ],
)
def test_exact_digits_come_in_two_parts_and_line_up(amount, decimals, signed, parts):
    value = amount and Decimal(amount)
    assert exact_parts(value, decimals, signed) == parts
    assert usd_exact(value, decimals, signed) == "".join(parts)


@pytest.mark.parametrize(("amount", "text"), [("0.12", "+$0.12"), ("-0.12", "−$0.12"), ("0", "$0.00"), (None, "—")])
def test_a_change_says_which_way(amount, text):
    assert usd(amount and Decimal(amount), signed=True) == text


@given(amounts)
def test_an_amount_is_never_written_as_nothing(amount):
    shown = Decimal(usd(amount).replace("$", "").replace(",", "").replace("−", "-"))
    assert bool(shown) == bool(amount)
    assert abs(shown - amount) <= Decimal("0.005")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "—"),
        (0, "0"),
        (999, "999"),
        (1234567, "1,234,567"),
        (-1234, "−1,234"),
        (Decimal("1234567"), "1,234,567"),
        (2**63, "9,223,372,036,854,775,808"),
    ],
)
def test_whole(number, text):
    assert whole(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "—"),
        (0, "0"),
        (9999, "9,999"),
        (10000, "10.0K"),
        (999949, "999.9K"),
        (999950, "1.0M"),
        (15000000, "15.0M"),
        (Decimal("15000000"), "15.0M"),
        (1_250_000_000, "1.3B"),
        (999_999_999_999, "1.0T"),
        (2**63, "9,223,372.0T"),
        (-15000000, "−15.0M"),
        (999_999_999_999_999, "1,000.0T"),
    ],
)
def test_compact(number, text):
    assert compact(number) == text


@pytest.mark.parametrize(
    ("fraction", "signed", "text"),
    [
        (None, False, "—"),
        (None, True, "—"),
        ("0", False, "0.0%"),
        ("0", True, "0.0%"),
        ("0.124", False, "12.4%"),
        ("0.124", True, "+12.4%"),
        ("-0.124", True, "−12.4%"),
        ("-0.124", False, "−12.4%"),
        ("1", False, "100.0%"),
        ("0.9994", False, "99.9%"),
        ("0.9999", False, ">99.9%"),
        ("0.9999", True, "+100.0%"),
        ("0.0004", False, "<0.1%"),
        ("-0.0004", True, "−<0.1%"),
        ("0.0005", False, "0.1%"),
        ("123.456", True, "+12,345.6%"),
        ("0.3333333333333333333333333333", False, "33.3%"),
    ],
)
def test_percent(fraction, signed, text):
    assert percent(fraction and Decimal(fraction), signed) == text.replace(" ", "\N{NO-BREAK SPACE}")


def test_day():
    assert day(date(2026, 6, 3)) == "3 Jun 2026"
    assert day(date(2024, 2, 29)) == "29 Feb 2024"
    assert day(None) == "—"


@pytest.mark.parametrize(
    ("first", "last", "text"),
    [
        (date(2026, 6, 3), date(2026, 6, 3), "3 Jun 2026"),
        (date(2026, 6, 1), date(2026, 6, 30), "1–30 Jun 2026"),
        (date(2026, 5, 30), date(2026, 6, 28), "30 May – 28 Jun 2026"),
        (date(2025, 12, 30), date(2026, 1, 28), "30 Dec 2025 – 28 Jan 2026"),
        (date(2025, 6, 1), date(2026, 6, 1), "1 Jun 2025 – 1 Jun 2026"),
    ],
)
def test_period(first, last, text):
    assert period(Period(first, last)) == days(first, last) == text


def test_months():
    assert month(date(2026, 9, 30)) == "September 2026"
    assert month(date(2026, 9, 30), short=True) == "Sep 2026"


def test_days_by_month_stand_below_their_number():
    entries = [(date(2026, 1, 30) + timedelta(days=n), "final") for n in range(31)]
    (january, first), (february, second), (march, third) = by_month(entries)
    assert (january, february, march) == (date(2026, 1, 1), date(2026, 2, 1), date(2026, 3, 1))
    assert [cell and cell[0].day for cell in first] == [None] * 29 + [30, 31]
    assert [cell and cell[0].day for cell in second] == [*range(1, 29), None, None, None]
    assert [cell and cell[0].day for cell in third] == [1, *[None] * 30]


def test_keys_are_called_by_name_and_told_apart():
    keys = [
        KeyChoice("a" * 64, "Production", False),
        KeyChoice("b" * 64, "Staging", False),
        KeyChoice("c" * 64, "  ", False),
        KeyChoice("d" * 64, "Staging", True),
        KeyChoice("a" * 64, "Production", True),
    ]
    assert list(key_names(keys).items()) == [
        ("a" * 64, "Production"),
        ("b" * 64, "Staging bbbbbbbb"),
        ("c" * 64, "Unnamed cccccccc"),
        ("d" * 64, "Staging dddddddd (deleted)"),
        ("", "Unattributed"),
    ]


def test_what_else_differs_in_a_line_is_said_in_words():
    before = {"model": "a/b", "usage_usd": "1.0", "byok_usd": "0E-12", "requests": 4, "cached_tokens": None}
    after = {"model": "a/b", "usage_usd": "2.0", "byok_usd": "0.500000000000", "requests": 1500, "cached_tokens": 7}
    change = Change(date(2026, 6, 3), "a/b", "a/b", "", "", 1, NOON, Decimal(1), Decimal(2), before, after)
    assert differences(change) == ["BYOK $0.00 → $0.50", "Requests 4 → 1,500", "Cached — → 7"]
    assert differences(replace(change, after=before)) == []


def test_days_need_both_ends():
    assert days(None, date(2026, 6, 3)) == days(date(2026, 6, 3), None) == "—"


def test_moments_are_written_in_utc():
    at = datetime(2026, 6, 3, 6, 0, 59, tzinfo=UTC)
    assert moment(at) == "3 Jun 2026, 06:00 UTC"
    assert clock(at) == "06:00 UTC"
    assert iso(at) == "2026-06-03T06:00:59Z"
    elsewhere = datetime(2026, 6, 3, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert moment(elsewhere) == "2 Jun 2026, 23:30 UTC"
    assert iso(elsewhere) == "2026-06-02T23:30:00Z"
    assert moment(None) == "—"


def test_a_moment_without_a_zone_is_refused():
    for write in (moment, clock, iso):
        with pytest.raises(TypeError):
            write(datetime(2026, 6, 3, 6, 0))  # noqa: DTZ001


def test_iso_of_a_day():
    assert iso(date(2026, 6, 3)) == "2026-06-03"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.84, "0.8 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (125, "2 min 5 s"),
        (-3, "0.0 s"),
    ],
)
def test_duration(seconds, text):
    first = datetime(2026, 6, 3, 6, tzinfo=UTC)
    assert duration(first, first + timedelta(seconds=seconds)).replace("\N{NO-BREAK SPACE}", " ") == text


def test_a_duration_needs_both_ends():
    first = datetime(2026, 6, 3, 6, tzinfo=UTC)
    assert duration(first, None) == duration(None, first) == "—"


def test_templates_have_every_filter():
    app = Flask("test")
    formats.register(app)
    with app.app_context():
        html = render_template_string(
            "{{ n|usd }} {{ n|usd_parts|join }} {{ n|usd_exact }} {{ n|plain }} {{ n|whole }} "
            "{{ n|compact }} {{ n|percent(signed=true) }}; {{ d|day }}; {{ p|period }}; {{ t|moment }}; "
            "{{ t|iso }}; {{ t|duration(t) }}; {{ n|usd(true) }} {{ n|exact_parts(3)|join('|') }} "
            "{{ d|month }}; {{ t|clock }}; {{ [(d, 'final')]|by_month|length }} {{ 'a/b'|breakable }}",
            n=Decimal("2.5"),
            d=date(2026, 6, 3),
            p=Period(date(2026, 6, 1), date(2026, 6, 2)),
            t=datetime(2026, 6, 3, 6, tzinfo=UTC),
        )
    assert html.replace("\N{NO-BREAK SPACE}", " ") == (
        "$2.50 $2.50 $2.50 2.5 3 3 +250.0%; 3 Jun 2026; 1–2 Jun 2026; 3 Jun 2026, 06:00 UTC; "
        "2026-06-03T06:00:00Z; 0.0 s; +$2.50 $2.50|0 June 2026; 06:00 UTC; 1 a/<wbr>b"
    )


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("a;=cmd|' /C calc'!A0", "a;'=cmd|' /C calc'!A0"),
        ("a;  =1", "a;  '=1"),
        ("a|@SUM(1)", "a|'@SUM(1)"),
        ("＝1", "'＝1"),
        ("－1", "'－1"),
        ("\t=1", "'\t'=1"),
        ("openai/gpt-5.4", "openai/gpt-5.4"),
        ("a=b;c", "a=b;c"),
        ("-12", "'-12"),
    ],
)
def test_no_cell_is_a_formula_whatever_a_spreadsheet_takes_for_a_separator(text: str, cell: str) -> None:
    assert tables._cell(text) == cell
