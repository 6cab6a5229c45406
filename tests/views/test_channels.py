"""The pages of channels: set up, changed, tested, turned off, deleted; and no secret on any of them, nor in the log."""

from __future__ import annotations

import html
import logging
import re
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import delete, select, update

from grafient.alerts.channels import store, webhooks
from grafient.extensions import db
from grafient.jobs import queue
from grafient.models import AuditEntry, Channel, Delivery, Workspace, utc_now
from grafient.states import ChannelKind, DeliveryState, Sending, Summary, Topic
from tests.conftest import PASSWORD
from tests.pages import Pages
from tests.syncing import on_sqlite

NEW = "/alerts/channels/new"
SLACK = "https://hooks.slack.com/services/T0SECRET/B0SECRET/s3cr3tSECRET"
NTFY = {"kind": "ntfy", "server": "https://ntfy.example.com", "topic": "s3cr3t", "token": "tk_s3cr3t"}


def add(pages: Pages, status: int = 303, topics: object = "budgets", **entered: str) -> str:
    """Save a new channel; the text of what is shown then."""
    answer = pages.post("/alerts/channels", status, f"{NEW}?kind={entered['kind']}", topics=topics, **entered)
    return pages.get(answer.location).text if status == 303 else answer.text


def the_channel(app: Flask) -> Channel:
    with app.app_context():
        found = db.session.execute(select(Channel).order_by(Channel.id.desc()).limit(1)).scalar_one()
        db.session.expunge(found)
        return found


def config(app: Flask) -> dict[str, str]:
    with app.app_context():
        return store.opened(db.session.execute(select(Channel)).scalar_one())


def notes(app: Flask) -> list[tuple[str, str]]:
    with app.app_context():
        rows = db.session.execute(select(AuditEntry.action, AuditEntry.subject).order_by(AuditEntry.number)).all()
        return [(str(row.action), row.subject) for row in rows if "channel" in row.action]


def test_every_kind_is_offered_and_has_its_form(app: Flask, pages: Pages) -> None:
    page = pages.get(NEW).text
    for kind in ChannelKind:
        assert (f'href="{NEW}?kind={kind}"' in page) == (kind is not ChannelKind.EMAIL), "there is no mail server"
        if kind is not ChannelKind.EMAIL:
            form = pages.get(f"{NEW}?kind={kind}").text
            assert 'action="/alerts/channels"' in form
            assert form.count("checked") == 4 + 1, "all topics, and the foot's own box"
    pages.get(f"{NEW}?kind=email", 404)
    pages.get(f"{NEW}?kind=fax", 404)


def test_email_is_offered_where_a_mail_server_is(app: Flask, pages: Pages) -> None:
    app.extensions["settings"].__dict__.update(smtp_url="smtp://127.0.0.1:1", mail_from="grafient@example.com")
    assert f'href="{NEW}?kind=email"' in pages.get(NEW).text
    page = add(pages, kind="email", name="All of us", addresses="One@Example.com, two@example.com")
    assert "Email · To: One@example.com, two@example.com" in re.sub("<wbr>", "", page)


