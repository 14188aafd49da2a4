"""Connections: what is no HTTP, or is more than a head may hold, gets its answer in JSON like everything else."""

from __future__ import annotations

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler, RequestPayloadError

from homeserver.http.answer import json_response


class HttpServer(web.Server):
    """`aiohttp.web.Server` with connections that answer their own errors as Matrix clients expect."""

    def __call__(self) -> RequestHandler:
        """A connection, to be driven by the event loop."""
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers what no handler was asked, or could: https://spec.matrix.org/v1.19/client-server-api/#api-standards

        Raises ConnectionError where part of another answer is on its way already.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("part of an answer was sent already")
        body = {"errcode": "M_UNKNOWN", "error": "Internal server error"}
        if isinstance(exc, LineTooLong):
            status, body = 431, {"errcode": "M_TOO_LARGE", "error": "The request line or a header is too long"}
        elif status == 400 or isinstance(exc, HttpProcessingError | RequestPayloadError):
            status, body = 400, {"errcode": "M_UNKNOWN", "error": "The request is not well-formed HTTP"}
        else:
            self.log_exception("Error handling request from %s", request.remote, exc_info=exc)
        response = json_response(orjson.dumps(body), status=status)
        response.force_close()  # where the next request would begin is not known
        return response
