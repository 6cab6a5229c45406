"""The extensions, unbound: ``create_app`` binds them. Importing this opens nothing."""

from __future__ import annotations

import ipaddress

from flask import current_app, request
from flask_limiter import Limiter
from flask_security import Security
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect
from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase
from werkzeug.local import LocalProxy

from grafient.pace import Pace
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


def _network(address: str) -> str:
    """Whom a limit counts: an IPv4 address, or the /64 that an IPv6 user has to choose from.

    Proxies add a port (``192.0.2.1:5678``, ``[2001:db8::1]:443``), and a server that listens on both writes IPv4 as
    ``::ffff:192.0.2.1``. All of which no address can be read count together, or a new word would be a new try.
    """
    host = address[1:].partition("]")[0] if address.startswith("[") else address
    host = host.partition(":")[0] if host.count(":") == 1 else host
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ipaddress.ip_network((int(found), 128)).supernet(new_prefix=64))


db = SQLAlchemy(model_class=Base)
csrf = CSRFProtect()
security = Security()
limiter = Limiter(key_func=lambda: _network(request.remote_addr or ""))

vault: Vault = LocalProxy(lambda: current_app.extensions["vault"])  # type: ignore[assignment]
pace: Pace = LocalProxy(lambda: current_app.extensions["pace"])  # type: ignore[assignment]
providers: dict[str, Provider] = LocalProxy(lambda: current_app.extensions["providers"])  # type: ignore[assignment]
