"""From the bytes of a reply to the commit: Grafient's ledger against the raw driver's upsert of the same rows, and dlt.

The raw driver's reference decodes the JSON with msgspec and upserts each row by its identity, the fastest plain way
that keeps the same figures. dlt, a library that loads JSON into databases, merges the rows by the same identity and
keeps USD as floating point. Grafient also checks each field, compares with what is stored, keeps the reply as evidence,
writes the totals, and knows afterwards what changed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from sqlalchemy import text

from bench import places
from bench.measure import Result, compare, seconds
from grafient import evidence, ledger
from grafient.extensions import db
from grafient.models import Integration, SyncRun, Workspace
from grafient.providers import Activity, ReceivedReply
from grafient.providers.openrouter.replies import watch_activity

TODAY = date(2026, 11, 20)
NOW = datetime(2026, 11, 20, 6, tzinfo=UTC)
FIRST, LAST = TODAY - timedelta(days=30), TODAY - timedelta(days=1)


def reply(rows: int, changed: str = "") -> bytes:
    """An /activity reply of so many rows on 30 days; with ``changed``, the last day's figures differ."""
    a_day = rows // 30
    data = [
        {
            "date": f"{FIRST + timedelta(days=day)} 00:00:00",
            "model_permaslug": f"vendor-{row // 3 % 7}/model-{row // 3}-20260601",
            "endpoint_id": f"703f11d6-5f20-473e-b2ba-{row:012x}",
            "usage": (row * 7919 + day * 104729) % 1_000_003 / 1e9 + (0.5 if changed and day == 29 else 0),
            "byok_usage_inference": 0,
            "requests": row * 3 + day,
            "prompt_tokens": row * 1001 + day,
            "completion_tokens": row * 101 + day,
            "reasoning_tokens": row % 5,
            "byok_requests": 0,
            "model": f"vendor-{row // 3 % 7}/model-{row // 3}",
            "provider_name": f"host-{row % 3}",
            "cached_tokens": row,
        }
        for day in range(30)
        for row in range(a_day)
    ]
    return msgspec.json.encode({"data": data})


def measure(rounds: int, sizes: Sequence[int] = (1_500, 15_000)) -> Iterator[Result]:
    """First ingest and the same reply again, of so many rows, in both databases; against dlt of the fewest rows."""
    with_dlt = places.has("dlt")
    with places.folder() as path, places.postgresql() as postgresql:
        for name, url, raw, dlt_url in (
            ("SQLite", f"sqlite:///{path}/grafient.db", SqliteUpsert(path / "raw.db"), f"sqlite:///{path}/dlt.db"),
            ("PostgreSQL", postgresql, PostgresUpsert(postgresql), postgresql),
        ):
            with places.app(url), closing(raw):
                mine = {rows: Ours(reply(rows)) for rows in sizes}
                for rows in sizes:
                    yield from _against_raw(name, rows, mine[rows], raw, rounds)
                if with_dlt:
                    yield from _against_dlt(name, min(sizes), mine[min(sizes)], dlt_url, rounds)


LEAST = {("SQLite", "first"): 0.5, ("SQLite", "again"): 2.5, ("PostgreSQL", "first"): 0.7, ("PostgreSQL", "again"): 4.0}
KINDS = {"first": "first time", "again": "the same again"}


def _against_raw(name: str, rows: int, mine: Ours, raw: Any, rounds: int) -> Iterator[Result]:
    for kind, said in KINDS.items():
        yield compare(
            f"{name}, {rows:,} rows, {said}",
            "raw driver's upsert, decoding included",
            _after(mine.empty if kind == "first" else None, mine.ingest),
            _after(raw.empty if kind == "first" else None, partial(raw.ingest, mine.body)),
            rounds=8 * rounds if rows < 5_000 else rounds,
            least=LEAST[name, kind],
        )


def _against_dlt(name: str, rows: int, mine: Ours, url: str, rounds: int) -> Iterator[Result]:
    with places.folder() as path, _dlt(url, path) as dlt:
        file = path / "reply.json"
        file.write_bytes(mine.body)
        dlt.ask(file)  # the first run makes the tables

        def theirs(empty: bool) -> float:
            if empty:
                dlt.ask("empty")
            return float(dlt.ask(file))

        for kind, said in KINDS.items():
            yield compare(
                f"{name}, {rows:,} rows, {said}",
                "dlt's merge, decoding included",
                _after(mine.empty if kind == "first" else None, mine.ingest),
                partial(theirs, kind == "first"),
                rounds=rounds,
                least=10.0,
            )


@contextmanager
def _dlt(url: str, path: Path) -> Iterator[places.Helper]:
    command = [places.OTHERS / "python", "-m", "bench.dlt_merge", url, path / "pipelines"]
    with places.helper(command, RUNTIME__DLTHUB_TELEMETRY="false") as dlt:
        yield dlt


