"""Proving that somebody reads the mails of an address: a link is sent there, and leads to a page of this server.

1. A client asks for a mail, with a secret of its own, and is given the ID of an attempt, `sid`.
2. The mail is sent by a queue, so that an SMTP server that is slow or down keeps nobody waiting.
3. Whoever opens the link and confirms proves the address, for one purpose and for a day.
4. The client shows `sid` and secret: the attempt is used up by what it was for.

Nobody learns from the answers whether an address has an account, unless the configuration has it so: where it matters,
the mail says so instead.

https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3registeremailrequesttoken
https://spec.matrix.org/v1.19/identity-service-api/#establishing-associations
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from config.email import Email
from homeserver.clock import Clock
from homeserver.services.email.links import Links
from homeserver.services.email.transport import MailTransport
from homeserver.services.errors import BadJson, InvalidParam, MatrixError, MissingParam
from homeserver.services.rate_limits import RateLimiter
from matrix.third_party_ids import EMAIL, canonical_email
from storage.accounts import ProvedEmail
from storage.threepids import ThreepidRepository, ValidationRow

if TYPE_CHECKING:
    from homeserver.services.email.writing import Writer

Purpose = Literal["register", "password", "add"]

LIFETIME_MS: Final = 24 * 3600 * 1000
MAX_FAILURES: Final = 10
"""How many wrong tokens an attempt takes before it is worth nothing."""
MAX_SEND_ATTEMPT: Final = 2**53 - 1
MAX_LINK_CHARS: Final = 2048
# https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3pidemailrequesttoken
CLIENT_SECRET: Final = re.compile(r"[0-9a-zA-Z.=_-]{1,255}")


class ThreepidAuthFailed(MatrixError):
    """403 M_THREEPID_AUTH_FAILED."""

    def __init__(self) -> None:
        super().__init__(403, "M_THREEPID_AUTH_FAILED", "The address has not been confirmed: open the link in the mail")


class Validations:
    """Attempts to prove addresses. Limits: `email` counts mails, of who asks and for whom."""

    def __init__(
        self, config: Email, repository: ThreepidRepository, links: Links, rate_limits: RateLimiter, clock: Clock
    ) -> None:
        self._config = config
        self._repository = repository
        self._links = links
        self._rate_limits = rate_limits
        self._clock = clock
        self._allowed = {canonical_domain(domain) for domain in config.allowed_domains}

    @property
    def since_ts(self) -> int:
        """Attempts from before that are over."""
        return self._clock() - LIFETIME_MS

    async def request(
        self,
        purpose: Purpose,
        email: str,
        client_secret: str,
        *,
        send_attempt: int,
        next_link: str | None,
        network_address: str,
    ) -> str:
        """Has a mail sent, unless the client repeats itself; returns the ID of the attempt, the same for the same.

        Raises InvalidParam, LimitExceeded, MatrixError (403 M_THREEPID_DENIED; 400 M_THREEPID_IN_USE or
        M_THREEPID_NOT_FOUND where the configuration has it so).
        """
        address = canonical_email(email)
        if address is None:
            raise InvalidParam("Not an e-mail address")
        if not 0 <= send_attempt <= MAX_SEND_ATTEMPT:
            raise InvalidParam("send_attempt must not be negative, nor above 2^53 - 1")
        check_next_link(next_link)
        self._rate_limits.check("login", f"email {network_address}")
        if purpose != "password":
            self.check_allowed(address)
        if self._config.reveal_addresses:
            await self._check_use(purpose, address)
        secret_hash, since_ts = hash_secret(client_secret), self.since_ts
        known = await self._repository.load_validation_of(purpose, address, secret_hash, since_ts=since_ts)
        if known is not None and send_attempt <= known.send_attempt:
            return known.sid
        self._rate_limits.check("email", f"for {address}")
        self._rate_limits.check("email", f"by {network_address}")
        return await self._repository.begin_validation(
            secrets.token_urlsafe(24),
            purpose,
            address,
            secret_hash,
            send_attempt=send_attempt,
            next_link=next_link,
            now_ms=self._clock(),
            since_ts=since_ts,
        )

    def check_allowed(self, address: str) -> None:
        """Whether accounts may have an address. Raises MatrixError (403 M_THREEPID_DENIED)."""
        if self._allowed and address.rpartition("@")[2] not in self._allowed:
            raise MatrixError(403, "M_THREEPID_DENIED", "This server allows no addresses of that domain")

    async def _check_use(self, purpose: Purpose, address: str) -> None:
        is_used = await self._repository.load_user_of(EMAIL, address) is not None
        if purpose == "password" and not is_used:
            raise MatrixError(400, "M_THREEPID_NOT_FOUND", "No account has this e-mail address")
        if purpose != "password" and is_used:
            raise MatrixError(400, "M_THREEPID_IN_USE", "An account has this e-mail address already")

    async def find(self, sid: str, token: str) -> ValidationRow:
        """The attempt that a link belongs to. Raises MatrixError (400 M_SESSION_EXPIRED or M_TOKEN_INCORRECT).

        https://spec.matrix.org/v1.19/identity-service-api/#post_matrixidentityv2validateemailsubmittoken
        """
        row = None
        if "\0" not in sid and len(sid) < 256:
            row = await self._repository.load_validation(sid, since_ts=self.since_ts)
        if row is None or row.failures >= MAX_FAILURES:
            raise MatrixError(400, "M_SESSION_EXPIRED", "This link is too old, or has been used: ask for another mail")
        if not self._links.is_token(sid, token):
            await self._repository.count_failure(sid)
            raise MatrixError(400, "M_TOKEN_INCORRECT", "This link is not whole: copy all of it")
        return row

    async def confirm(self, sid: str, token: str) -> ValidationRow:
        """Takes it as proved that somebody reads the mails of an attempt's address. Raises as `find` does."""
        row = await self.find(sid, token)
        await self._repository.validate(sid, now_ms=self._clock())
        return row

    async def proved(self, credentials: Mapping[str, object], purpose: Purpose) -> ValidationRow:
        """The attempt that a client has the ID (`sid`) and secret of, if the address was proved for this purpose.

        Raises ThreepidAuthFailed, MissingParam, BadJson.
        """
        sid, secret = credentials.get("sid"), credentials.get("client_secret")
        for name, value in (("sid", sid), ("client_secret", secret)):
            if value is None:
                raise MissingParam(f"Missing {name}")
        if not isinstance(sid, str) or not isinstance(secret, str):
            raise BadJson("sid and client_secret must be strings")
        if not CLIENT_SECRET.fullmatch(sid) or not CLIENT_SECRET.fullmatch(secret):
            raise ThreepidAuthFailed
        row = await self._repository.load_validation(sid, since_ts=self.since_ts)
        if row is None or row.validated_ts is None or row.purpose != purpose:
            raise ThreepidAuthFailed
        if not secrets.compare_digest(row.secret_hash, hash_secret(secret)):
            raise ThreepidAuthFailed
        return row

    async def user_of(self, row: ValidationRow) -> str | None:
        """Whose account the address of an attempt belongs to."""
        return await self._repository.load_user_of(EMAIL, row.address)

    def proof(self, sid: str) -> ProvedEmail:
        """What the database is told of an attempt that `proved` has found."""
        return ProvedEmail(sid, self.since_ts)

    def may_follow(self, next_link: str) -> bool:
        """Whether people are led on to a link without being asked: to a client that the administrator has named."""
        base_url = self._config.client_base_url
        return base_url is not None and origin_of(next_link) == origin_of(base_url)


