"""The ledger, for export: every cost line of a period, exact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from grafient import coverage
from grafient.extensions import db
from grafient.query import Query, all_integrations
from grafient.reports import sums

COLUMNS = (
    "day",
    "integration",
    "model",
    "permaslug",
    "endpoint_id",
    "host",
    "usage_usd",
    "byok_usd",
    "requests",
    "prompt_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cached_tokens",
    "state",
)


def known(query: Query) -> Query:
    """The query without days of which it is not known what no key explains, or several keys, as on every page."""
    return coverage.load(query, all_integrations(query.workspace_id)).query if query.keys else query


def rows(query: Query) -> Iterator[tuple[Any, ...]]:
    """Every cost line of the period in COLUMNS, oldest first, read in portions as they are used.

    Lines of provisional days are among them, under that state.
    """
    statement = sums.cost_lines(query, COLUMNS[2:-1]).execution_options(yield_per=2000)
    with closing(db.session.execute(statement)) as result:  # whoever reads may stop in the middle
        for row in result:
            yield tuple(row)
