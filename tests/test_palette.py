"""The colours of charts can be told apart, and from the page, by anybody."""

from __future__ import annotations

import pytest

from grafient.reports import colours
from tests import palette


@pytest.mark.parametrize("theme", palette.THEMES)
class TestPalette:
    @pytest.mark.parametrize(
        ("vision", "least"), [("normal", 0.1), ("protan", 0.07), ("deutan", 0.07), ("tritan", 0.07)]
    )
    def test_the_first_twelve_are_told_apart_with_any_colour_vision(
        self, theme: str, vision: str, least: float
    ) -> None:
        first = [*palette.series(theme)[: palette.FIRST], palette.tokens(theme)["series-other"]]
        assert palette.closest(first, vision)[0] >= least

    def test_all_of_them_are_told_apart(self, theme: str) -> None:
        assert len(palette.series(theme)) == colours.COLOURS
        assert palette.closest(palette.series(theme), "normal")[0] >= 0.04

    def test_each_stands_out_from_the_page(self, theme: str) -> None:
        tokens = palette.tokens(theme)
        for colour in (*palette.series(theme), tokens["series-other"], tokens["accent"], tokens["edge"]):
            assert palette.contrast(colour, tokens["page"]) >= palette.CONTRAST, colour

    def test_text_can_be_read(self, theme: str) -> None:
        tokens = palette.tokens(theme)
        for name in ("ink", "muted", "accent", "good", "warn", "bad"):
            assert palette.contrast(tokens[name], tokens["page"]) >= 4.5, name

    def test_the_others_have_the_hues_of_the_first_in_another_lightness(self, theme: str) -> None:
        colours_ = palette.series(theme)
        for first, other in zip(colours_[: palette.FIRST], colours_[palette.FIRST :], strict=True):
            assert abs((palette.hue(first) - palette.hue(other) + 180) % 360 - 180) < 8, (first, other)
            assert abs(palette.seen(first, "normal")[0] - palette.seen(other, "normal")[0]) > 0.1, (first, other)

    def test_each_has_its_swatch(self, theme: str) -> None:
        sheet = palette.STYLE.read_text()
        for number in (*range(1, colours.COLOURS + 1), "other"):
            assert f".swatch-{number} {{\n  background: var(--series-{number});\n}}" in sheet, theme


def test_contrast_and_difference_are_those_that_are_meant() -> None:
    assert palette.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert palette.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert palette.seen("#ffffff", "normal") == pytest.approx((1, 0, 0), abs=0.001)
    assert palette.seen("#ff0000", "normal") == pytest.approx((0.628, 0.225, 0.126), abs=0.001)
    red, green = (palette.seen(colour, "deutan") for colour in ("#c00000", "#6b6b00"))
    assert abs(red[1] - green[1]) < 0.06, "red and green look alike without green cones"