class ValidationMails:
    """The mails of attempts, as work for a queue."""

    kind = "validation"

    def __init__(
        self,
        repository: ThreepidRepository,
        links: Links,
        writer: Writer,
        transport: MailTransport,
        clock: Clock,
        *,
        server_name: str,
    ) -> None:
        self._repository = repository
        self._links = links
        self._writer = writer
        self._transport = transport
        self._clock = clock
        self._server_name = server_name

    async def load_due(self, limit: int) -> Sequence[ValidationRow]:
        """Attempts that wait for a mail. Those that are over by now are removed with the next new one."""
        return await self._repository.load_due(self._clock(), limit=limit)

    async def load_next_due_ts(self) -> int | None:
        """When the next mail is due."""
        return await self._repository.load_next_due_ts()

    async def send(self, row: ValidationRow) -> bool:
        """Sends the mail of an attempt: with a link, or with why there is none. Raises as the transport does."""
        if row.modified_ts < self._clock() - LIFETIME_MS:
            await self.give_up(row)
            return False
        user_id = await self._repository.load_user_of(EMAIL, row.address)
        name = row.purpose
        if row.purpose == "password" and user_id is None:
            name = "password_unknown"
        elif row.purpose != "password" and user_id is not None:
            name = f"{row.purpose}_known"
        values = {"server_name": self._server_name, "address": row.address}
        if name == row.purpose:
            values["link"] = self._links.confirm(row.sid)
        if name == "password":
            assert user_id is not None
            values["user_id"] = user_id
        mail = self._writer.write(name, row.address, values, about=f"{row.sid} {row.send_attempt}")
        await self._transport.send(row.address, mail)
        await self._repository.set_mail_due(row.sid, row.send_attempt, None)
        return True

    async def give_up(self, row: ValidationRow) -> None:
        """Writes down that no mail is to be sent."""
        await self._repository.set_mail_due(row.sid, row.send_attempt, None)

    async def postpone(self, row: ValidationRow, wait_ms: int) -> None:
        """Writes down when to try again."""
        await self._repository.set_mail_due(row.sid, row.send_attempt, self._clock() + wait_ms)

    def failures(self, row: ValidationRow) -> int:
        """How often sending has failed."""
        return row.mail_failures


def hash_secret(client_secret: str) -> bytes:
    """What is kept of a client's secret."""
    return hashlib.sha256(client_secret.encode()).digest()


def canonical_domain(domain: str) -> str:
    """A domain of the configuration as it stands in canonical addresses."""
    return (canonical_email(f"x@{domain}") or f"x@{domain}").partition("@")[2]


def check_next_link(link: str | None) -> None:
    """Whether people may be shown a link once they are done: a page, and nothing that runs. Raises InvalidParam."""
    if link is not None and (len(link) > MAX_LINK_CHARS or not link.isprintable() or origin_of(link) is None):
        raise InvalidParam(f"next_link must be an http or https URL of at most {MAX_LINK_CHARS} characters")


def origin_of(url: str) -> str | None:
    """Scheme, host and port of a web page's URL, in lower case; None for what is none.

    Browsers read a backslash as a slash: with one in it, nobody knows where a URL leads.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or "\\" in url or " " in url:
        return None
    if not url.lower().startswith(f"{parts.scheme}://") or not host.isascii() or any(c in host for c in "\"'<>;,"):
        return None
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" if port is None else f"{parts.scheme}://{shown}:{port}"
