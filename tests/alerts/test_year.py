"""A year of the sandbox's account, day by day: what has to be told of it is, when it has to be, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from grafient import integrations
from grafient.alerts import budgets, rules, wording
from grafient.days import ONE_DAY
from grafient.extensions import db, providers
from grafient.models import Channel, DeliveryEvent, Incident, Integration, Workspace, utc_now
from grafient.providers.http import ReadingClient, Reply
from grafient.sandbox import Sandbox
from grafient.sandbox.account import _event_day, _spike
from grafient.states import AlertKind, BudgetPeriod, ChannelKind, Happened, Topic
from tests.alerts import replay
from tests.alerts.replay import live_through
from tests.syncing import connect, days, on_sqlite, run_due

FIRST, LAST = date(2025, 12, 10), date(2026, 12, 8)
NINE, EVENING = time(9, tzinfo=UTC), time(21, tzinfo=UTC)

OUTAGE = days(date(2026, 3, 17), date(2026, 3, 20))
"""On which nothing can be read; the day with a spike among them is known only afterwards."""
DEAR = days(date(2026, 5, 25), date(2026, 7, 5))
"""On which everything costs three times as much."""
AMID = date(2026, 7, 15)
"""A spike ten days after that, when it shows in its model alone: all of it is less than it was in June."""
AWAY = date(2026, 9, 9)
"""On which hosts of the large models were away, as happens in the sandbox."""
RESTATED, ON = date(2026, 5, 12), date(2026, 6, 5)
"""A day of a month that was over, and when it was changed."""
REVOKED, REPLACED = date(2026, 10, 6), date(2026, 10, 8)

TABLE = """
 2025-12-15   2025-12-16  unusual_day: $0.00 on 14 December, $7.08 less than expected
 2025-12-16   2025-12-17  today: $35.59 so far on 16 December, more than a whole day is expected to cost
(2025-12-17) (2025-12-18) unusual_day: $59.00 on 16 December, $39.34 more than expected
 2025-12-27  (2026-01-03) new: new API key Trial 2025-12-20 has cost $5.18
 2026-01-07   2026-01-08  unusual_day: $62.17 on 6 January, $36.09 more than expected
 2026-01-08  (2026-01-15) new: new model anthropic/claude-sonnet-4.2 has cost $6.46
 2026-01-12   2026-01-13  unusual_day: $0.00 on 11 January, $7.04 less than expected
 2026-01-24  (2026-01-31) new: new API key Trial 2026-01-17 has cost $5.23
 2026-01-29   2026-01-30  unusual_day: $68.59 on 28 January, $46.45 more than expected
 2026-02-01   2026-02-02  unusual_day: $0.00 on 31 January, $9.51 less than expected
 2026-02-07  (2026-02-13) new: new model google/gemini-2.7-pro has cost $5.51
 2026-02-22  (2026-03-01) new: new API key Trial 2026-02-14 has cost $5.36
 2026-02-23   2026-02-24  unusual_day: $0.00 on 22 February, $6.03 less than expected
 2026-02-26   2026-02-27  unusual_day: $74.08 on 25 February, $52.51 more than expected
 2026-03-17   2026-03-21  no_sync: OpenRouter has not been read since 16 March 2026, 06:13 UTC
 2026-03-21  (2026-03-21) unusual_day: $64.68 on 18 March, $42.25 more than expected
 2026-03-21  (2026-03-28) new: new API key Trial 2026-03-14 has cost $6.65
 2026-03-22   2026-03-23  unusual_day: $0.00 on 21 March, $7.94 less than expected
 2026-04-02  (2026-04-09) new: new model openai/gpt-5.2 has cost $6.12
 2026-04-13   2026-04-14  unusual_day: $0.00 on 12 April, $7.29 less than expected
 2026-04-14   2026-04-15  today: $63.67 so far on 14 April, more than a whole day is expected to cost
(2026-04-15) (2026-04-16) unusual_day: $71.99 on 14 April, $44.37 more than expected
 2026-04-15  (2026-04-22) new: new API key Trial 2026-04-11 has cost $5.15
 2026-04-30  (2026-05-07) new: new model anthropic/claude-sonnet-4.3 has cost $5.19
 2026-05-07   2026-05-08  today: $39.41 so far on 7 May, more than a whole day is expected to cost
