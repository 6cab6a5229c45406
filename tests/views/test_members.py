"""Teams: invitations that work once, roles, and a workspace that never loses its last owner."""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from flask import Flask
from sqlalchemy import select

from grafient import accounts, members
from grafient.extensions import db
from grafient.models import Invitation, Membership, User, Workspace
from grafient.sandbox import Sandbox
from grafient.states import Role
from tests.conftest import EMAIL, PASSWORD
from tests.pages import Pages
from tests.views.test_integrations import connected

OTHER = "other@example.com"


@pytest.fixture(autouse=True)
def _room(settings: dict[str, str]) -> None:
    settings["GRAFIENT_DEFAULT_PLAN"] = "pro"


def link(pages: Pages, role: str = "viewer", note: str = "") -> str:
    """What an owner gets to send to somebody."""
    page = pages.post("/account/members/invite", 200, page="/account/members", role=role, note=note)
    assert "no-store" in page.headers["Cache-Control"]
    found = re.search(r'value="http://localhost(/invitations/[^"]+)"', page.text)
    assert found
    return found[1]


def joined(app: Flask, pages: Pages, role: str = "viewer", email: str = OTHER) -> Pages:
    """Somebody who came by an invitation, with an account that they made for it."""
    other = Pages(app)
    other.get(link(pages, role))
    other.register(email, PASSWORD)
    return other


def roles(app: Flask, workspace_id: int = 1) -> dict[str, str]:
    with app.app_context():
        return {member.email: member.role.value for member in members.of(workspace_id)}


def test_who_registers_first_owns_their_workspace(app: Flask, pages: Pages) -> None:
    assert roles(app) == {EMAIL: "owner"}


@pytest.mark.parametrize("role", [role.value for role in Role])
def test_who_is_invited_comes_in_with_a_new_account(app: Flask, pages: Pages, sandbox: Sandbox, role: str) -> None:
    connected(app, pages, sandbox)
    other = joined(app, pages, role)
    assert roles(app) == {EMAIL: "owner", OTHER: role}
    assert "$" in other.get("/").text
    assert (other.client.get("/integrations/new").status_code == 200) == (role in ("admin", "owner"))
    with app.app_context():
        assert len(db.session.execute(select(Workspace)).all()) == 1, "they get no workspace of their own beside it"


def test_an_invitation_works_once(app: Flask, pages: Pages) -> None:
    address = link(pages)
    first, second = Pages(app), Pages(app)
    for one in (first, second):
        one.get(address)
    first.register(OTHER, PASSWORD)
    second.get(address, 404)
    assert "closed" in second.get("/register", 403).text
    assert roles(app).keys() == {EMAIL, OTHER}


def test_an_invitation_works_for_seven_days(app: Flask, pages: Pages) -> None:
    with time_machine.travel(datetime.now(UTC)) as clock:
        address = link(pages)
        clock.shift(timedelta(days=6, hours=23))
        Pages(app).get(address)
        clock.shift(timedelta(hours=2))
        Pages(app).get(address, 404)


def test_an_invitation_that_was_taken_back_does_not_work(app: Flask, pages: Pages) -> None:
    address = link(pages, note="For the bookkeeper")
    assert "For the bookkeeper" in pages.get("/account/members").text
    pages.post("/account/members/invitations/1/delete", page="/account/members")
    assert "For the bookkeeper" not in pages.get("/account/members").text
    Pages(app).get(address, 404)


def test_its_link_is_nowhere_but_where_it_was_made(app: Flask, pages: Pages) -> None:
    token = link(pages).rpartition("/")[2]
    assert token not in pages.get("/account/members").text
    with app.app_context():
        rows = [str(row) for table in db.metadata.sorted_tables for row in db.session.execute(select(table))]
    assert not any(token in row for row in rows), "a stolen database invites nobody"
    for wrong in (token[:-1], token.upper(), "x", "1", "é"):
        Pages(app).get(f"/invitations/{wrong}", 404)


