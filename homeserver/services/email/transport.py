"""What sending mails needs of the network: somebody who takes a mail to its recipient."""

from __future__ import annotations

from typing import Protocol


class MailFailed(Exception):
    """A mail was not taken now, and is to be tried again. The message names no secret and no recipient."""


class MailUnreachable(MailFailed):
    """The SMTP server cannot be reached or cannot be used: other mails would not get there either."""


class MailRefused(Exception):
    """A mail will never be taken: there is no such mailbox, or no mail for it."""


class MailTransport(Protocol):
    """Takes mails to an SMTP server."""

    async def send(self, recipient: str, message: bytes) -> None:
        """Hands a mail (RFC 5322) over. Raises MailFailed, MailUnreachable, MailRefused."""
