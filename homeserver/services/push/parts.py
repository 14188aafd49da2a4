"""All that pushing takes, put together."""

from __future__ import annotations

from dataclasses import dataclass

from config.schema import Config
from homeserver.clock import Clock
from homeserver.metrics import Metrics
from homeserver.services.account_data import AccountData
from homeserver.services.push.delivery import Delivery
from homeserver.services.push.following import PushFollower
from homeserver.services.push.gateway import PushGateway
from homeserver.services.push.notification import Notifications
from homeserver.services.push.pushers import Pushers
from homeserver.services.push.rules import UsersRules
from homeserver.services.push.totals import UnreadTotals
from homeserver.services.receipts import Receipts
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.user_rooms import UserRooms
from homeserver.services.stream import Stream
from storage.pushers import PusherRepository
from storage.unread import UnreadRepository


@dataclass(frozen=True, slots=True)
class PushSurroundings:
    """What pushing works with."""

    config: Config
    gateway: PushGateway
    rows: PusherRepository
    unread_rows: UnreadRepository
    registry: RoomRegistry
    access: Access
    events: EventCache
    receipts: Receipts
    account_data: AccountData
    user_rooms: UserRooms
    stream: Stream
    clock: Clock
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class PushParts:
    """The services of pushing, and what mails about unread messages take of them."""

    around: PushSurroundings
    pushers: Pushers
    rules: UsersRules
    notifications: Notifications
    follower: PushFollower


def build_push(around: PushSurroundings) -> PushParts:
    """Makes every part."""
    config, registry, events, metrics = around.config, around.registry, around.events, around.metrics
    pushers = Pushers(
        around.rows,
        metrics,
        registry.in_memory,
        max_users=config.caches.users,
        max_per_user=config.push.max_pushers_per_user,
    )
    totals = UnreadTotals(around.rows, registry, around.user_rooms, around.receipts)
    notifications = Notifications(
        around.access,
        events,
        around.receipts,
        around.unread_rows,
        totals,
        registry,
        around.user_rooms,
        around.account_data,
    )
    rules = UsersRules(around.account_data, events, max_users=config.caches.users)
    follower = PushFollower(
        around.rows,
        around.unread_rows,
        pushers,
        Delivery(around.gateway, pushers, notifications, around.clock, metrics, config.push),
        registry,
        events,
        rules,
        around.user_rooms,
        around.stream,
        around.clock,
        metrics,
    )
    return PushParts(around=around, pushers=pushers, rules=rules, notifications=notifications, follower=follower)
