"""A mail server for the tests, which keeps what it is sent."""

from __future__ import annotations

import re
import socket
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any
from urllib.parse import quote

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope


class PostOffice:
    """Real SMTP on this machine. ``refuses``: what it says instead of taking a letter; ``refuses_password``: the same
    instead of taking a password."""

    def __init__(self, user: str = "", password: str = "") -> None:
        self.user, self.password = user, password
        self.letters: list[EmailMessage] = []
        self.refuses = self.refuses_password = ""
        wanted = {"auth_require_tls": False, "auth_required": True} if user else {}

        def check(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
            right = not self.refuses_password and (data.login, data.password) == (user.encode(), password.encode())
            return AuthResult(success=right, handled=False, message=None if right else self.refuses_password or None)

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._controller = Controller(self, "127.0.0.1", self.port, authenticator=check, **wanted)
        self._controller.start()
        credentials = f"{user}:{quote(password, safe='')}@" if user else ""
        self.url = f"smtp://{credentials}127.0.0.1:{self.port}"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        if self.refuses:
            return self.refuses
        content = envelope.content
        assert isinstance(content, bytes)
        self.letters.append(message_from_bytes(content, policy=default))  # type: ignore[arg-type]
        return "250 OK"

    def close(self) -> None:
        if self._controller.loop.is_running():
            self._controller.stop()

    def last(self) -> EmailMessage:
        return self.letters[-1]

    def link(self) -> str:
        """The path that the last letter's link leads to."""
        found = re.search(r"https?://[^/\s]+(/\S+)", text_of(self.last()).split("\n", 2)[-1])
        assert found, text_of(self.last())
        return found[1]


def text_of(letter: EmailMessage) -> str:
    return str(letter.get_content())
