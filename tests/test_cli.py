"""The commands, as an operator types them."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from grafient import supervisor, totals
from grafient.extensions import db
from grafient.models import Workspace
from grafient.vault import Vault
from tests.pages import Pages

ROOT = Path(__file__).resolve().parent.parent


def flask(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a flask command in a process of its own, with nothing set but this."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", *command],
        cwd=ROOT,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_key_can_be_made_before_there_is_any_setting(tmp_path: Path) -> None:
    made = flask("keys", "generate", GRAFIENT_DATA_DIR=str(tmp_path / "none"))
    assert made.returncode == 0
    assert len(Vault.parse(made.stdout.strip()).keys) == 1
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("environment", "says"),
    [({"PORT": "x"}, "PORT is 'x'"), ({"GRAFIENT_ENCRYPTION_KEYS": "x"}, "GRAFIENT_ENCRYPTION_KEYS can't be used")],
)
def test_a_wrong_setting_is_one_sentence(environment: dict[str, str], says: str) -> None:
    ended = flask("keys", "generate", **environment)
    assert ended.returncode != 0
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_totals_can_be_verified_and_mended(tmp_path: Path) -> None:
    address = {"DATABASE_URL": f"sqlite:///{tmp_path}/one.db", "GRAFIENT_DATA_DIR": str(tmp_path)}
    assert flask("upgrade", **address).returncode == 0
    right = flask("verify", **address)
    assert (right.returncode, right.stdout) == (0, "All totals are what their lines add up to.\n")
    known = ", ".join(f"{name}_known" for name in totals.COUNTED)
    with closing(sqlite3.connect(tmp_path / "one.db")) as database, database:
        insert = f"INSERT INTO day_total (integration_id, day, usage_usd, lines, {known}) "
        database.execute(insert + "VALUES (1, 739000, 5, 1, 0, 0, 0, 0, 0, 0)")
    wrong = flask("verify", **address)
    assert (wrong.returncode, wrong.stderr) == (
        1,
        "Error: The totals of 1 days are wrong. To mend them, run it with --repair.\n",
    )
    assert "1 days were wrong, and are mended" in flask("verify", "--repair", **address).stdout
    assert flask("verify", **address).returncode == 0


SECRETS = {
    "SECRET_KEY": "a secret for the length of a test",
    "GRAFIENT_ENCRYPTION_KEYS": "test:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "REDIS_URL": "redis://127.0.0.1:1/0",
}


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("worker", "REDIS_URL"),
        ("worker", "GRAFIENT_ENCRYPTION_KEYS"),
        ("scheduler", "REDIS_URL"),
        ("run", "SECRET_KEY"),
        ("web", "SECRET_KEY"),
        ("web", "REDIS_URL"),
    ],
)
def test_what_works_or_serves_does_not_start_without_what_it_needs(
    sqlite_template: Path, command: str, missing: str
) -> None:
    settings = {name: value for name, value in SECRETS.items() if name != missing}
    url = f"sqlite:///{sqlite_template}"
    _refused(flask(command, DATABASE_URL=url, TZ="UTC", **settings), f"{missing} is not set")


@pytest.mark.parametrize(
    "command",
    [("worker",), ("plans", "set", "a@example.com", "pro"), ("users", "activate", "a@example.com")],
)
def test_a_database_that_is_not_set_up_is_one_sentence(tmp_path: Path, command: tuple[str, ...]) -> None:
    settings = SECRETS | {"DATABASE_URL": f"sqlite:///{tmp_path}/none.db", "TZ": "UTC"}
    _refused(flask(*command, **settings), "Run: flask --app wsgi upgrade")


@pytest.mark.parametrize(
    "command",
    [("worker",), ("upgrade",), ("users", "activate", "a@example.com")],
)
def test_a_database_that_does_not_answer_is_one_sentence(command: tuple[str, ...]) -> None:
    settings = SECRETS | {"DATABASE_URL": "postgresql://u:hidden@127.0.0.1:1/none"}
    ended = flask(*command, **settings)
    _refused(ended, "The database does not answer")
    assert "hidden" not in ended.stderr


def _refused(ended: subprocess.CompletedProcess[str], says: str) -> None:
    assert ended.returncode != 0
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_release_phase_makes_the_schema_and_refuses_a_newer_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/grafient.db"
    assert flask("upgrade", DATABASE_URL=url).returncode == 0
    assert flask("upgrade", DATABASE_URL=url).returncode == 0
    import sqlite3

    with sqlite3.connect(tmp_path / "grafient.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    refused = flask("upgrade", DATABASE_URL=url)
    assert refused.returncode != 0
    assert "newer version of Grafient" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_operator_sets_plans(settings: dict[str, str], pages: Pages) -> None:
    assert flask("plans", "set", "Someone@example.com", "free", **settings).returncode == 0
    with pages.client.application.app_context():
        assert db.session.query(Workspace).one().plan == "free"
    assert "Free" in pages.get("/account").text
    for wrong in (("nobody@example.com", "free"), ("someone@example.com", "gold")):
        assert flask("plans", "set", *wrong, **settings).returncode != 0


@pytest.mark.parametrize("folder", ["made before", "made by it"])
def test_the_database_is_its_owners_alone(tmp_path: Path, folder: str) -> None:
    data = tmp_path / "data"
    if folder == "made before":
        data.mkdir(mode=0o755)
    old = os.umask(0o022)
    try:
        assert flask("upgrade", DATABASE_URL=f"sqlite:///{data}/one.db", GRAFIENT_DATA_DIR=str(data)).returncode == 0
    finally:
        os.umask(old)
    assert [oct(path.stat().st_mode & 0o077) for path in data.iterdir()] == ["0o0"] * len(list(data.iterdir()))


def test_a_command_needs_no_settings_where_make_run_made_them(tmp_path: Path) -> None:
    made = supervisor._with_secrets({}, tmp_path, {})
    child, _ = supervisor.start_redis(tmp_path)
    try:
        folder = {"GRAFIENT_DATA_DIR": str(tmp_path)}
        assert flask("upgrade", **folder).returncode == 0
        printed = flask("setup-link", **folder)
        assert printed.stdout.startswith("http://localhost:5000/register?setup="), printed.stderr
        other = flask("setup-link", **folder | {"SECRET_KEY": "a secret that was said"})
        assert other.returncode == 0
        for command in ("web", "worker"):
            _refused(flask(command, **folder), "SECRET_KEY is not set")
        assert made["SECRET_KEY"] not in printed.stdout + printed.stderr
    finally:
        child.process.terminate()
        child.process.wait()
