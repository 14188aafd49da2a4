"""Other servers: what they send, rooms of theirs that users here join, rooms here that they join.

The other server is a peer of the benchmark's own (`benchmarks.peer`), the same for both servers; in `remote_delivery`
it is a second server of the same make.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Callable, Sequence
from statistics import median
from urllib.parse import quote

import orjson

from benchmarks.http_client import HttpError
from benchmarks.measure import Usage, percentile
from benchmarks.peer import Guest, Peer, PeerRoom, fetch, send_join
from benchmarks.servers import Homeserver, Postgres
from benchmarks.workloads.sending import Figures
from benchmarks.workloads.target import Session, Target, text_message
from matrix.pdu import Pdu

MAX_PDUS = 50
WARM_UP_TRANSACTIONS = 4
MAX_TRANSACTIONS = 400
ROOM_SIZES = (1_000, 5_000)
QUICK_ROOM_SIZES = (200,)
_ARRIVED_WITHIN_S = 20.0
_COMPLETE_WITHIN_S = 90.0
_POLL_INTERVAL_S = 0.2
_SERVED_JOINS = 5
_SEND_INTERVAL_S = 0.1
_LONG_POLL_MS = 30_000
_MARK = re.compile(rb'"body": ?"Remote (\d+)\.')

Extend = Callable[[Guest, Sequence[Pdu], int], list[Pdu]]
"""Makes so many events that stand on the given ones; the last of these and of those are the newest of each branch."""


class FederatedTarget(Target):
    """A server that federates, another of its make, and two peers: its users join the rooms of the first."""

    def __init__(
        self, server: Homeserver, postgres: Postgres, *, quick: bool, neighbour: Homeserver, peers: tuple[Peer, Peer]
    ) -> None:
        super().__init__(server, postgres, quick=quick)
        self.neighbour = Target(neighbour, postgres, quick=quick)
        self.peer, self.visitor = peers
        self.remote_rooms: dict[int, PeerRoom] = {}
        """Rooms of the first peer that a user of this server has joined, by the number of members."""


async def inbound(target: FederatedTarget) -> Figures:
    """Transactions of 50 messages, one after another, into a room where each event stands on the last."""
    return await _inbound(target, "inbound", _in_line)


async def inbound_branches(target: FederatedTarget) -> Figures:
    """The same, but the room has two branches, which meet in the first event of each transaction."""
    return await _inbound(target, "branches", _in_branches)


def _in_line(guest: Guest, heads: Sequence[Pdu], count: int) -> list[Pdu]:
    events = [heads[-1]]
    for number in range(count):
        events.append(guest.message(events[-1:], f"Message {number}."))
    return events[1:]


def _in_branches(guest: Guest, heads: Sequence[Pdu], count: int) -> list[Pdu]:
    events = [guest.message(heads[-2:], "Both branches.")]
    for number in range(1, count):
        before = events[max(0, number - 2)]
        events.append(guest.message([before], f"Message {number}."))
    return events


async def _inbound(target: FederatedTarget, prefix: str, extend: Extend) -> Figures:
    """The medians of three stretches. The warm-up tells how long these are; all is signed before the clock runs."""
    seconds = 1.0 if target.quick else 3.0
    async with target.sessions(await target.users("host", 1)) as sessions:
        room_id = await sessions[0].create_room(preset="public_chat", name=target.unique("Inbound "))
        guest = await Guest.enter(target.peer, target.server, room_id, target.unique("guest"))
        stream = _Stream(target, guest, sessions[0], extend)
        usage = await stream.send(WARM_UP_TRANSACTIONS)
        runs: list[Figures] = []
        for _ in range(1 if target.quick else 3):
            count = min(MAX_TRANSACTIONS, max(2, round(WARM_UP_TRANSACTIONS * seconds / usage.wall_s)))
            events = count * MAX_PDUS
            usage = await stream.send(count)
            runs.append(
                {
                    f"{prefix}_rate": events / usage.wall_s,
                    f"{prefix}_cpu_ms": 1000 * usage.server_cpu_s / events,
                    f"{prefix}_pg_cpu_ms": 1000 * usage.postgres_cpu_s / events,
                    f"{prefix}_client_share": usage.client_share,
                }
            )
    return {key: median(run[key] for run in runs) for key in runs[0]}


class _Stream:
    """Transactions of a guest's events, one after another, until a user of the server that gets them sees the last.

    Synapse answers a transaction once it has put the events aside, takes them into the room afterwards, and lets go of
    those of which too many wait; Weft answers when they are in the room. So that neither idles nor drowns, a
    transaction is sent when the last one is answered and half of it is in the room.
    """

    def __init__(self, target: FederatedTarget, guest: Guest, host: Session, extend: Extend) -> None:
        self._target = target
        self._guest = guest
        self._host = host
        self._extend = extend
        self._heads: list[Pdu] = [guest.join]

    async def send(self, count: int) -> Usage:
        """Send so many transactions. Raises HttpError where an event is refused or does not come into the room."""
        transactions = []
        for _ in range(count):
            events = self._extend(self._guest, self._heads, MAX_PDUS)
            self._heads = events[-2:]
            request = self._guest.peer.transaction(self._target.server, events)
            transactions.append((request, events[MAX_PDUS // 2]))
        answers = []
        async with self._guest.peer.connect(self._target.server) as connection, self._target.meter.measure() as usage:
            for request, half in transactions:
                answers.append(await fetch(connection, request))
                await self._wait_for(half)
            for event in self._heads:
                await self._wait_for(event)
        for answer in answers:
            results = answer.json()["pdus"].values()
            if len(results) != MAX_PDUS or any(results):
                raise HttpError(f"PUT /send: events were refused: {answer.body[:300].decode(errors='replace')}")
        await self._check_timeline(events)
        return usage

    async def _wait_for(self, event: Pdu) -> None:
        """Wait until a user sees an event. Raises HttpError when that takes too long."""
        path = f"/rooms/{quote(event.room_id)}/event/{quote(event.event_id)}"
        request = self._host.request("GET", path)
        deadline = time.monotonic() + _ARRIVED_WITHIN_S
        while not await self._host.is_found(request):
            if time.monotonic() > deadline:
                raise HttpError(f"GET {path}: the event has not come in {_ARRIVED_WITHIN_S:.0f} s")
            await asyncio.sleep(_POLL_INTERVAL_S)

    async def _check_timeline(self, events: Sequence[Pdu]) -> None:
        """Raise HttpError unless all of these, the newest ones, are shown in the room."""
        path = f"/rooms/{quote(events[0].room_id)}/messages?dir=b&limit={2 * len(events)}"
        shown = {event["event_id"] for event in (await self._host.call("GET", path))["chunk"]}
        if missing := [event.event_id for event in events if event.event_id not in shown]:
            raise HttpError(f"GET {path}: {len(missing)} of {len(events)} events are not shown")


async def remote_joins(target: FederatedTarget) -> Figures:
    """A user joins a room of a peer: until they may send, and until the server knows all of its members."""
    figures: Figures = {}
    for members in QUICK_ROOM_SIZES if target.quick else ROOM_SIZES:
        room = PeerRoom(target.peer, members)
        async with target.sessions(await target.users("host", 1)) as sessions, target.meter.measure() as usage:
            started = time.perf_counter()
            join = f"/join/{quote(room.room_id)}?via={quote(target.peer.name)}"
            await sessions[0].call("POST", join, {})
            message = sessions[0].message_requests(room.room_id, target.unique("j"))
            await sessions[0].fetch(next(message))
            may_send_s = time.perf_counter() - started
            await _wait_for_members(sessions[0], room.room_id, members + 1)
            complete_s = time.perf_counter() - started
        target.remote_rooms[members] = room
        figures |= {
            f"remote_join_{members}_may_send_s": may_send_s,
            f"remote_join_{members}_complete_s": complete_s,
            f"remote_join_{members}_cpu_s": usage.server_cpu_s,
            f"remote_join_{members}_pg_cpu_s": usage.postgres_cpu_s,
            f"remote_join_{members}_client_share": usage.client_share,
        }
    return figures


async def _wait_for_members(session: Session, room_id: str, count: int) -> None:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers"""
    path = f"/rooms/{quote(room_id)}/members?membership=join"
    deadline = time.monotonic() + _COMPLETE_WITHIN_S
    while len((await session.call("GET", path))["chunk"]) < count:
        if time.monotonic() > deadline:
            raise HttpError(f"GET {path}: members are missing after {_COMPLETE_WITHIN_S:.0f} s")
        await asyncio.sleep(_POLL_INTERVAL_S)


