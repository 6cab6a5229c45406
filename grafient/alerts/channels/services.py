"""The services that Apprise knows how to write to. Loaded by a worker that has something to send, and by nobody else:
it takes 0.2 seconds.

Apprise knows what each service wants to be sent. How it gets there is not left to it: it follows redirects, connects
to whatever a name leads to, waits for each read anew, and logs what the other end said and sometimes the secret in an
address. So its services are made from our own checked fields, and not from one of its addresses, in which
``?verify=no`` and the like can be written; they are given text that is escaped and cut already; and in place of
``requests`` they have ``_Requests``, which sends through ``guard``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import requests
from apprise import AppriseAsset, NotifyFormat, NotifyType, PersistentStoreMode
from apprise.exception import AppriseImproperlyConfigured
from apprise.plugins import discord, gotify, mattermost, ntfy, opsgenie, pagerduty, pushover, slack, telegram, workflows
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from grafient.alerts.channels import guard, kinds, written
from grafient.alerts.message import Item, Message
from grafient.config import AlertHosts
from grafient.providers.http import within
from grafient.states import ChannelKind, Happened


@dataclass
class _Call:
    """What may be reached while a service sends, for how long, and what came back."""

    hosts: AlertHosts
    seconds: float
    answer: guard.Answer | None = None
    error: guard.Unreached | None = None
    asked: int = field(default=0)


_call: ContextVar[_Call] = ContextVar("call")
_OF_REQUESTS = ("content-length", "connection", "accept-encoding")
"""Headers that are about a connection, which is not the one that requests would have made."""


class _Adapter(BaseAdapter):
    """Sends what Apprise asks for through the guard, once: whatever it wants to do after a refusal, such as to wait and
    try again, is the outbox's business."""

    def send(self, request: requests.PreparedRequest, *_rest: Any, **_options: Any) -> requests.Response:
        call = _call.get()
        call.asked += 1
        if call.asked > 1:
            raise requests.ConnectionError("only one request for a message")
        content: Any = request.body or b""
        try:
            call.answer = guard.exchange(
                request.method or "POST",
                request.url or "",
                call.hosts,
                headers={
                    name: _text(value) for name, value in request.headers.items() if name.lower() not in _OF_REQUESTS
                },
                content=content.encode() if isinstance(content, str) else content,
                seconds=call.seconds,
            )
        except guard.Unreached as error:
            call.error = error
            raise requests.ConnectionError("not reached") from None
        found = requests.Response()
        found.status_code, found._content, found.request = call.answer.status, call.answer.body, request
        found.headers, found.url = CaseInsensitiveDict(), ""  # of those it would find how long to wait
        return found

    def close(self) -> None:
        pass


class _Requests:
    """What Apprise's modules have instead of ``requests``."""

    codes, RequestException = requests.codes, requests.RequestException

    def request(self, method: str, url: str, **options: Any) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            for scheme in ("https://", "http://"):
                session.mount(scheme, _Adapter())
            return session.request(method, url, **{**options, "allow_redirects": False})

    def __getattr__(self, method: str) -> Any:
        if method not in ("get", "post", "put", "delete"):
            raise AttributeError(method)
        return lambda url, **options: self.request(method.upper(), url, **options)


for _module in (discord, gotify, mattermost, ntfy, opsgenie, pagerduty, pushover, slack, telegram, workflows):
    vars(_module)["requests"] = _Requests()
logging.getLogger("apprise").disabled = True


def send(
    kind: ChannelKind,
    config: Mapping[str, str],
    message: Message,
    hosts: AlertHosts,
    seconds: float = guard.SECONDS,
) -> guard.Answer:
    """Send the message; the last answer. Raises guard.Unreached.

    PagerDuty and Opsgenie keep incidents of their own: of a message with several items each is sent by itself, under
    its key, and what is over is resolved there. A message that is sent again, since one of them failed, opens none
    twice.
    """
    try:
        if kind.keeps_alerts:
            send_one = _pagerduty if kind is ChannelKind.PAGERDUTY else _opsgenie
            with within(3 * seconds):
                return _each(send_one, config, message, hosts, seconds)
        return _whole(kind, config, message, hosts, seconds)
    except AppriseImproperlyConfigured:
        raise guard.Unreached(_UNUSABLE) from None


