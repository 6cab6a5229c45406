"""The contract with whoever bills: a provider checks a key, and returns what was billed. Nothing else.

A provider knows HTTP and one API. It knows no database, no Flask, and never keeps the key. Not every provider has all
of it: only the recent days (``Reader.activity``) are required, and everything else may raise NotOffered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Protocol

import msgspec

from grafient.days import span


@dataclass(frozen=True)
class KeyInfo:
    """What a provider says of a key that can read costs.

    ``account_ref`` tells accounts apart (opaque; None where the provider does not say). ``label`` is the key's own
    name there (opaque, may be masked). ``expires`` is the provider's text of when the key ends.
    """

    account_ref: str | None
    label: str | None
    expires: str | None = None


class BilledLine(msgspec.Struct, frozen=True, gc=False):
    """What was billed on one UTC day for one thing that the provider bills apart: usually a model at a host.

    ``permaslug``, ``endpoint_id`` and ``host`` say which thing, and with the day make a line the same line in another
    reply; ``model`` is what people call it. Empty strings are values: a provider that names no host has one line per
    model, and a charge that is for no model (a search, a storage fee) goes by its own name.

    USD at 12 decimals. ``byok_usd`` is the provider's *estimate* of what the user's own key at another provider was
    charged; it is no part of ``usage_usd``. None is unknown, never zero. Reasoning tokens are part of the completion
    tokens and cached tokens of the prompt tokens; in real replies either can exceed its whole.
    """

    day: date
    permaslug: str
    endpoint_id: str
    host: str
    model: str
    usage_usd: Decimal
    byok_usd: Decimal | None = None
    requests: int | None = None
    byok_requests: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None


COUNTS = (
    "requests",
    "byok_requests",
    "prompt_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cached_tokens",
)
"""The fields of a BilledLine that are counted, not billed: whole numbers up to 64 bits, or None."""


@dataclass(frozen=True)
class DayReply:
    """What a reply says of one UTC day, in so many ``rows``.

    ``digest``: equal where what is said is equal, so that a day of which the provider says what it said yesterday need
    not be read and compared again; None where nobody worked it out. ``read`` turns the rows into lines, each of another
    identity, and raises UnexpectedResponse if they can't be understood.
    """

    rows: int
    read: Callable[[], Sequence[BilledLine]]
    digest: bytes | None = None


@dataclass(frozen=True)
class Activity:
    """One whole reply: what it says of each UTC day, and the days, both ends included, on which its silence means no
    usage.

    ``today``: the UTC day that it was at the provider, by the clock that was furthest.
    """

    first_day: date
    last_day: date
    by_day: Mapping[date, DayReply]
    today: date | None = None

    @classmethod
    def of(cls, first_day: date, last_day: date, lines: Iterable[BilledLine], today: date | None = None) -> Activity:
        """A reply that has been read."""
        by_day: dict[date, list[BilledLine]] = {}
        for line in lines:
            by_day.setdefault(line.day, []).append(line)
        replies = {day: DayReply(len(found), lambda found=found: found) for day, found in by_day.items()}  # type: ignore[misc]
        return cls(first_day, last_day, replies, today)

    @property
    def days(self) -> set[date]:
        """The days that the reply speaks of: those it has lines for, and those on which its silence means no usage.

        A reply whose ``Date`` header is a month old speaks of no day by its silence (``first_day`` is then after
        ``last_day``), and still of the days of its lines; the days between those are not spoken of.
        """
        return {*span(self.first_day, self.last_day), *self.by_day}

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(reply.rows for reply in self.by_day.values())

    def lines(self, days: Iterable[date] | None = None) -> list[BilledLine]:
        """The lines of these days, of all by default. Raises UnexpectedResponse."""
        chosen = self.by_day if days is None else days
        return [line for day in chosen if day in self.by_day for line in self.by_day[day].read()]


@dataclass(frozen=True)
class ListedKey:
    """One of the account's inference keys. ``key_hash`` identifies it for good; it is no secret.

    ``spent`` is a text that stays the same as long as nobody uses the key; None where the provider does not say.
    ``limit_usd``: what it may spend before the provider stops it, of which ``limit_left_usd`` is left; None without.
    ``limit_reset``: when that begins anew, such as "monthly"; empty for never.
    """

    key_hash: str
    name: str
    disabled: bool
    spent: str | None = None
    limit_usd: Decimal | None = None
    limit_left_usd: Decimal | None = None
    limit_reset: str = ""


@dataclass(frozen=True)
class KeyList:
    """The account's inference keys, and the ``scopes`` (opaque) in which the provider keeps them."""

    keys: Sequence[ListedKey]
    scopes: Sequence[str] = ()


