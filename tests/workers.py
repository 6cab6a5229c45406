"""Real workers: waiting for what they do, and finding their processes."""

from __future__ import annotations

import contextlib
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


def children(pid: int) -> dict[int, str]:
    """The names of a worker's scheduler and of its horse, which leaves the worker's process group."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):  # a horse may end while it is looked at
            found[int(child)] = Path(f"/proc/{child}/comm").read_text().strip()
    return found
