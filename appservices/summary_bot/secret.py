"""A value that must not be printed, read from a file or from the environment."""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from pathlib import Path

MAX_SECRET_BYTES = 4096


class Secret:
    """A secret string: only `reveal()` shows it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself: call it where the secret is used, and nowhere earlier."""
        return self._value

    def matches(self, candidate: str) -> bool:
        """Whether `candidate` is the secret, in a time that does not tell how much of it was right."""
        return hmac.compare_digest(self._value.encode(), candidate.encode("utf-8", "surrogatepass"))

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Secret is not to be pickled")


class Address(Secret):
    """A URL that may hold a password: kept like a secret, and may be written out where it holds none."""

    __slots__ = ()


def read_secret(kind: type[Secret], value: object, base_dir: Path, env: Mapping[str, str] = os.environ) -> Secret:
    """The secret that `{file: path}` or `{env: NAME}` names. Raises ValueError, which never shows it."""
    if isinstance(value, str) and issubclass(kind, Address):
        return kind(value)
    if not isinstance(value, dict) or len(value) != 1 or not value.keys() <= {"file", "env"}:
        raise ValueError("is a secret: give it as `{file: path}` or `{env: NAME}`")
    ((where, name),) = value.items()
    if not isinstance(name, str):
        raise ValueError(f"{where} has to be text")
    if where == "env":
        if not env.get(name):
            raise ValueError(f"the environment variable {name} is not set")
        return kind(env[name])
    try:
        with (base_dir / name).open("rb") as file:
            text = file.read(MAX_SECRET_BYTES + 1).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name}: {getattr(error, 'strerror', None) or 'not text'}") from None
    if not text or len(text) > MAX_SECRET_BYTES:
        raise ValueError(f"{name} is empty, or longer than {MAX_SECRET_BYTES} bytes")
    return kind(text)
