"""Rooms: making them, joining them, reading them backwards."""

from __future__ import annotations

import re
import time
from statistics import median
from urllib.parse import quote

from benchmarks.http_client import HttpError
from benchmarks.measure import percentile
from benchmarks.workloads.sending import STORAGE_ROOMS, Figures, storage
from benchmarks.workloads.target import Session, Target, run_for, run_together

JOINERS = 100
_JOIN_CONCURRENCY = 8
_CREATE_CONCURRENCY = 4
_PAGE_EVENTS = 100
_END_TOKEN = re.compile(rb'"end": ?"([^"]+)"')


async def joins(target: Target) -> Figures:
    """100 users join a public room of this server, eight at a time; then the next room, until the time is over."""
    creators = await target.users("sender", 1)
    joiners = await target.users("member", JOINERS)
    max_rooms, seconds = (2, 2.0) if target.quick else (12, 6.0)
    async with target.sessions(creators) as owners, target.sessions(joiners) as sessions:
        names = [target.unique("Joins ") for _ in range(max_rooms + 1)]
        rooms = [await owners[0].create_room(preset="public_chat", name=name) for name in names]
        await run_together((session, session.join_request(rooms[0])) for session in sessions[: JOINERS // 4])
        durations: list[float] = []
        deadline = time.perf_counter() + seconds
        async with target.meter.measure() as usage:
            for room_id in rooms[1:]:
                jobs = [(session, session.join_request(room_id)) for session in sessions]
                durations += await run_together(jobs, _JOIN_CONCURRENCY)
                if time.perf_counter() > deadline:
                    break
    return {
        "join_cpu_ms": 1000 * usage.server_cpu_s / len(durations),
        "join_pg_cpu_ms": 1000 * usage.postgres_cpu_s / len(durations),
        "join_rate": len(durations) / usage.wall_s,
        "join_p50_ms": 1000 * percentile(durations, 0.50),
        "join_p95_ms": 1000 * percentile(durations, 0.95),
        "join_count": len(durations),
    }


async def room_creation(target: Target) -> Figures:
    """Four users make private rooms with a name and a topic, each the next when it has the last."""
    content = {"preset": "private_chat", "topic": "What the room is about, in a few words"}
    async with target.sessions(await target.users("sender", _CREATE_CONCURRENCY)) as sessions:
        jobs = [
            lambda session=session: session.create_room(name=target.unique("Private "), **content)
            for session in sessions
        ]
        await run_for(0.5, jobs)
        async with target.meter.measure() as usage:
            durations = await run_for(2.0 if target.quick else 6.0, jobs)
    return {
        "create_cpu_ms": 1000 * usage.server_cpu_s / len(durations),
        "create_pg_cpu_ms": 1000 * usage.postgres_cpu_s / len(durations),
        "create_rate": len(durations) / usage.wall_s,
        "create_p50_ms": 1000 * percentile(durations, 0.50),
        "create_p95_ms": 1000 * percentile(durations, 0.95),
        "create_count": len(durations),
    }


async def scrollback(target: Target) -> Figures:
    """One reader walks back through the rooms of `storage`, 3,200 messages, 100 events a page; then once more."""
    if not target.history_rooms:
        await storage(target)
    async with target.sessions(await target.users("sender", STORAGE_ROOMS)) as sessions:
        # The one who made a room has been in it from its first event on.
        readers = list(zip(sessions, target.history_rooms, strict=True))
        await _walk_back(*readers[0])
        rates: list[float] = []
        read = 0
        deadline = time.perf_counter() + 3.0
        async with target.meter.measure() as usage:
            while time.perf_counter() < deadline or len(rates) < 2 * STORAGE_ROOMS:
                session, room_id = readers[len(rates) % STORAGE_ROOMS]
                started = time.perf_counter()
                events = await _walk_back(session, room_id)
                rates.append(events / (time.perf_counter() - started))
                read += events
    return {
        "scrollback_rate": median(rates),
        "scrollback_events": read,
        "scrollback_cpu_ms_per_page": 1000 * usage.server_cpu_s / (read / _PAGE_EVENTS),
        "scrollback_pg_cpu_ms_per_page": 1000 * usage.postgres_cpu_s / (read / _PAGE_EVENTS),
        "scrollback_client_share": usage.client_share,
    }


async def _walk_back(session: Session, room_id: str) -> int:
    """Read a room from its newest event to its first; how many events came.

    https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages
    """
    path = f"/rooms/{quote(room_id)}/messages?dir=b&limit={_PAGE_EVENTS}"
    count = 0
    position = ""
    while True:
        body = (await session.fetch(session.request("GET", path + position))).body
        # No event of the benchmark holds either key elsewhere than where the specification puts it.
        events = body.count(b'"event_id"')
        count += events
        end = _END_TOKEN.search(body)
        if end is None or events == 0:
            break
        position = f"&from={quote(end[1].decode())}"
    if count == 0:
        raise HttpError(f"GET {path}: no events in a room that is full of them")
    return count
