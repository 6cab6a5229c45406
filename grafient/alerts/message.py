"""What is sent to a channel: plain text and figures, before any service's own way of writing it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from grafient.states import Happened


@dataclass(frozen=True)
class Item:
    """One event of an incident, or one part of a digest.

    ``title``: one line; ``lines``: sentences below it. Both are plain text that may have anything in it that a model
    or key can be called: each channel escapes it in its own way. ``link``: the page about it; ``answer``: a link with
    which whoever has the message can say that they know, without signing in. ``data``: the figures for programs, with
    USD as strings; of an incident it has ``type`` (such as ``budget.opened``) and ``incident``.
    """

    title: str
    lines: Sequence[str] = ()
    link: str = ""
    answer: str = ""
    what: Happened | None = None
    key: str = ""
    """The same for all events of an incident, so that services that keep incidents of their own know it again."""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Message:
    """``uid``: the same each time that it is tried. ``title``: one line, as the subject of a letter. ``lines``: what
    comes before the items; ``foot``: what comes after them. ``type``: such as ``alerts``, ``digest`` or ``test``."""

    uid: str
    type: str
    title: str
    at: datetime
    items: Sequence[Item] = ()
    lines: Sequence[str] = ()
    foot: str = ""
    link: str = ""
    """Grafient's own page about all of it."""

    @property
    def is_good_news(self) -> bool:
        """Whether everything in it is over."""
        return bool(self.items) and all(one.what is Happened.RESOLVED for one in self.items)
