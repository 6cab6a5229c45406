"""Integrations, days and lines put into the database by hand, for tests of what pages say about them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from decimal import Decimal

from grafient.extensions import db
from grafient.models import UNATTRIBUTED, CostLine, CoveredDay, DayCheck, Integration, KeyLine, Workspace
from grafient.states import DayState, Source
from tests.syncing import NOON

TODAY = NOON.date()


def ago(days: int) -> date:
    return TODAY - timedelta(days=days)


def add(workspace: Workspace, label: str, **columns: object) -> Integration:
    integration = Integration(workspace_id=workspace.id, provider="openrouter", label=label, key_hint="abcd", **columns)
    integration.created_at = NOON - timedelta(days=400)
    db.session.add(integration)
    db.session.flush()
    return integration


def cover(
    integration: Integration,
    days: Iterable[date],
    usd: int | None = 10,
    state: DayState = DayState.FINAL,
    source: Source = Source.ACTIVITY,
    key: str = UNATTRIBUTED,
    model: str = "m",
    **measures: object,
) -> None:
    """Days of an integration, each with one line unless it had no usage."""
    for day in days:
        names: dict[str, object] = {
            "integration_id": integration.id,
            "day": day,
            "permaslug": model,
            "endpoint_id": "e",
            "host": "h",
        }
        db.session.merge(
            CoveredDay(
                integration_id=integration.id, day=day, state=state, source=source, first_run_id=1, changed_at=NOON
            )
        )
        if usd is not None:
            db.session.add(CostLine(**names, model=model, usage_usd=Decimal(usd), **measures))
            db.session.add(KeyLine(**names, key_hash=key, model=model, usage_usd=Decimal(usd), **measures))
    db.session.flush()


def check(integration: Integration, days: Iterable[date], usd: int = 10) -> None:
    """What analytics says of days."""
    for day in days:
        db.session.add(DayCheck(integration_id=integration.id, day=day, analytics_usd=Decimal(usd), checked_at=NOON))
    db.session.flush()
