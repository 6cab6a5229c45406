"""Every route with every role: the map of addresses says which there are, and a new one without a rule fails."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.routing import Rule as Route
from werkzeug.test import TestResponse

from grafient import create_app, members
from grafient.alerts.channels import store
from grafient.extensions import db
from grafient.models import AlertRule, Budget, Incident, Invitation, Membership, SyncRun, User, utc_now
from grafient.sandbox import Sandbox
from grafient.states import AlertKind, BudgetPeriod, ChannelKind, Role
from grafient.views import access
from tests.conftest import PASSWORD, environ
from tests.pages import Pages
from tests.views.test_integrations import run_due

STRANGER, NOBODY, OUTSIDER = "an owner of another workspace", "nobody who is signed in", "a user without a workspace"
ACTORS = (*Role, STRANGER, NOBODY, OUTSIDER)
CHANNEL = "The channel of workspace one"
LABEL = "The books of workspace one"
SECRETS = (LABEL, CHANNEL, "owner@example.com", "For the bookkeeper")
"""What only members may see."""


@dataclass
class World:
    """An app whose workspace has everything, and a browser for each actor; ``restore`` undoes what was done to it."""

    app: Flask
    path: Path
    browsers: Mapping[str, Pages]
    names: Mapping[str, object]
    cookies: dict[str, dict[object, object]] = field(default_factory=dict)

    def restore(self) -> None:
        with self.app.app_context():
            db.session.remove()
            db.engine.dispose()
        for end in ("-wal", "-shm"):
            self.path.with_name(self.path.name + end).unlink(missing_ok=True)
        shutil.copy(self.path.with_suffix(".kept"), self.path)
        self.app.extensions["redis"].flushall()
        for actor, browser in self.browsers.items():
            browser.client._cookies = dict(self.cookies.setdefault(actor, dict(browser.client._cookies or {})))


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path, redis_url: str, _sandbox: Sandbox
) -> Iterator[World]:
    _sandbox.reset()
    folder = tmp_path_factory.mktemp("world")
    path = folder / "grafient.db"
    shutil.copy(sqlite_template, path)
    settings = environ(f"sqlite:///{path}", redis_url, _sandbox.base_url, str(folder))
    app = create_app(settings | {"GRAFIENT_DEFAULT_PLAN": "pro"})
    app.extensions["redis"].flushall()
    app.extensions["settings"].__dict__["registration"] = "open"
    browsers = {str(actor): Pages(app) for actor in ACTORS}
    browsers[Role.OWNER].register("owner@example.com", PASSWORD)
    browsers[Role.OWNER].connect(_sandbox.key("lively"), LABEL)
    run_due(app)
    for role in (Role.ADMIN, Role.MEMBER, Role.VIEWER):
        with app.app_context():
            _, token = members.invite(1, role, "")
            db.session.commit()
        browsers[role].get(f"/invitations/{token}")
        browsers[role].register(f"{role}@example.com", PASSWORD)
    browsers[STRANGER].register("stranger@example.com", PASSWORD)
    browsers[OUTSIDER].register("outsider@example.com", PASSWORD)
    with app.app_context():
        outsider = db.session.query(User).filter_by(email="outsider@example.com").one()
        members.set_role(1, 1, Role.OWNER)
        db.session.query(Membership).filter_by(user_id=outsider.id).delete()
        outsider.workspace_id = None
        _, invitation = members.invite(1, Role.VIEWER, "For the bookkeeper")
        entered = {"url": "https://hooks.example.com/in"}
        channel, _ = store.create(1, ChannelKind.WEBHOOK, CHANNEL, entered, store.Options())
        budget = Budget(
            workspace_id=1,
            name="Nobody else's",
            amount_usd=Decimal(5),
            period=BudgetPeriod.MONTH,
            filters={},
            byok=False,
            actual=[100],
            forecast=[],
        )
        facts = {"label": LABEL, "since": "2026-11-20T06:01:00+00:00"}
        incident = Incident(
            workspace_id=1,
            kind=AlertKind.NO_SYNC,
            subject="1",
            facts=facts,
            marks=[],
            opened_at=utc_now(),
            told_at=utc_now(),
        )
        db.session.add_all([budget, incident, AlertRule(workspace_id=1, kind=AlertKind.NEW, settings={})])
        db.session.flush()
        names: dict[str, object] = {
            "integration_id": 1,
            "channel_id": channel.id,
            "run_id": db.session.query(SyncRun.id).scalar(),
            "invitation_id": db.session.query(Invitation.id).scalar(),
            "user_id": db.session.query(User.id).filter_by(email="viewer@example.com").scalar(),
            "workspace_id": 1,
            "token": invitation,
            "day": "2026-11-01",
            "permaslug": "openai/gpt-5.4",
            "name": "OpenAI",
            "hash_": "0" * 64,
            "filename": "app.css",
            "kind": "new",
            "budget_id": budget.id,
            "incident_id": incident.id,
        }
        db.session.commit()
        db.session.remove()
        db.engine.dispose()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    shutil.copy(path, path.with_suffix(".kept"))
    found = World(app, path, browsers, names)
    found.restore()
    yield found
    with app.app_context():
        db.engine.dispose()
    app.extensions["redis"].close()


def routes(app: Flask) -> Iterator[tuple[Route, str]]:
    for route in app.url_map.iter_rules():
        for method in sorted((route.methods or set()) & {"GET", "POST", "PUT", "PATCH", "DELETE"}):
            yield route, method


def _bare() -> Flask:
    """The app, for the names of its routes; it opens nothing."""
    return create_app(environ("sqlite:////tmp/none.db", "redis://127.0.0.1:1", "http://127.0.0.1:1", "/tmp/none"))


ROUTES = {f"{method} {route.rule}": (route.endpoint, method) for route, method in routes(_bare())}


def ask(world: World, actor: str, path: str, method: str) -> TestResponse:
    """A request, with the CSRF token that this browser has, and no fields but those that forms keep hidden."""
    world.restore()
    browser = world.browsers[str(actor)]
    if method == "GET":
        answer = browser.client.get(path)
    else:
        page = "/login" if actor == NOBODY else "/account"
        fields = {"csrf_token": browser.token(page), "history": "delete", "role": "viewer"}
        answer = browser.client.post(path, data=fields)
    answer.get_data()
    answer.close()
    return answer


def address(world: World, name: str) -> str:
    route = next(route for route, method in routes(world.app) if f"{method} {route.rule}" == name)
    values = dict(world.names)
    for argument, converter in route._converters.items():
        if argument not in values:
            values[argument] = min(converter.items)  # type: ignore[attr-defined]  # of any(a, b)
    wanted = {argument: values[argument] for argument in route.arguments - set(route.defaults or {})}
    with world.app.test_request_context():
        adapter = world.app.url_map.bind("localhost")
        return str(adapter.build(route.endpoint, wanted | (route.defaults or {}), method=name.split()[0]))


def refusal(answer: TestResponse) -> str:
    """Why somebody was not let in: ``login``, ``role``, ``workspace``, or nothing."""
    if answer.status_code == 302 and (answer.location or "").startswith("/login?next="):
        return "login"
    if answer.status_code == 403 and answer.mimetype == "text/html":
        return next((why for why, said in SAID.items() if said in answer.text), "refused")
    return ""


SAID = {
    "role": "Your role doesn&#39;t allow this",
    "role ": "Your role doesn't allow this",
    "workspace": "You don't belong to a workspace",
}


@pytest.mark.parametrize("name", ROUTES)
def test_every_route_with_every_role(world: World, name: str) -> None:
    endpoint, method = ROUTES[name]
    with world.app.app_context():
        rule = access.rule_of(endpoint)
    assert rule is not None, f"{endpoint} says for nobody who may ask for it: see grafient/views/access.py"
    path = address(world, name)
    for actor in ACTORS:
        answer = ask(world, actor, path, method)
        assert answer.status_code < 500 or endpoint == "health.readyz", (name, actor)
        why = refusal(answer).strip()
        if rule.is_public:
            assert why in ("", "refused"), (name, actor, why)
        elif actor == NOBODY:
            assert why == "login", (name, actor, answer.status_code)
        elif rule.role is None:
            assert why == "", (name, actor, why)
        elif actor == OUTSIDER:
            assert why == "workspace", (name, actor, answer.status_code)
        elif actor == STRANGER:
            assert why == "", "they own a workspace, and see that of nobody else"
        else:
            assert (why == "role") == (not Role(actor).includes(rule.role)), (name, actor, why)
        if actor in (NOBODY, OUTSIDER, STRANGER) and endpoint != "members.invitation":
            for secret in SECRETS:
                assert secret.encode() not in answer.data, f"{actor} saw {secret} at {name}"


CHANGES = [name for name in ROUTES if name.startswith("POST") and "login" not in name and "register" not in name]


@pytest.mark.parametrize("name", CHANGES)
def test_nobody_changes_a_workspace_that_is_not_theirs(world: World, name: str) -> None:
    """Whatever somebody sends who is no member, all that hangs on the workspace is what it was."""
    if name == "POST /invitations/<token>":
        pytest.skip("who has the link may come in")
    path = address(world, name)
    for actor in (NOBODY, OUTSIDER, STRANGER):
        world.restore()
        before = contents(world)
        ask(world, actor, path, "POST")
        assert contents(world) == before, f"{actor} changed something at {name}"


def contents(world: World) -> dict[str, list[str]]:
    """All that belongs to the workspace, by table."""
    with world.app.app_context():
        found = {}
        for table in ("workspace", "membership", "invitation", "integration", "sync_run", "channel", "delivery"):
            where = {"workspace": "id = 1", "sync_run": "integration_id = 1", "delivery": "channel_id = 1"}.get(
                table, "workspace_id = 1"
            )
        for table in (
            "workspace",
            "membership",
            "invitation",
            "integration",
            "sync_run",
            "budget",
            "incident",
            "alert_rule",
        ):
            where = {"workspace": "id = 1", "sync_run": "integration_id = 1"}.get(table, "workspace_id = 1")
            rows = db.session.execute(db.text(f"SELECT * FROM {table} WHERE {where}")).all()
            found[table] = sorted(map(str, rows))
        db.session.rollback()
    return found


def test_a_view_that_says_nothing_is_refused_to_everybody(world: World) -> None:
    app = world.app
    app._got_first_request = False  # only so that a route can be added to an app in use
    app.add_url_rule("/forgotten", "forgotten", lambda: "in")
    try:
        for actor in ACTORS:
            assert ask(world, actor, "/forgotten", "GET").status_code == 403
    finally:
        del app.view_functions["forgotten"]


def test_a_role_counts_from_the_next_request_on(world: World) -> None:
    world.restore()
    admin = world.browsers[Role.ADMIN]
    assert admin.client.get("/integrations/new").status_code == 200
    with world.app.app_context():
        user = db.session.query(User).filter_by(email="admin@example.com").one()
        members.set_role(1, user.id, Role.VIEWER)
    assert admin.client.get("/integrations/new").status_code == 403
    assert admin.client.get("/").status_code == 200
    assert 'href="/integrations/new"' not in admin.client.get("/integrations").text


def test_what_nobody_may_press_is_not_on_the_page(world: World) -> None:
    world.restore()
    for role in Role:
        for path in ("/integrations", "/integrations/1", "/account/members"):
            page = world.browsers[role].get(path).text
            assert ("Force Sync" in page) == (role.includes(Role.ADMIN) and path != "/account/members"), (role, path)
            assert ("Invite somebody" in page) == (role is Role.OWNER and path == "/account/members"), (role, path)


@pytest.mark.parametrize("path", ["/integrations/1/delete", "/integrations/1/key", "/account/members/2/remove"])
def test_what_can_not_be_undone_asks_who_one_is(world: World, path: str) -> None:
    world.restore()
    owner = world.browsers[Role.OWNER]
    with owner.client.session_transaction() as session:
        session["fs_paa"] -= 31 * 60
    before = contents(world)
    fields = {"csrf_token": owner.token("/account"), "history": "delete", "api_key": "sk-or-v1-x"}
    answer = owner.client.post(path, data=fields)
    assert (answer.status_code, answer.location) == (303, f"/verify?next={path}")
    assert (
        owner.client.post(path, data=fields, headers={"HX-Request": "true"}).headers["HX-Redirect"] == answer.location
    )
    assert contents(world) == before
    confirmed = owner.post(f"/verify?next={path}", 302, page="/verify", password=PASSWORD)
    assert owner.client.get(confirmed.location, follow_redirects=True).status_code == 200
    assert owner.client.post(path, data=fields).status_code in (303, 422)


def test_whatever_asks_for_it_recently_does_so_at_every_route(world: World) -> None:
    with world.app.app_context():
        recent = [name for name, (endpoint, _) in ROUTES.items() if (rule := access.rule_of(endpoint)) and rule.recent]
    assert {"GET /account/passkeys", "POST /account/codes", "POST /account/data/account"} <= set(recent)
    world.restore()
    owner = world.browsers[Role.OWNER]
    token = owner.token("/account")
    with owner.client.session_transaction() as session:
        session["fs_paa"] -= 31 * 60
    for name in recent:
        answer = owner.client.open(address(world, name), method=name.split()[0], data={"csrf_token": token})
        assert (answer.location or "").startswith("/verify?next="), name


def test_nothing_is_changed_by_asking_nor_without_the_token_of_a_form(world: World) -> None:
    """So no other page can have a browser that is signed in here change anything (CSRF)."""
    world.restore()
    owner = world.browsers[Role.OWNER]
    before = contents(world)
    for name, (endpoint, method) in ROUTES.items():
        if method == "POST":
            answer = owner.client.post(address(world, name), data={"history": "delete", "role": "viewer"})
            assert answer.status_code in (400, 404) or endpoint == "security.logout", (name, answer.status_code)
        elif endpoint != "members.invitation":
            owner.client.get(address(world, name)).close()
        assert contents(world) == before, name
        assert owner.client.get("/account").status_code == 200, f"{name} signed out"


def test_a_refusal_is_a_line_of_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    ask(world, Role.VIEWER, "/integrations/1/delete", "POST")
    assert "access: a viewer (user " in caplog.text
    assert "asked for integrations.delete, from 127.0.0.1" in caplog.text
