"""The raw replies behind the figures: kept whole, without a secret, for so long, and given out in one file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import IO
from unittest import mock

import pytest
from backports import zstd
from flask import Flask
from sqlalchemy import func, select

from grafient import evidence, jobs
from grafient.extensions import db
from grafient.models import Integration, RawReply, SyncRun, Workspace, utc_now
from grafient.providers import ReceivedReply
from grafient.sandbox import Sandbox
from tests.syncing import again, at, last_run, synced


@pytest.fixture(autouse=True)
def _at_noon() -> Iterator[None]:
    with at():
        yield


@pytest.fixture
def run(workspace: Workspace) -> SyncRun:
    integration = Integration(workspace_id=workspace.id, provider="openrouter", label="one", key_hint="abcd")
    db.session.add(integration)
    db.session.flush()
    run = SyncRun(integration_id=integration.id, trigger="manual", status="done")
    db.session.add(run)
    db.session.commit()
    return run


def unzipped(file: IO[bytes] | None) -> dict[str, bytes]:
    assert file is not None
    with file, zipfile.ZipFile(file) as folder:
        assert folder.testzip() is None
        return {name: folder.read(name) for name in folder.namelist()}


def store(run: SyncRun, replies: list[ReceivedReply]) -> None:
    evidence.keep(run.id, evidence.compressed(replies))


def keep(run: SyncRun, *ages: timedelta) -> None:
    """One reply of each age."""
    store(run, [ReceivedReply("GET /activity", utc_now() - age, b"{}") for age in ages])
    db.session.commit()


def kept() -> int:
    return db.session.execute(select(func.count()).select_from(RawReply)).scalar_one()


def test_every_answer_of_a_sync_is_in_its_archive_with_an_index(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = synced(workspace, sandbox)
    files = unzipped(evidence.archive(integration.id, last_run(integration).id))
    index = json.loads(files.pop("index.json"))
    calls = [request for request in sandbox.requests() if request.path != "/api/v1/auth/key"]
    assert [entry["file"] for entry in index] == sorted(files) == [f"{n:04}.json" for n in range(1, len(calls) + 1)]
    asked = [entry["request"].split(" ")[:2] for entry in index]
    assert sorted((method, address.partition("?")[0]) for method, address in asked) == sorted(
        (call.method, call.path.removeprefix("/api/v1")) for call in calls
    )
    for entry in index:
        assert datetime.fromisoformat(entry["received_at"]).date() == sandbox.today
        assert json.loads(files[entry["file"]])
    assert index[0]["request"] == "GET /activity"
    rows = json.loads(files["0001.json"])["data"]
    assert len(rows) == last_run(integration).lines_read, "the very reply that the figures are from"


def test_no_secret_is_in_it(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = synced(workspace, sandbox)
    text = b"\n".join(unzipped(evidence.archive(integration.id, last_run(integration).id)).values())
    assert sandbox.key("lively").encode() not in text
    assert b"Bearer" not in text
    bodies = db.session.execute(select(RawReply.body)).scalars()
    assert not any(sandbox.key("lively").encode() in zstd.decompress(body) for body in bodies)


def test_each_run_has_its_own_and_another_integrations_are_not_given_out(
    workspace: Workspace, sandbox: Sandbox
) -> None:
    integration = synced(workspace, sandbox)
    first = last_run(integration).id
    second = again(integration).id
    counts = evidence.counts([first, second, 999])
    assert set(counts) == {first, second}
    assert counts[first] + counts[second] == kept()
    assert len(unzipped(evidence.archive(integration.id, second))) == counts[second] + 1
    assert evidence.archive(integration.id + 1, first) is None
    assert evidence.archive(integration.id, 999) is None


def test_hundreds_of_replies_are_one_file_in_order(run: SyncRun) -> None:
    replies = [ReceivedReply(f"GET /keys?offset={number}", utc_now(), b'{"n": %d}' % number) for number in range(600)]
    store(run, replies)
    db.session.commit()
    files = unzipped(evidence.archive(run.integration_id, run.id))
    index = json.loads(files["index.json"])
    assert [entry["request"] for entry in index] == [reply.request for reply in replies]
    assert [files[entry["file"]] for entry in index] == [reply.body for reply in replies]


def test_what_is_kept_is_compressed(run: SyncRun) -> None:
    body = b'{"data": [' + b"0," * 50_000 + b"0]}"
    store(run, [ReceivedReply("GET /activity", utc_now(), body)])
    db.session.commit()
    assert len(db.session.execute(select(RawReply.body)).scalar_one()) < 1000
    assert unzipped(evidence.archive(run.integration_id, run.id))["0001.json"] == body


def test_the_old_are_swept_and_the_others_stay(run: SyncRun) -> None:
    keep(run, timedelta(days=91), timedelta(days=90, minutes=1), timedelta(days=89), timedelta())
    evidence.sweep(utc_now(), 90)
    db.session.commit()
    ages = [utc_now() - row for row in db.session.execute(select(RawReply.received_at)).scalars()]
    assert len(ages) == 2
    assert max(ages) < timedelta(days=90)


def test_a_sweep_takes_so_many_and_the_next_one_the_rest(run: SyncRun) -> None:
    keep(run, *[timedelta(days=100)] * 450)
    left = []
    for _ in range(3):
        more = evidence.sweep(utc_now(), 90)
        db.session.commit()
        left.append((kept(), more))
    assert left == [(250, True), (50, True), (0, False)]


def test_a_tick_goes_on_sweeping_until_nothing_old_is_left_or_its_time_is_up(
    run: SyncRun,
) -> None:
    keep(run, *[timedelta(days=100)] * 650, timedelta(days=1))
    with mock.patch("grafient.jobs.work.SWEEP_SECONDS", 0.0):
        jobs.tick()
    assert kept() == 451
    jobs.tick()
    assert kept() == 1


@pytest.mark.parametrize(("days", "stays"), [("7", [1, 6]), ("0", []), (None, [1, 6, 8, 80])])
def test_the_tick_sweeps_by_the_setting(
    settings: dict[str, str], request: pytest.FixtureRequest, days: str | None, stays: list[int]
) -> None:
    if days is not None:
        settings["GRAFIENT_RAW_REPLY_DAYS"] = days
    run: SyncRun = request.getfixturevalue("run")
    app: Flask = request.getfixturevalue("context")
    keep(run, *(timedelta(days=age) for age in (1, 6, 8, 80, 100)))
    jobs.tick()
    assert app.extensions["settings"].raw_reply_days == int(days or 90)
    found = db.session.execute(select(RawReply.received_at)).scalars()
    assert sorted((utc_now() - moment).days for moment in found) == stays
    db.session.rollback()


def test_what_is_swept_leaves_the_run(run: SyncRun) -> None:
    keep(run, timedelta(days=100))
    evidence.sweep(utc_now(), 90)
    db.session.commit()
    assert db.session.get(SyncRun, run.id) is not None
    assert evidence.archive(run.integration_id, run.id) is None
    assert evidence.counts([run.id]) == {}
