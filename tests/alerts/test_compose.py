"""What a message says: of each kind of delivery, of one alert and of several, and where its links lead."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from grafient.alerts import board, compose
from grafient.alerts.channels import store
from grafient.alerts.findings import Finding
from grafient.alerts.message import Message
from grafient.extensions import db
from grafient.models import Channel, Delivery, Incident, Workspace
from grafient.states import AlertKind, Happened, Sending
from tests.alerts.delivered import credits_of, deliveries, goes_on, opened, resolved, webhook
from tests.stored import add
from tests.syncing import NOON, at, on_sqlite

pytestmark = on_sqlite

BASE = "http://localhost:5000"
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _at_noon(workspace: Workspace) -> Iterator[None]:
    with at():
        yield


@pytest.fixture
def channel(workspace: Workspace) -> Channel:
    return webhook(workspace, "Ops", quiet_from=11, quiet_to=20)


def said(channel: Channel, number: int = -1) -> Message:
    found = compose.of(deliveries(channel)[number], channel)
    assert found is not None
    return found


def facts_of(kind: AlertKind) -> dict[str, Any]:
    """What each kind's finder finds, as far as it is said."""
    common = {"label": "Prod", "provider": "OpenRouter", "usd": "12.5", "expected_usd": "2"}
    more: dict[AlertKind, dict[str, Any]] = {
        AlertKind.BUDGET: {
            "name": "Team", "amount_usd": "100", "spent_usd": "80", "first": "2026-11-01", "period": "month",
        },
        AlertKind.UNUSUAL_DAY: {"of": "model", "name": "gpt-5.4", "day": "2026-11-19"},
        AlertKind.TODAY: {"day": "2026-11-20"},
        AlertKind.NEW: {"of": "model", "id": "openai/gpt-5.4", "name": "gpt-5.4", "day": "2026-11-19",
                        "through": "2026-11-19"},
        AlertKind.CREDITS: credits_of("Prod"),
        AlertKind.NO_SYNC: {"since": "2026-11-19T06:00:00+00:00", "last_read": "2026-11-19T06:00:00+00:00"},
        AlertKind.KEY: {"problem": "needs_key"},
        AlertKind.SILENT: {"who": "The workers have not been running", "since": "2026-11-20T11:45:00+00:00"},
    }  # fmt: skip
    return common | more[kind]


class TestOneAlert:
    @pytest.mark.parametrize(
        ("kind", "title", "line", "link"),
        [
            (AlertKind.BUDGET, "Team: 80% spent, $80.00 of $100.00 (November 2026)", "$20.00 left.", "/alerts"),
            (
                AlertKind.UNUSUAL_DAY,
                "Prod, gpt-5.4: $12.50 on 19 November, $10.50 more than expected",
                "About $2.00 was expected for Thursday, 19 November 2026, from the weeks before.",
                "/days/2026-11-19?integration=1",
            ),
            (
                AlertKind.TODAY,
                "Prod: $12.50 so far on 20 November, more than a whole day is expected to cost",
                "About $2.00 was expected for Friday, 20 November 2026.",
                "/days/2026-11-20?integration=1",
            ),
            (
                AlertKind.NEW,
                "Prod: new model gpt-5.4 has cost $12.50",
                "It was first used on Thursday, 19 November 2026. Costs up to 19 November are counted.",
                "/models/openai/gpt-5.4",
            ),
            (AlertKind.CREDITS, "Prod: $5.00 of credits left, about 3 days", None, "/integrations/1"),
            (
                AlertKind.NO_SYNC,
                "Prod has not been read since 19 November 2026, 06:00 UTC",
                "What it has cost since then is not known.",
                "/integrations/1",
            ),
            (AlertKind.KEY, "Prod: its key was rejected", None, "/integrations/1"),
            (
                AlertKind.SILENT,
                "The workers have not been running since 20 November 2026, 11:45 UTC",
                "Until that is mended, no account is read and no other alert is sent. "
                "The page /readyz says what is missing.",
                "/alerts",
            ),
        ],
    )
    def test_each_kind(
        self, workspace: Workspace, channel: Channel, kind: AlertKind, title: str, line: str | None, link: str
    ) -> None:
        of = None if kind in (AlertKind.BUDGET, AlertKind.SILENT) else add(workspace, "Prod").id
        [incident] = opened(workspace, "one", kind=kind, facts=facts_of(kind), integration_id=of)
        found = said(channel)
        [item] = found.items
        assert (found.title, item.title) == (title, title)
        assert list(item.lines)[:1] == ([] if line is None else [line])
        assert item.link == BASE + link
        assert found.link == f"{BASE}/alerts"
        assert found.type == "alerts"
        assert (item.what, item.key) == (Happened.OPENED, f"grafient-{incident.id}")
        assert item.data["type"] == f"{kind}.opened"
        assert item.data["facts"] == facts_of(kind)
        assert item.data["incident"] == incident.id

    def test_its_answer_link_is_for_this_incident_and_channel(self, workspace: Workspace, channel: Channel) -> None:
        _, two = opened(workspace, "one", "two")
        link = said(channel).items[1].answer
        assert link.startswith(f"{BASE}/alerts/answer/")
        assert board.answered(link.rpartition("/")[2]) == (two, channel)

    def test_none_once_somebody_knows_or_it_is_over(self, workspace: Workspace, channel: Channel) -> None:
        one, two, _three = opened(workspace, "one", "two", "three")
        board.acknowledge(one, "ann@example.com", NOON)
        db.session.commit()
        db.session.execute(update(Incident).where(Incident.id == two.id).values(resolved_at=NOON))
        assert [bool(item.answer) for item in said(channel).items] == [False, False, True]

    def test_what_is_said_again_says_since_when(self, workspace: Workspace, channel: Channel) -> None:
        [one] = opened(workspace, "one")
        db.session.delete(deliveries()[0])
        with at(NOON + 25 * HOUR):
            goes_on(one, Finding(AlertKind.CREDITS, "one", credits_of("one")))
        [item] = said(channel).items
        assert item.what is Happened.REMINDED
        assert item.lines[-1] == "It has been so since 20 November 2026, 12:00 UTC."

    def test_all_steps_that_it_took_while_it_waited_are_one_item(self, workspace: Workspace, channel: Channel) -> None:
        budget = facts_of(AlertKind.BUDGET)
        [one] = opened(workspace, "1", kind=AlertKind.BUDGET, facts=budget, marks=("actual 80",))
        worse = budget | {"spent_usd": "110"}
        with at(NOON + HOUR):
            goes_on(one, Finding(AlertKind.BUDGET, "1", worse, ("actual 80", "actual 100")))
        [item] = said(channel).items
        assert item.title == "Team: over budget by $10.00 ($110.00 of $100.00, November 2026)"
        with at(NOON + 2 * HOUR):
            goes_on(one, Finding(AlertKind.BUDGET, "1", worse | {"is_over": True}, is_over=True))
        [item] = said(channel).items
        assert item.what is Happened.RESOLVED
        assert item.lines[-2:] == [
            "20 November 2026, 12:00 UTC: Team: 80% spent, $80.00 of $100.00 (November 2026)",
            "20 November 2026, 13:00 UTC: Team: over budget by $10.00 ($110.00 of $100.00, November 2026)",
        ]

    def test_what_is_so_again_after_it_was_over_is_two_incidents(self, workspace: Workspace, channel: Channel) -> None:
        [one] = opened(workspace, "one")
        resolved(one)
        opened(workspace, "one")
        assert said(channel).title == "1 alert, 1 over"


