"""The ledger of costs: what a reply says is compared with what is stored, and the difference is written.

A day is replaced, never added to. What it was before is kept. A reply's silence erases nothing unless the reply
speaks of other days, which proves that it is not merely empty.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import bindparam, insert, select, update

from grafient import attribution, lines
from grafient.extensions import db
from grafient.lines import IDENTITY, MEASURES, Identity, identity
from grafient.models import CostLine, CoveredDay, Restatement
from grafient.providers import Activity, BilledLine

SETTLES_AFTER = timedelta(minutes=30)
"""After midnight UTC, until a day's figures are complete at the provider."""


@dataclass
class Changes:
    """What one reply changes: lines to write and to take away, and days by what becomes of them."""

    added: list[BilledLine] = field(default_factory=list)
    changed: list[tuple[BilledLine, BilledLine]] = field(default_factory=list)
    removed: list[BilledLine] = field(default_factory=list)
    restated: list[tuple[BilledLine | None, BilledLine | None]] = field(default_factory=list)
    states: dict[date, str] = field(default_factory=dict)
    """The new state of each day that has one: ``final``, ``no_usage``, ``provisional`` or ``restated``."""

    @property
    def changed_closed(self) -> int:
        """How many lines of settled days are told differently."""
        return sum(1 for before, after in self.restated if before and after)

    @property
    def removed_closed(self) -> int:
        """How many lines of settled days are told no more."""
        return sum(1 for _, after in self.restated if after is None)


@dataclass(frozen=True)
class Recorded:
    """Counts of what a sync did, for its row in the history."""

    lines_added: int
    lines_changed: int
    lines_removed: int
    days_restated: int
    silent: bool
    """The reply was empty although usage is stored for its days, so nothing was touched."""


def record(integration_id: int, run_id: int, activity: Activity, now: datetime, source: str = "activity") -> Recorded:
    """Write a whole reply into the ledger, in the caller's transaction.

    ``source``: ``activity``, the provider's own record, or ``analytics``, which only speaks of days that are not
    settled yet: where a day has both, activity is the one that counts.
    """
    days = _spoken_of(activity)
    stored = lines.stored(CostLine, integration_id, CostLine.day.between(min(days), max(days)))
    covered = _covered(integration_id, min(days), max(days))
    if source == "analytics":
        days = {day for day in days if is_open(covered.get(day))}
    silent = not activity.lines and any(line.day in days for line in stored)
    changes = Changes() if silent else compare(stored, covered, activity, now, days)
    _write(integration_id, run_id, changes, covered, now, source)
    restated = {line.day for pair in changes.restated for line in pair if line}
    return Recorded(len(changes.added), changes.changed_closed, changes.removed_closed, len(restated), silent)


def is_open(state: str | None) -> bool:
    """Whether a day in that state is still to be settled: missing or provisional."""
    return state in (None, "provisional")


def model_names(integration_id: int) -> dict[str, str]:
    """What the provider calls each permaslug, from the lines that have both; the plainest name of several."""
    query = select(CostLine.permaslug, CostLine.model).distinct()
    names: dict[str, str] = {}
    for permaslug, model in db.session.execute(query.where(CostLine.integration_id == integration_id)):
        if model != permaslug:
            names[permaslug] = min(names.get(permaslug, model), model, key=lambda name: (":" in name, len(name), name))
    return names


def renamed(activity: Activity, names: Mapping[str, str]) -> Activity:
    """The same with its models called by what their permaslugs are known as."""
    found = [replace(line, model=names.get(line.permaslug, line.model)) for line in activity.lines]
    return replace(activity, lines=found)


def compare(
    stored: Iterable[BilledLine],
    covered: Mapping[date, str],
    activity: Activity,
    now: datetime,
    days: Collection[date] | None = None,
) -> Changes:
    """What a reply changes in what is stored. Pure.

    ``covered`` has the state of each day known so far. The reply speaks of the days it has lines for, and of every
    day from its first to its last; of these, only ``days`` are compared, if given.
    """
    before, after = _by_day(stored), _by_day(activity.lines)
    changes = Changes()
    for day in sorted(_spoken_of(activity) if days is None else days):
        was = covered.get(day)
        restated = _compare_day(before.get(day, {}), after.get(day, {}), changes, is_open(was))
        state = _state(day, was, restated, bool(after.get(day)), now)
        if state != was or restated or state == "provisional":
            changes.states[day] = state
    return changes


