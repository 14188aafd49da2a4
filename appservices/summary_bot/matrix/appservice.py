"""The bot as an application service: where the homeserver hands in events, and where programs ask.

mautrix brings the client, the registration of the bot's user and the answers to queries and pings. Transactions are
taken in here, because they have to be stored before they are acknowledged, and refused where they cannot be: the
homeserver then sends them again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import msgspec
from aiohttp import web
from mautrix.appservice import AppService, ASStateStore
from mautrix.client.state_store.memory import MemoryStateStore

from appservices.summary_bot.config import Config, Registration
from appservices.summary_bot.secret import Secret

MAX_TRANSACTION_BYTES = 64 * 1024 * 1024
MAX_TRANSACTION_ID_CHARACTERS = 512

TransactionHandler = Callable[[str, Mapping[str, Any]], Awaitable[None]]

log = logging.getLogger(__name__)


class NotNow(Exception):
    """A transaction cannot be stored at the moment."""


class _StateStore(ASStateStore, MemoryStateStore):
    """mautrix remembers rooms in here; the bot asks the homeserver instead, and does not feed it."""

    def __init__(self) -> None:
        ASStateStore.__init__(self)
        MemoryStateStore.__init__(self)


class BotService(AppService):
    """The listener and the client in one, as mautrix has it."""

    def __init__(
        self,
        config: Config,
        registration: Registration,
        on_transaction: TransactionHandler,
        routes: Callable[[], Iterable[web.RouteDef]],
    ) -> None:
        self._on_transaction = on_transaction
        self._more_routes = routes
        self._expected = Secret(registration.hs_token)
        super().__init__(
            server=config.homeserver.url,
            domain=config.homeserver.domain,
            as_token=registration.as_token,
            hs_token=registration.hs_token,
            bot_localpart=registration.sender_localpart,
            id=registration.id,
            state_store=_StateStore(),
            aiohttp_params={"client_max_size": MAX_TRANSACTION_BYTES},
            log=logging.getLogger("mau.appservice"),
        )

    def register_routes(self, app: web.Application) -> None:
        """https://spec.matrix.org/v1.19/application-service-api/#homeserver---application-service-api"""
        prefix = "/_matrix/app/v1"
        app.router.add_put(f"{prefix}/transactions/{{transaction_id}}", self._take_transaction)
        app.router.add_get(f"{prefix}/users/{{user_id}}", self._http_query_user)
        app.router.add_get(f"{prefix}/rooms/{{alias}}", self._http_query_alias)
        app.router.add_post(f"{prefix}/ping", self._http_ping)
        app.router.add_routes(self._more_routes())

    def _check_token(self, request: web.Request) -> bool:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            token = request.query.get("access_token", "")  # before version 1.4 of the specification
        return self._expected.matches(token)

    async def _take_transaction(self, request: web.Request) -> web.Response:
        if not self._check_token(request):
            return error(403, "M_FORBIDDEN", "That is not the homeserver's token")
        transaction_id = request.match_info["transaction_id"]
        if len(transaction_id) > MAX_TRANSACTION_ID_CHARACTERS or "\x00" in transaction_id:
            return error(400, "M_INVALID_PARAM", "The transaction ID is too long")
        try:
            body = msgspec.json.decode(await request.read())
        except msgspec.DecodeError:
            return error(400, "M_NOT_JSON", "The body is not JSON")
        if not isinstance(body, dict) or not isinstance(body.get("events"), list):
            return error(400, "M_BAD_JSON", "The body has no events")
        try:
            await self._on_transaction(transaction_id, body)
        except NotNow:
            return error(503, "M_UNKNOWN", "The bot cannot take events at the moment")
        return web.json_response({})


def error(status: int, errcode: str, message: str) -> web.Response:
    """An error in the form that Matrix gives it."""
    return web.json_response({"errcode": errcode, "error": message}, status=status)
