"""OpenRouter: the only package that knows its API.

Facts are from https://openrouter.ai/docs/api-reference and from what live accounts send, which differs: a management
key looks like any other (``sk-or-v1-``), days arrive with a time, fields come and go. ``calls`` asks, ``replies``
reads what was answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from threading import Lock
from typing import TypeVar

import httpx

from grafient.providers.contract import (
    Activity,
    BilledLine,
    Credits,
    KeyCannotReadCosts,
    KeyInfo,
    KeyList,
    ListedKey,
    NotOffered,
    ReceivedReply,
    UnexpectedResponse,
    Unreachable,
)
from grafient.providers.http import BodyTooLarge, ReadingClient, Reply, within
from grafient.providers.openrouter.calls import INFERENCE_KEY, Calls, NotFound, http_date
from grafient.providers.openrouter.replies import (
    METRIC_COUNTS,
    parse_activity,
    parse_credits,
    parse_key,
    parse_keys,
    parse_meta,
    parse_query,
    parse_workspaces,
    watch_activity,
)

WINDOW_DAYS = 30
"""/activity has the last 30 completed UTC days, never more."""

HISTORY_DAYS = 365
"""/analytics/query reaches so many days back."""

MOST_ROWS = 10_000
"""In one reply of /analytics/query."""

CLOCKS_DIFFER = timedelta(minutes=5)
"""So far may the clock of what answers be from that of what dates the answer."""

CHECK_SECONDS = 9.0
FETCH_SECONDS = 60.0
DEFAULT = ""
"""Stands for the default workspace where a server does not list workspaces."""

METRICS_SECONDS = 6 * 3600.0
METRICS_WAIT_SECONDS = 5.0
_ACCOUNT_REF = 255
_A_PAGE = 100
_MOST_PAGES = 200
_T = TypeVar("_T")


class OpenRouter:
    """One OpenRouter at one base address; shared by all threads."""

    slug = "openrouter"
    name = "OpenRouter"
    key_name = "Management key"
    key_url = "https://openrouter.ai/settings/management-keys"
    key_button = "Create New Key"
    key_caution = "A Management key can also create and delete keys; OpenRouter has no read-only keys."
    usage_url = "https://openrouter.ai/activity"
    default_base_url = "https://openrouter.ai/api/v1"
    window_days = WINDOW_DAYS
    history_days = HISTORY_DAYS

    def __init__(self, base_url: str | None = None, client: ReadingClient | None = None) -> None:
        self._base_url = base_url or self.default_base_url
        self.client = client or ReadingClient()
        self._metrics = _Metrics()

    def clock(self) -> datetime | None:
        """The ``Date`` of the answer to who has no key, a 401. Any server in between has one in its answer, too."""
        try:
            with within(CHECK_SECONDS):
                reply = self.client.get(f"{self._base_url}/key", bearer="none")
        except (httpx.HTTPError, BodyTooLarge):
            raise Unreachable(f"{self.name} could not be reached.") from None
        return next(iter(_server_clock(reply)), None)

    def check_key(self, key: str) -> KeyInfo:
        """Ask /auth/key (or /key, its other name). 200 alone proves nothing: an inference key gets it too."""
        calls = Calls(self.client, self._base_url, key)
        with within(CHECK_SECONDS):
            try:
                reply = calls.get("/auth/key", attempts=2)
            except NotFound:
                reply = calls.get("/key", attempts=2)
            data = parse_key(reply.body)
            if data.is_management_key is None and data.is_provisioning_key is None:
                _probe_activity(calls)
            elif not (data.is_management_key or data.is_provisioning_key):
                raise KeyCannotReadCosts(INFERENCE_KEY)
        account = str(data.organization_id or data.creator_user_id or "").replace("\0", "\N{REPLACEMENT CHARACTER}")
        if len(account) > _ACCOUNT_REF:
            raise UnexpectedResponse(f"OpenRouter's id of the account is longer than {_ACCOUNT_REF}.")
        return KeyInfo(account or None, data.label, data.expires_at)

    def recent_activity(self, key: str) -> Activity:
        """/activity, in the time of a check."""
        with within(CHECK_SECONDS):
            return self.reader(key).activity()

    def reader(self, key: str, before_each: Callable[[], None] = lambda: None) -> OpenRouterReader:
        """Read the account of this key."""
        return OpenRouterReader(Calls(self.client, self._base_url, key, before_each), self._metrics)


class _Metrics:
    """What a server's analytics has of what Grafient reads. It is the same for all accounts, so it is asked once for
    all of them, and again after some hours.

    At 06:00 UTC dozens of accounts want it in the same moment, and one of them asks. The others wait for the answer; if
    that takes more than some seconds, each asks for itself.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._until = 0.0
        self._asking = Lock()

    def known_or(self, ask: Callable[[], list[str]]) -> list[str]:
        """The names, from ``ask`` if they are not known."""
        is_mine = self._asking.acquire(timeout=METRICS_WAIT_SECONDS)
        try:
            if time.monotonic() >= self._until:
                self._names = ask()
                self._until = time.monotonic() + METRICS_SECONDS
            return self._names
        finally:
            if is_mine:
                self._asking.release()


