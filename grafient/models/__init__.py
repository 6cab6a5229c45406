"""Columns and constraints, no queries."""

from grafient.models.accounts import User, Workspace
from grafient.models.columns import utc_now
from grafient.models.costs import CostLine, CoveredDay, Restatement
from grafient.models.integrations import Integration, SyncRun

__all__ = [
    "CostLine",
    "CoveredDay",
    "Integration",
    "Restatement",
    "SyncRun",
    "User",
    "Workspace",
    "utc_now",
]
