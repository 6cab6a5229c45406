"""The one way out: a shared HTTP client that only reads, never follows a redirect, and ends on time.

HTTP libraries bound each single read, so that a server which sends a byte now and then could hold a caller for ever.
Here a deadline bounds the whole exchange, from looking up the name to the last byte, wherever the other side dawdles.
It is kept by the network below httpcore's connections. httpx, the usual way to these, has no public way to say so, took
half of a request's processor, and would have sent the cookies of one account's replies with another's key.
"""

from __future__ import annotations

import queue
import ssl
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

import httpcore
import httpx

MAX_BODY_BYTES = 64 * 1024 * 1024
"""About six times what the largest account measured so far sends (10,000 rows)."""

_deadline: ContextVar[float] = ContextVar("deadline")


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Bound every exchange inside the block, together, to that many seconds from now."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def remaining() -> float:
    """Seconds left of the innermost ``within``."""
    return _deadline.get() - time.monotonic()


class TimedOut(Exception):
    """The deadline has passed."""


class NoReply(Exception):
    """There is no connection, or what came over it is no whole reply in HTTP."""


class BodyTooLarge(Exception):
    """The body went on past MAX_BODY_BYTES."""


class Reply:
    """A whole reply: ``status``, ``headers``, ``body`` (decoded from its content encoding)."""

    def __init__(self, status: int, headers: httpx.Headers, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


class ReadingClient:
    """GET, and POST that only asks, over shared connections, for any number of threads; as many connections as threads.

    Making the TLS context costs 30 to 43 ms of processor, so there is one client for a process. httpcore's own pool
    looks at each of its connections for each request that waits, at the beginning and the end of every request: with a
    hundred threads that was 3 of the 10 ms of a sync.
    """

    def __init__(self) -> None:
        self._tls = httpx.create_ssl_context()
        self._network = _DeadlineBackend()
        self._idle: deque[tuple[httpcore.Origin, httpcore.HTTPConnection]] = deque()

    def get(self, url: str, *, bearer: str, params: dict[str, str] | None = None) -> Reply:
        """Fetch inside a ``within`` block. Raises TimedOut, NoReply or BodyTooLarge."""
        return self._send("GET", _with_query(_url(url), params) if params else _url(url), _headers(bearer), None)

    def ask(self, url: str, *, bearer: str, question: bytes) -> Reply:
        """The same for an address that takes its question, in JSON, in a POST."""
        headers = [*_headers(bearer), (b"Content-Type", b"application/json")]
        return self._send("POST", _url(url), headers, question)

    def _send(self, method: str, url: httpcore.URL, headers: list[tuple[bytes, bytes]], content: bytes | None) -> Reply:
        timeout = dict.fromkeys(("connect", "read", "write"), max(remaining(), 0.001))
        try:
            with (
                self._connection(url.origin) as connection,
                connection.stream(
                    method, url, headers=headers, content=content, extensions={"timeout": timeout}
                ) as response,
            ):
                found = httpx.Headers(response.headers)
                return Reply(response.status, found, _body(response, found.get("Content-Encoding", "")))
        except httpcore.TimeoutException as error:
            raise TimedOut(str(error)) from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, zlib.error) as error:
            raise NoReply(str(error)) from None

    @contextmanager
    def _connection(self, origin: httpcore.Origin) -> Iterator[httpcore.HTTPConnection]:
        """The connection that was used last, of those that nobody uses, or a new one."""
        connection = self._used_last(origin) or httpcore.HTTPConnection(
            origin, self._tls, keepalive_expiry=15.0, network_backend=self._network
        )
        try:
            yield connection
        finally:
            if connection.is_idle() and not connection.is_closed():
                self._idle.append((origin, connection))
            else:
                connection.close()

    def _used_last(self, origin: httpcore.Origin) -> httpcore.HTTPConnection | None:
        with suppress(IndexError):
            while True:
                to, connection = self._idle.pop()
                if to == origin and not connection.has_expired():
                    return connection
                connection.close()
        return None

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop()[1].close()


def _headers(bearer: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"User-Agent", b"Grafient"),
        (b"Accept", b"application/json"),
        (b"Accept-Encoding", b"gzip"),
        (b"Authorization", b"Bearer " + bearer.encode()),
    ]


@lru_cache(64)
def _url(url: str) -> httpcore.URL:
    parts = httpx.URL(url)
    return httpcore.URL(scheme=parts.raw_scheme, host=parts.raw_host, port=parts.port, target=parts.raw_path)


def _with_query(url: httpcore.URL, params: dict[str, str]) -> httpcore.URL:
    target = url.target + b"?" + urlencode(params).encode()
    return httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=target)


def _body(response: httpcore.Response, encoding: str) -> bytes:
    """The decoded body, of which no more than may be is ever in memory. Raises BodyTooLarge and zlib.error."""
    decoder = zlib.decompressobj(wbits=31) if encoding.lower() in ("gzip", "x-gzip") else None
    body = bytearray()
    for chunk in response.iter_stream():
        body += decoder.decompress(chunk, MAX_BODY_BYTES + 1) if decoder else chunk
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLarge
    return bytes(body)


class _DeadlineBackend(httpcore.NetworkBackend):
    def __init__(self) -> None:
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect from a thread of its own: looking up a name can't be interrupted, only left behind."""
        seconds = _shorter(timeout)
        answer: queue.SimpleQueue[httpcore.NetworkStream | Exception] = queue.SimpleQueue()

        def connect() -> None:
            try:
                answer.put(self._inner.connect_tcp(host, port, seconds, local_address, socket_options))
            except Exception as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
                answer.put(error)

        threading.Thread(target=connect, daemon=True).start()
        try:
            result = answer.get(timeout=seconds)
        except queue.Empty:
            raise httpcore.ConnectTimeout from None
        if isinstance(result, Exception):
            raise result
        return _DeadlineStream(result)

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _shorter(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _shorter(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _DeadlineStream(self._inner.start_tls(ssl_context, server_hostname, _shorter(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _shorter(timeout: float | None) -> float:
    left = remaining()
    if left <= 0:
        raise httpcore.ReadTimeout("the deadline has passed")
    return left if timeout is None else min(left, timeout)
