"""Whether the disk is full, which everybody finds out in a way of its own, and the one sentence for all of them.

SQLite says "database or disk is full", PostgreSQL says SQLSTATE 53100, Redis refuses every write with MISCONF, and a
file system says ENOSPC.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import ResponseError
from sqlalchemy.exc import DBAPIError

FULL = "The disk of this Grafient is full. Nothing new can be stored until there is room."

FULL_BYTES = 1024 * 1024
"""Less free space than this is full: SQLite's journal alone grows by more in one sync."""

_POSTGRESQL_DISK_FULL = "53100"


def is_full(folder: Path) -> bool:
    """Whether the disk of a folder has no room. One that can't be looked at is not called full."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < FULL_BYTES


def is_why(error: BaseException) -> bool:
    """Whether an error means that a disk is full."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return is_why(error.orig)
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    if isinstance(error, ResponseError):
        return str(error).startswith("MISCONF")
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "sqlstate", None) == _POSTGRESQL_DISK_FULL


@contextmanager
def tolerated() -> Iterator[None]:
    """Go on without what a full disk can't store, where that matters to nobody: such as that a page was looked at."""
    try:
        yield
    except DBAPIError as error:
        if not is_why(error):
            raise
