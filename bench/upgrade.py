"""An upgrade from the schema whose lines were wide (0003), tried on many lines: ``python -m bench.upgrade LINES``.

Each integration has 200 lines on each of 365 days. Prints, as JSON, what it took and left on disk. Fails unless
every figure is the same before and after, and the totals are those of the lines.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import event, text

from bench import measure, places
from grafient import database, totals
from grafient.extensions import db

DAYS, ROWS = 365, 200
COUNTS = ("requests", "byok_requests", "prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens")
FIGURES = ("usage_usd", "byok_usd", *COUNTS)
KEY = "a" * 64
LAST = date(2026, 11, 19)


def tried(lines: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """On both databases."""
    integrations = max(lines // (DAYS * ROWS), 1)
    for kind in places.DATABASES:
        with places.database_of(kind) as url, places.context(url):
            yield kind, {"lines": integrations * DAYS * ROWS} | _upgraded(integrations)


def _upgraded(integrations: int) -> dict[str, Any]:
    if db.engine.dialect.name == "sqlite":
        event.listen(db.engine, "connect", _add_exact_sum)
    fill(integrations, ROWS, DAYS)
    before, size = _figures(_wide()), _bytes()
    seconds = measure.seconds(lambda: database.upgrade(db.engine))
    _same(before, _figures(_narrow()))
    if wrong := totals.wrong():
        raise SystemExit(f"totals are not what their lines add up to: {wrong[:3]}")
    db.session.rollback()
    compared = len(before) * (1 + len(FIGURES))
    found = {"figures compared": compared, "seconds": round(seconds, 1), "bytes before": size}
    return found | {"bytes after": _bytes()}


def fill(integrations: int, rows: int, days: int) -> None:
    """Make the schema with wide lines, and in it a workspace with so many lines on each of the days before LAST.

    USD have 12 decimals, some counts are unknown, and half of the lines are one API key's.
    """
    database.upgrade(db.engine, "0003")
    db.session.execute(text("INSERT INTO workspace (plan, created_at) VALUES ('ultimate', CURRENT_TIMESTAMP)"))
    for number in range(1, integrations + 1):
        _fill(number, rows, days)


def _fill(number: int, rows: int, days: int) -> None:
    sqlite = db.engine.dialect.name == "sqlite"
    day = f"date('{LAST}', (d - {days}) || ' days')" if sqlite else f"DATE '{LAST}' + (d - {days})"
    micro = f"(({number} * 7919 + d * 104729 + r * 15486) % 999983)"
    usd = f"printf('%d.%06d%06d', r % 7, {micro}, {micro})" if sqlite else f"r % 7 + {micro} / 1e6 + {micro} / 1e12"
    byok = "'0.000000000000'" if sqlite else "0"
    names = f"'v/m-' || (r / 4) || '-20260601', 'e-' || r, 'host-' || (r % 3), 'v/m-' || (r / 4), {usd}, {byok}"
    counts = "d + r, 0, d * 1001 + r, d * 101 + r, CASE WHEN r % 5 > 0 THEN r END, r"
    columns = f"integration_id, day, permaslug, endpoint_id, host, model, {', '.join(FIGURES)}"
    series = (
        f"WITH RECURSIVE days(d) AS (SELECT 1 UNION ALL SELECT d + 1 FROM days WHERE d < {days}), "
        f"rows_(r) AS (SELECT 1 UNION ALL SELECT r + 1 FROM rows_ WHERE r < {rows}) "
    )
    spent = f"CASE WHEN r % 2 = 1 THEN '{KEY}' ELSE '' END"
    for statement in (
        "INSERT INTO integration (workspace_id, provider, label, key_hint, created_at, last_success_at) "
        f"VALUES (1, 'openrouter', 'Account {number}', 'abcd', '2025-11-01 06\\:00\\:00', '{LAST} 06\\:00\\:00')",
        f"INSERT INTO api_key (integration_id, key_hash, name, disabled) VALUES ({number}, '{KEY}', 'one', false)",
        f"INSERT INTO cost_line ({columns}) {series} SELECT {number}, {day}, {names}, {counts} FROM days, rows_",
        f"INSERT INTO key_line ({columns}, key_hash) "
        f"{series} SELECT {number}, {day}, {names}, {counts}, {spent} FROM days, rows_",
        "INSERT INTO covered_day (integration_id, day, state, source, first_run_id, changed_at) "
        f"{series} SELECT {number}, {day}, 'final', 'activity', 1, CURRENT_TIMESTAMP FROM days",
    ):
        db.session.execute(text(statement))
    db.session.commit()


def _sums(name: str, usd: str) -> str:
    figures = ", ".join(f"{usd if one.endswith('usd') else 'sum'}(l.{one})" for one in FIGURES)
    return f"{name}, count(*), {figures}"


def _wide() -> str:
    usd = "exact_sum" if db.engine.dialect.name == "sqlite" else "sum"
    whole = _sums("l.integration_id, l.model, ''", usd)
    part = _sums("l.integration_id, l.model, l.key_hash", usd)
    return (
        f"SELECT {whole} FROM cost_line l GROUP BY l.integration_id, l.model UNION ALL "
        f"SELECT {part} FROM key_line l WHERE l.key_hash <> '' GROUP BY l.integration_id, l.model, l.key_hash"
    )


def _narrow() -> str:
    whole = _sums("l.integration_id, m.name, ''", "sum")
    part = _sums("k.integration_id, m.name, k.key_hash", "sum")
    names = "JOIN series s ON s.id = l.series_id JOIN model m ON m.id = s.model_id"
    return (
        f"SELECT {whole} FROM line l {names} GROUP BY l.integration_id, m.name UNION ALL "
        f"SELECT {part} FROM key_part l {names} JOIN api_key k ON k.id = l.key_id "
        "GROUP BY k.integration_id, m.name, k.key_hash"
    )


def _figures(query: str) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """By integration, model and key: how many lines, and what each figure adds up to."""
    found = {row[:3]: tuple(row[3:]) for row in db.session.execute(text(query)).all()}
    db.session.rollback()
    return found


def _same(before: dict[Any, tuple[Any, ...]], after: dict[Any, tuple[Any, ...]]) -> None:
    """USD are whole numbers of 10^-12 afterwards."""
    for name in before.keys() | after.keys():
        count, *was = before.get(name, (0,))
        other, *found = after.get(name, (0,))
        usd = [Decimal(one).scaleb(12) if one is not None else None for one in was[:2]]
        if (count, *usd, *was[2:]) != (other, *found):
            raise SystemExit(f"{name}: {count, *was} before, {other, *found} after")


class _ExactSum:
    def __init__(self) -> None:
        self._sum = Decimal(0)

    def step(self, value: str | None) -> None:
        if value is not None:
            self._sum += Decimal(value)

    def finalize(self) -> str:
        return str(self._sum)


def _add_exact_sum(connection: sqlite3.Connection, _record: object) -> None:
    connection.create_aggregate("exact_sum", 1, _ExactSum)  # type: ignore[arg-type]


def _bytes() -> int:
    """Without what is free again in SQLite's file."""
    sqlite = (
        "SELECT (page_count - freelist_count) * page_size "
        "FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()"
    )
    query = sqlite if db.engine.dialect.name == "sqlite" else "SELECT pg_database_size(current_database())"
    size = int(db.session.execute(text(query)).scalar_one())
    db.session.rollback()
    return size


if __name__ == "__main__":
    for what, figures in tried(int(sys.argv[1])):
        print(what, json.dumps(figures), flush=True)
