"""A client for pages that reads each one as a strict browser would, and finds what is wrong with it."""

from __future__ import annotations

import re
from typing import Any

from flask import Flask
from justhtml import JustHTML
from werkzeug.test import TestResponse


class Pages:
    """Fetches pages, fills in forms by the names of their fields, and fails on HTML that is not sound."""

    def __init__(self, app: Flask) -> None:
        self.client = app.test_client()

    def get(self, path: str, status: int = 200, **headers: str) -> TestResponse:
        """Fetch and lint; the status has to be this one."""
        return self._checked(self.client.get(path, headers=_dashed(headers)), status)

    def post(
        self, path: str, status: int = 303, page: str | None = None, htmx: bool = False, **data: Any
    ) -> TestResponse:
        """Send a form with the CSRF token of ``page`` (or of the form's own page)."""
        token = self.token(page or path)
        headers = {"HX-Request": "true"} if htmx else {}
        response = self.client.post(path, data={"csrf_token": token, **data}, headers=headers)
        return self._checked(response, status)

    def token(self, page: str) -> str:
        """The CSRF token in a page's first form that has one."""
        found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.client.get(page).text)
        assert found, f"{page} has no form"
        return found[1]

    def register(self, email: str, password: str) -> None:
        """Make an account and be signed in with it, which the first and those with an invitation are at once."""
        answer = self.post("/register", 302, email=email, password=password, password_confirm=password)
        if not any("device=" in cookie for cookie in answer.headers.getlist("Set-Cookie")):
            self.log_in(email, password)

    def log_in(self, email: str, password: str) -> None:
        """Sign in."""
        self.post("/login", 302, email=email, password=password)

    def connect(self, key: str, label: str = "", **data: Any) -> TestResponse:
        """Add Integration."""
        return self.post(
            "/integrations", page="/integrations/new", provider="openrouter", api_key=key, label=label, **data
        )

    def _checked(self, response: TestResponse, status: int) -> TestResponse:
        assert response.status_code == status, f"{response.status_code} instead of {status}: {response.text[-700:]}"
        if response.mimetype == "text/html" and response.text.strip() and status not in (302, 303):
            lint(response.text)
        response.get_data()  # a stream that nobody read would be closed whenever it is collected, within another test
        return response


def lint(html: str) -> JustHTML:
    """Raise AssertionError unless a page or fragment is sound HTML that a screen reader can use."""
    whole = html.lstrip().lower().startswith("<!doctype")
    html = html.replace("<wbr>", "")  # where a name may be broken is no part of the name, and would be read as a space
    tree = JustHTML(html, fragment=not whole, strict=True, sanitize=False)
    nodes = tree.query("*")
    ids = [node.attrs["id"] for node in nodes if "id" in node.attrs]
    assert len(ids) == len(set(ids)), f"ids twice: {sorted({i for i in ids if ids.count(i) > 1})}"
    labelled = {node.attrs.get("for") for node in nodes if node.name == "label"}
    for node in nodes:
        assert node.name != "script" or "src" in node.attrs, "an inline script"
        assert "style" not in node.attrs, "an inline style"
        handlers = [name for name in node.attrs if name.startswith("on")]
        assert not handlers, f"an inline handler: {handlers}"
        if node.name in ("input", "select", "textarea") and node.attrs.get("type") not in ("hidden", "submit"):
            named = node.attrs.get("id") in labelled or {"aria-label", "aria-labelledby"} & node.attrs.keys()
            assert named, f"a field without a label: {node.attrs}"
    if whole:
        names = [node.name for node in nodes]
        assert names.count("h1") == 1, "not exactly one h1"
        assert tree.query("title")[0].to_text().strip(), "no title"
        assert tree.query("html[lang]"), "no language"
        assert "main" in names, "no main"
    return tree


def _dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
