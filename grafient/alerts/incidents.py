"""What becomes of incidents: opened, worse, said again, resolved.

``step`` is pure: from the incidents there are and what is found now it says what happens. Each event is said once, so
that whoever gets it can rely on its being new; what is found again as it was says nothing, and what gets better by a
little stays as it is, see ``Finding.stays``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from grafient.alerts.findings import Finding, Key
from grafient.extensions import db
from grafient.models import Incident, IncidentEvent
from grafient.states import AlertKind, Happened

REMIND_AFTER = timedelta(hours=24)
REMEMBERED = timedelta(days=45)
"""For so long a resolved incident is looked at: what happened once is not found again as new."""


_HAPPENED = (AlertKind.NEW, AlertKind.RESTATED)
"""What happened can't end; its incident does after a while, and nobody is told."""

_LASTING = frozenset(
    {
        AlertKind.CREDITS,
        AlertKind.NO_SYNC,
        AlertKind.KEY,
        AlertKind.API_CHANGED,
        AlertKind.DAYS_LEAVING,
        AlertKind.DIFFERENCE,
        AlertKind.SILENT,
    }
)
"""What is over once it is no longer found. Of all else a finding says that it is over; what happened can't end, and a
budget that was set anew or an account that was not read for long is no news."""


@dataclass(frozen=True)
class Change:
    """What happens to an incident, or to what becomes one. ``marks``: those that are new; ``facts``: as they are now,
    None where nothing new is known. ``happened`` None: only the facts change. ``is_told``: whether anybody is."""

    incident: Incident | None
    finding: Finding | None
    happened: Happened | None
    marks: Sequence[str] = ()
    is_told: bool = True
    is_closed: bool = False
    """Whether it only can't be found any more, since a rule or an account was changed: what it said may still be so."""


def step(
    known: Mapping[Key, Incident],
    findings: Iterable[Finding],
    keeps: Iterable[Key],
    reminds: Iterable[str],
    now: datetime,
    quiet: Iterable[Key] = (),
) -> list[Change]:
    """What happens now. ``known``: the latest incident of each subject; ``reminds``: the kinds that are said again;
    ``quiet``: see ``Look``."""
    found = {one.key: one for one in findings}
    kept, daily, untold = set(keeps), set(reminds), set(quiet)
    changes: list[Change] = []
    for key, finding in found.items():
        incident = known.get(key)
        is_open = incident is not None and incident.resolved_at is None
        if incident is not None and is_open:
            changes += _going_on(incident, finding, finding.kind in daily, now)
        elif finding.marks and (incident is None or _may_open_again(incident, finding)):
            changes.append(Change(None, finding, Happened.OPENED, finding.marks, finding.is_news))
            if finding.is_over:
                changes.append(Change(None, finding, Happened.RESOLVED, is_told=False))
    for key, incident in known.items():
        if incident.resolved_at is None and key not in found and key not in kept:
            is_told = key[0] in _LASTING and key not in untold
            is_closed = not is_told and key[0] not in _HAPPENED
            changes.append(Change(incident, None, Happened.RESOLVED, is_told=is_told, is_closed=is_closed))
    return changes


def _may_open_again(incident: Incident, finding: Finding) -> bool:
    """What only happened is not opened twice; nor is what was about days, which are judged once, nor a step that its
    last incident has taken already, such as a restatement of some days ago."""
    if finding.lasts is not None or finding.is_over or finding.first_day is not None:
        return False
    is_repeated = finding.marks and all(mark.startswith("run ") for mark in finding.marks)
    return not (is_repeated and set(finding.marks) <= set(incident.marks))


def _going_on(incident: Incident, finding: Finding, is_daily: bool, now: datetime) -> list[Change]:
    holds = [*finding.marks, *(mark for mark in finding.stays if mark in incident.marks)]
    if finding.is_over or not holds:
        return [Change(incident, finding, Happened.RESOLVED, is_told=finding.is_news)]
    if finding.lasts is not None and incident.told_at + finding.lasts <= now:
        return [Change(incident, finding, Happened.RESOLVED, is_told=False)]
    new = [mark for mark in finding.marks if mark not in incident.marks]
    if new:
        return [Change(incident, finding, Happened.WORSENED, new, finding.is_news)]
    is_due = is_daily and abs(now - incident.told_at) >= REMIND_AFTER  # or told by a clock that was wrong
    if is_due and incident.acknowledged_at is None and not is_snoozed(incident, now):
        return [Change(incident, finding, Happened.REMINDED)]
    is_same = dict(finding.facts) == incident.facts and finding.last_day in (None, incident.last_day)
    return [] if is_same else [Change(incident, finding, None)]


def is_snoozed(incident: Incident, now: datetime) -> bool:
    """Whether nobody is to be told of it yet."""
    return incident.snoozed_until is not None and incident.snoozed_until > now


def write(
    workspace_id: int, changes: Sequence[Change], now: datetime
) -> tuple[list[IncidentEvent], list[IncidentEvent]]:
    """Write what happens; the events that somebody is to be told of, and the ends that nobody is. Does not commit."""
    told: list[IncidentEvent] = []
    ended: list[IncidentEvent] = []
    opened: dict[Key, Incident] = {}
    for change in changes:
        finding = change.finding
        incident = change.incident
        if incident is None and finding is not None:
            incident = opened.get(finding.key)
        if incident is None and finding is not None:
            incident = opened[finding.key] = _new(workspace_id, finding, now)
        if incident is None:
            continue
        if finding is not None and dict(finding.facts) != incident.facts:
            incident.facts = dict(finding.facts)
        if change.is_closed:
            incident.facts = {**incident.facts, "closed": True}
        if finding is not None and finding.last_day is not None:
            incident.last_day = finding.last_day
        if change.happened is None:
            continue
        event = IncidentEvent(what=change.happened, at=now, facts=incident.facts, marks=list(change.marks))
        incident.events.append(event)
        if change.happened is Happened.RESOLVED:
            incident.resolved_at = now
        else:
            incident.told_at = now
        if change.happened is Happened.WORSENED:
            incident.marks = [*incident.marks, *change.marks]
            incident.acknowledged_at, incident.acknowledged_by = None, ""
        if change.is_told and not is_snoozed(incident, now):
            told.append(event)
        elif change.happened is Happened.RESOLVED:
            ended.append(event)
    db.session.flush()
    return told, ended


def _new(workspace_id: int, finding: Finding, now: datetime) -> Incident:
    incident = Incident(
        workspace_id=workspace_id,
        kind=finding.kind,
        subject=finding.subject,
        integration_id=finding.integration_id,
        budget_id=finding.budget_id,
        facts=dict(finding.facts),
        marks=list(finding.marks),
        first_day=finding.first_day,
        last_day=finding.last_day,
        opened_at=now,
        told_at=now,
    )
    db.session.add(incident)
    return incident
