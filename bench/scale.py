"""What docs/scale.md stands on; each prints JSON.

``python -m bench.scale run ACCOUNTS`` does the six o'clock run for real, for bench/simulation.py to be held against;
``bytes ACCOUNTS LINES_A_DAY`` says what a year takes on disk, ``due ACCOUNTS`` what a tick takes, and
``partitions LINES`` tries the commands of docs/scale.md.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
from redis import Redis
from sqlalchemy import Engine, event, insert, text

from bench import ingest, measure, places, provider, six_oclock, team
from grafient import database, evidence, runs
from grafient.extensions import db
from grafient.jobs import work as ticks
from grafient.models import Integration, RawReply, SyncRun, Workspace, utc_now
from grafient.pace import Pace
from grafient.providers import ReceivedReply
from grafient.states import RunStatus, Trigger

SCALE = Path(__file__).parent.parent / "docs/scale.md"
TICKS = os.sysconf("SC_CLK_TCK")
KEPT = 90
"""Days that raw replies are kept, unless told otherwise."""


def real_run(accounts: int, only: str = "", alone: int = 20) -> Iterator[tuple[str, dict[str, Any]]]:
    """A daily sync of so many accounts at once, on each database or ``only`` one; and of a few, one after the other.

    With one thread nobody else wants the writer's lock or the interpreter: it says how long a transaction takes.
    """
    for name, opened, processes in (("SQLite", _sqlite, 1), ("PostgreSQL", places.postgresql, 2)):
        for threads, some in ((1, alone), (32, accounts)) if only in ("", name) else ():
            limits = {"GRAFIENT_SYNC_THREADS": threads, "GRAFIENT_SYNC_PROCESSES": 1 if threads == 1 else processes}
            os.environ |= {name: str(most) for name, most in limits.items()}
            with places.redis() as redis, places.provider() as address, opened() as url, places.folder() as folder:
                server = _postmaster(url) if name == "PostgreSQL" else None
                with _transactions() as held, six_oclock.made(url, redis, address, str(folder)).app_context():
                    six_oclock.connect(str(some))
                    watched = _watched(held, server)
                    yield f"{name}, {threads} threads", {kind: _done(kind, some, watched) for kind in KINDS}
                    db.session.remove()
                    db.engine.dispose()


KINDS = ("backfill", "daily")


def _done(kind: str, accounts: int, watched: Callable[[], dict[str, float]]) -> dict[str, Any]:
    six_oclock.due(kind)
    before = watched()
    found = six_oclock.do()
    after = watched()
    grown = {name: after[name] - before[name] for name in after}
    return found | grown | {"cpu_ms": found["cpu_seconds"] / accounts * 1000}


@contextmanager
def _sqlite() -> Iterator[str]:
    with places.folder() as folder:
        yield f"sqlite:///{folder}/one.db"


@contextmanager
def _transactions() -> Iterator[list[float]]:
    """How long transactions that write were open in this process, in seconds, as they end."""
    held: list[float] = []

    def begin(connection: Any) -> None:
        connection.info["began"] = None if database.reading.get() else time.perf_counter()

    def commit(connection: Any) -> None:
        if began := connection.info.get("began"):
            held.append(time.perf_counter() - began)

    event.listen(Engine, "begin", begin)
    event.listen(Engine, "commit", commit)
    try:
        yield held
    finally:
        event.remove(Engine, "begin", begin)
        event.remove(Engine, "commit", commit)


def _watched(held: list[float], server: int | None) -> Callable[[], dict[str, float]]:
    """What is read before and after a run: the difference is the run's."""
    return lambda: {
        "transactions": len(held),
        "in_transactions": sum(held),
        "server_processor": 0.0 if server is None else _processor_of(server),
        "machine_processor": _processor_of_all(),
    }


def _postmaster(url: str) -> int:
    with psycopg.connect(url) as connection:
        (folder,) = connection.execute("SHOW data_directory").fetchone() or ("",)
    return int((Path(folder) / "postmaster.pid").read_text().split()[0])


def _processor_of_all() -> float:
    """Seconds of processor of the whole machine, without what gives way to others: who else was at work."""
    times = Path("/proc/stat").read_text().split("\n")[0].split()[1:8]
    user, _nice, system, _idle, _wait, *interrupts = map(int, times)
    return (user + system + sum(interrupts)) / TICKS


def _processor_of(pid: int) -> float:
    """Seconds of processor of a process, and of its children, those that ended too."""
    used = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(folder.name) == pid:
            used += sum(map(int, fields[11:15]))
        elif int(fields[1]) == pid:
            used += sum(map(int, fields[11:13]))
    return used / TICKS


