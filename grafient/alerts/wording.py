"""What there is to say of an incident, or of an event of it: a title, and sentences below it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from grafient.alerts import rules
from grafient.models import Incident, IncidentEvent
from grafient.states import AlertKind


def title(one: Incident | IncidentEvent) -> str:
    """One line: what is so, or was when the event happened."""
    said = _TITLES.get(_kind(one))
    return kind_name(_kind(one)) if said is None else said(one.facts)


def lines(one: Incident | IncidentEvent) -> list[str]:
    """Sentences below the title."""
    return []


def kind_name(kind: AlertKind) -> str:
    """What an alert of this kind is called."""
    return rules.KINDS[kind].label if kind in rules.KINDS else "Budget"


def _kind(one: Incident | IncidentEvent) -> AlertKind:
    return one.kind if isinstance(one, Incident) else one.incident.kind


def _no_sync(facts: Mapping[str, Any]) -> str:
    since = datetime.fromisoformat(facts["since"])
    return f"{facts['label']} has not been read since {since.day} {since:%B %Y, %H:%M} UTC"


_TITLES: Mapping[AlertKind, Callable[[Mapping[str, Any]], str]] = {AlertKind.NO_SYNC: _no_sync}
