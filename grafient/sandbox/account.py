"""The accounts behind the stand-in: who they are, which keys they own, and what they spent on any day.

Pure and deterministic: a day's slices follow from (account, day) and from nothing else, so what was once
served never changes because time went on. Money is USD as an exact `Decimal`: token counts times list prices.

The calendar brings the events. In any 30 days in a row an account of the `standard` kind has at least one
spike on a working day, one weekend day without usage, one model launch, and one key deleted after it spent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from functools import cached_property, lru_cache
from hashlib import sha256
from random import Random
from typing import Literal
from uuid import NAMESPACE_URL, uuid5

from grafient.sandbox.catalog import FAMILIES, Family, Host, Offer, lineup
from grafient.sandbox.records import ZERO, ActivityRow, ApiKey, Member, Slice, Spender, Workspace, activity_rows

Kind = Literal["standard", "byok", "free", "empty", "today-only", "large", "many-keys", "hostile"]

CACHED_TOKENS_SINCE = date(2026, 10, 1)  # earlier rows don't carry the field at all
EVENT_EVERY_DAYS = 24  # plus up to six days of jitter: never more than 30 days apart
TRIAL_EVERY_DAYS = 28
TRIAL_SPENDS_DAYS = 18
TRIAL_LIVES_DAYS = 19
LARGE_ROWS_A_DAY = 335
MANY_KEYS_ROWS_A_DAY = 40
KEYS_OF_KIND: dict[Kind, int] = {"large": 250, "many-keys": 500}


@dataclass(frozen=True)
class Account:
    """One account at the provider. `seed` alone decides its spending; `name` gives it its ids.

    `time_column` and `counts_as_text` are the account's dialect in analytics: the day arrives as `date__day`
    or as `created_at__day`, counts as strings or as numbers.
    """

    name: str
    seed: str
    kind: Kind = "standard"
    organization_id: str | None = None
    time_column: Literal["date", "created_at"] = "date"
    counts_as_text: bool = True
    overdrawn: bool = False
    opened: date = date(2025, 11, 3)

    @cached_property
    def members(self) -> tuple[Member, ...]:
        names = ("Ada Quist", "Bo Lindgren", "Chidi Okafor") if self.organization_id else ("Ada Quist",)
        return tuple(Member(f"user_2{_digest(self.name, name)[:26]}", name) for name in names)

    @property
    def id(self) -> str:
        """What a key of this account reports as its `creator_user_id`."""
        return self.members[0].id

    @cached_property
    def workspaces(self) -> tuple[Workspace, ...]:
        """The default workspace first."""
        names = ("Default", "Data platform")
        return tuple(Workspace(str(uuid5(NAMESPACE_URL, f"{self.name}/{name}")), name) for name in names)

    @cached_property
    def _lasting_keys(self) -> tuple[ApiKey, ...]:
        if self.kind in KEYS_OF_KIND:
            return tuple(self._key(f"service-{number:03}") for number in range(KEYS_OF_KIND[self.kind]))
        if self.kind == "hostile":
            return tuple(self._key(name) for name in HOSTILE_NAMES)
        return (
            self._key("Production API", app="Support desk", monthly_limit=2_000),
            self._key("Staging", member=-1, app="Support desk"),
            self._key("Research notebook", member=1, app="Notebooks"),
            self._key("Old chatbot", disabled=True),
            self._key("Nightly batch", workspace=1, member=-1, app="Batch runner"),
        )

    def keys(self, day: date) -> tuple[ApiKey, ...]:
        """The inference keys that exist on `day`, disabled ones too."""
        if self.kind in KEYS_OF_KIND:
            return self._lasting_keys
        trial = self._trial(day)
        return self._lasting_keys + ((trial,) if trial.deleted is None or day < trial.deleted else ())

    def slices(self, day: date) -> tuple[Slice, ...]:
        """All usage of a settled day."""
        return () if self.kind == "today-only" else _slices(self, day)

    def slices_so_far(self, day: date) -> tuple[Slice, ...]:
        """What is known of `day` while it still runs: about half of what it will come to."""
        whole = _slices(self, day)
        return whole[: (len(whole) + 1) // 2]

    def rows(self, day: date) -> list[ActivityRow]:
        return activity_rows(self.slices(day))

    def _key(
        self,
        name: str,
        *,
        workspace: int = 0,
        member: int = 0,
        app: str = "",
        disabled: bool = False,
        monthly_limit: int | None = None,
        created: date | None = None,
        deleted: date | None = None,
    ) -> ApiKey:
        return ApiKey(
            name,
            _digest(self.name, "key", name),
            self.workspaces[workspace],
            self.members[member % len(self.members)],
            app or name,
            created or self.opened,
            deleted,
            disabled,
            monthly_limit,
        )

    def _trial(self, day: date) -> ApiKey:
        """The short-lived key of the 28 days around `day`."""
        offset = int(_digest(self.seed, "trial")[:4], 16) % TRIAL_EVERY_DAYS
        created = day - timedelta(days=(day.toordinal() + offset) % TRIAL_EVERY_DAYS)
        deleted = created + timedelta(days=TRIAL_LIVES_DAYS)
        return self._key(f"Trial {created}", app="Model trial", created=created, deleted=deleted)

    def _spenders(self, day: date) -> list[Spender]:
        production, staging, research, _, batch = self._lasting_keys
        spenders = [
            Spender(production, {"sonnet", "gpt", "gpt-mini", "haiku", "flash-lite"}, 0.62),
            Spender(staging, {"gpt-mini", "qwen-free", "embedding", "haiku"}, 0.16),
            Spender(research, {"sonnet", "gemini-pro", "gpt", "qwen-free"}, 0.3),
            Spender(batch, {"deepseek", "flash-lite", "llama", "mistral", "gemini-pro"}, 0.7),
        ]
        trial = self._trial(day)
        if (day - trial.created).days < TRIAL_SPENDS_DAYS:
            tried = {"sonnet", "gpt", "gemini-pro", "deepseek"}
            spenders.append(Spender(trial, tried, 0.05, only_newest=True))
        return spenders


@lru_cache(maxsize=4_000)
def _slices(account: Account, day: date) -> tuple[Slice, ...]:
    return tuple(_KINDS[account.kind](account, day))


def _standard(account: Account, day: date) -> Iterator[Slice]:
    if _event_day(account.seed, "quiet", day, (5, 6)):
        return
    draw = _dice(account, day)
    level = _level(account, day) * (0.88 + 0.24 * draw())
    culprit, factor = _spike(account.seed, day)
    spenders = account._spenders(day)
    for offer in lineup(day):
        spiking = offer.family.name == culprit
        demand = offer.family.requests * offer.share * level * _taste(account.seed, offer.family.name)
        demand *= factor if spiking else 1.0
        for host in offer.family.hosts:
            present = draw() < (0.95 if host.share >= 40 else 0.62)
            if present or spiking:
                yield from _endpoint(day, offer, host, spenders, demand * host.share / 100, draw)


def _endpoint(
    day: date, offer: Offer, host: Host, spenders: list[Spender], demand: float, draw: Callable[[], float]
) -> Iterator[Slice]:
    for spender in spenders:
        if offer.family.name not in spender.families or (spender.only_newest and not offer.newest):
            continue
        requests = int(demand * spender.share * (0.75 + 0.5 * draw()) + draw())
        if requests:
            yield _usage(day, offer, host, spender.key, requests, draw)


def _usage(day: date, offer: Offer, host: Host, key: ApiKey, requests: int, draw: Callable[[], float]) -> Slice:
    family = offer.family
    prompt = max(1, int(requests * family.prompt_tokens * (0.8 + 0.4 * draw())))
    completion = int(requests * family.completion_tokens * (0.8 + 0.4 * draw()))
    cached = _cached(family, prompt, draw)
    cost = max(0, prompt - cached) * offer.prompt_price + cached * offer.cached_price
    cost += completion * offer.completion_price
    byok = cost * host.byok / 100
    return Slice(
        day,
        offer.model,
        offer.permaslug,
        offer.endpoint_id(host),
        host.name,
        key,
        cost - byok,
        byok,
        requests,
        requests * host.byok // 100,
        prompt,
        completion,
        _reasoning(family, completion, draw),
        cached if day >= CACHED_TOKENS_SINCE else None,
    )


def _cached(family: Family, prompt: int, draw: Callable[[], float]) -> int:
    """Tokens read from the cache; once in a while more than the prompt had, as happens with replays."""
    if family.cached_price is None:
        return 0
    ratio = 0.25 + 0.4 * draw()
    return int(prompt * (1.03 if draw() < 0.01 else ratio))


def _reasoning(family: Family, completion: int, draw: Callable[[], float]) -> int:
    """Part of the completion tokens, yet in some rows a little more than all of them."""
    if not family.reasoning:
        return 0
    ratio = 0.35 + 0.4 * draw()
    return int(completion * (1.04 if draw() < 0.05 else ratio))


def _level(account: Account, day: date) -> float:
    """How busy the day is: 1.0 is a working day early in 2026, each year has 20 % more, weekends a third."""
    growth = 1.0 + 0.2 * ((day - date(2026, 1, 1)).days / 365.25)
    week = (1.0, 1.08, 1.1, 1.04, 0.9, 0.38, 0.33)[day.weekday()]
    size = 2.0 if account.seed == "lively" else 1.0 + 0.8 * _fraction(account.seed, "size")
    return min(3.0, max(0.3, growth)) * week * size


def _taste(seed: str, family: str) -> float:
    """How much an account likes a family, 0.6 to 1.4."""
    return 0.6 + 0.8 * _fraction(seed, "taste", family)


def _spike(seed: str, day: date) -> tuple[str, float]:
    """Which family runs wild on `day`, and how many times its usual traffic; none on most days."""
    if not _event_day(seed, "spike", day, (1, 2, 3)):
        return "", 1.0
    culprits = ("sonnet", "gpt", "gemini-pro")
    which = int(_fraction(seed, "culprit", day.isoformat()) * len(culprits))
    return culprits[which], 4.5 + 3.0 * _fraction(seed, "spike", day.isoformat())


def _event_day(seed: str, event: str, day: date, weekdays: tuple[int, ...]) -> bool:
    """Whether `event` falls on `day`: once in each 24 days, in their first week, on a fitting weekday."""
    phase = int(_fraction(seed, event) * EVENT_EVERY_DAYS)
    stretch, position = divmod(day.toordinal() + phase, EVENT_EVERY_DAYS)
    weekday = weekdays[int(_fraction(seed, event, str(stretch)) * len(weekdays))]
    return position < 7 and day.weekday() == weekday


def _byok(account: Account, day: date) -> Iterator[Slice]:
    for part in _standard(account, day):
        cost = part.usage + part.byok_usage_inference
        yield replace(part, usage=ZERO, byok_usage_inference=cost, byok_requests=part.requests)


def _free(account: Account, day: date) -> Iterator[Slice]:
    for part in _standard(account, day):
        model = part.model.removesuffix(":free") + ":free"
        yield replace(part, model=model, usage=ZERO, byok_usage_inference=ZERO, byok_requests=0)


def _empty(account: Account, day: date) -> Iterator[Slice]:
    return iter(())


def _large(account: Account, day: date) -> Iterator[Slice]:
    """About 10,000 rows in 30 days: many models at three hosts each, every endpoint with its own key."""
    draw = _dice(account, day)
    for number in range(LARGE_ROWS_A_DAY):
        offer, host = _large_offer(number)
        key = account._lasting_keys[number % len(account._lasting_keys)]
        yield _usage(day, offer, host, key, 1 + int(60 * draw()), draw)


def _many_keys(account: Account, day: date) -> Iterator[Slice]:
    """Few rows, each by another key; the next day goes on with the next keys, so that all spend in 30 days."""
    draw = _dice(account, day)
    for number in range(MANY_KEYS_ROWS_A_DAY):
        offer, host = _large_offer(number)
        turn = day.toordinal() * MANY_KEYS_ROWS_A_DAY + number
        key = account._lasting_keys[turn % len(account._lasting_keys)]
        yield _usage(day, offer, host, key, 1 + int(60 * draw()), draw)


@lru_cache(maxsize=LARGE_ROWS_A_DAY)
def _large_offer(number: int) -> tuple[Offer, Host]:
    family = FAMILIES[number % 7]
    slug = f"vendor-{number // 3 % 17:02}/model-{number // 3:03}"
    cached = family.cached_price or family.prompt_price
    offer = Offer(family, slug, slug, 1.0, family.prompt_price, family.completion_price, cached, newest=False)
    return offer, Host(("DeepInfra", "Together", "Azure")[number % 3], 100)


HOSTILE_NAMES: tuple[str, ...] = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    '=HYPERLINK("http://x")',
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@x",
    "\t=1+1",
    "long-" + "m" * 295,
    "🦄/模型-🚀",
    "\u202egnp.ledom/עברית",
    "comma, \"quoted\", 'single'; semicolon",
    "first line\nsecond line\r\nthird line",
    "'; DROP TABLE cost_lines; --",
    "{{ 7 * 7 }}${7*7}",
    "javascript:alert(1)",
    "../../etc/passwd",
    "  spaced  ",
)


def _hostile(account: Account, day: date) -> Iterator[Slice]:
    """Names that break pages, spreadsheets and keys; money and counts at the edges; one row twice."""
    key = account._lasting_keys[0]
    for number, name in enumerate(HOSTILE_NAMES):
        cost = Decimal(number * 7 + day.day).scaleb(-4)
        endpoint = str(uuid5(NAMESPACE_URL, name))
        yield _plain(day, key, name, endpoint, HOSTILE_NAMES[-1 - number], cost)
    yield _plain(day, key, "vendor/no-endpoint", "", "", Decimal("0.125"))
    yield _plain(day, key, "vendor/credit", "credit", "Refunds", Decimal("-0.25"))
    yield _plain(day, key, "vendor/all-digits", "digits", "Noise", Decimal("0.30000000000000004"))
    yield _plain(day, key, "vendor/tiny", "tiny", "Noise", Decimal("1E-7"))
    yield replace(_plain(day, key, "vendor/big", "big", "Bulk", Decimal("1234.5")), prompt_tokens=9_007_199_254_740_991)
    twice = _plain(day, key, "vendor/twice", "twice", "Echo", Decimal("0.01"))
    yield twice
    yield replace(twice, usage=Decimal("0.02"), repeat=1)


def _plain(day: date, key: ApiKey, name: str, endpoint: str, provider: str, usage: Decimal) -> Slice:
    cached = 10 if day >= CACHED_TOKENS_SINCE else None
    return Slice(day, name, name, endpoint, provider, key, usage, ZERO, 3, 0, 300, 40, 0, cached)


_KINDS: dict[Kind, Callable[[Account, date], Iterator[Slice]]] = {
    "standard": _standard,
    "byok": _byok,
    "free": _free,
    "empty": _empty,
    "today-only": _standard,
    "large": _large,
    "many-keys": _many_keys,
    "hostile": _hostile,
}


def _dice(account: Account, day: date) -> Callable[[], float]:
    """Draws from 0 to 1, the same for the same account and day under every version of Python."""
    return Random(int(_digest(account.seed, day.isoformat())[:16], 16)).random  # noqa: S311  # not a secret


@lru_cache(maxsize=20_000)
def _fraction(*parts: str) -> float:
    return int(_digest(*parts)[:8], 16) / 2**32


def _digest(*parts: str) -> str:
    return sha256("\x1f".join(parts).encode()).hexdigest()