def sizes(accounts: int, rows: int, days: int = 365) -> Iterator[tuple[str, dict[str, Any]]]:
    """Bytes of each table, with its indexes, after a year of accounts that have so many lines a day.

    Every account was synced on each of the days, and the replies of the last 90 are kept.
    """
    for name, opened, query in (("SQLite", _sqlite, _SQLITE_SIZES), ("PostgreSQL", places.postgresql, _POSTGRES_SIZES)):
        with opened() as url, places.app(url):
            workspace = Workspace(plan="ultimate")
            db.session.add(workspace)
            db.session.commit()
            team.write(workspace, accounts, rows, days)
            for number in range(accounts):
                _write_runs(number + 1, rows, days)
            db.session.commit()
            connection = db.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(text("ANALYZE" if name == "SQLite" else "VACUUM ANALYZE"))
            found = dict(row for row in connection.execute(text(query)))
            counted = {
                table: connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
                for table in db.metadata.tables
                if table != "user"
            }
            connection.close()
            yield (
                f"{name}, {accounts} accounts of {rows} lines a day",
                {
                    "an_account_and_year": round(sum(found.values()) / accounts),
                    "a_line_with_totals": round(sum(found[table] for table in _LINES) / counted["line"], 1),
                    "tables": {  # rows, bytes, bytes a row
                        table: [count, found[table], round(found[table] / count, 1)]
                        for table, count in counted.items()
                        if count
                    },
                },
            )


_LINES = ("line", "series", "model", "day_total", "model_total")
_SQLITE_SIZES = "SELECT m.tbl_name, sum(d.pgsize) FROM dbstat d JOIN sqlite_schema m ON m.name = d.name GROUP BY 1"
_POSTGRES_SIZES = "SELECT relname, pg_total_relation_size(relid) FROM pg_stat_user_tables"


def _write_runs(integration_id: int, rows: int, days: int) -> None:
    bodies = {
        "GET /activity": ingest.reply(rows * 30),
        "GET /credits": provider.REPLIES["/credits"],
        "POST /analytics/query": provider.REPLIES["/analytics/query"],
        "GET /keys?offset=0": provider.REPLIES["/keys"],
    }
    replies = evidence.compressed(ReceivedReply(asked, team.NOW, body) for asked, body in bodies.items())
    for day in range(days):
        at = team.NOW.replace(hour=6) - timedelta(days=days - day)
        made = insert(SyncRun).returning(SyncRun.id)
        values = {
            "integration_id": integration_id,
            "trigger": Trigger.DAILY,
            "slot": at.date(),
            "status": RunStatus.DONE,
            "attempt": 1,
            "next_attempt_at": at,
            "created_at": at,
            "started_at": at,
            "finished_at": at,
            "first_day": at.date() - timedelta(days=30),
            "last_day": at.date() - timedelta(days=1),
            "lines_read": rows * 30,
        }
        run_id = db.session.execute(made, values).scalar_one()
        if days - day <= KEPT:
            evidence.keep(run_id, [replace(reply, received_at=at) for reply in replies])


