"""The counts that pushes tell are those of /sync, whatever the members of a room do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.client import User
from tests.conftest import make_config, started
from tests.engine.seeds import seeded_random
from tests.engine.test_unread_counts import Walk, walk
from tests.push.gateway import PUSH, Gateway, gateway_started, set_pusher

STEPS = 150


def told(gateway: Gateway, user: User) -> int:
    """The count that a user's pusher has told last."""
    counts = [push["counts"] for push in gateway.taken if push["devices"][0]["pushkey"] == user.user_id]
    return int(counts[-1].get("unread", 0)) if counts else 0


async def check(gateway: Gateway, walking: Walk) -> None:
    """Every member's pusher tells, in the end, what an initial /sync does."""
    for user in walking.users:
        rooms = (await user.sync())["rooms"].get("join", {})
        unread = sum(room["unread_notifications"]["notification_count"] for room in rooms.values())
        try:
            await gateway.wait(lambda user=user, unread=unread: told(gateway, user) == unread)  # type: ignore[misc]
        except TimeoutError:
            raise AssertionError((user.user_id, told(gateway, user), unread, walking.steps)) from None


async def test_pushes_tell_the_counts_of_a_sync(database_url: str, tmp_path: Path) -> None:
    rng = seeded_random()
    config = replace(make_config(tmp_path), push=PUSH)
    async with gateway_started() as gateway, started(config, database_url) as homeserver:
        walking = await walk(rng, homeserver)
        for user in walking.users:
            await set_pusher(user, gateway.url, user.user_id)
        for number in range(STEPS):
            await walking.step()
            if number % 10 == 0:
                await check(gateway, walking)
        await check(gateway, walking)
        assert gateway.taken
