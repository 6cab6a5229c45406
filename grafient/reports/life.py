"""The life of one model, host or API key: what it cost each day, at which price, and what that is made of."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal

from sqlalchemy import select

from grafient import coverage
from grafient.coverage import Coverage, Known
from grafient.days import Period
from grafient.extensions import db
from grafient.models import UNATTRIBUTED, Integration, Model, Series
from grafient.query import MOST_CHOICES, Group, Query, all_integrations
from grafient.reports import chart, parts, sums
from grafient.reports.chart import Chart, Step
from grafient.reports.parts import MOST_PARTS, Parts
from grafient.reports.sums import COUNTS, MeasuredDay, Measures, Tally, added, added_usd, share

EVER = Period(date(2000, 1, 1), date(2200, 12, 31))

PRICE_CHANGE = Decimal("0.05")
"""A price that differs by more from the one before is marked."""

MOST_DAYS_BY_WEEK = 26 * 7
_MILLION = 1_000_000


@dataclass(frozen=True)
class Rates:
    """What is worked out of measures. None where a part is unknown, and where it would be a division by nothing.

    The provider bills one amount for prompt and completion, so there is one price for both.
    """

    usd_per_million: Decimal | None
    """Prompt and completion tokens."""
    usd_per_request: Decimal | None
    cached: Decimal | None
    """Of the prompt tokens, 0 to 1."""
    reasoning: Decimal | None
    """Of the completion tokens, 0 to 1."""

    @classmethod
    def of(cls, measures: Measures) -> Rates:
        price = _ratio(measures.usage_usd, _whole(added([measures.prompt_tokens, measures.completion_tokens])))
        return cls(
            None if price is None else price * _MILLION,
            _ratio(measures.usage_usd, _whole(measures.requests)),
            _ratio(_whole(measures.cached_tokens), _whole(measures.prompt_tokens)),
            _ratio(_whole(measures.reasoning_tokens), _whole(measures.completion_tokens)),
        )


@dataclass(frozen=True)
class PriceChange:
    """By how much, as a fraction, a price is higher or lower than that of ``before``."""

    before: Period
    before_usd: Decimal
    fraction: Decimal


@dataclass(frozen=True)
class Stretch:
    """A week or month, or the part of it that is in the period; ``earlier``: all those before the ones that are shown.

    ``measures`` and ``rates`` are None where no day of it is settled. ``left``, ``width`` and ``height``: where it
    stands in the small chart of prices, in percent.
    """

    period: Period
    coverage: Coverage
    measures: Measures | None
    rates: Rates | None
    change: PriceChange | None = None
    left: Decimal = Decimal(0)
    width: Decimal = Decimal(0)
    height: Decimal = Decimal(0)
    earlier: bool = False


@dataclass(frozen=True)
class Ever:
    """All that is stored and settled: what it cost, on how many days, and the first and last of them."""

    usage_usd: Decimal
    days: int
    first: date
    last: date


@dataclass(frozen=True)
class Life:
    """Everything on the page of a model, host or key. ``measures`` is None where no day of the period is settled.

    ``first`` and ``last``: the period's first and last day with usage. ``ever``: None for a host, and for what no key
    explains, of which all lines of all time would have to be read; and where nothing is stored.
    """

    group: Group
    period: Period
    coverage: Coverage
    linked: Collection[int]
    """The integrations that have pages: those that were not removed."""
    measures: Measures | None
    rates: Rates | None
    first: date | None
    last: date | None
    ever: Ever | None
    chart: Chart
    step: Step
    stretches: Sequence[Stretch]
    models: Parts
    hosts: Parts
    keys: Parts
    integrations: Parts
    endpoints: Parts

    @property
    def changes(self) -> Sequence[Stretch]:
        """Those at which the price changed."""
        return [one for one in self.stretches if one.change]


def models_called(workspace_id: int, text: str) -> tuple[str, ...]:
    """The workspace's model of that name; or else those that have this permaslug, at most MOST_CHOICES."""
    mine = select(Integration.id).where(Integration.workspace_id == workspace_id)
    named = select(Model.name).where(Model.integration_id.in_(mine), Model.name == text)
    slugged = select(Model.name).join(Series, Series.model_id == Model.id)
    slugged = slugged.where(Series.integration_id.in_(mine), Series.permaslug == text)
    found = {row[0] for row in db.session.execute(named.union(slugged)) if row[0]}
    return (text,) if text in found else tuple(sorted(found)[:MOST_CHOICES])


def has_host(workspace_id: int, name: str) -> bool:
    """Whether anything of the workspace's was served by that host."""
    mine = select(Integration.id).where(Integration.workspace_id == workspace_id)
    found = select(Series.id).where(Series.integration_id.in_(mine), Series.host == name).limit(1)
    return db.session.execute(found).first() is not None


