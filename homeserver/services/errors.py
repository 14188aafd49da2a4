"""Expected failures: what a client did that cannot be done, as the specification's error codes.

https://spec.matrix.org/v1.19/client-server-api/#standard-error-response
"""

from __future__ import annotations

from typing import Any


class MatrixError(Exception):
    """An answer with an `errcode`. `extra` holds the code's further fields; `headers` what goes beside the body."""

    def __init__(
        self,
        status: int,
        errcode: str,
        message: str,
        extra: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.errcode = errcode
        self.message = message
        self.extra = extra or {}
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """The JSON to answer with."""
        return {"errcode": self.errcode, "error": self.message, **self.extra}


class Forbidden(MatrixError):
    """403 M_FORBIDDEN."""

    def __init__(self, message: str) -> None:
        super().__init__(403, "M_FORBIDDEN", message)


class NotResident(Forbidden):
    """403 M_FORBIDDEN: nobody of this server is in the room, so only another server can let somebody in."""

    def __init__(self) -> None:
        super().__init__("Nobody of this server is in the room")


class NotFound(MatrixError):
    """404 M_NOT_FOUND."""

    def __init__(self, message: str) -> None:
        super().__init__(404, "M_NOT_FOUND", message)


class BadJson(MatrixError):
    """400 M_BAD_JSON: JSON, but not of the right form."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "M_BAD_JSON", message)


class NotJson(MatrixError):
    """400 M_NOT_JSON."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "M_NOT_JSON", message)


class InvalidParam(MatrixError):
    """400 M_INVALID_PARAM."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "M_INVALID_PARAM", message)


class MissingParam(MatrixError):
    """400 M_MISSING_PARAM."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "M_MISSING_PARAM", message)


class TooLarge(MatrixError):
    """413 M_TOO_LARGE."""

    def __init__(self, message: str) -> None:
        super().__init__(413, "M_TOO_LARGE", message)


class NoIdentityServer(MatrixError):
    """403 M_SERVER_NOT_TRUSTED: the request needs an identity server to be asked, and this server trusts none."""

    def __init__(self) -> None:
        super().__init__(403, "M_SERVER_NOT_TRUSTED", "This server trusts no identity server")


class LimitExceeded(MatrixError):
    """429 M_LIMIT_EXCEEDED, with when to try again in the body and in the header."""

    def __init__(self, retry_after_ms: int) -> None:
        super().__init__(
            429,
            "M_LIMIT_EXCEEDED",
            "Too many requests",
            {"retry_after_ms": retry_after_ms},
            {"Retry-After": str(max(1, -(-retry_after_ms // 1000)))},
        )


class UnknownToken(MatrixError):
    """401 M_UNKNOWN_TOKEN."""

    def __init__(self, message: str = "Unknown access token", *, soft_logout: bool = False) -> None:
        super().__init__(401, "M_UNKNOWN_TOKEN", message, {"soft_logout": soft_logout})


class UserLocked(MatrixError):
    """401 M_USER_LOCKED. https://spec.matrix.org/v1.19/client-server-api/#account-locking"""

    def __init__(self) -> None:
        super().__init__(401, "M_USER_LOCKED", "This account has been locked", {"soft_logout": True})


class UserSuspended(MatrixError):
    """403 M_USER_SUSPENDED. https://spec.matrix.org/v1.19/client-server-api/#account-suspension"""

    def __init__(self) -> None:
        super().__init__(403, "M_USER_SUSPENDED", "You cannot perform this action while suspended")


class MissingToken(MatrixError):
    """401 M_MISSING_TOKEN."""

    def __init__(self) -> None:
        super().__init__(401, "M_MISSING_TOKEN", "Missing access token")