_UNUSABLE = "This channel's settings can't be used any more. Enter them again."


def _whole(
    kind: ChannelKind, config: Mapping[str, str], message: Message, hosts: AlertHosts, seconds: float
) -> guard.Answer:
    text = written.written(kind, message)
    service, title = _SERVICES[kind](config, message), text.title if not written.STYLES[kind].with_title else ""
    return _sent(service, title, text.body or text.title, _type(message), hosts, seconds)


MOST_ITEMS = 10
"""Incidents that a single message opens; more at once are one. What is over is closed however much it is."""


def _each(
    send_one: Callable[..., guard.Answer],
    config: Mapping[str, str],
    message: Message,
    hosts: AlertHosts,
    seconds: float,
) -> guard.Answer:
    answer = None
    for item in _items(message):
        answer = send_one(config, item, message, hosts, seconds)
        if not 200 <= answer.status < 300:
            break
    assert answer is not None
    return answer


def _items(message: Message) -> Iterator[Item]:
    """What is sent by itself. A message without items, such as a test, is one, and so are all that are too many."""
    found = [one for one in message.items if one.key]
    over = [one for one in found if one.what is Happened.RESOLVED]
    new = [one for one in found if one.what is not Happened.RESOLVED]
    yield from new[:MOST_ITEMS]
    yield from over
    if not found:
        lines = [*message.lines, *(one.title for one in message.items)][:20]
        yield Item(message.title, lines, message.link, key=message.uid)
    elif len(new) > MOST_ITEMS:
        yield Item(f"… and {len(new) - MOST_ITEMS:,} more alerts", (), message.link, key=message.uid)


def _pagerduty(
    config: Mapping[str, str], item: Item, message: Message, hosts: AlertHosts, seconds: float
) -> guard.Answer:
    is_over = item.what is Happened.RESOLVED
    text = written.of_item(ChannelKind.PAGERDUTY, item)
    details = {"Details": text.body} if text.body else {}
    if item.answer:
        details["Acknowledge"] = item.answer
    service = pagerduty.NotifyPagerDuty(
        apikey=config["key"],  # it is sent along and not looked at: the routing key is in the event
        integrationkey=config["key"],
        region_name=config["region"],
        source="Grafient",
        component="costs",
        include_image=False,
        click=item.link or message.link or None,
        details=details,
        severity="warning" if item.what is not None else "info",
        action="resolve" if is_over else "trigger",
        dedup=item.key,
        asset=_ASSET,
    )
    return _sent(service, "", text.title, _type(message), hosts, seconds)


def _opsgenie(
    config: Mapping[str, str], item: Item, message: Message, hosts: AlertHosts, seconds: float
) -> guard.Answer:
    text = written.of_item(ChannelKind.OPSGENIE, item)
    if item.what is Happened.RESOLVED:
        # Apprise closes only what the same process has opened, by ids that it keeps in memory; the alias is enough.
        host = "api.eu.opsgenie.com" if config["region"] == "eu" else "api.opsgenie.com"
        return guard.exchange(
            "POST",
            f"https://{host}/v2/alerts/{quote(item.key, safe='')}/close?identifierType=alias",
            hosts,
            headers={"Authorization": f"GenieKey {config['key']}", "Content-Type": "application/json"},
            content=b'{"source":"Grafient"}',
            seconds=seconds,
        )
    links = "\n".join(one for one in (item.link, item.answer) if one)
    service = opsgenie.NotifyOpsgenie(
        apikey=config["key"],
        targets=None,
        region_name=config["region"],
        alias=item.key,
        priority="3" if item.what is not None else "5",
        action="new",
        asset=_ASSET,
    )
    return _sent(
        service, text.title, "\n".join(filter(None, (text.body, links))) or text.title, _type(message), hosts, seconds
    )


def _sent(service: Any, title: str, body: str, how: NotifyType, hosts: AlertHosts, seconds: float) -> guard.Answer:
    """Have a service send what is written already. ``body_passthrough`` is what Apprise calls text that nobody said the
    format of, and does more with."""
    with _calling(hosts, seconds) as call:
        service.send(
            body=body,
            title=title,
            notify_type=how,
            body_format=NotifyFormat.HTML if isinstance(service, telegram.NotifyTelegram) else _format(service),
            body_passthrough=False,
        )
    if call.error is not None:
        raise call.error
    if call.answer is None:
        raise guard.Unreached(_UNUSABLE)
    return call.answer


