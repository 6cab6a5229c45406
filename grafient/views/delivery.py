"""How answers travel: compressed, and what a browser may keep of them.

A browser may keep a page of somebody who is signed in, and asks each time whether it is still the same: then the answer
is a few bytes (304), and Back shows the page at once. ``no-store``, which all other answers have, would rule out both.
A view that shows a secret once sets ``Cache-Control: no-store`` itself. When the user logs out, ``Clear-Site-Data``
empties what was kept.

ETags are weak, since one stands for the page in any compression.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from functools import lru_cache

from flask import Response, g, request
from flask_security import current_user
from werkzeug.datastructures import Accept
from werkzeug.http import parse_accept_header

TEXT = frozenset(
    (
        *("text/html", "text/css", "text/csv", "text/javascript"),
        *("application/json", "application/manifest+json", "image/svg+xml"),
    )
)
_LEAST_BYTES = 500
_LEVEL = 6
_GZIP = 16 + zlib.MAX_WBITS


def keep(response: Response) -> None:
    """Say what the browser may keep of an answer that does not say so itself."""
    if "Cache-Control" in response.headers:
        return
    if not (
        request.method in ("GET", "HEAD")
        and response.status_code == 200
        and response.mimetype == "text/html"
        and current_user.is_authenticated
    ):
        response.headers["Cache-Control"] = "no-store"
        return
    revalidated(response, hashlib.sha256(response.get_data()).hexdigest()[:32])
    response.make_conditional(request)


def revalidated(response: Response, etag: str) -> Response:
    """Let the user's browser keep this, and ask each time whether it is still the same."""
    response.set_etag(etag, weak=True)
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def encoding() -> str:
    """In what the one who asks wants the answer: ``gzip``, or nothing."""
    return "gzip" if _accepts_gzip(request.headers.get("Accept-Encoding", "")) else ""


@lru_cache(128)  # browsers send a few different ones, and to parse one takes a twentieth of a kept page's time
def _accepts_gzip(header: str) -> bool:
    return parse_accept_header(header, Accept)["gzip"] > 0


def compress(response: Response) -> None:
    """Compress an answer, unless that was done already or would do harm.

    A page that has a CSRF token and may repeat what the request says is sent as it is. Somebody who watches the
    connection and has the browser open addresses of his choice could guess the token from how well each guess
    compresses (BREACH). A path alone carries no guess, and dashboards and breakdowns have no token.
    """
    if response.mimetype not in TEXT:
        return
    response.vary.add("Accept-Encoding")
    if response.status_code in (204, 206, 304) or response.content_encoding or not encoding() or _may_tell_a_token():
        return
    if response.is_streamed:
        parts = response.iter_encoded()
        response.call_on_close(getattr(response.response, "close", lambda: None))
        response.response = _compressed(parts)
        response.headers.pop("Content-Length", None)
    elif len(data := response.get_data()) >= _LEAST_BYTES:
        response.set_data(gzip.compress(data, _LEVEL, mtime=0))
    else:
        return
    response.content_encoding = "gzip"


def _may_tell_a_token() -> bool:
    """Flask-WTF leaves in ``g`` the token that it made for this page."""
    return "csrf_token" in g and (bool(request.query_string) or request.method not in ("GET", "HEAD"))


def _compressed(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The same, sent as it comes."""
    packer = zlib.compressobj(_LEVEL, wbits=_GZIP)
    for part in parts:
        if packed := packer.compress(part):
            yield packed
    yield packer.flush()
