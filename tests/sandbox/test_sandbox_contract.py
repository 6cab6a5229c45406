"""The official SDK reads the stand-in: that it is like the service is then not only our opinion.

Where the SDK and the service's observed behaviour differ, the stand-in follows the service:
- the SDK requires `cached_tokens`; rows before October 2026 don't have it, so the window here lies after that;
- the SDK's key information requires fields that older replies lack (the manners `old-flag`, `no-flag`);
- the SDK drops the figures of analytics rows (their type has no fields), so they are read from its raw reply.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import pytest

from grafient.sandbox import Sandbox, key

TODAY = date(2026, 11, 22)  # as the fixture sandbox has it

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDK warns of its own fields

openrouter = pytest.importorskip("openrouter")
Sdk = Callable[[str], Any]


@pytest.fixture
def replies() -> list[bytes]:
    return []


@pytest.fixture
def sdk(sandbox: Sandbox, replies: list[bytes]) -> Iterator[Sdk]:
    def keep(response: httpx.Response) -> None:
        response.read()
        replies.append(response.content)

    with httpx.Client(trust_env=False, event_hooks={"response": [keep]}) as client:
        yield lambda name: openrouter.OpenRouter(
            api_key=key(name), server_url=sandbox.base_url, client=client, retry_config=None
        )


@pytest.mark.parametrize("name", ["lively", "other", "organization", "new-field"])
def test_key_information(sandbox: Sandbox, sdk: Sdk, name: str) -> None:
    data = sdk(name).api_keys.get_current_key_metadata().data
    assert data.is_management_key is True
    assert data.usage == 0
    assert data.creator_user_id == sandbox.account(name).id
    assert data.organization_id == sandbox.account(name).organization_id


def test_an_inference_keys_information(sdk: Sdk) -> None:
    assert sdk("inference").api_keys.get_current_key_metadata().data.is_management_key is False


@pytest.mark.parametrize("name", ["lively", "other", "byok", "free", "empty", "today-only", "hostile", "new-field"])
def test_activity(sandbox: Sandbox, sdk: Sdk, name: str) -> None:
    rows = sdk(name).analytics.get_user_activity().data
    truth = sandbox.truth(name, TODAY - timedelta(days=30), TODAY - timedelta(days=1))
    assert len(rows) == len(truth.rows)
    by_day = sorted(truth.rows, key=lambda row: row.date, reverse=True)
    for theirs, ours in zip(rows, by_day, strict=True):
        assert theirs.date_ == f"{ours.date} 00:00:00"
        assert theirs.usage == float(ours.usage)
        assert theirs.byok_usage_inference == float(ours.byok_usage_inference)
        for field in (
            "model",
            "model_permaslug",
            "endpoint_id",
            "provider_name",
            "requests",
            "prompt_tokens",
        ):
            assert getattr(theirs, field) == getattr(ours, field)
        assert theirs.cached_tokens == ours.cached_tokens


def test_activity_of_a_day_and_by_workspace(sandbox: Sandbox, sdk: Sdk) -> None:
    day = TODAY - timedelta(days=2)
    production = sandbox.account("lively").keys(TODAY)[0]
    request = {"date_": str(day), "api_key_hash": production.hash, "group_by": "workspace"}
    rows = sdk("lively").analytics.get_user_activity(request=request).data
    assert {row.date_ for row in rows} == {f"{day} 00:00:00"}
    assert {row.workspace_id for row in rows} == {production.workspace.id}


def test_credits(sdk: Sdk) -> None:
    data = sdk("lively").credits.get_credits().data
    assert data.total_credits > data.total_usage > 0


def test_keys(sdk: Sdk) -> None:
    data = sdk("lively").api_keys.list(include_disabled=True, offset=0).data
    assert {"Production API", "Old chatbot"} <= {one.name for one in data}
    assert all(len(one.hash) == 64 for one in data)
    assert len(sdk("large").api_keys.list(offset=200).data) == 50


def test_workspaces(sandbox: Sandbox, sdk: Sdk) -> None:
    account = sandbox.account("lively")
    reply = sdk("lively").workspaces.list(limit=1)
    assert reply.result.total_count == len(account.workspaces) == 2
    found = [*reply.result.data, *reply.next().result.data]
    assert [(one.id, one.name) for one in found] == [(one.id, one.name) for one in account.workspaces]
    assert {one.created_by for one in found} == {account.id}
    assert sdk("lively").workspaces.list(offset=2).result.data == []


def test_models(sdk: Sdk) -> None:
    assert len(sdk("lively").models.list().result.data) > 10


def test_analytics_meta(sdk: Sdk) -> None:
    data = sdk("lively").analytics.get_analytics_meta().data
    assert {"total_usage", "request_count"} <= {metric.name for metric in data.metrics}
    assert {"model", "api_key_id"} <= {dimension.name for dimension in data.dimensions}


def test_analytics_query(sdk: Sdk, replies: list[bytes]) -> None:
    end = datetime(TODAY.year, TODAY.month, TODAY.day, tzinfo=UTC)
    answer = sdk("lively").analytics.query_analytics(
        metrics=["total_usage", "request_count"],
        dimensions=["model"],
        granularity="day",
        filters=[{"field": "variant", "operator": "eq", "value": "standard"}],
        order_by={"field": "date", "direction": "asc"},
        time_range={"start": end - timedelta(days=365), "end": end},
    )
    assert answer.data.metadata.truncated is False
    assert len(answer.data.data) == answer.data.metadata.row_count > 3_000
    first = json.loads(replies[-1])["data"]["data"][0]
    assert first["date__day"] == f"{TODAY - timedelta(days=365)}T00:00:00.000Z"
    assert set(first) == {"date__day", "model", "total_usage", "request_count"}


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("revoked", "UnauthorizedResponseError"),
        ("inference", "ForbiddenResponseError"),
        ("down", "InternalServerResponseError"),
        ("bad-gateway", "OpenRouterDefaultError"),
        ("cloudflare", "OpenRouterDefaultError"),
        ("misshapen", "ResponseValidationError"),
        ("wrong-types", "ResponseValidationError"),
        ("fewer-fields", "ResponseValidationError"),
        ("null-data", "ResponseValidationError"),
    ],
)
def test_errors(sdk: Sdk, name: str, error: str) -> None:
    with pytest.raises(getattr(openrouter.errors, error)):
        sdk(name).analytics.get_user_activity()


def test_a_day_out_of_the_window(sdk: Sdk) -> None:
    with pytest.raises(openrouter.errors.BadRequestResponseError, match="completed"):
        sdk("lively").analytics.get_user_activity(request={"date_": str(TODAY)})
