"""The made-up usage itself: the same whenever it is asked for, exact, and as lively as the demo needs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grafient.sandbox.account import HOSTILE_NAMES, Account
from grafient.sandbox.catalog import lineup
from grafient.sandbox.manners import ACCOUNTS
from grafient.sandbox.records import ZERO, ActivityRow, activity_rows

LIVELY = Account("lively", "lively")
YEAR = [date(2025, 11, 22) + timedelta(days=number) for number in range(365)]
steady = settings(max_examples=25, derandomize=True, database=None)
any_day = st.dates(date(2020, 1, 1), date(2036, 12, 31))


def cost(rows: list[ActivityRow]) -> Decimal:
    return sum((row.usage for row in rows), ZERO)


def test_a_day_is_the_same_in_every_process_and_version() -> None:
    # pinned: whoever changes the figures changes every demo and every test built on them
    text = "\n".join(
        repr((str(row.date), row.model, row.endpoint_id, str(row.usage.normalize()), row.requests))
        for row in LIVELY.rows(date(2026, 11, 20))
    )
    assert sha256(text.encode()).hexdigest()[:16] == "be9a6e90c1f28769"


@given(any_day)
@steady
def test_a_day_follows_from_the_seed_and_the_day_alone(day: date) -> None:
    twin = Account("twin", "lively")
    assert [replace(part, key=None) for part in LIVELY.slices(day)] == [  # type: ignore[arg-type]
        replace(part, key=None)  # type: ignore[arg-type]
        for part in twin.slices(day)
    ]


@given(any_day, st.sampled_from(ACCOUNTS))
@steady
def test_rows_add_up_to_their_parts(day: date, account: Account) -> None:
    slices = account.slices(day)
    whole = activity_rows(slices)
    per_key = defaultdict(list)
    for part in slices:
        per_key[part.key.hash].append(part)
    by_key = [row for parts in per_key.values() for row in activity_rows(parts)]
    by_workspace = activity_rows(slices, by_workspace=True)
    for field in ("usage", "byok_usage_inference", "requests", "byok_requests", "prompt_tokens"):
        totals = {sum(getattr(row, field) for row in rows) for rows in (whole, by_key, by_workspace)}
        assert len(totals) == 1


def test_a_year_looks_like_one() -> None:
    rows = {day: LIVELY.rows(day) for day in YEAR}
    used = {day: cost(rows[day]) for day in YEAR if rows[day]}
    counts = [len(rows[day]) for day in used]
    assert min(counts) >= 15
    assert max(counts) <= 32
    assert 20 <= sum(counts) / len(counts) <= 26
    workday = [used[day] for day in used if day.weekday() < 5]
    weekend = [used[day] for day in used if day.weekday() >= 5]
    assert sum(weekend) / len(weekend) < sum(workday) / len(workday) / 2
    assert min(used.values()) > 4
    assert max(used.values()) < 80
    assert 6_000 < sum(used.values()) < 10_000
    assert sum(used[day] for day in YEAR[-90:] if day in used) > sum(used[day] for day in YEAR[:90] if day in used)


@given(any_day)
@steady
def test_every_thirty_days_bring_every_event(today: date) -> None:
    window = [today - timedelta(days=back) for back in range(30, 0, -1)]
    slices = {day: LIVELY.slices(day) for day in window}
    assert any(not parts for parts in slices.values()), "a day without usage"
    before, after = ({offer.permaslug for offer in lineup(day)} for day in (window[0], window[-1]))
    assert after - before, "a launch"
    workdays = sorted(cost(LIVELY.rows(day)) for day in window if day.weekday() < 5)
    assert workdays[-1] > Decimal("1.4") * workdays[len(workdays) // 2], "a spike"
    gone = {part.key.hash for parts in slices.values() for part in parts} - {key.hash for key in LIVELY.keys(today)}
    assert gone, "a key that spent and was deleted"


def test_a_model_becomes_cheaper_on_a_day() -> None:
    prices = {(o.permaslug, o.prompt_price) for day in YEAR for o in lineup(day)}
    assert len(prices) > len({permaslug for permaslug, _ in prices})


def test_the_habits_of_real_rows_are_there() -> None:
    rows = [row for day in YEAR for row in LIVELY.rows(day)]
    assert any(row.reasoning_tokens > row.completion_tokens for row in rows)
    assert any((row.cached_tokens or 0) > row.prompt_tokens for row in rows)
    assert any(row.usage == 0 and row.byok_usage_inference > 0 for row in rows)
    assert any(row.usage > 0 and row.byok_usage_inference > 0 for row in rows)
    assert any(row.model.endswith(":free") and row.usage == 0 for row in rows)
    assert any(0 < row.usage < Decimal("1e-6") for row in rows)
    assert any(-row.usage.normalize().as_tuple().exponent >= 9 for row in rows)  # type: ignore[operator]
    assert all(row.byok_requests <= row.requests for row in rows)
    hosts = defaultdict(set)
    for row in rows:
        hosts[row.date, row.model].add(row.endpoint_id)
    assert max(len(endpoints) for endpoints in hosts.values()) == 4
    assert {"OpenAI", "Azure", "Anthropic", "Google", "Google AI Studio", "DeepInfra", "Together"} <= {
        row.provider_name for row in rows
    }


def test_cached_tokens_are_unknown_before_october_2026() -> None:
    assert {row.cached_tokens for row in LIVELY.rows(date(2026, 9, 30))} == {None}
    assert None not in {row.cached_tokens for row in LIVELY.rows(date(2026, 10, 1))}


@pytest.mark.parametrize("account", [a for a in ACCOUNTS if a.kind in ("byok", "free", "empty", "today-only")])
def test_the_special_accounts(account: Account) -> None:
    day = date(2026, 11, 20)
    rows, so_far = account.rows(day), account.slices_so_far(day)
    assert cost(rows) == 0
    assert bool(rows) == (account.kind in ("byok", "free"))
    assert bool(so_far) == (account.kind != "empty")
    assert any(row.byok_usage_inference > 0 for row in rows) == (account.kind == "byok")
    assert all(row.model.endswith(":free") for row in rows) or account.kind == "byok"


def test_the_large_account_has_ten_thousand_rows_a_month() -> None:
    large = next(account for account in ACCOUNTS if account.name == "large")
    assert sum(len(large.rows(day)) for day in YEAR[-30:]) == 10_050
    assert len(large.keys(YEAR[-1])) == 250


@given(any_day)
@steady
def test_each_of_many_keys_spends_within_thirty_days(today: date) -> None:
    account = next(account for account in ACCOUNTS if account.name == "many-keys")
    parts = [part for back in range(1, 31) for part in account.slices(today - timedelta(days=back))]
    assert {part.key.hash for part in parts if part.usage > 0} == {key.hash for key in account.keys(today)}
    assert len(account.keys(today)) == 500
    assert len({part.key.hash for part in account.slices(today)}) == len(account.rows(today)) == 40


def test_the_hostile_account_is() -> None:
    hostile = next(account for account in ACCOUNTS if account.name == "hostile")
    rows = hostile.rows(date(2026, 11, 20))
    assert set(HOSTILE_NAMES) <= {row.model for row in rows} & {row.provider_name for row in rows} | {""}
    assert max(len(row.model) for row in rows) == 300
    identities = [(row.model_permaslug, row.endpoint_id, row.provider_name) for row in rows]
    assert len(identities) - len(set(identities)) == 1
    assert min(row.usage for row in rows) == Decimal("-0.25")
    assert any(row.endpoint_id == row.provider_name == "" for row in rows)


def test_accounts_share_nothing_that_names_them() -> None:
    other = next(account for account in ACCOUNTS if account.name == "other")
    assert other.id != LIVELY.id
    assert {key.hash for key in other.keys(YEAR[0])}.isdisjoint(key.hash for key in LIVELY.keys(YEAR[0]))
    assert cost(other.rows(date(2026, 11, 20))) != cost(LIVELY.rows(date(2026, 11, 20)))
