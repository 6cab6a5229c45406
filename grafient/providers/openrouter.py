"""OpenRouter: the only file that knows its API.

Facts are from https://openrouter.ai/docs/api-reference and from what live accounts send, which differs: a management
key looks like any other (``sk-or-v1-``), days arrive with a time, fields come and go.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, TypeVar

import httpx
import msgspec
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, stop_before_delay
from tenacity.wait import wait_random_exponential

from grafient.money import usd
from grafient.providers.contract import (
    COUNTS,
    Activity,
    CostLine,
    KeyInfo,
    KeyRejected,
    NotManagementKey,
    ProviderError,
    UnexpectedResponse,
    Unreachable,
)
from grafient.providers.http import BodyTooLarge, ReadingClient, Reply, remaining, within

WINDOW_DAYS = 30
"""/activity tells the last 30 completed UTC days, and never more."""

CHECK_SECONDS = 9.0
FETCH_SECONDS = 60.0
_NAME_BYTES = 2500  # PostgreSQL's index rows end at 2,704 bytes

_ACCOUNT_REF = 255
_MOST = 2**63 - 1
_Count = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]


class _KeyData(msgspec.Struct):
    label: str | None = None
    is_management_key: bool | None = None
    is_provisioning_key: bool | None = None
    organization_id: str | int | None = None
    creator_user_id: str | int | None = None
    expires_at: str | None = None


class _KeyReply(msgspec.Struct):
    data: _KeyData


class _Row(msgspec.Struct):
    date: str
    model_permaslug: str
    usage: Decimal
    byok_usage_inference: Decimal | None = None
    endpoint_id: str | None = None
    provider_name: str | None = None
    model: str | None = None
    requests: _Count | None = None
    byok_requests: _Count | None = None
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    reasoning_tokens: _Count | None = None
    cached_tokens: _Count | None = None


class _ActivityReply(msgspec.Struct):
    data: list[_Row]


class _ErrorReply(msgspec.Struct):
    error: dict[str, Any]


_KEY_REPLY = msgspec.json.Decoder(_KeyReply)
_ACTIVITY_REPLY = msgspec.json.Decoder(_ActivityReply)
_ERROR_REPLY = msgspec.json.Decoder(_ErrorReply)


class _NotFound(UnexpectedResponse):
    """404: an address that this server does not have."""


class OpenRouter:
    """One OpenRouter at one base address; shared by all threads."""

    slug = "openrouter"
    name = "OpenRouter"
    key_name = "Management key"
    key_url = "https://openrouter.ai/settings/management-keys"
    key_caution = "A Management key can also create and delete keys: OpenRouter has none that may only read."
    default_base_url = "https://openrouter.ai/api/v1"

    def __init__(self, base_url: str | None = None) -> None:
        self._base_url = base_url or self.default_base_url
        self._client = ReadingClient()

    def check_key(self, key: str) -> KeyInfo:
        """Ask /auth/key (or /key, its other name). 200 alone proves nothing: an inference key gets it too."""
        with within(CHECK_SECONDS):
            try:
                reply = self._get("/auth/key", key, attempts=2)
            except _NotFound:
                reply = self._get("/key", key, attempts=2)
            data = _decode(_KEY_REPLY, reply.body).data
            if data.is_management_key is None and data.is_provisioning_key is None:
                self._probe_activity(key)
            elif not (data.is_management_key or data.is_provisioning_key):
                raise NotManagementKey(_INFERENCE_KEY)
        account = _text(str(data.organization_id or data.creator_user_id or "")) or None
        if account and len(account) > _ACCOUNT_REF:
            raise UnexpectedResponse(f"{_UNKNOWN_SHAPE} the account's id is longer than {_ACCOUNT_REF}.", reply.body)
        return KeyInfo(account, data.label, data.expires_at)

    def fetch(self, key: str) -> Activity:
        """The last 30 completed UTC days in one reply.

        The reply's silence speaks only for days that were in the window by every clock there is, ours before and
        after the call and the server's, so that a midnight on the way makes no day of usage look empty.
        """
        before = datetime.now(UTC)
        with within(FETCH_SECONDS):
            reply = self._get("/activity", key, attempts=4)
        clocks = [before, datetime.now(UTC), *_server_clock(reply)]
        newest, oldest = max(clocks).date(), min(clocks).date()
        lines = [line for line in parse_activity(reply.body) if line.day < newest]
        return Activity(newest - timedelta(days=WINDOW_DAYS), oldest - timedelta(days=1), lines)

    def close(self) -> None:
        """Close the connections that are kept open between calls."""
        self._client.close()

    def _probe_activity(self, key: str) -> None:
        """Raise NotManagementKey if /activity refuses the key. Two days back is inside the window at any midnight."""
        day = datetime.now(UTC).date() - timedelta(days=2)
        self._get("/activity", key, attempts=2, params={"date": day.isoformat()})

    def _get(self, path: str, key: str, *, attempts: int, params: dict[str, str] | None = None) -> Reply:
        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, ProviderError) and error.retry),
            stop=stop_after_attempt(attempts) | stop_before_delay(max(remaining(), 0)),
            wait=_wait,
            sleep=time.sleep,
            reraise=True,
        )
        return retrying(self._get_once, path, key, params)

    def _get_once(self, path: str, key: str, params: dict[str, str] | None) -> Reply:
        try:
            reply = self._client.get(self._base_url + path, bearer=key, params=params)
        except httpx.TimeoutException:
            raise Unreachable("OpenRouter could not be reached: it did not answer in time.") from None
        except (httpx.TransportError, httpx.DecodingError):
            raise Unreachable("OpenRouter could not be reached.") from None
        except BodyTooLarge:
            raise UnexpectedResponse("OpenRouter's reply did not end.") from None
        _raise_for_status(reply)
        return reply


_INFERENCE_KEY = "This is a regular inference key. Grafient needs a Management key."


def _raise_for_status(reply: Reply) -> None:
    """Turn everything but a JSON 200 into its ProviderError.

    The status decides, never the message: "User not found." would be read as a Grafient account. A body that is not
    JSON comes from something in between and is no verdict on the key, whatever its status.
    """
    status = reply.status
    if status == 429:
        raise Unreachable("OpenRouter is busy and asks to wait.", _retry_after(reply))
    if status == 408 or status >= 500:
        raise Unreachable(f"OpenRouter could not be reached: it answered {status}.", _retry_after(reply))
    if status != 200 and not _is_error(reply.body):
        raise Unreachable(f"OpenRouter could not be reached: something in between answered ({status}).")
    if status == 401:
        raise KeyRejected("OpenRouter does not know this key. It was mistyped, revoked, or has expired.")
    if status == 403:
        raise NotManagementKey(_INFERENCE_KEY)
    if status == 404:
        raise _NotFound("OpenRouter no longer has the address that Grafient asked.")
    if status != 200:
        raise UnexpectedResponse(f"OpenRouter refused the request ({status}).", reply.body)
    if reply.body.lstrip()[:1] not in (b"{", b"["):
        raise Unreachable("OpenRouter could not be reached: a page came instead of data.")


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
    moment = _http_date(value)
    return None if moment is None else max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _server_clock(reply: Reply) -> list[datetime]:
    moment = _http_date(reply.headers.get("Date", ""))
    return [] if moment is None else [moment]


def _http_date(value: str) -> datetime | None:
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


def parse_activity(body: bytes) -> list[CostLine]:
    """The lines of an /activity reply, repeats summed. Pure. Raises UnexpectedResponse with the path that is off."""
    merged: dict[tuple[date, str, str, str], CostLine] = {}
    for number, row in enumerate(_decode(_ACTIVITY_REPLY, body).data):
        try:
            line = _line(row)
            identity = (line.day, line.permaslug, line.endpoint_id, line.host)
            merged[identity] = _added(merged[identity], line) if identity in merged else line
        except _Misfit as misfit:
            raise UnexpectedResponse(f"{_UNKNOWN_SHAPE} {misfit} - at `$.data[{number}]`.", body) from None
    return list(merged.values())


_UNKNOWN_SHAPE = "OpenRouter's reply has a shape that Grafient does not know:"
_T = TypeVar("_T")


class _Misfit(Exception):
    """A row that decodes and still can't be one. The message says what is off."""


