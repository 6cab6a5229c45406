"""``make audit``: the Nu Html Checker on all pages, and Lighthouse (mobile) on those that are opened every morning.

Fails for any error in the HTML but the attributes of htmx, and below 100 for accessibility, 100 for best practices and
98 for performance.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests import browser_setup
from tests.audit.addresses import SIGNED_IN, SIGNED_OUT, SMALL_AND_FAST
from tests.audit.site import Site, site

MODULES = Path(__file__).with_name("node_modules")
LEAST = {"accessibility": 100, "best-practices": 100, "performance": 98}
TRIES = 3
"""A busy machine makes pages slow, never fast: the best of so many counts."""

HTMX = re.compile(r"Attribute “hx-[a-z-]+” not allowed")


def main() -> int:
    """The exit code."""
    for command, package in (("java", "default-jre-headless"), ("node", "nodejs")):
        if not shutil.which(command):
            sys.exit(f"make audit needs {command}. On Debian: apt-get install {package}")
    if not browser_setup.find():
        sys.exit(browser_setup.MISSING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("Starting a Grafient with a year of costs ...", flush=True)
        with site(folder) as found:
            faults = check_html(found, folder) + measure(found, folder)
    print("\n".join([f"{len(faults)} faults", *faults]) if faults else "Nothing to mend.")
    return 1 if faults else 0


def check_html(site: Site, folder: Path) -> list[str]:
    """What the Nu Html Checker finds wrong."""
    pages = folder / "pages"
    pages.mkdir()
    addresses = {}
    for signed_in, listed in ((True, SIGNED_IN), (False, SIGNED_OUT)):
        with site.client(signed_in=signed_in) as browser:
            for address in listed:
                file = pages / f"{len(addresses)}.html"
                file.write_text(browser.get(site.path(address)).text)
                addresses[file.name] = address
    command = ["java", "-jar", MODULES / "vnu-jar/build/dist/vnu.jar", "--errors-only", "--stdout", "--format", "json"]
    done = subprocess.run([*command, *pages.iterdir()], capture_output=True, text=True, check=False)
    messages = json.loads(done.stdout)["messages"]
    print(f"Nu Html Checker: {len(addresses)} pages read", flush=True)
    return [
        f"{addresses[Path(one['url']).name]}, line {one.get('lastLine')}: {one['message']}"
        for one in messages
        if not HTMX.match(one["message"])
    ]


def measure(site: Site, folder: Path) -> list[str]:
    """The scores that are too low, and why."""
    faults = []
    print("Lighthouse, mobile:", ", ".join(LEAST), flush=True)
    for address in SMALL_AND_FAST:
        best: dict[str, int] = {}
        why: list[str] = []
        for _ in range(TRIES):
            scores, lost = lighthouse(site, site.path(address), folder)
            best = {name: max(score, best.get(name, 0)) for name, score in scores.items()}
            why = lost
            if all(best[name] >= least for name, least in LEAST.items()):
                break
        print(" ".join(f"{best[name]:4}" for name in LEAST), address, flush=True)
        low = [f"{name} {best[name]}" for name, least in LEAST.items() if best[name] < least]
        if low:
            faults.append(f"{address}: {', '.join(low)}; {'; '.join(why)}")
    return faults


def lighthouse(site: Site, path: str, folder: Path) -> tuple[dict[str, int], list[str]]:
    """The scores of 100 each, and the audits that lost points."""
    headers = folder / "headers.json"
    headers.write_text(json.dumps({"Cookie": "; ".join(f"{name}={value}" for name, value in site.cookies.items())}))
    command = [
        *("node", MODULES / "lighthouse/cli/index.js", f"{site.url}{path}", "--quiet", "--output=json"),
        *(f"--extra-headers={headers}", f"--only-categories={','.join(LEAST)}"),
        "--chrome-flags=--headless=new --no-sandbox",
    ]
    environment = os.environ | {"CHROME_PATH": browser_setup.find() or ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"Lighthouse failed for {path}: {done.stderr[-2000:]}")
    report = json.loads(done.stdout)
    scores = {name: round(100 * (report["categories"][name]["score"] or 0)) for name in LEAST}
    weighty = {one["id"] for name in LEAST for one in report["categories"][name]["auditRefs"] if one["weight"]}
    lost = [
        f"{name} ({one['title']}{': ' + one['displayValue'] if one.get('displayValue') else ''})"
        for name, one in report["audits"].items()
        if name in weighty and one["score"] is not None and one["score"] < 0.9
    ]
    return scores, lost


if __name__ == "__main__":
    sys.exit(main())
