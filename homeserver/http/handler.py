"""What happens to a request: routing, authentication, errors, compression.

A handler is a coroutine that takes a `Request` and returns the JSON of a 200: a dict, or bytes that are JSON already.
It is found by `Router` from the routes that the APIs declare as data, so `aiohttp.web.Application` and its regular
expressions are not on the path of a request (docs/adr/0002).
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

import orjson
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.web_protocol import RequestPayloadError

from homeserver.http.answer import CORS_HEADERS, json_answer, json_response
from homeserver.http.context import Server
from homeserver.http.request import Request, Result, Route
from homeserver.http.restrictions import check_unrestricted
from homeserver.http.router import Router, current_path
from homeserver.logs import bind_request, get_logger
from homeserver.services.accounts.sessions import Requester
from homeserver.services.appservices.services import Service
from homeserver.services.errors import MatrixError

log = get_logger(__name__)

COMPRESS_FROM_BYTES = 2048
COMPRESS_IN_THREAD_FROM_BYTES = 128 * 1024
MAX_PATH_BYTES = 8192


class HttpHandler:
    """The function that aiohttp calls for each request on a listener with some resources."""

    def __init__(
        self,
        server: Server,
        routes: Iterable[Route],
        resources: frozenset[str],
        authenticate_origin: Callable[[Request], Awaitable[str]],
    ) -> None:
        """`authenticate_origin` says which server has signed a request, or raises MatrixError."""
        self._server = server
        self._authenticate_origin = authenticate_origin
        # What handlers of requests see that no rate limit counts for.
        self._unlimited = replace(server, rate_limits=server.rate_limits.lifted())
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
            if route.signed:
                request.signed_by = await self._authenticate_origin(request)
            elif route.auth and not (route.anonymous and _has_no_token(request)):
                request.authenticated = await self._authenticate(request)
                if request.authenticated.is_unlimited:
                    request.server = self._unlimited
                bind_request(request_id, request.authenticated.user_id)
                if request.authenticated.is_locked or request.authenticated.is_suspended:
                    await check_unrestricted(request)
                if route.limited:
                    request.server.rate_limits.check("request", request.authenticated.user_id)
            response = await self._respond(http, await route.handler(request))
        except MatrixError as error:
            response = json_response(orjson.dumps(error.body()), status=error.status)
            response.headers.update(error.headers)
        except (BadHttpMessage, RequestPayloadError):
            raise  # the client speaks no HTTP: the connection knows what to do (protocol.py)
        except self._server.database.connection_errors as error:
            if http.transport is None:
                raise  # it is the client who went away
            log.warning("the database cannot be reached", operation=name, error=repr(error))
            response = json_response(b'{"errcode":"M_UNKNOWN","error":"The database cannot be reached"}', status=503)
        except Exception:
            log.exception("unexpected error", operation=name)
            response = json_response(b'{"errcode":"M_UNKNOWN","error":"Internal server error"}', status=500)
        self._server.metrics.observe_request(name, response.status, time.perf_counter() - started)
        return response

    async def _authenticate(self, request: Request) -> Requester:
        """https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens"""
        token = request.token()
        sessions = self._server.sessions
        requester = sessions.known(token)
        if requester is None:
            service = self._server.appservices.services.by_token(token)
            if service is not None:
                return await self._masquerade(service, request)
            requester = await sessions.access_session(token)
        sessions.seen(requester, request.address)
        return requester

    async def _masquerade(self, service: Service, request: Request) -> Requester:
        """https://spec.matrix.org/v1.19/application-service-api/#identity-assertion"""
        query = request.query
        device_id = query.get("device_id") or query.get("org.matrix.msc3202.device_id")
        requester = await self._server.appservices.masquerading.access(service, query.get("user_id"), device_id)
        if requester.device_id:
            self._server.sessions.seen(requester, request.address)
        return requester

    async def _respond(self, http: web.BaseRequest, result: Result) -> web.StreamResponse:
        if type(result) is bytes:
            body = result
        elif isinstance(result, web.StreamResponse):
            return result
        else:
            body = orjson.dumps(result)
        if len(body) < COMPRESS_FROM_BYTES or not accepts_gzip(http.headers.get("Accept-Encoding", "")):
            return json_answer(http, body)
        if len(body) < COMPRESS_IN_THREAD_FROM_BYTES:
            compressed = gzip(body)
        else:
            compressed = await asyncio.to_thread(gzip, body)
        response = json_response(compressed)
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Vary"] = "Accept-Encoding"
        return response


def _has_no_token(request: Request) -> bool:
    return "Authorization" not in request.headers and "access_token" not in request.query


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether a client takes gzip, https://www.rfc-editor.org/rfc/rfc9110#name-accept-encoding: `q=0` means no."""
    for coding in accept_encoding.split(","):
        name, _, weight = coding.partition(";")
        if name.strip().lower() in ("gzip", "*"):
            return weight.replace(" ", "").rstrip("0").rstrip(".") not in ("q=", "Q=")
    return False


def gzip(body: bytes) -> bytes:
    """The body compressed lightly: level 1 takes a third of the time of the default and gives most of its savings."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
    return compressor.compress(body) + compressor.flush()
