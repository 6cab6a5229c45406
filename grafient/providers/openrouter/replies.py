"""What OpenRouter's replies say: pure functions from bytes to the contract's types, and the shapes they hold to.

``fields`` checks each field before use; what does not hold is UnexpectedResponse, or Unreachable if it was garbled.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from itertools import chain, groupby, repeat
from operator import attrgetter
from typing import Any

import msgspec
from msgspec.structs import astuple

from grafient.providers.contract import COUNTS, BilledLine, Credits, DayReply, ListedKey, UnexpectedResponse
from grafient.providers.openrouter import fields


class KeyData(msgspec.Struct):
    label: str | None = None
    is_management_key: bool | None = None
    is_provisioning_key: bool | None = None
    organization_id: str | int | None = None
    creator_user_id: str | int | None = None
    expires_at: str | None = None


class _KeyReply(msgspec.Struct):
    data: KeyData


class _Row(msgspec.Struct, gc=False):
    date: str
    model_permaslug: str
    usage: fields.Number
    byok_usage_inference: fields.Number | None = None
    endpoint_id: str | None = None
    provider_name: str | None = None
    model: str | None = None
    requests: fields.Number | None = None
    byok_requests: fields.Number | None = None
    prompt_tokens: fields.Number | None = None
    completion_tokens: fields.Number | None = None
    reasoning_tokens: fields.Number | None = None
    cached_tokens: fields.Number | None = None


class _ActivityReply(msgspec.Struct):
    data: list[_Row]


class _KnownRow(_Row, forbid_unknown_fields=True, gc=False):
    workspace_id: Any = None


class _KnownReply(msgspec.Struct):
    data: list[_KnownRow]


class _Credits(msgspec.Struct):
    total_usage: fields.Number
    total_credits: fields.Number | None = None


class _CreditsReply(msgspec.Struct):
    data: _Credits


class _Key(msgspec.Struct):
    hash: str
    name: str | None = None
    label: str | None = None
    disabled: bool | None = None
    usage: fields.Number | None = None
    byok_usage: fields.Number | None = None
    last_used_at: str | None = None
    limit: fields.Number | None = None
    limit_remaining: fields.Number | None = None
    limit_reset: str | None = None


class _KeysReply(msgspec.Struct):
    data: list[_Key]


class _Workspace(msgspec.Struct):
    id: str


class _WorkspacesReply(msgspec.Struct):
    data: list[_Workspace]


class _Named(msgspec.Struct):
    name: str


class _Meta(msgspec.Struct):
    metrics: list[_Named]
    dimensions: list[_Named]
    granularities: list[_Named]


class _MetaReply(msgspec.Struct):
    data: _Meta


class _QueryMetadata(msgspec.Struct):
    truncated: bool


class _QueryData(msgspec.Struct):
    data: list[dict[str, Any]]
    metadata: _QueryMetadata


class _QueryReply(msgspec.Struct):
    data: _QueryData


class _Rows(msgspec.Struct):
    data: list[msgspec.Raw]


_KEY_REPLY = msgspec.json.Decoder(_KeyReply)
_ACTIVITY_REPLY = msgspec.json.Decoder(_ActivityReply)
_KNOWN_FIELDS = msgspec.json.Decoder(_KnownReply)
_CREDITS_REPLY = msgspec.json.Decoder(_CreditsReply)
_KEYS_REPLY = msgspec.json.Decoder(_KeysReply)
_WORKSPACES_REPLY = msgspec.json.Decoder(_WorkspacesReply)
_META_REPLY = msgspec.json.Decoder(_MetaReply)
_QUERY_REPLY = msgspec.json.Decoder(_QueryReply, float_hook=Decimal)
_ROWS = msgspec.json.Decoder(_Rows)
_ROW = msgspec.json.Decoder(dict[str, msgspec.Raw])
_MSGPACK = msgspec.msgpack.Encoder()


def parse_key(body: bytes) -> KeyData:
    """What a key says of itself."""
    return fields.decode(_KEY_REPLY, body).data


def parse_activity(body: bytes) -> dict[date, DayReply]:
    """What an /activity reply says of each UTC day. Rows are checked, and repeats summed, when a day is read."""
    return _by_day(fields.decode(_ACTIVITY_REPLY, body).data)


def watch_activity(body: bytes) -> tuple[dict[date, DayReply], str | None]:
    """The same, and what ``odd_fields`` says. The reply is only looked through for that if something can be odd."""
    try:
        rows = _KNOWN_FIELDS.decode(body).data
    except (msgspec.MsgspecError, ArithmeticError, ValueError, RecursionError):
        return parse_activity(body), odd_fields(body)
    full = all(any(getattr(row, name) is not None for row in rows) for name in _Row.__struct_fields__)
    return _by_day(rows), None if full or not rows else odd_fields(body)


def _by_day(rows: Iterable[_Row]) -> dict[date, DayReply]:
    by_date: dict[str, list[_Run]] = {}
    number = 0
    for text, some in groupby(rows, attrgetter("date")):
        run = [*some]
        by_date.setdefault(text, []).append((number, run))
        number += len(run)
    by_day: dict[date, list[_Run]] = {}
    for text, runs in by_date.items():
        try:
            by_day.setdefault(fields.day(text), []).extend(runs)
        except fields.Misfit as misfit:
            raise fields.unexpected(misfit, runs[0][0]) from None
    return {day: _day_reply(day, runs) for day, runs in by_day.items()}


_Run = tuple[int, Sequence[_Row]]
"""Rows of one day that follow each other, and the number of the first in the whole reply."""

_READING = b"1"
"""Goes into every digest. With another number, days are read again that say what they said: for when an older Grafient
read something wrong."""


def _day_reply(day: date, runs: Sequence[_Run]) -> DayReply:
    rows = [row for _, run in runs for row in run]
    numbers = [range(first, first + len(run)) for first, run in runs]
    digest = sha256(_READING)
    for some in _in_parts(rows):
        digest.update(_MSGPACK.encode([*map(astuple, some)]))
    lines: list[BilledLine] = []

    def read() -> Sequence[BilledLine]:
        if not lines:
            lines.extend(_read_day(day, rows, chain.from_iterable(numbers)))
            rows.clear()  # they take three times as much memory
        return lines

    return DayReply(len(rows), read, digest.digest()[:16])


def _in_parts(rows: Sequence[_Row]) -> Iterator[Sequence[_Row]]:
    """So few that the garbage collector does not begin to look through what is made of them for a moment."""
    return (rows[at : at + 500] for at in range(0, len(rows), 500))


def _read_day(day: date, rows: Sequence[_Row], numbers: Iterable[int]) -> Sequence[BilledLine]:
    try:
        lines = fields.merged(line for some in _in_parts(rows) for line in _lines(day, some))
    except fields.Misfit:
        _name_misfit(day, rows, numbers)
        raise
    fields.check_sums(day, lines)
    return lines


def _name_misfit(day: date, rows: Sequence[_Row], numbers: Iterable[int]) -> None:
    """Raise UnexpectedResponse for the first of these rows that can't be understood."""
    for row, number in zip(rows, numbers, strict=True):
        try:
            _lines(day, [row])
        except fields.Misfit as misfit:
            raise fields.unexpected(misfit, number) from None


