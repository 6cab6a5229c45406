"""The six o'clock run of many quiet accounts, one worker, against an earlier commit of Grafient in the same run.

The provider answers each request after 200 ms. Both versions are measured by ``six_oclock.py``, in a process of their
own, in turn.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from bench import places
from bench.measure import Result, compare

ROOT = Path(__file__).resolve().parent.parent
BASE = "57c1415"
"""The last commit before accounts were asked only for what can have changed."""


def measure(rounds: int, accounts: int = 200) -> Iterator[Result]:
    """The first sync and a daily one of so many accounts, on SQLite."""
    with places.redis() as redis, _provider() as provider, places.folder() as folder, _base(folder) as base:
        found: dict[tuple[Path, str], list[dict[str, Any]]] = {}

        def one(tree: Path) -> None:
            with places.folder() as data:
                command = [
                    sys.executable,
                    str(ROOT / "bench/six_oclock.py"),
                    f"sqlite:///{data}/one.db",
                    redis,
                    provider,
                ]
                made = subprocess.run(
                    [*command, str(data), str(accounts)], cwd=tree, capture_output=True, text=True, check=True
                )
                for kind, figures in json.loads(made.stdout).items():
                    found.setdefault((tree, kind), []).append(figures)

        def next_of(tree: Path, kind: str) -> float:
            if not found.get((tree, kind)):
                one(tree)
            figures = found[tree, kind].pop(0)
            seen[tree, kind] = figures
            return float(figures["seconds"])

        seen: dict[tuple[Path, str], dict[str, Any]] = {}
        for kind, name, least in (("first", "first sync", None), ("daily", "daily sync", 5.0)):
            result = compare(
                f"{accounts} accounts, {name}, one worker, SQLite",
                f"commit {BASE}",
                lambda kind=kind: next_of(ROOT, kind),  # type: ignore[misc]
                lambda kind=kind: next_of(base, kind),  # type: ignore[misc]
                rounds=max(rounds // 3, 1),
                least=least,
            )
            ours, theirs = (_said(seen[tree, kind]) for tree in (ROOT, base))
            yield Result(result.what, result.against, ours, theirs, result.ratio, result.spread, result.least)


def _said(figures: dict[str, Any]) -> str:
    each = f"{figures['requests']:.1f} requests, {figures['cpu_ms']:.0f} ms of processor each"
    return f"{figures['accounts_per_second']:.1f}/s, {each}, {figures['peak_mb']:.0f} MB"


@contextmanager
def _provider() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "bench.provider", str(port)], cwd=ROOT)
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/count").close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _base(folder: Path) -> Iterator[Path]:
    """A folder with the earlier commit; this version itself, where the history does not have it."""
    commit = os.environ.get("BENCH_BASE", BASE)
    packed = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
    if packed.returncode:
        print(f"commit {commit} is not in this clone: compared with itself", file=sys.stderr)
        yield ROOT
        return
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as files:
        files.extractall(folder / "base", filter="data")
    yield folder / "base"
