"""The states that are stored and shown, as types. What each is called on a page is the templates' business."""

from __future__ import annotations

from enum import StrEnum


class DayState(StrEnum):
    """What is known of a UTC day. Only the first four are stored; a day without a row is missing."""

    FINAL = "final"
    NO_USAGE = "no_usage"
    RESTATED = "restated"
    PROVISIONAL = "provisional"
    """Known so far: it may still grow, and no total counts it."""
    PARTIAL = "partial"
    """Known of some of the integrations only."""
    MISSING = "missing"
    """Unknown, which is not zero."""

    @property
    def is_settled(self) -> bool:
        """Whether the day is complete, so that totals count it."""
        return self in (DayState.FINAL, DayState.NO_USAGE, DayState.RESTATED)


class Source(StrEnum):
    """Which of the provider's records a day was read from."""

    ACTIVITY = "activity"
    """Per model, endpoint and host, to the last digit, for the provider's window of recent days."""
    ANALYTICS = "analytics"
    """Per model, rounded to 6 decimals, for the days before and for today so far."""


class RunStatus(StrEnum):
    """Where a sync stands."""

    DUE = "due"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN = (RunStatus.DUE, RunStatus.RUNNING)
"""A sync in one of these is still to be done or finished; an integration has at most one."""


class Trigger(StrEnum):
    """Why a sync was wanted."""

    BACKFILL = "backfill"
    MANUAL = "manual"
    DAILY = "daily"


class Stage(StrEnum):
    """What a running sync is reading."""

    COSTS = "costs"
    CHECKS = "checks"
    HISTORY = "history"
    KEYS = "keys"


class Role(StrEnum):
    """What a member of a workspace may do: all that the roles before it may, and more."""

    VIEWER = "viewer"
    """Reads."""
    MEMBER = "member"
    """Keeps budgets and rules for alerts, and answers alerts."""
    ADMIN = "admin"
    """Connects accounts, and holds their keys."""
    OWNER = "owner"
    """Decides who comes in."""

    def includes(self, other: Role) -> bool:
        """Whether it may do what the other may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


class Letter(StrEnum):
    """What a letter is about."""

    RESET = "reset"
    CHANGED = "changed"
    CONFIRM = "confirm"
    EXISTS = "exists"
    INVITATION = "invitation"


class Action(StrEnum):
    """What the audit log tells of."""

    SIGNED_IN = "signed in"
    SIGN_IN_FAILED = "sign-in failed"
    SIGNED_OUT = "signed out"
    REGISTERED = "registered"
    EMAIL_CONFIRMED = "email confirmed"
    PASSWORD_CHANGED = "password changed"  # noqa: S105 - what was done
    PASSWORD_RESET = "password reset"  # noqa: S105
    CODES_ON = "codes turned on"
    CODES_OFF = "codes turned off"
    RECOVERY_CODES_MADE = "recovery codes made"
    RECOVERY_CODE_USED = "recovery code used"
    PASSKEY_ADDED = "passkey added"
    PASSKEY_REMOVED = "passkey removed"
    SSO_LINKED = "single sign-on linked"
    SESSION_ENDED = "session ended"
    SESSIONS_ENDED = "all sessions ended"
    INVITED = "invited"
    INVITATION_TAKEN_BACK = "invitation taken back"
    JOINED = "joined"
    ROLE_CHANGED = "role changed"
    MEMBER_REMOVED = "member removed"
    WORKSPACE_RENAMED = "workspace renamed"
    INTEGRATION_ADDED = "integration added"
    INTEGRATION_RENAMED = "integration renamed"
    INTEGRATION_PAUSED = "integration paused"
    INTEGRATION_RESUMED = "integration resumed"
    INTEGRATION_REMOVED = "integration removed"
    KEY_REPLACED = "key replaced"
    EXPORTED = "exported"
    PLAN_CHANGED = "plan changed"
    WORKSPACE_DELETED = "workspace deleted"
    ACCOUNT_DELETED = "account deleted"
    FIRST_ACCOUNT_DELETED = "first account deleted"
    BUDGET_ADDED = "budget added"
    BUDGET_CHANGED = "budget changed"
    BUDGET_DELETED = "budget deleted"
    RULE_CHANGED = "alert rule changed"
    INCIDENT_ACKNOWLEDGED = "incident acknowledged"
    INCIDENT_SNOOZED = "incident snoozed"
    CHANNEL_ADDED = "channel added"
    CHANNEL_CHANGED = "channel changed"
    CHANNEL_DELETED = "channel deleted"
    COMMAND = "command"


class Problem(StrEnum):
    """What the last sync of an integration ended with, if it did not succeed."""

    NEEDS_KEY = "needs_key"
    KEY_UNREADABLE = "key_unreadable"
    """The stored key can't be decrypted, which no trying again mends."""
    API_CHANGED = "api_changed"
    FAULT = "fault"


