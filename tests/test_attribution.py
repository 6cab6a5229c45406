"""Which key spent what: the parts and the rest are the whole, whatever happens to either."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import delete, select, update

from grafient import attribution, ledger
from grafient.days import Period
from grafient.extensions import db
from grafient.models import (
    ApiKey,
    CoveredDay,
    DayTotal,
    Integration,
    KeyPart,
    KeyReading,
    Line,
    ModelTotal,
    Restatement,
    SyncRun,
    Workspace,
    utc_now,
)
from grafient.providers import Activity, BilledLine, ListedKey, Unreachable
from grafient.providers.openrouter import OpenRouterReader, _Pace
from grafient.sandbox import NewRow, Sandbox
from tests.syncing import (
    NOON,
    a_day,
    again,
    at,
    by_day,
    by_key,
    by_keys,
    connect,
    days,
    last_run,
    on_sqlite,
    parts_add_up,
    run_due,
    spent_by,
    synced,
    window,
    with_the_year,
)


@pytest.fixture(autouse=True)
def _at_noon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("grafient.providers.openrouter.calls._jitter", lambda state: 0.0)
    with at():
        yield


def keys() -> dict[str, ApiKey]:
    return {key.name: key for key in db.session.execute(select(ApiKey)).scalars()}


def keys_asked(sandbox: Sandbox) -> list[str]:
    """The hash of each key whose costs were asked for."""
    return [hash_ for request in sandbox.requests() if (hash_ := request.query.get("api_key_hash"))]


TRIAL = "Trial 2026-11-21"
"""A key of lively's: it exists from then on for 19 days, and spends on the first 18 of them."""
TRIAL_DELETED = datetime(2026, 12, 10, tzinfo=UTC)


