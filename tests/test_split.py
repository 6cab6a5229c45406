"""A difference split into volume, price and mix: by hand on numbers that are easy to check, and for any numbers."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grafient.split import Kind, Split, Unit, Usage, split

D = Decimal

AMOUNTS = st.decimals(-(10**7), 10**7, places=12)
COUNTS = st.none() | st.integers(-5, 10**15)
USAGES = st.dictionaries(st.sampled_from("abcdef"), st.builds(Usage, AMOUNTS, COUNTS, COUNTS))
USED = st.dictionaries(
    st.sampled_from("abcdef"),
    st.tuples(st.integers(1, 10**12), st.decimals(0, 10**4, places=6)),
    min_size=1,
)
"""Tokens and USD by model."""


def parts(found: Split) -> list[Decimal]:
    return [found.volume_usd, found.price_usd, found.mix_usd, found.new_usd, found.gone_usd, found.unsplit_usd]


def added(amounts: Iterable[Decimal]) -> Fraction:
    """Exact: 10 million dollars for one token, and then a million million tokens, have parts of more than the 28 digits
    that Decimal adds up."""
    return sum((Fraction(amount) for amount in amounts), Fraction())


def cost(usages: dict[str, Usage]) -> Decimal:
    return sum((one.usage_usd for one in usages.values()), D(0))


@given(USAGES, USAGES)
def test_the_parts_add_up_to_the_difference_to_the_last_digit(
    before: dict[str, Usage], after: dict[str, Usage]
) -> None:
    found = split(before, after)
    assert added(parts(found)) == added([cost(after), -cost(before)])
    assert found.models.keys() == before.keys() | after.keys()
    for one in found.models.values():
        if one.kind == Kind.USED:
            assert one.volume_usd is not None
            assert one.price_usd is not None
            assert added([one.volume_usd, one.price_usd]) == added([one.after_usd, -one.before_usd])
        else:
            assert one.volume_usd is one.price_usd is one.unit is None
    for kind, amount in ((Kind.NEW, found.new_usd), (Kind.GONE, found.gone_usd), (Kind.UNSPLIT, found.unsplit_usd)):
        assert amount == sum((m.after_usd - m.before_usd for m in found.models.values() if m.kind == kind), D(0))
    used = [one for one in found.models.values() if one.kind == Kind.USED]
    volumes = added(one.volume_usd or D(0) for one in used)
    assert abs(volumes - added([found.volume_usd, found.mix_usd])) <= (len(used) + 3) * Fraction("1e-12")


@given(USAGES, USAGES)
def test_the_other_way_round_it_is_the_opposite(before: dict[str, Usage], after: dict[str, Usage]) -> None:
    there, back = split(before, after), split(after, before)
    assert added(parts(there)) == -added(parts(back))
    assert added(parts(there)[:3]) == -added(parts(back)[:3])
    assert (there.new_usd, there.unsplit_usd) == (-back.gone_usd, -back.unsplit_usd)


@given(USED, st.integers(1, 1000))
def test_where_every_model_grows_alike_it_is_volume_alone(used: dict[str, tuple[int, D]], factor: int) -> None:
    before = {name: Usage(usd, tokens) for name, (tokens, usd) in used.items()}
    after = {name: Usage(usd * factor, tokens * factor) for name, (tokens, usd) in used.items()}
    found = split(before, after)
    assert parts(found) == [cost(after) - cost(before), 0, 0, 0, 0, 0]
    assert split(after, before).volume_usd == cost(before) - cost(after)


@given(USED, st.lists(AMOUNTS, min_size=6, max_size=6))
def test_where_only_prices_change_it_is_price_alone(used: dict[str, tuple[int, D]], amounts: list[D]) -> None:
    before = {name: Usage(usd, tokens) for name, (tokens, usd) in used.items()}
    after = {name: Usage(new, used[name][0]) for name, new in zip(used, amounts, strict=False)}
    assert parts(split(before, after)) == [0, cost(after) - cost(before), 0, 0, 0, 0]


@given(st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.integers(1, 10**9), st.integers(0, 10**6)), min_size=1))
def test_where_only_shares_change_it_is_mix_alone(used: dict[str, tuple[int, int]]) -> None:
    """The same tokens in all, and each model at its price, of so many 10⁻⁶ USD: the first model has the last one's."""
    prices = {name: D(price).scaleb(-6) for name, (_, price) in used.items()}
    tokens = [count for count, _ in used.values()]
    before = {name: Usage(prices[name] * count, count) for name, count in zip(used, tokens, strict=True)}
    after = {
        name: Usage(prices[name] * count, count) for name, count in zip(used, tokens[1:] + tokens[:1], strict=True)
    }
    assert parts(split(before, after)) == [0, 0, cost(after) - cost(before), 0, 0, 0]