class Topic(StrEnum):
    """What alerts are about; a channel is told of some of them."""

    BUDGETS = "budgets"
    SPEND = "spend"
    CREDITS = "credits"
    DATA = "data"


class AlertKind(StrEnum):
    """What an alert can be about."""

    BUDGET = "budget"
    UNUSUAL_DAY = "unusual_day"
    TODAY = "today"
    """Today so far has cost more than a whole day usually does."""
    NEW = "new"
    """A model, host or API key that was never seen before."""
    CREDITS = "credits"
    NO_SYNC = "no_sync"
    KEY = "key"
    """A provider key that was rejected, can't be opened, or is about to expire."""
    API_CHANGED = "api_changed"
    DAYS_LEAVING = "days_leaving"
    DIFFERENCE = "difference"
    """Reconciliation found one."""
    RESTATED = "restated"
    """A month that was over."""
    SILENT = "silent"
    """Workers, or the scheduler."""

    @property
    def topic(self) -> Topic:
        if self in (AlertKind.BUDGET, AlertKind.CREDITS):
            return Topic.BUDGETS if self is AlertKind.BUDGET else Topic.CREDITS
        is_spend = self in (AlertKind.UNUSUAL_DAY, AlertKind.TODAY, AlertKind.NEW)
        return Topic.SPEND if is_spend else Topic.DATA


class Happened(StrEnum):
    """What became of an incident."""

    OPENED = "opened"
    WORSENED = "worsened"
    REMINDED = "reminded"
    RESOLVED = "resolved"


class BudgetPeriod(StrEnum):
    """What a budget's sum is for. Weeks begin on Monday."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


class ChannelKind(StrEnum):
    """Where alerts are sent."""

    EMAIL = "email"
    SLACK = "slack"
    DISCORD = "discord"
    TEAMS = "teams"
    TELEGRAM = "telegram"
    PUSHOVER = "pushover"
    NTFY = "ntfy"
    GOTIFY = "gotify"
    PAGERDUTY = "pagerduty"
    OPSGENIE = "opsgenie"
    MATRIX = "matrix"
    MATTERMOST = "mattermost"
    WEBHOOK = "webhook"

    @property
    def keeps_alerts(self) -> bool:
        """Whether the service has an alert of its own for each incident, which is open until it is told of the end."""
        return self in (ChannelKind.PAGERDUTY, ChannelKind.OPSGENIE)


class Summary(StrEnum):
    """How often a channel is sent a digest."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


class Sending(StrEnum):
    """What a delivery has for a channel."""

    ALERTS = "alerts"
    DIGEST = "digest"
    TEST = "test"
    FAILING = "failing"
    """That another channel can't be reached."""


class DeliveryState(StrEnum):
    """What became of a delivery."""

    DUE = "due"
    SENT = "sent"
    FAILED = "failed"
    """Tried for a day, or refused for good."""
    DROPPED = "dropped"
    """There was nothing to say any more, or its channel was turned off."""
