"""What is to be sent, and what became of it: nothing is lost, nothing is said twice without need, nobody waits for a
channel that does not answer."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import redis as redis_py
from flask import Flask
from sqlalchemy import event, func, select, text

from grafient import database, jobs
from grafient.alerts import board, compose, incidents, outbox, watch
from grafient.alerts.channels import sending, store
from grafient.alerts.channels.sending import Ended, Outcome
from grafient.alerts.channels.store import Options
from grafient.alerts.findings import Finding
from grafient.extensions import db
from grafient.models import Channel, Delivery, DeliveryEvent, Incident, IncidentEvent, Workspace, utc_now
from grafient.sandbox import Sandbox
from grafient.states import AlertKind, ChannelKind, Sending, Summary, Topic
from tests.alerts.delivered import (
    GATHERED,
    arrived,
    credits_of,
    deliveries,
    goes_on,
    opened,
    resolved,
    sent,
    states,
    uids,
    webhook,
)
from tests.alerts.stand_ins import Internet, Reply, StandIn
from tests.pages import Pages
from tests.statements import asked
from tests.stored import add
from tests.syncing import NOON, at, connect, last_run, on_sqlite

pytestmark = pytest.mark.usefixtures("at_noon")

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


def tries(hook: StandIn, channel: Channel, most: int = 20) -> list[timedelta]:
    """How long it is waited before each further try, as long as none is the last one; nothing is waited for."""
    found = []
    for _ in range(most):
        delivery = deliveries(channel)[-1]
        if delivery.ended_at is not None:
            break
        tried_at = delivery.due_at
        sent(tried_at)
        delivery = deliveries(channel)[-1]
        if delivery.ended_at is None:
            found.append(delivery.due_at - tried_at)
    return found


def utc(moment: str) -> datetime:
    return datetime.fromisoformat(moment).replace(tzinfo=UTC)


def is_about(found: timedelta, wanted: timedelta) -> bool:
    """Within a fifth more; the clock goes on while a test runs."""
    return wanted <= found <= wanted * 1.2 + 20 * SECOND


class TestBeingWritten:
    def test_what_is_to_be_sent_is_written_with_the_incident_or_not_at_all(self, workspace: Workspace) -> None:
        webhook(workspace)
        events = incidents.write(
            workspace.id,
            incidents.step({}, [Finding(AlertKind.CREDITS, "1", credits_of("one"))], [], [], NOON),
            NOON,
        )
        outbox.tell(workspace.id, *events, NOON)
        db.session.rollback()
        for table in (Incident, IncidentEvent, Delivery, DeliveryEvent):
            assert db.session.execute(select(func.count()).select_from(table)).scalar_one() == 0
        opened(workspace, "one")
        for table in (Incident, IncidentEvent, Delivery, DeliveryEvent):
            assert db.session.execute(select(func.count()).select_from(table)).scalar_one() == 1

    def test_a_channel_is_told_of_its_topics_alone(self, workspace: Workspace) -> None:
        one, two = webhook(workspace, topics=(Topic.CREDITS,)), webhook(workspace, "two", topics=(Topic.SPEND,))
        off, elsewhere = webhook(workspace, "off"), Workspace(plan="free")
        store.turn_off(off)
        db.session.add(elsewhere)
        db.session.commit()
        other = webhook(elsewhere)
        opened(workspace, "one")
        assert [len(deliveries(each)) for each in (one, two, off, other)] == [1, 0, 0, 0]

    def test_what_happens_at_once_comes_as_one_message(self, workspace: Workspace, hook: StandIn) -> None:
        channel = webhook(workspace)
        opened(workspace, "a", "b")
        with at(NOON + 40 * SECOND):
            opened(workspace, "c")
        assert [one.due_at - NOON < GATHERED for one in deliveries(channel)] == [True]
        sent(NOON + 50 * SECOND)
        assert hook.requests == []
        sent(NOON + GATHERED)
        assert arrived(hook) == ["3 alerts"]
        assert [item["facts"]["label"] for item in hook.last.json["data"]["items"]] == ["a", "b", "c"]
        assert states() == ["sent"]

    def test_what_happens_while_it_is_tried_again_is_another_message(self, workspace: Workspace, hook: StandIn) -> None:
        """A receiver that keeps what it has got by its id would not look at what was added later."""
        channel = webhook(workspace)
        opened(workspace, "a")
        hook.replies = [Reply(500)]
        sent(NOON + GATHERED)
        with at(NOON + GATHERED):
            opened(workspace, "b")
        assert len(deliveries(channel)) == 2
        sent(NOON + HOUR)
        assert [item["facts"]["label"] for one in hook.requests for item in one.json["data"]["items"]] == [
            "a",
            "a",
            "b",
        ]
        assert uids(hook)[0] == uids(hook)[1] != uids(hook)[2]


class TestQuietHours:
    @pytest.mark.parametrize(
        ("quiet", "happens", "due"),
        [
            ((22, 7), "2026-11-20 21:30", "2026-11-20 21:31"),
            ((22, 7), "2026-11-20 21:59:30", "2026-11-21 07:00"),
            ((22, 7), "2026-11-20 22:00", "2026-11-21 07:00"),
            ((22, 7), "2026-11-21 00:00", "2026-11-21 07:00"),
            ((22, 7), "2026-11-21 06:58", "2026-11-21 07:00"),
            ((22, 7), "2026-11-21 07:00", "2026-11-21 07:01"),
            ((0, 23), "2026-11-20 12:00", "2026-11-20 23:00"),
            ((9, 17), "2026-11-20 12:00", "2026-11-20 17:00"),
            ((9, 17), "2026-11-20 08:00", "2026-11-20 08:01"),
            ((9, 9), "2026-11-20 09:30", "2026-11-20 09:31"),
            ((None, None), "2026-11-20 03:00", "2026-11-20 03:01"),
        ],
    )
    def test_nothing_is_sent_in_them(self, quiet: tuple[int | None, int | None], happens: str, due: str) -> None:
        channel = Channel(quiet_from=quiet[0], quiet_to=quiet[1], alerts_daily=False)
        assert outbox._when(channel, utc(happens) + outbox.GATHER) == utc(due)

    @pytest.mark.parametrize(
        ("quiet", "happens", "due"),
        [
            ((None, None), "2026-11-20 12:00", "2026-11-21 07:00"),
            ((None, None), "2026-11-20 06:00", "2026-11-20 07:00"),
            ((20, 9), "2026-11-20 06:00", "2026-11-20 09:00"),
            ((20, 9), "2026-11-20 12:00", "2026-11-21 09:00"),
        ],
    )
    def test_once_a_day(self, quiet: tuple[int | None, int | None], happens: str, due: str) -> None:
        channel = Channel(quiet_from=quiet[0], quiet_to=quiet[1], alerts_daily=True)
        assert outbox._when(channel, utc(happens) + outbox.GATHER) == utc(due)

    def test_nor_is_anything_tried_again_in_them(self, workspace: Workspace, hook: StandIn) -> None:
        """It failed before they began, or no worker was there then."""
        channel = webhook(workspace, quiet_from=13, quiet_to=15)
        opened(workspace, "one")
        hook.replies = [Reply(500)]
        sent(NOON + GATHERED)
        sent(NOON + 90 * MINUTE)
        [delivery] = deliveries(channel)
        assert len(hook.requests) == 1
        assert (delivery.due_at, delivery.attempts) == (NOON + 3 * HOUR, 1)
        sent(NOON + 3 * HOUR)
        assert states() == ["sent"]

    def test_what_happens_then_is_added(self, workspace: Workspace, hook: StandIn) -> None:
        webhook(workspace, quiet_from=13, quiet_to=15)
        opened(workspace, "one")
        sent(NOON + 90 * MINUTE)
        with at(NOON + 2 * HOUR):
            opened(workspace, "two")
        sent(NOON + 3 * HOUR)
        assert arrived(hook) == ["2 alerts"]

    def test_a_test_is_sent_then_too(self, workspace: Workspace, hook: StandIn) -> None:
        """Somebody waits for it."""
        store.test(webhook(workspace, quiet_from=11, quiet_to=15))
        sent(NOON + SECOND)
        assert arrived(hook) == ["A test from Grafient"]


class TestTryingAgain:
    def test_a_webhook_as_standard_webhooks_has_it(self, workspace: Workspace, hook: StandIn) -> None:
        channel = webhook(workspace)
        opened(workspace, "one")
        hook.reply = Reply(500)
        pauses = tries(hook, channel)
        wanted = [5 * SECOND, 5 * MINUTE, 30 * MINUTE, *(hours * HOUR for hours in (2, 5, 10, 14, 20, 24))]
        assert len(pauses) == len(wanted)
        assert all(map(is_about, pauses, wanted)), pauses
        assert len(hook.requests) == 10
        assert len(set(uids(hook))) == 1
        [delivery] = deliveries(channel)
        assert (delivery.state, delivery.outcome) == ("failed", "The webhook answered 500: it had a fault of its own.")

    def test_not_all_at_the_same_moment(self, workspace: Workspace, hook: StandIn) -> None:
        for number in range(8):
            webhook(workspace, str(number))
        opened(workspace, "one")
        hook.reply = Reply(500)
        sent(NOON + GATHERED)
        sent(NOON + GATHERED + MINUTE)
        pauses = {round((one.due_at - NOON).total_seconds() / 2) for one in deliveries()}
        assert len(pauses) > 3

    def test_all_else_for_a_day(self, workspace: Workspace, settings: dict[str, str]) -> None:
        channel, _ = store.create(workspace.id, ChannelKind.EMAIL, "", {"addresses": "a@example.com"}, Options())
        opened(workspace, "one")
        first = deliveries()[0].due_at
        pauses = []
        while (delivery := deliveries(channel)[0]).ended_at is None:
            pauses.append(delivery.due_at - first)
            sent(delivery.due_at)
        assert (delivery.state, delivery.attempts) == ("failed", 7)
        assert delivery.outcome == "No mail server is set up. The operator of this Grafient can do that."
        assert 17 * HOUR < pauses[-1] < DAY

    @pytest.mark.parametrize(("says", "waits"), [("900", 15 * MINUTE), ("1", 5 * SECOND), ("9999999", DAY)])
    def test_not_before_the_other_end_wants_it(
        self, workspace: Workspace, hook: StandIn, says: str, waits: timedelta
    ) -> None:
        channel = webhook(workspace)
        opened(workspace, "one")
        hook.replies = [Reply(429, {"Retry-After": says})]
        sent(NOON + GATHERED)
        [delivery] = deliveries(channel)
        assert is_about(delivery.due_at - NOON - GATHERED, waits)
        sent(delivery.due_at - SECOND)
        assert len(hook.requests) == 1
        sent(delivery.due_at)
        assert states() == ["sent"]

    def test_a_test_is_tried_once(self, workspace: Workspace, hook: StandIn) -> None:
        channel, _other = webhook(workspace), webhook(workspace, "other")
        hook.reply = Reply(404)
        store.test(channel)
        sent(NOON + SECOND)
        assert states() == ["failed"]
        assert deliveries()[0].outcome == "The webhook answered 404: nothing is at this address."

    def test_what_was_sent_is_not_sent_again(self, workspace: Workspace, hook: StandIn) -> None:
        webhook(workspace)
        opened(workspace, "one")
        for hours in range(1, 4):
            sent(NOON + hours * HOUR)
        assert len(hook.requests) == 1

    def test_a_digest_that_waited_for_days_is_tried_for_a_day_all_the_same(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        channel, _ = store.create(
            workspace.id, ChannelKind.EMAIL, "", {"addresses": "a@example.com"}, Options(summary=Summary.MONTHLY)
        )
        due = channel.summary_at
        assert due is not None
        outbox.add_digests(due)
        db.session.commit()
        of = compose.of

        def early(delivery: Delivery, channel: Channel) -> object:
            raise outbox.TooEarly

        monkeypatch.setattr(compose, "of", early)
        for hours in range(0, 49, 6):
            sent(due + hours * HOUR + MINUTE)
        assert [(one.state, one.attempts, one.tried_at) for one in deliveries()] == [("due", 0, None)]
        monkeypatch.setattr(compose, "of", lambda delivery, channel: of(*_as_a_test(delivery, channel)))
        sent(due + 55 * HOUR)
        assert states() == ["due"]


def _as_a_test(delivery: Delivery, channel: Channel) -> tuple[Delivery, Channel]:
    """For what is not about what a digest says, which takes an account with costs."""
    if delivery.sending is not Sending.DIGEST:
        return delivery, channel
    return Delivery(uid=delivery.uid, sending=Sending.TEST, created_at=delivery.created_at), channel


class TestFailing:
    @pytest.fixture
    def mine(self, internet: Internet) -> StandIn:
        return internet.machine("mine.example.com")

    def test_one_that_is_gone_is_turned_off_and_said_on_another_once(
        self, workspace: Workspace, hook: StandIn, mine: StandIn
    ) -> None:
        channel, other = webhook(workspace, "Ops"), webhook(workspace, "Mine", "mine.example.com", topics=())
        opened(workspace, "one")
        hook.reply = Reply(410)
        sent(NOON + GATHERED)
        sent(NOON + HOUR)
        assert (channel.disabled_at is not None, channel.disabled_why) == (
            True,
            "The webhook answered 410: it says that this address is gone for good.",
        )
        assert (states(channel), states(other)) == (["failed"], ["sent"])
        assert arrived(mine) == ["The channel “Ops” can't be reached"]
        with at(NOON + HOUR):
            opened(workspace, "two")
        sent(NOON + 2 * HOUR)
        assert (len(hook.requests), len(mine.requests)) == (1, 1)

    def test_also_if_it_was_a_digest(
        self, workspace: Workspace, hook: StandIn, mine: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No alert is ever noted for a channel that is off, so nobody would hear of it otherwise."""
        channel = webhook(workspace, "Ops", summary=Summary.DAILY)
        webhook(workspace, "Mine", "mine.example.com", topics=())
        assert channel.summary_at is not None
        outbox.add_digests(channel.summary_at)
        db.session.commit()
        hook.reply = Reply(410)
        of = compose.of
        monkeypatch.setattr(compose, "of", lambda *which: of(*_as_a_test(*which)))
        sent(channel.summary_at)
        sent(channel.summary_at + HOUR)
        assert arrived(mine) == ["The channel “Ops” can't be reached"]

    def test_one_that_fails_for_a_day_is_said_on_another_once(
        self, workspace: Workspace, hook: StandIn, mine: StandIn
    ) -> None:
        channel = webhook(workspace, "Ops")
        webhook(workspace, "Mine", "mine.example.com", topics=())
        opened(workspace, "one")
        hook.reply = Reply(503)
        sent(NOON + GATHERED)
        since = channel.failing_since
        assert since is not None
        assert since - NOON - GATHERED < 10 * SECOND
        for hours in range(1, 24, 3):
            sent(NOON + hours * HOUR)
        assert mine.requests == []
        for hours in range(24, 72, 6):
            with at(NOON + hours * HOUR):
                opened(workspace, str(hours))
            sent(NOON + hours * HOUR + GATHERED)
        assert channel.failing_since == since
        assert arrived(mine) == ["The channel “Ops” can't be reached"]
        hook.reply = Reply(200)
        sent(NOON + 8 * DAY)
        assert channel.failing_since is None

    def test_and_again_once_it_worked_in_between(self, workspace: Workspace, hook: StandIn, mine: StandIn) -> None:
        webhook(workspace, "Ops")
        webhook(workspace, "Mine", "mine.example.com", topics=())
        for day in (0, 10):
            with at(NOON + day * DAY):
                opened(workspace, str(day))
            hook.reply = Reply(503)
            for hours in (1, 2, 26, 50):
                sent(NOON + day * DAY + hours * HOUR)
            hook.reply = Reply(200)
            sent(NOON + (day + 5) * DAY)
        assert arrived(mine) == ["The channel “Ops” can't be reached"] * 2

    def test_it_is_not_said_any_more_once_it_works(self, workspace: Workspace, hook: StandIn, mine: StandIn) -> None:
        channel = webhook(workspace, "Ops")
        other = webhook(workspace, "Mine", "mine.example.com", topics=(), quiet_from=10, quiet_to=20)
        opened(workspace, "one")
        hook.reply = Reply(410)
        sent(NOON + GATHERED)
        store.turn_on(channel)
        sent(NOON + 9 * HOUR)
        assert (states(other), mine.requests) == (["dropped"], [])

    def test_not_on_one_that_fails_as_well(self, workspace: Workspace, hook: StandIn) -> None:
        webhook(workspace, "Ops")
        webhook(workspace, "Other")
        opened(workspace, "one")
        hook.reply = Reply(503)
        for hours in range(1, 160, 12):
            sent(NOON + hours * HOUR)
        assert states() == ["failed", "failed"]

    @on_sqlite
    def test_the_page_says_since_when(self, app: Flask, pages: Pages, hook: StandIn) -> None:
        hook.reply = Reply(500)
        with app.app_context():
            workspace = db.session.execute(select(Workspace)).scalar_one()
            webhook(workspace, "Ops")
            opened(workspace, "one")
            sent(NOON + GATHERED)
        shown = pages.get("/alerts").text
        assert "Failing" in shown
        assert "Since " in shown

    def test_settings_that_do_not_open_are_tried_for_as_long(self, workspace: Workspace, hook: StandIn) -> None:
        channel = webhook(workspace)
        opened(workspace, "one")
        channel.config_ciphertext = b"spoilt"
        db.session.commit()
        sent(NOON + GATHERED)
        [delivery] = deliveries()
        assert (delivery.state, delivery.attempts) == ("due", 1)
        assert delivery.outcome
        assert channel.failing_since is not None


