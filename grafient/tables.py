"""Rows as CSV (RFC 4180) and as JSON lines: exact digits, unknown empty or null, and in CSV no text that a spreadsheet
would run."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

_FORMULA = re.compile(r"(^|[;|\t\r\n][ \"']*)(?=[=+\-@\t\r\n＝＋－＠])")
"""What begins a formula, at the beginning or behind what some spreadsheets take for a separator: where a comma is the
decimal point, Excel reads ``a;=cmd`` as two cells. It takes the full-width signs for the others.
https://owasp.org/www-community/attacks/CSV_Injection"""

_PORTION = 64 * 1024


def as_csv(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    """A head and the rows, in portions, as they are read."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow([_cell(column) for column in columns])
    for row in rows:
        writer.writerow([_cell(value) for value in row])
        if buffer.tell() > _PORTION:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def as_json_lines(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    """Each row as an object in a line of its own, in portions, as they are read. Text is what it is, and an amount is a
    string with exact digits: most readers of JSON make a binary fraction of a number."""
    portion: list[str] = []
    size = 0
    for row in rows:
        values = dict(zip(columns, map(_plain, row), strict=True))
        portion.append(json.dumps(values, ensure_ascii=False) + "\n")
        size += len(portion[-1])
        if size > _PORTION:
            yield "".join(portion)
            portion, size = [], 0
    yield "".join(portion)


def _cell(value: Any) -> str:
    """Exact digits, ISO days and moments, unknown empty, and no text that a spreadsheet would run as a formula."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    plain = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(_plain(value))
    return plain if isinstance(value, (int, Decimal)) else _FORMULA.sub(r"\1'", plain)


def _plain(value: Any) -> Any:
    """A value as JSON has it: whole numbers, booleans, null, and what is JSON already are themselves, all else is
    text."""
    if value is None or isinstance(value, int | list | dict):
        return value
    if isinstance(value, Decimal):
        return f"{value.normalize():f}" if value else "0"
    if isinstance(value, date):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else str(value)
