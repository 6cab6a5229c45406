"""`python -m grafient.sandbox`: the stand-in as a process of its own."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from datetime import date
from types import FrameType

from grafient.sandbox.server import Sandbox


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. 0 then; 2 with one sentence when it can't start."""
    options = _parser().parse_args(arguments)
    sandbox = Sandbox(options.today, crowd=options.crowd)
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        sandbox.start(options.port, options.host)
    except (OSError, OverflowError, ValueError) as error:
        print(_why(error, options.host, options.port), file=sys.stderr)
        return 2
    with sandbox:
        print(f"Sandbox at {sandbox.base_url} with the management key {sandbox.key('lively')}", flush=True)
        ended.wait()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m grafient.sandbox", description="A stand-in OpenRouter on the loopback interface."
    )
    parser.add_argument("--port", type=int, default=0, help="default: any free one")
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address")
    parser.add_argument("--today", type=date.fromisoformat, help="the UTC day it plays; default: the real one")
    parser.add_argument("--crowd", type=int, default=0, help="so many further accounts, keys crowd-1, crowd-2 ...")
    return parser


def _why(error: Exception, host: str, port: int) -> str:
    if isinstance(error, OSError):
        return f"Can't serve on {host}, port {port}: {error.strerror or error}."
    if isinstance(error, OverflowError):
        return f"{port} is no port; ports go from 0 to 65535."
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
