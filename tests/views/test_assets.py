"""Static files: an address for each version of them, and nothing else from their folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from flask import Flask

from grafient.views import assets, kept
from tests.pages import Pages
from tests.syncing import on_sqlite

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES, STATIC = ROOT / "templates", ROOT / "static"


@pytest.fixture
def small(tmp_path: Path) -> Flask:
    """An app of three static files, of which pages may load two."""
    app = Flask("small", static_folder=str(tmp_path), static_url_path="/static")
    app.extensions["version"] = "1"
    (tmp_path / "app.css").write_text("body { color: red }")
    (tmp_path / "mark.svg").write_text("<svg/>")
    (tmp_path / "update").write_text("#!/bin/sh")
    return app


def started(app: Flask) -> tuple[str, str, str]:
    """The addresses of its files, and what pages are made with."""
    again = Flask(app.name, static_folder=app.static_folder, static_url_path="/static")
    again.extensions["version"] = "1"
    assets.register(again)
    kept.register(again)
    with again.test_request_context():
        return assets.asset("app.css"), assets.asset("mark.svg"), again.extensions["made_with"]


def test_the_address_of_a_file_changes_whenever_the_file_does(small: Flask, tmp_path: Path) -> None:
    before = started(small)
    assert started(small) == before
    (tmp_path / "app.css").write_text("body { color: tan }")
    after = started(small)
    assert after[0] != before[0]
    assert after[1] == before[1]
    assert after[2] != before[2], "pages that were kept name the old address"


def test_another_version_of_a_file_is_not_kept(small: Flask) -> None:
    """While an update is under way, a process may be asked for what only the other ones have."""
    assets.register(small)
    for address in ("/static/app.css?v=0123456789abcdef", "/static/app.css", "/static/app.css?v="):
        answer = small.test_client().get(address)
        assert answer.text == "body { color: red }"
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["ETag"]


@pytest.mark.parametrize("path", ["/static/update", "/static/", "/static/../app.css", "/static/nowhere.js"])
def test_nothing_else_is_a_static_file(small: Flask, path: str) -> None:
    assets.register(small)
    assert small.test_client().get(path).status_code == 404


def test_templates_have_one_way_to_name_a_static_file() -> None:
    for template in TEMPLATES.rglob("*.html"):
        assert "url_for('static'" not in template.read_text(), f"{template.name}: use asset('...')"


def size(png: bytes) -> str:
    """The width and height in a PNG's head."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return f"{int.from_bytes(png[16:20])}x{int.from_bytes(png[20:24])}"


@on_sqlite
def test_a_phone_finds_its_icons(pages: Pages) -> None:
    page = pages.get("/account").text
    manifest = json.loads(pages.client.get(re.findall(r'rel="manifest" href="([^"]+)', page)[0]).text)
    icons = {icon["sizes"]: f"/static/icons/{icon['src']}" for icon in manifest["icons"]}
    icons["180x180"] = re.findall(r'rel="apple-touch-icon" href="([^"]+)', page)[0]
    assert icons.keys() == {"180x180", "192x192", "512x512"}
    for wanted, address in icons.items():
        answer = pages.client.get(address)
        assert (answer.mimetype, size(answer.data)) == ("image/png", wanted)
        assert len(answer.data) < 5000
    assert all("maskable" in icon["purpose"] for icon in manifest["icons"])


@on_sqlite
def test_a_browser_that_asks_for_no_name_finds_an_icon_too(app: Flask) -> None:
    answer = app.test_client().get("/favicon.ico")
    assert (answer.status_code, answer.mimetype, size(answer.data[22:])) == (200, "image/x-icon", "32x32")


@on_sqlite
def test_a_phone_s_frame_has_the_colour_of_the_page_s(pages: Pages) -> None:
    (colours,) = re.findall(r"--frame: light-dark\(([^)]+)\);", (STATIC / "app.css").read_text())
    assert re.findall(r'name="theme-color" content="([^"]+)', pages.get("/account").text) == colours.split(", ")
