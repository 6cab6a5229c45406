"""A workspace by a clock that jumps from day to day: what a scheduler and a worker do, without their processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta

import time_machine
from sqlalchemy import select

from grafient import runs
from grafient.alerts import watch, wording
from grafient.extensions import db
from grafient.models import Incident, IncidentEvent, Workspace, utc_now
from grafient.sandbox import Sandbox
from tests.syncing import run_due

SIX = time(6, 5, tzinfo=UTC)
"""When the daily run is due, and a little more."""


@contextmanager
def clock(moment: datetime) -> Iterator[None]:
    """Let it be that moment; the clock goes on from there, or whoever waits for a while would wait for ever."""
    with time_machine.travel(moment, tick=True):
        yield


def live_through(workspace: Workspace, sandbox: Sandbox, day: date, at: time = SIX) -> None:
    """What happens on a day at an hour: the runs that are due are written and done, and the workspace is looked at."""
    with clock(datetime.combine(day, at)):
        sandbox.today = day
        runs.insert_daily(utc_now())
        db.session.commit()
        run_due()
        if workspace.id in watch.due(utc_now()):
            watch.look(workspace.id)
        db.session.rollback()
        db.session.expire_all()


def told(workspace: Workspace) -> list[tuple[date, str, str, str]]:
    """All events so far: the day, what happened, the kind, and what is said."""
    found = (
        select(IncidentEvent, Incident)
        .join(Incident, Incident.id == IncidentEvent.incident_id)
        .where(Incident.workspace_id == workspace.id)
        .order_by(IncidentEvent.at, IncidentEvent.id)
    )
    return [
        (event.at.date(), str(event.what), str(incident.kind), _title(incident, event))
        for event, incident in db.session.execute(found)
    ]


def _title(incident: Incident, event: IncidentEvent) -> str:
    return wording.said(incident.kind, event.what, event.facts, event.marks).title


def each_day(first: date, last: date) -> Iterator[date]:
    while first <= last:
        yield first
        first += timedelta(days=1)
