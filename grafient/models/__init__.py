"""Columns and constraints, no queries."""

from grafient.models.accounts import AuditEntry, Invitation, Mail, Membership, Passkey, User, UserSession, Workspace
from grafient.models.columns import utc_now
from grafient.models.costs import (
    UNATTRIBUTED,
    ApiKey,
    CoveredDay,
    CreditReading,
    DayCheck,
    DayTotal,
    KeyPart,
    KeyReading,
    Line,
    Model,
    ModelTotal,
    RawReply,
    Restatement,
    RestatementSeen,
    Series,
)
from grafient.models.integrations import AWAITED, CLOCKED, IS_OPEN, EncryptionKey, Integration, SyncRun
from grafient.models.named import CostLine

__all__ = [
    "AWAITED",
    "CLOCKED",
    "IS_OPEN",
    "UNATTRIBUTED",
    "ApiKey",
    "AuditEntry",
    "CostLine",
    "CoveredDay",
    "CreditReading",
    "DayCheck",
    "DayTotal",
    "EncryptionKey",
    "Integration",
    "Invitation",
    "KeyPart",
    "KeyReading",
    "Line",
    "Mail",
    "Membership",
    "Model",
    "ModelTotal",
    "Passkey",
    "RawReply",
    "Restatement",
    "RestatementSeen",
    "Series",
    "SyncRun",
    "User",
    "UserSession",
    "Workspace",
    "utc_now",
]
