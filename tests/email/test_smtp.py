"""How mails are handed over: by TLS or not at all, with a password."""

from __future__ import annotations

import dataclasses
import ssl
from pathlib import Path

import pytest
from aiosmtpd.smtp import AuthResult, LoginPassword

from benchmarks.authority import Authority
from config.email import Email
from config.secret import Secret
from homeserver.services.email.transport import MailUnreachable
from homeserver.smtp.client import SmtpClient
from tests.email.smtp import mailbox_started

MAIL = b"Subject: hello\r\n\r\nhello\r\n"


def is_right(_server: object, _session: object, _envelope: object, _mechanism: str, data: object) -> AuthResult:
    return AuthResult(success=isinstance(data, LoginPassword) and data.password == b"right")


async def test_mails_go_by_tls_to_whom_it_trusts_with_a_password(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.certificate("localhost"))
    options = {"tls_context": context, "require_starttls": True, "authenticator": is_right, "auth_required": True}
    async with mailbox_started(**options) as (mailbox, port):
        config = Email(host="localhost", port=port, from_address="noreply@weft.test", username="weft")
        for password, ca_file in (("right", None), ("wrong", authority.ca_file), ("right", authority.ca_file)):
            # This server says nothing more to one who had the password wrong.
            timeout_ms = 500 if password == "wrong" else config.timeout_ms
            changes = {"password": Secret(password), "ca_file": ca_file, "timeout_ms": timeout_ms}
            client = SmtpClient(dataclasses.replace(config, **changes))  # type: ignore[arg-type]
            if ca_file is not None and password == "right":
                await client.send("bob@example.org", MAIL)
                await client.send("bob@example.org", MAIL)
            else:
                with pytest.raises(MailUnreachable) as failed:
                    await client.send("bob@example.org", MAIL)
                assert password not in str(failed.value)
            await client.close()
        assert len(mailbox.to("bob@example.org")) == 2


async def test_tls_from_the_start_is_spoken_before_any_greeting(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.certificate("localhost"))
    options = {"authenticator": is_right, "auth_require_tls": False}  # aiosmtpd knows of STARTTLS alone
    async with mailbox_started(tls_from_the_start=context, **options) as (mailbox, port):
        right = Email(
            host="localhost",
            port=port,
            tls="tls",
            ca_file=authority.ca_file,
            from_address="noreply@weft.test",
            username="weft",
            password=Secret("right"),
        )
        client = SmtpClient(right)
        await client.send("bob@example.org", MAIL)
        await client.close()
        untrusting = SmtpClient(dataclasses.replace(right, ca_file=None))
        with pytest.raises(MailUnreachable):
            await untrusting.send("bob@example.org", MAIL)
        await untrusting.close()
    async with mailbox_started() as (plain, port):  # one that does not speak TLS is told nothing in the clear
        client = SmtpClient(dataclasses.replace(right, port=port, timeout_ms=500))
        with pytest.raises(MailUnreachable):
            await client.send("bob@example.org", MAIL)
        await client.close()
    assert (len(mailbox.to("bob@example.org")), len(plain.to("bob@example.org"))) == (1, 0)
