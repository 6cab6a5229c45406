"""Serving: loopback only, threads, and the process of its own."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import httpx
import pytest
from werkzeug.test import Client

from grafient.sandbox import Sandbox, key
from grafient.sandbox.__main__ import main

TODAY = date(2026, 11, 22)  # as the fixture sandbox has it
Ask = Callable[..., httpx.Response]

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.com", "", "8.8.8.8"])
def test_it_refuses_other_interfaces(host: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        Sandbox().start(host=host)


def test_it_listens_on_loopback(sandbox: Sandbox) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/api/v1", sandbox.base_url)


def test_stop_and_start_again() -> None:
    sandbox = Sandbox(today=TODAY)
    with pytest.raises(RuntimeError, match="start it first"):
        assert sandbox.base_url
    sandbox.stop()
    for _ in range(2):
        with sandbox:
            url = f"{sandbox.base_url}/models"
            assert httpx.get(url, trust_env=False).status_code == 200
            with pytest.raises(RuntimeError, match="already serving"):
                sandbox.start()
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, trust_env=False)


def test_a_taken_port_is_an_error(sandbox: Sandbox) -> None:
    port = int(sandbox.base_url.split(":")[2].split("/")[0])
    with pytest.raises(OSError, match="in use"):
        Sandbox().start(port)


def test_it_is_a_wsgi_application_too() -> None:
    client = Client(Sandbox(today=TODAY))
    response = client.get("/api/v1/activity", headers={"Authorization": f"Bearer {key('lively')}"})
    assert response.status_code == 200
    assert response.json is not None
    assert len(response.json["data"]) > 100


def test_many_at_once(sandbox: Sandbox, ask: Ask) -> None:
    sandbox.fault("lively", "limited", times=10)
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda _: ask("/auth/key").status_code, range(60)))
    assert sorted(statuses) == [200] * 50 + [429] * 10
    assert len(sandbox.requests()) == 60


def test_a_crowd() -> None:
    with Sandbox(today=TODAY, crowd=3) as sandbox, httpx.Client(trust_env=False) as client:
        ids = set()
        for number in (1, 2, 3):
            headers = {"Authorization": f"Bearer {sandbox.key(f'crowd-{number}')}"}
            data = client.get(f"{sandbox.base_url}/auth/key", headers=headers).json()["data"]
            ids.add(data["creator_user_id"])
        assert len(ids) == 3
        with pytest.raises(ValueError, match="crowd-4"):
            sandbox.key("crowd-4")


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "grafient.sandbox", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def test_as_a_process_of_its_own() -> None:
    with process("--today", "2026-11-22") as one, process("--today", "2026-11-22") as another:
        for running, number in ((one, signal.SIGTERM), (another, signal.SIGINT)):
            assert running.stdout is not None
            line = running.stdout.readline()
            found = re.search(r"(http://127\.0\.0\.1:\d+/api/v1) .* (sk-or-v1-[0-9a-f]{64})$", line)
            assert found, line
            url, secret = found.groups()
            assert secret == key("lively")
            headers = {"Authorization": f"Bearer {secret}"}
            rows = httpx.get(f"{url}/activity", headers=headers, trust_env=False).json()["data"]
            assert max(row["date"] for row in rows) == "2026-11-21 00:00:00"
            running.send_signal(number)
            out, err = running.communicate(timeout=10)
            assert (running.returncode, out, err) == (0, "", "")


def test_it_says_in_one_sentence_why_it_cannot_start(capsys: pytest.CaptureFixture[str]) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            assert main(["--port", str(port)]) == 2
        assert main(["--host", "0.0.0.0"]) == 2
        assert main(["--port", "70000"]) == 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines == [
        f"Can't serve on 127.0.0.1, port {port}: Address already in use.",
        "The sandbox serves on the loopback interface only, not on 0.0.0.0.",
        "70000 is no port; ports go from 0 to 65535.",
    ]


def test_it_stands_alone() -> None:
    """Of this project, the package imports only itself."""
    sources = (ROOT / "grafient" / "sandbox").glob("*.py")
    imports = {line for path in sources for line in path.read_text().splitlines() if "import" in line}
    ours = {line for line in imports if re.match(r"\s*(from|import) (grafient|\.)", line)}
    assert ours
    assert all(re.match(r"from grafient\.sandbox\b", line) for line in ours)
