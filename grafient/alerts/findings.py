"""What is so now: what a look at a workspace works with, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any

from grafient import coverage
from grafient.alerts.rules import Rule
from grafient.alerts.unusual import WEEKS
from grafient.coverage import Counted, Known
from grafient.days import Period
from grafient.models import Incident, Integration
from grafient.query import Query
from grafient.states import AlertKind, Problem

HISTORY_DAYS = 7 * WEEKS + 15
"""That are loaded, up to today: what a day is expected to cost, for each of the last two weeks."""

CHECKED_DAYS = 30
"""That are compared with the provider's other figures."""

Key = tuple[AlertKind, str]


@dataclass(frozen=True)
class Finding:
    """Something that is so. ``subject`` tells it from others of its kind, and is the same at every look.

    ``marks``: the steps of getting worse that it has reached. ``stays``: those that it has fallen short of by so little
    that an incident which has them keeps them; without that, credits that hover around a sum would be an alert at
    every sync. ``is_news``: whether somebody is told; what was so when the rule was set is not. ``is_over``: it came
    and went between two looks, or has just ended. ``lasts``: for something that happened rather than is so, how long
    its incident stays open; such a thing is not found twice.
    """

    kind: AlertKind
    subject: str
    facts: Mapping[str, Any]
    marks: Sequence[str] = ("found",)
    stays: Sequence[str] = ()
    integration_id: int | None = None
    budget_id: int | None = None
    first_day: date | None = None
    last_day: date | None = None
    is_news: bool = True
    is_over: bool = False
    lasts: timedelta | None = None

    @property
    def key(self) -> Key:
        return self.kind, self.subject


def settled(counted: Mapping[date, Counted]) -> dict[date, Decimal]:
    """What each settled day of these cost."""
    return {day: one.usage_usd for day, one in counted.items() if one.state.is_settled}


@dataclass
class Look:
    """A look at a workspace. ``since``: when watching it began; ``looked_at``: when it was last looked at.

    ``incidents``: the latest of each subject, open or resolved not long ago. ``judged``: up to which day each
    integration's days were judged before. What is found goes into ``findings``; ``keeps``: open incidents of which
    nothing new can be said; ``quiet``: those that are not over for a good reason, if they are over, so that nobody is
    told; ``judges``: up to which days they were judged now. ``again_at``: when something may be found that is not yet.
    """

    workspace_id: int
    now: datetime
    since: datetime
    looked_at: datetime
    rules: Mapping[AlertKind, Rule]
    integrations: Sequence[Integration]
    incidents: Mapping[Key, Incident]
    judged: Mapping[int, date]
    findings: list[Finding] = field(default_factory=list)
    keeps: set[Key] = field(default_factory=set)
    quiet: set[Key] = field(default_factory=set)
    judges: dict[int, date] = field(default_factory=dict)
    again_at: list[datetime] = field(default_factory=list)

    @property
    def today(self) -> date:
        return self.now.date()

    @cached_property
    def connected(self) -> list[Integration]:
        """Those that were not removed."""
        return [one for one in self.integrations if one.removed_at is None]

    @cached_property
    def read_daily(self) -> list[Integration]:
        """Those that are to be read each day."""
        return [one for one in self.connected if one.paused_at is None]

    @cached_property
    def known(self) -> Known:
        """What is known of the last CHECKED_DAYS that are due, and of the days around them from which it is told what
        is expected, up to today; of those that are connected. Asked for once."""
        checked = Period.latest(CHECKED_DAYS, self.now)
        around = Period(self.today - timedelta(days=HISTORY_DAYS - 1), self.today)
        return coverage.load(Query(self.workspace_id, checked), self.connected, around=around)

    @cached_property
    def by_id(self) -> Mapping[int, Integration]:
        return {one.id: one for one in self.integrations}

    @cached_property
    def settled(self) -> Mapping[int, Mapping[date, Decimal]]:
        """What each settled day cost, by integration."""
        return {one.id: settled(self.known.counted_by.get(one.id, {})) for one in self.connected}

    def begins(self, kind: AlertKind, integration: Integration | None = None) -> datetime:
        """From when on something is news to this rule. A moment that is yet to come was noted by a clock that was
        wrong: waiting for it, nothing was news for weeks."""
        moments = [self.since, self.rules[kind].since, integration.created_at if integration else None]
        return max((one for one in moments if one is not None and one <= self.now), default=self.now)

    def open_of(self, kind: AlertKind, integration_id: int | None = None) -> list[Incident]:
        """The open incidents of a kind, of one integration if it is named."""
        return [
            one
            for one in self.incidents.values()
            if one.kind is kind and one.resolved_at is None and integration_id in (None, one.integration_id)
        ]

    def keep(self, incident: Incident) -> None:
        """Nothing new can be said of it; but for one whose rule was turned off, which is over."""
        if self.rules[incident.kind].is_on:
            self.keeps.add((incident.kind, incident.subject))

    def is_troubled(self, integration: Integration) -> bool:
        """Whether its last sync ended with something that a person has to mend."""
        return integration.problem in (Problem.NEEDS_KEY, Problem.KEY_UNREADABLE, Problem.API_CHANGED)
