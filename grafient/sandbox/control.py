"""What can be done to a stand-in: in-process by `Controls`, and over HTTP for tests of separate processes.

Money goes in and out as strings, days as `YYYY-MM-DD`.

GET    /sandbox/                      {"today", "accounts": [...], "keys": [...], "faults": {...}, "settings"}
GET    /sandbox/keys/NAME             {"name", "key", "account", "account_id"}
PUT    /sandbox/today                 {"today": "2026-11-22" or null for the real day}
PUT    /sandbox/settings              {"analytics_row_limit"?, "analytics_per_minute"?, "slow_seconds"?, ...}
POST   /sandbox/fault                 {"key", "fault" or null to clear, "times"?, "path"?}
POST   /sandbox/restate               {"account", "day", "factor": "1.25"}
POST   /sandbox/remove-row            {"account", "day", "index"}
POST   /sandbox/add-row               {"account", "day", "row": {"model", "usage", ...}}
POST   /sandbox/drop-day              {"account", "day"}
GET    /sandbox/truth?account=&first=&last=
GET    /sandbox/requests              {"requests": [...]}; DELETE empties the log
POST   /sandbox/reset

Everything that changes something answers `{"ok": true}`; a mistake is a 400 that says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from decimal import Decimal
from typing import TypeVar

import msgspec
from werkzeug.wrappers import Request, Response

from grafient.sandbox.account import Account
from grafient.sandbox.manners import MANNERS, cast
from grafient.sandbox.records import ActivityRow
from grafient.sandbox.state import Fault, LoggedRequest, Settings, State, Truth, key
from grafient.sandbox.wire import ProviderError, error_reply, reply

T = TypeVar("T")
OK = {"ok": True}


class NewRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row to add. The permaslug is the model's name unless given; `key` names the API key that spent it."""

    model: str
    usage: Decimal
    byok_usage_inference: Decimal = Decimal(0)
    model_permaslug: str | None = None
    endpoint_id: str = "00000000-0000-4000-8000-000000000000"
    provider_name: str = "OpenAI"
    requests: int = 1
    byok_requests: int = 0
    prompt_tokens: int = 100
    completion_tokens: int = 20
    reasoning_tokens: int = 0
    cached_tokens: int | None = None
    key: str | None = None

    def on(self, day: date) -> ActivityRow:
        return ActivityRow(
            day,
            self.model,
            self.model if self.model_permaslug is None else self.model_permaslug,
            self.endpoint_id,
            self.provider_name,
            self.usage,
            self.byok_usage_inference,
            self.requests,
            self.byok_requests,
            self.prompt_tokens,
            self.completion_tokens,
            self.reasoning_tokens,
            self.cached_tokens,
        )


class Controls:
    """A stand-in's state and what can be done to it. An `account` is named by any key of it."""

    def __init__(self, today: date | None = None, *, crowd: int = 0) -> None:
        """`crowd` adds that many further ordinary accounts, under the keys `crowd-1`, `crowd-2` and so on."""
        self.state = State(cast(crowd), today)

    @property
    def today(self) -> date:
        """The provider's UTC day. Set it to a day, or to None for the real one."""
        return self.state.today

    @today.setter
    def today(self, day: date | None) -> None:
        self.state.today = day

    @property
    def settings(self) -> Settings:
        """Limits and durations, to be changed in place; `reset` restores them."""
        return self.state.settings

    def key(self, name: str) -> str:
        """The management key of that name; ValueError when nobody is called so."""
        self.state.part(name)
        return key(name)

    def account(self, name: str) -> Account:
        return self.state.account(name)

    def fault(self, key_name: str, fault_name: str | None, times: int | None = None, path: str | None = None) -> None:
        """Answer the key's next `times` requests (None: all) in that manner, or only those to `path`.

        `path` is as in `/activity`; None as the name clears. A key bears one fault, the last one set.
        """
        if fault_name is None:
            return self.state.set_fault(key_name, None)
        if fault_name not in MANNERS:
            raise ValueError(f"No fault is called {fault_name!r}; there are {', '.join(sorted(MANNERS))}.")
        if times is not None and times < 1:
            raise ValueError("A fault happens at least once; give None as its name to clear it.")
        self.state.set_fault(key_name, Fault(fault_name, times, path))

    def restate(self, account: str, day: date, factor: Decimal | str | int) -> None:
        """Multiply the `usage` of every row of that day, exactly; BYOK, counts and tokens stay."""
        self.state.restate(self.account(account), day, Decimal(factor))

    def remove_row(self, account: str, day: date, index: int) -> None:
        """Take row `index` out of that day, counted from 0 in the order of `truth` and of `/activity`."""
        self.state.remove_row(self.account(account), day, index)

    def add_row(self, account: str, day: date, row: NewRow) -> None:
        """Append a row to that day, a repeated one too: it arrives beside the first, not summed with it."""
        owner = self.account(account)
        keys = {key.name: key for key in owner.keys(day)}
        if row.key is not None and row.key not in keys:
            raise ValueError(f"{owner.name} has no API key called {row.key!r} on {day}.")
        spender = keys[row.key] if row.key is not None else next(iter(keys.values()))
        self.state.add_row(owner, row.on(day), spender)

    def drop_day(self, account: str, day: date) -> None:
        """Let that day have had no usage at all."""
        self.state.drop_day(self.account(account), day)

    def truth(self, account: str, first: date, last: date) -> Truth:
        """The exact totals and rows of the days from `first` to `last`, as if all were settled; no window."""
        return self.state.truth(self.account(account), first, last)

    def requests(self) -> list[LoggedRequest]:
        """Everything asked of the provider so far, oldest first; controls are not in it."""
        return self.state.log()

    def clear_requests(self) -> None:
        self.state.clear_log()

    def reset(self) -> None:
        """As freshly started: first day, settings, no faults, no restatements, empty log, no queries counted."""
        self.state.reset()


