"""Sending a message to a channel once, and what became of it.

What the other end says beside its status is neither shown nor logged: on an error page of somebody's own network it
would be told what there is.
"""

from __future__ import annotations

import json
import smtplib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime, parsedate_to_datetime
from enum import StrEnum
from urllib.parse import quote, urlsplit

from grafient import mail
from grafient.alerts.channels import guard, webhooks, written
from grafient.alerts.channels.kinds import KINDS
from grafient.alerts.message import Message
from grafient.config import AlertHosts
from grafient.extensions import settings
from grafient.states import ChannelKind

LONGEST_WAIT = timedelta(days=1)
"""How long somebody who is asked too much can have us wait."""


class Ended(StrEnum):
    """How a try ended."""

    SENT = "sent"
    AGAIN = "again"
    """Not sent; it is worth trying later."""
    GONE = "gone"
    """The other end says that it is no longer there: nothing can be sent until somebody looks at the channel."""


@dataclass(frozen=True)
class Outcome:
    """What became of a try. ``sentence``: for users, in our own words, without any secret. ``retry_after``: in how many
    seconds the other end wants to be asked again, if it said so."""

    state: Ended
    sentence: str
    retry_after: int | None = None


def send(kind: ChannelKind, config: Mapping[str, str], message: Message, *, now: datetime) -> Outcome:
    """Send the message; never raises for what the other end does. Needs the app's context, no transaction should be
    open, and any number of threads may call it at once. It takes ten seconds at most; PagerDuty and Opsgenie, which
    are sent each item by itself, 30, and a mail server that dawdles as long as it does with letters.

    A message may arrive twice: who answers after we have stopped listening has got it, and is sent it again.
    """
    if kind is ChannelKind.EMAIL:
        return _by_mail(config, message, now)
    hosts: AlertHosts = settings.alert_hosts
    try:
        if kind is ChannelKind.WEBHOOK:
            answer = webhooks.send(config, message, hosts, now=now)
        elif kind is ChannelKind.MATRIX:
            answer = _to_matrix(config, message, hosts)
        else:
            from grafient.alerts.channels import services

            answer = services.send(kind, config, message, hosts)
    except guard.Unreached as error:
        return Outcome(Ended.AGAIN, str(error))
    return outcome(kind, answer, now)


def outcome(kind: ChannelKind, answer: guard.Answer, now: datetime) -> Outcome:
    """What an answer means."""
    status, name = answer.status, KINDS[kind].label
    name = "The webhook" if kind is ChannelKind.WEBHOOK else name
    if 200 <= status < 300:
        return Outcome(Ended.SENT, "Sent.")
    if status in KINDS[kind].gone:
        return Outcome(Ended.GONE, f"{name} answered {status}: {_GONE.get(kind, _NO_LONGER)}")
    if status in (429, 502, 503, 504):
        why = "it is asked too often" if status == 429 else "it is out of order or overloaded"
        return Outcome(Ended.AGAIN, f"{name} answered {status}: {why}.", _retry_after(answer, now))
    return Outcome(Ended.AGAIN, f"{name} answered {status}: {_why(status)}")


_NO_LONGER = "it says that this address is gone for good."
_GONE: Mapping[ChannelKind, str] = {
    ChannelKind.SLACK: "the webhook no longer exists there, or its channel was archived.",
    ChannelKind.DISCORD: "the webhook no longer exists there.",
    ChannelKind.TELEGRAM: "the bot's token is not valid, or the bot may not write to this chat.",
    ChannelKind.PUSHOVER: "the user key or the API token is not valid.",
}


def _why(status: int) -> str:
    if 300 <= status < 400:
        return "it redirects somewhere else, where no alert is sent. Enter the address that it redirects to."
    if status in (401, 403):
        return "it does not accept what was entered to get in."
    if status == 404:
        return "nothing is at this address."
    if status < 500:
        return "it did not take the message."
    return "it had a fault of its own."


def _retry_after(answer: guard.Answer, now: datetime) -> int | None:
    """In how many seconds, LONGEST_WAIT at most; None where nothing, or nothing that can be read, is said."""
    text = answer.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        seconds = int(text[:9])
    else:
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now.timestamp())
    return max(0, min(seconds, int(LONGEST_WAIT.total_seconds())))


def _to_matrix(config: Mapping[str, str], message: Message, hosts: AlertHosts) -> guard.Answer:
    """One request of our own: the message's id is the transaction's, so that one that is tried again is not said twice,
    and Apprise can't be told an id."""
    path = (
        f"/_matrix/client/v3/rooms/{quote(config['room'], safe='')}/send/m.room.message/{quote(message.uid, safe='')}"
    )
    return guard.exchange(
        "PUT",
        config["server"] + path,
        hosts,
        headers={"Authorization": f"Bearer {config['token']}", "Content-Type": "application/json"},
        content=json.dumps({"msgtype": "m.text", "body": written.written(ChannelKind.MATRIX, message).body}).encode(),
    )


def _by_mail(config: Mapping[str, str], message: Message, now: datetime) -> Outcome:
    """One letter to all addresses, who see each other: they are told the same, and can answer each other."""
    if not mail.can_be_sent():
        return Outcome(Ended.AGAIN, "No mail server is set up. The operator of this Grafient can do that.")
    text = written.written(ChannelKind.EMAIL, message)
    letter = EmailMessage()
    letter["Subject"], letter["From"], letter["To"] = text.title, settings.mail_from, config["addresses"]
    letter["Date"] = format_datetime(now)
    letter["Message-ID"] = f"<{message.uid}@{urlsplit(settings.base_url).hostname}>"
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content(text.body + "\n")
    try:
        with mail.server() as post_office:
            refused = post_office.send_message(letter)
    except smtplib.SMTPRecipientsRefused:
        return Outcome(Ended.AGAIN, "The mail server refused every address.")
    except smtplib.SMTPResponseException as error:
        return Outcome(Ended.AGAIN, f"The mail server answered {error.smtp_code} and did not take the letter.")
    except (OSError, smtplib.SMTPException):
        return Outcome(Ended.AGAIN, "The mail server could not be reached.")
    if refused:
        every = len(letter["To"].addresses)
        return Outcome(Ended.SENT, f"Sent, but the mail server refused {len(refused)} of {every} addresses.")
    return Outcome(Ended.SENT, "Sent.")
