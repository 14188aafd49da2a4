"""End-to-end encryption across servers: keys that are asked for, messages to devices, and whose keys have changed.

Whoever looks up keys of another server's user is told by /sync to look again when that server says that they have
changed; `cached_keys` keeps them until then.
https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from homeserver.services.encryption.device_lists import DeviceLists
from homeserver.services.encryption.to_device import MAX_NAME_BYTES, ToDevice
from homeserver.services.federation.edus.cached_keys import CachedKeys
from homeserver.services.federation.edus.incoming import Handler, is_user_of
from homeserver.services.federation.sending.sender import Sender
from homeserver.services.rooms.user_rooms import UserRooms
from matrix.identifiers import get_domain, is_server_name
from storage.federation import OutgoingEdu
from storage.stream import Writes


class DurableEdus:
    """Queues EDUs in units of the stream: they are sent however often this server, or the other, crashes."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def add(self, writes: Writes, position: int, destination: str, edu_type: str, content: Mapping[str, Any]) -> None:
        """Has an EDU sent, of which each destination may have one for each position."""
        if is_server_name(destination):
            edu = orjson.dumps({"edu_type": edu_type, "content": content})
            writes.outgoing_edus.append(OutgoingEdu(destination, position, edu))

    def publish(self, writes: Writes) -> None:
        """Begins to send what `writes` had, which are durable now."""
        if writes.outgoing_edus:
            self._sender.on_durable_edus({row.destination for row in writes.outgoing_edus})


class FederationDevices:
    """The `RemoteDevices` of this server."""

    def __init__(self, sender: Sender) -> None:
        self._edus = DurableEdus(sender)
        self.publish = self._edus.publish

    def add(
        self, writes: Writes, position: int, sender: str, type: str, messages: Mapping[str, Mapping[str, object]]
    ) -> None:
        """https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging"""
        by_server: dict[str, dict[str, Mapping[str, object]]] = {}
        for user_id, devices in messages.items():
            by_server.setdefault(get_domain(user_id), {})[user_id] = devices
        for server, wanted in by_server.items():
            content = {"sender": sender, "type": type, "message_id": str(position), "messages": wanted}
            self._edus.add(writes, position, server, "m.direct_to_device", content)


class DirectToDevice(msgspec.Struct):
    """https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging"""

    sender: str
    type: str
    message_id: str
    messages: dict[str, dict[str, dict[str, Any]]]


class ListChange(msgspec.Struct):
    """m.device_list_update or m.signing_key_update: who it is that has other keys now."""

    user_id: str


class IncomingEncryption:
    """Handlers of the EDUs that encryption needs, for `IncomingEdus`."""

    def __init__(
        self,
        to_device: ToDevice,
        device_lists: DeviceLists,
        user_rooms: UserRooms,
        cached_keys: CachedKeys,
        *,
        server_name: str,
    ) -> None:
        self._to_device = to_device
        self._device_lists = device_lists
        self._user_rooms = user_rooms
        self._cached_keys = cached_keys
        self._server_name = server_name
        self.handlers: dict[str, Handler] = {
            "m.direct_to_device": self._receive_messages,
            "m.device_list_update": self._receive_list_change,
            "m.signing_key_update": self._receive_signing_keys,
        }

    async def _receive_messages(self, origin: str, content: dict[str, Any]) -> None:
        """Delivers messages once, by their ID. https://spec.matrix.org/v1.19/server-server-api/#m-direct_to_device-schema"""
        edu = msgspec.convert(content, DirectToDevice)
        if not is_user_of(edu.sender, origin) or "\0" in edu.message_id or len(edu.message_id) > MAX_NAME_BYTES:
            return
        local = {
            user_id: devices for user_id, devices in edu.messages.items() if is_user_of(user_id, self._server_name)
        }
        await self._to_device.deliver(edu.sender, edu.type, local, source=edu.sender, txn_id=edu.message_id)

    async def _receive_list_change(self, origin: str, content: dict[str, Any]) -> None:
        user_id = msgspec.convert(content, ListChange).user_id
        if is_user_of(user_id, origin):
            await self._cached_keys.on_update(user_id, content)
            await self._announce(user_id)

    async def _receive_signing_keys(self, origin: str, content: dict[str, Any]) -> None:
        user_id = msgspec.convert(content, ListChange).user_id
        if is_user_of(user_id, origin):
            await self._cached_keys.on_changed(user_id)
            await self._announce(user_id)

    async def _announce(self, user_id: str) -> None:
        rooms = await self._user_rooms.load(user_id)
        if any(room.membership == "join" for room in rooms.values()):
            await self._device_lists.announce_remote(user_id)
