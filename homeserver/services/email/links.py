"""Links in mails, to pages of this server. What makes them good is made of the server's key and stands nowhere else."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final
from urllib.parse import urlencode

CONFIRM_PATH: Final = "/_matrix/static/client/email/confirm"
UNSUBSCRIBE_PATH: Final = "/_matrix/static/client/email/unsubscribe"


class Links:
    """Makes links, and tells whether what comes back is from one."""

    def __init__(self, key: bytes, base_url: str) -> None:
        self._key = key
        self._base_url = base_url

    def token(self, sid: str) -> str:
        """The token that proves an address in the attempt `sid`."""
        return self._sign("confirm", sid)

    def is_token(self, sid: str, token: str) -> bool:
        """Whether that is the token of an attempt."""
        return _is_same(self.token(sid), token)

    def confirm(self, sid: str) -> str:
        """The link in a mail that proves an address."""
        return f"{self._base_url}{CONFIRM_PATH}?{urlencode({'sid': sid, 'token': self.token(sid)})}"

    def unsubscribe(self, pusher: int) -> str:
        """The link in a mail that ends the mails of a pusher."""
        query = urlencode({"pusher": pusher, "token": self._sign("unsubscribe", str(pusher))})
        return f"{self._base_url}{UNSUBSCRIBE_PATH}?{query}"

    def is_unsubscription(self, pusher: str, token: str) -> bool:
        """Whether that is from a link that ends the mails of a pusher."""
        return _is_same(self._sign("unsubscribe", pusher), token)

    def _sign(self, purpose: str, what: str) -> str:
        digest = hmac.digest(self._key, f"{purpose}\0{what}".encode("utf-8", "replace"), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _is_same(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))
