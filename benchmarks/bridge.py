"""`python -m benchmarks.bridge`: the load of a bridge, and what it costs.

A service with 1,000 users in 20 rooms sends 50 events a second, each as one of its users, and is told each of them in
transactions. What is measured, in this order:

- `people`: the same load by people, in rooms that have nothing to do with the service: what there is to compare with;
- `bridge`: the service's own; `lag` is the time from the acknowledgement of an event to its arrival at the service;
- `dead`: the same while the service does not listen: people's sends must not feel it;
- `catch_up`: how fast it is told what it missed once it listens again.

Everything runs on one machine, the service in the process of this program.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import uvloop
from aiohttp import web

from benchmarks import servers
from benchmarks.http_client import Connection, request_bytes
from benchmarks.measure import Meter, percentile
from benchmarks.workloads.target import CLIENT, Target, text_message

AS_TOKEN, HS_TOKEN = "benchmark-as-token", "benchmark-hs-token"
CONNECTIONS = 32
REGISTERED_WITHIN_S = 30.0
ARRIVED_WITHIN_S = 60.0

Figures = dict[str, float]


class Service:
    """An application service that notes when each event arrives."""

    def __init__(self) -> None:
        self.arrived: dict[str, float] = {}
        self.transactions = 0
        self.port = 0
        self._runner: web.AppRunner | None = None
        self._news = asyncio.Event()

    async def start(self) -> None:
        """Listens."""
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_put("/_matrix/app/v1/transactions/{id}", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Does not listen any more."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.Response:
        now = time.perf_counter()
        for event in json.loads(await request.read())["events"]:
            self.arrived.setdefault(event["event_id"], now)
        self.transactions += 1
        self._news.set()
        return web.json_response({})

    async def wait_for(self, event_ids: Sequence[str]) -> None:
        """Waits until all of these have arrived."""
        async with asyncio.timeout(ARRIVED_WITHIN_S):
            while not all(event_id in self.arrived for event_id in event_ids):
                self._news.clear()
                await self._news.wait()

    def register(self, directory: Path) -> None:
        """Writes the registration where the running server picks it up."""
        directory.mkdir()
        registration = {
            "id": "bench",
            "url": f"http://127.0.0.1:{self.port}",
            "as_token": AS_TOKEN,
            "hs_token": HS_TOKEN,
            "sender_localpart": "benchbot",
            "rate_limited": False,
            "namespaces": {"users": [{"exclusive": True, "regex": "@_bench_.*"}]},
        }
        (directory / "bench.yaml").write_text(json.dumps(registration))


class Sender:
    """Sends at a steady pace, whether or not the last answer has come: an open loop."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: asyncio.Queue[Connection] = asyncio.Queue()
        self.acknowledged: dict[str, float] = {}
        self.latencies_s: list[float] = []

    async def send(self, requests: Iterator[bytes], rate: float, seconds: float) -> None:
        """Sends `rate` requests a second."""
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(CONNECTIONS):
                self._idle.put_nowait(await stack.enter_async_context(Connection(self._port)))
            async with asyncio.TaskGroup() as group:
                started = time.perf_counter()
                for number in range(int(rate * seconds)):
                    due = started + number / rate
                    await asyncio.sleep(max(0.0, due - time.perf_counter()))
                    group.create_task(self._send_one(next(requests), due))
            while not self._idle.empty():
                self._idle.get_nowait()

    async def _send_one(self, request: bytes, due: float) -> None:
        connection = await self._idle.get()
        try:
            answer = await connection.fetch(request)
        finally:
            self._idle.put_nowait(connection)
        now = time.perf_counter()
        assert answer.status == 200, answer.body
        self.acknowledged[answer.json()["event_id"]] = now
        self.latencies_s.append(now - due)


async def as_user(port: int, requests: Sequence[bytes]) -> list[bytes]:
    """Makes requests, a few at a time; the bodies of their answers."""
    bodies: list[bytes] = [b""] * len(requests)
    numbers = iter(range(len(requests)))

    async def work() -> None:
        async with Connection(port) as connection:
            for number in numbers:
                answer = await connection.fetch(requests[number])
                assert answer.status == 200, answer.body
                bodies[number] = answer.body

    await asyncio.gather(*(work() for _ in range(8)))
    return bodies


def message(token: str, room_id: str, txn_id: str, user_id: str | None) -> bytes:
    """A request that sends a message of 60 characters."""
    path = f"{CLIENT}/rooms/{quote(room_id)}/send/m.room.message/{txn_id}"
    if user_id is not None:
        path += f"?user_id={quote(user_id)}"
    return request_bytes("PUT", path, token, text_message(f"Message {txn_id}."))


