"""USD is exact: in the column, in its sums, in both databases."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import StatementError

from grafient.extensions import db
from grafient.models import Integration, Line, Workspace
from grafient.models.columns import usd_sum
from grafient.money import from_steps, places, usd

amounts = st.decimals("-8999999.999999999999", "8999999.999999999999", places=12)


@pytest.fixture
def integration(workspace: Workspace) -> Integration:
    integration = Integration(workspace_id=workspace.id, provider="openrouter", label="one", key_hint="abcd")
    db.session.add(integration)
    db.session.commit()
    return integration


def store(integration_id: int, values: list[Decimal]) -> None:
    first = date(2026, 1, 1)
    rows = [
        {"integration_id": integration_id, "day": first + timedelta(days=number), "series_id": 1, "usage_usd": value}
        for number, value in enumerate(values)
    ]
    db.session.execute(delete(Line))
    db.session.execute(insert(Line), rows)
    db.session.commit()


@settings(max_examples=40)
@given(values=st.lists(amounts, min_size=1, max_size=30))
def test_what_is_written_is_read_and_summed_exactly(integration: Integration, values: list[Decimal]) -> None:
    store(integration.id, values)
    read = list(db.session.execute(select(Line.usage_usd).order_by(Line.day)).scalars())
    assert read == values
    assert db.session.execute(select(usd_sum(Line.usage_usd))).scalar_one() == sum(values)


def test_a_sum_of_100_million_dollars_keeps_its_last_digit(integration: Integration) -> None:
    tiny, most = Decimal("0.000000000001"), Decimal("8999999.999999999999")
    store(integration.id, [most, tiny, *[most] * 11, tiny, tiny])
    total = db.session.execute(select(usd_sum(Line.usage_usd))).scalar_one()
    assert total == Decimal("107999999.999999999991")
    assert isinstance(total, Decimal)


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("half", [2**60, 2**61, 2**62, -(2**61), -(2**62)])
def test_a_sum_about_where_64_bits_end_is_exact(integration: Integration, half: int, more: int) -> None:
    steps = [half, half, more]
    store(integration.id, [from_steps(one) for one in steps])
    assert db.session.execute(select(usd_sum(Line.usage_usd))).scalar_one() == from_steps(sum(steps))


def test_several_columns_are_summed_together_and_the_unknown_left_out(integration: Integration) -> None:
    store(integration.id, [Decimal("8999999.999999999999"), Decimal("-0.25"), Decimal("0.000000000001")])
    db.session.execute(update(Line).where(Line.usage_usd == Decimal("-0.25")).values(byok_usd=Decimal("7.5")))
    total = db.session.execute(select(usd_sum(Line.usage_usd, Line.byok_usd))).scalar_one()
    assert total == Decimal("9000007.25")


def test_the_sum_of_nothing_is_unknown(context: Flask) -> None:
    assert db.session.execute(select(usd_sum(Line.usage_usd))).scalar_one() is None


@pytest.mark.parametrize("wrong", [0.1, 1, "1", Decimal("0.0000000000001"), Decimal("9000000"), Decimal("NaN")])
def test_a_column_refuses_what_it_could_not_keep(integration: Integration, wrong: object) -> None:
    with pytest.raises(StatementError):
        store(integration.id, [wrong])  # type: ignore[list-item]


def test_usd_rounds_half_to_even_at_twelve_decimals() -> None:
    assert usd(Decimal("0.0000000000005")) == 0
    assert usd(Decimal("0.0000000000015")) == Decimal("0.000000000002")
    assert usd(Decimal("1E-7")) == Decimal("0.0000001")


@pytest.mark.parametrize("wrong", ["NaN", "Infinity", "1E+400", "100000000", "-100000000"])
def test_usd_refuses_what_is_no_amount(wrong: str) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        usd(Decimal(wrong))


def test_places_are_the_most_that_one_of_them_has() -> None:
    assert places([]) == places([None]) == places([0]) == 2
    assert places([Decimal("1.250000000000"), None, Decimal("0.1234"), 0]) == 4
    assert places([Decimal(100), Decimal("1E-7")]) == 7
