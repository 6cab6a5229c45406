"""Stand-ins for services that alerts are sent to: real HTTP and TLS on this machine, behind an Internet of the tests'
own, in which names lead to public addresses and these to the stand-ins."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from grafient.alerts.channels import guard
from tests.certificates import vouched_for


@dataclass
class Received:
    """A request as it came."""

    method: str
    host: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    """``drip``: seconds between the bytes of the head, and, of a body, between its portions."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    drip: float = 0


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, owner: StandIn, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.owner, self.tls = owner, tls

    def get_request(self) -> tuple[socket.socket, Any]:
        taken, address = super().get_request()
        self.owner.connections += 1
        return taken, address

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is not None:
            with contextlib.suppress(OSError), self.tls.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)
        else:
            super().finish_request(request, client_address)

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        """Whoever hangs up in the middle does so on purpose here."""


class _Handler(BaseHTTPRequestHandler):
    def _any(self) -> None:
        owner: StandIn = self.server.owner  # type: ignore[attr-defined]
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:
            return  # who sent it was killed in the middle: no server takes that for a message
        headers = {name.lower(): value for name, value in self.headers.items()}
        owner.requests.append(Received(self.command, headers.get("host", ""), self.path, headers, body))
        reply = owner.replies.pop(0) if owner.replies else owner.reply
        head = f"HTTP/1.1 {reply.status} Whatever\r\nContent-Length: {len(reply.body)}\r\nConnection: close\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items()) + "\r\n"
        if not reply.drip:
            self.wfile.write(head.encode() + reply.body)
            owner.heard_out += 1
            return
        for letter in head:
            self.wfile.write(letter.encode())
            time.sleep(reply.drip)

    do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815 - http.server's names

    def log_message(self, *_of: Any) -> None:
        """Nothing."""


class StandIn:
    """A server that says what it is told to say, and keeps what it is sent."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.connections = self.heard_out = 0
        self.requests: list[Received] = []
        self.reply, self.replies = Reply(), list[Reply]()
        self._server = _Server(self, tls)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def last(self) -> Received:
        return self.requests[-1]


class Internet:
    """Names and what they lead to; ``reached``: the addresses that anybody wanted a connection to."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self.names: dict[str, list[list[str]]] = {}
        self.machines: dict[str, StandIn] = {}
        self.reached: list[str] = []
        self.asked: list[str] = []
        self.started: list[StandIn] = []

    def machine(self, name: str, address: str = "", *, plain: bool = False) -> StandIn:
        """A machine of that name, at an address, or at one that nobody has yet."""
        address = address or f"93.184.216.{34 + len(self.machines)}"
        found = StandIn(None if plain else self._tls)
        self.started.append(found)
        self.names[name] = [[address]]
        self.machines[address] = found
        return found

    def answers(self, name: str, *answers: list[str]) -> None:
        """What a name leads to, each time that it is asked for; the last answer stays."""
        self.names[name] = list(answers)

    def getaddrinfo(self, host: Any, port: Any, *_rest: Any, **_options: Any) -> list[Any]:
        self.asked.append(str(host))
        answers = self.names.get(str(host))
        if answers is None:
            return _LOOK_UP(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            (socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found
        ]

    def create_connection(self, address: tuple[str, int], timeout: Any = None, **_rest: Any) -> socket.socket:
        self.reached.append(address[0])
        machine = self.machines.get(address[0])
        if machine is None:
            raise ConnectionRefusedError
        found = socket.socket()
        found.settimeout(timeout)
        found.connect(("127.0.0.1", machine.port))
        return found


_LOOK_UP = socket.getaddrinfo


@pytest.fixture(scope="session")
def vouched(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS for who asks and for who answers, by an authority of the tests'."""
    folder: Path = tmp_path_factory.mktemp("authority")
    names = (
        "*.example.com", "hooks.slack.com", "api.telegram.org", "discord.com", "api.pushover.net", "ntfy.sh",
        "events.pagerduty.com", "events.eu.pagerduty.com", "api.opsgenie.com", "api.eu.opsgenie.com", "matrix.org",
        "prod-01.westus.logic.azure.com", "default1.2.environment.api.powerplatform.com",
    )  # fmt: skip
    authority, server = vouched_for(folder, *names)
    answers = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    answers.load_cert_chain(server)
    return ssl.create_default_context(cafile=str(authority)), answers


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch, vouched: tuple[ssl.SSLContext, ssl.SSLContext]) -> Iterator[Internet]:
    asks, answers = vouched
    found = Internet(answers)
    monkeypatch.setattr(guard, "_tls", lambda: asks)
    monkeypatch.setattr(socket, "getaddrinfo", found.getaddrinfo)
    monkeypatch.setattr(socket, "create_connection", found.create_connection)
    yield found
    for one in found.started:
        one.close()
