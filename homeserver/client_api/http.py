"""From an HTTP request to a handler and back: routing, authentication, bodies, errors, CORS, compression.

A handler is a coroutine that takes a `Request` and returns the JSON of a 200: a dict, or bytes that are JSON already.
It is found by `Router` from the routes that the modules of this package declare as data, so `aiohttp.web.Application`
and its regular expressions are not on the path of a request (docs/adr/0002).
"""

from __future__ import annotations

import itertools
import secrets
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec
import orjson
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.web_protocol import RequestPayloadError
from multidict import CIMultiDict

from homeserver.client_api.answer import CORS_HEADERS, json_answer
from homeserver.client_api.context import Server
from homeserver.logs import bind_request, get_logger
from homeserver.services.accounts.sessions import Requester
from homeserver.services.errors import (
    BadJson,
    InvalidParam,
    MatrixError,
    MissingParam,
    MissingToken,
    NotJson,
    TooLarge,
)
from matrix.canonical_json import JsonError, parse_json

log = get_logger(__name__)

JSON_HEADERS = CIMultiDict({"Content-Type": "application/json", **CORS_HEADERS})
COMPRESS_FROM_BYTES = 2048
COMPRESS_IN_THREAD_FROM_BYTES = 128 * 1024
MAX_PATH_BYTES = 8192
MAX_QUERY_FIELDS = 100

Result = dict[str, Any] | bytes | web.StreamResponse
Handler = Callable[["Request"], Awaitable[Result]]
Body = TypeVar("Body")


@dataclass(frozen=True, slots=True)
class Route:
    """An operation of the specification: `name` is its operationId, `path` has `{parameters}`.

    `resource` is the listener resource it is served on; without `auth` no access token is needed.
    """

    method: str
    path: str
    name: str
    handler: Handler
    auth: bool = True
    resource: str = "client"


class Request:
    """What a handler sees of a request: `params` of the path, `query`, body, and who asks."""

    __slots__ = ("_http", "_query", "_requester", "params", "route", "server")

    def __init__(self, http: web.BaseRequest, server: Server, route: Route, params: dict[str, str]) -> None:
        self._http = http
        self._query: dict[str, str] | None = None
        self._requester: Requester | None = None
        self.server = server
        self.route = route
        self.params = params

    @property
    def requester(self) -> Requester:
        """Whose access token came with the request; only where the route has `auth`."""
        assert self._requester is not None, self.route.name
        return self._requester

    @property
    def query(self) -> Mapping[str, str]:
        """The query's parameters; the last of a name counts."""
        if self._query is None:
            self._query = _parse_query(self._http.path_qs.partition("?")[2])
        return self._query

    def query_integer(self, name: str, default: int, *, minimum: int = 0, maximum: int = 2**53 - 1) -> int:
        """A whole number of the query, brought down to `maximum`. Raises InvalidParam."""
        text = self.query.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) < 20) or int(text) < minimum:
            raise InvalidParam(f"{name} must be a whole number, at least {minimum}")
        return min(int(text), maximum)

    def query_boolean(self, name: str) -> bool:
        """A boolean of the query; False when absent. Raises InvalidParam."""
        text = self.query.get(name, "false")
        if text not in ("true", "false"):
            raise InvalidParam(f"{name} must be true or false")
        return text == "true"

    @property
    def address(self) -> str:
        """The client's address, for rate limits and device lists."""
        if forwarded := self._http.headers.get("X-Forwarded-For"):
            peer = self._http.remote or ""
            if peer in ("", "127.0.0.1", "::1"):  # only a proxy beside the server is believed
                return forwarded.split(",")[0].strip()[:64]
        return self._http.remote or "unix"

    @property
    def headers(self) -> Mapping[str, str]:
        """The request's headers, names in any case."""
        return self._http.headers

    async def json(self) -> Any:
        """The body as JSON, checked as strictly as the edge can. Raises NotJson, TooLarge."""
        try:
            body = await self._http.read()
        except web.HTTPRequestEntityTooLarge:
            raise TooLarge("The request body is too large") from None
        try:
            return parse_json(body)
        except JsonError as error:
            raise NotJson(f"The body is not JSON: {error}") from None

    async def json_object(self) -> dict[str, Any]:
        """The body as a JSON object. Raises NotJson, BadJson, TooLarge."""
        value = await self.json()
        if not isinstance(value, dict):
            raise BadJson("The body must be a JSON object")
        return value

    async def optional_json_object(self) -> dict[str, Any]:
        """The same where clients may leave the body out."""
        if not self._http.can_read_body:
            return {}
        return await self.json_object()

    async def body(self, form: type[Body], *, optional: bool = False) -> Body:
        """The body as a msgspec Struct. Raises NotJson, BadJson, MissingParam, TooLarge."""
        return convert(await (self.optional_json_object() if optional else self.json_object()), form)


def _parse_query(query: str) -> dict[str, str]:
    if "%" not in query and "+" not in query:  # most have nothing to decode
        pairs = [part.partition("=") for part in query.split("&", MAX_QUERY_FIELDS)]
        return {name: value for name, _, value in pairs if name}
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS, errors="strict"))
    except ValueError:
        raise InvalidParam("The query string cannot be read") from None


def convert(value: object, form: type[Body]) -> Body:
    """A decoded JSON value as a msgspec type. Raises BadJson, or MissingParam for a field that has to be there."""
    try:
        return msgspec.convert(value, form)
    except msgspec.ValidationError as error:
        if "missing required field" in str(error):
            raise MissingParam(str(error)) from None
        raise BadJson(str(error)) from None


