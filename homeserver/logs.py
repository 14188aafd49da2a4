"""Logging: one pipeline for the server's own lines and for its libraries', as JSON or for people.

A JSON line is an object with `timestamp` (ISO 8601, UTC), `level` (`debug` to `critical`), `logger`, `message`, and
where they are known `request_id`, `user_id`, `exception` (a traceback without local variables) and what the caller
adds. Values whose keys name a secret are left out, and so are secrets in URLs and headers.

Request-level lines belong to DEBUG: what is below the level costs a look-up and a call that does nothing.
"""

import contextlib
import json
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

MAX_NESTING = 8
"""Deeper values of a line are cut off."""

HIDDEN = "***"

_SECRET_KEYS = frozenset(
    {
        "access_token",
        "as_token",
        "authorization",
        "client_secret",
        "cookie",
        "hs_token",
        "login_token",
        "mac",
        "new_password",
        "passphrase",
        "password",
        "private_key",
        "proxy-authorization",
        "proxy_authorization",
        "recovery_key",
        "refresh_token",
        "registration_token",
        "secret",
        "set-cookie",
        "shared_secret",
        "signing_key",
        "token",
    }
)
_SECRET_IN_TEXT = re.compile(
    r"""
      ( (?:access_token|as_token|hs_token|loginToken|login_token|refresh_token|password|client_secret)
        ["']? \s* [=:] \s* ["']?              # in a query, or in JSON that is quoted in a message
      | \bBearer \s+                          # an Authorization header
      )
      [^\s&"',;}]+
    | (?<=://) ([^\s/@:]*) : [^\s/@]+ (?=@)  # user:password@ of a URL
    """,
    re.VERBOSE | re.IGNORECASE,
)


class _Request(NamedTuple):
    request_id: str
    user_id: str | None


_current_request: ContextVar[_Request | None] = ContextVar("current_request", default=None)


def bind_request(request_id: str, user_id: str | None = None) -> None:
    """From here on, lines of this task and of the tasks that it starts carry these IDs.

    Call it again when the user becomes known. The next request of the same connection replaces what is bound.
    """
    _current_request.set(_Request(request_id, user_id))


def clear_request() -> None:
    """Forget the request: for a task that outlives the request that happened to start it."""
    _current_request.set(None)


def current_request_id() -> str | None:
    """The ID bound last, to be sent along to another process; None outside of a request."""
    request = _current_request.get()
    return None if request is None else request.request_id


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger, to be made once a module: `get_logger(__name__)`. `log.info("message", key=value)`."""
    return cast("FilteringBoundLogger", structlog.get_logger(name))


def setup_logging(level: str, format: Literal["json", "console"], stream: TextIO | None = None) -> None:
    """Send what is at least of this level (`DEBUG` … `ERROR`) to a stream, standard error unless given.

    To be called before anything is logged: a logger that has been used keeps its level and its stream.
    """
    stream = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        _add_request,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: Processor = _render_json
    if format == "console":
        renderer = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback, sort_keys=False
        )
    # Tracebacks become text before the secrets are hidden, since messages of exceptions hold some.
    renderers: list[Processor] = [structlog.processors.format_exc_info, _hide_secrets, renderer]
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda name="root": _LineWriter(name, stream),
        cache_logger_on_first_use=True,
    )
    _route_standard_logging(number, stream, shared, renderers)


def _route_standard_logging(level: int, stream: TextIO, shared: list[Processor], renderers: list[Processor]) -> None:
    """Libraries log through Python's own module: give their records the same shape and the same stream."""
    handler = _LibraryHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers = [other for other in root.handlers if not isinstance(other, _LibraryHandler)] + [handler]
    root.setLevel(level)
    # The server has request lines of its own, which name the user and the operation.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


class _LibraryHandler(logging.StreamHandler[TextIO]):
    """Told apart from other handlers, so that a second set-up replaces the first."""


class _LineWriter:
    """Where structlog's lines end: it calls the method named after the level."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name = name
        self._stream = stream

    def msg(self, line: str) -> None:
        # Without a place to write to there is none to complain at; requests are not to fail for it.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = exception = fatal = log = msg


def _add_request(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    request = _current_request.get()
    if request is not None:
        event.setdefault("request_id", request.request_id)
        if request.user_id is not None:
            event.setdefault("user_id", request.user_id)
    return event


def _hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {key: _without_secrets(key, value, MAX_NESTING) for key, value in event.items()}


def _without_secrets(key: object, value: Any, depth: int) -> Any:
    if isinstance(key, str) and key.lower() in _SECRET_KEYS:
        return HIDDEN
    if isinstance(value, str):
        return _SECRET_IN_TEXT.sub(_hide_match, value)
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        if depth == 0:
            return "…"
        if isinstance(value, Mapping):
            return {inner: _without_secrets(inner, item, depth - 1) for inner, item in value.items()}
        return [_without_secrets(None, item, depth - 1) for item in value]
    return value


def _hide_match(match: re.Match[str]) -> str:
    if match[1] is not None:
        return match[1] + HIDDEN
    return f"{match[2]}:{HIDDEN}"


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    line: MutableMapping[str, Any] = {
        "timestamp": event.pop("timestamp"),
        "level": event.pop("level"),
        "logger": event.pop("logger"),
        "message": event.pop("event"),
        **event,
    }
    try:
        return orjson.dumps(line, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        # A number of more than 64 bits, or half a surrogate pair: rare, and no reason to lose the line.
        return json.dumps(line, default=repr, skipkeys=True)
