"""How soon ``make run`` answers, started a second time, what memory it takes, and what importing the app takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench import places
from bench.measure import Result, compare, within
from bench.run import megabytes

SLOWEST = 5


def measure(rounds: int) -> Iterator[Result]:
    """The start and its memory against their limits, the import against an earlier commit's."""
    rounds, started, memory = min(rounds, 3), [], []
    with places.folder() as data:
        for number in range(rounds + 1):
            seconds, found = _start(data)
            if number:  # the first time it makes its secrets and the schema
                started.append(seconds)
                memory.append(found)
    yield within("make run, started again, until a page answers", 3.0, started)
    yield within("make run, memory of all its processes (PSS)", 400, memory, said=megabytes)
    with places.commit() as base:
        slowest: list[str] = []

        def ours() -> float:
            total, slowest[:] = _import(places.ROOT)
            return total

        result = compare("import wsgi", f"commit {places.BASE}", ours, lambda: _import(base)[0], rounds=rounds)
        yield replace(result, ours=f"{result.ours}; by themselves the slowest: {', '.join(slowest)}")


def _start(data: Path) -> tuple[float, float]:
    """Seconds until a page answers, and MB once everything is ready."""
    port = places.free_port()
    unset = dict.fromkeys(("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "GRAFIENT_ENCRYPTION_KEYS", "HOST"), "")
    environment = unset | {"GRAFIENT_DATA_DIR": str(data), "PORT": str(port)}
    started = time.perf_counter()
    with places.process([sys.executable, "-m", "grafient.supervisor"], environment=environment) as supervisor:
        places.until_it_answers(f"http://127.0.0.1:{port}/login")
        seconds = time.perf_counter() - started
        places.until_it_answers(f"http://127.0.0.1:{port}/readyz")
        return seconds, sum(_pss(pid) for pid in _family(supervisor.pid))


def _family(pid: int) -> Iterator[int]:
    """A process and all that it started, as Linux tells."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _family(int(child))


def _pss(pid: int) -> float:
    """MB, of which what several processes share counts for each in part."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def _import(tree: Path) -> tuple[float, list[str]]:
    """Seconds that importing ``wsgi`` takes while Python notes each module, and the modules that take the longest."""
    with places.folder() as data:
        environment = places.settings(f"sqlite:///{data}/grafient.db", *places.NOBODY, data)
        command = [sys.executable, "-X", "importtime", "-c", "import wsgi"]
        found = subprocess.run(
            command, cwd=tree, env=os.environ | environment, capture_output=True, text=True, check=True
        )
    lines = re.findall(r"^import time:\s+(\d+) \|\s+(\d+) \|\s+(\S+)$", found.stderr, re.MULTILINE)
    whole = next(int(cumulative) for _, cumulative, name in lines if name == "wsgi")
    by_itself = sorted(((int(own), name) for own, _, name in lines), reverse=True)
    return whole / 1e6, [f"{name} {own / 1000:.0f} ms" for own, name in by_itself[:SLOWEST]]
