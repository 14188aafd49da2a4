"""Requests to application services: paths, tokens, older paths, and bounds.

https://spec.matrix.org/v1.19/application-service-api/#homeserver---application-service-api
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol
from urllib.parse import quote, urlencode

from homeserver.services.appservices.services import Service

V1 = "/_matrix/app/v1"
UNSTABLE = "/_matrix/app/unstable"
MAX_ANSWER_BYTES = 1024 * 1024

# What an application service answers that does not know today's paths.
# https://spec.matrix.org/v1.19/application-service-api/#legacy-routes
UNKNOWN_PATH = (404, 405, 500, 501)


class ServiceUnreachable(Exception):
    """A service gave no answer: its message is for the log. `timed_out`: it had been given time enough."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class ServiceAnswer(NamedTuple):
    """What a service answered; of a body that is too long only the beginning."""

    status: int
    body: bytes


class ServiceClient(Protocol):
    """The network: what `homeserver.appservice_api` does."""

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, timeout_s: float, max_bytes: int
    ) -> ServiceAnswer:
        """One request. Raises ServiceUnreachable."""
        ...


class ServiceCalls:
    """Asks services, by today's paths and, where they do not know them, by those of the past."""

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    async def transaction(
        self, service: Service, transaction_id: str, body: bytes, *, timeout_s: float
    ) -> ServiceAnswer:
        """https://spec.matrix.org/v1.19/application-service-api/#put_matrixappv1transactionstxnid"""
        path = f"/transactions/{quote(transaction_id, safe='')}"
        return await self._call(service, "PUT", V1 + path, path, body=body, timeout_s=timeout_s)

    async def ping(self, service: Service, body: bytes, *, timeout_s: float) -> ServiceAnswer:
        """https://spec.matrix.org/v1.19/application-service-api/#post_matrixappv1ping"""
        return await self._call(service, "POST", f"{V1}/ping", None, body=body, timeout_s=timeout_s)

    async def user(self, service: Service, user_id: str, *, timeout_s: float) -> ServiceAnswer:
        """https://spec.matrix.org/v1.19/application-service-api/#get_matrixappv1usersuserid"""
        path = f"/users/{quote(user_id, safe='')}"
        return await self._call(service, "GET", V1 + path, path, timeout_s=timeout_s)

    async def alias(self, service: Service, alias: str, *, timeout_s: float) -> ServiceAnswer:
        """https://spec.matrix.org/v1.19/application-service-api/#get_matrixappv1roomsroomalias"""
        path = f"/rooms/{quote(alias, safe='')}"
        return await self._call(service, "GET", V1 + path, path, timeout_s=timeout_s)

    async def third_party(
        self, service: Service, path: str, query: Mapping[str, str], *, timeout_s: float
    ) -> ServiceAnswer:
        """https://spec.matrix.org/v1.19/application-service-api/#third-party-networks

        `path` is what follows `/thirdparty/`, percent-encoded.
        """
        path = f"/thirdparty/{path}"
        return await self._call(service, "GET", V1 + path, UNSTABLE + path, query=query, timeout_s=timeout_s)

    async def _call(
        self,
        service: Service,
        method: str,
        path: str,
        older_path: str | None,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float,
    ) -> ServiceAnswer:
        url, token = service.registration.url, service.registration.hs_token.reveal()
        assert url is not None, "a service without a URL is asked nothing"
        headers = {"Authorization": f"Bearer {token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"

        async def ask(path: str, query: Mapping[str, str]) -> ServiceAnswer:
            address = f"{url}{path}?{urlencode(query)}" if query else url + path
            return await self._client.request(
                method, address, headers=headers, body=body, timeout_s=timeout_s, max_bytes=MAX_ANSWER_BYTES
            )

        answer = await ask(path, query or {})
        if older_path is not None and answer.status in UNKNOWN_PATH:
            # Those that know only older paths know the token only in the query.
            older = await ask(older_path, {**(query or {}), "access_token": token})
            if older.status == 200 or answer.status != 404:
                return older
        return answer
