"""How many bytes a line takes on disk, its indexes and totals included, against an earlier commit's schema.

Both versions' own ledgers write the same replies (``fill.py``). The empty database is not counted, nor is the evidence.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from bench import ingest, places
from bench.measure import Result, compare


def measure(_rounds: int, rows: int = 200, days: int = 90) -> Iterator[Result]:
    """So many rows on each of so many days. Once: every time would be the same."""
    with places.folder() as path, places.commit() as base:
        replies = list(_replies(path, rows, days))
        for kind in places.DATABASES:
            yield compare(
                f"{kind}, bytes on disk of each of {rows * days:,} lines, indexes included",
                f"commit {places.BASE}",
                partial(_bytes_a_line, kind, places.ROOT, replies, rows * days),
                partial(_bytes_a_line, kind, base, replies, rows * days),
                rounds=1,
                least=2.0,
                said=lambda found: f"{found:.1f} bytes",
                warm_up=False,
            )


def _replies(folder: Path, rows: int, days: int) -> Iterator[Path]:
    """Whole replies of 30 days each, the oldest first."""
    data = msgspec.json.decode(ingest.reply(rows * 30))["data"]
    for number in range(days // 30):
        first = ingest.FIRST - timedelta(days=days - 30 * (number + 1))
        moved = [row | {"date": f"{first + timedelta(days=place // rows)} 00:00:00"} for place, row in enumerate(data)]
        file = folder / f"{first}.json"
        file.write_bytes(msgspec.json.encode({"data": moved}))
        yield file


def _bytes_a_line(kind: str, tree: Path, replies: list[Path], lines: int) -> float:
    with places.database_of(kind) as url, places.folder() as data:
        command = [sys.executable, places.ROOT / "bench/fill.py"]
        with places.helper(command, cwd=tree, **places.settings(url, *places.NOBODY, data)) as ledger:
            ledger.answer()  # the schema is there
            empty = _size(url)
            for file in replies:
                ledger.ask(file)
        return (_size(url) - empty) / lines


def _size(url: str) -> int:
    """Without the room that is free again."""
    if not url.startswith("sqlite"):
        with psycopg.connect(url, autocommit=True) as postgresql:
            postgresql.execute("VACUUM FULL")
            return _first(postgresql.execute("SELECT pg_database_size(current_database())"))
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as sqlite:
        sqlite.execute("VACUUM")
        return _first(sqlite.execute("PRAGMA page_count")) * _first(sqlite.execute("PRAGMA page_size"))


def _first(rows: Any) -> int:
    return int(rows.fetchone()[0])
