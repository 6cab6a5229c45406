"""What Flask-Security wants sent, and asking for a letter: to reset a password, to confirm an address."""

from __future__ import annotations

from typing import Any

from flask import Response, after_this_request, flash, make_response, redirect, render_template, request
from flask.typing import ResponseReturnValue
from flask_security import MailUtil, url_for_security

from grafient import jobs, mail
from grafient.extensions import db
from grafient.forms import EmailForm
from grafient.models import User
from grafient.states import Letter

_KINDS = {
    "welcome": Letter.CONFIRM,
    "welcome_existing": Letter.EXISTS,
    "change_notice": Letter.CHANGED,
    "reset_notice": Letter.CHANGED,
}
"""By the names of Flask-Security's templates."""


class Letters(MailUtil):
    """What Flask-Security would send, sent by a worker; what it has written is not used."""

    def send_mail(self, template: str, *_written: Any, **of: Any) -> None:
        user: User = of["user"]
        letter = _KINDS[template.rpartition("/")[2]]
        if not mail.can_be_sent() or (letter is Letter.CONFIRM and user.confirmed_at is not None):
            return
        mail.post(letter, user.email)

        @after_this_request
        def wake(response: Response) -> Response:
            db.session.commit()
            jobs.wake()
            return response


_TITLES = {Letter.RESET: "Reset your password", Letter.CONFIRM: "Confirm your address"}
_ABOUT = {
    Letter.RESET: "You will get an email with a link to choose a new one.",
    Letter.CONFIRM: "You will get the email with the link once more.",
}
_SAID = {
    Letter.RESET: "If there is an account with this address, an email with a link is on its way. The link works for an "
    "hour.",
    Letter.CONFIRM: "If there is something to confirm, an email with a link is on its way.",
}


def forgot_password() -> ResponseReturnValue:
    """Have a link sent to choose a new password."""
    return _ask_for(Letter.RESET)


def send_confirmation() -> ResponseReturnValue:
    """Have the link to confirm an address sent again."""
    return _ask_for(Letter.CONFIRM)


def _ask_for(letter: Letter) -> ResponseReturnValue:
    """What is done is the same whether or not anybody has the address, and so takes as long."""
    form = EmailForm()
    can_be_sent = mail.can_be_sent()
    if can_be_sent and form.validate_on_submit():
        mail.post(letter, form.email.data or "")
        db.session.commit()
        jobs.wake()
        flash(_SAID[letter], "info")
        return redirect(url_for_security("login"), 303)
    page = render_template(
        "security/letter.html",
        form=form,
        can_be_sent=can_be_sent,
        title=_TITLES[letter],
        about=_ABOUT[letter],
        resets=letter is Letter.RESET,
    )
    return make_response(page, 422 if request.method == "POST" else 200)
