"""Every figure of every page, on a year of the lively account, is what it was when the file beside this was written.

The file was made before the read side was redrawn, so that the redraw could be compared with it. Some things were
meant to change and are left out: zeros where costs are added up by host or API key, because some of them stood for what
was not known; the columns that the breakdown's file got since, and those of changes and prices that its table got; and
a statement's credits. To make the file anew, on purpose and never just to get the test to pass:
``GRAFIENT_WRITE_FIGURES=1 pytest tests/test_figures.py``.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from flask import Flask

from grafient.sandbox import Sandbox
from tests.pages import Pages, lint
from tests.syncing import a_day, later, on_sqlite
from tests.views.test_integrations import connected, run_due

FILE = Path(__file__).with_suffix(".json")
PERCENT = re.compile(r"[+−]?[<>]?[\d,]+(?:\.\d+)?\s?%")
ADDED = re.compile(
    r'<td class="number derived">.*?</td>|<section class="panel" aria-labelledby="credits">.*?</section>', re.DOTALL
)
MOST = 400
"""Of more figures on a page, the file has their number, their sum and a digest."""


@pytest.mark.long
@on_sqlite
def test_every_figure_of_every_page_is_what_it_was(
    settings: dict[str, str], request: pytest.FixtureRequest, sandbox: Sandbox
) -> None:
    settings["GRAFIENT_DEFAULT_PLAN"] = "ultimate"
    app: Flask = request.getfixturevalue("app")
    with later(-2):
        pages: Pages = request.getfixturevalue("pages")
        connected(app, pages, sandbox)
    with later(0):
        for ago, factor in ((5, "1.5"), (9, "0.25")):
            sandbox.restate("lively", a_day(sandbox, ago=ago), factor)
        pages.post("/integrations/1/sync", 303, "/integrations")
        run_due(app)
        found = {path: _figures(pages, path) for path in _paths(sandbox)}
    if os.environ.get("GRAFIENT_WRITE_FIGURES"):
        FILE.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found.items()) + "\n}\n")
    wanted = json.loads(FILE.read_text())
    assert found.keys() == wanted.keys()
    for path, figures in found.items():
        assert figures == wanted[path], path


def _paths(sandbox: Sandbox) -> list[str]:
    today = sandbox.today
    key = sandbox.account("lively").keys(today)[0].hash
    periods = ["days=7", "days=30", "days=90", "days=365", f"from={today - timedelta(days=40)}&to={today}"]
    filters = ["", "&host=Anthropic", f"&key={key}", "&key=unattributed", "&integration=1", "&byok=1"]
    queries = [f"{period}{filter_}" for period in periods for filter_ in filters]
    queries += [f"days={days}&group={group}" for days in (30, 365) for group in ("host", "key")]
    days = [a_day(sandbox, ago=5), a_day(sandbox, ago=9), a_day(sandbox, ago=60), today]
    return [
        *(f"/?{query}" for query in queries),
        *(f"/?{query}&by=day" for query in queries if "days=365" in query),
        *(f"/breakdown?{query}{more}" for query in queries for more in ("", "&q=claude")),
        *(f"/breakdown.csv?{query}&sort=requests" for query in queries),
        *(f"/ledger.csv?{query}" for query in ("days=365", "days=30", f"days=30&key={key}")),
        *(f"/statement?month={month}" for month in ("2026-11", "2026-10", "2026-03")),
        *(f"/integrations/1/days/{day}" for day in days),
        "/integrations/1",
    ]


def _figures(pages: Pages, path: str) -> list[str]:
    text = pages.get(path).text
    found = _in_file(text, path) if ".csv" in path else _on_page(text)
    if "group=" in path and ".csv" not in path:
        found = [figure for figure in found if figure != "0"]
    if len(found) <= MOST:
        return found
    digest = hashlib.sha256("\n".join(found).encode()).hexdigest()
    numbers = [Decimal(one) for one in found if re.fullmatch(r"-?\d+(\.\d+)?", one)]
    return [f"{len(found)} figures", f"sum {sum(numbers, Decimal(0))}", digest]


def _in_file(text: str, path: str) -> list[str]:
    rows = list(csv.reader(io.StringIO(text)))
    end = rows[0].index("days_asked") + 1 if path.startswith("/breakdown") else None
    return [",".join(row[:end]) for row in rows]


def _on_page(html: str) -> list[str]:
    """Amounts and counts in the order of the page, then percentages, however they are spaced."""
    tree = lint(ADDED.sub("", html))
    amounts = [
        str(node.attrs.get("value") or node.attrs.get("data-value")) for node in tree.query("data, td[data-value]")
    ]
    shares = [re.sub(r"\s", "", found) for found in PERCENT.findall(tree.query("main")[0].to_text())]
    return amounts + shares