def _after(prepare: Callable[[], object] | None, work: Callable[[], object]) -> Callable[[], float]:
    def measured() -> float:
        if prepare:
            prepare()
        return seconds(work)

    return measured


class Ours:
    """The ledger, for one integration."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        workspace = Workspace(plan="ultimate")
        db.session.add(workspace)
        db.session.flush()
        integration = Integration(workspace_id=workspace.id, provider="openrouter", label="bench", key_hint="abcd")
        db.session.add(integration)
        db.session.flush()
        run = SyncRun(integration_id=integration.id, trigger="manual")
        db.session.add(run)
        db.session.commit()
        self.run_id, self.integration_id = run.id, integration.id
        db.session.rollback()

    def empty(self) -> None:
        for table in ("line", "series", "model", "day_total", "covered_day", "restatement"):
            db.session.execute(text(f"DELETE FROM {table} WHERE integration_id = {self.integration_id}"))
        db.session.commit()

    def ingest(self) -> None:
        by_day, _ = watch_activity(self.body)
        kept = evidence.compressed([ReceivedReply("GET /activity", NOW, self.body)])
        ledger.record(self.integration_id, self.run_id, Activity(FIRST, LAST, by_day, TODAY), NOW)
        evidence.keep(self.run_id, kept)
        db.session.commit()


_COLUMNS = (
    ("date", "day"),
    ("model_permaslug", "permaslug"),
    ("endpoint_id", "endpoint_id"),
    ("provider_name", "host"),
    ("model", "model"),
    ("usage", "usage_usd"),
    ("byok_usage_inference", "byok_usd"),
    ("requests", "requests"),
    ("byok_requests", "byok_requests"),
    ("prompt_tokens", "prompt_tokens"),
    ("completion_tokens", "completion_tokens"),
    ("reasoning_tokens", "reasoning_tokens"),
    ("cached_tokens", "cached_tokens"),
)
_KEY = ("day", "permaslug", "endpoint_id", "host")
_REST = [column for _, column in _COLUMNS if column not in _KEY]


class _Row(msgspec.Struct):
    date: str
    model_permaslug: str
    endpoint_id: str
    provider_name: str
    model: str
    usage: Decimal
    byok_usage_inference: Decimal
    requests: int
    byok_requests: int
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cached_tokens: int


class _Reply(msgspec.Struct):
    data: list[_Row]


_DECODER = msgspec.json.Decoder(_Reply)


def _upsert(place: str) -> str:
    names = [column for _, column in _COLUMNS]
    written = ", ".join(f"{column} = excluded.{column}" for column in _REST)
    changed = " OR ".join(f"raw.{column} IS DISTINCT FROM excluded.{column}" for column in _REST)
    return (
        f"INSERT INTO raw ({', '.join(names)}) VALUES ({', '.join([place] * len(names))}) "
        f"ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET {written} WHERE {changed}"
    )


def _table(usd: str, more: str = "") -> str:
    kinds = {"usage_usd": usd, "byok_usd": usd}
    columns = ", ".join(
        f"{column} {kinds.get(column, 'BIGINT' if 'tokens' in column or 'requests' in column else 'TEXT')}"
        for _, column in _COLUMNS
    )
    return f"CREATE TABLE raw ({columns}, PRIMARY KEY ({', '.join(_KEY)})){more}"


class SqliteUpsert:
    """sqlite3's executemany, into one table whose USD are text."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
        self._connection.execute(_table("TEXT", " WITHOUT ROWID"))

    def close(self) -> None:
        self._connection.close()

    def empty(self) -> None:
        self._connection.execute("DELETE FROM raw")

    def ingest(self, body: bytes) -> None:
        rows = [
            (
                r.date[:10],
                *[getattr(r, n) for n, _ in _COLUMNS[1:5]],
                str(r.usage),
                str(r.byok_usage_inference),
                *[getattr(r, n) for n, _ in _COLUMNS[7:]],
            )
            for r in _DECODER.decode(body).data
        ]
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(_upsert("?"), rows)
        self._connection.execute("COMMIT")


class PostgresUpsert:
    """psycopg's executemany, into one table whose USD are NUMERIC."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url)
        with self._connection, closing(self._connection.cursor()) as cursor:
            cursor.execute(_table("NUMERIC(24, 12)"))
        self._connection = psycopg.connect(url)

    def close(self) -> None:
        self._connection.close()

    def empty(self) -> None:
        self._connection.execute("DELETE FROM raw")
        self._connection.commit()

    def ingest(self, body: bytes) -> None:
        rows = [(r.date[:10], *[getattr(r, n) for n, _ in _COLUMNS[1:]]) for r in _DECODER.decode(body).data]
        with self._connection.cursor() as cursor:
            cursor.executemany(_upsert("%s"), rows)
        self._connection.commit()
