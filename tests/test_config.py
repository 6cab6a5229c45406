"""Settings: right ones are read, wrong ones stop the start with a sentence that mends them."""

from __future__ import annotations

from pathlib import Path

import pytest

from grafient import create_app
from grafient.config import ConfigError, Settings
from tests.conftest import environ

GOOD = {"SECRET_KEY": "abcdefgh" * 3, "GRAFIENT_ENCRYPTION_KEYS": "k:x", "REDIS_URL": "redis://localhost"}


def test_what_is_not_set_has_its_default() -> None:
    settings = Settings.from_environ({})
    assert settings.database_url == f"sqlite:///{Path('var').absolute()}/grafient.db"
    assert (settings.port, settings.registration, settings.default_plan) == (5000, "first", "ultimate")
    assert (settings.base_urls, settings.raw_reply_days) == ({}, 90)
    assert Settings.from_environ({"PORT": " ", "DATABASE_URL": ""}).port == 5000


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_any_postgres_address_means_psycopg_3(scheme: str) -> None:
    url = Settings.from_environ({"DATABASE_URL": f"{scheme}://u:p%40ss@h:5432/d?sslmode=require"}).database_url
    assert url == "postgresql+psycopg://u:p%40ss@h:5432/d?sslmode=require"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("DATABASE_URL", "nonsense", "not an address of a database"),
        ("DATABASE_URL", "mysql://h/d", "begins with mysql"),
        ("DATABASE_URL", "sqlite://", "a file"),
        ("DATABASE_URL", "sqlite:///:memory:", "a file"),
        ("DATABASE_URL", "postgresql://u:hidden@h:port/d", "not an address of a database"),
        ("DATABASE_URL", "postgresql://u:hidden@h:99999/d", "not an address of a database"),
        ("DATABASE_URL", "postgresql://u:hidden@[::1/d", "not an address of a database"),
        ("REDIS_URL", "http://h", "redis://"),
        ("REDIS_URL", "redis://:hidden@h:port/0", "not an address of a Redis"),
        ("REDIS_URL", "redis://:hidden@h:99999/0", "not an address of a Redis"),
        ("REDIS_URL", "redis://:hidden@[::1/0", "not an address of a Redis"),
        ("REDIS_URL", "redis://:hidden@h/first", "number of a database"),
        ("REDIS_URL", "unix://", "names no socket"),
        ("SECRET_KEY", "short", "shorter than 16"),
        ("SECRET_KEY", "x" * 16, "can be guessed"),
        ("PORT", "abc", "whole number from 1 to 65535"),
        ("PORT", "0", "whole number"),
        ("PORT", "65536", "whole number"),
        ("PORT", "٣", "whole number"),
        ("OPENROUTER_BASE_URL", "http://openrouter.ai/api/v1", "must begin with https://"),
        ("OPENROUTER_BASE_URL", "http://127.0.0.1.evil.example/v1", "must begin with https://"),
        ("OPENROUTER_BASE_URL", "https://user@openrouter.ai", "not an address"),
        ("OPENROUTER_BASE_URL", "https://[", "not an address"),
        ("OPENROUTER_BASE_URL", "ftp://127.0.0.1", "must begin with https://"),
        ("GRAFIENT_REGISTRATION", "maybe", "first, open, closed"),
        ("GRAFIENT_DEFAULT_PLAN", "gold", "free, pro, ultimate"),
        ("GRAFIENT_TRUSTED_PROXIES", "-1", "whole number"),
        ("GRAFIENT_RAW_REPLY_DAYS", "-1", "whole number from 0 to 36500"),
        ("GRAFIENT_RAW_REPLY_DAYS", "for ever", "whole number"),
        ("GRAFIENT_RAW_REPLY_DAYS", "36501", "whole number"),
        ("GRAFIENT_OPERATORS", "one@example.com two@example.com", "commas between them"),
        ("GRAFIENT_OPERATORS", "one@example.com, somebody", "e-mail addresses"),
    ],
)
def test_a_wrong_setting_is_named_and_mended(name: str, value: str, says: str) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        Settings.from_environ({name: value})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("url", ["redis://h", "redis://h:6379/", "rediss://:p@[::1]:6380/15", "unix:///run/redis.sock"])
def test_addresses_of_every_form_are_taken(url: str) -> None:
    assert Settings.from_environ({"REDIS_URL": url}).redis_url == url


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/api/v1", "http://[::1]:9", "http://localhost:9", "https://x.example"]
)
def test_plain_http_is_for_this_machine_only(url: str) -> None:
    assert Settings.from_environ({"OPENROUTER_BASE_URL": url + "/"}).base_urls == {"openrouter": url}


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_secret_says_how_to_make_one(name: str) -> None:
    Settings.from_environ(GOOD).require()
    with pytest.raises(ConfigError, match=f"{name} is not set"):
        Settings.from_environ({**GOOD, name: ""}).require()


def test_a_key_ring_that_is_none_stops_the_start(tmp_path: Path) -> None:
    settings = environ(f"sqlite:///{tmp_path}/x.db", "redis://127.0.0.1:1", "http://127.0.0.1:1", str(tmp_path))
    with pytest.raises(ConfigError, match="GRAFIENT_ENCRYPTION_KEYS can't be used: key 1"):
        create_app({**settings, "GRAFIENT_ENCRYPTION_KEYS": "nonsense"})


def test_secrets_are_in_no_repr() -> None:
    secrets = {
        "SECRET_KEY": "stuvwxyz" * 3,
        "GRAFIENT_ENCRYPTION_KEYS": "k:eeee",
        "DATABASE_URL": "postgresql://u:pass@h/d",
    }
    text = repr(Settings.from_environ(secrets))
    assert not [value for value in ("stuvwxyz" * 3, "eeee", "pass") if value in text]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"GRAFIENT_OIDC_CLIENT_ID": ""}, "GRAFIENT_OIDC_CLIENT_ID is not set"),
        ({"GRAFIENT_OIDC_ISSUER": "http://accounts.example.com"}, "GRAFIENT_OIDC_ISSUER must begin with https"),
        ({"GRAFIENT_OIDC_ALLOW": "everybody:owner"}, "GRAFIENT_OIDC_ALLOW has 'everybody:owner'"),
        ({"GRAFIENT_OIDC_ALLOW": "*@example.com:boss"}, "GRAFIENT_OIDC_ALLOW has"),
        ({"GRAFIENT_OIDC_TRUST_EMAIL": "maybe"}, "GRAFIENT_OIDC_TRUST_EMAIL is 'maybe'"),
    ],
)
def test_a_wrong_setting_of_single_sign_on_is_said(changed: dict[str, str], said: str) -> None:
    env = {
        "GRAFIENT_OIDC_ISSUER": "https://accounts.example.com",
        "GRAFIENT_OIDC_CLIENT_ID": "x",
        "GRAFIENT_OIDC_CLIENT_SECRET": "very secret",
    }
    assert "very secret" in set(Settings.from_environ(env).secrets())
    assert "very secret" not in repr(Settings.from_environ(env))
    with pytest.raises(ConfigError, match=said):
        Settings.from_environ(env | changed)
