"""Lines of costs with their names, for reading."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from sqlalchemy.orm import Mapped, column_property

from grafient.extensions import Base
from grafient.models.costs import Line, Model, Series

_line, _series, _model = Line.__table__, Series.__table__, Model.__table__


class CostLine(Base):
    """USD, requests and tokens of one (integration, UTC day, permaslug, endpoint, host), and what people call it."""

    __table__ = _line.join(_series, _series.c.id == _line.c.series_id).join(_model, _model.c.id == _series.c.model_id)
    __mapper_args__ = {
        "primary_key": [_line.c.integration_id, _line.c.day, _line.c.series_id],
        "include_properties": [*_line.c, _series.c.permaslug, _series.c.endpoint_id, _series.c.host],
    }

    model: Mapped[str] = column_property(_model.c.name)

    integration_id: Mapped[int]
    day: Mapped[date]
    series_id: Mapped[int]
    permaslug: Mapped[str]
    endpoint_id: Mapped[str]
    host: Mapped[str]
    usage_usd: Mapped[Decimal]
    byok_usd: Mapped[Decimal | None]
    requests: Mapped[int | None]
    byok_requests: Mapped[int | None]
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    reasoning_tokens: Mapped[int | None]
    cached_tokens: Mapped[int | None]
