"""The ledger of costs: a reply is compared with what is stored, and the difference is written.

A day is replaced, never added to, and what a settled day was before is kept as a restatement.

Silence needs care, because providers sometimes answer an empty list where they should answer an error. A reply that
has no line for a day means "no usage" only for the days it speaks of (see ``Activity.days``), and a reply without any
line is not believed at all where lines are stored: OpenRouter once answered ``{"data": []}`` for an hour, which would
have erased a month. A reply that has lines for other days proves that it is not merely empty, so there a day without
lines is believed to have been corrected to nothing.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from msgspec.structs import replace
from sqlalchemy import bindparam, insert, select, update

from grafient import lines, totals
from grafient.days import settles_at
from grafient.extensions import db
from grafient.lines import IDENTITY, MEASURES, Identity, identity
from grafient.models import CostLine, CoveredDay, Integration, Line, Model, Restatement, Series
from grafient.providers import Activity, BilledLine
from grafient.states import DayState, Source


@dataclass
class Changes:
    """What one reply changes: lines to write and to take away, and the new states of days."""

    added: list[BilledLine] = field(default_factory=list)
    changed: list[tuple[BilledLine, BilledLine]] = field(default_factory=list)
    removed: list[BilledLine] = field(default_factory=list)
    restated: list[tuple[BilledLine | None, BilledLine | None]] = field(default_factory=list)
    """Lines of settled days, before and after."""
    states: dict[date, DayState] = field(default_factory=dict)

    @property
    def changed_closed(self) -> int:
        """How many lines of settled days have other figures now."""
        return sum(1 for before, after in self.restated if before and after)

    @property
    def removed_closed(self) -> int:
        """How many lines of settled days are gone."""
        return sum(1 for _, after in self.restated if after is None)


@dataclass(frozen=True)
class Recorded:
    """What a reply did to the ledger, for its sync's row in the history. USD are what was charged to credits."""

    source: Source
    lines_added: int
    lines_changed: int
    lines_removed: int
    days_restated: int
    days_settled: int
    """Days that were missing or provisional and are settled now, and what they cost."""
    settled_usd: Decimal
    restated_usd: Decimal
    """By how much the days that were settled already grew."""
    provisional_usd: Decimal
    """By how much what is known so far of days that stay unsettled grew."""
    silent: bool
    """The reply was empty although usage is stored for its days, so nothing was changed."""


def record(
    integration_id: int, run_id: int, activity: Activity, now: datetime, source: Source = Source.ACTIVITY
) -> Recorded:
    """Write a whole reply into the ledger, in the caller's transaction.

    A reply of the provider's analytics only changes days that are not settled yet: where a day has both sources, the
    activity counts.
    """
    covered = _covered(integration_id, activity.days)
    states = {day: known.state for day, known in covered.items()}
    days = activity.days if source == Source.ACTIVITY else {day for day in activity.days if is_open(states.get(day))}
    silent = not activity.by_day and _has_lines(integration_id, covered, days)
    if silent:
        return _recorded(source, Changes(), states, activity, silent)
    same = {day for day in days & covered.keys() if _says_the_same(activity, day, covered[day])}
    known = days & covered.keys() - same
    stored = lines.stored(integration_id, CostLine.day.in_(known)) if known else []
    changes = compare(stored, states, activity, now, days, same)
    _write(integration_id, run_id, changes, stored, covered, activity, days, now, source)
    return _recorded(source, changes, states, activity, silent)


class _Covered(NamedTuple):
    state: DayState
    digest: bytes | None


def _says_the_same(activity: Activity, day: date, known: _Covered) -> bool:
    """Whether a reply says of a day what the last one did that was written.

    Of the thirty days in a daily sync's reply twenty-nine are usually as they were. Their lines need not be read out
    of the reply, nor out of the database.
    """
    digest = _digest(activity, day)
    return digest is not None and digest == known.digest


