"""Whole pages over HTTP, from the web server of ``make run``: the Dashboard of an account of 50 rows a day.

Beside it, from the same server, a page of as many bytes that needs no data (``plain.py``); and Datasette, which answers
from the same SQLite file with JSON what each model cost on each day of the period. The load comes from ``load.py``, on
kept connections, without If-None-Match and Accept-Encoding unless the row says so. Each page was asked for before it is
measured.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from bench import places, team
from bench.measure import Result, compare, rate, within
from bench.places import Helper
from grafient.days import Period
from grafient.extensions import db
from grafient.models import User, Workspace, utc_now

CONNECTIONS = 16
DAYS = 30
BY_DAY_AND_MODEL = """
SELECT t.day, m.name, sum(t.usage_usd) FROM model_total t JOIN model m ON m.id = t.model_id
WHERE m.integration_id IN (SELECT id FROM integration WHERE workspace_id = :workspace)
AND t.day BETWEEN :first AND :last GROUP BY 1, 2
"""


@dataclass
class Page:
    """What is asked for, and how long it took at the 95th percentile each time."""

    port: int
    path: str
    headers: Mapping[str, str]
    seconds: float
    p95: list[float]
    size: int = 0
    etag: str = ""

    def ask(self, client: Helper) -> float:
        """Ask for it as often as these seconds allow; how long one of many took."""
        wanted = {"port": self.port, "path": self.path, "headers": self.headers}
        found = client.ask(json.dumps({**wanted, "connections": CONNECTIONS, "seconds": self.seconds}))
        self.p95.append(found["p95"])
        self.size, self.etag = found["size"], found["etag"]
        return float(found["seconds"] / found["requests"])


def measure(rounds: int, rows: int = 50, days: int = 365, seconds: float = 2.0) -> Iterator[Result]:
    """Each page for so many seconds a round."""
    with (
        places.folder() as path,
        places.redis() as redis,
        places.helper([sys.executable, "-m", "bench.load"]) as client,
    ):
        settings = places.settings(f"sqlite:///{path}/grafient.db", redis, "http://127.0.0.1:1", path)
        with _web(settings) as port:
            headers = _signed_in(port)
            query = _fill(settings, rows, days)

            def page(path: str, port: int = port, **more: str) -> Page:
                return Page(port, path, headers | more, seconds, [])

            def pair(ours: Page, theirs: Page) -> tuple[Callable[[], float], Callable[[], float]]:
                return lambda: ours.ask(client), lambda: theirs.ask(client)

            dashboard = page("/")
            dashboard.ask(client)  # how large is it?
            plain = page(f"/plain/{dashboard.size}")
            name = f"Dashboard of {DAYS} days at {CONNECTIONS} connections, SQLite"
            against = f"a page of {dashboard.size // 1024} KiB without data"
            dashboard.p95.clear()
            result = compare(name, against, *pair(dashboard, plain), rounds=rounds, least=0.6, said=rate)
            yield result
            yield within(f"{name}: 95 of 100 pages within", 0.05, dashboard.p95[1:])
            if dashboard.etag:
                again = page("/", **{"If-None-Match": dashboard.etag})
                name_again = f"{name}, with If-None-Match"
                yield compare(name_again, against, *pair(again, plain), rounds=rounds, said=rate)
            compressed = page("/", **{"Accept-Encoding": "gzip"})
            yield compare(f"{name}, compressed", against, *pair(compressed, plain), rounds=rounds, said=rate)
            if places.has("datasette"):
                with _datasette(path / "grafient.db") as other:
                    asked = page(
                        f"/grafient.json?{urlencode({'sql': BY_DAY_AND_MODEL, '_shape': 'arrays'} | query)}", other
                    )
                    yield compare(
                        name, "Datasette's JSON, by day and model", *pair(dashboard, asked), rounds=rounds, least=2.0,
                        said=rate,
                    )  # fmt: skip


@contextmanager
def _web(settings: Mapping[str, str]) -> Iterator[int]:
    """Its port."""
    upgrade = [sys.executable, "-m", "flask", "--app", "wsgi", "upgrade"]
    with places.process(upgrade, environment=settings) as done:
        if done.wait():
            raise RuntimeError("the schema could not be made")
    port = places.free_port()
    web = [sys.executable, "-m", "flask", "--app", "bench.plain", "web", "--host", "127.0.0.1"]
    with places.process(web, environment=dict(settings) | {"PORT": str(port)}):
        places.until_it_answers(f"http://127.0.0.1:{port}/healthz")
        yield port


def _signed_in(port: int) -> dict[str, str]:
    """The headers of a browser that has just registered."""
    headers = {"User-Agent": "bench", "Accept": "text/html"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, follow_redirects=True) as browser:
        token = re.findall(r'name="csrf_token"[^>]*value="([^"]+)"', browser.get("/register").text)[0]
        secret = "correct horse battery"
        form = {"csrf_token": token, "email": "bench@example.com", "password": secret, "password_confirm": secret}
        browser.post("/register", data=form, headers={"Referer": str(browser.base_url)}).raise_for_status()
        return headers | {"Cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}


def _fill(settings: Mapping[str, str], rows: int, days: int) -> dict[str, Any]:
    """Give the account its past; what the query for Datasette is about."""
    with places.app(settings["DATABASE_URL"]):
        workspace = db.session.get_one(Workspace, db.session.query(User).one().workspace_id)
        team.write(workspace, 1, rows, days, now=utc_now())
        period = Period.latest(DAYS, utc_now())
        first, last = period.first.toordinal(), period.last.toordinal()
        return {"workspace": workspace.id, "first": first, "last": last}


@contextmanager
def _datasette(file: Path) -> Iterator[int]:
    """Its port. A thousand rows are what it returns at most as it comes; the period has fewer."""
    port = places.free_port()
    with places.process([places.OTHERS / "datasette", "serve", file, "--port", port]):
        places.until_it_answers(f"http://127.0.0.1:{port}/-/versions.json")
        yield port
