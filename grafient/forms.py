"""The shapes of what people send. Whether a key is any good only the provider can say."""

from __future__ import annotations

from email_validator import EmailNotValidError, validate_email
from flask_wtf import FlaskForm
from wtforms import BooleanField, PasswordField, RadioField, SelectField, SelectMultipleField, StringField
from wtforms.fields.choices import SelectChoice
from wtforms.validators import DataRequired, Length, ValidationError
from wtforms.widgets import CheckboxInput

from grafient import mail
from grafient.alerts.channels.kinds import KINDS
from grafient.alerts.channels.store import MOST_NAME, Options
from grafient.integrations import MAX_LABEL
from grafient.providers import PROVIDERS
from grafient.states import ChannelKind, Role, Summary, Topic

MAX_KEY = 512


def strip(value: str | None) -> str | None:
    """White space around what was pasted is never meant."""
    return value.strip() if isinstance(value, str) else value


def one_line_of_ascii(_form: FlaskForm, field: StringField) -> None:
    """A key travels in a header: refuse what could not, before anything is sent anywhere."""
    text = field.data or ""
    if not text.isascii():
        raise ValidationError("The key contains characters that no key has. Copy it again, without anything around it.")
    if not text.isprintable() or " " in text:
        raise ValidationError("The key contains a space or a line break. Copy it again, in one piece.")


class Shown:
    """What is shown as it is typed: so long at most, and nothing that can't be seen."""

    def __init__(self, what: str, most: int) -> None:
        self._what, self._most = what, most

    def __call__(self, _form: FlaskForm, field: StringField) -> None:
        text = field.data or ""
        if len(text) > self._most:
            raise ValidationError(f"A {self._what} can have up to {self._most} characters.")
        if text and not text.isprintable():
            raise ValidationError(f"The {self._what} contains characters that can't be shown, such as a line break.")


class _KeyForm(FlaskForm):  # type: ignore[misc]
    api_key = PasswordField(
        "Management key",
        filters=[strip],
        validators=[
            DataRequired("Paste the key here."),
            Length(max=MAX_KEY, message=f"The key is longer than {MAX_KEY} characters, so it can't be one."),
            one_line_of_ascii,
        ],
    )


class _LabelForm(FlaskForm):  # type: ignore[misc]
    label = StringField("Label", filters=[strip], validators=[Shown("label", MAX_LABEL)])


class IntegrationForm(_KeyForm, _LabelForm):
    """Add Integration, and Test Connection."""

    provider = SelectField(
        "Provider", choices=[SelectChoice(slug, p.name) for slug, p in PROVIDERS.items()], default="openrouter"
    )
    twice = BooleanField("Connect this account a second time and count its costs twice")
    twice_offered = False


class EmailForm(FlaskForm):  # type: ignore[misc]
    """An address to send something to, which is stored as Flask-Security stores those of accounts."""

    email = StringField("Email", filters=[strip], validators=[DataRequired("Enter an email address.")])

    def validate_email(self, field: StringField) -> None:
        """It has to look like one."""
        field.data = normalized(field.data or "")


def normalized(email: str) -> str:
    """An address as accounts have it. Raises ValidationError."""
    try:
        return validate_email(email, check_deliverability=False).normalized
    except EmailNotValidError:
        raise ValidationError("Enter a valid email address.") from None


class RenameForm(_LabelForm):
    """Another label, which can't be left blank."""

    def validate_label(self, field: StringField) -> None:
        """There has to be one."""
        if not field.data:
            raise ValidationError("Enter a label.")


class ReplaceKeyForm(_KeyForm):
    """Another key for the same account."""


class InvitationForm(FlaskForm):  # type: ignore[misc]
    """Who is invited, and as what."""

    role = SelectField(
        "Role", choices=[SelectChoice(role.value, role.value.capitalize()) for role in Role], default="viewer"
    )
    email = StringField("Send it to", filters=[strip], validators=[Shown("address", 255)])
    note = StringField("For whom", filters=[strip], validators=[Shown("note", 100)])

    def validate_email(self, field: StringField) -> None:
        """It may be left blank."""
        field.data = normalized(field.data) if field.data and mail.can_be_sent() else ""


class WorkspaceForm(FlaskForm):  # type: ignore[misc]
    """What the workspace is called."""

    name = StringField("Name", filters=[strip], validators=[Shown("name", 100)])


class TypedForm(FlaskForm):  # type: ignore[misc]
    """What is typed so that nothing is deleted by mistake."""

    typed = StringField("Type it", validators=[Length(max=200, message="That is longer than any name.")])


class RemoveForm(FlaskForm):  # type: ignore[misc]
    """Remove an integration, and say what becomes of its history."""

    history = RadioField(
        "History",
        choices=[
            SelectChoice("keep", "Keep its costs on the dashboard and in exports"),
            SelectChoice("delete", "Delete its costs permanently"),
        ],
        default="keep",
    )


_HOURS = [SelectChoice("", "None"), *(SelectChoice(str(hour), f"{hour:02}:00") for hour in range(24))]
_TOPICS = {
    Topic.BUDGETS: "Budgets",
    Topic.SPEND: "Unusual spend, and what is new",
    Topic.CREDITS: "Credits running out",
    Topic.DATA: "Keys, syncs, and figures that changed",
}


class ChannelForm(FlaskForm):  # type: ignore[misc]
    """What a channel of any kind can be set to; ``channel_form`` has what its kind asks for as well."""

    name = StringField("Name", filters=[strip], validators=[Shown("name", MOST_NAME)])
    topics = SelectMultipleField(
        "Alerts about",
        choices=[SelectChoice(topic.value, label) for topic, label in _TOPICS.items()],
        default=[topic.value for topic in Topic],
        option_widget=CheckboxInput(),
    )
    alerts_daily = BooleanField("Send alerts once a day, as one message")
    quiet_from = SelectField("Quiet from", choices=_HOURS, default="")
    quiet_to = SelectField("Quiet until", choices=_HOURS, default="")
    summary = SelectField(
        "Digest",
        choices=[SelectChoice("", "None"), *(SelectChoice(one.value, one.value.capitalize()) for one in Summary)],
        default="",
    )

    def validate_quiet_to(self, field: SelectField) -> None:
        """Both ends, or neither."""
        if bool(field.data) != bool(self.quiet_from.data):
            raise ValidationError("Choose both hours, or none.")
        if field.data and field.data == self.quiet_from.data:
            raise ValidationError("Choose another hour: these are the same.")

    def validate_summary(self, field: SelectField) -> None:
        """There has to be something to send."""
        if not field.data and not self.topics.data:
            raise ValidationError("Choose what alerts are sent about, or a digest.")

    def options(self) -> Options:
        """What was chosen, if the form is valid."""
        return Options(
            tuple(Topic(topic) for topic in self.topics.data),
            int(self.quiet_from.data) if self.quiet_from.data else None,
            int(self.quiet_to.data) if self.quiet_to.data else None,
            self.alerts_daily.data,
            Summary(self.summary.data) if self.summary.data else None,
        )


def channel_form(kind: ChannelKind, **data: object) -> ChannelForm:
    """The form for a kind of channel. What is secret is never sent back to a browser."""

    class _Form(ChannelForm):
        pass

    for one in KINDS[kind].fields:
        if one.choices:
            choices = [SelectChoice(*choice) for choice in one.choices]
            setattr(_Form, one.name, SelectField(one.label, choices=choices))
        else:
            made = PasswordField if one.secret else StringField
            setattr(_Form, one.name, made(one.label, filters=[strip]))
    return _Form(**data)