class TestNothingToSay:
    def test_a_channel_that_was_turned_off(self, workspace: Workspace, hook: StandIn) -> None:
        channel = webhook(workspace)
        opened(workspace, "one")
        store.turn_off(channel)
        sent(NOON + GATHERED)
        [delivery] = deliveries()
        assert (delivery.state, delivery.outcome) == ("dropped", "The channel was turned off.")
        assert hook.requests == []

    def test_a_channel_that_was_deleted(self, workspace: Workspace, hook: StandIn) -> None:
        channel = webhook(workspace)
        opened(workspace, "one")
        store.delete(channel)
        sent(NOON + GATHERED)
        assert hook.requests == []

    def test_a_channel_that_is_deleted_while_it_is_sent_to(
        self, workspace: Workspace, hook: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        channel, send = webhook(workspace), sending.send

        def and_delete(*args: object, **options: object) -> Outcome:
            store.delete(channel)
            return send(*args, **options)  # type: ignore[arg-type]

        opened(workspace, "one")
        monkeypatch.setattr(sending, "send", and_delete)
        sent(NOON + GATHERED)
        assert (len(hook.requests), deliveries()) == (1, [])

    def test_a_snoozed_incident(self, workspace: Workspace, hook: StandIn) -> None:
        channel = webhook(workspace)
        one, _ = opened(workspace, "one", "two")
        board.snooze(one, 1, NOON)
        db.session.commit()
        sent(NOON + GATHERED)
        assert [item["facts"]["label"] for item in hook.last.json["data"]["items"]] == ["two"]
        with at(NOON + HOUR):
            [three] = opened(workspace, "three")
            board.snooze(three, 7, utc_now())
            db.session.commit()
        sent(NOON + 2 * HOUR)
        assert states(channel) == ["sent", "dropped"]
        assert deliveries()[1].outcome == "There was nothing left to say."

    def test_what_was_over_while_the_message_waited_says_so(self, workspace: Workspace, hook: StandIn) -> None:
        webhook(workspace, quiet_from=11, quiet_to=20)
        [one] = opened(workspace, "one")
        with at(NOON + HOUR):
            resolved(one)
        sent(NOON + 8 * HOUR)
        [item] = hook.last.json["data"]["items"]
        assert (item["what"], item["title"]) == ("resolved", "one: $5.00 of credits left again")
        assert item["lines"] == ["20 November 2026, 12:00 UTC: one: $5.00 of credits left, about 3 days"]
        assert item["answer"] == ""

    def test_also_if_it_was_being_tried_again(self, workspace: Workspace, hook: StandIn) -> None:
        webhook(workspace)
        [one] = opened(workspace, "one")
        hook.replies = [Reply(500)]
        sent(NOON + GATHERED)
        with at(NOON + GATHERED):
            resolved(one)
        sent(NOON + GATHERED + HOUR)
        assert [item["what"] for each in hook.requests for item in each.json["data"]["items"]] == [
            "opened", "opened", "resolved",
        ]  # fmt: skip
        late = hook.requests[1].json["data"]["items"][0]
        assert late["lines"][-1] == "It was over at 20 November 2026, 12:01 UTC."

    def test_what_got_worse_while_it_waited_is_said_as_it_is_now(self, workspace: Workspace, hook: StandIn) -> None:
        webhook(workspace)
        [one] = opened(workspace, "one")
        goes_on(one, Finding(AlertKind.CREDITS, "one", credits_of("one", "-1"), ("found", "gone")))
        sent(NOON + GATHERED)
        [item] = hook.last.json["data"]["items"]
        assert (item["what"], item["title"]) == ("worsened", "one: no credits left")


class TestWorkers:
    @on_postgresql
    def test_two_that_look_at_once_send_once(
        self, context: Flask, workspace: Workspace, hook: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(12):
            webhook(workspace, str(number))
        opened(workspace, "one")
        together = threading.Barrier(4)
        claim = outbox._claim

        def at_once(now: datetime) -> tuple[int, int] | None:
            with contextlib.suppress(threading.BrokenBarrierError):
                together.wait(0.2)
            return claim(now)

        def work(_number: int) -> None:
            with context.app_context():
                outbox.send_due()

        monkeypatch.setattr(outbox, "_claim", at_once)
        with at(NOON + GATHERED), ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert states() == ["sent"] * 12
        assert len(uids(hook)) == len(set(uids(hook))) == 12

    @on_postgresql
    def test_a_channel_that_is_deleted_while_a_failure_is_noted(
        self, context: Flask, workspace: Workspace, hook: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each waited for what the other one held, until PostgreSQL ended one of them with an error."""
        channel_id, hook.reply = webhook(workspace).id, Reply(500)
        opened(workspace, "one")
        note, deletes = outbox._note_outcome, []

        def delete() -> None:
            with context.app_context():
                store.delete(db.session.get_one(Channel, channel_id))

        def meanwhile(*which: object) -> None:
            deletes.append(pool.submit(delete))
            threading.Event().wait(0.5)
            note(*which)  # type: ignore[arg-type]

        monkeypatch.setattr(outbox, "_note_outcome", meanwhile)
        with ThreadPoolExecutor(1) as pool:
            sent(NOON + GATHERED)
        [done] = deletes
        done.result()
        assert deliveries() == []

    @pytest.mark.parametrize("moment", ["before it is sent", "after it is sent"])
    def test_one_that_dies_sends_it_twice_at_most(
        self, workspace: Workspace, hook: StandIn, monkeypatch: pytest.MonkeyPatch, moment: str
    ) -> None:
        webhook(workspace)
        opened(workspace, "one")
        send = sending.send

        def dies(*args: object, **options: object) -> Outcome:
            if moment == "after it is sent":
                send(*args, **options)  # type: ignore[arg-type]
            raise KeyboardInterrupt

        monkeypatch.setattr(sending, "send", dies)
        with pytest.raises(KeyboardInterrupt):
            sent(NOON + GATHERED)
        monkeypatch.setattr(sending, "send", send)
        db.session.remove()
        sent(NOON + GATHERED + outbox.LEASE - 10 * SECOND)
        assert states() == ["due"]
        sent(NOON + GATHERED + outbox.LEASE + 10 * SECOND)
        assert states() == ["sent"]
        assert len(uids(hook)) == (2 if moment == "after it is sent" else 1)
        assert len(set(uids(hook))) == 1

    def test_one_that_is_killed_while_it_sends(
        self, context: Flask, workspace: Workspace, hook: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A real process, and SIGKILL: what a database has of its connections ends with it."""
        webhook(workspace)
        opened(workspace, "one")
        send = sending.send
        db.session.remove()
        db.engine.dispose()

        def killed(*args: object, **options: object) -> Outcome:
            send(*args, **options)  # type: ignore[arg-type]
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

        child = os.fork()
        if not child:
            monkeypatch.setattr(sending, "send", killed)
            try:
                sent(NOON + GATHERED)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert states() == ["due"]
        sent(NOON + GATHERED + outbox.LEASE + 10 * SECOND)
        assert states() == ["sent"]
        assert len(uids(hook)) == 2
        assert len(set(uids(hook))) == 1

    @pytest.mark.parametrize(("status", "state"), [(200, "sent"), (500, "due")])
    def test_who_comes_back_after_another_has_tried_it_changes_nothing(
        self, workspace: Workspace, hook: StandIn, monkeypatch: pytest.MonkeyPatch, status: int, state: str
    ) -> None:
        """A process that was stopped for longer than its lease, as on a laptop that was closed."""
        hook.reply = Reply(status)
        channel = webhook(workspace)
        opened(workspace, "one")
        send = sending.send

        def stopped(*args: object, **options: object) -> Outcome:
            monkeypatch.setattr(sending, "send", send)
            sent(NOON + GATHERED + outbox.LEASE + 10 * SECOND)
            return Outcome(Ended.GONE, "Too late.")

        monkeypatch.setattr(sending, "send", stopped)
        sent(NOON + GATHERED)
        assert (states(), channel.disabled_at, deliveries()[0].outcome != "Too late.") == ([state], None, True)

    def test_no_transaction_is_open_while_the_other_end_is_waited_for(
        self, workspace: Workspace, hook: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen, send = [], sending.send

        def looked_at(*args: object, **options: object) -> Outcome:
            seen.append(db.session().in_transaction())
            return send(*args, **options)  # type: ignore[arg-type]

        webhook(workspace)
        opened(workspace, "one")
        monkeypatch.setattr(sending, "send", looked_at)
        sent(NOON + GATHERED)
        assert seen == [False]

    @on_sqlite
    def test_nobody_is_kept_from_writing_while_a_message_is_written(
        self, workspace: Workspace, hook: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A digest adds up a month; on SQLite a transaction that may write keeps all others out."""
        seen, of = [], compose.of
        monkeypatch.setattr(compose, "of", lambda *which: (seen.append(database.reading.get()), of(*which))[1])
        webhook(workspace)
        opened(workspace, "one")
        sent(NOON + GATHERED)
        assert seen == [True]

    def test_many_that_do_not_answer_keep_a_job_for_a_minute(
        self, workspace: Workspace, hook: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        webhook(workspace)
        webhook(workspace, "two")
        opened(workspace, "one")
        monkeypatch.setattr(outbox, "SEND_SECONDS", 0.001)
        sent(NOON + GATHERED)
        assert len(hook.requests) == 1
        sent(NOON + GATHERED)
        assert states() == ["sent", "sent"]

    def test_an_emptied_redis_loses_nothing(self, workspace: Workspace, hook: StandIn, redis: redis_py.Redis) -> None:
        webhook(workspace)
        opened(workspace, "one")
        redis.flushall()
        with at(NOON + GATHERED):
            assert outbox.count_due(utc_now()) == 1
        sent(NOON + GATHERED)
        assert states() == ["sent"]


class TestFaultsOfOurOwn:
    @pytest.fixture
    def faulty(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Channel:
        """A channel whose messages can't be written."""
        channel, of = webhook(workspace, "Faulty"), compose.of

        def written(delivery: Delivery, to: Channel) -> object:
            if to.id == channel.id:
                raise KeyError("usd")
            return of(delivery, to)

        monkeypatch.setattr(compose, "of", written)
        return channel

    def test_a_message_that_cannot_be_written_keeps_no_other_waiting(
        self, workspace: Workspace, hook: StandIn, faulty: Channel
    ) -> None:
        other = webhook(workspace, "Other")
        opened(workspace, "one")
        sent(NOON + GATHERED)
        assert (states(faulty), states(other)) == (["due"], ["sent"])

    def test_it_is_not_lost_in_silence(self, workspace: Workspace, hook: StandIn, faulty: Channel) -> None:
        webhook(workspace, "Other")
        opened(workspace, "one")
        tries(hook, faulty)
        [delivery] = deliveries(faulty)
        assert (delivery.state, delivery.attempts) == ("failed", 10)
        assert delivery.outcome == "Grafient itself failed; the worker's log says why."
        sent(NOON + 5 * DAY)
        assert arrived(hook) == ["one: $5.00 of credits left, about 3 days", "The channel “Faulty” can't be reached"]

    def test_one_at_which_each_worker_ends_is_given_up(
        self, workspace: Workspace, hook: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        webhook(workspace)
        opened(workspace, "one")

        def out_of_memory(*_which: object) -> object:
            raise KeyboardInterrupt

        monkeypatch.setattr(compose, "of", out_of_memory)
        for number in range(outbox.MOST_TRIES):
            with pytest.raises(KeyboardInterrupt):
                sent(NOON + GATHERED + number * 5 * MINUTE)
            db.session.remove()
        sent(NOON + DAY)
        [delivery] = deliveries()
        assert (delivery.state, delivery.outcome) == ("failed", "The worker ended at each try; its log says why.")

    def test_facts_of_another_version_are_sent_without_them(self, workspace: Workspace, hook: StandIn) -> None:
        webhook(workspace)
        kinds = [kind for kind in AlertKind if kind is not AlertKind.BUDGET]
        for kind in kinds:
            opened(workspace, str(kind), kind=kind, facts={"as_of": "of another version"})
        sent(NOON + GATHERED)
        assert states() == ["sent"]
        assert len(hook.last.json["data"]["items"]) == len(kinds)

    @on_sqlite
    def test_a_workspace_that_cannot_be_looked_at_keeps_nobody_else_waiting(
        self, app: Flask, workspace: Workspace, hook: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither those who are to be told, nor the syncs that the same job does."""
        other = Workspace(plan="free")
        db.session.add(other)
        db.session.commit()
        for one in (workspace, other):
            add(one, "one", last_success_at=NOON)
        webhook(workspace)
        opened(workspace, "one")
        look, faulty_id = watch.look, workspace.id

        def faulty(workspace_id: int, now: datetime | None = None) -> None:
            if workspace_id == faulty_id:
                raise KeyError("usd")
            look(workspace_id, now)

        monkeypatch.setattr(watch, "look", faulty)
        db.session.commit()
        with at(NOON + GATHERED):
            jobs.sync_due()
        assert states() == ["sent"]
        assert watch.due(NOON + GATHERED) == [faulty_id]

    @on_sqlite
    def test_a_look_after_a_sync_that_fails_is_no_fault_of_the_sync(
        self, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def faulty(_integration_id: int) -> None:
            raise KeyError("usd")

        monkeypatch.setattr(watch, "look_after_sync", faulty)
        integration = connect(workspace, sandbox)
        jobs.sync_due()
        assert last_run(integration).status == "done"


class TestSize:
    @on_sqlite
    def test_a_thousand_alerts_are_one_message_of_a_readable_length(
        self, app: Flask, workspace: Workspace, hook: StandIn
    ) -> None:
        webhook(workspace, topics=tuple(Topic))
        opened(workspace, *(f"{number}" + "x" * 400 for number in range(1000)))
        with at(NOON + GATHERED), asked(app) as statements:
            outbox.send_due()
        assert len(statements) < 25
        assert arrived(hook) == ["1000 alerts"]
        assert len(hook.last.json["data"]["items"]) == 50
        assert hook.last.json["data"]["foot"] == "950 more are on the page."
        assert len(hook.last.body) < 100_000

    def test_what_is_due_is_found_in_its_index(self, workspace: Workspace, hook: StandIn) -> None:
        webhook(workspace)
        opened(workspace, "one")
        plans = []

        def explain(connection: object, _cursor: object, statement: str, parameters: object, *_rest: object) -> None:
            if statement.startswith("SELECT") and "FROM delivery " in statement.replace("\n", " ") + " ":
                prefix = "EXPLAIN QUERY PLAN " if db.engine.dialect.name == "sqlite" else "EXPLAIN "
                assert "delivery.state = 'due'" in statement, "a prepared plan of PostgreSQL's knows no bound value"
                seen = connection.exec_driver_sql(prefix + statement, parameters)  # type: ignore[attr-defined]
                plans.append(" ".join(str(row) for row in seen))

        db.session.execute(text("SELECT 1"))
        if db.engine.dialect.name == "postgresql":
            db.session.execute(text("SET enable_seqscan = off"))
            db.session.execute(text("SET enable_indexscan = on"))
        event.listen(db.engine, "before_cursor_execute", explain)
        try:
            assert outbox.count_due(NOON + HOUR) == 1
        finally:
            event.remove(db.engine, "before_cursor_execute", explain)
            if db.engine.dialect.name == "postgresql":
                db.session.execute(text("RESET enable_seqscan"))
        assert len(plans) == 1
        assert "ix_delivery_due_at" in plans[0]


class TestForgetting:
    def test_what_was_sent_is_forgotten_after_90_days_and_what_is_due_is_not(
        self, workspace: Workspace, hook: StandIn
    ) -> None:
        webhook(workspace)
        opened(workspace, "one")
        sent(NOON + GATHERED)
        with at(NOON + HOUR):
            opened(workspace, "two")
        outbox.sweep(NOON + 90 * DAY - MINUTE)
        assert len(deliveries()) == 2
        outbox.sweep(NOON + 91 * DAY)
        assert states() == ["due"]
        assert db.session.execute(select(func.count()).select_from(DeliveryEvent)).scalar_one() == 1

    def test_incidents_that_ended_a_year_ago(self, workspace: Workspace) -> None:
        webhook(workspace)
        over, _lasts = opened(workspace, "over", "lasts")
        with at(NOON + HOUR):
            resolved(over)
        outbox.sweep(NOON + 365 * DAY)
        assert db.session.execute(select(func.count()).select_from(Incident)).scalar_one() == 2
        outbox.sweep(NOON + 367 * DAY)
        db.session.commit()
        assert db.session.execute(select(Incident.subject)).scalars().all() == ["lasts"]
        assert db.session.execute(select(func.count()).select_from(IncidentEvent)).scalar_one() == 1

    def test_a_restored_backup_sends_nothing_that_was_due(self, workspace: Workspace, hook: StandIn) -> None:
        channel = webhook(workspace, summary=Summary.DAILY)
        opened(workspace, "one")
        with at(NOON + 3 * DAY):
            outbox.forget_every()
            db.session.commit()
            assert outbox.add_digests(utc_now()) == 0
        sent(NOON + 3 * DAY)
        [delivery] = deliveries()
        assert (delivery.state, delivery.outcome) == ("dropped", "A backup was restored.")
        assert channel.summary_at == datetime(2026, 11, 24, 7, tzinfo=UTC)
        assert hook.requests == []
