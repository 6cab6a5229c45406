"""The write side: connect an account, rename it, replace its key, ask for a sync, pause, resume, remove.

A provider's key is in the clear only inside ``preview``, ``connect`` and ``replace_key`` here, and in ``sync``. No
transaction is open while a provider is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sqlalchemy import ColumnElement, delete, exists, func, select, update

from grafient import audit, members, runs, sample
from grafient.alerts import closing
from grafient.days import Period
from grafient.extensions import db, providers, vault
from grafient.members import Refused
from grafient.models import ApiKey, CoveredDay, Incident, Integration, Line, Model, SyncRun, Workspace, utc_now
from grafient.plans import PLANS
from grafient.providers import Activity, KeyInfo, KeyRejected, ProviderError
from grafient.states import Action, Trigger

MAX_LABEL = 100

LATELY_DAYS = 14

PORTION_DAYS, PORTION_ROWS = timedelta(days=7), 20
"""What ``delete_portion`` deletes at a time: of a large account 30,000 lines, or what hangs on 20 syncs, keys or
models."""


class AlreadyConnected(Refused):
    """Another integration of the workspace reads the same account; both would count everything twice."""


def find(workspace_id: int, integration_id: int) -> Integration | None:
    """The integration, if it is this workspace's and was not removed."""
    query = select(Integration).where(
        Integration.id == integration_id,
        Integration.workspace_id == workspace_id,
        Integration.removed_at.is_(None),
    )
    return db.session.execute(query).scalar_one_or_none()


@dataclass(frozen=True)
class Recent:
    """What an account used lately: on how many days of the ``window``, and what was charged to credits on the last of
    them (``lately``), to be compared with the provider's own page."""

    window: Period
    days_used: int
    lately: Period
    lately_usd: Decimal


@dataclass(frozen=True)
class Preview:
    """What a key would bring. ``recent`` is None where that could not be read, for the reason in ``why``."""

    info: KeyInfo
    recent: Recent | None
    why: str = ""


def check(provider: str, key: str) -> KeyInfo:
    """Ask the provider whether the key can read costs. Raises ProviderError; answers within 10 seconds."""
    db.session.rollback()
    return providers[provider].check_key(key)


def preview(provider: str, key: str) -> Preview:
    """Test Connection: ask the provider what the key is and what its account used lately, store nothing.

    Raises ProviderError; answers within 20 seconds.
    """
    info = check(provider, key)
    try:
        return Preview(info, _recent(providers[provider].recent_activity(key)))
    except KeyRejected:
        raise
    except ProviderError as error:
        return Preview(info, None, str(error))


def _recent(activity: Activity) -> Recent:
    window = Period(activity.first_day, activity.last_day)
    lately = Period(max(window.first, window.last - timedelta(days=LATELY_DAYS - 1)), window.last)
    usage = (line.usage_usd for line in activity.lines() if line.day in lately)
    return Recent(window, sum(day in window for day in activity.by_day), lately, sum(usage, Decimal(0)))


def connect(workspace_id: int, provider: str, label: str, key: str, *, twice: bool = False) -> Integration:
    """Check the key, seal it, and want the backfill. Commits.

    An account that was removed with its history kept goes on where it ended, so that no day counts twice. Sample data
    is removed first.
    ``twice``: connect an account that is connected already. Raises ProviderError, AlreadyConnected or Refused.
    """
    info = check(provider, key)
    members.lock(workspace_id)  # two forms at once would both find that no integration has the account yet
    _keep_sample_apart(workspace_id, provider)
    plan = PLANS[db.session.get_one(Workspace, workspace_id).plan]
    if provider != sample.SLUG and _count(workspace_id) >= plan.integrations:
        raise Refused(
            f"The plan {plan.name} has room for {plan.integrations:,} integrations. Remove one to add another."
        )
    integration = None if twice else _known(workspace_id, provider, info)
    if integration is None:
        integration = Integration(workspace_id=workspace_id, provider=provider, label="", key_hint="")
        db.session.add(integration)
    integration.label = label or integration.label or _default_label(workspace_id, provider)
    integration.account_ref = info.account_ref
    integration.removed_at = integration.paused_at = None
    integration.clear_problem()
    db.session.flush()  # the seal is bound to the id
    _seal(integration, key)
    integration.key_expires_at = _expiry(info)
    audit.note(Action.INTEGRATION_ADDED, workspace_id, integration.label)
    runs.request(integration.id, Trigger.BACKFILL)
    db.session.commit()
    return integration


def add_sample(workspace_id: int) -> None:
    """Fill a workspace that has nothing connected with sample data. Commits; where it is there already, it stays.

    Raises Refused if anything real is there, a removed integration's history included.
    """
    try:
        connect(workspace_id, sample.SLUG, sample.LABEL, sample.KEY)
    except AlreadyConnected:
        db.session.rollback()


