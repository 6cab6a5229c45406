"""Whatever address a user gives, nothing but the public Internet and what the operator lets through is reached."""

from __future__ import annotations

import ipaddress
import threading
import time

import pytest

from grafient.alerts.channels import guard, kinds
from grafient.alerts.channels.guard import Unreached
from grafient.config import AlertHosts, ConfigError, Settings
from grafient.states import ChannelKind
from tests.alerts.stand_ins import Internet, Reply

NOWHERE = AlertHosts()


def lets_through(text: str) -> AlertHosts:
    return Settings.from_environ({"GRAFIENT_ALERT_HOSTS": text}).alert_hosts


def post(url: str, hosts: AlertHosts = NOWHERE, seconds: float = 5) -> guard.Answer:
    return guard.exchange("POST", url, hosts, headers={}, content=b"{}", seconds=seconds)


def test_a_public_host_is_reached_at_the_address_that_was_checked(internet: Internet) -> None:
    machine = internet.machine("hooks.example.com", "93.184.216.34")
    assert post("https://hooks.example.com/in?x=1").status == 200
    assert (internet.asked, internet.reached) == (["hooks.example.com"], ["93.184.216.34"])
    assert (machine.last.host, machine.last.path) == ("hooks.example.com", "/in?x=1")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "0", "0.0.0.0", "10.0.0.1",
        "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1",
        "192.0.2.1", "198.18.0.1", "192.88.99.1", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]",
        "[::127.0.0.1]", "[fe80::1]", "[fc00::1]", "[fec0::1]", "[ff02::1]", "[64:ff9b::7f00:1]",
        "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]", "[2001:db8::1]",
    ],
)  # fmt: skip
def test_no_spelling_of_an_address_within_reaches_anything(internet: Internet, host: str) -> None:
    for scheme in ("https", "http"):
        with pytest.raises(Unreached):
            post(f"{scheme}://{host}/")
    assert internet.reached == []


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:10.0.0.1", "169.254.169.254", "fd00::1"])
def test_nor_does_a_name_that_leads_there(internet: Internet, address: str) -> None:
    internet.answers("inside.example.com", [address])
    internet.answers("both.example.com", ["93.184.216.34", address])
    for name in ("inside", "both"):
        with pytest.raises(Unreached, match="is not on the public Internet"):
            post(f"https://{name}.example.com/")
    assert internet.reached == []


def test_a_name_that_changes_after_the_check_reaches_nothing_else(internet: Internet) -> None:
    internet.machine("turns.example.com", "93.184.216.34")
    within = internet.machine("within.example.com", "127.0.0.1", plain=True)
    internet.answers("turns.example.com", ["93.184.216.34"], ["127.0.0.1"])
    assert post("https://turns.example.com/").status == 200
    assert internet.reached == ["93.184.216.34"]
    with pytest.raises(Unreached):
        post("https://turns.example.com/")
    assert (internet.reached, within.connections) == (["93.184.216.34"], 0)


def test_that_holds_with_many_threads_at_once(internet: Internet) -> None:
    machine = internet.machine("busy.example.com", "93.184.216.34")
    internet.answers("inside.example.com", ["127.0.0.1"])
    ended: list[object] = []

    def ask(name: str) -> None:
        try:
            ended.append(post(f"https://{name}.example.com/").status)
        except Unreached:
            ended.append("refused")

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("busy", "inside") * 10]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(map(str, ended)) == ["200"] * 10 + ["refused"] * 10
    assert (set(internet.reached), machine.connections) == ({"93.184.216.34"}, 10)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(internet: Internet, status: int) -> None:
    machine = internet.machine("moved.example.com")
    within = internet.machine("within.example.com", "127.0.0.1", plain=True)
    machine.reply = Reply(status, {"Location": "http://127.0.0.1/"})
    assert post("https://moved.example.com/").status == status
    assert (machine.connections, within.connections) == (1, 0)


@pytest.mark.parametrize(
    ("allowed", "url"),
    [
        ("ntfy.lan", "http://ntfy.lan:8080/"),
        ("NTFY.lan, 10.9.0.0/16", "http://ntfy.lan/"),
        ("192.168.0.0/16", "http://ntfy.lan/"),
        ("192.168.7.7", "http://192.168.7.7/"),
    ],
)
def test_what_the_operator_lets_through_is_reached(internet: Internet, allowed: str, url: str) -> None:
    machine = internet.machine("ntfy.lan", "192.168.7.7", plain=True)
    assert post(url, lets_through(allowed)).status == 200
    assert machine.connections == 1
    with pytest.raises(Unreached, match="GRAFIENT_ALERT_HOSTS"):
        post(url)


