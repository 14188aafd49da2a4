"""What there is about application services, for handlers and for those who start it."""

from __future__ import annotations

from dataclasses import dataclass

from homeserver.services.appservices.accounts import Masquerading, ServiceAccounts
from homeserver.services.appservices.deliveries import Deliveries
from homeserver.services.appservices.interest import Interest
from homeserver.services.appservices.queries import ServiceQueries
from homeserver.services.appservices.registrations import Registrations
from homeserver.services.appservices.services import Services
from storage.appservices import AppserviceRepository


@dataclass(frozen=True, slots=True)
class Appservices:
    """Everything about application services."""

    rows: AppserviceRepository
    services: Services
    registrations: Registrations
    interest: Interest
    masquerading: Masquerading
    accounts: ServiceAccounts
    queries: ServiceQueries
    deliveries: Deliveries
