"""The app that ``make run`` serves, and beside its pages one of so many bytes that needs no data."""

from __future__ import annotations

from flask import Response

from grafient import create_app
from grafient.views import access

app = create_app()


@app.get("/plain/<int:size>")
@access.public
def plain(size: int) -> Response:
    """A page of that size; ``no-store``, or it would be asked who is signed in."""
    return Response(b"x" * size, mimetype="text/html", headers={"Cache-Control": "no-store"})
