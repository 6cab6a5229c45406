"""Every page, for whatever looks at all of them. A new page is a line here, which test_addresses.py asks for."""

from __future__ import annotations

SIGNED_IN = (
    "/",
    "/?days=365",
    "/?days=7&group=host&byok=1",
    "/?integration={troubled}&group=key",
    "/?view=cumulative&against=year",
    "/breakdown",
    "/breakdown?group=key",
    "/breakdown?q=nothing-has-this-name",
    "/breakdown?group=month&columns=host&measure=tokens",
    "/days/{day}",
    "/days/{today}?model={model}",
    "/days/2000-01-01",
    "/models/{model}?days=90",
    "/hosts/{host}",
    "/keys/{key}",
    "/keys/unattributed?period=all",
    "/changes",
    "/changes?group=host&against=month",
    "/statement",
    "/integrations",
    "/integrations/new",
    "/integrations/{integration}",
    "/integrations/{troubled}",
    "/integrations/{integration}/days/{day}",
    "/alerts/channels/new",
    "/alerts/channels/new?kind=ntfy",
    "/alerts/channels/{channel}",
    "/account",
    "/account/sessions",
    "/account/members",
    "/account/audit",
    "/account/audit?actor=nobody",
    "/account/password",
    "/account/codes",
    "/account/recovery-codes",
    "/account/passkeys",
    "/account/data",
    "/logout",
    "/operations",
    "/nowhere",
)
"""``{integration}`` is one with a year of costs and a restated day, ``{day}``, of which ``{model}``,
``{host}`` and ``{key}`` are; ``{troubled}`` needs a new key; ``{channel}`` is where alerts are sent."""

SIGNED_OUT = ("/login", "/register", "/reset", "/confirm", "/login/passkey")

SMALL_AND_FAST = ("/", "/breakdown", "/integrations", "/days/{day}", "/models/{model}?days=90")
"""Those that are opened every morning: Lighthouse measures them."""

NO_PAGES = {
    "static",
    "security.static",
    "security.verify",
    "security.confirm_email",
    "security.reset_password",
    "security.two_factor_token_validation",
    "security.two_factor_rescue",
    "security.tf_select",
    "security.mf_recovery",
    "security.wan_delete",
    "security.wan_verify",
    "favicon",
    "costs.breakdown_csv",
    "costs.ledger_csv",
    "health.healthz",
    "health.readyz",
    "integrations.card",
    "integrations.watch",
    "integrations.replies",
    "integrations.sent",
    "channels.history",
    "channels.sent",
    "sessions.sent",
    "audit.file",
    "members.sent",
    "members.invitation",
    "leaving.sent",
}
"""Endpoints that answer with a file, a part of a page or another address, or that nothing leads to."""
