"""All limits of all plans, in one table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """``history_days``: UTC days fetched on connecting, or None for as far as the provider goes. ``integrations`` and
    ``members``: how many a workspace can have, invitations counted as members.

    What has been stored stays, whatever the plan.
    """

    name: str
    history_days: int | None
    integrations: int
    members: int


PLANS = {
    "free": Plan("Free", 30, 10, 3),
    "pro": Plan("Pro", None, 50, 25),
    "ultimate": Plan("Ultimate", None, 1000, 500),
}
