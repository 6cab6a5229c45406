"""What make run refuses, and that it changes nothing when it does."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from grafient import supervisor

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parent.parent


def start(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start it where it can't, and return how it ended."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "grafient.supervisor"],
        cwd=ROOT,
        env=kept | {"GRAFIENT_DATA_DIR": str(folder), "PORT": str(_free_port())} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def refused(ended: subprocess.CompletedProcess[str], says: str) -> None:
    assert ended.returncode != 0
    assert says in ended.stderr
    assert ended.stderr.startswith("Grafient can't start: ")
    assert ended.stderr.count("\n") == 1, "one sentence"


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(start(tmp_path / "data", PORT=str(port)), f"port {port} is in use")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("name", "value"), [("PORT", "http"), ("DATABASE_URL", "x"), ("GRAFIENT_REGISTRATION", "all")])
def test_a_wrong_setting(tmp_path: Path, name: str, value: str) -> None:
    refused(start(tmp_path / "data", **{name: value}), name)
    assert not (tmp_path / "data").exists()


def test_a_database_of_a_newer_version(tmp_path: Path, sqlite_template: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "grafient.db").write_bytes(sqlite_template.read_bytes())
    with sqlite3.connect(folder / "grafient.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    refused(start(folder), "newer version of Grafient")
    assert [path.name for path in folder.iterdir() if path.suffix not in (".db-wal", ".db-shm")] == ["grafient.db"]


def test_a_database_that_does_not_answer(tmp_path: Path) -> None:
    ended = start(tmp_path / "data", DATABASE_URL=f"postgresql://u:secret@127.0.0.1:{_free_port()}/d")
    refused(ended, "the database does not answer")
    assert "secret" not in ended.stderr


def test_a_redis_that_does_not_answer(tmp_path: Path) -> None:
    refused(start(tmp_path / "data", REDIS_URL=f"redis://127.0.0.1:{_free_port()}"), "Redis does not answer")


def test_a_folder_that_is_in_use(tmp_path: Path) -> None:
    with supervisor._locked(tmp_path):
        refused(start(tmp_path), "is running on the data folder")


def test_a_folder_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(start(tmp_path / "file" / "data"), "can't be written")


def test_secrets_are_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    first = supervisor._with_secrets({}, tmp_path, {})
    assert supervisor._with_secrets({}, tmp_path, {"id": 1}) == first
    for name in ("secret_key", "grafient_encryption_keys"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert supervisor._with_secrets({"SECRET_KEY": "mine"}, tmp_path, {})["SECRET_KEY"] == "mine"


def test_a_folder_with_a_long_path_has_a_redis_too(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    child, url = supervisor.start_redis(folder)
    assert len(url) < 120
    child.process.terminate()
    assert child.process.wait(10) == 0
