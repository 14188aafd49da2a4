"""Tells other servers which devices of a user here are new, changed or gone.

What they were told last is in the database, as hashes; what differs from it is told, in the unit of the stream that
gives the change its position. The positions are the `stream_id`s. Whoever missed one asks for the whole list.
https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from homeserver.services.encryption.device_keys import DeviceKeys
from homeserver.services.federation.edus.encryption import DurableEdus
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.user_rooms import UserRoom
from matrix.identifiers import get_domain
from storage.device_lists import AnnouncedDeviceRow, DeviceListRepository
from storage.stream import Writes

MAX_TOLD_DEVICES = 10
"""Of more changed devices than this one is told of, with a gap before it: the others then ask for the whole list."""

CROSS_SIGNING = ""
"""What the user's own keys go by among the devices."""


@dataclass(slots=True)
class ListChanges:
    """What servers are to be told: contents of m.device_list_update, and that of m.signing_key_update if it changed.

    `previous` is the position of the user's last change, 0 for none.
    """

    user_id: str
    servers: set[str]
    previous: int
    devices: list[dict[str, Any]] = field(default_factory=list)
    keys: dict[str, Any] | None = None
    rows: list[AnnouncedDeviceRow] = field(default_factory=list)


class FederationLists:
    """The `RemoteLists` of this server."""

    def __init__(
        self,
        repository: DeviceListRepository,
        registry: RoomRegistry,
        device_keys: DeviceKeys,
        edus: DurableEdus,
        *,
        server_name: str,
    ) -> None:
        self._repository = repository
        self._registry = registry
        self._device_keys = device_keys
        self._edus = edus
        self._server_name = server_name
        self.publish = edus.publish

    async def servers(self, user_id: str, rooms: Mapping[str, UserRoom]) -> set[str]:
        """The other servers in a user's rooms; none for a user of another server."""
        found: set[str] = set()
        if get_domain(user_id) != self._server_name:
            return found
        cold = []
        for user_room in rooms.values():
            if user_room.membership != "join":
                continue
            if (room := self._registry.peek(user_room.room_id)) is not None:
                found.update(room.servers)
            else:
                cold.append(user_room.room)
        if cold:
            found |= await self._repository.load_servers(cold)
        return found - {self._server_name}

    async def load(self, user_id: str, servers: set[str]) -> ListChanges:
        """What servers have not been told of a user's devices and keys."""
        told = await self._repository.load_announced(user_id)
        changes = ListChanges(user_id, servers, await self._repository.load_position(user_id))
        found = await self._device_keys.query_local(None, {user_id: []})
        devices = found["device_keys"].get(user_id, {})
        for device_id, keys in devices.items():
            if (row := AnnouncedDeviceRow(user_id, device_id, _hash(keys))).hash != told.get(device_id):
                name = keys.pop("unsigned", {}).get("device_display_name")
                content = {"device_id": device_id, "keys": keys}
                changes.devices.append(content | ({"device_display_name": name} if name else {}))
                changes.rows.append(row)
        for device_id in told.keys() - devices.keys() - {CROSS_SIGNING}:
            changes.devices.append({"device_id": device_id, "deleted": True})
            changes.rows.append(AnnouncedDeviceRow(user_id, device_id, None))
        kinds = ("master_key", "self_signing_key")
        keys = {kind: found[f"{kind}s"][user_id] for kind in kinds if user_id in found[f"{kind}s"]}
        if keys and _hash(keys) != told.get(CROSS_SIGNING):
            changes.keys = keys
            changes.rows.append(AnnouncedDeviceRow(user_id, CROSS_SIGNING, _hash(keys)))
        return changes

    def add(self, writes: Writes, changes: ListChanges, next_position: Callable[[], int]) -> int:
        """Has changes told, each at a position of its own. Returns the last one's, with which the list has changed."""
        writes.announced_devices += changes.rows
        position = next_position()
        if changes.keys is not None:
            for server in changes.servers:
                content = {"user_id": changes.user_id, **changes.keys}
                self._edus.add(writes, position, server, "m.signing_key_update", content)
        previous, devices = changes.previous, changes.devices
        if len(devices) > MAX_TOLD_DEVICES:
            previous, devices = position, devices[:1]
        for content in devices:
            position = next_position()
            update = {"user_id": changes.user_id, **content, "stream_id": position}
            update["prev_id"] = [previous] if previous else []
            previous = position
            for server in changes.servers:
                self._edus.add(writes, position, server, "m.device_list_update", update)
        return position

    async def load_introduction(self, user_id: str) -> dict[str, Any] | None:
        """One of a user's devices, as a change that follows on nothing: the others then ask for the whole list."""
        stream_id = await self._repository.load_position(user_id)
        devices = (await self._device_keys.query_local(None, {user_id: []}))["device_keys"].get(user_id, {})
        for device_id, keys in devices.items():
            name = keys.pop("unsigned", {}).get("device_display_name")
            content = {"user_id": user_id, "device_id": device_id, "keys": keys, "stream_id": stream_id, "prev_id": []}
            return content | ({"device_display_name": name} if name else {})
        return None

    def introduce(self, writes: Writes, position: int, content: dict[str, Any], servers: set[str]) -> None:
        """Has it told to servers that have not been told before."""
        for server in servers:
            self._edus.add(writes, position, server, "m.device_list_update", content)


def _hash(keys: dict[str, Any]) -> bytes:
    return hashlib.sha256(orjson.dumps(keys, option=orjson.OPT_SORT_KEYS)).digest()
