"""Which API key spent what: the parts of each cost line by key, and the rest that no key accounts for.

Only the parts are stored. The rest is the line less its parts, worked out when it is asked for (``by_key``). Kept as
rows of its own it was a second copy of every line that no key explains, such as all those before the provider's window.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Subquery,
    case,
    cast,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    type_coerce,
    union_all,
)

from grafient import lines
from grafient.days import ONE_DAY, Period, intervals, last_settled, settles_at, span
from grafient.extensions import db
from grafient.lines import FIGURES, Identity, identity
from grafient.models import UNATTRIBUTED, ApiKey, KeyPart, KeyReading, Line, Model, Series
from grafient.providers import Activity, BilledLine, ListedKey

READ_AFTER_GONE = timedelta(days=31)
"""A key that is no longer listed is still read for so long: its last days may still be in the provider's window."""


def record_keys(integration_id: int, listed: Sequence[ListedKey], now: datetime) -> None:
    """Write which keys there are, in the caller's transaction; the names of those that are gone stay."""
    known = {key.key_hash: key for key in db.session.execute(_keys(integration_id)).scalars()}
    for key in listed:
        row = known.pop(key.key_hash, None)
        if row is None:
            row = ApiKey(integration_id=integration_id, key_hash=key.key_hash)
            db.session.add(row)
        row.name, row.disabled, row.gone_at = key.name, key.disabled, None
        if key.spent is None or key.spent != row.spent:
            row.spent, row.spent_on = key.spent, now.date()
    for row in known.values():
        if row.gone_at is None:
            row.gone_at, row.spent_on = now, now.date()
    db.session.flush()


def to_read(integration_id: int, since: datetime, now: datetime, *, all_of_them: bool = False) -> list[str]:
    """The hashes of the keys whose costs were not read since then, the longest unread first.

    A key that was last used on a day which has been read of it has nothing new to say. For example, one that was used
    on Monday is read on Tuesday, when Monday is settled. On Wednesday the list of keys says the same of it as on
    Tuesday, so it was not used on Tuesday: it is not asked for, and Tuesday counts as read, see
    ``record_unused_days``. ``all_of_them``: those too, because the account's settled days have changed.
    """
    listed_lately = or_(ApiKey.gone_at.is_(None), ApiKey.gone_at > now - READ_AFTER_GONE)
    unread = or_(ApiKey.read_at.is_(None), ApiKey.read_at < since)
    query = _keys(integration_id).where(unread, listed_lately)
    query = query.order_by(ApiKey.read_at.is_not(None), ApiKey.read_at, ApiKey.key_hash)
    keys = db.session.execute(query).scalars()
    return [key.key_hash for key in keys if all_of_them or not _has_been_read(key, now)]


def _has_been_read(key: ApiKey, now: datetime) -> bool:
    if key.read_at is None or key.spent_on is None or (key.spent is None and key.gone_at is None):
        return False
    return min(key.spent_on, last_settled(now)) <= last_settled(key.read_at)


def record_unused_days(integration_id: int, now: datetime) -> None:
    """Note that the keys which need not be read had no usage since they were last used, in the caller's transaction."""
    for key in db.session.execute(_keys(integration_id).where(ApiKey.gone_at.is_(None))).scalars():
        if key.spent_on is not None and _has_been_read(key, now):
            _record_reading(
                integration_id, key.key_hash, Activity.of(key.spent_on + ONE_DAY, last_settled(now), []), now
            )


def _keys(integration_id: int) -> Any:
    return select(ApiKey).where(ApiKey.integration_id == integration_id)


def record(integration_id: int, parts: Mapping[str, Activity], now: datetime, *, account_is_whole: bool) -> None:
    """Write what single keys spent, by their hash, in the caller's transaction. The keys were recorded before.

    ``account_is_whole``: whether the account's own reply in the same sync was a whole one, not a suspicious silence.
    Then a key's empty reply is believed: its only line was corrected away, say, and the account's lines have been
    replaced already. Kept, the key's line would stay for ever, with less than nothing unattributed beside it.
    """
    for key in db.session.execute(_keys(integration_id).where(ApiKey.key_hash.in_(parts))).scalars():
        activity = parts[key.key_hash]
        _record_key(key, activity, account_is_whole)
        _record_reading(integration_id, key.key_hash, activity, now)
        key.read_at = now
    db.session.flush()


