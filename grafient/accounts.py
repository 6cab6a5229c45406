"""Accounts: who may register, and the workspace that each new one gets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from typing import Any

from flask_security import RoleMixin, SQLAlchemyUserDatastore
from itsdangerous import BadData, URLSafeTimedSerializer
from sqlalchemy import exists, func, select, text

from grafient import audit, members
from grafient.config import Settings
from grafient.extensions import db
from grafient.models import AuditEntry, Membership, Passkey, User, Workspace, utc_now
from grafient.states import Action, Role

SETUP_SECONDS = 7 * 86400


class Datastore(SQLAlchemyUserDatastore):
    """Flask-Security's, where a new user joins the workspace they were invited to, or gets their own on
    ``default_plan``, and owns it. One who is ``admitted_as`` something joins the first workspace."""

    default_plan = "ultimate"
    confirms_by_mail = False
    """Whether whoever registers, and is neither the first nor invited, has to show that the address is theirs."""
    invitation_of: Callable[[], str] = staticmethod(lambda: "")
    """The token of the invitation that whoever registers has come with."""

    def __init__(self) -> None:
        super().__init__(db, User, RoleMixin, Passkey)

    def create_user(self, *, admitted_as: Role | None = None, **kwargs: Any) -> User:
        kwargs = self._prepare_create_user_args(**kwargs)  # type: ignore[no-untyped-call]
        kwargs.pop("roles", None)
        was_first = first_is_wanted()
        user = User(**kwargs)
        db.session.add(user)
        token = self.invitation_of()
        is_invited = bool(token) and members.accept(token, user)
        user.is_expected = is_invited or was_first
        if user.is_expected or not self.confirms_by_mail:
            user.confirmed_at = utc_now()
        if not is_invited and admitted_as is not None:
            members.admit(user, admitted_as)
        elif not is_invited:
            user.workspace = Workspace(plan=self.default_plan)
            db.session.flush()
            db.session.add(Membership(workspace_id=user.workspace_id, user_id=user.id, role=Role.OWNER))
        return user


def first_is_wanted() -> bool:
    """Whether nobody has an account yet."""
    return not db.session.execute(select(exists(select(User.id)))).scalar()


def registration_open(policy: str) -> bool:
    """Whether anyone may register now, under GRAFIENT_REGISTRATION."""
    return policy == "open" or (policy == "first" and first_is_wanted())


def setup_link(settings: Settings) -> str:
    """The link with which the first account is made, good for SETUP_SECONDS; empty if none is needed."""
    if not settings.secret_key or not settings.setup_link or not first_is_wanted():
        return ""
    return f"{settings.base_url}/register?setup={_setup(settings.secret_key).dumps('first account')}"


def is_setup_token(secret_key: str, token: str) -> bool:
    """Whether it is that of a set-up link, and not too old."""
    try:
        _setup(secret_key).loads(token, max_age=SETUP_SECONDS)
    except BadData:
        return False
    return True


def _setup(secret_key: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(secret_key, salt="grafient-setup", signer_kwargs={"digest_method": hashlib.sha256})


def is_operator(user: User, named: Collection[str]) -> bool:
    """Whether somebody runs this Grafient: the first account that was made, or one named in GRAFIENT_OPERATORS."""
    return user.email in named or (is_earliest(user) and not _had_a_first_before(user))


def is_earliest(user: User) -> bool:
    """Whether none of the accounts that there are was made before."""
    return bool(user.id == db.session.execute(select(func.min(User.id))).scalar())


def others_are_there(user: User) -> bool:
    """Whether somebody else has an account."""
    return bool(db.session.execute(select(exists().where(User.id != user.id))).scalar())


def another_is_named(user: User, named: Collection[str]) -> bool:
    """Whether GRAFIENT_OPERATORS names somebody else who has an account."""
    return bool(db.session.execute(select(exists().where(User.id != user.id, User.email.in_(named)))).scalar())


def _had_a_first_before(user: User) -> bool:
    """Whether the first account was deleted while this one was there: it has not become the first by that. The audit
    log tells, whose entries have whole seconds."""
    since = user.created_at.replace(microsecond=0)
    gone = AuditEntry.chain == audit.INSTALLATION, AuditEntry.action == Action.FIRST_ACCOUNT_DELETED
    return bool(db.session.execute(select(exists().where(*gone, AuditEntry.at >= since))).scalar())


def one_at_a_time() -> None:
    """Make registrations wait for each other until the transaction ends, so that only one can be the first."""
    if db.engine.dialect.name == "postgresql":
        db.session.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": 0x67726166})


def find(email: str) -> User | None:
    """The account with this address, however its letters are written."""
    return db.session.execute(select(User).where(func.lower(User.email) == email.strip().lower())).scalar_one_or_none()


def set_plan(user: User, plan: str) -> bool:
    """Put the workspace that an account looks at on a plan. Commits; False if it belongs to none."""
    if user.workspace is not None:
        user.workspace.plan = plan
        audit.note(Action.PLAN_CHANGED, user.workspace_id, plan)
        db.session.commit()
    return user.workspace is not None
