"""``make bench``: each figure beside its reference, measured in turn in one run; a table, and bench/RESULTS.md.

``make bench-long`` measures what takes long, and writes bench/RESULTS-long.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from bench import alerts, dashboards, disk, forecast, ingest, pages, run, start
from bench.measure import Result

PARTS: dict[str, Callable[[int], Iterator[Result]]] = {
    "ingest": ingest.measure,
    "dashboards": dashboards.measure,
    "pages": pages.measure,
    "run": run.measure,
    "disk": disk.measure,
    "start": start.measure,
    "forecast": forecast.measure,
    "alerts": alerts.measure,
}
LONG: dict[str, Callable[[int], Iterator[Result]]] = {
    "accounts": run.measure_many,
    "lines": dashboards.measure_among,
}
RESULTS = Path(__file__).with_name("RESULTS.md")
COLUMNS = ("what", "against", "ours", "reference", "ratio (smallest, largest)", "asked", "reached")
HEAD = f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"what to measure: {', '.join(PARTS)}; everything by default")
    parser.add_argument("--long", action="store_true", help=f"what takes long: {', '.join(LONG)}")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    parts = LONG if options.long else PARTS
    if unknown := set(options.part) - parts.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    started, rows = time.monotonic(), []
    print(HEAD)
    for name in options.part or parts:
        for result in parts[name](options.rounds):
            rows.append(_row(result))
            print(rows[-1], flush=True)
    minutes = (time.monotonic() - started) / 60
    if not options.part:
        results = RESULTS.with_stem("RESULTS-long") if options.long else RESULTS
        results.write_text(_page("make bench-long" if options.long else "make bench", rows, options.rounds, minutes))


def _row(result: Result) -> str:
    asked = "–" if result.least is None else f"{result.least:.2f}×"
    smallest, largest = result.spread
    ratio = f"{result.ratio:.2f}× ({smallest:.2f}, {largest:.2f})"
    cells = result.what, result.against, result.ours, result.reference, ratio, asked, result.verdict
    return f"| {' | '.join(cells)} |"


def _page(command: str, rows: list[str], rounds: int, minutes: float) -> str:
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    return (
        f"# What was measured\n\n`{command}` on {datetime.now(UTC):%Y-%m-%d}: {machine}; {minutes:.0f} minutes. "
        f"Ours and the reference alternate over {rounds} rounds or so (more of what takes milliseconds); the times are "
        f"medians. A ratio is how many times as fast (or as small) ours is as the reference, the median of all rounds, "
        f"with the smallest and the largest. A limit is reached at 1.00×. What is within a tenth of what was asked is "
        f"close to it: another run on the same machine can end on the other side.\n\n" + "\n".join([HEAD, *rows]) + "\n"
    )


if __name__ == "__main__":
    main()
