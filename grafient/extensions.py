"""The extensions, unbound: ``create_app`` binds them. Importing this opens nothing."""

from __future__ import annotations

from flask import current_app
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_migrate import Migrate
from flask_security import Security
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect
from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase
from werkzeug.local import LocalProxy

from grafient.providers import Provider
from grafient.vault import Vault


class Base(DeclarativeBase):
    """Every constraint has a name, so that migrations can change it in both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


db = SQLAlchemy(model_class=Base)
migrate = Migrate()
csrf = CSRFProtect()
security = Security()
limiter = Limiter(key_func=get_remote_address)

vault: Vault = LocalProxy(lambda: current_app.extensions["vault"])  # type: ignore[assignment]
providers: dict[str, Provider] = LocalProxy(lambda: current_app.extensions["providers"])  # type: ignore[assignment]
