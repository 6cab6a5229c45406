"""Measuring two things beside each other: they alternate, so that whatever else the machine does meets both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """How two things compare. ``ratio``: how many times as fast ours is (or as small); ``least``: what it has to reach.

    ``spread``: the smallest and the largest ratio of a single round. A limit is a reference that never varies.
    """

    what: str
    against: str
    ours: str
    reference: str
    ratio: float
    spread: tuple[float, float]
    least: float | None

    @property
    def verdict(self) -> str:
        """Whether it reaches what it has to.

        "close" is within a tenth of it, either way. Three runs on one machine said 2.36×, 2.44× and 2.69× of the same
        code, of which 2.50× was asked: "yes" or "no" would have told how busy the machine was.
        """
        if self.least is None:
            return "–"
        if abs(self.ratio / self.least - 1) <= _CLOSE:
            return "close"
        return "yes" if self.ratio > self.least else "**no**"


_CLOSE = 0.1


def seconds(work: Callable[[], object]) -> float:
    """How long it takes once."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def duration(found: float) -> str:
    """Seconds, as they are read."""
    return f"{found * 1000:,.1f} ms" if found < 1 else f"{found:,.2f} s"


def rate(found: float) -> str:
    """Seconds that each of many took, as how many a second that is."""
    return f"{1 / found:,.0f}/s" if found < 0.02 else f"{1 / found:,.1f}/s"


def compare(
    what: str,
    against: str,
    ours: Callable[[], float],
    reference: Callable[[], float],
    *,
    rounds: int = 7,
    least: float | None = None,
    said: Callable[[float], str] = duration,
    warm_up: bool = True,
) -> Result:
    """Both in turn, so many rounds. Each returns what counts (seconds, bytes: the less the better), so that what it
    prepares does not. What starts a process for each round has nothing to warm up.
    """
    pairs = []
    for number in range(0 if warm_up else 1, rounds + 1):
        first, second = (ours, reference) if number % 2 else (reference, ours)
        one, other = first(), second()
        if number:
            pairs.append((one, other) if number % 2 else (other, one))
    return of(what, against, pairs, least=least, said=said)


def within(what: str, limit: float, found: Sequence[float], *, said: Callable[[float], str] = duration) -> Result:
    """What was found in some rounds, against a limit."""
    return of(what, "a limit", [(one, limit) for one in found], least=1.0, said=said)


def of(
    what: str,
    against: str,
    pairs: Sequence[tuple[float, float]],
    *,
    least: float | None = None,
    said: Callable[[float], str] = duration,
) -> Result:
    """The result of rounds that were measured already: ours and the reference's of each."""
    ratios = [reference / ours for ours, reference in pairs]
    ours, reference = (said(statistics.median(found)) for found in zip(*pairs, strict=True))
    return Result(what, against, ours, reference, statistics.median(ratios), (min(ratios), max(ratios)), least)
