"""Everything that is stored of a workspace as one ZIP, to be taken along: each table as CSV and as JSON lines, what the
provider answered, and at the end a manifest of it all. No key, no token, and no hash of one or of a password is in it.

It is made as it is sent, so that nothing has to hold all of it, however many years there are. All of it is read in
one transaction: a sync that commits meanwhile is in no member. How fast the other end reads does not matter, since the
server keeps what waits in a file: neither the thread nor the transaction lasts longer than the making. The manifest is
the last member, and the directory of a ZIP comes after that: one that was cut off opens nowhere and can't be taken for
the whole.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, Select, select

from grafient import evidence, tables
from grafient.days import Period
from grafient.extensions import db
from grafient.lines import FIGURES
from grafient.models import (
    AlertRule,
    ApiKey,
    AuditEntry,
    Budget,
    Channel,
    CoveredDay,
    CreditReading,
    DayCheck,
    Delivery,
    DeliveryEvent,
    Incident,
    IncidentEvent,
    Integration,
    Invitation,
    KeyPart,
    KeyReading,
    Membership,
    Model,
    RawReply,
    Restatement,
    Series,
    SyncRun,
    User,
    Workspace,
    utc_now,
)
from grafient.query import Query
from grafient.reports import ledger, sums

FORMAT = 1
"""Another number when something in the archive is called or written differently. What is added needs none."""

_EVER = Period(date.min, date.max)
_ROWS, _REPLIES = 2000, 4
"""Rows, and replies, of which one can have 64 MiB, that are read at a time."""


@dataclass(frozen=True)
class Part:
    """A table of the archive. ``rows``: what is in it of a workspace, from its id; ``columns``: what they are called
    there, where the statement calls them something else."""

    name: str
    about: str
    rows: Callable[[int], Select[Any]]
    columns: tuple[str, ...] = ()


def _mine(workspace_id: int) -> Select[Any]:
    """The ids of its integrations."""
    mine: Select[Any] = select(Integration.id).where(Integration.workspace_id == workspace_id)
    return mine


def _channels(workspace_id: int) -> Select[Any]:
    """The ids of its channels."""
    mine: Select[Any] = select(Channel.id).where(Channel.workspace_id == workspace_id)
    return mine


def _rows(rows: Any, names: str, condition: Callable[[int], ColumnElement[bool]]) -> Callable[[int], Select[Any]]:
    """These columns of a table's rows, in the order of their keys."""
    columns: list[Any] = [getattr(rows, name) for name in names.split()]
    return lambda of: select(*columns).where(condition(of)).order_by(*rows.__table__.primary_key)


def _of_integrations(rows: Any, names: str) -> Callable[[int], Select[Any]]:
    return _rows(rows, names, lambda of: rows.integration_id.in_(_mine(of)))


def _members_of(workspace_id: int) -> Select[Any]:
    columns: list[Any] = [User.id, User.email, Membership.role, Membership.created_at.label("since")]
    mine = select(*columns).join(Membership, Membership.user_id == User.id)
    return mine.where(Membership.workspace_id == workspace_id).order_by(User.id)


def _by_key(workspace_id: int) -> Select[Any]:
    series: list[Any] = [Model.name.label("model"), Series.permaslug, Series.endpoint_id, Series.host]
    columns = [KeyPart.day, ApiKey.integration_id, KeyPart.key_id, ApiKey.name.label("key"), *series]
    return (
        select(*columns, *(getattr(KeyPart, name) for name in FIGURES))
        .join(ApiKey, ApiKey.id == KeyPart.key_id)
        .join(Series, Series.id == KeyPart.series_id)
        .join(Model, Model.id == Series.model_id)
        .where(ApiKey.integration_id.in_(_mine(workspace_id)))
        .order_by(KeyPart.key_id, KeyPart.day, KeyPart.series_id)
    )


_COSTS = (*ledger.COLUMNS[2:-1], "byok_requests", "integration_id")

