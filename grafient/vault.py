"""Seals provider keys, the settings of alert channels, and what authenticator apps make codes of: AES-256-GCM, a fresh
nonce each time, bound to what holds them.

The associated data of a provider key is the integration's id and provider, so that a sealed key copied to another row
does not open there. The ring has one key or more, newest first: the first seals, any of them opens.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12  # what NIST SP 800-38D recommends for GCM
_KEY_BYTES = 32
LEAST_DIFFERENT = 8
"""Different bytes that a random key has at least: fewer than 8 of 32 happen once in 10^30."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


class VaultError(Exception):
    """A key ring is malformed, or something sealed can't be opened. The message holds no secret."""


@dataclass(frozen=True)
class Sealed:
    """A ciphertext (nonce first) and the id of the encryption key that opens it."""

    key_id: str
    ciphertext: bytes


@dataclass(frozen=True)
class Vault:
    """The key ring. ``keys`` maps key id to 32 bytes, newest first."""

    keys: dict[str, bytes] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Vault:
        """Read ``id:base64[,id:base64...]``, newest first. Raises VaultError with the mend."""
        keys: dict[str, bytes] = {}
        for number, part in enumerate(text.split(","), 1):
            key_id, _, encoded = part.strip().partition(":")
            try:
                key = base64.b64decode(encoded, altchars=b"-_", validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if not _ID.fullmatch(key_id) or len(key) != _KEY_BYTES:
                raise VaultError(f"key {number} of the ring is not an id, a colon and 32 bytes in base64")
            if len(set(key)) < LEAST_DIFFERENT:
                raise VaultError(f"key {number} of the ring is not random: its bytes are nearly all the same")
            if key_id in keys:
                raise VaultError(f"the ring has two keys with the id {key_id!r}")
            keys[key_id] = key
        return cls(keys)

    def seal(self, secret: str, *, integration_id: int, provider: str) -> Sealed:
        """Encrypt a provider key with the newest key."""
        return self.encrypt(secret, of_integration(integration_id, provider))

    def open(self, sealed: Sealed, *, integration_id: int, provider: str) -> str:
        """Decrypt it. Raises VaultError if the key is not in the ring, or the bytes are not of this row."""
        return self.decrypt(sealed, of_integration(integration_id, provider))

    def encrypt(self, secret: str, bound_to: str) -> Sealed:
        """Encrypt with the newest key; it opens only as what it is bound to."""
        key_id, key = next(iter(self.keys.items()))
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return Sealed(key_id, nonce + AESGCM(key).encrypt(nonce, secret.encode(), bound_to.encode()))

    def decrypt(self, sealed: Sealed, bound_to: str) -> str:
        """What was encrypted. Raises VaultError as ``open`` does."""
        key = self.keys.get(sealed.key_id)
        if key is None:
            raise VaultError(
                f"The stored key can't be opened: its encryption key {sealed.key_id!r} is not among "
                "GRAFIENT_ENCRYPTION_KEYS. The operator of this Grafient has to put it back."
            )
        nonce, body = sealed.ciphertext[:_NONCE_BYTES], sealed.ciphertext[_NONCE_BYTES:]
        try:
            return AESGCM(key).decrypt(nonce, body, bound_to.encode()).decode()
        except (InvalidTag, ValueError):
            raise VaultError("The stored key does not open: it was changed, or belongs to another row.") from None

    def check_value(self, key_id: str) -> bytes:
        """What tells this key from any other, and does not tell what it is: an HMAC with it of a fixed text."""
        return hmac.digest(self.keys[key_id], b"grafient:encryption-key:check", "sha256")


def generate() -> str:
    """A new entry for GRAFIENT_ENCRYPTION_KEYS, with a random id."""
    key = base64.urlsafe_b64encode(secrets.token_bytes(_KEY_BYTES)).decode()
    return f"{secrets.token_hex(4)}:{key}"


def of_integration(integration_id: int, provider: str) -> str:
    """What a provider key is bound to."""
    return f"grafient:integration:{integration_id}:{provider}"
