"""A lost, wrong or damaged encryption key is noticed and named, and changing to a new one loses nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from flask import Flask, current_app
from sqlalchemy import select, update

from grafient import create_app, keyring, vault
from grafient.alerts.channels import store
from grafient.extensions import db
from grafient.keyring import KeyringError
from grafient.members import Refused
from grafient.models import Channel, EncryptionKey, Integration, SyncRun, Workspace, utc_now
from grafient.sandbox import Sandbox
from grafient.states import ChannelKind
from grafient.vault import Vault
from tests.conftest import ENCRYPTION_KEYS
from tests.pages import Pages
from tests.syncing import connect, on_sqlite, run_due
from tests.views.test_integrations import connected
from tests.views.test_integrations import run_due as run_due_in

ROOT = Path(__file__).resolve().parent.parent
NEW = "new:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
OTHER = f"test:{NEW.partition(':')[2]}"
"""Another key under the old one's name."""


@pytest.fixture
def sealed(workspace: Workspace, sandbox: Sandbox) -> Integration:
    """An integration whose key is sealed with the tests' key, which the database knows."""
    keyring.verify(Vault.parse(ENCRYPTION_KEYS))
    return connect(workspace, sandbox)


def test_the_ring_that_sealed_is_in_order(sealed: Integration) -> None:
    for ring in (ENCRYPTION_KEYS, f"{NEW},{ENCRYPTION_KEYS}"):
        keyring.verify(Vault.parse(ring))
        assert keyring.problem(Vault.parse(ring)) == ""


def test_a_ring_without_a_key_that_is_in_use_is_refused_by_the_keys_name(sealed: Integration) -> None:
    with pytest.raises(KeyringError, match="lacks the key 'test', which encrypts 1 stored secret"):
        keyring.verify(Vault.parse(NEW))
    assert "'test'" in keyring.problem(Vault.parse(NEW))


def test_another_key_under_the_same_name_is_refused(sealed: Integration) -> None:
    with pytest.raises(KeyringError, match="'test' in GRAFIENT_ENCRYPTION_KEYS is not the one"):
        keyring.verify(Vault.parse(OTHER))
    assert "is not the one" in keyring.problem(Vault.parse(OTHER))


def test_it_is_refused_also_where_no_check_value_was_kept_yet(sealed: Integration) -> None:
    db.session.execute(EncryptionKey.__table__.delete())
    db.session.commit()
    with pytest.raises(KeyringError, match="is not the one"):
        keyring.verify(Vault.parse(OTHER))
    assert db.session.execute(select(EncryptionKey.id)).all() == []
    keyring.verify(Vault.parse(ENCRYPTION_KEYS))
    assert db.session.execute(select(EncryptionKey.id)).scalars().all() == ["test"]


def test_one_damaged_key_of_several_keeps_nobody_out(
    sealed: Integration, workspace: Workspace, sandbox: Sandbox
) -> None:
    connect(workspace, sandbox, twice=True)
    db.session.execute(EncryptionKey.__table__.delete())
    damaged = bytes(64)
    db.session.execute(update(Integration).where(Integration.id == sealed.id).values(key_ciphertext=damaged))
    db.session.commit()
    keyring.verify(Vault.parse(ENCRYPTION_KEYS))


@pytest.mark.parametrize("damage", ["flipped", "cut", "moved", "another ring"])
def test_a_key_that_can_not_be_read_is_a_state_of_its_own(
    app: Flask, pages: Pages, sandbox: Sandbox, settings: dict[str, str], damage: str
) -> None:
    connected(app, pages, sandbox)
    pages.post("/integrations/1/sync", page="/integrations")
    with app.app_context():
        row = db.session.get_one(Integration, 1)
        whole = row.key_ciphertext or b""
        if damage == "flipped":
            row.key_ciphertext = bytes([whole[0] ^ 1]) + whole[1:]
        elif damage == "cut":
            row.key_ciphertext = whole[:5]
        elif damage == "moved":
            row.key_ciphertext = app.extensions["vault"].seal("x", integration_id=2, provider="openrouter").ciphertext
        else:
            app.extensions["vault"] = Vault.parse(NEW)
        db.session.commit()
    run_due_in(app)
    with app.app_context():
        run = db.session.execute(select(SyncRun).order_by(SyncRun.id.desc()).limit(1)).scalar_one()
        assert (run.status, run.attempt) == ("failed", 1), "no trying again mends it"
        assert db.session.get_one(Integration, 1).problem == "key_unreadable"
    card = pages.get("/integrations/1/card").text
    assert "Key can&#39;t be read" in card
    assert "Replace key" in card
    assert "has not been read since" in pages.get("/").text
    pages.post("/integrations/1/key", page="/integrations/1", api_key=sandbox.key("lively-again"))
    run_due_in(app)
    assert "Up to date" in pages.get("/integrations/1/card").text


