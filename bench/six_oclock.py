"""A worker's process: ``python bench/six_oclock.py DATABASE_URL REDIS_URL PROVIDER_URL FOLDER``.

Run with another version of Grafient's folder as its working directory, it is that version's: it uses nothing that has
changed since the first. It answers each line, ``connect 200``, ``due daily`` or ``work``, with JSON.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, os.getcwd())  # noqa: PTH109

from flask import Flask

from grafient import create_app, database
from grafient.extensions import db, vault
from grafient.jobs import work
from grafient.models import Integration, SyncRun, Workspace, utc_now


def main(*addresses: str) -> None:
    with made(*addresses).app_context():
        for line in sys.stdin:
            name, *values = line.split()
            print(json.dumps({"connect": connect, "due": due, "work": do}[name](*values)), flush=True)


def made(database_url: str, redis_url: str, provider_url: str, folder: str) -> Flask:
    """The worker's app, with the limits that the environment has."""
    limits = ("GRAFIENT_SYNC_PROCESSES", "GRAFIENT_SYNC_THREADS")
    work.CLAIM_SECONDS = 100_000.0
    return create_app(
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "GRAFIENT_DATA_DIR": folder,
            "SECRET_KEY": "a secret for the length of a bench",
            "GRAFIENT_ENCRYPTION_KEYS": "bench:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "OPENROUTER_BASE_URL": f"{provider_url}/api/v1",
            "GRAFIENT_DEFAULT_PLAN": "free",
            "GRAFIENT_REQUESTS_PER_SECOND": "10000",
            **{name: os.environ.get(name, "") for name in limits},
        }
    )


def connect(accounts: str) -> None:
    """Have so many accounts."""
    database.upgrade(db.engine)
    workspace = Workspace(plan="free")
    db.session.add(workspace)
    db.session.flush()
    for number in range(int(accounts)):
        integration = Integration(workspace_id=workspace.id, provider="openrouter", label=str(number), key_hint="abcd")
        db.session.add(integration)
        db.session.flush()
        sealed = vault.seal(f"sk-or-v1-be{number:062x}", integration_id=integration.id, provider="openrouter")
        integration.key_ciphertext, integration.key_encryption_id = sealed.ciphertext, sealed.key_id
    db.session.commit()


def due(trigger: str) -> None:
    """Have all of them due."""
    for integration_id in db.session.query(Integration.id).all():
        db.session.add(SyncRun(integration_id=integration_id[0], trigger=trigger, next_attempt_at=utc_now()))
    db.session.commit()


def do() -> dict[str, Any]:
    """Do what is due, in one job."""
    cpu, started = _processor(), time.perf_counter()
    work.sync_due()
    elapsed, used = time.perf_counter() - started, _processor() - cpu
    left = db.session.query(SyncRun).filter(SyncRun.status != "done").count()
    db.session.rollback()
    return {"seconds": elapsed, "cpu_seconds": used, "peak_mb": _peak_mb(), "left": left}


def _processor() -> float:
    """Seconds of processor, those of the processes that were forked for it too."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _peak_mb() -> float:
    """The largest process's own peak: this one's, or that of one that was forked for the work.

    getrusage's maximum of this process counts what the process that started it had before.
    """
    status = Path("/proc/self/status").read_text()
    own = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)


if __name__ == "__main__":
    main(*sys.argv[1:5])
