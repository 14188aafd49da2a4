"""Accounts: sessions, passwords, registration, addresses, and the mails that these take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.building.foundation import Foundation
from homeserver.building.pushing import PushParts
from homeserver.building.rooms import EncryptionParts, RoomParts
from homeserver.services.accounts.login import Login
from homeserver.services.accounts.passwords import Passwords
from homeserver.services.accounts.registration import Registration
from homeserver.services.accounts.sessions import Sessions
from homeserver.services.accounts.third_party_ids import ThirdPartyIds
from homeserver.services.appservices.services import Services
from homeserver.services.email.transport import MailTransport
from homeserver.services.rate_limits import RateLimiter
from storage.email_pushers import EmailPusherRepository
from storage.threepids import ThreepidRepository
from storage.tokens import TokenRepository

if TYPE_CHECKING:
    from homeserver.services.email_parts import EmailParts


@dataclass(frozen=True, slots=True)
class AccountParts:
    """Services of accounts. `email` is None where no e-mail is sent."""

    tokens: TokenRepository
    rate_limits: RateLimiter
    sessions: Sessions
    passwords: Passwords
    third_party_ids: ThirdPartyIds
    login: Login
    email: EmailParts | None
    registration: Registration


def build_accounts(
    base: Foundation,
    rooms: RoomParts,
    encryption: EncryptionParts,
    push: PushParts,
    services: Services,
    mail_transport: MailTransport | None,
) -> AccountParts:
    """Makes them. What becomes of accounts reaches rooms, devices and pushers. Raises ConfigError."""
    config, rows, clock, pool = base.config, base.rows, base.clock, base.database.pool
    rate_limits = RateLimiter(config.rate_limits, clock)
    sessions = Sessions(rows.accounts, clock, max_cached_tokens=config.caches.tokens, lifetimes=config.sessions)
    _tell_of_sessions(sessions, base, rooms, encryption, push)
    tokens = TokenRepository(pool)
    passwords = Passwords(rows.accounts, sessions)
    threepids = ThreepidRepository(pool)
    third_party_ids = ThirdPartyIds(threepids, clock, push.pushers.changed_elsewhere)
    login = Login(base.server_name, rows.accounts, passwords, sessions, rate_limits, tokens, clock, third_party_ids)
    email = None
    if mail_transport is not None:
        # Imported where it is wanted: the template engine takes memory, and time at the start.
        from homeserver.building.email import build_email

        pushers = EmailPusherRepository(pool)
        email = build_email(base, rooms, push, pushers, mail_transport, threepids, passwords, sessions, rate_limits)
    registration = Registration(
        config.registration,
        base.server_name,
        rows.accounts,
        passwords,
        login,
        clock,
        tokens,
        is_exclusive=services.is_reserved_user,
        has_email=email is not None,
    )
    if config.jwt_login.enabled:
        # Imported where it is wanted: the cryptography that comes with it takes memory, and time at the start.
        from homeserver.services.accounts.jwt_login import LOGIN_TYPE, JwtLogin

        jwt_login = JwtLogin(config.jwt_login, base.server_name, rows.accounts, registration)
        login.add_type(LOGIN_TYPE, jwt_login.authenticate)
    return AccountParts(
        tokens=tokens,
        rate_limits=rate_limits,
        sessions=sessions,
        passwords=passwords,
        third_party_ids=third_party_ids,
        login=login,
        email=email,
        registration=registration,
    )


def _tell_of_sessions(
    sessions: Sessions, base: Foundation, rooms: RoomParts, encryption: EncryptionParts, push: PushParts
) -> None:
    def forget_user(user_id: str | None) -> None:
        rooms.profiles.forget(user_id)
        encryption.device_lists.look_again()

    sessions.on_account_erased += [
        base.registry.erase,
        lambda user_id, _position: rooms.presence.on_profile(user_id, {}),
    ]
    sessions.on_devices_changed = encryption.device_lists.announce_pending
    sessions.on_user_changed += [forget_user, push.pushers.changed_elsewhere]
    sessions.on_devices_ended = push.pushers.devices_ended