def remove_sample(workspace_id: int) -> None:
    """Remove the sample data, and all that was stored of it, if it is there. Commits."""
    members.lock(workspace_id)
    _delete_sample(workspace_id)
    db.session.commit()


def has_sample(workspace_id: int) -> bool:
    """Whether the figures of a workspace are the sample's. There are no others beside them then."""
    here = Integration.workspace_id == workspace_id, Integration.provider == sample.SLUG
    return bool(db.session.execute(select(exists().where(*here))).scalar())


def _expiry(info: KeyInfo) -> datetime | None:
    """When a key ends; None where the provider says nothing, or nothing that is a moment."""
    try:
        moment = datetime.fromisoformat(info.expires or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def rename(integration: Integration, label: str) -> None:
    """Call it something else. Commits."""
    audit.note(Action.INTEGRATION_RENAMED, integration.workspace_id, f"{integration.label} to {label}")
    integration.label = label
    db.session.commit()


def replace_key(integration: Integration, key: str) -> None:
    """Put another key of the same account in place; the history stays. Commits.

    Raises ProviderError, or Refused if the key belongs to another account, or to one that another integration has.
    """
    integration_id, provider, account = integration.id, integration.provider, integration.account_ref
    workspace_id = integration.workspace_id
    info = check(provider, key)
    members.lock(workspace_id)
    if None not in (account, info.account_ref) and account != info.account_ref:
        raise Refused(
            "This key belongs to another account, whose costs would mix with this integration's history. "
            "Add it as a new integration instead."
        )
    if account is None:
        _refuse_second(workspace_id, integration_id, provider, info)
    runs.cancel_open(integration_id)  # a sync under way would report on the old key
    query = select(Integration).where(Integration.id == integration_id, Integration.removed_at.is_(None))
    fresh = db.session.execute(query.with_for_update().execution_options(populate_existing=True)).scalar_one_or_none()
    if fresh is None:
        raise Refused("The integration has been removed in the meantime, so the key was not saved.")
    runs.request(integration_id, Trigger.MANUAL)
    fresh.account_ref = info.account_ref or account
    _seal(fresh, key)
    fresh.key_expires_at = _expiry(info)
    audit.note(Action.KEY_REPLACED, workspace_id, fresh.label)
    fresh.clear_problem()
    db.session.commit()


def force_sync(integration: Integration) -> None:
    """Ask for a sync now, if none is under way. A paused integration is read once and stays paused. Commits."""
    runs.request(integration.id, Trigger.MANUAL)
    db.session.commit()


def resume(integration: Integration) -> None:
    """End a pause: daily syncs again, and one now. Commits."""
    runs.request(integration.id, Trigger.MANUAL)
    integration.paused_at = None
    audit.note(Action.INTEGRATION_RESUMED, integration.workspace_id, integration.label)
    db.session.commit()


def pause(integration: Integration) -> None:
    """Stop the daily syncs until they are resumed; one that is under way is cancelled. Commits."""
    runs.cancel_open(integration.id)
    integration.paused_at = utc_now()
    audit.note(Action.INTEGRATION_PAUSED, integration.workspace_id, integration.label)
    db.session.commit()


def remove(integration: Integration, *, keep_history: bool) -> None:
    """Forget the key for good, and the costs too unless they are to be kept. Commits.

    Where no day was ever read there is nothing to keep, and of sample data nothing may be kept. Raises Deleted.
    """
    members.lock(integration.workspace_id)
    runs.cancel_open(integration.id)
    audit.note(Action.INTEGRATION_REMOVED, integration.workspace_id, integration.label)
    has_history = select(exists().where(CoveredDay.integration_id == integration.id))
    may_keep = keep_history and integration.provider != sample.SLUG
    if may_keep and db.session.execute(has_history).scalar():
        integration.key_ciphertext = integration.key_encryption_id = None
        integration.key_hint = ""
        integration.removed_at = utc_now()
    else:
        _delete(integration.workspace_id, Integration.id == integration.id)
    db.session.commit()


def close(workspace_id: int) -> None:
    """Forget the keys of a workspace that is deleted, and let nobody read its accounts any more. Does not commit.

    Syncs end first: a worker that is committing one holds its run and waits for the integration.
    """
    here = Integration.workspace_id == workspace_id
    for integration_id in db.session.execute(select(Integration.id).where(here)).scalars().all():
        runs.cancel_open(integration_id)
    gone = {"key_ciphertext": None, "key_encryption_id": None, "key_hint": "", "removed_at": utc_now()}
    db.session.execute(update(Integration).where(here).values(gone), execution_options={"synchronize_session": False})


def delete_portion(integration_id: int) -> None:
    """Delete some of what is stored of an integration of a deleted workspace; with the last of it, the integration.
    Does not commit.

    All at once, an account with millions of lines kept every other writer on SQLite out for longer than they wait.
    """
    runs.cancel_open(integration_id)  # the clock may have asked for one while the workspace was being deleted
    own = {"synchronize_session": False}
    first = db.session.execute(select(func.min(Line.day)).where(Line.integration_id == integration_id)).scalar()
    if first is not None:
        some = Line.integration_id == integration_id, Line.day < first + PORTION_DAYS
        db.session.execute(delete(Line).where(*some), execution_options=own)
        return
    for rows in (SyncRun, ApiKey, Model):  # with their replies and restatements, parts of lines, and totals
        ids = select(rows.id).where(rows.integration_id == integration_id).order_by(rows.id).limit(PORTION_ROWS)
        found = db.session.execute(ids).scalars().all()
        if found:
            db.session.execute(delete(rows).where(rows.id.in_(found)), execution_options=own)
            return
    db.session.execute(delete(Integration).where(Integration.id == integration_id), execution_options=own)


def _seal(integration: Integration, key: str) -> None:
    sealed = vault.seal(key, integration_id=integration.id, provider=integration.provider)
    integration.key_ciphertext, integration.key_encryption_id = sealed.ciphertext, sealed.key_id
    integration.key_hint = key[-4:]


def _keep_sample_apart(workspace_id: int, provider: str) -> None:
    """Let a workspace have sample data or real integrations, never both; under the lock of the workspace."""
    if provider != sample.SLUG:
        _delete_sample(workspace_id)
        return
    real = Integration.workspace_id == workspace_id, Integration.provider != sample.SLUG
    if db.session.execute(select(exists().where(*real))).scalar():
        raise Refused("Sample data can only be shown while nothing is connected, so that it never mixes with your own.")


def _delete_sample(workspace_id: int) -> None:
    _delete(workspace_id, Integration.provider == sample.SLUG)


def _delete(workspace_id: int, which: ColumnElement[bool]) -> None:
    """Delete integrations of a workspace with all that is stored of them, its incidents among that."""
    here = Integration.workspace_id == workspace_id, which
    ids = db.session.execute(select(Integration.id).where(*here)).scalars().all()
    closing.before_deletion(workspace_id, Incident.integration_id.in_(ids), utc_now())
    db.session.execute(delete(Integration).where(Integration.id.in_(ids)))


def _refuse_second(workspace_id: int, integration_id: int, provider: str, info: KeyInfo) -> None:
    """Raise Refused if another integration has the account of a key, or the history of that account.

    An account can be unknown when its integration is made, because the provider did not say, and become known with a
    later key. Both integrations would then count the same costs.
    """
    if info.account_ref is None:
        return
    query = select(Integration).where(
        Integration.workspace_id == workspace_id,
        Integration.id != integration_id,
        Integration.provider == provider,
        Integration.account_ref == info.account_ref,
    )
    other = db.session.execute(query.order_by(Integration.removed_at.is_not(None)).limit(1)).scalar_one_or_none()
    if other is None:
        return
    if other.removed_at is None:
        raise AlreadyConnected(
            f"This key's account is already connected, as “{other.label}”. Replace the key there instead."
        )
    raise Refused(
        f"This key's account has its history under “{other.label}”, which was removed. Use Add Integration with this "
        "key to continue that history."
    )


def _known(workspace_id: int, provider: str, info: KeyInfo) -> Integration | None:
    """The removed integration of the same account, if there is one. Raises AlreadyConnected for one that is not."""
    if info.account_ref is None:
        return None
    query = select(Integration).where(
        Integration.workspace_id == workspace_id,
        Integration.provider == provider,
        Integration.account_ref == info.account_ref,
    )
    latest = query.order_by(Integration.removed_at.is_not(None), Integration.id.desc()).limit(1)
    found = db.session.execute(latest).scalar_one_or_none()
    if found is not None and found.removed_at is None:
        raise AlreadyConnected(
            f"This account is already connected, as “{found.label}”. A second integration would count its costs twice."
        )
    return found


def _count(workspace_id: int) -> int:
    query = select(func.count()).where(Integration.workspace_id == workspace_id, Integration.removed_at.is_(None))
    return db.session.execute(query).scalar_one()


def _default_label(workspace_id: int, provider: str) -> str:
    """The provider's name, with the first number that is free."""
    name = providers[provider].name
    query = select(Integration.label).where(Integration.workspace_id == workspace_id)
    taken = set(db.session.execute(query).scalars())
    numbered = (f"{name} {number}" for number in range(2, len(taken) + 3))
    return name if name not in taken else next(label for label in numbered if label not in taken)
