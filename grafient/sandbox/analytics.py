"""`POST /analytics/query`: metrics by dimension and day, over slices of usage. Nothing here knows HTTP.

The end of a time range is exclusive, and a day that the range only touches counts whole, since the stand-in
knows no hours. Days and combinations without usage give no row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Literal

import msgspec

from grafient.sandbox.account import Account
from grafient.sandbox.records import Slice, Tally
from grafient.sandbox.wire import ProviderError, money, rounded_money

REACH_DAYS = 365
SHORT_REACH_DAYS = 31
DEFAULT_DAYS = 7
DEFAULT_LIMIT = 1_000

Text = dict[str, str]
Cell = msgspec.Raw | int | str | None


class TimeRange(msgspec.Struct, frozen=True):
    start: str
    end: str


class Filter(msgspec.Struct, frozen=True):
    field: str
    operator: Literal["eq", "neq", "in", "not_in"]
    value: str | float | list[str | float]


class OrderBy(msgspec.Struct, frozen=True):
    field: str
    direction: Literal["asc", "desc"]


class Query(msgspec.Struct, frozen=True):
    metrics: Annotated[list[str], msgspec.Meta(min_length=1)]
    dimensions: Annotated[list[str], msgspec.Meta(max_length=2)] = []
    filters: Annotated[list[Filter], msgspec.Meta(max_length=20)] = []
    granularity: Literal["day", "week", "month"] | None = None
    time_range: TimeRange | None = None
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    group_limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    order_by: OrderBy | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    label: str
    format: Literal["number", "currency", "percent"]
    value: Callable[[Tally], Decimal | int | None]


@dataclass(frozen=True, slots=True)
class Dimension:
    """`value` is what a row shows (a label where the provider enriches), `id` what a filter compares with."""

    label: str
    value: Callable[[Slice], str]
    id: Callable[[Slice], str]
    reach_days: int = REACH_DAYS


def _hit_rate(tally: Tally) -> Decimal | None:
    if tally.cached_tokens is None or not tally.prompt_tokens:
        return None
    return Decimal(tally.cached_tokens) / tally.prompt_tokens


METRICS: dict[str, Metric] = {
    "total_usage": Metric("Total Usage", "currency", lambda t: t.usage + t.byok_usage_inference),
    "credits_usage": Metric("Credits Usage", "currency", lambda t: t.usage or None),
    "byok_usage": Metric("BYOK Usage", "currency", lambda t: t.byok_usage_inference or None),
    "request_count": Metric("Request Count", "number", lambda t: t.requests),
    "tokens_prompt": Metric("Prompt Tokens", "number", lambda t: t.prompt_tokens),
    "tokens_completion": Metric("Completion Tokens", "number", lambda t: t.completion_tokens),
    "tokens_total": Metric("Total Tokens", "number", lambda t: t.prompt_tokens + t.completion_tokens),
    "reasoning_tokens": Metric("Reasoning Tokens", "number", lambda t: t.reasoning_tokens),
    "cached_tokens": Metric("Cached Tokens", "number", lambda t: t.cached_tokens),
    "cache_hit_rate": Metric("Cache Hit Rate", "percent", _hit_rate),
}


def _model(part: Slice) -> str:
    return part.model_permaslug


def _provider(part: Slice) -> str:
    return part.provider_name


def _variant(part: Slice) -> str:
    return "free" if part.model.endswith(":free") else "standard"


DIMENSIONS: dict[str, Dimension] = {
    "model": Dimension("Model", _model, _model),
    "variant": Dimension("Variant", _variant, _variant),
    "api_key_id": Dimension("API Key", lambda s: s.key.name, lambda s: s.key.hash),
    "user": Dimension("User", lambda s: s.key.member.name, lambda s: s.key.member.id),
    "workspace": Dimension("Workspace", lambda s: s.key.workspace.name, lambda s: s.key.workspace.id),
    "app": Dimension("App", lambda s: s.key.app, lambda s: s.key.app),
    "provider": Dimension("Provider", _provider, _provider, SHORT_REACH_DAYS),
}

OPERATORS: Text = {"eq": "scalar", "neq": "scalar", "in": "array", "not_in": "array"}
GRANULARITIES: Text = {"day": "Day", "week": "Week", "month": "Month"}


def meta() -> dict[str, object]:
    """What `GET /analytics/meta` tells of the above."""
    return {
        "metrics": [
            {
                "name": name,
                "display_label": metric.label,
                "is_rate": metric.format == "percent",
                "display_format": metric.format,
            }
            for name, metric in METRICS.items()
        ],
        "dimensions": [{"name": name, "display_label": d.label} for name, d in DIMENSIONS.items()],
        "operators": [{"name": name, "value_type": kind} for name, kind in OPERATORS.items()],
        "granularities": [{"name": name, "display_label": label} for name, label in GRANULARITIES.items()],
    }


def parse(body: bytes) -> Query:
    """A checked query, or the 400 that the provider would give."""
    try:
        query = msgspec.json.decode(body, type=Query)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProviderError(400, f"Invalid request parameters: {error}") from error
    for name in query.metrics:
        _known(name, METRICS, "metric")
    for name in [*query.dimensions, *(one.field for one in query.filters)]:
        _known(name, DIMENSIONS, "dimension")
    _check_order(query)
    for one in query.filters:
        if isinstance(one.value, list) != (OPERATORS[one.operator] == "array"):
            raise ProviderError(400, f"Operator {one.operator} takes {OPERATORS[one.operator]} values")
    return query


def _known(name: str, names: Iterable[str], what: str) -> None:
    if name not in names:
        raise ProviderError(400, f"Unknown {what}: {name}")


def _check_order(query: Query) -> None:
    orders = {*query.metrics, *query.dimensions, "request_count", "date"}
    if query.order_by is not None and query.order_by.field not in orders:
        raise ProviderError(400, f"Cannot order by {query.order_by.field}")


def day_range(query: Query, today: date) -> tuple[date, date]:
    """The first and last day that the query covers; the last week when it names no range."""
    if query.time_range is None:
        return today - timedelta(days=DEFAULT_DAYS - 1), today
    start, end = _moment(query.time_range.start), _moment(query.time_range.end)
    if start >= end:
        raise ProviderError(400, "time_range.start must be before time_range.end")
    first, last = start.date(), end.date()
    if end.timetz() == time(tzinfo=UTC):
        last -= timedelta(days=1)
    _check_reach(query, first, last, today)
    return first, last


def _check_reach(query: Query, first: date, last: date, today: date) -> None:
    names = [*query.dimensions, *(one.field for one in query.filters)]
    reach = min([REACH_DAYS, *(DIMENSIONS[name].reach_days for name in names)])
    if (last - first).days >= reach or (today - first).days > REACH_DAYS:
        raise ProviderError(400, f"time_range may span at most {reach} days and reach {REACH_DAYS} days back")


_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def _moment(text: str) -> datetime:
    """A UTC moment with seconds and a Z; the provider takes no other form."""
    try:
        if _MOMENT.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    raise ProviderError(400, "time_range needs UTC times with seconds, like 2026-01-31T00:00:00Z")


@dataclass(slots=True)
class _Group:
    """One row in the making: its time bucket, its dimensions' values, its sums."""

    bucket: date
    names: tuple[str, ...]
    tally: Tally


