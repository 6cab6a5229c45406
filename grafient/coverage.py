"""What is known of each day: for each integration that a query is about, and for all of them together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import and_, bindparam, case, select

from grafient.days import ONE_DAY, Period, last_due, span
from grafient.extensions import db
from grafient.models import UNATTRIBUTED, ApiKey, CoveredDay, DayCheck, DayTotal, Integration, KeyReading
from grafient.query import Group, Query, is_expected, selected
from grafient.states import DayState, Source


@dataclass(frozen=True)
class Coverage:
    """Of ``asked`` days, how many are settled, so that the figures have all of them; how many of these were restated;
    and how many are provisional, which no total counts.

    ``integrations`` should have data for these days. Those in ``without_data`` (their labels) have none at all: the
    figures, and the days counted here, are of the others.
    """

    asked: int
    covered: int
    provisional: int
    restated: int
    integrations: int = 1
    without_data: Sequence[str] = ()
    keys: int = 0
    keys_unread: int = 0
    """Of so many API keys, how many were never read, so that what they spent looks like nobody's. Known only where
    costs are shown by key."""

    @property
    def is_complete(self) -> bool:
        """Whether every day is settled, for each integration that has data."""
        return self.asked == self.covered

    @property
    def lacks_nothing(self) -> bool:
        """Whether that is so of all integrations that should have data."""
        return self.is_complete and not self.without_data

    @property
    def counted(self) -> int:
        """How many integrations the figures are of."""
        return self.integrations - len(self.without_data)

    @classmethod
    def of(cls, states: Sequence[DayState], integrations: int = 1, without_data: Sequence[str] = ()) -> Coverage:
        """Count the states of days."""
        return cls(
            asked=len(states),
            covered=sum(state.is_settled for state in states),
            provisional=states.count(DayState.PROVISIONAL),
            restated=states.count(DayState.RESTATED),
            integrations=integrations,
            without_data=without_data,
        )


class KnownDay(NamedTuple):
    """What is known of one day of one integration. ``read_at``: when a provisional day was last read."""

    state: DayState
    source: Source
    read_at: datetime | None


class Counted(NamedTuple):
    """A covered day of an integration by both counts; ``analytics_usd`` None where analytics was not asked."""

    state: DayState
    source: Source
    usage_usd: Decimal
    analytics_usd: Decimal | None


class Known:
    """What is known of the days of a query, and of those around it that were loaded with them.

    One account that was never read must not hide what is known of the others. With ten integrations of which nine are
    read every day, each day would be incomplete, and there would be no average and no comparison for anybody. So an
    integration with no settled day in the query's period is left out of every figure, and named beside it.
    """

    def __init__(
        self,
        query: Query,
        scope: Sequence[Integration],
        days: Mapping[int, Mapping[date, KnownDay]],
        keys: KeyDays | None = None,
        counted: Mapping[tuple[int, date], Counted] | None = None,
    ) -> None:
        self.counted = counted or {}
        """All covered days of these integrations, in order, whatever is filtered by; those next to the period too."""
        self.query, self.period = query, query.period
        self._scope = scope
        self._days, self._keys = days, keys
        self._states: dict[date, DayState] = {}
        self._expected_on: dict[date, list[DayState]] = {}
        self._throughout: dict[tuple[Any, ...], bool] = {}
        self.asked = self.asked_in(query.period)
        self.integrations = [i for i in self.asked if self._has_data(i)] or self.asked
        """Those that the figures are of."""

    @cached_property
    def counted_by(self) -> Mapping[int, Mapping[date, Counted]]:
        """The same by integration, so that not all are looked through for each of 1,000."""
        found: dict[int, dict[date, Counted]] = defaultdict(dict)
        for (integration_id, day), counted in self.counted.items():
            found[integration_id][day] = counted
        return found

    def asked_in(self, period: Period) -> list[Integration]:
        """Those that should cover a period, or have data for it."""
        return [i for i in self._scope if self._expected(i, period) or self._has_data(i, period)]

    @cached_property
    def coverage(self) -> Coverage:
        """The coverage of the query's period, over all integrations that count."""
        counted = {integration.id for integration in self.integrations}
        without = [integration.label for integration in self.asked if integration.id not in counted]
        found = Coverage.of([self.state(day) for day in self.period], len(self.asked), without)
        return found if self._keys is None else replace(found, keys=self._keys.number, keys_unread=self._keys.unread)

    def coverage_of(self, integration: Integration) -> Coverage:
        """The coverage of the days of the query's period that one integration should cover."""
        days = self._expected(integration, self.period)
        return Coverage.of([self._state_of(integration, day) for day in days])

    def state(self, day: date) -> DayState:
        """The state of a day over all integrations that count and should cover it."""
        if day not in self._states:
            self._states[day] = self._joint_state(day)
        return self._states[day]

    def _joint_state(self, day: date) -> DayState:
        states = self._states_of_expected(day)
        if not states:  # all were removed before it was due; what they had read of it is all there will ever be
            states = [self._state_of(i, day) for i in self.integrations if day in self._days[i.id]]
        return joint(states)

    def states_on(self, day: date) -> dict[int, DayState]:
        """The state of a day of each integration (by its id) that should cover it, also of those that are left out of
        the query's figures; where none should, of those that have it."""
        should = [i for i in self.asked if is_expected(i, day)] or [i for i in self.asked if day in self._days[i.id]]
        return {i.id: self._state_of(i, day) for i in should}

    def missing_part(self, day: date) -> tuple[int, int]:
        """Of how many integrations a day is missing, and how many should cover it."""
        states = self._states_of_expected(day)
        return states.count(DayState.MISSING), len(states)

    def _states_of_expected(self, day: date) -> list[DayState]:
        """The states of a day of all integrations that count and should cover it."""
        if day not in self._expected_on:
            self._expected_on[day] = [self._state_of(i, day) for i in self.integrations if is_expected(i, day)]
        return self._expected_on[day]

    def knows_part(self, day: date, group: Group, name: str | None, among: Sequence[Integration] | None = None) -> bool:
        """Whether it is known what a model, host or key had on a day, so that no line of it means nothing was billed.

        ``name`` None: all that have no column of their own. ``among``: in which integrations, if not in all. Days from
        analytics have no hosts and no keys, and the keys of a day can be unread while the day itself is known.
        """
        if group == Group.INTEGRATION and name is not None:
            one = next((i for i in self.integrations if str(i.id) == name), None)
            return one is None or day in self._days[one.id] or not is_expected(one, day)
        if group in (Group.MODEL, Group.INTEGRATION) or name == UNATTRIBUTED:
            return True
        return all(
            self._knows_part(integration, day, self._days[integration.id][day].source, group, name)
            for integration in self._with(group, name, among)
            if day in self._days[integration.id]
        )

    def knows_nothing(self, day: date, group: Group, name: str | None) -> bool:
        """Whether no line of a model, host or key on a day means that it had nothing. An integration that is missing
        may have used it; but an API key is only of the integrations that have it."""
        if not self.knows_part(day, group, name):
            return False
        if self.state(day) not in (DayState.MISSING, DayState.PARTIAL) or (group == Group.INTEGRATION and name):
            return True
        return all(day in self._days[one.id] or not is_expected(one, day) for one in self._with(group, name))

    def _with(self, group: Group, name: str | None, among: Sequence[Integration] | None = None) -> list[Integration]:
        """Those in which a model, host or key may have had something: with a key of that name, those that have it."""
        found = self.integrations if among is None else among
        if group != Group.KEY or not name or self._keys is None:
            return list(found)
        return [one for one in found if self._keys.has(one.id, name)]

    def _knows_part(self, integration: Integration, day: date, source: Source, group: Group, name: str | None) -> bool:
        if group == Group.HOST or self._keys is None:
            return source == Source.ACTIVITY
        if name is None:
            return source == Source.ACTIVITY and self._keys.is_read(integration.id, UNATTRIBUTED, day, source)
        return self._keys.is_read(integration.id, name, day, source)

    def knows_throughout(
        self, period: Period, group: Group, name: str | None, among: Sequence[Integration] | None = None
    ) -> bool:
        """Whether ``knows_part`` is true of each day of a period. Keys that were read on the same days, as nearly all
        are, are asked once: of 1,000 keys and two years it took seconds.
        """
        among = self._with(group, name, among)
        same: Any = name
        if group == Group.HOST:
            same = None
        elif group == Group.KEY and name and self._keys is not None:
            same = self._keys.history(name)
        asked = period, group, same, tuple(one.id for one in among)
        if asked not in self._throughout:
            self._throughout[asked] = all(self.knows_part(day, group, name, among) for day in period)
        return self._throughout[asked]

    def has(self, integration: Integration, day: date) -> bool:
        """Whether a day is settled for an integration, also where it need not be: it was removed before it was due."""
        return self._state_of(integration, day).is_settled

    def is_complete(self, integration: Integration, period: Period) -> bool:
        """Whether an integration has data for a period, for every day of it that it should cover."""
        days = self._expected(integration, period)
        return bool(days) and all(self._state_of(integration, day).is_settled for day in days)

    @property
    def any_settled(self) -> bool:
        """Whether a total can be said at all."""
        return any(self._has_data(integration) for integration in self.integrations)

    def provisional(self, *, removed: bool, until: date | None = None) -> dict[date, datetime]:
        """The days from the query's first on that are known provisionally, and when they were last read.

        ``until``: the last day to look at, where more were loaded. ``removed``: those of removed integrations, which no
        sync will ever settle; else those of the others.
        """
        found: dict[date, datetime] = {}
        for integration in self.integrations:
            if (integration.removed_at is not None) == removed:
                for day, known in sorted(self._days[integration.id].items()):
                    if known.read_at is not None and self.period.first <= day <= (until or day):
                        found[day] = max(found.get(day, known.read_at), known.read_at)
        return dict(sorted(found.items()))

    def _state_of(self, integration: Integration, day: date) -> DayState:
        known = self._days[integration.id].get(day)
        return DayState.MISSING if known is None else known.state

    def _has_data(self, integration: Integration, period: Period | None = None) -> bool:
        days, asked = self._days[integration.id], period or self.period
        return any(known.state.is_settled for day, known in days.items() if day in asked)

    def _expected(self, integration: Integration, period: Period) -> list[date]:
        end = None if integration.removed_at is None else last_due(integration.removed_at)
        return span(period.first, period.last if end is None else min(period.last, end))


