"""Workers that are silent: nobody but the web process can say so, and it says it once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from grafient import jobs, web
from grafient.alerts import incidents, outbox, rules
from grafient.alerts.channels import store
from grafient.extensions import db
from grafient.jobs import alerting, readiness
from grafient.models import Incident, Workspace, utc_now
from grafient.states import AlertKind, Topic
from tests.alerts.delivered import arrived, states, webhook
from tests.alerts.stand_ins import StandIn
from tests.stored import add
from tests.syncing import NOON, at, on_sqlite
from tests.workers import until

MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _at_noon(workspace: Workspace) -> Iterator[None]:
    with at():
        yield


@pytest.fixture
def health(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is wrong, as the page /readyz has it; for tests to change."""
    found = {"worker": "no worker was seen in the last 3 minutes"}
    monkeypatch.setattr(readiness, "health", lambda: found)
    return found


@pytest.fixture
def told(workspace: Workspace, hook: StandIn) -> Workspace:
    """A workspace with an account and a channel."""
    add(workspace, "one")
    webhook(workspace)
    return workspace


def look(minutes: float, since: float = 0) -> bool:
    with at(NOON + minutes * MINUTE):
        return jobs.say_silence(NOON + since * MINUTE)


def silences(**of: object) -> list[Incident]:
    db.session.rollback()
    query = select(Incident).where(Incident.kind == AlertKind.SILENT).order_by(Incident.id).filter_by(**of)
    return list(db.session.execute(query).scalars())


class TestWhen:
    def test_once_it_lasted_for_ten_minutes(self, told: Workspace, health: dict[str, str]) -> None:
        assert look(9.9)
        assert silences() == []
        assert look(10)
        [one] = silences()
        assert (one.workspace_id, one.resolved_at) == (told.id, None)
        assert one.facts == {"who": "The workers have not been running", "since": "2026-11-20T12:00:00+00:00"}

    def test_not_at_the_first_look(self, told: Workspace, health: dict[str, str]) -> None:
        """Whoever looks for the first time does not know since when."""
        assert jobs.say_silence(None)
        assert silences() == []

    def test_once(self, told: Workspace, hook: StandIn, health: dict[str, str]) -> None:
        for minutes in range(9, 60, 10):
            look(minutes)
        assert len(silences()) == 1
        assert arrived(hook) == ["The workers have not been running since 20 November 2026, 12:00 UTC"]

    def test_sent_by_who_says_it_since_nobody_else_is_there(
        self, told: Workspace, hook: StandIn, health: dict[str, str]
    ) -> None:
        look(10)
        assert (states(), hook.requests) == (["due"], [])
        look(12)
        assert states() == ["sent"]

    @pytest.mark.parametrize(
        ("wrong", "who"),
        [
            ("scheduler", "The scheduler has not been running"),
            ("redis", "Redis has not answered"),
            ("worker", "The workers have not been running"),
        ],
    )
    def test_who(self, told: Workspace, health: dict[str, str], wrong: str, who: str) -> None:
        health.clear()
        health[wrong] = "no"
        look(10)
        assert [one.facts["who"] for one in silences()] == [who]

    def test_a_full_disk_is_none_of_it(self, told: Workspace, health: dict[str, str]) -> None:
        health.clear()
        health["disk"] = "full"
        assert not look(60)
        assert silences() == []

    def test_as_the_rule_says(self, told: Workspace, health: dict[str, str]) -> None:
        rules.save(told.id, AlertKind.SILENT, True, {"minutes": 30}, NOON)
        db.session.commit()
        look(29)
        assert silences() == []
        look(30)
        assert len(silences()) == 1

    def test_not_if_the_rule_is_off(self, told: Workspace, health: dict[str, str]) -> None:
        rules.save(told.id, AlertKind.SILENT, False, {"minutes": 10}, NOON)
        db.session.commit()
        look(60)
        assert silences() == []

    def test_not_where_no_account_is_or_nobody_any_more(self, workspace: Workspace, health: dict[str, str]) -> None:
        gone = Workspace(plan="free", deleted_at=NOON)
        db.session.add(gone)
        db.session.commit()
        add(gone, "one")
        add(workspace, "removed", removed_at=NOON)
        db.session.commit()
        look(60)
        assert silences() == []

    def test_only_to_channels_that_want_to_know(self, told: Workspace, hook: StandIn, health: dict[str, str]) -> None:
        webhook(told, "two", topics=(Topic.SPEND,))
        look(10)
        look(20)
        assert len(hook.requests) == 1


class TestTheEnd:
    def test_it_is_over_once_they_are_back(self, told: Workspace, hook: StandIn, health: dict[str, str]) -> None:
        look(10)
        look(12)
        health.clear()
        assert not look(14)
        assert not look(15)
        [one] = silences()
        assert one.resolved_at is not None
        with at(NOON + 17 * MINUTE):
            outbox.send_due()
        assert arrived(hook)[1:] == ["Workers and scheduler run again"]
        health["worker"] = "no"
        look(40, since=30)
        assert len(silences()) == 2

    def test_also_in_a_workspace_whose_channel_is_off(self, told: Workspace, health: dict[str, str]) -> None:
        look(10)
        store.turn_off(webhook(told, "off"))
        health.clear()
        look(14)
        assert len(silences(resolved_at=None)) == 0


