"""From a key that is rejected to a message that arrived, with real processes: what a killed worker was at is done by
another, and nothing is lost or said twice that was not being sent when it was killed.

``ALERT_KILLS`` says how many workers are killed, eight unless told.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextvars import Context
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import func, select, update
from standardwebhooks import Webhook

from grafient import integrations, jobs, runs
from grafient.alerts import outbox, rules, watch
from grafient.alerts.channels import store
from grafient.alerts.channels.store import Options
from grafient.extensions import db
from grafient.models import (
    AlertWatch,
    Channel,
    Delivery,
    DeliveryEvent,
    Incident,
    IncidentEvent,
    Integration,
    SyncRun,
    Workspace,
    utc_now,
)
from grafient.sandbox import Sandbox
from grafient.states import AlertKind, ChannelKind, DeliveryState, Happened, Summary
from tests.alerts.stand_ins import Received, Reply, StandIn
from tests.pages import Pages
from tests.post_office import PostOffice, text_of
from tests.workers import end, until

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("ALERT_KILLS", "8"))
MOMENTS = 1.2
"""Seconds within which a worker is killed: about what it takes for all that there is to do."""

SUBJECT = AlertKind.KEY


@pytest.fixture
def post_office() -> Iterator[PostOffice]:
    found = PostOffice()
    yield found
    found.close()


@pytest.fixture
def receiver() -> Iterator[StandIn]:
    """A program of somebody's own, on this machine."""
    found = StandIn()
    yield found
    found.close()


@pytest.fixture
def settings(settings: dict[str, str], post_office: PostOffice) -> dict[str, str]:
    return settings | {
        "GRAFIENT_ALERT_HOSTS": "127.0.0.0/8",
        "GRAFIENT_SMTP_URL": post_office.url,
        "GRAFIENT_MAIL_FROM": "grafient@example.com",
    }


@pytest.fixture
def secrets() -> dict[str, str]:
    """What each webhook is signed with, by its path."""
    return {}


def channels(workspace_id: int, receiver: StandIn, secrets: dict[str, str], webhooks: int = 1) -> None:
    """Told of the key, and of nothing else: the account's credits are low, too."""
    rules.save(workspace_id, AlertKind.CREDITS, False, {}, utc_now())
    for number in range(webhooks):
        url = f"http://127.0.0.1:{receiver.port}/{number}"
        _, secrets[f"/{number}"] = store.create(workspace_id, ChannelKind.WEBHOOK, str(number), {"url": url}, Options())
    store.create(workspace_id, ChannelKind.EMAIL, "Letters", {"addresses": "ann@example.com"}, Options())


def connected(workspace_id: int, sandbox: Sandbox) -> Integration:
    integration = integrations.connect(workspace_id, "openrouter", "", sandbox.key("lively"))
    jobs.wake()
    return integration


def verified(received: Received, secrets: dict[str, str]) -> dict[str, object]:
    """What the official library makes of it, which raises if the signature is wrong."""
    found = Webhook(secrets[received.path]).verify(received.body, received.headers)
    assert found == received.json
    return json.loads(received.body)  # type: ignore[no-any-return]


def told(letter: EmailMessage) -> str:
    return f"{letter['Subject']}\n{text_of(letter)}"


def hurry() -> None:
    """Let the time pass that messages, leases and pauses wait."""
    past = utc_now() - timedelta(seconds=1)
    db.session.execute(update(Delivery).where(Delivery.state == DeliveryState.DUE).values(due_at=past))
    db.session.execute(update(SyncRun).where(SyncRun.lease_until.is_not(None)).values(lease_until=past))
    db.session.execute(update(SyncRun).where(SyncRun.status == "due").values(next_attempt_at=past))
    db.session.execute(update(AlertWatch).values(looked_at=past - watch.APART))
    db.session.commit()


def happened() -> list[Happened]:
    mine = select(IncidentEvent.what).join(Incident).where(Incident.kind == SUBJECT)
    return list(db.session.execute(mine.order_by(IncidentEvent.id)).scalars())


