"""What a page is made of: ``python bench/report.py NOW``, with an app's environment, and then on each line such as
``dashboard 2026-11-01 2026-11-30``: a name of REPORTS, and a period.

It answers with the seconds it took, and what all of it cost. Run with another version of Grafient's folder as its
working directory, it is that version's, on a database of that version.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import date, datetime
from typing import Any
from unittest import mock

sys.path.insert(0, os.getcwd())  # noqa: PTH109

from grafient import create_app, database
from grafient.days import Period
from grafient.extensions import db
from grafient.query import Group, Query
from grafient.reports import breakdown, dashboard, statement, sums

REPORTS: dict[str, Callable[[Query], Any]] = {
    "dashboard": dashboard.report,
    "breakdown": lambda query: breakdown.report(query, Group.MODEL, "usage_usd", True),
    "statement": statement.report,
    "models": lambda query: sums.totals_by(query, Group.MODEL),
}


def main(moment: str) -> None:
    now = datetime.fromisoformat(moment)
    with create_app().app_context(), mock.patch("grafient.reports.dashboard.utc_now", return_value=now):
        database.reading.set(True)
        for line in sys.stdin:
            name, *ends = line.split()
            query = Query(1, Period(*map(date.fromisoformat, ends)))
            started = time.perf_counter()
            found = REPORTS[name](query)
            db.session.rollback()
            taken = time.perf_counter() - started
            total = sum(one.usage_usd for one in found) if name == "models" else found.total_usd
            print(json.dumps([taken, f"{total:.12f}"]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
