"""Which API key spent what: the parts of each cost line by key, and the rest that no key accounts for.

Only the parts are stored. The rest is the line less its parts, worked out when it is asked for (``by_key``). Kept as
rows of its own it was a second copy of every line that no key explains, such as all those before the provider's window.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Subquery,
    bindparam,
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


def record_keys(
    integration_id: int, listed: Sequence[ListedKey], since: datetime, now: datetime, *, all_of_them: bool = False
) -> list[str]:
    """Write which keys there are, in the caller's transaction; the names of those that are gone stay. Returns the
    hashes of the keys whose costs are to be read, the longest unread first: not those that were read ``since`` then.

    A key that was last used on a day which has been read of it has nothing new to say. For example, one that was used
    on Monday is read on Tuesday, when Monday is settled. On Wednesday the list of keys says the same of it as on
    Tuesday, so it was not used on Tuesday: it is not asked for, and Tuesday counts as read. ``all_of_them``: those too,
    because the account's settled days have changed.
    """
    known = {key.key_hash: key for key in db.session.execute(_KEYS, {"of": integration_id}).scalars()}
    gone = set(known) - {key.key_hash for key in listed}
    for key in listed:
        row = known.get(key.key_hash)
        if row is None:
            row = known[key.key_hash] = ApiKey(integration_id=integration_id, key_hash=key.key_hash)
            db.session.add(row)
        row.name, row.disabled, row.gone_at = key.name, key.disabled, None
        row.limit_usd, row.limit_left_usd = key.limit_usd, key.limit_left_usd
        row.limit_reset = None if key.limit_usd is None else key.limit_reset
        row.limit_read_at = None if key.limit_usd is None else now
        if key.spent is None or key.spent != row.spent:
            row.spent, row.spent_on = key.spent, now.date()
    for name in gone:
        if known[name].gone_at is None:
            known[name].gone_at, known[name].spent_on = now, now.date()
    if db.session.new:
        db.session.flush()
    _record_unused_days(integration_id, known.values(), now)
    unread = [
        key
        for key in known.values()
        if (key.read_at is None or key.read_at < since)
        and (key.gone_at is None or key.gone_at > now - READ_AFTER_GONE)
        and (all_of_them or not _has_been_read(key, now))
    ]
    return [key.key_hash for key in sorted(unread, key=_longest_unread_first)]


def _longest_unread_first(key: ApiKey) -> tuple[bool, float, str]:
    return key.read_at is not None, key.read_at.timestamp() if key.read_at else 0.0, key.key_hash


def _has_been_read(key: ApiKey, now: datetime) -> bool:
    if key.read_at is None or key.spent_on is None or (key.spent is None and key.gone_at is None):
        return False
    return min(key.spent_on, last_settled(now)) <= last_settled(key.read_at)


def _record_unused_days(integration_id: int, keys: Iterable[ApiKey], now: datetime) -> None:
    """Note that the keys which need not be read had no usage since they were last used, in the caller's transaction."""
    unused = {
        key.key_hash: Activity.of(key.spent_on + ONE_DAY, last_settled(now), [])
        for key in keys
        if key.gone_at is None and key.spent_on is not None and _has_been_read(key, now)
    }
    _record_readings(integration_id, unused, now)


_KEYS = select(ApiKey).where(ApiKey.integration_id == bindparam("of"))


def record(integration_id: int, parts: Mapping[str, Activity], now: datetime, *, account_is_whole: bool) -> None:
    """Write what single keys spent, by their hash, in the caller's transaction. The keys were recorded before.

    ``account_is_whole``: whether the account's own reply in the same sync was a whole one, not a suspicious silence.
    Then a key's empty reply is believed: its only line was corrected away, say, and the account's lines have been
    replaced already. Kept, the key's line would stay for ever, with less than nothing unattributed beside it.
    """
    for key in db.session.execute(_KEYS.where(ApiKey.key_hash.in_(parts)), {"of": integration_id}).scalars():
        _record_key(key, parts[key.key_hash], account_is_whole)
        key.read_at = now
    _record_readings(integration_id, parts, now)
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
        numbers = lines.ids(key.integration_id, (*gone, *here))
        lines.replace_parts(key.id, numbers, gone, lines.rows(key.id, numbers, here))


