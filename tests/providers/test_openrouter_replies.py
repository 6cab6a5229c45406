"""OpenRouter's replies in the pure parsers: what is recorded, what is odd, and what can't be."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grafient.providers import BilledLine, Credits, ListedKey, ProviderError, UnexpectedResponse, Unreachable
from grafient.providers.openrouter.replies import (
    odd_fields,
    parse_activity,
    parse_credits,
    parse_key,
    parse_keys,
    parse_meta,
    parse_query,
    parse_workspaces,
    watch_activity,
)


def row(**changes: Any) -> dict[str, Any]:
    """A row as recorded from a live account, with changes; None takes a field away."""
    recorded = {
        "date": "2026-06-03 00:00:00",
        "model_permaslug": "openrouter/owl-alpha",
        "endpoint_id": "703f11d6-5f20-473e-b2ba-d9e8df3a6d56",
        "usage": 0.004314447,
        "byok_usage_inference": 0,
        "requests": 274,
        "prompt_tokens": 14993669,
        "completion_tokens": 111935,
        "reasoning_tokens": 0,
        "byok_requests": 0,
        "model": "openrouter/owl-alpha",
        "provider_name": "stealth/int8",
    }
    return {name: value for name, value in {**recorded, **changes}.items() if value is not None}


def parse(*rows: dict[str, Any]) -> list[BilledLine]:
    return lines_of(json.dumps({"data": rows}).encode())


def lines_of(body: bytes) -> list[BilledLine]:
    """All lines of an /activity reply, day by day."""
    return [line for reply in parse_activity(body).values() for line in reply.read()]


class TestParsing:
    def test_a_recorded_row(self) -> None:
        (line,) = parse(row())
        assert line == BilledLine(
            day=date(2026, 6, 3),
            permaslug="openrouter/owl-alpha",
            endpoint_id="703f11d6-5f20-473e-b2ba-d9e8df3a6d56",
            host="stealth/int8",
            model="openrouter/owl-alpha",
            usage_usd=Decimal("0.004314447"),
            byok_usd=Decimal(0),
            requests=274,
            byok_requests=0,
            prompt_tokens=14993669,
            completion_tokens=111935,
            reasoning_tokens=0,
            cached_tokens=None,
        )

    @pytest.mark.parametrize("text", ["2026-06-03", "2026-06-03 00:00:00", "2026-06-03T00:00:00.000Z"])
    def test_a_day_with_and_without_a_time(self, text: str) -> None:
        assert parse(row(date=text))[0].day == date(2026, 6, 3)

    @pytest.mark.parametrize("text", ["", "2026-13-01", "yesterday", "20260603", "2026-06-031", "2026-W01-1"])
    def test_what_is_no_day_is_named_with_its_path(self, text: str) -> None:
        with pytest.raises(UnexpectedResponse, match=r"date.*\$\.data\[1\]"):
            parse(row(), row(date=text))

    @pytest.mark.parametrize(
        ("number", "usd"),
        [
            ("1e-7", "0.0000001"),
            ("0.123456789012", "0.123456789012"),
            ("0.30000000000000004", "0.3"),
            ("-3.2", "-3.2"),
            ("0", "0"),
            ("8999999.999999999999", "8999999.999999999999"),
        ],
    )
    def test_money_is_exact(self, number: str, usd: str) -> None:
        body = json.dumps({"data": [row(usage=5555)]}).replace("5555", number).encode()
        assert lines_of(body)[0].usage_usd == Decimal(usd)

    @pytest.mark.parametrize(
        "number",
        ["1e400", "1e9999999", "100000000", '"abc"', '"NaN"', '"Infinity"', '"1e309"', '""', "null", "true", "[]"],
    )
    def test_what_is_no_amount_is_refused(self, number: str) -> None:
        body = json.dumps({"data": [row(usage=5555)]}).replace("5555", number).encode()
        with pytest.raises(UnexpectedResponse, match=r"\$\.data\[0\]"):
            lines_of(body)

    @given(amount=st.decimals("-8999999", "8999999", places=12))
    def test_any_amount_survives(self, amount: Decimal) -> None:
        body = json.dumps({"data": [row(usage=5555)]}).replace("5555", f"{amount:f}").encode()
        assert lines_of(body)[0].usage_usd == amount

    @given(
        amount=st.decimals("-8999999", "8999999", places=12),
        count=st.integers(0, 2**63 - 1),
        written=st.sampled_from([str, "{}.0".format, "{}.000".format]),
    )
    def test_numbers_in_strings_are_the_same_numbers(self, amount: Decimal, count: int, written: Any) -> None:
        text = {"usage": f"{amount:f}", "byok_usage_inference": f"{amount:f}"}
        counts = dict.fromkeys(("requests", "prompt_tokens", "cached_tokens"), written(count))
        (line,) = parse(row(**text, **counts))
        assert (line.usage_usd, line.byok_usd) == (amount, amount)
        assert (line.requests, line.prompt_tokens, line.cached_tokens) == (count, count, count)

    @pytest.mark.parametrize("text", ["12.5", "-1", "", "abc", "NaN", "Infinity", "1e30", str(2**63), "0x10"])
    def test_what_is_no_count_is_refused(self, text: str) -> None:
        with pytest.raises(UnexpectedResponse, match=r"\$\.data\[0\]"):
            parse(row(requests=text))

    def test_absent_is_unknown_and_not_zero(self) -> None:
        absent = dict.fromkeys(("byok_usage_inference", "requests", "prompt_tokens", "cached_tokens", "byok_requests"))
        (line,) = parse(row(**absent))
        assert (line.byok_usd, line.requests, line.prompt_tokens, line.cached_tokens) == (None, None, None, None)

    def test_an_unknown_field_is_passed_over(self) -> None:
        assert len(parse(row(surprise={"a": 1}))) == 1

    @pytest.mark.parametrize("name", ["date", "model_permaslug", "usage"])
    def test_a_field_that_is_needed_and_missing_is_named(self, name: str) -> None:
        with pytest.raises(UnexpectedResponse, match=f"`{name}`"):
            parse(row(**{name: None}))

    def test_reasoning_may_exceed_completion_and_cached_the_prompt(self) -> None:
        (line,) = parse(row(completion_tokens=5, reasoning_tokens=9, prompt_tokens=5, cached_tokens=9))
        assert (line.completion_tokens, line.reasoning_tokens, line.cached_tokens) == (5, 9, 9)

    def test_endpoints_of_one_model_stay_apart(self) -> None:
        assert len(parse(row(endpoint_id="a"), row(endpoint_id="b"), row(provider_name="c"))) == 3

    def test_repeats_are_summed_and_unknown_stays_unknown(self) -> None:
        repeat = row(usage=0.1, cached_tokens=5, requests=2)
        (line,) = parse(repeat, row(usage=0.2, cached_tokens=None, requests=3))
        assert (line.usage_usd, line.requests, line.cached_tokens) == (Decimal("0.3"), 5, None)

    @pytest.mark.parametrize(
        "name",
        [
            "usage",
            pytest.param(
                "byok_usage_inference",
            ),
        ],
    )
    def test_repeats_that_add_up_to_more_than_can_be_kept_are_refused(self, name: str) -> None:
        with pytest.raises(UnexpectedResponse, match="not an amount"):
            parse(row(**{name: 99999999}), row(**{name: 99999999}))

    @pytest.mark.parametrize("name", ["requests", "prompt_tokens"])
    def test_64_bits_and_not_more(self, name: str) -> None:
        most = 2**63 - 1
        assert getattr(parse(row(**{name: most}))[0], name) == most
        for rows in ([row(**{name: most + 1})], [row(**{name: -1})], [row(**{name: most}), row(**{name: 1})]):
            with pytest.raises(UnexpectedResponse):
                parse(*rows)

    @pytest.mark.parametrize("text", ["<script>alert(1)</script>", '=HYPERLINK("x")', "a" * 300, "🦙" * 300, "a\nb"])
    def test_names_are_opaque(self, text: str) -> None:
        line = parse(row(model=text, model_permaslug=text, provider_name=text))[0]
        assert (line.model or line.permaslug, line.permaslug, line.host) == (text, text, text)

    def test_a_name_without_end_is_refused_before_a_database_has_to(self) -> None:
        with pytest.raises(UnexpectedResponse, match="longer than can be kept"):
            parse(row(model="a" * 3000))

    def test_a_nul_is_made_visible(self) -> None:
        assert parse(row(model="a\0b"))[0].model == "a\ufffdb"

    @pytest.mark.parametrize("body", [b'{"data": null}', b"{}", b"[]", b'{"data": {}}', b'{"data": [1]}'])
    def test_another_shape_is_named(self, body: bytes) -> None:
        with pytest.raises(UnexpectedResponse, match=r"Expected|missing"):
            lines_of(body)

    @pytest.mark.parametrize("body", [b"", b'{"data": [', b"\xff\xfe", b"<html>", b'{"data": [{"date": "caf\xe9"}]}'])
    def test_what_is_cut_off_is_a_passing_fault(self, body: bytes) -> None:
        with pytest.raises(Unreachable):
            lines_of(body)

    @given(st.binary(max_size=200))
    def test_any_bytes_are_lines_or_a_provider_error(self, body: bytes) -> None:
        with contextlib.suppress(ProviderError):
            lines_of(body)


@pytest.mark.parametrize("new", [{}, {"surprise": {"a": 1}}])
def test_a_reply_does_not_take_several_times_its_own_memory(new: dict[str, Any]) -> None:
    rows = [
        row(date=f"2026-06-{number // 100 + 1:02}", endpoint_id=f"{number % 100}", **new) for number in range(2_000)
    ]
    body = json.dumps({"data": rows}).encode()
    watch_activity(body)
    tracemalloc.start()
    try:
        by_day, odd = watch_activity(body)
        peak = tracemalloc.get_traced_memory()[1]
        lines = [reply.read() for reply in by_day.values()]
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert sum(reply.rows for reply in by_day.values()) == sum(map(len, lines)) == 2_000
    assert odd, "looked through for what has changed, too"
    assert peak < 3 * len(body)
    assert kept < 2 * len(body), "the rows are let go of when the lines are there"


def digests(*rows: dict[str, Any]) -> dict[date, bytes | None]:
    return {day: reply.digest for day, reply in parse_activity(json.dumps({"data": rows}).encode()).items()}


class TestDigests:
    def test_days_are_apart(self) -> None:
        one, other = row(), row(date="2026-06-04 00:00:00")
        both = digests(one, other)
        assert digests(one) | digests(other) == both
        assert len(set(both.values())) == 2

    @pytest.mark.parametrize("name", list(row()))
    def test_whatever_changes_in_a_row_changes_its_days_digest(self, name: str) -> None:
        changed = {"date": "2026-06-03"}.get(name, 5 if isinstance(row()[name], (int, float)) else "other")
        assert set(digests(row()).values()) != set(digests(row(**{name: changed})).values())

    def test_it_is_the_same_in_another_process(self) -> None:
        assert digests(row()) == {date(2026, 6, 3): bytes.fromhex("bc4ead0eba5d97d629c330b4f1f7571a")}

    def test_rows_that_can_not_be_understood_are_named_when_they_are_read(self) -> None:
        found = parse_activity(json.dumps({"data": [row(), row(date="2026-06-04", requests=-1)]}).encode())
        assert len(found[date(2026, 6, 3)].read()) == 1
        with pytest.raises(UnexpectedResponse, match=r"`requests` is not a count - at `\$\.data\[1\]`"):
            found[date(2026, 6, 4)].read()

    def test_a_row_is_named_by_its_place_in_the_reply_among_other_days_too(self) -> None:
        rows = [row(), row(date="2026-06-04"), row(date="2026-06-03"), row(date="2026-06-04", requests=-1)]
        found = parse_activity(json.dumps({"data": rows}).encode())
        for _ in range(2):
            assert [line.requests for line in found[date(2026, 6, 3)].read()] == [2 * 274]
            with pytest.raises(UnexpectedResponse, match=r"`requests` is not a count - at `\$\.data\[3\]`"):
                found[date(2026, 6, 4)].read()

    @pytest.mark.parametrize(
        ("name", "each"), [("usage", 4_500_000), ("usage", -4_500_000), ("byok_usage_inference", 4_500_000)]
    )
    def test_a_day_that_adds_up_to_more_than_can_be_kept_is_refused(self, name: str, each: int) -> None:
        rows = [row(**{name: each, "endpoint_id": "a"}), row(**{name: each, "endpoint_id": "b"})]
        assert len(parse(rows[0], rows[1] | {"date": "2026-06-04"})) == 2
        with pytest.raises(UnexpectedResponse, match=r"\$9 million or more for 2026-06-03"):
            parse(*rows)

    def test_counts_of_a_day_that_add_up_to_more_than_64_bits_are_refused(self) -> None:
        rows = [row(prompt_tokens=2**62, endpoint_id="a"), row(prompt_tokens=2**62, endpoint_id="b")]
        with pytest.raises(UnexpectedResponse, match="`prompt_tokens` adds up to more than 64 bits, on 2026-06-03"):
            parse(*rows)


METRICS = (
    "total_usage",
    "credits_usage",
    "byok_usage",
    "request_count",
    "tokens_prompt",
    "tokens_completion",
    "reasoning_tokens",
    "cached_tokens",
)


def counted(**changes: Any) -> dict[str, Any]:
    """A row of analytics as recorded from a live account, with changes; None stays, as null."""
    recorded = {
        "date__day": "2026-06-03T00:00:00.000Z",
        "model": "openai/gpt-5-mini-2026-03-04",
        "total_usage": 0.004315,
        "credits_usage": 0.004315,
        "byok_usage": None,
        "request_count": "274",
        "tokens_prompt": "14993669",
        "tokens_completion": "111935",
        "reasoning_tokens": "0",
        "cached_tokens": None,
    }
    return {**recorded, **changes}


def query(*rows: dict[str, Any], truncated: bool = False) -> list[BilledLine]:
    metadata = {"query_time_ms": 12, "row_count": len(rows), "truncated": truncated}
    body = json.dumps({"data": {"data": rows, "metadata": metadata}}).encode()
    lines, was_truncated = parse_query(body, METRICS)
    assert was_truncated is truncated
    return lines


class TestAnalytics:
    def test_a_recorded_row(self) -> None:
        (line,) = query(counted())
        assert line == BilledLine(
            day=date(2026, 6, 3),
            permaslug="openai/gpt-5-mini-2026-03-04",
            endpoint_id="",
            host="",
            model="openai/gpt-5-mini-2026-03-04",
            usage_usd=Decimal("0.004315"),
            byok_usd=Decimal(0),
            requests=274,
            byok_requests=None,
            prompt_tokens=14993669,
            completion_tokens=111935,
            reasoning_tokens=0,
            cached_tokens=None,
        )

    def test_the_day_under_its_other_name_and_numbers_as_numbers(self) -> None:
        row = counted(request_count=274, tokens_prompt=14993669, tokens_completion=111935, reasoning_tokens=0)
        row["created_at__day"] = row.pop("date__day")
        assert query(row) == query(counted())

    def test_money_as_text_is_the_same_money(self) -> None:
        assert query(counted(total_usage="0.004315", credits_usage="4.315e-3")) == query(counted())

    def test_days_alone_have_no_model(self) -> None:
        row = counted()
        del row["model"]
        assert (query(row)[0].permaslug, query(row)[0].model) == ("", "")

    def test_a_reply_that_was_cut_to_its_limit_says_so(self) -> None:
        assert query(counted(), truncated=True)

    def test_what_was_paid_by_own_keys_is_apart(self) -> None:
        (line,) = query(counted(total_usage=3, credits_usage=1, byok_usage=2))
        assert (line.usage_usd, line.byok_usd) == (Decimal(1), Decimal(2))
        (line,) = query(counted(total_usage=2, credits_usage=None, byok_usage=2))
        assert (line.usage_usd, line.byok_usd) == (Decimal(0), Decimal(2))

    def test_without_a_metric_for_it_what_own_keys_paid_is_unknown(self) -> None:
        body = json.dumps({"data": {"data": [counted()], "metadata": {"truncated": False}}}).encode()
        (line,) = parse_query(body, ("credits_usage",))[0]
        assert line.byok_usd is None

    @pytest.mark.parametrize("total", ["0.004312", "0.004318", 1, 0])
    def test_parts_that_do_not_add_up_are_refused(self, total: Any) -> None:
        assert query(counted(total_usage="0.004317")), "each of three amounts is rounded"
        with pytest.raises(UnexpectedResponse, match=r"do not add up.*\$\.data\.data\[1\]"):
            query(counted(), counted(total_usage=total))

    @pytest.mark.parametrize(
        "changes",
        [
            {"date__day": None},
            {"date__day": 20260603},
            {"date__day": "03.06.2026"},
            {"model": None},
            {"model": 5},
            {"model": "m" * 3000},
            {"credits_usage": "a lot"},
            {"credits_usage": True},
            {"credits_usage": [1]},
            {"credits_usage": "Infinity"},
            {"credits_usage": "NaN"},
            {"credits_usage": "1e99", "total_usage": None},
            {"byok_usage": {}},
            {"request_count": "-1"},
            {"request_count": 1.5},
            {"request_count": str(2**63)},
            {"tokens_prompt": ""},
            {"cached_tokens": False},
        ],
    )
    def test_what_can_not_be_is_named_with_its_path(self, changes: dict[str, Any]) -> None:
        with pytest.raises(UnexpectedResponse, match=r"at `\$\.data\.data\[1\]`"):
            query(counted(), counted(**changes))

    @pytest.mark.parametrize("total", ["1e9999999", "-1e9999999"])
    def test_a_total_beyond_all_bounds_is_refused_like_any_other(self, total: str) -> None:
        with pytest.raises(UnexpectedResponse):
            query(counted(total_usage=total))

    @pytest.mark.parametrize(
        "body",
        [b'{"data": []}', b'{"data": {"data": [], "metadata": {}}}', b'{"data": {"data": [1]}}', b'{"data": null}'],
    )
    def test_another_shape_is_named(self, body: bytes) -> None:
        with pytest.raises(UnexpectedResponse, match=r"Expected|missing"):
            parse_query(body, METRICS)

    @pytest.mark.parametrize("body", [b"", b"<html>", b'{"data": {"data": [', b"\xff"])
    def test_what_is_no_json_is_a_passing_fault(self, body: bytes) -> None:
        with pytest.raises(Unreachable):
            parse_query(body, METRICS)

    def test_a_row_of_one_model_twice_is_summed(self) -> None:
        (line,) = query(counted(), counted(request_count=1))
        assert (line.usage_usd, line.requests) == (Decimal("0.00863"), 275)


class TestMeta:
    def test_what_is_offered(self) -> None:
        named = {key: [{"name": name} for name in names] for key, names in OFFERED.items()}
        metrics, dimensions = parse_meta(json.dumps({"data": named}).encode())
        assert metrics == {"credits_usage", "x"}
        assert dimensions == {"model"}

    def test_without_days_nothing_is(self) -> None:
        named = {key: [{"name": name} for name in names] for key, names in OFFERED.items()}
        named["granularities"] = [{"name": "week"}]
        assert parse_meta(json.dumps({"data": named}).encode()) == (set(), set())


OFFERED = {"metrics": ["credits_usage", "x"], "dimensions": ["model"], "granularities": ["day", "week"]}


class TestKeys:
    def test_names_and_what_stands_in_for_them(self) -> None:
        rows = [
            {"hash": "ab12", "name": "Production", "label": "sk-or-v1-abc...123", "disabled": True},
            {"hash": "ab13", "name": "", "label": "sk-or-v1-abc...124"},
            {"hash": "ab14cdefghijklm"},
            {"hash": "ab15", "name": "n" * 600},
            {"hash": "ab16", "name": "a\0b"},
        ]
        assert list(parse_keys(json.dumps({"data": rows}).encode()).values()) == [
            ListedKey("ab12", "Production", disabled=True),
            ListedKey("ab13", "sk-or-v1-abc...124", disabled=False),
            ListedKey("ab14cdefghijklm", "ab14cdefghij", disabled=False),
            ListedKey("ab15", "n" * 500, disabled=False),
            ListedKey("ab16", "a\ufffdb", disabled=False),
        ]

    @pytest.mark.parametrize(
        ("said", "limit", "left", "reset"),
        [
            ({}, None, None, ""),
            ({"limit": None, "limit_remaining": None, "limit_reset": None}, None, None, ""),
            ({"limit": 2000, "limit_remaining": 1312.4, "limit_reset": "monthly"}, "2000", "1312.4", "monthly"),
            ({"limit": "0.5", "limit_remaining": -0.1}, "0.5", "-0.1", ""),
            ({"limit": 1e12, "limit_reset": "each second Tuesday"}, None, None, "each second Tues"),
        ],
    )
    def test_where_the_provider_stops_a_key(
        self, said: dict[str, object], limit: str | None, left: str | None, reset: str
    ) -> None:
        found = parse_keys(json.dumps({"data": [{"hash": "ab12", "name": "n", **said}]}).encode())["ab12"]
        assert (found.limit_usd, found.limit_left_usd) == (limit and Decimal(limit), left and Decimal(left))
        assert found.limit_reset == reset

    @pytest.mark.parametrize("bad", ["", "a b", "a&b=c", "é", "a" * 129, "../x"])
    def test_a_hash_that_is_none_is_refused(self, bad: str) -> None:
        with pytest.raises(UnexpectedResponse, match=r"`hash`.*\$\.data\[0\]"):
            parse_keys(json.dumps({"data": [{"hash": bad}]}).encode())


class TestCredits:
    @pytest.mark.parametrize(("number", "usd"), [("50.3", "50.3"), ("0", "0"), ("1e-7", "0.0000001"), ("-2.5", "-2.5")])
    def test_all_that_was_ever_charged(self, number: str, usd: str) -> None:
        body = f'{{"data": {{"total_credits": 100, "total_usage": {number}}}}}'.encode()
        assert parse_credits(body) == Credits(Decimal(usd), Decimal(100))

    def test_what_was_bought_may_not_be_said(self) -> None:
        for more in ("", ', "total_credits": null'):
            assert parse_credits(f'{{"data": {{"total_usage": 1{more}}}}}'.encode()) == Credits(Decimal(1), None)
        with pytest.raises(UnexpectedResponse, match="total_credits"):
            parse_credits(b'{"data": {"total_usage": 1, "total_credits": "many"}}')

    @pytest.mark.parametrize("number", ['"x"', "null", "1e400", "[]", "1e9999999"])
    def test_what_is_no_amount_is_refused(self, number: str) -> None:
        with pytest.raises(UnexpectedResponse, match="total_usage"):
            parse_credits(f'{{"data": {{"total_usage": {number}}}}}'.encode())


class TestOddFields:
    def test_a_row_as_it_has_always_been_is_not_odd(self) -> None:
        assert odd_fields(_activity(row(cached_tokens=1))) is None
        assert odd_fields(_activity(row(cached_tokens=1, workspace_id="w"), row())) is None
        assert odd_fields(_activity()) is None

    def test_new_fields_are_named(self) -> None:
        sentence = odd_fields(_activity(row(cached_tokens=1, service_tier="x", audio_tokens=None), row(region=1)))
        assert sentence == (
            "OpenRouter's reply has changed. It has new fields: region, service_tier. No figure is lost."
        )

    def test_fields_that_no_row_has_any_more_are_named(self) -> None:
        sentence = odd_fields(_activity(row(requests=None), row(requests=None, cached_tokens=1))) or ""
        assert "that are gone: requests." in sentence

    def test_many_and_long_names_are_a_sentence_still(self) -> None:
        many = {f"field_{number}_{'x' * 200}\0": 1 for number in range(50)}
        sentence = odd_fields(_activity(row(cached_tokens=1, **many))) or ""
        assert "and 40 more" in sentence
        assert len(sentence) < 1000
        assert "\0" not in sentence


def _activity(*rows: dict[str, Any]) -> bytes:
    return json.dumps({"data": rows}).encode()


PARSERS: list[Callable[[bytes], object]] = [
    lambda body: parse_query(body, METRICS),
    odd_fields,
    parse_key,
    parse_keys,
    parse_credits,
    parse_meta,
    parse_workspaces,
]

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(["2026-06-03", "2026-06-03T00:00:00.000Z", "1e400", "5", "-0", "day", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "id", "hash"]), inner),
    max_leaves=4,
)


@pytest.mark.parametrize("parse", PARSERS)
@given(body=st.binary(max_size=200))
@example(body=b"[" * 100_000)
@example(body=b'{"data": ' * 100_000)
@example(body=b'{"data": {"data": ' + b"[" * 100_000)
def test_any_bytes_are_read_or_a_provider_error(parse: Callable[[bytes], object], body: bytes) -> None:
    with contextlib.suppress(ProviderError):
        parse(body)


@given(
    row=st.fixed_dictionaries({}, optional=dict.fromkeys((*METRICS, "date__day", "created_at__day", "model"), anything))
)
def test_any_row_of_analytics_is_a_line_or_a_provider_error(row: dict[str, Any]) -> None:
    with contextlib.suppress(ProviderError):
        (line,) = query(row)
        assert line.usage_usd.is_finite()
        assert line.byok_usd is not None


@given(rows=st.lists(anything, max_size=3))
def test_any_keys_and_workspaces_are_read_or_a_provider_error(rows: list[Any]) -> None:
    for parse in (parse_keys, parse_workspaces, odd_fields, parse_activity):
        with contextlib.suppress(ProviderError):
            parse(json.dumps({"data": rows}).encode())