PARTS = (
    Part(
        "workspace",
        "The workspace itself.",
        _rows(Workspace, "id name plan created_at", lambda of: Workspace.id == of),
    ),
    Part("members", "Who belongs to it, in which role, and since when.", _members_of),
    Part(
        "invitations",
        "Invitations that were not used or taken back: whom they are for. Their links are not in here.",
        _rows(Invitation, "id role note email created_at expires_at", lambda of: Invitation.workspace_id == of),
    ),
    Part(
        "audit",
        "The audit log, oldest first; each hash is of the entry and of the hash before it.",
        _rows(AuditEntry, "number at actor address action subject hash", lambda of: AuditEntry.chain == of),
    ),
    Part(
        "channels",
        "Where alerts are sent, and what about; without what lets Grafient in there. Hours are UTC.",
        _rows(
            Channel,
            "id kind name shown topics quiet_from quiet_to alerts_daily summary created_at failing_since disabled_at"
            " disabled_why",
            lambda of: Channel.workspace_id == of,
        ),
    ),
    Part(
        "deliveries",
        "What was sent to channels, as long as that is kept, and what became of it.",
        _rows(
            Delivery,
            "id channel_id sending created_at state attempts tried_at ended_at title outcome",
            lambda of: Delivery.channel_id.in_(_channels(of)),
        ),
    ),
    Part(
        "delivery_events",
        "Which events a delivery told of.",
        _rows(
            DeliveryEvent,
            "delivery_id event_id",
            lambda of: DeliveryEvent.delivery_id.in_(select(Delivery.id).where(Delivery.channel_id.in_(_channels(of)))),
        ),
    ),
    Part(
        "integrations",
        "Connected accounts, removed ones whose costs were kept among them; without their keys.",
        _rows(
            Integration,
            "id label provider account_ref created_at paused_at removed_at key_expires_at last_success_at"
            " last_restated_at problem problem_detail problem_since no_history no_keys no_credits",
            lambda of: Integration.workspace_id == of,
        ),
    ),
    Part(
        "costs",
        "Each cost line, in USD; byok_usd is the provider's estimate. Days in the state provisional may still grow.",
        lambda of: sums.cost_lines(Query(of, _EVER), _COSTS),
        (*ledger.COLUMNS[:2], *_COSTS, ledger.COLUMNS[-1]),
    ),
    Part(
        "days",
        "UTC days that are known, and from which of the provider's records. A day that is not here is unknown, not 0.",
        _of_integrations(CoveredDay, "integration_id day state source first_run_id changed_at"),
    ),
    Part(
        "restatements",
        "Lines of settled days that a later sync changed: what they were, and what they became.",
        _of_integrations(
            Restatement,
            "id integration_id run_id changed_at day permaslug endpoint_id host usage_before_usd usage_after_usd"
            " before after",
        ),
    ),
    Part(
        "api_keys",
        "The accounts' API keys by name; key_hash is what the provider calls each. None of them is a key that works.",
        _of_integrations(
            ApiKey,
            "id integration_id name key_hash disabled gone_at read_at spent spent_on"
            " limit_usd limit_left_usd limit_reset limit_read_at",
        ),
    ),
    Part(
        "api_key_costs",
        "The part of each cost line that an API key spent. What is left of a line, no key explains.",
        _by_key,
    ),
    Part(
        "api_key_days",
        "UTC days, first and last, for which it is known what a key spent. Outside of them it is unknown.",
        _of_integrations(KeyReading, "integration_id key_hash first_day last_day"),
    ),
    Part(
        "checks",
        "The provider's second count of each day, in USD, rounded there to 6 decimals.",
        _of_integrations(DayCheck, "integration_id day analytics_usd checked_at"),
    ),
    Part(
        "credits",
        "What was ever charged to an account's credits, and paid into them, in USD, as the provider said at a moment.",
        _of_integrations(CreditReading, "id integration_id read_at lifetime_usd today_usd bought_usd"),
    ),
    Part(
        "syncs",
        "Each sync: why, when, how it ended, and what it brought.",
        _of_integrations(
            SyncRun,
            "id integration_id trigger slot status attempt created_at started_at finished_at error first_day last_day"
            " lines_read lines_added lines_changed lines_removed days_restated days_settled settled_usd restated_usd"
            " provisional_usd",
        ),
    ),
    Part(
        "budgets",
        "Budgets in USD: for which period, what each is about, and at which percentages somebody is told.",
        _rows(
            Budget,
            "id name amount_usd period filters byok actual forecast created_at since",
            lambda of: Budget.workspace_id == of,
        ),
    ),
    Part(
        "alert_rules",
        "Rules for alerts that are not as they come.",
        _rows(AlertRule, "kind is_on settings since", lambda of: AlertRule.workspace_id == of),
    ),
    Part(
        "incidents",
        "What somebody should know, or should have known: since when, until when, and who said that they know.",
        _rows(
            Incident,
            "id kind subject integration_id budget_id facts marks first_day last_day opened_at told_at resolved_at"
            " acknowledged_at acknowledged_by snoozed_until",
            lambda of: Incident.workspace_id == of,
        ),
    ),
    Part(
        "incident_events",
        "What became of incidents, with the figures of that moment.",
        _rows(
            IncidentEvent,
            "id incident_id what at facts marks",
            lambda of: IncidentEvent.incident_id.in_(select(Incident.id).where(Incident.workspace_id == of)),
        ),
    ),
    Part(
        "replies",
        "What the provider was asked, and when it answered. The answers are in replies/, as long as they are kept.",
        _rows(
            RawReply,
            "id run_id request received_at",
            lambda of: RawReply.run_id.in_(select(SyncRun.id).where(SyncRun.integration_id.in_(_mine(of)))),
        ),
    ),
)
"""All that is in it, but for the replies themselves and the manifest."""

