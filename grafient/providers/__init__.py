"""Who bills: the contract, and every provider that keeps it. A new one is a module here and a line below."""

from __future__ import annotations

from collections.abc import Mapping

from grafient.providers.contract import (
    Activity,
    BilledLine,
    Credits,
    DayReply,
    KeyCannotReadCosts,
    KeyInfo,
    KeyList,
    KeyRejected,
    ListedKey,
    NotOffered,
    Provider,
    ProviderError,
    Reader,
    ReceivedReply,
    UnexpectedResponse,
    Unreachable,
)
from grafient.providers.openrouter import OpenRouter

PROVIDERS: Mapping[str, type[OpenRouter]] = {OpenRouter.slug: OpenRouter}

__all__ = [
    "PROVIDERS",
    "Activity",
    "BilledLine",
    "Credits",
    "DayReply",
    "KeyCannotReadCosts",
    "KeyInfo",
    "KeyList",
    "KeyRejected",
    "ListedKey",
    "NotOffered",
    "Provider",
    "ProviderError",
    "Reader",
    "ReceivedReply",
    "UnexpectedResponse",
    "Unreachable",
]
