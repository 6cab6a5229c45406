"""``make demo``: the app, signed in, with the sandbox's lively account connected.

Run as a module it makes the account; the supervisor loads ``app`` from here. Nothing in the product knows of it.
"""

from __future__ import annotations

import secrets

from flask import Flask, request
from flask_security import current_user, hash_password, login_user
from flask_security.utils import set_request_attr
from sqlalchemy import select

from grafient import create_app, database, integrations
from grafient.extensions import db, security
from grafient.models import Integration, User
from grafient.sandbox import key

EMAIL = "demo@example.com"
PUBLIC = ("static", "favicon", "health.healthz", "health.readyz")


def create_demo_app() -> Flask:
    """The app, where whoever comes is signed in as the demo's account."""
    demo = create_app()

    @demo.before_request
    def sign_in() -> None:
        if request.endpoint in PUBLIC or current_user.is_authenticated:
            return
        db.session.rollback()  # who was looked for and not found was looked for in a transaction that only reads
        with database.writing():
            login_user(_user(), authn_via=["demo"])
            db.session.commit()
        set_request_attr("fs_authn_via", "session")

    return demo


def prepare() -> None:
    """Make the account and connect the sandbox, unless that was done on an earlier start."""
    with create_app().app_context():
        if db.session.execute(select(User.id)).first() is None:
            security.datastore.create_user(email=EMAIL, password=hash_password(secrets.token_urlsafe(32)))
            db.session.commit()
        user = _user()
        if db.session.execute(select(Integration.id)).first() is None:
            integrations.connect(user.workspace_id or 0, "openrouter", "Lively demo account", key("lively"))


def _user() -> User:
    return db.session.execute(select(User).where(User.email == EMAIL)).scalar_one()


if __name__ == "__main__":
    prepare()
else:
    app = create_demo_app()
