"""OpenRouter as it really behaves: keys and /activity, each trap of them, over HTTP."""

from __future__ import annotations

import base64
import contextlib
import gzip
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from grafient.providers import (
    PROVIDERS,
    KeyCannotReadCosts,
    KeyRejected,
    ProviderError,
    UnexpectedResponse,
    Unreachable,
)
from grafient.providers.openrouter import OpenRouter
from grafient.providers.openrouter.calls import http_date
from grafient.sandbox import Sandbox
from tests.certificates import self_signed
from tests.syncing import at


@pytest.mark.parametrize("value", ["", "x", "Fri, 31 Dec 9999 23:59:59 -0100", "Mon, 00 Foo 2026", "0"])
def test_a_wild_date_in_a_header_is_no_date(value: str) -> None:
    assert http_date(value) is None


class TestCheckKey:
    def test_a_management_key_that_looks_like_any_other(self, provider: OpenRouter, sandbox: Sandbox) -> None:
        info = provider.check_key(sandbox.key("lively"))
        assert info.account_ref == sandbox.account("lively").id
        assert sandbox.key("lively").startswith("sk-or-v1-")

    def test_two_keys_of_one_account_have_one_reference(self, provider: OpenRouter, sandbox: Sandbox) -> None:
        references = {provider.check_key(sandbox.key(name)).account_ref for name in ("lively", "lively-again", "other")}
        assert len(references) == 2

    @pytest.mark.parametrize("name", ["old-flag", "no-flag", "only-key", "organization", "new-field"])
    def test_other_replies_of_a_management_key(self, provider: OpenRouter, sandbox: Sandbox, name: str) -> None:
        provider.check_key(sandbox.key(name))

    @pytest.mark.parametrize("name", ["inference", "no-flag-inference"])
    def test_an_inference_key_gets_200_and_is_refused(self, provider: OpenRouter, sandbox: Sandbox, name: str) -> None:
        with pytest.raises(KeyCannotReadCosts, match="This is a regular inference key"):
            provider.check_key(sandbox.key(name))

    @pytest.mark.parametrize("name", ["revoked", "expired", "disabled", "unknown"])
    def test_a_key_that_is_not_known(self, provider: OpenRouter, sandbox: Sandbox, name: str) -> None:
        key = "sk-or-v1-" + "0" * 64 if name == "unknown" else sandbox.key(name)
        with pytest.raises(KeyRejected, match="OpenRouter does not know this key") as caught:
            provider.check_key(key)
        assert not isinstance(caught.value, KeyCannotReadCosts)
        assert "User not found" not in str(caught.value)

    @pytest.mark.parametrize("name", ["down", "bad-gateway", "cloudflare", "not-json", "cut", "redirect"])
    def test_a_fault_is_no_verdict_on_the_key(self, provider: OpenRouter, sandbox: Sandbox, name: str) -> None:
        with pytest.raises(Unreachable, match=r"could not be reached|returned an error"):
            provider.check_key(sandbox.key(name))

    def test_a_limit_is_said_and_not_waited_for(self, provider: OpenRouter, sandbox: Sandbox) -> None:
        with pytest.raises(Unreachable, match="is rate-limiting; try again in 2 minutes") as caught:
            provider.check_key(sandbox.key("limited"))
        assert caught.value.retry_after == 120

    @pytest.mark.parametrize("name", ["slow", "drip-headers", "drip-body", "endless"])
    def test_it_answers_within_ten_seconds_whatever_happens(
        self, provider: OpenRouter, sandbox: Sandbox, name: str
    ) -> None:
        started = time.monotonic()
        with pytest.raises(ProviderError):
            provider.check_key(sandbox.key(name))
        assert time.monotonic() - started < 10

    def test_what_was_used_lately_is_answered_in_that_time_too(
        self, provider: OpenRouter, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("grafient.providers.openrouter.CHECK_SECONDS", 1.0)
        started = time.monotonic()
        with pytest.raises(Unreachable):
            provider.recent_activity(sandbox.key("drip-body"))
        assert time.monotonic() - started < 3

    def test_a_name_that_does_not_resolve_ends_in_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        released = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(30))
        monkeypatch.setattr("grafient.providers.openrouter.CHECK_SECONDS", 0.5)
        provider = OpenRouter("https://openrouter.example/api/v1")
        with pytest.raises(Unreachable):
            provider.check_key("sk-or-v1-x")
        released.set()
        provider.client.close()