def test_who_has_an_account_joins_with_it_and_switches(app: Flask, pages: Pages) -> None:
    other = joined(app, pages)
    app.extensions["settings"].__dict__["registration"] = "open"
    third = Pages(app)
    third.register("third@example.com", PASSWORD)
    pages.post("/account/workspace", page="/account/members", name="Books & Co")
    address = link(pages, "member")
    assert "Join Books &amp; Co" in third.get(address).text
    third.post(address, page=address)
    assert roles(app)["third@example.com"] == "member"
    assert "Books &amp; Co" in third.get("/").text
    own = next(place for place in _places(app, "third@example.com") if place.role is Role.OWNER)
    third.post(f"/account/workspaces/{own.workspace_id}", page="/account")
    assert "Books &amp; Co" not in third.get("/").text
    assert third.client.get("/integrations/new").status_code == 200, "they own this one"
    third.post("/account/workspaces/1", page="/account")
    assert third.client.get("/integrations/new").status_code == 403
    other.post(f"/account/workspaces/{own.workspace_id}", 404, page="/account")


def _places(app: Flask, email: str) -> list[members.Place]:
    with app.app_context():
        return list(members.places(db.session.execute(select(User.id).where(User.email == email)).scalar_one()))


def test_a_member_who_opens_an_invitation_keeps_their_role_and_leaves_it_to_others(app: Flask, pages: Pages) -> None:
    address = link(pages, "viewer")
    pages.post(address, page=address)
    assert roles(app) == {EMAIL: "owner"}
    Pages(app).get(address)