def _record_key(key: ApiKey, activity: Activity, account_is_whole: bool) -> None:
    """Replace what a key spent on the days that its reply speaks of."""
    days = activity.days
    if not days:
        return
    near = KeyPart.day.between(min(days), max(days))
    before = _by_identity(line for line in stored(key.id, near) if line.day in days)
    after = _by_identity(activity.lines())
    if before and not after and not account_is_whole:
        return
    gone = [line for name, line in before.items() if after.get(name) != line]
    here = [line for name, line in after.items() if before.get(name) != line]
    if gone or here:
        lines.replace_parts(key.id, lines.ids(key.integration_id, (*gone, *here)), gone, here)


def stored(key_id: int, *conditions: ColumnElement[bool]) -> list[BilledLine]:
    """The parts of lines that a key spent."""
    columns = KeyPart.day, Series.permaslug, Series.endpoint_id, Series.host, Model.name
    query = select(*columns, *(getattr(KeyPart, name) for name in FIGURES))
    query = _with_names(query, KeyPart).where(KeyPart.key_id == key_id, *conditions)
    return [BilledLine(*row) for row in db.session.execute(query)]


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


def by_key(integration_ids: Any, period: Period | None = None, key_hash: str | None = None) -> Subquery:
    """The lines of integrations by API key, for reading: the parts that keys spent, under their hashes, and the rest of
    each line, under ``UNATTRIBUTED``; or of one of these alone.

    The rest is the line less its parts, unknown where one of them is, and less than nothing where they are more. A
    line that keys explain to nothing has none. For each line the rows add up to the whole, exactly.
    """
    part = _parts(integration_ids, period)
    wanted = []
    if key_hash != UNATTRIBUTED:
        parts = select(*part.c)
        wanted.append(parts if key_hash is None else parts.where(part.c.key_hash == key_hash))
    if not key_hash:
        wanted.append(_rest(_whole(integration_ids, period), part))
    rows = union_all(*wanted).subquery("part_or_rest")
    return _with_names(select(*rows.c, *_NAMES), rows.c).subquery("by_key")


_NAMES = Series.permaslug, Series.endpoint_id, Series.host, Model.name.label("model")


def _rest(whole: Subquery, part: Subquery) -> Select[Any]:
    explained = literal(1).label("explained")
    taken = select(*part.c[:3], *(-part.c[name] for name in FIGURES), explained)
    both = union_all(select(*whole.c, literal(0).label("explained")), taken).subquery("whole_and_taken")
    amounts = {name: case((func.count(both.c[name]) == func.count(), func.sum(both.c[name]))) for name in FIGURES}
    some = or_(func.max(both.c.explained) == 0, *(type_coerce(amount, BigInteger) != 0 for amount in amounts.values()))
    hash_ = literal(UNATTRIBUTED, ApiKey.key_hash.type).label("key_hash")
    found = select(
        *both.c[:3], hash_, *(cast(amount, both.c[name].type).label(name) for name, amount in amounts.items())
    )
    return found.group_by(*both.c[:3]).having(some)


def _parts(integration_ids: Any, period: Period | None) -> Subquery:
    columns = ApiKey.integration_id, KeyPart.day, KeyPart.series_id, ApiKey.key_hash
    query = select(*columns, *(getattr(KeyPart, name) for name in FIGURES)).join(ApiKey, ApiKey.id == KeyPart.key_id)
    return _within(query, ApiKey, KeyPart, integration_ids, period).subquery("part")


def _whole(integration_ids: Any, period: Period | None) -> Subquery:
    columns = Line.integration_id, Line.day, Line.series_id
    query = select(*columns, *(getattr(Line, name) for name in FIGURES))
    return _within(query, Line, Line, integration_ids, period).subquery("whole")


def _within(query: Select[Any], owner: Any, table: Any, integration_ids: Any, period: Period | None) -> Select[Any]:
    if period is not None:
        query = query.where(table.day.between(period.first, period.last))
    return query.where(owner.integration_id.in_(integration_ids))


def _with_names(query: Select[Any], table: Any) -> Select[Any]:
    return query.join(Series, Series.id == table.series_id).join(Model, Model.id == Series.model_id)


def _by_identity(found: Iterable[BilledLine]) -> dict[Identity, BilledLine]:
    return {identity(line): line for line in found}
