"""All that e-mail takes, put together."""

from __future__ import annotations

from homeserver.building.foundation import Foundation
from homeserver.building.pushing import PushParts
from homeserver.building.rooms import RoomParts
from homeserver.services.accounts.password_reset import PasswordReset
from homeserver.services.accounts.passwords import Passwords
from homeserver.services.accounts.sessions import Sessions
from homeserver.services.email.links import Links
from homeserver.services.email.queue import MailQueue
from homeserver.services.email.templates import Templates
from homeserver.services.email.transport import MailTransport
from homeserver.services.email.validations import ValidationMails, Validations
from homeserver.services.email.writing import Writer
from homeserver.services.email_parts import EmailParts
from homeserver.services.push.digests import Digests
from homeserver.services.push.email_pushers import EmailPushers
from homeserver.services.rate_limits import RateLimiter
from storage.email_pushers import EmailPusherRepository
from storage.threepids import ThreepidRepository


def build_email(
    base: Foundation,
    rooms: RoomParts,
    push: PushParts,
    email_pushers: EmailPusherRepository,
    transport: MailTransport,
    threepids: ThreepidRepository,
    passwords: Passwords,
    sessions: Sessions,
    rate_limits: RateLimiter,
) -> EmailParts:
    """Makes them, and lets pushers send mails. Raises ConfigError for templates that cannot be used."""
    config, clock, metrics, accounts = base.config, base.clock, base.metrics, base.rows.accounts
    links = Links(base.signing_key.derive_key("weft e-mail links"), config.base_url)
    templates = Templates(config.email.template_dir)
    writer = Writer(config.email, templates, base.signing_key.derive_key("weft e-mail message IDs"), clock)
    validations = Validations(config.email, threepids, links, rate_limits, clock)
    mails = ValidationMails(threepids, links, writer, transport, clock, server_name=config.server_name)
    digests = Digests(
        push.notifications,
        push.rules,
        base.rows.unread,
        rooms.receipts,
        base.registry,
        base.user_rooms,
        base.events,
        base.access,
        rooms.aggregations,
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
