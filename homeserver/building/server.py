"""The whole server: its parts in the order in which they need each other, and what they hear from each other."""

from __future__ import annotations

from collections.abc import Callable

from config.schema import Config
from federation.outbound.network import build_network
from homeserver.building.accounts import AccountParts, build_accounts
from homeserver.building.appservices import build_appservices
from homeserver.building.federation import build_federation
from homeserver.building.foundation import Foundation, lay_foundation
from homeserver.building.pushing import PushParts, build_push
from homeserver.building.rooms import EncryptionParts, RoomParts, build_encryption, build_rooms, build_sync
from homeserver.clock import Clock
from homeserver.http.context import Server
from homeserver.services.accounts.deactivation import Deactivation
from homeserver.services.accounts.interactive_auth import InteractiveAuth
from homeserver.services.accounts.moderation import Moderation
from homeserver.services.accounts.openid import OpenId
from homeserver.services.accounts.shared_secret import SharedSecretRegistration
from homeserver.services.appservices.calls import ServiceCalls, ServiceClient
from homeserver.services.appservices.parts import Appservices
from homeserver.services.appservices.services import Services
from homeserver.services.email.transport import MailTransport
from homeserver.services.encryption.cross_signing import CrossSigning
from homeserver.services.encryption.dehydrated_devices import DehydratedDevices
from homeserver.services.encryption.key_backup import KeyBackup
from homeserver.services.event_views import EventViews
from homeserver.services.federation.parts import FederationParts
from homeserver.services.filters import Filters
from homeserver.services.media.service import build_content_repository
from homeserver.services.notifications import Notifications
from homeserver.services.notifier import Notifier
from homeserver.services.profile_lookup import ProfileLookup
from homeserver.services.push.gateway import PushGateway
from homeserver.services.relations import Relations
from homeserver.services.remote import Network
from homeserver.services.reports import Reports
from homeserver.services.rooms.aliases import Aliases
from homeserver.services.rooms.creation import Creation
from homeserver.services.rooms.directory import Directory
from homeserver.services.rooms.remote_spaces import RemoteSpaces
from homeserver.services.rooms.spaces import Spaces
from homeserver.services.rooms.upgrades import Upgrades
from homeserver.services.sync.service import Sync
from homeserver.services.user_directory import UserDirectory
from storage.database import Database
from storage.dehydrated_devices import DehydratedDeviceRepository
from storage.directory import DirectoryRepository
from storage.key_backup import KeyBackupRepository
from storage.reports import ReportRepository


async def build_server(
    config: Config,
    database: Database,
    clock: Clock,
    notifier: Notifier,
    push_gateway: PushGateway,
    service_client: ServiceClient,
    *,
    mail_transport: MailTransport | None = None,
    make_network: Callable[..., Network] = build_network,
) -> Server:
    """Makes every service, once the database is open. `service_client` is the way to application services,
    `mail_transport` that of mails, where any are sent.

    `make_network` is given by the simulation alone. Raises ConfigError for registrations of application services that
    cannot be used.
    """
    base = await lay_foundation(config, database, clock, notifier, make_network)
    rooms, encryption = build_rooms(base), build_encryption(base)
    sync = build_sync(base, rooms, encryption)
    push = build_push(base, rooms, push_gateway)
    await push.follower.open()
    _listen(base, rooms, encryption, sync, push)
    services = Services(base.server_name)
    accounts = build_accounts(base, rooms, encryption, push, services, mail_transport)
    calls = ServiceCalls(service_client)
    appservices = build_appservices(base, rooms, encryption, accounts, services, calls)
    federation = await build_federation(base, rooms, encryption)
    federation.foreign_rooms.observers += [push.follower.on_event, appservices.deliveries.on_event]
    return _server(base, rooms, encryption, sync, push, accounts, appservices, federation)


def _listen(base: Foundation, rooms: RoomParts, encryption: EncryptionParts, sync: Sync, push: PushParts) -> None:
    """Lets parts hear what happens in rooms."""

    def recount(user_id: str, position: int) -> None:
        rooms.receipts.forget_counts(user_id, base.registry.in_memory(), position)
        push.follower.on_counts_changed(user_id)

    rooms.membership.on_joined.append(encryption.device_lists.introduce)
    rooms.receipts.on_read = push.follower.on_counts_moved
    base.account_data.on_ignored = recount
    base.acceptance.observers += [
        base.user_rooms.on_event,
        encryption.shared_rooms.on_event,
        rooms.typing.on_event,
        rooms.presence.on_event,
        sync.on_event,
        push.follower.on_event,
    ]
    base.acceptance.membership_observers += [base.user_rooms.on_membership, encryption.shared_rooms.on_membership]


