"""The Dashboard's data: ``python bench/report.py DATABASE_URL FOLDER NOW``, and then on each line so many days.

It answers with the seconds it took. Run with another version of Grafient's folder as its working directory, it is that
version's, on a database of that version.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import datetime
from unittest import mock

sys.path.insert(0, os.getcwd())  # noqa: PTH109

from grafient import create_app, database
from grafient.days import Period
from grafient.extensions import db
from grafient.query import Query
from grafient.reports import dashboard


def main(database_url: str, folder: str, moment: str) -> None:
    now = datetime.fromisoformat(moment)
    app = create_app(
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": "redis://127.0.0.1:1",
            "GRAFIENT_DATA_DIR": folder,
            "SECRET_KEY": "a secret for the length of a bench",
            "GRAFIENT_ENCRYPTION_KEYS": "bench:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        }
    )
    with app.app_context(), mock.patch("grafient.reports.dashboard.utc_now", return_value=now):
        database.reading.set(True)
        for line in sys.stdin:
            query = Query(1, Period.latest(int(line), now))
            started = time.perf_counter()
            found = dashboard.report(query)
            db.session.rollback()
            taken = time.perf_counter() - started
            assert found.total_usd, "there is something to add up"
            print(taken, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4])
