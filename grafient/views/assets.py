"""Static files: read once at the start, each at an address that changes whenever the file does.

``asset('app.css')`` is ``/static/app.css?v=`` and a hash of the file, which a browser may keep forever without asking.
It is told so only if the hash is the file's: a process of another version may be asked for what it does not have.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from flask import Flask, Response, abort, current_app, request, url_for

from grafient.views import delivery

TYPES = {
    ".css": "text/css",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
"""What is sent; scripts and notes that lie beside these files are not."""


@dataclass(frozen=True)
class Asset:
    """A file, and a name for its contents."""

    mimetype: str
    body: bytes

    @cached_property
    def version(self) -> str:
        return hashlib.sha256(self.body).hexdigest()[:16]

    @cached_property
    def compressed(self) -> bytes:
        return gzip.compress(self.body, 9, mtime=0)


def register(app: Flask) -> None:
    """Serve the files of the static folder, and give templates their addresses."""
    folder = Path(app.static_folder or "")
    app.extensions["assets"] = {
        path.relative_to(folder).as_posix(): Asset(TYPES[path.suffix], path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.suffix in TYPES
    }
    app.view_functions["static"] = _serve
    app.add_url_rule("/favicon.ico", "favicon", lambda: _serve("favicon.ico"))
    app.add_template_global(asset)


def asset(name: str) -> str:
    """The address of a static file as it is now."""
    return url_for("static", filename=name, v=_assets()[name].version)


def version() -> str:
    """A name for all of the files."""
    return hashlib.sha256("".join(one.version for one in _assets().values()).encode()).hexdigest()


def _assets() -> dict[str, Asset]:
    found: dict[str, Asset] = current_app.extensions["assets"]
    return found


def _serve(filename: str) -> Response:
    found = _assets().get(filename)
    if found is None:
        abort(404)
    response = Response(found.body, mimetype=found.mimetype)
    if found.mimetype in delivery.TEXT and delivery.encoding():
        response.set_data(found.compressed)
        response.content_encoding = "gzip"
    forever = request.args.get("v") == found.version
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if forever else "no-cache"
    response.set_etag(found.version, weak=True)
    response.make_conditional(request)
    return response
