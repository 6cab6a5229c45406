"""The kinds of channels: what each asks for, and what is wrong with what somebody entered. Pure.

Fields are checked here so strictly that nothing in them can change where a message goes, or how.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from email_validator import EmailNotValidError, validate_email

from grafient.config import AlertHosts
from grafient.states import ChannelKind

MOST_EMAILS = 10
MOST_CHARACTERS = 2000
"""Of one field."""

Check = Callable[[str, AlertHosts], str]


@dataclass(frozen=True)
class Field:
    """Something that a kind of channel asks for. ``check`` gives back what is kept of it, or raises ValueError with a
    sentence. ``secret``: it is never shown again, and one that is left empty stays as it is. ``choices``: what there is
    to choose from, the value before the label."""

    name: str
    label: str
    check: Check
    hint: str = ""
    secret: bool = False
    needed: bool = True
    choices: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of channel. ``shown``: what may be shown of one that is set up, by its label. ``gone``: the statuses with
    which the other end says that it is no longer there, so that trying again is of no use."""

    kind: ChannelKind
    label: str
    about: str
    fields: tuple[Field, ...]
    shown: Callable[[Mapping[str, str]], dict[str, str]]
    help_url: str = ""
    gone: frozenset[int] = field(default=frozenset({410}))


@dataclass(frozen=True)
class Place:
    """Where an address leads."""

    secure: bool
    host: str
    port: int | None
    path: str

    @property
    def base(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.secure else ''}://{host}{f':{self.port}' if self.port else ''}{self.path}"


_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_NUMBER = re.compile(r"\d+|0[xX][0-9A-Fa-f]*")
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*")
_QUERY = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")


