"""The colours of charts: how far apart they are for any colour vision, and how they were found.

``python -m tests.palette`` prints the smallest differences of those in static/app.css; ``python -m tests.palette search
light`` (or ``dark``) looks for others, which takes minutes.

A difference is the distance of two colours in OKLab, where 0.02 is about the smallest that people see side by side.
Colour vision is simulated with the matrices of Machado, Oliveira and Fernandes (2009) at full severity.
"""

from __future__ import annotations

import math
import random
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

Vector = tuple[float, float, float]

STYLE = Path(__file__).resolve().parents[1] / "static" / "app.css"
THEMES = ("light", "dark")
FIRST = 12
"""So many are told apart by any colour vision; the others have their hues in another lightness."""

CONTRAST = 3.0
"""With the page, at least: WCAG 2.2, 1.4.11."""

SEEDS = {"light": 5, "dark": 3}
"""Of the six that were tried, those whose colours are farthest apart."""

VISIONS: dict[str, tuple[Vector, Vector, Vector]] = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritan": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}

_TO_LMS = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def tokens(theme: str) -> dict[str, str]:
    """The colours of a theme in the style sheet, by their names."""
    sheet = STYLE.read_text()
    pairs = re.findall(r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);", sheet)
    return {name: light if theme == "light" else dark for name, light, dark in pairs}


def series(theme: str) -> list[str]:
    """The colours of a theme's series, in order."""
    all_ = tokens(theme)
    return [all_[f"series-{number}"] for number in range(1, 2 * FIRST + 1)]


def linear(colour: str) -> Vector:
    """``#1f5fa8`` as linear RGB, 0 to 1."""
    values = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
    return red, green, blue


