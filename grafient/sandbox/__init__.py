"""A stand-in OpenRouter over HTTP, on the loopback interface: for the demo, the tests and the benchmarks.

It answers `/api/v1/...` as the live service does, with the habits that differ from its documentation, for
made-up accounts whose usage follows from the calendar alone. It imports nothing else of `grafient`.

    with Sandbox(today=date(2026, 11, 22)) as sandbox:
        bearer = {"Authorization": f"Bearer {sandbox.key('lively')}"}
        httpx.get(f"{sandbox.base_url}/activity", headers=bearer)
        sandbox.fault("lively", "limited", times=1)
        sandbox.truth("lively", date(2026, 10, 23), date(2026, 11, 21)).usage

The name of a key says whose account it opens and how it is answered.

Accounts: `lively` (the demo's), `lively-again` (a second key of it), `other`, `organization`, `empty`,
`today-only`, `byok`, `free`, `large` (some 10,000 rows in 30 days), `many-keys` (500 of them, each with a
little usage), `hostile`, and `crowd-1` ... on request.
Every manner in `grafient.sandbox.manners.MANNERS` is a key too, on an account of its own with lively's rows:
`inference`, `revoked`, `limited`, `drip-body`, `misshapen` and so on. The same names are the faults to put on
any key.

The same controls over HTTP are in `grafient.sandbox.control`.
"""

from grafient.sandbox.account import Account
from grafient.sandbox.control import NewRow
from grafient.sandbox.records import ActivityRow
from grafient.sandbox.server import Sandbox
from grafient.sandbox.state import LoggedRequest, Truth, key

__all__ = ["Account", "ActivityRow", "LoggedRequest", "NewRow", "Sandbox", "Truth", "key"]