_REPEATED = "It is in another file, under its name."
_SUMS = "It is what the lines in costs add up to."
_KEY = "Nobody else can use an encrypted key, and nobody should have to try."
_SEALED = "Nobody else can use what is encrypted, and nobody should have to try."
_WORK = "It tells workers who does what, and nothing of what was done."
_SIGN_IN = "How a member logs in belongs to their account."

LEFT_OUT: Mapping[str, str] = {
    "day_total": _SUMS,
    "model_total": _SUMS,
    "alert_watch": _WORK,
    "judged_days": _WORK,
    "encryption_key": "It belongs to the installation.",
    "user_session": "Where a member is logged in belongs to their account.",
    "restatement_seen": "What a member has looked at belongs to their account.",
    "passkey": _SIGN_IN,
    "mail": "Letters that wait to be sent are nobody's costs.",
    "user.confirmed_at": "It belongs to the account.",
    "user.tf_primary_method": _SIGN_IN,
    "user.tf_totp_secret": _SIGN_IN,
    "user.tf_counter": _SIGN_IN,
    "user.mf_recovery_codes": _SIGN_IN,
    "user.fs_webauthn_user_handle": _SIGN_IN,
    "user.oidc_subject": _SIGN_IN,
    "user.password": "It is the hash of a password.",
    "user.fs_uniquifier": "It names the account in sessions.",
    "user.workspace_id": "Which workspace a member looks at belongs to their account.",
    "user.active": "It belongs to the account.",
    "user.created_at": "It belongs to the account.",
    "workspace.deleted_at": "What is being deleted can't be taken along.",
    "membership.workspace_id": "All of it is of one workspace.",
    "membership.user_id": _REPEATED,
    "invitation.workspace_id": "All of it is of one workspace.",
    "invitation.token_hash": "It is the hash of a link that lets somebody in.",
    "audit_entry.chain": "All of it is of one workspace.",
    "channel.workspace_id": "All of it is of one workspace.",
    "channel.config_ciphertext": _SEALED,
    "channel.config_encryption_id": _SEALED,
    "channel.summary_at": _WORK,
    "delivery.uid": "It tells who receives a message twice that it is the same.",
    "delivery.about": _WORK,
    "delivery.due_at": _WORK,
    "budget.workspace_id": "All of it is of one workspace.",
    "alert_rule.workspace_id": "All of it is of one workspace.",
    "incident.workspace_id": "All of it is of one workspace.",
    "integration.workspace_id": "All of it is of one workspace.",
    "integration.key_ciphertext": _KEY,
    "integration.key_encryption_id": _KEY,
    "integration.key_hint": "It is a part of a key.",
    "integration.key_scopes": "It tells the next sync where to look for API keys.",
    "integration.key_scopes_at": "It tells the next sync where to look for API keys.",
    "integration.revision": "It is a number made at random.",
    "line.series_id": "The names that it stands for are in its place.",
    "key_part.series_id": "The names that it stands for are in its place.",
    "series.id": "The names that it stands for are in its place.",
    "series.integration_id": _REPEATED,
    "series.model_id": "The name that it stands for is in its place.",
    "model.id": "The name that it stands for is in its place.",
    "model.integration_id": _REPEATED,
    "covered_day.digest": "It tells the next sync whether a reply is another one.",
    "sync_run.token": _WORK,
    "sync_run.lease_until": _WORK,
    "sync_run.next_attempt_at": _WORK,
    "sync_run.stage": _WORK,
    "sync_run.steps_done": _WORK,
    "sync_run.steps_asked": _WORK,
    "raw_reply.body": "It is in replies/.",
}
"""Tables, and columns of the others, that are not in the archive, and why."""


@dataclass
class Member:
    """A member of the ZIP, as the manifest names it. ``rows``: lines after the head of a CSV file, or of JSON."""

    name: str
    about: str
    rows: int = 0
    bytes: int = 0
    sha256: str = ""


