"""Pushes, and mails about what is unread."""

from __future__ import annotations

from dataclasses import dataclass

from homeserver.building.foundation import Foundation
from homeserver.building.rooms import RoomParts
from homeserver.services.push.delivery import Delivery
from homeserver.services.push.following import PushFollower
from homeserver.services.push.gateway import PushGateway
from homeserver.services.push.notification import Notifications
from homeserver.services.push.pushers import Pushers
from homeserver.services.push.rules import UsersRules
from homeserver.services.push.totals import UnreadTotals
from storage.pushers import PusherRepository


@dataclass(frozen=True, slots=True)
class PushParts:
    """The services of pushing, and what mails about unread messages take of them."""

    pushers: Pushers
    rules: UsersRules
    notifications: Notifications
    follower: PushFollower


def build_push(base: Foundation, rooms: RoomParts, gateway: PushGateway) -> PushParts:
    """Makes them."""
    config, registry, events, metrics = base.config, base.registry, base.events, base.metrics
    rows, unread_rows = PusherRepository(base.database.pool), base.rows.unread
    pushers = Pushers(
        rows,
        metrics,
        registry.in_memory,
        max_users=config.caches.users,
        max_per_user=config.push.max_pushers_per_user,
    )
    totals = UnreadTotals(rows, registry, base.user_rooms, rooms.receipts)
    notifications = Notifications(
        base.access,
        events,
        rooms.receipts,
        unread_rows,
        totals,
        registry,
        base.user_rooms,
        base.account_data,
    )
    rules = UsersRules(base.account_data, events, max_users=config.caches.users)
    follower = PushFollower(
        rows,
        unread_rows,
        pushers,
        Delivery(gateway, pushers, notifications, base.clock, metrics, config.push),
        registry,
        events,
        rules,
        base.user_rooms,
        base.stream,
        base.clock,
        metrics,
    )
    return PushParts(pushers=pushers, rules=rules, notifications=notifications, follower=follower)