class TestMany:
    def test_workspaces_whose_rule_waits_longer_do_not_hide_the_others(
        self, workspace: Workspace, health: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They came first each time, and with 500 of them nobody else was ever told."""
        monkeypatch.setattr(alerting, "MOST_WORKSPACES", 2)
        several = [workspace, *(Workspace(plan="free") for _ in range(5))]
        db.session.add_all(several)
        db.session.commit()
        for one in several:
            add(one, "one")
        for one, is_on, minutes in ((several[0], False, 10), (several[1], True, 600)):
            rules.save(one.id, AlertKind.SILENT, is_on, {"minutes": minutes}, NOON)
        db.session.commit()
        look(10)
        assert [one.workspace_id for one in silences()] == [one.id for one in several[2:4]]
        look(11)
        assert [one.workspace_id for one in silences()] == [one.id for one in several[2:6]]
        health.clear()
        for minutes in (12, 13):
            look(minutes)
        assert silences(resolved_at=None) == []

    def test_two_machines_that_look_at_once_say_it_once(
        self, told: Workspace, health: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = Workspace(plan="free")
        db.session.add(other)
        db.session.commit()
        add(other, "one")
        db.session.commit()
        step = incidents.step

        def after_another(*which: object) -> object:
            monkeypatch.setattr(incidents, "step", step)
            db.session.rollback()
            look(10)
            return step(*which)  # type: ignore[arg-type]

        monkeypatch.setattr(incidents, "step", after_another)
        assert look(10)
        assert sorted(one.workspace_id for one in silences()) == [told.id, other.id]
        assert states() == ["due"]


@on_sqlite
class TestTheWebProcess:
    """The process that has the others started looks by means of one that ends."""

    @pytest.fixture
    def crew(self, app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[web._Crew]:
        monkeypatch.setattr(web._Crew, "LOOK_SECONDS", 0.0)
        found = web._Crew(app)
        yield found
        if found._child is not None:
            found._child.kill()
            found._child.join()

    def looks(self, crew: web._Crew, minutes: float) -> int:
        """A look at that moment, to its end; what the process ended with."""
        db.session.remove()
        db.engine.dispose()
        with at(NOON + minutes * MINUTE):
            if crew._child is not None:
                crew._child.join(60)
            crew.look()
            child = crew._child
            assert child is not None
            return child.wait(60)

    def test_it_says_that_no_worker_is_there(self, crew: web._Crew, told: Workspace, hook: StandIn) -> None:
        """Redis is there, and empty."""
        codes = [self.looks(crew, minutes) for minutes in (0, 1, 10.9, 11.5, 13)]
        assert codes == [web._SILENT] * 5
        assert len(silences()) == 1
        assert arrived(hook) == ["The workers have not been running since 20 November 2026, 12:01 UTC"]

    def test_and_that_they_are_back(self, crew: web._Crew, told: Workspace, health: dict[str, str]) -> None:
        assert [self.looks(crew, minutes) for minutes in (0, 1, 12)] == [web._SILENT] * 3
        assert len(silences(resolved_at=None)) == 1
        health.clear()
        assert self.looks(crew, 13) == 0
        assert silences(resolved_at=None) == []
        health["worker"] = "no"
        self.looks(crew, 60)
        self.looks(crew, 61)
        assert silences(resolved_at=None) == [], "it is counted anew"

    def test_a_database_that_is_away_ends_neither_it_nor_the_count(
        self, crew: web._Crew, told: Workspace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        self.looks(crew, 0)
        self.looks(crew, 1)
        with monkeypatch.context() as patch:

            def away(_since: object) -> bool:
                raise OperationalError("SELECT 1", {}, Exception("away"))

            patch.setattr(jobs, "say_silence", away)
            assert self.looks(crew, 5) == 1
        assert "Traceback" not in capfd.readouterr().err
        self.looks(crew, 12)
        assert len(silences()) == 1

    def test_no_look_before_it_is_time_nor_while_one_is_under_way(
        self, app: Flask, monkeypatch: pytest.MonkeyPatch, told: Workspace
    ) -> None:
        crew = web._Crew(app)
        crew.look()
        assert crew._child is None
        crew.LOOK_SECONDS = 0.0  # type: ignore[misc]
        monkeypatch.setattr(jobs, "say_silence", lambda _since: time.sleep(600))
        db.session.remove()
        db.engine.dispose()
        crew.look()
        child = crew._child
        crew.look()
        assert child is not None
        assert crew._child is child
        began = time.monotonic()
        crew.end()  # as when the web server is told to stop: it would wait for the look
        child.join(60)
        assert time.monotonic() - began < 30
        assert child.exitcode == -15


@on_sqlite
@pytest.mark.processes
def test_a_web_server_without_workers_says_so(
    app: Flask, told: Workspace, hook: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web._Crew, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(outbox, "GATHER", timedelta(0))
    rules.save(told.id, AlertKind.SILENT, True, {"minutes": 0}, utc_now())
    db.session.commit()
    db.session.remove()
    db.engine.dispose()
    server = jobs.Forked(target=web.run, args=(app, "127.0.0.1", 0, 1), name="web")
    server.start()
    try:
        until(lambda: arrived(hook))
    finally:
        server.terminate()
        assert server.wait(30) == 0
    assert arrived(hook)[0].startswith("The workers have not been running since 20 November 2026")
    assert db.session.execute(select(func.count()).select_from(Incident)).scalar_one() == 1
