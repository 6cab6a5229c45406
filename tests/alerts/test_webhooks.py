"""Webhooks: the official library of Standard Webhooks takes what is posted, and each answer means what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import pytest
from flask import Flask
from standardwebhooks import Webhook, WebhookVerificationError

from grafient.alerts.channels import sending, webhooks
from grafient.alerts.channels.sending import Ended
from grafient.alerts.message import Item, Message
from grafient.config import Settings
from grafient.states import ChannelKind, Happened
from tests.alerts.stand_ins import Internet, Reply, StandIn
from tests.syncing import at

NOW = datetime.now(UTC)
MESSAGE = Message(
    "msg_0123",
    "alerts",
    "2 alerts",
    NOW,
    [
        Item(
            "Budget “Team” is at 100 %",
            ["$100.00 of $100.00"],
            "https://costs.example.com/budgets/1",
            what=Happened.OPENED,
            key="k1",
            data={"type": "budget.opened", "incident": 7, "spent_usd": "100.0000000001", "exact": Decimal("0.1")},
        ),
        Item("לבדיקה 🧑‍🚀", what=Happened.RESOLVED, key="k2", data={"type": "today.resolved", "incident": 8}),
    ],
    link="https://costs.example.com/alerts",
)


@pytest.fixture(autouse=True)
def _now() -> Iterator[None]:
    """The library wants a message to be of the last minutes, and whoever collects tests may run them an hour later."""
    with at(NOW):
        yield


@pytest.fixture
def settings() -> dict[str, str]:
    return {}


@pytest.fixture(autouse=True)
def _context(settings: dict[str, str]) -> Iterator[None]:
    """An app with settings and nothing else: no database has a part in sending."""
    app = Flask("sending")
    app.extensions["settings"] = Settings.from_environ(settings)
    with app.app_context():
        yield


@pytest.fixture
def receiver(internet: Internet) -> StandIn:
    return internet.machine("hooks.example.com")


def config(**more: str) -> dict[str, str]:
    return {"url": "https://hooks.example.com/in?team=1", "secret": webhooks.new_secret(), **more}


def send(found: dict[str, str], now: datetime = NOW) -> sending.Outcome:
    return sending.send(ChannelKind.WEBHOOK, found, MESSAGE, now=now)


def verified(secret: str, receiver: StandIn) -> Any:
    return Webhook(secret).verify(receiver.last.body, receiver.last.headers)


def test_the_official_library_verifies_what_is_posted(receiver: StandIn) -> None:
    mine = config()
    assert send(mine) == sending.Outcome(Ended.SENT, "Sent.")
    found = verified(mine["secret"], receiver)
    assert (found["type"], found["timestamp"]) == ("alerts", NOW.isoformat())
    first, second = found["data"]["items"]
    assert first["type"] == "budget.opened"
    assert (first["spent_usd"], first["exact"], first["what"]) == ("100.0000000001", "0.1", "opened")
    assert (second["title"], second["key"]) == ("לבדיקה 🧑‍🚀", "k2")
    assert (receiver.last.method, receiver.last.path) == ("POST", "/in?team=1")
    assert receiver.last.headers["content-type"] == "application/json"


def test_another_secret_does_not(receiver: StandIn) -> None:
    send(config())
    with pytest.raises(WebhookVerificationError):
        verified(webhooks.new_secret(), receiver)


def test_the_id_is_the_same_on_each_try_and_the_signature_of_its_own_time(receiver: StandIn) -> None:
    mine = config()
    receiver.replies = [Reply(500), Reply(200)]
    assert send(mine).state is Ended.AGAIN
    first = receiver.last
    assert send(mine, NOW + timedelta(seconds=90)).state is Ended.SENT
    assert first.headers["webhook-id"] == receiver.last.headers["webhook-id"] == "msg_0123"
    assert first.headers["webhook-signature"] != receiver.last.headers["webhook-signature"]
    verified(mine["secret"], receiver)


def test_for_a_day_after_a_rotation_both_secrets_sign(receiver: StandIn) -> None:
    mine = config()
    turned = webhooks.rotated(mine, NOW)
    assert turned["secret"] != mine["secret"]
    send(turned)
    assert verified(turned["secret"], receiver) == verified(mine["secret"], receiver)
    signed = webhooks.signatures(turned, "msg_1", NOW + timedelta(hours=25), b"{}")
    assert signed.count("v1,") == 1
    assert webhooks.signatures({"secret": turned["secret"]}, "msg_1", NOW + timedelta(hours=25), b"{}") == signed


def test_a_secret_is_as_the_specification_wants_it() -> None:
    one, other = webhooks.new_secret(), webhooks.new_secret()
    assert one.startswith("whsec_")
    assert one != other
    Webhook(one)


@pytest.mark.parametrize(
    ("status", "state", "says"),
    [
        (200, Ended.SENT, "Sent."),
        (204, Ended.SENT, "Sent."),
        (301, Ended.AGAIN, "The webhook answered 301: it redirects somewhere else"),
        (400, Ended.AGAIN, "The webhook answered 400: it did not take the message."),
        (401, Ended.AGAIN, "does not accept"),
        (404, Ended.AGAIN, "nothing is at this address"),
        (410, Ended.GONE, "The webhook answered 410: it says that this address is gone for good."),
        (429, Ended.AGAIN, "asked too often"),
        (500, Ended.AGAIN, "a fault of its own"),
        (503, Ended.AGAIN, "out of order"),
    ],
)
def test_each_status_means_something(receiver: StandIn, status: int, state: Ended, says: str) -> None:
    receiver.reply = Reply(status, {"Location": "http://169.254.169.254/"}, b"secret words of the other end")
    found = send(config())
    assert (found.state, found.retry_after) == (state, None)
    assert says in found.sentence
    assert "secret words" not in found.sentence
    assert receiver.connections == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        ("999999999999", 86_400),
        (format_datetime(NOW.replace(microsecond=0) + timedelta(minutes=5), usegmt=True), 300),
        (format_datetime(NOW - timedelta(days=1), usegmt=True), 0),
        ("soon", None),
        ("-5", None),
        ("٣", None),
    ],
    ids=["seconds", "none", "for ever", "until", "until yesterday", "a word", "before", "another script"],
)
def test_who_asks_to_be_left_alone_is_for_a_day_at_most(
    receiver: StandIn, status: int, said: str, seconds: int | None
) -> None:
    receiver.reply = Reply(status, {"Retry-After": said if said.isascii() else said.encode().decode("latin-1")})
    found = send(config())
    assert found.state is Ended.AGAIN
    assert found.retry_after == seconds or (seconds == 300 and found.retry_after == 299)


def test_an_endless_page_of_html_is_no_matter(receiver: StandIn) -> None:
    receiver.reply = Reply(500, body=b"<html>" * 500_000)
    assert send(config()).sentence == "The webhook answered 500: it had a fault of its own."


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "https://inside.example.com/"])
def test_nothing_within_is_posted_to(internet: Internet, url: str) -> None:
    internet.answers("inside.example.com", ["10.0.0.1"])
    found = send(config(url=url))
    assert found.state is Ended.AGAIN
    assert "is not on the public Internet" in found.sentence
    assert internet.reached == []


def test_a_message_of_300_items_is_one_call(receiver: StandIn) -> None:
    items = [Item(f"item {number}", key=str(number)) for number in range(300)]
    mine = config()
    message = Message("msg_1", "alerts", "300 alerts", NOW, items)
    assert sending.send(ChannelKind.WEBHOOK, mine, message, now=NOW).state is Ended.SENT
    assert len(verified(mine["secret"], receiver)["data"]["items"]) == 300
    assert json.loads(receiver.last.body)["data"]["items"][299]["title"] == "item 299"
