"""What is sealed opens in its own row with a key of the ring, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grafient import vault
from grafient.vault import Sealed, Vault, VaultError

ROW = {"integration_id": 7, "provider": "openrouter"}


@given(secret=st.text())
def test_what_is_sealed_opens(secret: str) -> None:
    ring = Vault.parse(vault.generate())
    assert ring.open(ring.seal(secret, **ROW), **ROW) == secret  # type: ignore[arg-type]


def test_the_same_secret_is_never_sealed_alike() -> None:
    ring = Vault.parse(vault.generate())
    sealed = {ring.seal("secret", integration_id=7, provider="openrouter").ciphertext for _ in range(100)}
    assert len(sealed) == 100
    assert len({text[:12] for text in sealed}) == 100
    assert not any(b"secret" in text for text in sealed)


@pytest.mark.parametrize("row", [{"integration_id": 8}, {"provider": "openai"}])
def test_it_opens_in_no_other_row(row: dict[str, object]) -> None:
    ring = Vault.parse(vault.generate())
    sealed = ring.seal("secret", integration_id=7, provider="openrouter")
    with pytest.raises(VaultError, match="does not open"):
        ring.open(sealed, **{**ROW, **row})  # type: ignore[arg-type]


def test_a_changed_byte_does_not_open() -> None:
    ring = Vault.parse(vault.generate())
    sealed = ring.seal("secret", integration_id=7, provider="openrouter")
    for place in range(len(sealed.ciphertext)):
        changed = bytearray(sealed.ciphertext)
        changed[place] ^= 1
        with pytest.raises(VaultError):
            ring.open(Sealed(sealed.key_id, bytes(changed)), integration_id=7, provider="openrouter")
    with pytest.raises(VaultError):
        ring.open(Sealed(sealed.key_id, b""), integration_id=7, provider="openrouter")


def test_the_newest_key_seals_and_older_ones_still_open() -> None:
    old, new = vault.generate(), vault.generate()
    sealed = Vault.parse(old).seal("secret", integration_id=7, provider="openrouter")
    both = Vault.parse(f"{new}, {old}")
    assert both.open(sealed, integration_id=7, provider="openrouter") == "secret"
    assert both.seal("x", integration_id=7, provider="openrouter").key_id == new.split(":")[0]
    with pytest.raises(VaultError, match="is not among GRAFIENT_ENCRYPTION_KEYS"):
        Vault.parse(new).open(sealed, integration_id=7, provider="openrouter")


@pytest.mark.parametrize(
    "ring", ["", "abc", "id:", "id:c2hvcnQ=", "i d:" + "A" * 43 + "=", ":" + "A" * 43 + "=", "id:%%%"]
)
def test_a_ring_that_is_none_is_refused_without_repeating_it(ring: str) -> None:
    with pytest.raises(VaultError, match="key 1 of the ring"):
        Vault.parse(ring)


def test_two_keys_can_not_have_one_id() -> None:
    key = vault.generate()
    with pytest.raises(VaultError, match="two keys"):
        Vault.parse(f"{key},{key}")


def test_keys_are_in_no_repr() -> None:
    made = vault.generate()
    assert made.split(":")[1][:8] not in repr(Vault.parse(made))
