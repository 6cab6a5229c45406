"""What is usual for a UTC day: what the same weekday cost in the weeks before. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from statistics import median
from typing import Literal

WEEKS = 8
LEAST = 4
"""Of these weekdays have to be known. With fewer, one spike would decide what is usual."""


@dataclass(frozen=True)
class Usual:
    """What ``days`` earlier days of the same weekday cost: all but the lowest and the highest from ``low`` to ``high``.

    That is the widest range that one spike can't move by itself: whatever one of these days had cost instead, both ends
    would lie within what the other days cost.
    """

    low: Decimal
    middle: Decimal
    """The median."""
    high: Decimal
    days: int

    def where(self, amount: Decimal) -> Literal["below", "within", "above"]:
        if amount < self.low:
            return "below"
        return "above" if amount > self.high else "within"


def of(amounts: Mapping[date, Decimal], day: date) -> Usual | None:
    """What is usual for the day; None with too little history: fewer than LEAST of its weekday in WEEKS are known.

    ``amounts``: what each known day cost. A day that is not in it is unknown, never zero.
    """
    before = (day - timedelta(weeks=weeks) for weeks in range(1, WEEKS + 1))
    found = sorted(amounts[earlier] for earlier in before if earlier in amounts)
    if len(found) < LEAST:
        return None
    return Usual(found[1], median(found), found[-2], len(found))
