"""Which rules there are: what each looks for, what can be set, and how it comes.

A workspace has each rule once, as it comes until somebody sets it; ``alert_rule`` has only those that were set. Budgets
are rules of their own, see ``budgets``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from sqlalchemy import select

from grafient.extensions import db
from grafient.models import AlertRule
from grafient.money import PLACES
from grafient.states import AlertKind

_IN_THOUSANDS = re.compile(r"-?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?")
MOST_USD = Decimal(1_000_000_000)


@dataclass(frozen=True)
class Setting:
    """Something of a rule that can be set. ``unit``: "usd", "percent", "days", "hours", "minutes", or "yes" for a box
    to tick; ``default``, ``least`` and ``most`` are in it. Without ``is_needed``, empty turns that part off."""

    name: str
    label: str
    unit: str
    default: Decimal | int | bool
    least: Decimal | int = 0
    most: Decimal | int = MOST_USD
    is_needed: bool = True


@dataclass(frozen=True)
class Kind:
    """A rule as it comes. ``about``: a sentence for who turns it on or off; ``reminds``: whether it is said again each
    day that it lasts."""

    kind: AlertKind
    label: str
    about: str
    settings: tuple[Setting, ...] = ()
    reminds: bool = False
    sentence: str = ""
    """How its settings are said, where their labels in a row would be no sentence."""


_LEAST_USD = Setting("least_usd", "At least", "usd", Decimal(1), Decimal(0))
_LEAST_PERCENT = Setting("least_percent", "And at least", "percent", 30, 1, 100_000)

KINDS: Mapping[AlertKind, Kind] = {
    one.kind: one
    for one in (
        Kind(
            AlertKind.UNUSUAL_DAY,
            "Unusual day",
            "A day cost much more or less than expected from the weeks before, in all or for one model or API key.",
            (
                _LEAST_USD,
                _LEAST_PERCENT,
                Setting("part_usd", "For one model or API key, at least", "usd", Decimal(10), Decimal(0)),
                Setting("history_days", "Days of history needed", "days", 21, 14, 56),
                Setting("models", "Look at each model", "yes", True),
                Setting("keys", "Look at each API key", "yes", True),
            ),
            sentence="At least {least_usd} and {least_percent} off; at least {part_usd} for one model or API key",
        ),
        Kind(
            AlertKind.TODAY,
            "Today already above a usual day",
            "Today so far has cost more than a whole day is expected to.",
            (_LEAST_USD, _LEAST_PERCENT),
            sentence="At least {least_usd} and {least_percent} more",
        ),
        Kind(
            AlertKind.NEW,
            "New model, host or API key",
            "Something that was never used before has cost more than a sum.",
            (Setting("least_usd", "Once it has cost", "usd", Decimal(5), Decimal("0.01")),),
        ),
        Kind(
            AlertKind.CREDITS,
            "Credits running out",
            "What is left of an account's credits is below a sum, or lasts for a few days only at the present pace.",
            (
                Setting("left_usd", "Less than", "usd", Decimal(10), Decimal("0.01"), is_needed=False),
                Setting("days", "Or fewer days than", "days", 7, 1, 365, is_needed=False),
            ),
            reminds=True,
        ),
        Kind(
            AlertKind.NO_SYNC,
            "No new data",
            "An account has not been read successfully for a while.",
            (Setting("hours", "For", "hours", 26, 25, 24 * 30),),
            reminds=True,
        ),
        Kind(
            AlertKind.KEY,
            "Key rejected or about to expire",
            "A management key was rejected, can't be opened, or ends soon.",
            (Setting("days", "Days before it expires", "days", 14, 1, 90),),
            reminds=True,
            sentence="{days} days before it expires",
        ),
        Kind(
            AlertKind.API_CHANGED,
            "Provider changed its API",
            "A reply had an unknown shape. Nothing that is stored was overwritten.",
            reminds=True,
        ),
        Kind(
            AlertKind.DAYS_LEAVING,
            "Missing days about to be lost",
            "A day is missing that the provider will soon no longer report.",
            reminds=True,
        ),
        Kind(
            AlertKind.DIFFERENCE,
            "Figures differ from the provider's",
            "Reconciliation with analytics or credits found a difference.",
            (Setting("least_usd", "Of more than", "usd", Decimal(1), Decimal(0)),),
        ),
        Kind(
            AlertKind.RESTATED,
            "Closed month restated",
            "The provider changed what days of a month that was over had cost.",
            (Setting("least_usd", "By more than", "usd", Decimal(1), Decimal(0)),),
        ),
        Kind(
            AlertKind.SILENT,
            "Workers silent",
            "Nothing reads accounts or sends alerts, since no worker or scheduler runs.",
            (Setting("minutes", "For", "minutes", 10, 5, 24 * 60),),
        ),
    )
}


@dataclass(frozen=True)
class Rule:
    """A rule of a workspace. ``settings``: USD as Decimal, all else as int or bool; None for a part that is off.
    ``since``: when somebody last set it, None for one that is as it comes."""

    kind: AlertKind
    is_on: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)
    since: datetime | None = None

    def __getitem__(self, name: str) -> Any:
        return self.settings[name]

    @property
    def reminds(self) -> bool:
        return KINDS[self.kind].reminds


def default(kind: AlertKind) -> Rule:
    """The rule as it comes."""
    return Rule(kind, True, {one.name: one.default for one in KINDS[kind].settings})


def of(workspace_id: int) -> dict[AlertKind, Rule]:
    """All rules of a workspace, in the order of KINDS."""
    rows = db.session.execute(select(AlertRule).where(AlertRule.workspace_id == workspace_id)).scalars()
    rules_set = {row.kind: row for row in rows}
    return {kind: _rule(kind, rules_set.get(kind)) for kind in KINDS}


def _rule(kind: AlertKind, row: AlertRule | None) -> Rule:
    if row is None:
        return default(kind)
    found = dict(default(kind).settings)
    for one in KINDS[kind].settings:
        if one.name in row.settings:
            value = row.settings[one.name]
            found[one.name] = Decimal(value) if one.unit == "usd" and value is not None else value
    return Rule(kind, row.is_on, found, row.since)


def parsed(kind: AlertKind, values: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """What a form says of a rule's settings, and what is wrong with them: a sentence by the name of the setting."""
    found: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for one in KINDS[kind].settings:
        text = values.get(one.name, "").strip()
        if one.unit == "yes":
            found[one.name] = bool(text)
        elif not text and not one.is_needed:
            found[one.name] = None
        else:
            try:
                found[one.name] = usd(text, one.least, one.most) if one.unit == "usd" else _whole(text, one)
            except ValueError as error:
                wrong[one.name] = str(error)
    needed = [one.name for one in KINDS[kind].settings if not one.is_needed]
    if needed and not wrong and all(found[name] is None for name in needed):
        wrong[needed[0]] = "Fill in one of the two, or turn the rule off."
    return found, wrong


