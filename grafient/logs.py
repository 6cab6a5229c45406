"""What processes print: one line for each event, with its time, its process and the sync it is about; and no secret.

Every process has one handler, on the root logger, and one redaction in it, through which the tracebacks of crashes go,
too. It was made necessary by a failed INSERT of a user: SQLAlchemy's message had the parameters, and PostgreSQL's the
whole row, so that an e-mail address, the hash of a password and the name of a session were in the log.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import multiprocessing
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import Any
from urllib.parse import quote, quote_plus

FORMATS = ("text", "json")
_ABOUT: ContextVar[Mapping[str, int]] = ContextVar("about", default=MappingProxyType({}))
_secrets: set[str] = set()

_EMAIL = (re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+"), "…@…")
_PATTERNS = (
    (re.compile(r"(\bDETAIL: ).*"), r"\1…"),  # PostgreSQL: "Failing row contains (...)", "Key (email)=(...) exists"
    (re.compile(r"(\[parameters: ).*?(\]$|\](?=\n)|\Z)", re.DOTALL | re.MULTILINE), r"\1…]"),
    (re.compile(r"\bsk-[A-Za-z0-9_-]{8,}"), "sk-…"),
    (re.compile(r"\$argon2\S*"), "$argon2…"),
    (re.compile(r"(\w://)[^/\s@]*@"), r"\1…@"),
    _EMAIL,
    (re.compile(r"\b(?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{32,}\b"), "…"),  # hashes, names of sessions and runs
    (
        re.compile(r"(?<![\w-])(?=[\w-]*[0-9])(?=[\w-]*[a-z])(?=[\w-]*[A-Z])[\w-]{32,}={0,2}(?![\w-])"),
        "…",
    ),  # tokens and keys in base64
)


def redact(text: str) -> str:
    """The text without secrets: those of the settings, and whatever looks like a key, a token, a hash or an address."""
    return _without(text, _PATTERNS)


def without_keys(text: str) -> str:
    """The same, but with e-mail addresses, for where they are what it is about."""
    return _without(text, [one for one in _PATTERNS if one is not _EMAIL])


def spellings(secret: str) -> set[str]:
    """What somebody else may write instead of a secret: in base64, with anything before and after it, in hex, and with
    the escapes of addresses and of Python."""
    plain = secret.encode()
    found = {secret, quote(secret, safe=""), quote_plus(secret)}
    found |= {repr(secret)[1:-1], repr(f'"{secret}')[2:-1], repr(plain)[2:-1], repr(b'"' + plain)[3:-1]}
    found |= {plain.hex(), plain.hex().upper()}
    found |= {"".join(f"%{byte:{form}}" for byte in plain) for form in ("02x", "02X")}
    for before in range(3):
        encoded, cut = base64.b64encode(bytes(before) + plain).decode(), (before + len(plain)) % 3
        whole = encoded[(0, 2, 3)[before] : len(encoded) - (0, 3, 2)[cut]]  # the letters that are of nothing else
        found |= {whole, whole.replace("+", "-").replace("/", "_")}
    return found


def one_line(text: str) -> str:
    """The text with what breaks a line, or moves a terminal's cursor, as ``\\n`` and the like."""
    return "".join(map(_printable, text))


def _without(text: str, patterns: Iterable[tuple[re.Pattern[str], str]]) -> str:
    for secret in _secrets:
        text = text.replace(secret, "…")
    for pattern, instead in patterns:
        text = pattern.sub(instead, text)
    return text


@contextlib.contextmanager
def about(**ids: int) -> Iterator[None]:
    """What is printed inside is about this run or integration."""
    token = _ABOUT.set({**_ABOUT.get(), **ids})
    try:
        yield
    finally:
        _ABOUT.reset(token)


def set_up(form: str, secrets: Iterable[str]) -> None:
    """Have this process, and those that it forks, print in this form and without these secrets. Any number of times."""
    _secrets.update(*(spellings(secret) for secret in secrets if len(secret) >= 8))
    root = logging.getLogger()
    handler = next((found for found in root.handlers if isinstance(found, _Handler)), None)
    if handler is None:
        handler = _Handler()
        root.addHandler(handler)
    handler.setFormatter(_Json() if form == "json" else _Text())
    logging.getLogger("grafient").setLevel(logging.INFO)
    logging.captureWarnings(True)
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _crashed
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = lambda args: _crashed(
            args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback
        )


def name_process(name: str) -> None:
    """What this process is called in its lines."""
    multiprocessing.current_process().name = name


def _crashed(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("grafient").critical("ended by a fault of its own", exc_info=(kind, error, traceback))


class _Handler(logging.StreamHandler[Any]):
    """Prints to what standard error is at that moment."""

    def __init__(self) -> None:
        super().__init__()

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, _stream: Any) -> None:
        pass


class _Formatter(logging.Formatter):
    """The parts of a line; a message that has line breaks has them as ``\\n``, so that nobody can write a line of their
    own with the name of a model."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def parts(self, record: logging.LogRecord) -> dict[str, Any]:
        found: dict[str, Any] = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "process": f"{record.processName}[{record.process}]",
            "logger": record.name,
            "message": one_line(redact(record.getMessage())),
        }
        found |= _ABOUT.get()
        if record.exc_info:
            found["traceback"] = redact(self.formatException(record.exc_info))
        return found


def _printable(letter: str) -> str:
    return letter if letter.isprintable() else letter.encode("unicode_escape").decode()


class _Text(_Formatter):
    """A line, and below it, further in, a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        found = self.parts(record)
        line = "{time} {process} {level} {message}".format(**found)
        line += "".join(f" {name}={found[name]}" for name in _ABOUT.get())
        return line + "".join(f"\n    {below}" for below in found.get("traceback", "").splitlines())


class _Json(_Formatter):
    """One JSON object in one line, its traceback included."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self.parts(record), ensure_ascii=False)