def _decode(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise UnexpectedResponse(f"{_UNKNOWN_SHAPE} {error}.", body) from None
    except RecursionError:
        raise UnexpectedResponse(f"{_UNKNOWN_SHAPE} it is nested too deeply.", body) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Unreachable("OpenRouter's reply was cut off or garbled on the way.") from None


def _line(row: _Row) -> CostLine:
    permaslug, endpoint_id, host = (
        _text(row.model_permaslug),
        _text(row.endpoint_id),
        _text(row.provider_name),
    )
    model = _text(row.model) or permaslug
    if max(len((permaslug + endpoint_id + host).encode()), len(model.encode())) > _NAME_BYTES:
        raise _Misfit("names longer than can be kept")
    return CostLine(
        day=_day(row.date),
        permaslug=permaslug,
        endpoint_id=endpoint_id,
        host=host,
        model=model,
        usage_usd=_usd(row.usage),
        byok_usd=None if row.byok_usage_inference is None else _usd(row.byok_usage_inference),
        requests=row.requests,
        byok_requests=row.byok_requests,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        reasoning_tokens=row.reasoning_tokens,
        cached_tokens=row.cached_tokens,
    )


def _text(value: str | None) -> str:
    """Any characters but NUL, which PostgreSQL can't keep. Absent is the empty value."""
    return (value or "").replace("\0", "\N{REPLACEMENT CHARACTER}")


def _day(value: str) -> date:
    """``2026-06-03``, as documented, or ``2026-06-03 00:00:00``, as it arrives."""
    try:
        if value[4:5] + value[7:8] != "--" or value[10:11] not in ("", " ", "T"):
            raise ValueError
        return date.fromisoformat(value[:10])
    except ValueError:
        raise _Misfit(f"`date` is {value[:40]!r}, not a day") from None


def _usd(value: Decimal) -> Decimal:
    try:
        return usd(value)
    except ValueError as error:
        raise _Misfit(str(error)) from None


def _added(line: CostLine, repeat: CostLine) -> CostLine:
    """The sum of two rows with one identity; a sum with an unknown is unknown."""

    sums: dict[str, Any] = {}
    for name in ("usage_usd", "byok_usd", *COUNTS):
        one, two = getattr(line, name), getattr(repeat, name)
        sums[name] = None if one is None or two is None else one + two
        if name in COUNTS and (sums[name] or 0) > _MOST:
            raise _Misfit(f"`{name}` adds up to more than 64 bits")
    sums["usage_usd"] = _usd(sums["usage_usd"])
    return replace(line, **sums)