def report(query: Query, group: Group) -> Life:
    """The life of what the query is narrowed to: models, a host or a key."""
    integrations = all_integrations(query.workspace_id)
    known = coverage.load(query, integrations, group)
    query = known.query
    reads_all = group == Group.HOST or UNATTRIBUTED in query.keys
    stored = sums.every_day(query if reads_all else replace(query, period=EVER))
    in_period = [one for one in stored if one.day in query.period]
    settled = [one for one in in_period if one.settled]
    measures = _together(settled) if known.any_settled else None
    pieces = [one for one in sums.pieces(query, keys=group == Group.MODEL) if one.settled]
    step = Step.WEEK if query.period.days <= MOST_DAYS_BY_WEEK else Step.MONTH
    labels = {str(one.id): one.label for one in integrations}
    return Life(
        group=group,
        period=query.period,
        coverage=known.coverage,
        linked={one.id for one in integrations if one.removed_at is None},
        measures=measures,
        rates=None if measures is None else Rates.of(measures),
        first=min((one.day for one in settled), default=None),
        last=max((one.day for one in settled), default=None),
        ever=None if reads_all else _ever([one for one in stored if one.settled]),
        chart=chart.of_one(query, known, group, _subject(query, group), in_period),
        step=step,
        stretches=_stretches(known, settled, step, priced=group == Group.MODEL),
        models=parts.made_of(pieces, Group.MODEL),
        hosts=parts.made_of(pieces, Group.HOST),
        keys=parts.made_of(pieces, Group.KEY),
        integrations=parts.made_of(pieces, Group.INTEGRATION, labels),
        endpoints=parts.made_of(pieces, None),
    )


def _subject(query: Query, group: Group) -> str:
    return {Group.MODEL: query.models, Group.HOST: query.hosts, Group.KEY: query.keys}[group][0]


def _ever(stored: Sequence[MeasuredDay]) -> Ever | None:
    if not stored:
        return None
    days = sorted({one.day for one in stored})
    return Ever(added_usd(one.measures.usage_usd for one in stored), len(days), days[0], days[-1])


def _stretches(known: Known, settled: Sequence[MeasuredDay], step: Step, *, priced: bool) -> list[Stretch]:
    """The period's weeks or months, at most MOST_PARTS, and those before them as one, first. ``priced``: whether a
    change in price is marked."""
    days: dict[date, list[date]] = {}
    for day in known.period:
        days.setdefault(step.first_of(day), []).append(day)
    used: dict[date, list[MeasuredDay]] = {first: [] for first in days}
    for one in settled:
        used[step.first_of(one.day)].append(one)
    found: list[Stretch] = []
    for first, some in days.items():
        stretch = _stretch(known, some, used[first])
        change = _change(known, found[-1], stretch) if priced and found else None
        found.append(replace(stretch, change=change))
    shown = _placed(found[-MOST_PARTS:])
    before = [day for first in list(days)[:-MOST_PARTS] for day in days[first]]
    if before:
        whole = _stretch(known, before, [one for one in settled if one.day <= before[-1]])
        shown.insert(0, replace(whole, earlier=True))
    return shown


def _stretch(known: Known, days: Sequence[date], used: Sequence[MeasuredDay]) -> Stretch:
    states = [known.state(day) for day in days]
    measures = _together(used) if used or any(state.is_settled for state in states) else None
    rates = None if measures is None else Rates.of(measures)
    return Stretch(Period(days[0], days[-1]), Coverage.of(states), measures, rates)


def _change(known: Known, before: Stretch, now: Stretch) -> PriceChange | None:
    """None unless the price differs by more than PRICE_CHANGE, and it is known of both which hosts served the model:
    analytics names none, and rounds, so that a price worked out of it beside one of activity says nothing."""
    earlier, later = (one.rates.usd_per_million if one.rates else None for one in (before, now))
    if earlier is None or later is None or earlier <= 0:
        return None
    fraction = (later - earlier) / earlier
    if abs(fraction) <= PRICE_CHANGE:
        return None
    hosts_known = all(
        known.state(day).is_settled and known.knows_part(day, Group.HOST, None)
        for one in (before, now)
        for day in one.period
    )
    return PriceChange(before.period, earlier, fraction) if hosts_known else None


def _placed(stretches: Sequence[Stretch]) -> list[Stretch]:
    prices = [one.rates.usd_per_million if one.rates else None for one in stretches]
    highest = max((price for price in prices if price), default=None)
    width = Decimal(100) / len(stretches)
    return [
        replace(
            one,
            left=round(number * width + width / 10, 3),
            width=round(width * Decimal("0.8"), 3),
            height=round(max(price, Decimal(0)) / highest * 100, 3) if price and highest else Decimal(0),
        )
        for number, (one, price) in enumerate(zip(stretches, prices, strict=True))
    ]


def _together(days: Iterable[MeasuredDay]) -> Measures:
    found = list(days)
    tallies = {name: added(getattr(one.measures, name) for one in found) for name in ("byok_usd", *COUNTS)}
    return Measures(
        usage_usd=added_usd(one.measures.usage_usd for one in found), days=len({one.day for one in found}), **tallies
    )


def _whole(tally: Tally) -> Decimal | None:
    return Decimal(tally.known) if tally.complete and tally.known is not None else None


def _ratio(part: Decimal | None, whole: Decimal | None) -> Decimal | None:
    return None if part is None or whole is None else share(part, whole)
