"""How many statements a look at a workspace takes, so that they don't creep up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from flask import Flask

from grafient.alerts import budgets, watch
from grafient.extensions import db
from grafient.models import Integration, Workspace
from grafient.states import AlertKind, BudgetPeriod
from tests import statements
from tests.alerts.test_findings import days, look, set_rule
from tests.stored import TODAY, add, cover
from tests.syncing import NOON, at


@pytest.fixture(autouse=True)
def _at_noon() -> Iterator[None]:
    with at():
        yield


@pytest.fixture
def accounts(workspace: Workspace) -> list[Integration]:
    """Two accounts that were looked at after their last settled day."""
    found = []
    for label in ("one", "two"):
        one = add(workspace, label, last_success_at=NOON)
        cover(one, days(80, 1))
        found.append(one)
    set_rule(workspace, AlertKind.NO_SYNC, is_on=False)
    look(workspace, NOON - timedelta(hours=1))
    return found


def taken(app: Flask, workspace_id: int, now: datetime = NOON) -> int:
    """How many statements a look takes; none of them looks at all rows of a table."""
    with statements.asked(app) as found:
        watch.look(workspace_id, now)
    assert statements.scanned(app, found) == []
    return len(found)


def test_what_a_tick_asks(context: Flask, accounts: list[Integration]) -> None:
    with statements.asked(context) as found:
        assert watch.due(NOON) == []
    assert len(found) == 1


def test_a_look_that_finds_nothing_new(context: Flask, accounts: list[Integration]) -> None:
    assert taken(context, accounts[0].workspace_id) == 12


def test_a_day_that_was_settled(context: Flask, accounts: list[Integration]) -> None:
    """Three for each account (models, keys, hosts), and one that notes what was judged of all of them."""
    workspace_id = accounts[0].workspace_id
    for one in accounts:
        cover(one, [TODAY])
    db.session.commit()
    assert taken(context, workspace_id, NOON + timedelta(days=1)) == 12 + 2 * 3 + 1


def test_ten_budgets_take_two_more(context: Flask, accounts: list[Integration]) -> None:
    workspace_id = accounts[0].workspace_id
    for number in range(10):
        fields = budgets.Fields(str(number), Decimal(100_000), BudgetPeriod.MONTH, {}, False, [100], [100])
        budgets.create(workspace_id, fields)
    db.session.commit()
    assert taken(context, workspace_id) == 12 + 2


def test_budgets_that_are_each_about_something_else(context: Flask, accounts: list[Integration]) -> None:
    """Two for their days, one for the days of API keys and one for their names, and one for the lines of each twenty;
    a page that lists them asks the same."""
    workspace_id = accounts[0].workspace_id
    for number in range(30):
        filters = {"model": [f"vendor/{number}"]} if number % 2 else {"key": [f"{number:064x}"]}
        fields = budgets.Fields(str(number), Decimal(100_000), BudgetPeriod.MONTH, filters, False, [100], [100])
        budgets.create(workspace_id, fields)
    db.session.commit()
    assert taken(context, workspace_id) == 12 + 2 + 2 + 2
    with statements.asked(context) as found:
        assert len(budgets.statuses(workspace_id, NOON)) == 30
    assert len(found) == 1 + 2 + 2 + 2
