"""Why one period cost more than another: the difference split into volume, price, mix, and models that came or went.

Pure, and exact. This is the usual price-volume-mix analysis. Of the models that were used in both periods, with Q
tokens in all at P dollars a token on average, and q tokens at p dollars of each:

    volume = (Q1 - Q0) * P0                 more or fewer tokens at the old average price
    mix    = sum(q1 * p0) - Q1 * P0         dearer or cheaper models than before
    price  = sum(q1 * (p1 - p0))            each model's own price a token
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from grafient.money import STEP_USD, from_steps

_STEP = Fraction(STEP_USD)


@dataclass(frozen=True)
class Usage:
    """What one model cost in a period, to 12 decimals at most, and how much it was used. None is unknown."""

    usage_usd: Decimal
    tokens: int | None = None
    requests: int | None = None


class Unit(StrEnum):
    """What a model's usage is counted in."""

    TOKENS = "tokens"
    REQUESTS = "requests"


PRICED_BY = {Unit.TOKENS: 1_000_000, Unit.REQUESTS: 1}
"""How many of a unit a price is told for."""


class Kind(StrEnum):
    """Which part of the difference a model belongs to."""

    USED = "used"
    """In both periods, so that it has a volume and a price."""
    NEW = "new"
    GONE = "gone"
    UNSPLIT = "unsplit"
    """Tokens and requests are unknown, or none were counted while something was charged: no price can be told."""


@dataclass(frozen=True)
class ModelChange:
    """One model in both periods. ``volume_usd`` is its own change in quantity at its old price, ``price_usd`` its new
    quantity at the change in price; together they are its difference. None, as the quantities, unless it is USED.
    """

    kind: Kind
    before_usd: Decimal
    after_usd: Decimal
    unit: Unit | None = None
    quantity_before: int | None = None
    quantity_after: int | None = None
    volume_usd: Decimal | None = None
    price_usd: Decimal | None = None

    @property
    def prices_usd(self) -> tuple[Decimal, Decimal] | None:
        """What PRICED_BY of its unit cost before and after, on average; a quotient, and so not always exact."""
        if not (self.unit and self.quantity_before and self.quantity_after):
            return None
        many = PRICED_BY[self.unit]
        return self.before_usd * many / self.quantity_before, self.after_usd * many / self.quantity_after


@dataclass(frozen=True)
class Split:
    """The parts add up to the difference to the last digit. The models' volumes are the volume and the mix together:
    what one of them used more is either of the two, depending on how much the others did.
    """

    volume_usd: Decimal
    price_usd: Decimal
    mix_usd: Decimal
    new_usd: Decimal
    gone_usd: Decimal
    unsplit_usd: Decimal
    models: Mapping[str, ModelChange]


def split(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> Split:
    """The difference between what the models (by their names) cost in two periods, in its parts.

    Tokens and requests can't be added up, so models that are counted in requests have a volume and a mix of their own.
    """
    models = {name: _change(before.get(name), after.get(name)) for name in sorted(before.keys() | after.keys())}
    parts = [_volume_price_mix([one for one in models.values() if one.unit == unit]) for unit in Unit]
    volume, price, mix = _rounded([sum(of_units, Fraction()) for of_units in zip(*parts, strict=True)])
    others: dict[Kind, Decimal] = defaultdict(Decimal)
    for one in models.values():
        others[one.kind] += one.after_usd - one.before_usd
    return Split(volume, price, mix, others[Kind.NEW], others[Kind.GONE], others[Kind.UNSPLIT], models)


def _change(before: Usage | None, after: Usage | None) -> ModelChange:
    if before is None or after is None:
        kind = Kind.NEW if before is None else Kind.GONE
        return ModelChange(kind, _cost(before), _cost(after))
    unit = _unit(before, after)
    if unit is None:
        return ModelChange(Kind.UNSPLIT, before.usage_usd, after.usage_usd)
    q0, q1 = getattr(before, unit), getattr(after, unit)
    if q0 > 0 and q1 > 0:
        old_price = Fraction(before.usage_usd) / q0
        volume, price = _rounded([(q1 - q0) * old_price, Fraction(after.usage_usd) - q1 * old_price])
        return ModelChange(Kind.USED, before.usage_usd, after.usage_usd, unit, q0, q1, volume, price)
    kind = Kind.UNSPLIT
    if q0 == 0 and not _was_used(before):
        kind = Kind.NEW
    elif q1 == 0 and not _was_used(after):
        kind = Kind.GONE
    return ModelChange(kind, before.usage_usd, after.usage_usd)


def _was_used(one: Usage) -> bool:
    """A request that cost nothing and had no tokens is use, too."""
    return bool(one.usage_usd) or any(getattr(one, unit) for unit in Unit)


def _unit(before: Usage, after: Usage) -> Unit | None:
    """Tokens, if they are known and there are any; or else requests. A model that draws pictures has no tokens."""
    for unit in Unit:
        counts = [getattr(one, unit) for one in (before, after)]
        if None not in counts and any(counts):
            return unit
    return None


def _cost(usage: Usage | None) -> Decimal:
    return usage.usage_usd if usage else Decimal(0)


def _volume_price_mix(models: Sequence[ModelChange]) -> tuple[Fraction, Fraction, Fraction]:
    """Of the models that are counted in one unit, before any rounding."""
    quantity0 = quantity1 = 0
    cost0, at_old_prices, cost1 = Fraction(), Fraction(), Fraction()
    for one in models:
        if one.quantity_before and one.quantity_after:
            quantity0 += one.quantity_before
            quantity1 += one.quantity_after
            cost0 += Fraction(one.before_usd)
            cost1 += Fraction(one.after_usd)
            at_old_prices += one.quantity_after * Fraction(one.before_usd) / one.quantity_before
    if not quantity0:
        return Fraction(), Fraction(), Fraction()
    volume = (quantity1 - quantity0) * cost0 / quantity0
    return volume, cost1 - at_old_prices, at_old_prices - cost0 - volume


def _rounded(parts: Sequence[Fraction]) -> list[Decimal]:
    """At 12 decimals, so that they still add up to the same: the largest takes what rounding leaves."""
    whole = sum(parts, Fraction()) / _STEP
    if whole.denominator != 1:
        raise ValueError("an amount that is finer than 12 decimals")
    steps = [round(part / _STEP) for part in parts]
    largest = max(range(len(parts)), key=lambda number: abs(parts[number]))
    steps[largest] += int(whole) - sum(steps)
    return [from_steps(number) for number in steps]
