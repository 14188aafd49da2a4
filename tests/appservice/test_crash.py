"""A server that is killed, a service that fails now and then: every event is told once, in order."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import aiohttp

from tests.appservice.support import Appservice, Asked, ghost, listening
from tests.client import Homeserver, User
from tests.client_api.support import encode
from tests.engine.process import ServerProcess, write_config
from tests.engine.seeds import seeded_random

KILLS = 3
MAX_ATTEMPTS = 12


def check_told_once(service: Appservice) -> list[str]:
    """Checks that a transaction that was sent again is the same, and none has what another had; the events told."""
    bodies: dict[str, list[str]] = {}
    for asked in service.transactions():
        event_ids = [event["event_id"] for event in asked.body["events"]]
        assert bodies.setdefault(asked.id, event_ids) == event_ids, "another transaction under the same ID"
    told = [event_id for event_ids in bodies.values() for event_id in event_ids]
    assert len(told) == len(set(told)), "an event was told in two transactions"
    return told


async def send_until_gone(user: User, room_id: str, sent: list[str]) -> None:
    """Sends one event after another, until the server is gone."""
    with suppress(aiohttp.ClientError, OSError):
        while True:
            sent.append(await user.send(room_id, f"{len(sent)}"))


async def test_every_event_is_told_once_whatever_is_killed(tmp_path: Path, database_url: str) -> None:
    chance = seeded_random()
    service = Appservice("crash")
    attempts = 0

    def fail_now_and_then(asked: Asked) -> tuple[int, dict[str, str]] | None:
        """The service may have taken what it says it has not: its answer is lost then."""
        nonlocal attempts
        attempts += "/transactions/" in asked.path
        return (chance.choice((500, 502)), {}) if "/transactions/" in asked.path and chance.random() < 0.2 else None

    service.answer = fail_now_and_then
    config = write_config(tmp_path, database_url=database_url)
    sent: list[str] = []
    async with listening(service):
        service.write(tmp_path / "data")
        server = await ServerProcess.start(config)
        try:
            async with Homeserver(server.base_url) as homeserver:
                human, user = await homeserver.register(), await ghost(homeserver, service, "a")
                room_id = await human.create_room(preset="public_chat")
                (await user.request("POST", f"join/{encode(room_id)}", {})).ok()
                for _ in range(KILLS):
                    sending = asyncio.create_task(send_until_gone(human, room_id, sent))
                    until = attempts + chance.randrange(2, MAX_ATTEMPTS)
                    await service.wait(lambda until=until: attempts >= until)
                    await server.kill()
                    await sending
                    server = await ServerProcess.start(config)
                sent.append(await human.send(room_id, "last"))
                await service.wait_for_event(sent[-1])
        finally:
            await server.kill()
    told = check_told_once(service)
    acknowledged = set(sent)
    assert [event_id for event_id in told if event_id in acknowledged] == sent
    assert len(sent) > KILLS
