"""The server's signing key: read from its file, made on the first start."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from matrix.signatures import SigningKey

SEED_BYTES = 32


class SigningKeyError(Exception):
    """The key file cannot be used: its message is for the administrator."""


def load_signing_key(path: Path) -> SigningKey:
    """The key in a file of the form `ed25519 a_1 <unpadded Base64>`; makes the file (mode 0600) if there is none.

    Raises SigningKeyError.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            key = SigningKey.from_seed(f"a_{secrets.token_hex(3)}", secrets.token_bytes(SEED_BYTES))
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(key.to_line() + "\n")
            return key
        return SigningKey.from_line(path.read_text().strip())
    except OSError as error:
        raise SigningKeyError(f"cannot use the signing key {path}: {error.strerror}") from None
    except ValueError:
        raise SigningKeyError(f"{path} is not a signing key") from None