class TestSyncs:
    def test_each_key_has_what_it_spent_and_the_rest_is_unattributed(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        integration = synced(workspace, sandbox)
        spent = spent_by(sandbox, "lively", *window(sandbox))
        gone = spent.pop("Trial 2026-10-24")
        for name, by_its_days in spent.items():
            assert by_key(integration, name) == by_its_days, name
        today = sandbox.today
        assert by_key(integration, "") == {**gone, today: by_day(integration)[today]}
        assert parts_add_up(integration.id)
        assert set(keys()) == {key.name for key in sandbox.account("lively").keys(today)}
        assert {key.read_at is not None for key in keys().values()} == {True}

    @on_sqlite
    def test_the_days_before_the_window_are_unattributed(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = synced(with_the_year(workspace), sandbox)
        assert parts_add_up(integration.id)
        before = window(sandbox)[0] - timedelta(days=1)
        unattributed = {day: usage for day, usage in by_key(integration, "").items() if day <= before}
        assert unattributed == {day: usage for day, usage in by_day(integration).items() if day <= before and usage}

    @on_sqlite
    @pytest.mark.parametrize("name", ["hostile", "byok", "free", "organization", "fewer-fields", "empty"])
    def test_the_parts_are_the_whole_for_any_account(
        self, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setattr(_Pace, "wait", lambda self: None)
        integration = synced(workspace, sandbox, name)
        again(integration)
        assert parts_add_up(integration.id)
        assert not any(by_key(integration, "").get(day) for day in days(NOON.date() - timedelta(7), window(sandbox)[1]))

    def test_what_is_restated_is_restated_for_its_keys_too(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = synced(workspace, sandbox)
        day = a_day(sandbox)
        sandbox.restate("lively", day, Decimal("1.25"))
        sandbox.remove_row("lively", a_day(sandbox, ago=8), 0)
        sandbox.drop_day("lively", a_day(sandbox, ago=11))
        sandbox.add_row("lively", day, NewRow(model="vendor/late", usage=Decimal(3), key="Staging"))
        again(integration)
        assert parts_add_up(integration.id)
        spent = spent_by(sandbox, "lively", *window(sandbox))
        for name in ("Production API", "Staging", "Nightly batch"):
            assert by_key(integration, name) == spent[name]

    def test_a_key_that_was_deleted_keeps_its_name_and_its_last_days_are_read(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        with at(TRIAL_DELETED - timedelta(hours=36)):
            integration = synced(workspace, sandbox)
            trial = keys()[TRIAL]
            assert trial.gone_at is None
            known = by_key(integration, TRIAL)
            first = window(sandbox)[0]
        with at(TRIAL_DELETED + timedelta(days=2)):
            again(integration)
            assert keys()[TRIAL].gone_at is not None
            spent = spent_by(sandbox, "lively", first, window(sandbox)[1])[TRIAL]
            assert by_key(integration, TRIAL) == spent
            assert len(spent) > len(known) > 0, "it has spent after it was read last"
            assert parts_add_up(integration.id)
            assert by_key(integration, "").get(max(spent)) is None
        with at(TRIAL_DELETED + timedelta(days=2) + attribution.READ_AFTER_GONE + timedelta(days=1)):
            sandbox.clear_requests()
            again(integration)
            asked = keys_asked(sandbox)
            assert trial.key_hash not in asked
            assert keys()["Staging"].key_hash in asked
            assert by_key(integration, TRIAL) == spent
            assert parts_add_up(integration.id)

    def test_keys_that_do_not_answer_leave_the_costs_whole_and_are_read_later(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        integration = synced(workspace, sandbox)
        day = a_day(sandbox)
        sandbox.restate("lively", day, Decimal("0.5"))
        sandbox.fault("lively", "keys-down")
        run = again(integration)
        assert (run.status, integration.problem) == ("due", "fault")
        assert by_key(integration, "")[day] < 0, "the parts are more than what is left of the whole"
        assert parts_add_up(integration.id)
        sandbox.fault("lively", None)
        again(integration)
        assert parts_add_up(integration.id)
        assert by_key(integration, "Staging") == spent_by(sandbox, "lively", *window(sandbox))["Staging"]

    @on_sqlite
    def test_an_account_without_keys_to_see_is_unattributed_and_says_why(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        integration = synced(workspace, sandbox, "no-keys")
        assert "API keys" in (integration.no_keys or "")
        assert (last_run(integration).status, integration.problem, keys()) == ("done", None, {})
        assert by_key(integration, "") == {day: usage for day, usage in by_day(integration).items() if usage}

    @on_sqlite
    def test_keys_that_can_be_seen_no_more_keep_what_is_known_of_them(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        integration = synced(workspace, sandbox)
        known = by_key(integration, "Staging")
        sandbox.fault("lively", "no-keys")
        again(integration)
        assert by_key(integration, "Staging") == known
        assert keys()["Staging"].gone_at is None

    @on_sqlite
    def test_without_workspaces_those_of_the_default_one_are_known(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        integration = synced(workspace, sandbox, "no-workspaces")
        assert "Nightly batch" not in keys()
        assert parts_add_up(integration.id)
        batch = spent_by(sandbox, "no-workspaces", *window(sandbox))["Nightly batch"]
        assert by_key(integration, "")[max(batch)] == batch[max(batch)]

    @on_sqlite
    def test_a_key_that_is_gone_while_it_is_read_holds_nothing_up(
        self, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        integration = connect(workspace, sandbox)
        sandbox.fault("lively", "inference", path="/activity")
        activity = OpenRouterReader.activity

        def first_without_fault(self: OpenRouterReader) -> Activity:
            sandbox.fault("lively", None)
            read = activity(self)
            sandbox.fault("lively", "inference", times=1, path="/activity")
            return read

        monkeypatch.setattr(OpenRouterReader, "activity", first_without_fault)
        assert run_due() == 1
        assert (last_run(integration).status, integration.problem) == ("done", None)
        assert [key.read_at is None for key in keys().values()].count(True) == 1
        assert parts_add_up(integration.id)

    def test_what_one_run_has_read_its_next_attempt_does_not_ask_again(
        self, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = OpenRouterReader.key_activity
        integration = connect(workspace, sandbox)

        def until_the_third(self: OpenRouterReader, key_hash: str) -> Activity:
            if len(keys_asked(sandbox)) == 2:
                raise Unreachable("away")
            return read(self, key_hash)

        with monkeypatch.context() as patch:
            patch.setattr(OpenRouterReader, "key_activity", until_the_third)
            assert run_due() == 1
        run = last_run(integration)
        assert (run.status, integration.problem) == ("due", "fault")
        assert parts_add_up(integration.id)
        db.session.execute(update(SyncRun).values(next_attempt_at=utc_now()))
        db.session.commit()
        assert run_due() == 1
        asked = keys_asked(sandbox)
        assert sorted(asked) == sorted(key.key_hash for key in keys().values()), "each once"
        assert last_run(integration).status == "done"
        sandbox.clear_requests()
        again(integration)
        assert keys_asked(sandbox) == [], "no day was settled since"

    @on_sqlite
    def test_500_keys_are_read_in_parts_and_a_worker_that_dies_loses_one_part(
        self, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_Pace, "wait", lambda self: None)
        monkeypatch.setattr("grafient.sync.stages.COMMIT_SECONDS", 0.2)
        integration = connect(workspace, sandbox, "many-keys")
        read = OpenRouterReader.key_activity

        def dying(self: OpenRouterReader, key_hash: str) -> Any:
            if len(keys_asked(sandbox)) == 200:
                raise KeyboardInterrupt
            return read(self, key_hash)

        with monkeypatch.context() as patch:
            patch.setattr(OpenRouterReader, "key_activity", dying)
            with pytest.raises(KeyboardInterrupt):
                run_due()
        db.session.rollback()
        done = sum(1 for key in keys().values() if key.read_at is not None)
        assert 0 < done <= 200
        run = last_run(integration)
        assert (run.status, run.stage, run.steps_done, run.steps_asked) == ("running", "keys", done, 500)
        assert parts_add_up(integration.id)
        sandbox.clear_requests()
        with at(NOON + timedelta(minutes=30)):
            assert run_due() == 1
        assert len(keys_asked(sandbox)) == 500 - done
        assert last_run(integration).status == "done"
        assert parts_add_up(integration.id)
        assert by_key(integration, "") == {sandbox.today: by_day(integration)[sandbox.today]}

    def test_a_disabled_key_is_known_as_disabled_at_once(self, workspace: Workspace, sandbox: Sandbox) -> None:
        synced(workspace, sandbox)
        assert [name for name, key in keys().items() if key.disabled] == ["Old chatbot"]


DAY = date(2026, 6, 1)
LAST = date(2026, 6, 3)
NOW = datetime(2026, 6, 7, 6, tzinfo=UTC)

line = st.builds(
    BilledLine,
    day=st.dates(DAY, LAST),
    permaslug=st.sampled_from(["a", "b"]),
    endpoint_id=st.just("e"),
    host=st.just("h"),
    model=st.sampled_from(["m", "n"]),
    usage_usd=st.decimals("-5", "50", places=12),
    byok_usd=st.none() | st.decimals("0", "5", places=12),
    requests=st.none() | st.integers(0, 2**60),
    cached_tokens=st.none() | st.integers(0, 9),
)
replies = st.lists(line, max_size=6, unique_by=lambda item: (item.day, item.permaslug))
told = st.tuples(st.sampled_from(["", "key1", "key2"]), replies)


KEYS = [ListedKey(name, name, disabled=False) for name in ("key1", "key2")]


@pytest.fixture
def run(workspace: Workspace) -> SyncRun:
    integration = Integration(workspace_id=workspace.id, provider="openrouter", label="one", key_hint="abcd")
    db.session.add(integration)
    db.session.flush()
    run = SyncRun(integration_id=integration.id, trigger="manual")
    db.session.add(run)
    db.session.commit()
    return run


@settings(max_examples=60)
@given(history=st.lists(told, min_size=1, max_size=6))
def test_whatever_is_told_of_the_whole_and_of_keys_the_parts_are_the_whole(
    run: SyncRun, history: list[tuple[str, list[BilledLine]]]
) -> None:
    for table in (Line, KeyPart, DayTotal, ModelTotal, CoveredDay, Restatement):
        db.session.execute(delete(table))
    attribution.record_keys(run.integration_id, KEYS, NOW, NOW)
    said: dict[str, list[BilledLine]] = {}
    for key_hash, reply in history:
        activity = Activity.of(DAY, LAST, reply)
        if key_hash:
            attribution.record(run.integration_id, {key_hash: activity}, NOW, account_is_whole=False)
        else:
            ledger.record(run.integration_id, run.id, activity, NOW)
        if reply:
            said[key_hash] = reply
        assert parts_add_up(run.integration_id)
    for key_hash in ("key1", "key2"):
        stored = by_keys(run.integration_id, key_hash)
        assert set(stored) == set(said.get(key_hash, [])), "an empty reply erases nothing"


def record(run: SyncRun, key_hash: str, *found: BilledLine, first: date = DAY, last: date = LAST) -> None:
    attribution.record_keys(run.integration_id, KEYS, NOW, NOW)
    attribution.record(run.integration_id, {key_hash: Activity.of(first, last, found)}, NOW, account_is_whole=True)


def unattributed(run: SyncRun) -> list[BilledLine]:
    return by_keys(run.integration_id, "")


WHOLE = BilledLine(DAY, "a", "e", "h", "m", Decimal(5), Decimal(1), 10, 0, 100, 50, None, 7)


def test_the_rest_is_the_whole_less_the_parts_and_nothing_where_all_is_explained(run: SyncRun) -> None:
    ledger.record(run.integration_id, run.id, Activity.of(DAY, LAST, [WHOLE]), NOW)
    assert unattributed(run) == [WHOLE]
    part = replace(WHOLE, usage_usd=Decimal(3), requests=4, cached_tokens=None)
    record(run, "key1", part)
    (rest,) = unattributed(run)
    assert (rest.usage_usd, rest.byok_usd, rest.requests) == (Decimal(2), Decimal(0), 6)
    assert (rest.prompt_tokens, rest.reasoning_tokens, rest.cached_tokens) == (0, None, None), "unknown is not zero"
    record(
        run,
        "key2",
        replace(
            WHOLE,
            **dict.fromkeys(("byok_requests", "prompt_tokens", "completion_tokens"), 0),
            usage_usd=Decimal(2),
            byok_usd=Decimal(0),
            requests=6,
        ),
    )
    assert unattributed(run) == []


def test_parts_that_are_more_than_the_whole_leave_less_than_nothing(run: SyncRun) -> None:
    record(run, "key1", WHOLE)
    (rest,) = unattributed(run)
    assert (rest.usage_usd, rest.requests) == (Decimal(-5), -10)
    ledger.record(run.integration_id, run.id, Activity.of(DAY, LAST, [WHOLE]), NOW)
    assert unattributed(run) == []


def test_days_before_a_keys_window_are_left_alone(run: SyncRun) -> None:
    record(run, "key1", WHOLE, last=DAY)
    record(run, "key1", replace(WHOLE, day=LAST), first=LAST)
    assert len(by_keys(run.integration_id, "key1")) == 2


def test_a_key_whose_only_lines_were_corrected_away_keeps_none(workspace: Workspace, sandbox: Sandbox) -> None:
    """The account's own reply lacks the lines; the key's reply is empty, and is believed."""
    integration = synced(workspace, sandbox)
    account = sandbox.account("lively")
    first, last = window(sandbox)
    listed = {key.name for key in account.keys(sandbox.today)}
    spent = {name: on for name, on in spent_by(sandbox, "lively", first, last).items() if on and name in listed}
    name = min(spent, key=lambda one: len(spent[one]))
    for day in days(first, last):
        while mine := [part for part in sandbox.state.slices(account, day) if part.key.name == name]:
            rows = list(dict.fromkeys(part.identity for part in sandbox.state.slices(account, day)))
            sandbox.remove_row("lively", day, rows.index(mine[0].identity))
    again(integration)
    assert by_key(integration, name) == {}
    assert parts_add_up(integration.id)
    assert min(by_key(integration, "").values()) >= 0


def test_days_that_a_reply_does_not_speak_of_are_left_alone(run: SyncRun) -> None:
    """A reply with a Date header of last month speaks of the days of its lines alone, not of those between."""
    between = DAY + timedelta(days=1)
    record(run, "key1", *(replace(WHOLE, day=day) for day in (DAY, between, LAST)))
    late, early = LAST + timedelta(days=40), DAY - timedelta(days=40)
    again = replace(WHOLE, usage_usd=Decimal(7))
    record(run, "key1", again, replace(again, day=LAST), first=late, last=early)
    stored = {line.day: line.usage_usd for line in by_keys(run.integration_id, "key1")}
    assert stored == {DAY: Decimal(7), between: Decimal(5), LAST: Decimal(7)}
    assert readings(run, "key1") == [Period(DAY, LAST)]
    record(run, "key1", first=late, last=early)
    assert len(by_keys(run.integration_id, "key1")) == 3


@pytest.mark.parametrize("whole", [True, False])
def test_a_keys_empty_reply_is_believed_if_the_accounts_own_was_whole(run: SyncRun, whole: bool) -> None:
    record(run, "key1", WHOLE)
    attribution.record(run.integration_id, {"key1": Activity.of(DAY, LAST, [])}, NOW, account_is_whole=whole)
    stored = by_keys(run.integration_id, "key1")
    assert stored == ([] if whole else [WHOLE])


def readings(run: SyncRun, key_hash: str) -> list[Period]:
    """The days that were read of a key."""
    mine = KeyReading.integration_id == run.integration_id, KeyReading.key_hash == key_hash
    query = select(KeyReading.first_day, KeyReading.last_day).where(*mine).order_by(KeyReading.first_day)
    return [Period(*row) for row in db.session.execute(query)]


def test_the_days_that_were_read_of_a_key_are_kept_as_few_intervals(run: SyncRun) -> None:
    def day(number: int) -> date:
        return DAY + timedelta(days=number)

    attribution.record_keys(run.integration_id, KEYS, NOW, NOW)

    def read(first: int, last: int, now: datetime = NOW + timedelta(days=90)) -> list[Period]:
        activity = Activity.of(day(first), day(last), [])
        attribution.record(run.integration_id, {"key1": activity}, now, account_is_whole=True)
        return readings(run, "key1")

    assert read(0, 4) == [Period(day(0), day(4))]
    assert read(1, 3) == [Period(day(0), day(4))]
    assert read(5, 9) == [Period(day(0), day(9))], "they touch"
    assert read(12, 14) == [Period(day(0), day(9)), Period(day(12), day(14))], "two days were never read"
    assert read(8, 20) == [Period(day(0), day(20))]
    assert readings(run, "key2") == []


def test_a_day_counts_as_read_of_a_key_once_it_is_settled(run: SyncRun) -> None:
    attribution.record_keys(run.integration_id, KEYS, NOW, NOW)
    reply, midnight = Activity.of(DAY, LAST, []), datetime.combine(LAST + timedelta(days=1), time(), tzinfo=UTC)
    for minutes, last in ((29, LAST - timedelta(days=1)), (30, LAST)):
        now = midnight + timedelta(minutes=minutes)
        attribution.record(run.integration_id, {"key1": reply}, now, account_is_whole=True)
        assert readings(run, "key1") == [Period(DAY, last)]


def test_names_follow_the_provider_and_stay_when_a_key_is_gone(run: SyncRun) -> None:
    def listed(*found: ListedKey) -> ApiKey:
        attribution.record_keys(run.integration_id, found, utc_now(), utc_now())
        return db.session.execute(select(ApiKey).where(ApiKey.key_hash == "k1")).scalar_one()

    first, other = ListedKey("k1", "one", disabled=False), ListedKey("k2", "two", disabled=False)
    assert listed(first, other).name == "one"
    row = listed(ListedKey("k1", "renamed", disabled=True), other)
    assert (row.name, row.disabled, row.gone_at) == ("renamed", True, None)
    gone_at = listed(other).gone_at
    assert gone_at is not None
    with at(NOON + timedelta(days=3)):
        row = listed(other)
        assert (row.name, row.gone_at) == ("renamed", gone_at)
        assert listed(first, other).gone_at is None, "it is back"


def test_where_the_provider_stops_a_key_is_noted_with_the_moment(run: SyncRun) -> None:
    def listed(**limit: Any) -> tuple[object, ...]:
        found = ListedKey("k1", "one", disabled=False, **limit)
        attribution.record_keys(run.integration_id, [found], utc_now(), NOON)
        row = db.session.execute(select(ApiKey).where(ApiKey.key_hash == "k1")).scalar_one()
        return row.limit_usd, row.limit_left_usd, row.limit_reset, row.limit_read_at

    limit = {"limit_usd": Decimal(2000), "limit_left_usd": Decimal("1312.4"), "limit_reset": "monthly"}
    assert listed(**limit) == (Decimal(2000), Decimal("1312.4"), "monthly", NOON)
    assert listed() == (None, None, None, None)


def test_those_unread_for_longest_are_read_first(run: SyncRun) -> None:
    listed = [ListedKey(f"k{number}", "", disabled=False) for number in range(4)]
    attribution.record_keys(run.integration_id, listed, NOW, NOW)
    for key_hash, hours in (("k0", 1), ("k1", 5), ("k2", 3)):
        attribution.record(
            run.integration_id,
            {key_hash: Activity.of(DAY, LAST, [])},
            NOW - timedelta(hours=hours),
            account_is_whole=True,
        )
    assert attribution.record_keys(run.integration_id, listed, NOW, NOW) == ["k3", "k1", "k2", "k0"]
    assert attribution.record_keys(run.integration_id, listed, NOW - timedelta(hours=2), NOW) == ["k3", "k1", "k2"]
