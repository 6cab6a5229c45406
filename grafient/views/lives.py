"""One model, one host, one API key: their pages, and the addresses of these."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from flask import Blueprint, abort, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_security import current_user

from grafient.models import UNATTRIBUTED
from grafient.query import Group, keys_called
from grafient.reports import life
from grafient.views import addresses
from grafient.views.addresses import NO_KEY
from grafient.views.formats import key_names
from grafient.views.kept import kept

blueprint = Blueprint("lives", __name__)

KEPT = (*addresses.PERIOD, "integration", "byok")
"""Of an address that has more filters, what a link to one of these pages keeps."""

# Names of models and hosts have slashes in them, and may have two in a row.
_AS_IT_IS = {"merge_slashes": False}


@blueprint.get("/models/<path:permaslug>", **_AS_IT_IS)
@kept
def model(permaslug: str) -> ResponseReturnValue:
    """A model by its name, or by the permaslug that the provider bills it under."""
    models = life.models_called(current_user.workspace_id, _storable(permaslug))
    if not models:
        abort(404)
    called = models[0] if len(models) == 1 else permaslug
    return _page(Group.MODEL, called, {"permaslug": permaslug}, {"model": models}, models=models)


@blueprint.get("/hosts/<path:name>", **_AS_IT_IS)
@kept
def host(name: str) -> ResponseReturnValue:
    """Who served models."""
    if not life.has_host(current_user.workspace_id, _storable(name)):
        abort(404)
    return _page(Group.HOST, name, {"name": name}, {"host": name}, hosts=(name,))


@blueprint.get("/keys/<hash_>")
@kept
def key(hash_: str) -> ResponseReturnValue:
    """An API key, also one that was deleted; or what no key explains."""
    key_hash = UNATTRIBUTED if hash_ == NO_KEY else _storable(hash_)
    names = key_names(keys_called(current_user.workspace_id, {key_hash} - {UNATTRIBUTED}))
    if key_hash not in names:
        abort(404)
    return _page(Group.KEY, names[key_hash], {"hash_": hash_}, {"key": hash_}, keys=(key_hash,))


@blueprint.app_template_global()
def life_address(group: Group, one: str, args: Mapping[str, Any], linked: Collection[int] = ()) -> str | None:
    """The page of a model, host, key or integration; None where it has none: it has no name, or was removed.

    ``args``: of the address one comes from. ``linked``: the integrations that have pages.
    """
    kept = {name: args[name] for name in KEPT if args.get(name)}
    if group == Group.INTEGRATION:
        return url_for("integrations.show", integration_id=int(one)) if int(one) in linked else None
    if group == Group.KEY:
        return url_for("lives.key", hash_=one or NO_KEY, **kept)
    if not one:
        return None
    if not _fits_a_path(one):
        return url_for("costs.dashboard", **{**kept, str(group): one})
    if group == Group.HOST:
        return url_for("lives.host", name=one, **kept)
    return url_for("lives.model", permaslug=one, **kept)


def _fits_a_path(name: str) -> bool:
    """Whether a name arrives as it was sent. Browsers resolve ``a/../b``, a path begins with one slash, and Flask's
    rules match none with a line break."""
    return not name.startswith("/") and "\n" not in name and not {".", ".."} & set(name.replace("\\", "/").split("/"))


def _storable(text: str) -> str:
    """404 for a name that no database stores."""
    if "\0" in text:
        abort(404)
    return text


def _page(
    group: Group,
    called: str,
    own: Mapping[str, str],
    filtered: Mapping[str, Any],
    *,
    models: tuple[str, ...] = (),
    hosts: tuple[str, ...] = (),
    keys: tuple[str, ...] = (),
) -> ResponseReturnValue:
    """Of one model, host or key; what else the address filters by, but for integrations, is another page's.

    ``own``: what the page's own address is made with; ``filtered``: how other pages are filtered by the same.
    """
    asked, wrong = addresses.query_or_latest()
    query = replace(asked, models=models, hosts=hosts, keys=keys, text=None)
    found = life.report(query, group)
    shown = {row.id for row in found.keys.rows} if group == Group.MODEL else set(query.keys)
    names = key_names(keys_called(query.workspace_id, shown - {UNATTRIBUTED})) if group == Group.MODEL else {}
    names_kept = set(KEPT) - set(addresses.PERIOD if wrong else ())
    kept = {name: value for name, value in addresses.kept().items() if name in names_kept}
    page = render_template(
        "lives/show.html",
        life=found,
        called_=called,
        endpoint=f"lives.{group}",
        own=own,
        here={**own, **kept},
        filtered=filtered,
        kept=kept,
        names=names,
        lengths=addresses.LENGTHS,
        period=found.period,
        coverage=found.coverage,
        with_byok=query.byok,
        linked=found.linked,
        price_change=life.PRICE_CHANGE,
        wrong=wrong,
    )
    return page, 400 if wrong else 200
