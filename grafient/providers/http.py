"""The way to providers: a shared HTTP client that only reads, never follows a redirect, and ends on time.

httpx bounds each single read, so that a server which sends a byte now and then could hold a caller for ever. Here a
deadline bounds the whole exchange, from looking up the name to the last byte, wherever the other side dawdles.
"""

from __future__ import annotations

import math
import queue
import ssl
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpcore
import httpx

MAX_BODY_BYTES = 64 * 1024 * 1024
"""About six times what the largest account measured so far sends (10,000 rows)."""

_deadline: ContextVar[float] = ContextVar("deadline")


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Bound every exchange inside the block, together, to that many seconds from now, or to what is left of a block
    around it."""
    token = _deadline.set(min(time.monotonic() + seconds, _deadline.get(math.inf)))
    try:
        yield
    finally:
        _deadline.reset(token)


def remaining() -> float:
    """Seconds left of the innermost ``within``."""
    return _deadline.get() - time.monotonic()


class BodyTooLarge(Exception):
    """The body went on past MAX_BODY_BYTES."""


class Reply:
    """A whole reply: ``status``, ``headers``, ``body`` (decoded from its content encoding)."""

    def __init__(self, status: int, headers: httpx.Headers, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


class ReadingClient:
    """GET, and POST that only asks, for any number of threads.

    Making the TLS context costs 30 to 43 ms of processor, so there is one client for a process. It has as many
    connections as threads that ask at once, each in an httpx client of its own, and takes the one that was used last: a
    pool looks at all of its connections at the beginning and the end of each request, and with a hundred threads that
    took 3 ms of a sync's 10.
    """

    def __init__(self) -> None:
        self._tls = httpx.create_ssl_context()
        self._idle: deque[httpx.Client] = deque()

    def get(self, url: str, *, bearer: str, params: dict[str, str] | None = None) -> Reply:
        """Fetch inside a ``within`` block. Raises httpx.TransportError, httpx.DecodingError or BodyTooLarge."""
        return self._send("GET", url, bearer, params=params)

    def ask(self, url: str, *, bearer: str, question: bytes) -> Reply:
        """The same for an address that takes its question, in JSON, in a POST."""
        return self._send("POST", url, bearer, content=question, headers={"Content-Type": "application/json"})

    def _send(self, method: str, url: str, bearer: str, headers: dict[str, str] | None = None, **rest: Any) -> Reply:
        headers = {"Authorization": f"Bearer {bearer}", **(headers or {})}
        timeout = httpx.Timeout(max(remaining(), 0.001))
        with (
            self._client() as client,
            client.stream(method, url, headers=headers, timeout=timeout, **rest) as response,
        ):
            return Reply(response.status_code, response.headers, _body(response))

    @contextmanager
    def _client(self) -> Iterator[httpx.Client]:
        try:
            client = self._idle.pop()
        except IndexError:
            client = _client(self._tls)
        try:
            yield client
        finally:
            self._idle.append(client)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop().close()


def _client(tls: ssl.SSLContext) -> httpx.Client:
    """A client of one connection. It keeps no cookies: they would be sent with the next account's key."""
    return httpx.Client(
        transport=Transport(tls),
        follow_redirects=False,
        trust_env=False,
        headers={"User-Agent": "Grafient", "Accept": "application/json", "Accept-Encoding": "gzip"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
    )


def _body(response: httpx.Response) -> bytes:
    """The decoded body, of which no more than may be is ever in memory. Raises BodyTooLarge and httpx.DecodingError.

    One gzip is what was asked for and all that is taken: of two, one in the other, 2.5 KB grow to more than a gigabyte.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise httpx.DecodingError(f"encoded as {encoding[:40]!r}, which was not asked for")
    packed = encoding in ("gzip", "x-gzip")
    decoder = zlib.decompressobj(wbits=31) if packed else None
    body = bytearray()
    for chunk in response.iter_raw():
        try:
            body += decoder.decompress(chunk, MAX_BODY_BYTES + 1) if decoder else chunk
        except zlib.error as error:
            raise httpx.DecodingError(str(error)) from None
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLarge
    return bytes(body)


class Transport(httpx.HTTPTransport):
    """httpx's own, over a connection whose network keeps the deadline (httpx has no public way to say so).

    ``lookup``: which addresses to connect to for a host and port, instead of whatever its name leads to. It runs in a
    thread of its own; what it raises is raised by the request.
    """

    def __init__(self, tls: ssl.SSLContext, lookup: Callable[[str, int], Sequence[str]] | None = None) -> None:
        super().__init__(verify=tls)
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls,
            max_connections=1,
            keepalive_expiry=15.0,
            network_backend=_DeadlineBackend(lookup or (lambda host, _port: [host])),
        )


class _DeadlineBackend(httpcore.NetworkBackend):
    def __init__(self, lookup: Callable[[str, int], Sequence[str]]) -> None:
        self._inner = httpcore.SyncBackend()
        self._lookup = lookup

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
                answer.put(self._connected(host, port, seconds, local_address, socket_options))
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

    def _connected(self, host: str, port: int, *rest: Any) -> httpcore.NetworkStream:
        """The first of its addresses that answers."""
        *others, last = self._lookup(host, port)
        for address in others:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return self._inner.connect_tcp(address, port, *rest)
        return self._inner.connect_tcp(last, port, *rest)

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
