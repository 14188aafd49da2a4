"""What handlers see of a request, and what routes are made of."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from config.schema import IpNetwork
from homeserver.http.context import Server
from homeserver.services.accounts.sessions import Requester
from homeserver.services.appservices.services import Service
from homeserver.services.errors import (
    BadJson,
    InvalidParam,
    MatrixError,
    MissingParam,
    MissingToken,
    NotJson,
    TooLarge,
    UnknownToken,
)
from matrix.canonical_json import MAX_DEPTH, JsonError, parse_json

MAX_QUERY_FIELDS = 100
MAX_FORWARDED = 1024
MAX_SAFE_INTEGER = 2**53 - 1

Result = dict[str, Any] | bytes | web.StreamResponse
Handler = Callable[["Request"], Awaitable[Result]]
Body = TypeVar("Body")


@dataclass(frozen=True, slots=True)
class Route:
    """An operation of the specification: `name` is its operationId, `path` has `{parameters}`.

    `resource` is the listener resource it is served on; without `auth` no access token is needed. With `auth` and
    `anonymous` there may be a token or none, and a handler asks `authenticated` which. What is `signed` wants the
    signature of another server in place of a token; its body may nest as deep as `max_depth`. What is `limited` counts
    against its user's limit of requests, which all such operations share; others ask for limits of their own.
    """

    method: str
    path: str
    name: str
    handler: Handler
    auth: bool = True
    resource: str = "client"
    anonymous: bool = False
    signed: bool = False
    limited: bool = False
    max_depth: int = MAX_DEPTH


class Request:
    """What a handler sees of a request: `params` of the path, `query`, body, and who asks."""

    __slots__ = ("_http", "_query", "_signed_content", "authenticated", "params", "route", "server", "signed_by")

    def __init__(self, http: web.BaseRequest, server: Server, route: Route, params: dict[str, str]) -> None:
        self._http = http
        self._query: dict[str, str] | None = None
        self._signed_content: Any = None
        self.authenticated: Requester | None = None
        self.signed_by: str | None = None
        self.server = server
        self.route = route
        self.params = params

    @property
    def requester(self) -> Requester:
        """Whose access token came with the request; only where the route has `auth`."""
        assert self.authenticated is not None, self.route.name
        return self.authenticated

    def requester_with_device(self) -> Requester:
        """The requester, for what needs a device. Raises MissingParam for an application service that names none.

        https://spec.matrix.org/v1.19/application-service-api/#identity-assertion
        """
        if not self.requester.device_id:
            raise MissingParam("This needs a device, by the parameter device_id")
        return self.requester

    def token(self) -> str:
        """The access token that came with the request. Raises MissingToken.

        https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens
        """
        authorization = self._http.headers.get("Authorization")
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            if scheme.lower() != "bearer":
                raise MissingToken
        else:
            token = self.query.get("access_token", "")
        if not token:
            raise MissingToken
        return token

    def access_service(self) -> Service:
        """The application service that asks, on a route without `auth`. Raises MissingToken, UnknownToken."""
        service = self.server.appservices.services.by_token(self.token())
        if service is None:
            raise UnknownToken
        return service

    def service_id(self) -> str | None:
        """The ID of the application service whose token came with the request, on any route; None without one."""
        if self.authenticated is not None:
            return self.authenticated.appservice
        try:
            service = self.server.appservices.services.by_token(self.token())
        except MissingToken:
            return None
        return None if service is None else service.id

    @property
    def origin(self) -> str:
        """The server that signed the request; only where the route is `signed`."""
        assert self.signed_by is not None, self.route.name
        return self.signed_by

    @property
    def method(self) -> str:
        """The method as it was sent."""
        return self._http.method

    @property
    def target(self) -> str:
        """Path and query exactly as they were sent, which is what servers sign."""
        return self._http.raw_path

    def header_values(self, name: str) -> list[str]:
        """Every value of a header that may come several times."""
        return self._http.headers.getall(name, [])

    @property
    def http(self) -> web.BaseRequest:
        """The request beneath, for bodies and answers that are streams (`homeserver.http.files`)."""
        return self._http

    @property
    def query(self) -> Mapping[str, str]:
        """The query's parameters; the last of a name counts."""
        if self._query is None:
            self._query = _parse_query(self._http.path_qs.partition("?")[2])
        return self._query

    def query_list(self, name: str) -> list[str]:
        """All values of a parameter that may be there several times. Raises InvalidParam."""
        try:
            pairs = parse_qsl(self._http.path_qs.partition("?")[2], max_num_fields=MAX_QUERY_FIELDS, errors="strict")
        except ValueError:
            raise InvalidParam("The query string cannot be read") from None
        return [value for key, value in pairs if key == name]

    def query_integer(self, name: str, default: int, *, minimum: int = 0, maximum: int = 2**53 - 1) -> int:
        """A whole number of the query, brought down to `maximum`. Raises InvalidParam."""
        text = self.query.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) < 20) or int(text) < minimum:
            raise InvalidParam(f"{name} must be a whole number, at least {minimum}")
        return min(int(text), maximum)

    def query_boolean(self, name: str, default: bool = False) -> bool:
        """A boolean of the query. Raises InvalidParam."""
        text = self.query.get(name, "true" if default else "false")
        if text not in ("true", "false"):
            raise InvalidParam(f"{name} must be true or false")
        return text == "true"

    def event_ts(self) -> int | None:
        """The time that an application service gives an event, in milliseconds; None for now. Raises InvalidParam.

        https://spec.matrix.org/v1.19/application-service-api/#timestamp-massaging
        """
        text = self.query.get("ts") if self.requester.appservice is not None else None
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 20) or int(text) > MAX_SAFE_INTEGER:
            raise InvalidParam("ts must be a time in milliseconds since the epoch")
        return int(text)

    @property
    def address(self) -> str:
        """The client's address, for rate limits and device lists."""
        peer = self._http.remote or "unix"
        if forwarded := self._http.headers.get("X-Forwarded-For"):
            return client_address(peer, forwarded[-MAX_FORWARDED:], self.server.config.trusted_proxies)
        return peer

    @property
    def headers(self) -> Mapping[str, str]:
        """The request's headers, names in any case."""
        return self._http.headers

    async def json(self) -> Any:
        """The body as JSON, checked as strictly as the edge can. Raises NotJson, TooLarge."""
        if self.signed_by is not None:
            if self._signed_content is None:
                raise NotJson("The body is missing")
            return self._signed_content
        try:
            body = await self._http.read()
        except web.HTTPRequestEntityTooLarge:
            raise TooLarge("The request body is too large") from None
        return _parse_body(body)

    async def signed_content(self) -> Any:
        """The body of a request whose signature is yet to be checked, as JSON; None where there is none.

        It may be larger than those of clients, and has to arrive in time. Raises NotJson, TooLarge, 408 M_UNKNOWN.
        """
        if not self._http.can_read_body:
            return None
        options = self.server.config.federation
        body = bytearray()
        try:
            async with asyncio.timeout(options.request_timeout_ms / 1000):
                async for chunk in self._http.content.iter_any():
                    body += chunk
                    if len(body) > options.max_request_bytes:
                        raise TooLarge("The request body is too large")
        except TimeoutError:
            raise MatrixError(408, "M_UNKNOWN", "The request body did not arrive in time") from None
        if body:
            self._signed_content = _parse_body(bytes(body), self.route.max_depth)
        return self._signed_content

    async def form(self) -> dict[str, str]:
        """The fields of a page's form, https://url.spec.whatwg.org/#application/x-www-form-urlencoded.

        Raises InvalidParam, TooLarge.
        """
        try:
            body = await self._http.read()
        except web.HTTPRequestEntityTooLarge:
            raise TooLarge("The request body is too large") from None
        try:
            return _parse_query(body.decode())
        except UnicodeDecodeError:
            raise InvalidParam("The form is not UTF-8") from None

    async def json_object(self) -> dict[str, Any]:
        """The body as a JSON object. Raises NotJson, BadJson, TooLarge."""
        value = await self.json()
        if not isinstance(value, dict):
            raise BadJson("The body must be a JSON object")
        return value

    async def optional_json_object(self) -> dict[str, Any]:
        """The same where clients may leave the body out."""
        if not self._http.can_read_body or (self.signed_by is not None and self._signed_content is None):
            return {}
        return await self.json_object()

    async def body(self, form: type[Body], *, optional: bool = False) -> Body:
        """The body as a msgspec Struct. Raises NotJson, BadJson, MissingParam, TooLarge."""
        return convert(await (self.optional_json_object() if optional else self.json_object()), form)


def _parse_body(body: bytes, max_depth: int = MAX_DEPTH) -> Any:
    try:
        return parse_json(body, max_depth=max_depth)
    except JsonError as error:
        raise NotJson(f"The body is not JSON: {error}") from None


@lru_cache(maxsize=4096)
def client_address(peer: str, forwarded: str, trusted: tuple[IpNetwork, ...]) -> str:
    """Who is behind a chain of proxies: the last address that no trusted one has vouched for.

    `forwarded` is X-Forwarded-For, to which each proxy adds whom it heard from: what stands further left than the
    first address that is not trusted may be invented.
    """
    for hop in reversed(forwarded.split(",")):
        if peer != "unix" and not _is_in(peer, trusted):
            break
        peer = hop.strip()
    return peer if _is_address(peer) else "unix"


def _is_in(address: str, networks: tuple[IpNetwork, ...]) -> bool:
    return _is_address(address) and any(ipaddress.ip_address(address) in network for network in networks)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


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
