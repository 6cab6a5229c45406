"""A browser's tab that remembers everything that should not have happened in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, WebError

HERE = ("127.0.0.1", "localhost")


class Tab:
    """A page in a context of its own: its cookies and what it fetches are nobody else's."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self._faults: list[str] = []
        self._refused: list[tuple[int, str]] = []
        self._notes: list[tuple[str, str]] = []
        context.on("console", self._on_console)
        context.on("weberror", self._on_error)
        context.on("request", self._on_request)
        self.page: Page = context.new_page()

    @classmethod
    @contextmanager
    def of(cls, browser: Browser, url: str, **options: Any) -> Iterator[Tab]:
        """Open one whose addresses begin at ``url``; on leaving, fail if anything was wrong in it."""
        context = browser.new_context(base_url=url, **options)
        try:
            tab = cls(context)
            yield tab
            tab.check()
        finally:
            context.close()

    def expect_refusal(self, path: str, status: int = 422) -> None:
        """From now on the browser may note that this address answered so, which is no error of the page."""
        self._refused.append((status, path))

    def check(self) -> None:
        """Fail if the console or a script reported an error, or if anything left this machine."""
        self.page.evaluate("0")  # what the browser said before that has arrived by now
        faults = self._faults + [f"{text} ({url})" for text, url in self._notes if not self._is_expected(text, url)]
        assert not faults, "in the browser: " + "; ".join(faults)

    def _is_expected(self, text: str, url: str) -> bool:
        return any(
            text.startswith(f"Failed to load resource: the server responded with a status of {status} ")
            and urlsplit(url).path == path
            for status, path in self._refused
        )

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            self._notes.append((message.text, message.location["url"]))

    def _on_error(self, error: WebError) -> None:
        self._faults.append(str(error.error))

    def _on_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.hostname not in HERE:
            self._faults.append(f"a request to {request.url}")
