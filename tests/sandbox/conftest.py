"""One sandbox for all these tests, back to its first day before each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import httpx
import pytest

from grafient.sandbox import Sandbox, key

TODAY = date(2026, 11, 22)  # the 30 days before it all have cached_tokens
Ask = Callable[..., httpx.Response]


@pytest.fixture(scope="session")
def _running() -> Iterator[Sandbox]:
    with Sandbox(today=TODAY) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_running: Sandbox) -> Sandbox:
    _running.reset()
    return _running


@pytest.fixture(scope="session")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=10, trust_env=False) as client:
        yield client


@pytest.fixture
def ask(sandbox: Sandbox, client: httpx.Client) -> Ask:
    """ask("/activity", "lively", date="...") is a GET with that key; `method` and `json` make it another."""

    def ask(
        path: str, name: str | None = "lively", *, method: str = "GET", json: Any = None, **query: str
    ) -> httpx.Response:
        headers = {} if name is None else {"Authorization": f"Bearer {key(name)}"}
        return client.request(method, sandbox.base_url + path, headers=headers, json=json, params=query)

    return ask
