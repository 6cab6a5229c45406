"""What is so of the data and of credits: what was not read, what does not agree, what runs out.

One cause is one finding. An account whose key was revoked is not read either, and its days will be lost: that is told
by the key's incident, which gets worse, and not by three.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import select

from grafient import reconciliation, status
from grafient.alerts.findings import Finding, Look
from grafient.days import Period, last_due
from grafient.extensions import db, providers
from grafient.models import IS_OPEN, Integration, Restatement, SyncRun
from grafient.reconciliation import VerdictState
from grafient.reports.headline import PACE_DAYS, latest_readings
from grafient.states import AlertKind, Problem

JUST_ASKED = timedelta(minutes=10)
RESTATED_LASTS = timedelta(days=7)
_STALE = timedelta(days=4)
_NEARLY = Decimal("1.1")
"""How far above a sum credits have to be before they are no longer below it, and likewise with days."""


def find(look: Look) -> None:
    """Look at each account that is connected."""
    read = {one.id for one in look.read_daily}
    for key, incident in look.incidents.items():
        is_watched = incident.integration_id is None or incident.integration_id in read
        if not is_watched or (key[0] in look.rules and not look.rules[key[0]].is_on):
            look.quiet.add(key)
    missing = status.missing_soon([one.id for one in look.read_daily if one.last_success_at is not None])
    just_asked = _just_asked(look) if any(_is_overdue(look, one) for one in look.read_daily) else set()
    for one in look.read_daily:
        _find_reading(look, one, missing.get(one.id, []), one.id in just_asked)
    for one in look.connected:
        if one.paused_at is not None:
            for kind in (AlertKind.DIFFERENCE, AlertKind.RESTATED, AlertKind.CREDITS):
                for incident in look.open_of(kind, one.id):
                    look.keep(incident)
    _find_differences(look)
    _find_restated(look)
    _find_credits(look)


def _find_reading(look: Look, one: Integration, missing: Sequence[date], is_just_asked: bool) -> None:
    """Why an account is not read, or soon will not be: the first of these that is so and whose rule is on, and what is
    lost by it.

    One that gives way to another is not over: "is read again" was said of an account whose key had been revoked
    during an outage.
    """
    nothing: tuple[AlertKind | None, dict[str, Any], tuple[str, ...]] = None, {}, ()
    told = (why for why in _why_unread(look, one, is_just_asked) if look.rules[why[0]].is_on)
    kind, facts, marks = next(told, nothing)
    losing = status.alarm_of(one.provider, missing, per_model=one.no_history is None) if missing else None
    if losing is not None and one.last_success_at is not None:
        lost = {"days": losing.days, "first": losing.first.isoformat(), "until": losing.until.isoformat()}
        if kind is None:
            kind, facts, marks = AlertKind.DAYS_LEAVING, {}, ("found",)
        elif look.rules[AlertKind.DAYS_LEAVING].is_on:
            marks = (*marks, "losing")
        facts = {**facts, "losing": lost}
    if kind is not None and look.rules[kind].is_on:
        about = {"label": one.label, "provider": providers[one.provider].name, **facts}
        look.findings.append(Finding(kind, str(one.id), about, marks, integration_id=one.id))
    if look.is_troubled(one) or _is_overdue(look, one):
        look.quiet |= {(other, str(one.id)) for other in _UNREAD if other is not kind}


_UNREAD = (AlertKind.KEY, AlertKind.API_CHANGED, AlertKind.NO_SYNC, AlertKind.DAYS_LEAVING)


def _why_unread(
    look: Look, one: Integration, is_just_asked: bool
) -> Iterator[tuple[AlertKind, dict[str, Any], tuple[str, ...]]]:
    since = one.problem_since.isoformat() if one.problem_since else None
    last_read = one.last_success_at.isoformat() if one.last_success_at else None
    detail = {"since": since, "detail": one.problem_detail or "", "last_read": last_read}
    if one.problem in (Problem.NEEDS_KEY, Problem.KEY_UNREADABLE):
        yield AlertKind.KEY, {**detail, "problem": str(one.problem)}, ("rejected",)
    if one.problem is Problem.API_CHANGED:
        yield AlertKind.API_CHANGED, detail, ("found",)
    if _is_overdue(look, one):
        if not is_just_asked or look.open_of(AlertKind.NO_SYNC, one.id):
            since = (one.last_success_at or one.created_at).isoformat()
            yield AlertKind.NO_SYNC, {**detail, "since": since}, ("found",)
        else:
            look.again_at.append(look.now + JUST_ASKED)
    soon = timedelta(days=look.rules[AlertKind.KEY]["days"])
    if one.key_expires_at is not None and one.key_expires_at < look.now + soon:
        has = one.key_expires_at <= look.now
        facts = {"problem": "expires", "expires": one.key_expires_at.isoformat(), "has_expired": has}
        yield AlertKind.KEY, facts, ("expires",)


def _is_overdue(look: Look, one: Integration) -> bool:
    return (one.last_success_at or one.created_at) < look.now - timedelta(hours=look.rules[AlertKind.NO_SYNC]["hours"])


def _just_asked(look: Look) -> set[int]:
    """Those whose sync was asked for just now: one that was paused for a week is not overdue in the minute in which
    somebody resumes it. One that was told as overdue stays so: asking for it is not reading it."""
    asked = SyncRun.integration_id.in_([one.id for one in look.read_daily]), IS_OPEN
    found = select(SyncRun.integration_id).where(*asked, SyncRun.created_at > look.now - JUST_ASKED)
    return set(db.session.execute(found).scalars())


def _find_differences(look: Look) -> None:
    rule = look.rules[AlertKind.DIFFERENCE]
    if not rule.is_on or not look.connected:
        return
    lately = look.known.period
    for integration_id, verdict in reconciliation.verdicts(look.known).items():
        if verdict.state is not VerdictState.DIFFERS:
            continue
        off, one = verdict.difference_usd, look.by_id[integration_id]
        days = [day.day.isoformat() for day in verdict.differing]
        facts = {
            "label": one.label,
            "provider": providers[one.provider].name,
            "usd": f"{off:f}",
            "days": days[:5],
            "count": len(days),
            "credits": bool(verdict.wrong_spans),
            "first": lately.first.isoformat(),
            "last": lately.last.isoformat(),
        }
        is_more = off > rule["least_usd"]
        stays = ("found",) if off * _NEARLY > rule["least_usd"] else ()
        look.findings.append(
            Finding(
                AlertKind.DIFFERENCE,
                str(integration_id),
                facts,
                ("found",) if is_more else (),
                stays,
                integration_id=integration_id,
            )
        )


def _find_restated(look: Look) -> None:
    """Months that were over when the provider changed them, in the last days. Each sync that did is a step further."""
    rule = look.rules[AlertKind.RESTATED]
    since = look.now - RESTATED_LASTS
    ids = [one.id for one in look.connected if one.last_restated_at is not None and one.last_restated_at >= since]
    if not rule.is_on or not ids:
        return
    changes: dict[tuple[int, date], list[Any]] = defaultdict(list)
    for row in db.session.execute(
        select(
            Restatement.integration_id,
            Restatement.day,
            Restatement.run_id,
            Restatement.changed_at,
            Restatement.usage_before_usd,
            Restatement.usage_after_usd,
        ).where(Restatement.integration_id.in_(ids), Restatement.changed_at >= since)
    ):
        month = row.day.replace(day=1)
        begins = look.begins(AlertKind.RESTATED, look.by_id[row.integration_id])
        if Period.month(month).last < last_due(row.changed_at) and row.changed_at >= begins:
            changes[row.integration_id, month].append(row)
    for (integration_id, month), rows in changes.items():
        one, grew = look.by_id[integration_id], Decimal(0)
        marks = []
        for run_id in sorted({row.run_id for row in rows}):
            mine = [row for row in rows if row.run_id == run_id]
            change = sum(((r.usage_after_usd or 0) - (r.usage_before_usd or 0) for r in mine), Decimal(0))
            grew += change
            if abs(change) > rule["least_usd"]:
                marks.append(f"run {run_id}")
        facts = {
            "label": one.label,
            "provider": providers[one.provider].name,
            "month": month.isoformat(),
            "change_usd": f"{grew:f}",
            "days": len({row.day for row in rows}),
            "at": max(row.changed_at for row in rows).isoformat(),
        }
        if marks:
            subject = f"{integration_id}:{month:%Y-%m}"
            look.findings.append(Finding(AlertKind.RESTATED, subject, facts, marks, integration_id=integration_id))


def _find_credits(look: Look) -> None:
    rule = look.rules[AlertKind.CREDITS]
    if not rule.is_on:
        return
    by_age = sorted(look.read_daily, key=lambda one: -one.id)  # by name, one that is renamed would take its place
    accounts = {(one.provider, one.account_ref or one.id): one for one in by_age}
    asked = {one.id: one for one in accounts.values()}
    told = {row.integration_id: row for row in latest_readings(list(asked))} if asked else {}
    for one in asked.values():
        reading = told.get(one.id)
        if reading is None or reading.bought_usd is None:
            look.keeps.add((AlertKind.CREDITS, str(one.id)))
            continue
        if not (reading.bought_usd or reading.lifetime_usd):
            continue  # it never had any, such as an account with keys of its own at each host
        left = reading.bought_usd - reading.lifetime_usd
        each_day = pace(look.settled[one.id], look.today)
        days = days_left(left, each_day)
        marks, stays = credit_marks(rule.settings, left, days)
        facts = credit_facts(one, left, each_day, days, reading.read_at)
        look.findings.append(Finding(AlertKind.CREDITS, str(one.id), facts, marks, stays, integration_id=one.id))


def credit_facts(
    one: Integration, left: Decimal, each_day: Decimal | None, days: Decimal | None, read_at: datetime
) -> dict[str, Any]:
    """What there is to say of credits: what is left, in USD and in days at so many USD a day."""
    return {
        "label": one.label,
        "provider": providers[one.provider].name,
        "left_usd": f"{left:f}",
        "days": int(days) if days is not None and days.is_finite() else None,
        "pace_usd": f"{each_day:.12f}" if each_day else None,
        "as_of": read_at.isoformat(),
    }


def credit_marks(
    settings: Mapping[str, Any], left: Decimal, days: Decimal | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What credits are below, and what they are so nearly below that it stays so; and so does what is unknown."""
    reached, nearly = [], []
    for mark, now, least in (
        ("days", days, settings["days"]),
        ("usd", left, settings["left_usd"]),
        ("gone", left, Decimal(0)),
    ):
        if least is not None:
            reached += [mark] if now is not None and (now < least or (mark == "gone" and now <= 0)) else []
            nearly += [mark] if now is None or now < least * _NEARLY or (mark == "gone" and now <= 0) else []
    return tuple(reached), tuple(nearly)


def days_left(left: Decimal, each_day: Decimal | None) -> Decimal | None:
    """How many days what is left lasts at so many USD a day: for ever if nothing is spent, None if that is unknown."""
    if each_day is None:
        return None
    return max(Decimal(0), left / each_day) if each_day else Decimal("Infinity")


def pace(settled: Mapping[date, Decimal], today: date) -> Decimal | None:
    """USD a day over the last days that are settled, if all are and none is long ago, else None."""
    newest = max((day for day in settled if day < today), default=None)
    if newest is None or today - newest > _STALE:
        return None
    lately = Period(newest - timedelta(days=PACE_DAYS - 1), newest)
    if not all(day in settled for day in lately):
        return None
    return max(Decimal(0), sum((settled[day] for day in lately), Decimal(0))) / PACE_DAYS
