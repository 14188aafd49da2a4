"""What rooms shared with other servers are made of, put together."""

from __future__ import annotations

from dataclasses import dataclass

from config.schema import Federation
from homeserver.clock import Clock
from homeserver.metrics import Metrics
from homeserver.services.changes import Changes
from homeserver.services.encryption.device_keys import DeviceKeys
from homeserver.services.encryption.device_lists import DeviceLists
from homeserver.services.encryption.to_device import ToDevice
from homeserver.services.federation.backfill import Backfill
from homeserver.services.federation.closest_events import ClosestEvents
from homeserver.services.federation.dummy_events import DummyEvents
from homeserver.services.federation.edus.cached_keys import CachedKeys
from homeserver.services.federation.edus.device_lists import FederationLists
from homeserver.services.federation.edus.encryption import (
    DurableEdus,
    FederationDevices,
    IncomingEncryption,
)
from homeserver.services.federation.edus.incoming import IncomingEdus
from homeserver.services.federation.edus.keys import FederationKeys
from homeserver.services.federation.edus.outgoing import OutgoingEdus
from homeserver.services.federation.foreign_rooms import ForeignRooms
from homeserver.services.federation.guarded_sending import GuardedSending
from homeserver.services.federation.handshake import Handshake
from homeserver.services.federation.history import History
from homeserver.services.federation.holding import Holding
from homeserver.services.federation.incoming_events import IncomingEvents
from homeserver.services.federation.incoming_transactions import IncomingTransactions
from homeserver.services.federation.inviting import Inviting
from homeserver.services.federation.joining import Joining
from homeserver.services.federation.missing_events import MissingEvents
from homeserver.services.federation.outliers import Outliers
from homeserver.services.federation.partial_rooms import PartialRooms
from homeserver.services.federation.policy_servers import PolicyServers
from homeserver.services.federation.receiving import Receiving
from homeserver.services.federation.resident import Resident
from homeserver.services.federation.sending.delivery import Backoff
from homeserver.services.federation.sending.sender import Sender
from homeserver.services.federation.taking_back import TakingBack
from homeserver.services.federation.third_party_invites import ThirdPartyInvites
from homeserver.services.federation.verification import Verification
from homeserver.services.media.web import Web
from homeserver.services.notifier import Notifier
from homeserver.services.presence import Presence
from homeserver.services.receipts import Receipts
from homeserver.services.remote import KeyRing, Transport
from homeserver.services.rooms.acceptance import Acceptance
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.authoring import Authoring
from homeserver.services.rooms.branches import Branches
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.membership import Membership
from homeserver.services.rooms.missing_state import MissingState
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.sending import Sending
from homeserver.services.rooms.timelines import Timelines
from homeserver.services.rooms.user_rooms import UserRooms
from homeserver.services.stream import Stream
from homeserver.services.typing import Typing
from matrix.signatures import SigningKey
from storage.device_lists import DeviceListRepository
from storage.events import EventRepository
from storage.federation import FederationRepository
from storage.partial_rooms import PartialRoomRepository
from storage.remote_device_lists import RemoteDeviceListRepository
from storage.rooms import RoomRepository
from storage.snapshots import SnapshotRepository


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the federation stands on: the parts of the server that it has in common with all else."""

    server_name: str
    signing_key: SigningKey
    clock: Clock
    transport: Transport
    web: Web
    key_ring: KeyRing
    backoff: Backoff
    metrics: Metrics
    options: Federation
    stream: Stream
    notifier: Notifier
    changes: Changes
    registry: RoomRegistry
    events: EventCache
    access: Access
    acceptance: Acceptance
    authoring: Authoring
    missing: MissingState
    sending: Sending
    timelines: Timelines
    membership: Membership
    user_rooms: UserRooms
    rooms: RoomRepository
    event_rows: EventRepository
    snapshots: SnapshotRepository
    repository: FederationRepository
    partial_rows: PartialRoomRepository
    typing: Typing
    receipts: Receipts
    presence: Presence
    device_keys: DeviceKeys
    device_lists: DeviceLists
    device_list_rows: DeviceListRepository
    remote_lists: RemoteDeviceListRepository
    to_device: ToDevice


class RemoteRooms:
    """The `RemoteMembership` of this server: how its users get into rooms of others, and out of them."""

    def __init__(self, joining: Joining, inviting: Inviting) -> None:
        self.join = joining.join
        self.join_through = joining.join_through
        self.knock = joining.knock
        self.leave = joining.leave
        self.invite = inviting.invite


@dataclass(frozen=True, slots=True)
class FederationParts:
    """The services that handlers of the server-server API work with."""

    incoming: IncomingEvents
    transactions: IncomingTransactions
    receiving: Receiving
    resident: Resident
    inviting: Inviting
    third_party_invites: ThirdPartyInvites
    foreign_rooms: ForeignRooms
    joining: Joining
    history: History
    backfill: Backfill
    closest_events: ClosestEvents
    dummy_events: DummyEvents
    sender: Sender
    cached_keys: CachedKeys
    incoming_edus: IncomingEdus
    outgoing_edus: OutgoingEdus
    branches: Branches
    verification: Verification
    missing_events: MissingEvents
    outliers: Outliers
    partial_rooms: PartialRooms


def build_federation(around: Surroundings) -> FederationParts:
    """Makes every part, and lets memberships reach beyond this server."""
    verification = Verification(around.key_ring)
    branches = Branches(around.events, around.snapshots)
    outliers = Outliers(around.stream, around.events)
    missing_events = MissingEvents(around.transport, verification, outliers, around.events, branches)
    receiving = Receiving(around.stream, around.events, around.acceptance, branches, around.missing, around.repository)
    policy_servers = PolicyServers(around.transport, around.clock)
    holding = Holding(around.partial_rows)
    incoming = IncomingEvents(
        around.registry, around.events, verification, missing_events, receiving, policy_servers, holding
    )
    partial_rooms = PartialRooms(
        around.partial_rows,
        around.registry,
        incoming,
        holding,
        missing_events,
        outliers,
        around.snapshots,
        around.acceptance,
        around.missing,
        around.stream,
        around.changes,
        around.notifier,
    )
    foreign_rooms = ForeignRooms(
        around.registry,
        around.rooms,
        around.user_rooms,
        around.events,
        around.stream,
        around.notifier,
        around.changes,
    )
    incoming.take_back = TakingBack(foreign_rooms, verification, incoming.lock, server_name=around.server_name).receive
    resident = Resident(
        around.access,
        around.authoring,
        around.missing,
        around.events,
        verification,
        incoming,
        receiving,
        policy_servers,
        around.membership.authorise_join,
        server_name=around.server_name,
        signing_key=around.signing_key,
    )
    inviting = Inviting(
        around.registry,
        around.events,
        foreign_rooms,
        resident,
        verification,
        incoming,
        receiving,
        policy_servers,
        around.transport,
        around.membership.check_invitable,
        server_name=around.server_name,
        signing_key=around.signing_key,
    )
    third_party_invites = ThirdPartyInvites(
        around.access,
        around.sending,
        around.membership,
        resident,
        inviting,
        around.transport,
        around.web,
        server_name=around.server_name,
    )
    handshake = Handshake(
        around.transport, around.clock, server_name=around.server_name, signing_key=around.signing_key
    )
    joining = Joining(
        around.registry,
        around.events,
        foreign_rooms,
        handshake,
        verification,
        outliers,
        missing_events,
        incoming,
        receiving,
        partial_rooms,
    )
    sender = Sender(
        around.transport,
        around.backoff,
        around.repository,
        around.events,
        around.metrics,
        around.clock,
        around.options,
        server_name=around.server_name,
    )
    around.acceptance.outgoing_observers.append(sender.on_outgoing)
    dummy_events = DummyEvents(around.access, around.sending, around.clock)
    around.acceptance.observers.append(dummy_events.on_event)
    outgoing_edus = OutgoingEdus(sender)
    around.typing.local_observers.append(outgoing_edus.on_typing)
    around.receipts.observers.append(outgoing_edus.on_receipt)
    around.presence.local_observers.append(outgoing_edus.on_presence)
    incoming_edus = IncomingEdus(around.registry, around.typing, around.receipts, around.presence)
    cached_keys = CachedKeys(
        FederationKeys(around.transport),
        around.transport,
        around.remote_lists,
        around.stream,
        server_name=around.server_name,
    )
    incoming_encryption = IncomingEncryption(
        around.to_device,
        around.device_lists,
        around.user_rooms,
        cached_keys,
        server_name=around.server_name,
    )
    incoming_edus.handlers |= incoming_encryption.handlers
    if around.options.enabled:
        around.device_keys.remote = cached_keys
        around.to_device.remote = FederationDevices(sender)
        around.device_lists.remote = FederationLists(
            around.device_list_rows,
            around.registry,
            around.device_keys,
            DurableEdus(sender),
            server_name=around.server_name,
        )
    backfill = Backfill(around.stream, around.events, around.event_rows, around.transport, verification, missing_events)
    around.membership.remote = RemoteRooms(joining, inviting)
    around.sending.guard = GuardedSending(around.access, around.events, policy_servers, resident, incoming, receiving)
    return FederationParts(
        incoming=incoming,
        transactions=IncomingTransactions(incoming, incoming_edus, around.repository, around.clock),
        receiving=receiving,
        resident=resident,
        inviting=inviting,
        third_party_invites=third_party_invites,
        foreign_rooms=foreign_rooms,
        joining=joining,
        history=History(around.access, resident, around.events, branches),
        backfill=backfill,
        closest_events=ClosestEvents(around.timelines, around.events, backfill, around.transport),
        dummy_events=dummy_events,
        sender=sender,
        cached_keys=cached_keys,
        incoming_edus=incoming_edus,
        outgoing_edus=outgoing_edus,
        branches=branches,
        verification=verification,
        missing_events=missing_events,
        outliers=outliers,
        partial_rooms=partial_rooms,
    )
