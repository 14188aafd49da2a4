"""Rooms shared with other servers: what comes from them, how this server lets others in, what it sends."""

from __future__ import annotations

from dataclasses import dataclass

from homeserver.building.foundation import Foundation
from homeserver.building.rooms import EncryptionParts, RoomParts
from homeserver.services.federation.backfill import Backfill
from homeserver.services.federation.closest_events import ClosestEvents
from homeserver.services.federation.dummy_events import DummyEvents
from homeserver.services.federation.edus.cached_keys import CachedKeys
from homeserver.services.federation.edus.device_lists import FederationLists
from homeserver.services.federation.edus.encryption import DurableEdus, FederationDevices, IncomingEncryption
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
from homeserver.services.federation.parts import FederationParts, RemoteRooms
from homeserver.services.federation.policy_servers import PolicyServers
from homeserver.services.federation.receiving import Receiving
from homeserver.services.federation.redactions import Redactions
from homeserver.services.federation.resident import Resident
from homeserver.services.federation.sending.sender import Sender
from homeserver.services.federation.taking_back import TakingBack
from homeserver.services.federation.third_party_invites import ThirdPartyInvites
from homeserver.services.federation.verification import Verification
from homeserver.services.rooms.branches import Branches
from storage.federation import FederationRepository
from storage.partial_rooms import PartialRoomRepository
from storage.remote_device_lists import RemoteDeviceListRepository


@dataclass(frozen=True, slots=True)
class _Events:
    """What takes in the events of others."""

    verification: Verification
    branches: Branches
    outliers: Outliers
    missing_events: MissingEvents
    receiving: Receiving
    redactions: Redactions
    policy_servers: PolicyServers
    incoming: IncomingEvents
    partial_rooms: PartialRooms
    foreign_rooms: ForeignRooms


@dataclass(frozen=True, slots=True)
class _Members:
    """What brings members of other servers into rooms here, and those of this one into rooms there."""

    resident: Resident
    inviting: Inviting
    third_party_invites: ThirdPartyInvites
    joining: Joining


@dataclass(frozen=True, slots=True)
class _Edus:
    """What carries all that is no event."""

    outgoing: OutgoingEdus
    incoming: IncomingEdus
    cached_keys: CachedKeys


async def build_federation(base: Foundation, rooms: RoomParts, encryption: EncryptionParts) -> FederationParts:
    """Makes every part, and lets rooms reach beyond this server."""
    transport, repository = base.network.transport, FederationRepository(base.database.pool)
    events = _build_events(base, repository)
    members = _build_members(base, rooms, events)
    sender = Sender(
        transport,
        base.network.destinations,
        repository,
        base.events,
        base.metrics,
        base.clock,
        base.config.federation,
        server_name=base.server_name,
    )
    base.acceptance.outgoing_observers.append(sender.on_outgoing)
    base.network.destinations.on_recovered.append(sender.on_recovered)
    edus = _build_edus(base, rooms, encryption, sender)
    dummy_events = DummyEvents(base.access, rooms.sending, base.clock)
    base.acceptance.observers.append(dummy_events.on_event)
    backfill = Backfill(
        base.stream,
        base.events,
        base.rows.events,
        transport,
        events.verification,
        events.missing_events,
        events.redactions,
    )
    await events.redactions.open()
    await backfill.open()
    rooms.timelines.fill_back = backfill.fill
    rooms.membership.remote = RemoteRooms(members.joining, members.inviting)
    rooms.sending.guard = GuardedSending(
        base.access, base.events, events.policy_servers, members.resident, events.incoming, events.receiving
    )
    return FederationParts(
        incoming=events.incoming,
        transactions=IncomingTransactions(events.incoming, edus.incoming, repository, base.clock),
        receiving=events.receiving,
        redactions=events.redactions,
        resident=members.resident,
        inviting=members.inviting,
        third_party_invites=members.third_party_invites,
        foreign_rooms=events.foreign_rooms,
        joining=members.joining,
        history=History(base.access, members.resident, base.events, events.branches),
        backfill=backfill,
        closest_events=ClosestEvents(rooms.timelines, base.events, backfill, transport),
        dummy_events=dummy_events,
        sender=sender,
        cached_keys=edus.cached_keys,
        incoming_edus=edus.incoming,
        outgoing_edus=edus.outgoing,
        branches=events.branches,
        verification=events.verification,
        missing_events=events.missing_events,
        outliers=events.outliers,
        partial_rooms=events.partial_rooms,
    )


