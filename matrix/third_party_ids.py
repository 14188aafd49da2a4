"""Third-party identifiers in the one form that stands for all ways to write them.

https://spec.matrix.org/v1.19/appendices/#3pid-types
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import idna

EMAIL: Final = "email"
MAX_EMAIL_BYTES: Final = 254
"""Of a whole address: https://www.rfc-editor.org/errata/eid1690"""
MAX_LOCAL_PART_BYTES: Final = 64

# The part before the @, without quotes: letters of any script and https://www.rfc-editor.org/rfc/rfc5322#section-3.2.3.
# Nothing in it means anything to a mail's header or to SMTP.
_LOCAL_PART = re.compile(r"[\w!#$%&'*+/=?^`{|}~-]+(\.[\w!#$%&'*+/=?^`{|}~-]+)*")


def canonical_email(address: str) -> str | None:
    """An e-mail address as it is compared and kept; None for what is none.

    Letters are folded, as the specification has it (`Strauß@Example.com` is `strauss@example.com`), and a domain is as
    the DNS knows it (`bücher.example` is `xn--bcher-kva.example`). What is more than `local@domain` is no address: a
    name, angle brackets, quotes, several addresses, white space.
    """
    if len(address) > MAX_EMAIL_BYTES:
        return None
    local_part, _, domain = address.partition("@")
    local_part = unicodedata.normalize("NFC", local_part.casefold())
    if not _LOCAL_PART.fullmatch(local_part) or len(local_part.encode("utf-8", "replace")) > MAX_LOCAL_PART_BYTES:
        return None
    try:
        host = idna.encode(domain, uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        return None
    if not host or host.endswith(".") or host.rpartition(".")[2].isdigit():  # an address of the network is no domain
        return None
    canonical = f"{local_part}@{host}"
    return canonical if len(canonical.encode()) <= MAX_EMAIL_BYTES else None