async def make_ghosts(server: servers.Homeserver, users: int, rooms: Sequence[str]) -> list[tuple[str, str]]:
    """Registers a service's users and has them join rooms, each of them one; (user ID, room ID) of each."""
    ghosts = [f"_bench_{number}" for number in range(users)]
    body = {"type": "m.login.application_service", "inhibit_login": True}
    register = [request_bytes("POST", f"{CLIENT}/register", AS_TOKEN, {**body, "username": ghost}) for ghost in ghosts]
    await as_user(server.port, register)
    placed = [(f"@{ghost}:{servers.SERVER_NAME}", rooms[number % len(rooms)]) for number, ghost in enumerate(ghosts)]
    join = [
        request_bytes("POST", f"{CLIENT}/join/{quote(room_id)}?user_id={quote(user_id)}", AS_TOKEN, {})
        for user_id, room_id in placed
    ]
    await as_user(server.port, join)
    return placed


async def wait_until_known(port: int) -> None:
    """Waits until the server has read the registration."""
    request = request_bytes("GET", f"{CLIENT}/account/whoami", AS_TOKEN)
    deadline = time.monotonic() + REGISTERED_WITHIN_S
    async with Connection(port) as connection:
        while (await connection.fetch(request)).status != 200:
            if time.monotonic() > deadline:
                raise servers.ServerError("the server does not read the registration")
            await asyncio.sleep(0.1)


async def measure(
    meter: Meter, port: int, requests: Iterator[bytes], options: argparse.Namespace
) -> tuple[Sender, Figures]:
    """A stretch of load: when each event was acknowledged, and what it cost."""
    sender = Sender(port)
    async with meter.measure() as usage:
        await sender.send(requests, options.rate, options.seconds)
    events = len(sender.acknowledged)
    return sender, {
        "events": events,
        "send_p50_ms": 1000 * percentile(sender.latencies_s, 0.5),
        "send_p99_ms": 1000 * percentile(sender.latencies_s, 0.99),
        "server_cpu_ms_per_event": 1000 * usage.server_cpu_s / events,
        "postgres_cpu_ms_per_event": 1000 * usage.postgres_cpu_s / events,
        "server_cpu_share": usage.server_cpu_s / usage.wall_s,
    }


async def run(options: argparse.Namespace) -> dict[str, Figures]:
    """All stretches."""
    results: dict[str, Figures] = {}
    async with contextlib.AsyncExitStack() as stack:
        run_dir = stack.enter_context(servers.run_directory())
        postgres = stack.enter_context(servers.postgres(run_dir))
        server = await stack.enter_async_context(servers.weft(run_dir, postgres))
        service = Service()
        await service.start()
        stack.push_async_callback(service.stop)
        service.register(run_dir / "weft" / "appservices")
        target = Target(server, postgres, quick=True)
        meter = target.meter
        (person,) = await target.users("person", 1)
        async with target.sessions([person]) as (session,):
            own = [await session.create_room(preset="public_chat") for _ in range(options.rooms)]
            rooms = [await session.create_room(preset="public_chat") for _ in range(options.rooms)]
        await wait_until_known(server.port)
        ghosts = await make_ghosts(server, options.users, rooms)
        numbers = itertools.count()
        by_people = (message(person.access_token, room, f"p{next(numbers)}", None) for room in itertools.cycle(own))
        by_bridge = (message(AS_TOKEN, room, f"b{next(numbers)}", user_id) for user_id, room in itertools.cycle(ghosts))
        _, results["people"] = await measure(meter, server.port, by_people, options)
        before = service.transactions
        sender, results["bridge"] = await measure(meter, server.port, by_bridge, options)
        await service.wait_for(list(sender.acknowledged))
        lags = [max(0.0, service.arrived[event_id] - at) for event_id, at in sender.acknowledged.items()]
        results["bridge"] |= {
            "lag_p50_ms": 1000 * percentile(lags, 0.5),
            "lag_p99_ms": 1000 * percentile(lags, 0.99),
            "transactions": service.transactions - before,
        }
        await service.stop()
        sender, results["dead"] = await measure(meter, server.port, by_bridge, options)
        await service.start()
        started = time.perf_counter()
        await service.wait_for(list(sender.acknowledged))
        waited_s = max(service.arrived.values()) - min(service.arrived[event_id] for event_id in sender.acknowledged)
        results["catch_up"] = {
            "until_told_everything_s": time.perf_counter() - started,
            "events_per_s": len(sender.acknowledged) / max(waited_s, 0.001),
        }
    return results


def main() -> int:
    """Parses the options, runs, prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bridge", description=__doc__)
    parser.add_argument("--users", type=int, default=1000, help="the service's users; default: %(default)s")
    parser.add_argument("--rooms", type=int, default=20, help="rooms that they are in; default: %(default)s")
    parser.add_argument("--rate", type=float, default=50.0, help="events per second; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a stretch; default: %(default)s")
    results = uvloop.run(run(parser.parse_args()))
    for name, figures in results.items():
        print(name)
        for figure, value in figures.items():
            print(f"  {figure:28} {value:10.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