def _build_events(base: Foundation, repository: FederationRepository) -> _Events:
    transport, partial_rows = base.network.transport, PartialRoomRepository(base.database.pool)
    verification = Verification(base.network.keys)
    branches = Branches(base.events, base.rows.snapshots)
    outliers = Outliers(base.stream, base.events)
    missing_events = MissingEvents(transport, verification, outliers, base.events, branches)
    redactions = Redactions(base.events, branches, repository)
    receiving = Receiving(base.stream, base.events, base.acceptance, branches, base.missing, redactions)
    policy_servers = PolicyServers(transport, base.clock)
    holding = Holding(partial_rows)
    incoming = IncomingEvents(
        base.registry, base.events, verification, missing_events, receiving, policy_servers, holding
    )
    partial_rooms = PartialRooms(
        partial_rows,
        base.registry,
        incoming,
        holding,
        missing_events,
        outliers,
        base.rows.snapshots,
        base.acceptance,
        base.missing,
        base.stream,
        base.changes,
        base.notifier,
    )
    foreign_rooms = ForeignRooms(
        base.registry, base.rows.rooms, base.user_rooms, base.events, base.stream, base.notifier, base.changes
    )
    incoming.take_back = TakingBack(foreign_rooms, verification, incoming.lock, server_name=base.server_name).receive
    return _Events(
        verification=verification,
        branches=branches,
        outliers=outliers,
        missing_events=missing_events,
        receiving=receiving,
        redactions=redactions,
        policy_servers=policy_servers,
        incoming=incoming,
        partial_rooms=partial_rooms,
        foreign_rooms=foreign_rooms,
    )


def _build_members(base: Foundation, rooms: RoomParts, events: _Events) -> _Members:
    transport, name, signing_key = base.network.transport, base.server_name, base.signing_key
    resident = Resident(
        base.access,
        base.authoring,
        base.missing,
        base.events,
        events.verification,
        events.incoming,
        events.receiving,
        events.policy_servers,
        rooms.membership.authorise_join,
        server_name=name,
        signing_key=signing_key,
    )
    inviting = Inviting(
        base.registry,
        base.events,
        events.foreign_rooms,
        resident,
        events.verification,
        events.incoming,
        events.receiving,
        events.policy_servers,
        transport,
        rooms.membership.check_invitable,
        server_name=name,
        signing_key=signing_key,
    )
    third_party_invites = ThirdPartyInvites(
        base.access,
        rooms.sending,
        rooms.membership,
        resident,
        inviting,
        transport,
        base.network.web,
        server_name=name,
    )
    joining = Joining(
        base.registry,
        base.events,
        events.foreign_rooms,
        Handshake(transport, base.clock, server_name=name, signing_key=signing_key),
        events.verification,
        events.outliers,
        events.missing_events,
        events.incoming,
        events.receiving,
        events.partial_rooms,
    )
    return _Members(resident=resident, inviting=inviting, third_party_invites=third_party_invites, joining=joining)


def _build_edus(base: Foundation, rooms: RoomParts, encryption: EncryptionParts, sender: Sender) -> _Edus:
    transport, name = base.network.transport, base.server_name
    outgoing = OutgoingEdus(sender)
    rooms.typing.local_observers.append(outgoing.on_typing)
    rooms.receipts.observers.append(outgoing.on_receipt)
    rooms.presence.local_observers.append(outgoing.on_presence)
    incoming = IncomingEdus(base.registry, rooms.typing, rooms.receipts, rooms.presence)
    remote_lists = RemoteDeviceListRepository(base.database.pool)
    cached_keys = CachedKeys(FederationKeys(transport), transport, remote_lists, base.stream, server_name=name)
    incoming.handlers |= IncomingEncryption(
        encryption.to_device, encryption.device_lists, base.user_rooms, cached_keys, server_name=name
    ).handlers
    if base.config.federation.enabled:
        encryption.device_keys.remote = cached_keys
        encryption.to_device.remote = FederationDevices(sender)
        encryption.device_lists.remote = FederationLists(
            encryption.device_list_rows, base.registry, encryption.device_keys, DurableEdus(sender), server_name=name
        )
    return _Edus(outgoing=outgoing, incoming=incoming, cached_keys=cached_keys)
