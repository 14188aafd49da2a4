"""Users of a service come and go at random: it is told exactly what happened while one of them was there."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from tests.appservice.support import Appservice, ServiceUser, ghost
from tests.client import Homeserver, User
from tests.client_api.support import encode, page_through
from tests.conftest import StartServer
from tests.engine.seeds import seeded_random

STEPS = 60
GHOSTS = 4
ROOMS = 3
MAX_ROOMS = 8


async def do_something(chance: random.Random, human: User, ghosts: list[ServiceUser], rooms: list[str]) -> None:
    """One step, which may well be refused."""
    room_id, user = chance.choice(rooms), chance.choice(ghosts)
    match chance.choice(("send", "send", "join", "join", "leave", "invite", "kick", "rename", "create")):
        case "create" if len(rooms) < MAX_ROOMS:
            rooms.append((await user.request("POST", "createRoom", {"preset": "public_chat"})).ok()["room_id"])
            await human.join(rooms[-1])
        case "send":
            await human.send(room_id, "something")
        case "join":
            await user.request("POST", f"join/{encode(room_id)}", {})
        case "leave":
            await user.request("POST", f"rooms/{encode(room_id)}/leave", {})
        case "invite":
            await human.in_room("POST", room_id, "invite", {"user_id": user.user_id})
        case "kick":
            await human.in_room("POST", room_id, "kick", {"user_id": user.user_id})
        case "rename":
            content = {"membership": "join", "displayname": f"{chance.random()}"}
            await user.request("PUT", f"rooms/{encode(room_id)}/state/m.room.member/{encode(user.user_id)}", content)


def interesting(history: list[dict[str, Any]], ghosts: set[str]) -> list[str]:
    """What a service has to be told of a room, by the specification: the oracle."""
    joined: set[str] = set()
    found = []
    for event in history:
        is_own_room = event["type"] == "m.room.create" and event["sender"] in ghosts
        is_target = event["type"] == "m.room.member" and event["state_key"] in ghosts
        if is_target:
            (joined.add if event["content"]["membership"] == "join" else joined.discard)(event["state_key"])
        if joined or is_target or is_own_room:
            found.append(event["event_id"])
    return found


async def check_told(homeserver: Homeserver, service: Appservice, human: User, rooms: list[str]) -> None:
    """Compares what a service was told with what happened."""
    ghosts = {service.user(f"{number}") for number in range(GHOSTS)}
    last = (await ghost(homeserver, service, f"last{len(service.asked)}")).user_id
    await human.in_room("POST", rooms[0], "invite", {"user_id": last})
    await service.wait(lambda: any(event.get("state_key") == last for event in service.events()))
    for room_id in rooms:
        history = (await page_through(human, room_id, "b", limit=100))[::-1]
        history = [event for event in history if not event.get("state_key", "").startswith(f"@_{service.name}_last")]
        told = [event["event_id"] for event in service.events() if event["room_id"] == room_id]
        assert [event_id for event_id in told if event_id in {e["event_id"] for e in history}] == interesting(
            history, ghosts
        )


async def test_a_service_is_told_what_happens_while_its_users_are_there(
    start_server: StartServer, tmp_path: Path
) -> None:
    chance = seeded_random()
    service = Appservice("random")
    await service.start()
    service.write(tmp_path)
    async with start_server() as homeserver:
        human = await homeserver.register()
        ghosts = [await ghost(homeserver, service, f"{number}") for number in range(GHOSTS)]
        rooms = [await human.create_room(preset="public_chat") for _ in range(ROOMS)]
        for _ in range(STEPS):
            await do_something(chance, human, ghosts, rooms)
        await check_told(homeserver, service, human, rooms)
        await service.stop()
        for _ in range(STEPS):
            await do_something(chance, human, ghosts, rooms)
    await service.start()
    async with start_server() as homeserver:
        human.homeserver = homeserver
        await check_told(homeserver, service, human, rooms)
    await service.stop()
