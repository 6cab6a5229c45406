"""The encryption keys: whether the ring of the settings opens what is stored, and putting everything under the newest.

A ring is only a setting, and any well-formed one used to start. With another one, or with the old name before another
key, each sync failed and was tried again for ever, and ``make run`` made a new key where the file with the old one was
gone. So the database keeps a check value of each key that it was used with: an HMAC, from which the key can't be found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, delete, func, inspect, select, text, update
from sqlalchemy.exc import IntegrityError

from grafient import database
from grafient.extensions import db
from grafient.models import EncryptionKey, Integration, User, utc_now
from grafient.states import Problem
from grafient.vault import Sealed, Vault, VaultError

BATCH = 100
SAMPLES = 20
"""How many of the things that a key sealed are tried before it counts as another key: one may have been damaged."""

LOST = "The encryption key of the stored key was lost."


class KeyringError(Exception):
    """The ring of the settings does not open what is stored. The message says which key is missing or wrong."""


@dataclass(frozen=True)
class Rotated:
    """What a rotation did: how many were sealed anew, and the integrations whose key does not open."""

    sealed: int
    unreadable: list[int]


def in_use() -> dict[str, int]:
    """How many provider keys, and secrets of authenticator apps, each encryption key seals, by its id."""
    counted = select(Integration.key_encryption_id, func.count()).where(Integration.key_ciphertext.is_not(None))
    rows = db.session.execute(counted.group_by(Integration.key_encryption_id)).all()
    found = Counter({key_id or "": count for key_id, count in rows})
    secrets = select(User.tf_totp_secret).where(User.tf_totp_secret.is_not(None))
    found.update((secret or "").partition(":")[0] for secret in db.session.execute(secrets).scalars())
    return dict(found)


def in_use_at(engine: Engine | Connection) -> dict[str, int]:
    """The same of a database of any version, or of none, for who has no app yet."""
    if not inspect(engine).has_table("integration"):
        return {}
    ids = text("SELECT key_encryption_id FROM integration WHERE key_ciphertext IS NOT NULL")
    with database.connected(engine) as connection:
        return Counter(connection.execute(ids).scalars())


def verify(vault: Vault) -> None:
    """Raise KeyringError unless the ring opens what is stored; note the check values of its keys. Commits."""
    stored = _check_values()
    _compare(vault, stored, in_use())
    for key_id in vault.keys.keys() - stored.keys():
        if not _opens_something(vault, key_id):
            raise KeyringError(_another(key_id))
        db.session.add(EncryptionKey(id=key_id, check_value=vault.check_value(key_id), created_at=utc_now()))
    try:
        db.session.commit()
    except IntegrityError:  # another process has just noted the same
        db.session.rollback()


def problem(vault: Vault) -> str:
    """What is wrong with the ring, in a sentence; empty if nothing is. Reads only."""
    try:
        _compare(vault, _check_values(), in_use())
    except KeyringError as error:
        return str(error)
    return ""


def unopened(vault: Vault) -> dict[str, int]:
    """How many things that are sealed do not open, by the ids of the keys that the ring lacks or has others of."""
    used, stored = in_use(), _check_values()
    others = {id_ for id_, value in stored.items() if id_ in vault.keys and vault.check_value(id_) != value}
    shut = others | {id_ for id_ in used if id_ not in vault.keys or not _opens_something(vault, id_)}
    return {id_: used.get(id_, 0) for id_ in sorted(shut)}


def unused(vault: Vault) -> list[str]:
    """The keys of the ring that seal nothing any more."""
    used = in_use()
    return [key_id for key_id in vault.keys if key_id not in used]


def unreadable(vault: Vault, most: int) -> list[int]:
    """The integrations, of so many, whose key does not open."""
    return [row.id for row in _sealed(most) if _opened(vault, row) is None]


def rotate(vault: Vault) -> Rotated:
    """Seal every provider key with the newest key of the ring. Commits in batches.

    It may be killed and started again: what is done is not done twice. Beside it people may replace keys and workers
    open them: a row is written only if it is still what was read.
    """
    newest, count, shut, after = next(iter(vault.keys)), 0, list[int](), 0
    while True:
        rows = _sealed(BATCH, Integration.id > after, Integration.key_encryption_id != newest)
        if not rows:
            return Rotated(count, shut)
        for row in rows:
            key = _opened(vault, row)
            if key is None:
                shut.append(row.id)
                continue
            sealed = vault.seal(key, integration_id=row.id, provider=row.provider)
            written = db.session.execute(
                update(Integration)
                .where(Integration.id == row.id, Integration.key_ciphertext == row.key_ciphertext)
                .values(key_encryption_id=sealed.key_id, key_ciphertext=sealed.ciphertext)
                .execution_options(synchronize_session=False)
            )
            count += written.rowcount  # type: ignore[attr-defined]
        after = rows[-1].id
        db.session.commit()


def forget(key_id: str) -> int:
    """Give up what a key sealed, since it is lost: these integrations need their key pasted again. Commits."""
    given_up = db.session.execute(
        update(Integration)
        .where(Integration.key_encryption_id == key_id)
        .values(
            key_ciphertext=None,
            key_encryption_id=None,
            problem=Problem.NEEDS_KEY,
            problem_detail=LOST,
            problem_since=utc_now(),
        )
        .execution_options(synchronize_session=False)
    )
    db.session.execute(delete(EncryptionKey).where(EncryptionKey.id == key_id))
    db.session.commit()
    return int(given_up.rowcount)  # type: ignore[attr-defined]


def _compare(vault: Vault, stored: Mapping[str, bytes], used: Mapping[str, int]) -> None:
    for key_id, count in used.items():
        if key_id not in vault.keys:
            raise KeyringError(missing(key_id, count))
    for key_id, check_value in stored.items():
        if key_id in vault.keys and vault.check_value(key_id) != check_value:
            raise KeyringError(_another(key_id))


def missing(key_id: str, count: int) -> str:
    """What to say of an encryption key that is not there."""
    return (
        f"GRAFIENT_ENCRYPTION_KEYS lacks the key {key_id!r}, which encrypts {count} stored provider "
        f"key{'' if count == 1 else 's'}. Put it back, after the newest. If it is lost for good, run: "
        f"flask --app wsgi keys forget {key_id}"
    )


def _another(key_id: str) -> str:
    return (
        f"The key {key_id!r} in GRAFIENT_ENCRYPTION_KEYS is not the one that this database was used with, and opens "
        "nothing that is stored. Put the old one back; a new key needs another id."
    )


def _check_values() -> dict[str, bytes]:
    rows = db.session.execute(select(EncryptionKey.id, EncryptionKey.check_value)).all()
    return {key_id: check_value for key_id, check_value in rows}  # noqa: C416 - a Row is no pair to mypy


def _opens_something(vault: Vault, key_id: str) -> bool:
    """Whether the key of this id opens what is sealed under it, or nothing is."""
    sealed = _sealed(SAMPLES, Integration.key_encryption_id == key_id)
    return not sealed or any(_opened(vault, row) is not None for row in sealed)


def _sealed(most: int, *where: ColumnElement[bool]) -> Sequence[Any]:
    """So many of the stored provider keys, by the ids of their integrations."""
    statement = (
        select(Integration.id, Integration.provider, Integration.key_encryption_id, Integration.key_ciphertext)
        .where(Integration.key_ciphertext.is_not(None), *where)
        .order_by(Integration.id)
        .limit(most)
    )
    return db.session.execute(statement).all()


def _opened(vault: Vault, row: Any) -> str | None:
    """The provider key in a row; None if it does not open."""
    try:
        sealed = Sealed(row.key_encryption_id or "", row.key_ciphertext)
        return vault.open(sealed, integration_id=row.id, provider=row.provider)
    except VaultError:
        return None
