"""What the tests of a sync do, and what they look at: against the sandbox over HTTP, by a clock that they move."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from sqlalchemy import func, select

from grafient import attribution, integrations, runs, sync, totals
from grafient import lines as stored_lines
from grafient.extensions import db
from grafient.lines import Identity
from grafient.models import (
    UNATTRIBUTED,
    ApiKey,
    CostLine,
    CoveredDay,
    Integration,
    Restatement,
    SyncRun,
    Workspace,
    utc_now,
)
from grafient.models.columns import usd_sum
from grafient.providers import BilledLine, KeyList
from grafient.providers.contract import COUNTS
from grafient.providers.openrouter import OpenRouterReader
from grafient.sandbox import Sandbox

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
"""Far from midnight, when a day is neither over nor settled."""

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what differs in the provider alone: one database is enough."""


def leave_out_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a sync's time, in tests that are about something else."""
    monkeypatch.setattr(OpenRouterReader, "api_keys", lambda self, scopes=(): KeyList([]))


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


def claim_one(now: datetime) -> runs.Claim | None:
    """Claim one run that is due, those that a person waits for first."""
    return next(iter(runs.claim(now, 1)), None)


def run_due() -> int:
    """Do everything that is due, as a worker would; how many runs that was."""
    done = 0
    while (claim := claim_one(utc_now())) is not None:
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
    found = states()
    return sum((usage for day, usage in by_day(integration).items() if found[day][0] != "provisional"), Decimal(0))


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
    columns = [getattr(CostLine, name) for name in ("integration_id", *stored_lines.FIELDS)]
    query = select(*columns).order_by(*columns[:5])
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


def parts_add_up(integration_id: int) -> bool:
    """Whether, for each line, the parts of all keys and the rest that no key explains are the whole, exactly."""
    parts: dict[Identity, list[BilledLine]] = defaultdict(list)
    for line in by_keys(integration_id):
        parts[stored_lines.identity(line)].append(line)
    whole = {stored_lines.identity(line): line for line in stored_lines.stored(integration_id)}
    assert totals.wrong() == []
    return all(_adds_up(whole.get(name), parts[name]) for name in whole.keys() | parts.keys())


def by_keys(integration_id: int, key_hash: str | None = None) -> list[BilledLine]:
    """What each key spent of each line, and the rest; or one of these alone."""
    found = attribution.by_key([integration_id], key_hashes=() if key_hash is None else [key_hash])
    rows = db.session.execute(select(*(found.c[name] for name in stored_lines.FIELDS)))
    return [BilledLine(*row) for row in rows]


def _adds_up(whole: BilledLine | None, parts: list[BilledLine]) -> bool:
    """Nothing where there is no line. A count that is unknown anywhere adds up to nothing in particular."""
    for name in ("usage_usd", "byok_usd", *COUNTS):
        amounts = [getattr(part, name) for part in parts]
        wanted = getattr(whole, name) if whole else 0
        known = name == "usage_usd" or None not in (wanted, *amounts)
        if known and sum(amounts) != wanted:
            return False
    return True


def by_key(integration: Integration, name: str) -> dict[date, Decimal]:
    """What the API key of that name spent on each day; under no name, what no key explains."""
    key = select(ApiKey.key_hash).where(ApiKey.integration_id == integration.id, ApiKey.name == name)
    key_hash = db.session.execute(key).scalar_one() if name else UNATTRIBUTED
    spent: dict[date, Decimal] = defaultdict(Decimal)
    for line in by_keys(integration.id, key_hash):
        spent[line.day] += line.usage_usd
    return {day: usage for day, usage in spent.items() if usage}


def spent_by(sandbox: Sandbox, name: str, first: date, last: date) -> dict[str, dict[date, Decimal]]:
    """What each key of an account really spent on each day that it spent something."""
    spent: dict[str, dict[date, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    account = sandbox.account(name)
    for day in days(first, last):
        for part in sandbox.state.slices(account, day):
            spent[part.key.name][day] += part.usage
    return {key: {day: usage for day, usage in found.items() if usage} for key, found in spent.items()}
