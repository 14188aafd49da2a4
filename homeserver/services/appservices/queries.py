"""Asking services: whether users and aliases exist, what is on third-party networks, and whether they are there at all.

https://spec.matrix.org/v1.19/application-service-api/#querying
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
import orjson

from homeserver.logs import get_logger
from homeserver.services.appservices.calls import ServiceAnswer, ServiceCalls, ServiceUnreachable
from homeserver.services.appservices.services import Service, Services
from homeserver.services.errors import MatrixError, NotFound

log = get_logger(__name__)

PING_TIMEOUT_S = 15.0
QUERY_TIMEOUT_S = 10.0
QUERY_ATTEMPTS = 3
QUERY_PAUSE_S = 0.2
MAX_QUERIES = 32
"""How many questions about users and aliases may be open at once: clients without an account can cause them."""
REMEMBER_ANSWER_S = 10.0
MAX_ANSWERS = 10_000
MAX_PING_BODY_CHARS = 4096
MAX_FIELDS = 20


class FieldType(msgspec.Struct):
    """What a field of a network's users or locations looks like."""

    regexp: str
    placeholder: str


class Instance(msgspec.Struct, omit_defaults=True):
    """A network of a protocol. `instance_id` is given by the server: the network's ID, which is unique already."""

    desc: str
    fields: dict[str, Any]
    network_id: str
    icon: str | None = None
    instance_id: str | None = None


class Protocol(msgspec.Struct, omit_defaults=True):
    """A kind of network. https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyprotocols"""

    user_fields: list[str]
    location_fields: list[str]
    field_types: dict[str, FieldType]
    instances: list[Instance]
    icon: str | None = None


class Location(msgspec.Struct):
    """A place in a network, and the alias that leads there."""

    alias: str
    protocol: str
    fields: dict[str, Any]


class User(msgspec.Struct):
    """Somebody in a network, and their user ID here."""

    userid: str
    protocol: str
    fields: dict[str, Any]


class TimedOut(MatrixError):
    """408: an application service did not say whether what was asked for is there."""

    def __init__(self) -> None:
        super().__init__(408, "M_UNKNOWN", "The application service that knows did not answer")


