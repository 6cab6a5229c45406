"""Channels: what each service receives, over real HTTP and SMTP; that nothing in a name is markup there, that limits
are kept, and that secrets stay where they belong."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from flask import Flask

from grafient.alerts.channels import guard, kinds, sending, store, written
from grafient.alerts.channels.kinds import KINDS
from grafient.alerts.channels.sending import Ended
from grafient.alerts.message import Item, Message
from grafient.config import AlertHosts, Settings
from grafient.states import ChannelKind, Happened, Summary
from tests.alerts.stand_ins import Internet, Reply, StandIn
from tests.post_office import PostOffice, text_of

NOW = datetime.now(UTC)
ROOT = Path(__file__).resolve().parent.parent.parent
NOWHERE = AlertHosts()
K = ChannelKind

TEAMS = (
    "https://prod-01.westus.logic.azure.com:443/workflows/abc123/triggers/manual/paths/invoke"
    "?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=s-e_cret"
)
ENTERED: Mapping[ChannelKind, tuple[str, dict[str, str]]] = {
    K.SLACK: ("hooks.slack.com", {"url": "https://hooks.slack.com/services/T0SECRET/B0SECRET/s3cr3tSECRET"}),
    K.DISCORD: ("discord.com", {"url": "https://discord.com/api/webhooks/12345/s3cr3t-SECRET_x"}),
    K.TEAMS: ("prod-01.westus.logic.azure.com", {"url": TEAMS}),
    K.TELEGRAM: ("api.telegram.org", {"token": "123456:s3cr3tSECRET", "chat": "-100123"}),
    K.PUSHOVER: ("api.pushover.net", {"user": "u" * 30, "token": "t" * 30}),
    K.NTFY: ("ntfy.example.com", {"server": "https://ntfy.example.com", "topic": "s3cr3t", "token": "tk_s3cr3t"}),
    K.GOTIFY: ("gotify.example.com", {"server": "https://gotify.example.com/sub/", "token": "A.s3cr3t"}),
    K.PAGERDUTY: ("events.eu.pagerduty.com", {"key": "k" * 32, "region": "eu"}),
    K.OPSGENIE: ("api.opsgenie.com", {"key": "0123abcd-s3cr3t-s3cr3t", "region": "us"}),
    K.MATRIX: ("matrix.example.com", {"server": "https://matrix.example.com", "room": "!a:b.c", "token": "syt_s3cr3t"}),
    K.MATTERMOST: ("chat.example.com", {"url": "https://chat.example.com/team/hooks/s3cr3tSECRET"}),
}
"""What people enter, and the host that it leads to."""

HOSTILE = (
    "<b>x</b> & <a href='http://e.example'>y</a>", "<!channel> <@U123> <@&9> @everyone @here @channel @room @all",
    "[free](https://evil.example) ![i](https://evil.example/i.png)", "*bold* _i_ ~s~ `c` ||sp|| __u__ **b**",
    "# head", "- item", "1. item", "> quote", "=== \\", "gpt-4.1_turbo/\u202esdrawkcab\u202c",
    "two\nlines\r\x00\x1b[31m", "<at>everyone</at>",
)  # fmt: skip


@pytest.fixture
def settings() -> dict[str, str]:
    return {}


@pytest.fixture
def app(settings: dict[str, str]) -> Flask:
    """An app with settings and nothing else: no database has a part in sending."""
    app = Flask("sending")
    app.extensions["settings"] = Settings.from_environ(settings)
    return app


@pytest.fixture(autouse=True)
def _context(app: Flask) -> Iterator[None]:
    with app.app_context():
        yield


def config_of(kind: ChannelKind) -> dict[str, str]:
    found, wrong = kinds.parsed(kind, ENTERED[kind][1], NOWHERE)
    assert wrong == {}
    return found


def message(items: int = 1, title: str = "Budget “Team” is at 100 %", name: str = "gpt-5.4") -> Message:
    made = [
        Item(
            f"{name} {number}", [f"{name} cost $1.{number:02}"], f"https://g.example/a?x=1&y={number}", key=f"k{number}"
        )
        for number in range(items)
    ]
    return Message("msg_1", "alerts", title, NOW, made, ["Of today."], f"Sent for {name}.", "https://g.example/alerts")


def send(kind: ChannelKind, sent: Message, config: Mapping[str, str] | None = None) -> sending.Outcome:
    return sending.send(kind, config or config_of(kind), sent, now=NOW)


@pytest.fixture
def machine(internet: Internet) -> Callable[[ChannelKind], StandIn]:
    """The stand-in for a service."""

    def found(kind: ChannelKind) -> StandIn:
        made = internet.machine(ENTERED[kind][0])
        made.reply = Reply(body=b'{"requestId":"1"}')
        return made

    return found


def said(kind: ChannelKind, service: StandIn) -> str:
    """The text that a service would show."""
    received = service.last
    if kind is K.PUSHOVER:
        return parse_qs(received.body.decode())["message"][0]
    found = received.json
    text: str = {
        K.SLACK: lambda: found["attachments"][0]["text"],
        K.DISCORD: lambda: found["content"],
        K.TEAMS: lambda: found["attachments"][0]["content"]["body"][-1]["text"],
        K.TELEGRAM: lambda: found["text"],
        K.NTFY: lambda: found["message"],
        K.GOTIFY: lambda: found["message"],
        K.PAGERDUTY: lambda: found["payload"]["summary"],
        K.OPSGENIE: lambda: found["message"],
        K.MATRIX: lambda: found["body"],
        K.MATTERMOST: lambda: found["text"],
    }[kind]()
    return text


@pytest.mark.parametrize("kind", ENTERED)
def test_each_service_receives_the_message_where_it_takes_them(
    machine: Callable[[ChannelKind], StandIn], kind: ChannelKind
) -> None:
    service = machine(kind)
    assert send(kind, message()) == sending.Outcome(Ended.SENT, "Sent.")
    assert "gpt-5.4 0" in said(kind, service)
    where = {
        K.SLACK: "POST /services/T0SECRET/B0SECRET/s3cr3tSECRET",
        K.DISCORD: "POST /api/webhooks/12345/s3cr3t-SECRET_x",
        K.TEAMS: f"POST {TEAMS.partition(':443')[2]}",
        K.TELEGRAM: "POST /bot123456:s3cr3tSECRET/sendMessage",
        K.PUSHOVER: "POST /1/messages.json",
        K.NTFY: "POST /",
        K.GOTIFY: "POST /sub/message",
        K.PAGERDUTY: "POST /v2/enqueue",
        K.OPSGENIE: "POST /v2/alerts",
        K.MATRIX: "PUT /_matrix/client/v3/rooms/%21a%3Ab.c/send/m.room.message/msg_1",
        K.MATTERMOST: "POST /team/hooks/s3cr3tSECRET",
    }
    assert f"{service.last.method} {service.last.path}" == where[kind]
    assert service.last.headers["accept-encoding"] == "identity"
    assert service.connections == 1


def test_what_each_has_besides(machine: Callable[[ChannelKind], StandIn]) -> None:
    by_kind = {kind: machine(kind) for kind in ENTERED}
    for kind in ENTERED:
        send(kind, message())
    received = {kind: one.last for kind, one in by_kind.items()}
    assert received[K.SLACK].json["attachments"][0]["title"] == "Budget “Team” is at 100 %"
    assert received[K.TELEGRAM].json["chat_id"] == -100123
    assert received[K.NTFY].json["topic"] == "s3cr3t"
    assert received[K.NTFY].headers["authorization"] == "Bearer tk_s3cr3t"
    assert received[K.NTFY].headers["x-click"] == "https://g.example/alerts"
    assert received[K.GOTIFY].headers["x-gotify-key"] == "A.s3cr3t"
    assert received[K.OPSGENIE].headers["authorization"] == "GenieKey 0123abcd-s3cr3t-s3cr3t"
    assert (received[K.OPSGENIE].json["alias"], received[K.PAGERDUTY].json["dedup_key"]) == ("k0", "k0")
    assert received[K.MATRIX].headers["authorization"] == "Bearer syt_s3cr3t"
    fields = parse_qs(received[K.PUSHOVER].body.decode())
    assert (fields["user"], fields["token"], fields["url"]) == (["u" * 30], ["t" * 30], ["https://g.example/alerts"])


@pytest.mark.parametrize("kind", [K.PAGERDUTY, K.OPSGENIE])
def test_incidents_are_opened_and_resolved_under_their_keys(
    machine: Callable[[ChannelKind], StandIn], kind: ChannelKind
) -> None:
    service = machine(kind)
    items = [Item("too much", key="k/1", what=Happened.OPENED), Item("over", key="k/2", what=Happened.RESOLVED)]
    assert send(kind, Message("msg_1", "alerts", "2 alerts", NOW, items)).state is Ended.SENT
    opened, resolved = service.requests
    if kind is K.PAGERDUTY:
        assert (opened.json["event_action"], opened.json["dedup_key"]) == ("trigger", "k/1")
        assert (resolved.json["event_action"], resolved.json["dedup_key"]) == ("resolve", "k/2")
    else:
        assert (opened.path, opened.json["alias"], opened.json["priority"]) == ("/v2/alerts", "k/1", "P3")
        assert resolved.path == "/v2/alerts/k%2F2/close?identifierType=alias"


@pytest.mark.parametrize("kind", [K.PAGERDUTY, K.OPSGENIE])
def test_a_flood_of_incidents_is_bounded_and_ends_with_the_first_refusal(
    machine: Callable[[ChannelKind], StandIn], kind: ChannelKind
) -> None:
    service = machine(kind)
    assert send(kind, message(300)).state is Ended.SENT
    assert len(service.requests) == 11
    assert "290 more" in said(kind, service)
    service.replies = [Reply(202, body=b'{"requestId":"1"}'), Reply(500)]
    assert send(kind, message(300)).state is Ended.AGAIN
    assert len(service.requests) == 13


@pytest.mark.parametrize("kind", ENTERED)
def test_no_name_is_markup_anywhere(machine: Callable[[ChannelKind], StandIn], kind: ChannelKind) -> None:
    service = machine(kind)
    for name in HOSTILE:
        assert send(kind, message(name=name, title=name)).state is Ended.SENT
        _check_markup(kind, name, service)


def _check_markup(kind: ChannelKind, name: str, service: StandIn) -> None:
    text = said(kind, service)
    assert not re.search(r"[\u202a-\u202e\x00\x1b\r]", text)
    ours = r"<https://g\.example/[^>]*>|<a href=\"https://g\.example/[^\"]*\">|</a>|^<b>|</b>$"
    own = re.sub(ours, "", text, flags=re.MULTILINE)
    if kind is K.TELEGRAM:
        assert "<" not in own, name
    if kind is K.SLACK:
        assert not re.search(r"<(?!https://g\.example/)", text), name
        assert "<" not in service.last.json["attachments"][0]["title"]
        assert not re.search(r"(^|\s)[*_~`]\w", text)
    if kind in (K.DISCORD, K.MATTERMOST, K.TEAMS):
        assert not re.search(r"<[@!&#:/a-z]", own), name
        assert not re.search(r"(?<!\\)[`~|_#]", own), name
        assert not re.search(r"(?<!\\)\[(?!Details\]|Open Grafient\]|all in)", own), name
        assert not re.search(r"^(\s*)([-+>=]|\d+\.)\s", own, flags=re.MULTILINE), name
    if kind in (K.DISCORD, K.MATTERMOST, K.MATRIX, K.TELEGRAM, K.TEAMS):
        assert not re.search(r"@(everyone|here|channel|room|all)", text)


LIMITS: Mapping[ChannelKind, Callable[[str], int]] = {
    K.SLACK: lambda text: 4000 - len(text),
    K.DISCORD: lambda text: 2000 - written.utf16(text),
    K.TEAMS: lambda text: 28 * 1024 - 2000 - len(json.dumps(text)),
    K.TELEGRAM: lambda text: 4096 - written.utf16(text),
    K.PUSHOVER: lambda text: 1024 - len(text),
    K.NTFY: lambda text: 4096 - len(text.encode()),
    K.MATRIX: lambda text: 65_000 - len(json.dumps(text)),
    K.MATTERMOST: lambda text: 4000 - len(text),
    K.PAGERDUTY: lambda text: 1024 - len(text),
    K.OPSGENIE: lambda text: 130 - len(text),
}
"""How much room is left of what each service takes."""

EMOJI = "👩🏽‍🚀🇩🇪é"


LONG = ("m", "&<>" * 20, "*_[]()" * 40, EMOJI * 60, "x" * 5000, "<b>&amp;</b>")


@pytest.mark.parametrize("kind", LIMITS)
def test_limits_are_kept_and_what_is_left_out_is_said(
    machine: Callable[[ChannelKind], StandIn], kind: ChannelKind
) -> None:
    service = machine(kind)
    for items, name in [*((1, name) for name in LONG), *((40, name) for name in LONG), (300, "gpt-5.4")]:
        assert send(kind, message(items, name=name, title=name)).state is Ended.SENT
        _check_limit(kind, items, service)


def _check_limit(kind: ChannelKind, items: int, service: StandIn) -> None:
    text = said(kind, service)
    assert LIMITS[kind](text) >= 0
    if kind in (K.PAGERDUTY, K.OPSGENIE):
        return
    if kind is K.NTFY:
        assert service.last.path == "/", "longer ones would come as a file"
    shown = text.count("g.example/a?")
    if shown < items:
        assert f"… and {items - shown} more" in text
        assert "https://g.example/alerts" in text
    assert not re.search(r"&(?!(amp|lt|gt|quot|#x27);)", text) or kind not in (K.SLACK, K.TELEGRAM)
    assert not re.search(r"(?<!\\)(\\\\)*\\(\s|$)", text), "an escape was cut through"
    assert "\ufffd" not in text


@pytest.mark.parametrize("most", range(1, 40))
def test_an_emoji_is_left_whole_or_out(most: int) -> None:
    text = written.clipped(EMOJI * 5, most)
    assert len(text) <= most
    left = text.removesuffix("…")
    for whole in ("👩🏽‍🚀", "🇩🇪", "é"):
        left = left.replace(whole, "")
    assert left == ""


def test_only_as_much_is_cut_as_has_to_be() -> None:
    whole = written.written(K.NTFY, message(10)).body
    assert "more" not in whole
    cut = written.written(K.PUSHOVER, message(30)).body
    assert 1024 - len(cut) < 120
    shown = cut.count("cost $1.")
    assert f"… and {30 - shown} more: all in Grafient: https://g.example/alerts" in cut


def test_an_item_too_long_for_the_service_ends_at_a_line() -> None:
    item = Item("one", [f"line {number} " + "x" * 100 for number in range(40)], "https://g.example/a")
    text = written.written(K.PUSHOVER, Message("m", "alerts", "t", NOW, [item], link="https://g.example/alerts")).body
    *lines, _, last = text.split("\n")
    assert last == "… and 1 more: all in Grafient: https://g.example/alerts"
    assert all(line == "one" or len(line) >= 107 for line in lines if line)


@pytest.mark.parametrize(
    ("kind", "status", "state", "says"),
    [
        (K.SLACK, 404, Ended.GONE, "Slack answered 404: the webhook no longer exists there"),
        (K.DISCORD, 404, Ended.GONE, "Discord answered 404: the webhook no longer exists there."),
        (K.TELEGRAM, 403, Ended.GONE, "Telegram answered 403: the bot's token is not valid"),
        (K.PUSHOVER, 400, Ended.GONE, "Pushover answered 400"),
        (K.NTFY, 404, Ended.AGAIN, "ntfy answered 404"),
        (K.NTFY, 403, Ended.AGAIN, "ntfy answered 403: it does not accept what was entered to get in."),
        (K.GOTIFY, 301, Ended.AGAIN, "Gotify answered 301: it redirects"),
        (K.MATTERMOST, 500, Ended.AGAIN, "Mattermost answered 500"),
        (K.MATRIX, 410, Ended.GONE, "Matrix answered 410"),
        (K.TEAMS, 503, Ended.AGAIN, "Microsoft Teams answered 503"),
    ],
)
def test_what_an_answer_means(
    machine: Callable[[ChannelKind], StandIn], kind: ChannelKind, status: int, state: Ended, says: str
) -> None:
    service = machine(kind)
    service.reply = Reply(status, {"Location": "http://169.254.169.254/"}, b"words of the other end" * 1000)
    found = send(kind, message())
    assert found.state is state
    assert says in found.sentence
    assert "other end" not in found.sentence
    assert service.connections == 1


@pytest.mark.parametrize("kind", [K.SLACK, K.DISCORD, K.NTFY, K.MATRIX])
def test_who_is_asked_too_often_is_asked_once_and_says_when_again(
    machine: Callable[[ChannelKind], StandIn], kind: ChannelKind
) -> None:
    service = machine(kind)
    far = str(int(NOW.timestamp()) + 3600)
    limited = {"Retry-After": "77", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": far}
    service.reply = Reply(429, limited, b'{"retry_after_ms": 3600000}')
    assert send(kind, message()).retry_after == 77
    assert service.connections == 1


@pytest.mark.parametrize("kind", [K.NTFY, K.GOTIFY, K.MATRIX, K.MATTERMOST])
def test_no_service_is_a_way_to_what_is_within(internet: Internet, kind: ChannelKind) -> None:
    service = internet.machine(ENTERED[kind][0])
    within = internet.machine("within.example.com", "127.0.0.1", plain=True)
    internet.answers(ENTERED[kind][0], ["93.184.216.34"], ["127.0.0.1"])
    service.reply = Reply(302, {"Location": "http://127.0.0.1/"})
    assert "redirects" in send(kind, message()).sentence
    found = send(kind, message())
    assert (found.state, "is not on the public Internet" in found.sentence) == (Ended.AGAIN, True)
    assert (internet.reached, within.connections) == (["93.184.216.34"], 0)


def test_the_certificate_counts_whatever_apprise_wants(internet: Internet) -> None:
    service = internet.machine("chat.other.test")
    found = send(K.MATTERMOST, message(), {"url": "https://chat.other.test/hooks/abc"})
    assert "certificate of chat.other.test" in found.sentence
    assert service.requests == []


@pytest.mark.parametrize("allowed", ["192.168.0.0/16", "ntfy.lan, gotify.lan"])
def test_services_of_ones_own_network(internet: Internet, app: Flask, allowed: str) -> None:
    app.extensions["settings"] = Settings.from_environ({"GRAFIENT_ALERT_HOSTS": allowed})
    ntfy = internet.machine("ntfy.lan", "192.168.1.5", plain=True)
    gotify = internet.machine("gotify.lan", "192.168.1.6", plain=True)
    hosts = app.extensions["settings"].alert_hosts
    for kind, entered, service in (
        (K.NTFY, {"server": "http://ntfy.lan:8080", "topic": "costs"}, ntfy),
        (K.GOTIFY, {"server": "http://gotify.lan", "token": "A12345"}, gotify),
    ):
        config, wrong = kinds.parsed(kind, entered, hosts)
        assert (wrong, send(kind, message(), config).state) == ({}, Ended.SENT)
        assert service.connections == 1


def test_nothing_of_a_channel_is_logged(
    machine: Callable[[ChannelKind], StandIn], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for kind in ENTERED:
        service = machine(kind)
        for status in (200, 500):
            service.reply = Reply(status, body=b'{"error":"words of the other end"}')
            found = send(kind, message())
            for secret in (value for value in config_of(kind).values() if len(value) > 5):
                assert secret not in found.sentence
                assert secret not in caplog.text, kind
    assert "words of the other end" not in caplog.text


def test_threads_send_side_by_side_each_to_its_own(internet: Internet, app: Flask) -> None:
    services = {number: internet.machine(f"n{number}.example.com", f"93.184.216.{number}") for number in range(8)}
    services[3].reply = Reply(500)
    together = threading.Barrier(8)

    def one(number: int) -> Ended:
        with app.app_context():
            together.wait()
            config = {"server": f"https://n{number}.example.com", "topic": f"t{number}"}
            return send(K.NTFY, message(), config).state

    with ThreadPoolExecutor(8) as pool:
        ended = list(pool.map(one, range(8)))
    assert ended == [Ended.AGAIN if number == 3 else Ended.SENT for number in range(8)]
    assert [services[number].last.json["topic"] for number in range(8)] == [f"t{number}" for number in range(8)]


def test_a_service_that_drips_is_left_on_time(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    from grafient.alerts.channels import services

    internet.machine("ntfy.example.com").reply = Reply(drip=0.05)
    with pytest.raises(guard.Unreached, match="did not answer within"):
        services.send(K.NTFY, config_of(K.NTFY), message(), NOWHERE, 0.4)


# What people enter

TRICKS = (
    "?redirect=yes", "&verify=no", "#x", "%2F", "/../../x", "@evil.example", ":pw@evil", " x", "\nHost: evil", "\\x",
    "é", ";x", "%00", '"', "<x>",
)  # fmt: skip


@pytest.mark.parametrize("kind", ENTERED)
def test_nothing_in_a_field_changes_where_a_message_goes(
    internet: Internet, machine: Callable[[ChannelKind], StandIn], kind: ChannelKind
) -> None:
    host, entered = ENTERED[kind]
    service = machine(kind)
    service.reply = Reply(302, {"Location": "https://evil.example/"}, b'{"requestId":"1"}')
    for one in KINDS[kind].fields:
        for trick in TRICKS:
            config, wrong = kinds.parsed(kind, {**entered, one.name: entered[one.name] + trick}, NOWHERE)
            if wrong:
                assert list(wrong) == [one.name]
                assert wrong[one.name].endswith((".", "…."))
                continue
            assert send(kind, message(), config).state is Ended.AGAIN
            assert set(internet.asked) == {host}
            assert "redirect" not in service.last.path
            assert "?verify" not in service.last.path
    assert service.connections == len(service.requests)


@pytest.mark.parametrize(
    ("kind", "entered", "says"),
    [
        (K.SLACK, {"url": "https://example.com/services/T0/B0/x"}, "This is not a Slack webhook."),
        (K.SLACK, {"url": "https://hooks.slack.com.evil.example/services/T0/B0/x"}, "This is not a Slack webhook."),
        (K.DISCORD, {"url": "https://discord.com/channels/1/2"}, "This is not a Discord webhook."),
        (K.TEAMS, {"url": "https://example.webhook.office.com/webhookb2/x"}, "This is not a workflow's address."),
        (
            K.TEAMS,
            {"url": TEAMS.replace("logic.azure.com", "logic.azure.com.evil.example")},
            "not a workflow's address",
        ),
        (K.TELEGRAM, {"token": "abc", "chat": "1"}, "A bot's token looks like"),
        (K.PUSHOVER, {"user": "u", "token": "t" * 30}, "30 letters and digits"),
        (K.NTFY, {"server": "ntfy.sh", "topic": "x"}, "Enter an address that begins with https://."),
        (K.NTFY, {"server": "https://ntfy.sh/topic", "topic": "x"}, "without a path"),
        (K.GOTIFY, {"server": "http://gotify.lan", "token": "A12345"}, "begins with https://"),
        (K.PAGERDUTY, {"key": "x", "region": "us"}, "32 letters and digits"),
        (K.PAGERDUTY, {"key": "k" * 32, "region": "mars"}, "Choose one of these."),
        (K.MATRIX, {"server": "https://m.example", "room": "#a:b", "token": "t" * 20}, "exclamation mark"),
        (K.EMAIL, {"addresses": "one@example.com, two"}, "“two” is not a valid email address."),
        (K.EMAIL, {"addresses": " , ".join(f"n{number}@example.com" for number in range(11))}, "up to 10 addresses"),
        (K.EMAIL, {"addresses": "one@example.com\r\nBcc: x@example.com"}, "is not a valid email address."),
        (K.WEBHOOK, {"url": "x" * 3000}, "longer than 2,000 characters"),
        (K.WEBHOOK, {}, "Fill this in."),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(kind: ChannelKind, entered: dict[str, str], says: str) -> None:
    _, wrong = kinds.parsed(kind, entered, NOWHERE)
    assert len(wrong) == 1
    assert says in next(iter(wrong.values()))


def test_addresses_as_the_services_show_them() -> None:
    for kind, url in (
        (K.DISCORD, "https://discordapp.com/api/webhooks/1/x"),
        (K.DISCORD, "https://ptb.discord.com/api/v10/webhooks/1/x"),
        (
            K.TEAMS,
            "https://default1.2.environment.api.powerplatform.com:443/powerautomate/automations/direct/workflows/ab/"
            "triggers/manual/paths/invoke?api-version=1&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=ab",
        ),
    ):
        assert kinds.parsed(kind, {"url": url}, NOWHERE)[1] == {}
    assert kinds.parsed(K.TELEGRAM, {"token": "bot123456:abcdefghij", "chat": "@costs"}, NOWHERE)[0] == {
        "token": "123456:abcdefghij",
        "chat": "@costs",
    }


def test_the_newer_kind_of_workflow_is_posted_to_as_it_is_shown(internet: Internet) -> None:
    host = "default1.2.environment.api.powerplatform.com"
    path = "/powerautomate/automations/direct/workflows/ab/triggers/manual/paths/invoke"
    path += "?api-version=1&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=ab"
    service = internet.machine(host)
    assert send(K.TEAMS, message(), {"url": f"https://{host}:443{path}"}).state is Ended.SENT
    assert service.last.path == path


@pytest.mark.parametrize("kind", ChannelKind)
def test_what_is_shown_has_no_secret(kind: ChannelKind) -> None:
    entered = ENTERED.get(kind, ("", {"url": "https://example.com/in/s3cr3t?k=s3cr3t", "addresses": "a@example.com"}))[
        1
    ]
    config, wrong = kinds.parsed(kind, entered, NOWHERE)
    assert wrong == {}
    shown = " ".join(KINDS[kind].shown(config).values())
    assert shown
    assert "s3cr3t" not in shown
    for one in KINDS[kind].fields:
        assert not one.secret or config.get(one.name, "-") not in shown


def test_secrets_left_empty_stay_unless_the_server_is_another() -> None:
    kept = config_of(K.NTFY)
    same = {"server": "https://ntfy.example.com", "topic": "", "token": ""}
    assert kinds.parsed(K.NTFY, same, NOWHERE, kept) == (kept, {})
    moved, wrong = kinds.parsed(K.NTFY, {**same, "server": "https://elsewhere.example.com"}, NOWHERE, kept)
    assert wrong == {"topic": "Enter this again: it was for another server."}
    assert "token" not in moved
    anew = {"server": "https://elsewhere.example.com", "topic": "t", "token": ""}
    assert kinds.parsed(K.NTFY, anew, NOWHERE, kept) == ({"server": anew["server"], "topic": "t"}, {})


# Letters


@pytest.fixture
def post_office() -> Iterator[PostOffice]:
    made = PostOffice()
    yield made
    made.close()


def by_mail(app: Flask, post_office: PostOffice, sent: Message, to: str = "one@example.com") -> sending.Outcome:
    app.extensions["settings"] = Settings.from_environ(
        {
            "GRAFIENT_SMTP_URL": post_office.url,
            "GRAFIENT_MAIL_FROM": "grafient@example.com",
            "GRAFIENT_HOSTS": "costs.example.com",
        }
    )
    config, wrong = kinds.parsed(K.EMAIL, {"addresses": to}, NOWHERE)
    assert wrong == {}
    return send(K.EMAIL, sent, config)


def test_a_letter_goes_to_all_addresses_and_says_what_it_is(app: Flask, post_office: PostOffice) -> None:
    assert by_mail(app, post_office, message(2), "one@example.com; two@example.com").state is Ended.SENT
    letter = post_office.last()
    assert (letter["Subject"], letter["From"]) == ("Budget “Team” is at 100 %", "grafient@example.com")
    assert letter["To"] == "one@example.com, two@example.com"
    assert (letter["Message-ID"], letter["Auto-Submitted"]) == ("<msg_1@costs.example.com>", "auto-generated")
    assert letter.get_content_type() == "text/plain"
    text = text_of(letter).replace("\r\n", "\n")
    assert "gpt-5.4 1\ngpt-5.4 cost $1.01\nDetails: https://g.example/a?x=1&y=1\n" in text
    assert text.rstrip().endswith("Sent for gpt-5.4.\nOpen Grafient: https://g.example/alerts")


@pytest.mark.parametrize("name", [*HOSTILE, "Subject\r\nBcc: evil@example.com\r\n\r\nbody", "x" * 5000, EMOJI * 100])
def test_nothing_in_a_name_is_a_header(app: Flask, post_office: PostOffice, name: str) -> None:
    assert by_mail(app, post_office, message(300, title=name, name=name)).state is Ended.SENT
    letter = post_office.last()
    assert letter["Bcc"] is None
    assert letter["To"] == "one@example.com"
    assert "\n" not in letter["Subject"]
    assert len(letter["Subject"]) <= 200
    shown = text_of(letter).count("g.example/a?")
    assert shown == 300 or f"… and {300 - shown} more: all in Grafient" in text_of(letter)


def test_what_a_mail_server_says_is_told_in_our_words(app: Flask, post_office: PostOffice) -> None:
    post_office.refuses = "550 one@example.com is no customer of ours"
    found = by_mail(app, post_office, message())
    assert (found.state, found.sentence) == (Ended.AGAIN, "The mail server answered 550 and did not take the letter.")
    post_office.close()
    assert by_mail(app, post_office, message()).sentence == "The mail server could not be reached."
    app.extensions["settings"] = Settings.from_environ({})
    assert "No mail server is set up" in send(K.EMAIL, message(), {"addresses": "one@example.com"}).sentence


# The rest


def test_digests_are_due_in_the_morning() -> None:
    def at(text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)

    wednesday = at("2026-11-25T06:59")
    assert store.next_summary(Summary.DAILY, wednesday) == at("2026-11-25T07:00")
    assert store.next_summary(Summary.DAILY, at("2026-11-25T07:00")) == at("2026-11-26T07:00")
    assert store.next_summary(Summary.WEEKLY, wednesday) == at("2026-11-30T07:00")
    assert store.next_summary(Summary.MONTHLY, wednesday) == at("2026-12-01T07:00")
    assert store.next_summary(Summary.MONTHLY, at("2026-12-31T08:00")) == at("2027-01-01T07:00")


def test_settings_that_apprise_refuses_are_said_to_be(internet: Internet) -> None:
    for kind, config in ((K.TELEGRAM, {"token": "x", "chat": "1"}), (K.TEAMS, {"url": "https://example.com"})):
        assert "Enter them again" in send(kind, message(), config).sentence
    assert internet.asked == []


def test_apprise_is_loaded_by_who_sends_and_by_nobody_else(tmp_path: Path) -> None:
    code = f"""
import sys
from grafient import create_app
from grafient.alerts.channels import store, sending
import grafient.jobs.worker
from tests.conftest import environ
create_app(environ("sqlite:////{tmp_path}/none.db", "redis://127.0.0.1:1", "http://127.0.0.1:1", {str(tmp_path)!r}))
assert not [name for name in sys.modules if name.split(".")[0] == "apprise"]
from grafient.alerts.channels import services
assert "apprise.plugins.slack" in sys.modules and "apprise.plugins.dbus" not in sys.modules
print("fine")
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.stdout == "fine\n", ended.stderr


def test_apprise_has_no_way_out_but_ours() -> None:
    """If it asked through anything but what stands in for requests, redirects would be followed and nothing checked."""
    from grafient.alerts.channels import services

    for name in ("discord", "gotify", "mattermost", "ntfy", "opsgenie", "pagerduty", "pushover", "slack", "telegram"):
        module: Any = getattr(services, name)
        assert isinstance(module.requests, services._Requests)
        text = Path(module.__file__).read_text()
        assert not re.search(r"^(import|from) (urllib3|http\.client|socket|httpx|aiohttp)", text, flags=re.M)
