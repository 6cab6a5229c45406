"""The stand-in as an HTTP server on the loopback interface."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterable
from datetime import date
from types import TracebackType
from typing import TYPE_CHECKING

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from grafient.sandbox import control
from grafient.sandbox.api import ENDPOINTS, Call, Payload, models
from grafient.sandbox.manners import MANNERS
from grafient.sandbox.state import LoggedRequest, redact
from grafient.sandbox.wire import ProviderError, error_reply, reply

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

API = "/api/v1"
ELSEWHERE = "/elsewhere"  # where the manner `redirect` sends to


class Sandbox(control.Controls):
    """A stand-in OpenRouter: a WSGI application that can serve itself.

    `with Sandbox(today=...) as sandbox:` serves on a free port until the block ends.
    """

    def __init__(self, today: date | None = None, *, crowd: int = 0) -> None:
        super().__init__(today, crowd=crowd)
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None

    def start(self, port: int = 0, host: str = "127.0.0.1") -> Sandbox:
        """Serve from a daemon thread; port 0 takes a free one. OSError when the port is taken."""
        if self._server is not None:
            raise RuntimeError("This sandbox is already serving.")
        if not is_loopback(host):
            raise ValueError(f"The sandbox serves on the loopback interface only, not on {host}.")
        self.state.stopping.clear()
        with _listen(host, port) as listener:
            self._server = make_server(
                host, port, self, threaded=True, request_handler=_QuietHandler, fd=listener.fileno()
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End every reply that is still dripping, and the server. Harmless when it isn't running."""
        self.state.stopping.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server = self._thread = None

    @property
    def base_url(self) -> str:
        """What goes in front of `/activity`: ends in `/api/v1`."""
        return f"{self._origin}{API}"

    @property
    def control_url(self) -> str:
        """Where the controls are, without a slash at the end."""
        return f"{self._origin}/sandbox"

    @property
    def _origin(self) -> str:
        if self._server is None:
            raise RuntimeError("This sandbox isn't serving; start it first.")
        host = f"[{self._server.host}]" if ":" in self._server.host else self._server.host
        return f"http://{host}:{self._server.port}"

    def __enter__(self) -> Sandbox:
        return self if self._server is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._answer(Request(environ))(environ, start_response)

    def _answer(self, request: Request) -> Response:
        if request.path == "/sandbox" or request.path.startswith("/sandbox/"):
            return control.answer(self, request)
        secret, name = self._asker(request)
        self._record(request, secret, name)
        user_id = None if name is None else self.account(name).id
        try:
            return self._provide(request, secret, name)
        except ProviderError as error:
            return error_reply(error, user_id if error.status != 401 else None)

    def _asker(self, request: Request) -> tuple[str | None, str | None]:
        """The key in the request and its name; an unknown key has no name."""
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            return None, None
        return secret.strip(), self.state.name_of(secret.strip())

    def _record(self, request: Request, secret: str | None, name: str | None) -> None:
        self.state.record(
            LoggedRequest(
                method=request.method,
                path=redact(request.path),
                query={redact(field): redact(value) for field, value in request.args.items()},
                key=name if secret is None or name is not None else "unknown",
                headers=tuple(field.lower() for field, _ in request.headers),
                body=redact(request.get_data(cache=True, as_text=True)),
            )
        )

    def _provide(self, request: Request, secret: str | None, name: str | None) -> Response:
        """A provider's reply: the path and the method first, then the key, then how this key is answered."""
        root = ELSEWHERE if request.path.startswith(f"{ELSEWHERE}/") else API
        path = request.path.removeprefix(root) if request.path.startswith(f"{root}/") else ""
        method, endpoint = ENDPOINTS.get(path, ("GET", None))
        if request.method != method:
            raise ProviderError(405, "Method Not Allowed", {"Allow": method})
        if path == "/models":
            return reply(models(self.today))
        if endpoint is None:
            raise ProviderError(404, "Not Found")
        if secret is None:
            raise ProviderError(401, "Missing Authentication header")
        if name is None:
            raise ProviderError(401, "User not found.")
        call = Call(request, self.state, path, name, secret, self.account(name))
        manner = self.state.manner(name, path) if root == API else None
        answer: Payload | Response = MANNERS[manner](call, endpoint) if manner else endpoint(call)
        return answer if isinstance(answer, Response) else reply(answer)


class _QuietHandler(WSGIRequestHandler):
    """Says nothing about requests: the log is the sandbox's own."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket of our own: werkzeug ends the whole process when a port is taken, this raises."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError):
        listener.close()
        raise
    return listener
