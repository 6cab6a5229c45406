"""Which names Grafient answers to, and what it says to others."""

from __future__ import annotations

import pytest

from tests.conftest import PASSWORD
from tests.pages import Pages
from tests.syncing import on_sqlite

pytestmark = on_sqlite

ELSEWHERE = ("evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "192.168.1.5:5000", "localhost@evil.example")


@pytest.mark.parametrize("host", ELSEWHERE)
def test_it_answers_to_no_name_but_its_own(pages: Pages, host: str) -> None:
    """Without this a page of that name, made to lead here, would be read and written by whoever wrote it."""
    for path in ("/", "/login", "/account", "/readyz", "/static/app.css"):
        assert pages.client.get(path, headers={"Host": host}).status_code in (400, 421)
    answer = pages.client.post("/logout", headers={"Host": host}, data={"csrf_token": pages.token("/account")})
    assert answer.status_code in (400, 421)
    assert pages.client.get("/account").status_code == 200
    assert pages.client.get("/healthz", headers={"Host": "10.0.0.7"}).status_code == 200


def test_a_name_that_is_not_its_own_says_what_to_set(pages: Pages) -> None:
    page = pages.client.get("/", headers={"Host": "costs.example.com:8080"})
    assert page.status_code == 421
    assert "GRAFIENT_HOSTS=costs.example.com" in page.text


@pytest.mark.parametrize(
    ("name", "value", "host"),
    [
        ("GRAFIENT_HOSTS", "costs.example.com, .example.org", "costs.example.com:8443"),
        ("GRAFIENT_HOSTS", "costs.example.com, .example.org", "a.b.example.org"),
        ("GRAFIENT_HOSTS", "[2001:db8::1]", "[2001:db8::1]:5000"),
        ("HEROKU_APP_DEFAULT_DOMAIN_NAME", "costs-123.herokuapp.com", "costs-123.herokuapp.com"),
        ("HOST", "192.168.1.5", "192.168.1.5:5000"),
        ("HOST", "0.0.0.0", "localhost:5000"),
        ("HOST", "0.0.0.0", "[::1]:5000"),
    ],
)
def test_it_answers_to_the_names_that_it_is_told(
    settings: dict[str, str], request: pytest.FixtureRequest, name: str, value: str, host: str
) -> None:
    settings[name] = value
    app = request.getfixturevalue("app")
    assert app.test_client().get("/login", headers={"Host": host}).status_code == 302


def test_a_proxy_that_changes_the_host_is_named_as_the_cause(
    settings: dict[str, str], request: pytest.FixtureRequest
) -> None:
    settings["GRAFIENT_TRUSTED_PROXIES"] = "1"
    pages = Pages(request.getfixturevalue("app"))
    pages.register("someone@example.com", PASSWORD)
    headers = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "192.0.2.1",
        "Referer": "https://costs.example.com/login",
    }
    form = pages.client.get("/login", headers=headers)
    token = form.text.partition('name="csrf_token"')[2].partition('value="')[2].partition('"')[0]
    fields = {"csrf_token": token, "email": "someone@example.com", "password": PASSWORD}
    refused = pages.client.post("/login", headers=headers, data=fields, base_url="https://localhost")
    assert refused.status_code == 400
    assert "opened at costs.example.com, but Grafient was asked for localhost" in refused.text
    del headers["Referer"]
    assert "which page this form was on" in pages.client.post("/login", headers=headers, data=fields).text