class _Outlet:
    """Where the ZIP is written to: what is there has to be taken before long."""

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def write(self, portion: bytes) -> int:
        self._written.append(bytes(portion))
        return len(portion)

    def flush(self) -> None:
        """There is nothing below it."""

    def close(self) -> None:
        """The same."""

    def take(self) -> bytes:
        taken, self._written = b"".join(self._written), []
        return taken


def packed(workspace_id: int, version: str) -> Iterator[bytes]:
    """The ZIP of a workspace, in portions. Ends the session's transaction, and reads in one of its own.

    ``version``: Grafient's. Whoever asks says that only reading follows (``database.reading``), or SQLite keeps all
    writers out meanwhile.
    """
    _begin()
    outlet, members = _Outlet(), list[Member]()
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_DEFLATED) as folder:
        for member, portions in _members(workspace_id):
            yield from _packed(folder, outlet, member, portions)
            members.append(member)
        told = {
            "format": FORMAT,
            "made_at": utc_now().isoformat(),
            "grafient": version,
            "workspace": {"id": workspace_id, "name": _name(workspace_id)},
            "members": [asdict(member) for member in members],
            "left_out": dict(LEFT_OUT),
        }
        folder.writestr("manifest.json", json.dumps(told, indent=1, ensure_ascii=False))
    db.session.rollback()
    yield outlet.take()


def _begin() -> None:
    """One state of the database for all that is read: SQLite has that in any transaction, PostgreSQL in such a one."""
    db.session.rollback()
    if db.engine.dialect.name == "postgresql":
        db.session.connection(execution_options={"isolation_level": "REPEATABLE READ"})


def _name(workspace_id: int) -> str:
    return db.session.execute(select(Workspace.name).where(Workspace.id == workspace_id)).scalar_one()


def _packed(folder: zipfile.ZipFile, outlet: _Outlet, member: Member, portions: Iterable[str]) -> Iterator[bytes]:
    """Write a member, and note what it came to. Its size has 64 bits: nobody knows it beforehand."""
    seen = hashlib.sha256()
    with folder.open(member.name, "w", force_zip64=True) as file:
        for portion in portions:
            data = portion.encode()
            seen.update(data)
            member.bytes += len(data)
            file.write(data)
            if ready := outlet.take():
                yield ready
    member.sha256 = seen.hexdigest()
    yield outlet.take()


def _members(workspace_id: int) -> Iterator[tuple[Member, Iterable[str]]]:
    """All but the manifest, each with its text in portions. The rows of a table are read twice rather than kept."""
    for part in PARTS:
        statement = part.rows(workspace_id)
        columns = part.columns or tuple(statement.selected_columns.keys())
        for suffix, written in (("csv", tables.as_csv), ("jsonl", tables.as_json_lines)):
            member = Member(f"{part.name}.{suffix}", part.about)
            yield member, written(columns, _counted(member, _read(statement)))
    with_replies = select(SyncRun.integration_id).join(RawReply, RawReply.run_id == SyncRun.id).distinct()
    with_replies = with_replies.where(SyncRun.integration_id.in_(_mine(workspace_id))).order_by(SyncRun.integration_id)
    for integration_id in db.session.execute(with_replies).scalars().all():
        about = f"What the provider answered for integration {integration_id}: each body is the text as it came."
        member = Member(f"replies/integration-{integration_id}.jsonl", about)
        yield member, _counted(member, _replies(integration_id))


def _counted(member: Member, rows: Iterable[Any]) -> Iterator[Any]:
    for row in rows:
        member.rows += 1
        yield row


def _read(statement: Select[Any], at_a_time: int = _ROWS) -> Iterator[Any]:
    with closing(db.session.execute(statement.execution_options(yield_per=at_a_time))) as result:
        yield from result


def _replies(integration_id: int) -> Iterator[str]:
    """A line for each reply. One that is no text, which no provider has sent so far, is base64 under another name."""
    columns: list[Any] = [RawReply.id, RawReply.run_id, RawReply.request, RawReply.received_at, RawReply.body]
    statement = (
        select(*columns)
        .join(SyncRun, SyncRun.id == RawReply.run_id)
        .where(SyncRun.integration_id == integration_id)
        .order_by(RawReply.id)
    )
    for number, run_id, request, received_at, packed_body in _read(statement, _REPLIES):
        body = evidence.unpacked(packed_body)
        told = {"id": number, "run_id": run_id, "request": request, "received_at": received_at.isoformat()}
        try:
            told["body"] = body.decode()
        except UnicodeDecodeError:
            told["body_base64"] = base64.b64encode(body).decode()
        yield json.dumps(told, ensure_ascii=False) + "\n"
