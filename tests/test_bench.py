"""The bench runs. How fast anything is, no test says: the machine may be busy."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from bench import alerts, dashboards, disk, forecast, ingest, pages, places, run, start, upgrade
from bench.__main__ import _page, _row
from bench.measure import Result, compare, within
from grafient.extensions import db


def test_what_is_measured_stands_beside_its_reference() -> None:
    times = iter([9.0, 9.0, 1.0, 4.0, 6.0, 2.0, 1.0, 2.0])
    found = compare("a", "b", lambda: next(times), lambda: next(times), rounds=3, least=3.0)
    assert (found.ratio, found.spread, found.verdict) == (3.0, (2.0, 4.0), "close")
    assert "| a | b | 1.00 s | 4.00 s |" in _row(found)
    assert "| 3.00× (2.00, 4.00) | 3.00× | close |" in _row(found)
    assert "**no**" in _row(Result("a", "b", "1 ms", "1 ms", 1.0, (1.0, 1.0), 3.0))
    assert "median of all rounds" in _page("make bench", [_row(found)], 3, 1.0)


def test_a_limit_is_a_reference_that_never_varies() -> None:
    assert within("a", 3.0, [1.0, 2.0, 4.0]).verdict == "yes"
    assert within("a", 1.5, [1.0, 2.0, 4.0]).verdict == "**no**"
    assert [within("a", limit, [1.0]).verdict for limit in (1.12, 1.09, 0.91, 0.89)] == [
        "yes",
        "close",
        "close",
        "**no**",
    ]
    assert "| a | a limit | 2.00 s | 3.00 s | 1.50× (0.75, 3.00) | 1.00× | yes |" in _row(within("a", 3, [1, 2, 4]))


def test_without_a_warm_up_each_measurement_counts() -> None:
    times = iter([1.0, 4.0])
    assert compare("a", "b", lambda: next(times), lambda: next(times), rounds=1, warm_up=False).ratio == 4.0


@pytest.fixture(params=[True, False], ids=["with the others", "without the others"])
def others(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bool:
    """dlt and Datasette are only measured where make bench has installed them."""
    if not request.param:
        monkeypatch.setattr(places, "OTHERS", tmp_path / "nothing/bin")
    elif not places.OTHERS.exists():
        pytest.skip("make bench has not been run")
    return bool(request.param)


def test_ingest(others: bool, capsys: pytest.CaptureFixture[str]) -> None:
    found = list(ingest.measure(1, sizes=(60,)))
    assert [result.what for result in found if "raw" in result.against] == [
        f"{database}, 60 rows, {kind}"
        for database in ("SQLite", "PostgreSQL")
        for kind in ("first time", "the same again")
    ]
    assert [result.what for result in found if "dlt" in result.against] == [
        result.what for result in found if "raw" in result.against and others
    ]
    assert ("has no dlt" in capsys.readouterr().err) is not others


@pytest.mark.processes
def test_dashboards() -> None:
    with places.commit() as base:
        whole_history = base != places.ROOT
    found = list(dashboards.measure(1, team_size=(2, 6), days=40))
    earlier = ["commit 57c1415"] * 5 if whole_history else []
    assert [result.against for result in found] == ["hand-written SQL"] * 6 + earlier


def test_dashboards_among_many_lines() -> None:
    found = list(dashboards.measure_among(1, lines=1_000, team_size=(2, 6), days=40, kinds=("SQLite",)))
    assert [result.what for result in found] == [
        f"SQLite, 2 integrations × 6 rows a day, among 960 lines, {days} days" for days in (30, 40)
    ]


@pytest.mark.processes
def test_pages(others: bool) -> None:
    found = list(pages.measure(1, rows=6, days=40, seconds=0.1))
    assert [result.least for result in found if result.least] == [0.6, 1.0] + [2.0] * others


@pytest.mark.processes
def test_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_BASE", "HEAD")
    first, daily, plain, two, four = run.measure(1, accounts=3, few=2, kinds=("SQLite",))
    assert "requests" in first.ours
    assert " 4.0 requests," not in first.ours
    assert " 4.0 requests," in daily.ours
    assert " 4.0 requests " in plain.reference
    assert "cores busy" in two.ours
    assert "four workers" in four.what


@pytest.mark.processes
def test_run_of_many() -> None:
    time, memory = run.measure_many(1, accounts=4, tenth=2, kinds=("SQLite",))
    assert (time.what, time.against) == ("4 accounts, daily sync, one worker, SQLite", "2 × the time of 2")
    assert memory.ours.endswith(" MB")


@pytest.mark.processes
def test_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_BASE", "HEAD")
    for result in disk.measure(1, rows=2, days=60):
        assert "of each of 120 lines" in result.what
        assert result.ours == result.reference


@pytest.mark.processes
def test_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_BASE", "HEAD")
    _, memory, imported = start.measure(1)
    assert float(memory.ours.split()[0]) > 50, "several processes"
    assert imported.ours.count(" ms") >= start.SLOWEST


def test_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "accounts", lambda: forecast.ACCOUNTS[:5])
    last_month, mean_day = forecast.measure(1)
    assert (last_month.against, mean_day.against) == ("last month's total", "the mean day × days")
    assert last_month.ours == mean_day.ours != last_month.reference != mean_day.reference
    assert last_month.verdict == "yes"
    assert mean_day.verdict == "yes"


@pytest.fixture
def small_upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "DAYS", 12)
    monkeypatch.setattr(upgrade, "ROWS", 9)


def test_an_upgrade_is_tried_on_both_databases(small_upgrade: None) -> None:
    found = dict(upgrade.tried(250))
    assert list(found) == ["SQLite", "PostgreSQL"]
    for figures in found.values():
        assert (figures["lines"], figures["figures compared"]) == (216, 2 * (3 + 3) * 9)


@pytest.mark.parametrize(
    ("table", "told"), [("line", "before"), ("key_part", "before"), ("day_total", "totals are not what")]
)
def test_an_upgrade_that_changed_one_figure_fails(
    small_upgrade: None, monkeypatch: pytest.MonkeyPatch, table: str, told: str
) -> None:
    real = upgrade.database.upgrade

    def changed(engine: Engine, to: str = "head") -> None:
        real(engine, to)
        if to == "head":
            one = f"UPDATE {table} SET usage_usd = usage_usd + 1 WHERE day = (SELECT max(day) FROM line)"
            db.session.execute(text(one))
            db.session.commit()

    monkeypatch.setattr(upgrade.database, "upgrade", changed)
    with pytest.raises(SystemExit, match=told):
        next(upgrade.tried(1))


def test_alerts() -> None:
    found = list(alerts.measure(1, many=30, few=3, kinds=("SQLite",)))
    assert [result.what.rpartition(": ")[2] for result in found] == [
        "what a tick asks at 30 workspaces, nothing changed",
        "a look at a workspace, nothing changed",
        "a look at a workspace, a day was settled",
        "a look at a workspace, a day was settled, 10 budgets",
    ]
