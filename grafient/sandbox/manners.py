"""How a key's requests are answered when not as they should be, and who plays what.

Every manner is the default of the key of the same name and can be put on any other key as a fault. There are
four sorts: what a key may do (`inference`, `revoked` ...), passing faults of the server (`down`, `limited`
...), transports that misbehave (`drip-body`, `cut` ...), and replies of another shape (`misshapen` ...).
Those that change rows leave other paths than `/activity` alone, and those called after an endpoint
(`no-keys`, `analytics-down` ...) all paths but its own.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal

import msgspec
from werkzeug.wrappers import Response

from grafient.sandbox.account import Account
from grafient.sandbox.api import Call, Payload, inference_key_info
from grafient.sandbox.state import Part
from grafient.sandbox.wire import ProviderError, html, reply, rounded_money

Answer = Callable[[Call], Payload]
Manner = Callable[[Call, Answer], Payload | Response]

KEY_PATHS = ("/auth/key", "/key")
ANALYTICS_PATHS = ("/analytics/meta", "/analytics/query")
MANAGEMENT_ONLY = "Only management keys can perform this operation"
ENDLESS_CHUNK = b'{"date":"2026-01-01 00:00:00","model":"endless","usage":0.000001},' * 1_000
DEPTH = 100_000
USAGE_METRICS = ("credits_usage", "byok_usage", "total_usage")


def _refuse(status: int, message: str, **headers: str) -> Manner:
    def manner(call: Call, answer: Answer) -> Payload:
        raise ProviderError(status, message, {name.replace("_", "-"): value for name, value in headers.items()})

    return manner


def _page(status: int, title: str) -> Manner:
    return lambda call, answer: html(status, title)


def _at(paths: tuple[str, ...], manner: Manner) -> Manner:
    """That manner on these paths alone."""
    return lambda call, answer: manner(call, answer) if call.path in paths else answer(call)


# what a key may do


def _old_flag(call: Call, answer: Answer) -> Payload:
    """The reply of years ago: one flag under its old name, no ids."""
    if call.path not in KEY_PATHS:
        return answer(call)
    rate_limit = {"requests": 200, "interval": "10s"}
    old = {"label": "Old management key", "usage": 0, "limit": None, "is_free_tier": False}
    return {"data": {**old, "is_provisioning_key": True, "rate_limit": rate_limit}}


def _no_flag(call: Call, answer: Answer) -> Payload:
    payload = answer(call)
    data = payload["data"]
    if call.path in KEY_PATHS and isinstance(data, dict):
        data = {k: v for k, v in data.items() if k not in ("is_management_key", "is_provisioning_key")}
    return {**payload, "data": data}


def _inference(call: Call, answer: Answer) -> Payload:
    """A working key that is none for management. It may read its account's credits, as live ones can."""
    if call.path in KEY_PATHS:
        return inference_key_info(call)
    if call.path == "/activity":
        raise ProviderError(403, "Only management keys can fetch activity for an account")
    if call.path != "/credits":
        raise ProviderError(403, MANAGEMENT_ONLY)
    return answer(call)


def _no_flag_inference(call: Call, answer: Answer) -> Payload:
    return _no_flag(call, lambda same: _inference(same, answer))


def _only_key(call: Call, answer: Answer) -> Payload:
    if call.path == "/auth/key":
        raise ProviderError(404, "Not Found")
    return answer(call)


# transports that misbehave


def _busy_once(call: Call, answer: Answer) -> Payload:
    if call.state.first_time(call.name, "busy-once"):
        raise ProviderError(503, "Service temporarily unavailable", {"Retry-After": "1"})
    return answer(call)


def _slow(call: Call, answer: Answer) -> Response:
    call.state.stopping.wait(call.state.settings.slow_seconds)
    return html(504, "504 Gateway Time-out")


def _drip_headers(call: Call, answer: Answer) -> Response:
    """A header that never ends, written past WSGI, which can only send headers whole."""
    connection = call.request.environ.get("werkzeug.socket")
    if isinstance(connection, socket.socket):
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Trickle: ")
        while not call.state.stopping.wait(call.state.settings.drip_seconds):
            connection.sendall(b".")
    raise ConnectionAbortedError


def _drip_body(call: Call, answer: Answer) -> Response:
    def body() -> Iterator[bytes]:
        yield b'{"data":['
        while not call.state.stopping.wait(call.state.settings.drip_seconds):
            yield b" "

    return Response(body(), content_type="application/json")


