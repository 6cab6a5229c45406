"""What several pages show alike: what is known so far of unsettled days, and what can be filtered by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from grafient import query as queries
from grafient.coverage import Known
from grafient.models import UNATTRIBUTED, Integration
from grafient.query import KeyChoice, Query
from grafient.reports import sums
from grafient.reports.sums import Measures, Slot, Total


@dataclass(frozen=True)
class Choice:
    """An integration to filter by."""

    id: int
    label: str
    removed: bool


@dataclass(frozen=True)
class Filters:
    """What a page can be filtered by."""

    integrations: Sequence[Choice]
    models: Sequence[str]
    hosts: Sequence[str]
    keys: Sequence[KeyChoice]


@dataclass(frozen=True)
class Keys:
    """What each API key spent, the most expensive first; ``others`` (so many) past the limit are one amount."""

    rows: Sequence[Total]
    others: int
    others_usd: Decimal


@dataclass(frozen=True)
class Provisional:
    """What is known so far of days that are not settled: a floor. ``read_at``: when.

    ``removed``: of integrations that were removed before these days were settled, so that they stay as they are.
    """

    days: Sequence[date]
    usage_usd: Decimal
    read_at: datetime
    removed: bool


MOST_KEYS = 200


def keys(totals: Sequence[Total]) -> Keys:
    """The first MOST_KEYS of them and what no key explains, and the others."""
    shown = [one for number, one in enumerate(totals) if number < MOST_KEYS or one.id == UNATTRIBUTED]
    others = [one for one in totals[MOST_KEYS:] if one.id != UNATTRIBUTED]
    return Keys(shown, len(others), sums.added_usd(one.usage_usd for one in others))


def choices(integrations: Sequence[Integration]) -> list[Choice]:
    """The integrations of a workspace to filter by."""
    return [Choice(one.id, one.label, one.removed_at is not None) for one in integrations]


def filters(query: Query, integrations: Sequence[Integration]) -> Filters:
    """What a page of this query can be filtered by."""
    return Filters(choices(integrations), *queries.choices(query))


def provisional(known: Known, by_integration: Mapping[tuple[int, Slot], Measures]) -> list[Provisional]:
    """What is known so far of the days of a query, and after it, that are not settled: what may grow comes first."""
    found = []
    for removed in (False, True):
        days = known.provisional(removed=removed)
        ids = [i.id for i in known.integrations if (i.removed_at is not None) == removed]
        measured = [by_integration[i, Slot.UNSETTLED] for i in ids if (i, Slot.UNSETTLED) in by_integration]
        if days:
            amount = sums.added_usd(one.usage_usd for one in measured)
            found.append(Provisional(list(days), amount, max(days.values()), removed))
    return found
