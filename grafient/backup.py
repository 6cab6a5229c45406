"""Backups: everything that is stored in one file, made while Grafient runs, and put back whole or not at all.

A backup is a tar of three members. ``manifest.json`` says what it is. Then comes the database: ``grafient.db.zst``, a
SQLite file, or ``grafient.dump``, what pg_dump makes. The last, ``sha256``, is the SHA-256 of every byte before it.

The sum is last because of files that were cut: a copy that ended early still begins as a good tar does, and what it
lacks is the sum. Everything from that member on follows from the sum, and is compared byte by byte, so there is no byte
in the file, padding included, that could be another one unnoticed. The manifest is first and within the sum.

Whatever a restore has to do to the data (a newer schema, sessions that end, syncs that are put back) is done before
anybody sees them: on SQLite in the unpacked file, which then replaces the live one in one transaction; on PostgreSQL in
the transaction that replaces the tables. Processes that run meanwhile see all of the old or all of the new.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec
import psycopg
from backports import zstd
from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection, Engine, create_engine, func, inspect, select, table, text, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from grafient import audit, database, disk, keyring, mail, runs, sessions
from grafient.alerts import outbox
from grafient.extensions import db
from grafient.models import Integration, utc_now
from grafient.models.integrations import new_revision
from grafient.states import Action
from grafient.vault import Vault

FORMAT = 1
MANIFEST, SUM = "manifest.json", "sha256"
DATA = {"sqlite": "grafient.db.zst", "postgresql": "grafient.dump"}

_LEVEL = 3
_CHUNK = 1 << 20
_MOST_MANIFEST = 1 << 20
_BUSY_SECONDS = 2 * database.BUSY_SECONDS
"""How long a restore waits for its turn; writers wait for half of that."""
_LOCK_MILLISECONDS = 500
"""Less than the second after which PostgreSQL ends one of two transactions that wait for each other. So it is always
the restore that gives way and tries again, and nobody's request fails."""
_FIRST_LOCK_MILLISECONDS = 3000
"""For a table that could not be had, with nothing else locked, so that nobody waits for the restore in turn."""


class BackupError(Exception):
    """A backup can't be made, or not be restored. The message says why, and that nothing was changed."""


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file in a backup: its size in bytes, and its SHA-256 in hex."""

    name: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a backup says of itself. ``kind``: sqlite or postgresql. ``schema``: the revision of its tables, each of
    which has so many ``rows``. ``encryption_keys``: the ids of those that seal something in it."""

    format: int
    grafient: str
    made_at: datetime
    kind: str
    schema: str
    encryption_keys: list[str]
    rows: dict[str, int]
    members: list[Member]

    def __str__(self) -> str:
        return f"the backup of {self.made_at:%Y-%m-%d %H:%M:%S} UTC ({_told(self.rows)})"


class _Writable(Protocol):
    def write(self, data: bytes, /) -> object: ...


@dataclass(frozen=True)
class Restored:
    """What a restore did. ``kept``: where the database from before is, None where there was none to be kept.
    ``shut``: the encryption keys that are missing, and how many secrets don't open without each.
    ``restart``: whether running processes still have the old file, because it was no database any more."""

    put_back: int
    shut: Mapping[str, int]
    kept: Path | None = None
    restart: bool = False


def to_file(file: Path, version: str) -> Manifest:
    """Back up to a new file that is its owner's alone. Raises BackupError, having left no file."""
    folder = file.absolute().parent
    if not folder.is_dir():
        raise BackupError(f"There is no folder {folder}. Make it, or name another.")
    _refuse_what_is_there(file)
    with _one_sentence(f"The backup could not be written to {folder}"), _scratch(folder) as scratch:
        manifest = _copied(scratch, version)
        whole = scratch / "whole"
        whole.touch(mode=0o600)
        with whole.open("wb") as out:
            _pack(manifest, scratch, out)
            out.flush()
            os.fsync(out.fileno())
        _refuse_what_is_there(file)
        whole.rename(file)
        with suppress(OSError):  # not every file system can, and the file is there
            _fsync(folder)
    return manifest


