"""Leaving for good: a workspace is deleted with all that is stored of it, and so is an account.

What somebody could still see or use goes at once and in one transaction: members, invitations, the providers' keys and
open syncs; and the workspace is marked as deleted. Its costs and replies can be millions of rows. They follow in
portions (``finish``), and the audit log after them: as many as a request has time for, the rest with the ticks. If one
dies in between, nobody can see what is left, and the next goes on.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.orm import aliased

from grafient import accounts, audit, integrations, members
from grafient.alerts.channels import store
from grafient.extensions import db
from grafient.members import Refused
from grafient.models import CoveredDay, Integration, Membership, User, Workspace, utc_now
from grafient.states import Action, Role

WORD = "delete"
"""What is typed where there is no name."""


class Mistyped(Refused):
    """What had to be typed, so that nobody deletes anything by mistake, was something else."""


@dataclass(frozen=True)
class Goes:
    """What goes with a workspace: integrations, UTC days that are known of any of them, and who else loses it.
    ``word``: what has to be typed."""

    name: str
    word: str
    integrations: int
    days: int
    others: Sequence[str]


@dataclass(frozen=True)
class Place:
    """A workspace of somebody. ``name`` may be empty; ``others``: how many more members it has; ``owners``: how many of
    these are owners."""

    workspace_id: int
    name: str
    role: Role
    others: int
    owners: int

    @property
    def goes(self) -> bool:
        """Whether nobody would be left in it."""
        return not self.others

    @property
    def needs_owner(self) -> bool:
        """Whether somebody would be left in it, and no owner."""
        return self.others > 0 and self.role is Role.OWNER and not self.owners


def what_goes(workspace_id: int, user_id: int) -> Goes:
    """What deleting a workspace would take with it, for the user who may do that."""
    workspace = db.session.get_one(Workspace, workspace_id)
    here = Integration.workspace_id == workspace_id
    count = db.session.execute(select(func.count()).select_from(Integration).where(here)).scalar_one()
    days = select(func.count(CoveredDay.day.distinct())).join(Integration, Integration.id == CoveredDay.integration_id)
    others = [member.email for member in members.of(workspace_id) if member.user_id != user_id]
    word = workspace.name or WORD
    return Goes(workspace.name, word, count, db.session.execute(days.where(here)).scalar_one(), others)


def places(user_id: int) -> Sequence[Place]:
    """All workspaces of somebody, and who would be left in each."""
    them = aliased(Membership)
    others = select(func.count(them.user_id)).where(them.workspace_id == Workspace.id, them.user_id != user_id)
    owners = others.where(them.role == Role.OWNER)
    mine = (
        select(Workspace.id, Workspace.name, Membership.role, others.scalar_subquery(), owners.scalar_subquery())
        .join(Membership, Membership.workspace_id == Workspace.id)
        .where(Membership.user_id == user_id)
        .order_by(Workspace.id)
    )
    return [Place(*row) for row in db.session.execute(mine)]


def refusal(user: User, found: Sequence[Place], operators: Collection[str]) -> str:
    """Why somebody can't delete their account yet, in a sentence; empty if they can."""
    wanting = [place.name or "without a name" for place in found if place.needs_owner]
    if wanting:
        which = ", ".join(wanting[:3]) + (f" and {len(wanting) - 3} more" if len(wanting) > 3 else "")
        return (
            f"You are the last owner of a workspace that others belong to ({which}). "
            "Make somebody else an owner first, or delete the workspace."
        )
    runs_it = accounts.is_operator(user, ()) and accounts.others_are_there(user)
    if runs_it and not accounts.another_is_named(user, operators):
        return (
            "You run this Grafient, and others have accounts here. Name one of them in GRAFIENT_OPERATORS first, so "
            "that somebody runs it after you."
        )
    return ""


def delete_workspace(workspace_id: int, typed: str) -> None:
    """Delete a workspace, if its name was typed. Commits; raises Mistyped, or Deleted if somebody else was faster.

    Its members look at another of theirs, or at none. What ``finish`` has to delete is left.
    """
    members.lock(workspace_id)
    name = db.session.execute(select(Workspace.name).where(Workspace.id == workspace_id)).scalar_one()
    _confirm(typed, name or WORD)
    _close(workspace_id)
    db.session.commit()


def delete_account(user_id: int, typed: str, operators: Collection[str]) -> None:
    """Delete an account, if the word was typed, and the workspaces in which it is alone. Commits; raises Mistyped or
    Refused. One that is gone already, such as from another tab, is no error.

    Its sessions end with it. Audit entries keep the address: they tell what was done, and are chained by it.
    """
    _confirm(typed, WORD)
    accounts.one_at_a_time()  # whoever registers meanwhile would be the first account, or not, depending on this one
    for place in places(user_id):
        members.lock(place.workspace_id)
        if place.goes:
            members.uninvite(place.workspace_id)  # or somebody might come in who is then deleted with it
    user = db.session.get(User, user_id, populate_existing=True)
    if user is None:
        db.session.rollback()
        return
    found = places(user_id)
    if why := refusal(user, found, operators):
        raise Refused(why)
    for place in found:
        if place.goes:
            _close(place.workspace_id)
        else:
            audit.note(Action.ACCOUNT_DELETED, place.workspace_id, user.email)
    hands_over = accounts.is_earliest(user) and accounts.others_are_there(user)
    audit.note(Action.FIRST_ACCOUNT_DELETED if hands_over else Action.ACCOUNT_DELETED, None, user.email)
    db.session.flush()
    db.session.execute(delete(User).where(User.id == user_id), execution_options={"synchronize_session": False})
    db.session.commit()


def finish(seconds: float) -> None:
    """Delete what is left of deleted workspaces, for so long, in transactions of milliseconds. Commits.

    Any number may do so at once: each takes a workspace that nobody else has.
    """
    until = time.monotonic() + seconds
    while _delete_portion() and time.monotonic() < until:
        pass


def _confirm(typed: str, word: str) -> None:
    """Capital letters and spaces are not what tells a mistake from a decision."""
    if " ".join(typed.split()).casefold() != " ".join(word.split()).casefold():
        raise Mistyped(f"Type “{word}” to delete it. Nothing was deleted.")


def _close(workspace_id: int) -> None:
    """All that goes at once, under the lock of the workspace."""
    members.dissolve(workspace_id)
    integrations.close(workspace_id)
    store.close(workspace_id)
    db.session.get_one(Workspace, workspace_id).deleted_at = utc_now()
    audit.note(Action.WORKSPACE_DELETED, None, f"workspace {workspace_id}")


def _delete_portion() -> bool:
    """Delete some of what is left; whether anything was."""
    one = select(Workspace.id).where(Workspace.deleted_at.is_not(None)).limit(1).with_for_update(skip_locked=True)
    workspace_id = db.session.execute(one).scalar()
    if workspace_id is not None:
        first = select(func.min(Integration.id)).where(Integration.workspace_id == workspace_id)
        integration_id = db.session.execute(first).scalar()
        if integration_id is not None:
            integrations.delete_portion(integration_id)
        else:
            audit.delete_chain(workspace_id)
            db.session.execute(delete(Workspace).where(Workspace.id == workspace_id))
    db.session.commit()
    return workspace_id is not None
