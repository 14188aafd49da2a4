"""Takes mails to an SMTP server. https://www.rfc-editor.org/rfc/rfc5321"""

from __future__ import annotations

import asyncio
import ssl
import time

import aiosmtplib

from config.email import Email
from homeserver.services.email.transport import MailFailed, MailRefused, MailUnreachable
from matrix.third_party_ids import canonical_email

MAX_CONNECTIONS = 4
IDLE_S = 10.0
"""How long a connection is kept for the next mail: SMTP servers are slow to greet, and quick to hang up."""
_REFUSING_FROM = 500


class SmtpClient:
    """A `MailTransport` with a few connections, which are used again for mails that follow soon."""

    def __init__(self, config: Email) -> None:
        assert config.host is not None
        assert config.from_address is not None
        self._config = config
        self._sender = canonical_email(config.from_address) or config.from_address
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._idle: list[tuple[aiosmtplib.SMTP, float]] = []
        self._tls: ssl.SSLContext | None = None
        if config.tls != "none":
            self._tls = ssl.create_default_context()
            if config.ca_file is not None:
                self._tls.load_verify_locations(config.ca_file)

    async def send(self, recipient: str, message: bytes) -> None:
        """Hands a mail (RFC 5322) over. Raises MailFailed, MailUnreachable, MailRefused."""
        async with self._slots:
            client = await self._connection()
            try:
                await self._send(client, recipient, message)
            except BaseException:
                client.close()
                raise
            self._idle.append((client, time.monotonic()))

    async def _send(self, client: aiosmtplib.SMTP, recipient: str, message: bytes) -> None:
        options = [] if recipient.isascii() else ["SMTPUTF8", "BODY=8BITMIME"]
        try:
            await client.sendmail(self._sender, [recipient], message, mail_options=options)
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _failure(error.recipients[0].code) from None
        except aiosmtplib.SMTPSenderRefused as error:  # whoever it is for: something to be set right
            raise MailUnreachable(f"the SMTP server refuses from_address ({error.code})") from None
        except aiosmtplib.SMTPResponseException as error:
            raise _failure(error.code) from None
        except (aiosmtplib.SMTPNotSupported, ValueError):
            raise MailRefused("the SMTP server takes no such address") from None
        except (aiosmtplib.SMTPException, OSError, ssl.SSLError) as error:
            raise MailFailed(f"the connection broke: {type(error).__name__}") from None

    async def _connection(self) -> aiosmtplib.SMTP:
        """A connection that is ready for a mail. Raises MailUnreachable."""
        while self._idle:
            client, since = self._idle.pop()
            if time.monotonic() - since < IDLE_S and await _is_alive(client):
                return client
            client.close()
        config = self._config
        client = aiosmtplib.SMTP(
            hostname=config.host,
            port=config.port,
            username=config.username,
            password=None if config.password is None else config.password.reveal(),
            local_hostname=self._sender.rpartition("@")[2],
            timeout=config.timeout_ms / 1000,
            use_tls=config.tls == "tls",
            start_tls=config.tls == "starttls",
            tls_context=self._tls,
        )
        try:
            await client.connect()
        except aiosmtplib.SMTPResponseException as error:  # what the server says might repeat what it was told
            client.close()
            raise MailUnreachable(f"the SMTP server answered {error.code} ({type(error).__name__})") from None
        except (aiosmtplib.SMTPException, OSError, ssl.SSLError, ValueError) as error:
            client.close()
            raise MailUnreachable(f"the SMTP server cannot be reached: {type(error).__name__}") from None
        except BaseException:
            client.close()
            raise
        return client

    async def close(self) -> None:
        """Closes all connections."""
        for client, _ in self._idle:
            client.close()
        self._idle.clear()


async def _is_alive(client: aiosmtplib.SMTP) -> bool:
    try:
        await client.rset()
    except (aiosmtplib.SMTPException, OSError):
        return False
    return True


def _failure(code: int) -> MailFailed | MailRefused:
    """What an answer means: from 500 on it will be the same the next time. https://www.rfc-editor.org/rfc/rfc5321"""
    if code == 421:
        return MailUnreachable("the SMTP server closes (421)")
    reason = f"the SMTP server answered {code}"
    return MailRefused(reason) if code >= _REFUSING_FROM else MailFailed(reason)
