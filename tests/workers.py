"""Real workers: waiting for what they do, and finding their processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from grafient.extensions import db


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for something that other processes do."""
    deadline = time.monotonic() + seconds
    while not now(condition):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def now(condition: Callable[[], object]) -> object:
    """Ask, and hold no lock afterwards that the other processes would wait for."""
    try:
        return condition()
    finally:
        db.session.rollback()


def end(worker: subprocess.Popen[bytes]) -> None:
    """Kill a worker that leads a session, and all that is left of that session, until nothing is.

    A horse leads a process group of its own, and lives on when its worker is dead. One that was left by a test did
    the sync of the next test that had the same database, where that test waited for nobody but itself.
    """
    kill(worker.pid)
    worker.wait()
    deadline = time.monotonic() + 30
    while left := _of_session(worker.pid):
        assert time.monotonic() < deadline, f"these can't be killed: {left}"
        for one in left:
            kill(one)
        time.sleep(0.01)


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _of_session(leader: int) -> list[int]:
    """The processes of a session, less those that have ended and are waited for by nobody yet."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state not in "ZX":
                found.append(int(folder.name))
    return found


def children(pid: int) -> dict[int, str]:
    """The names of a worker's scheduler and of its horse, which leaves the worker's process group."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):  # a horse may end while it is looked at
            found[int(child)] = Path(f"/proc/{child}/comm").read_text().strip()
    return found
