"""All about a running stand-in that can change, behind one lock: the day, faults, restatements, the log."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256

import msgspec

from grafient.sandbox.account import Account
from grafient.sandbox.records import ZERO, ActivityRow, ApiKey, Slice, activity_rows

KEY_PREFIX = "sk-or-v1-"
LOG_ENTRIES = 100_000
_KEY_SHAPE = re.compile(r"sk-or-v1-[0-9a-f]{8,}")


def key(name: str) -> str:
    """The management key called `name`: 73 characters, the same in every process, so never stored."""
    return KEY_PREFIX + sha256(f"grafient-sandbox/{name}".encode()).hexdigest()


def redact(text: str) -> str:
    return _KEY_SHAPE.sub("[key]", text)


@dataclass(frozen=True, slots=True)
class Part:
    """What a key name plays: whose account it opens and how it is answered (None: as it should be)."""

    account: Account
    manner: str | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """A manner put on a key for the next `times` requests (None: until cleared) to `path` (None: to any)."""

    manner: str
    times: int | None
    path: str | None


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request outside `/sandbox`. `key` is a name, "unknown" for a foreign key, None without one.

    `headers` are lower-case names without their values; `body` is the text sent, any key in it blotted out.
    """

    method: str
    path: str
    query: dict[str, str]
    key: str | None
    headers: tuple[str, ...]
    body: str = ""


@dataclass(frozen=True, slots=True)
class Truth:
    """What an account's settled days really come to, restatements included. USD, exact."""

    usage: Decimal
    byok_usage_inference: Decimal
    rows: list[ActivityRow]


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """What a test may want smaller: rows and queries a minute in analytics, and the seconds of slow manners."""

    analytics_row_limit: int = 10_000
    analytics_per_minute: int = 64
    slow_seconds: float = 60.0
    drip_seconds: float = 0.5


