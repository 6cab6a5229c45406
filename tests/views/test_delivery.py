"""How answers travel: compressed where that does no harm, and kept by browsers as long as they are still right."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator

import pytest
from flask import Flask, Response
from werkzeug.test import TestResponse

from grafient.sandbox import Sandbox
from grafient.views.delivery import compress
from tests.pages import Pages
from tests.statements import asked
from tests.syncing import at, on_sqlite
from tests.views.test_integrations import connected

pytestmark = on_sqlite

GZIP = {"Accept-Encoding": "gzip, deflate, br"}
FOREVER = "public, max-age=31536000, immutable"


@pytest.fixture(autouse=True)
def _noon() -> Iterator[None]:
    with at():
        yield


@pytest.fixture
def lively(app: Flask, pages: Pages, sandbox: Sandbox) -> Pages:
    connected(app, pages, sandbox)
    pages.get("/account")  # says that the integration was added
    return pages


def packed(answer: TestResponse) -> bytes:
    """What a compressed answer says."""
    assert answer.headers["Content-Encoding"] == "gzip"
    assert int(answer.headers["Content-Length"]) == len(answer.data)
    assert "Accept-Encoding" in answer.vary
    return gzip.decompress(answer.data)


@pytest.mark.parametrize("path", ["/", "/?days=365", "/breakdown", "/integrations/1/days/2026-11-18"])
def test_a_page_is_compressed(lively: Pages, path: str) -> None:
    plain = lively.get(path)
    assert "Content-Encoding" not in plain.headers
    assert "Accept-Encoding" in plain.vary
    for _ in range(2):
        answer = lively.client.get(path, headers=GZIP)
        assert packed(answer) == plain.data
        assert len(answer.data) < len(plain.data) / 3
        assert answer.headers["ETag"] == plain.headers["ETag"], "weak: it is of the page, whatever its compression"


@pytest.mark.parametrize("path", ["/integrations", "/integrations/1", "/integrations/new", "/account"])
def test_a_page_with_a_form_is_compressed_too(lively: Pages, path: str) -> None:
    answer = lively.client.get(path, headers=GZIP)
    assert b'name="csrf_token"' in packed(answer)


def test_a_kept_page_is_not_compressed_again(app: Flask, lively: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    first = lively.client.get("/", headers=GZIP)
    monkeypatch.setattr("grafient.views.delivery.gzip", None)
    with asked(app) as statements:
        again = lively.client.get("/", headers=GZIP)
    assert len(statements) == 1
    assert packed(again) == packed(first)
    assert again.headers["ETag"] == first.headers["ETag"]


def test_what_is_kept_compressed_is_not_sent_to_who_can_not_read_it(lively: Pages) -> None:
    packed(lively.client.get("/", headers=GZIP))
    for wanted in ("", "identity", "br", "gzip;q=0", "gzip;q=0, *"):
        answer = lively.client.get("/", headers={"Accept-Encoding": wanted})
        assert "Content-Encoding" not in answer.headers
        assert b"<!doctype html>" in answer.data


def test_a_page_that_may_repeat_a_guess_at_its_token_is_not_compressed(lively: Pages) -> None:
    """Its length would tell the token, bit by bit, to somebody who watches the connection (BREACH)."""
    data = {
        "csrf_token": lively.token("/integrations/new"),
        "provider": "openrouter",
        "label": "a guess",
        "api_key": "",
    }
    for answer in (
        lively.client.get("/integrations?a-guess", headers=GZIP),
        lively.client.get("/integrations/1?a-guess", headers=GZIP),
        lively.client.post("/integrations", data=data, headers=GZIP),
    ):
        assert 'name="csrf_token"' in answer.text
        assert len(answer.data) > 500
        assert "Content-Encoding" not in answer.headers


def test_a_file_is_compressed_as_it_comes(lively: Pages) -> None:
    plain = lively.get("/ledger.csv")
    answer = lively.client.get("/ledger.csv", headers=GZIP, buffered=False)
    assert answer.headers["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in answer.vary
    assert "Content-Length" not in answer.headers
    assert answer.is_streamed
    unpacked = zlib.decompressobj(wbits=31)
    assert b"".join(unpacked.decompress(part) for part in answer.iter_encoded()) == plain.data
    assert unpacked.eof


def test_a_long_file_is_under_way_before_it_is_read_and_is_closed_when_nobody_wants_it(app: Flask) -> None:
    read, closed = [], []

    def portions() -> Iterator[str]:
        try:
            for number in range(1000):
                read.append(number)
                yield "".join(f"{number * 7919 % row}," for row in range(1, 9000))
        finally:
            closed.append(True)

    with app.test_request_context(headers=GZIP):
        response = Response(portions(), mimetype="text/csv")
        compress(response)
        parts = iter(response.response)
        next(parts)
        next(parts)
        assert len(read) < 5
        response.close()
    assert closed == [True]


@pytest.mark.parametrize("path", ["/", "/ledger.csv", "/static/app.css", "/static/app.js", "/static/mark.svg"])
def test_every_text_says_how_its_letters_are_written(lively: Pages, path: str) -> None:
    assert lively.client.get(path).headers["Content-Type"].endswith("; charset=utf-8")


def test_a_few_bytes_are_sent_as_they_are(pages: Pages) -> None:
    assert "Content-Encoding" not in pages.client.get("/healthz", headers=GZIP).headers


@pytest.mark.parametrize("path", ["/integrations/1/days/2026-11-18", "/", "/breakdown"])
def test_a_browser_keeps_pages_and_asks_each_time_whether_they_are_still_the_same(lively: Pages, path: str) -> None:
    page = lively.get(path)
    assert page.headers["Cache-Control"] == "private, no-cache"
    assert page.headers["ETag"].startswith("W/")
    assert "Cookie" in page.vary
    for headers in ({}, GZIP):
        again = lively.client.get(path, headers={"If-None-Match": page.headers["ETag"], **headers})
        assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", page.headers["ETag"])
        assert "Content-Encoding" not in again.headers
        assert {"Cookie", "Accept-Encoding"} <= set(again.vary)


@pytest.mark.parametrize(
    "path", ["/integrations/1", "/integrations/new", "/account", "/account/password", "/operations"]
)
def test_pages_with_forms_are_kept_for_back_too(lively: Pages, path: str) -> None:
    assert lively.get(path).headers["Cache-Control"] == "private, no-cache"


def test_another_page_is_sent_as_a_whole(lively: Pages) -> None:
    """A page that only says once what was done must not say it again, nor be taken for the one without it."""
    quiet = lively.get("/statement").headers["ETag"]
    lively.post("/integrations/1/delete", 303, "/integrations/1", history="keep")
    told = lively.client.get("/statement", headers={"If-None-Match": quiet})
    assert (told.status_code, "Its costs were kept" in told.text) == (200, True)
    again = lively.client.get("/statement", headers={"If-None-Match": told.headers["ETag"]})
    assert (again.status_code, "Its costs were kept" in again.text) == (200, False)


def test_nothing_else_is_kept(app: Flask, lively: Pages) -> None:
    stranger = app.test_client()
    answers = [
        stranger.get("/account"),
        stranger.get("/login"),
        lively.get("/nowhere", 404),
        lively.post("/integrations/test", 422, "/integrations/new", provider="openrouter", api_key="x"),
        lively.get("/healthz"),
        lively.get("/ledger.csv"),
    ]
    for answer in answers:
        assert answer.headers["Cache-Control"] == "no-store", answer.request.path
        assert "ETag" not in answer.headers


def test_a_view_may_say_itself_that_nothing_is_kept(app: Flask, pages: Pages) -> None:
    """For what is shown only once, such as a secret."""
    once = Response("once", mimetype="text/html", headers={"Cache-Control": "no-store"})
    app.view_functions["accounts.index"] = lambda: once
    answer = pages.client.get("/account")
    assert answer.headers["Cache-Control"] == "no-store"
    assert "ETag" not in answer.headers


def test_all_that_a_page_loads_is_kept_for_ever_and_compressed(lively: Pages) -> None:
    loaded = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', lively.get("/").text))
    assert len(loaded) >= 5
    for address in loaded:
        plain, answer = lively.client.get(address), lively.client.get(address, headers=GZIP)
        assert plain.headers["Cache-Control"] == answer.headers["Cache-Control"] == FOREVER, address
        assert plain.headers["ETag"] == answer.headers["ETag"]
        assert "Cookie" not in answer.vary
        if plain.mimetype != "image/png":
            assert packed(answer) == plain.data
        again = lively.client.get(address, headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")
