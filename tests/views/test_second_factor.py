"""Codes from an authenticator app, and recovery codes: they are asked for, none works twice, and none is readable."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextvars import Context
from datetime import timedelta

import pytest
import time_machine
from flask import Flask
from passlib.totp import TOTP

from grafient import create_app
from grafient.extensions import db
from grafient.models import User, utc_now
from grafient.vault import Vault, generate
from tests.conftest import EMAIL, ENCRYPTION_KEYS, PASSWORD
from tests.pages import Pages
from tests.views.test_audit import noted


class Phone:
    """An authenticator app."""

    def __init__(self, key: str) -> None:
        self._totp = TOTP(key=key, format="base32")

    def code(self) -> str:
        """What it shows now."""
        return str(self._totp.generate(utc_now()).token)


@pytest.fixture
def clock() -> Iterator[time_machine.Coordinates]:
    with time_machine.travel(utc_now(), tick=False) as clock:
        yield clock


def set_up(pages: Pages) -> Phone:
    """Turn codes on as a person does."""
    page = pages.post("/account/codes", 200, setup="authenticator").text
    assert "<svg" in page
    phone = Phone(re.sub(r"[\s-]", "", re.findall(r'class="qr-key"><code>([^<]+)<', page)[0]))
    form = re.findall(r'action="(/account/codes/[^"]+)"', page)[0]
    token = re.findall(r'name="csrf_token" value="([^"]+)"', page)[0]
    wrong = pages.client.post(form, data={"csrf_token": token, "code": "000000"})
    assert wrong.status_code == 302
    assert "This code is wrong" in pages.get("/account/codes").text
    done = pages.client.post(form, data={"csrf_token": token, "code": phone.code()})
    assert done.location == "/account/codes"
    assert "Codes are on" in pages.get("/account/codes").text
    return phone


def recovery_codes(pages: Pages) -> list[str]:
    page = pages.post("/account/recovery-codes", 200, page="/account/codes").text
    return re.findall(r"<li><code>([^<]+)</code></li>", page)


def forget_tries(app: Flask, endpoint: str = "") -> None:
    redis = app.extensions["redis"]
    for key in redis.scan_iter(f"LIMITS:*{endpoint}/*"):
        redis.delete(key)


def half_way(app: Flask) -> Pages:
    """Somebody who knows the password."""
    somebody = Pages(app)
    answer = somebody.post("/login", 302, email=EMAIL, password=PASSWORD)
    assert answer.location.startswith("/login/code")
    somebody.get("/account", 302)
    return somebody


def test_a_code_is_asked_for_once_it_is_on(app: Flask, pages: Pages, clock: time_machine.Coordinates) -> None:
    assert "Codes are off" in pages.get("/account/codes").text
    phone = set_up(pages)
    somebody = half_way(app)
    assert "This code is wrong" in somebody.post("/login/code", 200, code="123456").text
    assert noted(app)[-1] == (EMAIL, "sign-in failed", "code")
    clock.shift(timedelta(seconds=31))
    somebody.post("/login/code", 302, code=phone.code())
    somebody.get("/account")
    assert (EMAIL, "codes turned on", EMAIL) in noted(app)
    somebody.post("/account/codes", 302, setup="disable")
    assert "Codes are off" in somebody.get("/account/codes").text
    Pages(app).log_in(EMAIL, PASSWORD)
    assert (EMAIL, "codes turned off", EMAIL) in noted(app)


def test_no_code_works_twice(app: Flask, pages: Pages, clock: time_machine.Coordinates) -> None:
    phone = set_up(pages)
    half_way(app).post("/login/code", 200, code=phone.code())  # turning it on has used it up
    clock.shift(timedelta(seconds=31))
    code = phone.code()
    half_way(app).post("/login/code", 302, code=code)
    half_way(app).post("/login/code", 200, code=code)
    clock.shift(timedelta(seconds=31))
    half_way(app).post("/login/code", 200, code=code)
    half_way(app).post("/login/code", 302, code=phone.code())


@pytest.mark.parametrize("kind", ["app", "recovery"])
def test_of_two_who_send_the_same_code_at_once_one_gets_in(
    app: Flask, pages: Pages, clock: time_machine.Coordinates, kind: str
) -> None:
    phone = set_up(pages)
    codes = recovery_codes(pages)
    clock.shift(timedelta(seconds=31))
    path, code = ("/login/code", phone.code()) if kind == "app" else ("/login/recovery-code", codes[0])
    browsers = [half_way(app) for _ in range(4)]
    tokens = [browser.token(path) for browser in browsers]
    answers: list[int] = []

    def send(number: int) -> None:
        fields = {"csrf_token": tokens[number], "code": code}
        answers.append(browsers[number].client.post(path, data=fields).status_code)

    threads = [threading.Thread(target=Context().run, args=(send, number)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, 200, 200, 302]


def test_recovery_codes_let_in_once_each(app: Flask, pages: Pages, clock: time_machine.Coordinates) -> None:
    set_up(pages)
    assert "Make some now" in pages.get("/account/codes").text
    codes = recovery_codes(pages)
    assert len(codes) == len(set(codes)) == 10
    assert "10 codes left" in pages.get("/account/codes").text
    assert not set(codes) & set(re.findall(r"[\w-]+", pages.get("/account/recovery-codes?show_codes=1").text))
    somebody = half_way(app)
    assert "wrong, or was used" in somebody.post("/login/recovery-code", 200, code="abcd-efgh").text
    assert noted(app)[-1] == (EMAIL, "sign-in failed", "recovery code")
    somebody.post("/login/recovery-code", 302, code=f" {codes[3].upper().replace('-', ' ')} ")
    somebody.get("/account")
    half_way(app).post("/login/recovery-code", 200, code=codes[3])
    assert "9 codes left" in pages.get("/account/codes").text
    assert (EMAIL, "recovery code used", f"{EMAIL}, 9 left") in noted(app)
    for code in codes[:3] + codes[4:]:
        forget_tries(app)
        half_way(app).post("/login/recovery-code", 302, code=code)
    half_way(app).post("/login/recovery-code", 200, code="")
    assert "Make some now" in pages.get("/account/codes").text


def test_a_stolen_database_has_no_code(app: Flask, pages: Pages, clock: time_machine.Coordinates) -> None:
    page = pages.post("/account/codes", 200, setup="authenticator").text
    key = re.sub(r"[\s-]", "", re.findall(r'class="qr-key"><code>([^<]+)<', page)[0])
    cookie = pages.client.get_cookie("session")
    assert cookie is not None
    assert key not in cookie.value
    phone = set_up(pages)
    codes = recovery_codes(pages)
    with app.app_context():
        user = db.session.query(User).one()
        assert phone._totp.base32_key not in repr(vars(user))
        assert user.tf_totp_secret is not None
        assert user.tf_totp_secret.startswith("test:")
        for code in codes:
            assert code not in (user.mf_recovery_codes or "")


def test_guesses_of_codes_are_limited_for_a_person_from_everywhere(
    app: Flask, pages: Pages, clock: time_machine.Coordinates
) -> None:
    set_up(pages)
    for number in range(20):
        somebody = Pages(app)
        somebody.client.environ_base["REMOTE_ADDR"] = f"192.0.2.{number}"
        somebody.post("/login", 302, email=EMAIL, password=PASSWORD)
        somebody.post("/login/code", 200, code=f"{number:06}")
        clock.shift(timedelta(seconds=61))
    somebody = Pages(app)
    somebody.client.environ_base["REMOTE_ADDR"] = "192.0.2.200"
    forget_tries(app, "security.login")
    somebody.post("/login", 302, email=EMAIL, password=PASSWORD)
    somebody.post("/login/code", 429, code="999999")


def test_a_password_that_was_reset_does_not_turn_it_off(
    app: Flask, pages: Pages, clock: time_machine.Coordinates
) -> None:
    set_up(pages)
    made = app.test_cli_runner().invoke(args=["members", "reset-link", EMAIL])
    somebody = Pages(app)
    link = re.sub(r"^https?://[^/]+", "", made.output.strip())
    somebody.post(link, 302, password="seven blue mountains", password_confirm="seven blue mountains")
    somebody.get("/account", 302)
    assert somebody.post("/login", 302, email=EMAIL, password="seven blue mountains").location.startswith("/login/code")


def test_an_operator_turns_it_off_for_who_has_lost_all(
    app: Flask, pages: Pages, clock: time_machine.Coordinates
) -> None:
    set_up(pages)
    ran = app.test_cli_runner().invoke(args=["members", "codes-off", EMAIL])
    assert (ran.exit_code, ran.output) == (0, f"{EMAIL} needs no code to log in any more.\n")
    Pages(app).log_in(EMAIL, PASSWORD)
    assert ("command", "command", f"members codes-off {EMAIL}") in noted(app, 0)


def test_setting_it_up_asks_who_one_is(app: Flask, pages: Pages) -> None:
    with time_machine.travel(utc_now() + timedelta(minutes=31)):
        assert pages.get("/account/codes", 303).location == "/verify?next=/account/codes"
        assert pages.get("/account/recovery-codes", 303).location == "/verify?next=/account/recovery-codes"


@pytest.mark.parametrize("path", ["/login/rescue", "/login/select"])
def test_ways_around_it_that_nobody_needs_are_closed(app: Flask, pages: Pages, path: str) -> None:
    Pages(app).get(path, 404)


class TestEncryptionKeys:
    def with_ring(self, app: Flask, ring: str) -> None:
        app.extensions["vault"] = Vault.parse(ring)

    def test_a_rotation_seals_the_secrets_of_apps_too(
        self, app: Flask, pages: Pages, clock: time_machine.Coordinates
    ) -> None:
        phone, new = set_up(pages), generate()
        self.with_ring(app, f"{new},{ENCRYPTION_KEYS}")
        ran = app.test_cli_runner().invoke(args=["keys", "rotate"])
        assert "Secrets of authenticator apps: 1." in ran.output
        assert "No longer in use, but needed for older backups: test" in ran.output
        self.with_ring(app, new)
        clock.shift(timedelta(seconds=31))
        half_way(app).post("/login/code", 302, code=phone.code())

    def test_a_ring_that_lacks_their_key_does_not_start(
        self, app: Flask, settings: dict[str, str], pages: Pages, clock: time_machine.Coordinates
    ) -> None:
        set_up(pages)
        with app.app_context():
            db.session.remove()
        other = create_app(settings | {"GRAFIENT_ENCRYPTION_KEYS": generate()})
        ran = other.test_cli_runner().invoke(args=["upgrade"])
        assert ran.exit_code == 1
        assert "test" in ran.output
        with other.app_context():
            db.engine.dispose()
        other.extensions["redis"].close()

    def test_a_lost_key_is_no_way_around_it(self, app: Flask, pages: Pages, clock: time_machine.Coordinates) -> None:
        phone = set_up(pages)
        codes = recovery_codes(pages)
        self.with_ring(app, generate())
        clock.shift(timedelta(seconds=31))
        half_way(app).post("/login/code", 200, code=phone.code())
        ran = app.test_cli_runner().invoke(args=["keys", "forget", "test", "--yes"])
        assert "Users who need a recovery code to log in, until they set up their app again: 1." in ran.output
        somebody = half_way(app)
        somebody.post("/login/code", 200, code=phone.code())
        somebody.post("/login/recovery-code", 302, code=codes[0])
        clock.shift(timedelta(seconds=31))
        set_up(somebody)
