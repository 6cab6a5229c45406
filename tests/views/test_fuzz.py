"""No request whatsoever is an error of ours: each route with paths, queries, forms, JSON and headers made at random.

``FUZZ`` says how many requests, 250 unless told; ``make fuzz`` sends more.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st

from grafient.extensions import limiter
from grafient.sandbox import Sandbox
from tests.conftest import EMAIL, PASSWORD
from tests.pages import Pages
from tests.views.test_access import ROUTES
from tests.views.test_integrations import connected

REQUESTS = int(os.environ.get("FUZZ", "250"))
MARK = "<mark7>\"'"
"""Told from everything else on a page: unescaped it would be an element, or end an attribute."""

NAMES = (
    "days from to period month against model host key integration q group by columns measure view byok sort dir page "
    "find action actor next email password password_confirm new_password new_password_confirm remember role note name "
    "label provider api_key twice history session setup csrf_token model_name host_name integration_name token v"
)
WORDS = (
    *(
        "",
        "0",
        "1",
        "-1",
        "99999999999999999999",
        "²",
        "１",
        "None",
        "null",
        "true",
        "%",
        "_",
        "\\",
        "'",
        '"',
        "[]",
        "{}",
    ),
    *("2026-11-01", "2026-13-40", "9999-12-31", "0001-01-01", "2026-11", "month", "last-month", "yesterday", "all"),
    *("day", "week", "host", "key", "usd", "tokens", "owner", "viewer", "openrouter", "sample", "keep", "delete"),
    *("<script>alert(1)</script>", "../../etc/passwd", "..", "//evil.example", "http://[::1", "javascript:x"),
    *("\r\nSet-Cookie: a=b", "\x00", "\udc80", "é", "🦙", "a" * 300, "x" * 5000, "unattributed", EMAIL, PASSWORD),
    *("1 OR 1=1", "'; DROP TABLE user; --", "{{7*7}}", "${7*7}", "=1+1", MARK),
)
HEADERS = (
    *("X-CSRFToken", "Referer", "Origin", "Accept", "Accept-Encoding", "Accept-Language", "If-None-Match", "Range"),
    *("If-Modified-Since", "HX-Request", "X-Forwarded-For", "X-Forwarded-Proto", "Authorization", "User-Agent"),
    *("Authentication-Token", "Content-Encoding", "Forwarded", "X-HTTP-Method-Override"),
)
COOKIES = ("", "", "", "remember_token=é", "session=x.y.z", 'session="\x7f', "a=b; a=c", "=;;")
KINDS = ("form", "form", "form", "multipart", "file", "json", "raw")

words = st.one_of(st.sampled_from(WORDS), st.text(max_size=40), st.just(MARK), st.integers().map(str))
names = st.one_of(st.sampled_from(NAMES.split()), st.text(min_size=1, max_size=10))
fields = st.lists(st.tuples(names, words), max_size=6)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=8,
)


@dataclass(frozen=True)
class Sent:
    """A request. ``arguments`` stand in the route's places, in turn."""

    name: str
    arguments: list[str]
    query: list[tuple[str, str]]
    kind: str
    fields: list[tuple[str, str]]
    body: Any
    headers: dict[str, str]
    with_token: bool
    cookie: str

    @property
    def path(self) -> str:
        """The route with its places filled in; an id is the one that there is, now and then."""
        arguments = iter(self.arguments)

        def fill(place: re.Match[str]) -> str:
            word = next(arguments)
            return quote("1" if place[0].endswith("_id>") and len(word) < 4 else word, safe="/", errors="replace")

        return re.sub(r"<[^>]+>", fill, self.name.partition(" ")[2])

    def content(self, token: str) -> dict[str, Any]:
        """Its body, and what kind it says that is."""
        pairs = [*self.fields, ("csrf_token", token)] if self.with_token else self.fields
        if self.kind in ("json", "raw"):
            text = json.dumps(self.body) if self.kind == "json" else repr(self.body)
            kind = "application/json" if self.kind == "json" else "text/plain"
            return {"data": text.encode("utf-8", "replace"), "content_type": kind}
        if self.kind == "form":
            return {"data": encoded(pairs), "content_type": "application/x-www-form-urlencoded"}
        file = '; filename="x"' if self.kind == "file" else ""
        parts = (
            f'--7\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n{value}\r\n' for name, value in pairs
        )
        body = "".join(parts) + "--7--\r\n"
        return {"data": body.encode("utf-8", "replace"), "content_type": "multipart/form-data; boundary=7"}


requests = st.builds(
    Sent,
    st.sampled_from(sorted(ROUTES)),
    st.lists(words, min_size=3, max_size=3),
    fields,
    st.sampled_from(KINDS),
    fields,
    jsons,
    st.dictionaries(st.sampled_from(HEADERS), words, max_size=3),
    st.booleans(),
    st.sampled_from(COOKIES),
)


def encoded(pairs: list[tuple[str, str]]) -> str:
    return urlencode([(name.encode("utf-8", "replace"), value.encode("utf-8", "replace")) for name, value in pairs])


def sendable(headers: dict[str, str]) -> dict[str, str]:
    """What a server lets through as headers: bytes on one line."""
    lines = {name: value.encode("utf-8", "replace").decode("latin-1") for name, value in headers.items()}
    return {name: "".join(one for one in line if one not in "\r\n\x00") for name, line in lines.items()}


@pytest.fixture
def browser(app: Flask, pages: Pages, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Pages:
    connected(app, pages, sandbox)
    app.testing = False
    app.config["PROPAGATE_EXCEPTIONS"] = False
    monkeypatch.setattr(limiter, "enabled", False)  # it would refuse most of them
    return pages


def test_no_request_is_an_error_of_ours(browser: Pages, app: Flask) -> None:
    token, session = browser.token("/account"), browser.client.get_cookie("session")
    assert session is not None
    client = app.test_client(use_cookies=False)

    @settings(max_examples=REQUESTS)
    @given(requests)
    def ask(sent: Sent) -> None:
        method = sent.name.partition(" ")[0]
        headers = sendable(sent.headers) | {"Cookie": f"session={session.value}; {sent.cookie}".strip("; ")}
        content = sent.content(token) if method == "POST" else {}
        answer = client.open(sent.path, method=method, query_string=encoded(sent.query), headers=headers, **content)
        body = answer.get_data()
        answer.close()
        assert answer.status_code < 500 or sent.name == "GET /readyz", answer.status_code
        assert b"Traceback (most recent" not in body
        if answer.mimetype == "text/html":
            assert b"<mark7>" not in body, "it stands on the page as an element"
            assert b'mark7&gt;"' not in body, "it ends an attribute"

    ask()
