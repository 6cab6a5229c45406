"""The ledger equals what the provider last said, whatever it said before."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import delete, select

from grafient import ledger, lines
from grafient.extensions import db
from grafient.ledger import compare
from grafient.models import (
    CostLine,
    CoveredDay,
    DayTotal,
    Integration,
    KeyPart,
    Line,
    ModelTotal,
    Restatement,
    SyncRun,
    Workspace,
)
from grafient.models.columns import usd_sum
from grafient.providers import Activity, BilledLine, DayReply
from grafient.states import DayState, Source
from tests.syncing import by_keys

FIRST = date(2026, 6, 1)
LAST = date(2026, 6, 6)
NOW = datetime(2026, 6, 7, 6, 0, tzinfo=UTC)

line = st.builds(
    BilledLine,
    day=st.dates(FIRST, LAST),
    permaslug=st.sampled_from(["a", "b"]),
    endpoint_id=st.sampled_from(["", "1"]),
    host=st.just("h"),
    model=st.just("m"),
    usage_usd=st.decimals("-5", "50", places=12),
    byok_usd=st.none() | st.decimals("0", "5", places=12),
    requests=st.none() | st.integers(0, 2**59),
    cached_tokens=st.none() | st.integers(0, 9),
)
replies = st.lists(line, max_size=12, unique_by=lambda item: (item.day, item.permaslug, item.endpoint_id))


@pytest.fixture
def run(workspace: Workspace) -> SyncRun:
    integration = Integration(workspace_id=workspace.id, provider="openrouter", label="one", key_hint="abcd")
    db.session.add(integration)
    db.session.flush()
    run = SyncRun(integration_id=integration.id, trigger="manual")
    db.session.add(run)
    db.session.commit()
    return run


def stored(run: SyncRun) -> set[BilledLine]:
    return set(lines.stored(run.integration_id, CostLine.day.between(FIRST, LAST)))


def money(found: set[BilledLine] | list[BilledLine]) -> dict[tuple[date, str, str], tuple[Decimal, Decimal | None]]:
    return {(one.day, one.permaslug, one.endpoint_id): (one.usage_usd, one.byok_usd) for one in found}


@settings(max_examples=60)
@given(history=st.lists(replies, min_size=1, max_size=5))
def test_after_any_replies_the_ledger_is_the_last_that_said_something(
    run: SyncRun, history: list[list[BilledLine]]
) -> None:
    for table in (Line, KeyPart, DayTotal, ModelTotal, CoveredDay, Restatement):
        db.session.execute(delete(table))
    said: list[BilledLine] = []
    for reply in history:
        if reply or not said:
            said = reply
        for _ in range(2):
            ledger.record(run.integration_id, run.id, Activity.of(FIRST, LAST, reply), NOW)
    have = money(stored(run))
    want = money(said)
    assert {key: usage for key, (usage, _) in have.items()} == {key: usage for key, (usage, _) in want.items()}
    assert all(have[key][1] == byok for key, (_, byok) in want.items() if byok is not None)
    _nothing_is_lost(run, history)
    assert set(by_keys(run.integration_id)) == stored(run), "no key is known: all of it is unattributed"


def _nothing_is_lost(run: SyncRun, history: list[list[BilledLine]]) -> None:
    """The first reply's total, plus every restatement, is today's total."""
    sums = select(usd_sum(Restatement.usage_before_usd), usd_sum(Restatement.usage_after_usd))
    before, after = (amount or Decimal(0) for amount in db.session.execute(sums).one())
    first = sum((one.usage_usd for one in history[0]), Decimal(0))
    assert first - before + after == sum((one.usage_usd for one in stored(run)), Decimal(0))


@given(reply=replies)
def test_the_same_reply_again_changes_nothing(reply: list[BilledLine]) -> None:
    activity = Activity.of(FIRST, LAST, reply)
    first = compare([], {}, activity, NOW)
    assert {*first.added} == {*reply}
    assert first.restated == []
    second = compare(reply, first.states, activity, NOW)
    assert (second.added, second.changed, second.removed, second.restated, second.states) == ([], [], [], [], {})


def test_what_becomes_known_is_added_and_is_no_restatement() -> None:
    old = BilledLine(FIRST, "a", "", "h", "m", Decimal(1), requests=5)
    new = replace(old, cached_tokens=7)
    changes = compare([old], {FIRST: DayState.FINAL}, Activity.of(FIRST, FIRST, [new]), NOW)
    assert changes.changed == [(old, new)]
    assert (changes.restated, changes.states) == ([], {})


def test_what_is_no_longer_told_stays_known_unless_the_rest_changed() -> None:
    old = BilledLine(FIRST, "a", "", "h", "m", Decimal(1), requests=5, cached_tokens=7)
    fewer = replace(old, cached_tokens=None)
    assert compare([old], {FIRST: DayState.FINAL}, Activity.of(FIRST, FIRST, [fewer]), NOW).changed == []
    other = replace(fewer, usage_usd=Decimal(2))
    assert compare([old], {FIRST: DayState.FINAL}, Activity.of(FIRST, FIRST, [other]), NOW).changed == [(old, other)]


def test_days_before_the_window_are_left_alone(run: SyncRun, context: Flask) -> None:
    old = BilledLine(FIRST - timedelta(days=60), "a", "", "h", "m", Decimal(9))
    ledger.record(run.integration_id, run.id, Activity.of(old.day, old.day, [old]), NOW)
    new = BilledLine(LAST, "a", "", "h", "m", Decimal(1))
    ledger.record(run.integration_id, run.id, Activity.of(FIRST, LAST, [new]), NOW)
    total = db.session.execute(select(usd_sum(CostLine.usage_usd))).scalar_one()
    assert total == Decimal(10)


DAY = date(2026, 6, 3)
EARLY = datetime(2026, 6, 4, 0, 10, tzinfo=UTC)


def record(run: SyncRun, now: datetime, *found: BilledLine, source: Source = Source.ACTIVITY) -> ledger.Recorded:
    """Write a reply about DAY alone."""
    return ledger.record(run.integration_id, run.id, Activity.of(DAY, DAY, found), now, source)


def states() -> dict[date, tuple[str, str]]:
    rows = db.session.execute(select(CoveredDay.day, CoveredDay.state, CoveredDay.source))
    return {row[0]: (row[1], row[2]) for row in rows}


def test_provisional_until_the_provider_has_settled_the_day(run: SyncRun) -> None:
    half, whole = (
        BilledLine(DAY, "p", "e", "h", "m", Decimal("1.5")),
        BilledLine(DAY, "p", "e", "h", "m", Decimal("2.5")),
    )
    record(run, EARLY, half)
    assert states() == {DAY: ("provisional", "activity")}
    recorded = record(run, EARLY + timedelta(hours=6), whole)
    assert (recorded.lines_changed, recorded.days_restated) == (0, 0), "nothing that was settled has changed"
    assert states() == {DAY: ("final", "activity")}
    recorded = record(run, EARLY + timedelta(days=1), half)
    assert (recorded.lines_changed, recorded.days_restated) == (1, 1)
    assert states() == {DAY: ("restated", "activity")}
    assert stored(run) == {half}


@pytest.mark.parametrize("found", [[], [BilledLine(DAY, "p", "e", "h", "m", Decimal(2))]])
def test_what_was_provisional_by_analytics_is_replaced_and_was_not_restated(
    run: SyncRun, found: list[BilledLine]
) -> None:
    other = BilledLine(DAY + timedelta(days=1), "p", "e", "h", "m", Decimal(9))
    record(run, EARLY - timedelta(hours=9), BilledLine(DAY, "p", "", "", "m", Decimal("0.7")), source=Source.ANALYTICS)
    assert states() == {DAY: ("provisional", Source.ANALYTICS)}
    reply = Activity.of(DAY, other.day, [*found, other])
    recorded = ledger.record(run.integration_id, run.id, reply, NOW)
    assert (recorded.lines_changed, recorded.lines_removed, recorded.days_restated) == (0, 0, 0)
    assert states()[DAY] == ("final" if found else "no_usage", "activity")
    assert stored(run) == {*found, other}
    assert db.session.execute(select(Restatement)).first() is None


def test_analytics_speaks_only_of_days_that_are_not_settled(run: SyncRun) -> None:
    settled, gap, open_day = FIRST, FIRST + timedelta(days=1), NOW.date()
    mine = BilledLine(settled, "p", "e", "h", "m", Decimal(5))
    ledger.record(run.integration_id, run.id, Activity.of(settled, settled, [mine]), NOW)
    told = [BilledLine(day, "p", "", "", "m", Decimal(7)) for day in (settled, gap, open_day)]
    recorded = ledger.record(run.integration_id, run.id, Activity.of(FIRST, open_day, told), NOW, Source.ANALYTICS)
    assert (recorded.lines_added, recorded.days_restated) == (2, 0)
    assert set(lines.stored(run.integration_id)) == {mine, *told[1:]}
    found = states()
    assert (found[settled], found[gap]) == (("final", "activity"), ("final", Source.ANALYTICS))
    assert found[open_day] == ("provisional", Source.ANALYTICS)
    assert found[LAST] == ("no_usage", Source.ANALYTICS)


def test_what_analytics_has_settled_it_does_not_change(run: SyncRun) -> None:
    first = BilledLine(DAY, "p", "", "", "m", Decimal(1))
    record(run, NOW, first, source=Source.ANALYTICS)
    recorded = record(run, NOW, replace(first, usage_usd=Decimal(2)), source=Source.ANALYTICS)
    assert (recorded.lines_changed, recorded.days_restated, stored(run)) == (0, 0, {first})


def test_activity_that_corrects_what_analytics_has_settled_restates_it(run: SyncRun) -> None:
    exact = BilledLine(DAY, "p", "e", "h", "m", Decimal("1.0000001"))
    record(run, NOW, BilledLine(DAY, "p", "", "", "m", Decimal(1)), source=Source.ANALYTICS)
    assert record(run, NOW, exact).days_restated == 1
    assert states() == {DAY: ("restated", "activity")}
    assert stored(run) == {exact}


def test_the_silence_of_analytics_erases_nothing(run: SyncRun) -> None:
    half = BilledLine(DAY, "p", "", "", "m", Decimal(1))
    record(run, EARLY - timedelta(hours=9), half, source=Source.ANALYTICS)
    assert record(run, NOW, source=Source.ANALYTICS).silent
    assert (states(), stored(run)) == ({DAY: ("provisional", Source.ANALYTICS)}, {half})


def test_what_is_called_by_its_permaslug_gets_the_plainest_of_its_names(run: SyncRun) -> None:
    names = ["vendor/model:free", "vendor/model-long", "vendor/model"]
    record(
        run, NOW, *(BilledLine(DAY, "slug", str(number), "h", name, Decimal(1)) for number, name in enumerate(names))
    )
    known = ledger.model_names(run.integration_id)
    assert known == {"slug": "vendor/model"}
    told = [
        BilledLine(DAY, "slug", "", "", "slug", Decimal(1)),
        BilledLine(DAY, "unknown", "", "", "unknown", Decimal(1)),
    ]
    renamed = ledger.renamed(Activity.of(DAY, DAY, told), lambda: known)
    assert [line.model for line in renamed.lines()] == ["vendor/model", "unknown"]


def test_a_day_that_is_restated_again_says_when_and_by_which_source(run: SyncRun) -> None:
    first = BilledLine(DAY, "p", "e", "h", "m", Decimal(1))
    for days, usd in ((0, 1), (1, 2), (2, 3)):
        record(run, NOW + timedelta(days=days), replace(first, usage_usd=Decimal(usd)))
    changed_at, state = db.session.execute(select(CoveredDay.changed_at, CoveredDay.state)).one()
    assert (changed_at, state) == (NOW + timedelta(days=2), "restated")
    record(run, NOW + timedelta(days=3), replace(first, usage_usd=Decimal(3)))
    assert db.session.execute(select(CoveredDay.changed_at)).scalar_one() == NOW + timedelta(days=2), "nothing changed"


def counted(*found: BilledLine, digest: bytes | None, reads: list[bytes | None]) -> Activity:
    """A reply about DAY that notes when it is read."""

    def read() -> list[BilledLine]:
        reads.append(digest)
        return list(found)

    return Activity(DAY, DAY, {DAY: DayReply(len(found), read, digest)})


def test_a_day_that_is_said_to_be_what_it_was_is_not_read_again(run: SyncRun) -> None:
    half, whole = (BilledLine(DAY, "p", "e", "h", "m", Decimal(amount)) for amount in (1, 2))
    reads: list[bytes | None] = []
    ledger.record(run.integration_id, run.id, counted(half, digest=b"1", reads=reads), EARLY)
    assert (reads, states()) == ([b"1"], {DAY: ("provisional", "activity")})
    reads.clear()
    found = ledger.record(run.integration_id, run.id, counted(half, digest=b"1", reads=reads), NOW)
    assert states() == {DAY: ("final", "activity")}, "the same, and settled now"
    assert (found.days_settled, found.settled_usd) == (1, Decimal(1))
    reads.clear()
    for _ in range(2):
        found = ledger.record(run.integration_id, run.id, counted(half, digest=b"1", reads=reads), NOW)
    assert (reads, found.lines_changed) == ([], 0)
    found = ledger.record(run.integration_id, run.id, counted(whole, digest=b"2", reads=reads), NOW)
    assert (reads, found.lines_changed, stored(run)) == ([b"2"], 1, {whole})
    reads.clear()
    ledger.record(run.integration_id, run.id, counted(half, digest=b"1", reads=reads), NOW)
    assert (reads, stored(run)) == ([b"1"], {half}), "what was said before last is read again"


def test_a_reply_whose_digest_nobody_worked_out_is_always_read(run: SyncRun) -> None:
    reads: list[bytes | None] = []
    for _ in range(2):
        ledger.record(
            run.integration_id,
            run.id,
            counted(BilledLine(DAY, "p", "e", "h", "m", Decimal(1)), digest=None, reads=reads),
            NOW,
        )
    assert reads[0] is reads[-1] is None
    assert len(reads) >= 2


def test_a_day_without_lines_is_the_same_only_as_one_without(run: SyncRun) -> None:
    line = BilledLine(DAY, "p", "e", "h", "m", Decimal(1))
    other = BilledLine(DAY + timedelta(days=1), "p", "e", "h", "m", Decimal(1))
    ledger.record(run.integration_id, run.id, Activity.of(DAY, other.day, [other]), NOW)
    assert states()[DAY] == ("no_usage", "activity")
    ledger.record(run.integration_id, run.id, Activity.of(DAY, other.day, [line, other]), NOW)
    assert (states()[DAY], stored(run)) == (("restated", "activity"), {line, other})
    ledger.record(run.integration_id, run.id, Activity.of(DAY, other.day, [other]), NOW)
    assert stored(run) == {other}, "believed, since the reply has lines of another day"


def test_a_reply_that_speaks_of_no_day_changes_nothing(run: SyncRun) -> None:
    """Its Date header is old, so that its silence means nothing, and it has no lines."""
    record(run, NOW, BilledLine(DAY, "p", "e", "h", "m", Decimal(5)))
    empty = ledger.record(run.integration_id, run.id, Activity.of(DAY + timedelta(days=9), DAY, []), NOW)
    assert (empty.silent, empty.lines_removed, empty.days_settled) == (False, 0, 0)
    assert states()[DAY] == ("final", "activity")


def test_lines_of_settled_days_are_counted_by_what_became_of_them(run: SyncRun) -> None:
    gone, grown, same = (BilledLine(DAY, slug, "e", "h", "m", Decimal(2)) for slug in ("a", "b", "c"))
    record(run, NOW, gone, grown, same)
    found = record(
        run, NOW, replace(grown, usage_usd=Decimal(5)), same, BilledLine(DAY, "d", "e", "h", "m", Decimal(1))
    )
    assert (found.lines_added, found.lines_changed, found.lines_removed, found.days_restated) == (1, 1, 1, 1)
    assert (found.restated_usd, found.days_settled, found.settled_usd) == (Decimal(2), 0, Decimal(0))
