"""The doctor finds what is wrong, says how to mend it, and finds nothing where all is well."""

from __future__ import annotations

import json

import pytest
import redis as redis_py
from flask import Flask
from sqlalchemy import update

from grafient import disk, doctor
from grafient.extensions import db
from grafient.jobs import readiness
from grafient.models import Integration, utc_now
from grafient.sandbox import Sandbox
from grafient.vault import Vault
from tests.pages import Pages
from tests.syncing import on_sqlite
from tests.test_keyring import NEW
from tests.views.test_integrations import connected

pytestmark = on_sqlite


@pytest.fixture
def well(app: Flask, redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """With a worker and a scheduler that were seen just now."""
    monkeypatch.setattr("grafient.doctor.jobs.health", dict)
    return app


def asked(app: Flask) -> tuple[int, dict[str, tuple[bool, str]]]:
    ran = app.test_cli_runner().invoke(args=["doctor", "--json"])
    found = json.loads(ran.output)
    assert found["ok"] == (ran.exit_code == 0)
    return ran.exit_code, {check["name"]: (check["ok"], check["said"]) for check in found["checks"]}


def test_where_all_is_well_it_says_so_in_a_line_each(well: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(well, pages, sandbox)
    ran = well.test_cli_runner().invoke(args=["doctor"])
    assert ran.exit_code == 0, ran.output
    lines = ran.output.splitlines()
    names = ["settings", "database", "migrations", "encryption keys", "redis", "worker", "scheduler", "disk"]
    assert [line[6:22].strip() for line in lines] == [*names, "openrouter", "clock"]
    assert all(line.startswith("ok ") for line in lines)
    assert "test encrypts 1 stored key" in lines[3]


@pytest.mark.parametrize("name", ["SECRET_KEY", "GRAFIENT_ENCRYPTION_KEYS", "REDIS_URL"])
def test_a_setting_that_is_missing(well: Flask, name: str) -> None:
    field = {"SECRET_KEY": "secret_key", "GRAFIENT_ENCRYPTION_KEYS": "encryption_keys", "REDIS_URL": "redis_url"}[name]
    well.extensions["settings"].__dict__[field] = None
    code, found = asked(well)
    assert (code, found["settings"][0]) == (1, False)
    assert f"{name} is not set." in found["settings"][1]


def test_a_database_of_an_older_version(well: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grafient.doctor.database.pending", lambda _engine: True)
    code, found = asked(well)
    assert (code, found["migrations"]) == (1, (False, "is of an older version. Run: flask --app wsgi upgrade"))
    assert "encryption keys" not in found


def test_an_encryption_key_that_is_missing_and_one_that_is_not_used(
    well: Flask, pages: Pages, sandbox: Sandbox
) -> None:
    connected(well, pages, sandbox)
    ring = well.extensions["vault"]
    well.extensions["vault"] = Vault.parse(NEW)
    code, found = asked(well)
    assert (code, found["encryption keys"][0]) == (1, False)
    assert "lacks the key 'test'" in found["encryption keys"][1]
    well.extensions["vault"] = Vault(ring.keys | Vault.parse(NEW).keys)
    assert asked(well)[1]["encryption keys"] == (True, "test encrypts 1 stored key; not in use: new")


def test_a_stored_key_that_was_damaged(well: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(well, pages, sandbox)
    with well.app_context():
        db.session.execute(update(Integration).values(key_ciphertext=bytes(40)))
        db.session.commit()
    code, found = asked(well)
    assert (code, found["encryption keys"][0]) == (1, False)
    assert "of integrations 1 do not open" in found["encryption keys"][1]


def test_a_worker_and_a_scheduler_that_are_away(app: Flask, redis: redis_py.Redis) -> None:
    code, found = asked(app)
    assert (code, found["redis"][0], found["worker"][0], found["scheduler"][0]) == (1, True, False, False)
    assert "Run: flask --app wsgi worker" in found["worker"][1]
    with app.app_context():
        readiness.note_tick(utc_now())
    assert asked(app)[1]["scheduler"] == (True, "is there")


def test_a_redis_that_is_away(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grafient.doctor.jobs.health", lambda: {"redis": "does not answer (ConnectionError)"})
    code, found = asked(app)
    assert (code, found["redis"][0]) == (1, False)
    assert "mend REDIS_URL" in found["redis"][1]
    assert "worker" not in found


def test_a_full_disk(well: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "is_full", lambda _folder: True)
    code, found = asked(well)
    assert (code, found["disk"]) == (1, (False, disk.FULL))


def test_a_provider_that_can_not_be_reached(well: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(well.extensions["providers"]["openrouter"], "_base_url", "http://127.0.0.1:1/api/v1")
    code, found = asked(well)
    assert (code, found["openrouter"][0]) == (1, False)
    assert "clock" not in found


@pytest.mark.parametrize(("off", "right"), [(60, True), (-60, True), (200, False), (-200, False)])
def test_a_clock_that_is_wrong(well: Flask, monkeypatch: pytest.MonkeyPatch, off: int, right: bool) -> None:
    from datetime import timedelta

    monkeypatch.setattr(well.extensions["providers"]["openrouter"], "clock", lambda: utc_now() + timedelta(seconds=off))
    _, found = asked(well)
    assert found["clock"][0] == right
    assert doctor.CLOCKS_DIFFER.total_seconds() == 120
