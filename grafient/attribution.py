"""Which API key spent what: the parts of each cost line by key, and the rest that no key accounts for.

The parts and the rest add up to the whole, for each line, exactly, at the end of every transaction: whoever changes a
line or a part calls ``recompute_unattributed`` in the same one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import delete, insert, or_, select, update

from grafient import lines
from grafient.days import Period, intervals, settles_at, span
from grafient.extensions import db
from grafient.lines import Identity, identity
from grafient.models import UNATTRIBUTED, ApiKey, CostLine, KeyLine, KeyReading
from grafient.providers import Activity, BilledLine, ListedKey

READ_AFTER_GONE = timedelta(days=31)
"""A key that is no longer listed is still read for so long: its last days may still be in the provider's window."""

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


def record(integration_id: int, parts: Mapping[str, Activity], now: datetime, *, account_is_whole: bool) -> None:
    """Write what single keys spent, by their hash, in the caller's transaction.

    ``account_is_whole``: whether the account's own reply in the same sync was a whole one, not a suspicious silence.
    Then a key's empty reply is believed: its only line was corrected away, say, and the account's lines have been
    replaced already. Kept, the key's line would stay for ever, with less than nothing unattributed beside it.
    """
    changed: set[date] = set()
    for key_hash, activity in parts.items():
        changed |= _record_key(integration_id, key_hash, activity, account_is_whole)
        _record_reading(integration_id, key_hash, activity, now)
    db.session.execute(
        update(ApiKey)
        .where(ApiKey.integration_id == integration_id, ApiKey.key_hash.in_(parts))
        .values(read_at=now)
        .execution_options(synchronize_session=False)
    )
    recompute_unattributed(integration_id, changed)


def _record_key(integration_id: int, key_hash: str, activity: Activity, account_is_whole: bool) -> set[date]:
    """Replace what a key spent on the days that its reply speaks of; the days that changed."""
    days = activity.days
    if not days:
        return set()
    near = KeyLine.day.between(min(days), max(days))
    stored = lines.stored(KeyLine, integration_id, KeyLine.key_hash == key_hash, near)
    before = _by_identity(line for line in stored if line.day in days)
    after = _by_identity(activity.lines)
    if before and not after and not account_is_whole:
        return set()
    return _exchange(integration_id, key_hash, before, after)


def _record_reading(integration_id: int, key_hash: str, activity: Activity, now: datetime) -> None:
    """Add the days that a key's reply speaks of to those that were read of it, joined with the intervals they touch.

    A day that is not settled yet does not count: read at 00:10 UTC, yesterday may still grow, and if that were the
    last reading of the key, the day would look complete for good.
    """
    days = {day for day in activity.days if settles_at(day) <= now}
    if not days:
        return
    mine = KeyReading.integration_id == integration_id, KeyReading.key_hash == key_hash
    query = select(KeyReading.first_day, KeyReading.last_day).where(*mine)
    before = [Period(first, last) for first, last in db.session.execute(query)]
    after = intervals([*days, *(day for known in before for day in span(known.first, known.last))])
    if after == sorted(before, key=lambda known: known.first):
        return
    db.session.execute(delete(KeyReading).where(*mine))
    own = {"integration_id": integration_id, "key_hash": key_hash}
    lines.execute_many(
        insert(KeyReading), [own | {"first_day": known.first, "last_day": known.last} for known in after]
    )


def recompute_unattributed(integration_id: int, days: Collection[date]) -> None:
    """Work out anew, for these days, what no key accounts for."""
    if not days:
        return
    whole = _by_identity(lines.stored(CostLine, integration_id, CostLine.day.in_(days)))
    spent = lines.stored(KeyLine, integration_id, KeyLine.day.in_(days), KeyLine.key_hash != UNATTRIBUTED)
    parts: dict[Identity, list[BilledLine]] = {}
    for part in spent:
        parts.setdefault(identity(part), []).append(part)
    rest = {name: _rest(whole.get(name), parts.get(name, [])) for name in whole.keys() | parts.keys()}
    own = lines.stored(KeyLine, integration_id, KeyLine.day.in_(days), KeyLine.key_hash == UNATTRIBUTED)
    _exchange(
        integration_id,
        UNATTRIBUTED,
        _by_identity(own),
        {name: line for name, line in rest.items() if line is not None},
    )


def _rest(whole: BilledLine | None, parts: Sequence[BilledLine]) -> BilledLine | None:
    """The whole minus its parts, negative where the parts are more. None where nothing is left."""
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
