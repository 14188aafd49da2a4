"""What the bot asks of the homeserver about devices and keys. Answers are as they came: their readers check them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from mautrix.api import Method

from appservices.summary_bot.events import mapping
from appservices.summary_bot.matrix.client import V3, Api, ask

REMOTE_TIMEOUT_MS = 10_000
"""How long the homeserver is to wait for other servers."""


class KeysClient:
    """Requests of the bot's user, those that need it with its device.

    https://spec.matrix.org/v1.19/application-service-api/#identity-assertion
    """

    def __init__(self, api: Api) -> None:
        self._api = api

    async def put_device(self, device_id: str, display_name: str) -> None:
        """Makes the device, without a login: https://spec.matrix.org/v1.19/application-service-api/#creating-devices"""
        path = f"{V3}/devices/{quote(device_id, safe='')}"
        await ask(self._api, Method.PUT, path, {"display_name": display_name})

    async def delete_devices(self, device_ids: Sequence[str]) -> None:
        """https://spec.matrix.org/v1.19/application-service-api/#deleting-devices: no password is asked for."""
        await ask(self._api, Method.POST, f"{V3}/delete_devices", {"devices": list(device_ids)})

    async def upload_keys(self, device_id: str, content: Mapping[str, Any]) -> Mapping[str, Any]:
        """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload; how many keys are left."""
        # The second name is that of MSC3202, under which servers knew the first before it was in the specification.
        device = {"device_id": device_id, "org.matrix.msc3202.device_id": device_id}
        answer = await ask(self._api, Method.POST, f"{V3}/keys/upload", dict(content), device)
        return mapping(answer.get("one_time_key_counts"))

    async def query_keys(self, user_ids: Sequence[str]) -> Mapping[str, Any]:
        """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery"""
        content = {"device_keys": {user_id: [] for user_id in user_ids}, "timeout": REMOTE_TIMEOUT_MS}
        return mapping(await ask(self._api, Method.POST, f"{V3}/keys/query", content))

    async def claim_keys(self, wanted: Mapping[str, Mapping[str, str]]) -> Mapping[str, Any]:
        """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim: user, device, algorithm."""
        content = {"one_time_keys": wanted, "timeout": REMOTE_TIMEOUT_MS}
        answer = await ask(self._api, Method.POST, f"{V3}/keys/claim", content)
        return mapping(answer.get("one_time_keys"))

    async def send_to_devices(self, event_type: str, messages: Mapping[str, Mapping[str, Any]]) -> None:
        """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3sendtodeviceeventtypetxnid"""
        path = f"{V3}/sendToDevice/{event_type}/{secrets.token_urlsafe(16)}"
        await ask(self._api, Method.PUT, path, {"messages": messages})

    async def upload_cross_signing(self, master: Mapping[str, Any], self_signing: Mapping[str, Any]) -> None:
        """https://spec.matrix.org/v1.19/application-service-api/#cross-signing: no password is asked for."""
        content = {"master_key": master, "self_signing_key": self_signing}
        await ask(self._api, Method.POST, f"{V3}/keys/device_signing/upload", content)

    async def upload_signatures(self, user_id: str, signed: Mapping[str, Any]) -> None:
        """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload"""
        await ask(self._api, Method.POST, f"{V3}/keys/signatures/upload", {user_id: signed})