def run(query: Query, account: Account, slices: Iterable[Slice], row_limit: int) -> dict[str, object]:
    """The reply's `data`. `slices` are the usage of `day_range`, `row_limit` is the server's own maximum."""
    groups: dict[tuple[date, tuple[str, ...]], _Group] = {}
    for part in slices:
        if all(_passes(one, part) for one in query.filters):
            bucket = _bucket(part.day, query.granularity)
            names = tuple(DIMENSIONS[name].value(part) for name in query.dimensions)
            groups.setdefault((bucket, names), _Group(bucket, names, Tally())).tally.add(part)
    ordered = _within_groups(query, _ordered(query, list(groups.values())))
    kept = ordered[: _limit(query, row_limit)]
    return {
        "data": [_row(query, account, group) for group in kept],
        "metadata": {"query_time_ms": 12, "row_count": len(kept), "truncated": len(kept) < len(groups)},
    }


def unresolved(query: Query, hashes: set[str]) -> list[str]:
    """Warnings about filters for keys that the account never had."""
    wanted = [
        str(value)
        for one in query.filters
        if one.field == "api_key_id"
        for value in (one.value if isinstance(one.value, list) else [one.value])
    ]
    return [f"Could not resolve api_key_id: {value}" for value in wanted if value not in hashes]


