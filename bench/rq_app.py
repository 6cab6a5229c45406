"""What the accounts are compared with: a plain RQ app. ``python -m bench.rq_app REDIS_URL PROVIDER_URL FILE``.

One job for each account; RQ's own worker forks for each job; the job makes a client of its own, asks what Grafient's
daily sync of a quiet account asks, and upserts the rows by raw SQL. For each line, a number of accounts, it answers
with the seconds from the first job's enqueueing to the last one's end. What a job imports is imported before it forks.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from contextlib import closing
from typing import Any

import httpx
from redis import Redis
from rq import Queue, Worker

FIGURES = ("model", "usage", "byok_usage_inference", "requests", "byok_requests", "prompt_tokens", "completion_tokens",
           "reasoning_tokens", "cached_tokens")  # fmt: skip
KEY = ("account", "date", "model_permaslug", "endpoint_id", "provider_name")


def main(redis_url: str, provider_url: str, file: str) -> None:
    with closing(_database(file)) as database:
        database.executescript(
            "PRAGMA journal_mode = WAL;"
            f"CREATE TABLE line ({', '.join(KEY + FIGURES)}, PRIMARY KEY ({', '.join(KEY)}));"
            "CREATE TABLE day (account, day, usage, PRIMARY KEY (account, day));"
            "CREATE TABLE api_key (account, hash, name, usage, PRIMARY KEY (account, hash));"
            "CREATE TABLE credits (account PRIMARY KEY, usage);"
        )
    connection = Redis.from_url(redis_url)
    queue = Queue("bench-rq-app", connection=connection)
    for line in sys.stdin:
        started = time.perf_counter()
        jobs = [queue.enqueue("bench.rq_app.sync", number, provider_url, file) for number in range(int(line))]
        Worker([queue], connection=connection).work(burst=True, logging_level="WARNING")
        elapsed = time.perf_counter() - started
        assert all(job.is_finished for job in jobs)
        print(json.dumps(elapsed), flush=True)


def sync(account: int, provider_url: str, file: str) -> None:
    """The job."""
    headers = {"Authorization": f"Bearer sk-or-v1-{account:064x}"}
    with httpx.Client(base_url=f"{provider_url}/api/v1", headers=headers, timeout=60) as client:
        lines = _data(client.get("/activity"))
        spent = _data(client.get("/credits"))
        days = _data(client.post("/analytics/query", json={"metrics": ["total_usage"], "granularity": "day"}))["data"]
        keys = _data(client.get("/keys", params={"include_disabled": "true"}))
    with closing(_database(file)) as database, database:
        written = ", ".join(f"{name} = excluded.{name}" for name in FIGURES)
        database.executemany(
            f"INSERT INTO line VALUES ({', '.join('?' * len(KEY + FIGURES))}) "
            f"ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET {written}",
            [(account, *(row[name] for name in KEY[1:] + FIGURES)) for row in lines],
        )
        database.executemany(
            "INSERT INTO day VALUES (?, ?, ?) ON CONFLICT (account, day) DO UPDATE SET usage = excluded.usage",
            [(account, row["date__day"], row["total_usage"]) for row in days],
        )
        database.executemany(
            "INSERT INTO api_key VALUES (?, ?, ?, ?) "
            "ON CONFLICT (account, hash) DO UPDATE SET name = excluded.name, usage = excluded.usage",
            [(account, row["hash"], row["name"], row["usage"]) for row in keys],
        )
        database.execute(
            "INSERT INTO credits VALUES (?, ?) ON CONFLICT (account) DO UPDATE SET usage = excluded.usage",
            (account, spent["total_usage"]),
        )


def _data(response: httpx.Response) -> Any:
    return response.raise_for_status().json()["data"]


def _database(file: str) -> sqlite3.Connection:
    return sqlite3.connect(file, timeout=30)


if __name__ == "__main__":
    main(*sys.argv[1:4])
