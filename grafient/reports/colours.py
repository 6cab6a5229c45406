"""Which colour stands for a model, host, API key or integration: one for good, in every period and on every page."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Any

from sqlalchemy import String, bindparam, cast, func, select

from grafient.extensions import db
from grafient.models import ApiKey, Integration, Model, Series
from grafient.query import Group

COLOURS = 24
"""In static/app.css, as --series-1 and so on: twelve that any colour vision tells apart, and twelve lighter ones."""

OTHER = "other"
"""In place of a number, for all that have no colour of their own."""

_NAMES: dict[Group, tuple[Any, Any]] = {
    Group.MODEL: (Model.name, Model.id),
    Group.HOST: (Series.host, Series.id),
    Group.KEY: (ApiKey.key_hash, ApiKey.id),
    Group.INTEGRATION: (cast(Integration.id, String), Integration.id),
}


def of(workspace_id: int, group: Group, names: Collection[str]) -> dict[str, str]:
    """The colours of these names, as in the style sheet. A name that is not a workspace's has the other colour.

    Names have their colours in the order in which the workspace first had them. What comes later is appended, so no
    colour ever changes; that of a name which is not shown is not given to another either.
    """
    ranks = db.session.connection().execute(_ranks(group), {"workspace": workspace_id, "names": list(names)})
    found = {str(name): str((rank - 1) % COLOURS + 1) for name, rank in ranks}
    return {name: found.get(name, OTHER) for name in names}


@cache
def _ranks(group: Group) -> Any:
    name, number = _NAMES[group]
    first = func.row_number().over(order_by=func.min(number)).label("rank")
    ranked = select(name.label("name"), first).where(Integration.workspace_id == bindparam("workspace"))
    if group != Group.INTEGRATION:
        ranked = ranked.join(Integration, Integration.id == number.table.c.integration_id)
    ranks = ranked.group_by(name).subquery()
    return select(ranks.c.name, ranks.c.rank).where(ranks.c.name.in_(bindparam("names", expanding=True)))
