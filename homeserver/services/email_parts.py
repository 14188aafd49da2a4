"""All that e-mail takes: there where the configuration names an SMTP server, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

from homeserver.services.accounts.password_reset import PasswordReset
from homeserver.services.email.links import Links
from homeserver.services.email.queue import MailQueue
from homeserver.services.email.transport import MailTransport
from homeserver.services.email.validations import Validations
from homeserver.services.email.writing import Writer
from homeserver.services.push.email_pushers import EmailPushers
from storage.email_pushers import DuePusher
from storage.threepids import ValidationRow


@dataclass(frozen=True, slots=True)
class EmailParts:
    """The services of e-mail."""

    links: Links
    writer: Writer
    transport: MailTransport
    validations: Validations
    validation_mails: MailQueue[ValidationRow]
    password_reset: PasswordReset
    notifications: EmailPushers
    notification_mails: MailQueue[DuePusher]
