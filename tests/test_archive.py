"""The archive of a workspace: all of it, exact, nothing secret, nothing of anybody else, and all of one moment."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import threading
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, current_app
from sqlalchemy import Column, insert, select
from sqlalchemy.sql.visitors import iterate

from grafient import archive, audit, database, evidence, tables
from grafient.alerts.channels import store
from grafient.days import Period
from grafient.extensions import db
from grafient.models import (
    Channel,
    CreditReading,
    DayCheck,
    Integration,
    Invitation,
    Membership,
    RawReply,
    Restatement,
    SyncRun,
    User,
    UserSession,
    Workspace,
)
from grafient.providers import BilledLine, ReceivedReply
from grafient.query import Group, Query
from grafient.reports import ledger, sums
from grafient.sandbox import Sandbox
from tests.conftest import EMAIL, PASSWORD
from tests.pages import Pages
from tests.stored import add, ago, cover, put, told_of_something
from tests.syncing import NOON, a_day, again, at, by_keys, later, on_sqlite, synced, total
from tests.views.test_integrations import connected
from tests.views.test_members import link


@pytest.fixture(autouse=True)
def _noon() -> Iterator[None]:
    with at():
        yield


class Archive:
    """An archive that was opened again."""

    def __init__(self, portions: Iterator[bytes]) -> None:
        self.portions = list(portions)
        self.folder = zipfile.ZipFile(io.BytesIO(b"".join(self.portions)))
        assert self.folder.testzip() is None
        self.manifest: dict[str, Any] = json.loads(self.folder.read("manifest.json"))

    def names(self) -> list[str]:
        return self.folder.namelist()

    def text(self, name: str) -> str:
        return self.folder.read(name).decode()

    def csv(self, name: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.text(f"{name}.csv"), newline="")))

    def json(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text(f"{name}.jsonl").split("\n")[:-1]]


def of(workspace_id: int) -> Archive:
    with database.only_reading():
        return Archive(archive.packed(workspace_id, "1.2.3"))


def test_its_figures_are_to_the_digit_those_of_the_ledger_and_of_the_dashboard(
    workspace: Workspace, sandbox: Sandbox
) -> None:
    integration = synced(workspace, sandbox)
    day = a_day(sandbox)
    sandbox.restate("lively", day, Decimal("1.5"))
    with later(1):
        again(integration)
        found = of(workspace.id)
    query = Query(workspace.id, Period(ago(400), ago(-3)))
    exported = csv.DictReader(io.StringIO(_ledger_csv(query), newline=""))
    costs = found.csv("costs")
    assert [{name: row[name] for name in ledger.COLUMNS} for row in costs] == list(exported)
    settled = [row for row in costs if row["state"] != "provisional"]
    assert sum(Decimal(row["usage_usd"]) for row in settled) == total(integration)
    assert total(integration) == sum((one.usage_usd for one in sums.totals_by(query, Group.MODEL)), Decimal(0))
    assert [
        {name: "" if one is None else str(one) for name, one in row.items()} for row in found.json("costs")
    ] == costs

    by_key: dict[str, Decimal] = defaultdict(Decimal)
    for row in found.json("api_key_costs"):
        assert isinstance(row["usage_usd"], str)
        by_key[row["key"]] += Decimal(row["usage_usd"])
    names = {row["key_hash"]: row["name"] for row in found.csv("api_keys")}
    spent: dict[str, Decimal] = defaultdict(Decimal)
    for key_hash, name in names.items():
        spent[name] += sum((line.usage_usd for line in by_keys(integration.id, key_hash)), Decimal(0))
    assert {name: usd for name, usd in spent.items() if usd} == by_key
    assert len(by_key) > 1

    changes = db.session.execute(select(Restatement).order_by(Restatement.id)).scalars().all()
    assert changes
    assert [(row["day"], row["usage_before_usd"], row["after"]) for row in found.json("restatements")] == [
        (one.day.isoformat(), _digits(one.usage_before_usd), one.after) for one in changes
    ]
    known = {row["day"]: row["state"] for row in found.csv("days")}
    assert known[day.isoformat()] == "restated"
    checks = db.session.execute(select(DayCheck.analytics_usd)).scalars().all()
    assert sum(Decimal(row["analytics_usd"]) for row in found.csv("checks")) == sum(checks)
    readings = db.session.execute(select(CreditReading.lifetime_usd)).scalars().all()
    assert [Decimal(row["lifetime_usd"]) for row in found.json("credits")] == list(readings)
    assert [row["status"] for row in found.csv("syncs")] == ["done", "done"]


def _ledger_csv(query: Query) -> str:
    return "".join(tables.as_csv(ledger.COLUMNS, ledger.rows(query)))


def _digits(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount.normalize():f}"


@on_sqlite
def test_the_manifest_says_what_is_in_it(workspace: Workspace, sandbox: Sandbox) -> None:
    workspace.name = "Bücher"
    db.session.commit()
    synced(workspace, sandbox)
    found = of(workspace.id)
    manifest = found.manifest
    assert found.names()[-1] == "manifest.json"
    assert [member["name"] for member in manifest["members"]] == found.names()[:-1]
    assert (manifest["format"], manifest["grafient"]) == (1, "1.2.3")
    assert manifest["workspace"] == {"id": workspace.id, "name": "Bücher"}
    assert manifest["made_at"].startswith("2026-11-20T12:00:")
    for member in manifest["members"]:
        content = found.folder.read(member["name"])
        assert (member["bytes"], member["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        name = member["name"].removesuffix(".csv")
        rows = len(found.csv(name)) if member["name"].endswith(".csv") else content.count(b"\n")
        assert member["rows"] == rows
        assert member["about"]
    assert {member["name"]: member["rows"] for member in manifest["members"]}["costs.csv"] > 100
    assert {f"{part.name}.{kind}" for part in archive.PARTS for kind in ("csv", "jsonl")} < set(found.names())


def test_the_replies_are_in_it_as_they_came(workspace: Workspace, sandbox: Sandbox) -> None:
    integration = synced(workspace, sandbox)
    run = db.session.execute(select(SyncRun)).scalar_one()
    odd = evidence.compressed([ReceivedReply("GET /odd", NOON, b"\xff\xfe no text")])
    evidence.keep(run.id, odd)
    db.session.commit()
    found = of(workspace.id)
    answers = found.json(f"replies/integration-{integration.id}")
    kept = db.session.execute(select(RawReply.id, RawReply.request, RawReply.body).order_by(RawReply.id)).all()
    assert [(one["id"], one["request"], one.get("body", "").encode()) for one in answers[:-1]] == [
        (row.id, row.request, evidence.unpacked(row.body)) for row in kept[:-1]
    ]
    assert "data" in json.loads(answers[0]["body"])
    assert base64.b64decode(answers[-1]["body_base64"]) == b"\xff\xfe no text"
    assert [row["id"] for row in found.json("replies")] == [row.id for row in kept]


@on_sqlite
def test_no_table_and_no_column_is_forgotten(context: Flask) -> None:
    """Whoever adds one has to say whether it is exported or, with a reason, left out."""
    exported = {column for part in archive.PARTS for column in _columns(part)}
    left_out = set(archive.LEFT_OUT)
    for table in db.metadata.sorted_tables:
        names = {f"{table.name}.{column.name}" for column in table.columns}
        if table.name in left_out:
            assert not names & exported, table.name
            continue
        assert names - exported == names & left_out, f"{table.name}: export it, or say why not, in grafient/archive.py"
    tables = set(db.metadata.tables)
    columns = {f"{table.name}.{column.name}" for table in db.metadata.sorted_tables for column in table.columns}
    assert left_out <= tables | columns, "what no longer exists need not be left out"
    assert all(reason.endswith(".") for reason in archive.LEFT_OUT.values())


def _columns(part: archive.Part) -> set[str]:
    """The columns of tables that a part's columns are made of."""
    found = set()
    for selected in part.rows(1).selected_columns:
        for element in iterate(selected):
            for column in getattr(element, "base_columns", ()):
                if isinstance(column, Column):
                    found.add(f"{column.table.name}.{column.name}")
    return found


