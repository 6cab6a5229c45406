"""Accounts with a long past, written straight into the tables."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import insert

from grafient import lines, totals
from grafient.extensions import db
from grafient.models import CoveredDay, CreditReading, DayCheck, Integration, Workspace
from grafient.providers import BilledLine
from grafient.states import DayState

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
A_MODEL = 3
"""So many endpoints has each model."""


def write(
    workspace: Workspace, integrations: int, rows: int, days: int, *, prefix: str = "Account", now: datetime = NOW
) -> None:
    """Integrations with so many lines on each of the days before today, checked by analytics and credits. Commits."""
    for number in range(integrations):
        integration = Integration(
            workspace_id=workspace.id,
            provider="openrouter",
            label=f"{prefix} {number + 1:02}",
            key_hint="abcd",
            created_at=now - timedelta(days=days + 30),
            last_success_at=now.replace(hour=6),
        )
        db.session.add(integration)
        db.session.flush()
        _write_lines(integration.id, rows, days, number, now)
        db.session.commit()


def _write_lines(integration_id: int, rows: int, days: int, seed: int, now: datetime) -> None:
    first = now.date() - timedelta(days=days)
    names = [BilledLine(first, *_name(row), Decimal(0)) for row in range(rows)]
    ids = lines.ids(integration_id, names)
    series = [ids.series[lines.name(line)] for line in names]
    columns = ("integration_id", "day", "series_id", *lines.FIGURES)
    stored = lines.stored_days(first + timedelta(days=day) for day in range(days))
    for day, key in sorted(stored.items()):
        found = [(integration_id, key, one, *_figures(row, day.toordinal(), seed)) for row, one in enumerate(series)]
        lines.insert_many("line", columns, found)
    totals.add_up(integration_id, list(stored))
    own = {"integration_id": integration_id}
    covered = own | {"state": DayState.FINAL, "first_run_id": 1, "changed_at": now}
    db.session.execute(insert(CoveredDay), [covered | {"day": day} for day in stored])
    checks = _checks(rows, sorted(stored), seed)
    checked = own | {"checked_at": now}
    db.session.execute(insert(DayCheck), [checked | {"day": day, "analytics_usd": usd} for day, usd in checks])
    lifetime = Decimal(0)
    for day, usd in checks:
        at = datetime.combine(day, time(6), tzinfo=UTC)
        db.session.add(CreditReading(**own, read_at=at, lifetime_usd=lifetime, today_usd=Decimal(0)))
        lifetime += usd


def _checks(rows: int, days: list[date], seed: int) -> list[tuple[date, Decimal]]:
    found = ((day, sum(_steps(row, day.toordinal(), seed) for row in range(rows))) for day in days)
    return [(day, Decimal(steps).scaleb(-12)) for day, steps in found]


def _name(row: int) -> tuple[str, str, str, str]:
    model = f"vendor-{row // A_MODEL % 7}/model-{row // A_MODEL}"
    return f"{model}-20260601", f"703f11d6-5f20-473e-b2ba-{row:012x}", f"Host {row % A_MODEL}", model


def _steps(row: int, day: int, seed: int) -> int:
    return ((row + 1) * 7919 + day * 104729 + seed * 15485863) % 1_000_003 * 1_000_000


def _figures(row: int, day: int, seed: int) -> tuple[Any, ...]:
    return _steps(row, day, seed), 0, row * 3 + day % 7, 0, row * 1001 + day % 97, row * 101 + day % 89, row % 5, row
