"""What accounts spend on: models, their hosts, their prices, and how all of it changes by the calendar.

Prices are USD per token. Everything follows from the day alone and holds for every account, as at a provider:
four families bring out a new generation every 112 days, 28 days after one another, so the last 30 days before
any day hold a launch; some generations become cheaper halfway through.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import lru_cache
from uuid import NAMESPACE_URL, uuid5

LAUNCH_EVERY_DAYS = 112
HANDOVER_DAYS = 28  # a new generation takes this long to win most of its family's traffic
RETIREMENT_DAYS = 60  # and after this many days nobody calls the old one any more


@dataclass(frozen=True, slots=True)
class Host:
    """One company that serves a model: `share` percent of its requests, `byok` percent of these BYOK."""

    name: str
    share: int
    byok: int = 0


@dataclass(frozen=True, slots=True)
class Family:
    """A line of models. `{v}` in a name is the generation's version, `{d}` and `{c}` its launch day."""

    name: str
    model: str
    permaslug: str
    hosts: tuple[Host, ...]
    requests: int
    prompt_tokens: int
    completion_tokens: int
    prompt_price: Decimal
    completion_price: Decimal
    cached_price: Decimal | None = None
    reasoning: bool = False
    first_launch: date | None = None
    first_version: int = 0
    cut_percent: int = 0


@dataclass(frozen=True, slots=True)
class Offer:
    """One model on one day: its names, its prices, and its share (0 to 1) of the family's traffic."""

    family: Family
    model: str
    permaslug: str
    share: float
    prompt_price: Decimal
    completion_price: Decimal
    cached_price: Decimal
    newest: bool

    def endpoint_id(self, host: Host) -> str:
        return _endpoint_id(self.permaslug, host.name)


@lru_cache(maxsize=2_000)
def _endpoint_id(permaslug: str, host: str) -> str:
    return str(uuid5(NAMESPACE_URL, f"https://sandbox.invalid/{permaslug}/{host}"))


def _usd(per_million_tokens: str) -> Decimal:
    return Decimal(per_million_tokens).scaleb(-6)


FAMILIES: tuple[Family, ...] = (
    Family(
        "sonnet", "anthropic/claude-sonnet-{v}", "anthropic/claude-{v}-sonnet-{c}",
        (Host("Anthropic", 60), Host("Google", 25), Host("Amazon Bedrock", 15)),
        230, 7_400, 620, _usd("3"), _usd("15"), _usd("0.3"),
        first_launch=date(2025, 5, 22), first_version=40,
    ),
    Family(
        "gemini-pro", "google/gemini-{v}-pro", "google/gemini-{v}-pro-{d}",
        (Host("Google", 65), Host("Google AI Studio", 35)),
        110, 9_500, 1_100, _usd("1.25"), _usd("10"), _usd("0.125"), reasoning=True,
        first_launch=date(2025, 6, 19), first_version=25,
    ),
    Family(
        "deepseek", "deepseek/deepseek-chat-v{v}", "deepseek/deepseek-chat-v{v}-{d}",
        (Host("DeepInfra", 45), Host("Together", 25), Host("Novita/fp8", 20), Host("Fireworks", 10)),
        900, 5_200, 700, _usd("0.27"), _usd("1.1"), _usd("0.0675"), cut_percent=40,
        first_launch=date(2025, 7, 17), first_version=31,
    ),
    Family(
        "gpt", "openai/gpt-{v}", "openai/gpt-{v}-{d}",
        (Host("OpenAI", 70), Host("Azure", 30)),
        210, 5_800, 1_250, _usd("1.25"), _usd("10"), _usd("0.125"), reasoning=True, cut_percent=20,
        first_launch=date(2025, 8, 14), first_version=50,
    ),
    Family(
        "gpt-mini", "openai/gpt-4.1-mini", "openai/gpt-4.1-mini-2025-04-14",
        (Host("OpenAI", 80), Host("Azure", 20)),
        620, 2_900, 240, _usd("0.4"), _usd("1.6"), _usd("0.1"),
    ),
    Family(
        "flash-lite", "google/gemini-2.5-flash-lite", "google/gemini-2.5-flash-lite",
        (Host("Google AI Studio", 70), Host("Google", 30)),
        1_400, 2_200, 130, _usd("0.1"), _usd("0.4"), _usd("0.025"),
    ),
    Family(
        "haiku", "anthropic/claude-haiku-4.5", "anthropic/claude-4.5-haiku-20251001",
        (Host("Anthropic", 70), Host("Amazon Bedrock", 30, byok=35)),
        260, 3_600, 310, _usd("1"), _usd("5"), _usd("0.1"),
    ),
    Family(
        "llama", "meta-llama/llama-3.3-70b-instruct", "meta-llama/llama-3.3-70b-instruct",
        (Host("DeepInfra", 50), Host("Together", 30), Host("Groq", 20)),
        480, 1_900, 330, _usd("0.038"), _usd("0.12"),
    ),
    Family(
        "mistral", "mistralai/mistral-medium-3.1", "mistralai/mistral-medium-3.1",
        (Host("Mistral", 100, byok=100),),
        170, 3_100, 420, _usd("0.4"), _usd("2"),
    ),
    Family(
        "qwen-free", "qwen/qwen3-coder:free", "qwen/qwen3-coder-480b-a35b-07-25",
        (Host("Chutes", 100),),
        90, 6_300, 900, _usd("0"), _usd("0"),
    ),
    Family(
        "embedding", "openai/text-embedding-3-small", "openai/text-embedding-3-small",
        (Host("OpenAI", 100),),
        2, 5, 0, _usd("0.02"), _usd("0"),
    ),
)  # fmt: skip


def lineup(day: date) -> Iterator[Offer]:
    """Every model that is called on `day`: two generations of a family while one replaces the other."""
    for family in FAMILIES:
        if family.first_launch is None:
            yield _offer(family, family.model, family.permaslug, 1.0, 0, newest=False)
        else:
            yield from _generations(family, family.first_launch, day)


def _generations(family: Family, first_launch: date, day: date) -> Iterator[Offer]:
    generation, age = divmod((day - first_launch).days, LAUNCH_EVERY_DAYS)
    share = 1.0 if age >= RETIREMENT_DAYS else 0.9 * min(1.0, (age + 1) / HANDOVER_DAYS)
    yield _launched(family, generation, share, age, day)
    if share < 1.0:
        yield _launched(family, generation - 1, 1.0 - share, age + LAUNCH_EVERY_DAYS, day)


def _launched(family: Family, generation: int, share: float, age: int, day: date) -> Offer:
    version = max(1, family.first_version + generation)
    launch = day - timedelta(days=age)
    names = {"v": f"{version // 10}.{version % 10}", "d": launch.isoformat(), "c": f"{launch:%Y%m%d}"}
    cut = family.cut_percent if age >= LAUNCH_EVERY_DAYS // 2 else 0
    model, permaslug = family.model.format(**names), family.permaslug.format(**names)
    return _offer(family, model, permaslug, share, cut, newest=age < LAUNCH_EVERY_DAYS)


def _offer(family: Family, model: str, permaslug: str, share: float, cut: int, *, newest: bool) -> Offer:
    keep = Decimal(100 - cut) / 100
    cached = family.prompt_price if family.cached_price is None else family.cached_price
    return Offer(
        family,
        model,
        permaslug,
        share,
        family.prompt_price * keep,
        family.completion_price * keep,
        cached * keep,
        newest,
    )
