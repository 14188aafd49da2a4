"""Messages coming out: live delivery to many members, first syncs, and syncs that find nothing new."""

from __future__ import annotations

import asyncio
import re
import time
from statistics import median
from urllib.parse import quote

from benchmarks.http_client import HttpError
from benchmarks.measure import percentile
from benchmarks.workloads.sending import Figures, shared_room
from benchmarks.workloads.target import Session, Target, bare_http_errors, run_all, run_for, run_together, text_message

MEMBERS = 150
SYNC_USERS = 10
SYNC_ROOMS = 60
_MESSAGES_PER_ROOM = 10
_SEND_INTERVAL_S = 0.3
_LONG_POLL_MS = 30_000
_NEXT_BATCH = re.compile(rb'"next_batch": ?"([^"]+)"')
_MARK = re.compile(rb"Delivery (\d+)\.")


def _sync_request(session: Session, since: str | None = None, timeout_ms: int = 0) -> bytes:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync, without a filter."""
    since_query = "" if since is None else f"&since={quote(since)}"
    return session.request("GET", f"/sync?timeout={timeout_ms}{since_query}")


def _next_batch(body: bytes) -> str:
    # A regular expression, since parsing a first sync would cost the client more than some servers take to make it.
    token = _NEXT_BATCH.search(body)
    if token is None:
        raise HttpError("a /sync answer without next_batch")
    return token[1].decode()


async def _catch_up(sessions: list[Session]) -> dict[Session, str]:
    """For each session a token after which there is nothing but what happens from now on."""
    tokens: dict[Session, str] = {}
    queue = iter(sessions)

    async def work() -> None:
        for session in queue:
            since: str | None = None
            while True:
                body = (await session.fetch(_sync_request(session, since))).body
                last, since = since, _next_batch(body)
                if last is not None and (since == last or b'"timeline"' not in body):
                    break
            tokens[session] = since

    await run_all(work() for _ in range(8))
    return tokens


class _Delivery:
    """A room whose members all wait in `/sync` for what one of them sends."""

    def __init__(self, target: Target, sessions: list[Session], room_id: str) -> None:
        self._sender, self._members = sessions[0], sessions[1:]
        self._path = f"/rooms/{quote(room_id)}/send/m.room.message/{target.unique('d')}-"
        self._sent_at: list[float] = []
        self._missing: list[int] = []
        self._all_have_it = asyncio.Event()
        self.latencies_s: list[float] = []
        self.slowest_s: list[float] = []
        """Per message, until the last member had it."""

    async def listen(self, session: Session, since: str) -> None:
        """A member: long-poll, note the time of every message that comes, long-poll again, until cancelled."""
        while True:
            body = (await session.fetch(_sync_request(session, since, _LONG_POLL_MS))).body
            now = time.perf_counter()
            since = _next_batch(body)
            for mark in _MARK.findall(body):
                number = int(mark)
                self.latencies_s.append(now - self._sent_at[number])
                self._missing[number] -= 1
                if self._missing[number] == 0:
                    self.slowest_s.append(now - self._sent_at[number])
                    self._all_have_it.set()

    async def send(self, *, wait: bool) -> None:
        """Send the next message and let the interval pass; with `wait`, also wait until everybody has it."""
        number = len(self._sent_at)
        request = self._sender.request("PUT", f"{self._path}{number}", text_message(f"Delivery {number}."))
        self._all_have_it.clear()
        self._missing.append(len(self._members))
        self._sent_at.append(time.perf_counter())
        await self._sender.fetch(request)
        if wait:
            await self._all_have_it.wait()
        await asyncio.sleep(max(0.0, self._sent_at[number] + _SEND_INTERVAL_S - time.perf_counter()))

    async def arrive(self) -> None:
        """Wait until every member has every message."""
        while any(self._missing):
            self._all_have_it.clear()
            await self._all_have_it.wait()


async def delivery(target: Target) -> Figures:
    """150 members of a room wait in `/sync` while one more sends; from before the send to the member's answer.

    Twice: each message 0.3 s after the last but not before everybody has that one, so that a slow server is not
    measured in its own backlog; then every 0.3 s, come what may.
    """
    sender = await target.users("sender", 1)
    members = await target.users("member", MEMBERS)
    async with target.sessions([*sender, *members]) as sessions:
        room_id = await shared_room(target, sessions, target.unique("Delivery "))
        tokens = await _catch_up(sessions[1:])
        delivery = _Delivery(target, sessions, room_id)
        with bare_http_errors():
            async with asyncio.TaskGroup() as group:
                listeners = [group.create_task(delivery.listen(session, since)) for session, since in tokens.items()]
                await _deliver(target, delivery, 1.0, wait=True)
                paced = await _deliver(target, delivery, 3.0 if target.quick else 8.0, wait=True)
                steady = await _deliver(target, delivery, 2.0 if target.quick else 4.0, wait=False)
                for listener in listeners:
                    listener.cancel()
    figures = {f"delivery_{key}": value for key, value in paced.items()}
    return figures | {f"steady_delivery_{key}": value for key, value in steady.items()}


async def _deliver(target: Target, delivery: _Delivery, seconds: float, *, wait: bool) -> Figures:
    delivery.latencies_s.clear()
    delivery.slowest_s.clear()
    async with target.meter.measure() as usage:
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            await delivery.send(wait=wait)
        await delivery.arrive()
    delivered = len(delivery.latencies_s)
    return {
        "p50_ms": 1000 * percentile(delivery.latencies_s, 0.50),
        "p95_ms": 1000 * percentile(delivery.latencies_s, 0.95),
        "all_p50_ms": 1000 * median(delivery.slowest_s),
        "cpu_ms": 1000 * usage.server_cpu_s / delivered,
        "pg_cpu_ms": 1000 * usage.postgres_cpu_s / delivered,
        "client_share": usage.client_share,
    }


async def _prepare_sync_rooms(target: Target, sessions: list[Session]) -> None:
    """Put the users into 60 rooms together, ten messages each; once a run."""
    if target.sync_rooms_ready:
        return
    for number in range(SYNC_ROOMS // 4 if target.quick else SYNC_ROOMS):
        room_id = await shared_room(target, sessions, target.unique("Sync "))
        senders = [(session, session.message_requests(room_id, f"y{number}")) for session in sessions]
        await run_together((session, next(requests)) for session, requests in senders[:_MESSAGES_PER_ROOM])
    target.sync_rooms_ready = True


async def initial_sync(target: Target) -> Figures:
    """First `/sync` of users who share 60 rooms of ten members and ten messages, one after another.

    Synapse keeps the answer to a request for two minutes and gives it again to the same request. Each request here is
    therefore another: ten users, and on each round another `timeout`, which a first sync does not wait for.
    """
    async with target.sessions(await target.users("sync", SYNC_USERS)) as sessions:
        await _prepare_sync_rooms(target, sessions)
        started = time.perf_counter()
        await sessions[0].fetch(_sync_request(sessions[0], timeout_ms=1))
        first_s = time.perf_counter() - started
        durations: list[float] = []
        sizes: list[int] = []
        async with target.meter.measure() as usage:
            deadline = time.perf_counter() + 2.0
            for timeout_ms in range(2, 40):
                if timeout_ms > 3 and time.perf_counter() > deadline:
                    break
                for session in sessions:
                    started = time.perf_counter()
                    body = (await session.fetch(_sync_request(session, timeout_ms=timeout_ms))).body
                    durations.append(time.perf_counter() - started)
                    sizes.append(len(body))
    return {
        "initial_sync_very_first_ms": 1000 * first_s,
        "initial_sync_p50_ms": 1000 * percentile(durations, 0.50),
        "initial_sync_p95_ms": 1000 * percentile(durations, 0.95),
        "initial_sync_cpu_ms": 1000 * usage.server_cpu_s / len(durations),
        "initial_sync_pg_cpu_ms": 1000 * usage.postgres_cpu_s / len(durations),
        "initial_sync_bytes": median(sizes),
    }


async def empty_sync(target: Target) -> Figures:
    """The same users ask for what is new, `timeout=0`, when nothing is; each follows `next_batch` as clients do."""
    async with target.sessions(await target.users("sync", SYNC_USERS)) as sessions:
        await _prepare_sync_rooms(target, sessions)
        await target.meter.settle()
        tokens = await _catch_up(sessions)

        async def sync(session: Session) -> None:
            body = (await session.fetch(_sync_request(session, tokens[session]))).body
            if b'"timeline"' in body:
                raise HttpError("GET /sync: news in a quiet room")
            tokens[session] = _next_batch(body)

        jobs = [lambda session=session: sync(session) for session in sessions]
        await run_for(0.5, jobs)
        runs: list[Figures] = []
        for _ in range(1 if target.quick else 3):
            async with target.meter.measure() as usage:
                durations = await run_for(2.0, jobs)
            runs.append(
                {
                    "empty_sync_cpu_ms": 1000 * usage.server_cpu_s / len(durations),
                    "empty_sync_pg_cpu_ms": 1000 * usage.postgres_cpu_s / len(durations),
                    "empty_sync_rate": len(durations) / usage.wall_s,
                    "empty_sync_p50_ms": 1000 * percentile(durations, 0.50),
                    "empty_sync_client_share": usage.client_share,
                }
            )
    return {key: median(run[key] for run in runs) for key in runs[0]}
