"""Asking OpenRouter: one call with its retries, and what an answer other than a JSON 200 means."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import msgspec
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, stop_before_delay
from tenacity.wait import wait_random_exponential

from grafient import logs
from grafient.days import in_words
from grafient.providers.contract import (
    KeyCannotReadCosts,
    KeyRejected,
    NotOffered,
    ProviderError,
    ReceivedReply,
    UnexpectedResponse,
    Unreachable,
)
from grafient.providers.http import BodyTooLarge, ReadingClient, Reply, remaining

INFERENCE_KEY = "This is a regular inference key. Grafient needs a Management key."


class NotFound(NotOffered):
    """404: an address that this server does not have."""


class Calls:
    """Calls with one key at one base address; keeps every reply that says something, as evidence."""

    def __init__(
        self, client: ReadingClient, base_url: str, key: str, before_each: Callable[[], None] = lambda: None
    ) -> None:
        self._client, self._base_url, self._key, self._before_each = client, base_url, key, before_each
        self._replies: deque[ReceivedReply] = deque()

    def get(self, path: str, *, attempts: int, params: dict[str, str] | None = None) -> Reply:
        """GET inside a ``within`` block. Raises ProviderError."""
        request = f"GET {path}" + (f"?{httpx.QueryParams(params)}" if params else "")
        send = lambda: self._client.get(self._base_url + path, bearer=self._key, params=params)  # noqa: E731
        return self._retried(request, send, attempts)

    def ask(self, path: str, question: dict[str, Any], *, attempts: int) -> Reply:
        """POST a question that changes nothing, inside a ``within`` block. Raises ProviderError."""
        body = msgspec.json.encode(question)
        send = lambda: self._client.ask(self._base_url + path, bearer=self._key, question=body)  # noqa: E731
        return self._retried(f"POST {path} {body.decode()}", send, attempts)

    def take_replies(self) -> list[ReceivedReply]:
        """The replies since the last time. One at a time, since other threads may be adding some."""
        return [self._replies.popleft() for _ in range(len(self._replies))]

    def _retried(self, request: str, send: Callable[[], Reply], attempts: int) -> Reply:
        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, ProviderError) and error.retry),
            stop=stop_after_attempt(attempts) | stop_before_delay(max(remaining(), 0)),
            wait=_wait,
            sleep=time.sleep,
            reraise=True,
        )
        return retrying(self._once, request, send)

    def _once(self, request: str, send: Callable[[], Reply]) -> Reply:
        self._before_each()
        try:
            reply = send()
        except httpx.TimeoutException:
            raise Unreachable("OpenRouter did not answer in time.") from None
        except (httpx.TransportError, httpx.DecodingError):
            raise Unreachable("OpenRouter could not be reached.") from None
        except BodyTooLarge:
            raise UnexpectedResponse("OpenRouter's reply is larger than Grafient can read.") from None
        reply = Reply(reply.status, reply.headers, _without_key(reply.body, self._key))
        if reply.status in (200, 400):
            self._replies.append(ReceivedReply(request, datetime.now(UTC), reply.body))
        _raise_for_status(reply)
        return reply


_BEGINNING = "sk-or-v1-"
_KEY = re.compile(rb"sk-or-v1-[0-9A-Za-z]{16,}")


def _without_key(body: bytes, key: str) -> bytes:
    """The body without the key that it was asked with, or any other, before anything is made of it.

    A server that repeats what it was sent, in an error or as the name of a model, had the key stored and shown. Without
    its beginning, or spelled in another way (``\\u0073k-or-``, ``%73k-or-``, base64, hex), it is still the key.
    """
    secret = key.removeprefix(_BEGINNING)
    wanted = secret if len(secret) >= 16 else key
    if b"\\u" in body:
        letters = (rb"(?:%s|(?i:\\u%04x))" % (re.escape(letter.encode()), ord(letter)) for letter in wanted)
        body = re.sub(b"".join(letters), b"[key]", body)
    body = body.replace(key.encode(), b"[key]")
    for spelling in logs.spellings(wanted) if len(wanted) >= 16 else ():
        body = body.replace(spelling.encode(), b"[key]")
    return _KEY.sub(b"[key]", body)


def _raise_for_status(reply: Reply) -> None:
    """Turn everything but a JSON 200 into its ProviderError.

    The status decides, never the message: "User not found." would be read as a Grafient account. A body that is not
    JSON comes from something in between and is no verdict on the key, whatever its status.
    """
    status = reply.status
    if status == 429:
        after = _retry_after(reply)
        wait = "a few minutes" if after is None else in_words(after)
        raise Unreachable(f"OpenRouter is rate-limiting; try again in {wait}.", after)
    if status == 408 or status >= 500:
        raise Unreachable(f"OpenRouter returned an error ({status}).", _retry_after(reply))
    if status != 200 and not _is_error(reply.body):
        raise Unreachable(f"OpenRouter could not be reached: something between it and Grafient answered ({status}).")
    if status == 401:
        raise KeyRejected("OpenRouter does not know this key. It may be mistyped, revoked or expired.")
    if status == 403:
        raise KeyCannotReadCosts(INFERENCE_KEY)
    if status == 404:
        raise NotFound("OpenRouter does not have the address that Grafient asked for.")
    if status != 200:
        raise UnexpectedResponse(f"OpenRouter refused the request ({status}).")
    if reply.body.lstrip()[:1] not in (b"{", b"["):
        raise Unreachable("OpenRouter could not be reached: a web page came back instead of data.")


class _ErrorReply(msgspec.Struct):
    error: dict[str, Any]


_ERROR_REPLY = msgspec.json.Decoder(_ErrorReply)


def _is_error(body: bytes) -> bool:
    try:
        _ERROR_REPLY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _retry_after(reply: Reply) -> float | None:
    """Seconds, from a number or a date (RFC 9110, 10.2.3); None where it says neither."""
    value = reply.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    moment = http_date(value)
    return None if moment is None else max(0.0, (moment - datetime.now(UTC)).total_seconds())


def http_date(value: str) -> datetime | None:
    """The moment in a header such as ``Date``, or None if it can't be read."""
    try:
        moment = parsedate_to_datetime(value)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


_jitter = wait_random_exponential(multiplier=0.5, max=8)


def _wait(state: RetryCallState) -> float:
    """What the server asks for, or else a random pause that grows."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, Unreachable) else None
    return max(asked or 0.0, float(_jitter(state)))
