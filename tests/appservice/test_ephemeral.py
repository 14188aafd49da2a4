"""Typing, receipts and presence: https://spec.matrix.org/v1.19/application-service-api/#pushing-ephemeral-data"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.appservice.conftest import Pair
from tests.appservice.support import Appservice, ghost, listening
from tests.client_api.support import encode, make_room
from tests.conftest import StartServer


async def test_typing_and_receipts_of_its_rooms_are_told(pair: Pair) -> None:
    human, user = await pair.homeserver.register(), await ghost(*pair, "ephemeral")
    room_id = await human.create_room(preset="public_chat")
    elsewhere = await human.create_room()
    (await user.request("POST", f"join/{encode(room_id)}", {})).ok()
    for room in (elsewhere, room_id):
        event_id = await human.send(room, "read me")
        typing = {"typing": True, "timeout": 30_000}
        (await human.in_room("PUT", room, f"typing/{encode(human.user_id)}", typing)).ok()
        (await human.in_room("POST", room, f"receipt/m.read.private/{encode(event_id)}", {})).ok()
        (await human.in_room("POST", room, f"receipt/m.read/{encode(event_id)}", {"thread_id": "main"})).ok()
    (await user.request("POST", f"rooms/{encode(room_id)}/receipt/m.read.private/{encode(event_id)}", {})).ok()
    (typing_event,) = await pair.service.wait(lambda: pair.service.ephemeral("m.typing"))
    assert typing_event == {"type": "m.typing", "room_id": room_id, "content": {"user_ids": [human.user_id]}}

    def receipts() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for event in pair.service.ephemeral("m.receipt"):
            assert event["room_id"] == room_id
            for type, readers in event["content"][event_id].items():
                found.setdefault(type, []).extend(readers)
        return found

    expected = {"m.read": [human.user_id], "m.read.private": [user.user_id]}
    await pair.service.wait(lambda: receipts() == expected)
    shown = [event["content"][event_id].get("m.read") for event in pair.service.ephemeral("m.receipt")]
    assert next(filter(None, shown))[human.user_id]["thread_id"] == "main"


async def test_presence_of_its_users_and_of_those_in_its_rooms_is_told(pair: Pair) -> None:
    human, stranger = await pair.homeserver.register(), await pair.homeserver.register()
    user = await ghost(*pair, "present")
    room_id = await make_room(creator=human)
    (await user.request("POST", f"join/{encode(room_id)}", {})).ok()
    for who in (stranger, human):
        status = {"presence": "online", "status_msg": "here"}
        (await who.request("PUT", f"presence/{encode(who.user_id)}/status", status)).ok()
    (await user.request("PUT", f"presence/{encode(user.user_id)}/status", {"presence": "unavailable"})).ok()

    def told() -> set[str]:
        return {event["sender"] for event in pair.service.ephemeral("m.presence")}

    await pair.service.wait(lambda: told() >= {human.user_id, user.user_id})
    assert stranger.user_id not in told()
    (event,) = [e for e in pair.service.ephemeral("m.presence") if e["sender"] == human.user_id]
    assert (event["content"]["presence"], event["content"]["status_msg"]) == ("online", "here")


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ({"de.sorunome.msc2409.push_ephemeral": True}, "de.sorunome.msc2409.ephemeral"),
        ({"receive_ephemeral": True, "de.sorunome.msc2409.push_ephemeral": True}, "ephemeral"),
        ({}, None),
    ],
    ids=["proposal", "both", "neither"],
)
async def test_it_is_told_under_the_name_that_it_knows(
    start_server: StartServer, tmp_path: Path, flags: dict[str, bool], name: str | None
) -> None:
    async with listening(Appservice("flags", **flags)) as service:
        service.write(tmp_path)
        async with start_server() as homeserver:
            human, user = await homeserver.register(), await ghost(homeserver, service, "a")
            room_id = await make_room(creator=human)
            (await user.request("POST", f"join/{encode(room_id)}", {})).ok()
            typing = {"typing": True, "timeout": 30_000}
            (await human.in_room("PUT", room_id, f"typing/{encode(human.user_id)}", typing)).ok()
            await service.wait_for_event(await human.send(room_id, "last"))
            if name is not None:
                await service.wait(lambda: any(name in asked.body for asked in service.transactions()))
    keys = {key for asked in service.transactions() for key in asked.body}
    assert keys == ({"events", name} if name else {"events"})