def due(accounts: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the tick at 06:00 and the claims after it take with so many accounts, in seconds; and Redis's answers."""
    for name, opened in (("SQLite", _sqlite), ("PostgreSQL", places.postgresql)):
        with opened() as url, places.app(url):
            _integrations(accounts)
            now = utc_now() + timedelta(days=1)
            later = now + timedelta(minutes=1)
            steps: dict[str, Callable[[], object]] = {
                "insert_daily": partial(runs.insert_daily, now),
                "commit": db.session.commit,
                "count_claimable": partial(runs.count_claimable, later),
                "claim of 32": partial(runs.claim, later, 32),
                "its commit": db.session.commit,
            }
            taken = {step: round(measure.seconds(work), 4) for step, work in steps.items()}
            yield f"{name}, {accounts} accounts due", taken
            run_id = db.session.execute(text("SELECT min(id) FROM sync_run")).scalar_one()
            old = {"run_id": run_id, "request": "GET /keys", "received_at": now - timedelta(days=100)}
            db.session.execute(insert(RawReply), [old | {"body": os.urandom(1_080)} for _ in range(20_000)])
            db.session.commit()
            seconds = measure.seconds(partial(ticks._sweep, now))
            left = db.session.execute(text("SELECT count(*) FROM raw_reply")).scalar_one()
            yield f"{name}, a sweep", {"replies": 20_000 - left, "seconds": round(seconds, 2)}
    with places.redis() as url:
        pace = Pace(Redis.from_url(url), 10_000)
        seconds = measure.seconds(lambda: [pace._may("openrouter") for _ in range(5_000)])
        yield "Redis, one process", {"questions_a_second": 5_000 / seconds}


def partitions(lines: int, series: int = 50) -> Iterator[tuple[str, dict[str, Any]]]:
    """The commands of docs/scale.md on a table of so many lines, a year of accounts with 50 a day: seconds of each,
    and of the same reads and writes before and after; then with the year itself in months."""
    commands = SCALE.read_text().split("```sql\n")[1].split("```")[0]
    accounts = lines // (365 * series)
    with places.postgresql() as url, places.app(url):
        _integrations(accounts)
        db.session.remove()
        with psycopg.connect(url, autocommit=True) as connection:

            def seconds(statement: str) -> float:
                return round(measure.seconds(lambda: connection.execute(statement)), 3)  # type: ignore[call-overload]

            def tried() -> dict[str, float]:
                found = {}
                for days in (30, 365):
                    read = _READ.format(days=days, account=accounts // 2)
                    found[f"read {days} days of an account"] = sorted(seconds(read) for _ in range(5))[2]
                found["write a day of all"] = seconds(_WRITE.format(day="2026-12-10", accounts=accounts, series=series))
                found["delete it"] = seconds("DELETE FROM line WHERE day = '2026-12-10'")
                return found

            filled = seconds(_FILL.format(accounts=accounts, series=series))
            connection.execute("VACUUM ANALYZE line")
            sizes = "SELECT count(*), pg_table_size('line'), pg_indexes_size('line') FROM line"
            count, table, index = connection.execute(sizes).fetchone() or ()
            yield "filled", {"lines": count, "table": table, "index": index, "seconds": filled}
            yield "one table", tried()
            took = {one.strip(): seconds(one) for one in commands.split(";") if one.strip()}
            yield "commands", took
            yield "until 2026 and months from then on", tried()
            sync = ingest.Ours(ingest.reply(1_500))
            yield (
                "Grafient writes a reply to it",
                {"first": measure.seconds(sync.ingest), "again": measure.seconds(sync.ingest)},
            )
            db.session.remove()
            connection.execute("ALTER TABLE line RENAME TO line_whole; " + _months())
            yield "copied into months", {"seconds": seconds("INSERT INTO line SELECT * FROM line_whole")}
            connection.execute("ANALYZE line")
            yield "months", tried()
            yield "one month", {"detach and drop": seconds("DROP TABLE line_2025_12")}


_FILL = """INSERT INTO line
SELECT account, day, account * 1000 + series, (random() * 1e9)::bigint, 0, 10, 0, 10000, 1000, 0, 0
FROM generate_series(DATE '2025-12-01', DATE '2026-11-30', '1 day') day, generate_series(1, {accounts}) account,
generate_series(1, {series}) series"""
_WRITE = """INSERT INTO line SELECT account, DATE '{day}', account * 1000 + series, 1, 0, 10, 0, 10000, 1000, 0, 0
FROM generate_series(1, {accounts}) account, generate_series(1, {series}) series"""
_READ = """SELECT series_id, sum(usage_usd), sum(prompt_tokens) FROM line
WHERE integration_id = {account} AND day > DATE '2026-11-30' - {days} AND day <= '2026-11-30' GROUP BY series_id"""


def _months() -> str:
    starts = [date(2025, 12, 1), *(date(2026, month, 1) for month in range(1, 13)), date(2027, 1, 1)]
    made = "".join(
        f"CREATE TABLE line_{first:%Y_%m} PARTITION OF line FOR VALUES FROM ('{first}') TO ('{end}');"
        for first, end in pairwise(starts)
    )
    return (
        "CREATE TABLE line (LIKE line_whole, PRIMARY KEY (integration_id, day, series_id)) "
        f"PARTITION BY RANGE (day); DROP TABLE line_2027_01, line_2027_02; {made}"
    )


def _integrations(accounts: int) -> None:
    workspace = Workspace(plan="ultimate")
    db.session.add(workspace)
    db.session.flush()
    own = {"workspace_id": workspace.id, "provider": "openrouter", "key_hint": "abcd"}
    db.session.execute(insert(Integration), [own | {"label": str(number)} for number in range(accounts)])
    db.session.commit()


WHAT = {"run": real_run, "bytes": sizes, "due": due, "partitions": partitions}

if __name__ == "__main__":
    for what, figures in WHAT[sys.argv[1]](*(int(one) if one.isdigit() else one for one in sys.argv[2:])):
        print(what, json.dumps(figures), flush=True)