async def served_joins(target: FederatedTarget) -> Figures:
    """Users of another peer join those rooms through the server, which answers with all members, or without them."""
    if not target.remote_rooms:
        await remote_joins(target)
    figures: Figures = {}
    for members, room in target.remote_rooms.items():
        for kind, omit_members in (("full", False), ("brief", True)):
            durations: list[float] = []
            sizes: list[int] = []
            async with target.meter.measure() as usage:
                for _ in range(_SERVED_JOINS):
                    started = time.perf_counter()
                    _, answer = await send_join(
                        target.visitor, target.server, room.room_id, target.unique("visitor"), omit_members=omit_members
                    )
                    durations.append(time.perf_counter() - started)
                    sizes.append(len(answer.body))
            prefix = f"served_join_{members}_{kind}"
            figures |= {
                f"{prefix}_p50_ms": 1000 * median(durations),
                f"{prefix}_cpu_ms": 1000 * usage.server_cpu_s / _SERVED_JOINS,
                f"{prefix}_pg_cpu_ms": 1000 * usage.postgres_cpu_s / _SERVED_JOINS,
                f"{prefix}_bytes": median(sizes),
            }
    return figures


async def remote_delivery(target: FederatedTarget) -> Figures:
    """One user sends every 0.1 s, another waits in `/sync` on another server of the same make."""
    count = 10 if target.quick else 40
    there = target.neighbour
    async with (
        target.sessions(await target.users("host", 1)) as senders,
        there.sessions(await there.users("far", 1)) as readers,
    ):
        sender, reader = senders[0], readers[0]
        room_id = await sender.create_room(preset="public_chat", name=target.unique("Remote "))
        await reader.call("POST", f"/join/{quote(room_id)}?via={quote(target.server.server_name)}", {})
        since = (await reader.call("GET", "/sync"))["next_batch"]
        delivery = _RemoteDelivery(sender, reader, room_id, since)
        await delivery.run(count // 4)
        delivery.latencies_s.clear()
        async with target.meter.measure() as sending, there.meter.measure() as receiving:
            await delivery.run(count)
    return {
        "remote_delivery_p50_ms": 1000 * percentile(delivery.latencies_s, 0.50),
        "remote_delivery_p95_ms": 1000 * percentile(delivery.latencies_s, 0.95),
        "remote_delivery_sender_cpu_ms": 1000 * sending.server_cpu_s / count,
        "remote_delivery_receiver_cpu_ms": 1000 * receiving.server_cpu_s / count,
    }


class _RemoteDelivery:
    """Messages on their way from a user of one server to one of another; each is sent when the last has arrived."""

    def __init__(self, sender: Session, reader: Session, room_id: str, since: str) -> None:
        self._sender, self._reader = sender, reader
        self._path = f"/rooms/{quote(room_id)}/send/m.room.message/remote-"
        self._since = since
        self._numbers = itertools.count()
        self.latencies_s: list[float] = []

    async def run(self, count: int) -> None:
        """Send so many messages."""
        for number in itertools.islice(self._numbers, count):
            message = self._sender.request("PUT", f"{self._path}{number}", text_message(f"Remote {number}."))
            started = time.perf_counter()
            arrival = asyncio.create_task(self._arrival(number))
            await asyncio.sleep(0)
            await self._sender.fetch(message)
            self.latencies_s.append(await arrival - started)
            await asyncio.sleep(max(0.0, started + _SEND_INTERVAL_S - time.perf_counter()))

    async def _arrival(self, number: int) -> float:
        """When a message is in the reader's `/sync`."""
        while True:
            path = f"/sync?timeout={_LONG_POLL_MS}&since={quote(self._since)}"
            body = (await self._reader.fetch(self._reader.request("GET", path))).body
            now = time.perf_counter()
            self._since = orjson.loads(body)["next_batch"]
            if any(int(mark) == number for mark in _MARK.findall(body)):
                return now