@dataclass(frozen=True)
class ReceivedReply:
    """The evidence behind figures: what was asked (method, path and query; never a header), when, and the body."""

    request: str
    received_at: datetime
    body: bytes


class ProviderError(Exception):
    """A call to a provider failed. The message is a sentence for the user and holds no key.

    ``retry``: whether the same call may succeed later without anyone acting.
    """

    retry = False


class KeyRejected(ProviderError):
    """The provider does not know the key: revoked, expired, disabled or mistyped."""


class KeyCannotReadCosts(KeyRejected):
    """The key is valid, but not of the kind that may read costs."""


class Unreachable(ProviderError):
    """A passing fault: no answer, or no answer that says anything. ``retry_after``: seconds asked for, or None."""

    retry = True

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnexpectedResponse(ProviderError):
    """An answer of an unknown shape. The reader has the reply itself, see ``take_replies``."""


class NotOffered(ProviderError):
    """The provider does not offer this to the account. Everything else it reports still counts."""


@dataclass(frozen=True)
class Credits:
    """All that was ever charged to an account's credits, and all that was ever bought of them (None where the provider
    does not say), in USD."""

    used_usd: Decimal
    bought_usd: Decimal | None = None


class Reader(Protocol):
    """One account, read with one key for the length of a sync. Every call raises ProviderError; different ones may be
    made side by side.

    Only ``activity`` has to be offered; the others may raise NotOffered.
    """

    def activity(self) -> Activity:
        """The recent days in as much detail as the provider has, as far back as it keeps that (``window_days``)."""

    def history(self, first: date, last: date) -> Activity:
        """Per model from first to last (UTC days, both included), from a source that reaches further back.

        It may begin later than asked, where one reply can't hold all of it: ask again for what is left. Today is
        included, as far as it has gone.
        """

    def day_totals(self, first: date, last: date) -> Mapping[date, Decimal]:
        """A second count of what was charged per day, in USD, at 6 decimals or more. No entry: no usage at all."""

    def credits(self) -> Credits:
        """What was ever charged to the account, and paid into it; can be a minute old."""

    def api_keys(self, scopes: Sequence[str] = ()) -> KeyList:
        """The inference keys that exist now, disabled ones too. ``scopes``: those of the last list, which need not be
        asked for then; keys in a new one are missed.
        """

    def key_activity(self, key_hash: str) -> Activity:
        """The part of ``activity`` that one API key spent."""

    def take_replies(self) -> Sequence[ReceivedReply]:
        """The replies since the last time, whether they could be read or not; without any secret."""

    def take_notes(self) -> Sequence[str]:
        """Sentences on what was odd in the replies since the last time, such as fields never seen before."""


class Provider(Protocol):
    """One provider of bills, at one base address. Safe to share between threads."""

    slug: str
    name: str
    key_name: str
    """What the provider calls the kind of key that Grafient needs."""
    key_url: str
    """Where to make one."""
    key_button: str
    """What one presses there."""
    key_caution: str
    """A sentence on what else such a key can do."""
    usage_url: str
    """Where the provider itself shows what was used."""
    window_days: int
    """How many completed UTC days ``Reader.activity`` reaches back."""
    history_days: int
    """How many days back ``Reader.history`` reaches."""

    def clock(self) -> datetime | None:
        """What time the provider says it is; None if it says none. Without a key. Raises Unreachable."""

    def check_key(self, key: str) -> KeyInfo:
        """Ask whether the key can read costs; answers within 10 seconds. Raises ProviderError."""

    def recent_activity(self, key: str) -> Activity:
        """What ``Reader.activity`` says, for somebody who waits: answers within 10 seconds. Raises ProviderError."""

    def reader(self, key: str, before_each: Callable[[], None] = lambda: None) -> Reader:
        """Read the account of this key; nothing is sent yet. ``before_each`` is called before every request, which can
        take a minute; what it raises ends the reading."""
