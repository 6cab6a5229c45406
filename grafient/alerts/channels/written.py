"""A message as a service wants it: escaped as its own markup asks for, and no longer than it takes. Pure.

A model can be called anything, such as ``<@here>``, ``[free](https://example.com)`` or ``@everyone``. Of what is not
Grafient's own, nothing is markup, nothing is a link with another text, and nobody is pinged.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from grafient.alerts.message import Item, Message
from grafient.states import ChannelKind

LONGEST_LINE = 300
"""Characters of a line before it is escaped, except in letters: no single line takes all the room there is."""
_TITLE = 200
_ZERO_WIDTH = "\u200b"


@dataclass(frozen=True)
class Text:
    """``title``: one line, plain, for services that have a place for it; ``body``: what stands below it, escaped."""

    title: str
    body: str


@dataclass(frozen=True)
class Style:
    """How a service is written for. ``most``: how much it takes, as ``size`` counts; ``with_title``: whether the title
    is the first line of the body; ``newline``: what begins another line there."""

    most: int
    escape: Callable[[str], str]
    link: Callable[[str, str], str]
    size: Callable[[str], int]
    with_title: bool = True
    newline: str = "\n"
    bold: Callable[[str], str] = field(default=str)


def utf16(text: str) -> int:
    """As Telegram and JavaScript count: an emoji is two."""
    return len(text.encode("utf-16-le")) // 2


def in_bytes(text: str) -> int:
    return len(text.encode())


def in_json(text: str) -> int:
    """Bytes of JSON in which everything outside of ASCII is escaped."""
    return len(json.dumps(text))


def _slack(text: str) -> str:
    """Slack's own three escapes, and a space without width beside what would make text bold or the like. Within a word,
    as in ``gpt_4_turbo``, that does nothing anyway."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"(?<!\w)[*_~`]|[*_~`](?!\w)", rf"{_ZERO_WIDTH}\g<0>{_ZERO_WIDTH}", escaped)


def _markdown(text: str) -> str:
    """For Discord, Mattermost and Teams. A ping is found before any escape is looked at, so the sign is torn from the
    name."""
    escaped = re.sub(r"[\\`*_~|\[\]()#]", r"\\\g<0>", text)
    escaped = re.sub(r"[@<&]", rf"\g<0>{_ZERO_WIDTH}", escaped)
    return re.sub(r"^(\s*)([-+>=]|\d+\.)", rf"\1{_ZERO_WIDTH}\2", escaped)


def _torn(text: str) -> str:
    """Where text is only text, but ``@room`` pings all the same."""
    return text.replace("@", f"@{_ZERO_WIDTH}")


def _plain(text: str) -> str:
    return text


def _named(label: str, url: str) -> str:
    return f"{label}: {url}"


_MARKDOWN = Style(4000, _markdown, lambda label, url: f"{label}: <{url}>", utf16, bold=lambda text: f"**{text}**")

