"""What the tests of a sync do, and what they look at: against the sandbox over HTTP, by a clock that they move."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import time_machine
from sqlalchemy import func, select

from grafient import integrations, runs, sync
from grafient.extensions import db
from grafient.models import CostLine, CoveredDay, Integration, Restatement, SyncRun, Workspace, utc_now
from grafient.money import usd_sum
from grafient.sandbox import Sandbox

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
"""Far from midnight, when a day is neither over nor settled."""


@contextmanager
def at(moment: datetime = NOON) -> Iterator[datetime]:
    """Let it be that moment, for Grafient and for the sandbox; the clock goes on from there."""
    with time_machine.travel(moment, tick=True):
        yield moment


@contextmanager
def later(days: int) -> Iterator[datetime]:
    """So many days after NOON."""
    with at(NOON + timedelta(days=days)) as moment:
        yield moment


def connect(workspace: Workspace, sandbox: Sandbox, name: str = "lively", **options: bool) -> Integration:
    return integrations.connect(workspace.id, "openrouter", "", sandbox.key(name), **options)


def run_due() -> int:
    """Do everything that is due, as a worker would; how many runs that was."""
    done = 0
    while (claim := runs.claim(utc_now())) is not None:
        db.session.commit()
        sync.perform(claim)
        done += 1
    db.session.rollback()
    db.session.expire_all()
    return done


def synced(workspace: Workspace, sandbox: Sandbox, name: str = "lively") -> Integration:
    """Connect, and do the first sync."""
    integration = connect(workspace, sandbox, name)
    assert run_due() == 1
    return integration


def again(integration: Integration) -> SyncRun:
    """Force a sync and return its run."""
    integrations.force_sync(integration)
    assert run_due() == 1
    return last_run(integration)


def last_run(integration: Integration) -> SyncRun:
    query = select(SyncRun).where(SyncRun.integration_id == integration.id).order_by(SyncRun.id.desc()).limit(1)
    return db.session.execute(query).scalar_one()


def days(first: date, last: date) -> list[date]:
    """Each day from the first to the last, both included."""
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def window(sandbox: Sandbox) -> tuple[date, date]:
    """The first and last of the days that /activity tells of."""
    return sandbox.today - timedelta(days=30), sandbox.today - timedelta(days=1)


def truth(sandbox: Sandbox, name: str = "lively") -> Decimal:
    """What the window really came to."""
    return sandbox.truth(name, *window(sandbox)).usage


def a_day(sandbox: Sandbox, name: str = "lively", ago: int = 5) -> date:
    """A day with usage, some days back."""
    day = sandbox.today - timedelta(days=ago)
    while not sandbox.truth(name, day, day).usage:
        day -= timedelta(days=1)
    return day


def total(integration: Integration) -> Decimal:
    """What is stored of settled days."""
    return sum((usage for day, usage in by_day(integration).items() if states()[day][0] != "provisional"), Decimal(0))


def by_day(integration: Integration) -> dict[date, Decimal]:
    """What is stored of each day that has lines."""
    query = select(CostLine.day, usd_sum(CostLine.usage_usd)).where(CostLine.integration_id == integration.id)
    return {row[0]: row[1] for row in db.session.execute(query.group_by(CostLine.day))}


def states() -> dict[date, tuple[str, str]]:
    """State and source of each day that is covered."""
    query = select(CoveredDay.day, CoveredDay.state, CoveredDay.source)
    return {row[0]: (row[1], row[2]) for row in db.session.execute(query)}


def lines() -> list[tuple[object, ...]]:
    """All that is stored, to be compared with what was."""
    query = select(*CostLine.__table__.columns).order_by(*CostLine.__table__.primary_key.columns)
    return [tuple(row) for row in db.session.execute(query)]


MICRO = Decimal("0.000001")


def told_by_analytics(sandbox: Sandbox, name: str, first: date, last: date) -> dict[tuple[date, str], Decimal]:
    """What settled days really came to per model, rounded as analytics rounds it."""
    sums: dict[tuple[date, str], Decimal] = defaultdict(Decimal)
    for row in sandbox.truth(name, first, last).rows:
        sums[row.date, row.model_permaslug] += row.usage
    return {group: amount.quantize(MICRO) for group, amount in sums.items()}


def questions(sandbox: Sandbox) -> list[dict[str, Any]]:
    """What analytics was asked."""
    return [json.loads(request.body) for request in sandbox.requests() if request.method == "POST"]


def days_asked(sandbox: Sandbox) -> list[date]:
    """Each day that analytics was asked about per model, as often as it was."""
    ranges = [question["time_range"] for question in questions(sandbox) if question["dimensions"]]
    return [day for span in ranges for day in days(_day(span["start"]), _day(span["end"]) - timedelta(days=1))]


def _day(moment: str) -> date:
    return date.fromisoformat(moment[:10])


def with_the_year(workspace: Workspace) -> Workspace:
    """On a plan that reaches as far as the provider does."""
    workspace.plan = "ultimate"
    db.session.commit()
    return workspace


def restatements() -> int:
    return db.session.execute(select(func.count()).select_from(Restatement)).scalar_one()