def _probe_activity(calls: Calls) -> None:
    """Raise KeyCannotReadCosts if /activity refuses the key. Two days back is inside the window at any midnight."""
    day = datetime.now(UTC).date() - timedelta(days=2)
    calls.get("/activity", attempts=2, params={"date": day.isoformat()})


class OpenRouterReader:
    """One account for the length of a sync, see ``Reader``.

    Analytics allows 64 requests a minute: four at once, then 48 a minute, leave room for another sync in the same
    minute. There is no published figure for keys and what each spent: a dozen
    at once, then four a second.
    """

    def __init__(self, calls: Calls, metrics: _Metrics) -> None:
        self._calls, self._metrics = calls, metrics
        self._notes: list[str] = []
        self._analytics_pace = _Pace(0.8, burst=4)
        self._keys_pace = _Pace(4, burst=12)

    def activity(self) -> Activity:
        """The last 30 completed UTC days in one reply."""
        return self._activity({}, watch=True)

    def key_activity(self, key_hash: str) -> Activity:
        """The same window, of one key."""
        self._keys_pace.wait()
        with _not_offered("OpenRouter does not report what this API key spent."):
            return self._activity({"api_key_hash": key_hash})

    def history(self, first: date, last: date) -> Activity:
        """Per model; the newer part of what was asked, where a reply would not hold all of it."""
        while True:
            lines, truncated = self._query(first, last, ["model"])
            if not truncated:
                return Activity.of(first, last, lines)
            if first == last:
                raise UnexpectedResponse(f"OpenRouter's analytics has more models on {first} than one reply holds.")
            first = last - (last - first) // 2

    def day_totals(self, first: date, last: date) -> Mapping[date, Decimal]:
        """Credits per day."""
        lines, truncated = self._query(first, last, [])
        if truncated:
            raise UnexpectedResponse("OpenRouter's analytics truncated a reply that has one row a day.")
        return {line.day: line.usage_usd for line in lines}

    def credits(self) -> Credits:
        """``total_usage`` and ``total_credits`` of /credits."""
        with within(FETCH_SECONDS), _not_offered("OpenRouter does not report this account's credits."):
            return parse_credits(self._calls.get("/credits", attempts=3).body)

    def api_keys(self, scopes: Sequence[str] = ()) -> KeyList:
        """The keys of all workspaces; only of the default one where the server does not list workspaces."""
        with _not_offered("OpenRouter does not list this account's API keys."):
            try:
                return self._keys_of(scopes or self._workspaces())
            except NotFound:  # a workspace that is gone
                if not scopes:
                    raise
                return self._keys_of(self._workspaces())

    def _keys_of(self, workspaces: Sequence[str]) -> KeyList:
        keys: dict[str, ListedKey] = {}
        for workspace in workspaces:
            scope = {} if workspace == DEFAULT else {"workspace_id": workspace}
            keys |= self._pages("/keys", {**scope, "include_disabled": "true"}, parse_keys)
        return KeyList(list(keys.values()), workspaces)

    def take_replies(self) -> list[ReceivedReply]:
        """The replies since the last time."""
        return self._calls.take_replies()

    def take_notes(self) -> list[str]:
        """What was odd since the last time."""
        notes, self._notes = self._notes, []
        return notes

    def _activity(self, params: dict[str, str], *, watch: bool = False) -> Activity:
        """One reply of /activity, and the days for which a missing line means no usage.

        The window moves at midnight UTC, and nobody knows which side of it a reply was made on. Asked at 23:59:59 and
        answered at 00:00:01, it may lack the oldest day of yesterday's window, and not yet have the newest of today's.
        Either would look like a day without usage. So silence counts only for days that are inside the window by
        every clock there is: ours before and after the call, and the server's, each give or take five minutes.
        """
        before = datetime.now(UTC)
        with within(FETCH_SECONDS):
            reply = self._calls.get("/activity", attempts=4, params=params or None)
        clocks = [before, datetime.now(UTC), *_server_clock(reply)]
        newest, oldest = (max(clocks) + CLOCKS_DIFFER).date(), (min(clocks) - CLOCKS_DIFFER).date()
        today = max(clocks).date()
        found, odd = watch_activity(reply.body) if watch else (parse_activity(reply.body), None)
        by_day = {day: said for day, said in found.items() if day < today}
        self._notes += [odd] if odd else []
        return Activity(newest - timedelta(days=WINDOW_DAYS), oldest - timedelta(days=1), by_day, today)

    def _query(self, first: date, last: date, dimensions: list[str]) -> tuple[list[BilledLine], bool]:
        """One question to analytics. Its time range ends before the day after the last."""
        metrics = self._metrics.known_or(self._ask_for_metrics)
        question = {
            "metrics": metrics,
            "dimensions": dimensions,
            "granularity": "day",
            "time_range": {"start": _midnight(first), "end": _midnight(last + timedelta(days=1))},
            "limit": MOST_ROWS,
        }
        self._analytics_pace.wait()
        with within(FETCH_SECONDS), _not_offered(_NO_ANALYTICS):
            reply = self._calls.ask("/analytics/query", question, attempts=3)
        lines, truncated = parse_query(reply.body, metrics)
        if "model" in dimensions and any(not line.permaslug for line in lines):
            raise UnexpectedResponse("OpenRouter's analytics no longer names the model of each row.")
        if any(not first <= line.day <= last for line in lines):
            raise UnexpectedResponse("OpenRouter's analytics answered with days it was not asked for.")
        return lines, truncated

    def _ask_for_metrics(self) -> list[str]:
        """What this server's analytics has of what Grafient reads. Raises NotOffered without costs."""
        with within(FETCH_SECONDS), _not_offered(_NO_ANALYTICS):
            metrics, dimensions = parse_meta(self._calls.get("/analytics/meta", attempts=3).body)
        if "credits_usage" not in metrics or "model" not in dimensions:
            raise NotOffered("OpenRouter's analytics no longer has credits per model and day.")
        wanted = ("total_usage", "credits_usage", "byok_usage", *METRIC_COUNTS)
        return [name for name in wanted if name in metrics]

    def _workspaces(self) -> list[str]:
        try:
            return list(self._pages("/workspaces", {"limit": str(_A_PAGE)}, parse_workspaces)) or [DEFAULT]
        except (NotFound, KeyCannotReadCosts):
            return [DEFAULT]

    def _pages(self, path: str, params: dict[str, str], parse: Callable[[bytes], Mapping[str, _T]]) -> dict[str, _T]:
        """What is on all pages, by its id. The last page is a short one, or one with nothing new."""
        found: dict[str, _T] = {}
        for _ in range(_MOST_PAGES):
            self._keys_pace.wait()
            with within(FETCH_SECONDS):
                asked = {**params, "offset": str(len(found))}
                page = parse(self._calls.get(path, attempts=3, params=asked).body)
            fresh = page.keys() - found.keys()
            found |= page
            if not fresh or len(page) < _A_PAGE:
                break
        return found


_NO_ANALYTICS = "OpenRouter does not offer analytics to this account."


@contextmanager
def _not_offered(sentence: str) -> Iterator[None]:
    """403 and 404 beside the main road say what is not offered, not that the key is bad."""
    try:
        yield
    except (NotFound, KeyCannotReadCosts):
        raise NotOffered(sentence) from None


class _Pace:
    """So many calls a second, after a first ``burst`` that need not wait."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._every, self._burst = 1 / per_second, burst
        self._free_at = time.monotonic() - burst * self._every

    def wait(self) -> None:
        """Sleep until the next call may start."""
        now = time.monotonic()
        self._free_at = max(self._free_at, now - self._burst * self._every) + self._every
        if self._free_at > now:
            time.sleep(self._free_at - now)


def _midnight(day: date) -> str:
    return f"{day}T00:00:00Z"


def _server_clock(reply: Reply) -> list[datetime]:
    moment = http_date(reply.headers.get("Date", ""))
    return [] if moment is None else [moment]
