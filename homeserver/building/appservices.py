"""Application services: who they are, and what reaches them."""

from __future__ import annotations

from homeserver.building.accounts import AccountParts
from homeserver.building.foundation import Foundation
from homeserver.building.rooms import EncryptionParts, RoomParts
from homeserver.services.appservices.accounts import Masquerading, ServiceAccounts
from homeserver.services.appservices.calls import ServiceCalls
from homeserver.services.appservices.catch_up import CatchUp
from homeserver.services.appservices.deliveries import Deliveries
from homeserver.services.appservices.delivery import Delivery
from homeserver.services.appservices.device_news import DeviceNews, DeviceSources
from homeserver.services.appservices.ephemera import Ephemera
from homeserver.services.appservices.interest import Interest
from homeserver.services.appservices.parts import Appservices
from homeserver.services.appservices.queries import ServiceQueries
from homeserver.services.appservices.registrations import Registrations
from homeserver.services.appservices.services import Service, Services
from storage.appservices import AppserviceRepository


def build_appservices(
    base: Foundation,
    rooms: RoomParts,
    encryption: EncryptionParts,
    accounts: AccountParts,
    services: Services,
    calls: ServiceCalls,
) -> Appservices:
    """Makes everything, reads the registrations, and lets what happens be heard by them. Raises ConfigError.

    Deliveries are still to be started.
    """
    name, rows = base.server_name, AppserviceRepository(base.database.pool)
    interest = Interest(services)
    catch_up = CatchUp(rows, base.rows.rooms, base.rows.snapshots, base.events, server_name=name)
    sources = DeviceSources(
        rows, encryption.to_device, encryption.device_keys, interest, base.registry, base.user_rooms
    )

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
            Ephemera(rooms.presence.content_of),
            DeviceNews(sources),
        )

    appservices = Appservices(
        rows=rows,
        services=services,
        registrations=Registrations(base.config, services),
        interest=interest,
        masquerading=Masquerading(rows, base.rows.accounts, accounts.sessions, base.clock),
        accounts=ServiceAccounts(rows, base.rows.accounts, accounts.login, base.clock, server_name=name),
        queries=ServiceQueries(services, calls),
        deliveries=Deliveries(services, interest, rows, base.registry, base.user_rooms, base.metrics, new_delivery),
    )
    appservices.registrations.load()
    _listen(appservices.deliveries, base, rooms, encryption)
    rooms.profiles.on_missing = rooms.membership.on_missing = appservices.queries.has_user
    return appservices


def _listen(deliveries: Deliveries, base: Foundation, rooms: RoomParts, encryption: EncryptionParts) -> None:
    base.acceptance.observers.append(deliveries.on_event)
    base.acceptance.membership_observers.append(deliveries.on_membership)
    rooms.typing.observers.append(deliveries.on_typing)
    rooms.receipts.observers.append(deliveries.on_receipt)
    rooms.presence.observers.append(deliveries.on_presence)
    encryption.to_device.observers.append(deliveries.on_to_device)
    encryption.device_lists.observers.append(deliveries.on_device_list)
    encryption.device_keys.observers.append(deliveries.on_key_counts)
