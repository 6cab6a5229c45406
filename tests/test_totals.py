"""The totals of days and models are what their lines add up to, and whoever checks them notices what is not."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest
from sqlalchemy import delete, insert, update

from grafient import totals
from grafient.days import Period
from grafient.extensions import db
from grafient.models import DayTotal, Integration, ModelTotal, Workspace
from grafient.query import Group, Query
from grafient.reports import sums
from tests.stored import add, ago, cover
from tests.syncing import at


@pytest.fixture(autouse=True)
def _at_noon() -> Iterator[None]:
    with at():
        yield


@pytest.fixture
def one(workspace: Workspace) -> Integration:
    one = add(workspace, "one")
    cover(one, [ago(2), ago(1)], usd=3, requests=5)
    cover(one, [ago(1)], usd=4, model="n", byok_usd=Decimal(2), cached_tokens=7)
    return one


def test_unknown_counts_are_told_from_nothing(one: Integration, workspace: Workspace) -> None:
    found = sums.measures_by_day(Query(workspace.id, Period(ago(2), ago(1))))
    assert [(found[day].requests.known, found[day].requests.complete) for day in (ago(2), ago(1))] == [
        (5, True),
        (5, False),
    ]
    assert (found[ago(2)].cached_tokens.known, found[ago(1)].cached_tokens.known) == (None, 7)
    by_model = sums.measures_by(Query(workspace.id, Period(ago(2), ago(1))), Group.MODEL)
    assert {name: (one.usage_usd, one.requests.known, one.days) for name, one in by_model.items()} == {
        "m": (Decimal(6), 10, 2),
        "n": (Decimal(4), None, 1),
    }


@pytest.mark.parametrize("table", [DayTotal, ModelTotal])
@pytest.mark.parametrize(
    "wrong", [{"usage_usd": Decimal(9)}, {"byok_usd": None}, {"requests_known": 5}, {"cached_tokens": 0}, {"lines": 9}]
)
def test_a_total_that_is_off_is_found_and_repaired(one: Integration, table: type, wrong: dict[str, object]) -> None:
    assert totals.wrong() == []
    db.session.execute(update(table).where(table.day == ago(1)).values(**wrong))
    assert totals.wrong() == [(one.id, ago(1))]
    assert totals.repair() == 1
    assert totals.wrong() == []


def test_totals_that_lack_and_totals_of_nothing_are_found(one: Integration) -> None:
    db.session.execute(delete(ModelTotal).where(ModelTotal.day == ago(2)))
    known = {f"{name}_known": 0 for name in totals.COUNTED}
    row = {"integration_id": one.id, "day": ago(5), "usage_usd": Decimal(1), "lines": 1} | known
    db.session.execute(insert(DayTotal), [row])
    assert totals.wrong() == [(one.id, ago(5)), (one.id, ago(2))]
    assert totals.repair() == 2
    assert totals.wrong() == []