class _Today(msgspec.Struct):
    today: date | None


class _Fault(msgspec.Struct):
    key: str
    fault: str | None
    times: int | None = None
    path: str | None = None


class _Day(msgspec.Struct):
    account: str
    day: date


class _Restate(_Day):
    factor: Decimal


class _RemoveRow(_Day):
    index: int


class _AddRow(_Day):
    row: NewRow


class _Span(msgspec.Struct):
    account: str
    first: date
    last: date


def answer(controls: Controls, request: Request) -> Response:
    """Carry out one request to `/sandbox/...`."""
    action = _ACTIONS.get((request.method, request.path))
    try:
        if action is not None:
            return action(controls, request)
        if request.method == "GET" and request.path.startswith("/sandbox/keys/"):
            return _key(controls, request.path.removeprefix("/sandbox/keys/"))
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        return error_reply(ProviderError(400, str(error)))
    return error_reply(ProviderError(404, "No such control; grafient.sandbox.control lists them."))


def _body(request: Request, shape: type[T]) -> T:
    if request.mimetype != "application/json":
        raise ValueError("Send JSON, with the content type application/json.")
    return msgspec.json.decode(request.get_data(), type=shape)


def _about(controls: Controls, request: Request) -> Response:
    names = list(controls.state.cast)
    accounts = list(dict.fromkeys(controls.account(name).name for name in names))
    faults = {name: asdict(fault) for name, fault in controls.state.faults().items()}
    about = {"today": controls.today, "accounts": accounts, "keys": names, "faults": faults}
    return reply({**about, "settings": controls.settings})


def _key(controls: Controls, name: str) -> Response:
    account = controls.account(name)
    return reply({"name": name, "key": key(name), "account": account.name, "account_id": account.id})


def _truth(controls: Controls, request: Request) -> Response:
    span = msgspec.convert(request.args.to_dict(), _Span)
    truth = controls.truth(span.account, span.first, span.last)
    # msgspec writes a Decimal as a JSON string, which is what a control wants and a provider's reply does not
    return reply(asdict(truth))


def _requests(controls: Controls, request: Request) -> Response:
    return reply({"requests": [asdict(entry) for entry in controls.requests()]})


def _doing(act: Callable[[Controls, Request], None]) -> Callable[[Controls, Request], Response]:
    def action(controls: Controls, request: Request) -> Response:
        act(controls, request)
        return reply(OK)

    return action


def _set_today(controls: Controls, request: Request) -> None:
    controls.today = _body(request, _Today).today


def _set_settings(controls: Controls, request: Request) -> None:
    changed = msgspec.structs.asdict(controls.settings) | _body(request, dict[str, int | float])
    controls.state.settings = msgspec.convert(changed, Settings)


def _set_fault(controls: Controls, request: Request) -> None:
    wish = _body(request, _Fault)
    controls.fault(wish.key, wish.fault, wish.times, wish.path)


def _restate(controls: Controls, request: Request) -> None:
    wish = _body(request, _Restate)
    controls.restate(wish.account, wish.day, wish.factor)


def _remove_row(controls: Controls, request: Request) -> None:
    wish = _body(request, _RemoveRow)
    controls.remove_row(wish.account, wish.day, wish.index)


def _add_row(controls: Controls, request: Request) -> None:
    wish = _body(request, _AddRow)
    controls.add_row(wish.account, wish.day, wish.row)


def _drop_day(controls: Controls, request: Request) -> None:
    wish = _body(request, _Day)
    controls.drop_day(wish.account, wish.day)


_ACTIONS: dict[tuple[str, str], Callable[[Controls, Request], Response]] = {
    ("GET", "/sandbox/"): _about,
    ("PUT", "/sandbox/today"): _doing(_set_today),
    ("PUT", "/sandbox/settings"): _doing(_set_settings),
    ("POST", "/sandbox/fault"): _doing(_set_fault),
    ("POST", "/sandbox/restate"): _doing(_restate),
    ("POST", "/sandbox/remove-row"): _doing(_remove_row),
    ("POST", "/sandbox/add-row"): _doing(_add_row),
    ("POST", "/sandbox/drop-day"): _doing(_drop_day),
    ("GET", "/sandbox/truth"): _truth,
    ("GET", "/sandbox/requests"): _requests,
    ("DELETE", "/sandbox/requests"): _doing(lambda controls, request: controls.clear_requests()),
    ("POST", "/sandbox/reset"): _doing(lambda controls, request: controls.reset()),
}
