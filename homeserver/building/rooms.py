"""What is done in rooms, and told of them: events, members, receipts, typing, presence, devices, and /sync."""

from __future__ import annotations

from dataclasses import dataclass

from homeserver.building.foundation import Foundation
from homeserver.services.aggregations import Aggregations
from homeserver.services.encryption.device_keys import DeviceKeys
from homeserver.services.encryption.device_lists import DeviceLists
from homeserver.services.encryption.shared_rooms import SharedRooms
from homeserver.services.encryption.to_device import ToDevice
from homeserver.services.presence import Presence
from homeserver.services.profiles import Profiles
from homeserver.services.receipts import Receipts
from homeserver.services.rooms.member_profiles import MemberProfiles
from homeserver.services.rooms.membership import Membership
from homeserver.services.rooms.sending import Sending
from homeserver.services.rooms.tags import RoomTags
from homeserver.services.rooms.thread_lookup import ThreadLookup
from homeserver.services.rooms.timelines import Timelines
from homeserver.services.rooms.transactions import Transactions
from homeserver.services.succession import Succession
from homeserver.services.sync.device_sections import DeviceSections
from homeserver.services.sync.room_sections import RoomSections
from homeserver.services.sync.service import Sync
from homeserver.services.typing import Typing
from homeserver.services.unread import UnreadCounting
from storage.cross_signing import CrossSigningRepository
from storage.device_keys import DeviceKeyRepository
from storage.device_lists import DeviceListRepository
from storage.presence import PresenceRepository
from storage.to_device import ToDeviceRepository


@dataclass(frozen=True, slots=True)
class RoomParts:
    """Services of rooms."""

    sending: Sending
    profiles: Profiles
    membership: Membership
    succession: Succession
    room_tags: RoomTags
    receipts: Receipts
    aggregations: Aggregations
    timelines: Timelines
    typing: Typing
    presence: Presence


@dataclass(frozen=True, slots=True)
class EncryptionParts:
    """Services of devices that encrypt."""

    device_key_rows: DeviceKeyRepository
    device_list_rows: DeviceListRepository
    cross_signing_rows: CrossSigningRepository
    shared_rooms: SharedRooms
    device_lists: DeviceLists
    device_keys: DeviceKeys
    to_device: ToDevice


def build_rooms(base: Foundation) -> RoomParts:
    """Makes them, and lets what becomes of profiles be seen in rooms."""
    config, rows, events, access = base.config, base.rows, base.events, base.access
    sending = Sending(
        access,
        base.authoring,
        events,
        rows.relations,
        Transactions(rows.events),
        ThreadLookup(events, rows.unread),
        base.missing,
    )
    profiles = Profiles(rows.accounts, max_cached_profiles=config.caches.users)
    membership = Membership(
        access,
        sending,
        profiles,
        base.user_rooms,
        rows.accounts,
        base.account_data,
        server_name=base.server_name,
        federates=config.federation.enabled,
    )
    profiles.on_changed = MemberProfiles(access, sending, base.user_rooms, events).carry
    room_tags = RoomTags(base.account_data)
    succession = Succession(access, room_tags, base.push_rules)
    membership.on_joined.append(succession.follow)
    receipts = Receipts(
        rows.user_data,
        access,
        events,
        base.user_rooms,
        base.account_data,
        base.stream,
        base.notifier,
        base.changes,
        base.clock,
        UnreadCounting(rows.unread, base.push_rules),
    )
    presence = Presence(
        PresenceRepository(base.database.pool),
        profiles,
        base.registry,
        base.user_rooms,
        base.stream,
        base.notifier,
        base.clock,
        enabled=config.presence.enabled,
    )
    profiles.on_renamed = presence.on_profile
    return RoomParts(
        sending=sending,
        profiles=profiles,
        membership=membership,
        succession=succession,
        room_tags=room_tags,
        receipts=receipts,
        aggregations=Aggregations(rows.relations, events, base.client_events, access),
        timelines=Timelines(events, access),
        typing=Typing(access, base.stream, base.notifier, base.changes, base.clock),
        presence=presence,
    )


def build_encryption(base: Foundation) -> EncryptionParts:
    """Makes them."""
    pool, stream, notifier = base.database.pool, base.stream, base.notifier
    device_list_rows, device_key_rows = DeviceListRepository(pool), DeviceKeyRepository(pool)
    cross_signing_rows = CrossSigningRepository(pool)
    shared_rooms = SharedRooms(device_list_rows, base.registry, base.user_rooms, start=stream.current)
    device_lists = DeviceLists(device_list_rows, shared_rooms, base.registry, base.user_rooms, stream, notifier)
    max_devices = base.config.caches.tokens
    device_keys = DeviceKeys(
        device_key_rows,
        cross_signing_rows,
        device_lists,
        base.metrics,
        base.clock,
        server_name=base.server_name,
        max_devices=max_devices,
    )
    to_device = ToDevice(
        ToDeviceRepository(pool),
        stream,
        notifier,
        base.metrics,
        base.clock,
        server_name=base.server_name,
        max_devices=max_devices,
    )
    return EncryptionParts(
        device_key_rows=device_key_rows,
        device_list_rows=device_list_rows,
        cross_signing_rows=cross_signing_rows,
        shared_rooms=shared_rooms,
        device_lists=device_lists,
        device_keys=device_keys,
        to_device=to_device,
    )


def build_sync(base: Foundation, rooms: RoomParts, encryption: EncryptionParts) -> Sync:
    """Makes what tells clients the news."""
    sections = RoomSections(
        base.access,
        base.events,
        rooms.timelines,
        base.client_events,
        rooms.aggregations,
        rooms.receipts,
        base.account_data,
        base.clock,
        started_at=base.stream.started_at,
    )
    return Sync(
        base.stream,
        base.notifier,
        base.changes,
        base.registry,
        base.rows.rooms,
        base.user_rooms,
        base.account_data,
        sections,
        rooms.presence,
        DeviceSections(
            encryption.to_device,
            encryption.device_keys,
            encryption.device_lists,
            max_devices=base.config.caches.tokens,
        ),
        base.config.limits,
    )