(2026-05-08) (2026-05-09) unusual_day: $43.68 on 7 May, $23.13 more than expected
 2026-05-11   2026-05-12  unusual_day: $0.00 on 10 May, $7.11 less than expected
 2026-05-18  (2026-05-24) new: new API key Trial 2026-05-09 has cost $5.17
 2026-05-20   2026-05-21  credits: $20.75 of credits left, about 1 day
 2026-05-26   2026-05-29  unusual_day: $62.75 on 25 May, $41.12 more than expected
 2026-05-27  (2026-06-03) new: new model google/gemini-2.8-pro has cost $5.04
 2026-05-29   2026-05-30  unusual_day: anthropic/claude-sonnet-4.3: $24.78 on 28 May, $19.75 more than expected
 2026-05-31   2026-06-04  budget: A month: over budget by $1.50 ($801.50 of $800.00, May 2026)
 2026-06-01   2026-06-02  unusual_day: $0.00 on 31 May, $7.79 less than expected
 2026-06-03   2026-06-04  unusual_day: $164.33 on 2 June, $114.09 more than expected
 2026-06-03   2026-06-06  budget: A day: over budget by $64.33 ($164.33 of $100.00, 2 June)
 2026-06-03   2026-07-04  budget: A month: June 2026 is expected to end at $995.84, 124% of $800.00
 2026-06-14  worse A month: over budget by $0.96 ($800.96 of $800.00, June 2026)
 2026-06-05  (2026-06-12) restated: OpenRouter restated May 2026, now $22.23 more
 2026-06-10  (2026-06-17) new: new API key Trial 2026-06-06 has cost $5.13
 2026-06-25   2026-06-26  unusual_day: $199.48 on 24 June, $127.56 more than expected
 2026-06-25   2026-06-28  budget: A day: over budget by $99.48 ($199.48 of $100.00, 24 June)
 2026-06-26  (2026-07-03) new: new model deepseek/deepseek-chat-v3.4 has cost $5.15
 2026-06-29   2026-06-30  unusual_day: $0.00 on 28 June, $20.52 less than expected
 2026-07-01   2026-08-04  budget: A month: July 2026 is expected to end at $1,892.88, 236% of $800.00
 2026-07-07   2026-07-08  unusual_day: $21.75 on 6 July, $41.02 less than expected
 2026-07-08   2026-07-10  unusual_day: API key Production API: $10.52 on 7 July, $22.93 less than expected
 2026-07-08   2026-07-09  credits: $20.52 of credits left, less than a day
 2026-07-10  (2026-07-17) new: new API key Trial 2026-07-04 has cost $6.07
 2026-07-16   2026-07-17  unusual_day: google/gemini-2.8-pro: $35.06 on 15 July, $30.28 more than expected
 2026-07-20   2026-07-21  unusual_day: $0.00 on 19 July, $6.79 less than expected
 2026-07-24  (2026-07-31) new: new model openai/gpt-5.3 has cost $7.01
 2026-08-07  (2026-08-14) new: new API key Trial 2026-08-01 has cost $5.57
 2026-08-11   2026-08-12  today: $69.68 so far on 11 August, more than a whole day is expected to cost
(2026-08-12) (2026-08-13) unusual_day: $77.08 on 11 August, $50.45 more than expected
 2026-08-13   2026-08-14  credits: $20.68 of credits left, less than a day
 2026-08-16   2026-08-17  unusual_day: $0.00 on 15 August, $9.61 less than expected
 2026-08-21  (2026-08-28) new: new model anthropic/claude-sonnet-4.4 has cost $6.10
 2026-09-01   2026-09-02  today: $48.21 so far on 1 September, more than a whole day is expected to cost
(2026-09-02) (2026-09-03) unusual_day: $58.53 on 1 September, $34.69 more than expected
 2026-09-04  (2026-09-11) new: new API key Trial 2026-08-29 has cost $5.80
 2026-09-06   2026-09-07  unusual_day: $0.00 on 5 September, $8.20 less than expected
 2026-09-10   2026-09-11  unusual_day: $10.56 on 9 September, $17.74 less than expected
 2026-09-21  (2026-09-25) new: new model google/gemini-2.9-pro has cost $5.55
 2026-09-28   2026-09-29  unusual_day: $0.00 on 27 September, $6.93 less than expected
 2026-10-01   2026-10-02  unusual_day: $72.80 on 30 September, $48.49 more than expected
 2026-10-01  (2026-10-08) new: new API key Trial 2026-09-26 has cost $5.44
 2026-10-06   2026-10-08  key: its key was rejected
 2026-10-20   2026-10-21  today: $55.81 so far on 20 October, more than a whole day is expected to cost
(2026-10-21) (2026-10-22) unusual_day: $63.51 on 20 October, $38.61 more than expected
 2026-10-26   2026-10-27  unusual_day: $0.00 on 25 October, $6.54 less than expected
 2026-10-31  (2026-11-07) new: new API key Trial 2026-10-24 has cost $5.14
 2026-11-12  (2026-11-19) new: new model openai/gpt-5.4 has cost $5.79
 2026-11-16   2026-11-17  unusual_day: $0.00 on 15 November, $7.81 less than expected
 2026-11-18   2026-11-19  today: $49.47 so far on 18 November, more than a whole day is expected to cost
