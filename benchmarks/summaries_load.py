"""`make bench-summaries-load`: a stalled model, 500 questions in the queue, and what people who only talk feel of it.

The same messages into the same rooms, at the same pace, in one run: before there is a bot; with the bot in the rooms,
500 questions of 100 people waiting and the model answering none; and once more while these questions come in.
Everything runs on one machine, the model in the process of this program.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote

import asyncpg
import psutil
import uvloop
import yaml
from aiohttp import web

from appservices.summary_bot.config import load_config
from appservices.summary_bot.registration import write_registration
from benchmarks import servers
from benchmarks.bridge import Figures, Sender, as_user, measure
from benchmarks.http_client import Connection, request_bytes
from benchmarks.workloads.target import CLIENT, Target, User

PEOPLE, ASKS_EACH, ROOMS = 100, 5, 10
WAIT_S = 60.0
BOT = f"@summary:{servers.SERVER_NAME}"
DATABASE = "summary_bot"
COUNT_ENABLED = "SELECT count(*) FROM summary_bot.rooms WHERE enabled"
COUNT_JOBS = "SELECT count(*) FROM summary_bot.jobs"


@contextlib.asynccontextmanager
async def stalled_model() -> AsyncIterator[str]:
    """A model that takes every request and answers none; its address."""

    async def stall(_request: web.Request) -> web.Response:
        await asyncio.sleep(3600)
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/chat/completions", stall)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def bot(run_dir: Path, port: int, database: str, model_url: str) -> AsyncIterator[psutil.Process]:
    """The bot as a program of its own, known to the server in `run_dir`."""
    directory = run_dir / "bot"
    directory.mkdir()
    file = directory / "config.yaml"
    model = {"name": "stalled", "base_url": model_url, "model": {"name": "m"}, "try_timeout_ms": 600_000}
    config = {
        "homeserver": {"url": f"http://127.0.0.1:{port}", "domain": servers.SERVER_NAME},
        "appservice": {"port": servers.free_port(), "registration": str(run_dir / "weft" / "appservices" / "bot.yaml")},
        "database": {"url": {"file": "database"}},
        "providers": [model],
        "limits": {"answer_timeout_ms": 3_600_000},
    }
    (directory / "database").write_text(database)
    file.write_text(yaml.safe_dump(config))
    known = run_dir / "weft" / "appservices"
    write_registration(load_config(file), known / "bot.yaml")
    with (directory / "log").open("wb") as log:
        command = [sys.executable, "-m", "appservices.summary_bot", "--config", str(file)]
        process = subprocess.Popen(command, cwd=servers.ROOT, stderr=log, stdout=log)  # noqa: ASYNC220
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


async def wait_for(connection: asyncpg.Connection, query: str, count: int) -> None:
    """Waits until a count in the bot's database has come to this."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(asyncpg.UndefinedTableError):
            if await connection.fetchval(query) >= count:
                return
        await asyncio.sleep(0.1)
    raise servers.ServerError(f"the bot does not come to {count} of: {query}")


async def wait_until_there(port: int) -> None:
    """Waits until the server knows the bot by its name."""
    request = request_bytes("GET", f"{CLIENT}/profile/{BOT}/displayname")
    deadline = time.monotonic() + WAIT_S
    async with Connection(port) as connection:
        while (await connection.fetch(request)).status != 200:
            if time.monotonic() > deadline:
                raise servers.ServerError("the bot does not introduce itself")
            await asyncio.sleep(0.1)


def questions(people: list[User], rooms: list[str]) -> list[bytes]:
    """All questions, of everybody in turn."""
    return [
        say(person, rooms[number % len(rooms)], f"ask{number}-{n}", "!summary 2h")
        for n in range(ASKS_EACH)
        for number, person in enumerate(people)
    ]


def say(person: User, room_id: str, txn_id: str, body: str) -> bytes:
    """A request that sends a message."""
    path = f"{CLIENT}/rooms/{quote(room_id)}/send/m.room.message/{txn_id}"
    return request_bytes("PUT", path, person.access_token, {"msgtype": "m.text", "body": body})


async def run(options: argparse.Namespace) -> dict[str, Figures]:
    """All stretches."""
    results: dict[str, Figures] = {}
    async with contextlib.AsyncExitStack() as stack:
        run_dir = stack.enter_context(servers.run_directory())
        postgres = stack.enter_context(servers.postgres(run_dir))
        await postgres.create_database(DATABASE)
        server = await stack.enter_async_context(servers.weft(run_dir, postgres))
        target = Target(server, postgres, quick=True)
        people = await target.users("person", PEOPLE)
        async with target.sessions([people[0]]) as (session,):
            rooms = [await session.create_room(preset="public_chat") for _ in range(ROOMS)]
        for room_id in rooms:
            path = f"{CLIENT}/join/{quote(room_id)}"
            await as_user(server.port, [request_bytes("POST", path, user.access_token, {}) for user in people[1:]])
        numbers = itertools.count()
        talk: Iterator[bytes] = (
            say(people[next(numbers) % PEOPLE], room, f"t{next(numbers)}", "The lorry with the bricks is late again.")
            for room in itertools.cycle(rooms)
        )
        await measure(target.meter, server.port, talk, argparse.Namespace(rate=options.rate, seconds=2))
        _, results["without the bot"] = await measure(target.meter, server.port, talk, options)
        model_url = await stack.enter_async_context(stalled_model())
        process = await stack.enter_async_context(
            bot(run_dir, server.port, postgres.url(DATABASE, DATABASE), model_url)
        )
        connection = await asyncpg.connect(postgres.url(DATABASE, "postgres"))
        stack.push_async_callback(connection.close)
        await wait_for(connection, COUNT_JOBS, 0)
        await wait_until_there(server.port)
        invite = {"user_id": BOT}
        paths = [f"{CLIENT}/rooms/{quote(room_id)}/invite" for room_id in rooms]
        await as_user(server.port, [request_bytes("POST", path, people[0].access_token, invite) for path in paths])
        await wait_for(connection, "SELECT count(*) FROM summary_bot.audit WHERE action = 'invited'", ROOMS)
        for number, room_id in enumerate(rooms, 1):  # nobody may have more than a few questions waiting
            await as_user(server.port, [say(people[0], room_id, "on", "!enable")])
            await wait_for(connection, COUNT_ENABLED, number)
        sender = Sender(server.port)
        asking = asyncio.create_task(sender.send(iter(questions(people, rooms)), 50, PEOPLE * ASKS_EACH / 50))
        _, results["while 500 questions come in"] = await measure(target.meter, server.port, talk, options)
        await asking
        await wait_for(connection, COUNT_JOBS, PEOPLE * ASKS_EACH)
        _, results["500 questions wait"] = await measure(target.meter, server.port, talk, options)
        waiting = await connection.fetchval(COUNT_JOBS)
        results["the bot"] = {"questions_waiting": waiting, "memory_mib": process.memory_info().rss / 2**20}
    return results


def main() -> int:
    """Parses the options, runs, prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.summaries_load", description=__doc__)
    parser.add_argument("--rate", type=float, default=50.0, help="messages per second; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a stretch; default: %(default)s")
    results = uvloop.run(run(parser.parse_args()))
    for name, figures in results.items():
        print(name)
        for figure, value in figures.items():
            print(f"  {figure:28} {value:10.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
