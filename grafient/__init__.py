"""Grafient: what your AI provider really bills. ``create_app`` wires it; importing opens nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from grafient import cli, database, jobs, logs, views
from grafient.config import ConfigError, Settings, beside_make_run
from grafient.extensions import csrf, db
from grafient.pace import Pace
from grafient.providers import PROVIDERS
from grafient.sample import Sample
from grafient.vault import Vault, VaultError

__version__ = "0.1.0"
ROOT = Path(__file__).resolve().parent.parent
SERVERS = {"web", "worker", "scheduler"}
"""Commands that go on, and take nothing that was not said."""


def create_app(environ: Mapping[str, str] | None = None) -> Flask:
    """Make the app from the environment, or from what stands in for it. Raises ConfigError.

    Under the flask command secrets may be missing, since it also makes them and brings the schema up to date; commands
    that need them ask for them. ``flask run`` serves pages, so it is treated as any web server.
    """
    is_command = os.environ.get("FLASK_RUN_FROM_CLI") == "true" and "run" not in sys.argv[1:]
    if environ is None:
        serves = SERVERS & set(sys.argv[1:])
        environ = beside_make_run(os.environ) if is_command and not serves else os.environ
    settings = Settings.from_environ(environ)
    if not is_command:
        settings.require()
    logs.set_up(settings.log_format, settings.secrets())
    app = Flask(__name__, template_folder=str(ROOT / "templates"), static_folder=str(ROOT / "static"))
    _configure(app, settings)
    _bind(app, settings)
    views.register(app, settings)
    cli.register(app)
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=0)  # type: ignore[method-assign]
    return app


def _configure(app: Flask, settings: Settings) -> None:
    app.extensions["settings"] = settings
    app.extensions["version"] = __version__
    app.config.update(
        SECRET_KEY=settings.secret_key,
        MAX_CONTENT_LENGTH=64 * 1024,
        SQLALCHEMY_DATABASE_URI=settings.database_url,
        SQLALCHEMY_ENGINE_OPTIONS=_engine_options(settings),
        WTF_CSRF_TIME_LIMIT=None,
    )


def _engine_options(settings: Settings) -> dict[str, object]:
    """A small pool: no connection is held while a provider is asked, so many threads share few."""
    options: dict[str, object] = {"pool_size": 4, "max_overflow": 4, "hide_parameters": True}
    if settings.database_url.startswith("postgresql"):
        options["pool_pre_ping"] = True
    return options


def _bind(app: Flask, settings: Settings) -> None:
    db.init_app(app)
    if "db" in sys.argv[1:]:  # flask db, for whoever writes a migration; nobody else is made to load Alembic
        from flask_migrate import Migrate

        Migrate(app, db, directory=str(database.MIGRATIONS))
    csrf.init_app(app)
    with app.app_context():
        database.prepare(db.engine)
    app.extensions["providers"] = {slug: make(settings.base_urls.get(slug)) for slug, make in PROVIDERS.items()}
    app.extensions["providers"][Sample.slug] = Sample()
    if settings.encryption_keys is not None:
        try:
            app.extensions["vault"] = Vault.parse(settings.encryption_keys)
        except VaultError as error:
            raise ConfigError(f"GRAFIENT_ENCRYPTION_KEYS can't be used: {error}") from None
    if settings.redis_url is not None:
        app.extensions["redis"] = jobs.connect(settings.redis_url)
    app.extensions["pace"] = Pace(app.extensions.get("redis"), settings.requests_per_second)
