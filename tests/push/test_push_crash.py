"""`kill -9` loses no push: what the gateway had not taken is pushed after the next start."""

from __future__ import annotations

from pathlib import Path

from tests.client import Homeserver, User
from tests.client_api.support import make_room
from tests.engine.process import server_process, write_config
from tests.push.gateway import gateway_started, set_pusher

PUSH = """
push:
  allow_http: true
  allowed_ip_ranges: [127.0.0.0/8]
  min_retry_interval_ms: 5
  max_retry_interval_ms: 20
"""


async def test_pushes_survive_a_kill(database_url: str, tmp_path: Path) -> None:
    config = write_config(tmp_path, database_url=database_url)
    config.write_text(config.read_text() + PUSH)
    async with gateway_started() as gateway:
        async with server_process(config) as process, Homeserver(process.base_url) as homeserver:
            alice, bob = await homeserver.register(), await homeserver.register()
            await set_pusher(bob, gateway.url)
            room_id = await make_room(bob, creator=alice)
            done = await alice.send(room_id, "pushed")
            await gateway.wait_for(done)
            gateway.status = 500
            late = [await alice.send(room_id, str(n)) for n in range(3)]
            await gateway.wait(lambda: gateway.tried >= 2)
            await process.kill()
        gateway.status = 200
        async with server_process(config) as process, Homeserver(process.base_url) as homeserver:
            alice = User(homeserver, alice.user_id, alice.token, alice.device_id)
            last = await alice.send(room_id, "after")
            push = await gateway.wait_for(last)
            told = list(dict.fromkeys(gateway.event_ids()))
            assert told == [done, *late, last], "some perhaps twice, which gateways know by their IDs"
            assert push["counts"] == {"unread": 5}
