"""The raw replies behind the figures: kept compressed for a time, and given out with the sync that read them."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from tempfile import SpooledTemporaryFile
from typing import IO

from backports import zstd
from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import undefer

from grafient.extensions import db
from grafient.models import RawReply, SyncRun
from grafient.providers import ReceivedReply

_SWEEP = 200
_IN_MEMORY = 8 * 1024 * 1024
_LEVEL = 1
"""15,000 rows take 530 kB and 4.7 ms of processor; at zstd's usual level, 3, 504 kB and 6.8 ms. 150 take less at 1."""


def compressed(replies: Iterable[ReceivedReply]) -> list[ReceivedReply]:
    """The replies as they are kept. Done before the transaction, which on SQLite keeps all other writers out."""
    return [replace(reply, body=zstd.compress(reply.body, _LEVEL)) for reply in replies]


def keep(run_id: int, replies: Iterable[ReceivedReply]) -> None:
    """Store compressed replies with the run that asked for them, in the caller's transaction."""
    rows = [{"run_id": run_id, "request": r.request, "received_at": r.received_at, "body": r.body} for r in replies]
    if rows:
        db.session.connection().execute(insert(RawReply.__table__), rows)  # type: ignore[arg-type]


def unpacked(body: bytes) -> bytes:
    """A reply as it came. Those that were kept by earlier versions are gzip."""
    return gzip.decompress(body) if body.startswith(b"\x1f\x8b") else zstd.decompress(body)


def counts(run_ids: Iterable[int]) -> dict[int, int]:
    """How many replies are kept of each run."""
    query = select(RawReply.run_id, func.count()).where(RawReply.run_id.in_(run_ids)).group_by(RawReply.run_id)
    return {row[0]: row[1] for row in db.session.execute(query)}


def archive(integration_id: int, run_id: int) -> IO[bytes] | None:
    """The replies of a run of that integration as a ZIP, with an index of what was asked; None if none are kept."""
    query = (
        select(RawReply)
        .join(SyncRun, SyncRun.id == RawReply.run_id)
        .where(RawReply.run_id == run_id, SyncRun.integration_id == integration_id)
        .order_by(RawReply.id)
        .options(undefer(RawReply.body))
        .execution_options(yield_per=20)
    )
    index = []
    file = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - whoever sends it closes it
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as folder:
        for number, reply in enumerate(db.session.execute(query).scalars(), 1):
            name = f"{number:04}.json"
            folder.writestr(name, unpacked(reply.body))
            index.append({"file": name, "request": reply.request, "received_at": reply.received_at.isoformat()})
        folder.writestr("index.json", json.dumps(index, indent=1))
    if not index:
        file.close()
        return None
    file.seek(0)
    return file


def sweep(now: datetime, days: int) -> bool:
    """Delete some of the replies that are older than so many days, in the caller's transaction; whether more may be
    left.
    """
    old = select(RawReply.id).where(RawReply.received_at < now - timedelta(days=days)).limit(_SWEEP)
    mine = delete(RawReply).where(RawReply.id.in_(old)).execution_options(synchronize_session=False)
    return db.session.execute(mine).rowcount == _SWEEP  # type: ignore[attr-defined, no-any-return]
