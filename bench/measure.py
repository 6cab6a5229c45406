"""Measuring two things beside each other: they alternate, so that whatever else the machine does meets both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """How two things compare. ``ratio``: how many times as fast ours is (or as small); ``least``: what it has to reach.

    ``spread``: the smallest and the largest ratio of a single round.
    """

    what: str
    against: str
    ours: str
    reference: str
    ratio: float
    spread: tuple[float, float]
    least: float | None

    @property
    def reaches(self) -> bool | None:
        """Whether it reaches what it has to; None where nothing was asked."""
        return None if self.least is None else self.ratio >= self.least


def seconds(work: Callable[[], object]) -> float:
    """How long it takes once."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(
    what: str,
    against: str,
    ours: Callable[[], float],
    reference: Callable[[], float],
    *,
    rounds: int = 7,
    least: float | None = None,
) -> Result:
    """Both in turn, so many rounds. Each returns the seconds that count, so that what it prepares does not."""
    pairs = []
    for number in range(rounds + 1):
        first, second = (ours, reference) if number % 2 else (reference, ours)
        one, other = first(), second()
        if number:  # the first round warms up
            pairs.append((one, other) if number % 2 else (other, one))
    ratios = [other / one for one, other in pairs]
    mine, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    return Result(what, against, _ms(mine), _ms(theirs), statistics.median(ratios), (min(ratios), max(ratios)), least)


def _ms(found: float) -> str:
    return f"{found * 1000:,.1f} ms" if found < 10 else f"{found:,.1f} s"
