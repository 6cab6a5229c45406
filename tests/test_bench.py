"""The bench runs. How fast anything is, no test says: the machine may be busy."""

from __future__ import annotations

import pytest

from bench import dashboards, ingest, run
from bench.__main__ import _page, _row
from bench.measure import Result, compare


def test_what_is_measured_stands_beside_its_reference() -> None:
    times = iter([9.0, 9.0, 1.0, 4.0, 6.0, 2.0, 1.0, 2.0])
    found = compare("a", "b", lambda: next(times), lambda: next(times), rounds=3, least=3.0)
    assert (found.ratio, found.spread, found.reaches) == (3.0, (2.0, 4.0), True)
    assert "| a | b | 1.000" not in _row(found)
    assert "| 3.00× (2.00, 4.00) | 3.00× | yes |" in _row(found)
    assert "**no**" in _row(Result("a", "b", "1 ms", "1 ms", 1.0, (1.0, 1.0), 3.0))
    assert "median of all rounds" in _page([_row(found)], 3, 1.0)


def test_ingest() -> None:
    assert [result.what for result in ingest.measure(1, sizes=(60,))] == [
        f"{database}, 60 rows, {kind}"
        for database in ("SQLite", "PostgreSQL")
        for kind in ("first time", "the same again")
    ]


def test_dashboards() -> None:
    assert len(list(dashboards.measure(1, team_size=(2, 6), days=40))) == 6


@pytest.mark.processes
def test_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_BASE", "HEAD")
    first, daily = run.measure(1, accounts=3)
    assert "requests" in first.ours
    assert "3.0/s, 4.0 requests" not in first.ours
    assert " 4.0 requests," in daily.ours