def test_a_network_that_is_let_through_opens_no_other(internet: Internet) -> None:
    internet.answers("inside.example.com", ["10.0.0.1"])
    with pytest.raises(Unreached):
        post("https://inside.example.com/", lets_through("192.168.0.0/16"))
    internet.machine("public.example.com", plain=True)
    with pytest.raises(Unreached, match="over https:// only"):
        post("http://public.example.com/", lets_through("192.168.0.0/16"))
    assert internet.reached == []


@pytest.mark.parametrize("text", ["http://ntfy.lan", "ntfy.lan:80", "192.168.0.1/16", ".lan", "a b", "*.lan", "1.2.3"])
def test_a_setting_that_says_nothing_clear_stops_the_start(text: str) -> None:
    with pytest.raises(ConfigError, match="GRAFIENT_ALERT_HOSTS has"):
        lets_through(text)


def test_the_certificate_is_verified_for_the_name(internet: Internet) -> None:
    machine = internet.machine("somewhere.else.test")
    with pytest.raises(Unreached, match=r"certificate of somewhere\.else\.test is not valid"):
        post("https://somewhere.else.test/")
    assert machine.requests == []


def test_a_server_that_drips_is_left_on_time(internet: Internet) -> None:
    internet.machine("slow.example.com").reply = Reply(drip=0.05)
    began = time.monotonic()
    with pytest.raises(Unreached, match="did not answer within 1 seconds"):
        post("https://slow.example.com/", seconds=0.5)
    assert time.monotonic() - began < 1.5


def test_a_name_server_that_does_not_answer_is_left_on_time(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lambda *_of, **_named: time.sleep(2))
    began = time.monotonic()
    with pytest.raises(Unreached, match="did not answer"):
        post("https://slow.example.com/", seconds=0.3)
    assert time.monotonic() - began < 1


def test_of_a_long_answer_only_the_beginning_is_read(internet: Internet) -> None:
    machine = internet.machine("talks.example.com")
    machine.reply = Reply(500, body=b"<html>" * 5_000_000)
    found = post("https://talks.example.com/")
    assert (found.status, len(found.body), machine.heard_out) == (500, guard.MOST_BYTES, 0)
    assert "html" not in repr(found)


def test_the_addresses_of_a_host_are_tried_in_turn(internet: Internet) -> None:
    machine = internet.machine("two.example.com", "93.184.216.34")
    internet.answers("two.example.com", ["93.184.216.33", "93.184.216.34"])
    assert post("https://two.example.com/").status == 200
    assert (internet.reached, machine.connections) == (["93.184.216.33", "93.184.216.34"], 1)


@pytest.mark.parametrize("text", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_public(text: str) -> None:
    assert guard.is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/", "ftp://hooks.example.com/", "//hooks.example.com", "hooks.example.com",
        "https://user:pass@hooks.example.com/", "https://user@hooks.example.com/", "https://@hooks.example.com/",
        "https://hooks.example.com\\@127.0.0.1/", "https://127.0.0.1\\@hooks.example.com/", "https://a b.example.com/",
        "https://hooks.example.com/\r\nX: y", "https://hooks.example.com/#x", "https://2130706433/", "https://0x7f.1/",
        "https://127.1/", "https://0177.0.0.1/", "https://[::1%25lo]/", "https://hooks.example.com:0/",
        "https://hooks.example.com:99999/", "https://hooks.éxample.com/", "https:///path", "https://a..b/",
        "https://-a.example.com/", "https://[::1/", "javascript:alert(1)", "https://hooks.example.com/<x>",
    ],
)  # fmt: skip
def test_addresses_that_are_none_are_refused_with_a_sentence(url: str) -> None:
    found, wrong = kinds.parsed(ChannelKind.WEBHOOK, {"url": url}, NOWHERE)
    assert (found, list(wrong)) == ({}, ["url"])
    assert wrong["url"].endswith(".")


def test_others_are_taken_and_plain_http_only_where_the_operator_said_so() -> None:
    for url in ("https://hooks.example.com", "https://hooks.example.com:8443/a/b?c=d%20e", "https://[2606:4700::1]/x"):
        assert kinds.parsed(ChannelKind.WEBHOOK, {"url": f" {url} "}, NOWHERE) == ({"url": url}, {})
    for url, allowed in (("http://ntfy.lan/x", "ntfy.lan"), ("http://10.1.1.1/", "10.0.0.0/8")):
        assert kinds.parsed(ChannelKind.WEBHOOK, {"url": url}, lets_through(allowed)) == ({"url": url}, {})
        assert "https://" in kinds.parsed(ChannelKind.WEBHOOK, {"url": url}, lets_through("other.lan"))[1]["url"]
