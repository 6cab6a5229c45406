"""Codes from an authenticator app, and recovery codes: what is stored of them, and that none works twice.

What the app makes its codes of is sealed with the encryption keys, and opens with them alone. Recovery codes are there
as hashes, so who has lost the device gets in with one of them even where the encryption keys were lost too.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import Any

from flask_security import MfRecoveryCodesUtil, Totp
from markupsafe import Markup
from passlib.exc import TokenError
from passlib.totp import TOTP, TotpMatch
from sqlalchemy import or_, update

from grafient import audit, sessions
from grafient.extensions import db, vault
from grafient.models import User
from grafient.states import Action
from grafient.vault import Sealed, VaultError

RECOVERY_CODES = 10
_CODE_BYTES = 15
"""120 bits, written as 24 letters: a hash of it can't be turned back by trying."""
_BOUND_TO = "grafient:authenticator"


class _SealedTotp(TOTP):  # type: ignore[misc]
    """passlib's, whose text is sealed: that is what Flask-Security stores, and puts into the cookie during set-up."""

    def to_json(self, encrypt: bool | None = None) -> str:
        sealed = vault.encrypt(super().to_json(encrypt=False), _BOUND_TO)
        return f"{sealed.key_id}:{base64.b64encode(sealed.ciphertext).decode()}"

    @classmethod
    def from_source(cls, source: Any) -> Any:
        return super().from_source(_opened(source) if isinstance(source, str) else source)


class Codes(Totp):
    """Flask-Security's, where no code works twice: who looks over somebody's shoulder, or reads along, is too late."""

    def __init__(self, issuer: str) -> None:
        self._totp = _SealedTotp.using(issuer=issuer)

    def verify_totp(self, token: str, totp_secret: str, user: Any, window: int = 0) -> bool:
        try:
            return super().verify_totp(token, totp_secret, user, window)
        except VaultError:
            return False  # its encryption key is gone; a recovery code still works

    def generate_qrcode(self, username: str, totp: str) -> str:
        """The code to scan, as an SVG element: a page may show no picture that is not a file of Grafient's."""
        import qrcode
        from qrcode.image.svg import SvgPathImage

        drawn = qrcode.make(self.get_totp_uri(username, totp), image_factory=SvgPathImage)
        return Markup(drawn.to_string(encoding="unicode"))  # noqa: S704 - drawn here, of squares

    def get_last_counter(self, user: Any) -> int | None:
        counter: int | None = user.tf_counter
        return counter

    def set_last_counter(self, user: Any, tmatch: TotpMatch) -> None:
        """Of two requests with the same code at once, one changes the row. Raises TokenError in the other."""
        before = or_(User.tf_counter.is_(None), User.tf_counter < tmatch.counter)
        changed = db.session.execute(
            update(User).where(User.id == user.id, before).values(tf_counter=tmatch.counter),
            execution_options={"synchronize_session": False},
        )
        if not changed.rowcount:  # type: ignore[attr-defined]
            raise TokenError


class RecoveryCodes(MfRecoveryCodesUtil):
    """Flask-Security's, where codes are stored as hashes, and shown when they are made and never again."""

    def create_recovery_codes(self, user: Any) -> list[str]:
        codes = [_new() for _ in range(RECOVERY_CODES)]
        audit.note(Action.RECOVERY_CODES_MADE, user.workspace_id, user.email)
        user.mf_recovery_codes = ",".join(_hashed(code) for code in codes)
        db.session.add(user)
        return codes

    def get_recovery_codes(self, user: Any) -> list[str]:
        """None to be shown."""
        return []

    def check_recovery_code(self, user: Any, code: str) -> bool:
        """Whether it is one, which is used up by that. Of two requests with the same code at the same moment, one
        finds the row as it was."""
        stored, wanted = user.mf_recovery_codes or "", _hashed(code)
        left = stored.split(",")
        if wanted not in left:
            user.track_failed_authn("recovery code", True)
            return False
        left.remove(wanted)
        changed = db.session.execute(
            update(User).where(User.id == user.id, User.mf_recovery_codes == stored).values(
                mf_recovery_codes=",".join(left)
            )
        )  # fmt: skip
        if not changed.rowcount:  # type: ignore[attr-defined]
            return False
        audit.note(Action.RECOVERY_CODE_USED, user.workspace_id, f"{user.email}, {len(left)} left", actor=user.email)
        return True

    def delete_recovery_code(self, user: Any, code: str) -> bool:
        """Done above."""
        return True


def codes_left(user: User) -> int:
    """How many recovery codes were not used yet."""
    return len(user.mf_recovery_codes.split(",")) if user.mf_recovery_codes else 0


def turn_off(user: User) -> None:
    """Have the password be enough, for who has neither device nor codes any more. Does not commit."""
    user.tf_primary_method = user.tf_totp_secret = user.tf_counter = user.mf_recovery_codes = None


def reseal() -> tuple[int, list[int]]:
    """Seal anew, with the newest encryption key, what another one sealed: how many there were, and the users whose do
    not open. Commits."""
    newest, count, shut = next(iter(vault.keys)), 0, list[int]()
    for user in db.session.query(User).filter(User.tf_totp_secret.is_not(None)):
        secret = user.tf_totp_secret or ""
        if secret.startswith(f"{newest}:"):
            continue
        try:
            user.tf_totp_secret = _SealedTotp.from_source(secret).to_json()
            count += 1
        except VaultError:
            shut.append(user.id)
    db.session.commit()
    return count, shut


def give_up(key_id: str) -> int:
    """Put others in the place of the secrets that a lost encryption key seals. Their users still need a second factor,
    a recovery code, until they set up an app again: a key that is lost must not be a way around it. Commits."""
    lost = db.session.query(User).filter(User.tf_totp_secret.startswith(f"{key_id}:", autoescape=True)).all()
    for user in lost:
        user.tf_totp_secret = _SealedTotp.new().to_json()
    db.session.commit()
    return len(lost)


def _new() -> str:
    letters = base64.b32encode(secrets.token_bytes(_CODE_BYTES)).decode().lower()
    return "-".join(letters[at : at + 4] for at in range(0, len(letters), 4))


def _hashed(code: str) -> str:
    return sessions.hashed("".join(filter(str.isalnum, code.lower()))).hex()


def _opened(text: str) -> str:
    key_id, _, encoded = text.partition(":")
    try:
        return vault.decrypt(Sealed(key_id, base64.b64decode(encoded, validate=True)), _BOUND_TO)
    except binascii.Error:
        raise VaultError("What the authenticator app's codes are made of was changed.") from None