def odd_fields(body: bytes) -> str | None:
    """A sentence on the fields of an /activity reply that were never seen before, or are all lacking; else None.

    Nothing breaks by either, so that what comes next at the provider is known before it does. Row by row, since all of
    them as dictionaries would take several times the reply's own memory.
    """
    rows = fields.decode(_ROWS, body).data
    seen: set[str] = set()
    for row in rows:
        seen |= fields.decode(_ROW, row).keys()
    new = sorted(seen - _ROW_FIELDS)
    lacking = sorted(_ROW_FIELDS - {"workspace_id"} - seen) if rows else []
    parts = [f"new fields: {_listed(new)}"] if new else []
    parts += [f"fields that are gone: {_listed(lacking)}"] if lacking else []
    return f"OpenRouter's reply has changed. It has {', and '.join(parts)}. No figure is lost." if parts else None


_ROW_FIELDS = frozenset((*_Row.__struct_fields__, "workspace_id"))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(fields.text(name)[:60] for name in names[:10]) + more


def parse_credits(body: bytes) -> Credits:
    """``total_usage`` of a /credits reply, which has to be there, and ``total_credits``, in USD."""
    data, name = fields.decode(_CREDITS_REPLY, body).data, "total_usage"
    try:
        used = fields.usd(data.total_usage)
        name = "total_credits"
        return Credits(used, None if data.total_credits is None else fields.usd(data.total_credits))
    except fields.Misfit as misfit:
        raise UnexpectedResponse(f"{fields.UNKNOWN_SHAPE} {misfit} - at `$.data.{name}`.") from None


def parse_keys(body: bytes) -> dict[str, ListedKey]:
    """The keys of one page of /keys, by their hash. A key that has no name goes by its masked label."""
    keys = {}
    for number, row in enumerate(fields.decode(_KEYS_REPLY, body).data):
        if not 1 <= len(row.hash) <= _HASH or not row.hash.isalnum() or not row.hash.isascii():
            raise UnexpectedResponse(f"{fields.UNKNOWN_SHAPE} `hash` is not a hash - at `$.data[{number}]`.")
        name = fields.text(row.name) or fields.text(row.label) or row.hash[:12]
        keys[row.hash] = ListedKey(
            row.hash,
            name[:_KEY_NAME],
            bool(row.disabled),
            _spent(row),
            _limit(row.limit),
            _limit(row.limit_remaining),
            fields.text(row.limit_reset)[:_RESET],
        )
    return keys