def _passes(one: Filter, part: Slice) -> bool:
    actual = DIMENSIONS[one.field].id(part)
    wanted = {str(value) for value in (one.value if isinstance(one.value, list) else [one.value])}
    return (actual in wanted) == (one.operator in ("eq", "in"))


def _bucket(day: date, granularity: str | None) -> date:
    if granularity == "week":
        return day - timedelta(days=day.weekday())
    if granularity == "month":
        return day.replace(day=1)
    return day if granularity else date.min


def _ordered(query: Query, groups: list[_Group]) -> list[_Group]:
    """Newest first, then the busiest, unless the query says otherwise."""
    groups.sort(key=lambda group: group.names)
    groups.sort(key=lambda group: (group.bucket, group.tally.requests), reverse=True)
    order = query.order_by
    if order is not None:
        groups.sort(key=_order_key(query, order.field), reverse=order.direction == "desc")
    return groups


def _order_key(query: Query, field: str) -> Callable[[_Group], tuple[Decimal, str]]:
    """Comparable for every kind of field: numbers by value with unknown lowest, texts by themselves."""
    if field == "date":
        return lambda group: (Decimal(group.bucket.toordinal()), "")
    if field in query.dimensions:
        place = query.dimensions.index(field)
        return lambda group: (Decimal(0), group.names[place])
    metric = METRICS[field]

    def number(group: _Group) -> tuple[Decimal, str]:
        value = metric.value(group.tally)
        return (Decimal("-Infinity") if value is None else Decimal(value), "")

    return number


def _within_groups(query: Query, groups: list[_Group]) -> list[_Group]:
    """At most `group_limit` rows for each combination of dimensions."""
    if query.group_limit is None or not query.dimensions:
        return groups
    taken: dict[tuple[str, ...], int] = {}
    kept = []
    for group in groups:
        taken[group.names] = taken.get(group.names, 0) + 1
        if taken[group.names] <= query.group_limit:
            kept.append(group)
    return kept


def _limit(query: Query, row_limit: int) -> int:
    """1,000 rows unless asked; a series by dimension gets what it needs, up to the server's maximum."""
    series = query.granularity is not None and bool(query.dimensions) and query.group_limit is None
    default = row_limit if series else DEFAULT_LIMIT
    return min(row_limit, default if query.limit is None else query.limit)


def _row(query: Query, account: Account, group: _Group) -> dict[str, Cell]:
    row: dict[str, Cell] = {}
    if query.granularity is not None:
        row[f"{account.time_column}__{query.granularity}"] = f"{group.bucket}T00:00:00.000Z"
    row.update(zip(query.dimensions, group.names, strict=True))
    for name in query.metrics:
        row[name] = _cell(METRICS[name].value(group.tally), as_text=account.counts_as_text)
    return row


def _cell(value: Decimal | int | None, *, as_text: bool) -> Cell:
    if value is None:
        return None
    if isinstance(value, Decimal):
        return rounded_money(value)
    return str(value) if as_text else money(Decimal(value))