def test_by_hand() -> None:
    """Two models at $1 and $3 a token, $2 on average: twice as many tokens, more of them the dear model's, which has
    become cheaper; and two models that are in one period alone."""
    before = {"cheap": Usage(D(10), 10), "dear": Usage(D(30), 10), "old": Usage(D(5), 1)}
    after = {"cheap": Usage(D(16), 16), "dear": Usage(D(48), 24), "new": Usage(D(7), 1)}
    found = split(before, after)
    assert found.volume_usd == D(40)  # (40 - 20) tokens at 40/20
    assert found.mix_usd == D(8)  # 16 * 1 + 24 * 3 - 40 * 2
    assert found.price_usd == D(-24)  # 24 * (2 - 3)
    assert (found.new_usd, found.gone_usd, found.unsplit_usd) == (7, -5, 0)
    dear = found.models["dear"]
    assert (dear.volume_usd, dear.price_usd) == (D(42), D(-24))  # 14 * 3; 24 * -1
    assert (dear.unit, dear.quantity_before, dear.quantity_after) == (Unit.TOKENS, 10, 24)
    assert [one.kind for one in found.models.values()] == [Kind.USED, Kind.USED, Kind.NEW, Kind.GONE]


def test_what_rounding_leaves_goes_to_the_largest_part() -> None:
    """A third of a cent each: 3 parts of 0.333... would add up to less than the whole."""
    found = split({"a": Usage(D("0.01"), 3)}, {"a": Usage(D("0.02"), 4)})
    assert found.volume_usd == D("0.003333333333")
    assert found.price_usd == D("0.006666666667")


def test_tokens_and_requests_are_not_added_up() -> None:
    """A picture is a request and a token is a token: 10 more pictures at $1 are no 10 more tokens."""
    before = {"text": Usage(D(1), 1_000_000, 5), "pictures": Usage(D(10), 0, 10), "untold": Usage(D(4), None, 2)}
    after = {"text": Usage(D(2), 2_000_000, 7), "pictures": Usage(D(20), 0, 20), "untold": Usage(D(8), 10, 4)}
    found = split(before, after)
    assert parts(found) == [15, 0, 0, 0, 0, 0]
    assert found.models["pictures"].unit == found.models["untold"].unit == Unit.REQUESTS


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (Usage(D(0), 0), Usage(D(5), 10), Kind.NEW),  # three failed requests, say
        (Usage(D(5), 10), Usage(D(0), 0), Kind.GONE),
        (Usage(D(1), 0), Usage(D(5), 10), Kind.UNSPLIT),  # charged for no tokens
        (Usage(D(5), 10), Usage(D(-1), 0), Kind.UNSPLIT),  # a refund for days before
        (Usage(D(5), -1), Usage(D(1), 2), Kind.UNSPLIT),
        (Usage(D(5)), Usage(D(6), 3, 3), Kind.UNSPLIT),
        (Usage(D(5), 0, 0), Usage(D(6), 0, 0), Kind.UNSPLIT),
        (Usage(D(0), 10), Usage(D(6), 10), Kind.USED),  # was free
        (Usage(D(-2), 10), Usage(D(6), 10), Kind.USED),
        (Usage(D(0), 0, 10), Usage(D(6), 0, 10), Kind.USED),
    ],
)
def test_each_odd_model_has_its_place(before: Usage, after: Usage, kind: Kind) -> None:
    assert split({"m": before}, {"m": after}).models["m"].kind == kind


def test_what_was_free_and_is_charged_is_price() -> None:
    found = split({"m": Usage(D(0), 10)}, {"m": Usage(D(6), 20)})
    assert (found.volume_usd, found.price_usd) == (0, 6)


def test_nothing_is_split_into_nothing() -> None:
    assert parts(split({}, {})) == [0] * 6


def test_amounts_that_are_never_stored_are_refused() -> None:
    with pytest.raises(ValueError, match="finer"):
        split({"m": Usage(D("1e-13"), 1)}, {"m": Usage(D(1), 1)})