@pytest.fixture
def start_worker(app: Flask, settings: dict[str, str]) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "flask", "--app", "wsgi", "worker"]
        started.append(subprocess.Popen(command, cwd=ROOT, env=os.environ | settings, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        end(process)


def test_a_rejected_key_is_told_by_webhook_and_letter_as_the_page_says_it(
    app: Flask,
    pages: Pages,
    sandbox: Sandbox,
    receiver: StandIn,
    post_office: PostOffice,
    secrets: dict[str, str],
    start_worker: Callable[[], subprocess.Popen[bytes]],
) -> None:
    with app.app_context():
        workspace_id = db.session.execute(select(Workspace.id)).scalar_one()
        channels(workspace_id, receiver, secrets)
        first = start_worker()
        integration = connected(workspace_id, sandbox)
        until(lambda: db.session.execute(select(AlertWatch.seen)).scalar())
        post_office.letters.clear()

        sandbox.fault("lively", "revoked")
        integrations.force_sync(integration)
        jobs.wake()
        until(lambda: happened() == [Happened.OPENED])
        assert receiver.requests == []
        end(first)
        hurry()
        start_worker()
        until(lambda: receiver.requests and post_office.letters)
        page = Context().run(pages.get, "/alerts").text
        db.session.rollback()  # what was read before the worker wrote must not be written on

        sandbox.fault("lively", None)
        integrations.force_sync(integration)
        jobs.wake()
        until(lambda: happened() == [Happened.OPENED, Happened.RESOLVED])
        hurry()
        jobs.wake()
        until(lambda: len(receiver.requests) == 2 and len(post_office.letters) == 2)
        until(lambda: set(db.session.execute(select(Delivery.state)).scalars()) == {DeliveryState.SENT})

    title = "OpenRouter: its key was rejected"
    assert title in page
    rejected, works = (verified(one, secrets)["data"] for one in receiver.requests)
    assert (rejected["title"], works["title"]) == (title, "OpenRouter: its key works again")  # type: ignore[index]
    [item] = rejected["items"]  # type: ignore[index]
    page = pages.get(f"/alerts/incidents/{item['incident']}").text
    for line in item["lines"]:
        assert line in page
        assert line in told(post_office.letters[0])
    assert title in told(post_office.letters[0])
    assert "OpenRouter: its key works again" in told(post_office.letters[1])
    answer = pages.get(item["answer"].removeprefix(app.extensions["settings"].base_url)).text
    assert title in answer


class Horses:
    """Workers' horses, which do again and again what there is to do: without what starting a worker takes, more of them
    can be killed."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._process: jobs.Forked | None = None

    def __enter__(self) -> Horses:
        return self

    def __exit__(self, *_of: object) -> None:
        self.kill()

    def start(self) -> None:
        db.session.remove()
        db.engine.dispose()
        self._process = jobs.Forked(target=_work, args=(self._app,), name="horse")
        self._process.start()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()


def _work(app: Flask) -> None:
    with app.app_context():
        while True:
            outbox.add_digests(utc_now())
            db.session.commit()
            jobs.sync_due()
            time.sleep(0.01)


def is_settled() -> bool:
    due = select(func.count()).select_from(Delivery).where(Delivery.state == DeliveryState.DUE)
    is_open = select(func.count()).select_from(SyncRun).where(SyncRun.status.in_(("due", "running")))
    left = db.session.execute(due).scalar_one() + db.session.execute(is_open).scalar_one()
    return not left and not watch.due(utc_now()) and not runs.count_claimable(utc_now())


@pytest.mark.long
def test_workers_that_are_killed_at_any_moment_lose_nothing_and_say_nothing_twice(
    app: Flask,
    workspace: Workspace,
    sandbox: Sandbox,
    receiver: StandIn,
    post_office: PostOffice,
    secrets: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox, "GATHER", timedelta(0))
    monkeypatch.setattr(watch, "APART", timedelta(0))
    monkeypatch.setattr(jobs.work, "ALERTS_SECONDS", 0.05)
    receiver.reply = Reply(drip=0.0005)  # some 30 ms for a message
    workspace_id = workspace.id
    channels(workspace_id, receiver, secrets, webhooks=5)
    integration_id = connected(workspace_id, sandbox).id
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    moments = random.Random(seed)

    with Horses(app) as horses:
        horses.start()
        until(is_settled)
        for number in range(KILLS):
            sandbox.fault("lively", None if number % 2 else "revoked")
            integrations.force_sync(db.session.get_one(Integration, integration_id))
            if number == KILLS // 2:
                due = {"summary": Summary.DAILY, "summary_at": utc_now()}
                db.session.execute(update(Channel).where(Channel.name == "0").values(due))
                db.session.commit()
            time.sleep(moments.uniform(0, MOMENTS))
            horses.kill()
            hurry()
            horses.start()
        until(is_settled)
        sandbox.fault("lively", None)
        integrations.force_sync(db.session.get_one(Integration, integration_id))
        until(is_settled)

    events = db.session.execute(select(IncidentEvent.id)).scalars().all()
    assert happened()[-1] is Happened.RESOLVED
    assert db.session.execute(select(func.count()).where(Incident.resolved_at.is_(None))).scalar_one() == 0
    rows = db.session.execute(select(DeliveryEvent.event_id, Delivery.uid, Delivery.channel_id).join(Delivery)).all()
    noted = Counter((row.event_id, row.channel_id) for row in rows)
    assert set(noted.values()) == {1}, "each event is in one message to each channel"
    assert len(noted) == len(events) * 6

    came: dict[str, Counter[str]] = defaultdict(Counter)
    said: dict[tuple[str, int], set[str]] = defaultdict(set)
    for received in receiver.requests:
        data = verified(received, secrets)["data"]
        uid = received.headers["webhook-id"]
        came[received.path][uid] += 1
        for item in data["items"]:  # type: ignore[index]
            if "event" in item:
                said[received.path, item["event"]].add(uid)
    for letter in post_office.letters:
        came["letters"][letter["Message-ID"]] += 1
    every = {row.uid: row for row in db.session.execute(select(Delivery.uid, Delivery.attempts, Delivery.state))}
    assert set(map(str, (row.state for row in every.values()))) == {"sent"}
    arrived = {uid.strip("<>").partition("@")[0] for one in came.values() for uid in one}
    assert arrived == set(every), "each message arrived"
    assert all(len(uids) == 1 for uids in said.values()), "and by one id each"
    twice = sum(count - 1 for one in came.values() for count in one.values())
    tried = sum(row.attempts - 1 for row in every.values())
    assert twice <= tried <= KILLS, "only what was being sent when its worker was killed was sent again"
