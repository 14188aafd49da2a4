"""The parts that serve application services, put together: what the composition root makes, and handlers use."""

from __future__ import annotations

from dataclasses import dataclass

from config.schema import Config
from homeserver.clock import Clock
from homeserver.metrics import Metrics
from homeserver.services.accounts.login import Login
from homeserver.services.accounts.sessions import Sessions
from homeserver.services.appservices.accounts import Masquerading, ServiceAccounts
from homeserver.services.appservices.calls import ServiceCalls
from homeserver.services.appservices.catch_up import CatchUp
from homeserver.services.appservices.deliveries import Deliveries
from homeserver.services.appservices.delivery import Delivery
from homeserver.services.appservices.device_news import DeviceNews, DeviceSources
from homeserver.services.appservices.ephemera import Ephemera
from homeserver.services.appservices.interest import Interest
from homeserver.services.appservices.queries import ServiceQueries
from homeserver.services.appservices.registrations import Registrations
from homeserver.services.appservices.services import Service, Services
from homeserver.services.client_events import ClientEvents
from homeserver.services.encryption.device_keys import DeviceKeys
from homeserver.services.encryption.to_device import ToDevice
from homeserver.services.presence import Presence
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.user_rooms import UserRooms
from homeserver.services.stream import Stream
from storage.accounts import AccountRepository
from storage.appservices import AppserviceRepository
from storage.rooms import RoomRepository
from storage.snapshots import SnapshotRepository


@dataclass(frozen=True, slots=True)
class Appservices:
    """Everything about application services."""

    services: Services
    registrations: Registrations
    interest: Interest
    masquerading: Masquerading
    accounts: ServiceAccounts
    queries: ServiceQueries
    deliveries: Deliveries


@dataclass(frozen=True, slots=True)
class Foundations:
    """The parts of the server that application services build on."""

    config: Config
    clock: Clock
    metrics: Metrics
    stream: Stream
    accounts: AccountRepository
    rooms: RoomRepository
    snapshots: SnapshotRepository
    events: EventCache
    client_events: ClientEvents
    registry: RoomRegistry
    user_rooms: UserRooms
    presence: Presence
    to_device: ToDevice
    device_keys: DeviceKeys
    sessions: Sessions
    login: Login


def assemble(services: Services, rows: AppserviceRepository, calls: ServiceCalls, base: Foundations) -> Appservices:
    """Puts the parts together. Registrations are still to be read, and deliveries to be started."""
    name = base.config.server_name
    interest = Interest(services)
    catch_up = CatchUp(rows, base.rooms, base.snapshots, base.events, server_name=name)

    sources = DeviceSources(rows, base.to_device, base.device_keys, interest, base.registry, base.user_rooms)

    def new_delivery(service: Service) -> Delivery:
        return Delivery(
            service,
            rows,
            catch_up,
            base.events,
            base.client_events,
            calls,
            base.metrics,
            base.clock,
            lambda: base.stream.current,
            Ephemera(base.presence.content_of),
            DeviceNews(sources),
        )

    return Appservices(
        services=services,
        registrations=Registrations(base.config, services),
        interest=interest,
        masquerading=Masquerading(rows, base.accounts, base.sessions, base.clock),
        accounts=ServiceAccounts(rows, base.accounts, base.login, base.clock, server_name=name),
        queries=ServiceQueries(services, calls),
        deliveries=Deliveries(services, interest, rows, base.registry, base.user_rooms, base.metrics, new_delivery),
    )