def test_a_channel_is_saved_and_its_secret_is_on_no_page(
    app: Flask, pages: Pages, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    page = add(pages, kind="slack", name="Team", url=f"  {SLACK}\n", topics=["budgets", "data"], summary="weekly")
    assert "“Team” is saved. Send a test" in page
    assert "<h1>Team</h1>" in page
    assert "hooks.slack.com" in page
    saved = the_channel(app)
    assert (saved.kind, saved.topics, saved.summary) == (ChannelKind.SLACK, ["budgets", "data"], Summary.WEEKLY)
    assert saved.summary_at is not None
    assert saved.summary_at.weekday() == 0
    assert config(app) == {"url": SLACK}
    assert notes(app) == [("channel added", "Team (Slack)")]
    everything = page + pages.get("/account/audit").text + caplog.text
    assert "s3cr3t" not in everything
    assert b"s3cr3t" not in (saved.config_ciphertext or b"")


WRONG = (
    ({"kind": "slack", "url": "https://example.com/s3cr3t"}, "This is not a Slack webhook."),
    ({"kind": "slack", "url": ""}, "Fill this in."),
    ({**NTFY, "server": "http://ntfy.lan"}, "Enter an address that begins with https://."),
    ({**NTFY, "topics": []}, "Choose what alerts are sent about, or a digest."),
    ({**NTFY, "quiet_from": "22"}, "Choose both hours, or none."),
    ({**NTFY, "quiet_from": "22", "quiet_to": "22"}, "Choose another hour: these are the same."),
    ({**NTFY, "name": "x" * 101}, "A name can have up to 100 characters."),
)


def test_what_is_wrong_is_said_beside_the_field_and_nothing_is_saved(app: Flask, pages: Pages) -> None:
    for entered, says in WRONG:
        page = add(pages, 422, **entered)  # type: ignore[arg-type]
        assert says in html.unescape(page)
        assert "<title>Error: " in page
        assert "s3cr3t" not in page, "what is secret is not sent back"
    with app.app_context():
        assert db.session.execute(select(Channel)).all() == []


def test_quiet_hours_and_how_often(app: Flask, pages: Pages) -> None:
    page = add(pages, **NTFY, quiet_from="22", quiet_to="6", alerts_daily="y")
    saved = the_channel(app)
    assert (saved.quiet_from, saved.quiet_to, saved.alerts_daily, saved.name) == (22, 6, True, "ntfy")
    assert re.search(r'<option selected value="22">22:00', page)
    assert 'value="https://ntfy.example.com"' in page
    assert "s3cr3t" not in page


def test_a_change_keeps_the_secrets_that_are_left_empty(app: Flask, pages: Pages) -> None:
    add(pages, **NTFY)
    before = config(app)
    entered = {"name": "Phone", "server": NTFY["server"], "topic": "", "token": "", "topics": "spend"}
    pages.post("/alerts/channels/1", **entered)
    assert config(app) == before
    assert (the_channel(app).name, the_channel(app).topics) == ("Phone", ["spend"])
    elsewhere = {**entered, "server": "https://elsewhere.example.com"}
    assert "Enter this again" in pages.post("/alerts/channels/1", 422, **elsewhere).text
    assert config(app) == before
    pages.post("/alerts/channels/1", **{**elsewhere, "topic": "other"})
    assert config(app) == {"server": "https://elsewhere.example.com", "topic": "other"}
    assert the_channel(app).shown == {"Server": "elsewhere.example.com", "Topic": "ot…"}
    assert notes(app)[1:] == [("channel changed", "Phone (ntfy)")] * 2


def test_a_webhooks_secret_is_shown_once_and_can_be_turned(app: Flask, pages: Pages) -> None:
    page = add(pages, 200, kind="webhook", name="Ours", url="https://hooks.example.com/in/s3cr3t")
    first = html.unescape(re.findall(r'value="(whsec_[^"]+)"', page)[0])
    assert config(app) == {"url": "https://hooks.example.com/in/s3cr3t", "secret": first}
    assert "whsec_" not in pages.get("/alerts/channels/1").text
    answer = pages.post("/alerts/channels/1/secret", 200, "/alerts/channels/1")
    assert answer.headers["Cache-Control"] == "no-store"
    second = html.unescape(re.findall(r'value="(whsec_[^"]+)"', answer.text)[0])
    assert second != first
    found = config(app)
    assert (found["secret"], found["old_secret"]) == (second, first)
    assert webhooks.signatures(found, "m", utc_now(), b"").count("v1,") == 2
    pages.post("/alerts/channels/1", name="Ours", url="https://hooks.example.com/other", topics="budgets")
    assert config(app)["secret"] == second
    assert "whsec_" not in pages.get("/alerts/channels/1").text
    assert "whsec_" not in str(notes(app))
    add(pages, **NTFY)
    pages.post("/alerts/channels/2/secret", 404, "/alerts/channels/2")


def test_a_test_is_written_for_a_worker_and_watched(app: Flask, pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    add(pages, **NTFY)
    with app.app_context():
        queue.queue().empty()
    fragment = pages.post("/alerts/channels/1/test", 200, "/alerts/channels/1", htmx=True).text
    assert 'hx-get="/alerts/channels/1/history"' in fragment
    assert "Sending a test" in fragment
    with app.app_context():
        assert queue.queue().count == 1
        found = db.session.execute(select(Delivery)).scalar_one()
        assert (found.sending, found.state, found.about) == (Sending.TEST, DeliveryState.DUE, {})
        assert found.due_at <= utc_now()
        assert re.fullmatch(r"[A-Za-z0-9_]{1,40}", found.uid)
    pages.post("/alerts/channels/1/test", page="/alerts/channels/1")
    with app.app_context():
        assert db.session.execute(select(Delivery)).scalars().one(), "one that waits is enough"
        ended = {"state": DeliveryState.FAILED, "ended_at": utc_now(), "outcome": "ntfy answered 403: no <b>way</b>."}
        db.session.execute(update(Delivery).values(**ended))
        db.session.commit()
    history = pages.get("/alerts/channels/1/history").text
    assert "ntfy answered 403: no &lt;b&gt;way" in history
    assert "every 2s" not in history
    assert "ntfy answered 403" in pages.get("/alerts/channels/1").text, "without JavaScript, too"


@on_sqlite
def test_a_test_that_nobody_sends_is_not_watched_for_ever(app: Flask, pages: Pages) -> None:
    add(pages, **NTFY)
    pages.post("/alerts/channels/1/test", page="/alerts/channels/1")
    assert "every 2s" in pages.get("/alerts/channels/1").text
    with app.app_context():
        db.session.execute(update(Delivery).values(created_at=utc_now() - timedelta(minutes=3)))
        db.session.commit()
    page = pages.get("/alerts/channels/1").text
    assert "every 2s" not in page
    assert "Waiting" in page


def test_off_and_on_again(app: Flask, pages: Pages) -> None:
    add(pages, **NTFY)
    page = "/alerts/channels/1"
    pages.post(f"{page}/off", page=page)
    text = pages.get(page).text
    assert "This channel is off" in text
    assert "Turned off by hand." in text
    assert "Send a test" not in text
    pages.post(page, name="Phone", server=NTFY["server"], topic="other", topics="budgets")
    assert config(app)["topic"] == "other"
    assert the_channel(app).disabled_at is not None, "what somebody turned off stays off"
    pages.post(f"{page}/on", page=page)
    assert the_channel(app).disabled_at is None
    assert "This channel is off" not in pages.get(page).text


def test_one_that_is_gone_says_why_and_is_on_again_with_other_settings(app: Flask, pages: Pages) -> None:
    add(pages, kind="slack", url=SLACK)
    with app.app_context():
        store.turn_off(db.session.execute(select(Channel)).scalar_one(), "Slack answered 404: it is gone.")
    assert "Slack answered 404: it is gone." in pages.get("/alerts/channels/1").text
    pages.post("/alerts/channels/1", url=SLACK + "2", topics="budgets")
    assert (the_channel(app).disabled_at, the_channel(app).disabled_why) == (None, "")


def test_settings_that_do_not_open_are_entered_again(app: Flask, pages: Pages) -> None:
    add(pages, kind="slack", url=SLACK)
    with app.app_context():
        db.session.execute(update(Channel).values(config_ciphertext=bytes(64)))
        db.session.commit()
    assert "Leave it blank to keep" not in pages.get("/alerts/channels/1").text
    assert "Fill this in." in pages.post("/alerts/channels/1", 422, url="", topics="budgets").text
    pages.post("/alerts/channels/1", url=SLACK, topics="budgets")
    assert config(app) == {"url": SLACK}


def test_deleted_with_all_that_it_was_sent(app: Flask, pages: Pages) -> None:
    add(pages, **NTFY, name="Phone")
    pages.post("/alerts/channels/1/test", page="/alerts/channels/1")
    answer = pages.post("/alerts/channels/1/delete", page="/alerts/channels/1")
    assert answer.location == "/alerts#channels"
    pages.get("/alerts/channels/1", 404)
    with app.app_context():
        assert db.session.execute(select(Delivery)).all() == db.session.execute(select(Channel)).all() == []
    assert notes(app)[-1] == ("channel deleted", "Phone (ntfy)")
    add(pages, **NTFY)
    assert the_channel(app).id == 2, "what is sealed for a row must open in no later one"


def test_twenty_and_no_more(app: Flask, pages: Pages) -> None:
    with app.app_context():
        for number in range(store.MOST_CHANNELS):
            store.create(1, ChannelKind.SLACK, f"n{number}", {"url": SLACK}, store.Options())
    assert "A workspace can have 20 channels." in add(pages, 422, **NTFY)
    assert len(list_of(app)) == 20


def list_of(app: Flask) -> list[store.Listed]:
    with app.app_context():
        return list(store.listed(1))


def test_the_list_says_how_each_is(app: Flask, pages: Pages) -> None:
    with app.app_context():
        for name in ("works", "fails", "off", "New"):
            channel, _ = store.create(1, ChannelKind.SLACK, name, {"url": SLACK}, store.Options((Topic.DATA,)))
            if name == "works":
                store.test(channel)
        values = {"state": DeliveryState.SENT, "ended_at": utc_now(), "outcome": "Sent."}
        db.session.execute(update(Delivery).values(**values))
        db.session.execute(update(Channel).where(Channel.name == "fails").values(failing_since=utc_now()))
        off = {"disabled_at": utc_now(), "disabled_why": "Slack answered 404."}
        db.session.execute(update(Channel).where(Channel.name == "off").values(**off))
        db.session.add(Workspace(plan="free"))
        db.session.commit()
        assert store.listed(2) == []
    fails, new, off_, works = list_of(app)
    assert [one.name for one in (fails, new, off_, works)] == ["fails", "New", "off", "works"]
    assert (works.last is not None, new.last, off_.is_off, off_.why) == (True, None, True, "Slack answered 404.")
    assert (works.label, works.shown, works.topics) == ("Slack", {"Address": "hooks.slack.com"}, [Topic.DATA])
    with app.test_request_context(), app.app_context():
        from flask import render_template_string
        from flask_login import login_user

        from grafient.models import User

        login_user(db.session.execute(select(User)).scalar_one())
        text = render_template_string("{% include 'alerts/_channels.html' %}", channels=store.listed(1))
    for said in ("Works", "Failing", "Slack answered 404.", "Not tested", 'href="/alerts/channels/1"', NEW):
        assert said in text


def test_another_workspaces_channel_is_nobodys_business(app: Flask, pages: Pages) -> None:
    app.extensions["settings"].__dict__["registration"] = "open"
    add(pages, **NTFY)
    other = Pages(app)
    other.register("other@example.com", PASSWORD)
    other.get("/alerts/channels/1", 404)
    for form in ("", "/test", "/secret", "/off", "/delete"):
        other.post(f"/alerts/channels/1{form}", 404, "/account")
    assert the_channel(app).disabled_at is None


def test_one_that_another_tab_deletes_meanwhile_is_404(
    app: Flask, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(pages, **NTFY)
    token = pages.token("/alerts/channels/1")
    hold = store._hold

    def after_it_is_gone(channel: Channel) -> None:
        channel_id, workspace_id = channel.id, channel.workspace_id
        db.session.rollback()
        db.session.execute(delete(Channel).where(Channel.id == channel_id))
        db.session.commit()
        hold(Channel(id=channel_id, workspace_id=workspace_id))

    monkeypatch.setattr(store, "_hold", after_it_is_gone)
    for form in ("/test", "/off", "/secret", ""):
        with app.app_context():
            db.session.execute(delete(Channel))
            store.create(1, ChannelKind.WEBHOOK, "", {"url": "https://hooks.example.com/"}, store.Options())
            channel_id = db.session.execute(select(Channel.id)).scalar_one()
        fields = {"csrf_token": token, "topics": "budgets"}
        answer = pages.client.post(f"/alerts/channels/{channel_id}{form}", data=fields)
        assert answer.status_code == 404, form


def test_addresses_of_forms_lead_back_to_the_page(pages: Pages) -> None:
    add(pages, **NTFY)
    for form in ("test", "secret", "on", "off", "delete"):
        assert pages.get(f"/alerts/channels/1/{form}", 302).location == "/alerts/channels/1"
    assert pages.get("/alerts/channels", 302).location == NEW