def test_readyz_names_a_key_that_is_missing(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    assert "encryption keys" not in pages.client.get("/readyz").json["problems"]  # type: ignore[index]
    app.extensions["vault"] = Vault.parse(NEW)
    assert "'test'" in pages.client.get("/readyz").json["problems"]["encryption keys"]  # type: ignore[index]


def test_a_rotation_puts_everything_under_the_newest_key(
    workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "BATCH", 2)
    made = [connect(workspace, sandbox, twice=True).id for _ in range(5)]
    db.session.execute(update(Integration).where(Integration.id == made[2]).values(key_ciphertext=bytes(64)))
    db.session.commit()
    both = Vault.parse(f"{NEW},{ENCRYPTION_KEYS}")
    done = keyring.rotate(both)
    assert (done.sealed, done.unreadable) == (4, [made[2]])
    again = keyring.rotate(both)
    assert (again.sealed, again.unreadable) == (0, [made[2]])
    new_id = next(iter(both.keys))
    assert keyring.in_use() == {new_id: 4, "test": 1}
    only_new = Vault.parse(NEW)
    for row in db.session.execute(select(Integration).where(Integration.id != made[2])).scalars():
        sealed = vault.Sealed(row.key_encryption_id or "", row.key_ciphertext or b"")
        assert only_new.open(sealed, integration_id=row.id, provider=row.provider) == sandbox.key("lively")


def test_a_rotation_that_was_killed_goes_on_where_it_was(
    workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "BATCH", 2)
    for _ in range(5):
        connect(workspace, sandbox, twice=True)
    both, count = Vault.parse(f"{NEW},{ENCRYPTION_KEYS}"), 0
    encrypt = Vault.encrypt

    def dies(self: Vault, secret: str, bound_to: str) -> vault.Sealed:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return encrypt(self, secret, bound_to)

    with monkeypatch.context() as patch:
        patch.setattr(Vault, "encrypt", dies)
        with pytest.raises(KeyboardInterrupt):
            keyring.rotate(both)
    db.session.rollback()
    assert keyring.in_use()["test"] == 3, "the batch before is there, the one it died in is not"
    assert keyring.rotate(both).sealed == 3
    monkeypatch.setitem(current_app.extensions, "vault", both)
    assert run_due() == 5
    assert all(row.problem is None for row in db.session.execute(select(Integration)).scalars())


def test_a_key_that_is_replaced_during_a_rotation_stays_replaced(
    workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, app: Flask
) -> None:
    mine = connect(workspace, sandbox).id
    both = Vault.parse(f"{NEW},{ENCRYPTION_KEYS}")
    replaced = both.seal("pasted meanwhile", integration_id=mine, provider="openrouter")
    decrypt = Vault.decrypt

    def meanwhile(self: Vault, sealed: vault.Sealed, bound_to: str) -> str:
        db.session.rollback()

        def replace() -> None:
            with app.app_context():
                values = {"key_encryption_id": replaced.key_id, "key_ciphertext": replaced.ciphertext}
                db.session.execute(update(Integration).values(**values))
                db.session.commit()
                db.engine.dispose()

        thread = threading.Thread(target=replace)
        thread.start()
        thread.join()
        return decrypt(self, sealed, bound_to)

    with monkeypatch.context() as patch:
        patch.setattr(Vault, "decrypt", meanwhile)
        assert keyring.rotate(both).sealed == 0
    assert db.session.execute(select(Integration.key_ciphertext)).scalar_one() == replaced.ciphertext


@pytest.fixture
def channels(workspace: Workspace) -> list[Channel]:
    """Channels whose settings are sealed with the tests' key, which the database knows."""
    keyring.verify(Vault.parse(ENCRYPTION_KEYS))
    entered = {"url": "https://hooks.example.com/in"}
    return [store.create(workspace.id, ChannelKind.WEBHOOK, "", entered, store.Options())[0] for _ in range(3)]


def test_the_settings_of_channels_are_counted_and_checked(channels: list[Channel]) -> None:
    assert keyring.in_use() == {"test": 3}
    db.session.rollback()
    assert keyring.in_use_at(db.engine) == {"test": 3}
    with pytest.raises(KeyringError, match="lacks the key 'test', which encrypts 3 stored secrets"):
        keyring.verify(Vault.parse(NEW))
    db.session.execute(EncryptionKey.__table__.delete())
    db.session.commit()
    with pytest.raises(KeyringError, match="is not the one"):
        keyring.verify(Vault.parse(OTHER))
    keyring.verify(Vault.parse(ENCRYPTION_KEYS))


def test_the_settings_of_channels_are_put_under_the_newest_key(
    channels: list[Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "BATCH", 2)
    first, second, third = channels
    before, third_id = [store.opened(one) for one in (first, second)], third.id
    third.config_ciphertext = second.config_ciphertext  # what is sealed for one row opens in no other
    db.session.commit()
    both = Vault.parse(f"{NEW},{ENCRYPTION_KEYS}")
    done = keyring.rotate(both)
    assert (done.sealed, done.channels, done.unreadable_channels) == (0, 2, [third_id])
    assert keyring.rotate(both).channels == 0
    assert keyring.in_use() == {"new": 2, "test": 1}
    monkeypatch.setitem(current_app.extensions, "vault", Vault.parse(NEW))
    db.session.expire_all()
    assert [store.opened(one) for one in (first, second)] == before
    with pytest.raises(vault.VaultError):
        store.opened(third)


def test_channels_whose_settings_are_given_up_are_off_until_they_are_entered_again(
    channels: list[Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keyring.forget("test") == keyring.GivenUp(0, 3)
    monkeypatch.setitem(current_app.extensions, "vault", Vault.parse(NEW))
    keyring.verify(Vault.parse(NEW))
    db.session.expire_all()
    channel = channels[0]
    assert (channel.disabled_at is None, channel.disabled_why) == (False, keyring.LOST_SETTINGS)
    with pytest.raises(vault.VaultError, match="Enter them again"):
        store.opened(channel)
    with pytest.raises(Refused):
        store.turn_on(channel)
    store.change(channel, "", {"url": "https://hooks.example.com/other"}, store.Options())
    assert (channel.disabled_at, channel.disabled_why) == (None, "")
    assert store.opened(channel)["secret"].startswith("whsec_")


def test_a_lost_key_is_given_up_by_a_command(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    with app.app_context():
        keyring.verify(app.extensions["vault"])
    asked = app.test_cli_runner().invoke(args=["keys", "forget", "test"], input="n\n")
    assert "Secrets that will have to be entered again: 1" in asked.output
    assert asked.exit_code == 1
    given_up = app.test_cli_runner().invoke(args=["keys", "forget", "test", "--yes"])
    assert given_up.exit_code == 0, given_up.output
    with app.app_context():
        keyring.verify(Vault.parse(NEW))
    assert "Needs a new key" in pages.get("/integrations/1/card").text
    pages.post("/integrations/1/sync", page="/integrations")
    run_due_in(app)
    assert "Needs a new key" in pages.get("/integrations/1/card").text
    assert "$" in pages.get("/").text


@on_sqlite
@pytest.mark.processes
@pytest.mark.parametrize("command", ["web", "worker", "scheduler", "keys rotate"])
@pytest.mark.parametrize(("ring", "says"), [(NEW, "lacks the key 'test'"), (OTHER, "is not the one")])
def test_nothing_starts_with_a_ring_that_opens_nothing(
    sealed: Integration, settings: dict[str, str], command: str, ring: str, says: str
) -> None:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    ended = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", *command.split()],
        cwd=ROOT,
        env=kept | settings | {"GRAFIENT_ENCRYPTION_KEYS": ring, "TZ": "UTC", "PORT": "5999"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.processes
@pytest.mark.parametrize("file", ["gone", "another"])
def test_make_run_makes_no_new_key_beside_sealed_ones(
    tmp_path: Path, sqlite_template: Path, file: str, sandbox: Sandbox, redis_url: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(sqlite_template, folder / "grafient.db")
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    own = {
        "GRAFIENT_DATA_DIR": str(folder),
        "REDIS_URL": redis_url,
        "SECRET_KEY": "a secret for the length of a test",
        "OPENROUTER_BASE_URL": sandbox.base_url,
        "PORT": "5998",
    }
    app = create_app(own | {"GRAFIENT_ENCRYPTION_KEYS": ENCRYPTION_KEYS})
    with app.app_context():
        workspace = Workspace(plan="free", created_at=utc_now())
        db.session.add(workspace)
        db.session.commit()
        connect(workspace, sandbox)
        db.session.remove()
        db.engine.dispose()
    app.extensions["redis"].close()
    if file == "another":
        (folder / "grafient_encryption_keys").write_text(OTHER)
    ended = subprocess.run(
        [sys.executable, "-m", "grafient.supervisor"],
        cwd=ROOT, env=kept | own, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    if file == "gone":
        assert f"the file {folder / 'grafient_encryption_keys'} is gone" in ended.stderr
        assert "lacks the key 'test'" in ended.stderr
        assert not (folder / "grafient_encryption_keys").exists()
    else:
        assert "is not the one" in ended.stderr