def _cut(call: Call, answer: Answer) -> Response:
    """Half of a good reply under the whole one's Content-Length, then a closed connection."""
    whole = reply(answer(call)).get_data()
    headers = {"Content-Length": str(len(whole))}
    return Response(iter([whole[: len(whole) // 2]]), headers=headers, content_type="application/json")


def _endless(call: Call, answer: Answer) -> Response:
    def body() -> Iterator[bytes]:
        yield b'{"data":['
        while not call.state.stopping.is_set():
            yield ENDLESS_CHUNK

    return Response(body(), content_type="application/json")


def _redirect(call: Call, answer: Answer) -> Response:
    """To a path that answers well, so that a client that follows notices nothing; the log does."""
    return Response(status=302, headers={"Location": f"/elsewhere{call.path}"})


# replies of another shape


def _deep(call: Call, answer: Answer) -> Response:
    body = b'{"data":' + b"[" * DEPTH + b"]" * DEPTH + b"}"
    return Response(body, content_type="application/json")


def _null_data(call: Call, answer: Answer) -> Payload:
    return {"data": None}


def _activity_rows(change: Callable[[Payload], Payload], *, first_only: bool = False) -> Manner:
    def manner(call: Call, answer: Answer) -> Payload:
        payload = answer(call)
        rows = payload["data"]
        if call.path != "/activity" or not isinstance(rows, list):
            return payload
        changed = [row if first_only and number else change(row) for number, row in enumerate(rows)]
        return {**payload, "data": changed}

    return manner


def _renamed_usage(row: Payload) -> Payload:
    return {("cost" if field == "usage" else field): value for field, value in row.items()}


def _with_new_fields(row: Payload) -> Payload:
    return {**row, "audio_tokens": 0, "service_tier": None, "region": {"code": "eu", "zones": [1, 2]}}


def _with_fewer_fields(row: Payload) -> Payload:
    return {k: v for k, v in row.items() if k not in ("cached_tokens", "byok_requests", "model")}


def _new_field(call: Call, answer: Answer) -> Payload:
    """Unknown fields everywhere: beside `data`, in the key's information, in each row."""
    payload = {**_activity_rows(_with_new_fields)(call, answer), "meta": {"version": 2}}  # type: ignore[dict-item]
    data = payload["data"]
    return {**payload, "data": _with_new_fields(data)} if isinstance(data, dict) else payload


def _analytics_silent(call: Call, answer: Answer) -> Payload:
    data = answer(call)["data"]
    assert isinstance(data, dict)
    metadata = {**data["metadata"], "row_count": 0, "truncated": False}
    return {"data": {**data, "data": [], "metadata": metadata}}


def _analytics_off(call: Call, answer: Answer) -> Payload:
    """All money that is known times 1.5: more than the books say."""
    data = answer(call)["data"]
    assert isinstance(data, dict)
    rows = [
        row | {name: _times_1_5(row[name]) for name in USAGE_METRICS if row.get(name) is not None}
        for row in data["data"]
    ]
    return {"data": {**data, "data": rows}}


def _times_1_5(amount: object) -> msgspec.Raw | int:
    text = bytes(amount).decode() if isinstance(amount, msgspec.Raw) else str(amount)
    return rounded_money(Decimal(text) * Decimal("1.5"))


MANNERS: dict[str, Manner] = {
    "old-flag": _old_flag,
    "no-flag": _no_flag,
    "no-flag-inference": _no_flag_inference,
    "inference": _inference,
    "only-key": _only_key,
    "revoked": _refuse(401, "User not found."),
    "expired": _refuse(401, "API key expired"),
    "disabled": _refuse(401, "API key disabled"),
    "no-analytics": _at(ANALYTICS_PATHS, _refuse(404, "Not Found")),
    "analytics-forbidden": _at(ANALYTICS_PATHS, _refuse(403, MANAGEMENT_ONLY)),
    "no-workspaces": _at(("/workspaces",), _refuse(404, "Not Found")),
    "no-keys": _at(("/keys", "/workspaces"), _refuse(403, MANAGEMENT_ONLY)),
    "no-credits": _at(("/credits",), _refuse(403, MANAGEMENT_ONLY)),
    "down": _refuse(500, "Internal Server Error"),
    "timed-out": _refuse(408, "Operation timed out. Please try again later."),
    "limited": _refuse(429, "Rate limit exceeded", Retry_After="120"),
    "bad-gateway": _page(502, "502 Bad Gateway"),
    "cloudflare": _page(403, "Attention Required! | Cloudflare"),
    "not-json": _page(200, "We'll be right back"),
    "analytics-down": _at(ANALYTICS_PATHS, _page(503, "503 Service Temporarily Unavailable")),
    "keys-down": _at(("/keys",), _page(503, "503 Service Temporarily Unavailable")),
    "busy-once": _busy_once,
    "slow": _slow,
    "drip-headers": _drip_headers,
    "drip-body": _drip_body,
    "cut": _cut,
    "redirect": _redirect,
    "endless": _endless,
    "deep": _deep,
    "null-data": _null_data,
    "misshapen": _activity_rows(_renamed_usage),
    "wrong-types": _activity_rows(lambda row: {**row, "usage": "abc"}),
    "bad-date": _activity_rows(lambda row: {**row, "date": "31/02/2026"}),
    "nul-name": _activity_rows(lambda row: {**row, "model": "vendor/\x00model"}, first_only=True),
    "analytics-silent": _at(("/analytics/query",), _analytics_silent),
    "analytics-off": _at(("/analytics/query",), _analytics_off),
    "new-field": _new_field,
    "fewer-fields": _activity_rows(_with_fewer_fields),
}

ACCOUNTS: tuple[Account, ...] = (
    Account("lively", "lively"),
    Account("other", "other", time_column="created_at", counts_as_text=False),
    Account("organization", "organization", organization_id="org_2sandboxorganization00001"),
    Account("empty", "empty", "empty"),
    Account("today-only", "today-only", "today-only"),
    Account("byok", "byok", "byok"),
    Account("free", "free", "free"),
    Account("large", "large", "large", opened=date(2026, 9, 1)),
    Account("many-keys", "many-keys", "many-keys"),
    Account("hostile", "hostile", "hostile", overdrawn=True),
)


def cast(crowd: int = 0) -> dict[str, Part]:
    """Every key name and what it plays; `crowd` adds that many ordinary accounts, `crowd-1` and so on."""
    parts = {account.name: Part(account) for account in ACCOUNTS}
    parts["lively-again"] = parts["lively"]
    parts |= {name: Part(Account(name, "lively"), name) for name in MANNERS}
    names = [f"crowd-{number}" for number in range(1, crowd + 1)]
    return parts | {name: Part(Account(name, name)) for name in names}
