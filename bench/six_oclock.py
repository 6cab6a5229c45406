"""The six o'clock run: so many quiet accounts, due at once, one job. ``python bench/six_oclock.py DATABASE_URL ...``.

Run with another version of Grafient's folder as its working directory, it measures that version: it uses nothing that
has changed since the first. It prints JSON.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

sys.path.insert(0, os.getcwd())  # noqa: PTH109

from grafient import create_app, database
from grafient.extensions import db, vault
from grafient.jobs import work
from grafient.models import Integration, SyncRun, Workspace, utc_now


def main(
    database_url: str,
    redis_url: str,
    provider_url: str,
    folder: str,
    accounts: int,
    counters: Callable[[], Mapping[str, float]] = dict,
) -> dict[str, Any]:
    """Both runs. ``counters``: what else is read before and after each, to be told by how much it grew."""
    app = create_app(
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "GRAFIENT_DATA_DIR": folder,
            "SECRET_KEY": "a secret for the length of a bench",
            "GRAFIENT_ENCRYPTION_KEYS": "bench:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "OPENROUTER_BASE_URL": f"{provider_url}/api/v1",
            "GRAFIENT_DEFAULT_PLAN": "free",
            "GRAFIENT_REQUESTS_PER_SECOND": "10000",
        }
    )
    with app.app_context():
        database.upgrade(db.engine)
        _connect(accounts)
        first = _run(provider_url, accounts, "backfill", counters)
        return {"first": first, "daily": _run(provider_url, accounts, "daily", counters)}


def _connect(accounts: int) -> None:
    workspace = Workspace(plan="free")
    db.session.add(workspace)
    db.session.flush()
    for number in range(accounts):
        integration = Integration(workspace_id=workspace.id, provider="openrouter", label=str(number), key_hint="abcd")
        db.session.add(integration)
        db.session.flush()
        sealed = vault.seal(f"sk-or-v1-{number:064x}", integration_id=integration.id, provider="openrouter")
        integration.key_ciphertext, integration.key_encryption_id = sealed.ciphertext, sealed.key_id
    db.session.commit()


def _run(provider_url: str, accounts: int, trigger: str, counters: Callable[[], Mapping[str, float]]) -> dict[str, Any]:
    """Have all of them due, and do them."""
    for integration_id in db.session.query(Integration.id).all():
        db.session.add(SyncRun(integration_id=integration_id[0], trigger=trigger, next_attempt_at=utc_now()))
    db.session.commit()
    work.CLAIM_SECONDS = 100_000.0
    before, asked, cpu, started = counters(), _asked(provider_url), _processor(), time.perf_counter()
    work.sync_due()
    elapsed, used, after = time.perf_counter() - started, _processor() - cpu, counters()
    done = db.session.query(SyncRun).filter(SyncRun.status == "done", SyncRun.trigger == trigger).count()
    db.session.rollback()
    return {
        "done": done,
        "accounts_per_second": accounts / elapsed,
        "seconds": elapsed,
        "cpu_ms": used / accounts * 1000,
        "requests": (_asked(provider_url) - asked) / accounts,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **{name: after[name] - before[name] for name in after},
    }


def _processor() -> float:
    """Seconds of processor, those of the processes that were forked for it too."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _asked(provider_url: str) -> int:
    with urllib.request.urlopen(f"{provider_url}/api/v1/count") as reply:
        return int(reply.read())


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:5], int(sys.argv[5]))))
