"""A ledger: ``python bench/fill.py``, with an app's environment; then on each line the path of a reply to be recorded.

Run with another version of Grafient's folder as its working directory, it is that version's ledger.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

sys.path.insert(0, os.getcwd())  # noqa: PTH109

from grafient import create_app, database, ledger
from grafient.extensions import db
from grafient.models import Integration, SyncRun, Workspace
from grafient.providers import Activity
from grafient.providers.openrouter import replies


def main() -> None:
    with create_app().app_context():
        database.upgrade(db.engine)
        workspace = Workspace(plan="ultimate")
        db.session.add(workspace)
        db.session.flush()
        integration = Integration(workspace_id=workspace.id, provider="openrouter", label="bench", key_hint="abcd")
        db.session.add(integration)
        db.session.flush()
        run = SyncRun(integration_id=integration.id, trigger="manual")
        db.session.add(run)
        db.session.commit()
        print(json.dumps("ready"), flush=True)
        for line in sys.stdin:
            _record(integration.id, run.id, Path(line.strip()).read_bytes())
            print(json.dumps("recorded"), flush=True)


def _record(integration_id: int, run_id: int, body: bytes) -> None:
    parsed = replies.parse_activity(body)
    days = sorted({one if isinstance(one, date) else one.day for one in parsed})  # days, or as they were before, lines
    today = days[-1] + timedelta(days=1)
    activity = Activity(days[0], days[-1], parsed, today)
    ledger.record(integration_id, run_id, activity, datetime.combine(today, datetime.min.time(), UTC).replace(hour=12))
    db.session.commit()


if __name__ == "__main__":
    main()
