"""Sample data: a made-up account with a lively year, for looking around before anything is connected.

It is a provider like any other, so that the ordinary sync fills the ledger, every page and check works, and the daily
syncs keep it current. It answers within this process, from the sandbox: no network, and no key of anybody's. Nobody
can choose it in Add Integration; ``integrations`` keeps it and real accounts apart.
"""

from __future__ import annotations

from typing import Any

import httpx

from grafient import sandbox
from grafient.providers.http import ReadingClient, Reply
from grafient.providers.openrouter import OpenRouter

SLUG = "sample"
LABEL = "Sample data"
KEY = sandbox.key("lively")


class Sample(OpenRouter):
    """The sandbox's account, read as OpenRouter's are."""

    slug = SLUG
    name = "Sample provider"

    def __init__(self) -> None:
        super().__init__("http://sample/api/v1", _InProcess())


class _InProcess(ReadingClient):
    """Asks a sandbox of its own each time, so that neither its log of requests nor its limit of them adds up."""

    def __init__(self) -> None:
        """Without connections, and without the TLS context that they need."""

    def close(self) -> None:
        """There is nothing to close."""

    def _send(self, method: str, url: str, bearer: str, headers: dict[str, str] | None = None, **rest: Any) -> Reply:
        request = httpx.Request(method, url, headers={"Authorization": f"Bearer {bearer}", **(headers or {})}, **rest)
        response = httpx.WSGITransport(app=sandbox.Sandbox()).handle_request(request)
        return Reply(response.status_code, response.headers, response.read())