STYLES: Mapping[ChannelKind, Style] = {
    ChannelKind.EMAIL: Style(1_000_000, _plain, _named, in_bytes, with_title=False),
    # Slack advises to stay below 4,000 characters. The title is the attachment's own.
    ChannelKind.SLACK: Style(
        3000, _slack, lambda label, url: f"<{url.replace('&', '&amp;')}|{label}>", utf16, with_title=False
    ),
    ChannelKind.DISCORD: Style(2000, _MARKDOWN.escape, _MARKDOWN.link, utf16, bold=_MARKDOWN.bold),
    # 28 KB for the whole card.
    ChannelKind.TEAMS: Style(
        16_000,
        _markdown,
        lambda label, url: f"[{label}]({url})",
        in_json,
        newline="\n\n",
        bold=_MARKDOWN.bold,
    ),
    ChannelKind.TELEGRAM: Style(
        4096,
        lambda text: _torn(html.escape(text)),
        lambda label, url: f'<a href="{html.escape(url)}">{label}</a>',
        utf16,
        bold=lambda text: f"<b>{text}</b>",
    ),
    ChannelKind.PUSHOVER: Style(1024, _plain, _named, utf16, with_title=False),
    # 4,096 bytes; the JSON that it travels in, title included, has to stay below 8,000, or it would come as a file.
    ChannelKind.NTFY: Style(
        4096, _plain, _named, lambda text: max(in_bytes(text), in_json(text) * 4096 // 5000), with_title=False
    ),
    ChannelKind.GOTIFY: Style(16_000, _plain, _named, in_bytes, with_title=False),
    # Of a single alert: the summary is the item's own title.
    ChannelKind.PAGERDUTY: Style(10_000, _plain, _named, in_bytes, with_title=False),
    ChannelKind.OPSGENIE: Style(15_000, _plain, _named, utf16, with_title=False),
    ChannelKind.MATRIX: Style(30_000, _torn, _named, in_json),
    ChannelKind.MATTERMOST: _MARKDOWN,
}


def written(kind: ChannelKind, message: Message) -> Text:
    """The message for a kind of channel; a webhook has another form, see ``webhooks``.

    What doesn't fit ends at an item, or, of the first one, at a line; the last line says how many more there are and
    where.
    """
    style = STYLES[kind]
    longest = None if kind is ChannelKind.EMAIL else LONGEST_LINE
    title = clipped(one_line(message.title), _TITLE)

    def line(text: str) -> str:
        return style.escape(one_line(text) if longest is None else clipped(one_line(text), longest))

    head = [style.bold(line(message.title))] if style.with_title else []
    head += [line(one) for one in message.lines]
    foot = [line(message.foot)] if message.foot else []
    blocks = [_block(one, style, line) for one in message.items]
    return Text(title, _fitted(head, blocks, foot, message, style))


def of_item(kind: ChannelKind, item: Item) -> Text:
    """A single item, for services that have an incident for each."""
    style = STYLES[kind]
    lines = [style.escape(clipped(one_line(one), LONGEST_LINE)) for one in item.lines]
    return Text(clipped(one_line(item.title), _TITLE), "\n".join(_until(lines, style.most, style)))


def one_line(text: str) -> str:
    """The text in one line, without what turns the direction of writing around: ``\\u202e`` before a sum would have its
    digits read backwards."""
    return " ".join("".join(" " if _breaks(letter) else letter for letter in text if letter not in _TURNS).split())


def clipped(text: str, most: int) -> str:
    """At most so many characters of a line, with an ellipsis in place of the rest; an emoji is left whole or out."""
    if len(text) <= most:
        return text
    end = most - 1
    while end > 0 and _belongs_together(text, end):
        end -= 1
    return text[:end].rstrip() + "…"


def _block(item: Item, style: Style, line: Callable[[str], str]) -> list[str]:
    links = [style.link("Details", _safe(item.link))] if item.link else []
    links += [style.link("Acknowledge", _safe(item.answer))] if item.answer else []
    return [style.bold(line(item.title)), *(line(one) for one in item.lines), *links]


def _fitted(head: list[str], blocks: list[list[str]], foot: list[str], message: Message, style: Style) -> str:
    link = [style.link("Open Grafient", _safe(message.link))] if message.link else []
    text = _joined([head, *blocks, [*foot, *link]], style)
    if style.size(text) <= style.most:
        return text
    for count in range(len(blocks) - 1, 0, -1):
        text = _joined([head, *blocks[:count], [_more(len(blocks) - count, message, style), *foot]], style)
        if style.size(text) <= style.most:
            return text
    more = [_more(len(blocks), message, style)] if blocks else ["…", *link]
    room = style.most - style.size(_joined([more], style)) - style.size(style.newline * 2)
    first = [*head, *(["", *blocks[0]] if blocks else [])]
    kept = _until(first, room, style)
    if blocks and len(kept) == len(first):
        more = [_more(len(blocks) - 1, message, style)] if len(blocks) > 1 else link
    return _joined([kept, more], style)


def _until(lines: list[str], most: int, style: Style) -> list[str]:
    """The first lines, as many as there is room for."""
    for count in range(len(lines), 0, -1):
        if style.size(style.newline.join(lines[:count])) <= most:
            return lines[:count]
    return []


def _joined(parts: list[list[str]], style: Style) -> str:
    """With an empty line between the parts."""
    return (style.newline * 2).join(style.newline.join(part) for part in parts if part)


def _more(count: int, message: Message, style: Style) -> str:
    return f"… and {count:,} more" + (f": {style.link('all in Grafient', _safe(message.link))}" if message.link else "")


def _safe(url: str) -> str:
    """An address of ours without what would end a link; it means the same."""
    return re.sub(r"[()<>|\[\]\\\"'`\s]", lambda found: quote(found[0]), url)


_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _breaks(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")


def _belongs_together(text: str, at: int) -> bool:
    """Whether the letters before and after this place are shown as one."""
    before, after = text[at - 1], text[at]
    if before == "\u200d" or after == "\u200d" or unicodedata.category(after).startswith("M"):
        return True
    if "\U0001f3fb" <= after <= "\U0001f3ff":
        return True
    flags = 0
    while at > flags and "\U0001f1e6" <= text[at - 1 - flags] <= "\U0001f1ff":
        flags += 1
    return flags % 2 == 1 and "\U0001f1e6" <= after <= "\U0001f1ff"