def place(text: str, hosts: AlertHosts) -> Place:
    """Where an address leads that somebody gave. Raises ValueError with a sentence. Looks up no name: that is done each
    time something is sent, see ``guard``."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("This is not an address such as https://example.com.") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("Enter an address that begins with https://.")
    if "@" in parts.netloc or "\\" in text:
        raise ValueError("Leave out the user and password before the host.")
    if not text.isascii() or not text.isprintable() or " " in text or port == 0:
        raise ValueError("The address contains characters that no address has. Copy it again, in one piece.")
    if parts.fragment or not _PATH.fullmatch(parts.path) or not _QUERY.fullmatch(parts.query):
        raise ValueError("This is not an address such as https://example.com.")
    _check_host(host)
    secure = parts.scheme == "https"
    if not secure and not _may_be_plain(host, hosts):
        raise ValueError(
            "Enter an address that begins with https://. What is sent over http:// can be read on the way."
        )
    return Place(secure, host, port, parts.path)


def _check_host(host: str) -> None:
    try:
        ipaddress.ip_address(host.replace("%", " "))
    except ValueError:
        last = host.rstrip(".").rpartition(".")[2]
        if not _NAME.fullmatch(host) or len(host) > 253 or _NUMBER.fullmatch(last):
            raise ValueError("Enter the host as a name, such as example.com, or as an ordinary IP address.") from None


def _may_be_plain(host: str, hosts: AlertHosts) -> bool:
    """Whether the operator may have let it through. Which addresses a name has is looked at when something is sent."""
    try:
        return hosts.has(host, ipaddress.ip_address(host))
    except ValueError:
        return host in hosts.names or bool(hosts.networks)


def _server(text: str, hosts: AlertHosts) -> str:
    """A server, perhaps with the path that it is at."""
    if urlsplit(text).query:
        raise ValueError("Enter the server's address without what comes after a question mark.")
    found = place(text, hosts)
    if "%" in found.path or "//" in found.path or {".", ".."} & set(found.path.split("/")):
        raise ValueError("This is not the address of a server, such as https://example.com.")
    return found.base.rstrip("/")


def _root(text: str, hosts: AlertHosts) -> str:
    """A server that has no path."""
    found = _server(text, hosts)
    if urlsplit(found).path:
        raise ValueError("Enter the server's address without a path, such as https://example.com.")
    return found


def _webhook(text: str, hosts: AlertHosts) -> str:
    place(text, hosts)
    return text


def _of(pattern: str, sentence: str, *, at: int = 0) -> Check:
    """What is like this, as a whole; ``at``: the part of it that is kept."""
    compiled = re.compile(pattern)

    def check(text: str, _hosts: AlertHosts) -> str:
        found = compiled.fullmatch(text)
        if found is None:
            raise ValueError(sentence)
        return found[at]

    return check


def _one_of(*values: str) -> Check:
    return _of("|".join(map(re.escape, values)), "Choose one of these.")


def _emails(text: str, _hosts: AlertHosts) -> str:
    found = dict.fromkeys(_email(one) for one in re.split(r"[,;\s]+", text) if one)
    if not found:
        raise ValueError("Enter an email address.")
    if len(found) > MOST_EMAILS:
        raise ValueError(f"Enter up to {MOST_EMAILS} addresses.")
    return ", ".join(found)


def _email(text: str) -> str:
    try:
        return validate_email(text, check_deliverability=False, allow_smtputf8=False).normalized
    except EmailNotValidError:
        raise ValueError(f"“{text[:100]}” is not a valid email address.") from None


TEAMS = re.compile(
    r"https://(?P<host>[a-z0-9.-]+\.(?:logic\.azure\.com|logic\.azure\.us|api\.powerplatform\.com))(?::443)?"
    r"(?P<automate>/powerautomate/automations/direct(?:/cu/(?P<route>[A-Za-z0-9_-]+))?)?"
    r"/workflows/(?P<workflow>[A-Za-z0-9_-]+)/triggers/manual/paths/invoke/?\?(?P<query>[A-Za-z0-9._~=&%/-]+)"
)
MATTERMOST = re.compile(r"(?P<path>(?:/[A-Za-z0-9._~-]+)*)/hooks/(?P<token>[A-Za-z0-9]+)")


def _teams(text: str, _hosts: AlertHosts) -> str:
    found = TEAMS.fullmatch(text)
    query = parse_qs(found["query"]) if found else {}
    if not re.fullmatch(r"[A-Za-z0-9_-]+", query.get("sig", [""])[0]) or not re.fullmatch(
        r"[0-9-]+", query.get("api-version", [""])[0]
    ):
        raise ValueError(
            "This is not a workflow's address. Copy the one that Teams shows when a workflow “When a Teams webhook "
            "request is received” is saved; it has “/triggers/manual/paths/invoke?” in it."
        )
    return text


def _mattermost(text: str, hosts: AlertHosts) -> str:
    found = place(text, hosts)
    if not MATTERMOST.fullmatch(found.path) or urlsplit(text).query:
        raise ValueError("This is not an incoming webhook's address, such as https://mattermost.example.com/hooks/….")
    return found.base


def _host(config: Mapping[str, str], name: str) -> str:
    return urlsplit(config[name]).netloc


_TELEGRAM_CHAT = "Enter the chat's number, such as -1001234567890, or the name of a public channel, such as @costs."
_REGION = Field("region", "Region", _one_of("us", "eu"), choices=(("us", "US"), ("eu", "EU")))

KINDS: Mapping[ChannelKind, Kind] = {
    one.kind: one
    for one in (
        Kind(
            ChannelKind.EMAIL,
            "Email",
            "One letter to all of its addresses.",
            (Field("addresses", "Addresses", _emails, f"Up to {MOST_EMAILS}, with commas between them."),),
            lambda config: {"To": config["addresses"]},
        ),
        Kind(
            ChannelKind.SLACK,
            "Slack",
            "A Slack channel, through an incoming webhook.",
            (
                Field(
                    "url",
                    "Webhook URL",
                    _of(
                        r"https://hooks\.slack\.com/services/[A-Z0-9]+/[A-Z0-9]+/[A-Za-z0-9]+",
                        "This is not a Slack webhook. It begins with https://hooks.slack.com/services/ and has three "
                        "parts after that.",
                    ),
                    "In Slack's app settings: Incoming Webhooks, Add New Webhook.",
                    secret=True,
                ),
            ),
            lambda config: {"Address": "hooks.slack.com"},
            "https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks/",
            frozenset({404, 410}),
        ),
        Kind(
            ChannelKind.DISCORD,
            "Discord",
            "A Discord channel, through its webhook.",
            (
                Field(
                    "url",
                    "Webhook URL",
                    _of(
                        r"https://(?:canary\.|ptb\.)?discord(?:app)?\.com/api/(?:v\d+/)?webhooks/\d+/[A-Za-z0-9_-]+",
                        "This is not a Discord webhook. It begins with https://discord.com/api/webhooks/.",
                    ),
                    "In Discord: Edit Channel, Integrations, Webhooks, Copy Webhook URL.",
                    secret=True,
                ),
            ),
            lambda config: {"Address": "discord.com"},
            "https://support.discord.com/hc/en-us/articles/228383668",
            frozenset({404, 410}),
        ),
        Kind(
            ChannelKind.TEAMS,
            "Microsoft Teams",
            "A chat or channel in Teams, through a workflow.",
            (
                Field(
                    "url",
                    "Workflow URL",
                    _teams,
                    "In Teams: Workflows, “When a Teams webhook request is received”.",
                    secret=True,
                ),
            ),
            lambda config: {"Address": urlsplit(config["url"]).hostname or ""},
            "https://support.microsoft.com/en-us/office/8ae491c7-0394-4861-ba59-055e33f75498",
        ),
        Kind(
            ChannelKind.TELEGRAM,
            "Telegram",
            "A chat, group or channel that your own bot writes to.",
            (
                Field(
                    "token",
                    "Bot token",
                    _of(r"(?:bot)?(\d{3,20}:[A-Za-z0-9_-]{10,100})", "A bot's token looks like 123456:ABC….", at=1),
                    "@BotFather tells it.",
                    secret=True,
                ),
                Field(
                    "chat",
                    "Chat ID",
                    _of(r"-?\d{1,20}|@[A-Za-z][A-Za-z0-9_]{3,31}", _TELEGRAM_CHAT),
                    "The chat's number, or the name of a public channel with its @.",
                ),
            ),
            lambda config: {"Chat": config["chat"]},
            "https://core.telegram.org/bots/features#botfather",
            frozenset({401, 403, 404, 410}),
        ),
        Kind(
            ChannelKind.PUSHOVER,
            "Pushover",
            "Your phone, through the Pushover app.",
            (
                Field(
                    "user",
                    "User key",
                    _of(r"[A-Za-z0-9]{30}", "A user key has 30 letters and digits."),
                    "On your Pushover dashboard. A group's key works, too.",
                    secret=True,
                ),
                Field(
                    "token",
                    "API token",
                    _of(r"[A-Za-z0-9]{30}", "An application's API token has 30 letters and digits."),
                    "Of an application that you create at Pushover for Grafient.",
                    secret=True,
                ),
            ),
            lambda config: {"Address": "api.pushover.net"},
            "https://pushover.net/apps/build",
            frozenset({400, 410}),
        ),
        Kind(
            ChannelKind.NTFY,
            "ntfy",
            "Your phone, through ntfy.sh or a server of your own.",
            (
                Field("server", "Server", _root, "https://ntfy.sh, or the address of your own."),
                Field(
                    "topic",
                    "Topic",
                    _of(r"[A-Za-z0-9_-]{1,64}", "A topic has up to 64 letters, digits, _ and -."),
                    "Whoever knows a topic on ntfy.sh can read it: choose one that nobody guesses.",
                    secret=True,
                ),
                Field(
                    "token",
                    "Access token",
                    _of(r"tk_[A-Za-z0-9]{1,100}", "An access token begins with tk_."),
                    "If the topic is protected.",
                    secret=True,
                    needed=False,
                ),
            ),
            lambda config: {"Server": _host(config, "server"), "Topic": f"{config['topic'][:2]}…"},
            "https://docs.ntfy.sh",
        ),
        Kind(
            ChannelKind.GOTIFY,
            "Gotify",
            "Your phone, through a Gotify server of your own.",
            (
                Field("server", "Server", _server, "Its address, such as https://gotify.example.com."),
                Field(
                    "token",
                    "Application token",
                    _of(r"[A-Za-z0-9._-]{5,100}", "An application's token has letters, digits, dots, _ and -."),
                    "In Gotify: Apps, Create Application.",
                    secret=True,
                ),
            ),
            lambda config: {"Server": _host(config, "server")},
            "https://gotify.net/docs/pushmsg",
        ),
        Kind(
            ChannelKind.PAGERDUTY,
            "PagerDuty",
            "A service in PagerDuty: an incident for each alert, resolved when the alert is over.",
            (
                Field(
                    "key",
                    "Integration key",
                    _of(r"[A-Za-z0-9]{32}", "An integration key has 32 letters and digits."),
                    "Of an integration “Events API V2” of the service.",
                    secret=True,
                ),
                _REGION,
            ),
            lambda config: {"Region": config["region"].upper()},
            "https://support.pagerduty.com/docs/services-and-integrations",
        ),
        Kind(
            ChannelKind.OPSGENIE,
            "Opsgenie",
            "A team in Opsgenie: an alert there for each alert here, closed when it is over.",
            (
                Field(
                    "key",
                    "API key",
                    _of(r"[A-Za-z0-9-]{20,64}", "An API key has letters, digits and hyphens."),
                    "Of an integration “API” of the team.",
                    secret=True,
                ),
                _REGION,
            ),
            lambda config: {"Region": config["region"].upper()},
            "https://support.atlassian.com/opsgenie/docs/create-a-default-api-integration/",
        ),
        Kind(
            ChannelKind.MATRIX,
            "Matrix",
            "A room that an account for Grafient has joined.",
            (
                Field("server", "Homeserver", _root, "Where that account is, such as https://matrix.org."),
                Field(
                    "room",
                    "Room ID",
                    _of(
                        r"![A-Za-z0-9._~=/+-]{1,200}(?::[A-Za-z0-9.:\[\]-]{1,200})?",
                        "A room's ID begins with an exclamation mark, such as !abc:example.com.",
                    ),
                    "In the room's settings, under Advanced. The room can't be encrypted.",
                ),
                Field(
                    "token",
                    "Access token",
                    _of(
                        r"[A-Za-z0-9._~=+/-]{10,500}", "An access token is in one piece, of letters, digits and ._~=-."
                    ),
                    "Of the account that writes there.",
                    secret=True,
                ),
            ),
            lambda config: {"Server": _host(config, "server"), "Room": config["room"]},
            "https://spec.matrix.org/latest/client-server-api/",
        ),
        Kind(
            ChannelKind.MATTERMOST,
            "Mattermost",
            "A channel on your Mattermost server, through an incoming webhook.",
            (
                Field(
                    "url",
                    "Webhook URL",
                    _mattermost,
                    "In Mattermost: Integrations, Incoming Webhooks.",
                    secret=True,
                ),
            ),
            lambda config: {"Server": _host(config, "url")},
            "https://developers.mattermost.com/integrate/webhooks/incoming/",
        ),
        Kind(
            ChannelKind.WEBHOOK,
            "Webhook",
            "A program of your own: JSON, signed as Standard Webhooks describes.",
            (
                Field(
                    "url",
                    "URL",
                    _webhook,
                    "Grafient makes the secret that it signs with, and shows it once.",
                    secret=True,
                ),
            ),
            lambda config: {"Host": _host(config, "url")},
            "https://www.standardwebhooks.com",
        ),
    )
}


def parsed(
    kind: ChannelKind, values: Mapping[str, str], hosts: AlertHosts, kept: Mapping[str, str] | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """What is kept of a form, and what is wrong with it: a sentence by the name of the field. ``kept``: what there is
    of a channel that is changed; a secret that is left empty stays.

    A secret is for the server that it was entered for: who changes the server has to enter it again, or one admin
    could have the secret of another sent to a machine of their own.
    """
    found: dict[str, str] = {}
    wrong: dict[str, str] = {}
    for one in KINDS[kind].fields:
        text = values.get(one.name, "").strip()
        before = (kept or {}).get(one.name, "")
        if not text and one.secret and before:
            found[one.name] = before
        elif not text and one.needed:
            wrong[one.name] = "Fill this in."
        elif len(text) > MOST_CHARACTERS:
            wrong[one.name] = f"This is longer than {MOST_CHARACTERS:,} characters, so it can't be right."
        elif text:
            try:
                found[one.name] = one.check(text, hosts)
            except ValueError as error:
                wrong[one.name] = str(error)
    moved = kept is not None and not wrong and found.get("server") != kept.get("server")
    for one in KINDS[kind].fields:
        is_left = moved and one.secret and not values.get(one.name, "").strip()
        if is_left and found.pop(one.name, "") and one.needed:
            wrong[one.name] = "Enter this again: it was for another server."
    return found, wrong