(2026-11-19) (2026-11-20) unusual_day: $64.52 on 18 November, $36.82 more than expected
 2026-11-27  (2026-12-04) new: new API key Trial 2026-11-21 has cost $5.54
"""
"""Of each incident the day on which it was opened, the day on which it was over, in brackets where nobody was told, the
kind, and what was said first; below it each step further.

The spikes, the days without usage, the new models and the trial keys are the sandbox's own. Of a spike somebody is told
on the day itself, if what had become known of it by 06:05 was enough, or else once it is settled.
"""


@pytest.mark.long
@on_sqlite
def test_a_year(workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers["openrouter"], "client", _InProcess(sandbox))
    sandbox.settings.analytics_per_minute = 10**9
    one = _begin(workspace, sandbox)
    for day in days(FIRST, LAST):
        if day == ON:
            sandbox.restate("lively", RESTATED, 2)
        if day in OUTAGE or REVOKED <= day < REPLACED:
            sandbox.fault("lively", "down" if day in OUTAGE else "revoked")
        else:
            sandbox.fault("lively", None)
        if day == REPLACED:
            with replay.clock(datetime.combine(day, time(5, tzinfo=UTC))):
                integrations.replace_key(one, sandbox.key("lively-again"))
        six = _six(day)
        for at in (six, NINE, EVENING) if day in OUTAGE else (six,):
            live_through(workspace, sandbox, day, at)
    found = list(_found())
    assert found == TABLE.strip("\n").splitlines(), "\n".join(found)
    subjects = (
        db.session.execute(select(Incident.subject).where(Incident.kind == AlertKind.UNUSUAL_DAY)).scalars().all()
    )
    ups, downs = (
        {date.fromisoformat(one.rpartition(":")[2]) for one in subjects if f":total:{direction}:" in one}
        for direction in ("up", "down")
    )
    assert ups == {day for day in days(FIRST, LAST) if _spike("lively", day)[0]} - {AMID} | {DEAR[0]}
    quiet = {day for day in days(FIRST, LAST) if _event_day("lively", "quiet", day, (5, 6))}
    assert downs == quiet | {DEAR[-1] + ONE_DAY, AWAY}


def _six(day: date) -> time:
    """A little later each day, so that what lasts for a week is over after seven days, however long a sync takes."""
    return (datetime.combine(day, replay.SIX) + timedelta(seconds=5) * (day - FIRST).days).timetz()


def _begin(workspace: Workspace, sandbox: Sandbox) -> Integration:
    """An account that was just connected, two budgets, and somebody who is told of everything."""
    workspace.plan = "ultimate"
    for day in DEAR:
        sandbox.restate("lively", day, 3)
    with replay.clock(datetime.combine(FIRST, time(5, tzinfo=UTC))):
        sandbox.today = FIRST
        one = connect(workspace, sandbox)
        run_due()
        topics = [str(topic) for topic in Topic]
        db.session.add(Channel(workspace_id=workspace.id, kind=ChannelKind.SLACK, name="all", shown={}, topics=topics))
        rules.save(workspace.id, AlertKind.CREDITS, True, {"left_usd": Decimal(21), "days": None}, utc_now())
        for usd, period in (800, BudgetPeriod.MONTH), (100, BudgetPeriod.DAY):
            fields = budgets.Fields(f"A {period}", Decimal(usd), period, {}, False, [100], [100])
            budgets.create(workspace.id, fields)
        db.session.commit()
    return one


def _found() -> Iterator[str]:
    """What is in TABLE, as it was."""
    told = set(db.session.execute(select(DeliveryEvent.event_id)).scalars())
    for incident in db.session.execute(select(Incident).order_by(Incident.opened_at, Incident.id)).scalars():
        ends, steps = ["", " not over  "], []
        for event in incident.events:
            said = wording.said(incident.kind, event.what, event.facts, event.marks).title
            said = said.removeprefix("OpenRouter: ").removeprefix("OpenRouter, ")
            day = f" {event.at:%Y-%m-%d} " if event.id in told else f"({event.at:%Y-%m-%d})"
            if event.what is Happened.RESOLVED:
                ends[1] = day
            elif event.what is Happened.OPENED:
                ends[0], first = day, said
            elif event.what is Happened.WORSENED:
                steps.append(f"{day} worse {said}")
        yield f"{ends[0]} {ends[1]} {incident.kind}: {first}"
        yield from steps


class _InProcess(ReadingClient):
    """Asks the sandbox without sockets, which took a third of the time."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._transport = httpx.WSGITransport(app=sandbox)

    def close(self) -> None:
        """There is nothing to close."""

    def _send(self, method: str, url: str, bearer: str, headers: dict[str, str] | None = None, **rest: Any) -> Reply:
        request = httpx.Request(method, url, headers={"Authorization": f"Bearer {bearer}", **(headers or {})}, **rest)
        response = self._transport.handle_request(request)
        return Reply(response.status_code, response.headers, response.read())
