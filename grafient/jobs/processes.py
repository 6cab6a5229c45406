"""Processes that end together."""

from __future__ import annotations

import ctypes
import signal
import sys


def end_with_parent(order: signal.Signals = signal.SIGTERM) -> None:
    """Have Linux send this process a signal when its parent dies, however that dies; elsewhere do nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, order)  # PR_SET_PDEATHSIG, see prctl(2)
