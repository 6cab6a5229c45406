"""No request is an error of ours: what no form sends is refused with a page that says so."""

from __future__ import annotations

import io
from typing import Any

import pytest
from flask import Flask

from tests.conftest import PASSWORD
from tests.pages import Pages
from tests.syncing import on_sqlite

pytestmark = on_sqlite

WORDS: list[Any] = [1, "a", [1], {"email": 1}, {"email": ["x"], "password": {}}, True]
FORMS = ("/login", "/verify", "/account/password", "/integrations", "/integrations/test", "/logout")


@pytest.fixture(autouse=True)
def _as_in_production(app: Flask) -> None:
    """Errors are answered, not raised."""
    app.testing = False
    app.config["PROPAGATE_EXCEPTIONS"] = False


@pytest.mark.parametrize("path", FORMS)
def test_a_body_that_is_no_form_is_refused(pages: Pages, path: str) -> None:
    headers = {"X-CSRFToken": pages.token("/account/password")}
    answers = [pages.client.post(path, json=body, headers=headers) for body in WORDS]
    assert {answer.status_code for answer in answers} == {415}
    assert "Grafient takes forms, and this was something else." in answers[0].text
    assert pages.client.post(path, data="{bad", content_type="application/json", headers=headers).status_code == 415


def test_a_file_in_the_place_of_a_key_is_refused(pages: Pages) -> None:
    token = pages.token("/integrations/new")
    for path in ("/integrations", "/integrations/test"):
        fields = {"csrf_token": token, "provider": "openrouter", "api_key": (io.BytesIO(b"abc"), "key.txt")}
        assert pages.client.post(path, data=fields, content_type="multipart/form-data").status_code == 400


@pytest.mark.parametrize("length", [4_097, 60_000])
def test_a_password_longer_than_any_is_refused(app: Flask, pages: Pages, length: int) -> None:
    stranger, long = Pages(app), "x" * length
    fields = {"email": "someone@example.com", "password": long, "csrf_token": stranger.token("/login")}
    assert stranger.client.post("/login", data=fields).status_code == 413
    fields = {"password": PASSWORD, "new_password": long, "new_password_confirm": long}
    fields["csrf_token"] = pages.token("/account/password")
    assert pages.client.post("/account/password", data=fields).status_code == 413


@pytest.mark.parametrize("length", [129, 4_096])
def test_a_long_password_is_only_wrong(app: Flask, pages: Pages, length: int) -> None:
    Pages(app).post("/login", 200, email="someone@example.com", password="x" * length)


@pytest.mark.parametrize("place", ["/login?next=http://[::1", "/login?next=//[", "/logout?next=http://[::1"])
def test_a_next_address_that_is_none_is_refused(app: Flask, pages: Pages, place: str) -> None:
    stranger = Pages(app)
    fields = {"csrf_token": stranger.token("/login"), "email": "someone@example.com", "password": PASSWORD}
    assert stranger.client.post(place, data=fields).status_code == 400
    assert stranger.client.post("/login", data=fields | {"next": "http://[::1"}).status_code == 400


@pytest.mark.parametrize("value", ["1|\xe9", "\xe9|abc", "\xff" * 200, "1|" + "\xfc" * 128])
@pytest.mark.parametrize("name", ["remember_token", "session", "any"])
def test_a_cookie_of_other_letters_is_no_cookie(app: Flask, pages: Pages, name: str, value: str) -> None:
    client = app.test_client(use_cookies=False)  # sends the header as it is
    assert client.get("/", headers={"Cookie": f"{name}={value}"}).status_code == 302
    assert client.get("/login", headers={"Cookie": f"{name}={value}"}).status_code == 200
    mine = "; ".join(f"{one.key}={one.value}" for one in pages.client._cookies.values())
    signed_in = client.get("/", headers={"Cookie": f"{mine}; any={value}"})
    assert signed_in.status_code == 200, "another cookie locks nobody out"


@pytest.mark.parametrize("path", ["/", "/verify", "/account/password", "/account"])
def test_there_is_no_way_in_but_a_session(app: Flask, pages: Pages, path: str) -> None:
    ways = [{"Authentication-Token": "abc"}, {"Authorization": "Basic !!!"}, {"Authorization": "Bearer x"}]
    for headers in ways:
        assert Pages(app).client.get(path, headers=headers).status_code == 302
        assert pages.client.get(path, headers=headers).status_code == 200


def test_a_field_with_a_zero_byte_is_refused(pages: Pages) -> None:
    """PostgreSQL can't store one, and no browser shows it."""
    fields = {"csrf_token": pages.token("/integrations/new"), "label": "a\x00b", "api_key": "sk-or-v1-x"}
    assert pages.client.post("/integrations", data=fields).status_code == 400


def test_a_part_without_a_name_is_refused(pages: Pages) -> None:
    body = b"--7\r\nContent-Disposition: form-data\r\n\r\nx\r\n--7--\r\n"
    answer = pages.client.post("/login", data=body, content_type="multipart/form-data; boundary=7")
    assert answer.status_code == 400


def test_what_is_refused_is_a_line_of_the_log_without_what_was_sent(
    pages: Pages, caplog: pytest.LogCaptureFixture
) -> None:
    pages.client.post("/login", json={"password": PASSWORD})
    pages.client.post("/reset/a-token", data={"password": PASSWORD})
    pages.client.get("/", headers={"Host": "evil.example"})
    said = [record.getMessage() for record in caplog.records if record.name == "grafient.views"]
    assert said == [
        "web: refused (415) POST security.login from 127.0.0.1",
        "web: refused (400) POST security.reset_password from 127.0.0.1",
        "web: refused (421) GET costs.dashboard from 127.0.0.1",
    ]
    assert PASSWORD not in caplog.text
    assert "a-token" not in caplog.text


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PUT", "DELETE", "PATCH"])
def test_no_other_method_is_answered(pages: Pages, method: str) -> None:
    answer = pages.client.open("/login", method=method, headers={"X-Secret": "echo"})
    assert answer.status_code == 405
    assert "echo" not in answer.text
