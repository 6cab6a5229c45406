"""What is sent by mail, to a real mail server: resetting a password, confirming an address, invitations."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine
from flask import Flask
from sqlalchemy import update

from grafient import create_app, jobs, mail
from grafient.config import ConfigError, Settings
from grafient.extensions import db
from grafient.models import Mail, utc_now
from grafient.states import Letter
from tests.conftest import EMAIL, PASSWORD
from tests.pages import Pages
from tests.post_office import PostOffice, text_of
from tests.syncing import on_sqlite
from tests.views.test_audit import noted

pytestmark = pytest.mark.filterwarnings(  # aiosmtpd leaves its connections to be collected
    "ignore:Exception ignored in. <function StreamWriter.__del__:pytest.PytestUnraisableExceptionWarning"
)
ANOTHER = "seven blue mountains"


@pytest.fixture
def office() -> Iterator[PostOffice]:
    office = PostOffice()
    yield office
    office.close()


@pytest.fixture
def settings(settings: dict[str, str], office: PostOffice) -> dict[str, str]:
    return settings | {"GRAFIENT_SMTP_URL": office.url, "GRAFIENT_MAIL_FROM": "grafient@example.com"}


def sent(app: Flask) -> None:
    """What a worker does."""
    with app.app_context():
        mail.send_due()


def ask(app: Flask, email: str, path: str = "/reset") -> str:
    """Ask for a letter, and what is answered."""
    asking = Pages(app)
    asking.post(path, email=email)
    return re.sub(r'value="[^"]+"', "", asking.get("/login").text)


def test_a_password_is_reset_by_a_link(app: Flask, pages: Pages, office: PostOffice) -> None:
    ask(app, EMAIL)
    assert not office.letters, "a request waits for no mail server"
    sent(app)
    assert [office.last()["To"], office.last()["From"]] == [EMAIL, "grafient@example.com"]
    assert office.last()["Subject"] == "Reset your password for Grafient"
    assert "works for an hour" in text_of(office.last())
    somebody = Pages(app)
    assert "Choose a new password" in somebody.get(office.link()).text
    somebody.post(office.link(), 302, password=ANOTHER, password_confirm=ANOTHER)
    assert "Your password was changed" in somebody.get("/login").text
    pages.get("/account", 302)  # whoever was signed in with the old password is not any more
    somebody.log_in(EMAIL, ANOTHER)
    somebody.get("/account")
    assert (EMAIL, "password reset", EMAIL) in noted(app)
    assert "INVALID" not in Pages(app).client.get(office.link()).text
    Pages(app).get(office.link(), 302)  # it works once
    sent(app)
    assert office.last()["Subject"] == "Your password for Grafient was changed"
    with app.app_context():
        assert db.session.query(Mail).count() == 0


def test_a_link_is_good_for_an_hour(app: Flask, pages: Pages, office: PostOffice) -> None:
    with time_machine.travel(utc_now(), tick=False) as clock:
        ask(app, EMAIL)
        sent(app)
        clock.shift(timedelta(minutes=59))
        Pages(app).get(office.link())
        clock.shift(timedelta(minutes=2))
        late = Pages(app)
        late.get(office.link(), 302)
        assert "too old" in late.get("/reset").text


def test_whether_there_is_an_account_is_not_told(app: Flask, pages: Pages, office: PostOffice) -> None:
    assert ask(app, EMAIL) == ask(app, "nobody@example.com")
    assert ask(app, EMAIL, "/confirm") == ask(app, "nobody@example.com", "/confirm")
    with app.app_context():
        assert db.session.query(Mail).count() == 4, "what is done for both is the same"
    sent(app)
    assert [letter["To"] for letter in office.letters] == [EMAIL]


def test_a_copy_of_the_database_has_no_link_that_lets_somebody_in(
    app: Flask, pages: Pages, office: PostOffice, tmp_path: Path
) -> None:
    pages.post("/account/members/invite", page="/account/members", role="admin", email="new@example.com", note="")
    ask(app, EMAIL)
    with app.app_context():
        if db.engine.dialect.name == "sqlite":
            with contextlib.closing(sqlite3.connect(tmp_path / "grafient.db")) as stored:
                before = "\n".join(stored.iterdump())
        else:
            before = repr([[*row] for table in db.metadata.sorted_tables for row in db.session.execute(table.select())])
    sent(app)
    assert len(office.letters) == 2
    for letter in office.letters:
        token = re.findall(r"/(?:reset|invitations)/(\S+)", text_of(letter))[0]
        assert token not in before


def test_letters_to_one_address_are_limited(app: Flask, pages: Pages) -> None:
    for _ in range(5):
        ask(app, EMAIL)
    Pages(app).post("/reset", 429, email=EMAIL)
    Pages(app).post("/reset", 303, email="other@example.com")


def test_a_wrong_address_is_said(app: Flask, pages: Pages) -> None:
    assert "Enter a valid email address" in Pages(app).post("/reset", 422, email="nobody").text
    assert "Enter an email address" in Pages(app).post("/reset", 422, email=" ").text
    for more in ("a@example.com\r\nBcc: b@example.com", "a@example.com, b@example.com", '"a\n"@example.com'):
        assert "Enter a valid email address" in Pages(app).post("/reset", 422, email=more).text


class TestOpenRegistration:
    @pytest.fixture
    def settings(self, settings: dict[str, str]) -> dict[str, str]:
        return settings | {"GRAFIENT_REGISTRATION": "open"}

    def register(self, app: Flask, email: str) -> str:
        somebody = Pages(app)
        somebody.post("/register", 302, email=email, password=ANOTHER, password_confirm=ANOTHER)
        return re.sub(r'value="[^"]+"', "", somebody.get("/login").text)

    def test_an_address_is_confirmed(self, app: Flask, pages: Pages, office: PostOffice) -> None:
        assert "open the link in the email" in self.register(app, "new@example.com")
        new = Pages(app)
        refused = new.post("/login", 200, email="new@example.com", password=ANOTHER).text
        assert "Confirm your address first" in refused
        sent(app)
        assert office.last()["Subject"] == "Confirm your address for Grafient"
        new.get(office.link(), 302)
        assert "your address is confirmed" in new.get("/login").text
        new.log_in("new@example.com", ANOTHER)
        new.get("/account")

    def test_it_answers_the_same_whether_or_not_there_is_an_account(
        self, app: Flask, pages: Pages, office: PostOffice
    ) -> None:
        assert self.register(app, "new@example.com") == self.register(app, EMAIL)
        sent(app)
        told = {str(letter["To"]): str(letter["Subject"]) for letter in office.letters}
        assert told == {
            "new@example.com": "Confirm your address for Grafient",
            EMAIL: "You already have an account at Grafient",
        }
        Pages(app).log_in(EMAIL, PASSWORD)  # nothing was changed

    def test_the_first_and_the_invited_need_confirm_nothing(self, app: Flask, pages: Pages, office: PostOffice) -> None:
        pages.get("/account")
        pages.post("/account/members/invite", page="/account/members", role="admin", email="new@example.com", note="")
        sent(app)
        new = Pages(app)
        new.get(office.link())
        new.post("/register", 302, email="new@example.com", password=ANOTHER, password_confirm=ANOTHER)
        new.get("/account/members")
        assert len(office.letters) == 1


class TestWithoutMail:
    @pytest.fixture
    def settings(self, settings: dict[str, str]) -> dict[str, str]:
        mailless = {name: value for name, value in settings.items() if "SMTP" not in name and "MAIL" not in name}
        return mailless | {"GRAFIENT_REGISTRATION": "open"}

    def test_registration_answers_the_same_for_everybody(self, app: Flask, pages: Pages) -> None:
        answers = []
        for email in ("new@example.com", EMAIL):
            somebody = Pages(app)
            somebody.post("/register", 302, email=email, password=ANOTHER, password_confirm=ANOTHER)
            answers.append(re.sub(r'value="[^"]+"', "", somebody.get("/login").text))
            somebody.get("/account", 302)
        assert answers[0] == answers[1]
        assert "Now log in" in answers[0]
        Pages(app).log_in("new@example.com", ANOTHER)
        Pages(app).log_in(EMAIL, PASSWORD)

    def test_whoever_forgot_a_password_is_told_whom_to_ask(self, app: Flask, pages: Pages) -> None:
        assert "members reset-link" in Pages(app).get("/reset").text
        made = app.test_cli_runner().invoke(args=["members", "reset-link", " Someone@Example.com"])
        assert made.exit_code == 0, made.output
        somebody = Pages(app)
        link = re.sub(r"^https?://[^/]+", "", made.output.strip())
        somebody.post(link, 302, password=ANOTHER, password_confirm=ANOTHER)
        somebody.log_in(EMAIL, ANOTHER)
        assert ("command", "command", f"members reset-link {EMAIL}") in noted(app, 0)
        wrong = app.test_cli_runner().invoke(args=["members", "reset-link", "nobody@example.com"])
        assert (wrong.exit_code, wrong.output) == (1, "Error: No account has the address nobody@example.com.\n")


def test_an_invitation_is_sent_and_its_page_says_what_became_of_it(
    app: Flask, pages: Pages, office: PostOffice
) -> None:
    office.refuses = "451 try later"
    answer = pages.post(
        "/account/members/invite", page="/account/members", role="viewer", email="New@Example.com", note=""
    )
    page = pages.get(answer.location).text
    assert "The invitation is on its way to New@example.com." in page
    assert "Being sent." in page
    assert "/invitations/" not in re.sub(r"/account/members/invitations/\d+", "", page), (
        "the link is in the letter alone"
    )
    with time_machine.travel(utc_now(), tick=False) as clock:
        for attempt in range(Mail.MOST_ATTEMPTS):
            sent(app)
            is_last = attempt == Mail.MOST_ATTEMPTS - 1
            expected = "Could not be sent." if is_last else "Could not be sent yet; it is tried again."
            assert expected in pages.get("/account/members").text
            clock.shift(timedelta(hours=1))
        office.refuses = ""
        sent(app)
        assert not office.letters
    with app.app_context():
        db.session.execute(update(Mail).values(attempts=0, due_at=utc_now()))
        db.session.commit()
    sent(app)
    assert "Sent." in pages.get("/account/members").text
    assert "as viewer" in text_of(office.last())
    assert office.last()["To"] == "New@example.com"


def test_an_invitation_that_was_taken_back_is_not_sent(app: Flask, pages: Pages, office: PostOffice) -> None:
    pages.post("/account/members/invite", page="/account/members", role="viewer", email="new@example.com", note="")
    pages.post("/account/members/invitations/1/delete", page="/account/members")
    sent(app)
    assert not office.letters


def test_without_an_address_the_link_is_shown(app: Flask, pages: Pages, office: PostOffice) -> None:
    page = pages.post("/account/members/invite", 200, page="/account/members", role="viewer", email="", note="x").text
    assert 'id="the-link"' in page
    with app.app_context():
        assert db.session.query(Mail).count() == 0


@on_sqlite
def test_a_letter_that_two_workers_want_to_send_is_sent_once(app: Flask, pages: Pages, office: PostOffice) -> None:
    with app.app_context():
        for _ in range(20):
            mail.post(Letter.RESET, EMAIL)
        db.session.commit()
    workers = [threading.Thread(target=sent, args=(app,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(office.letters) == 20


def test_a_letter_whose_worker_was_killed_is_sent_by_another(app: Flask, pages: Pages, office: PostOffice) -> None:
    ask(app, EMAIL)
    with app.app_context():
        assert mail._claim() is not None  # and then nothing more is heard of it
        assert mail._claim() is None
    with time_machine.travel(utc_now() + timedelta(minutes=2, seconds=1)):
        sent(app)
    assert len(office.letters) == 1


def test_a_job_sends_letters_and_a_tick_wakes_one(app: Flask, pages: Pages, office: PostOffice) -> None:
    ask(app, EMAIL)
    with app.app_context():
        jobs.queue.client().flushall()
        jobs.tick()
        assert jobs.queue.queue().count == 1
        jobs.sync_due()
    assert len(office.letters) == 1


def test_what_a_letter_failed_with_is_logged_without_its_link(
    app: Flask, pages: Pages, office: PostOffice, caplog: pytest.LogCaptureFixture
) -> None:
    office.refuses = f"554 no such mailbox as {EMAIL}"
    ask(app, EMAIL)
    sent(app)
    assert "a letter (reset) could not be sent (SMTPDataError 554); tries left: 4" in caplog.text
    assert "/reset/" not in caplog.text
    assert EMAIL not in caplog.text


def test_doctor_looks_whether_it_can_be_sent(app: Flask, pages: Pages, office: PostOffice) -> None:
    def said() -> str:
        lines = app.test_cli_runner().invoke(args=["doctor"]).output.splitlines()
        return next(line for line in lines if " mail" in line)

    assert re.fullmatch(r"ok +mail +the server lets us in; letters are from grafient@example.com", said())
    office.close()
    assert "the server does not let us in (ConnectionRefusedError). Mend GRAFIENT_SMTP_URL." in said()


@on_sqlite
@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_the_mail_server_may_want_a_password(settings: dict[str, str], redis: object, templates: object) -> None:
    office = PostOffice("grafient", "p@ss/word")
    app = create_app(settings | {"GRAFIENT_SMTP_URL": office.url})
    try:
        pages = Pages(app)
        pages.register(f"x{EMAIL}", PASSWORD)
        ask(app, f"x{EMAIL}")
        sent(app)
        assert len(office.letters) == 1
    finally:
        office.close()
        with app.app_context():
            db.session.remove()
            db.engine.dispose()
        app.extensions["redis"].close()


@pytest.mark.parametrize("url", ["mail.example.com", "http://mail.example.com", "smtp://", "smtp://host:99999"])
def test_a_wrong_setting_is_said(url: str) -> None:
    with pytest.raises(ConfigError, match="GRAFIENT_SMTP_URL is not an address of a mail server"):
        Settings.from_environ({"GRAFIENT_SMTP_URL": url, "GRAFIENT_MAIL_FROM": "a@example.com"})


@pytest.mark.parametrize("password", ["s%C3%A4cret", "säcret"])
def test_a_password_that_can_not_be_sent_is_said_at_the_start(password: str) -> None:
    """In a letter it was an error that nobody expected, and ended a job with all of its syncs."""
    with pytest.raises(ConfigError, match="a letter outside of ASCII") as refused:
        Settings.from_environ({"GRAFIENT_SMTP_URL": f"smtp://me:{password}@localhost", "GRAFIENT_MAIL_FROM": "a@b.org"})
    assert "cret" not in str(refused.value)


def test_letters_need_a_sender() -> None:
    with pytest.raises(ConfigError, match="GRAFIENT_MAIL_FROM is not set"):
        Settings.from_environ({"GRAFIENT_SMTP_URL": "smtp://mail.example.com"})


def test_a_password_for_the_mail_server_is_a_secret() -> None:
    env = {"GRAFIENT_SMTP_URL": "smtps://me:se%40cret@mail.example.com", "GRAFIENT_MAIL_FROM": "a@example.com"}
    found = Settings.from_environ(env)
    assert "se@cret" in set(found.secrets())
    assert "cret" not in repr(found)
