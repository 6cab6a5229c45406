"""What alerts cost: a tick that finds nothing to be looked at, and a look beside the daily sync of its account.

The sync and the looks are measured in seconds of processor, since a sync mostly waits for the provider.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from flask import Flask
from sqlalchemy import func, insert, select, update

from bench import places, six_oclock
from bench.measure import Result, compare, seconds
from grafient import runs, sync
from grafient.alerts import budgets, watch
from grafient.extensions import db, providers
from grafient.models import AlertWatch, CoveredDay, Integration, JudgedDays, SyncRun, Workspace
from grafient.states import BudgetPeriod, DayState, Trigger

BUDGETS = 10


def measure(
    rounds: int, many: int = 10_000, few: int = 10, kinds: Sequence[str] = places.DATABASES
) -> Iterator[Result]:
    """On each database: the tick at many workspaces and at few, then the looks."""
    for kind in kinds:
        yield _ticks(kind, rounds, many, few)
        yield from _looks(kind, rounds)


def _ticks(kind: str, rounds: int, many: int, few: int) -> Result:
    with ExitStack() as stack:
        ticks = []
        for workspaces in (many, few):
            app = stack.enter_context(places.app(stack.enter_context(places.database_of(kind))))
            _write(workspaces)
            ticks.append(_tick(app))
        what = f"Alerts, {kind}: what a tick asks at {many:,} workspaces, nothing changed"
        return compare(what, f"at {few:,}", *ticks, rounds=5 * rounds)


def _tick(app: Flask) -> Callable[[], float]:
    def tick() -> float:
        with app.app_context():
            taken = seconds(lambda: watch.due(datetime.now(UTC)))
            db.session.rollback()
            return taken

    return tick


def _write(workspaces: int) -> None:
    """So many, with an account each, that were looked at after everything that happened."""
    now = datetime.now(UTC)
    ids = range(1, workspaces + 1)
    db.session.execute(insert(Workspace), [{"id": one, "plan": "free"} for one in ids])
    own = {"provider": "openrouter", "key_hint": "abcd", "label": "one"}
    db.session.execute(insert(Integration), [own | {"workspace_id": one, "revision": one} for one in ids])
    looked = {"since": now, "looked_at": now, "next_at": now + timedelta(hours=12), "turn": 1}
    db.session.execute(insert(AlertWatch), [looked | {"workspace_id": one, "seen": one} for one in ids])
    db.session.commit()
    connection = db.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    connection.exec_driver_sql("ANALYZE")
    connection.close()


def _looks(kind: str, rounds: int) -> Iterator[Result]:
    with (
        places.redis() as redis,
        places.provider() as provider,
        places.database_of(kind) as url,
        places.folder() as folder,
        six_oclock.made(url, redis, provider, str(folder)).app_context(),
        closing(providers["openrouter"].client),
    ):
        logging.getLogger("grafient.sync").setLevel(logging.WARNING)
        six_oclock.connect("1")
        six_oclock.due(Trigger.BACKFILL)
        _sync()
        _look()
        for what, before in (
            ("nothing changed", db.session.rollback),
            ("a day was settled", _settle),
            (f"a day was settled, {BUDGETS} budgets", _settle),
        ):
            if "budgets" in what:
                _add_budgets()
            yield compare(
                f"Alerts, {kind}: a look at a workspace, {what}",
                "the daily sync of its account, processor",
                lambda before=before: (before(), _look())[1],
                lambda: (six_oclock.due(Trigger.DAILY), _sync())[1],
                rounds=5 * rounds,
            )
        db.session.remove()
        db.engine.dispose()


def _sync() -> float:
    """Seconds of processor of the sync that is due, those of its threads too."""
    claim = runs.claim(datetime.now(UTC), 1)[0]
    db.session.commit()
    started = time.process_time()
    sync.perform(claim)
    taken = time.process_time() - started
    db.session.remove()
    if db.session.execute(select(SyncRun.id).where(SyncRun.status != "done")).first():
        raise RuntimeError("a sync did not succeed")
    db.session.rollback()
    return taken


def _look() -> float:
    started = time.process_time()
    watch.look(1)
    return time.process_time() - started


def _settle() -> None:
    """Have the newest settled day be one that was not judged yet."""
    settled = CoveredDay.state != DayState.PROVISIONAL
    newest = db.session.execute(select(func.max(CoveredDay.day)).where(settled)).scalar_one()
    db.session.merge(JudgedDays(integration_id=1, through=newest - timedelta(days=1)))
    db.session.execute(update(Integration).values(created_at=datetime.now(UTC) - timedelta(days=100)))
    db.session.commit()


def _add_budgets() -> None:
    for number in range(BUDGETS):
        fields = budgets.Fields(str(number), Decimal(1_000), BudgetPeriod.MONTH, {}, False, [100], [100])
        budgets.create(1, fields)
    db.session.commit()
