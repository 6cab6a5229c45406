"""How many requests a second the daily syncs of all workers send to a provider, together.

At 06:00 UTC every account is due. Without a limit a team that adds workers adds to what the provider has to bear in
the same second, until it refuses all of them. The count is kept in Redis, where all workers find it. A Redis that is
away limits nothing and delays nothing: each worker still reads no more accounts at a time than it has threads.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable

from limits import RateLimitItemPerSecond
from limits.errors import StorageError
from limits.storage import RedisStorage
from limits.strategies import FixedWindowRateLimiter
from redis import Redis

MOST_SECONDS = 30.0
"""After so long a request is sent all the same: a sync must not lose its lease over waiting for others."""

AWAY_SECONDS = 10.0
"""How long a Redis that did not answer is not asked again. Each question to it takes seconds to give up on."""

TOGETHER = 4
"""So many requests are asked for at once: a quiet account's sync has four, and asking for each took a fourteenth of its
processor. Fewer, where the limit is no multiple of that, so that all of the limit can be asked for. Those that are not
sent within a second are lost."""


class Pace:
    """``per_second``: requests to one provider."""

    def __init__(self, redis: Redis | None, per_second: int) -> None:
        self._most = RateLimitItemPerSecond(per_second)
        self._together = math.gcd(per_second, TOGETHER)
        self._granted: dict[str, tuple[int, float]] = {}
        """How many requests to each provider may be sent without asking, and until when."""
        self._lock = threading.Lock()
        self._limiter: FixedWindowRateLimiter | None = None
        if redis is not None:
            pool = redis.connection_pool
            storage = RedisStorage("redis://", connection_pool=pool, key_prefix="grafient", wrap_exceptions=True)
            self._limiter = FixedWindowRateLimiter(storage)
        self._away_until = 0.0

    def of(self, provider: str) -> Callable[[], None]:
        """What waits until the next request to that provider may be sent."""
        return lambda: self._wait(provider)

    def _wait(self, provider: str) -> None:
        until = time.monotonic() + MOST_SECONDS
        while not self._may(provider) and time.monotonic() < until:
            time.sleep(random.random())  # noqa: S311 - spreads load, keeps no secret

    def _may(self, provider: str) -> bool:
        now = time.monotonic()
        if self._limiter is None or now < self._away_until or self._take(provider, now):
            return True
        try:
            if not self._limiter.hit(self._most, "requests", provider, cost=self._together):
                return False
        except StorageError:
            self._away_until = now + AWAY_SECONDS
            return True
        with self._lock:
            self._granted[provider] = self._left(provider, now) + self._together - 1, now + 1
        return True

    def _take(self, provider: str, now: float) -> bool:
        with self._lock:
            left = self._left(provider, now)
            if left:
                self._granted[provider] = left - 1, self._granted[provider][1]
            return left > 0

    def _left(self, provider: str, now: float) -> int:
        left, until = self._granted.get(provider, (0, now))
        return left if now < until else 0
