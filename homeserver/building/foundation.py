"""What everything else stands on: the database's tables, the stream, the rooms in memory, the way to other servers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from config.schema import Config
from homeserver.clock import Clock
from homeserver.metrics import Metrics
from homeserver.services.account_data import AccountData
from homeserver.services.changes import Changes
from homeserver.services.client_events import ClientEvents
from homeserver.services.notifier import Notifier
from homeserver.services.push_rules import PushRules
from homeserver.services.remote import Network
from homeserver.services.rooms.acceptance import Acceptance
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.authoring import Authoring
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.missing_state import MissingState
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.user_rooms import UserRooms
from homeserver.services.stream import Stream
from homeserver.signing_key import load_signing_key
from matrix.signatures import SigningKey
from storage.accounts import AccountRepository
from storage.database import Database
from storage.destinations import DestinationRepository
from storage.events import EventRepository
from storage.relations import RelationRepository
from storage.rooms import RoomRepository
from storage.server_keys import ServerKeyRepository
from storage.snapshots import SnapshotRepository
from storage.stream import StreamRepository
from storage.unread import UnreadRepository
from storage.user_data import UserDataRepository


@dataclass(frozen=True, slots=True)
class Rows:
    """Repositories that more than one part reads."""

    accounts: AccountRepository
    rooms: RoomRepository
    events: EventRepository
    snapshots: SnapshotRepository
    relations: RelationRepository
    unread: UnreadRepository
    user_data: UserDataRepository


@dataclass(frozen=True, slots=True)
class Foundation:
    """The parts that all others have in common."""

    config: Config
    clock: Clock
    metrics: Metrics
    database: Database
    rows: Rows
    signing_key: SigningKey
    network: Network
    stream: Stream
    notifier: Notifier
    changes: Changes
    account_data: AccountData
    push_rules: PushRules
    events: EventCache
    client_events: ClientEvents
    registry: RoomRegistry
    user_rooms: UserRooms
    access: Access
    acceptance: Acceptance
    authoring: Authoring
    missing: MissingState

    @property
    def server_name(self) -> str:
        """The name that this server has everywhere."""
        return self.config.server_name


async def lay_foundation(
    config: Config, database: Database, clock: Clock, notifier: Notifier, make_network: Callable[..., Network]
) -> Foundation:
    """Makes these parts: from here on this process is the database's only writer."""
    metrics = Metrics()
    pool, name, caches = database.pool, config.server_name, config.caches
    rows = Rows(
        accounts=AccountRepository(pool),
        rooms=RoomRepository(pool),
        events=EventRepository(pool),
        snapshots=SnapshotRepository(pool),
        relations=RelationRepository(pool),
        unread=UnreadRepository(pool),
        user_data=UserDataRepository(pool),
    )
    notifier.use(metrics)
    stream = Stream(database, StreamRepository(rows.snapshots), metrics)
    await stream.open(name)
    stream.on_published = notifier.wake_marked
    events = EventCache(rows.events, metrics, max_events=caches.events)
    account_data = AccountData(rows.user_data, stream, notifier, metrics, max_users=caches.users)
    push_rules = PushRules(rows.unread, account_data, stream, metrics, max_users=caches.users)
    registry = RoomRegistry(
        rows.rooms,
        rows.events,
        rows.snapshots,
        events,
        metrics,
        server_name=name,
        max_rooms=caches.rooms,
        load_counting=push_rules.index,
    )
    await registry.open()
    push_rules.rooms = registry.in_memory
    user_rooms = UserRooms(rows.rooms, metrics, max_users=caches.users)
    changes = Changes()
    changes.start(stream.current)
    signing_key = load_signing_key(config.signing_key_file)
    network = make_network(config, ServerKeyRepository(pool), DestinationRepository(pool), signing_key, metrics, clock)
    await network.open()
    acceptance = Acceptance(stream, events, push_rules.known_rules, server_name=name)
    return Foundation(
        config=config,
        clock=clock,
        metrics=metrics,
        database=database,
        rows=rows,
        signing_key=signing_key,
        network=network,
        stream=stream,
        notifier=notifier,
        changes=changes,
        account_data=account_data,
        push_rules=push_rules,
        events=events,
        client_events=ClientEvents(events),
        registry=registry,
        user_rooms=user_rooms,
        access=Access(registry, events, rows.snapshots, user_rooms, account_data),
        acceptance=acceptance,
        authoring=Authoring(stream, events, clock, acceptance, server_name=name, signing_key=signing_key),
        missing=MissingState(events, push_rules.load),
    )