class State:
    """Safe to use from many threads; every answer is a snapshot."""

    def __init__(self, cast: Mapping[str, Part], today: date | None) -> None:
        self.cast = dict(cast)
        self.settings = Settings()
        self.stopping = threading.Event()
        self._names = {key(name): name for name in self.cast}
        self._lock = threading.RLock()
        self._first_today = today
        self._today = today
        self._edits: dict[tuple[str, date], tuple[Slice, ...]] = {}
        self._faults: dict[str, Fault] = {}
        self._seen: set[tuple[str, str]] = set()
        self._queries: dict[str, deque[float]] = {}
        self._log: deque[LoggedRequest] = deque(maxlen=LOG_ENTRIES)

    # the day

    @property
    def today(self) -> date:
        """The provider's UTC day: as set, else the real one."""
        return self._today or datetime.now(UTC).date()

    @today.setter
    def today(self, day: date | None) -> None:
        self._today = day

    def reset(self) -> None:
        """Back to how it started: the day, the settings, no faults, no restatements, an empty log."""
        with self._lock:
            self._today = self._first_today
            self.settings = Settings()
            for store in (self._edits, self._faults, self._seen, self._queries, self._log):
                store.clear()

    # who asks, and how they are answered

    def name_of(self, secret: str) -> str | None:
        return self._names.get(secret)

    def part(self, name: str) -> Part:
        if name not in self.cast:
            raise ValueError(f"No key or account is called {name!r}.")
        return self.cast[name]

    def account(self, name: str) -> Account:
        return self.part(name).account

    def set_fault(self, name: str, fault: Fault | None) -> None:
        self.part(name)
        with self._lock:
            self._faults.pop(name, None)
            if fault is not None:
                self._faults[name] = fault
                self._seen.discard((name, fault.manner))

    def faults(self) -> dict[str, Fault]:
        with self._lock:
            return dict(self._faults)

    def manner(self, name: str, path: str) -> str | None:
        """How to answer this request of key `name`; uses up one time of a counted fault."""
        with self._lock:
            fault = self._faults.get(name)
            if fault is None or fault.path not in (None, path):
                return self.cast[name].manner
            if fault.times == 1:
                del self._faults[name]
            elif fault.times is not None:
                self._faults[name] = replace(fault, times=fault.times - 1)
            return fault.manner

    def first_time(self, name: str, what: str) -> bool:
        with self._lock:
            new = (name, what) not in self._seen
            self._seen.add((name, what))
            return new

    def wait_for_query(self, name: str) -> float:
        """Count one analytics query; the seconds to wait when a minute already holds its 64, else 0."""
        with self._lock:
            now, queries = time.monotonic(), self._queries.setdefault(name, deque())
            while queries and queries[0] <= now - 60:
                queries.popleft()
            if len(queries) >= self.settings.analytics_per_minute:
                return queries[0] + 60 - now if queries else 60.0
            queries.append(now)
            return 0.0

    # the log

    def record(self, request: LoggedRequest) -> None:
        with self._lock:
            self._log.append(request)

    def log(self) -> list[LoggedRequest]:
        with self._lock:
            return list(self._log)

    def clear_log(self) -> None:
        with self._lock:
            self._log.clear()

    # the books

    def slices(self, account: Account, day: date) -> tuple[Slice, ...]:
        """A settled day's usage, restatements included."""
        with self._lock:
            edited = self._edits.get((account.name, day))
        return account.slices(day) if edited is None else edited

    def known_slices(self, account: Account, first: date, last: date) -> Iterator[Slice]:
        """The usage of a range of days up to and including what is known of today."""
        today = self.today
        for day in days(first, min(last, today)):
            yield from account.slices_so_far(day) if day == today else self.slices(account, day)

    def lifetime(self, account: Account) -> Iterator[Slice]:
        """All usage since the account was opened (but of 30 days at least)."""
        today = self.today
        return self.known_slices(account, min(account.opened, today - timedelta(days=30)), today)

    def truth(self, account: Account, first: date, last: date) -> Truth:
        rows = [row for day in days(first, last) for row in activity_rows(self.slices(account, day))]
        usage = sum((row.usage for row in rows), ZERO)
        return Truth(usage, sum((row.byok_usage_inference for row in rows), ZERO), rows)

    def restate(self, account: Account, day: date, factor: Decimal) -> None:
        with self._lock:
            parts = tuple(replace(part, usage=part.usage * factor) for part in self.slices(account, day))
            self._edits[account.name, day] = parts

    def remove_row(self, account: Account, day: date, index: int) -> None:
        with self._lock:
            parts = self.slices(account, day)
            identities = list(dict.fromkeys(part.identity for part in parts))
            if not 0 <= index < len(identities):
                raise ValueError(f"{account.name} has {len(identities)} rows on {day}, none is number {index}.")
            kept = tuple(part for part in parts if part.identity != identities[index])
            self._edits[account.name, day] = kept

    def add_row(self, account: Account, row: ActivityRow, spender: ApiKey) -> None:
        """Append a row as it is; when its identity is there already, the reply holds that identity twice."""
        with self._lock:
            parts = self.slices(account, row.date)
            added = _slice(row, spender, 0)
            same = [part.repeat for part in parts if part.identity[:4] == added.identity[:4]]
            added = replace(added, repeat=max(same, default=-1) + 1)
            self._edits[account.name, row.date] = (*parts, added)

    def drop_day(self, account: Account, day: date) -> None:
        with self._lock:
            self._edits[account.name, day] = ()


def days(first: date, last: date) -> Iterator[date]:
    """Every day from `first` to `last`, both included."""
    return (first + timedelta(days=number) for number in range((last - first).days + 1))


def _slice(row: ActivityRow, spender: ApiKey, repeat: int) -> Slice:
    return Slice(
        row.date,
        row.model,
        row.model_permaslug,
        row.endpoint_id,
        row.provider_name,
        spender,
        row.usage,
        row.byok_usage_inference,
        row.requests,
        row.byok_requests,
        row.prompt_tokens,
        row.completion_tokens,
        row.reasoning_tokens,
        row.cached_tokens,
        repeat,
    )