def _spoken_of(activity: Activity) -> set[date]:
    length = (activity.last_day - activity.first_day).days + 1
    return {activity.first_day + timedelta(days=n) for n in range(length)} | {line.day for line in activity.lines}


def _compare_day(
    old: dict[Identity, BilledLine], new: dict[Identity, BilledLine], changes: Changes, open_day: bool
) -> bool:
    """Add one day's differences to ``changes``; whether a closed day was restated."""
    restated: list[tuple[BilledLine | None, BilledLine | None]] = []
    for name in sorted(old.keys() | new.keys()):
        one, other = old.get(name), new.get(name)
        if one is None:
            assert other is not None
            changes.added.append(other)
            restated.append((None, other))
        elif other is None:
            changes.removed.append(one)
            restated.append((one, None))
        else:
            merged = _completed(one, other)
            if merged is None:
                changes.changed.append((one, other))
                restated.append((one, other))
            elif merged != one:
                changes.changed.append((one, merged))
    if open_day:
        return False
    changes.restated += restated
    return bool(restated)


def _completed(old: BilledLine, new: BilledLine) -> BilledLine | None:
    """One line from two that agree, knowing what either knows; None if they contradict each other."""
    known: dict[str, Any] = {}
    for name in MEASURES:
        one, other = getattr(old, name), getattr(new, name)
        if one is not None and other is not None and one != other:
            return None
        known[name] = one if other is None else other
    return replace(old, **known)


def _state(day: date, was: str | None, restated: bool, has_lines: bool, now: datetime) -> str:
    settled_at = datetime.combine(day + timedelta(days=1), time(), tzinfo=UTC) + SETTLES_AFTER
    if restated:
        return "restated"
    if was not in (None, "provisional"):
        return was
    if now < settled_at:
        return "provisional"
    return "final" if has_lines else "no_usage"


def _by_day(found: Iterable[BilledLine]) -> dict[date, dict[Identity, BilledLine]]:
    days: dict[date, dict[Identity, BilledLine]] = defaultdict(dict)
    for line in found:
        days[line.day][identity(line)] = line
    return days


def _covered(integration_id: int, first: date, last: date) -> dict[date, str]:
    query = select(CoveredDay.day, CoveredDay.state).where(
        CoveredDay.integration_id == integration_id, CoveredDay.day.between(first, last)
    )
    return {row.day: row.state for row in db.session.execute(query)}


def _write(
    integration_id: int, run_id: int, changes: Changes, covered: Mapping[date, str], now: datetime, source: str
) -> None:
    gone = [*changes.removed, *(old for old, _ in changes.changed)]
    here = [*changes.added, *(new for _, new in changes.changed)]
    lines.replace(CostLine, integration_id, gone, here)
    lines.many(insert(Restatement), [_restatement(integration_id, run_id, pair, now) for pair in changes.restated])
    own = {"integration_id": integration_id, "first_run_id": run_id, "changed_at": now, "source": source}
    new = [own | {"day": day, "state": state} for day, state in changes.states.items() if day not in covered]
    lines.many(insert(CoveredDay), new)
    told = {"b_integration_id": integration_id, "changed_at": now, "source": source}
    known = [told | {"b_day": day, "state": state} for day, state in changes.states.items() if day in covered]
    lines.many(_UPDATE_DAY, known)
    attribution.settle(integration_id, {line.day for line in (*gone, *here)})


_UPDATE_DAY = update(CoveredDay.__table__).where(  # type: ignore[arg-type]
    CoveredDay.integration_id == bindparam("b_integration_id"), CoveredDay.day == bindparam("b_day")
)


def _restatement(
    integration_id: int, run_id: int, pair: tuple[BilledLine | None, BilledLine | None], now: datetime
) -> dict[str, Any]:
    before, after = pair
    line = before or after
    assert line is not None
    return {
        "integration_id": integration_id,
        "run_id": run_id,
        "changed_at": now,
        **{name: getattr(line, name) for name in IDENTITY},
        "usage_before_usd": before and before.usage_usd,
        "usage_after_usd": after and after.usage_usd,
        "before": before and _as_json(before),
        "after": after and _as_json(after),
    }


def _as_json(line: BilledLine) -> str:
    return json.dumps({name: getattr(line, name) for name in MEASURES}, default=str)
