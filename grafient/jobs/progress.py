"""The six o'clock run in the log: a line a minute while it is under way, and one when it has ended."""

from __future__ import annotations

import logging
from datetime import datetime

from grafient import database
from grafient.extensions import db
from grafient.jobs.queue import client
from grafient.reports import operations
from grafient.reports.operations import SixOClock
from grafient.runs import slot_of

log = logging.getLogger(__name__)

_SAID = "grafient:run_said"
_ENDED = "grafient:run_ended"
MINUTE = 55
"""Seconds between two lines; ticks come every 30, from each scheduler there is."""

PATIENCE = 600
"""The same where all that is left waits for its next try: a provider may ask for a pause of a day."""


def say(now: datetime) -> None:
    """Log how far the run is, unless some scheduler has said so already. Raises RedisError; then nobody says anything.

    Schedulers agree through two keys in Redis. What is said is read without a lock that would keep SQLite's writers
    out, and no transaction is open while Redis is asked.
    """
    with database.only_reading():
        is_open = operations.is_under_way(now)
        db.session.rollback()
        slot = str(slot_of(now))
        if is_open:
            client().delete(_ENDED)
            if not client().set(_SAID, slot, ex=MINUTE, nx=True):
                return
        elif client().getset(_ENDED, slot) == slot.encode():
            return
        run = operations.six_oclock(now, 1)
        db.session.rollback()
    if run.slot.due:
        log.info("%s", line(run, now))
    if run.slot.open and not run.waiting.to_go(now):
        client().expire(_SAID, PATIENCE)


def line(run: SixOClock, now: datetime) -> str:
    """The run in one line, by which the counts add up to what was due."""
    slot, waiting = run.slot, run.waiting
    parts = [f"{slot.due} due, {slot.done} done, {slot.failed} failed"]
    if slot.open:
        parts[0] += f", {waiting.retrying} retrying, {waiting.under_way + waiting.unclaimed} to go"
    parts.append(f"{_span(slot.late(now).total_seconds())} late at most")
    parts += [f"slowest {_span(slow.seconds)} (integration {slow.integration_id})" for slow in run.slowest]
    return f"six o'clock run {slot.day}{'' if slot.open else ' has ended'}: {'; '.join(parts)}"


def _span(seconds: float) -> str:
    return f"{max(seconds, 0):.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
