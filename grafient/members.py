"""Who belongs to a workspace, in which role, and how somebody comes in: by a link that works once.

A workspace always has an owner: what would leave it without one is refused. Changes of one workspace's members wait
for each other, or two owners could each remove the other at the same moment.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from sqlalchemy import ColumnElement, delete, func, select, update

from grafient import audit, sessions
from grafient.extensions import db
from grafient.models import Invitation, Membership, User, Workspace, utc_now
from grafient.plans import PLANS
from grafient.states import Action, Role

INVITATION = timedelta(days=7)
MOST_WORKSPACES = 100
"""Workspaces that one user can be a member of."""


class Refused(Exception):
    """What was asked can't be done, and nothing was changed. The message is a sentence for the user."""


class Deleted(Exception):
    """The workspace has been deleted, maybe a moment ago. Nothing can be done in it any more."""


@dataclass(frozen=True)
class Member:
    """Somebody in a workspace, and since when."""

    user_id: int
    email: str
    role: Role
    since: datetime


@dataclass(frozen=True)
class Place:
    """A workspace that somebody belongs to. ``name`` may be empty."""

    workspace_id: int
    name: str
    role: Role


def lock(workspace_id: int) -> None:
    """Let changes of a workspace wait for each other until the transaction ends. On SQLite all writers do anyway.

    Raises Deleted. Rows that refer to the workspace can be added meanwhile: somebody who accepts an invitation has it
    locked, and would wait for who deletes the workspace, who waits for the invitation.
    """
    there = select(Workspace.deleted_at).where(Workspace.id == workspace_id).with_for_update(key_share=True)
    found = db.session.execute(there).one_or_none()
    if found is None or found.deleted_at is not None:
        raise Deleted


def role_of(user: User) -> Role | None:
    """The user's role in the workspace that they are looking at."""
    here = Membership.user_id == user.id, Membership.workspace_id == user.workspace_id
    return db.session.execute(select(Membership.role).where(*here)).scalar_one_or_none()


def of(workspace_id: int) -> Sequence[Member]:
    """The members of a workspace, owners first. No more than the plan with the most allows."""
    rows = db.session.execute(
        select(User.id, User.email, Membership.role, Membership.created_at)
        .join(Membership, Membership.user_id == User.id)
        .where(Membership.workspace_id == workspace_id)
        .order_by(User.email)
    ).all()
    found = [Member(*row) for row in rows]
    return sorted(found, key=lambda member: -list(Role).index(member.role))


def places(user_id: int) -> Sequence[Place]:
    """The workspaces of a user."""
    rows = db.session.execute(
        select(Workspace.id, Workspace.name, Membership.role)
        .join(Membership, Membership.workspace_id == Workspace.id)
        .where(Membership.user_id == user_id)
        .order_by(func.lower(Workspace.name), Workspace.id)
        .limit(MOST_WORKSPACES)
    ).all()
    return [Place(*row) for row in rows]


def everybody() -> Iterator[tuple[str, str]]:
    """Each account's address, and its workspaces with their roles, in words."""
    statement = (
        select(User.email, Membership.role, Workspace.id, Workspace.name)
        .outerjoin(Membership, Membership.user_id == User.id)
        .outerjoin(Workspace, Workspace.id == Membership.workspace_id)
        .order_by(User.email, Workspace.id)
    )
    rows = db.session.execute(statement.execution_options(yield_per=500))
    for email, group in groupby(rows, key=lambda row: row.email):
        yield email, ", ".join(f"{row.role} of {row.name or f'workspace {row.id}'}" for row in group if row.id)


def invitations(workspace_id: int) -> Sequence[Invitation]:
    """Those that can still be used."""
    here = Invitation.workspace_id == workspace_id, Invitation.expires_at > utc_now()
    return db.session.execute(select(Invitation).where(*here).order_by(Invitation.id)).scalars().all()


