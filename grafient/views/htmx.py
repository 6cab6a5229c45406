"""htmx asks for a fragment, a browser without scripts for a page: one helper decides."""

from __future__ import annotations

from flask import Response, make_response, redirect, request


def is_htmx() -> bool:
    """Whether htmx asks. Answers that depend on it have to say ``Vary: HX-Request``."""
    return request.headers.get("HX-Request") == "true"


def answer(fragment: str | None, location: str) -> Response:
    """For htmx the fragment, or, without one, the order to go to ``location``; for others 303 to it."""
    if not is_htmx():
        response = redirect(location, 303)
    elif fragment is None:
        response = make_response("", 200, {"HX-Redirect": location})
    else:
        response = make_response(fragment)
    assert isinstance(response, Response)
    response.vary.add("HX-Request")
    return response
