"""What tests of alerts have alike."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.alerts.stand_ins import Internet, StandIn, internet, vouched
from tests.syncing import at

__all__ = ["internet", "vouched"]


@pytest.fixture
def at_noon(request: pytest.FixtureRequest) -> Iterator[None]:
    """Once the database is there, which takes PostgreSQL seconds: the clock goes on."""
    if "app" in request.fixturenames:
        request.getfixturevalue("app")
    with at():
        yield


@pytest.fixture
def hook(internet: Internet) -> StandIn:
    """Where the channels of ``delivered.webhook`` lead."""
    return internet.machine("hooks.example.com")
