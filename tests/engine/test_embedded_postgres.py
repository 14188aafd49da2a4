"""The PostgreSQL that comes with the server dies, and the server goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.client import Homeserver
from tests.engine.process import kill_postgres, server_process, write_config

TRIES_FOR_S = 40


async def test_a_server_starts_its_postgresql_again(tmp_path: Path) -> None:
    async with server_process(write_config(tmp_path)) as process, Homeserver(process.base_url) as homeserver:
        alice = await homeserver.register("alice")
        room_id = await alice.create_room()
        before = await alice.send(room_id, "before")
        kill_postgres(tmp_path / "data")
        async with asyncio.timeout(TRIES_FOR_S):  # nobody writes: who reads starts it
            while (read := await alice.in_room("GET", room_id, "messages", dir="b", limit=1)).status != 200:
                assert read.status == 503
        assert [event["event_id"] for event in read.json["chunk"]] == [before]
        kill_postgres(tmp_path / "data")
        async with asyncio.timeout(TRIES_FOR_S):  # nobody reads: who writes starts it
            while (answer := await alice.in_room("PUT", room_id, "send/m.room.message/x", {})).status != 200:
                assert answer.status in (500, 503)
        read = await alice.in_room("GET", room_id, "messages", dir="b", limit=2)
        assert [event["event_id"] for event in read.json["chunk"]] == [answer.json["event_id"], before]
    kill_postgres(tmp_path / "data")  # which outlives a server that is killed
