"""The extensions, unbound: ``create_app`` binds them. Importing this opens nothing."""

from __future__ import annotations

import hashlib
import ipaddress

import itsdangerous
from flask import current_app, request
from flask_limiter import Limiter
from flask_security import Security
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect
from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase
from werkzeug.local import LocalProxy

from grafient.config import Settings
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


def address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address of a client, as a server or a proxy writes it; None if none can be read.

    Proxies add a port (``192.0.2.1:5678``, ``[2001:db8::1]:443``), and a server that listens on both writes IPv4 as
    ``::ffff:192.0.2.1``.
    """
    host = text[1:].partition("]")[0] if text.startswith("[") else text
    host = host.partition(":")[0] if host.count(":") == 1 else host
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, ipaddress.IPv6Address) else found


def client() -> str:
    """The address that the request comes from; empty if none can be read."""
    return str(address(request.remote_addr or "") or "")


def _network() -> str:
    """Whom a limit counts: an IPv4 address, or the /64 that an IPv6 user has to choose from. All of whom no address can
    be read count together, or a new word would be a new try."""
    found = address(request.remote_addr or "")
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(found), 128)).supernet(new_prefix=64))
    return str(found or "unknown")


itsdangerous.Signer.default_digest_method = staticmethod(hashlib.sha256)
"""What links, forms and cookies are signed with, by all libraries that sign any. It would be SHA-1."""

db = SQLAlchemy(model_class=Base)
csrf = CSRFProtect()
security = Security()
limiter = Limiter(key_func=_network)

settings: Settings = LocalProxy(lambda: current_app.extensions["settings"])  # type: ignore[assignment]
vault: Vault = LocalProxy(lambda: current_app.extensions["vault"])  # type: ignore[assignment]
pace: Pace = LocalProxy(lambda: current_app.extensions["pace"])  # type: ignore[assignment]
providers: dict[str, Provider] = LocalProxy(lambda: current_app.extensions["providers"])  # type: ignore[assignment]
