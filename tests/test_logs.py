"""What processes print: no secret, whatever fails; and lines that an operator and a machine can read."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis as redis_py
from flask import Flask

from grafient import logs, sync
from grafient.sandbox import Sandbox
from tests import failing
from tests.conftest import ENCRYPTION_KEYS
from tests.pages import Pages
from tests.views.test_integrations import run_due

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.processes
@pytest.mark.parametrize(("way", "form"), [*((way, "text") for way in failing.WAYS), ("in_a_job", "json")])
def test_a_failed_write_prints_and_stores_no_secret(
    settings: dict[str, str], redis: redis_py.Redis, way: str, form: str
) -> None:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    ended = subprocess.run(
        [sys.executable, "-m", "tests.failing", way],
        cwd=ROOT,
        env=kept | settings | {"GRAFIENT_LOG_FORMAT": form},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (ended.returncode == 0) == (way != "in_a_command"), ended.stderr
    printed = ended.stdout + ended.stderr
    assert "an insert into user failed" in printed
    assert "IntegrityError" in printed
    stored = str([(redis.dump(key), _read(redis, key)) for key in redis.scan_iter()])
    for name, secret in failing.SECRETS.items():
        assert secret not in printed, f"{name} was printed"
        assert secret not in stored, f"{name} is in Redis"
    if form == "json":
        for line in ended.stderr.splitlines():
            assert json.loads(line).keys() >= {"time", "level", "process", "logger", "message"}


def _read(redis: redis_py.Redis, key: bytes) -> object:
    kind = redis.type(key)
    return {b"hash": redis.hgetall, b"stream": redis.xrange}.get(kind, lambda _: None)(key)


def test_the_settings_own_secrets_are_not_printed(app: Flask, settings: dict[str, str]) -> None:
    for secret in (settings["SECRET_KEY"], ENCRYPTION_KEYS.partition(":")[2]):
        assert logs.redact(f"it is {secret}, you know") == "it is …, you know"


@pytest.mark.parametrize(
    "spelled",
    [
        base64.b64encode(b"\0me\0sh'ort p@ss").decode(),
        base64.b64encode(b"sh'ort p@ss").decode(),
        "sh%27ort%20p%40ss",
        "sh%27ort+p%40ss",
        repr((535, b"sh'ort p@ss\"", "sh'ort p@ss")),
        b"sh'ort p@ss".hex(),
    ],
)
def test_a_secret_of_the_settings_is_not_printed_in_another_spelling(
    monkeypatch: pytest.MonkeyPatch, spelled: str
) -> None:
    """As a mail server said it that refused the password."""
    monkeypatch.setattr(logs, "_secrets", set())
    assert logs.redact(f"it is {spelled}, you know") == f"it is {spelled}, you know"
    logs.set_up("text", ["sh'ort p@ss"])
    said = logs.redact(f"it is {spelled}, you know")
    assert "…" in said
    assert not [one for one in ("ort", "b3J0", "6f7274") if one in said]


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        ("postgresql://user:pass@host/name", "postgresql://…@host/name"),
        ("redis://:pass@host:6379/0", "redis://…@host:6379/0"),
        ("someone@example.com could not", "…@… could not"),
        ("key sk-or-v1-0123456789abcdef is", "key sk-… is"),
        ("six o'clock run 2026-11-25: 10000 due, 7312 done", "six o'clock run 2026-11-25: 10000 due, 7312 done"),
        ("/usr/lib/python3.13/site-packages/sqlalchemy/engine/base.py", None),
        ("test_a_failed_write_prints_and_stores_no_secret_at_all", None),
        ("anthropic/claude-sonnet-4.4-20261101-thinking-extended", None),
    ],
)
def test_what_looks_like_a_secret_is_left_out_and_nothing_else(said: str, instead: str | None) -> None:
    assert logs.redact(said) == (said if instead is None else instead)


def record(message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("grafient.test", logging.WARNING, "", 1, message, args, None)


def test_nobody_writes_a_line_of_their_own() -> None:
    line = logs._Text().format(record("model %s", "x\n2026-11-28T00:00:00.000Z web[1] ERROR all is lost\r\x1b[2J"))
    assert "\n" not in line
    assert "\r" not in line
    assert "\x1b" not in line
    assert "x\\n2026" in line
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", line), "the moment in UTC"


def test_each_sync_is_one_line_that_an_operator_can_read(
    app: Flask, pages: Pages, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "grafient")
    pages.connect(sandbox.key("lively"))
    run_due(app)
    (said,) = [one.getMessage() for one in caplog.records if one.name.startswith(sync.__name__)]
    assert said.startswith("backfill sync done in ")
    assert "lines read, " in said
    assert re.search(r" (29|30) days settled \(\$", said), "yesterday is, from half past midnight on"
