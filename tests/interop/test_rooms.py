"""Rooms that users of Weft and of Synapse share, made on either side, in every room version that both have."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import pytest

from matrix.identifiers import get_domain
from matrix.room_versions import ROOM_VERSIONS
from tests.client import Homeserver, User
from tests.client_api.support import page_through, state_event
from tests.federation.test_chat import expect_event
from tests.interop.synapse import Synapse

SIDES = ("weft", "synapse")


async def users(side: str, weft: Homeserver, synapse: Synapse) -> tuple[User, User]:
    """Who makes the room, of the side's server, and who joins it, of the other."""
    ours, theirs = await weft.register(), await synapse.register()
    return (ours, theirs) if side == "weft" else (theirs, ours)


async def join(user: User, room_id: str, resident: User) -> None:
    """Joins a room through another user's server."""
    via = get_domain(resident.user_id)
    (await user.request("POST", f"join/{quote(room_id, safe='')}?server_name={via}&via={via}", {})).ok()


async def expect_section(user: User, room_id: str, section: str) -> None:
    """Returns once a user's /sync has told of a room in a section."""
    since = None
    async with asyncio.timeout(30):
        while room_id not in (sync := await user.sync(since, timeout=2000)).get("rooms", {}).get(section, {}):
            since = sync["next_batch"]


@pytest.mark.parametrize("version", ROOM_VERSIONS)
@pytest.mark.parametrize("side", SIDES)
async def test_join_and_chat(weft: Homeserver, synapse: Synapse, side: str, version: str) -> None:
    creator, joiner = await users(side, weft, synapse)
    room_id = await creator.create_room(preset="public_chat", room_version=version, name="Both")
    await creator.send(room_id, "before")
    await join(joiner, room_id, creator)
    assert (await state_event(joiner, room_id, "m.room.name")).ok() == {"name": "Both"}
    await expect_event(joiner, room_id, await creator.send(room_id, "hello"))
    await expect_event(creator, room_id, await joiner.send(room_id, "hi"))
    await expect_event(joiner, room_id, await creator.set_state(room_id, "m.room.topic", {"topic": "Talk"}))
    assert (await state_event(joiner, room_id, "m.room.topic")).ok() == {"topic": "Talk"}


async def test_members_who_were_left_out_come_behind(weft: Homeserver, synapse: Synapse) -> None:
    joiner, *others = [await weft.register(), *[await synapse.register() for _ in range(4)]]
    room_id = await others[0].create_room(preset="public_chat", name="Many")
    for other in others[1:]:
        await other.join(room_id)
    since = (await joiner.sync())["next_batch"]
    await join(joiner, room_id, others[0])
    await joiner.send(room_id, "hello")
    told: set[str] = set()
    async with asyncio.timeout(30):
        while not told >= {other.user_id for other in others}:
            sync = await joiner.sync(since, timeout=2000)
            since = sync["next_batch"]
            section = sync.get("rooms", {}).get("join", {}).get(room_id, {"state": {"events": []}})
            told |= {e["state_key"] for e in section["state"]["events"] if e["type"] == "m.room.member"}
    members = (await joiner.in_room("GET", room_id, "joined_members")).ok()["joined"]
    assert members.keys() == {user.user_id for user in (joiner, *others)}


@pytest.mark.parametrize("side", SIDES)
async def test_invite(weft: Homeserver, synapse: Synapse, side: str) -> None:
    inviter, invited = await users(side, weft, synapse)
    room_id = await inviter.create_room(preset="private_chat", name="Secret")
    (await inviter.in_room("POST", room_id, "invite", {"user_id": invited.user_id})).ok()
    await expect_section(invited, room_id, "invite")
    (await invited.request("POST", f"join/{quote(room_id, safe='')}", {})).ok()
    await expect_event(inviter, room_id, await invited.send(room_id, "thank you"))


@pytest.mark.parametrize("side", SIDES)
async def test_backfill(weft: Homeserver, synapse: Synapse, side: str) -> None:
    creator, joiner = await users(side, weft, synapse)
    room_id = await creator.create_room(preset="public_chat")
    sent = [await creator.send(room_id, f"message {number}") for number in range(60)]
    await join(joiner, room_id, creator)
    events = [event["event_id"] for event in await page_through(joiner, room_id, "b", limit=30)]
    assert [event_id for event_id in events if event_id in sent] == sent[::-1]


@pytest.mark.parametrize("side", SIDES)
async def test_redaction(weft: Homeserver, synapse: Synapse, side: str) -> None:
    creator, joiner = await users(side, weft, synapse)
    room_id = await creator.create_room(preset="public_chat")
    await join(joiner, room_id, creator)
    secret = await joiner.send(room_id, "a secret")
    await expect_event(creator, room_id, secret)
    path = f"redact/{quote(secret, safe='')}/r1"
    redaction = (await creator.in_room("PUT", room_id, path, {"reason": "hush"})).ok()["event_id"]
    await expect_event(joiner, room_id, redaction)
    for user in (creator, joiner):
        event = (await user.in_room("GET", room_id, f"event/{quote(secret, safe='')}")).ok()
        assert event["content"] == {}


@pytest.mark.parametrize("side", SIDES)
async def test_ban(weft: Homeserver, synapse: Synapse, side: str) -> None:
    creator, joiner = await users(side, weft, synapse)
    room_id = await creator.create_room(preset="public_chat")
    await join(joiner, room_id, creator)
    (await creator.in_room("POST", room_id, "ban", {"user_id": joiner.user_id})).ok()
    await expect_section(joiner, room_id, "leave")
    assert (await joiner.in_room("PUT", room_id, "send/m.room.message/1", {"body": "x"})).status == 403


@pytest.mark.parametrize("side", SIDES)
async def test_both_speak_at_once(weft: Homeserver, synapse: Synapse, side: str) -> None:
    creator, joiner = await users(side, weft, synapse)
    room_id = await creator.create_room(preset="public_chat")
    await join(joiner, room_id, creator)
    both = (creator, joiner)
    sent = await asyncio.gather(*(user.send(room_id, f"{number}") for number in range(10) for user in both))
    for event_id in sent:
        for user in both:
            await expect_event(user, room_id, event_id)
