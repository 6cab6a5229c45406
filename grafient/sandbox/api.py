"""The provider's endpoints, each a function from a request to the payload of its reply."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_CEILING, Decimal
from uuid import NAMESPACE_URL, UUID, uuid5

from werkzeug.wrappers import Request

from grafient.sandbox import analytics
from grafient.sandbox.account import Account
from grafient.sandbox.catalog import Offer, lineup
from grafient.sandbox.records import ZERO, ActivityRow, ApiKey, Slice, Workspace, activity_rows
from grafient.sandbox.state import State, days
from grafient.sandbox.wire import ProviderError, money

WINDOW_DAYS = 30
KEYS_PER_PAGE = 100
WORKSPACES_PER_PAGE = 50
MOST_WORKSPACES_PER_PAGE = 100
OUT_OF_WINDOW = "Date must be within the last 30 (completed) UTC days"
INVALID = "Invalid request parameters"

Payload = dict[str, object]


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a key we know: `path` without `/api/v1`, `name` the key's, `secret` the key itself."""

    request: Request
    state: State
    path: str
    name: str
    secret: str
    account: Account


def key_info(call: Call) -> Payload:
    """What a management key says of itself; its own usage is 0 whatever the account spent."""
    account = call.account
    expiry = f"{call.state.today.year + 1}-12-31T23:59:59Z" if account.name == "other" else None
    return {
        "data": {
            "label": masked(call.secret),
            "is_management_key": True,
            "is_provisioning_key": True,
            "limit": None,
            "limit_reset": None,
            "limit_remaining": None,
            "include_byok_in_limit": False,
            **dict.fromkeys(USAGE_FIELDS, 0),
            "is_free_tier": account.kind == "free",
            "expires_at": expiry,
            "creator_user_id": account.id,
            "organization_id": account.organization_id,
            "workspace_id": account.workspaces[0].id,
            "rate_limit": {"requests": -1, "interval": "10s", "note": "This field is deprecated."},
            "free_model_daily_requests": {"limit": 1000, "used": 0, "remaining": 1000},
            "allowed_data_regions": ["global"],
            "budgets": [],
            "effective_budget": None,
        }
    }


def activity(call: Call) -> Payload:
    """The 30 completed days, newest first, or one of them; all of it or one key's, member's, workspace's."""
    query = call.request.args
    by_workspace = _choice(query.get("group_by"), "workspace")
    keep = _filter(call)
    rows: list[ActivityRow] = []
    for day in _window(query.get("date"), call.state.today):
        slices = call.state.slices(call.account, day)
        rows += activity_rows(filter(keep, slices), by_workspace=by_workspace)
    return {"data": [activity_json(row) for row in rows]}


def activity_json(row: ActivityRow) -> Payload:
    """A row as recorded from a live account: its `date` carries a time, `cached_tokens` may be absent."""
    data: Payload = {
        "date": f"{row.date} 00:00:00",
        "model_permaslug": row.model_permaslug,
        "endpoint_id": row.endpoint_id,
        "usage": money(row.usage),
        "byok_usage_inference": money(row.byok_usage_inference),
        "requests": row.requests,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
        "reasoning_tokens": row.reasoning_tokens,
        "byok_requests": row.byok_requests,
        "model": row.model,
        "provider_name": row.provider_name,
    }
    if row.cached_tokens is not None:
        data["cached_tokens"] = row.cached_tokens
    if row.workspace_id is not None:
        data["workspace_id"] = row.workspace_id
    return data


def _window(wanted: str | None, today: date) -> Iterable[date]:
    window = list(days(today - timedelta(days=WINDOW_DAYS), today - timedelta(days=1)))[::-1]
    if wanted is None:
        return window
    try:
        day = date.fromisoformat(wanted) if re.fullmatch(r"\d{4}-\d\d-\d\d", wanted) else None
    except ValueError:
        day = None
    if day is None:
        raise ProviderError(400, INVALID)
    if day not in window:
        raise ProviderError(400, OUT_OF_WINDOW)
    return [day]


def _filter(call: Call) -> Callable[[Slice], bool]:
    """Which slices the query asks for. A hash that no key has, or a foreign one, matches nothing."""
    query, account = call.request.args, call.account
    key_hash, member, workspace = query.get("api_key_hash"), query.get("user_id"), query.get("workspace_id")
    if key_hash is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", key_hash):
        raise ProviderError(400, INVALID)
    if workspace is not None:
        _own_workspace(account, workspace)
    if account.organization_id is None:
        member = None

    def keep(part: Slice) -> bool:
        return (
            (key_hash is None or part.key.hash == key_hash.lower())
            and (member is None or part.key.member.id == member)
            and (workspace is None or part.key.workspace.id == workspace.lower())
        )

    return keep


