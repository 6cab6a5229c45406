"""RQ around the runs in the database: a queue of wake-ups, a schedule, workers with a scheduler beside each.

``queue`` wakes a worker, ``work`` is what gets done, ``schedule`` says when, ``worker`` are the processes, and
``readiness`` says whether they are there. Redis only carries wake-ups. Jobs have no arguments, and any number of them
may be lost or doubled: what is due is looked up in the database each time.
"""

from __future__ import annotations

from grafient.jobs.alerting import say_silence
from grafient.jobs.processes import Forked, end_with_parent, leave_no_core
from grafient.jobs.queue import connect, wake
from grafient.jobs.readiness import Crew, crew, health
from grafient.jobs.schedule import run_scheduler
from grafient.jobs.work import sync_due, tick
from grafient.jobs.worker import run_worker

__all__ = [
    "Crew",
    "Forked",
    "connect",
    "crew",
    "end_with_parent",
    "health",
    "leave_no_core",
    "run_scheduler",
    "run_worker",
    "say_silence",
    "sync_due",
    "tick",
    "wake",
]
