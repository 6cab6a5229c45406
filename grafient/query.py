"""What a page, an export or an alert is about: the query, the integrations in it, and the days each should cover."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Select,
    String,
    bindparam,
    case,
    cast,
    func,
    literal,
    select,
    union_all,
)
from sqlalchemy.orm import InstrumentedAttribute

from grafient.days import Period, last_due
from grafient.extensions import db
from grafient.models import ApiKey, CoveredDay, Integration, Model, Series


class Group(StrEnum):
    """What costs can be added up by."""

    MODEL = "model"
    HOST = "host"
    KEY = "key"
    INTEGRATION = "integration"


class Measure(StrEnum):
    """What a chart adds up: USD, requests, or tokens (prompt and completion)."""

    USD = "usd"
    REQUESTS = "requests"
    TOKENS = "tokens"


@dataclass(frozen=True)
class Query:
    """A workspace's period, perhaps of some of its integrations (by id), models, hosts (by name) or API keys alone.

    Of several values of one kind any will do; an empty tuple asks for all. ``keys``: hashes, or ``UNATTRIBUTED`` for
    what no key explains. ``text``: a part of the models' names. ``byok``: amounts include the estimate of what the
    user's own provider keys were charged. ``unknown``: days of integrations (by id) that are stored and of which what
    is asked for is not known, so that no sum may count them; ``Known.query`` fills it in.
    """

    workspace_id: int
    period: Period
    integrations: tuple[int, ...] = ()
    models: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    text: str | None = None
    byok: bool = False
    unknown: tuple[tuple[int, date], ...] = ()

    @property
    def is_filtered(self) -> bool:
        """Whether it is about a part of what was billed on its days."""
        return bool(self.models or self.hosts or self.keys or self.text)


@dataclass(frozen=True)
class KeyChoice:
    """An API key to filter by; ``gone``: it no longer exists at the provider."""

    key_hash: str
    name: str
    gone: bool


@dataclass(frozen=True)
class Match:
    """An integration, model, host or API key that was searched by its name. ``value``: its id, name or hash, to filter
    by; ``note``: what tells it apart from others of its name."""

    value: str
    name: str
    note: str = ""


MOST_CHOICES = 100
"""To choose from at once. Where there are more, a part of the name is asked for, see ``matching``."""

MOST_NAMES = 1000


IN_ORDER = Integration.removed_at.is_not(None), Integration.label, Integration.id


def all_integrations(workspace_id: int) -> list[Integration]:
    """The integrations that a workspace's pages are about: removed ones too, last, because their history counts."""
    query = select(Integration).where(Integration.workspace_id == workspace_id)
    return list(db.session.execute(query.order_by(*IN_ORDER)).scalars())


def selected(query: Query, integrations: Sequence[Integration]) -> list[Integration]:
    """Those of the workspace's integrations that the query is about, in the order in which they were added."""
    chosen = [i for i in integrations if not query.integrations or i.id in query.integrations]
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


def owned(workspace_id: int, integration_id: int) -> Integration | None:
    """The integration, if it is this workspace's, removed or not."""
    query = select(Integration).where(Integration.workspace_id == workspace_id, Integration.id == integration_id)
    return db.session.execute(query).scalar_one_or_none()


def all_owned(workspace_id: int, integration_ids: Collection[int]) -> list[Integration]:
    """Those of these integrations that are this workspace's, removed or not."""
    if not integration_ids:
        return []
    mine = Integration.workspace_id == workspace_id, Integration.id.in_(integration_ids)
    return list(db.session.execute(select(Integration).where(*mine)).scalars())


def first_stored(workspace_id: int, integration_ids: Collection[int]) -> date | None:
    """The first day of which anything is known, of these integrations or of all (none); None if nothing is."""
    mine = select(Integration.id).where(Integration.workspace_id == workspace_id)
    if integration_ids:
        mine = mine.where(Integration.id.in_(integration_ids))
    return db.session.execute(select(func.min(CoveredDay.day)).where(CoveredDay.integration_id.in_(mine))).scalar()


def choices(query: Query) -> tuple[list[str], list[str], list[KeyChoice]]:
    """What else a page of this query can be filtered by: the models that its integrations ever used, the hosts that
    served them, and the workspace's API keys whose costs were read, those that are gone last. One statement asks for
    all, and for one more of each than MOST_CHOICES.
    """
    values = {"workspace": query.workspace_id, "integrations": query.integrations}
    rows = db.session.connection().execute(_choices(not query.integrations), values).all()
    models, hosts = (sorted(row.id for row in rows if row.kind == kind) for kind in (_MODELS, _HOSTS))
    return models, hosts, _key_choices(row for row in rows if row.kind == _KEYS)


_MODELS, _HOSTS, _KEYS = range(3)