def _own_workspace(account: Account, wanted: str) -> str:
    try:
        text = str(UUID(wanted))
    except ValueError as error:
        raise ProviderError(400, INVALID) from error
    if text not in [workspace.id for workspace in account.workspaces]:
        raise ProviderError(404, "Workspace not found")
    return text


def _choice(value: str | None, *choices: str) -> bool:
    if value is not None and value not in choices:
        raise ProviderError(400, INVALID)
    return value is not None


def _number(value: str | None, default: int, least: int = 0, most: int = 999_999_999) -> int:
    if not value:
        return default
    if not re.fullmatch(r"\d{1,9}", value) or not least <= int(value) <= most:
        raise ProviderError(400, INVALID)
    return int(value)


def credits_(call: Call) -> Payload:
    """Bought and used over the account's life, in top-ups of $50; today's part is in it, BYOK is not."""
    used = sum((part.usage for part in call.state.lifetime(call.account)), ZERO)
    bought = ((used + 20) / 50).to_integral_value(ROUND_CEILING) * 50 if used else ZERO
    if call.account.overdrawn:
        bought = ZERO
    return {"data": {"total_credits": money(bought), "total_usage": money(used)}}


USAGE_FIELDS = tuple(
    f"{kind}{period}" for kind in ("usage", "byok_usage") for period in ("", "_daily", "_weekly", "_monthly")
)


def keys(call: Call) -> Payload:
    """One page of inference keys of one workspace; deleted ones are gone, disabled ones only on request."""
    query, state, account = call.request.args, call.state, call.account
    workspace = _own_workspace(account, query.get("workspace_id") or account.workspaces[0].id)
    offset = _number(query.get("offset"), 0)
    with_disabled = query.get("include_disabled", "").lower() in ("true", "1")
    found = [
        key
        for key in account.keys(state.today)
        if key.workspace.id == workspace and (with_disabled or not key.disabled)
    ]
    page = found[offset : offset + KEYS_PER_PAGE]
    usage, last_used = _usage_by_key(call), _last_used(call)
    return {"data": [_key_json(key, usage.get(key.hash, _no_usage()), last_used.get(key.hash)) for key in page]}


def _last_used(call: Call) -> dict[str, str]:
    """By key hash, when it was last used."""
    days: dict[str, date] = {}
    for part in call.state.lifetime(call.account):
        days[part.key.hash] = max(part.day, days.get(part.key.hash, part.day))
    return {key: f"{day}T00:00:00.000000+00:00" for key, day in days.items()}


def _key_json(key: ApiKey, usage: dict[str, Decimal], last_used_at: str | None) -> Payload:
    limit = key.monthly_limit
    created = f"{key.created}T09:30:00.000000+00:00"
    return {
        "hash": key.hash,
        "name": key.name,
        "label": f"sk-or-v1-{key.hash[:3]}...{key.hash[-3:]}",
        "disabled": key.disabled,
        "limit": limit,
        "limit_remaining": None if limit is None else money(limit - usage["usage_monthly"]),
        "limit_reset": None if limit is None else "monthly",
        "include_byok_in_limit": False,
        **{field: money(amount) for field, amount in usage.items()},
        "created_at": created,
        "updated_at": created,
        "last_used_at": last_used_at,
        "expires_at": None,
        "creator_user_id": key.member.id,
        "external_user": None,
        "workspace_id": key.workspace.id,
    }


def _no_usage() -> dict[str, Decimal]:
    return dict.fromkeys(USAGE_FIELDS, ZERO)


def _usage_by_key(call: Call) -> dict[str, dict[str, Decimal]]:
    """By key hash: lifetime, this UTC day, this week (from Monday) and this month, today's part included."""
    today = call.state.today
    since = {
        "": date.min,
        "_daily": today,
        "_weekly": today - timedelta(days=today.weekday()),
        "_monthly": today.replace(day=1),
    }
    totals: dict[str, dict[str, Decimal]] = {}
    for part in call.state.lifetime(call.account):
        own = totals.setdefault(part.key.hash, _no_usage())
        for period, first in since.items():
            if part.day >= first:
                own[f"usage{period}"] += part.usage
                own[f"byok_usage{period}"] += part.byok_usage_inference
    return totals


