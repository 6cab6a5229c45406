"""Letters: resetting a password, confirming an address, an invitation.

A request only notes what is to be sent and to whom (``post``); a worker writes and sends it (``send_due``), so that
nobody waits for a mail server. Whether an account has the address is looked up there too: the request that asks for a
reset does the same, and takes as long, whether there is one or not. A letter's link lets somebody in, so it is made
when the letter is sent, and the database never has it.

A letter is sent at least once. A worker that sends one has two minutes to say that it did; if it is killed, another
sends the letter again.
"""

from __future__ import annotations

import logging
import smtplib
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any
from urllib.parse import unquote, urlsplit

from flask import current_app, render_template, url_for
from flask_security.confirmable import generate_confirmation_token
from flask_security.recoverable import generate_reset_password_token
from sqlalchemy import delete, func, select, update

from grafient import database, members
from grafient.config import is_loopback
from grafient.extensions import db, settings
from grafient.models import Invitation, Mail, User, utc_now
from grafient.states import Letter

log = logging.getLogger(__name__)

RESET_HOURS = 1
CONFIRM_DAYS = 5
_LEASE = timedelta(minutes=2)
_TIMEOUT = 20.0
_AGAIN = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 20, 60))
"""How long after each failure it is tried again; then it is given up."""


def can_be_sent() -> bool:
    """Whether a mail server is set up."""
    return settings.smtp_url is not None


def post(letter: Letter, email: str, invitation: Invitation | None = None) -> None:
    """Note that this is to be sent, if mail is set up. Does not commit; wake a worker once that is done."""
    if can_be_sent():
        invitation_id = invitation.id if invitation is not None else None
        db.session.add(Mail(kind=letter, email=email, invitation_id=invitation_id, due_at=utc_now()))


def count_due(now: datetime) -> int:
    """How many letters are to be sent."""
    found: int = db.session.execute(select(func.count()).select_from(Mail).where(*_due(now))).scalar_one()
    return found


def of_invitations(workspace_id: int) -> Mapping[int, Mail]:
    """The letters of a workspace's invitations that were not sent yet, by the invitation's id."""
    here = select(Mail).join(Invitation, Invitation.id == Mail.invitation_id)
    found = db.session.execute(here.where(Invitation.workspace_id == workspace_id)).scalars()
    return {letter.invitation_id: letter for letter in found if letter.invitation_id is not None}


def is_due() -> bool:
    """Whether a letter is to be sent by now. Reads only, and only where mail is set up."""
    if not can_be_sent():
        return False
    with database.only_reading():
        found = count_due(utc_now())
        db.session.rollback()
    return bool(found)


def send_due() -> None:
    """Send what is to be sent by now. Commits; a letter that can't be sent is tried again later."""
    if not can_be_sent():
        return
    while (letter := _claim()) is not None:
        try:
            message = _written(letter)
            if message is not None:
                with server() as post_office:
                    post_office.send_message(message)
        except (OSError, smtplib.SMTPException) as error:
            _put_back(letter, error)
        else:
            db.session.delete(letter)
            db.session.commit()


def forget_every() -> None:
    """Send none of those that are to be sent. Does not commit.

    For a restored backup: they were sent long ago, and nobody asks for a new password any more who did then.
    """
    db.session.execute(delete(Mail))


@contextmanager
def server() -> Iterator[smtplib.SMTP]:
    """The mail server, which has let us in. Raises OSError or SMTPException.

    To another machine letters travel encrypted or not at all, and the server's certificate is verified.
    """
    parts = urlsplit(settings.smtp_url or "")
    host, context = parts.hostname or "", ssl.create_default_context()
    if parts.scheme == "smtps":
        found: smtplib.SMTP = smtplib.SMTP_SSL(host, parts.port or 465, timeout=_TIMEOUT, context=context)
    else:
        found = smtplib.SMTP(host, parts.port or 587, timeout=_TIMEOUT)
    with found:
        if parts.scheme == "smtp" and not is_loopback(host):
            found.starttls(context=context)
        if parts.username:
            found.login(unquote(parts.username), unquote(parts.password or ""))
        yield found


