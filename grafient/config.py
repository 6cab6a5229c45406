"""Settings, read from the environment once, typed; a wrong one stops the start with a sentence that mends it."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from email_validator import EmailNotValidError, validate_email
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from grafient import logs
from grafient.plans import PLANS
from grafient.states import Role

REGISTRATION = ("first", "open", "closed")

_CORES = str(min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 2))
"""How many of the machine's cores a worker uses, unless told."""

MAKE_SECRET_KEY = "python -c 'import secrets; print(secrets.token_urlsafe(48))'"  # noqa: S105 - a command that makes one
MAKE_ENCRYPTION_KEY = "flask --app wsgi keys generate"


class ConfigError(Exception):
    """A setting is missing or malformed. The message names it and says how to mend it."""


@dataclass(frozen=True)
class Oidc:
    """The identity provider that people may sign in with (OpenID Connect)."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    name: str
    """What the button calls it."""
    rules: tuple[tuple[str, Role], ...]
    """Who may come in without having been invited, and as what: an address, ``*@example.com``, or ``group=finance``.
    The first that fits counts."""
    trusts_emails: bool
    """Whether an address counts that the provider does not call verified."""


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class AlertHosts:
    """Where alerts may be sent besides the public Internet: names, in small letters, and networks."""

    names: frozenset[str] = frozenset()
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()

    def has(self, host: str, address: Address) -> bool:
        """Whether this address of a host is let through."""
        return host.lower() in self.names or any(address in one for one in self.networks)


@dataclass(frozen=True)
class Settings:
    """All that the environment decides. Secrets stay out of the repr."""

    data_dir: Path
    database_url: str = field(repr=False)
    redis_url: str | None = field(repr=False)
    secret_key: str | None = field(repr=False)
    encryption_keys: str | None = field(repr=False)
    port: int
    base_urls: Mapping[str, str]
    """By provider; one that is not here has its own default."""
    registration: str
    default_plan: str
    trusted_proxies: int
    raw_reply_days: int
    """How long the providers' raw replies are kept."""
    sync_threads: int
    """How many accounts a process of a worker reads at a time."""
    requests_per_second: int
    """How many requests the daily syncs of all workers send to one provider."""
    sync_processes: int
    """How many processes a worker uses when many accounts are due."""
    hosts: tuple[str, ...]
    """The names that this Grafient is reached at; one that begins with a dot stands for all below it."""
    setup_link: bool
    """Whether the first account is made by whoever has the set-up link, or by whoever comes first."""
    smtp_url: str | None = field(repr=False)
    """The mail server: ``smtp://`` or ``smtps://``, with user and password if it wants them; None without mail."""
    oidc: Oidc | None
    mail_from: str
    """Whom letters are from."""
    log_format: str
    """``text`` or ``json``."""
    web_processes: int
    """How many processes serve pages, with eight threads each."""
    operators: frozenset[str]
    """The addresses of those who may see the page for operators, besides the first account."""
    alert_hosts: AlertHosts = field(default_factory=AlertHosts)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read every setting; raise ConfigError for the first that is malformed.

        A setting that is empty counts as not set. Secrets and the Redis address may be missing here, since
        some commands need none: ``require`` asks for them.
        """
        env = {name: value.strip() for name, value in environ.items() if value.strip()}
        data_dir = Path(env.get("GRAFIENT_DATA_DIR", "var")).absolute()
        return cls(
            data_dir=data_dir,
            database_url=_database_url(env.get("DATABASE_URL", f"sqlite:///{data_dir / 'grafient.db'}")),
            redis_url=_redis_url(env.get("REDIS_URL")),
            secret_key=_secret_key(env.get("SECRET_KEY")),
            encryption_keys=env.get("GRAFIENT_ENCRYPTION_KEYS"),
            port=_whole_number("PORT", env.get("PORT", "5000"), 1, 65535),
            base_urls=_base_urls(env),
            registration=_one_of("GRAFIENT_REGISTRATION", env.get("GRAFIENT_REGISTRATION", "first"), REGISTRATION),
            default_plan=_one_of("GRAFIENT_DEFAULT_PLAN", env.get("GRAFIENT_DEFAULT_PLAN", "ultimate"), tuple(PLANS)),
            trusted_proxies=_whole_number("GRAFIENT_TRUSTED_PROXIES", env.get("GRAFIENT_TRUSTED_PROXIES", "0"), 0, 10),
            raw_reply_days=_whole_number("GRAFIENT_RAW_REPLY_DAYS", env.get("GRAFIENT_RAW_REPLY_DAYS", "90"), 0, 36500),
            sync_threads=_whole_number("GRAFIENT_SYNC_THREADS", env.get("GRAFIENT_SYNC_THREADS", "32"), 1, 64),
            requests_per_second=_whole_number(
                "GRAFIENT_REQUESTS_PER_SECOND", env.get("GRAFIENT_REQUESTS_PER_SECOND", "100"), 1, 10_000
            ),
            sync_processes=_whole_number("GRAFIENT_SYNC_PROCESSES", env.get("GRAFIENT_SYNC_PROCESSES", _CORES), 1, 16),
            hosts=_hosts(env),
            setup_link=_one_of("GRAFIENT_SETUP_LINK", env.get("GRAFIENT_SETUP_LINK", "on"), ("on", "off")) == "on",
            smtp_url=_smtp_url(env.get("GRAFIENT_SMTP_URL")),
            oidc=_oidc(env),
            mail_from=_mail_from(env),
            log_format=_one_of("GRAFIENT_LOG_FORMAT", env.get("GRAFIENT_LOG_FORMAT", "text"), logs.FORMATS),
            web_processes=_whole_number("WEB_CONCURRENCY", env.get("WEB_CONCURRENCY", "2"), 1, 64),
            operators=_addresses("GRAFIENT_OPERATORS", env.get("GRAFIENT_OPERATORS", "")),
            alert_hosts=_alert_hosts(env.get("GRAFIENT_ALERT_HOSTS", "")),
        )

    def secrets(self) -> Iterator[str]:
        """All that no log may have: the secrets themselves, and the passwords within addresses."""
        yield self.secret_key or ""
        for entry in (self.encryption_keys or "").split(","):
            yield entry.strip().partition(":")[2]
        for address in (self.database_url, self.redis_url, self.smtp_url):
            yield unquote(urlsplit(address or "").password or "")
        yield self.oidc.client_secret if self.oidc else ""

    @property
    def base_url(self) -> str:
        """Where this Grafient is reached, for links outside its pages: the first of its names, with TLS except on this
        machine itself."""
        host = self.hosts[0]
        return f"http://{host}:{self.port}" if host in LOOPBACK else f"https://{host.removeprefix('.')}"

    def missing(self) -> list[str]:
        """What serving needs and is not set, each with how to mend it."""
        wanted = {
            "SECRET_KEY": (self.secret_key, f"Make one with: {MAKE_SECRET_KEY}"),
            "GRAFIENT_ENCRYPTION_KEYS": (self.encryption_keys, f"Make one with: {MAKE_ENCRYPTION_KEY}"),
            "REDIS_URL": (self.redis_url, "Point it at a Redis server, such as redis://localhost:6379/0"),
        }
        return [f"{name} is not set. {mend}" for name, (value, mend) in wanted.items() if value is None]

    def require(self) -> None:
        """Raise ConfigError unless everything that serving needs is there."""
        for sentence in self.missing():
            raise ConfigError(sentence)


def beside_make_run(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a command, filled in with what ``make run`` made and keeps in the data folder, so that the
    commands need no settings where it needs none."""
    folder = Path(environ.get("GRAFIENT_DATA_DIR", "").strip() or "var").absolute()
    found = {}
    for name in ("SECRET_KEY", "GRAFIENT_ENCRYPTION_KEYS"):
        path = folder / name.lower()
        if not environ.get(name, "").strip() and path.is_file():
            found[name] = path.read_text().strip()
    redis = folder / "redis" / "redis.sock"
    if not environ.get("REDIS_URL", "").strip() and redis.is_socket():
        found["REDIS_URL"] = f"unix://{redis}"
    return dict(environ) | found