def _server(
    base: Foundation,
    rooms: RoomParts,
    encryption: EncryptionParts,
    sync: Sync,
    push: PushParts,
    accounts: AccountParts,
    appservices: Appservices,
    federation: FederationParts,
) -> Server:
    """What handlers work with: the parts, and those that nothing else needs."""
    config, clock, pool, rows, name = base.config, base.clock, base.database.pool, base.rows, base.server_name
    network, email = base.network, accounts.email
    listings = DirectoryRepository(pool)
    aliases = Aliases(
        rows.rooms,
        base.access,
        base.stream,
        network.transport,
        server_name=name,
        may_have=appservices.services.may_have_alias,
    )
    aliases.on_missing = appservices.queries.has_alias
    upgrades = Upgrades(
        base.access,
        base.registry,
        base.authoring,
        base.events,
        rows.rooms,
        rooms.profiles,
        rooms.succession.follow,
        base.missing,
        rooms.sending,
        server_name=name,
    )
    upgrades.on_aliases_changed = aliases.on_changed = appservices.interest.forget
    return Server(
        config=config,
        clock=clock,
        metrics=base.metrics,
        database=base.database,
        signing_key=base.signing_key,
        network=network,
        federation=federation,
        stream=base.stream,
        sessions=accounts.sessions,
        login=accounts.login,
        passwords=accounts.passwords,
        third_party_ids=accounts.third_party_ids,
        email=email,
        registration=accounts.registration,
        shared_secret_registration=SharedSecretRegistration(
            config.registration.shared_secret, accounts.registration, accounts.login, clock
        ),
        interactive_auth=InteractiveAuth(
            rows.accounts,
            accounts.login,
            accounts.registration,
            clock,
            None if email is None else email.validations,
        ),
        moderation=Moderation(rows.accounts, accounts.sessions, name),
        openid=OpenId(accounts.tokens, clock),
        reports=Reports(ReportRepository(pool), rows.accounts, base.access, clock, server_name=name),
        deactivation=Deactivation(rows.accounts, accounts.sessions, rooms.membership.leave_all),
        profiles=rooms.profiles,
        profile_lookup=ProfileLookup(rooms.profiles, network.transport, clock, server_name=name),
        account_data=base.account_data,
        filters=Filters(rows.user_data),
        rate_limits=accounts.rate_limits,
        access=base.access,
        aliases=aliases,
        creation=Creation(
            base.registry,
            base.authoring,
            aliases,
            rooms.membership,
            rooms.profiles,
            base.push_rules.load,
            server_name=name,
            default_version=config.rooms.default_version,
        ),
        directory=Directory(listings, rows.rooms, appservices.rows, base.access, network.transport, server_name=name),
        spaces=Spaces(base.access, RemoteSpaces(network.transport, clock, server_name=name)),
        upgrades=upgrades,
        room_tags=rooms.room_tags,
        user_directory=UserDirectory(listings),
        events=base.events,
        event_views=EventViews(base.client_events, rooms.aggregations, base.events, clock),
        membership=rooms.membership,
        sending=rooms.sending,
        media=build_content_repository(config, base.database, clock, base.metrics, network.media, network.web),
        relations=Relations(rows.relations, base.events, base.access, rooms.aggregations),
        timelines=rooms.timelines,
        user_rooms=base.user_rooms,
        push_rules=base.push_rules,
        pushers=push.pushers,
        push_follower=push.follower,
        notifications=Notifications(
            rows.unread,
            base.access,
            base.events,
            base.client_events,
            base.user_rooms,
            base.push_rules,
            rooms.receipts,
            clock,
        ),
        receipts=rooms.receipts,
        typing=rooms.typing,
        presence=rooms.presence,
        device_lists=encryption.device_lists,
        device_keys=encryption.device_keys,
        cross_signing=CrossSigning(
            encryption.cross_signing_rows, encryption.device_key_rows, encryption.device_keys, encryption.device_lists
        ),
        key_backup=KeyBackup(KeyBackupRepository(pool)),
        to_device=encryption.to_device,
        dehydrated_devices=DehydratedDevices(
            DehydratedDeviceRepository(pool), encryption.to_device, encryption.device_lists, base.stream
        ),
        sync=sync,
        appservices=appservices,
    )
