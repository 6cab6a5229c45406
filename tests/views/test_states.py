"""Each page of costs with odd data and odd addresses: it has a state for it, and unknown is never zero."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from urllib.parse import quote

import pytest
from flask import Flask
from sqlalchemy import insert, select

from grafient.days import Period
from grafient.extensions import db
from grafient.models import ApiKey, CoveredDay, DayTotal, Integration, KeyReading, Model, ModelTotal, Workspace
from grafient.states import DayState, Source
from tests.pages import Pages, lint
from tests.stored import add, ago, cover
from tests.syncing import NOON, at, on_sqlite

pytestmark = on_sqlite

NAME = 'a"b<script>alert(1)</script>&%/ü'
"""Of a model, a host and a key."""


@pytest.fixture(autouse=True)
def _noon() -> Iterator[None]:
    with at():
        yield


def one(app: Flask, label: str = "one", **columns: object) -> Integration:
    workspace = db.session.execute(select(Workspace)).scalar_one()
    return add(workspace, label, last_success_at=NOON, **columns)


def one_day(app: Flask) -> None:
    cover(one(app), [ago(1)], usd=10, requests=1, prompt_tokens=5, completion_tokens=5)


def all_zero(app: Flask) -> None:
    cover(one(app), Period(ago(90), ago(1)), usd=0, requests=0, prompt_tokens=0, completion_tokens=0)


def no_usage(app: Flask) -> None:
    cover(one(app), Period(ago(90), ago(1)), usd=None, state=DayState.NO_USAGE)


def all_negative(app: Flask) -> None:
    cover(one(app), Period(ago(90), ago(1)), usd=-3, requests=1, prompt_tokens=5, completion_tokens=5)


def one_never_read(app: Flask) -> None:
    cover(one(app), Period(ago(90), ago(1)), usd=10, requests=1)
    one(app, "never read").last_success_at = None


def markup(app: Flask) -> None:
    found = one(app, NAME)
    cover(found, Period(ago(40), ago(1)), usd=10, model=NAME, key=NAME)
    db.session.execute(select(ApiKey)).scalar_one().name = NAME
    db.session.add(KeyReading(integration_id=found.id, key_hash=NAME, first_day=ago(40), last_day=ago(1)))


def many_models(app: Flask) -> None:
    found = one(app)
    own = {"integration_id": found.id, "day": ago(1)}
    db.session.execute(
        insert(CoveredDay),
        [own | {"state": DayState.FINAL, "source": Source.ACTIVITY, "first_run_id": 1, "changed_at": NOON}],
    )
    numbers = db.session.execute(
        insert(Model).returning(Model.id), [{"integration_id": found.id, "name": f"m{n:05}"} for n in range(10_000)]
    ).scalars()
    nothing = {f"{name}_known": 0 for name in ("byok_usd", "prompt_tokens", "completion_tokens", "reasoning_tokens")}
    sums = nothing | {"cached_tokens_known": 0, "requests_known": 1, "requests": 1, "lines": 1}
    rows = [sums | {"model_id": n, "day": ago(1), "usage_usd": Decimal(1)} for n in numbers]
    db.session.execute(insert(ModelTotal), rows)
    whole = sums | {"requests": 10_000, "requests_known": 10_000, "lines": 10_000, "usage_usd": Decimal(10_000)}
    db.session.execute(insert(DayTotal), [own | whole])


PERIODS = (
    "",
    "days=365",
    f"from={ago(1)}&to={ago(1)}",
    "from=2030-01-01&to=2030-01-31",
    "from=2016-11-20&to=2026-11-19",
    "period=all",
    "from=2026-11-19&to=2026-11-01",
    "host=nobody&key=nobody&model=nothing",
    "group=host&measure=tokens&by=month",
    "group=key&against=none",
    "group=integration&against=year&byok=1",
)
PAGES = ("/", "/breakdown", "/changes", "/ledger.csv", "/breakdown.csv")
OWN = (
    f"/days/{ago(1)}",
    "/days/2019-01-01",
    "/days/2030-01-01",
    "/models/m",
    "/models/m00001",
    f"/models/{quote(NAME)}",
    "/hosts/h",
    "/hosts/nobody",
    "/keys/unattributed",
    f"/keys/{quote(NAME, safe='')}",
    "/keys/nobody",
)
"""The pages of one thing, which a state may have or not."""


@pytest.mark.parametrize(
    "state", [one_day, all_zero, no_usage, all_negative, one_never_read, markup, many_models], ids=lambda f: f.__name__
)
def test_every_page_has_a_state_for_it(app: Flask, pages: Pages, state: object) -> None:
    with app.app_context():
        state(app)  # type: ignore[operator]
        db.session.commit()
    addresses = [f"{page}?{query}" for page in PAGES for query in PERIODS]
    for address in [*addresses, *OWN, *(f"{page}?{query}" for page in OWN for query in PERIODS[1:6])]:
        answer = pages.client.get(address)
        html = answer.text
        assert answer.status_code in ((200, 404) if address.split("?")[0] in OWN else (200, 400)), address
        if answer.status_code == 200 and answer.mimetype == "text/html":
            assert "<script>alert" not in html
            assert not re.search(r"\b(nan|NaN|inf|Infinity|None(?! yet))\b|∞", lint(html).to_text()), address


@pytest.mark.parametrize(
    ("state", "page"),
    [(one_day, "/models/m"), (one_day, "/hosts/h"), (markup, f"/models/{quote(NAME)}"), (many_models, "/models/m00001"),
     (one_day, "/keys/unattributed"), (one_day, f"/days/{ago(1)}")],
)  # fmt: skip
def test_what_there_is_has_a_page(app: Flask, pages: Pages, state: object, page: str) -> None:
    with app.app_context():
        state(app)  # type: ignore[operator]
        db.session.commit()
    pages.get(page)


@pytest.mark.parametrize(
    "page", ["/models/nothing", "/hosts/nobody", "/keys/nobody", "/models/%00", "/days/2026-02-30"]
)
def test_what_there_is_not_has_none(app: Flask, pages: Pages, page: str) -> None:
    with app.app_context():
        one_day(app)
        db.session.commit()
    assert pages.client.get(page).status_code in (400, 404)


@pytest.mark.parametrize("query", ["from=2030-01-01&to=2030-01-31", "from=2019-01-01&to=2019-01-31"])
@pytest.mark.parametrize("state", [one_day, all_negative, one_never_read], ids=lambda f: f.__name__)
def test_of_days_that_nobody_has_read_no_figure_is_zero(app: Flask, pages: Pages, state: object, query: str) -> None:
    with app.app_context():
        state(app)  # type: ignore[operator]
        db.session.commit()
    for page in ("/", "/breakdown", "/changes"):
        html = lint(pages.get(f"{page}?{query}").text)
        shown = [section.to_text() for section in html.query("main section:not(.headline)")]
        assert not any("$0.00" in text for text in shown), page


def test_refunds_alone_have_no_share_and_no_top(app: Flask, pages: Pages) -> None:
    with app.app_context():
        all_negative(app)
        db.session.commit()
    html = pages.get("/?days=7").text
    assert "−$21" in lint(html).to_text().replace("\n", "")
    (totals,) = lint(html).query("table.models tbody")
    assert "—" in totals.to_text()
    assert "%" not in totals.to_text()


def test_of_10000_models_the_page_has_a_bounded_part(app: Flask, pages: Pages) -> None:
    with app.app_context():
        many_models(app)
        db.session.commit()
    html = pages.get("/?days=7").text
    assert len(html) < 200_000
    assert "of 10,000" in lint(html).to_text()


def test_a_name_with_markup_can_be_filtered_by(app: Flask, pages: Pages) -> None:
    with app.app_context():
        markup(app)
        db.session.commit()
    for what in ("model", "key"):
        html = pages.get(f"/?{what}={quote(NAME, safe='')}").text
        (chip,) = lint(html).query("a.chip strong")
        assert chip.to_text() == NAME
        assert lint(html).query(".figure data")[0].attrs["value"] == "300"


def test_an_empty_grafient_has_a_state_on_every_page(pages: Pages) -> None:
    for page in ("/", "/breakdown", "/changes", "/statement", "/integrations"):
        assert "$0.00" not in pages.get(page).text
