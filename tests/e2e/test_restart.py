"""What lasts when the product is stopped, and what ends with it when one of its processes dies."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest
import redis as redis_py
from playwright.sync_api import expect

from grafient.sandbox import Sandbox
from tests.e2e import steps
from tests.e2e.product import Product, nothing_left, until
from tests.e2e.tab import Tab

pytestmark = pytest.mark.processes
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

ORPHAN_SECONDS = 20.0
"""A process whose parent was killed may first have to notice it."""


@pytest.fixture(scope="module")
def _product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with Sandbox() as sandbox:
        product = Product(tmp_path_factory.mktemp("restart"), sandbox, GRAFIENT_REGISTRATION="open")
        yield product
        product.end()


@pytest.fixture
def product(_product: Product) -> Product:
    """A product on one data folder for all of these tests, started again if the last test ended it."""
    _product.sandbox.reset()
    if not _product.running:
        _product.start()
    return _product


def _redis(product: Product) -> redis_py.Redis:
    return redis_py.Redis(unix_socket_path=str(product.data / "redis" / "redis.sock"))


def test_a_first_start_says_what_it_does(product: Product) -> None:
    until(lambda: "Grafient is at http://localhost" in product.log.read_text(errors="replace"), "its address is said")
    said = product.log.read_text(errors="replace")
    assert said.count("Preparing the database ...") == 1, "later starts have nothing to prepare"
    assert said.index("Preparing the database ...") < said.index("Grafient is at http://localhost")


@pytest.mark.browser
def test_everything_is_there_after_ctrl_c_in_the_middle_of_a_sync(product: Product, tab: Tab) -> None:
    page, sandbox = tab.page, product.sandbox
    steps.register(page, "stays@example.com")
    steps.add(page, sandbox.key("lively"), "Stays")
    stays, midway = steps.card(page, "Stays"), steps.card(page, "Midway")
    steps.look_again_until(page, stays, "Up to date")
    sandbox.fault("lively", "limited", path="/activity")  # asks to wait two minutes
    steps.force_sync(page, stays)
    steps.look_again_until(page, stays, "Retrying")
    sandbox.fault("other", "slow", path="/activity")
    steps.add(page, sandbox.key("other"), "Midway")
    until(lambda: ("other", "/api/v1/activity") in [(r.key, r.path) for r in sandbox.requests()], "a sync under way")
    with _redis(product) as redis:
        redis.rpush("left-in-a-queue", "1")

    page.goto("about:blank")
    product.stop()
    product.start()

    with _redis(product) as redis:
        assert redis.lrange("left-in-a-queue", 0, -1) == [b"1"]
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Dashboard")
    steps.expect_amount(steps.total(page), steps.truth(sandbox, "lively").usage)
    page.goto("/integrations")
    steps.expect_state(midway, "Backfilling")
    steps.expect_state(stays, "Retrying")
    sandbox.fault("lively", None)
    steps.force_sync(page, stays)
    steps.look_again_until(page, stays, "Up to date")


@on_linux
@pytest.mark.parametrize(("name", "process"), [("worker", "worker"), ("web", "web"), ("redis", "valkey-server")])
def test_one_that_dies_takes_the_others_along(product: Product, name: str, process: str) -> None:
    processes = product.processes()
    os.kill(product.child(process).pid, signal.SIGKILL)
    assert product.wait() == 1
    assert f"Grafient stops: {name} was ended by SIGKILL; see " in product.output
    nothing_left(processes, ORPHAN_SECONDS)


@on_linux
def test_a_supervisor_that_is_killed_leaves_nothing_running(product: Product) -> None:
    until(lambda: len(product.processes()) == 7, "itself, Redis, web and its two, the worker and its scheduler")
    processes = product.processes()
    product.signal(signal.SIGKILL)
    assert product.wait() == -signal.SIGKILL
    nothing_left(processes, ORPHAN_SECONDS)