def joint(states: Iterable[DayState]) -> DayState:
    """The state of a day of several integrations, from that of each."""
    distinct = set(states)
    if not distinct - {DayState.MISSING}:
        return DayState.MISSING
    for state in (DayState.MISSING, DayState.PROVISIONAL, DayState.RESTATED):
        if state in distinct:
            return DayState.PARTIAL if state == DayState.MISSING else state
    return DayState.NO_USAGE if distinct == {DayState.NO_USAGE} else DayState.FINAL


def load(
    query: Query, integrations: Sequence[Integration], group: Group = Group.MODEL, around: Period | None = None
) -> Known:
    """What is known of the query's days, or of ``around``, which has them all. ``integrations``: the workspace's.

    Where a host or an API key is asked for, only days count of which they are known: analytics has neither, and of a
    key those days alone were read that a reply about this key spoke of.
    """
    return Stored(selected(query, integrations), around or query.period).known(query, group)


class Stored:
    """What is stored of the days of some integrations in a period, and of their keys. It is read once, however many
    queries about them there are: 100 budgets, each of another model, took 200 statements.
    """

    def __init__(self, integrations: Sequence[Integration], period: Period) -> None:
        self._integrations = integrations
        self._days: dict[int, dict[date, KnownDay]] = {one.id: {} for one in integrations}
        self._counted: dict[tuple[int, date], Counted] = {}
        for integration_id, day, state, source, read_at, usage_usd, analytics_usd in _covered_days(self._days, period):
            self._counted[integration_id, day] = Counted(state, source, usage_usd or Decimal(0), analytics_usd)
            if day in period:
                self._days[integration_id][day] = KnownDay(state, source, read_at)

    @cached_property
    def _keys(self) -> KeyDays:
        return KeyDays.load([one.id for one in self._integrations])

    def known(self, query: Query, group: Group = Group.MODEL) -> Known:
        """See ``load``; the query may be about fewer integrations and days."""
        scope = selected(query, self._integrations)
        keys = self._keys if query.keys or group == Group.KEY else None
        if keys is not None and query.keys and UNATTRIBUTED not in query.keys:
            scope = [i for i in scope if any(keys.has(i.id, key) for key in query.keys)]
        if not query.keys and not query.hosts:
            return Known(query, scope, self._days, keys, self._counted)
        days: dict[int, dict[date, KnownDay]] = {}
        unknown = []
        for one in scope:
            asked = [key for key in query.keys if key == UNATTRIBUTED or (keys and keys.has(one.id, key))]
            days[one.id] = {}
            for day, known in self._days[one.id].items():
                if query.hosts and known.source != Source.ACTIVITY:
                    continue
                if keys is None or all(keys.is_read(one.id, key, day, known.source) for key in asked):
                    days[one.id][day] = known
                elif UNATTRIBUTED in asked or len(asked) > 1:
                    # What unread keys spent is among what no key explains, and would look like nobody's; and a sum of
                    # two keys of which one was read would look like both.
                    unknown.append((one.id, day))
        return Known(replace(query, unknown=tuple(unknown)), scope, days, keys, self._counted)