class ServiceQueries:
    """Asks services what only they know."""

    def __init__(self, services: Services, calls: ServiceCalls) -> None:
        self._services = services
        self._calls = calls
        self._asking: dict[str, asyncio.Future[bool]] = {}
        self._answers: OrderedDict[str, tuple[bool, float]] = OrderedDict()

    async def ping(self, service: Service, transaction_id: str | None) -> int:
        """How long (ms) a service takes to answer.

        Raises MatrixError: 400 M_URL_NOT_SET, 502 M_BAD_STATUS or M_CONNECTION_FAILED, 504 M_CONNECTION_TIMEOUT.
        https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv1appserviceappserviceidping
        """
        if service.registration.url is None:
            raise MatrixError(400, "M_URL_NOT_SET", "The application service has no URL")
        body = orjson.dumps({} if transaction_id is None else {"transaction_id": transaction_id})
        started = time.perf_counter()
        try:
            answer = await self._calls.ping(service, body, timeout_s=PING_TIMEOUT_S)
        except ServiceUnreachable as error:
            if error.timed_out:
                raise MatrixError(504, "M_CONNECTION_TIMEOUT", "The application service did not answer") from None
            raise MatrixError(502, "M_CONNECTION_FAILED", f"The application service was not reached: {error}") from None
        if answer.status != 200:
            text = answer.body.decode(errors="replace")[:MAX_PING_BODY_CHARS]
            extra = {"status": answer.status, "body": text}
            raise MatrixError(502, "M_BAD_STATUS", f"The application service answered {answer.status}", extra)
        return round((time.perf_counter() - started) * 1000)

    async def has_user(self, user_id: str) -> bool:
        """Whether a service says that a user exists, whom it has made by then. Raises TimedOut."""
        return await self._exists(user_id, self._services.of_user(user_id), self._calls.user)

    async def has_alias(self, alias: str, asked_by: str | None = None) -> bool:
        """Whether a service says that an alias exists, which it has made by then. Raises TimedOut.

        The service that asks itself (`asked_by`, its ID) is not asked: it may well be making the alias just now.
        """
        services = [
            service for service in self._services.all() if service.covers_alias(alias) and service.id != asked_by
        ]
        return await self._exists(alias, services, self._calls.alias)

    async def _exists(
        self, what: str, services: Sequence[Service], ask: Callable[..., Awaitable[ServiceAnswer]]
    ) -> bool:
        """Asks one service after another. Those who ask for the same at one time, or soon after, get one answer."""
        asked = [service for service in services if service.registration.url is not None]
        if not asked:
            return False
        if (known := self._answers.get(what)) is not None and known[1] > time.monotonic():
            return known[0]
        if (asking := self._asking.get(what)) is not None:
            return await asyncio.shield(asking)
        if len(self._asking) >= MAX_QUERIES:
            raise MatrixError(503, "M_LIMIT_EXCEEDED", "The server is overloaded", {"retry_after_ms": 1000})
        answer = self._asking[what] = asyncio.get_running_loop().create_future()
        try:
            found = await self._ask(what, asked, ask)
            self._remember(what, found)
            answer.set_result(found)
            return found
        except BaseException as error:
            answer.set_exception(error if isinstance(error, MatrixError) else TimedOut())
            answer.exception()  # it counts as looked at, whether or not anybody waits for it
            raise
        finally:
            del self._asking[what]

    async def _ask(self, what: str, services: Sequence[Service], ask: Callable[..., Awaitable[ServiceAnswer]]) -> bool:
        silent = False
        for service in services:
            for _ in range(QUERY_ATTEMPTS):
                try:
                    answer = await ask(service, what, timeout_s=QUERY_TIMEOUT_S)
                except ServiceUnreachable as error:
                    log.info("an application service was not reached by a query", service=service.id, why=str(error))
                    silent = True
                    if error.timed_out:
                        break
                    await asyncio.sleep(QUERY_PAUSE_S)
                    continue
                silent = False
                if answer.status == 200:
                    return True
                break
        if silent:
            raise TimedOut
        return False

    def _remember(self, what: str, found: bool) -> None:
        self._answers[what] = (found, time.monotonic() + REMEMBER_ANSWER_S)
        self._answers.move_to_end(what)
        if len(self._answers) > MAX_ANSWERS:
            self._answers.popitem(last=False)

    # Third-party networks ---------------------------------------------------------------------------------------------

    def protocols(self) -> list[str]:
        """The protocols that there are services for."""
        return list(dict.fromkeys(name for service in self._services.all() for name in service.registration.protocols))

    async def protocol(self, name: str) -> Protocol:
        """What a protocol is like, with the networks of all services that have it. Raises NotFound."""
        answers = await self._look_up(name, f"protocol/{_segment(name)}", {}, Protocol)
        if not answers:
            raise NotFound("The protocol is unknown")
        merged: Protocol = answers[0]
        merged.instances = [instance for answer in answers for instance in answer.instances]
        for instance in merged.instances:
            instance.instance_id = instance.network_id
        return merged

    async def locations(self, protocol: str, fields: Mapping[str, str]) -> list[Location]:
        """Places in a network. Raises NotFound."""
        return await self._listed(protocol, f"location/{_segment(protocol)}", fields, list[Location])

    async def users(self, protocol: str, fields: Mapping[str, str]) -> list[User]:
        """People in a network. Raises NotFound."""
        return await self._listed(protocol, f"user/{_segment(protocol)}", fields, list[User])

    async def locations_of(self, alias: str) -> list[Location]:
        """The places that an alias leads to. Raises NotFound."""
        return await self._listed(None, "location", {"alias": alias}, list[Location])

    async def users_of(self, user_id: str) -> list[User]:
        """Whom a user ID stands for. Raises NotFound."""
        return await self._listed(None, "user", {"userid": user_id}, list[User])

    async def _listed(self, protocol: str | None, path: str, query: Mapping[str, str], form: Any) -> list[Any]:
        answers = await self._look_up(protocol, path, query, form)
        found = [entry for answer in answers for entry in answer]
        if not found:
            raise NotFound("Nothing was found")
        return found

    async def _look_up(self, protocol: str | None, path: str, query: Mapping[str, str], form: Any) -> list[Any]:
        """What the services that have a protocol (None: any protocol) answer, of those that answer as they should."""
        services = [
            service
            for service in self._services.all()
            if service.registration.url is not None
            and (service.registration.protocols if protocol is None else protocol in service.registration.protocols)
        ]
        query = dict(list(query.items())[:MAX_FIELDS])
        answers = await asyncio.gather(*(self._look_up_at(service, path, query, form) for service in services))
        return [answer for answer in answers if answer is not None]

    async def _look_up_at(self, service: Service, path: str, query: Mapping[str, str], form: Any) -> Any | None:
        try:
            answer = await self._calls.third_party(service, path, query, timeout_s=QUERY_TIMEOUT_S)
        except ServiceUnreachable as error:
            log.info("an application service was not reached by a look-up", service=service.id, why=str(error))
            return None
        if answer.status != 200:
            return None
        try:
            return msgspec.json.decode(answer.body, type=form)
        except (msgspec.DecodeError, RecursionError) as error:
            log.warning("an application service answered a look-up wrongly", service=service.id, why=str(error))
            return None


def _segment(text: str) -> str:
    return quote(text, safe="")