def to_standard_output(version: str) -> Manifest:
    """The same to standard output, with a copy in the folder for temporary files meanwhile."""
    with _one_sentence("The backup could not be written"), _scratch(None) as scratch:
        manifest = _copied(scratch, version)
        # Its own buffer: what does not fit is not tried once more, with a traceback, when the process ends.
        with open(sys.stdout.fileno(), "wb", closefd=False) as out:
            _pack(manifest, scratch, out)
    return manifest


@contextmanager
def checked(file: Path, ring: Vault | None, *, without_keys: bool) -> Iterator[Checked]:
    """A backup of which everything was verified that can be before something is replaced; its copy is gone afterwards.

    Raises BackupError with what is wrong with it. On PostgreSQL the rows can only be looked at within the transaction
    that restores them, so there ``restore`` raises it too.
    """
    folder = None
    if db.engine.dialect.name == "sqlite":
        folder = Path(db.engine.url.database or "").absolute().parent  # where there has to be room for it anyway
        database.private_folder(folder)
    with ExitStack() as until_then:
        with _one_sentence(f"{file} can't be restored"), file.open("rb") as packed:
            manifest, start = _read(packed, file)
            scratch = until_then.enter_context(_scratch(folder))
            data = _unpacked(packed, start, manifest, scratch)
            one = Checked(file, manifest, data, ring or Vault({}), without_keys)
            one.prepare()
        yield one


class Checked:
    """See ``checked``."""

    def __init__(self, file: Path, manifest: Manifest, data: Path, ring: Vault, without_keys: bool) -> None:
        self.manifest = manifest
        self._file, self._data, self._ring, self._without_keys = file, data, ring, without_keys
        self._done: Restored | None = None

    def prepare(self) -> None:
        """Verify what is in it; on SQLite the copy becomes what is going to be there."""
        if self.manifest.kind == "postgresql":
            _run([_tool("pg_restore"), "--list", str(self._data)], f"pg_restore can't read {self._file}")
            return
        engine = create_engine(f"sqlite:///{self._data}", poolclass=NullPool, hide_parameters=True)
        with engine.connect() as connection:
            _refuse_damage(connection, str(self._file))
        database.prepare(engine)
        self._done = self._finished(engine)

    def restore(self) -> Restored:
        """Put it in the place of what is stored now. Commits; raises BackupError if nothing was changed."""
        db.session.remove()
        with _one_sentence("The backup could not be restored"):
            if self._done is None:
                return self._into_postgresql()
            kept, restart = _replace_sqlite(self._data)
            return Restored(self._done.put_back, self._done.shut, kept, restart)

    def _finished(self, bind: Engine | Connection) -> Restored:
        """Compare the rows of this database with the manifest, and make it what is going to be there."""
        with _instead(bind):
            schema, rows, _ = _described(db.session.connection())
            if (schema, rows) != (self.manifest.schema, self.manifest.rows):
                raise BackupError(f"{self._file} has other rows than its manifest says. Nothing was changed.")
            db.session.commit()
            database.upgrade(bind)
            shut = keyring.unopened(self._ring)
            if shut and not self._without_keys:
                raise BackupError(_lacking(shut))
            sessions.end_every()
            put_back = runs.put_back_every()
            mail.forget_every()
            outbox.forget_every()
            # Another revision than any page was kept for: two databases that were upgraded both have 0 everywhere.
            every = update(Integration).values(revision=new_revision())
            db.session.execute(every.execution_options(synchronize_session=False))
            audit.note(Action.COMMAND, None, f"restore {self._file.name} of {self.manifest.made_at:%Y-%m-%d %H:%M:%S}")
            db.session.commit()
            return Restored(put_back, shut)

    def _into_postgresql(self) -> Restored:
        engine = create_engine(db.engine.url, poolclass=NullPool, hide_parameters=True)
        with engine.connect() as connection:
            quote = connection.dialect.identifier_preparer.quote
            for name in _locked(connection):
                connection.exec_driver_sql(f"DROP TABLE {quote(name)} CASCADE")
            _play(self._data, connection.connection.driver_connection)
            connection.exec_driver_sql("RESET search_path")
            done = self._finished(connection)
            connection.commit()
            return done


