"""POST /analytics/query: a year back, its limits, and the shapes its figures come in."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from grafient.sandbox import Sandbox

TODAY = date(2026, 11, 22)  # as the fixture sandbox has it
Ask = Callable[..., httpx.Response]

YEAR_AGO = TODAY - timedelta(days=365)


def span(first: object, end: object) -> dict[str, str]:
    return {"start": f"{first}T00:00:00Z", "end": f"{end}T00:00:00Z"}


def query(ask: Ask, name: str = "lively", **body: Any) -> dict[str, Any]:
    response = ask("/analytics/query", name, method="POST", json=body)
    assert response.status_code == 200, response.text
    data: dict[str, Any] = json.loads(response.content, parse_float=Decimal)["data"]
    assert data["metadata"]["row_count"] == len(data["data"])
    return data


def status(ask: Ask, **body: Any) -> int:
    return ask("/analytics/query", method="POST", json=body).status_code


def test_a_year_by_day(sandbox: Sandbox, ask: Ask) -> None:
    metrics = ["total_usage", "credits_usage", "byok_usage", "request_count"]
    rows = query(ask, metrics=metrics, granularity="day", time_range=span(YEAR_AGO, TODAY))["data"]
    truth = sandbox.truth("lively", YEAR_AGO, TODAY - timedelta(days=1))
    assert len(rows) == len({row.date for row in truth.rows})
    assert abs(sum(row["credits_usage"] for row in rows) - truth.usage) < Decimal("0.001")
    assert abs(sum(row["byok_usage"] or 0 for row in rows) - truth.byok_usage_inference) < Decimal("0.001")
    assert sum(int(row["request_count"]) for row in rows) == sum(row.requests for row in truth.rows)
    assert rows[0]["date__day"] == f"{TODAY - timedelta(days=1)}T00:00:00.000Z"
    assert rows[-1]["date__day"] == f"{YEAR_AGO}T00:00:00.000Z"
    assert all(isinstance(row["request_count"], str) for row in rows)
    assert all(row["total_usage"].as_tuple().exponent >= -6 for row in rows)


def test_parts_that_nothing_cost_are_null(ask: Ask) -> None:
    metrics = ["total_usage", "credits_usage", "byok_usage"]
    rows = query(ask, "byok", metrics=metrics)["data"]
    assert rows[0]["credits_usage"] is None
    assert rows[0]["byok_usage"] == rows[0]["total_usage"] > 0
    by_model = query(ask, metrics=metrics, dimensions=["model"])["data"]
    assert {row["byok_usage"] for row in by_model if row["model"].startswith("openai")} == {None}


def test_another_account_another_dialect(ask: Ask) -> None:
    row = query(ask, "other", metrics=["request_count"], granularity="day")["data"][0]
    assert set(row) == {"created_at__day", "request_count"}
    assert isinstance(row["request_count"], int)


def test_cached_tokens_before_they_were_known_are_null(ask: Ask) -> None:
    metrics = ["cached_tokens", "cache_hit_rate"]
    (early,) = query(ask, metrics=metrics, time_range=span("2026-09-01", "2026-09-10"))["data"]
    assert early == {"cached_tokens": None, "cache_hit_rate": None}
    (late,) = query(ask, metrics=metrics, time_range=span("2026-11-01", "2026-11-10"))["data"]
    assert int(late["cached_tokens"]) > 0
    assert 0 < late["cache_hit_rate"] < 1


def test_the_default_is_a_week_with_today(ask: Ask) -> None:
    rows = query(ask, metrics=["request_count"], granularity="day")["data"]
    assert rows[0]["date__day"][:10] == str(TODAY)
    assert {row["date__day"][:10] for row in rows} <= {str(TODAY - timedelta(days=back)) for back in range(7)}


def test_todays_part_is_less_than_the_day_will_have(sandbox: Sandbox, ask: Ask) -> None:
    today = {
        "metrics": ["request_count"],
        "granularity": "day",
        "time_range": span(TODAY, TODAY + timedelta(days=1)),
    }
    (part,) = query(ask, **today)["data"]
    sandbox.today = TODAY + timedelta(days=1)
    (whole,) = query(ask, **today)["data"]
    assert 0 < int(part["request_count"]) < int(whole["request_count"])


def test_an_account_with_usage_today_only(ask: Ask) -> None:
    rows = query(ask, "today-only", metrics=["request_count"], granularity="day")["data"]
    assert [row["date__day"][:10] for row in rows] == [str(TODAY)]


def test_dimensions_are_labels_and_permaslugs(sandbox: Sandbox, ask: Ask) -> None:
    by = {
        name: {row[name] for row in query(ask, metrics=["request_count"], dimensions=[name])["data"]}
        for name in ("model", "variant", "api_key_id", "user", "workspace", "app", "provider")
    }
    assert "qwen/qwen3-coder-480b-a35b-07-25" in by["model"]
    assert by["variant"] == {"standard", "free"}
    assert {"Production API", "Nightly batch"} <= by["api_key_id"]
    assert by["user"] == {"Ada Quist"}
    assert by["workspace"] == {"Default", "Data platform"}
    assert "Support desk" in by["app"]
    assert "Azure" in by["provider"]


def test_filters_take_ids(sandbox: Sandbox, ask: Ask) -> None:
    production = sandbox.account("lively").keys(TODAY)[0]
    only = {"field": "api_key_id", "operator": "eq", "value": production.hash}
    rest = {"field": "api_key_id", "operator": "not_in", "value": [production.hash]}

    def count(*filters: dict[str, object]) -> int:
        (row,) = query(ask, metrics=["request_count"], filters=list(filters))["data"]
        return int(row["request_count"])

    assert count(only) + count(rest) == count()
    lost = {"field": "api_key_id", "operator": "in", "value": ["f" * 64]}
    answer = query(ask, metrics=["request_count"], filters=[lost])
    assert answer["data"] == []
    assert answer["warnings"] == [f"Could not resolve api_key_id: {'f' * 64}"]


def test_weeks_months_and_no_granularity(ask: Ask) -> None:
    range_ = span("2026-09-01", "2026-11-01")
    months = query(ask, metrics=["request_count"], granularity="month", time_range=range_)["data"]
    assert [row["date__month"][:10] for row in months] == ["2026-10-01", "2026-09-01"]
    weeks = query(ask, metrics=["request_count"], granularity="week", time_range=range_)["data"]
    assert weeks[-1]["date__week"][:10] == "2026-08-31"
    (whole,) = query(ask, metrics=["request_count"], time_range=range_)["data"]
    assert set(whole) == {"request_count"}
    assert int(whole["request_count"]) == sum(int(row["request_count"]) for row in months)


def test_order_and_limits(ask: Ask) -> None:
    body = {"metrics": ["total_usage"], "dimensions": ["model"], "granularity": "day"}
    cheapest = query(ask, **body, order_by={"field": "total_usage", "direction": "asc"})["data"]
    assert [row["total_usage"] for row in cheapest] == sorted(row["total_usage"] for row in cheapest)
    by_name = query(ask, **body, order_by={"field": "model", "direction": "desc"})["data"]
    assert by_name[0]["model"] == max(row["model"] for row in by_name)
    oldest = query(ask, **body, order_by={"field": "date", "direction": "asc"})["data"]
    assert oldest[0]["date__day"] < oldest[-1]["date__day"]
    some = query(ask, **body, limit=5)
    assert (len(some["data"]), some["metadata"]["truncated"]) == (5, True)
    once = query(ask, **body, group_limit=1)["data"]
    assert len({row["model"] for row in once}) == len(once)


def test_too_many_rows_are_cut_and_it_says_so(sandbox: Sandbox, ask: Ask) -> None:
    body = {"metrics": ["total_usage"], "dimensions": ["model"], "granularity": "day"}
    answer = query(ask, "large", **body, time_range=span(TODAY - timedelta(days=120), TODAY))
    assert (len(answer["data"]), answer["metadata"]["truncated"]) == (10_000, True)
    narrow = query(ask, "large", **body, time_range=span(TODAY - timedelta(days=30), TODAY))
    assert narrow["metadata"]["truncated"] is False
    sandbox.settings.analytics_row_limit = 50
    small = query(ask, **body, time_range=span(TODAY - timedelta(days=30), TODAY))
    assert (len(small["data"]), small["metadata"]["truncated"]) == (50, True)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"metrics": []},
        {"metrics": ["profit"]},
        {"metrics": ["request_count"], "dimensions": ["colour"]},
        {"metrics": ["request_count"], "dimensions": ["model", "user", "app"]},
        {"metrics": ["request_count"], "granularity": "decade"},
        {"metrics": ["request_count"], "limit": 0},
        {"metrics": ["request_count"], "filters": [{"field": "colour", "operator": "eq", "value": "x"}]},
        {"metrics": ["request_count"], "filters": [{"field": "model", "operator": "in", "value": "x"}]},
        {"metrics": ["request_count"], "filters": [{"field": "model", "operator": "like", "value": "x"}]},
        {"metrics": ["request_count"], "order_by": {"field": "total_usage", "direction": "asc"}},
        {"metrics": ["request_count"], "time_range": span("2026-11-02", "2026-11-02")},
        {"metrics": ["request_count"], "time_range": span("2026-02-30", "2026-11-02")},
        {
            "metrics": ["request_count"],
            "time_range": {"start": "2026-11-01T00:00Z", "end": "2026-11-02T00:00Z"},
        },
        {
            "metrics": ["request_count"],
            "time_range": {"start": "2026-11-01T00:00:00", "end": "2026-11-02T00:00:00"},
        },
        {"metrics": ["request_count"], "time_range": span(YEAR_AGO - timedelta(days=1), "2025-12-31")},
        {
            "metrics": ["request_count"],
            "dimensions": ["provider"],
            "time_range": span(TODAY - timedelta(days=32), TODAY),
        },
    ],
)
def test_a_query_that_is_not_one_is_refused(ask: Ask, body: dict[str, Any]) -> None:
    assert status(ask, **body) == 400


def test_the_provider_dimension_reaches_a_month(ask: Ask) -> None:
    body = {"metrics": ["request_count"], "dimensions": ["provider"]}
    assert status(ask, **body, time_range=span(TODAY - timedelta(days=31), TODAY)) == 200


def test_an_end_inside_a_day_counts_that_day(ask: Ask) -> None:
    range_ = {"start": "2026-11-09T00:00:00Z", "end": "2026-11-10T23:59:59.999Z"}
    rows = query(ask, metrics=["request_count"], granularity="day", time_range=range_)["data"]
    assert [row["date__day"][:10] for row in rows] == ["2026-11-10", "2026-11-09"]


def test_64_queries_a_minute(sandbox: Sandbox, ask: Ask) -> None:
    assert [status(ask, metrics=["request_count"]) for _ in range(64)] == [200] * 64
    response = ask("/analytics/query", method="POST", json={"metrics": ["request_count"]})
    assert response.status_code == 429
    assert 1 <= int(response.headers["Retry-After"]) <= 60
    assert ask("/analytics/query", "other", method="POST", json={"metrics": ["request_count"]}).is_success
    assert ask("/activity").is_success
    sandbox.reset()
    assert status(ask, metrics=["request_count"]) == 200


def test_meta_lists_what_queries_take(ask: Ask) -> None:
    meta = ask("/analytics/meta").json()["data"]
    metrics = [metric["name"] for metric in meta["metrics"]]
    for name in [dimension["name"] for dimension in meta["dimensions"]]:
        assert status(ask, metrics=metrics, dimensions=[name]) == 200
    for name in [granularity["name"] for granularity in meta["granularities"]]:
        assert status(ask, metrics=metrics, granularity=name) == 200


def test_a_restated_day_is_restated_here_too(sandbox: Sandbox, ask: Ask) -> None:
    day = TODAY - timedelta(days=4)
    body = {"metrics": ["credits_usage"], "time_range": span(day, day + timedelta(days=1))}
    (before,) = query(ask, **body)["data"]
    sandbox.restate("lively", day, 2)
    (after,) = query(ask, **body)["data"]
    assert abs(after["credits_usage"] - 2 * before["credits_usage"]) <= Decimal("0.000002")
