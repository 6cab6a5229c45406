"""Replies as the provider writes them: JSON whose money is a number and was never a float; its errors."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec
from werkzeug.wrappers import Response

_encoder = msgspec.json.Encoder()
MICRO = Decimal("0.000001")


class ProviderError(Exception):
    """A refusal in the provider's words: `{"error": {"message", "code"}}`, its status equal to the code."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


def money(amount: Decimal) -> msgspec.Raw | int:
    """A JSON number with every digit of `amount`, no trailing zeros, an exponent where JavaScript has one."""
    if not amount:
        return 0
    short = amount.normalize()
    if short == short.to_integral_value():
        return int(short)
    return msgspec.Raw(str(short).lower().encode())


def rounded_money(amount: Decimal) -> msgspec.Raw | int:
    """The same at six decimals, as analytics gives it."""
    return money(amount.quantize(MICRO))


def reply(payload: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(_encoder.encode(payload), status, dict(headers or {}), content_type="application/json")


def error_reply(error: ProviderError, user_id: str | None = None) -> Response:
    payload: dict[str, object] = {"error": {"message": error.message, "code": error.status}}
    if user_id is not None:
        payload["user_id"] = user_id
    return reply(payload, error.status, error.headers)


def html(status: int, title: str) -> Response:
    page = f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n"
    return Response(page, status, content_type="text/html; charset=utf-8")