def workspaces(call: Call) -> Payload:
    """One page of the account's workspaces, the default one first, and how many there are in all."""
    query, found = call.request.args, call.account.workspaces
    offset = _number(query.get("offset"), 0)
    limit = _number(query.get("limit"), WORKSPACES_PER_PAGE, 1, MOST_WORKSPACES_PER_PAGE)
    data = [_workspace_json(workspace, call.account) for workspace in found[offset : offset + limit]]
    return {"data": data, "total_count": len(found)}


def _workspace_json(workspace: Workspace, account: Account) -> Payload:
    return {
        "id": workspace.id,
        "name": workspace.name,
        "slug": workspace.name.lower().replace(" ", "-"),
        "description": None,
        "default_guardrail_id": str(uuid5(NAMESPACE_URL, f"{workspace.id}/guardrail")),
        "default_text_model": None,
        "default_image_model": None,
        "default_provider_sort": None,
        "include_byok_in_budgets": False,
        "io_logging_api_key_ids": None,
        "io_logging_sampling_rate": 1,
        "is_data_discount_logging_enabled": True,
        "is_observability_broadcast_enabled": False,
        "is_observability_io_logging_enabled": False,
        "created_by": account.id,
        "created_at": f"{account.opened}T09:00:00Z",
        "updated_at": None,
    }


def inference_key_info(call: Call) -> Payload:
    """The same endpoint for an ordinary key: no flag is set, and the usage is its own."""
    payload = key_info(call)
    own = call.account.keys(call.state.today)[0]
    usage = _usage_by_key(call).get(own.hash, _no_usage())
    data = payload["data"]
    assert isinstance(data, dict)
    data |= {field: money(amount) for field, amount in usage.items()}
    data |= {"is_management_key": False, "is_provisioning_key": False}
    return payload


def analytics_meta(call: Call) -> Payload:
    return {"data": analytics.meta()}


def analytics_query(call: Call) -> Payload:
    wait = call.state.wait_for_query(call.name)
    if wait:
        raise ProviderError(429, "Rate limit exceeded", {"Retry-After": str(int(wait) + 1)})
    query = analytics.parse(call.request.get_data())
    first, last = analytics.day_range(query, call.state.today)
    slices = call.state.known_slices(call.account, first, last)
    data = analytics.run(query, call.account, slices, call.state.settings.analytics_row_limit)
    warnings = analytics.unresolved(query, {key.hash for key in call.account.keys(call.state.today)})
    return {"data": {**data, "warnings": warnings} if warnings else data}


def models(today: date) -> Payload:
    """The public catalogue of the day, far smaller than the real one."""
    data = [_model_json(offer) for offer in lineup(today)]
    return {"data": data, "links": {"next": None}, "total_count": len(data)}


def _model_json(offer: Offer) -> Payload:
    return {
        "id": offer.model,
        "canonical_slug": offer.permaslug,
        "name": offer.model,
        "created": 1_750_000_000,
        "description": "",
        "context_length": 200_000,
        "architecture": {
            "modality": "text->text",
            "input_modalities": ["text"],
            "output_modalities": ["text"],
            "instruct_type": None,
            "tokenizer": "Other",
        },
        "pricing": {
            "prompt": f"{offer.prompt_price.normalize():f}",
            "completion": f"{offer.completion_price.normalize():f}",
        },
        "top_provider": {"context_length": 200_000, "max_completion_tokens": None, "is_moderated": False},
        "per_request_limits": None,
        "supported_parameters": ["temperature"],
        "default_parameters": None,
        "supported_voices": None,
        "links": {"details": f"/api/v1/models/{offer.permaslug}/endpoints"},
    }


def masked(secret: str) -> str:
    """A key as the provider labels it: enough to recognise, too little to use."""
    return f"{secret[:12]}...{secret[-3:]}"


Endpoint = Callable[[Call], Payload]

ENDPOINTS: dict[str, tuple[str, Endpoint]] = {
    "/auth/key": ("GET", key_info),
    "/key": ("GET", key_info),
    "/activity": ("GET", activity),
    "/credits": ("GET", credits_),
    "/keys": ("GET", keys),
    "/workspaces": ("GET", workspaces),
    "/analytics/meta": ("GET", analytics_meta),
    "/analytics/query": ("POST", analytics_query),
}
