"""Columns and constraints, no queries."""

from grafient.models.accounts import User, Workspace
from grafient.models.columns import utc_now
from grafient.models.costs import (
    UNATTRIBUTED,
    ApiKey,
    CostLine,
    CoveredDay,
    CreditReading,
    DayCheck,
    KeyLine,
    KeyReading,
    RawReply,
    Restatement,
    RestatementSeen,
)
from grafient.models.integrations import Integration, SyncRun

__all__ = [
    "UNATTRIBUTED",
    "ApiKey",
    "CostLine",
    "CoveredDay",
    "CreditReading",
    "DayCheck",
    "Integration",
    "KeyLine",
    "KeyReading",
    "RawReply",
    "Restatement",
    "RestatementSeen",
    "SyncRun",
    "User",
    "Workspace",
    "utc_now",
]
