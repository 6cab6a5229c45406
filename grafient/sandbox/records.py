"""What the stand-in keeps of its accounts: keys, slices of usage, and the rows of /activity that slices add up to."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Workspace:
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Member:
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An inference key of an account. It stops existing on the day `deleted`; its past usage stays."""

    name: str
    hash: str
    workspace: Workspace
    member: Member
    app: str
    created: date
    deleted: date | None = None
    disabled: bool = False
    monthly_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Spender:
    """A key on a day: the families it calls and its part (0 to 1) of their traffic."""

    key: ApiKey
    families: Set[str]
    share: float
    only_newest: bool = False


@dataclass(frozen=True, slots=True)
class Slice:
    """The smallest unit of usage: one day, endpoint and API key. `repeat` above 0 makes a row of its own."""

    day: date
    model: str
    model_permaslug: str
    endpoint_id: str
    provider_name: str
    key: ApiKey
    usage: Decimal
    byok_usage_inference: Decimal
    requests: int
    byok_requests: int
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cached_tokens: int | None
    repeat: int = 0

    @property
    def identity(self) -> tuple[date, str, str, str, int]:
        return (self.day, self.model_permaslug, self.endpoint_id, self.provider_name, self.repeat)


@dataclass(slots=True)
class Tally:
    """A sum of slices. `cached_tokens` is None as long as no slice knew it."""

    usage: Decimal = ZERO
    byok_usage_inference: Decimal = ZERO
    requests: int = 0
    byok_requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int | None = None

    def add(self, part: Slice) -> None:
        self.usage += part.usage
        self.byok_usage_inference += part.byok_usage_inference
        self.requests += part.requests
        self.byok_requests += part.byok_requests
        self.prompt_tokens += part.prompt_tokens
        self.completion_tokens += part.completion_tokens
        self.reasoning_tokens += part.reasoning_tokens
        if part.cached_tokens is not None:
            self.cached_tokens = (self.cached_tokens or 0) + part.cached_tokens


@dataclass(frozen=True, slots=True)
class ActivityRow:
    """One row of `/activity`: one endpoint on one day, summed over all keys or over one workspace's."""

    date: date
    model: str
    model_permaslug: str
    endpoint_id: str
    provider_name: str
    usage: Decimal
    byok_usage_inference: Decimal
    requests: int
    byok_requests: int
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cached_tokens: int | None
    workspace_id: str | None = None


def activity_rows(slices: Iterable[Slice], *, by_workspace: bool = False) -> list[ActivityRow]:
    """Sum slices to rows, one per identity, in the order in which the identities first appear."""
    tallies: dict[tuple[object, ...], tuple[Slice, Tally]] = {}
    for part in slices:
        group = (part.identity, part.key.workspace.id if by_workspace else None)
        tallies.setdefault(group, (part, Tally()))[1].add(part)
    return [_row(part, tally, by_workspace) for part, tally in tallies.values()]


def _row(part: Slice, tally: Tally, by_workspace: bool) -> ActivityRow:
    return ActivityRow(
        part.day,
        part.model,
        part.model_permaslug,
        part.endpoint_id,
        part.provider_name,
        tally.usage,
        tally.byok_usage_inference,
        tally.requests,
        tally.byok_requests,
        tally.prompt_tokens,
        tally.completion_tokens,
        tally.reasoning_tokens,
        tally.cached_tokens,
        part.key.workspace.id if by_workspace else None,
    )
