"""The read endpoints, and each habit in which the live service differs from its documentation."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from grafient.sandbox import Sandbox, key

TODAY = date(2026, 11, 22)  # as the fixture sandbox has it
Ask = Callable[..., httpx.Response]

FIRST, LAST = TODAY - timedelta(days=30), TODAY - timedelta(days=1)


def exact(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return json.loads(response.content, parse_float=Decimal)


def rows_of(response: httpx.Response) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = exact(response)["data"]
    return rows


def total(rows: list[dict[str, Any]], field: str = "usage") -> Decimal:
    return sum((Decimal(row[field]) for row in rows), Decimal(0))


def test_activity_is_the_whole_window_in_one_reply(sandbox: Sandbox, ask: Ask) -> None:
    rows = rows_of(ask("/activity"))
    dates = {row["date"] for row in rows}
    assert max(dates) == f"{LAST} 00:00:00"
    assert min(dates) == f"{FIRST} 00:00:00"
    truth = sandbox.truth("lively", FIRST, LAST)
    assert len(rows) == len(truth.rows)
    assert total(rows) == truth.usage
    assert total(rows, "byok_usage_inference") == truth.byok_usage_inference


def test_a_row_has_the_recorded_fields(ask: Ask) -> None:
    row = rows_of(ask("/activity"))[0]
    recorded = """date model_permaslug endpoint_id usage byok_usage_inference requests prompt_tokens
        completion_tokens reasoning_tokens byok_requests model provider_name cached_tokens"""
    assert list(row) == recorded.split()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d 00:00:00", row["date"])


def test_cached_tokens_are_absent_in_older_rows(sandbox: Sandbox, ask: Ask) -> None:
    sandbox.today = date(2026, 10, 10)
    rows = rows_of(ask("/activity"))
    assert {("cached_tokens" in row) for row in rows if row["date"] < "2026-10-01"} == {False}
    assert {("cached_tokens" in row) for row in rows if row["date"] >= "2026-10-01"} == {True}


def test_money_is_a_json_number_with_all_its_digits(ask: Ask) -> None:
    text = ask("/activity", "hostile").text
    assert '"usage":0.30000000000000004,' in text
    assert '"usage":1e-7,' in text
    assert '"usage":-0.25,' in text
    assert '"byok_usage_inference":0,' in text
    assert not re.search(r'"usage":"', text)
    assert re.search(r'"usage":\d+\.\d{9,},', ask("/activity").text)
    assert re.search(r'"usage":\de-7,', ask("/activity").text)


def test_one_day(sandbox: Sandbox, ask: Ask) -> None:
    for day in (FIRST, LAST):
        assert total(rows_of(ask("/activity", date=str(day)))) == sandbox.truth("lively", day, day).usage


@pytest.mark.parametrize("day", [TODAY, TODAY + timedelta(days=1), FIRST - timedelta(days=1), date(2025, 1, 1)])
def test_a_day_out_of_the_window_is_refused(ask: Ask, day: date) -> None:
    response = ask("/activity", date=str(day))
    assert response.status_code == 400
    error = response.json()["error"]
    assert error == {"message": "Date must be within the last 30 (completed) UTC days", "code": 400}


@pytest.mark.parametrize(
    "query",
    [
        {"date": "yesterday"},
        {"date": "2026-11-31"},
        {"date": "20261120"},
        {"date": ""},
        {"api_key_hash": "abc"},
        {"group_by": "model"},
        {"workspace_id": "mine"},
    ],
)
def test_a_malformed_filter_is_refused(ask: Ask, query: dict[str, str]) -> None:
    assert ask("/activity", **query).status_code == 400


def test_the_window_moves_with_the_day_and_the_rows_stay(sandbox: Sandbox, ask: Ask) -> None:
    before = {json.dumps(row, default=str) for row in rows_of(ask("/activity"))}
    sandbox.today = TODAY + timedelta(days=1)
    after = {json.dumps(row, default=str) for row in rows_of(ask("/activity"))}
    assert {text[10:20] for text in before - after} == {str(FIRST)}
    assert {text[10:20] for text in after - before} <= {str(TODAY)}


def test_keys_add_up_and_one_that_spent_is_gone(sandbox: Sandbox, ask: Ask) -> None:
    listed = {
        key["hash"]
        for workspace in [w.id for w in sandbox.account("lively").workspaces]
        for key in rows_of(ask("/keys", workspace_id=workspace, include_disabled="true"))
    }
    spent = {
        part.key.hash
        for back in range(1, 31)
        for part in sandbox.account("lively").slices(TODAY - timedelta(days=back))
    }
    assert len(spent - listed) == 1
    per_key = [row for one in spent for row in rows_of(ask("/activity", api_key_hash=one))]
    truth = sandbox.truth("lively", FIRST, LAST)
    assert total(per_key) == truth.usage
    assert total(per_key, "byok_usage_inference") == truth.byok_usage_inference
    assert rows_of(ask("/activity", api_key_hash="0" * 64)) == []


def test_workspaces_split_rows_and_add_up(sandbox: Sandbox, ask: Ask) -> None:
    plain, split = rows_of(ask("/activity")), rows_of(ask("/activity", group_by="workspace"))
    default, second = (workspace.id for workspace in sandbox.account("lively").workspaces)
    assert "workspace_id" not in plain[0]
    assert {row["workspace_id"] for row in split} == {default, second}
    assert len(split) > len(plain)
    assert total(split) == total(plain)
    only = rows_of(ask("/activity", workspace_id=second))
    assert total(only) == total([row for row in split if row["workspace_id"] == second])
    assert ask("/activity", workspace_id="00000000-0000-4000-8000-000000000000").status_code == 404


def test_members_of_an_organization_add_up(sandbox: Sandbox, ask: Ask) -> None:
    members = sandbox.account("organization").members
    parts = [rows_of(ask("/activity", "organization", user_id=member.id)) for member in members]
    assert all(parts)
    assert sum(total(rows) for rows in parts) == sandbox.truth("organization", FIRST, LAST).usage
    assert ask("/auth/key", "organization").json()["data"]["organization_id"].startswith("org_")


@pytest.mark.parametrize("name", ["empty", "today-only"])
def test_nothing_settled_is_an_empty_list(ask: Ask, name: str) -> None:
    assert ask("/activity", name).json() == {"data": []}


def test_byok_and_free_cost_no_credits(ask: Ask) -> None:
    byok, free = rows_of(ask("/activity", "byok")), rows_of(ask("/activity", "free"))
    assert total(byok) == total(free) == total(free, "byok_usage_inference") == 0
    assert total(byok, "byok_usage_inference") > 100
    assert all(row["byok_requests"] == row["requests"] for row in byok)


def test_a_management_key_says_so_and_has_no_usage_of_its_own(sandbox: Sandbox, ask: Ask) -> None:
    data = ask("/auth/key").json()["data"]
    assert data == ask("/key").json()["data"]
    assert data["is_management_key"] is data["is_provisioning_key"] is True
    assert data["usage"] == data["usage_monthly"] == 0
    assert data["creator_user_id"] == sandbox.account("lively").id
    assert data["organization_id"] is data["expires_at"] is None
    assert key("lively") not in json.dumps(data)
    assert data["label"].startswith("sk-or-v1-")
    assert ask("/auth/key", "other").json()["data"]["expires_at"] == "2027-12-31T23:59:59Z"


def test_two_keys_of_one_account(ask: Ask) -> None:
    first, second = ask("/auth/key").json()["data"], ask("/auth/key", "lively-again").json()["data"]
    assert first["creator_user_id"] == second["creator_user_id"]
    assert first["label"] != second["label"]
    assert ask("/activity").content == ask("/activity", "lively-again").content
    assert ask("/auth/key", "other").json()["data"]["creator_user_id"] != first["creator_user_id"]


def test_keys_have_the_shape_of_real_ones() -> None:
    assert re.fullmatch(r"sk-or-v1-[0-9a-f]{64}", key("lively"))
    assert len(key("lively")) == 73
    assert key("lively") != key("lively-again")


def test_credits_are_the_whole_life(sandbox: Sandbox, ask: Ask) -> None:
    data = exact(ask("/credits"))["data"]
    settled = sandbox.truth("lively", sandbox.account("lively").opened, LAST).usage
    today = sum(part.usage for part in sandbox.account("lively").slices_so_far(TODAY))
    assert data["total_usage"] == settled + today
    assert data["total_credits"] > data["total_usage"]
    overdrawn = exact(ask("/credits", "hostile"))["data"]
    assert overdrawn["total_credits"] < overdrawn["total_usage"]
    assert ask("/credits", "empty").json() == {"data": {"total_credits": 0, "total_usage": 0}}


def test_keys_of_the_default_workspace(ask: Ask) -> None:
    names = [key["name"] for key in rows_of(ask("/keys"))]
    assert "Production API" in names
    assert "Nightly batch" not in names
    assert "Old chatbot" not in names
    with_disabled = rows_of(ask("/keys", include_disabled="true"))
    assert {key["name"] for key in with_disabled} - set(names) == {"Old chatbot"}


def test_a_keys_usage_by_period(sandbox: Sandbox, ask: Ask) -> None:
    production = rows_of(ask("/keys"))[0]
    month = [TODAY.replace(day=1) + timedelta(days=number) for number in range(TODAY.day - 1)]
    account = sandbox.account("lively")
    parts = [part for day in month for part in account.slices(day)] + list(account.slices_so_far(TODAY))
    expected = sum(part.usage for part in parts if part.key.hash == production["hash"])
    assert production["usage_monthly"] == expected
    assert production["limit_remaining"] == production["limit"] - expected
    assert 0 < production["usage_daily"] < production["usage_weekly"] < production["usage_monthly"]


def test_keys_come_a_hundred_a_page(ask: Ask) -> None:
    pages = [rows_of(ask("/keys", "large", offset=str(offset))) for offset in (0, 100, 200, 300)]
    assert [len(page) for page in pages] == [100, 100, 50, 0]
    assert len({key["hash"] for page in pages for key in page}) == 250
    assert ask("/keys", offset="-1").status_code == 400


def test_five_hundred_keys_that_all_spend(sandbox: Sandbox, ask: Ask) -> None:
    pages = [rows_of(ask("/keys", "many-keys", offset=str(offset))) for offset in range(0, 600, 100)]
    assert [len(page) for page in pages] == [100] * 5 + [0]
    rows = rows_of(ask("/activity", "many-keys"))
    assert len(rows) == 30 * 40
    assert total(rows) == sandbox.truth("many-keys", FIRST, LAST).usage
    one = rows_of(ask("/activity", "many-keys", api_key_hash=pages[4][99]["hash"]))
    assert total(one) > 0


def test_workspaces(sandbox: Sandbox, ask: Ask) -> None:
    account = sandbox.account("organization")
    default, second = account.workspaces
    reply = exact(ask("/workspaces", "organization"))
    assert reply["total_count"] == 2
    assert [(row["id"], row["name"], row["slug"]) for row in reply["data"]] == [
        (default.id, "Default", "default"),
        (second.id, "Data platform", "data-platform"),
    ]
    assert reply["data"][0]["created_by"] == account.id
    for page, ids in (
        ({"limit": "1"}, [default.id]),
        ({"offset": "1", "limit": "100"}, [second.id]),
        ({"offset": "2"}, []),
    ):
        reply = exact(ask("/workspaces", "organization", **page))
        assert ([row["id"] for row in reply["data"]], reply["total_count"]) == (ids, 2)


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "101"}, {"limit": "all"}, {"offset": "-1"}])
def test_a_malformed_page_of_workspaces_is_refused(ask: Ask, query: dict[str, str]) -> None:
    response = ask("/workspaces", **query)
    assert response.status_code == 400
    assert response.json()["error"] == {"message": "Invalid request parameters", "code": 400}


def test_models_are_public(sandbox: Sandbox, client: httpx.Client) -> None:
    for headers in ({}, {"Authorization": "Bearer nonsense"}):
        response = client.get(f"{sandbox.base_url}/models", headers=headers)
        assert response.status_code == 200
        assert "openai/gpt-4.1-mini" in {model["id"] for model in response.json()["data"]}


def test_no_key_and_a_foreign_key(sandbox: Sandbox, ask: Ask, client: httpx.Client) -> None:
    missing = ask("/activity", None)
    assert missing.status_code == 401
    assert missing.json() == {"error": {"message": "Missing Authentication header", "code": 401}}
    foreign = client.get(f"{sandbox.base_url}/auth/key", headers={"Authorization": f"Bearer {key('nobody')}"})
    assert foreign.status_code == 401
    assert foreign.json()["error"]["message"] == "User not found."
    assert [entry.key for entry in sandbox.requests()] == [None, "unknown"]


def test_unknown_paths_and_other_methods(sandbox: Sandbox, ask: Ask) -> None:
    for path in ("/nothing", "/activity/", "/generation"):
        response = ask(path)
        assert (response.status_code, response.json()["error"]["code"]) == (404, 404)
    for method, path in [
        ("POST", "/keys"),
        ("DELETE", "/keys/abc"),
        ("PATCH", "/keys/abc"),
        ("PUT", "/activity"),
    ]:
        response = ask(path, method=method)
        assert (response.status_code, response.json()["error"]["code"]) == (405, 405)
    assert ask("/analytics/query").status_code == 405
    assert ask("/activity", method="HEAD").status_code == 405
    assert ("DELETE", "/api/v1/keys/abc") in [(entry.method, entry.path) for entry in sandbox.requests()]


def test_an_error_names_the_account_like_the_service(sandbox: Sandbox, ask: Ask) -> None:
    body = ask("/activity", "inference").json()
    assert body["user_id"] == sandbox.account("inference").id
    assert "user_id" not in ask("/activity", "revoked").json()


def test_the_large_reply(sandbox: Sandbox, ask: Ask) -> None:
    rows = rows_of(ask("/activity", "large"))
    assert len(rows) == 10_050
    assert total(rows) == sandbox.truth("large", FIRST, LAST).usage
