"""A provider's key is nowhere to be read: not in a file, in Redis, in what is printed, or on a page."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
import redis as redis_py
from itsdangerous import URLSafeTimedSerializer
from playwright.sync_api import Page, expect

from grafient.sandbox import Sandbox
from tests.e2e import steps
from tests.e2e.product import Product
from tests.e2e.tab import Tab

pytestmark = pytest.mark.browser

LABEL = "Nowhere to be read"


def test_no_trace_of_the_key(product: Product, tab: Tab) -> None:
    page, sandbox = tab.page, product.sandbox
    seen = {name: text.encode() for name, text in _use_keys_in_every_way(tab, sandbox)}
    seen |= {name: text.encode() for name, text in _crawl(page)}
    seen |= {f"cookie {name}": text.encode() for name, text in _cookies(page)}
    files = {str(path): path.read_bytes() for path in product.data.rglob("*") if path.is_file()}
    redis = dict(_redis(product.data / "redis" / "redis.sock"))
    seen |= files | redis | {"output": product.log.read_bytes()}
    for process in product.processes():
        seen[f"environment of {process.name} {process.pid}"] = Path(f"/proc/{process.pid}/environ").read_bytes()
        seen[f"command {process.pid}"] = process.command.encode()

    secrets = {name: sandbox.key(name).encode() for name in sandbox.state.cast}
    for where, what in seen.items():
        for name, key in secrets.items():
            assert key not in what, f"the key {name} is in {where}"
            assert key.removeprefix(b"sk-or-v1-") not in what, f"the key {name}, less its beginning, is in {where}"

    # It was looked for where things are kept: what may be there was found.
    assert any(LABEL.encode() in what for what in files.values())
    assert any(name.endswith(".aof") and b"grafient" in what for name, what in files.items())
    assert any(b"grafient.jobs.work.tick" in what for what in redis.values())
    assert b"Grafient is at http://localhost" in seen["output"]
    assert {"/", "/breakdown", "/integrations", "/integrations/new", "/account"} <= seen.keys()
    assert any(sandbox.key("lively-again")[-4:].encode() in what for what in seen.values())


def _use_keys_in_every_way(tab: Tab, sandbox: Sandbox) -> Iterator[tuple[str, str]]:
    """Test, connect, sync and replace, well and badly; what each page then looked like."""
    page = tab.page
    tab.expect_refusal("/integrations/test")
    tab.expect_refusal("/integrations")
    steps.register(page, "secret@example.com")

    page.goto("/integrations/new")
    for name in ("inference", "revoked", "no-flag", "lively"):
        steps.fill_in(page, sandbox.key(name), LABEL)
        with page.expect_response("**/integrations/test") as response:
            steps.tested(page)
        yield f"the test of {name}", response.value.text()
        yield f"the page of the test of {name}", page.content()

    page.get_by_label("Management key").fill(sandbox.key("inference"))
    page.get_by_role("button", name="Add Integration").click()
    expect(page.get_by_role("heading", name="Add Integration")).to_be_visible()
    expect(page.locator("#test-result")).to_contain_text(steps.INFERENCE_KEY)
    yield "the refusal to connect", page.content()

    steps.add(page, sandbox.key("lively"), LABEL)
    card = steps.card(page, LABEL)
    steps.look_again_until(page, card, "Up to date")
    yield "the card", page.content()

    card.get_by_role("link", name=LABEL, exact=True).click()
    tab.expect_refusal(f"{urlsplit(page.url).path}/key")
    for name, answer in (("revoked", "does not know this key"), ("other", "belongs to another account")):
        page.get_by_label("Management key").fill(sandbox.key(name))
        page.get_by_role("button", name="Replace key").click()
        expect(page.locator("#api_key-error")).to_contain_text(answer)
        yield f"the refusal of {name}", page.content()
    page.get_by_label("Management key").fill(sandbox.key("lively-again"))
    page.get_by_role("button", name="Replace key").click()
    expect(page.get_by_role("status").filter(has_text="The new key works")).to_be_visible()
    card = page.get_by_role("article")
    steps.look_again_until(page, card, "Up to date")

    for fault, state in (
        ("misshapen", "Provider changed its API"),
        ("limited", "Retrying"),
        ("revoked", "Needs a new key"),
    ):
        sandbox.fault("lively-again", fault)
        steps.force_sync(page, card)
        steps.look_again_until(page, card, state)
        yield f"the card that says {state}", page.content()
    sandbox.fault("lively-again", None)


def _crawl(page: Page) -> Iterator[tuple[str, str]]:
    """Pages and files that links lead to from the dashboard: of each kind, each two parameters together once.
    All sets of parameters would be thousands.
    """
    start = page.context.request.get("/")
    origin, waiting, known = start.url, ["/"], set[tuple[str, ...]]()
    while waiting:
        path = waiting.pop()
        response = page.context.request.get(path)
        assert response.ok, f"{response.status} for {path}"
        text = response.text()
        yield path, text
        for link in re.findall(r'(?:href|hx-get)="([^"#]+)', text):
            parts = urlsplit(urljoin(urljoin(origin, path), link.replace("&amp;", "&")))
            kind = re.sub(r"\d{4}-\d\d-\d\d|(?<=^/keys/).+|(?<=^/hosts/).+|(?<=^/models/).+", "one", parts.path)
            names = sorted(parse_qs(parts.query))
            new = {(kind,), *((kind, *pair) for pair in combinations_with_replacement(names, 2))} - known
            if parts.netloc == urlsplit(origin).netloc and new and not kind.startswith("/static/"):
                known |= new
                waiting.append(f"{parts.path}?{parts.query}".rstrip("?"))


def _cookies(page: Page) -> Iterator[tuple[str, str]]:
    """The cookies as they are, and the session unpacked: it is signed, not secret."""
    for cookie in page.context.cookies():
        yield cookie["name"], cookie["value"]
        if cookie["name"] == "session":
            _, inside = URLSafeTimedSerializer("").loads_unsafe(cookie["value"])
            yield "session, unpacked", repr(inside)


def _redis(socket: Path) -> Iterator[tuple[str, bytes]]:
    """All that Redis holds; what was compressed both as it is and unpacked."""
    with redis_py.Redis(unix_socket_path=str(socket)) as redis:
        for key in redis.scan_iter():
            name = f"redis {key!r}"
            parts = _parts(redis, key)
            yield name, b"\n".join([key, redis.dump(key) or b"", *parts, *(_unpacked(part) for part in parts)])


def _parts(redis: Any, key: bytes) -> list[bytes]:
    kind = redis.type(key)
    if kind == b"string":
        return [redis.get(key) or b""]
    if kind == b"hash":
        return [part for pair in redis.hgetall(key).items() for part in pair]
    if kind == b"list":
        return list(redis.lrange(key, 0, -1))
    if kind == b"set":
        return list(redis.smembers(key))
    if kind == b"zset":
        return list(redis.zrange(key, 0, -1))
    if kind == b"none":
        return []  # it has gone meanwhile
    return [repr(redis.xrange(key)).encode()]


def _unpacked(part: bytes) -> bytes:
    try:
        return zlib.decompress(part)
    except zlib.error:
        return b""
