"""Which passwords are good enough: long, not known to be common, and not made of one's own names."""

from __future__ import annotations

import re
from typing import Any

from flask_security import PasswordUtil

LEAST_SCORE = 3
"""Of zxcvbn's 0 to 4: more than 10⁸ guesses, at the few an hour that are let through."""

_LONGEST = 72  # zxcvbn refuses to look at more, and takes long for it
_EASY = "This password is easy to guess. Use several words, or let a password manager make one."
_OWN = "This password is mostly your own name or address. Use other words."


class Passwords(PasswordUtil):
    """Flask-Security's rules, and ours. zxcvbn has lists of common passwords, names and words with it, and asks nobody
    elsewhere."""

    def validate(self, password: str, is_register: bool, **of: Any) -> tuple[list[str] | None, str]:
        refused, password = super().validate(password, is_register, **of)
        email = of.get("email") if is_register else getattr(of.get("user"), "email", None)
        return refused or why_weak(password, str(email or "")), password


def why_weak(password: str, email: str) -> list[str] | None:
    """What is wrong with a password of somebody with this address, in a sentence; None if nothing is."""
    own = [word for word in re.split(r"[^\w]+", email.lower()) if len(word) > 2] + ["grafient"]
    rest = password.lower()
    for word in sorted(own, key=len, reverse=True):
        rest = rest.replace(word, "")
    if len(rest) < 8 and rest != password.lower():
        return [_OWN]
    from zxcvbn import zxcvbn  # its lists are 14 MB, and wanted when somebody chooses a password

    found = zxcvbn(password[:_LONGEST], user_inputs=[email, *own])
    if found["score"] >= LEAST_SCORE:
        return None
    return [found["feedback"]["warning"] or _EASY]
