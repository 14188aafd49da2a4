"""From what a mail says to its bytes. https://www.rfc-editor.org/rfc/rfc5322"""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime
from typing import Any, Final

from config.email import Email
from homeserver.clock import Clock
from homeserver.services.email.templates import Templates
from matrix.third_party_ids import canonical_email

MAX_SUBJECT_CHARS: Final = 150
JOINERS: Final = "\u200c\u200d"
"""What Persian and Indic words, and emoji of several parts, are written with."""
# Lines may have 998 bytes and not all of them arrive as 8 bits: the text is encoded if need be. Headers are not folded:
# the links in them would be encoded as if they were words, which no mail program reads.
_POLICY: Final = SMTP.clone(cte_type="7bit", max_line_length=990)
_POLICY_UTF8: Final = SMTPUTF8.clone(cte_type="8bit", max_line_length=990)


class Writer:
    """Writes mails by templates, from the address of the configuration."""

    def __init__(self, config: Email, templates: Templates, clock: Clock) -> None:
        assert config.from_address is not None
        sender = canonical_email(config.from_address) or config.from_address
        self._sender = Address(config.app_name, addr_spec=sender)
        self._domain = sender.rpartition("@")[2]
        self._app_name = config.app_name
        self._templates = templates
        self._clock = clock

    def write(
        self, name: str, recipient: str, values: Mapping[str, Any], *, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """A mail by a template of this name, for an address in its canonical form."""
        rendered = self._templates.render(name, {"app_name": self._app_name, **values})
        mail = EmailMessage(policy=_POLICY if recipient.isascii() else _POLICY_UTF8)
        mail["From"] = self._sender
        local_part, _, domain = recipient.rpartition("@")
        mail["To"] = Address(username=local_part, domain=domain)
        mail["Subject"] = one_line(rendered.subject, MAX_SUBJECT_CHARS)
        mail["Date"] = format_datetime(datetime.fromtimestamp(self._clock() / 1000, UTC))
        mail["Message-ID"] = f"<{secrets.token_hex(16)}@{self._domain}>"
        mail["Auto-Submitted"] = "auto-generated"  # https://www.rfc-editor.org/rfc/rfc3834
        for header, value in (headers or {}).items():
            mail[header] = value
        mail.set_content(rendered.text)
        mail.add_alternative(rendered.html, subtype="html")
        return mail.as_bytes()


def one_line(text: str, max_chars: int) -> str:
    """A text of somebody's on one line: without what controls the line, or turns the direction in which it is read."""
    kept = "".join(" " if unicodedata.category(char) in ("Zs", "Zl", "Zp", "Cc") else char for char in text[:4096])
    kept = "".join(
        char for char in kept if unicodedata.category(char) not in ("Cf", "Cs", "Co", "Cn") or char in JOINERS
    )
    kept = " ".join(kept.split())
    return kept if len(kept) <= max_chars else f"{kept[: max_chars - 1]}…"
