"""An SMTP server for tests: takes mails, and refuses them when told to."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTPUTF8
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

from config.email import Email
from config.schema import Config
from tests.client import Answer, Homeserver, User
from tests.conftest import make_config

PATIENCE_S = 20.0
LINK = re.compile(r"https://weft\.test(/_matrix/static/client/email/\S+)")


SILENCE, BREAK = "250 that never comes", "250 that is lost with the connection"
"""Answers to a mail that is taken, which its sender never gets."""


class Mailbox:
    """`mails` are those that were taken, `tried` counts all; `answers` are given before any other."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, EmailMessage]] = []
        self.answers: list[str] = []
        self.tried = 0
        self._changed = asyncio.Condition()

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:
        """Takes a mail."""
        self.tried += 1
        answer = self.answers.pop(0) if self.answers else "250 OK"
        if answer.startswith("250"):
            content = envelope.content
            assert isinstance(content, bytes)
            mail = message_from_bytes(content, policy=SMTPUTF8)
            assert isinstance(mail, EmailMessage)
            self.mails.append((envelope.rcpt_tos[0], mail))
        async with self._changed:
            self._changed.notify_all()
        if answer is BREAK:
            assert server.transport is not None
            server.transport.close()
        if answer in (SILENCE, BREAK):
            await asyncio.Event().wait()  # until the connection is closed
        return answer

    async def wait(self, until: Callable[[], bool]) -> None:
        """Returns once something is so."""
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(until)

    async def next_to(self, address: str, number: int = 1) -> EmailMessage:
        """The mail of that number to an address."""
        await self.wait(lambda: len(self.to(address)) >= number)
        return self.to(address)[number - 1]

    def to(self, address: str) -> list[EmailMessage]:
        """The mails to an address."""
        return [mail for recipient, mail in self.mails if recipient == address]


def text_of(mail: EmailMessage, kind: str = "plain") -> str:
    """The text of a mail, or its HTML."""
    body = mail.get_body((kind,))
    assert body is not None
    text: str = body.get_content()
    return text


def link_of(mail: EmailMessage) -> str:
    """Path and query of the link to the server in a mail."""
    found = LINK.search(text_of(mail))
    assert found is not None, text_of(mail)
    return found[1]


@asynccontextmanager
async def mailbox_started(
    port: int = 0, tls_from_the_start: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[tuple[Mailbox, int]]:
    """A server on a socket, and its port."""
    mailbox = Mailbox()
    options = {"enable_SMTPUTF8": True, "hostname": "smtp.test", **options}
    loop = asyncio.get_running_loop()
    connections: list[SMTP] = []

    def connect() -> SMTP:
        connections.append(SMTP(mailbox, loop=loop, **options))
        return connections[-1]

    server = await loop.create_server(connect, "127.0.0.1", port, ssl=tls_from_the_start)
    try:
        yield mailbox, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in connections:
            if connection.transport is not None:
                connection.transport.close()


def email_config(data_dir: Path, port: int, **changes: Any) -> Config:
    """A server that sends mails to this machine, and tries again soon."""
    email = Email(
        host="127.0.0.1",
        port=port,
        tls="none",
        from_address="noreply@weft.test",
        app_name="Weft",
        min_retry_interval_ms=5,
        max_retry_interval_ms=20,
    )
    return replace(make_config(data_dir), email=replace(email, **changes))


async def ask(homeserver: Homeserver, what: str, email: str, secret: str = "s3cret", **more: Any) -> Answer:
    """Asks for a mail."""
    body = {"client_secret": secret, "email": email, "send_attempt": 1, **more}
    return await homeserver.request("POST", f"/_matrix/client/v3/{what}/email/requestToken", body)


async def confirm(homeserver: Homeserver, mail: EmailMessage) -> None:
    """Opens the link in a mail, and confirms."""
    link = link_of(mail)
    assert b"<button>Confirm</button>" in (await homeserver.fetch("GET", link)).ok()
    (await homeserver.fetch("POST", link)).ok()


def credentials(sid: str, secret: str = "s3cret") -> dict[str, Any]:
    """The stage of interactive authentication that shows a proved address."""
    return {"type": "m.login.email.identity", "threepid_creds": {"sid": sid, "client_secret": secret}}


async def add_email(user: User, mailbox: Mailbox, email: str, canonical: str | None = None) -> None:
    """Gives a user an address, as a client does."""
    before = len(mailbox.to(canonical or email))
    sid = (await ask(user.homeserver, "account/3pid", email)).ok()["sid"]
    await confirm(user.homeserver, await mailbox.next_to(canonical or email, before + 1))
    password = f"password of {user.user_id[1:].partition(':')[0]}"
    auth = {"type": "m.login.password", "user": user.user_id, "password": password}
    body = {"sid": sid, "client_secret": "s3cret", "auth": auth}
    (await user.request("POST", "account/3pid/add", body)).ok()