def _spent(row: _Key) -> str | None:
    """All that says whether a key was used. USD alone do not: requests to free models cost nothing, and are counted."""
    if row.usage is None or row.byok_usage is None:
        return None
    if row.last_used_at is None and (row.usage or row.byok_usage):
        return None
    return (
        f"{Decimal(row.usage).normalize()} {Decimal(row.byok_usage).normalize()} {fields.text(row.last_used_at)[:40]}"
    )


def _limit(number: fields.Number | None) -> Decimal | None:
    """A limit that can't be kept, such as one of $100 million, stops nobody: there is none. No costs hang on it."""
    try:
        return None if number is None else fields.usd(number)
    except fields.Misfit:
        return None


_HASH = 128
_RESET = 16
_KEY_NAME = 500


def parse_workspaces(body: bytes) -> dict[str, None]:
    """The ids of one page of /workspaces."""
    return dict.fromkeys(fields.text(row.id) for row in fields.decode(_WORKSPACES_REPLY, body).data)


def parse_meta(body: bytes) -> tuple[set[str], set[str]]:
    """The metrics and the dimensions that analytics has; none if it knows no days."""
    meta = fields.decode(_META_REPLY, body).data
    if "day" not in {one.name for one in meta.granularities}:
        return set(), set()
    return {one.name for one in meta.metrics}, {one.name for one in meta.dimensions}


METRIC_COUNTS = {
    "request_count": "requests",
    "tokens_prompt": "prompt_tokens",
    "tokens_completion": "completion_tokens",
    "reasoning_tokens": "reasoning_tokens",
    "cached_tokens": "cached_tokens",
}
"""Analytics' names of what is counted, and ours."""


def parse_query(body: bytes, metrics: Collection[str]) -> tuple[list[BilledLine], bool]:
    """The lines of an /analytics/query reply by day, and by model if it was asked for; whether it was truncated.

    Counts arrive as numbers or strings, parts of the cost that were not used as null, the day as ``date__day`` or
    ``created_at__day``. USD are rounded to 6 decimals there.
    """
    data = fields.decode(_QUERY_REPLY, body).data
    lines: list[BilledLine] = []
    for number, row in enumerate(data.data):
        try:
            lines.append(_analytics_line(row, metrics))
        except fields.Misfit as misfit:
            raise UnexpectedResponse(f"{fields.UNKNOWN_SHAPE} {misfit} - at `$.data.data[{number}]`.") from None
    merged = fields.merged(lines)
    by_day: dict[date, list[BilledLine]] = {}
    for line in merged:
        by_day.setdefault(line.day, []).append(line)
    for day, found in by_day.items():
        fields.check_sums(day, found)
    return merged, data.metadata.truncated


def _analytics_line(row: Mapping[str, Any], metrics: Collection[str]) -> BilledLine:
    day = row.get("date__day", row.get("created_at__day"))
    model = row.get("model", "")
    if not isinstance(day, str):
        raise fields.Misfit("no `date__day`")
    if not isinstance(model, str):
        raise fields.Misfit("`model` is no text")
    credits_usd, byok_usd, total_usd = (
        fields.number(row, name) for name in ("credits_usage", "byok_usage", "total_usage")
    )
    usage_usd = fields.usd(credits_usd or Decimal(0))
    estimate_usd = fields.usd(byok_usd or Decimal(0)) if "byok_usage" in metrics else None
    if (
        total_usd is not None
        and estimate_usd is not None
        and abs(usage_usd + estimate_usd - fields.usd(total_usd)) > _ROUNDED_USD
    ):
        raise fields.Misfit("`credits_usage` and `byok_usage` do not add up to `total_usage`")
    permaslug = fields.text(model)
    fields.check_names(permaslug)
    counts = {ours: fields.count(fields.number(row, theirs), theirs) for theirs, ours in METRIC_COUNTS.items()}
    return BilledLine(fields.day(day), permaslug, "", "", permaslug, usage_usd, estimate_usd, **counts)


_ROUNDED_USD = Decimal("0.000002")


def _lines(day: date, rows: Sequence[_Row]) -> list[BilledLine]:
    """A line of each row, field by field of all rows: a reply can have ten thousand."""
    _, permaslugs, usage, byok, *labels_and_counts = zip(*map(astuple, rows), strict=True)
    names = zip(*map(_names, permaslugs, *labels_and_counts[:3]), strict=True)
    counts = map(fields.counts, COUNTS, labels_and_counts[3:])
    return [*map(BilledLine, repeat(day), *names, fields.usds(usage), fields.usds(byok), *counts)]


@lru_cache(4096)
def _names(permaslug: str, endpoint_id: str | None, host: str | None, model: str | None) -> tuple[str, str, str, str]:
    names = (
        fields.text(permaslug),
        fields.text(endpoint_id),
        fields.text(host),
        fields.text(model) or fields.text(permaslug),
    )
    fields.check_names("".join(names[:3]), names[3])
    return names
