"""Processes that share what is loaded, and end together."""

from __future__ import annotations

import ctypes
import gc
import logging
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkProcess

log = logging.getLogger(__name__)


def end_with_parent(order: signal.Signals = signal.SIGTERM) -> None:
    """Have Linux send this process a signal when its parent dies, however that dies; elsewhere do nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, order)  # PR_SET_PDEATHSIG, see prctl(2)


def leave_no_core() -> None:
    """Have no core file written of this process, nor of those that it starts.

    It would be all of their memory, with every key in it; a worker that was ended by SIGSEGV left one in the folder
    that it was started in. Redis has the settings in its environment.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


@contextmanager
def few_collections() -> Iterator[None]:
    """Look for garbage less often inside the block, and not among what is there at its beginning.

    With dozens of syncs under way each look finds much that is in use: a sixth of a daily run's processor, and more of
    first syncs'.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


class Forked(ForkProcess):
    """A function in a process of its own, forked from this one; to be asked and ended as a Popen is.

    What is loaded by then is shared, not copied, as long as nobody writes to it. A garbage collection would write to
    every object, so it is told to leave alone what is there already. Start it before any thread.
    """

    def start(self) -> None:
        gc.freeze()
        super().start()

    def run(self) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        end_with_parent()
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(15, self.name.encode())  # PR_SET_NAME: what ps -A and top call it
        try:
            super().run()
        except Exception:
            log.critical("ended by a fault of its own", exc_info=True)  # multiprocessing would print it as it is
            raise SystemExit(1) from None

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        return self.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended. Raises subprocess.TimeoutExpired."""
        self.join(timeout)
        if self.exitcode is None:
            raise subprocess.TimeoutExpired(self.name, timeout or 0)
        return self.exitcode
