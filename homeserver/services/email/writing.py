"""From what a mail says to its bytes. https://www.rfc-editor.org/rfc/rfc5322"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime
from typing import Any, Final

import orjson

from config.email import Email
from homeserver.clock import Clock
from homeserver.services.email.templates import Rendered, Templates
from matrix.third_party_ids import canonical_email

MAX_SUBJECT_CHARS: Final = 150
JOINERS: Final = "\u200c\u200d"
"""What Persian and Indic words, and emoji of several parts, are written with."""
# Lines may have 998 bytes and not all of them arrive as 8 bits: the text is encoded if need be. Headers are not folded:
# the links in them would be encoded as if they were words, which no mail program reads.
_POLICY: Final = SMTP.clone(cte_type="7bit", max_line_length=990)
_POLICY_UTF8: Final = SMTPUTF8.clone(cte_type="8bit", max_line_length=990)


class Writer:
    """Writes mails by templates, from the address of the configuration. Their IDs are made with `key`, a secret."""

    def __init__(self, config: Email, templates: Templates, key: bytes, clock: Clock) -> None:
        assert config.from_address is not None
        sender = canonical_email(config.from_address) or config.from_address
        self._sender = Address(config.app_name, addr_spec=sender)
        self._domain = sender.rpartition("@")[2]
        self._app_name = config.app_name
        self._templates = templates
        self._key = key
        self._clock = clock

    def write(
        self,
        name: str,
        recipient: str,
        values: Mapping[str, Any],
        *,
        about: str,
        language: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """A mail by a template of this name, for an address in its canonical form.

        `about` names what it is sent for, among all mails of that name: see `_message_id`. `language` is what somebody
        says that they read.
        """
        rendered = self._templates.render(name, {"app_name": self._app_name, **values}, language)
        mail = EmailMessage(policy=_POLICY if recipient.isascii() else _POLICY_UTF8)
        mail["From"] = self._sender
        local_part, _, domain = recipient.rpartition("@")
        mail["To"] = Address(username=local_part, domain=domain)
        mail["Subject"] = one_line(rendered.subject, MAX_SUBJECT_CHARS)
        mail["Date"] = format_datetime(datetime.fromtimestamp(self._clock() / 1000, UTC))
        mail["Message-ID"] = self._message_id(name, recipient, about, rendered)
        mail["Auto-Submitted"] = "auto-generated"  # https://www.rfc-editor.org/rfc/rfc3834
        for header, value in (headers or {}).items():
            mail[header] = value
        mail.set_content(rendered.text)
        mail.add_alternative(rendered.html, subtype="html")
        return mail.as_bytes()

    def _message_id(self, name: str, recipient: str, about: str, rendered: Rendered) -> str:
        """The same for a mail that is sent twice, so that mailboxes may drop one; it tells nothing to anybody.

        It is if nobody knows whether the first one has come through. What says something else is another message, and
        has another ID. https://www.rfc-editor.org/rfc/rfc5322#section-3.6.4
        """
        what = orjson.dumps([name, recipient, about, *rendered])
        return f"<{hmac.digest(self._key, what, hashlib.sha256)[:16].hex()}@{self._domain}>"


def one_line(text: str, max_chars: int) -> str:
    """A text of somebody's on one line: without what controls the line, or turns the direction in which it is read."""
    kept = "".join(" " if unicodedata.category(char) in ("Zs", "Zl", "Zp", "Cc") else char for char in text[:4096])
    kept = "".join(
        char for char in kept if unicodedata.category(char) not in ("Cf", "Cs", "Co", "Cn") or char in JOINERS
    )
    kept = " ".join(kept.split())
    return kept if len(kept) <= max_chars else f"{kept[: max_chars - 1]}…"