def contrast(one: str, other: str) -> float:
    """The ratio that WCAG defines."""
    lights = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (linear(one), linear(other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def seen(colour: str, vision: str) -> Vector:
    """A colour in OKLab, as somebody with that vision sees it."""
    red, green, blue = (min(max(value, 0.0), 1.0) for value in _times(VISIONS[vision], linear(colour)))
    roots = [math.cbrt(value) for value in _times(_TO_LMS, (red, green, blue))]
    return _times(_TO_LAB, (roots[0], roots[1], roots[2]))


def hue(colour: str) -> float:
    """In degrees."""
    _, a, b = seen(colour, "normal")
    return math.degrees(math.atan2(b, a)) % 360


def closest(colours: Iterable[str], vision: str) -> tuple[float, str, str]:
    """The smallest difference between two of these colours, and which two."""
    points = [(colour, seen(colour, vision)) for colour in colours]
    return min((math.dist(p, q), one, other) for (one, p), (other, q) in combinations(points, 2))


def _times(matrix: Sequence[Vector], vector: Vector) -> Vector:
    x, y, z = (row[0] * vector[0] + row[1] * vector[1] + row[2] * vector[2] for row in matrix)
    return x, y, z


def _hex(lightness: float, chroma: float, angle: float) -> str | None:
    """A colour of OKLCh, if a screen can show it."""
    a, b = chroma * math.cos(math.radians(angle)), chroma * math.sin(math.radians(angle))
    roots = (
        lightness + 0.3963377774 * a + 0.2158037573 * b,
        lightness - 0.1055613458 * a - 0.0638541728 * b,
        lightness - 0.0894841775 * a - 1.2914855480 * b,
    )
    long, medium, short = (root**3 for root in roots)
    rgb = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    if any(not -0.0001 <= value <= 1.0001 for value in rgb):
        return None
    clamped = (min(max(value, 0.0), 1.0) for value in rgb)
    values = (12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055 for v in clamped)
    return "#" + "".join(f"{round(255 * value):02x}" for value in values)


def search(theme: str, steps: int = 40_000) -> list[str]:
    """Twelve colours by simulated annealing, the first of them fixed, and one more of each hue."""
    chance, all_ = random.Random(SEEDS[theme]), tokens(theme)
    page, fixed = all_["page"], [all_["series-1"], all_["series-other"]]
    lightness = (0.40, 0.68) if theme == "light" else (0.50, 0.88)

    def fits(colour: str | None) -> bool:
        return colour is not None and contrast(colour, page) >= CONTRAST + 0.05

    def made(near: Vector | None, heat: float) -> tuple[Vector, str]:
        while True:
            if near is None:
                made = chance.uniform(*lightness), chance.uniform(0.06, 0.17), chance.uniform(0, 360)
            else:
                made = (
                    min(max(near[0] + chance.gauss(0, 0.08 * heat), lightness[0]), lightness[1]),
                    min(max(near[1] + chance.gauss(0, 0.04 * heat), 0.06), 0.17),
                    (near[2] + chance.gauss(0, 50 * heat)) % 360,
                )
            colour = _hex(*made)
            if colour is not None and fits(colour):
                return made, colour

    def points(colour: str) -> list[Vector]:
        return [seen(colour, vision) for vision in VISIONS]

    def distance(one: list[Vector], other: list[Vector]) -> float:
        """Most people see the whole difference, so of that more is asked for."""
        normal, *others = map(math.dist, one, other)
        return min(normal / 1.35, *others)

    def worth(distances: Iterable[float]) -> float:
        return -sum(math.exp(-distance * 120) for distance in distances)

    def apart(one: list[Vector], others: Iterable[list[Vector]]) -> list[float]:
        return [distance(one, other) for other in others]

    still = [points(colour) for colour in fixed]
    found = [made(None, 1) for _ in range(FIRST - 1)]
    places = [points(colour) for _, colour in found]
    best: tuple[float, list[str]] = (0.0, [])
    for step in range(steps):
        heat = max(1 - step / steps, 0.02)
        which = chance.randrange(FIRST - 1)
        others = still + places[:which] + places[which + 1 :]
        one = made(found[which][0], heat)
        place = points(one[1])
        gain = worth(apart(place, others)) - worth(apart(places[which], others))
        if gain > 0 or chance.random() < math.exp(gain / (0.02 * heat**3 + 1e-9)):
            found[which], places[which] = one, place
            if step % 10 == 0 or heat < 0.2:
                least = min(min(apart(p, still + places[:n])) for n, p in enumerate(places))
                if least > best[0]:
                    best = least, [colour for _, colour in found]
    return [fixed[0], *ordered(theme, fixed[0], best[1])]


def ordered(theme: str, first: str, others: Sequence[str]) -> list[str]:
    """In light, what is farthest from all before comes next; in dark, what is nearest in hue to the light one."""
    left, found = list(others), list[str]()
    for like in series("light")[1:FIRST]:
        if theme == "light":
            near = {one: min(closest([one, other], "normal")[0] for other in (first, *found)) for one in left}
            found.append(max(left, key=lambda one: near[one]))
        else:
            found.append(min(left, key=lambda one: abs((hue(one) - hue(like) + 180) % 360 - 180)))
        left.remove(found[-1])
    return found


def siblings(theme: str, first: Sequence[str]) -> list[str]:
    """For each colour one of its hue in another lightness, as far from all others as can be."""
    all_ = tokens(theme)
    chosen = [[seen(colour, vision) for vision in VISIONS] for colour in (*first, all_["series-other"])]
    found: list[str] = []
    for colour in first:
        light, a, b = seen(colour, "normal")
        options = [
            option
            for number in range(30, 93)
            if abs(number / 100 - light) >= 0.12
            for part in (1.0, 0.75, 0.5)
            if (option := _hex(number / 100, math.hypot(a, b) * part, hue(colour)))
            and contrast(option, all_["page"]) >= CONTRAST + 0.05
        ]
        places = {option: [seen(option, vision) for vision in VISIONS] for option in options}
        found.append(max(options, key=lambda option: min(min(map(math.dist, places[option], one)) for one in chosen)))
        chosen.append(places[found[-1]])
    return found


def main() -> None:
    """The command line."""
    if sys.argv[1:2] == ["search"]:
        first = search(sys.argv[2])
        colours = [*first, *siblings(sys.argv[2], first)]
        print("\n".join(f"--series-{number}: {colour};" for number, colour in enumerate(colours, 1)))
        report(sys.argv[2], colours)
    else:
        for theme in THEMES:
            report(theme, series(theme))


def report(theme: str, colours: Sequence[str]) -> None:
    """The smallest differences and the smallest contrast."""
    all_ = tokens(theme)
    print(f"{theme}: contrast {min(contrast(colour, all_['page']) for colour in colours):.2f}")
    for vision in VISIONS:
        twelve = closest([*colours[:FIRST], all_["series-other"]], vision)
        print(f"  {vision}: {twelve[0]:.3f} ({twelve[1]}, {twelve[2]}); of all 24 {closest(colours, vision)[0]:.3f}")


if __name__ == "__main__":
    main()