def _database_url(value: str) -> str:
    """Accept Heroku's ``postgres://``, and name the drivers that are installed: psycopg 3 and sqlite3."""
    try:
        url = make_url(value)
        _check_port(url.port)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number, or one in brackets that is no host
        raise ConfigError(
            "DATABASE_URL is not an address of a database. "
            "Use postgresql://user:password@host/name or sqlite:////folder/file.db"
        ) from None
    if url.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    if url.drivername == "sqlite" and url.database and url.database != ":memory:":
        return value
    raise ConfigError(
        f"DATABASE_URL begins with {url.drivername}://, which Grafient can't use. "
        "Use postgresql:// or a file: sqlite:////folder/file.db"
    )


def _redis_url(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        _check_port(parts.port)
    except ValueError:
        raise ConfigError("REDIS_URL is not an address of a Redis. Use one such as redis://localhost:6379/0") from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ConfigError("REDIS_URL must begin with redis://, rediss:// or unix://")
    database = parts.path.strip("/")
    if parts.scheme == "unix" and not database:
        raise ConfigError("REDIS_URL names no socket. Use one such as unix:///folder/redis.sock")
    if parts.scheme != "unix" and database and not (database.isascii() and database.isdigit()):
        raise ConfigError("REDIS_URL must end with the number of a database, such as redis://localhost:6379/0")
    return value


def _smtp_url(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        _check_port(parts.port)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ConfigError(
            "GRAFIENT_SMTP_URL is not an address of a mail server. "
            "Use one such as smtps://user:password@smtp.example.com:465 or smtp://user:password@smtp.example.com:587"
        )
    if not unquote(f"{parts.username}{parts.password}").isascii():
        raise ConfigError(
            "GRAFIENT_SMTP_URL has a user or a password with a letter outside of ASCII, which can't be sent to mail "
            "servers. Choose another password there."
        )
    return value


def _oidc(env: Mapping[str, str]) -> Oidc | None:
    found = {name: env.get(f"GRAFIENT_OIDC_{name}", "") for name in ("ISSUER", "CLIENT_ID", "CLIENT_SECRET")}
    if not any(found.values()):
        return None
    for name, value in found.items():
        if not value:
            raise ConfigError(
                f"GRAFIENT_OIDC_{name} is not set. Your identity provider tells it; all three are needed."
            )
    issuer = _https("GRAFIENT_OIDC_ISSUER", found["ISSUER"], "https://accounts.example.com")
    name = env.get("GRAFIENT_OIDC_NAME", "your company account")
    trusts = _one_of("GRAFIENT_OIDC_TRUST_EMAIL", env.get("GRAFIENT_OIDC_TRUST_EMAIL", "off"), ("on", "off")) == "on"
    rules = tuple(_oidc_rules(env.get("GRAFIENT_OIDC_ALLOW", "")))
    return Oidc(issuer, found["CLIENT_ID"], found["CLIENT_SECRET"], name[:40], rules, trusts)


_WHO = re.compile(r"group=[^:,=\s]+|(\*|[^@:,=*\s]+)@[^@:,=*\s]+")


def _oidc_rules(text: str) -> Iterator[tuple[str, Role]]:
    for rule in filter(None, map(str.strip, text.split(","))):
        who, _, role = rule.rpartition(":")
        if not _WHO.fullmatch(who.strip()) or role.strip().lower() not in set(Role):
            raise ConfigError(
                f"GRAFIENT_OIDC_ALLOW has {rule!r}, but must be rules such as boss@example.com:owner, "
                "group=finance:member or *@example.com:viewer, with commas between them"
            )
        yield who.strip(), Role(role.strip().lower())


def _mail_from(env: Mapping[str, str]) -> str:
    """The sender, which a mail server wants to know."""
    name = "GRAFIENT_MAIL_FROM"
    if name not in env and "GRAFIENT_SMTP_URL" in env:
        raise ConfigError(f"{name} is not set. Letters need a sender, such as grafient@example.com")
    return next(iter(_addresses(name, env.get(name, ""))), "")


def _check_port(port: int | None) -> None:
    if port is not None and not 1 <= port <= 65535:
        raise ValueError


def _secret_key(value: str | None) -> str | None:
    if value is not None and len(value) < 16:
        raise ConfigError(f"SECRET_KEY is shorter than 16 characters. Make one with: {MAKE_SECRET_KEY}")
    if value is not None and len(set(value)) < 8:
        raise ConfigError(f"SECRET_KEY can be guessed: it has few different letters. Make one with: {MAKE_SECRET_KEY}")
    return value


def _base_urls(env: Mapping[str, str]) -> Mapping[str, str]:
    name = "OPENROUTER_BASE_URL"
    return {"openrouter": _base_url(env[name])} if name in env else {}


def _base_url(value: str) -> str:
    """https, or http to this machine only: the key travels in a header."""
    return _https("OPENROUTER_BASE_URL", value, "https://openrouter.ai/api/v1")


def _https(name: str, value: str, example: str) -> str:
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    if not host or parts.username or parts.query or parts.fragment:
        raise ConfigError(f"{name} is not an address such as {example}")
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)):
        return value.rstrip("/")
    raise ConfigError(f"{name} must begin with https:// (http:// only for this machine itself)")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_TOLD = ("HEROKU_APP_DEFAULT_DOMAIN_NAME", "RENDER_EXTERNAL_HOSTNAME", "RAILWAY_PUBLIC_DOMAIN")