_NOTHING = b"nothing"


def _digest(activity: Activity, day: date) -> bytes | None:
    reply = activity.by_day.get(day)
    return _NOTHING if reply is None else reply.digest


def _has_lines(integration_id: int, covered: Mapping[date, _Covered], days: Collection[date]) -> bool:
    """Whether any of these days has lines; one of which the last reply said nothing has none."""
    asked = [day for day in days if day not in covered or covered[day].digest != _NOTHING]
    query = select(Line.day).where(Line.integration_id == integration_id, Line.day.in_(asked)).limit(1)
    return bool(asked) and db.session.execute(query).first() is not None


def _recorded(
    source: Source, changes: Changes, covered: Mapping[date, DayState], activity: Activity, silent: bool
) -> Recorded:
    opened = {day: state for day, state in changes.states.items() if is_open(covered.get(day))}
    settled = {day for day, state in opened.items() if state.is_settled}
    provisional = opened.keys() - settled
    return Recorded(
        source=source,
        lines_added=len(changes.added),
        lines_changed=changes.changed_closed,
        lines_removed=changes.removed_closed,
        days_restated=len({line.day for pair in changes.restated for line in pair if line}),
        days_settled=len(settled),
        settled_usd=sum((line.usage_usd for line in activity.lines(settled)), Decimal(0)),
        restated_usd=_growth(changes.restated),
        provisional_usd=_growth(
            (before, after)
            for before, after in (_pairs(changes) if provisional else ())
            if (after or before).day in provisional  # type: ignore[union-attr]
        ),
        silent=silent,
    )


def _pairs(changes: Changes) -> Iterable[tuple[BilledLine | None, BilledLine | None]]:
    """Every line that a reply changes, before and after."""
    yield from ((None, line) for line in changes.added)
    yield from changes.changed
    yield from ((line, None) for line in changes.removed)


def _growth(pairs: Iterable[tuple[BilledLine | None, BilledLine | None]]) -> Decimal:
    return sum((_usd(after) - _usd(before) for before, after in pairs), Decimal(0))


def _usd(line: BilledLine | None) -> Decimal:
    return Decimal(0) if line is None else line.usage_usd


def is_open(state: DayState | None) -> bool:
    """Whether a day in that state is still to be settled: missing (None) or provisional."""
    return state is None or not state.is_settled


def model_names(integration_id: int) -> dict[str, str]:
    """What the provider calls each permaslug, from the lines that have both; the plainest name of several."""
    query = select(Series.permaslug, Model.name).join(Model, Model.id == Series.model_id).distinct()
    names: dict[str, str] = {}
    for permaslug, model in db.session.execute(query.where(Series.integration_id == integration_id)):
        if model != permaslug:
            names[permaslug] = min(names.get(permaslug, model), model, key=lambda name: (":" in name, len(name), name))
    return names


def renamed(activity: Activity, known_names: Callable[[], Mapping[str, str]]) -> Activity:
    """The same with its models called by what their permaslugs are known as; an empty one need not ask for that."""
    if not activity.by_day:
        return activity
    names = known_names()
    found = [replace(line, model=names.get(line.permaslug, line.model)) for line in activity.lines()]
    return Activity.of(activity.first_day, activity.last_day, found, activity.today)


def compare(
    stored: Iterable[BilledLine],
    covered: Mapping[date, DayState],
    activity: Activity,
    now: datetime,
    days: Collection[date] | None = None,
    same: Collection[date] = (),
) -> Changes:
    """What a reply changes in what is stored. Pure.

    ``covered`` has the state of each day that is covered so far. Of the days that the reply speaks of, only ``days``
    are compared, if given; the lines of those in ``same`` are known to be as they were, and are not in ``stored``.
    """
    before = _by_day(stored)
    changes = Changes()
    for day in sorted(activity.days if days is None else days):
        was, restated = covered.get(day), False
        if day not in same:
            restated = _compare_day(before.get(day, {}), activity.lines([day]), changes, is_open(was))
        state = _state(day, was, restated, day in activity.by_day, now)
        if state != was or restated or state == DayState.PROVISIONAL:
            changes.states[day] = state
    return changes