def invite(workspace_id: int, role: Role, note: str, email: str = "") -> tuple[Invitation, str]:
    """A new invitation, and its token, of which only a hash is kept. Does not commit; raises Refused.

    ``email``: where it is sent by mail, see ``renewed``.
    """
    lock(workspace_id)
    now = utc_now()
    db.session.execute(delete(Invitation).where(Invitation.expires_at <= now))
    _has_room(workspace_id)
    token = secrets.token_urlsafe(32)
    audit.note(Action.INVITED, workspace_id, f"{email or note or 'somebody'} as {role}")
    invitation = Invitation(
        workspace_id=workspace_id, role=role, note=note, email=email, token_hash=sessions.hashed(token),
        created_at=now, expires_at=now + INVITATION,
    )  # fmt: skip
    db.session.add(invitation)
    db.session.flush()
    return invitation, token


def renewed(invitation_id: int) -> tuple[Invitation, Workspace, str] | None:
    """An invitation with another token than before, and where it leads; None if it can't be used any more. Does not
    commit. Whoever sends it by mail does so with a token that nothing else has."""
    found = db.session.execute(
        select(Invitation, Workspace)
        .join(Workspace, Workspace.id == Invitation.workspace_id)
        .where(Invitation.id == invitation_id, Invitation.expires_at > utc_now())
    ).one_or_none()
    if found is None:
        return None
    token = secrets.token_urlsafe(32)
    found[0].token_hash = sessions.hashed(token)
    return found[0], found[1], token


def invited(token: str, *, for_update: bool = False) -> tuple[Invitation, Workspace] | None:
    """The invitation with this token, and where it leads; None if it was used, taken back, or is too old.

    ``for_update``: nobody else can use it until the transaction ends. Of two who open the link at the same moment, the
    second waits, and then finds it gone.
    """
    statement = (
        select(Invitation, Workspace)
        .join(Workspace, Workspace.id == Invitation.workspace_id)
        .where(Invitation.token_hash == sessions.hashed(token), Invitation.expires_at > utc_now())
    )
    if for_update:
        statement = statement.with_for_update(of=Invitation)
    found = db.session.execute(statement).one_or_none()
    return None if found is None else (found[0], found[1])


def accept(token: str, user: User) -> bool:
    """Make the user a member, who now looks at that workspace. False if the invitation is no longer there. Does not
    commit.

    A member who opens it keeps the role that they have, and the link stays for whom it was meant.
    """
    found = invited(token, for_update=True)
    if found is None:
        return False
    invitation, workspace = found
    user.workspace = workspace
    db.session.flush()
    if role_of(user) is not None:
        return True
    db.session.delete(invitation)
    db.session.add(Membership(workspace_id=workspace.id, user_id=user.id, role=invitation.role))
    audit.note(Action.JOINED, workspace.id, f"as {invitation.role}", actor=user.email)
    return True


def admit(user: User, role: Role) -> None:
    """Make somebody who comes by a rule of the operator's a member of the first workspace. Does not commit; raises
    Refused."""
    first = select(func.min(Workspace.id)).where(Workspace.deleted_at.is_(None))
    workspace_id = db.session.execute(first).scalar_one()
    if workspace_id is None:
        raise Refused("There is no workspace that you could come into.")
    lock(workspace_id)
    user.workspace = _has_room(workspace_id)
    db.session.flush()
    db.session.add(Membership(workspace_id=workspace_id, user_id=user.id, role=role))
    audit.note(Action.JOINED, workspace_id, f"as {role}", actor=user.email)


def take_back(workspace_id: int, invitation_id: int) -> None:
    """Make an invitation worthless. Commits."""
    here = Invitation.id == invitation_id, Invitation.workspace_id == workspace_id
    note = db.session.execute(select(Invitation.note).where(*here)).scalar_one_or_none()
    if note is None:
        return
    audit.note(Action.INVITATION_TAKEN_BACK, workspace_id, note)
    db.session.execute(delete(Invitation).where(*here))
    db.session.commit()


