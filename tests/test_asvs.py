"""docs/asvs.md: each requirement has one answer, the counts are right, and every test that is named is there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs/asvs.md").read_text()
REQUIREMENTS = """
1.1:2 1.2:9 1.3:11 1.4:3 1.5:2 2.1:3 2.2:3 2.3:4 2.4:1 3.2:2 3.3:4 3.4:6 3.5:5 3.7:2 4.1:3 4.2:1 4.3:2 4.4:4 5.1:1 5.2:3
5.3:2 5.4:3 6.1:3 6.2:12 6.3:4 6.4:4 6.5:5 6.6:3 6.8:4 7.1:3 7.2:4 7.3:2 7.4:5 7.5:2 7.6:2 8.1:2 8.2:3 8.3:1 8.4:1 9.1:3
9.2:4 10.1:2 10.2:2 10.3:4 10.4:11 10.5:5 10.6:2 10.7:3 11.1:2 11.2:3 11.3:3 11.4:4 11.5:1 11.6:1 12.1:3 12.2:2 12.3:4
13.1:1 13.2:5 13.3:2 13.4:5 14.1:2 14.2:4 14.3:3 15.1:3 15.2:3 15.3:7 16.1:1 16.2:5 16.3:4 16.4:3 16.5:3 17.1:1 17.2:4
17.3:2
"""
"""How many of levels 1 and 2 each section of version 5.0.0 has. They come first in all of them."""

ROWS = re.findall(
    r"^\| (V[^|]+) \| [^|]+ \| (\*\*(?:Met\.|Not applicable|Not met\.)\*\*:?) ([^|]+) \|$", TEXT, re.MULTILINE
)
ANSWERS = Counter({"**Met.**": 0, "**Not applicable**:": 0, "**Not met.**": 0})


def test_each_requirement_is_answered_once() -> None:
    found = Counter(number for numbers, _, _ in ROWS for number in numbers.split(", "))
    sections = (section.split(":") for section in REQUIREMENTS.split())
    wanted = Counter(f"V{name}.{number}" for name, last in sections for number in range(1, int(last) + 1))
    assert wanted.total() == 253
    assert found == wanted


def test_the_counts_are_right() -> None:
    counts = Counter(ANSWERS)
    for numbers, answer, _ in ROWS:
        counts[answer] += len(numbers.split(", "))
    said = re.search(r"Of (\d+) requirements \*\*(\d+) are met, (\d+) don't apply, and (\d+) are not met", TEXT)
    assert said
    assert [int(one) for one in said.groups()] == [counts.total(), *counts.values()]
    assert counts.keys() == ANSWERS.keys()


def test_what_is_met_has_a_test_or_says_that_it_has_none() -> None:
    for numbers, answer, text in ROWS:
        if answer == "**Met.**":
            assert "::test_" in text or "tests/pages.py" in text or "No test" in text, numbers


@pytest.mark.parametrize("document", ["docs/asvs.md", "docs/security.md"])
def test_every_test_and_file_that_is_named_is_there(document: str) -> None:
    named = re.findall(
        r"`((?:docs|grafient|static|templates|tests)/[\w./-]+)(?:::(\w+))?`", (ROOT / document).read_text()
    )
    assert len(named) > 10
    for path, test in named:
        assert (ROOT / path).exists(), path
        assert not test or f"def {test}(" in (ROOT / path).read_text(), f"{path}::{test}"