def test_two_who_use_one_link_at_the_same_moment(app: Flask, pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both begin before either has used it; one of them comes in."""
    app.extensions["settings"].__dict__["registration"] = "open"
    both = [Pages(app), Pages(app)]
    for number, one in enumerate(both):
        one.register(f"{number}@example.com", PASSWORD)
    address = link(pages)
    tokens = [one.token(address) for one in both]
    accept, together = members.accept, threading.Barrier(2, timeout=3)

    def waits(token: str, user: User) -> bool:
        if app.extensions["settings"].database_url.startswith("postgresql"):
            together.wait()  # SQLite lets the second begin only when the first has ended
        return accept(token, user)

    monkeypatch.setattr(members, "accept", waits)
    answers: list[int] = []

    def use(one: Pages, token: str) -> None:
        answers.append(one.client.post(address, data={"csrf_token": token}).status_code)

    threads = [threading.Thread(target=use, args=pair) for pair in zip(both, tokens, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [303, 404]
    assert len(roles(app)) == 2


def test_an_invitation_that_somebody_registers_with_is_nobody_elses_meanwhile(
    app: Flask, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever registers by an invitation would otherwise be left with an account and a workspace of their own, though
    registration is closed."""
    app.extensions["settings"].__dict__["registration"] = "open"
    Pages(app).register(OTHER, PASSWORD)
    app.extensions["settings"].__dict__["registration"] = "closed"
    address = link(pages)
    late, ended = Pages(app), list[bool]()
    create = accounts.Datastore.create_user

    def use() -> None:
        with app.app_context():
            ended.append(members.accept(address.rpartition("/")[2], db.session.get_one(User, 2)))
            db.session.rollback()
            db.session.remove()

    thread = threading.Thread(target=use)

    def meanwhile(self: accounts.Datastore, **of: Any) -> User:
        thread.start()
        thread.join(0.5)
        assert thread.is_alive(), "it waits for who registers"
        return create(self, **of)

    monkeypatch.setattr(accounts.Datastore, "create_user", meanwhile)
    late.get(address)
    late.register("late@example.com", PASSWORD)
    thread.join(30)
    assert ended == [False]
    assert roles(app)["late@example.com"] == "viewer"
    with app.app_context():
        assert len(db.session.execute(select(Workspace)).all()) == 2, "the first's and the other's"


def test_the_last_owner_can_not_go(app: Flask, pages: Pages) -> None:
    other = joined(app, pages, "admin")
    refused = pages.post("/account/members/1/role", 409, page="/account/members", role="viewer")
    assert "A workspace needs an owner." in refused.text
    assert "A workspace needs an owner." in pages.post("/account/leave", 409, page="/account/members").text
    assert "A workspace needs an owner." in pages.post("/account/members/1/remove", 409, page="/account/members").text
    pages.post("/account/members/2/role", page="/account/members", role="owner")
    pages.post("/account/members/1/role", page="/account/members", role="viewer")
    assert roles(app) == {EMAIL: "viewer", OTHER: "owner"}
    assert "needs an owner" in other.post("/account/leave", 409, page="/account/members").text
    pages.post("/account/leave", page="/account/members")
    assert roles(app) == {OTHER: "owner"}


def test_two_owners_who_remove_each_other_at_once_leave_one(app: Flask, pages: Pages) -> None:
    joined(app, pages, "owner")
    ended: list[str] = []

    def remove(user_id: int) -> None:
        with app.app_context():
            try:
                members.remove(1, user_id)
                ended.append("removed")
            except members.Refused:
                db.session.rollback()
                ended.append("refused")
            finally:
                db.session.remove()

    threads = [threading.Thread(target=remove, args=(user_id,)) for user_id in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == ["refused", "removed"]
    assert len(roles(app)) == 1


def test_who_is_removed_sees_nothing_from_the_next_request_on(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    other = joined(app, pages, "admin")
    assert "$" in other.get("/").text
    pages.post("/account/members/2/remove", page="/account/members")
    other.get("/", 302)
    other.log_in(OTHER, PASSWORD)
    for path in ("/", "/breakdown", "/ledger.csv", "/integrations", "/integrations/1", "/account/members"):
        page = other.get(path, 403).text
        assert "You don't belong to a workspace" in page
        assert "$" not in page
    assert "Ask for an invitation" in other.get("/account").text
    other.post(address := link(pages), page=address)
    assert "$" in other.get("/").text


def test_a_member_of_two_looks_at_the_other_when_removed_from_one(app: Flask, pages: Pages) -> None:
    app.extensions["settings"].__dict__["registration"] = "open"
    other = Pages(app)
    other.register(OTHER, PASSWORD)
    address = link(pages)
    other.post(address, page=address)
    pages.post("/account/members/2/remove", page="/account/members")
    other.log_in(OTHER, PASSWORD)
    assert other.client.get("/integrations/new").status_code == 200


def test_a_plan_says_how_many_members_it_has_room_for(app: Flask, pages: Pages) -> None:
    with app.app_context():
        db.session.get_one(Workspace, 1).plan = "free"
        db.session.commit()
    link(pages)
    link(pages)
    refused = pages.post("/account/members/invite", 422, page="/account/members", role="viewer", note="")
    assert "The plan Free has room for 3 members, invitations included." in refused.text


def test_a_plan_says_how_many_integrations_it_has_room_for(
    app: Flask, pages: Pages, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from grafient import plans

    monkeypatch.setitem(plans.PLANS, "pro", replace(plans.PLANS["pro"], integrations=1))
    pages.connect(sandbox.key("lively"))
    fields = {"provider": "openrouter", "api_key": sandbox.key("no-flag"), "label": ""}
    refused = pages.post("/integrations", 422, page="/integrations/new", **fields)
    assert "The plan Pro has room for 1 integrations." in refused.text or "has room for 1 integration" in refused.text


@pytest.mark.parametrize(("role", "note"), [("king", ""), ("", ""), ("viewer", "x" * 101), ("viewer", "a\nb")])
def test_what_is_no_invitation_makes_none(app: Flask, pages: Pages, role: str, note: str) -> None:
    pages.post("/account/members/invite", 422, page="/account/members", role=role, note=note)
    with app.app_context():
        assert not db.session.execute(select(Invitation)).all()


def test_a_removed_users_rows_go_with_the_account(app: Flask, pages: Pages) -> None:
    joined(app, pages)
    with app.app_context():
        db.session.delete(db.session.get_one(User, 2))
        db.session.commit()
        assert [row.user_id for row in db.session.execute(select(Membership)).scalars()] == [1]


def test_an_operator_lists_who_has_an_account(app: Flask, pages: Pages) -> None:
    joined(app, pages, "viewer")
    pages.post("/account/workspace", page="/account/members", name="The books")
    with app.app_context():
        alone = db.session.query(User).filter_by(email="other@example.com").one()
        db.session.query(Membership).filter_by(user_id=alone.id).delete()
        alone.workspace_id = None
        db.session.commit()
    ran = app.test_cli_runner().invoke(args=["members", "list"])
    assert ran.output == f"other@example.com: no workspace\n{EMAIL}: owner of The books\n"
    ran = app.test_cli_runner().invoke(args=["plans", "set", "other@example.com", "free"])
    assert ran.exit_code == 1
    assert "other@example.com belongs to no workspace" in ran.output
