"""The web server: waitress, in as many processes as ``WEB_CONCURRENCY`` says, with eight threads each.

One thread of each process reads requests and writes answers for all of its connections; the other eight only ever
get a whole request, and hand over a whole answer. So a client that stalls holds a connection and no thread. With
gunicorn's threads, which read from the client themselves, 24 connections with half a request line were enough that
``/healthz`` didn't answer for as long as they stayed.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import signal
import socket
import sys
import time
from datetime import datetime
from multiprocessing import connection

import waitress
from flask import Flask
from sqlalchemy.exc import SQLAlchemyError
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer
from waitress.task import ErrorTask, WSGITask

from grafient import jobs, logs
from grafient.jobs import Forked
from grafient.models import utc_now

log = logging.getLogger(__name__)

THREADS = 8  # Test Connection keeps one for up to 10 seconds
IDLE_SECONDS = 95
"""When a connection without traffic is closed. Heroku's router keeps its own for 90 seconds, and must be the first to
close them, or it sends a request that nobody reads (https://devcenter.heroku.com/articles/http-routing#keepalives)."""
MOST_BUFFERED = 1 << 30
"""Bytes of an answer that wait for a slow reader, beyond the first megabyte in a file that has no name. waitress stops
the thread that makes an answer when more of it waits than this. Its own 16 MB are less than a year of a large ledger as
CSV, so eight readers who never read would have taken all threads."""
RESTART_PAUSE = 1.0

HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data:",
            "manifest-src 'self'",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
"""What every answer carries, also those that the server gives before any page is asked."""


def run(app: Flask, host: str, port: int, processes: int) -> None:
    """Serve until told to stop (SIGTERM, Ctrl-C). Raises OSError if the port can't be had.

    A process that dies is replaced. All share one socket, so whichever is free takes the next connection.
    """
    logs.name_process("web")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=1024) as listening:
        children = {number: _start(app, listening) for number in range(processes)}
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        crew = _Crew(app)
        try:
            while True:
                connection.wait([child.sentinel for child in children.values()], crew.LOOK_SECONDS)
                crew.look()
                for number, child in children.items():
                    if (code := child.poll()) is not None:
                        log.error("web: a process ended with code %s; another one takes its place", code)
                        time.sleep(RESTART_PAUSE)
                        children[number] = _start(app, listening)
        except KeyboardInterrupt:
            pass
        finally:
            crew.end()
            for child in children.values():
                child.terminate()
            for child in children.values():
                child.join()


class _Crew:
    """Looks whether workers and the scheduler are there, and has it said if they are not: they can't say it themselves.

    Each look is a process of its own that ends: this one has no thread, no connection and no lock that its children
    would get a copy of.
    """

    LOOK_SECONDS = 60.0

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._child: Forked | None = None
        self._looked_at = time.monotonic()
        self._silent_since: datetime | None = None

    def look(self) -> None:
        """Begin another look if it is time, and note what the last one saw."""
        if self._child is not None and (code := self._child.poll()) is not None:
            self._child = None
            if code in (0, _SILENT):
                self._silent_since = (self._silent_since or utc_now()) if code else None
        if self._child is None and time.monotonic() - self._looked_at >= self.LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self._child = Forked(target=_look, args=(self._app, self._silent_since), name="web")
            self._child.start()

    def end(self) -> None:
        """End a look under way: it may be sending, and a process that is told to stop waits for its children. What it
        was sending is sent again."""
        if self._child is not None:
            self._child.terminate()


_SILENT = 3
"""What a look ends with if workers are silent."""


def _look(app: Flask, since: datetime | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with app.app_context():
        try:
            silent = jobs.say_silence(since)
        except SQLAlchemyError as error:
            log.warning("web: whether workers are there could not be noted (%s)", type(error).__name__)
            sys.exit(1)
    sys.exit(_SILENT if silent else 0)


def _start(app: Flask, listening: socket.socket) -> Forked:
    child = Forked(target=_serve, args=(app, listening), name="web")
    child.start()
    return child


def _serve(app: Flask, listening: socket.socket) -> None:
    """One process. A request under way when it is told to stop has five seconds to end, as waitress has it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process passes it on in its own way
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # that requests wait for a thread is no event
    server: BaseWSGIServer = waitress.create_server(
        app,
        sockets=[listening],
        threads=THREADS,
        ident=None,
        connection_limit=min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2),
        channel_timeout=IDLE_SECONDS,
        cleanup_interval=10,
        max_request_header_size=64 * 1024,
        max_request_body_size=1024 * 1024,  # the app refuses far less, with a page
        outbuf_high_watermark=MOST_BUFFERED,
        asyncore_use_poll=True,  # select() knows no more than 1,024 files
        clear_untrusted_proxy_headers=False,  # the app alone decides whom it believes: GRAFIENT_TRUSTED_PROXIES
    )
    server.channel_class = _Channel
    with contextlib.suppress(SystemExit):
        server.run()


class _ErrorTask(ErrorTask):  # type: ignore[misc]
    """The server's own answer to what is no request, with the headers of every other answer."""

    def execute(self) -> None:
        self.response_headers.extend(HEADERS.items())
        super().execute()


class _Task(WSGITask):  # type: ignore[misc]
    def set_close_on_finish(self) -> None:
        """Keep the connection after an answer that has no body, such as a 304. waitress ends it, as it does after any
        answer without a length, so that a browser that asks whether its page is still right connected each time."""
        keeps = self.version == "1.1" and self.request.headers.get("CONNECTION", "").lower() != "close"
        if self.has_body or not keeps:
            super().set_close_on_finish()


class _Channel(HTTPChannel):  # type: ignore[misc]
    task_class, error_task_class = _Task, _ErrorTask
