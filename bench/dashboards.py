"""The dashboard's data: Grafient's report against the same figures by hand-written SQL on the driver, and against an
earlier commit's report.

The reference reads the same narrow tables (totals of days and models) and returns the figures and nothing else. The
report also knows which days are complete, compares with analytics and credits, and says what is missing.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import psycopg

from bench import places, team, upgrade
from bench.measure import Result, compare, seconds
from bench.places import Helper
from grafient import database
from grafient.days import ONE_DAY, Period
from grafient.extensions import db
from grafient.models import Workspace
from grafient.query import Query
from grafient.reports import dashboard

TOP = 7


def measure(rounds: int, team_size: tuple[int, int] = (20, 200), days: int = 365) -> Iterator[Result]:
    """One account of 50 rows a day in both databases, and a grown team on SQLite."""
    grown = f"SQLite, {team_size[0]} integrations × {team_size[1]} rows a day"
    for kind, name, size in (
        ("SQLite", "SQLite, 50 rows a day", (1, 50)),
        ("SQLite", grown, team_size),
        ("PostgreSQL", "PostgreSQL, 50 rows a day", (1, 50)),
    ):
        with places.database_of(kind) as url:
            yield from _measure(name, url, size, days, rounds)
    yield from _against_wide_lines(grown, min(rounds, 2), team_size, days)


def _against_wide_lines(name: str, rounds: int, team_size: tuple[int, int], days: int) -> Iterator[Result]:
    """The grown team in a database that an earlier commit made, and in the same one brought up to date."""
    with places.folder() as path, places.commit() as base:
        if base == places.ROOT:
            return  # this version can't read wide lines
        theirs, ours = path / "wide.db", path / "narrow.db"
        with places.context(f"sqlite:///{theirs}"):
            upgrade.fill(*team_size, days)
        shutil.copy(theirs, ours)
        with places.context(f"sqlite:///{ours}"):
            database.upgrade(db.engine)
        now = datetime.combine(upgrade.LAST + ONE_DAY, time(12), UTC)
        with _reports(theirs, base, now) as reference, _reports(ours, places.ROOT, now) as mine:
            for what, report, length, least in (
                ("dashboard, 30 days", "dashboard", 30, 30.0),
                (f"dashboard, {days} days", "dashboard", days, 30.0),
                (f"breakdown, {days} days", "breakdown", days, None),
                ("statement, 30 days", "statement", 30, None),
                (f"sums by model, {days} days", "models", days, None),
            ):
                period = Period.latest(length, now)
                asked = f"{report} {period.first} {period.last}"
                if mine.ask(asked)[1] != reference.ask(asked)[1]:
                    raise RuntimeError(f"{name}, {what}: the totals differ")
                yield compare(
                    f"{name}: {what}",
                    f"commit {places.BASE}",
                    partial(_seconds, mine, asked),
                    partial(_seconds, reference, asked),
                    rounds=rounds,
                    least=least,
                    warm_up=False,
                )


def _reports(file: Path, tree: Path, now: datetime) -> AbstractContextManager[Helper]:
    command = [sys.executable, places.ROOT / "bench/report.py", now.isoformat()]
    return places.helper(command, cwd=tree, **places.settings(f"sqlite:///{file}", *places.NOBODY, file.parent))


def _seconds(reports: Helper, asked: str) -> float:
    return float(reports.ask(asked)[0])


def measure_among(
    rounds: int,
    lines: int = 10_000_000,
    team_size: tuple[int, int] = (20, 200),
    days: int = 365,
    kinds: Sequence[str] = places.DATABASES,
) -> Iterator[Result]:
    """The grown team, while there are so many lines in all; the others are of integrations of other workspaces."""
    others = max(lines // (team_size[1] * days) - team_size[0], 0)
    for kind in kinds:
        with places.database_of(kind) as url:
            stored = (team_size[0] + others) * team_size[1] * days
            name = f"{kind}, {team_size[0]} integrations × {team_size[1]} rows a day, among {stored:,} lines"
            yield from _measure(name, url, team_size, days, rounds, others)


def _measure(
    name: str, url: str, size: tuple[int, int], longest: int, rounds: int, others: int = 0
) -> Iterator[Result]:
    with places.app(url), mock.patch("grafient.reports.dashboard.utc_now", return_value=team.NOW):
        workspace = Workspace(plan="ultimate")
        db.session.add(workspace)
        db.session.flush()
        team.write(workspace, *size, longest)
        if others:
            stranger = Workspace(plan="ultimate")
            db.session.add(stranger)
            db.session.flush()
            team.write(stranger, others, size[1], longest)
        if db.engine.dialect.name == "postgresql":
            with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("ANALYZE")
        workspace_id = workspace.id
        db.session.rollback()
        database.reading.set(True)
        with closing(_connect(url)) as raw:
            for days in (30, longest):
                query = Query(workspace_id, Period.latest(days, team.NOW))

                def ours(query: Query = query) -> float:
                    return seconds(lambda: (dashboard.report(query), db.session.rollback()))

                def theirs(query: Query = query) -> float:
                    return seconds(lambda: _by_hand(raw, query))

                yield compare(f"{name}, {days} days", "hand-written SQL", ours, theirs, rounds=rounds, least=1 / 1.5)
        database.reading.set(False)


def _connect(url: str) -> Any:
    """The driver alone."""
    if url.startswith("sqlite"):
        return sqlite3.connect(url.removeprefix("sqlite:///"))
    return psycopg.connect(url, autocommit=True)


def _by_hand(connection: Any, query: Query) -> Any:
    """All figures of the page: by day and state, by integration and period, by model, by day and model."""
    sqlite = isinstance(connection, sqlite3.Connection)
    place = "?" if sqlite else "%s"
    wide = Period(query.period.before.first, query.period.last + timedelta(days=1))
    first, last, wide_first, wide_last = (
        day.toordinal() if sqlite else day for day in (query.period.first, query.period.last, wide.first, wide.last)
    )
    mine = f"integration_id IN (SELECT id FROM integration WHERE workspace_id = {place})"
    between = f"day BETWEEN {place} AND {place}"
    usd = "sum(usage_usd)"

    def rows(statement: str, *values: Any) -> list[Any]:
        found: list[Any] = connection.execute(statement, values).fetchall()
        return found

    workspace = query.workspace_id
    integrations = rows(
        f"SELECT id, label, removed_at, last_success_at FROM integration WHERE workspace_id = {place}", workspace
    )
    states = rows(
        f"SELECT c.integration_id, c.day, c.state, t.usage_usd, k.analytics_usd FROM covered_day c "
        f"LEFT JOIN day_total t ON t.integration_id = c.integration_id AND t.day = c.day "
        f"LEFT JOIN day_check k ON k.integration_id = c.integration_id AND k.day = c.day "
        f"WHERE c.{mine} AND c.{between}", workspace, wide_first, wide_last,
    )  # fmt: skip
    by_integration = rows(
        f"SELECT integration_id, day >= {place}, {usd}, sum(byok_usd), sum(requests) FROM day_total "
        f"WHERE {mine} AND {between} GROUP BY 1, 2", first, workspace, wide_first, last,
    )  # fmt: skip
    models = rows(
        f"SELECT m.name, {usd} FROM model m JOIN model_total t ON t.model_id = m.id "
        f"WHERE m.{mine} AND {between} GROUP BY m.name ORDER BY 2 DESC", workspace, first, last,
    )  # fmt: skip
    named = [name for name, _ in models[:TOP]]
    places_ = ", ".join([place] * len(named))
    by_day = rows(
        f"SELECT day, CASE WHEN m.name IN ({places_}) THEN m.name END, {usd} FROM model_total t "
        f"JOIN model m ON m.id = t.model_id WHERE m.{mine} AND {between} GROUP BY 1, 2", *named, workspace, first, last,
    )  # fmt: skip
    return integrations, states, by_integration, models, by_day
