"""Changing the stand-in while it runs, in-process and over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from grafient.sandbox import NewRow, Sandbox, key

TODAY = date(2026, 11, 22)  # as the fixture sandbox has it
Ask = Callable[..., httpx.Response]

DAY = TODAY - timedelta(days=3)
Control = Callable[..., Any]


@pytest.fixture
def control(sandbox: Sandbox, client: httpx.Client) -> Control:
    def control(method: str, path: str, body: object = None, status: int = 200) -> Any:
        json_body = {"json": body} if body is not None else {}
        response = client.request(method, sandbox.control_url + path, **json_body)  # type: ignore[arg-type]
        assert response.status_code == status, response.text
        return response.json()

    return control


def rows(ask: Ask, name: str = "lively", day: date = DAY) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ask("/activity", name, date=str(day)).content, parse_float=Decimal)["data"]
    return found


def test_restating_is_exact(sandbox: Sandbox, ask: Ask) -> None:
    before = sandbox.truth("lively", DAY, DAY)
    sandbox.restate("lively", DAY, "1.37")
    after = sandbox.truth("lively", DAY, DAY)
    assert after.usage == before.usage * Decimal("1.37")
    assert after.byok_usage_inference == before.byok_usage_inference
    assert sum(Decimal(row["usage"]) for row in rows(ask)) == after.usage
    keys = {part.key.hash for part in sandbox.account("lively").slices(DAY)}
    parts = [json.loads(ask("/activity", date=str(DAY), api_key_hash=k).content, parse_float=Decimal) for k in keys]
    assert sum(Decimal(row["usage"]) for part in parts for row in part["data"]) == after.usage
    assert sandbox.truth("other", DAY, DAY) == sandbox.truth("other", DAY, DAY)
    assert rows(ask, "lively-again") == rows(ask)
    sandbox.reset()
    assert sandbox.truth("lively", DAY, DAY) == before


def test_removing_adding_and_dropping_rows(sandbox: Sandbox, ask: Ask) -> None:
    before = rows(ask)
    sandbox.remove_row("lively", DAY, 1)
    assert rows(ask) == [before[0], *before[2:]]
    sandbox.add_row("lively", DAY, NewRow(model="new/model", usage=Decimal("0.1234567890123"), key="Staging"))
    assert rows(ask)[-1]["usage"] == Decimal("0.1234567890123")
    assert rows(ask)[-1]["model_permaslug"] == "new/model"
    sandbox.add_row("lively", DAY, NewRow(model="new/model", usage=Decimal(1)))
    assert [row["usage"] for row in rows(ask)][-2:] == [Decimal("0.1234567890123"), 1]
    sandbox.drop_day("lively", DAY)
    assert rows(ask) == []
    assert sandbox.truth("lively", DAY, DAY).usage == 0
    with pytest.raises(ValueError, match="has 0 rows"):
        sandbox.remove_row("lively", DAY, 0)


def test_adding_to_an_account_without_usage(sandbox: Sandbox, ask: Ask) -> None:
    sandbox.add_row("empty", DAY, NewRow(model="a/b", usage=Decimal("2.5")))
    assert [row["usage"] for row in rows(ask, "empty")] == [Decimal("2.5")]
    with pytest.raises(ValueError, match="no API key called 'Nobody'"):
        sandbox.add_row("empty", DAY, NewRow(model="a/b", usage=Decimal(1), key="Nobody"))


def test_a_fault_for_some_requests(sandbox: Sandbox, ask: Ask) -> None:
    sandbox.fault("lively", "down", times=2)
    assert [ask("/activity").status_code for _ in range(3)] == [500, 500, 200]
    sandbox.fault("lively", "revoked")
    assert [ask("/activity").status_code for _ in range(3)] == [401] * 3
    assert ask("/activity", "lively-again").status_code == 200
    sandbox.fault("lively", None)
    assert ask("/activity").status_code == 200


def test_a_fault_on_one_path(sandbox: Sandbox, ask: Ask) -> None:
    sandbox.fault("lively", "null-data", times=1, path="/activity")
    assert ask("/auth/key").json()["data"]["is_management_key"] is True
    assert ask("/activity").json() == {"data": None}
    assert len(ask("/activity").json()["data"]) > 100


def test_a_fault_lifts_a_keys_own_manner_for_a_while(sandbox: Sandbox, ask: Ask) -> None:
    sandbox.fault("revoked", "limited", times=1)
    assert [ask("/activity", "revoked").status_code for _ in range(2)] == [429, 401]


def test_mistakes_are_told(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="No fault is called 'sulk'"):
        sandbox.fault("lively", "sulk")
    with pytest.raises(ValueError, match="No key or account is called 'nobody'"):
        sandbox.fault("nobody", "down")
    with pytest.raises(ValueError, match="nobody"):
        sandbox.key("nobody")
    with pytest.raises(ValueError, match="at least once"):
        sandbox.fault("lively", "down", times=0)


def test_the_log_knows_who_asked_what_but_no_key(sandbox: Sandbox, ask: Ask, client: httpx.Client) -> None:
    ask("/activity", date=str(DAY))
    leaky = {"Authorization": f"Bearer {key('lively')}", "X-Copy": key("lively")}
    client.post(f"{sandbox.base_url}/{key('other')}", params={"k": key("lively")}, json=[key("lively")], headers=leaky)
    first, second = sandbox.requests()
    assert (first.method, first.path, first.query) == ("GET", "/api/v1/activity", {"date": str(DAY)})
    assert first.key == "lively"
    assert "authorization" in first.headers
    assert (second.path, second.query, second.body) == ("/api/v1/[key]", {"k": "[key]"}, '["[key]"]')
    assert key("lively")[9:] not in repr(sandbox.requests())
    sandbox.clear_requests()
    assert sandbox.requests() == []


def test_today_without_a_day_is_the_real_one(sandbox: Sandbox) -> None:
    sandbox.today = None  # type: ignore[assignment]
    assert sandbox.today.year >= 2026


def test_over_http_the_day_and_the_log(sandbox: Sandbox, control: Control, ask: Ask) -> None:
    control("PUT", "/today", {"today": "2027-03-01"})
    assert sandbox.today == date(2027, 3, 1)
    assert control("GET", "/")["today"] == "2027-03-01"
    ask("/key", "free")
    (entry,) = control("GET", "/requests")["requests"]
    assert (entry["path"], entry["key"]) == ("/api/v1/key", "free")
    control("DELETE", "/requests")
    assert control("GET", "/requests") == {"requests": []}
    control("POST", "/reset", {})
    assert sandbox.today == TODAY


def test_over_http_the_settings(sandbox: Sandbox, control: Control) -> None:
    control("PUT", "/settings", {"slow_seconds": 1.5, "analytics_row_limit": 20})
    assert (sandbox.settings.slow_seconds, sandbox.settings.analytics_row_limit) == (1.5, 20)
    assert control("GET", "/")["settings"]["analytics_per_minute"] == 64
    control("PUT", "/settings", {"speed": 1}, status=400)
    sandbox.reset()
    assert sandbox.settings.slow_seconds == 60


def test_over_http_the_keys(sandbox: Sandbox, control: Control) -> None:
    about = control("GET", "/")
    assert "lively-again" in about["keys"]
    assert "lively-again" not in about["accounts"]
    assert control("GET", "/keys/lively-again") == {
        "name": "lively-again",
        "key": key("lively-again"),
        "account": "lively",
        "account_id": sandbox.account("lively").id,
    }
    control("GET", "/keys/nobody", status=400)


def test_over_http_faults(control: Control, ask: Ask) -> None:
    control("POST", "/fault", {"key": "lively", "fault": "limited", "times": 1, "path": "/activity"})
    expected = {"lively": {"manner": "limited", "times": 1, "path": "/activity"}}
    assert control("GET", "/")["faults"] == expected
    assert [ask("/activity").status_code for _ in range(2)] == [429, 200]
    control("POST", "/fault", {"key": "lively", "fault": "down"})
    control("POST", "/fault", {"key": "lively", "fault": None})
    assert ask("/activity").status_code == 200


def test_over_http_the_books(sandbox: Sandbox, control: Control) -> None:
    where = {"account": "lively", "day": str(DAY)}
    asked = f"/truth?account=lively&first={DAY}&last={DAY}"
    before = control("GET", asked)
    assert Decimal(before["usage"]) == sandbox.truth("lively", DAY, DAY).usage
    assert isinstance(before["rows"][0]["usage"], str)
    control("POST", "/restate", {**where, "factor": "0.5"})
    assert Decimal(control("GET", asked)["usage"]) == Decimal(before["usage"]) / 2
    control("POST", "/remove-row", {**where, "index": 0})
    assert len(control("GET", asked)["rows"]) == len(before["rows"]) - 1
    control("POST", "/add-row", {**where, "row": {"model": "x/y", "usage": "0.000000001"}})
    assert control("GET", asked)["rows"][-1]["usage"] == "1E-9"
    control("POST", "/drop-day", where)
    assert control("GET", asked) == {"usage": "0", "byok_usage_inference": "0", "rows": []}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/fault", {"key": "lively", "fault": "sulk"}),
        ("/fault", {"key": "nobody", "fault": "down"}),
        ("/fault", {"fault": "down"}),
        ("/restate", {"account": "lively", "day": "soon", "factor": "2"}),
        ("/remove-row", {"account": "lively", "day": str(DAY), "index": 999}),
        ("/add-row", {"account": "lively", "day": str(DAY), "row": {"model": "x"}}),
        (
            "/add-row",
            {"account": "lively", "day": str(DAY), "row": {"model": "x", "usage": "1", "colour": 2}},
        ),
    ],
)
def test_over_http_mistakes_are_told(control: Control, path: str, body: object) -> None:
    assert control("POST", path, body, status=400)["error"]["message"]


def test_over_http_only_json_and_only_known_paths(sandbox: Sandbox, client: httpx.Client) -> None:
    plain = client.post(f"{sandbox.control_url}/fault", content='{"key": "lively", "fault": "down"}')
    assert plain.status_code == 400
    assert client.get(f"{sandbox.control_url}/nothing").status_code == 404
    assert client.get(f"{sandbox.control_url}/truth").status_code == 400
    assert sandbox.requests() == []
