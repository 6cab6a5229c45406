"""A Grafient to look at: the whole product, with an account that has something to show on each of its pages."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import httpx

from grafient.sandbox import Sandbox
from tests.e2e.product import Product, until

EMAIL = "someone@example.com"
PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Site:
    """Where it is, the cookies of who is signed in, and what addresses are filled in with."""

    url: str
    cookies: dict[str, str]
    names: dict[str, str]

    def path(self, address: str) -> str:
        """An address of ``addresses.py``, filled in."""
        return address.format(**self.names)

    def client(self, *, signed_in: bool = True, **headers: str) -> httpx.Client:
        """A browser's place: with the account's cookies, or none."""
        return httpx.Client(base_url=self.url, cookies=self.cookies if signed_in else {}, headers=headers, timeout=30)


@contextmanager
def site(folder: Path, *, troubled: bool = True) -> Iterator[Site]:
    """Start it, and end it. ``troubled``: with a second account that has lost its key, and a restated day."""
    with Sandbox() as sandbox:
        product = Product(
            folder,
            sandbox,
            GRAFIENT_DEFAULT_PLAN="ultimate",
            GRAFIENT_REGISTRATION="open",
            GRAFIENT_HOSTS="grafient.test",
        )
        try:
            product.start()
            with httpx.Client(base_url=product.url, timeout=30) as browser:
                cookies, names = _fill(browser, sandbox, troubled)
                until(lambda: '<h2 id="open">Open incidents' not in browser.get("/alerts").text, "an incident", 90)
                names["incident"] = _add_history(product)
                yield Site(product.url, cookies, names)
        finally:
            product.end()


def _fill(browser: httpx.Client, sandbox: Sandbox, troubled: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Register and connect one account, or two; one has a day restated, the other loses its key."""
    _post(browser, "/register", email=EMAIL, password=PASSWORD, password_confirm=PASSWORD)
    for name in ("lively", "byok") if troubled else ("lively",):
        _post(
            browser, "/integrations", "/integrations/new", provider="openrouter", label=name, api_key=sandbox.key(name)
        )
    for number in (1, 2) if troubled else (1,):
        until(lambda number=number: "Up to date" in _card(browser, number), f"{number} up to date", 90)
    day = sandbox.today - timedelta(days=3)
    if troubled:
        sandbox.restate("lively", day, "1.25")
        sandbox.fault("byok", "revoked")
        for number, state in ((1, "Up to date"), (2, "Needs a new key")):
            _post(browser, f"/integrations/{number}/sync", "/integrations")
            until(lambda number=number, state=state: state in _card(browser, number), f"{number}: {state}", 90)
    nowhere = {"kind": "webhook", "name": "Our own program", "url": "https://hooks.example.com/in", "topics": "budgets"}
    _post(browser, "/alerts/channels", "/alerts/channels/new?kind=webhook", **nowhere)
    _post(browser, "/alerts/channels/1/test", "/alerts/channels/1")
    sums = {"Everything": "3000", "Half of a week": "1", "A year": "100000"}
    for (name, amount), period in zip(sums.items(), ("month", "week", "year"), strict=True):
        fields = {"name": name, "amount_usd": amount, "period": period, "actual": "50, 80, 100", "forecast": "100"}
        _post(browser, "/alerts/budgets", "/alerts/budgets/new", **fields)
    browser.get("/integrations")  # says what was done, which is then not said on the pages that are looked at
    row, key = sandbox.truth("lively", day, day).rows[0], sandbox.account("lively").keys(sandbox.today)[0]
    return dict(browser.cookies), {
        "integration": "1",
        "troubled": "2",
        "channel": "1",
        "budget": "2",
        "day": day.isoformat(),
        "today": sandbox.today.isoformat(),
        "model": quote(row.model),
        "host": quote(row.provider_name),
        "key": key.hash,
    }


def _add_history(product: Product) -> str:
    """An incident that is over, as nothing that happens within a minute leaves one; the id of one that is open."""
    facts = json.dumps({"label": "Production", "since": "2026-11-20T06:01:00+00:00"})
    columns = "workspace_id, kind, subject, facts, marks, opened_at, told_at, resolved_at, acknowledged_by"
    with contextlib.closing(sqlite3.connect(product.data / "grafient.db", timeout=30)) as connection, connection:
        then, over = "2026-11-21 08:00:00.000000", "2026-11-22 08:00:00.000000"
        row = (1, "no_sync", "before", facts, "[]", then, then, over, "someone@example.com")
        marks = ", ".join("?" * len(row))
        made = connection.execute(f"INSERT INTO incident ({columns}) VALUES ({marks})", row).lastrowid
        for what, at in (("opened", then), ("resolved", over)):
            event = (made, what, at, facts, "[]")
            connection.execute(
                "INSERT INTO incident_event (incident_id, what, at, facts, marks) VALUES (?, ?, ?, ?, ?)", event
            )
        return str(connection.execute("SELECT min(id) FROM incident WHERE resolved_at IS NULL").fetchone()[0])


def _card(browser: httpx.Client, number: int) -> str:
    return browser.get(f"/integrations/{number}/card").text


def _post(browser: httpx.Client, path: str, page: str = "", **data: str) -> None:
    token = re.findall(r'name="csrf_token"[^>]*value="([^"]+)"', browser.get(page or path).text)[0]
    answer = browser.post(path, data={"csrf_token": token, **data}, headers={"Referer": str(browser.base_url)})
    assert answer.status_code in (200, 302, 303), f"{answer.status_code} for {path}: {answer.text[-500:]}"
