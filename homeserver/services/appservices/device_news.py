"""What encryption has a service be told of devices: messages to them, whose keys have changed, how many are left.

MSC4203 and MSC3202: https://github.com/matrix-org/matrix-spec-proposals/pull/4203 and …/pull/3202. They are not part of
the specification yet, and go by the names that the proposals give them until then. Services ask for it by the
proposal's flag in their registration.

Messages are taken out of the database together with being written down as part of a transaction, so that each is told
once. All else is gathered in memory, as much as is good for, and worked out when it is told; what was lost in a restart
is found by what has changed since the service was told last.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import orjson

from homeserver.services.appservices.interest import Interest
from homeserver.services.appservices.services import Service
from homeserver.services.encryption.device_keys import DeviceKeys
from homeserver.services.encryption.to_device import ToDevice
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.room import Room
from homeserver.services.rooms.user_rooms import UserRooms
from storage.appservices import AppserviceRepository, TakenMessage

MAX_USERS = 10_000
MAX_DEVICES = 10_000
MAX_MESSAGES_AT_ONCE = 100
MAX_MESSAGES_BYTES = 256 * 1024
MAX_USERS_AT_ONCE = 500
MAX_DEVICES_AT_ONCE = 100

ENCRYPTION = ("m.room.encryption", "")


class Device(NamedTuple):
    """A device of a service's user, by its names and by its number."""

    user_id: str
    device_id: str
    device: int


class Told(NamedTuple):
    """Parts of a transaction, and the messages among them."""

    parts: dict[str, Any]
    messages: list[TakenMessage]


class DeviceSources:
    """Where news of devices comes from: the same for all services."""

    def __init__(
        self,
        repository: AppserviceRepository,
        to_device: ToDevice,
        device_keys: DeviceKeys,
        interest: Interest,
        registry: RoomRegistry,
        user_rooms: UserRooms,
    ) -> None:
        self.repository = repository
        self.to_device = to_device
        self.device_keys = device_keys
        self._interest = interest
        self._registry = registry
        self._user_rooms = user_rooms

    async def shares_room(self, service: Service, user_id: str) -> bool:
        """Whether a user is in an encrypted room that the service hears of."""
        if service.covers_user(user_id):
            return True
        for user_room in list((await self._user_rooms.load(user_id)).values()):
            room = await self._registry.load(user_room.room_id) if user_room.membership == "join" else None
            if room is not None and ENCRYPTION in room.pinned and service in self._interest.of_room(room):
                return True
        return False

    async def counts(self, device: int) -> dict[str, Any]:
        """A device's keys that are left, as /sync has them."""
        known = self.device_keys.known_counts(device) or await self.device_keys.load_counts(device)
        counts: dict[str, Any] = orjson.loads(b"{" + known[1:] + b"}")
        return counts


class DeviceNews:
    """What one service has still to be told of devices. `add_…` while publishing, `take` for a transaction."""

    def __init__(self, sources: DeviceSources) -> None:
        self._sources = sources
        self._recipients: OrderedDict[str, None] = OrderedDict()  # of the service's own users, of whom none is dropped
        self._users: OrderedDict[str, bool] = OrderedDict()
        self._devices: OrderedDict[Device, None] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._recipients or self._users or self._devices)

    def add_messages(self, user_id: str) -> None:
        """There are messages for devices of one of the service's users."""
        self._recipients[user_id] = None

    def add_changed(self, user_id: str) -> None:
        """A user's devices have changed, or the user has come to where the service is."""
        _put(self._users, user_id, self._users.get(user_id, False), MAX_USERS)

    def add_left(self, user_id: str) -> None:
        """A user has left a room that the service hears of."""
        _put(self._users, user_id, True, MAX_USERS)

    def add_counts(self, device: Device) -> None:
        """A device of one of the service's users has more keys left, or less."""
        _put(self._devices, device, None, MAX_DEVICES)

    def add_room(self, room: Room, *, is_left: bool) -> None:
        """The service hears of an encrypted room from now on, or no longer."""
        for user_id, membership in room.members.items():
            if membership == "join":
                (self.add_left if is_left else self.add_changed)(user_id)

    async def load(self, service: Service, since: int) -> None:
        """Finds what has happened since the service was told last, and there may be nobody who remembers."""
        repository = self._sources.repository
        for user_id in await repository.load_recipients(service.id):
            self.add_messages(user_id)
        for user_id in await repository.load_changed_device_lists(service.id, since, limit=MAX_USERS):
            self.add_changed(user_id)
        for row in await repository.load_devices(service.id, limit=MAX_DEVICES):
            self.add_counts(Device(*row))

    async def take(self, service: Service) -> Told:
        """The oldest of what there is, within bounds, as parts of a transaction."""
        messages = await self._take_messages()
        parts: dict[str, Any] = {}
        if messages:
            parts["de.sorunome.msc2409.to_device"] = [
                {**orjson.loads(message.json), "to_user_id": message.user_id, "to_device_id": message.device_id}
                for message in messages
            ]
        if lists := await self._take_lists(service):
            parts["org.matrix.msc3202.device_lists"] = lists
        parts |= await self._take_counts()
        return Told(parts, messages)

    def taken(self, messages: list[TakenMessage]) -> None:
        """Messages are no longer in the database."""
        for device in {message.device for message in messages}:
            self._sources.to_device.forget(device)

    async def _take_messages(self) -> list[TakenMessage]:
        """The oldest messages. Users of whom there are none are forgotten, unless there were new ones meanwhile."""
        if not self._recipients:
            return []
        recipients, self._recipients = self._recipients, OrderedDict()
        found = await self._sources.repository.load_messages(list(recipients), limit=MAX_MESSAGES_AT_ONCE)
        taken: list[TakenMessage] = []
        size = 0
        for message in found:
            size += len(message.json)
            if taken and size > MAX_MESSAGES_BYTES:
                break
            taken.append(message)
        if len(taken) < len(found) or len(found) == MAX_MESSAGES_AT_ONCE:
            self._recipients |= recipients
        return taken

    async def _take_lists(self, service: Service) -> dict[str, list[str]]:
        changed: list[str] = []
        left: list[str] = []
        while self._users and len(changed) + len(left) < MAX_USERS_AT_ONCE:
            user_id, was_there = self._users.popitem(last=False)
            if await self._sources.shares_room(service, user_id):
                changed.append(user_id)
            elif was_there:
                left.append(user_id)
        return {"changed": changed, "left": left} if changed or left else {}

    async def _take_counts(self) -> dict[str, Any]:
        if not self._devices:
            return {}
        one_time: dict[str, dict[str, Any]] = {}
        fallback: dict[str, dict[str, Any]] = {}
        for _ in range(min(len(self._devices), MAX_DEVICES_AT_ONCE)):
            (user_id, device_id, device), _ = self._devices.popitem(last=False)
            counts = await self._sources.counts(device)
            one_time.setdefault(user_id, {})[device_id] = counts["device_one_time_keys_count"]
            fallback.setdefault(user_id, {})[device_id] = counts["device_unused_fallback_key_types"]
        return {
            "org.matrix.msc3202.device_one_time_keys_count": one_time,
            "org.matrix.msc3202.device_unused_fallback_key_types": fallback,
        }


def _put(entries: OrderedDict[Any, Any], key: Any, value: Any, maximum: int) -> None:
    entries[key] = value
    if len(entries) > maximum:
        entries.popitem(last=False)
