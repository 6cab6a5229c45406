"""The web server itself: clients that stall, requests that are none, and processes that end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from grafient.web import HEADERS
from tests.conftest import environ

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parent.parent
STALLED = 60


@pytest.fixture(scope="module")
def server(
    sqlite_template: Path, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, int]]:
    """The address of a web server, started as the Procfile says, and its process."""
    folder = tmp_path_factory.mktemp("web")
    (folder / "grafient.db").write_bytes(sqlite_template.read_bytes())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = re.findall(r"^web: flask (.*)$", (ROOT / "Procfile").read_text(), re.MULTILINE)[0].split()
    settings = environ(f"sqlite:///{folder}/grafient.db", redis_url, "http://127.0.0.1:1", str(folder))
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-m", "flask", *command],
        cwd=ROOT,
        env=kept | settings | {"PORT": str(port), "HOST": "127.0.0.1"},
    )
    address = f"http://127.0.0.1:{port}"
    _until(lambda: _answers(address), "the web server answers")
    yield address, process.pid
    process.terminate()
    assert process.wait(20) == 0


def _until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen in time: {what}"
        time.sleep(0.02)


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/healthz").status_code == 200
    except httpx.TransportError:
        return False


LARGEST = max((ROOT / "static").glob("vendor/**/*.js"), key=lambda path: path.stat().st_size)
BEGINNINGS = {
    "half a request line": b"GET /heal",
    "half of the headers": b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half: ",
    "half a body": b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: 100\r\n\r\nemail=",
    "half a chunk": b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nemail=",
    "no reading": f"GET /{LARGEST.relative_to(ROOT)} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() * 30,
}


@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS.keys())
def test_clients_that_stall_keep_nobody_else_waiting(server: tuple[str, int], beginning: bytes) -> None:
    address, _ = server
    port = int(address.rpartition(":")[2])
    with ExitStack() as open_until_the_end:
        for _ in range(STALLED):
            client = open_until_the_end.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.connect(("127.0.0.1", port))
            client.sendall(beginning)
        time.sleep(0.5)
        with httpx.Client(base_url=address, timeout=5) as other:  # they would be waited for without end
            for path in ("/healthz", "/login", "/healthz", "/static/app.css"):
                assert other.get(path, follow_redirects=True).status_code == 200


@pytest.mark.parametrize(
    ("nonsense", "code"),
    [
        (b"G\x00T / HTTP/1.1\r\n\r\n", 400),
        (b"POST /login HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n", 413),
        (b"POST /login HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ],
)
def test_what_is_no_request_is_answered_with_the_headers_of_every_page(
    server: tuple[str, int], nonsense: bytes, code: int
) -> None:
    answer = _raw(server[0], nonsense)
    assert re.match(rb"HTTP/1\.[01] %d " % code, answer)
    for name, value in HEADERS.items():
        assert f"\r\n{name}: {value}\r\n".encode() in answer
    assert b"waitress" not in answer


@pytest.mark.parametrize("header", ["X-Forwarded-Proto: https", "SCRIPT_NAME: /elsewhere", "Forwarded: proto=https"])
def test_nobody_is_believed_to_be_a_proxy(server: tuple[str, int], header: str) -> None:
    """Strict-Transport-Security would come with a request that was said to have come by TLS."""
    answer = _raw(server[0], f"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{header}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 302")
    assert b"\r\nLocation: /login?next=/\r\n" in answer
    assert b"Strict-Transport-Security" not in answer


def _raw(address: str, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=20) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_where_a_request_ends_is_said_once(server: tuple[str, int]) -> None:
    """Two lengths in one request: who believed the other one would take its body for the next request (smuggling)."""
    hidden = b"GET /login HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    head = b"POST /logout HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    answer = _raw(server[0], head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden) + last)
    assert len(re.findall(rb"HTTP/1\.1 \d{3} ", answer)) <= 2
    assert b"<title>" not in answer.partition(b"\r\n\r\n")[2].partition(b"HTTP/1.1")[2]
    twice = b"POST /logout HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"
    assert re.match(rb"HTTP/1\.[01] 400 ", _raw(server[0], twice + b"abcdef"))


def test_a_page_that_did_not_change_keeps_the_connection(server: tuple[str, int]) -> None:
    path = "/static/app.css"
    etag = httpx.get(server[0] + path).headers["ETag"]
    asked = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nIf-None-Match: {etag}\r\n"
    answer = _raw(server[0], f"{asked}\r\n{asked}Connection: close\r\n\r\n".encode())
    assert answer.count(b"HTTP/1.1 304 ") == 2
    assert answer.count(b"Connection: close") == 1


def test_a_process_that_dies_is_replaced(server: tuple[str, int]) -> None:
    address, pid = server
    before = _children(pid)
    assert len(before) == 2
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    _until(lambda: len(_children(pid) - {victim}) == 2, "there are two processes again")
    assert _answers(address)


def _children(pid: int) -> set[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return {int(line) for line in found.stdout.split()}