"""What platforms call the setting that names an app's address."""
_HOST = re.compile(r"\.?(?:[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\])")


def _hosts(env: Mapping[str, str]) -> tuple[str, ...]:
    """The names that are set or that the platform tells, after them this machine's own."""
    named = [one.strip() for one in env.get("GRAFIENT_HOSTS", "").split(",") if one.strip()]
    if wrong := next((one for one in named if not _HOST.fullmatch(one)), None):
        raise ConfigError(
            f"GRAFIENT_HOSTS has {wrong!r}, but must be names without scheme, port and path, with commas between "
            "them, such as grafient.example.com,.example.org"
        )
    told = [env[name] for name in _TOLD if name in env]
    here = env.get("HOST", "")
    bound = [f"[{here}]" if ":" in here else here] if here not in ("", "0.0.0.0", "::") else []  # noqa: S104 - a name
    return tuple(dict.fromkeys(map(str.lower, [*named, *told, *bound, *LOOPBACK])))


def _alert_hosts(value: str) -> AlertHosts:
    names, networks = set(), []
    for one in filter(None, map(str.strip, value.split(","))):
        try:
            networks.append(ipaddress.ip_network(one.strip("[]")))
        except ValueError:
            if "/" in one or one.startswith(".") or not _HOST.fullmatch(one) or not one.strip("0123456789."):
                raise ConfigError(
                    f"GRAFIENT_ALERT_HOSTS has {one!r}, but must be names and networks with commas between them, such "
                    "as ntfy.lan,192.168.0.0/16"
                ) from None
            names.add(one.lower())
    return AlertHosts(frozenset(names), tuple(networks))


def _addresses(name: str, value: str) -> frozenset[str]:
    """As accounts have them: Flask-Security stores what this very function makes of an address."""
    try:
        named = filter(None, map(str.strip, value.split(",")))
        return frozenset(validate_email(one, check_deliverability=False).normalized for one in named)
    except EmailNotValidError:
        raise ConfigError(
            f"{name} must be e-mail addresses with commas between them, such as one@example.com,two@example.com"
        ) from None


def _whole_number(name: str, value: str, least: int, most: int) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 10 and least <= int(value) <= most):
        raise ConfigError(f"{name} is {value!r}, but must be a whole number from {least} to {most}")
    return int(value)


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value.lower() not in choices:
        raise ConfigError(f"{name} is {value!r}, but must be one of {', '.join(choices)}")
    return value.lower()
