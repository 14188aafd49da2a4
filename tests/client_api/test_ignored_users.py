"""Ignored users: https://spec.matrix.org/v1.19/client-server-api/#ignoring-users"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.client import Homeserver, User
from tests.client_api.support import encode, joined, make_room, page_through, timeline_ids


async def ignore(user: User, content: dict[str, Any]) -> None:
    path = f"user/{encode(user.user_id)}/account_data/m.ignored_user_list"
    (await user.request("PUT", path, content)).ok()


def ids(events: list[dict[str, Any]]) -> list[str]:
    return [event["event_id"] for event in events]


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def carol(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def test_messages_of_ignored_users_are_not_shown_and_their_state_is(alice: User, bob: User, carol: User) -> None:
    power = {"state_default": 0}
    room_id = await make_room(bob, carol, creator=alice, power_level_content_override=power)
    earlier = await bob.send(room_id, "before")
    await ignore(alice, {"ignored_users": {bob.user_id: {}}})
    since = (await alice.sync())["next_batch"]
    hidden = await bob.send(room_id, "hidden")
    topic = await bob.set_state(room_id, "m.room.topic", {"topic": "of bob"})
    shown = await carol.send(room_id, "shown")
    assert timeline_ids(joined(await alice.sync(since), room_id)) == [topic, shown]
    assert timeline_ids(joined(await carol.sync(since), room_id)) == [hidden, topic, shown]
    limited = joined(await alice.sync(since, filter='{"room":{"timeline":{"limit":1}}}'), room_id)
    assert (timeline_ids(limited), limited["timeline"]["limited"]) == ([shown], True)
    paged = ids(await page_through(alice, room_id, "b", limit=2))
    assert paged[:2] == [shown, topic]
    assert not {hidden, earlier} & set(paged)
    (await alice.in_room("GET", room_id, f"event/{encode(hidden)}")).error(404, "M_NOT_FOUND")
    (await alice.in_room("GET", room_id, f"event/{encode(topic)}")).ok()
    context = (await alice.in_room("GET", room_id, f"context/{encode(shown)}")).ok()
    assert ids(context["events_before"])[0] == topic
    await ignore(alice, {"ignored_users": {}})
    again = joined(await alice.sync(since), room_id)
    assert timeline_ids(again) == [hidden, topic, shown]
    assert hidden in ids(await page_through(alice, room_id, "b", limit=2))


async def test_a_waiting_sync_waits_on_when_an_ignored_user_writes(alice: User, bob: User, carol: User) -> None:
    room_id = await make_room(bob, carol, creator=alice)
    await ignore(alice, {"ignored_users": {bob.user_id: {}}})
    since = (await alice.sync())["next_batch"]
    waiting = asyncio.create_task(alice.sync(since, timeout=10_000))
    others = asyncio.create_task(carol.sync(since, timeout=10_000))
    hidden = await bob.send(room_id, "hidden")
    assert timeline_ids(joined(await others, room_id)) == [hidden]
    shown = await carol.send(room_id, "shown")
    assert timeline_ids(joined(await waiting, room_id)) == [shown]


async def test_invites_of_ignored_users_are_not_shown(alice: User, bob: User) -> None:
    await ignore(alice, {"ignored_users": {bob.user_id: {}}})
    since = (await alice.sync())["next_batch"]
    room_id = await bob.create_room(invite=[alice.user_id])
    assert room_id not in (await alice.sync(since))["rooms"].get("invite", {})
    assert room_id not in (await alice.sync())["rooms"].get("invite", {})
    await ignore(alice, {"ignored_users": {}})
    assert room_id in (await alice.sync())["rooms"]["invite"]


@pytest.mark.parametrize("content", [{}, {"ignored_users": None}, {"ignored_users": ["x"]}, {"ignored_users": "@a:b"}])
async def test_lists_of_another_form_ignore_nobody(alice: User, bob: User, content: dict[str, Any]) -> None:
    room_id = await make_room(bob, creator=alice)
    await ignore(alice, content)
    since = (await alice.sync())["next_batch"]
    shown = await bob.send(room_id, "shown")
    assert timeline_ids(joined(await alice.sync(since), room_id)) == [shown]


async def test_nobody_ignores_themselves(alice: User) -> None:
    room_id = await make_room(creator=alice)
    await ignore(alice, {"ignored_users": {alice.user_id: {}}})
    shown = await alice.send(room_id, "shown")
    assert timeline_ids(joined(await alice.sync(), room_id))[-1] == shown
