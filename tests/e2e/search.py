"""Looks for secrets in what something has kept or said: as they are, in every usual spelling, and in what is packed."""

from __future__ import annotations

import base64
import binascii
import html
import io
import json
import re
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote, quote_plus

from backports import zstd
from markupsafe import escape

LEAST = 6
"""Bytes of a secret. Something shorter would be found by chance."""
_DEEPEST = 6


class Search:
    """For secrets by their names; each may have several values, such as a key in base64 and as its bytes."""

    def __init__(self, secrets: Mapping[str, Iterable[bytes]]) -> None:
        self._needles: dict[bytes, str] = {}
        for name, values in secrets.items():
            for value in values:
                assert len(value) >= LEAST, f"{name} is too short to be looked for"
                for spelling, needle in spellings(value):
                    self._needles.setdefault(needle, f"{name}: {spelling}")

    def found(self, data: bytes) -> set[str]:
        """The secrets that are in it, or in anything that is packed in it: ``name: spelling``."""
        found = set[str]()
        for part in unpacked(data):
            found |= {name for needle, name in self._needles.items() if needle in part}
        return found


def spellings(secret: bytes) -> Iterator[tuple[str, bytes]]:
    """A secret in every spelling that is looked for."""
    yield "plain", secret
    yield "hex", secret.hex().encode()
    yield "hex", secret.hex().upper().encode()
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret)
        cut = (before + len(secret)) % 3
        whole = encoded[(0, 2, 3)[before] : len(encoded) - (0, 3, 2)[cut]]  # what no neighbour has a part in
        yield "base64", whole
        yield "base64", whole.replace(b"+", b"-").replace(b"/", b"_")
    yield "URL", quote(secret, safe="").encode()
    yield "URL", quote_plus(secret).encode()
    yield "URL", b"".join(b"%%%02x" % byte for byte in secret)
    yield "URL", b"".join(b"%%%02X" % byte for byte in secret)
    yield "backslashes", repr(secret)[2:-1].encode()
    yield "backslashes", repr(b'"' + secret)[3:-1].encode()
    with suppress(UnicodeDecodeError):
        text = secret.decode()
        yield "backslashes", repr(text)[1:-1].encode()
        yield "backslashes", repr(f'"{text}')[2:-1].encode()
        yield "JSON", json.dumps(text)[1:-1].encode()
        yield "JSON", json.dumps(text, ensure_ascii=False)[1:-1].encode()
        yield "JSON", b"".join(b"\\u%04x" % ord(letter) for letter in text)
        yield "HTML", html.escape(text).encode()
        yield "HTML", str(escape(text)).encode()  # as templates do
        yield "CSV", text.replace('"', '""').encode()
        yield "HTML", "".join(f"&#{ord(letter)};" for letter in text).encode()
        yield "UTF-16", text.encode("utf-16-le")


_PACKED = re.compile(rb"\x1f\x8b\x08|\x28\xb5\x2f\xfd|\x78[\x01\x5e\x9c\xda]")
_IN_BASE64 = re.compile(rb"(?:eJ|eN|eAE|H4sI|KLUv)[A-Za-z0-9+/_-]{16,}")
_IN_HEX = re.compile(rb"\\x((?:1f8b08|28b52ffd)(?:[0-9a-f]{2})+)")


def unpacked(data: bytes, depth: int = 0) -> Iterator[bytes]:
    """The data, and all that is packed in them anywhere: gzip, zlib, zstd, also in base64 and hex; ZIP, tar, SQLite and
    PostgreSQL's dumps."""
    yield data
    assert depth < _DEEPEST, "packed too deep to be looked at"
    for part in _inside(data):
        yield from unpacked(part, depth + 1)


def _inside(data: bytes) -> Iterator[bytes]:
    if data.startswith(b"SQLite format 3\0"):
        yield from _of_sqlite(data)
        return
    if data.startswith(b"PGDMP"):
        yield _of_postgresql(data)
        return
    if data.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(data)) as folder:
            yield b"\n".join(name.encode() for name in folder.namelist())
            yield from (folder.read(name) for name in folder.namelist())
        return
    if data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            yield from (file.read() for one in tar if (file := tar.extractfile(one)) is not None)
        return
    end = 0
    for packed in _PACKED.finditer(data):
        if packed.start() >= end:
            part, length = _decompressed(data[packed.start() :])
            end = packed.start() + length
            if part:
                yield part
    for word in _IN_BASE64.findall(data):
        with suppress(binascii.Error):
            yield from _packed_alone(base64.urlsafe_b64decode(word.translate(bytes.maketrans(b"+/", b"-_")) + b"==="))
    for word in _IN_HEX.findall(data):
        yield from _packed_alone(bytes.fromhex(word.decode()))


def _packed_alone(data: bytes) -> Iterator[bytes]:
    if _PACKED.match(data) and (part := _decompressed(data)[0]):
        yield part


def _decompressed(data: bytes) -> tuple[bytes, int]:
    """What the beginning of it unpacks to, as far as it does, and how many bytes that took."""
    unpacking = zstd.ZstdDecompressor() if data.startswith(b"\x28\xb5\x2f\xfd") else zlib.decompressobj(wbits=47)
    parts, at = [], 0
    with suppress(zlib.error, zstd.ZstdError):
        while at < len(data) and not unpacking.eof:
            parts.append(unpacking.decompress(data[at : at + 4096]))
            at += 4096
    return b"".join(parts), min(at, len(data)) - len(unpacking.unused_data) if unpacking.eof else 0


def _of_sqlite(data: bytes) -> Iterator[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "one.db"
        file.write_bytes(data)
        with closing(sqlite3.connect(f"file:{file}?immutable=1", uri=True)) as database:
            names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for name in names:
                yield from values(database.execute(f'SELECT * FROM "{name}"'))


def _of_postgresql(data: bytes) -> bytes:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        tool = shutil.which("pg_restore")
        assert tool is not None
        return subprocess.run([tool, "--file=-", file.name], check=True, capture_output=True).stdout


def values(rows: Iterable[Iterable[object]]) -> list[bytes]:
    """All values of these rows: text together, and bytes each by itself, since they may be packed."""
    text, raw = list[str](), list[bytes]()
    for row in rows:
        for value in row:
            if isinstance(value, (bytes, memoryview)):
                raw.append(bytes(value))
            elif value is not None:
                text.append(value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False))
    packed = [one for one in raw if _PACKED.match(one)]
    plain = [one for one in raw if not _PACKED.match(one)]
    return [one for one in ("\n".join(text).encode(), b"\n".join(plain), *packed) if one]