class TestFetch:
    @pytest.fixture(autouse=True)
    def _at_noon(self) -> Iterator[None]:
        """In the last minutes of a day the window's first day is about to leave it, and is not asked for."""
        with at():
            yield

    def test_the_whole_window_in_one_reply(self, provider: OpenRouter, sandbox: Sandbox) -> None:
        activity = provider.reader(sandbox.key("lively")).activity()
        today = sandbox.today
        assert (activity.first_day, activity.last_day) == (today - timedelta(days=30), today - timedelta(days=1))
        truth = sandbox.truth("lively", activity.first_day, activity.last_day)
        assert sum(line.usage_usd for line in activity.lines()) == truth.usage
        assert {line.day for line in activity.lines()} <= {today - timedelta(days=n) for n in range(1, 31)}

    @pytest.mark.parametrize("name", ["empty", "today-only"])
    def test_no_usage_is_no_lines(self, provider: OpenRouter, sandbox: Sandbox, name: str) -> None:
        assert provider.reader(sandbox.key(name)).activity().lines() == []

    def test_hostile_names_and_repeats_come_through(self, provider: OpenRouter, sandbox: Sandbox) -> None:
        activity = provider.reader(sandbox.key("hostile")).activity()
        truth = sandbox.truth("hostile", activity.first_day, activity.last_day)
        difference = sum(line.usage_usd for line in activity.lines()) - truth.usage
        assert abs(difference) < Decimal("1E-12"), "one row is finer than 12 decimals"

    @pytest.mark.parametrize("name", ["fewer-fields", "byok", "free", "organization"])
    def test_other_accounts(self, provider: OpenRouter, sandbox: Sandbox, name: str) -> None:
        activity = provider.reader(sandbox.key(name)).activity()
        truth = sandbox.truth(name, activity.first_day, activity.last_day)
        assert sum(line.usage_usd for line in activity.lines()) == truth.usage

    def test_a_fault_that_passes_is_retried_within_the_call(self, provider: OpenRouter, sandbox: Sandbox) -> None:
        sandbox.fault("lively", "down", times=2)
        assert provider.reader(sandbox.key("lively")).activity().lines()

    def test_retry_after_is_honoured_when_it_fits(self, provider: OpenRouter, sandbox: Sandbox) -> None:
        assert provider.reader(sandbox.key("busy-once")).activity().lines()

    def test_a_redirect_is_not_followed_with_the_key(self, provider: OpenRouter, sandbox: Sandbox) -> None:
        with pytest.raises(Unreachable):
            provider.reader(sandbox.key("redirect")).activity()
        assert not [r for r in sandbox.requests() if r.path.startswith("/elsewhere")]

    def test_nothing_but_reading_is_ever_sent(self, provider: OpenRouter, sandbox: Sandbox) -> None:
        provider.check_key(sandbox.key("lively"))
        provider.reader(sandbox.key("lively")).activity()
        log = sandbox.requests()
        assert {r.method for r in log} == {"GET"}
        assert not any(r.query for r in log), "the whole window: asking for a day outside of it is an error"

    def test_silence_speaks_only_for_days_in_the_window_by_every_clock(
        self, provider: OpenRouter, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ahead = datetime.now(UTC) + timedelta(days=1)
        monkeypatch.setattr("grafient.providers.openrouter._server_clock", lambda _: [ahead])
        activity = provider.reader(sandbox.key("lively")).activity()
        assert activity.first_day == ahead.date() - timedelta(days=30)
        assert activity.last_day == sandbox.today - timedelta(days=1)


def test_a_body_that_does_not_end_is_cut(
    provider: OpenRouter, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grafient.providers.http.MAX_BODY_BYTES", 100_000)
    with pytest.raises(UnexpectedResponse, match="larger than Grafient can read"):
        provider.reader(sandbox.key("endless")).activity()


class _Packed(BaseHTTPRequestHandler):
    """Answers every request with a gzip of ``said``, and a cookie."""

    said = b""
    encoding = "gzip"
    heard: list[Message] = []
    ports: list[int] = []
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.heard.append(self.headers)
        self.ports.append(self.client_address[1])
        self.send_response(200)
        packed = gzip.compress(self.said)
        for header in (
            ("Content-Encoding", self.encoding),
            ("Set-Cookie", "who=me"),
            ("Content-Length", str(len(packed))),
        ):
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(packed)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenRouter]:
    monkeypatch.setattr(_Packed, "heard", [])
    monkeypatch.setattr(_Packed, "ports", [])
    monkeypatch.setattr(_Packed, "said", b'{"data": {"total_usage": 0.25, "note": "%s"}}' % (b"x" * 50_000))
    with ThreadingHTTPServer(("127.0.0.1", 0), _Packed) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        made = OpenRouter(f"http://127.0.0.1:{server.server_address[1]}")
        yield made
        made.client.close()
        server.shutdown()


def test_a_compressed_reply_is_read_and_its_cookie_is_sent_to_nobody(packed: OpenRouter) -> None:
    for key in ("sk-or-v1-one", "sk-or-v1-other"):
        assert packed.reader(key).credits().used_usd == Decimal("0.25")
    assert [headers["Authorization"] for headers in _Packed.heard] == ["Bearer sk-or-v1-one", "Bearer sk-or-v1-other"]
    assert [headers["Cookie"] for headers in _Packed.heard] == [None, None]


def test_a_connection_is_used_again_unless_the_server_has_closed_it(
    packed: OpenRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Packed, "timeout", 0.3)
    reader = packed.reader("sk-or-v1-one")
    for _ in range(3):
        reader.credits()
    assert len(set(_Packed.ports)) == 1
    time.sleep(0.6)
    reader.credits()
    assert len(set(_Packed.ports)) == 2
    monkeypatch.setattr(_Packed, "timeout", 30)  # none is closed while a slow machine lets a thread wait
    with ThreadPoolExecutor(8) as threads:
        for _ in threads.map(lambda _: reader.credits(), range(80)):
            pass
    assert len(_Packed.ports) == 84
    assert len(set(_Packed.ports)) <= 2 + 8


def test_a_connection_that_broke_off_is_not_used_again(packed: OpenRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = packed.reader("sk-or-v1-one")
    reader.credits()
    with monkeypatch.context() as patch:
        patch.setattr("grafient.providers.http.MAX_BODY_BYTES", 10)
        with pytest.raises(UnexpectedResponse):
            reader.credits()
    assert reader.credits().used_usd == Decimal("0.25")
    assert len(set(_Packed.ports)) == 2


def test_a_small_reply_that_unpacks_to_too_much_is_cut(packed: OpenRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grafient.providers.http.MAX_BODY_BYTES", 10_000)
    with pytest.raises(UnexpectedResponse, match="larger than Grafient can read"):
        packed.reader("sk-or-v1-one").credits()


def test_a_reply_that_does_not_unpack_was_garbled(packed: OpenRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip, "compress", lambda _: b"not gzip")
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(Unreachable, match="could not be reached"):
        packed.reader("sk-or-v1-one").credits()


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "deflate", "zstd", "gzip,identity"])
def test_a_reply_in_any_other_encoding_than_one_gzip_is_not_unpacked(
    packed: OpenRouter, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(_Packed, "encoding", encoding)
    monkeypatch.setattr(_Packed, "said", gzip.compress(_Packed.said))
    with pytest.raises(Unreachable, match="could not be reached"):
        packed.reader("sk-or-v1-one").credits()


KEY = "sk-or-v1-" + "0123456789abcdef" * 4


def repeated(packed: OpenRouter, monkeypatch: pytest.MonkeyPatch, echo: str) -> str:
    """The label of a key, from a server that repeats the key in it."""
    data = f'{{"data": {{"usage": 1, "label": "It is {echo}!", "is_management_key": true, "total_usage": 1}}}}'
    monkeypatch.setattr(_Packed, "said", data.encode())
    label = packed.check_key(KEY).label
    assert label is not None
    return label


@pytest.mark.parametrize(
    "echo",
    [
        KEY,
        KEY.removeprefix("sk-or-v1-"),
        "".join(f"\\u{ord(letter):04x}" for letter in KEY),
        "".join(f"\\u{ord(letter):04X}" for letter in KEY),
        KEY.replace("a", "\\u0061"),
        KEY.replace("sk-or", "\\u0073k-or"),
    ],
)
def test_a_key_that_a_server_repeats_is_read_by_nobody(
    packed: OpenRouter, monkeypatch: pytest.MonkeyPatch, echo: str
) -> None:
    label = repeated(packed, monkeypatch, echo)
    assert label.replace("sk-or-v1-", "") == "It is [key]!"
    reader = packed.reader(KEY)
    reader.credits()
    (reply,) = reader.take_replies()
    assert KEY[9:].encode() not in reply.body
    assert KEY[9:] not in msgspec.json.decode(reply.body)["data"]["label"]


def test_no_tls_older_than_1_2_is_spoken(provider: OpenRouter) -> None:
    assert provider.client._tls.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert provider.client._tls.verify_mode is ssl.CERT_REQUIRED
    assert provider.client._tls.check_hostname


@pytest.mark.parametrize(
    "echo",
    [
        *(base64.b64encode(f"{before}{KEY}!".encode()).decode() for before in ("", "x", "Bearer ")),
        KEY.encode().hex(),
        KEY.encode().hex().upper(),
        "".join(f"%{ord(letter):02x}" for letter in KEY),
        "".join(f"%{ord(letter):02X}" for letter in KEY),
    ],
)
def test_a_key_that_a_server_repeats_in_another_spelling_is_gone(
    packed: OpenRouter, monkeypatch: pytest.MonkeyPatch, echo: str
) -> None:
    label = repeated(packed, monkeypatch, echo)
    assert "[key]" in label
    left = label.replace("It is ", "").replace("[key]", "").replace("!", "")
    assert len(left) <= len(echo) // 3, "its beginning, which all keys have, and what was around it"


def test_a_certificate_that_can_not_be_verified_gets_no_key(tmp_path: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(self_signed(tmp_path))
    heard: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError), tls.wrap_socket(self.request, server_side=True) as outer:
                heard.append(outer.recv(65536))

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        provider = OpenRouter(f"https://127.0.0.1:{server.server_address[1]}")
        with pytest.raises(Unreachable):
            provider.check_key("sk-or-v1-x")
        server.shutdown()
        provider.client.close()
    assert heard == []


@pytest.mark.parametrize("name", ["revoked", "inference", "down", "null-data", "cloudflare"])
def test_the_key_is_in_no_error_and_no_repr(provider: OpenRouter, sandbox: Sandbox, name: str) -> None:
    key = sandbox.key(name)
    for call in (provider.check_key, lambda key: provider.reader(key).activity()):
        with pytest.raises(ProviderError) as caught:
            call(key)
        assert key not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
    assert key not in repr(provider)


@pytest.mark.parametrize("provider_class", PROVIDERS.values())
def test_every_provider_keeps_the_contract(provider_class: type[OpenRouter]) -> None:
    made = provider_class()
    assert PROVIDERS[made.slug] is provider_class
    assert made.name
    assert made.key_name
    assert made.key_url.startswith("https://")
    made.client.close()
