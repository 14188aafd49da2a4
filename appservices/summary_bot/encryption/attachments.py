"""Encrypted files. https://spec.matrix.org/v1.19/client-server-api/#sending-encrypted-attachments"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from appservices.summary_bot.encryption.plaintexts import Unreadable, decode
from appservices.summary_bot.events import mapping, text
from appservices.summary_bot.matrix.client import MatrixFailure

KEY_BYTES = 32
COUNTER_BYTES = 16


def decrypt_attachment(data: bytes, file: Mapping[str, Any]) -> bytes:
    """What is in a file, as the `file` of its event describes it. Raises MatrixFailure if it is another file."""
    key = mapping(file.get("key"))
    try:
        secret = decode((text(key.get("k")) or "").replace("-", "+").replace("_", "/"))
        counter = decode(text(file.get("iv")) or "")
        digest = decode(text(mapping(file.get("hashes")).get("sha256")) or "")
    except Unreadable:
        raise MatrixFailure("an encrypted file without its key") from None
    if file.get("v") != "v2" or len(secret) != KEY_BYTES or len(counter) != COUNTER_BYTES:
        raise MatrixFailure("a file that is encrypted in a way that is not known")
    if not hmac.compare_digest(hashlib.sha256(data).digest(), digest):
        raise MatrixFailure("another file than the one that was sent")
    decryptor = Cipher(algorithms.AES256(secret), modes.CTR(counter)).decryptor()
    return decryptor.update(data) + decryptor.finalize()
