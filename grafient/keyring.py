"""The encryption keys: whether the ring of the settings opens what is stored, and putting everything under the newest.

A ring is only a setting, and any well-formed one used to start. With another one, or with the old name before another
key, each sync failed and was tried again for ever, and ``make run`` made a new key where the file with the old one was
gone. So the database keeps a check value of each key that it was used with: an HMAC, from which the key can't be found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, delete, func, inspect, select, text, update
from sqlalchemy.exc import IntegrityError

from grafient import database
from grafient.extensions import db
from grafient.models import Channel, EncryptionKey, Integration, User, utc_now
from grafient.states import Problem
from grafient.vault import Sealed, Vault, VaultError, of_integration

BATCH = 100
SAMPLES = 20
"""How many of the things that a key sealed are tried before it counts as another key: one may have been damaged."""

LOST = "The encryption key of the stored key was lost."
LOST_SETTINGS = "The encryption key of this channel's settings was lost. Enter them again."


class KeyringError(Exception):
    """The ring of the settings does not open what is stored. The message says which key is missing or wrong."""


@dataclass(frozen=True)
class Rotated:
    """What a rotation did: how many provider keys were sealed anew, and the integrations whose key does not open; and
    the same of the settings of alert channels."""

    sealed: int
    unreadable: list[int]
    channels: int = 0
    unreadable_channels: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Kind:
    """Rows that have something sealed in two of their columns: the key's id, and the ciphertext."""

    table: type[Any]
    key_id: Any
    ciphertext: Any
    columns: tuple[Any, ...] = ()
    """What else it is bound to, besides the row's id."""

    def bound_to(self, row: Any) -> str:
        return of_channel(row.id) if self.table is Channel else of_integration(row.id, row.provider)


_KEYS = _Kind(Integration, Integration.key_encryption_id, Integration.key_ciphertext, (Integration.provider,))
_CHANNELS = _Kind(Channel, Channel.config_encryption_id, Channel.config_ciphertext)


def of_channel(channel_id: int) -> str:
    """What the settings of a channel are bound to when they are sealed."""
    return f"grafient:channel:{channel_id}"


def in_use() -> dict[str, int]:
    """How many secrets each encryption key seals, by its id: provider keys, the settings of alert channels, and what
    authenticator apps make codes of."""
    found: Counter[str] = Counter()
    for kind in (_KEYS, _CHANNELS):
        counted = select(kind.key_id, func.count()).where(kind.ciphertext.is_not(None)).group_by(kind.key_id)
        found.update({key_id or "": count for key_id, count in db.session.execute(counted).all()})
    secrets = select(User.tf_totp_secret).where(User.tf_totp_secret.is_not(None))
    found.update((secret or "").partition(":")[0] for secret in db.session.execute(secrets).scalars())
    return dict(found)


_AT = {
    "integration": "SELECT key_encryption_id FROM integration WHERE key_ciphertext IS NOT NULL",
    "channel": "SELECT config_encryption_id FROM channel WHERE config_ciphertext IS NOT NULL",
}


def in_use_at(engine: Engine | Connection) -> dict[str, int]:
    """The same, without the apps, of a database of any version, or of none, for who has no app yet."""
    found: Counter[str] = Counter()
    there = inspect(engine)
    for table, ids in _AT.items():
        if there.has_table(table):
            with database.connected(engine) as connection:
                found.update(connection.execute(text(ids)).scalars())
    return found


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
    return [row.id for row in _sealed(_KEYS, most) if _opened(vault, _KEYS, row) is None]


def rotate(vault: Vault) -> Rotated:
    """Seal every provider key, and the settings of every channel, with the newest key of the ring. Commits in batches.

    It may be killed and started again: what is done is not done twice. Beside it people may replace keys and workers
    open them: a row is written only if it is still what was read.
    """
    return Rotated(*_rotated(vault, _KEYS), *_rotated(vault, _CHANNELS))


def _rotated(vault: Vault, kind: _Kind) -> tuple[int, list[int]]:
    newest, count, shut, after = next(iter(vault.keys)), 0, list[int](), 0
    while True:
        rows = _sealed(kind, BATCH, kind.table.id > after, kind.key_id != newest)
        if not rows:
            return count, shut
        for row in rows:
            secret = _opened(vault, kind, row)
            if secret is None:
                shut.append(row.id)
                continue
            sealed = vault.encrypt(secret, kind.bound_to(row))
            written = db.session.execute(
                update(kind.table)
                .where(kind.table.id == row.id, kind.ciphertext == row.ciphertext)
                .values({kind.key_id: sealed.key_id, kind.ciphertext: sealed.ciphertext})
                .execution_options(synchronize_session=False)
            )
            count += written.rowcount  # type: ignore[attr-defined]
        after = rows[-1].id
        db.session.commit()


@dataclass(frozen=True)
class GivenUp:
    """How many integrations need their key pasted again, and how many channels their settings entered again."""

    integrations: int
    channels: int


def forget(key_id: str) -> GivenUp:
    """Give up what a key sealed, since it is lost. Commits."""
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
    turned_off = db.session.execute(
        update(Channel)
        .where(Channel.config_encryption_id == key_id)
        .values(config_ciphertext=None, config_encryption_id=None, disabled_at=utc_now(), disabled_why=LOST_SETTINGS)
        .execution_options(synchronize_session=False)
    )
    db.session.execute(delete(EncryptionKey).where(EncryptionKey.id == key_id))
    db.session.commit()
    return GivenUp(int(given_up.rowcount), int(turned_off.rowcount))  # type: ignore[attr-defined]


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
        f"GRAFIENT_ENCRYPTION_KEYS lacks the key {key_id!r}, which encrypts {count} stored "
        f"secret{'' if count == 1 else 's'}. Put it back, after the newest. If it is lost for good, run: "
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
    is_any = False
    for kind in (_KEYS, _CHANNELS):
        sealed = _sealed(kind, SAMPLES, kind.key_id == key_id)
        if any(_opened(vault, kind, row) is not None for row in sealed):
            return True
        is_any = is_any or bool(sealed)
    return not is_any


def _sealed(kind: _Kind, most: int, *where: ColumnElement[bool]) -> Sequence[Any]:
    """So many of the rows that have something sealed, in the order of their ids."""
    columns = kind.table.id, *kind.columns, kind.key_id.label("key_id"), kind.ciphertext.label("ciphertext")
    statement = select(*columns).where(kind.ciphertext.is_not(None), *where).order_by(kind.table.id).limit(most)
    return db.session.execute(statement).all()


def _opened(vault: Vault, kind: _Kind, row: Any) -> str | None:
    """What is sealed in a row; None if it does not open."""
    try:
        return vault.decrypt(Sealed(row.key_id or "", row.ciphertext), kind.bound_to(row))
    except VaultError:
        return None
