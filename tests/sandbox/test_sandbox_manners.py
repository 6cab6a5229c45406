"""What each key name promises: refusals, faults, bad transports, replies of another shape."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import closing
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from grafient.sandbox import Sandbox, key
from grafient.sandbox.manners import ACCOUNTS, MANNERS, cast

TODAY = date(2026, 11, 22)  # as the fixture sandbox has it
Ask = Callable[..., httpx.Response]


def test_every_promised_name_exists() -> None:
    promised = """lively other lively-again organization empty today-only byok free large many-keys hostile
        old-flag no-flag no-flag-inference inference only-key revoked expired disabled no-analytics down
        bad-gateway cloudflare limited busy-once slow drip-headers drip-body cut redirect endless not-json
        misshapen wrong-types null-data deep bad-date new-field fewer-fields no-workspaces no-keys no-credits
        keys-down analytics-down analytics-silent analytics-off"""
    assert set(promised.split()) <= set(cast())


def test_every_manner_has_an_account_of_its_own() -> None:
    parts = cast()
    ids = {parts[name].account.id for name in MANNERS} | {account.id for account in ACCOUNTS}
    assert len(ids) == len(MANNERS) + len(ACCOUNTS)


@pytest.mark.parametrize("name", ["revoked", "expired", "disabled"])
def test_dead_keys(ask: Ask, name: str) -> None:
    for path in ("/auth/key", "/key", "/activity", "/credits", "/keys", "/workspaces"):
        response = ask(path, name)
        assert response.status_code == response.json()["error"]["code"] == 401
    assert ask("/auth/key", "revoked").json()["error"]["message"] == "User not found."


def test_an_inference_key_is_known_but_refused(ask: Ask) -> None:
    data = ask("/auth/key", "inference").json()["data"]
    assert data["is_management_key"] is data["is_provisioning_key"] is False
    assert data["usage"] > 0
    for path in ("/activity", "/keys", "/workspaces", "/analytics/meta"):
        assert ask(path, "inference").status_code == 403
    assert ask("/credits", "inference").status_code == 200


def test_old_and_missing_flags(ask: Ask) -> None:
    old = ask("/auth/key", "old-flag").json()["data"]
    assert old["is_provisioning_key"] is True
    assert "is_management_key" not in old
    assert "creator_user_id" not in old
    for name, status in (("no-flag", 200), ("no-flag-inference", 403)):
        data = ask("/auth/key", name).json()["data"]
        assert not {"is_management_key", "is_provisioning_key"} & set(data)
        assert ask("/activity", name).status_code == status


def test_only_key(ask: Ask) -> None:
    assert [ask(path, "only-key").status_code for path in ("/auth/key", "/key", "/activity")] == [
        404,
        200,
        200,
    ]


@pytest.mark.parametrize(("name", "status"), [("no-analytics", 404), ("analytics-forbidden", 403)])
def test_without_analytics(ask: Ask, name: str, status: int) -> None:
    assert ask("/analytics/meta", name).status_code == status
    query = ask("/analytics/query", name, method="POST", json={"metrics": ["request_count"]})
    assert query.status_code == status
    assert ask("/activity", name).status_code == 200


GETS = ("/auth/key", "/key", "/activity", "/credits", "/keys", "/workspaces", "/analytics/meta")


@pytest.mark.parametrize(
    ("name", "paths", "status"),
    [
        ("no-workspaces", ("/workspaces",), 404),
        ("no-keys", ("/keys", "/workspaces"), 403),
        ("no-credits", ("/credits",), 403),
        ("keys-down", ("/keys",), 503),
        ("analytics-down", ("/analytics/meta",), 503),
    ],
)
def test_without_some_endpoints(ask: Ask, name: str, paths: tuple[str, ...], status: int) -> None:
    replies = {path: ask(path, name) for path in GETS}
    assert {path: reply.status_code for path, reply in replies.items() if reply.status_code != 200} == dict.fromkeys(
        paths, status
    )
    kind = "text/html" if status == 503 else "application/json"
    assert all(replies[path].headers["Content-Type"].startswith(kind) for path in paths)


METRICS = ["total_usage", "credits_usage", "byok_usage", "request_count"]


def analytics(ask: Ask, name: str) -> dict[str, Any]:
    body = {"metrics": METRICS, "granularity": "day", "dimensions": ["model"]}
    response = ask("/analytics/query", name, method="POST", json=body)
    data: dict[str, Any] = json.loads(response.content, parse_float=Decimal)["data"]
    return data


def test_silent_analytics(sandbox: Sandbox, ask: Ask) -> None:
    sandbox.settings.analytics_row_limit = 5
    data = analytics(ask, "analytics-silent")
    assert data["data"] == []
    assert (data["metadata"]["row_count"], data["metadata"]["truncated"]) == (0, False)
    assert ask("/analytics/query", "analytics-silent", method="POST", json={"metrics": []}).status_code == 400
    assert ask("/analytics/meta", "analytics-silent").status_code == 200
    assert ask("/activity", "analytics-silent").json()["data"]


def test_analytics_that_differ(sandbox: Sandbox, ask: Ask) -> None:
    good, off = analytics(ask, "lively"), analytics(ask, "analytics-off")
    assert off["metadata"] == good["metadata"]
    for ours, theirs in zip(good["data"], off["data"], strict=True):
        assert {**theirs, **{name: ours[name] for name in METRICS[:3]}} == ours
        for name in METRICS[:3]:
            assert (theirs[name] is None) == (ours[name] is None)
            assert abs((theirs[name] or 0) - (ours[name] or 0) * Decimal("1.5")) <= Decimal("0.000001")
    assert {row["byok_usage"] is None for row in off["data"]} == {True, False}
    assert sum(row["total_usage"] for row in off["data"]) > sum(row["total_usage"] for row in good["data"])
    down = ask("/analytics/query", "analytics-down", method="POST", json={"metrics": ["request_count"]})
    assert down.status_code == 503


@pytest.mark.parametrize(("name", "status"), [("down", 500), ("timed-out", 408), ("limited", 429)])
def test_passing_faults_in_json(ask: Ask, name: str, status: int) -> None:
    for path in ("/auth/key", "/activity", "/credits"):
        response = ask(path, name)
        assert response.status_code == response.json()["error"]["code"] == status
    assert ask("/activity", "limited").headers["Retry-After"] == "120"


@pytest.mark.parametrize(("name", "status"), [("bad-gateway", 502), ("cloudflare", 403), ("not-json", 200)])
def test_passing_faults_in_html(ask: Ask, name: str, status: int) -> None:
    response = ask("/activity", name)
    assert response.status_code == status
    assert response.headers["Content-Type"].startswith("text/html")
    assert response.text.startswith("<!DOCTYPE html>")


def test_busy_once(sandbox: Sandbox, ask: Ask) -> None:
    assert [ask("/activity", "busy-once").status_code for _ in range(3)] == [503, 200, 200]
    sandbox.reset()
    assert ask("/activity", "busy-once").status_code == 503
    for _ in range(2):
        sandbox.fault("lively", "busy-once")
        assert [ask("/activity").status_code for _ in range(2)] == [503, 200]


def test_redirect_and_what_a_follower_gives_away(sandbox: Sandbox, ask: Ask) -> None:
    response = ask("/activity", "redirect")
    assert response.status_code == 302
    origin = sandbox.base_url.removesuffix("/api/v1")
    headers = {"Authorization": f"Bearer {key('redirect')}"}
    followed = httpx.get(origin + response.headers["Location"], headers=headers, trust_env=False)
    assert followed.status_code == 200
    seen = sandbox.requests()[-1]
    assert seen.path == "/elsewhere/activity"
    assert "authorization" in seen.headers
    assert seen.key == "redirect"


@pytest.fixture
def patient(sandbox: Sandbox) -> Sandbox:
    """Drips fast enough for a test."""
    sandbox.settings.drip_seconds, sandbox.settings.slow_seconds = 0.01, 0.3
    return sandbox


def raw(sandbox: Sandbox, name: str) -> socket.socket:
    """A connection on which one request has been sent."""
    port = urlsplit(sandbox.base_url).port
    connection = socket.create_connection(("127.0.0.1", port or 0), timeout=5)
    lines = ("GET /api/v1/activity HTTP/1.1", "Host: localhost", f"Authorization: Bearer {key(name)}", "", "")
    connection.sendall("\r\n".join(lines).encode())
    return connection


def receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        assert more, f"closed after {data!r}"
        data += more
    return data


def test_headers_that_never_end(patient: Sandbox) -> None:
    with closing(raw(patient, "drip-headers")) as connection:
        data = receive(connection, 40)
    assert data.startswith(b"HTTP/1.1 200 OK\r\nX-Trickle: .....")
    assert b"\r\n\r\n" not in data


def test_a_body_that_never_ends_slowly(patient: Sandbox) -> None:
    headers = {"Authorization": f"Bearer {key('drip-body')}"}
    with httpx.stream("GET", f"{patient.base_url}/activity", headers=headers, trust_env=False) as response:
        chunks = response.iter_bytes()
        assert response.status_code == 200
        assert b"".join(next(chunks) for _ in range(4)).startswith(b'{"data":[ ')


def test_a_body_that_never_ends_fast(sandbox: Sandbox) -> None:
    with closing(raw(sandbox, "endless")) as connection:
        assert len(receive(connection, 5_000_000)) == 5_000_000


def test_a_reply_cut_short(sandbox: Sandbox, client: httpx.Client) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(f"{sandbox.base_url}/activity", headers={"Authorization": f"Bearer {key('cut')}"})
    with closing(raw(sandbox, "cut")) as connection:
        data = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    assert 0 < len(body) < int(length.split(b":")[1])


def test_slow_says_nothing_for_a_while(patient: Sandbox, ask: Ask) -> None:
    headers = {"Authorization": f"Bearer {key('slow')}"}
    timeout = httpx.Timeout(5, read=0.05)
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{patient.base_url}/activity", headers=headers, timeout=timeout, trust_env=False)
    assert ask("/activity", "slow").status_code == 504


def test_stopping_ends_what_drips() -> None:
    sandbox = Sandbox(today=TODAY).start()
    with closing(raw(sandbox, "slow")) as connection:
        receive_after_stop = connection.recv
        while not sandbox.requests():
            pass
        sandbox.stop()
        assert receive_after_stop(12) == b"HTTP/1.1 504"


def test_shapes_that_break_a_parser(ask: Ask) -> None:
    assert ask("/activity", "null-data").json() == {"data": None}
    with pytest.raises(RecursionError):
        json.loads(ask("/activity", "deep").content)
    renamed = ask("/activity", "misshapen").json()["data"][0]
    assert "usage" not in renamed
    assert renamed["cost"] > 0
    assert ask("/activity", "wrong-types").json()["data"][0]["usage"] == "abc"
    assert ask("/activity", "bad-date").json()["data"][0]["date"] == "31/02/2026"
    assert "\x00" in ask("/activity", "nul-name").json()["data"][0]["model"]
    for name in ("misshapen", "wrong-types", "bad-date", "nul-name"):
        assert ask("/auth/key", name).json()["data"]["is_management_key"] is True


def test_shapes_that_should_not(sandbox: Sandbox, ask: Ask) -> None:
    new, fewer = ask("/activity", "new-field"), ask("/activity", "fewer-fields")
    assert {"audio_tokens", "region"} <= set(new.json()["data"][0])
    assert "meta" in new.json()
    assert "service_tier" in ask("/auth/key", "new-field").json()["data"]
    assert not {"cached_tokens", "byok_requests", "model"} & set(fewer.json()["data"][0])
    truth = sandbox.truth("lively", TODAY - timedelta(days=30), TODAY - timedelta(days=1)).usage
    for response in (new, fewer):
        rows = json.loads(response.content, parse_float=Decimal)["data"]
        assert sum(row["usage"] for row in rows) == truth


def test_no_manner_is_an_error_of_our_own(ask: Ask) -> None:
    for name in sorted(set(MANNERS) - {"drip-headers", "drip-body", "endless", "cut", "down", "slow"}):
        assert ask("/auth/key", name).status_code != 500
