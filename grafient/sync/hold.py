"""Holding a claimed run: every commit of a sync goes through here, so that only the holder of the claim can write.

A sync reads for seconds or minutes and commits in between, so that a worker that dies leaves whole stages behind. Each
commit first checks, under a lock on the run's row, that the token of the claim is still there, and then also renews
the lease, stores the provider's replies behind the figures, and notes how far the sync is: all in one transaction.

The lease has to outlive each request, or another worker would take over a sync that is merely waiting for a slow
reply. A request takes 60 seconds at most, so where less than 70 are left before one, the lease is renewed first.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any

from grafient import evidence, runs
from grafient.extensions import db, pace, providers
from grafient.models import SyncRun, utc_now
from grafient.providers import Provider, ProviderError, Reader, ReceivedReply, UnexpectedResponse
from grafient.runs import Claim, LeaseLost
from grafient.states import Stage

log = logging.getLogger(__name__)

ONE_REQUEST = timedelta(seconds=70)
"""Longer than any one request to a provider takes."""

MOST_READERS = 204
"""Three for each of the 68 syncs that a process does at a time at most."""

LOOK_SECONDS = 2.0
"""How long what was read waits for what other threads read to be written with it, and how often the lease is looked at
meanwhile."""


class Hold:
    """A claimed run, and the reader of its account.

    ``notes``: sentences on what was odd, for the run's row.
    """

    def __init__(self, claim: Claim, provider: str, key: str) -> None:
        self.claim = claim
        self.provider: Provider = providers[provider]
        self.reader: Reader = self.provider.reader(key, self._before_each)
        self._pause = pace.of(provider)
        self.notes: list[str] = []
        self._until = claim.until
        self._thread = threading.get_ident()
        self._lost = False
        self._replies: list[ReceivedReply] = []
        """Those that are not stored yet. They outlast a transaction that fails because one of them is odd."""

    @contextmanager
    def committed(self, next_stage: Stage | None = None) -> Iterator[SyncRun]:
        """One transaction of the run, with the replies that came since the last one. Raises LeaseLost.

        ``next_stage``: what is read from here on, if something else than before.
        """
        self._replies += evidence.compressed(self.reader.take_replies())
        self.notes += self.reader.take_notes()
        run = runs.hold(self.claim)
        with db.session.no_autoflush:
            yield run
        until = self._until if run.token is None else runs.extend(run)
        evidence.keep(run.id, self._replies)
        if next_stage is not None and run.stage != next_stage:
            runs.progress(run, next_stage)
        run.integration.changed()
        ended = runs.told(run)
        db.session.commit()
        if ended is not None:
            log.info("%s", ended)
        self._until = until
        self._replies.clear()

    @contextmanager
    def keeping_replies(self) -> Iterator[None]:
        """Store the replies even if one of them can't be understood: that one is the most wanted of all."""
        try:
            yield
        except UnexpectedResponse:
            db.session.rollback()
            with self.committed():
                pass
            raise

    def side_by_side(self, *readings: Callable[[], Any], late: Callable[[], None]) -> Sequence[Any]:
        """What readings give that don't need each other, each on a thread of its own; for one that failed, its
        ProviderError. Raises LeaseLost.

        As long as they take, ``late`` is called every few seconds, and the lease is renewed: a list of keys can have
        many pages, each of which may take a minute.
        """
        answers = [_readers(os.getpid()).submit(_answer, reading) for reading in readings]
        try:
            while wait(answers, LOOK_SECONDS).not_done:
                late()
                self._renew()
        except LeaseLost:
            self._lost = True
            raise
        finally:
            wait(answers)
        return [answer.result() for answer in answers]

    def _before_each(self) -> None:
        """Called before every request. What a person waits for overtakes the rest."""
        if self._lost:
            raise LeaseLost(f"run {self.claim.run_id} was lost")
        if not self.claim.is_awaited:
            self._pause()
        self._renew()

    def _renew(self) -> None:
        """Only the thread that has the session can."""
        if threading.get_ident() == self._thread and self._until - utc_now() < ONE_REQUEST:
            with self.committed():
                pass


@cache
def _readers(_process: int) -> ThreadPoolExecutor:
    """The threads of a process that read side by side, for all of its syncs: to start three for each sync was a tenth
    of its processor. They are started when they are needed first; a fork has none of its parent's."""
    return ThreadPoolExecutor(MOST_READERS, thread_name_prefix="reading")


def _answer(reading: Callable[[], Any]) -> Any:
    try:
        return reading()
    except ProviderError as error:
        return error
