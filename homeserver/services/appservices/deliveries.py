"""The deliveries of all services: started and stopped as registrations come and go, told of what is published."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from homeserver.logs import get_logger
from homeserver.metrics import Metrics
from homeserver.services.appservices.delivery import MAX_RETRY_S, Delivery
from homeserver.services.appservices.device_news import ENCRYPTION, Device
from homeserver.services.appservices.interest import Interest
from homeserver.services.appservices.services import Service, Services
from homeserver.services.receipts import READ_PRIVATE
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.room import Room
from homeserver.services.rooms.user_rooms import UserRooms
from storage.appservices import AppserviceRepository
from storage.database import CONNECTION_ERRORS
from storage.events import StoredEvent
from storage.user_data import ReceiptRow

log = get_logger(__name__)

SAVE_INTERVAL_S = 30.0
"""How often it is written down that services know everything, so that a start has little to read."""


class Deliveries:
    """Runs a delivery, and a task for it, for each service that has a URL."""

    def __init__(
        self,
        services: Services,
        interest: Interest,
        repository: AppserviceRepository,
        registry: RoomRegistry,
        user_rooms: UserRooms,
        metrics: Metrics,
        new_delivery: Callable[[Service], Delivery],
    ) -> None:
        self._services = services
        self._interest = interest
        self._repository = repository
        self._registry = registry
        self._user_rooms = user_rooms
        self._metrics = metrics
        self._new_delivery = new_delivery
        self._by_service: dict[Service, Delivery] = {}
        self._ephemeral: set[Service] = set()
        self._encrypted: set[Service] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._saved: dict[str, int] = {}
        self._running = False

    # What is published ------------------------------------------------------------------------------------------------

    def on_event(self, room: Room, event: StoredEvent, before: str | None) -> None:
        """Notes a published event for those whom it interests (a `PublishObserver`)."""
        if not self._by_service:
            return
        for service in self._interest.of_event(room, event, before):
            if (delivery := self._by_service.get(service)) is not None:
                delivery.offer(event.position)
        if self._encrypted and event.pdu.type in ("m.room.member", "m.room.encryption"):
            self._note_lists(room, event, before)

    def _note_lists(self, room: Room, event: StoredEvent, before: str | None) -> None:
        """Notes whose devices are of interest from now on, or no longer, for what has happened in an encrypted room."""
        user_id = event.pdu.state_key
        if ENCRYPTION not in room.pinned or user_id is None:
            return
        if event.pdu.type == "m.room.encryption":
            for service in self._encrypted.intersection(self._interest.of_room(room)):
                if event.replaces is None:
                    self._by_service[service].devices.add_room(room, is_left=False)
                    self._by_service[service].notice()
            return
        is_joined, was_joined = room.membership(user_id) == "join", before == "join"
        if is_joined == was_joined:
            return
        for service in self._encrypted.intersection({*self._interest.of_room(room), *self._services.of_user(user_id)}):
            devices, reasons = self._by_service[service].devices, self._interest.reasons(room, service)
            if service.covers_user(user_id) and reasons == (1 if is_joined else 0):
                devices.add_room(room, is_left=not is_joined)
            (devices.add_changed if is_joined else devices.add_left)(user_id)
            self._by_service[service].notice()

    def on_to_device(self, user_ids: Collection[str]) -> None:
        """Notes that there are messages for devices of users."""
        if not self._encrypted:
            return
        for user_id in user_ids:
            for service in self._encrypted.intersection(self._services.of_user(user_id)):
                self._by_service[service].devices.add_messages(user_id)
                self._by_service[service].notice()

    def on_device_list(self, user_id: str, _position: int) -> None:
        """Notes that a user's devices have changed. Whom it concerns is found out when it is told."""
        for service in self._encrypted:
            self._by_service[service].devices.add_changed(user_id)
            self._by_service[service].notice()

    def on_key_counts(self, user_id: str, device_id: str, device: int) -> None:
        """Notes that a device has more keys left, or less."""
        if not self._encrypted:
            return
        for service in self._encrypted.intersection(self._services.of_user(user_id)):
            self._by_service[service].devices.add_counts(Device(user_id, device_id, device))
            self._by_service[service].notice()

    def on_membership(self, room: Room, user_id: str, _membership: str, _position: int, _before: str | None) -> None:
        """Notes a membership that has changed without an event of its own (a `MembershipObserver`)."""
        if self._services.of_user(user_id):
            self._interest.forget(room)

    def on_typing(self, room: Room) -> None:
        """Notes that others type in a room than before."""
        if not self._ephemeral:
            return
        for service in self._ephemeral.intersection(self._interest.of_room(room)):
            self._by_service[service].ephemera.add_typing(room)
            self._by_service[service].notice()

    def on_receipt(self, room: Room, row: ReceiptRow) -> None:
        """Notes a receipt. Private ones are for the services alone that the reader belongs to."""
        if not self._ephemeral:
            return
        for service in self._ephemeral.intersection(self._interest.of_room(room)):
            if row.type != READ_PRIVATE or service.covers_user(row.user_id):
                self._by_service[service].ephemera.add_receipt(room, row)
                self._by_service[service].notice()

    def on_presence(self, user_ids: Collection[str]) -> None:
        """Notes presence, for the services that users belong to or share a room with."""
        if not self._ephemeral:
            return
        for user_id in user_ids:
            interested = set(self._services.of_user(user_id))
            for user_room in (self._user_rooms.known(user_id) or {}).values():
                if user_room.membership == "join" and (room := self._registry.peek(user_room.room_id)) is not None:
                    interested.update(self._interest.of_room(room))
            for service in self._ephemeral & interested:
                self._by_service[service].ephemera.add_presence(user_id)
                self._by_service[service].notice()

    def hurry(self, service: Service) -> None:
        """Tries a service again at once: it was just heard of."""
        if (delivery := self._by_service.get(service)) is not None:
            delivery.hurry()

    # Starting and stopping --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins to deliver, from where each service was told last."""
        self._running = True
        self._services.on_changed.append(self._apply)
        self._apply(self._services.all())

    def _apply(self, services: Sequence[Service]) -> None:
        """Starts deliveries of services that are new, hands the others their new registrations, ends the rest."""
        if not self._running:
            return
        known = {service.id: delivery for service, delivery in self._by_service.items()}
        self._by_service = {}
        for service in services:
            if service.registration.url is None:
                continue
            delivery = known.pop(service.id, None)
            if delivery is None:
                delivery = self._new_delivery(service)
                former = self._ending.pop(service.id, None)
                work = _run(delivery, former)
                self._tasks[service.id] = asyncio.create_task(work, name=f"appservice {service.id}")
            elif delivery.service is not service:
                delivery.replace(service)
            self._by_service[service] = delivery
        self._ephemeral = {service for service in self._by_service if service.registration.receive_ephemeral}
        self._encrypted = {service for service in self._by_service if service.registration.receive_encryption}
        for service_id in known:
            self._ending[service_id] = ending = self._tasks.pop(service_id)
            ending.cancel()
            self._metrics.appservice_lag.remove(service_id)

    async def save_forever(self) -> None:
        """Writes down now and then how far services that know everything have come, until cancelled."""
        while True:
            await asyncio.sleep(SAVE_INTERVAL_S)
            await self._save()

    async def _save(self) -> None:
        positions = {service.id: delivery.idle_position for service, delivery in self._by_service.items()}
        idle = {
            service_id: position
            for service_id, position in positions.items()
            if position is not None and position != self._saved.get(service_id)
        }
        if not idle:
            return
        try:
            await self._repository.move_streams(idle)
        except CONNECTION_ERRORS as error:  # it is no loss: more is read at the next start
            log.warning("not written down how far application services are", error=repr(error))
        else:
            self._saved.update(idle)

    async def stop(self) -> None:
        """Ends all deliveries. What was on its way is sent again after the next start."""
        self._running = False
        tasks = [*self._tasks.values(), *self._ending.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        try:
            for delivery in self._by_service.values():
                await delivery.close()
        except CONNECTION_ERRORS as error:  # they are told again what they know, under the same IDs
            log.warning("not written down how far application services are", error=repr(error))
        await self._save()


async def _run(delivery: Delivery, former: asyncio.Task[None] | None) -> None:
    """Runs a delivery, again if something unforeseen ends it: the other services and chat go on meanwhile.

    `former` is a delivery to the same service that was cancelled, and has to be over.
    """
    if former is not None:
        await asyncio.wait((former,))
    while True:
        try:
            await delivery.run()
        except Exception:
            log.exception("the delivery to an application service broke off", service=delivery.service.id)
            await asyncio.sleep(MAX_RETRY_S)
