"""Which API key spent what: the parts of each cost line by key, and the rest that no key explains.

The parts and the rest add up to the whole for each line, exactly, at the end of every transaction: whoever changes
either calls ``settle`` in the same one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import or_, select, update

from grafient import lines
from grafient.extensions import db
from grafient.lines import Identity, identity
from grafient.models import UNATTRIBUTED, ApiKey, CostLine, KeyLine
from grafient.providers import Activity, BilledLine, ListedKey

READ_AFTER_GONE = timedelta(days=31)
"""A key that is no longer listed is still asked about for so long: its last days may yet be in the window."""

_MOST = 2**63 - 1


def record_keys(integration_id: int, listed: Sequence[ListedKey], now: datetime) -> None:
    """Write which keys there are, in the caller's transaction; the names of those that are gone stay."""
    known = {key.key_hash: key for key in db.session.execute(_keys(integration_id)).scalars()}
    for key in listed:
        row = known.pop(key.key_hash, None)
        if row is None:
            db.session.add(
                ApiKey(integration_id=integration_id, key_hash=key.key_hash, name=key.name, disabled=key.disabled)
            )
        else:
            row.name, row.disabled, row.gone_at = key.name, key.disabled, None
    for row in known.values():
        row.gone_at = row.gone_at or now
    db.session.flush()


def to_read(integration_id: int, since: datetime, now: datetime) -> list[str]:
    """The hashes of the keys whose costs were not read since then, the longest unread first."""
    query = (
        _keys(integration_id)
        .where(
            or_(ApiKey.read_at.is_(None), ApiKey.read_at < since),
            or_(ApiKey.gone_at.is_(None), ApiKey.gone_at > now - READ_AFTER_GONE),
        )
        .order_by(ApiKey.read_at.is_not(None), ApiKey.read_at, ApiKey.key_hash)
    )
    return [key.key_hash for key in db.session.execute(query).scalars()]


def _keys(integration_id: int) -> Any:
    return select(ApiKey).where(ApiKey.integration_id == integration_id)


def record(integration_id: int, parts: Mapping[str, Activity], now: datetime) -> None:
    """Write what single keys spent, by their hash, in the caller's transaction.

    As with a whole account, an empty reply erases nothing that is stored.
    """
    changed: set[date] = set()
    for key_hash, activity in parts.items():
        changed |= _record_key(integration_id, key_hash, activity)
    db.session.execute(
        update(ApiKey)
        .where(ApiKey.integration_id == integration_id, ApiKey.key_hash.in_(parts))
        .values(read_at=now)
        .execution_options(synchronize_session=False)
    )
    settle(integration_id, changed)


def _record_key(integration_id: int, key_hash: str, activity: Activity) -> set[date]:
    """Replace one key's lines on the days that its reply speaks of; the days that changed."""
    days = {line.day for line in activity.lines} | {activity.first_day, activity.last_day}
    spoken = KeyLine.day.between(min(days), max(days))
    before = _by_identity(lines.stored(KeyLine, integration_id, KeyLine.key_hash == key_hash, spoken))
    after = _by_identity(activity.lines)
    if before and not after:
        return set()
    return _exchange(integration_id, key_hash, before, after)


def settle(integration_id: int, days: Collection[date]) -> None:
    """Work out anew, for these days, what no key explains."""
    if not days:
        return
    whole = _by_identity(lines.stored(CostLine, integration_id, lines.on(CostLine, days)))
    spent = lines.stored(KeyLine, integration_id, lines.on(KeyLine, days), KeyLine.key_hash != UNATTRIBUTED)
    parts: dict[Identity, list[BilledLine]] = {}
    for part in spent:
        parts.setdefault(identity(part), []).append(part)
    rest = {name: _rest(whole.get(name), parts.get(name, [])) for name in whole.keys() | parts.keys()}
    own = lines.stored(KeyLine, integration_id, lines.on(KeyLine, days), KeyLine.key_hash == UNATTRIBUTED)
    _exchange(
        integration_id,
        UNATTRIBUTED,
        _by_identity(own),
        {name: line for name, line in rest.items() if line is not None},
    )


def _rest(whole: BilledLine | None, parts: Sequence[BilledLine]) -> BilledLine | None:
    """The whole less its parts; less than nothing where the parts are more. None where nothing is left."""
    if not parts:
        return whole
    nothing: dict[str, Any] = dict.fromkeys(_ADDED, 0) | {"usage_usd": Decimal(0), "byok_usd": Decimal(0)}
    line = whole or replace(parts[0], **nothing)
    left: dict[str, Any] = {}
    for name in _ADDED:
        amounts = [getattr(line, name), *(getattr(part, name) for part in parts)]
        known = None not in amounts
        left[name] = amounts[0] - sum(amounts[1:]) if known else None
        if isinstance(left[name], int) and abs(left[name]) > _MOST:
            left[name] = None
    return replace(line, **left) if any(left.values()) else None


_ADDED = tuple(name for name in lines.MEASURES if name != "model")


def _exchange(
    integration_id: int, key_hash: str, before: Mapping[Identity, BilledLine], after: Mapping[Identity, BilledLine]
) -> set[date]:
    gone = [line for name, line in before.items() if after.get(name) != line]
    here = [line for name, line in after.items() if before.get(name) != line]
    lines.replace(KeyLine, integration_id, gone, here, key_hash=key_hash)
    return {line.day for line in (*gone, *here)}


def _by_identity(found: Iterable[BilledLine]) -> dict[Identity, BilledLine]:
    return {identity(line): line for line in found}
