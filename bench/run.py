"""The six o'clock run of many quiet accounts. The provider answers each request after 200 ms.

Against an earlier commit of Grafient, against a plain RQ app (``rq_app.py``), and several workers against one. All of
them run in processes of their own: Grafient's, of either version, in ``six_oclock.py``.
"""

from __future__ import annotations

import os
import statistics
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench import places
from bench.measure import Result, compare, of, rate, within
from bench.places import Helper

ROUNDS = 3
"""At most: each takes the better part of a minute."""


@dataclass(frozen=True)
class Run:
    """What one run took, of so many accounts."""

    accounts: int
    seconds: float
    requests: float
    cpu_seconds: float
    peak_mb: float

    @property
    def each(self) -> float:
        """Seconds an account."""
        return self.seconds / self.accounts


def measure(
    rounds: int, accounts: int = 100, few: int = 20, kinds: Sequence[str] = places.DATABASES
) -> Iterator[Result]:
    """The first sync and a daily one of so many accounts; fewer where one job is done after the other."""
    rounds = min(rounds, ROUNDS)
    with places.redis() as redis, places.provider() as provider:
        for kind in kinds:
            yield from _one_worker(kind, rounds, accounts, few, redis, provider)
        with places.postgresql() as url:
            yield from _many_workers(rounds, 3 * accounts, url, redis, provider)


def _one_worker(kind: str, rounds: int, accounts: int, few: int, redis: str, provider: str) -> Iterator[Result]:
    """The RQ app, which has SQLite, only beside SQLite."""
    first: dict[str, list[Run]] = {"ours": [], "base": []}
    daily: dict[str, list[Run]] = {"ours": [], "base": [], "rq": []}
    others = ("rq", "base") if kind == "SQLite" else ("base",)
    with places.commit() as base:
        trees = {"ours": places.ROOT, "base": base}
        for number in range(rounds):
            for who in ("ours", *reversed(others)) if number % 2 else (*others, "ours"):
                if who == "rq":
                    daily[who].append(_rq(few, redis, provider))
                    continue
                with (
                    places.folder() as data,
                    places.database_of(kind) as url,
                    _worker(url, redis, provider, data, trees[who]) as worker,
                ):
                    worker.ask("connect", accounts)
                    first[who].append(run([worker], accounts, "backfill", provider))
                    daily[who].append(run([worker], accounts, "daily", provider))
    name, commit = f"{accounts} accounts, {{}} sync, one worker, {kind}", f"commit {places.BASE}"
    yield _result(name.format("first"), commit, first["ours"], first["base"])
    yield _result(name.format("daily"), commit, daily["ours"], daily["base"], least=5.0)
    if daily["rq"]:
        plain = f"an RQ job with a fork and a client for each of {few} accounts"
        yield _result(name.format("daily"), plain, daily["ours"], daily["rq"], least=20.0)


def _rq(accounts: int, redis: str, provider: str) -> Run:
    with places.folder() as data:
        command = [sys.executable, "-m", "bench.rq_app", redis, provider, data / "rq.db"]
        with places.helper(command) as app:
            asked = _asked(provider)
            seconds = float(app.ask(accounts))
            return Run(accounts, seconds, (_asked(provider) - asked) / accounts, 0, 0)


def _many_workers(rounds: int, accounts: int, url: str, redis: str, provider: str) -> Iterator[Result]:
    """Two and four against one. Workers of one process each: one with two uses two cores by itself."""
    with places.folder() as data, ExitStack() as stack:
        workers = [
            stack.enter_context(_worker(url, redis, provider, data, GRAFIENT_SYNC_PROCESSES="1")) for _ in range(4)
        ]
        workers[0].ask("connect", accounts)
        run(workers, accounts, "backfill", provider)
        cores: dict[int, list[float]] = defaultdict(list)

        def daily(number: int) -> float:
            busy = _busy_seconds()
            done = run(workers[:number], accounts, "daily", provider)
            cores[number].append((_busy_seconds() - busy) / done.seconds)
            return done.each

        for number, word, least in ((2, "two", 1.7), (4, "four", None)):
            cores.clear()
            result = compare(
                f"{accounts} accounts, daily sync, {word} workers of one process, PostgreSQL",
                "one worker",
                partial(daily, number),
                partial(daily, 1),
                rounds=rounds,
                least=least,
                said=rate,
                warm_up=False,
            )
            many, one = (f"{statistics.median(cores[some]):.1f} of {os.cpu_count()} cores busy" for some in (number, 1))
            yield replace(result, ours=f"{result.ours}, {many}", reference=f"{result.reference}, {one}")