def usd(text: str, least: Decimal | int = 0, most: Decimal | int = MOST_USD) -> Decimal:
    """An amount as people type it: ``1,200.50`` or ``$1200.5``. Raises ValueError with a sentence."""
    plain = text.strip().removeprefix("$").replace("\N{NO-BREAK SPACE}", "").replace(" ", "")
    if _IN_THOUSANDS.fullmatch(plain):
        plain = plain.replace(",", "")
    elif "," in plain:  # 99,50 must not become $9,950
        raise ValueError("Write cents after a point, such as 99.50, and thousands as 1,200.")
    try:
        if not plain.isascii() or len(plain) > 40 or set(plain) - set("0123456789.-"):
            raise InvalidOperation
        amount = Decimal(plain)
    except InvalidOperation:
        raise ValueError("Enter an amount in USD, such as 250 or 99.50.") from None
    exponent = amount.normalize().as_tuple().exponent
    if isinstance(exponent, int) and -exponent > PLACES:
        raise ValueError(f"Enter at most {PLACES} decimals.")
    if amount < least:
        raise ValueError(f"Enter at least ${least:,f}.")
    if amount > most:
        raise ValueError(f"Enter at most ${most:,f}.")
    return amount


def in_words(amount: Decimal) -> str:
    """``$1,200`` or ``$99.50``: as somebody set it."""
    digits = f"{amount.normalize():,f}"
    whole, _, rest = digits.partition(".")
    return f"${whole}.{rest:0<2}" if rest else f"${whole}"


def _whole(text: str, one: Setting) -> int:
    plain = text.removesuffix("%").strip()
    if not (plain.isascii() and plain.isdigit() and len(plain) < 10 and one.least <= int(plain) <= one.most):
        raise ValueError(f"Enter a whole number from {one.least:,} to {one.most:,}.")
    return int(plain)


def save(workspace_id: int, kind: AlertKind, is_on: bool, settings: Mapping[str, Any], now: datetime) -> None:
    """Set a rule. Does not commit; ``watch.look_again`` has it looked at."""
    plain = {name: f"{value:f}" if isinstance(value, Decimal) else value for name, value in settings.items()}
    row = db.session.get(AlertRule, (workspace_id, kind))
    if row is None:
        row = AlertRule(workspace_id=workspace_id, kind=kind)
        db.session.add(row)
    row.is_on, row.settings, row.since = is_on, plain, now