class Router:
    """A tree of path segments. Literal segments win over parameters."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root: dict[str, Any] = {}
        for route in routes:
            node = self._root
            names = []
            for segment in route.path.split("/")[1:]:
                if segment.startswith("{"):
                    names.append(segment[1:-1])
                    segment = "{}"
                node = node.setdefault("/" + segment, {})
            methods = node.setdefault("methods", {})
            assert route.method not in methods, f"{route.method} {route.path} is there twice"
            methods[route.method] = (route, names)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route and the path's parameters, decoded. Raises MatrixError (404 or 405 M_UNRECOGNIZED)."""
        values: list[str] = []
        node = self._walk(self._root, path.split("/")[1:], 0, values)
        if node is None:
            raise MatrixError(404, "M_UNRECOGNIZED", "Unrecognized request")
        found = node["methods"].get("GET" if method == "HEAD" else method)
        if found is None:
            raise MatrixError(
                405, "M_UNRECOGNIZED", "Unrecognized method", headers={"Allow": ", ".join(node["methods"])}
            )
        route, names = found
        return route, dict(zip(names, values, strict=True))

    def _walk(self, node: dict[str, Any], segments: list[str], at: int, values: list[str]) -> dict[str, Any] | None:
        if at == len(segments):
            return node if "methods" in node else None
        segment = segments[at]
        if (child := node.get("/" + segment)) is not None:
            found = self._walk(child, segments, at + 1, values)
            if found is not None:
                return found
        if (child := node.get("/{}")) is not None:
            values.append(_decode_segment(segment))
            found = self._walk(child, segments, at + 1, values)
            if found is not None:
                return found
            values.pop()
        return None


def _decode_segment(segment: str) -> str:
    try:
        text = unquote(segment, errors="strict") if "%" in segment else segment
    except UnicodeDecodeError:
        raise InvalidParam("The path is not UTF-8") from None
    if "\0" in text:
        raise InvalidParam("The path has a NUL character")
    return text


# Paths of older releases of the specification, which clients and tools still use, are those of today under another
# name (https://spec.matrix.org/v1.19/client-server-api/#api-versions).
RENAMED = (
    ("/_matrix/client/r0/", "/_matrix/client/v3/"),
    ("/_matrix/client/api/v1/", "/_matrix/client/v3/"),
    ("/_matrix/client/unstable/org.matrix.msc3916/", "/_matrix/client/v1/"),
    ("/_matrix/media/r0/", "/_matrix/media/v3/"),
    ("/_matrix/media/v1/upload", "/_matrix/media/v3/upload"),
)


def current_path(path: str) -> str:
    """The path of today for a path of the past."""
    for old, new in RENAMED:
        if path.startswith(old):
            return new + path[len(old) :]
    return path


class HttpHandler:
    """The function that aiohttp calls for each request on a listener with some resources."""

    def __init__(self, server: Server, routes: Iterable[Route], resources: frozenset[str]) -> None:
        self._server = server
        self._router = Router(route for route in routes if route.resource in resources)
        # A request ID is unique over runs and listeners, and costs next to nothing.
        self._run = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    async def __call__(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answers a request; whatever happens, with a well-formed answer."""
        started = time.perf_counter()
        name = "unrecognized"
        request_id = f"{self._run}-{next(self._numbers):x}"
        bind_request(request_id)
        try:
            if http.method == "OPTIONS":
                return web.Response(status=204, headers=CORS_HEADERS)
            path = current_path(http.rel_url.raw_path)
            if len(path) > MAX_PATH_BYTES:
                raise MatrixError(414, "M_TOO_LARGE", "The path is too long")
            route, params = self._router.find(http.method, path)
            name = route.name
            request = Request(http, self._server, route, params)
            if route.auth:
                request._requester = await self._authenticate(request)
                bind_request(request_id, request._requester.user_id)
            response = await self._respond(http, await route.handler(request))
        except MatrixError as error:
            response = json_response(orjson.dumps(error.body()), status=error.status)
            response.headers.update(error.headers)
        except (ConnectionError, BadHttpMessage, RequestPayloadError):
            raise  # the client went away, or speaks no HTTP: the connection knows what to do (protocol.py)
        except Exception:
            log.exception("unexpected error", operation=name)
            response = json_response(b'{"errcode":"M_UNKNOWN","error":"Internal server error"}', status=500)
        self._server.metrics.observe_request(name, response.status, time.perf_counter() - started)
        return response

    async def _authenticate(self, request: Request) -> Requester:
        """https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens"""
        authorization = request.headers.get("Authorization")
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            if scheme.lower() != "bearer":
                raise MissingToken
        else:
            token = request.query.get("access_token", "")
        if not token:
            raise MissingToken
        sessions = self._server.sessions
        requester = sessions.known(token) or await sessions.access_session(token)
        sessions.seen(requester, request.address)
        return requester

    async def _respond(self, http: web.BaseRequest, result: Result) -> web.StreamResponse:
        if type(result) is bytes:
            body = result
        elif isinstance(result, web.StreamResponse):
            return result
        else:
            body = orjson.dumps(result)
        if len(body) < COMPRESS_FROM_BYTES or "gzip" not in http.headers.get("Accept-Encoding", ""):
            return json_answer(http, body)
        if len(body) < COMPRESS_IN_THREAD_FROM_BYTES:
            compressed = gzip(body)
        else:
            compressed = await http.loop.run_in_executor(None, gzip, body)
        response = json_response(compressed)
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Vary"] = "Accept-Encoding"
        return response


def gzip(body: bytes) -> bytes:
    """The body compressed lightly: level 1 takes a third of the time of the default and gives most of its savings."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
    return compressor.compress(body) + compressor.flush()


def json_response(body: bytes, status: int = 200) -> web.Response:
    """A JSON answer with the CORS headers."""
    return web.Response(body=body, status=status, headers=JSON_HEADERS)
