"""What a page, an export or an alert is about: the query, the integrations in it, and the days each should cover."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, literal, select, union_all
from sqlalchemy.orm import InstrumentedAttribute

from grafient.days import Period, last_due
from grafient.extensions import db
from grafient.models import ApiKey, Integration, Series


class Group(StrEnum):
    """What costs can be added up by."""

    MODEL = "model"
    HOST = "host"
    KEY = "key"


@dataclass(frozen=True)
class Query:
    """A workspace's period, perhaps of one integration, host, key, or of models with a part of their name.

    ``key``: an API key's hash, or ``UNATTRIBUTED`` for what no key explains. ``byok``: amounts include the estimate
    of what the user's own provider keys were charged. ``unknown``: days of integrations (by id) that are stored and
    of which what is asked for is not known, so that no sum may count them; ``Known.query`` fills it in.
    """

    workspace_id: int
    period: Period
    integration_id: int | None = None
    host: str | None = None
    model: str | None = None
    key: str | None = None
    byok: bool = False
    unknown: tuple[tuple[int, date], ...] = ()

    @property
    def is_filtered(self) -> bool:
        """Whether it is about a part of what was billed on its days."""
        return self.host is not None or self.key is not None or self.model is not None


@dataclass(frozen=True)
class KeyChoice:
    """An API key to filter by; ``gone``: it no longer exists at the provider."""

    key_hash: str
    name: str
    gone: bool


KEY_CHOICES = 1000
HOST_CHOICES = 200


def all_integrations(workspace_id: int) -> list[Integration]:
    """The integrations that a workspace's pages are about: removed ones too, last, because their history counts."""
    query = select(Integration).where(Integration.workspace_id == workspace_id)
    order = Integration.removed_at.is_not(None), Integration.label, Integration.id
    return list(db.session.execute(query.order_by(*order)).scalars())


def selected(query: Query, integrations: Sequence[Integration]) -> list[Integration]:
    """Those of the workspace's integrations that the query is about, in the order in which they were added."""
    chosen = [i for i in integrations if query.integration_id in (None, i.id)]
    return sorted(chosen, key=lambda integration: integration.id)


def is_expected(integration: Integration, day: date) -> bool:
    """Whether an integration should cover a day, so that the day is incomplete without it.

    A removed integration is not asked for days that were not due when it was removed. Removed at noon on the 20th, it
    had read the 20th in part and will never read the rest: the 20th is complete without it. Removed at 03:00, before
    the sync at 06:00, it had not read the 19th either.
    """
    return integration.removed_at is None or day <= last_due(integration.removed_at)


def within(column: InstrumentedAttribute[date], period: Period) -> ColumnElement[bool]:
    """The condition that a column of days is in the period."""
    condition: ColumnElement[bool] = column.between(period.first, period.last)
    return condition


def key_choices(workspace_id: int) -> list[KeyChoice]:
    """The API keys of all integrations whose costs were read, those that are gone last; at most KEY_CHOICES."""
    found = db.session.execute(_keys(workspace_id))
    return _sorted_keys(KeyChoice(row.id, row.name, row.gone_at is not None) for row in found)


def choices(query: Query) -> tuple[list[str], list[KeyChoice]]:
    """What else a page of this query can be filtered by: the hosts that ever served models to its integrations, and the
    workspace's API keys, as ``key_choices`` has them. One statement asks for both.
    """
    mine = select(Integration.id).where(Integration.workspace_id == query.workspace_id)
    if query.integration_id is not None:
        mine = mine.where(Integration.id == query.integration_id)
    nothing = literal("").label("name"), literal(None, ApiKey.gone_at.type).label("gone_at")
    hosts = select(Series.host.label("id"), *nothing, literal(0).label("kind"))
    hosts = hosts.where(Series.integration_id.in_(mine)).distinct().order_by(Series.host).limit(HOST_CHOICES)
    keys = _keys(query.workspace_id)
    parts = (select(part.subquery()) for part in (hosts, keys))
    rows = db.session.execute(union_all(*parts)).all()
    found = (KeyChoice(row.id, row.name, row.gone_at is not None) for row in rows if row.kind)
    return sorted(row.id for row in rows if not row.kind), _sorted_keys(found)


def _keys(workspace_id: int) -> Any:
    is_gone = ApiKey.gone_at.is_not(None)
    return (
        select(ApiKey.key_hash.label("id"), ApiKey.name, ApiKey.gone_at, literal(1).label("kind"))
        .join(Integration, Integration.id == ApiKey.integration_id)
        .where(Integration.workspace_id == workspace_id, ApiKey.read_at.is_not(None))
        .order_by(is_gone, ApiKey.name, ApiKey.key_hash)
        .limit(KEY_CHOICES)
    )


def _sorted_keys(found: Iterable[KeyChoice]) -> list[KeyChoice]:
    return sorted(found, key=lambda key: (key.gone, key.name, key.key_hash))
