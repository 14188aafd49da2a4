"""Putting the server together: every part is made here, once, and handed to those that need it.

A line per part, in the order in which they need each other: what stands further down knows what stands further up.
"""

from __future__ import annotations

from collections.abc import Callable

from config.schema import Config
from federation.outbound.network import build_network
from homeserver.clock import Clock
from homeserver.http.context import Server
from homeserver.metrics import Metrics
from homeserver.services.account_data import AccountData
from homeserver.services.accounts.deactivation import Deactivation
from homeserver.services.accounts.interactive_auth import InteractiveAuth
from homeserver.services.accounts.login import Login
from homeserver.services.accounts.moderation import Moderation
from homeserver.services.accounts.openid import OpenId
from homeserver.services.accounts.passwords import Passwords
from homeserver.services.accounts.registration import Registration
from homeserver.services.accounts.sessions import Sessions
from homeserver.services.accounts.shared_secret import SharedSecretRegistration
from homeserver.services.accounts.third_party_ids import ThirdPartyIds
from homeserver.services.aggregations import Aggregations
from homeserver.services.appservices.assembly import Foundations, assemble
from homeserver.services.appservices.calls import ServiceCalls, ServiceClient
from homeserver.services.appservices.services import Services
from homeserver.services.changes import Changes
from homeserver.services.client_events import ClientEvents
from homeserver.services.email.transport import MailTransport
from homeserver.services.encryption.cross_signing import CrossSigning
from homeserver.services.encryption.dehydrated_devices import DehydratedDevices
from homeserver.services.encryption.device_keys import DeviceKeys
from homeserver.services.encryption.device_lists import DeviceLists
from homeserver.services.encryption.key_backup import KeyBackup
from homeserver.services.encryption.shared_rooms import SharedRooms
from homeserver.services.encryption.to_device import ToDevice
from homeserver.services.event_views import EventViews
from homeserver.services.federation.parts import Surroundings, build_federation
from homeserver.services.filters import Filters
from homeserver.services.media.service import build_content_repository
from homeserver.services.notifications import Notifications
from homeserver.services.notifier import Notifier
from homeserver.services.presence import Presence
from homeserver.services.profile_lookup import ProfileLookup
from homeserver.services.profiles import Profiles
from homeserver.services.push.gateway import PushGateway
from homeserver.services.push.parts import PushSurroundings, build_push
from homeserver.services.push_rules import PushRules
from homeserver.services.rate_limits import RateLimiter
from homeserver.services.receipts import Receipts
from homeserver.services.relations import Relations
from homeserver.services.remote import Network
from homeserver.services.reports import Reports
from homeserver.services.rooms.acceptance import Acceptance
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.aliases import Aliases
from homeserver.services.rooms.authoring import Authoring
from homeserver.services.rooms.creation import Creation
from homeserver.services.rooms.directory import Directory
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.member_profiles import MemberProfiles
from homeserver.services.rooms.membership import Membership
from homeserver.services.rooms.missing_state import MissingState
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.remote_spaces import RemoteSpaces
from homeserver.services.rooms.sending import Sending
from homeserver.services.rooms.spaces import Spaces
from homeserver.services.rooms.tags import RoomTags
from homeserver.services.rooms.thread_lookup import ThreadLookup
from homeserver.services.rooms.timelines import Timelines
from homeserver.services.rooms.transactions import Transactions
from homeserver.services.rooms.upgrades import Upgrades
from homeserver.services.rooms.user_rooms import UserRooms
from homeserver.services.stream import Stream
from homeserver.services.succession import Succession
from homeserver.services.sync.device_sections import DeviceSections
from homeserver.services.sync.room_sections import RoomSections
from homeserver.services.sync.service import Sync
from homeserver.services.typing import Typing
from homeserver.services.unread import UnreadCounting
from homeserver.services.user_directory import UserDirectory
from homeserver.signing_key import load_signing_key
from storage.accounts import AccountRepository
from storage.appservices import AppserviceRepository
from storage.cross_signing import CrossSigningRepository
from storage.database import Database
from storage.dehydrated_devices import DehydratedDeviceRepository
from storage.destinations import DestinationRepository
from storage.device_keys import DeviceKeyRepository
from storage.device_lists import DeviceListRepository
from storage.directory import DirectoryRepository
from storage.email_pushers import EmailPusherRepository
from storage.events import EventRepository
from storage.federation import FederationRepository
from storage.key_backup import KeyBackupRepository
from storage.partial_rooms import PartialRoomRepository
from storage.presence import PresenceRepository
from storage.pushers import PusherRepository
from storage.relations import RelationRepository
from storage.remote_device_lists import RemoteDeviceListRepository
from storage.reports import ReportRepository
from storage.rooms import RoomRepository
from storage.server_keys import ServerKeyRepository
from storage.snapshots import SnapshotRepository
from storage.stream import StreamRepository
from storage.threepids import ThreepidRepository
from storage.to_device import ToDeviceRepository
from storage.tokens import TokenRepository
from storage.unread import UnreadRepository
from storage.user_data import UserDataRepository


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
    metrics = Metrics()
    pool, name, caches = database.pool, config.server_name, config.caches
    accounts = AccountRepository(pool)
    rooms, event_rows, user_data = RoomRepository(pool), EventRepository(pool), UserDataRepository(pool)
    snapshots = SnapshotRepository(pool)
    notifier.use(metrics)
    stream = Stream(database, StreamRepository(snapshots), metrics)
    await stream.open(name)
    stream.on_published = notifier.wake_marked
    events = EventCache(event_rows, metrics, max_events=caches.events)
    account_data = AccountData(user_data, stream, notifier, metrics, max_users=caches.users)
    unread_rows = UnreadRepository(pool)
    push_rules = PushRules(unread_rows, account_data, stream, metrics, max_users=caches.users)
    registry = RoomRegistry(
        rooms,
        event_rows,
        snapshots,
        events,
        metrics,
        server_name=name,
        max_rooms=caches.rooms,
        load_counting=push_rules.index,
    )
    await registry.open()
    push_rules.rooms = registry.in_memory
    user_rooms = UserRooms(rooms, metrics, max_users=caches.users)
    access = Access(registry, events, snapshots, user_rooms, account_data)
    changes = Changes()
    changes.start(stream.current)
    signing_key = load_signing_key(config.signing_key_file)
    network = make_network(config, ServerKeyRepository(pool), DestinationRepository(pool), signing_key, metrics, clock)
    await network.open()
    acceptance = Acceptance(stream, events, push_rules.known_rules, server_name=name)
    authoring = Authoring(stream, events, clock, acceptance, server_name=name, signing_key=signing_key)
    missing_state = MissingState(events, push_rules.load)
    relation_rows = RelationRepository(pool)
    sending = Sending(
        access,
        authoring,
        events,
        relation_rows,
        Transactions(event_rows),
        ThreadLookup(events, unread_rows),
        missing_state,
    )
    profiles = Profiles(accounts, max_cached_profiles=caches.users)
    membership = Membership(
        access,
        sending,
        profiles,
        user_rooms,
        accounts,
        account_data,
        server_name=name,
        federates=config.federation.enabled,
    )
    profiles.on_changed = MemberProfiles(access, sending, user_rooms, events).carry
    counting = UnreadCounting(unread_rows, push_rules)
    receipts = Receipts(user_data, access, events, user_rooms, account_data, stream, notifier, changes, clock, counting)
    client_events = ClientEvents(events)
    aggregations = Aggregations(relation_rows, events, client_events, access)
    timelines = Timelines(events, access)
    sections = RoomSections(
        access,
        events,
        timelines,
        client_events,
        aggregations,
        receipts,
        account_data,
        clock,
        started_at=stream.started_at,
    )
    presence = Presence(
        PresenceRepository(pool),
        profiles,
        registry,
        user_rooms,
        stream,
        notifier,
        clock,
        enabled=config.presence.enabled,
    )
    profiles.on_renamed = presence.on_profile
    device_list_rows, device_key_rows = DeviceListRepository(pool), DeviceKeyRepository(pool)
    cross_signing_rows = CrossSigningRepository(pool)
    shared_rooms = SharedRooms(device_list_rows, registry, user_rooms, start=stream.current)
    device_lists = DeviceLists(device_list_rows, shared_rooms, registry, user_rooms, stream, notifier)
    device_keys = DeviceKeys(
        device_key_rows,
        cross_signing_rows,
        device_lists,
        metrics,
        clock,
        server_name=name,
        max_devices=caches.tokens,
    )
    to_device = ToDevice(
        ToDeviceRepository(pool), stream, notifier, metrics, clock, server_name=name, max_devices=caches.tokens
    )
    sync = Sync(
        stream,
        notifier,
        changes,
        registry,
        rooms,
        user_rooms,
        account_data,
        sections,
        presence,
        DeviceSections(to_device, device_keys, device_lists, max_devices=caches.tokens),
        config.limits,
    )
    typing = Typing(access, stream, notifier, changes, clock)
    push = build_push(
        PushSurroundings(
            config=config,
            gateway=push_gateway,
            rows=PusherRepository(pool),
            unread_rows=unread_rows,
            registry=registry,
            access=access,
            events=events,
            receipts=receipts,
            account_data=account_data,
            user_rooms=user_rooms,
            stream=stream,
            clock=clock,
            metrics=metrics,
        )
    )
    pushers, push_follower = push.pushers, push.follower
    await push_follower.open()
    receipts.on_read = push_follower.on_counts_moved

    def recount(user_id: str, position: int) -> None:
        receipts.forget_counts(user_id, registry.in_memory(), position)
        push_follower.on_counts_changed(user_id)

    account_data.on_ignored = recount
    acceptance.observers += [
        user_rooms.on_event,
        shared_rooms.on_event,
        typing.on_event,
        presence.on_event,
        sync.on_event,
        push_follower.on_event,
    ]
    acceptance.membership_observers += [user_rooms.on_membership, shared_rooms.on_membership]
    services = Services(name)
    service_rows = AppserviceRepository(pool)
    aliases = Aliases(rooms, access, stream, network.transport, server_name=name, may_have=services.may_have_alias)
    listings = DirectoryRepository(pool)
    room_tags = RoomTags(account_data)
    succession = Succession(access, room_tags, push_rules)
    membership.on_joined = succession.follow
    rate_limits = RateLimiter(config.rate_limits, clock)
    sessions = Sessions(accounts, clock, max_cached_tokens=caches.tokens, lifetimes=config.sessions)
    sessions.on_account_erased += [registry.erase, lambda user_id, _position: presence.on_profile(user_id, {})]
    sessions.on_devices_changed = device_lists.announce_pending

    def forget_user(user_id: str | None) -> None:
        profiles.forget(user_id)
        device_lists.look_again()

    sessions.on_user_changed += [forget_user, pushers.changed_elsewhere]
    sessions.on_devices_ended = pushers.devices_ended
    tokens = TokenRepository(pool)
    passwords = Passwords(accounts, sessions)
    threepids = ThreepidRepository(pool)
    third_party_ids = ThirdPartyIds(threepids, clock, pushers.changed_elsewhere)
    login = Login(name, accounts, passwords, sessions, rate_limits, tokens, clock, third_party_ids)
    email = None
    if mail_transport is not None:
        # Imported where it is wanted: the template engine takes memory, and time at the start.
        from homeserver.services.email_parts import build_email

        email = build_email(
            push,
            EmailPusherRepository(pool),
            mail_transport,
            threepids,
            accounts,
            passwords,
            sessions,
            rate_limits,
            signing_key,
        )
    registration = Registration(
        config.registration,
        name,
        accounts,
        passwords,
        login,
        clock,
        tokens,
        is_exclusive=services.is_reserved_user,
        has_email=email is not None,
    )
    base = Foundations(
        config=config,
        clock=clock,
        metrics=metrics,
        stream=stream,
        accounts=accounts,
        rooms=rooms,
        snapshots=snapshots,
        events=events,
        client_events=client_events,
        registry=registry,
        user_rooms=user_rooms,
        presence=presence,
        to_device=to_device,
        device_keys=device_keys,
        sessions=sessions,
        login=login,
    )
    appservices = assemble(services, service_rows, ServiceCalls(service_client), base)
    appservices.registrations.load()
    acceptance.observers.append(appservices.deliveries.on_event)
    acceptance.membership_observers.append(appservices.deliveries.on_membership)
    typing.observers.append(appservices.deliveries.on_typing)
    receipts.observers.append(appservices.deliveries.on_receipt)
    presence.observers.append(appservices.deliveries.on_presence)
    to_device.observers.append(appservices.deliveries.on_to_device)
    device_lists.observers.append(appservices.deliveries.on_device_list)
    device_keys.observers.append(appservices.deliveries.on_key_counts)
    profiles.on_missing = membership.on_missing = appservices.queries.has_user
    aliases.on_missing = appservices.queries.has_alias
    if config.jwt_login.enabled:
        _accept_jwt(config, login, accounts, registration)
    federation = build_federation(
        Surroundings(
            server_name=name,
            signing_key=signing_key,
            clock=clock,
            transport=network.transport,
            web=network.web,
            key_ring=network.keys,
            backoff=network.destinations,
            metrics=metrics,
            options=config.federation,
            stream=stream,
            notifier=notifier,
            changes=changes,
            registry=registry,
            events=events,
            access=access,
            acceptance=acceptance,
            authoring=authoring,
            missing=missing_state,
            sending=sending,
            timelines=timelines,
            membership=membership,
            user_rooms=user_rooms,
            rooms=rooms,
            event_rows=event_rows,
            snapshots=snapshots,
            repository=FederationRepository(pool),
            partial_rows=PartialRoomRepository(pool),
            typing=typing,
            receipts=receipts,
            presence=presence,
            device_keys=device_keys,
            device_lists=device_lists,
            device_list_rows=device_list_rows,
            remote_lists=RemoteDeviceListRepository(pool),
            to_device=to_device,
        )
    )
    federation.foreign_rooms.observers += [push_follower.on_event, appservices.deliveries.on_event]
    await federation.receiving.open()
    await federation.backfill.open()
    timelines.fill_back = federation.backfill.fill
    network.destinations.on_recovered.append(federation.sender.on_recovered)
    upgrades = Upgrades(
        access,
        registry,
        authoring,
        events,
        rooms,
        profiles,
        succession.follow,
        missing_state,
        sending,
        server_name=name,
    )
    upgrades.on_aliases_changed = aliases.on_changed = appservices.interest.forget
    return Server(
        config=config,
        clock=clock,
        metrics=metrics,
        database=database,
        signing_key=signing_key,
        network=network,
        federation=federation,
        stream=stream,
        sessions=sessions,
        login=login,
        passwords=passwords,
        third_party_ids=third_party_ids,
        email=email,
        registration=registration,
        shared_secret_registration=SharedSecretRegistration(
            config.registration.shared_secret, registration, login, clock
        ),
        interactive_auth=InteractiveAuth(
            accounts, login, registration, clock, None if email is None else email.validations
        ),
        moderation=Moderation(accounts, sessions, name),
        openid=OpenId(tokens, clock),
        reports=Reports(ReportRepository(pool), accounts, access, clock, server_name=name),
        deactivation=Deactivation(accounts, sessions, membership.leave_all),
        profiles=profiles,
        profile_lookup=ProfileLookup(profiles, network.transport, clock, server_name=name),
        account_data=account_data,
        filters=Filters(user_data),
        rate_limits=rate_limits,
        access=access,
        aliases=aliases,
        creation=Creation(
            registry,
            authoring,
            aliases,
            membership,
            profiles,
            push_rules.load,
            server_name=name,
            default_version=config.rooms.default_version,
        ),
        directory=Directory(listings, rooms, service_rows, access, network.transport, server_name=name),
        spaces=Spaces(access, RemoteSpaces(network.transport, clock, server_name=name)),
        upgrades=upgrades,
        room_tags=room_tags,
        user_directory=UserDirectory(listings),
        events=events,
        event_views=EventViews(client_events, aggregations, events, clock),
        membership=membership,
        sending=sending,
        media=build_content_repository(config, database, clock, metrics, network.media, network.web),
        relations=Relations(relation_rows, events, access, aggregations),
        timelines=timelines,
        user_rooms=user_rooms,
        push_rules=push_rules,
        pushers=pushers,
        push_follower=push_follower,
        notifications=Notifications(
            unread_rows, access, events, client_events, user_rooms, push_rules, receipts, clock
        ),
        receipts=receipts,
        typing=typing,
        presence=presence,
        device_lists=device_lists,
        device_keys=device_keys,
        cross_signing=CrossSigning(cross_signing_rows, device_key_rows, device_keys, device_lists),
        key_backup=KeyBackup(KeyBackupRepository(pool)),
        to_device=to_device,
        dehydrated_devices=DehydratedDevices(DehydratedDeviceRepository(pool), to_device, device_lists, stream),
        sync=sync,
        appservices=appservices,
    )


def _accept_jwt(config: Config, login: Login, accounts: AccountRepository, registration: Registration) -> None:
    # Imported where it is wanted: the cryptography that comes with it takes memory, and time at the start.
    from homeserver.services.accounts.jwt_login import LOGIN_TYPE, JwtLogin

    login.add_type(LOGIN_TYPE, JwtLogin(config.jwt_login, config.server_name, accounts, registration).authenticate)
