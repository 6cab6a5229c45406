"""All limits of all plans, in one table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """``history_days``: UTC days fetched on connecting, or None for as far as the provider goes.

    What has been stored stays, whatever the plan.
    """

    name: str
    history_days: int | None


PLANS = {
    "free": Plan("Free", 30),
    "pro": Plan("Pro", None),
    "ultimate": Plan("Ultimate", None),
}
