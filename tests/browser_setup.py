"""Before the tests: is there a Chromium for those that need a browser, and if not, can one be had?

``make test`` runs it. CHROMIUM names a browser that is not on PATH; with CI=true a missing one is a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = (
    "NO CHROMIUM WAS FOUND, so the tests in a real browser are going to be SKIPPED. "
    "Install one (on Debian: apt-get install chromium), or name one: CHROMIUM=/path/to/chromium make test"
)


def find() -> str | None:
    """Where the browser is: CHROMIUM if that is set, or else the first of the usual names on PATH."""
    named = os.environ.get("CHROMIUM", "").strip()
    return next((path for name in ([named] if named else NAMES) if (path := shutil.which(name))), None)


def is_required() -> bool:
    """Whether a missing browser is a failure and nothing to be skipped over."""
    return os.environ.get("CI", "").strip().lower() in ("true", "1")


def main() -> int:
    """Look, install if that is possible here, or else say so; the exit code."""
    if find():
        return 0
    if _can_install():
        print("No Chromium was found: installing Debian's, for the tests in a real browser.", flush=True)
        _install()
        if find():
            return 0
    print(MISSING, file=sys.stderr)
    return 1 if is_required() else 0


def _can_install() -> bool:
    named = os.environ.get("CHROMIUM", "").strip()
    return not named and hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get") is not None


def _install() -> None:
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
        subprocess.run(["apt-get", "-qq", *command], env=environ, stdout=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    sys.exit(main())
