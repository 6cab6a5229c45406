"""No page is forgotten by what looks at all of them."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Flask

from tests.audit.addresses import NO_PAGES, SIGNED_IN, SIGNED_OUT, SMALL_AND_FAST
from tests.syncing import on_sqlite


@on_sqlite
def test_every_page_is_looked_at(app: Flask) -> None:
    addresses = app.url_map.bind("localhost")
    listed = set()
    for path in (*SIGNED_IN, *SIGNED_OUT):
        path = path.format(
            integration=1,
            troubled=2,
            incident=1,
            budget=1,
            channel=1,
            day="2026-11-18",
            today="2026-11-20",
            model="m/n",
            host="h",
            key="k",
        )
        if path != "/nowhere":
            listed.add(addresses.match(urlsplit(path).path)[0])
    pages = {rule.endpoint for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ())} - NO_PAGES
    assert pages - listed == set(), "add an address of each to tests/audit/addresses.py"
    assert set(SMALL_AND_FAST) <= set(SIGNED_IN)