def now() -> str:
    """What is stored now, in a few words."""
    path = db.engine.url.database
    if db.engine.dialect.name == "sqlite" and path and not Path(path).exists():
        return "no database yet"
    try:
        with database.only_reading(), db.engine.connect() as connection:
            return _told(_rows(connection))
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.DatabaseError) and not isinstance(error.orig, sqlite3.OperationalError):
            return "a file that is no database any more"
        raise


def _told(rows: Mapping[str, int]) -> str:
    counted = ((rows.get(name, 0), name) for name in ("workspace", "integration", "user"))
    return ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for count, name in counted)


def _lacking(shut: Mapping[str, int]) -> str:
    ids, count = ", ".join(map(repr, shut)), sum(shut.values())
    return (
        f"GRAFIENT_ENCRYPTION_KEYS lacks what encrypts {count} secret{'' if count == 1 else 's'} of this backup, "
        f"or has other keys by that id: {ids}. Put it back, after the newest, and restore again. If it is lost for "
        "good, restore with --without-keys; these secrets have to be entered again. Nothing was changed."
    )


# Making one


def _copied(scratch: Path, version: str) -> Manifest:
    """Copy the database into the folder, and say what was copied."""
    made_at, kind = utc_now().replace(microsecond=0), db.engine.dialect.name
    data = scratch / DATA[kind]
    schema, rows, keys = (_copy_sqlite if kind == "sqlite" else _dump_postgresql)(data)
    with data.open("rb") as file:
        member = Member(data.name, data.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
    return Manifest(FORMAT, version, made_at, kind, schema, keys, rows, [member])


_Described = tuple[str, dict[str, int], list[str]]


def _described(connection: Connection) -> _Described:
    """The schema's revision, how many rows each table has, and the ids of the encryption keys in use."""
    schema = database.revision(connection)
    if schema is None:
        raise BackupError("There is no database of Grafient. Run: flask --app wsgi upgrade")
    return schema, _rows(connection), sorted(filter(None, keyring.in_use_at(connection)))


def _rows(connection: Connection) -> dict[str, int]:
    names = sorted(inspect(connection).get_table_names())
    return {name: connection.execute(select(func.count()).select_from(table(name))).scalar_one() for name in names}


def _copy_sqlite(data: Path) -> _Described:
    live, copy = Path(db.engine.url.database or ""), data.with_suffix("")
    if not live.exists():
        raise BackupError(f"There is no database at {live}.")
    with closing(db.engine.raw_connection()) as source, closing(sqlite3.connect(copy)) as target:
        _online(source.driver_connection, target)
    engine = create_engine(f"sqlite:///{copy}", poolclass=NullPool, hide_parameters=True)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = DELETE")  # one file, with nothing beside it
        _refuse_damage(connection, "The database")
        described = _described(connection)
    with copy.open("rb") as file, zstd.open(data, "wb", level=_LEVEL) as packed:
        shutil.copyfileobj(file, packed, _CHUNK)
    copy.unlink()
    return described


def _dump_postgresql(data: Path) -> _Described:
    """With one snapshot for the dump and for the rows that are counted, whatever is written meanwhile."""
    with db.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        server = connection.connection.driver_connection
        assert server is not None
        tool = _tool("pg_dump", server.info.server_version // 10_000)
        snapshot, schema = connection.execute(text("SELECT pg_export_snapshot(), current_schema()")).one()
        described = _described(connection)
        tables = [f'--table="{schema}"."{name}"' for name in described[1]]
        options = ["--format=custom", "--no-owner", "--no-privileges", "--no-password", f"--snapshot={snapshot}"]
        address = make_conninfo(**server.info.get_parameters())  # all but the password
        command = [tool, *options, *tables, f"--file={data}", f"--dbname={address}"]
        _run(command, "The database could not be dumped", PGPASSWORD=server.info.password)
    return described


def _pack(manifest: Manifest, scratch: Path, out: _Writable) -> None:
    """Write the tar, with what says by its own sum that it is whole."""
    summed = hashlib.sha256()

    def write(data: bytes) -> None:
        summed.update(data)
        out.write(data)

    encoded = msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"
    write(_member(MANIFEST, encoded, manifest.made_at))
    for member in manifest.members:
        write(_header(member.name, member.size, manifest.made_at))
        with (scratch / member.name).open("rb") as file:
            while chunk := file.read(_CHUNK):
                write(chunk)
        write(bytes(-member.size % tarfile.BLOCKSIZE))
    out.write(_end(summed.hexdigest()))


def _end(digest: str) -> bytes:
    """What a backup of this sum ends with."""
    return _member(SUM, f"{digest}\n".encode()) + bytes(2 * tarfile.BLOCKSIZE)


_END_BYTES = 4 * tarfile.BLOCKSIZE


def _member(name: str, content: bytes, made_at: datetime | None = None) -> bytes:
    return _header(name, len(content), made_at) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def _header(name: str, size: int, made_at: datetime | None = None) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o600, int(made_at.timestamp()) if made_at else 0
    return info.tobuf(tarfile.GNU_FORMAT)  # which has no greatest size


# Reading one


def _read(packed: IO[bytes], file: Path) -> tuple[Manifest, tarfile.TarInfo]:
    """The manifest of a file that is whole and can be restored here, and where its data are."""
    _refuse_what_is_not_whole(packed, file)
    packed.seek(0)
    foreign = BackupError(f"{file} is no backup of Grafient. Nothing was changed.")
    try:
        with tarfile.open(fileobj=packed, mode="r:") as tar:
            members = [info for _, info in zip(range(4), tar, strict=False)]
            first = tar.extractfile(members[0])
            encoded = first.read(_MOST_MANIFEST) if first else b""
        version = msgspec.json.decode(encoded, type=_Format).format
        if version > FORMAT:
            raise BackupError(
                f"{file} was made by a newer version of Grafient (format {version}). Update Grafient, then restore it."
            )
        manifest = msgspec.json.decode(encoded, type=Manifest)
    except (tarfile.TarError, msgspec.DecodeError, IndexError):
        raise foreign from None
    names = [MANIFEST, DATA.get(manifest.kind), SUM]
    expected = [info.name for info in members] == names and all(info.type == tarfile.REGTYPE for info in members)
    if not expected or [(one.name, one.size) for one in manifest.members] != [(members[1].name, members[1].size)]:
        raise foreign
    here = db.engine.dialect.name
    if manifest.kind != here:
        raise BackupError(
            f"{file} is of a {_KINDS[manifest.kind]} database, and DATABASE_URL is of {_KINDS[here]}. "
            "A backup can only be restored into a database of its own kind."
        )
    if manifest.schema not in database.revisions():
        raise BackupError(
            f"{file} was made by a newer version of Grafient (schema {manifest.schema}). "
            "Update Grafient, then restore it."
        )
    return manifest, members[1]


_KINDS = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


class _Format(msgspec.Struct):
    format: int


def _refuse_what_is_not_whole(packed: IO[bytes], file: Path) -> None:
    size = os.fstat(packed.fileno()).st_size
    if packed.read(len(MANIFEST) + 1) != MANIFEST.encode() + b"\0":
        raise BackupError(f"{file} is no backup of Grafient. Nothing was changed.")
    packed.seek(0)
    summed, left = hashlib.sha256(), max(size - _END_BYTES, 0)
    while left and (chunk := packed.read(min(_CHUNK, left))):
        summed.update(chunk)
        left -= len(chunk)
    end, wanted = packed.read(), _end(summed.hexdigest())
    if end == wanted:
        return
    if end[: tarfile.BLOCKSIZE] == wanted[: tarfile.BLOCKSIZE]:
        raise BackupError(f"{file} is damaged: it is not what was written. Use another copy. Nothing was changed.")
    raise BackupError(f"{file} is not whole: its end is missing. Copy it once more. Nothing was changed.")


def _unpacked(packed: IO[bytes], start: tarfile.TarInfo, manifest: Manifest, scratch: Path) -> Path:
    """The data in a file of ours, decompressed if it is a SQLite file."""
    data, left, summed = scratch / start.name, start.size, hashlib.sha256()
    packed.seek(start.offset_data)
    with data.open("xb") as out:
        while left and (chunk := packed.read(min(_CHUNK, left))):
            summed.update(chunk)
            out.write(chunk)
            left -= len(chunk)
    if summed.hexdigest() != manifest.members[0].sha256:
        raise BackupError(f"{start.name} in the backup is not what its manifest says. Nothing was changed.")
    if manifest.kind == "postgresql":
        return data
    plain = data.with_suffix("")
    with zstd.open(data, "rb") as file, plain.open("xb") as out:
        shutil.copyfileobj(file, out, _CHUNK)
    data.unlink()
    return plain


def _refuse_damage(connection: Connection, name: str) -> None:
    """Raise BackupError if SQLite finds its own file broken."""
    found = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalars().all()
    if found != ["ok"]:
        raise BackupError(f"{name} is damaged: {found[0].splitlines()[-1]}. Nothing was changed.")
    row = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if row is not None:
        raise BackupError(f"{name} is damaged: a row of {row[0]} belongs to one of {row[2]} that is not there.")


# Restoring into SQLite


def _replace_sqlite(copy: Path) -> tuple[Path | None, bool]:
    """Put a database in the place of the live one; where that is kept, and whether processes have to be restarted.

    SQLite's online backup writes all pages in one transaction of the live file, so a process that reads it goes on with
    the old until it asks anew. The old one is copied within that transaction, between its two steps: it has the
    writers' lock by then, so no sync can commit anything that would be in neither.
    """
    live = Path(db.engine.url.database or "").absolute()
    kept = live.with_name(f"{live.name}.before-restore-{utc_now():%Y-%m-%dT%H%M%S.%fZ}")
    there = live.exists() and live.stat().st_size > 0
    broken = there and not _is_database(live)
    if broken:
        _move_database(live, kept)
    live.touch(mode=0o600)

    def keep() -> None:
        if there and not broken:
            kept.touch(mode=0o600)
            with closing(_connect(live)) as source, closing(sqlite3.connect(kept)) as target:
                _online(source, target)
            _fsync(kept)

    with closing(_connect(live)) as target, closing(_connect(copy)) as source:
        target.execute("PRAGMA synchronous = FULL")  # what is committed here is on the disk
        if there and not broken:
            target.execute("PRAGMA journal_mode = WAL")
            (size,), (pages_of,) = (one.execute("PRAGMA page_size").fetchone() for one in (target, source))
            if size != pages_of:  # which no transaction can change
                source.execute("PRAGMA journal_mode = DELETE")
                source.execute(f"PRAGMA page_size = {size}")
                source.execute("VACUUM")
        (pages,) = source.execute("PRAGMA page_count").fetchone()
        try:
            _online(source, target, pages // 2, keep)
        except BaseException:
            kept.unlink(missing_ok=True) if there and not broken else live.unlink()
            if broken:
                _move_database(kept, live)
            raise
    return (kept if there else None), broken


def _move_database(one: Path, other: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            one.with_name(one.name + suffix).replace(other.with_name(other.name + suffix))


def _is_database(live: Path) -> bool:
    try:
        with closing(_connect(live)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return False
        raise
    return True


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=database.BUSY_SECONDS, isolation_level=None)


def _online(
    source: Any, target: sqlite3.Connection, pages: int = -1, locked: Callable[[], None] = lambda: None
) -> None:
    """SQLite's online backup. ``locked`` is called once, after the first of several steps, when the target is ours."""
    until = time.monotonic() + _BUSY_SECONDS
    called = False

    def step(status: int, _remaining: int, _pages: int) -> None:
        nonlocal called
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            if time.monotonic() > until:
                raise BackupError(_BUSY)
        elif not called:
            called = True
            locked()

    source.backup(target, pages=pages, progress=step, sleep=0.1)


_BUSY = (
    f"The database was in use for {_BUSY_SECONDS} seconds on end. Nothing was changed. "
    "Try again, or stop web and workers first."
)


# Restoring into PostgreSQL


def _locked(connection: Connection) -> list[str]:
    """Have all tables to oneself until the transaction ends; their names.

    A table that could not be had comes first in the next try, and is waited for longer: a table that autovacuum is at
    work on is given up by it only after a second, and a page that counts a year's lines can take as long as that.
    """
    until = time.monotonic() + _BUSY_SECONDS
    quote = connection.dialect.identifier_preparer.quote
    name = ""
    while True:
        names = inspect(connection).get_table_names()
        names.sort(key=name.__ne__)
        longest = _FIRST_LOCK_MILLISECONDS if name else _LOCK_MILLISECONDS
        try:
            for name in names:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {longest}")
                connection.exec_driver_sql(f"LOCK TABLE {quote(name)} IN ACCESS EXCLUSIVE MODE")
                longest = _LOCK_MILLISECONDS
        except DBAPIError as error:
            connection.rollback()
            if not isinstance(error.orig, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected):
                raise
            if time.monotonic() > until:
                raise BackupError(_BUSY) from None
            time.sleep(_LOCK_MILLISECONDS / 1000)
        else:
            return names


def _play(dump: Path, server: Any) -> None:
    """Do, in the transaction of this connection, what pg_restore would: its statements, and the rows between them.

    pg_restore itself would commit before the rows could be counted and the sessions ended.
    """
    statements: list[bytes] = []
    command = [_tool("pg_restore"), "--no-owner", "--no-privileges", "--file=-", str(dump)]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said) as process,
        server.cursor() as cursor,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(b"COPY ") and line.endswith(b" FROM stdin;\n"):
                cursor.execute(b"".join(statements))
                statements.clear()
                with cursor.copy(line.removesuffix(b";\n")) as copy:
                    for row in process.stdout:
                        if row == b"\\.\n":
                            break
                        copy.write(row)
            elif not line.startswith((b"\\", b"SET transaction_timeout")):  # psql's own, and what PostgreSQL 16 lacks
                statements.append(line)
        cursor.execute(b"".join(statements))
        if process.wait():
            said.seek(0)
            raise BackupError(f"The backup could not be restored: {_last_line(said.read())}. Nothing was changed.")


def _tool(name: str, server: int = 0) -> str:
    """Where one of PostgreSQL's programs is, of that version or a newer one."""
    found = shutil.which(name)
    wanted, package = (
        (f", of version {server} or newer", f"postgresql-client-{server}") if server else ("", "postgresql-client")
    )
    install = f"Install PostgreSQL's client programs{wanted}: {package} on Debian and Ubuntu."
    if found is None:
        raise BackupError(f"{name} is not there, and a backup of PostgreSQL needs it. {install}")
    if server:
        said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
        version = next((word for word in said.split() if word[:1].isdigit()), "0")
        if int(version.partition(".")[0]) < server:
            raise BackupError(f"{name} is of version {version}, and the server of {server}. {install}")
    return found


def _run(command: list[str], failed: str, **environment: str) -> None:
    ended = subprocess.run(command, capture_output=True, env=os.environ | environment, check=False)
    if ended.returncode:
        raise BackupError(f"{failed}: {_last_line(ended.stderr)}. Nothing was changed.")


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines() or ["no reason was given"]
    return lines[-1].strip().rstrip(".")


# What both need


@contextmanager
def _instead(bind: Engine | Connection) -> Iterator[None]:
    """What is asked of the app's database is asked of this one inside. A connection's transaction is its owner's.

    By all threads of the process, so it has to be one that does nothing else, such as a command.
    """
    engines: Any = db.engines
    usual = engines[None]
    db.session.remove()
    engines[None] = bind
    try:
        yield
    finally:
        db.session.remove()
        engines[None] = usual


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    """A folder that is its owner's alone, and gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=".grafient-backup-", dir=folder) as path:
        yield Path(path)


def _refuse_what_is_there(file: Path) -> None:
    if os.path.lexists(file):
        raise BackupError(f"{file} is there already, and is not overwritten. Choose another name.")


def _fsync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def _one_sentence(failed: str) -> Iterator[None]:
    """Say what a file, SQLite or PostgreSQL refused in one sentence."""
    try:
        yield
    except (OSError, sqlite3.Error, psycopg.Error, SQLAlchemyError, zstd.ZstdError, EOFError) as error:
        if disk.is_why(error):
            why = "the disk is full"
        elif isinstance(error, OSError):
            why = error.strerror or type(error).__name__
        else:
            why = _last_line(str(getattr(error, "orig", None) or error).encode())
        raise BackupError(f"{failed}: {why}. Nothing was changed.") from None