def measure_many(
    _rounds: int, accounts: int = 10_000, tenth: int = 1_000, kinds: Sequence[str] = places.DATABASES
) -> Iterator[Result]:
    """A daily run of very many accounts against that of a tenth of them, once: the first sync alone takes long."""
    with places.redis() as redis, places.provider() as provider:
        for kind in kinds:
            done = {}
            for number in (tenth, accounts):
                with places.database_of(kind) as url, places.folder() as data:
                    with _worker(url, redis, provider, data) as worker:
                        worker.ask("connect", number)
                        run([worker], number, "backfill", provider)
                    with _worker(url, redis, provider, data) as worker:
                        done[number] = run([worker], number, "daily", provider)
            what = f"{accounts:,} accounts, daily sync, one worker, {kind}"
            pairs = [(done[accounts].seconds, done[tenth].seconds * accounts / tenth)]
            yield of(what, f"{accounts // tenth} × the time of {tenth:,}", pairs, least=1 / 1.1)
            yield within(f"{what}: the worker's memory at most", 250, [done[accounts].peak_mb], said=megabytes)


def run(workers: Sequence[Helper], accounts: int, trigger: str, provider: str) -> Run:
    """Have all accounts due at once, and these workers do them."""
    workers[0].ask("due", trigger)
    asked = _asked(provider)
    for worker in workers:
        worker.send("work")
    found: list[dict[str, Any]] = [worker.answer() for worker in workers]
    if left := min(one["left"] for one in found):
        raise RuntimeError(f"{left} of {accounts} syncs did not succeed")
    return Run(
        accounts,
        seconds=max(one["seconds"] for one in found),
        requests=(_asked(provider) - asked) / accounts,
        cpu_seconds=sum(one["cpu_seconds"] for one in found),
        peak_mb=max(one["peak_mb"] for one in found),
    )


def _result(what: str, against: str, ours: list[Run], reference: list[Run], least: float | None = None) -> Result:
    pairs = [(mine.each, theirs.each) for mine, theirs in zip(ours, reference, strict=True)]
    result = of(what, against, pairs, least=least, said=rate)
    said = (f"{text}, {_said(runs[-1])}" for text, runs in ((result.ours, ours), (result.reference, reference)))
    return replace(result, ours=next(said), reference=next(said))


def _said(one: Run) -> str:
    requests = f"{one.requests:.1f} requests"
    if not one.peak_mb:
        return f"{requests} each"
    cpu = one.cpu_seconds / one.accounts * 1000
    return f"{requests}, {cpu:.0f} ms of processor each, {one.peak_mb:.0f} MB"


def megabytes(found: float) -> str:
    """As it is read."""
    return f"{found:,.0f} MB"


def _worker(
    url: str, redis: str, provider: str, data: Path, tree: Path = places.ROOT, **environment: str
) -> AbstractContextManager[Helper]:
    command = [sys.executable, places.ROOT / "bench/six_oclock.py", url, redis, provider, data]
    return places.helper(command, cwd=tree, **environment)


def _asked(provider: str) -> int:
    with urllib.request.urlopen(f"{provider}/api/v1/count") as reply:
        return int(reply.read())


def _busy_seconds() -> float:
    """How long this machine's cores were busy since it started, all together (Linux)."""
    user, nice, system, _idle, _waiting, *others = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")
