"""What previews ask of the web, and how that fails. `federation.outbound` provides it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol


class WebFailure(Exception):
    """There was no answer that can be used. Why is for the log: it may say what is in the network of this server."""


class WebAnswer(NamedTuple):
    """The answer to one request: the head, and the body while it comes."""

    status: int
    location: str | None
    content_type: str
    """The media type in lower case, without parameters; empty where there is none."""
    charset: str | None
    filename: str | None
    content_length: int | None
    chunks: AsyncIterator[bytes]


class Web(Protocol):
    """Requests to web sites that nobody vouches for."""

    def get(self, url: str, *, accept: str, language: str | None = None) -> AbstractAsyncContextManager[WebAnswer]:
        """One GET request, not redirected. Raises WebFailure, also while the body is read."""
