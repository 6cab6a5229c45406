"""Channels: where alerts are sent. Setting one up, its page, its test, and what can be done with it.

What lets Grafient in at a service is entered here and never shown again; a webhook's secret is shown once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import wraps
from typing import Any

from flask import Blueprint, abort, flash, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_security import current_user
from sqlalchemy.orm.exc import ObjectDeletedError

from grafient import jobs
from grafient.alerts.channels import kinds, store
from grafient.alerts.channels.kinds import KINDS
from grafient.extensions import limiter, settings
from grafient.forms import ChannelForm, channel_form
from grafient.members import Refused
from grafient.models import Channel, utc_now
from grafient.states import ChannelKind, DeliveryState, Role, Sending
from grafient.vault import VaultError
from grafient.views import access
from grafient.views.htmx import answer, is_htmx

blueprint = Blueprint("channels", __name__, url_prefix="/alerts/channels")

TRIES = "30 per minute"
"""Of what has something sent to an address that somebody gave."""
_WATCHED = timedelta(minutes=2)
"""How long a page looks what became of a test."""


def owned(view: Any) -> Any:
    """Pass the channel of the address, or 404 where it is not the workspace's. What is refused is said on its page, or
    is 404 where another tab deleted it meanwhile."""

    @wraps(view)
    def wrapped(channel_id: int, **kwargs: Any) -> ResponseReturnValue:
        workspace_id = current_user.workspace_id
        channel = store.find(workspace_id, channel_id)
        if channel is None:
            abort(404)
        try:
            answered: ResponseReturnValue = view(channel, **kwargs)
        except Refused as refused:
            access.ask_anew()
            channel = store.find(workspace_id, channel_id)
            if channel is None:
                abort(404)
            return _page(channel, 409, refused=str(refused))
        except ObjectDeletedError:
            access.ask_anew()
            abort(404)
        return answered

    return wrapped


@blueprint.get("/new")
@access.needs(Role.ADMIN)
def new() -> ResponseReturnValue:
    """Which kind, and then its form."""
    if "kind" not in request.args:
        available = [KINDS[kind] for kind in store.available()]
        return render_template("alerts/channels/choose.html", kinds=available, alerts=_alerts())
    kind = _kind(request.args["kind"])
    return _form_page(kind, channel_form(kind))


@blueprint.get("")
@access.needs(Role.ADMIN)
def sent_new() -> ResponseReturnValue:
    """Where the form was sent to."""
    return redirect(url_for(".new"))


@blueprint.post("")
@limiter.limit(TRIES)
@access.needs(Role.ADMIN)
def create() -> ResponseReturnValue:
    """Save a new one."""
    kind = _kind(request.form.get("kind", ""))
    form = channel_form(kind)
    config = _entered(kind, form)
    if config is None:
        return _form_page(kind, form, 422)
    try:
        channel, secret = store.create(current_user.workspace_id, kind, form.name.data or "", config, form.options())
    except Refused as refused:
        return _form_page(kind, form, 422, refused=str(refused))
    if secret:
        return _with_secret(channel, secret)
    flash(f"“{channel.name}” is saved. Send a test to see whether it works.", "success")
    return redirect(url_for(".show", channel_id=channel.id), 303)


@blueprint.get("/<int(max=2147483647):channel_id>")
@access.needs(Role.ADMIN)
@owned
def show(channel: Channel) -> ResponseReturnValue:
    """One of them: what it is set to, and what it was sent."""
    return _page(channel)


@blueprint.get("/<int(max=2147483647):channel_id>/history")
@access.needs(Role.ADMIN)
@owned
def history(channel: Channel) -> ResponseReturnValue:
    """What it was sent, for the page that waits for a test."""
    return render_template("alerts/channels/_history.html", **_history(channel))


@blueprint.post("/<int(max=2147483647):channel_id>")
@limiter.limit(TRIES)
@access.needs(Role.ADMIN, recent=True)
@owned
def change(channel: Channel) -> ResponseReturnValue:
    """Set it to something else; secrets that are left empty stay."""
    form, kept = channel_form(channel.kind), _opened(channel)
    config = _entered(channel.kind, form, kept)
    if config is None:
        return _page(channel, 422, form=form)
    store.change(channel, form.name.data or "", config, form.options())
    flash("Saved.", "success")
    return redirect(url_for(".show", channel_id=channel.id), 303)


@blueprint.post("/<int(max=2147483647):channel_id>/test")
@limiter.limit(TRIES)
@access.needs(Role.ADMIN)
@owned
def test(channel: Channel) -> ResponseReturnValue:
    """Have a worker send a test."""
    channel_id = channel.id
    store.test(channel)
    jobs.wake()
    html = render_template("alerts/channels/_history.html", **_history(channel)) if is_htmx() else None
    return answer(html, url_for(".show", channel_id=channel_id, _anchor="sent"))


@blueprint.post("/<int(max=2147483647):channel_id>/secret")
@access.needs(Role.ADMIN, recent=True)
@owned
def secret(channel: Channel) -> ResponseReturnValue:
    """Another secret for a webhook, shown once."""
    if channel.kind is not ChannelKind.WEBHOOK:
        abort(404)
    try:
        made = store.rotate_secret(channel, utc_now())
    except VaultError as error:
        return _page(channel, 409, refused=str(error))
    return _with_secret(channel, made)


@blueprint.post("/<int(max=2147483647):channel_id>/<any(on, off):turn>")
@access.needs(Role.ADMIN)
@owned
def switch(channel: Channel, turn: str) -> ResponseReturnValue:
    """Send there again, or nothing until then."""
    (store.turn_on if turn == "on" else store.turn_off)(channel)
    flash(f"“{channel.name}” is {turn}.", "success")
    return redirect(url_for(".show", channel_id=channel.id), 303)


@blueprint.post("/<int(max=2147483647):channel_id>/delete")
@access.needs(Role.ADMIN, recent=True)
@owned
def delete(channel: Channel) -> ResponseReturnValue:
    """Forget it."""
    name = channel.name
    store.delete(channel)
    flash(f"“{name}” was deleted.", "success")
    return answer(None, _alerts())


@blueprint.get("/<int(max=2147483647):channel_id>/<any(test, secret, on, off, delete):form>")
@access.needs(Role.ADMIN)
def sent(channel_id: int, form: str) -> ResponseReturnValue:
    """Where a form was sent to, for who had to say who they are in between."""
    return redirect(url_for(".show", channel_id=channel_id))


def _alerts() -> str:
    """Where the channels are listed."""
    return url_for("alerts.index", _anchor="channels")


def _kind(text: str) -> ChannelKind:
    if text not in store.available():
        abort(404)
    return ChannelKind(text)


def _entered(kind: ChannelKind, form: ChannelForm, kept: Mapping[str, str] | None = None) -> dict[str, str] | None:
    """What was entered for its kind; None if anything in the form is wrong, which it then says."""
    is_valid = form.validate()
    values = {one.name: form[one.name].data or "" for one in KINDS[kind].fields}
    config, wrong = kinds.parsed(kind, values, settings.alert_hosts, kept)
    for name, sentence in wrong.items():
        form[name].errors = [sentence]
    return config if is_valid and not wrong else None


def _opened(channel: Channel) -> dict[str, str]:
    try:
        return store.opened(channel)
    except VaultError:
        return {}


def _form_page(kind: ChannelKind, form: ChannelForm, code: int = 200, refused: str = "") -> ResponseReturnValue:
    page = render_template("alerts/channels/new.html", kind=KINDS[kind], form=form, refused=refused, alerts=_alerts())
    return page, code


def _with_secret(channel: Channel, secret: str) -> ResponseReturnValue:
    response = make_response(_page(channel, secret=secret))
    response.headers["Cache-Control"] = "no-store"
    return response


def _page(
    channel: Channel, code: int = 200, *, form: ChannelForm | None = None, secret: str = "", refused: str = ""
) -> ResponseReturnValue:
    kind, config = KINDS[channel.kind], _opened(channel)
    shown = {one.name: config.get(one.name) for one in kind.fields if not one.secret}
    html = render_template(
        "alerts/channels/show.html",
        kind=kind,
        form=form
        or channel_form(
            channel.kind,
            formdata=None,
            name=channel.name,
            topics=channel.topics,
            quiet_from=_hour(channel.quiet_from),
            quiet_to=_hour(channel.quiet_to),
            alerts_daily=channel.alerts_daily,
            summary=channel.summary or "",
            **shown,
        ),
        secret=secret,
        refused=refused,
        is_lost=not config,
        alerts=_alerts(),
        **_history(channel),
    )
    return html, code


def _history(channel: Channel) -> dict[str, Any]:
    """What the fragment shows; it looks again while a test of a moment ago waits."""
    found, now = store.history(channel), utc_now()
    waits = any(
        one.sending is Sending.TEST and one.state is DeliveryState.DUE and now - one.created_at < _WATCHED
        for one in found
    )
    return {"channel": channel, "deliveries": found, "looks_again": waits, "most": store.HISTORY}


def _hour(hour: int | None) -> str:
    return "" if hour is None else str(hour)