def _covered_days(ids: Iterable[int], period: Period) -> Iterable[Any]:
    """Each covered day of these integrations in a period and next to it, by both counts, in order."""
    values = {"ids": list(ids), "first": period.first - ONE_DAY, "last": period.last + ONE_DAY}
    return db.session.connection().execute(_COVERED_DAYS, values)


_COVERED_DAYS = (
    select(
        CoveredDay.integration_id,
        CoveredDay.day,
        CoveredDay.state,
        CoveredDay.source,
        case((CoveredDay.state == DayState.PROVISIONAL, CoveredDay.changed_at)),
        DayTotal.usage_usd,
        DayCheck.analytics_usd,
    )
    .outerjoin(DayTotal, and_(DayTotal.integration_id == CoveredDay.integration_id, DayTotal.day == CoveredDay.day))
    .outerjoin(DayCheck, and_(DayCheck.integration_id == CoveredDay.integration_id, DayCheck.day == CoveredDay.day))
    .where(
        CoveredDay.integration_id.in_(bindparam("ids", expanding=True)),
        CoveredDay.day.between(bindparam("first"), bindparam("last")),
    )
    .order_by(CoveredDay.day, CoveredDay.integration_id)
)


class KeyDays:
    """Which days were read of each API key. A key that is gone has no usage on the days after."""

    def __init__(self) -> None:
        self._intervals: dict[tuple[int, str], list[Period]] = {}
        self._gone: dict[tuple[int, str], date] = {}

    @classmethod
    def load(cls, integration_ids: Sequence[int]) -> KeyDays:
        """Of all keys of these integrations."""
        reading = and_(KeyReading.integration_id == ApiKey.integration_id, KeyReading.key_hash == ApiKey.key_hash)
        columns = ApiKey.integration_id, ApiKey.key_hash, ApiKey.gone_at, KeyReading.first_day, KeyReading.last_day
        query = select(*columns).outerjoin(KeyReading, reading).where(ApiKey.integration_id.in_(integration_ids))
        found = cls()
        for integration_id, key_hash, gone_at, first, last in db.session.execute(query):
            name = (integration_id, key_hash)
            intervals = found._intervals.setdefault(name, [])
            if first is not None:
                intervals.append(Period(first, last))
            if gone_at is not None:
                found._gone[name] = gone_at.date()
        return found

    @property
    def number(self) -> int:
        """How many keys there are, those that are gone left out."""
        return len(self._intervals) - len(self._gone)

    @property
    def unread(self) -> int:
        """How many of these were never read."""
        return sum(not days and name not in self._gone for name, days in self._intervals.items())

    def has(self, integration_id: int, key_hash: str) -> bool:
        """Whether the integration has, or had, that key."""
        return (integration_id, key_hash) in self._intervals

    def history(self, key_hash: str) -> frozenset[tuple[int, _History]]:
        """When a key was read, in each integration that has it."""
        return self._by_key.get(key_hash, frozenset())

    @cached_property
    def _by_key(self) -> dict[str, frozenset[tuple[int, _History]]]:
        found: dict[str, set[tuple[int, _History]]] = defaultdict(set)
        for (integration_id, key_hash), intervals in self._intervals.items():
            history = tuple(intervals), self._gone.get((integration_id, key_hash))
            found[key_hash].add((integration_id, history))
        return {key_hash: frozenset(histories) for key_hash, histories in found.items()}

    def is_read(self, integration_id: int, key_hash: str, day: date, source: Source) -> bool:
        """Whether what a key spent on a day is known; for what no key explains, whether all keys' is.

        All of a day that is known from analytics is what no key explains.
        """
        if key_hash == UNATTRIBUTED:
            return source == Source.ANALYTICS or all(_is_read(day, *one) for one in self._histories[integration_id])
        name = (integration_id, key_hash)
        return source == Source.ACTIVITY and _is_read(day, tuple(self._intervals[name]), self._gone.get(name))

    @cached_property
    def _histories(self) -> dict[int, set[_History]]:
        """Those of each integration's keys. Of 1,000 keys that are read every day most have the same one: asked one by
        one, they took 150 ms of the processor for a year.
        """
        found: dict[int, set[_History]] = defaultdict(set)
        for name, intervals in self._intervals.items():
            found[name[0]].add((tuple(intervals), self._gone.get(name)))
        return found


_History = tuple[tuple[Period, ...], date | None]
"""The days for which a key was read, and since when it is gone."""


def _is_read(day: date, intervals: tuple[Period, ...], gone: date | None) -> bool:
    return (gone is not None and day > gone) or any(day in interval for interval in intervals)
