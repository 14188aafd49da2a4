"""Unpadded Base64, https://spec.matrix.org/v1.19/appendices/#unpadded-base64."""

from binascii import Error, a2b_base64, b2a_base64
from typing import Final

_TO_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")


def encode_base64(data: bytes) -> str:
    """Encode in the standard alphabet, without padding."""
    return b2a_base64(data, newline=False).rstrip(b"=").decode("ascii")


def encode_base64_url_safe(data: bytes) -> str:
    """Encode in the URL-safe alphabet ("-" and "_"), without padding."""
    return b2a_base64(data, newline=False).translate(_TO_URL_SAFE).rstrip(b"=").decode("ascii")


def decode_base64(text: str) -> bytes:
    """Decode either alphabet, padded or not, as implementations should. Raises ValueError on anything else."""
    try:
        raw = text.encode("ascii").translate(_FROM_URL_SAFE).rstrip(b"=")
        return a2b_base64(raw + b"=" * (-len(raw) % 4), strict_mode=True)
    except (UnicodeEncodeError, Error) as error:
        raise ValueError(f"not Base64: {error}") from error
