"""One UTC day of one integration: its models, and line by line, with all that was ever changed of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import select

from grafient import restatements
from grafient.days import Period
from grafient.extensions import db
from grafient.models import CostLine, CoveredDay, DayCheck, Integration
from grafient.money import places
from grafient.query import Group, Query
from grafient.reconciliation import CheckedDay
from grafient.reports import parts, sums
from grafient.reports.parts import Keys
from grafient.reports.sums import COUNTS, Measures, Tally, Total, added_usd, tally
from grafient.restatements import Change
from grafient.states import DayState, Source

MOST_ROWS = 1000
MOST_MODELS = 200


@dataclass(frozen=True)
class ModelOfDay(Measures):
    """What one model came to, over all of its lines."""

    name: str
    lines: int


@dataclass(frozen=True)
class IntegrationDay:
    """``models`` and ``lines`` have the most expensive first, ``changes`` the latest. Models past MOST_MODELS are one,
    ``other_models``; lines and changes are at most MOST_ROWS, and ``found`` and ``changes_found`` say how many there
    are. ``check``: the day by the provider's other count, if it was asked.
    """

    day: date
    state: DayState
    source: Source | None
    changed_at: datetime | None
    usage_usd: Decimal | None
    byok_usd: Tally
    models: Sequence[ModelOfDay]
    models_found: int
    other_models: ModelOfDay | None
    lines: Sequence[CostLine]
    found: int
    by_key: Keys
    changes: Sequence[Change]
    changes_found: int
    check: CheckedDay | None

    @property
    def decimals(self) -> int:
        """Decimals that every amount in USD fits in, so that columns line up; 2 at least."""
        groups: tuple[Sequence[CostLine | Total | ModelOfDay], ...] = (self.lines, self.models, self.by_key.rows)
        others = [self.other_models.usage_usd] if self.other_models else []
        return places([self.by_key.others_usd, *others, *(one.usage_usd for group in groups for one in group)])

    @property
    def byok_decimals(self) -> int:
        """The same for the BYOK estimates."""
        return places(line.byok_usd for line in self.lines)

    @property
    def changed_decimals(self) -> int:
        """The same for what changed."""
        return places(amount for one in self.changes for amount in (one.usage_before_usd, one.usage_after_usd))

    @property
    def unchanged_since(self) -> datetime | None:
        """When the day was last read otherwise than before."""
        return self.changes[0].changed_at if self.changes else self.changed_at

    @property
    def models_left_out(self) -> int:
        return self.models_found - len(self.models)

    @property
    def lines_left_out(self) -> int:
        return self.found - len(self.lines)

    @property
    def changes_left_out(self) -> int:
        return self.changes_found - len(self.changes)


def report(integration: Integration, day: date) -> IntegrationDay:
    """The day's lines now, what each key spent, and what changed."""
    covered = db.session.get(CoveredDay, (integration.id, day))
    mine = CostLine.integration_id == integration.id, CostLine.day == day
    found = db.session.execute(select(CostLine).where(*mine)).scalars().all()
    usage = added_usd(line.usage_usd for line in found) if covered else None
    by_model: dict[str, list[CostLine]] = defaultdict(list)
    for line in found:
        by_model[line.model].append(line)
    models = sorted((_model(name, own) for name, own in by_model.items()), key=lambda one: (-one.usage_usd, one.name))
    others = [line for one in models[MOST_MODELS:] for line in by_model[one.name]]
    query = Query(integration.workspace_id, Period(day, day), (integration.id,))
    changes, changes_found = restatements.changes_of_day(integration.id, day, MOST_ROWS)
    return IntegrationDay(
        day=day,
        state=covered.state if covered else DayState.MISSING,
        source=covered.source if covered else None,
        changed_at=covered.changed_at if covered else None,
        usage_usd=usage,
        byok_usd=_tally(found, "byok_usd"),
        models=models[:MOST_MODELS],
        models_found=len(models),
        other_models=_model("", others) if others else None,
        lines=sorted(found, key=lambda line: (-line.usage_usd, line.model, line.endpoint_id, line.host))[:MOST_ROWS],
        found=len(found),
        by_key=parts.keys(sums.totals_by(query, Group.KEY)),
        changes=changes,
        changes_found=changes_found,
        check=_check(integration.id, covered, usage),
    )


def _model(name: str, lines: Sequence[CostLine]) -> ModelOfDay:
    usage = added_usd(line.usage_usd for line in lines)
    figures = {figure: _tally(lines, figure) for figure in ("byok_usd", *COUNTS)}
    return ModelOfDay(name=name, lines=len(lines), usage_usd=usage, days=1, **figures)


def _tally(lines: Sequence[CostLine], figure: str) -> Tally:
    known = [getattr(line, figure) for line in lines if getattr(line, figure) is not None]
    return tally(sum(known) if known else None, len(known), len(lines))


def _check(integration_id: int, covered: CoveredDay | None, usage_usd: Decimal | None) -> CheckedDay | None:
    """The day by both counts; None where it is not settled or known from one of them only."""
    if covered is None or usage_usd is None or not covered.state.is_settled or covered.source != Source.ACTIVITY:
        return None
    check = db.session.get(DayCheck, (integration_id, covered.day))
    return None if check is None else CheckedDay(integration_id, covered.day, usage_usd, check.analytics_usd)
