"""Webhooks to programs of somebody's own, signed as Standard Webhooks says, so that its libraries verify them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from grafient.alerts.channels import guard
from grafient.alerts.message import Item, Message
from grafient.config import AlertHosts

PREFIX = "whsec_"
BOTH = timedelta(days=1)
"""How long after a rotation the secret before it signs as well."""


def new_secret() -> str:
    """A secret to sign with, as receivers keep it."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def rotated(config: Mapping[str, str], now: datetime) -> dict[str, str]:
    """The config with another secret."""
    return {
        **config,
        "secret": new_secret(),
        "old_secret": config["secret"],
        "old_until": (now + BOTH).isoformat(),
    }


def send(
    config: Mapping[str, str], message: Message, hosts: AlertHosts, *, now: datetime, seconds: float = guard.SECONDS
) -> guard.Answer:
    """Post the message. The id is the message's own, the same on each try. Raises guard.Unreached."""
    content = body(message)
    headers = {
        "Content-Type": "application/json",
        "webhook-id": message.uid,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signatures(config, message.uid, now, content),
    }
    return guard.exchange("POST", config["url"], hosts, headers=headers, content=content, seconds=seconds)


def body(message: Message) -> bytes:
    """What is posted: one call for a message, with all of its items, since the id stands for the whole."""
    data = {
        "title": message.title,
        "lines": list(message.lines),
        "foot": message.foot,
        "link": message.link,
        "items": [_item(one) for one in message.items],
    }
    found = {"type": message.type, "timestamp": message.at.astimezone(UTC).isoformat(), "data": data}
    return json.dumps(found, ensure_ascii=False, default=str).encode()


def signatures(config: Mapping[str, str], uid: str, now: datetime, content: bytes) -> str:
    """A signature for each secret that counts, the newest first."""
    keys = [config["secret"]]
    if config.get("old_until") and now < datetime.fromisoformat(config["old_until"]):
        keys.append(config["old_secret"])
    signed = f"{uid}.{int(now.timestamp())}.".encode() + content
    return " ".join(f"v1,{base64.b64encode(_signature(key, signed)).decode()}" for key in keys)


def _signature(secret: str, signed: bytes) -> bytes:
    return hmac.new(base64.b64decode(secret.removeprefix(PREFIX)), signed, hashlib.sha256).digest()


def _item(item: Item) -> dict[str, Any]:
    return {
        **item.data,
        "title": item.title,
        "lines": list(item.lines),
        "link": item.link,
        "answer": item.answer,
        "what": item.what,
        "key": item.key,
    }