def reset_link(user: User) -> str:
    """A link with which a user can choose a new password, for RESET_HOURS and once."""
    with current_app.test_request_context(base_url=settings.base_url):
        token = generate_reset_password_token(user)  # type: ignore[no-untyped-call]
        return url_for("security.reset_password", token=token, _external=True)


def _due(now: datetime) -> tuple[Any, ...]:
    return Mail.attempts < Mail.MOST_ATTEMPTS, Mail.due_at <= now


def _claim() -> Mail | None:
    """A letter that nobody else sends for the next two minutes. Commits.

    Two workers that look at the same moment find the same letter; the one whose update still finds it as it was has it.
    """
    now = utc_now()
    found = db.session.execute(select(Mail).where(*_due(now)).order_by(Mail.due_at, Mail.id).limit(1)).scalar()
    if found is None:
        db.session.rollback()
        return None
    is_as_it_was = Mail.id == found.id, Mail.due_at == found.due_at, Mail.attempts == found.attempts
    claimed = db.session.execute(
        update(Mail).where(*is_as_it_was).values(due_at=now + _LEASE, attempts=Mail.attempts + 1),
        execution_options={"synchronize_session": False},
    )
    db.session.commit()
    if not claimed.rowcount:  # type: ignore[attr-defined]
        return _claim()
    db.session.refresh(found)
    return found


def _put_back(letter: Mail, error: Exception) -> None:
    """Note when it is tried again, and log why it was not sent: the code alone, since what mail servers say beside it
    repeats addresses."""
    db.session.rollback()
    left = Mail.MOST_ATTEMPTS - letter.attempts
    why = f"{type(error).__name__} {getattr(error, 'smtp_code', '')}".strip()
    what = f"tries left: {left}" if left else "it is given up"
    log.warning("mail: a letter (%s) could not be sent (%s); %s", letter.kind, why, what)
    if left:
        letter.due_at = utc_now() + _AGAIN[letter.attempts - 1]
    elif letter.invitation_id is None:
        db.session.delete(letter)  # an invitation's stays, so that its page can say so
    db.session.commit()


def _written(letter: Mail) -> EmailMessage | None:
    """What it says; None if there is nothing to say any more. Commits what its link needs."""
    with current_app.test_request_context(base_url=settings.base_url):
        content = _content(letter)
        if content is None:
            return None
        text = render_template(f"mail/{letter.kind}.txt", base_url=settings.base_url, **content)
    subject, _, body = text.partition("\n")
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = subject, settings.mail_from, letter.email
    message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain=urlsplit(settings.base_url).hostname)
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(body.strip() + "\n")
    return message


def _content(letter: Mail) -> Mapping[str, Any] | None:
    if letter.kind is Letter.INVITATION:
        return _invitation(letter.invitation_id)
    user = db.session.execute(select(User).where(User.email == letter.email, User.active)).scalar_one_or_none()
    if user is None:
        return None
    if letter.kind is Letter.RESET:
        return {"link": reset_link(user), "hours": RESET_HOURS}
    if letter.kind is Letter.CONFIRM:
        if user.confirmed_at is not None:
            return None
        token = generate_confirmation_token(user)  # type: ignore[no-untyped-call]
        return {"link": url_for("security.confirm_email", token=token, _external=True), "days": CONFIRM_DAYS}
    return {"link": url_for("security.forgot_password", _external=True)}


def _invitation(invitation_id: int | None) -> Mapping[str, Any] | None:
    found = members.renewed(invitation_id or 0)
    if found is None:
        return None
    invitation, workspace, token = found
    db.session.commit()
    link = url_for("members.invitation", token=token, _external=True)
    return {"link": link, "invitation": invitation, "workspace": workspace}