@on_sqlite
def test_nothing_secret_is_in_it(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    token = link(pages, note="For the bookkeeper").rpartition("/")[2]
    with app.app_context():
        told_of_something(1, 1)
        user = db.session.execute(select(User)).scalar_one()
        channel = db.session.execute(select(Channel)).scalar_one()
        integration = db.session.execute(select(Integration)).scalar_one()
        db.session.execute(select(SyncRun)).scalar_one().token = "token-of-the-lease"
        db.session.commit()
        ciphertext = integration.key_ciphertext or b""
        binary = [
            ciphertext,
            channel.config_ciphertext or b"",
            *db.session.execute(select(Invitation.token_hash)).scalars(),
            *db.session.execute(select(UserSession.token_hash)).scalars(),
        ]
        assert len(binary) == 4
        words = [sandbox.key("lively"), token, PASSWORD, user.password, user.fs_uniquifier, "token-of-the-lease"]
        words += ["s3cr3t", store.opened(channel)["secret"]]
        secrets = [word.encode() for word in words]
        for one in binary:
            secrets += [one, one.hex().encode(), base64.b64encode(one), repr(one)[2:-1].encode()]
        found = of(1)
    text = b"".join(found.folder.read(name) for name in found.names())
    assert b"For the bookkeeper" in text
    assert EMAIL.encode() in text
    for secret in secrets:
        assert secret not in text
        assert secret not in b"".join(found.portions)


def test_nothing_of_anybody_else_is_in_it(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    app.extensions["settings"].__dict__["registration"] = "open"
    other = Pages(app)
    other.register("neighbour@example.com", PASSWORD)
    other.post("/account/workspace", page="/account/members", name="The neighbour's")
    connected(app, other, sandbox, "no-flag")
    link(other, note="The neighbour's bookkeeper")
    with app.app_context():
        with audit.acting(EMAIL):
            told_of_something(1, 1, "Ours")
        told_of_something(2, 2, "The neighbour's")
        mine, theirs = of(1), of(2)
    assert "eighbour" not in "".join(map(mine.text, mine.names()))
    assert EMAIL not in "".join(map(theirs.text, theirs.names()))
    for found, integration_id in ((mine, 1), (theirs, 2)):
        for part in archive.PARTS:
            rows = found.json(part.name)
            assert rows or part.name in ("invitations", "restatements"), part.name
            assert {row["integration_id"] for row in rows if "integration_id" in row} <= {integration_id}
    runs = {row["id"] for row in mine.json("syncs")}
    assert {row["run_id"] for row in mine.json("replies")} <= runs
    assert {row["key_id"] for row in mine.json("api_key_costs")} <= {row["id"] for row in mine.json("api_keys")}


def test_unknown_is_empty_and_what_a_spreadsheet_would_run_is_text(workspace: Workspace) -> None:
    label = '=HYPERLINK("https://evil.example")'
    integration = add(workspace, label)
    cover(integration, [ago(2)], usd=None)
    put(integration, BilledLine(ago(1), "+m", "e", "h", "-1+1", Decimal("-0.000000000001")))
    db.session.commit()
    found = of(workspace.id)
    [line], [same] = found.csv("costs"), found.json("costs")
    assert (line["integration"], line["permaslug"], line["model"]) == (f"'{label}", "'+m", "'-1+1")
    assert (same["integration"], same["permaslug"], same["model"]) == (label, "+m", "-1+1")
    assert (line["usage_usd"], same["usage_usd"]) == ("-0.000000000001", "-0.000000000001")
    unknown = ("byok_usd", "requests", "byok_requests", "prompt_tokens", "cached_tokens", "state")
    assert {line[name] for name in unknown} == {""}
    assert {same[name] for name in unknown} == {None}
    [row] = found.csv("integrations")
    assert (row["paused_at"], row["created_at"]) == ("", (NOON - timedelta(days=400)).isoformat())


def test_a_sync_that_commits_while_it_is_made_is_in_none_of_it(workspace: Workspace) -> None:
    integration = add(workspace, "One")
    cover(integration, [ago(2)], usd=10)
    db.session.commit()
    integration_id, portions = integration.id, archive.packed(workspace.id, "1")
    app, ended = _app(), list[str]()

    def sync() -> None:
        with app.app_context():
            cover(db.session.get_one(Integration, integration_id), [ago(1)], usd=5)
            db.session.commit()
            ended.append("committed")
            db.session.remove()

    with database.only_reading():
        first = next(portions)
        thread = threading.Thread(target=sync)
        thread.start()
        thread.join(10)
        assert ended == ["committed"], "whoever takes everything along keeps no writer out"
        found = Archive(iter([first, *portions]))
    assert [row["usage_usd"] for row in found.json("costs")] == ["10"]
    assert [row["day"] for row in found.json("days")] == [ago(2).isoformat()]
    assert len(of(integration.workspace_id).json("days")) == 2


def _app() -> Flask:
    return current_app._get_current_object()  # type: ignore[attr-defined]


@on_sqlite
def test_it_is_sent_in_small_portions_and_cut_off_it_is_none(workspace: Workspace) -> None:
    integration = add(workspace, "Many")
    cover(integration, [ago(1)])
    same = {"integration_id": integration.id, "run_id": _run(integration), "changed_at": NOON, "day": ago(1)}
    names = (hashlib.sha512(str(number).encode()).hexdigest() for number in range(6000))
    changes = [same | {"permaslug": name, "endpoint_id": "e", "host": "h"} for name in names]
    db.session.execute(insert(Restatement), changes)
    db.session.commit()
    found = of(workspace.id)
    assert len(found.json("restatements")) == 6000
    assert sum(map(len, found.portions)) > 500_000
    assert max(map(len, found.portions)) < 100_000
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(b"".join(found.portions[:-1])))


def _run(integration: Integration) -> int:
    run = SyncRun(integration_id=integration.id, trigger="manual", status="done")
    db.session.add(run)
    db.session.flush()
    return run.id


@on_sqlite
def test_an_operator_writes_it_to_a_file(app: Flask, pages: Pages, sandbox: Sandbox, tmp_path: Path) -> None:
    connected(app, pages, sandbox)
    file = tmp_path / "out.zip"
    run = app.test_cli_runner().invoke
    for which in ("1", EMAIL.upper()):
        made = run(args=["workspace", "export", which, str(file)])
        assert made.exit_code == 0, made.output
        assert f"Workspace 1 is in {file}." in made.output
        with zipfile.ZipFile(file) as folder:
            assert folder.testzip() is None
            assert b"lively" not in folder.read("workspace.csv")
            assert json.loads(folder.read("manifest.json"))["workspace"]["id"] == 1
            last = json.loads(folder.read("audit.jsonl").splitlines()[-1])
        assert (last["actor"], last["action"], last["subject"]) == ("command", "exported", "everything")
        file.unlink()
    assert not list(tmp_path.glob("*.part"))
    for which in ("2", "nobody@example.com"):
        failed = run(args=["workspace", "export", which, str(file)])
        assert failed.exit_code == 1
        assert f"No workspace has the number or the owner {which}." in failed.output
        assert not file.exists()
    failed = run(args=["workspace", "export", "1", str(tmp_path / "none" / "out.zip")])
    assert "Can't write" in failed.output


@on_sqlite
def test_of_somebody_with_several_workspaces_it_asks_which(app: Flask, pages: Pages) -> None:
    with app.app_context():
        db.session.add(Workspace(id=7, plan="pro"))
        db.session.flush()
        db.session.add(Membership(workspace_id=7, user_id=1, role="owner"))
        db.session.commit()
    failed = app.test_cli_runner().invoke(args=["workspace", "export", EMAIL, "/nowhere/out.zip"])
    assert f"{EMAIL} owns several workspaces. Say which by its number: 1, 7." in failed.output


def test_days_of_any_year_are_in_it(workspace: Workspace) -> None:
    integration = add(workspace, "Old")
    cover(integration, [date(1999, 12, 31), date(2199, 1, 1)], usd=1)
    db.session.commit()
    assert [row["day"] for row in of(workspace.id).csv("costs")] == ["1999-12-31", "2199-01-01"]
