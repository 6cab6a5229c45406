"""The whole product, started as ``make run`` starts it, beside a provider that is the sandbox."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import redis

from grafient.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
_OURS = ("GRAFIENT_", "DATABASE_URL", "REDIS_URL", "SECRET_KEY", "OPENROUTER_", "FLASK_", "HOST", "PORT")


@dataclass(frozen=True)
class Process:
    """A process, known by its number and its start: no later one shares both."""

    pid: int
    started: int
    name: str = field(compare=False)
    command: str = field(compare=False)

    @property
    def alive(self) -> bool:
        """Whether it still runs; one that is dead and only not fetched yet does not."""
        return self in _processes().values()


def until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Wait for something that other processes do."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} seconds: {what}"
        time.sleep(0.05)


class Product:
    """A supervisor and all that it starts, on a free port and with a data folder of its own; ``environ``: its settings,
    and with them those of commands beside it."""

    def __init__(self, folder: Path, sandbox: Sandbox, **settings: str) -> None:
        self.data = folder / "data"
        self.log = folder / "output.log"
        self.sandbox = sandbox
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        self.environ = kept | {
            "PORT": str(self.port),
            "GRAFIENT_DATA_DIR": str(self.data),
            "OPENROUTER_BASE_URL": sandbox.base_url,
            "GRAFIENT_DEFAULT_PLAN": "free",  # the window alone, exact to the last digit
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._read_from = 0
        self._seen: set[Process] = set()

    @property
    def url(self) -> str:
        """Where its pages are."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        """What it and its processes printed since the last start."""
        return self.log.read_bytes()[self._read_from :].decode(errors="replace")

    @property
    def running(self) -> bool:
        """Whether the supervisor is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until /readyz says that everything is there."""
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # or the product would inherit that deafness
        with self.log.open("ab") as log:
            self._read_from = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "grafient.supervisor"],
                cwd=ROOT,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(lambda: not self.running or self._is_ready(), f"ready\n{self.output}", START_SECONDS)
        assert self.running, f"it did not start:\n{self.output}"

    def forget_tries(self) -> None:
        """Let its limits count from nothing again."""
        client = redis.Redis(unix_socket_path=str(self.data / "redis" / "redis.sock"))
        for key in client.scan_iter("LIMITS:*"):
            client.delete(key)
        client.close()

    def stop(self) -> None:
        """Ctrl-C: it has to end well, and to leave nothing running."""
        processes = self.processes()
        self.signal(signal.SIGINT)
        code = self.wait()
        assert code == 0, f"exit code {code} after Ctrl-C:\n{self.output}"
        nothing_left(processes)

    def end(self) -> None:
        """Stop it if it runs. What a failed test or a fault of the product left behind is ended by force."""
        try:
            if self.running:
                self.stop()
        finally:
            for process in self._seen:
                if process.alive:
                    os.kill(process.pid, signal.SIGKILL)
            if self._process is not None:
                self.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send the supervisor, and it alone, a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, seconds: float = 30) -> int:
        """The supervisor's exit code, once it ended."""
        assert self._process is not None
        return self._process.wait(seconds)

    def processes(self) -> list[Process]:
        """The supervisor, its children and theirs; empty where there is no /proc."""
        assert self._process is not None
        found = _processes()
        parents = [self._process.pid]
        for parent in parents:
            parents += [pid for pid, above in found if above == parent]
        processes = [process for (pid, _), process in found.items() if pid in parents]
        self._seen.update(processes)
        return processes

    def child(self, name: str) -> Process:
        """The child of the supervisor that has this name."""
        assert self._process is not None
        (child,) = (
            process
            for (_, parent), process in _processes().items()
            if parent == self._process.pid and process.name == name
        )
        return child

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def nothing_left(processes: list[Process], seconds: float = 5) -> None:
    """Wait for all of them to be gone."""
    until(
        lambda: not [process for process in processes if process.alive],
        f"all gone of {[(process.name, process.command) for process in processes]}",
        seconds,
    )


def _processes() -> dict[tuple[int, int], Process]:
    """What runs on this machine, by its number and its parent's."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
            stat = rest.split()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended while we looked
        if stat[0] not in ("Z", "X"):
            found[int(folder.name), int(stat[1])] = Process(int(folder.name), int(stat[19]), name, command.strip())
    return found
