"""One account's reader beyond /activity: analytics, credits and API keys, against the sandbox over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grafient.providers import NotOffered, UnexpectedResponse, Unreachable, openrouter
from grafient.providers.http import ReadingClient, Reply, within
from grafient.providers.openrouter import OpenRouter, OpenRouterReader, _Metrics, _Pace
from grafient.providers.openrouter.calls import Calls
from grafient.sandbox import Sandbox, analytics
from tests.syncing import at, days, questions, told_by_analytics, window


@pytest.fixture(autouse=True)
def _at_noon() -> Iterator[None]:
    with at():
        yield


@pytest.fixture
def lively(provider: OpenRouter, sandbox: Sandbox) -> OpenRouterReader:
    return provider.reader(sandbox.key("lively"))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[_Pace]:
    """Each pace that was kept, in place of the waiting."""
    kept: list[_Pace] = []
    monkeypatch.setattr(_Pace, "wait", lambda self: kept.append(self))
    return kept


class TestAnalytics:
    @pytest.mark.parametrize("name", ["lively", "other", "byok", "hostile"])
    def test_each_day_and_model_as_it_was(self, provider: OpenRouter, sandbox: Sandbox, name: str) -> None:
        first, last = sandbox.today - timedelta(days=200), sandbox.today - timedelta(days=31)
        activity = provider.reader(sandbox.key(name)).history(first, last)
        assert (activity.first_day, activity.last_day) == (first, last)
        found = {(line.day, line.permaslug): line.usage_usd for line in activity.lines()}
        assert found == told_by_analytics(sandbox, name, first, last)
        assert {(line.endpoint_id, line.host) for line in activity.lines()} == {("", "")}

    def test_counts_are_whole_and_unknown_stays_unknown(self, lively: OpenRouterReader, sandbox: Sandbox) -> None:
        first, last = date(2026, 9, 25), date(2026, 10, 5)
        lines = lively.history(first, last).lines()
        rows = sandbox.truth("lively", first, last).rows
        assert sum(line.requests or 0 for line in lines) == sum(row.requests for row in rows)
        assert sum(line.prompt_tokens or 0 for line in lines) == sum(row.prompt_tokens for row in rows)
        assert {line.cached_tokens is None for line in lines if line.day < date(2026, 10, 1)} == {True}
        assert {line.cached_tokens is None for line in lines if line.day >= date(2026, 10, 1)} == {False}

    def test_today_as_far_as_it_goes(self, lively: OpenRouterReader, sandbox: Sandbox) -> None:
        today = sandbox.today
        so_far = sum(part.usage for part in sandbox.account("lively").slices_so_far(today))
        lines = lively.history(today, today).lines()
        assert 0 < so_far < sandbox.truth("lively", today, today).usage
        assert abs(sum(line.usage_usd for line in lines) - so_far) <= len(lines) * Decimal("5E-7")
        assert {line.day for line in lines} == {today}

    def test_totals_per_day_leave_out_days_without_usage(self, lively: OpenRouterReader, sandbox: Sandbox) -> None:
        first, last = window(sandbox)
        sandbox.drop_day("lively", last)
        totals = lively.day_totals(first, last)
        assert set(totals) == {day for day in days(first, last) if sandbox.truth("lively", day, day).rows}
        for day, total in totals.items():
            assert abs(total - sandbox.truth("lively", day, day).usage) <= Decimal("5E-7")

    def test_what_does_not_fit_one_reply_is_narrowed_to_its_newer_part(
        self, lively: OpenRouterReader, sandbox: Sandbox, waits: list[_Pace]
    ) -> None:
        sandbox.settings.analytics_row_limit = 100
        first, last = sandbox.today - timedelta(days=60), sandbox.today - timedelta(days=1)
        parts = []
        while last >= first:
            parts.append(lively.history(first, last))
            assert parts[-1].last_day == last
            assert len(parts[-1].lines()) <= 100
            last = parts[-1].first_day - timedelta(days=1)
        assert len(parts) > 3
        assert last == first - timedelta(days=1)
        found = {(line.day, line.permaslug): line.usage_usd for part in parts for line in part.lines()}
        assert found == told_by_analytics(sandbox, "lively", first, sandbox.today - timedelta(days=1))

    def test_a_day_that_fits_no_reply_is_said(
        self, lively: OpenRouterReader, sandbox: Sandbox, waits: list[_Pace]
    ) -> None:
        sandbox.settings.analytics_row_limit = 3
        last = sandbox.today - timedelta(days=1)
        with pytest.raises(UnexpectedResponse, match=f"more models on {last} than one reply holds"):
            lively.history(last - timedelta(days=9), last)
        with pytest.raises(UnexpectedResponse, match="one row a day"):
            lively.day_totals(last - timedelta(days=9), last)

    def test_each_question_waits_for_its_turn(
        self, lively: OpenRouterReader, sandbox: Sandbox, waits: list[_Pace]
    ) -> None:
        sandbox.settings.analytics_row_limit = 100
        lively.history(sandbox.today - timedelta(days=60), sandbox.today)
        lively.day_totals(*window(sandbox))
        assert len(waits) == len(questions(sandbox)) > 3
        assert set(waits) == {lively._analytics_pace}

    @pytest.mark.parametrize("shift", [-1, 1])
    def test_days_that_were_not_asked_for_are_refused(
        self, lively: OpenRouterReader, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, shift: int
    ) -> None:
        ask = Calls.ask

        def ask_for_others(self: Calls, path: str, question: dict[str, Any], *, attempts: int) -> Reply:
            moved = {name: _moved(moment, shift) for name, moment in question["time_range"].items()}
            return ask(self, path, {**question, "time_range": moved}, attempts=attempts)

        monkeypatch.setattr(Calls, "ask", ask_for_others)
        with pytest.raises(UnexpectedResponse, match="days it was not asked for"):
            lively.history(sandbox.today - timedelta(days=20), sandbox.today - timedelta(days=10))

    def test_rows_without_the_models_that_were_asked_for_are_refused(
        self, lively: OpenRouterReader, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ask = Calls.ask

        def ask_for_none(self: Calls, path: str, question: dict[str, Any], *, attempts: int) -> Reply:
            return ask(self, path, {**question, "dimensions": []}, attempts=attempts)

        monkeypatch.setattr(Calls, "ask", ask_for_none)
        with pytest.raises(UnexpectedResponse):
            lively.history(*window(sandbox))

    def test_what_is_asked_is_fixed_and_reads_only(self, lively: OpenRouterReader, sandbox: Sandbox) -> None:
        lively.history(date(2026, 6, 1), date(2026, 6, 30))
        lively.day_totals(date(2026, 6, 1), date(2026, 6, 30))
        of_models, of_days = questions(sandbox)
        assert of_models["time_range"] == {"start": "2026-06-01T00:00:00Z", "end": "2026-07-01T00:00:00Z"}
        assert (of_models["granularity"], of_models["limit"]) == ("day", 10_000)
        assert (of_models["dimensions"], of_days["dimensions"]) == (["model"], [])
        assert [request.path for request in sandbox.requests()].count("/api/v1/analytics/meta") == 1

    def test_a_metric_that_is_no_longer_offered_is_not_asked_for(
        self, lively: OpenRouterReader, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delitem(analytics.METRICS, "reasoning_tokens")
        monkeypatch.delitem(analytics.METRICS, "byok_usage")
        lines = lively.history(*window(sandbox)).lines()
        assert {(line.reasoning_tokens, line.byok_usd) for line in lines} == {(None, None)}
        assert sum(line.usage_usd for line in lines)

    @pytest.mark.parametrize(
        ("table", "name"),
        [(analytics.METRICS, "credits_usage"), (analytics.DIMENSIONS, "model"), (analytics.GRANULARITIES, "day")],
    )
    def test_without_credits_per_model_and_day_there_is_nothing_to_ask(
        self,
        lively: OpenRouterReader,
        sandbox: Sandbox,
        monkeypatch: pytest.MonkeyPatch,
        table: dict[str, Any],
        name: str,
    ) -> None:
        monkeypatch.delitem(table, name)
        with pytest.raises(NotOffered, match="credits per model and day"):
            lively.history(*window(sandbox))
        assert questions(sandbox) == []


def _moved(moment: str, days: int) -> str:
    return (datetime.fromisoformat(moment) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


Read = Callable[[OpenRouterReader], object]
DAY = date(2026, 11, 1)


@pytest.mark.parametrize(
    ("manner", "read"),
    [
        ("no-analytics", lambda reader: reader.history(DAY, DAY)),
        ("no-analytics", lambda reader: reader.day_totals(DAY, DAY)),
        ("analytics-forbidden", lambda reader: reader.history(DAY, DAY)),
        ("no-credits", lambda reader: reader.credits()),
        ("no-keys", lambda reader: reader.api_keys()),
        ("lively", lambda reader: reader.key_activity("ab" * 32)),
    ],
)
def test_what_an_account_is_not_told_is_not_offered_and_no_verdict_on_its_key(
    provider: OpenRouter, sandbox: Sandbox, manner: str, read: Read
) -> None:
    sandbox.fault("lively", "inference", path="/activity")
    with pytest.raises(NotOffered):
        read(provider.reader(sandbox.key(manner)))


@pytest.mark.parametrize(
    ("manner", "read"),
    [
        ("analytics-down", lambda reader: reader.history(DAY, DAY)),
        ("keys-down", lambda reader: reader.api_keys()),
        ("cloudflare", lambda reader: reader.credits()),
    ],
)
def test_what_does_not_answer_is_a_passing_fault(
    provider: OpenRouter, sandbox: Sandbox, manner: str, read: Read
) -> None:
    with pytest.raises(Unreachable):
        read(provider.reader(sandbox.key(manner)))


class TestKeys:
    def test_those_of_every_workspace_disabled_ones_too(self, lively: OpenRouterReader, sandbox: Sandbox) -> None:
        account = sandbox.account("lively")
        listed = {(key.key_hash, key.name, key.disabled) for key in lively.api_keys().keys}
        assert listed == {(key.hash, key.name, key.disabled) for key in account.keys(sandbox.today)}
        assert len({key.workspace for key in account.keys(sandbox.today)}) == 2
        assert [disabled for _, _, disabled in listed].count(True) == 1

    def test_page_after_page_until_there_is_nothing_new(self, provider: OpenRouter, sandbox: Sandbox) -> None:
        listed = provider.reader(sandbox.key("many-keys")).api_keys().keys
        assert len({key.key_hash for key in listed}) == len(listed) == 500
        offsets = [request.query["offset"] for request in sandbox.requests() if request.path.endswith("/keys")]
        assert offsets == ["0", "100", "200", "300", "400", "500", "0"]

    def test_those_of_workspaces_on_a_second_page_too(
        self, lively: OpenRouterReader, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(openrouter, "_A_PAGE", 1)
        assert {key.name for key in lively.api_keys().keys} == {
            key.name for key in sandbox.account("lively").keys(sandbox.today)
        }

    def test_without_workspaces_those_of_the_default_one(self, provider: OpenRouter, sandbox: Sandbox) -> None:
        names = {key.name for key in provider.reader(sandbox.key("no-workspaces")).api_keys().keys}
        assert "Production API" in names
        assert "Nightly batch" not in names

    def test_what_each_spent_is_what_the_account_spent(self, provider: OpenRouter, sandbox: Sandbox) -> None:
        with at(datetime.fromisoformat("2026-12-08T12:00:00Z")):
            reader = provider.reader(sandbox.key("lively"))
            parts = [reader.key_activity(key.key_hash) for key in reader.api_keys().keys]
            whole = reader.activity()
            slices = (part for day in days(*window(sandbox)) for part in sandbox.account("lively").slices(day))
            gone = sum(part.usage for part in slices if part.key.deleted and part.key.deleted <= sandbox.today)
        assert gone, "a key that is listed no more has spent in the window"
        spent = sum(line.usage_usd for part in parts for line in part.lines())
        assert spent == sum(line.usage_usd for line in whole.lines()) - gone
        assert {(part.first_day, part.last_day) for part in parts} == {(whole.first_day, whole.last_day)}

    def test_a_hash_that_no_key_has_spent_nothing(self, lively: OpenRouterReader) -> None:
        assert lively.key_activity("ab" * 32).lines() == []


def test_credits_are_all_that_was_ever_spent_with_today(lively: OpenRouterReader, sandbox: Sandbox) -> None:
    spent = sum(part.usage for part in sandbox.state.lifetime(sandbox.account("lively")))
    assert lively.credits().used_usd == spent


class TestEvidence:
    def test_every_answer_is_kept_with_what_was_asked(self, lively: OpenRouterReader, sandbox: Sandbox) -> None:
        lively.activity()
        (key, *_) = lively.api_keys().keys
        lively.key_activity(key.key_hash)
        lively.credits()
        lively.day_totals(DAY, DAY)
        replies = lively.take_replies()
        assert len(replies) == len(sandbox.requests())
        asked = [reply.request for reply in replies]
        assert asked[0] == "GET /activity"
        assert "GET /credits" in asked
        assert f"GET /activity?api_key_hash={key.key_hash}" in asked
        (question,) = (request for request in asked if request.startswith("POST /analytics/query "))
        assert json.loads(question.removeprefix("POST /analytics/query ")) == questions(sandbox)[0]
        assert json.loads(replies[0].body)["data"]
        assert lively.take_replies() == []

    def test_no_key_is_in_it(self, provider: OpenRouter, sandbox: Sandbox) -> None:
        reader = provider.reader(sandbox.key("lively"))
        reader.activity()
        reader.api_keys()
        reader.history(DAY, DAY)
        for reply in reader.take_replies():
            assert sandbox.key("lively") not in reply.request + reply.body.decode()
            assert "Bearer" not in reply.request

    def test_a_key_that_a_server_repeats_is_blotted_out(self) -> None:
        mine, foreign = "sk-or-v1-" + "ab" * 32, "sk-or-v1-" + "cd" * 32

        class Echo(ReadingClient):
            def get(self, url: str, *, bearer: str, params: dict[str, str] | None = None) -> Reply:
                return Reply(200, httpx.Headers(), f'{{"data": "{bearer} {foreign} odd-key"}}'.encode())

        for key in (mine, "odd-key"):
            calls = Calls(Echo(), "http://127.0.0.1:1", key)
            with within(1):
                calls.get("/credits", attempts=1)
            (reply,) = calls.take_replies()
            assert key.encode() not in reply.body
            assert foreign.encode() not in reply.body
            assert b"[key]" in reply.body

    def test_what_could_not_be_read_is_kept_too(self, provider: OpenRouter, sandbox: Sandbox) -> None:
        reader = provider.reader(sandbox.key("misshapen"))
        with pytest.raises(UnexpectedResponse):
            reader.activity()
        assert b'"cost"' in reader.take_replies()[0].body

    def test_a_refusal_of_the_question_is_kept_and_a_fault_is_not(self, provider: OpenRouter, sandbox: Sandbox) -> None:
        reader = provider.reader(sandbox.key("lively"))
        with pytest.raises(UnexpectedResponse, match="refused"):
            reader.history(DAY - timedelta(days=900), DAY)
        assert [b"at most 365 days" in reply.body for reply in reader.take_replies()] == [False, True]
        sandbox.fault("lively", "down")
        with pytest.raises(Unreachable):
            reader.credits()
        assert reader.take_replies() == []


class TestNotes:
    def test_a_changed_reply_is_noted_once(self, provider: OpenRouter, sandbox: Sandbox) -> None:
        reader = provider.reader(sandbox.key("new-field"))
        reader.activity()
        for key in reader.api_keys().keys:
            reader.key_activity(key.key_hash)
        (note,) = reader.take_notes()
        assert "new fields: audio_tokens, region, service_tier" in note
        assert reader.take_notes() == []

    def test_fields_that_went_are_noted(self, provider: OpenRouter, sandbox: Sandbox) -> None:
        reader = provider.reader(sandbox.key("fewer-fields"))
        reader.activity()
        assert "that are gone: byok_requests, cached_tokens, model" in reader.take_notes()[0]

    def test_an_account_as_it_always_was_has_none(self, lively: OpenRouterReader) -> None:
        lively.activity()
        assert lively.take_notes() == []


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class TestPace:
    @given(pauses=st.lists(st.floats(0, 90), max_size=200))
    def test_analytics_is_never_asked_more_than_sixty_times_in_a_minute(self, pauses: list[float]) -> None:
        """OpenRouter allows 64, another sync of the account included."""
        starts = self._starts(lambda reader: reader._analytics_pace, [*pauses, *[0.0] * 130])
        assert _most_within(starts, 60) <= 60

    def test_a_sync_of_four_questions_does_not_wait(self) -> None:
        starts = self._starts(lambda reader: reader._analytics_pace, [0.0] * 5)
        assert starts[:4] == [1000.0] * 4
        assert starts[4] > 1001

    def test_keys_are_read_four_a_second_after_the_first_dozen(self) -> None:
        starts = self._starts(lambda reader: reader._keys_pace, [0.0] * 500)
        assert starts[11] == 1000.0
        assert _most_within(starts[12:], 1) <= 5
        assert 120 < starts[-1] - starts[0] < 125

    def _starts(self, pace: Callable[[OpenRouterReader], _Pace], pauses: list[float]) -> list[float]:
        """When the calls begin that come so many seconds after one another."""
        clock, starts = Clock(), []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("grafient.providers.openrouter.time", clock)
            kept = pace(OpenRouterReader(Calls(ReadingClient.__new__(ReadingClient), "", ""), _Metrics()))
            for pause in pauses:
                clock.now += pause
                kept.wait()
                starts.append(clock.now)
        return starts


def _most_within(starts: list[float], seconds: float) -> int:
    """The most that begin within any stretch of so many seconds."""
    return max(sum(1 for other in starts[n:] if other < start + seconds) for n, start in enumerate(starts))
