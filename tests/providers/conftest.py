"""What the tests of providers share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from grafient.providers.openrouter import OpenRouter
from grafient.sandbox import Sandbox


@pytest.fixture
def provider(sandbox: Sandbox) -> Iterator[OpenRouter]:
    """OpenRouter, as the sandbox plays it."""
    provider = OpenRouter(sandbox.base_url)
    yield provider
    provider.client.close()
