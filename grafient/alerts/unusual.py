"""What a UTC day is expected to cost, and from which amount on it is unusual. Pure.

This is not what the dashboard calls usual, which is a plain range that many days lie outside. An alert has to be right
nearly always, so what is expected comes from medians, which a few odd days among the weeks before can't move, and the
range is as wide as this account, model or key has been irregular.

All of it is estimated in floats and rounded to whole cents; what a day did cost stays exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from statistics import median

WEEKS = 8
_LEVEL_DAYS = 14
"""What is expected is the median of so many days, each as a part of what its weekday usually is."""
_RECENT_DAYS, _RECENT = 7, 3
"""What three of the last seven days were like is no longer unusual."""
_SPREAD = 6
"""How many times as far from what is expected as half of the days are."""
_SPREAD_DAYS = 21
"""How irregular days are is told within so many; an odd number, so that a step leaves most of them on one side."""
_CENT = Decimal("0.01")


@dataclass(frozen=True)
class Margin:
    """How far off a day has to be at the least: in USD, and as a part of what is expected (0.3 is 30 %)."""

    usd: Decimal = Decimal(1)
    part: Decimal = Decimal("0.3")


@dataclass(frozen=True)
class Expected:
    """What a day is expected to cost; it is unusual below ``low`` and above ``high``."""

    usd: Decimal
    low: Decimal
    high: Decimal

    def direction(self, amount: Decimal) -> str:
        """``up``, ``down``, or nothing for a day that is as expected."""
        return "up" if amount > self.high else "down" if amount < self.low else ""


def expected(
    amounts: Mapping[date, Decimal], day: date, margin: Margin | None = None, least_days: int = 21
) -> Expected | None:
    """What a day is expected to cost, from the eight weeks before it.

    ``amounts``: what each known day cost; a day that is not in it is unknown, never zero. History begins with the
    first day that cost anything; None if fewer than ``least_days`` of it are known.

    A week's level is the median of its days, and a weekday's part of it the median of what it was of its weeks' levels:
    so neither a spike nor a week on holiday changes what Mondays are like. A step to another level is unusual for three
    days, then it is what is expected; a slow rise or fall is never unusual, since each day is also compared with the
    days just before it.
    """
    margin = margin or Margin()
    known = {
        before: float(amounts[then]) for before in range(1, 7 * WEEKS + 1) if (then := _before(day, before)) in amounts
    }
    used = [before for before, amount in known.items() if amount]
    known = {before: amount for before, amount in known.items() if used and before <= max(used)}
    if len(known) < least_days:
        return None
    parts = _weekday_parts(known)
    shares = {before: amount / part for before, amount in known.items() if (part := parts[before % 7]) > 0}
    recent = sorted(shares[before] for before in range(1, _RECENT_DAYS + 1) if before in shares)
    latest = [share for before, share in shares.items() if before <= _LEVEL_DAYS] or list(shares.values())
    part, level = parts[0], median(latest) if latest else 0.0
    middle = part * level
    off = max(float(margin.usd), float(margin.part) * middle, _SPREAD * middle * _spread(shares))
    low, high = middle - off, middle + off
    for lasting in [part * recent[end] for end in (_RECENT - 1, -_RECENT)] if len(recent) >= _RECENT else ():
        off = max(float(margin.usd), float(margin.part) * lasting)
        low, high = min(low, lasting - off), max(high, lasting + off)
    return Expected(_cents(middle), _cents(max(low, 0.0)), _cents(high))


def _before(day: date, days: int) -> date:
    return day - timedelta(days=days)


def _weekday_parts(known: Mapping[int, float]) -> list[float]:
    """What each weekday is of its week's level, by how many days modulo 7 it lies before the day that is asked about.

    Where less than half of the days cost anything, no weekday is told from another.
    """
    found: list[list[float]] = [[] for _ in range(7)]
    for week in range(WEEKS):
        days = {before: known[before] for before in range(7 * week + 1, 7 * week + 8) if before in known}
        level = median(days.values()) if len(days) >= 4 else 0.0
        if level > 0:
            for before, amount in days.items():
                found[before % 7].append(amount / level)
    if sum(1 for parts in found if len(parts) >= 3) < 7:
        return [1.0] * 7
    return [median(parts) for parts in found]


def _spread(shares: Mapping[int, float]) -> float:
    """How far half of the days were from the level, at least, as a part of it; each from that of its own three weeks.

    From the present level, the weeks before a step were all far off: for a month after prices had risen threefold
    neither a spike nor their fall was unusual.
    """
    weeks: dict[int, list[float]] = {}
    for before, share in shares.items():
        weeks.setdefault((before - 1) // _SPREAD_DAYS, []).append(share)
    off = [abs(share / level - 1) for found in weeks.values() if (level := median(found)) > 0 for share in found]
    return median(off) if off else 0.0


def _cents(amount: float) -> Decimal:
    return Decimal(repr(amount)).quantize(_CENT)
