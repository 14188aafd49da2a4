"""A model that stalls and hundreds of questions in the queue are felt by nobody who only talks.

`python -m benchmarks.summaries_load` measures the same at length.
"""

from __future__ import annotations

import asyncio
import time

from tests.summary_bot.model_server import model_server, provider
from tests.summary_bot.support import Person, Site

ASKS = 500
SENDS = 40


async def median_send_s(person: Person, room_id: str) -> float:
    times = []
    for _ in range(SENDS):
        started = time.perf_counter()
        await person.user.send(room_id, "The lorry with the bricks is late again.")
        times.append(time.perf_counter() - started)
    return sorted(times)[SENDS // 2]


async def test_five_hundred_waiting_questions_slow_nobody_down(site: Site) -> None:
    limits = {"max_queued_per_person": ASKS, "workers": 1}
    async with model_server() as model, site.bot(providers=[provider(model)], limits=limits) as bot:
        model.always = "stall"
        alice, bob = await site.person(), await site.person()
        room_id = await alice.room_with_bot()
        before = await median_send_s(alice, room_id)
        for _ in range(0, ASKS, 50):
            await asyncio.gather(*(alice.user.send(room_id, "!summary 2h") for _ in range(50)))
        await model.stalled.wait()
        after = await median_send_s(alice, room_id)
        await bob.room_with_bot(enable=False)  # it says hello while its only worker waits for the model
        assert await bot.bot.jobs.count() >= ASKS
        assert after < 3 * before + 0.01