def _format(service: Any) -> NotifyFormat:
    return NotifyFormat.MARKDOWN if isinstance(service, slack.NotifySlack) else NotifyFormat.TEXT


@contextmanager
def _calling(hosts: AlertHosts, seconds: float) -> Iterator[_Call]:
    call = _Call(hosts, seconds)
    token = _call.set(call)
    try:
        yield call
    finally:
        _call.reset(token)


def _type(message: Message) -> NotifyType:
    if message.is_good_news:
        return NotifyType.SUCCESS
    return NotifyType.WARNING if any(one.what is not None for one in message.items) else NotifyType.INFO


_ASSET = AppriseAsset(
    app_id="Grafient",
    app_desc="Grafient",
    app_url="",
    http_redirects=False,
    storage_mode=PersistentStoreMode.MEMORY,
    allow_templates=False,
    image_url_mask=None,
    image_url_logo=None,
)


def _slack(config: Mapping[str, str], _message: Message) -> Any:
    a, b, c = config["url"].rsplit("/", 3)[1:]
    return slack.NotifySlack(
        token_a=a, token_b=b, token_c=c, include_image=False, include_footer=False, use_blocks=False, asset=_ASSET
    )


def _discord(config: Mapping[str, str], _message: Message) -> Any:
    webhook_id, token = config["url"].rsplit("/", 2)[1:]
    return discord.NotifyDiscord(webhook_id=webhook_id, webhook_token=token, avatar=False, asset=_ASSET)


def _teams(config: Mapping[str, str], _message: Message) -> Any:
    found = kinds.TEAMS.fullmatch(config["url"])
    if found is None:
        raise guard.Unreached(_UNUSABLE)
    query = parse_qs(found["query"])
    return workflows.NotifyWorkflows(
        workflow=found["workflow"],
        signature=query["sig"][0],
        version=query["api-version"][0],
        power_automate=bool(found["automate"]),
        routing_id=found["route"],
        include_image=False,
        host=found["host"],
        secure=True,
        asset=_ASSET,
    )


def _telegram(config: Mapping[str, str], _message: Message) -> Any:
    return telegram.NotifyTelegram(
        bot_token=config["token"], targets=[config["chat"]], detect_owner=False, include_image=False, asset=_ASSET
    )


def _pushover(config: Mapping[str, str], message: Message) -> Any:
    return pushover.NotifyPushover(
        user_key=config["user"], token=config["token"], supplemental_url=message.link or None, asset=_ASSET
    )


def _ntfy(config: Mapping[str, str], message: Message) -> Any:
    token = config.get("token")
    return ntfy.NotifyNtfy(
        targets=[config["topic"]],
        mode="private",
        token=token,
        auth="token" if token else None,
        click=message.link or None,
        include_image=False,
        asset=_ASSET,
        **_at(config["server"]),
    )


def _gotify(config: Mapping[str, str], _message: Message) -> Any:
    return gotify.NotifyGotify(token=config["token"], asset=_ASSET, **_at(config["server"]))


def _mattermost(config: Mapping[str, str], _message: Message) -> Any:
    base, _, token = config["url"].rpartition("/hooks/")
    return mattermost.NotifyMattermost(token=token, include_image=False, asset=_ASSET, **_at(base))


def _at(server: str) -> dict[str, Any]:
    """A server as Apprise takes it. An address in IPv6 has its brackets, since it is put into an address as it is."""
    parts = urlsplit(server)
    host = parts.hostname or ""
    return {
        "host": f"[{host}]" if ":" in host else host,
        "port": parts.port,
        "secure": parts.scheme == "https",
        "fullpath": f"{parts.path.rstrip('/')}/",
    }


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


_SERVICES: Mapping[ChannelKind, Callable[[Mapping[str, str], Message], Any]] = {
    ChannelKind.SLACK: _slack,
    ChannelKind.DISCORD: _discord,
    ChannelKind.TEAMS: _teams,
    ChannelKind.TELEGRAM: _telegram,
    ChannelKind.PUSHOVER: _pushover,
    ChannelKind.NTFY: _ntfy,
    ChannelKind.GOTIFY: _gotify,
    ChannelKind.MATTERMOST: _mattermost,
}
