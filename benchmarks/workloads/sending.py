"""Messages going in: many senders, one room, one sender, and what a message leaves on disk."""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable
from statistics import median

from benchmarks.measure import Usage, percentile
from benchmarks.workloads.target import Session, Target, run_all, run_for, run_together

SENDERS = 32
ROOMS = 16
STORAGE_ROOMS = 4
Figures = dict[str, float]


async def shared_room(target: Target, sessions: list[Session], name: str) -> str:
    """A public room that all of the sessions' users have joined; the first of them made it."""
    room_id = await sessions[0].create_room(preset="public_chat", name=name)
    await run_together((session, session.join_request(room_id)) for session in sessions[1:])
    return room_id


def sender(session: Session, room_id: str, prefix: str) -> Callable[[], Awaitable[object]]:
    """A function that sends the session's next message into a room."""
    requests = session.message_requests(room_id, prefix)
    return lambda: session.fetch(next(requests))


async def _send_for(target: Target, seconds: float, places: list[tuple[Session, str]]) -> tuple[list[float], Usage]:
    """Each session sends into its room as fast as it is answered."""
    jobs = [sender(session, room_id, target.unique("s")) for session, room_id in places]
    async with target.meter.measure() as usage:
        durations = await run_for(seconds, jobs)
    return durations, usage


async def _repeat_sends(target: Target, prefix: str, seconds: float, places: list[tuple[Session, str]]) -> Figures:
    """The medians of three stretches after one that warms the server up."""
    await run_for(seconds / 2, [sender(s, room, target.unique("warm")) for s, room in places])
    runs: list[Figures] = []
    for _ in range(1 if target.quick else 3):
        durations, usage = await _send_for(target, seconds, places)
        count = len(durations)
        runs.append(
            {
                f"{prefix}_rate": count / usage.wall_s,
                f"{prefix}_p50_ms": 1000 * percentile(durations, 0.50),
                f"{prefix}_p99_ms": 1000 * percentile(durations, 0.99),
                f"{prefix}_cpu_ms": 1000 * usage.server_cpu_s / count,
                f"{prefix}_pg_cpu_ms": 1000 * usage.postgres_cpu_s / count,
                f"{prefix}_pg_background_cpu_ms": 1000 * usage.background_cpu_s / count,
                f"{prefix}_client_share": usage.client_share,
            }
        )
    return {key: median(run[key] for run in runs) for key in runs[0]}


async def sends(target: Target) -> Figures:
    """32 senders, two to each of 16 rooms, each sending its next message when the last is acknowledged."""
    async with target.sessions(await target.users("sender", SENDERS)) as sessions:
        places = []
        for number in range(ROOMS):
            pair = sessions[number::ROOMS]
            room_id = await shared_room(target, pair, target.unique("Sends "))
            places += [(session, room_id) for session in pair]
        return await _repeat_sends(target, "send", 1.5 if target.quick else 3.0, places)


async def hot_room(target: Target) -> Figures:
    """The same 32 senders, all of them in one room."""
    async with target.sessions(await target.users("sender", SENDERS)) as sessions:
        room_id = await shared_room(target, sessions, target.unique("Hot room "))
        places = [(session, room_id) for session in sessions]
        return await _repeat_sends(target, "hot", 1.5 if target.quick else 3.0, places)


async def one_sender(target: Target) -> Figures:
    """One sender in a room of two, one message at a time: what a person waits for."""
    async with target.sessions(await target.users("sender", 2)) as sessions:
        room_id = await shared_room(target, sessions, target.unique("One sender "))
        return await _repeat_sends(target, "single", 1.0 if target.quick else 2.0, [(sessions[0], room_id)])


async def storage(target: Target) -> Figures:
    """Database bytes per message: 3,200 of 60 characters in four rooms of four members, one sender in each.

    One sender only, since Synapse stores more for messages that come at the same moment, which in most rooms few do.
    The rooms are kept for `scrollback`.
    """
    per_room = (1000 if target.quick else 3200) // STORAGE_ROOMS
    async with target.sessions(await target.users("sender", STORAGE_ROOMS)) as sessions:
        circles = [[*sessions[number:], *sessions[:number]][:4] for number in range(STORAGE_ROOMS)]
        rooms = [await shared_room(target, circle, target.unique("Storage ")) for circle in circles]
        target.history_rooms = rooms
        await target.meter.settle()
        before = await target.database_bytes()

        async def fill(session: Session, room_id: str) -> None:
            for request in itertools.islice(session.message_requests(room_id, target.unique("f")), per_room):
                await session.fetch(request)

        started = time.perf_counter()
        await run_all(fill(circle[0], room_id) for circle, room_id in zip(circles, rooms, strict=True))
        wall_s = time.perf_counter() - started
        await target.meter.settle()
        grown = await target.database_bytes() - before
    count = per_room * STORAGE_ROOMS
    return {"bytes_per_message": grown / count, "storage_messages": count, "storage_rate": count / wall_s}
