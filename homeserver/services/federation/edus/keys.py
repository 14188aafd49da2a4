"""Asks other servers for keys of their users.

https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from homeserver.services.remote import RemoteMisbehaved, Transport, for_clients


class FederationKeys:
    """Asks other servers for keys: those that are not kept here (see `cached_keys`)."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def query(self, server: str, wanted: Mapping[str, Sequence[str]], *, timeout_ms: int) -> dict[str, Any]:
        """https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysquery"""
        content = {"device_keys": {user_id: list(device_ids) for user_id, device_ids in wanted.items()}}
        return await self._ask(server, "query", content, timeout_ms)

    async def claim(self, server: str, wanted: Mapping[str, Mapping[str, str]], *, timeout_ms: int) -> dict[str, Any]:
        """https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysclaim"""
        return await self._ask(server, "claim", {"one_time_keys": wanted}, timeout_ms)

    async def _ask(self, server: str, what: str, content: Any, timeout_ms: int) -> dict[str, Any]:
        path = f"/_matrix/federation/v1/user/keys/{what}"
        answer = await self._transport.request(server, "POST", path, content=content, timeout_ms=max(timeout_ms, 1))
        if not isinstance(answer, dict):
            raise RemoteMisbehaved(server, "the keys are no JSON object")
        checked: dict[str, Any] = for_clients(server, answer)
        return checked