@cache
def _choices(every: bool) -> CompoundSelect[Any]:
    mine = select(Integration.id).where(Integration.workspace_id == bindparam("workspace"))
    if not every:
        mine = mine.where(Integration.id.in_(bindparam("integrations", expanding=True)))
    nothing = literal("").label("name"), literal(None, ApiKey.gone_at.type).label("gone_at")
    models = select(Model.name.label("id"), *nothing, literal(_MODELS).label("kind"))
    models = models.where(Model.integration_id.in_(mine)).distinct().order_by(Model.name).limit(MOST_CHOICES + 1)
    hosts = select(Series.host.label("id"), *nothing, literal(_HOSTS).label("kind"))
    hosts = hosts.where(Series.integration_id.in_(mine)).distinct().order_by(Series.host).limit(MOST_CHOICES + 1)
    keys = _keys(bindparam("workspace"), literal(_KEYS).label("kind"))
    keys = keys.order_by(ApiKey.gone_at.is_not(None), ApiKey.name, ApiKey.key_hash).limit(MOST_CHOICES + 1)
    return union_all(*(select(part.subquery()) for part in (models, hosts, keys)))


def keys_called(workspace_id: int, hashes: Collection[str]) -> list[KeyChoice]:
    """These API keys, and the others of their names, so that all of one name can be told apart; at most MOST_NAMES."""
    if not hashes:
        return []
    named = _keys(workspace_id).where(ApiKey.key_hash.in_(hashes)).with_only_columns(ApiKey.name)
    found = _keys(workspace_id).where(ApiKey.name.in_(named))
    found = found.order_by(ApiKey.key_hash.not_in(hashes), ApiKey.key_hash).limit(MOST_NAMES)
    return _key_choices(db.session.execute(found))


def matching(workspace_id: int, what: str, text: str) -> tuple[list[Match], int]:
    """The workspace's integrations, models, hosts or API keys (``what``: one of these) with a text in their names or
    notes: the first MOST_CHOICES, and how many there are. If it is all of the name of just one, that one alone.
    """
    all_ = _NAMED[what](workspace_id).subquery()
    whole = all_.c.name + " " + all_.c.note
    found = select(all_, func.count().over().label("found")).where(whole.icontains(text, autoescape=True))
    found = found.order_by(all_.c.name != text, all_.c.name, all_.c.value).limit(MOST_CHOICES)
    rows = db.session.execute(found).all()
    matches = [Match(row.value, row.name, row.note) for row in rows]
    exact = [one for one in matches if text in (one.name, f"{one.name} {one.note}")]
    return (exact, 1) if len(exact) == 1 else (matches, rows[0].found if rows else 0)


def _named_integrations(workspace_id: int) -> Select[Any]:
    note = case((Integration.removed_at.is_not(None), "removed"), else_="").label("note")
    columns: list[Any] = [cast(Integration.id, String).label("value"), Integration.label.label("name"), note]
    return select(*columns).where(Integration.workspace_id == workspace_id)


def _named_hosts(workspace_id: int) -> Select[Any]:
    columns: list[Any] = [Series.host.label("value"), Series.host.label("name"), literal("").label("note")]
    mine = Integration.workspace_id == workspace_id, Series.host != ""
    return select(*columns).join(Integration, Integration.id == Series.integration_id).where(*mine).distinct()


def _named_models(workspace_id: int) -> Select[Any]:
    columns: list[Any] = [Model.name.label("value"), Model.name.label("name"), literal("").label("note")]
    mine = Integration.workspace_id == workspace_id, Model.name != ""
    return select(*columns).join(Integration, Integration.id == Model.integration_id).where(*mine).distinct()


def _named_keys(workspace_id: int) -> Select[Any]:
    """Two integrations of one account have the same keys."""
    name, is_gone = func.min(ApiKey.name), func.count(ApiKey.gone_at) == func.count()
    note = func.substr(ApiKey.key_hash, 1, 8) + case((is_gone, " (deleted)"), else_="")
    columns = (
        ApiKey.key_hash.label("value"),
        case((name == "", "Unnamed"), else_=name).label("name"),
        note.label("note"),
    )
    return _keys(workspace_id).with_only_columns(*columns).group_by(ApiKey.key_hash)


_NAMED = {"integration": _named_integrations, "model": _named_models, "host": _named_hosts, "key": _named_keys}


def _keys(workspace_id: Any, *more: Any) -> Select[Any]:
    return (
        select(ApiKey.key_hash.label("id"), ApiKey.name, ApiKey.gone_at, *more)
        .join(Integration, Integration.id == ApiKey.integration_id)
        .where(Integration.workspace_id == workspace_id, ApiKey.read_at.is_not(None))
    )


def _key_choices(rows: Iterable[Any]) -> list[KeyChoice]:
    found = (KeyChoice(row.id, row.name, row.gone_at is not None) for row in rows)
    return sorted(found, key=lambda key: (key.gone, key.name, key.key_hash))
