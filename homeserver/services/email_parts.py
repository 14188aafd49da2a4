"""All that e-mail takes, put together: made where the configuration names an SMTP server, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

from homeserver.services.accounts.password_reset import PasswordReset
from homeserver.services.accounts.passwords import Passwords
from homeserver.services.accounts.sessions import Sessions
from homeserver.services.email.links import Links
from homeserver.services.email.queue import MailQueue
from homeserver.services.email.templates import Templates
from homeserver.services.email.transport import MailTransport
from homeserver.services.email.validations import ValidationMails, Validations
from homeserver.services.email.writing import Writer
from homeserver.services.push.digests import Digests
from homeserver.services.push.email_pushers import EmailPushers
from homeserver.services.push.parts import PushParts
from homeserver.services.rate_limits import RateLimiter
from matrix.signatures import SigningKey
from storage.accounts import AccountRepository
from storage.email_pushers import DuePusher, EmailPusherRepository
from storage.threepids import ThreepidRepository, ValidationRow


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


def build_email(
    push: PushParts,
    email_pushers: EmailPusherRepository,
    transport: MailTransport,
    threepids: ThreepidRepository,
    accounts: AccountRepository,
    passwords: Passwords,
    sessions: Sessions,
    rate_limits: RateLimiter,
    signing_key: SigningKey,
) -> EmailParts:
    """Makes them, and lets pushers send mails. Raises ConfigError for templates that cannot be used."""
    around = push.around
    config, clock, metrics = around.config, around.clock, around.metrics
    links = Links(signing_key.derive_key("weft e-mail links"), config.base_url)
    writer = Writer(config.email, Templates(config.email.template_dir), clock)
    validations = Validations(config.email, threepids, links, rate_limits, clock)
    mails = ValidationMails(threepids, links, writer, transport, clock, server_name=config.server_name)
    digests = Digests(
        push.notifications,
        push.rules,
        around.unread_rows,
        around.receipts,
        around.registry,
        around.user_rooms,
        around.events,
        server_name=config.server_name,
    )
    notifications = EmailPushers(
        email_pushers, push.pushers, accounts, threepids, digests, links, writer, transport, clock, config.email
    )
    notification_mails = MailQueue(notifications, clock, metrics, config.email)
    notifications.on_armed = notification_mails.wake
    push.follower.email_pushers = notifications
    return EmailParts(
        links=links,
        writer=writer,
        transport=transport,
        validations=validations,
        validation_mails=MailQueue(mails, clock, metrics, config.email),
        password_reset=PasswordReset(accounts, threepids, validations, passwords, sessions),
        notifications=notifications,
        notification_mails=notification_mails,
    )
