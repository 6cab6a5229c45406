"""Daily syncs share what they ask of a provider; what a person waits for does not wait for them."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import redis as redis_py
from flask import Flask

from grafient import pace, runs
from grafient.extensions import db
from grafient.models import Workspace, utc_now
from grafient.pace import Pace
from grafient.sandbox import Sandbox
from tests.syncing import connect, on_sqlite, run_due


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses, which are not waited for. At the end of each the second is over."""
    pauses: list[float] = []
    monkeypatch.setattr(pace, "time", SimpleNamespace(sleep=pauses.append, monotonic=time.monotonic))
    return pauses


def test_all_workers_together_send_so_many_in_a_second(redis: redis_py.Redis, slept: list[float]) -> None:
    one, other = Pace(redis, 5), Pace(redis, 5)
    allowed = [worker._may("openrouter") for worker in (one, other) * 4]
    assert allowed == [True] * 5 + [False] * 3


def test_each_provider_has_its_own(redis: redis_py.Redis) -> None:
    shared = Pace(redis, 1)
    assert shared._may("openrouter")
    assert shared._may("another")
    assert not shared._may("openrouter")


def test_one_too_many_waits_until_it_may(redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, pauses = Pace(redis, 2), []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        redis.flushdb()  # the second is over

    monkeypatch.setattr(pace, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    for _ in range(5):
        shared.of("openrouter")()
    assert len(pauses) == 2
    assert all(0 <= seconds < 1 for seconds in pauses)


def test_the_count_is_gone_when_its_second_is_over(redis: redis_py.Redis) -> None:
    Pace(redis, 5)._may("openrouter")
    (key,) = redis.keys("grafient*")
    assert 0 < redis.pttl(key) <= 2000


def test_four_are_asked_for_at_once_and_no_more_are_sent_than_may(
    redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, now = Pace(redis, 8), Pace(redis, 8), 0.0
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: now))
    assert one._may("openrouter")
    (key,) = redis.keys("grafient*")
    assert redis.get(key) == b"4"
    assert sum(worker._may("openrouter") for worker in (one, other) * 6) == 7
    redis.flushdb()  # the second is over
    assert one._may("openrouter")
    now = 1.0
    assert one._may("openrouter")
    (key,) = redis.keys("grafient*")
    assert redis.get(key) == b"8", "what was not sent within a second is lost"


def test_nobody_waits_for_ever(redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch, slept: list[float]) -> None:
    clock = iter(range(0, 10_000, 7))
    monkeypatch.setattr(pace, "time", SimpleNamespace(sleep=slept.append, monotonic=lambda: float(next(clock))))
    shared = Pace(redis, 1)
    shared._may("openrouter")
    shared.of("openrouter")()
    assert 1 <= len(slept) <= 5


def test_a_redis_that_is_away_limits_nothing_and_is_not_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    away = redis_py.Redis(host="127.0.0.1", port=1)
    shared = Pace(away, 1)
    assert shared._limiter is not None
    asked = []
    hit = shared._limiter.hit
    monkeypatch.setattr(shared._limiter, "hit", lambda *names, **cost: asked.append(names) or hit(*names, **cost))
    assert [shared._may("openrouter") for _ in range(20)] == [True] * 20
    assert len(asked) == 1


@on_sqlite
def test_only_daily_syncs_wait(
    context: Flask, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[str] = []
    monkeypatch.setattr(Pace, "_wait", lambda self, provider: waited.append(provider))
    integration = connect(workspace, sandbox, "empty")
    assert run_due() == 1
    runs.request(integration.id, "manual")
    db.session.commit()
    assert run_due() == 1
    assert waited == [], "a person waits for the first sync, and for a forced one"
    integration.last_success_at = integration.created_at = utc_now().replace(year=2025)
    db.session.commit()
    sandbox.clear_requests()
    runs.insert_daily(utc_now())
    db.session.commit()
    assert run_due() == 1
    assert waited == ["openrouter"] * len(sandbox.requests())
    assert len(waited) >= 4