def set_role(workspace_id: int, user_id: int, role: Role) -> None:
    """Give a member another role. Commits; raises Refused."""
    lock(workspace_id)
    member = _member(workspace_id, user_id)
    if member.role is Role.OWNER and role is not Role.OWNER:
        _keep_an_owner(workspace_id, user_id)
    audit.note(Action.ROLE_CHANGED, workspace_id, f"{_email(user_id)} from {member.role} to {role}")
    member.role = role
    db.session.commit()


def remove(workspace_id: int, user_id: int) -> None:
    """Take a member out, whose sessions end everywhere. Commits; raises Refused.

    They look at another of their workspaces when they come back, or at none.
    """
    lock(workspace_id)
    member = _member(workspace_id, user_id)
    if member.role is Role.OWNER:
        _keep_an_owner(workspace_id, user_id)
    audit.note(Action.MEMBER_REMOVED, workspace_id, _email(user_id))
    db.session.delete(member)
    db.session.flush()
    _look_elsewhere(workspace_id, User.id == user_id)
    sessions.end_of(user_id)
    db.session.commit()


def dissolve(workspace_id: int) -> None:
    """Take everybody out of a workspace that is deleted, under its lock, and invitations with them. Does not commit."""
    uninvite(workspace_id)
    db.session.execute(delete(Membership).where(Membership.workspace_id == workspace_id))
    _look_elsewhere(workspace_id)


def uninvite(workspace_id: int) -> None:
    """Make all invitations worthless; who is just using one is waited for, and is a member then. Does not commit."""
    db.session.execute(delete(Invitation).where(Invitation.workspace_id == workspace_id))


def _look_elsewhere(workspace_id: int, *who: ColumnElement[bool]) -> None:
    """Have who looks at a workspace look at that of theirs which they have belonged to for longest, or at none."""
    other = (
        select(Membership.workspace_id)
        .where(Membership.user_id == User.id)
        .order_by(Membership.created_at, Membership.workspace_id)
        .limit(1)
        .scalar_subquery()
    )
    moved = update(User).where(User.workspace_id == workspace_id, *who).values(workspace_id=other)
    db.session.execute(moved.execution_options(synchronize_session=False))


def switch(user: User, workspace_id: int) -> bool:
    """Look at another of the user's workspaces. Commits; False if it is none of theirs."""
    if workspace_id not in {place.workspace_id for place in places(user.id)}:
        return False
    user.workspace_id = workspace_id
    db.session.commit()
    return True


def rename(workspace_id: int, name: str) -> None:
    """Call the workspace something. Commits."""
    audit.note(Action.WORKSPACE_RENAMED, workspace_id, name)
    db.session.execute(update(Workspace).where(Workspace.id == workspace_id).values(name=name))
    db.session.commit()


def _has_room(workspace_id: int) -> Workspace:
    """The workspace, if its plan has room for one more. Raises Refused."""
    workspace = db.session.get_one(Workspace, workspace_id)
    plan = PLANS[workspace.plan]
    if len(of(workspace_id)) + len(invitations(workspace_id)) >= plan.members:
        raise Refused(f"The plan {plan.name} has room for {plan.members} members, invitations included.")
    return workspace


def _email(user_id: int) -> str:
    return db.session.execute(select(User.email).where(User.id == user_id)).scalar_one()


def _member(workspace_id: int, user_id: int) -> Membership:
    found = db.session.get(Membership, (workspace_id, user_id), populate_existing=True)
    if found is None:
        raise Refused("This person is no longer a member.")
    return found


def _keep_an_owner(workspace_id: int, user_id: int) -> None:
    others = select(func.count()).where(
        Membership.workspace_id == workspace_id, Membership.role == Role.OWNER, Membership.user_id != user_id
    )
    if not db.session.execute(others).scalar():
        raise Refused("A workspace needs an owner. Make somebody else an owner first.")
