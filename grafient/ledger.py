"""The ledger of costs: what a reply says is compared with what is stored, and the difference is written.

A day is replaced, never added to. What it was before is kept. A reply's silence erases nothing unless the reply
speaks of other days, which proves that it is not merely empty.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import Row, bindparam, delete, insert, select, update

from grafient.extensions import db
from grafient.models import CostLine, CoveredDay, Restatement
from grafient.providers import Activity
from grafient.providers import CostLine as Line

SETTLES_AFTER = timedelta(minutes=30)
"""After midnight UTC, until a day's figures are complete at the provider."""

Identity = tuple[str, str, str]

_IDENTITY = ("day", "permaslug", "endpoint_id", "host")
_FIELDS = tuple(f.name for f in fields(Line))
_MEASURES = tuple(name for name in _FIELDS if name not in _IDENTITY)
_COLUMNS = [getattr(CostLine, name) for name in _FIELDS]


@dataclass
class Changes:
    """What one reply changes: lines to write and to take away, and days by what becomes of them."""

    added: list[Line] = field(default_factory=list)
    changed: list[tuple[Line, Line]] = field(default_factory=list)
    removed: list[Line] = field(default_factory=list)
    restated: list[tuple[Line | None, Line | None]] = field(default_factory=list)
    states: dict[date, str] = field(default_factory=dict)
    """The new state of each day that has one: ``final``, ``no_usage``, ``provisional`` or ``restated``."""


@dataclass(frozen=True)
class Recorded:
    """Counts of what a sync did, for its row in the history."""

    lines_added: int
    lines_changed: int
    lines_removed: int
    days_restated: int
    silent: bool
    """The reply was empty although usage is stored for its days, so nothing was touched."""


def record(integration_id: int, run_id: int, activity: Activity, now: datetime) -> Recorded:
    """Write a whole reply into the ledger, in the caller's transaction."""
    days = {line.day for line in activity.lines} | {activity.first_day, activity.last_day}
    stored = _stored(integration_id, min(days), max(days))
    covered = _covered(integration_id, min(days), max(days))
    silent = not activity.lines and any(activity.first_day <= line.day <= activity.last_day for line in stored)
    changes = Changes() if silent else compare(stored, covered, activity, now)
    _write(integration_id, run_id, changes, covered, now)
    restated_days = {(one or other).day for one, other in changes.restated if one or other}  # type: ignore[union-attr]
    return Recorded(len(changes.added), len(changes.changed), len(changes.removed), len(restated_days), silent)


def compare(stored: Iterable[Line], covered: Mapping[date, str], activity: Activity, now: datetime) -> Changes:
    """What a reply changes in what is stored. Pure.

    ``covered`` has the state of each day known so far. The reply speaks of the days it has lines for, and of every
    day from its first to its last.
    """
    before, after = _by_day(stored), _by_day(activity.lines)
    silence = {activity.first_day + timedelta(days=n) for n in range((activity.last_day - activity.first_day).days + 1)}
    changes = Changes()
    for day in sorted(silence | after.keys()):
        was = covered.get(day)
        restated = _compare_day(before.get(day, {}), after.get(day, {}), changes, was in (None, "provisional"))
        state = _state(day, was, restated, bool(after.get(day)), now)
        if state != was:
            changes.states[day] = state
    return changes


def _compare_day(old: dict[Identity, Line], new: dict[Identity, Line], changes: Changes, open_day: bool) -> bool:
    """Add one day's differences to ``changes``; whether a closed day was restated."""
    restated: list[tuple[Line | None, Line | None]] = []
    for identity in old.keys() | new.keys():
        one, other = old.get(identity), new.get(identity)
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


def _completed(old: Line, new: Line) -> Line | None:
    """One line from two that agree, knowing what either knows; None if they contradict each other."""
    known: dict[str, Any] = {}
    for name in _MEASURES:
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


def _by_day(lines: Iterable[Line]) -> dict[date, dict[Identity, Line]]:
    days: dict[date, dict[Identity, Line]] = defaultdict(dict)
    for line in lines:
        days[line.day][line.permaslug, line.endpoint_id, line.host] = line
    return days


def _stored(integration_id: int, first: date, last: date) -> list[Line]:
    query = select(*_COLUMNS).where(CostLine.integration_id == integration_id, CostLine.day.between(first, last))
    return [_line(row) for row in db.session.execute(query)]


def _line(row: Row[Any]) -> Line:
    return Line(**row._mapping)


def _covered(integration_id: int, first: date, last: date) -> dict[date, str]:
    query = select(CoveredDay.day, CoveredDay.state).where(
        CoveredDay.integration_id == integration_id, CoveredDay.day.between(first, last)
    )
    return {row.day: row.state for row in db.session.execute(query)}


def _write(integration_id: int, run_id: int, changes: Changes, covered: Mapping[date, str], now: datetime) -> None:
    gone = [*changes.removed, *(old for old, _ in changes.changed)]
    here = [*changes.added, *(new for _, new in changes.changed)]
    _many(
        _DELETE_LINE,
        [{f"b_{name}": getattr(line, name) for name in _IDENTITY} for line in gone],
        integration_id,
    )
    _many(insert(CostLine), [asdict(line) | {"integration_id": integration_id} for line in here])
    _many(insert(Restatement), [_restatement(integration_id, run_id, pair, now) for pair in changes.restated])
    states = changes.states.items()
    _many(
        insert(CoveredDay),
        [
            {
                "integration_id": integration_id,
                "day": day,
                "state": state,
                "first_run_id": run_id,
                "changed_at": now,
            }
            for day, state in states
            if day not in covered
        ],
    )
    _many(
        _UPDATE_DAY,
        [{"b_day": day, "state": state, "changed_at": now} for day, state in states if day in covered],
        integration_id,
    )


_DELETE_LINE = delete(CostLine.__table__).where(  # type: ignore[arg-type]
    CostLine.integration_id == bindparam("b_integration_id"),
    *(getattr(CostLine, name) == bindparam(f"b_{name}") for name in _IDENTITY),
)
_UPDATE_DAY = update(CoveredDay.__table__).where(  # type: ignore[arg-type]
    CoveredDay.integration_id == bindparam("b_integration_id"), CoveredDay.day == bindparam("b_day")
)


def _many(statement: Any, rows: Sequence[dict[str, Any]], integration_id: int | None = None) -> None:
    if not rows:
        return
    if integration_id is not None:
        rows = [row | {"b_integration_id": integration_id} for row in rows]
    db.session.connection().execute(statement, list(rows))


def _restatement(
    integration_id: int, run_id: int, pair: tuple[Line | None, Line | None], now: datetime
) -> dict[str, Any]:
    before, after = pair
    line = before or after
    assert line is not None
    return {
        "integration_id": integration_id,
        "run_id": run_id,
        "changed_at": now,
        **{name: getattr(line, name) for name in _IDENTITY},
        "usage_before_usd": before and before.usage_usd,
        "usage_after_usd": after and after.usage_usd,
        "before": before and _as_json(before),
        "after": after and _as_json(after),
    }


def _as_json(line: Line) -> str:
    return json.dumps({name: getattr(line, name) for name in _MEASURES}, default=str)
