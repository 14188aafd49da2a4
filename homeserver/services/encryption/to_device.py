"""Messages from device to device: stored until they are delivered, once.

https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging

The messages of a request have one position of the stream, and are durable with the transaction ID they came with. A
sync's token says up to where its device has got them; what a token says was got is removed when it comes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import orjson

from homeserver.clock import Clock
from homeserver.metrics import Metrics
from homeserver.services.accounts.sessions import Requester
from homeserver.services.encryption.device_cache import DeviceCache
from homeserver.services.encryption.remote import RemoteDevices
from homeserver.services.errors import BadJson, InvalidParam, TooLarge
from homeserver.services.notifier import Notifier
from homeserver.services.stream import Stream
from matrix.identifiers import get_domain, is_user_id
from storage.stream import Writes
from storage.to_device import ToDeviceRepository, ToDeviceRow, ToDeviceTransactionRow

MAX_PER_SYNC = 100
"""What the specification recommends."""
MAX_MESSAGE_BYTES = 65_536
MAX_MESSAGES = 10_000
"""Most messages of one request."""
MAX_WAITING = 100_000
"""Most messages that are kept for one device: the oldest go when there are more, as nobody has read them for long."""
MAX_NAME_BYTES = 255
ALL_DEVICES = "*"
TRANSACTIONS_KEPT_MS = 7 * 24 * 3600 * 1000
"""For how long a request that is sent again is recognised."""

Messages = Mapping[str, Mapping[str, dict[str, object]]]
"""User ID -> device ID, or * for all devices -> content."""


@dataclass(slots=True)
class Inbox:
    """What waits for a device: positions at or before the oldest message, and of the newest; 0 without any."""

    oldest: int
    newest: int


class ToDevice:
    """Takes messages in and delivers them; to other servers' users through `remote`, where there is one.

    `observers` are told of the users of this server for whom there are messages.
    """

    def __init__(
        self,
        repository: ToDeviceRepository,
        stream: Stream,
        notifier: Notifier,
        metrics: Metrics,
        clock: Clock,
        *,
        server_name: str,
        max_devices: int,
        remote: RemoteDevices | None = None,
    ) -> None:
        self._repository = repository
        self._stream = stream
        self._notifier = notifier
        self._clock = clock
        self._server_name = server_name
        self.remote = remote
        self.on_changed: Callable[[int], None] = lambda _device: None
        self._running: dict[tuple[str, str], asyncio.Future[None]] = {}
        self.observers: list[Callable[[Collection[str]], None]] = []
        self._inboxes: DeviceCache[Inbox] = DeviceCache("inboxes", self._read, metrics, max_devices=max_devices)

    async def _read(self, device: int) -> Inbox:
        return Inbox(*await self._repository.load_inbox(device))

    async def send(self, requester: Requester, type: str, txn_id: str, messages: Messages) -> None:
        """Sends messages from the requester's device, the first time that this ID comes with this type.

        Returns once they are durable. Raises InvalidParam, BadJson, TooLarge.
        https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3sendtodeviceeventtypetxnid
        """
        _check_name(txn_id)
        source = f"{requester.device} {type}"
        await self.deliver(requester.user_id, type, messages, source=source, txn_id=txn_id)

    async def deliver(self, sender: str, type: str, messages: Messages, *, source: str, txn_id: str) -> None:
        """The same for messages that any source has sent; the source's IDs tell whether it was before.

        For another server's user the source is their user ID, and the ID that of the m.direct_to_device EDU.
        """
        _check_name(type)
        encoded = {
            user_id: {device_id: _encode(sender, type, content) for device_id, content in devices.items()}
            for user_id, devices in messages.items()
        }
        if sum(map(len, encoded.values())) > MAX_MESSAGES:
            raise InvalidParam(f"No more than {MAX_MESSAGES} messages can be sent at once")
        if not all(map(is_user_id, encoded)):
            raise InvalidParam("Not a user ID")
        key = (source, txn_id)
        while (running := self._running.get(key)) is not None:
            await asyncio.wait((running,))
        first = self._running[key] = asyncio.get_running_loop().create_future()
        try:
            if not await self._repository.is_used(source, txn_id):
                await self._deliver(sender, type, messages, encoded, source, txn_id)
        finally:
            del self._running[key]
            first.set_result(None)

    async def _deliver(
        self,
        sender: str,
        type: str,
        messages: Messages,
        encoded: Mapping[str, Mapping[str, bytes]],
        source: str,
        txn_id: str,
    ) -> None:
        local = {user_id: devices for user_id, devices in encoded.items() if self._is_local(user_id)}
        known = await self._repository.load_devices(local) if local else {}
        for_devices: dict[int, bytes] = {}
        for user_id, devices in local.items():
            numbers = known.get(user_id, {})
            if (for_all := devices.get(ALL_DEVICES)) is not None:
                for_devices |= dict.fromkeys(numbers.values(), for_all)
            for_devices |= {numbers[device_id]: json for device_id, json in devices.items() if device_id in numbers}
        position = self._stream.next_position()
        writes = Writes()
        writes.to_device_transactions.append(ToDeviceTransactionRow(source, txn_id, self._clock()))
        writes.to_device += [ToDeviceRow(device, position, json) for device, json in for_devices.items()]
        others = {user_id: devices for user_id, devices in messages.items() if not self._is_local(user_id)}
        if others and self.remote is not None and self._is_local(sender):
            self.remote.add(writes, position, sender, type, others)
        await self._stream.submit(position, writes, lambda: self._publish(writes, position, list(local)))

    def _is_local(self, user_id: str) -> bool:
        return get_domain(user_id) == self._server_name

    def _publish(self, writes: Writes, position: int, user_ids: list[str]) -> None:
        if self.remote is not None:
            self.remote.publish(writes)
        for row in writes.to_device:
            self.on_changed(row.device)
            inbox = self._inboxes.known(row.device)
            if inbox is None:
                self._inboxes.forget(row.device)  # what is being read may lack it
                continue
            inbox.oldest = inbox.oldest or position
            inbox.newest = position
        self._notifier.mark_users(user_ids)
        for observer in self.observers:
            observer(user_ids)

    def forget(self, device: int) -> None:
        """Drops what is known of a device whose messages were taken otherwise."""
        self._inboxes.forget(device)
        self.on_changed(device)

    def known_newest(self, device: int) -> int | None:
        """The position of the newest message for a device (0 for none), if it is in memory."""
        inbox = self._inboxes.known(device)
        return None if inbox is None else inbox.newest

    async def load_newest(self, device: int) -> int:
        """The same, read if need be."""
        return (await self._inboxes.load(device)).newest

    async def acknowledge(self, device: int, up_to: int) -> None:
        """Removes the messages that a device has got: those up to a position."""
        inbox = await self._inboxes.load(device)
        if not 0 < inbox.oldest <= up_to:
            return
        await self._repository.delete_messages(device, up_to)
        if inbox.newest <= up_to:
            inbox.oldest = inbox.newest = 0
        else:
            inbox.oldest = up_to + 1

    async def waiting(self, device: int, *, after: int, up_to: int) -> tuple[list[bytes], int]:
        """A device's messages in after < position <= up_to, oldest first, as many as go into one answer.

        Also returns the position up to which these are all.
        """
        rows = await self._repository.load_messages(device, after=after, up_to=up_to, limit=MAX_PER_SYNC + 1)
        if len(rows) > MAX_PER_SYNC:
            rows, up_to = rows[:MAX_PER_SYNC], rows[MAX_PER_SYNC - 1][0]
        return [json for _, json in rows], up_to

    async def clean(self) -> None:
        """Forgets old transaction IDs, what is too much for a device, and what was sent to devices while they went."""
        await self._repository.clean(before_ts=self._clock() - TRANSACTIONS_KEPT_MS, max_messages=MAX_WAITING)


def _encode(sender: str, type: str, content: dict[str, object]) -> bytes:
    try:
        encoded = orjson.dumps({"type": type, "sender": sender, "content": content})
    except orjson.JSONEncodeError:
        raise BadJson("A number is too large") from None
    if len(encoded) > MAX_MESSAGE_BYTES:
        raise TooLarge(f"A message can have {MAX_MESSAGE_BYTES} bytes")
    return encoded


def _check_name(name: str) -> None:
    if "\0" in name or len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidParam(f"Types and transaction IDs can have {MAX_NAME_BYTES} bytes, and no NUL character")