class TestSeveral:
    def test_what_is_new_comes_before_what_is_over(self, workspace: Workspace, channel: Channel) -> None:
        one, _two = opened(workspace, "one", "two")
        db.session.delete(deliveries()[0])
        db.session.commit()
        resolved(one)
        opened(workspace, "three")
        found = said(channel)
        assert found.title == "1 alert, 1 over"
        assert [item.what for item in found.items] == [Happened.OPENED, Happened.RESOLVED]
        assert not found.is_good_news

    def test_all_of_it_new_or_all_of_it_over(self, workspace: Workspace, channel: Channel) -> None:
        some = opened(workspace, "one", "two", "three")
        assert said(channel).title == "3 alerts"
        for one in some:
            resolved(one)
        assert said(channel).title == "3 alerts are over"
        assert said(channel).is_good_news

    def test_more_than_50_are_counted(self, workspace: Workspace, channel: Channel) -> None:
        opened(workspace, *map(str, range(51)))
        found = said(channel)
        assert (len(found.items), found.foot) == (50, "1 more is on the page.")
        opened(workspace, "one more")
        assert said(channel).foot == "2 more are on the page."


class TestOtherKinds:
    def test_a_test(self, channel: Channel) -> None:
        store.test(channel)
        found = said(channel)
        assert (found.type, found.title) == ("test", "A test from Grafient")
        assert found.lines == ("Alerts for “Ops” arrive here.",)
        assert found.link == f"{BASE}/alerts"

    def test_that_another_channel_fails(self, workspace: Workspace, channel: Channel) -> None:
        failing = webhook(workspace, "Team\nchat", "other.example.com")
        failing.failing_since = NOON
        delivery = Delivery(
            channel_id=channel.id, uid="msg_1", sending=Sending.FAILING, about={"channel": failing.id}, due_at=NOON,
            created_at=NOON,
        )  # fmt: skip
        found = compose.of(delivery, channel)
        assert found is not None
        assert found.type == "channel.failing"
        assert found.title == "The channel “Team chat” can't be reached"
        assert found.lines == ("Alerts that were meant for it did not arrive. Its page says why.",)
        assert found.link == f"{BASE}/alerts/channels/{failing.id}"
        failing.failing_since = None
        assert compose.of(delivery, channel) is None
        store.delete(failing)
        assert compose.of(delivery, channel) is None


class TestWorkspaces:
    def test_its_name_is_in_each_title(self, workspace: Workspace, channel: Channel) -> None:
        workspace.name = "Acme\nInc."
        db.session.commit()
        opened(workspace, "one")
        assert said(channel).title == "one: $5.00 of credits left, about 3 days · Acme Inc."
        opened(workspace, "two")
        assert said(channel).title == "2 alerts · Acme Inc."
        store.test(channel)
        assert said(channel).title == "A test from Grafient · Acme Inc."

    def test_nothing_of_a_workspace_that_was_deleted(self, workspace: Workspace, channel: Channel) -> None:
        opened(workspace, "one")
        db.session.delete(db.session.get_one(Incident, 1))
        db.session.commit()
        assert compose.of(deliveries()[0], channel) is None


def test_what_anything_is_called_is_one_line_and_not_long(workspace: Workspace, channel: Channel) -> None:
    opened(workspace, "a", facts=credits_of("x\n\n<b>" + "y" * 500 + "\u202e"))
    title = said(channel).title
    assert title.startswith("x <b>yyy")
    assert "\n" not in title
    assert len(title) < 200
    assert title.isprintable()