def stored(key_id: int, *conditions: ColumnElement[bool]) -> list[BilledLine]:
    """The parts of lines that a key spent."""
    columns = KeyPart.day, Series.permaslug, Series.endpoint_id, Series.host, Model.name
    query = select(*columns, *(getattr(KeyPart, name) for name in FIGURES))
    query = _with_names(query, KeyPart).where(KeyPart.key_id == key_id, *conditions)
    return [BilledLine(*row) for row in db.session.execute(query)]


def _record_readings(integration_id: int, parts: Mapping[str, Activity], now: datetime) -> None:
    """Add the days that replies about keys speak of to those that were read of them, joined with the intervals they
    touch.

    A day that is not settled yet does not count: read at 00:10 UTC, yesterday may still grow, and if that were the
    last reading of the key, the day would look complete for good.
    """
    found = {name: {day for day in part.days if settles_at(day) <= now} for name, part in parts.items()}
    found = {name: days for name, days in found.items() if days}
    if not found:
        return
    before: dict[str, list[Period]] = {name: [] for name in found}
    mine = KeyReading.integration_id == integration_id, KeyReading.key_hash.in_(found)
    query = select(KeyReading.key_hash, KeyReading.first_day, KeyReading.last_day).where(*mine)
    for name, first, last in db.session.execute(query.order_by(KeyReading.first_day)):
        before[name].append(Period(first, last))
    after = {
        name: intervals([*days, *(day for known in before[name] for day in span(known.first, known.last))])
        for name, days in found.items()
    }
    changed = [name for name in found if after[name] != before[name]]
    if not changed:
        return
    mine = KeyReading.integration_id == integration_id, KeyReading.key_hash.in_(changed)
    db.session.execute(delete(KeyReading).where(*mine).execution_options(synchronize_session=False))
    rows = [
        {"integration_id": integration_id, "key_hash": name, "first_day": known.first, "last_day": known.last}
        for name in changed
        for known in after[name]
    ]
    lines.execute_many(insert(KeyReading), rows)


def by_key(
    integration_ids: Any, period: Period | None = None, key_hashes: Collection[str] = (), series: Any = None
) -> Subquery:
    """The lines of integrations by API key, for reading: the parts that keys spent, under their hashes, and the rest of
    each line, under ``UNATTRIBUTED``; or of some of these alone. ``series``: a select of the ids of series, to have
    the lines of these only.

    The rest is the line less its parts, unknown where one of them is, and less than nothing where they are more. A
    line that keys explain to nothing has none. For each line the rows add up to the whole, exactly.
    """
    part = _parts(integration_ids, period, series)
    wanted = []
    named = set(key_hashes) - {UNATTRIBUTED}
    if named or not key_hashes:
        parts = select(*part.c)
        wanted.append(parts.where(part.c.key_hash.in_(named)) if named else parts)
    if not key_hashes or UNATTRIBUTED in key_hashes:
        wanted.append(_rest(_whole(integration_ids, period, series), part))
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


def _parts(integration_ids: Any, period: Period | None, series: Any) -> Subquery:
    columns = ApiKey.integration_id, KeyPart.day, KeyPart.series_id, ApiKey.key_hash
    query = select(*columns, *(getattr(KeyPart, name) for name in FIGURES)).join(ApiKey, ApiKey.id == KeyPart.key_id)
    return _within(query, ApiKey, KeyPart, integration_ids, period, series).subquery("part")


def _whole(integration_ids: Any, period: Period | None, series: Any) -> Subquery:
    columns = Line.integration_id, Line.day, Line.series_id
    query = select(*columns, *(getattr(Line, name) for name in FIGURES))
    return _within(query, Line, Line, integration_ids, period, series).subquery("whole")


def _within(
    query: Select[Any], owner: Any, table: Any, integration_ids: Any, period: Period | None, series: Any
) -> Select[Any]:
    if series is not None:
        query = query.where(table.series_id.in_(series))
    if period is not None:
        query = query.where(table.day.between(period.first, period.last))
    return query.where(owner.integration_id.in_(integration_ids))


def _with_names(query: Select[Any], table: Any) -> Select[Any]:
    return query.join(Series, Series.id == table.series_id).join(Model, Model.id == Series.model_id)


def _by_identity(found: Iterable[BilledLine]) -> dict[Identity, BilledLine]:
    return {identity(line): line for line in found}