def _compare_day(
    old: dict[Identity, BilledLine], found: Sequence[BilledLine], changes: Changes, open_day: bool
) -> bool:
    """Add one day's differences to ``changes``; whether a closed day was restated."""
    if not old and open_day:
        changes.added += found
        return False
    new = {identity(line): line for line in found}
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


def _state(day: date, was: DayState | None, restated: bool, has_lines: bool, now: datetime) -> DayState:
    if restated:
        return DayState.RESTATED
    if was is not None and was.is_settled:
        return was
    if now < settles_at(day):
        return DayState.PROVISIONAL
    return DayState.FINAL if has_lines else DayState.NO_USAGE


def _by_day(found: Iterable[BilledLine]) -> dict[date, dict[Identity, BilledLine]]:
    days: dict[date, dict[Identity, BilledLine]] = defaultdict(dict)
    for line in found:
        days[line.day][identity(line)] = line
    return days


def _covered(integration_id: int, days: Collection[date]) -> dict[date, _Covered]:
    if not days:
        return {}
    within = {"of": integration_id, "first": min(days), "last": max(days)}
    found = db.session.connection().execute(_COVERED, within)
    return {day: _Covered(state, digest) for day, state, digest in found if day in days}


_COVERED = select(CoveredDay.day, CoveredDay.state, CoveredDay.digest).where(
    CoveredDay.integration_id == bindparam("of"), CoveredDay.day.between(bindparam("first"), bindparam("last"))
)


def _write(
    integration_id: int,
    run_id: int,
    changes: Changes,
    stored: Sequence[BilledLine],
    covered: Mapping[date, _Covered],
    activity: Activity,
    days: Collection[date],
    now: datetime,
    source: Source,
) -> None:
    gone = [*changes.removed, *(old for old, _ in changes.changed)]
    here = [*changes.added, *(new for _, new in changes.changed)]
    if gone or here:
        numbers = lines.ids(integration_id, (*gone, *here))
        rows = lines.rows(integration_id, numbers, here)
        lines.replace(integration_id, numbers, gone, rows)
        touched, taken = {line.day for line in (*gone, *here)}, {identity(line) for line in gone}
        stays = [line for line in stored if line.day in touched and identity(line) not in taken]
        totals.clear(integration_id, touched & {line.day for line in stored})
        totals.write(integration_id, numbers, (*lines.rows(integration_id, numbers, stays), *rows))
    restated = [_restatement(integration_id, run_id, pair, now) for pair in changes.restated]
    lines.execute_many(insert(Restatement), restated)
    if restated:
        mine = update(Integration).where(Integration.id == integration_id).values(last_restated_at=now)
        db.session.execute(mine.execution_options(synchronize_session=False))
    own = {"integration_id": integration_id, "first_run_id": run_id, "changed_at": now, "source": source}
    digests = {day: _digest(activity, day) for day in days}
    new = [
        own | {"day": day, "state": state, "digest": digests[day]}
        for day, state in changes.states.items()
        if day not in covered
    ]
    lines.execute_many(insert(CoveredDay), new)
    known = {"b_integration_id": integration_id, "changed_at": now, "source": source}
    updated = [
        known | {"b_day": day, "state": state, "digest": digests[day]}
        for day, state in changes.states.items()
        if day in covered
    ]
    lines.execute_many(_UPDATE_DAY, updated)
    read = [day for day in days if day in covered and day not in changes.states and covered[day].digest != digests[day]]
    own_day = {"b_integration_id": integration_id}
    lines.execute_many(_UPDATE_DAY, [own_day | {"b_day": day, "digest": digests[day]} for day in read])


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
