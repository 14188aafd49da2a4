"""What a workload works against: one server, its users, and the few requests that every workload needs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from benchmarks.http_client import Connection, HttpError, Response, checked, request_bytes
from benchmarks.measure import Meter
from benchmarks.servers import Homeserver, Postgres

CLIENT = "/_matrix/client/v3"
ROOM_VERSION = "12"
"""The same for both servers, whatever their defaults: the room version decides how much there is to hash and check."""

_SETUP_CONCURRENCY = 8


@dataclass(frozen=True, slots=True)
class User:
    """A registered user with a device logged in."""

    user_id: str
    access_token: str


class Session:
    """One user's connection to the server."""

    def __init__(self, user: User, connection: Connection) -> None:
        self.user = user
        self._connection = connection

    def request(self, method: str, path: str, content: object = None) -> bytes:
        """A request under `/_matrix/client/v3` with the user's access token, ready for `fetch`."""
        return request_bytes(method, CLIENT + path, self.user.access_token, content)

    async def fetch(self, request: bytes) -> Response:
        """Send a request; anything but a 200 is an `HttpError`."""
        return checked(request, await self._connection.fetch(request))

    async def is_found(self, request: bytes) -> bool:
        """Send a request; whether the answer is a 200 or a 404. Anything else is an `HttpError`."""
        response = await self._connection.fetch(request)
        return checked(request, response, (200, 404)).status == 200

    async def call(self, method: str, path: str, content: object = None) -> Any:
        """Make a request and decode the JSON of its answer."""
        return (await self.fetch(self.request(method, path, content))).json()

    async def create_room(self, **content: object) -> str:
        """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom; the new room's ID."""
        return str((await self.call("POST", "/createRoom", {"room_version": ROOM_VERSION, **content}))["room_id"])

    def join_request(self, room_id: str) -> bytes:
        """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidjoin"""
        return self.request("POST", f"/rooms/{quote(room_id)}/join", {})

    def message_requests(self, room_id: str, prefix: str) -> Iterator[bytes]:
        """Endless requests that send messages of 60 characters; `prefix` makes their transaction IDs unique.

        https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid
        """
        path = f"/rooms/{quote(room_id)}/send/m.room.message/"
        for number in itertools.count():
            yield self.request("PUT", f"{path}{prefix}-{number}", text_message(f"Message {number} of {prefix}."))


def text_message(text: str) -> dict[str, str]:
    """The content of an `m.room.message`, its text filled up to 60 characters."""
    return {"msgtype": "m.text", "body": f"{text} ".ljust(60, "~")}


class Target:
    """One server under measurement. Made once a run; users and rooms stay between workloads."""

    def __init__(self, server: Homeserver, postgres: Postgres, *, quick: bool) -> None:
        self.server = server
        self.postgres = postgres
        self.quick = quick
        self.meter = Meter(server.pid, postgres.pid, server.name)
        self.history_rooms: list[str] = []
        """The rooms that `storage` filled, for `scrollback` to read."""
        self.sync_rooms_ready = False
        """Whether the rooms of `initial_sync` and `empty_sync` are there."""
        self._users: dict[str, list[User]] = {}
        self._numbers = itertools.count(1)

    def unique(self, name: str) -> str:
        """A name that this run has not used yet."""
        return f"{name}{next(self._numbers)}"

    async def users(self, group: str, count: int) -> list[User]:
        """The first `count` users of a group; those that are missing are registered."""
        users = self._users.setdefault(group, [])
        if len(users) < count:
            async with Connection(self.server.port) as connection:
                for number in range(len(users), count):
                    users.append(await self._register(connection, f"{group}{number}"))
        return users[:count]

    async def _register(self, connection: Connection, name: str) -> User:
        """https://element-hq.github.io/synapse/latest/admin_api/register_api.html, which both servers offer."""
        path, password = "/_synapse/admin/v1/register", f"password of {name}"
        nonce = (await connection.fetch(request_bytes("GET", path))).json()["nonce"]
        signed = "\0".join([nonce, name, password, "notadmin"]).encode()
        mac = hmac.new(self.server.shared_secret.encode(), signed, hashlib.sha1).hexdigest()
        content = {"nonce": nonce, "username": name, "password": password, "admin": False, "mac": mac}
        answer = await connection.fetch(request_bytes("POST", path, content=content))
        if answer.status != 200:
            raise HttpError(f"POST {path}: {answer.status} {answer.body[:300].decode(errors='replace')}")
        return User(answer.json()["user_id"], answer.json()["access_token"])

    @contextlib.asynccontextmanager
    async def sessions(self, users: Iterable[User]) -> AsyncIterator[list[Session]]:
        """A connection for each user, open inside the `async with`."""
        async with contextlib.AsyncExitStack() as stack:
            yield [Session(user, await stack.enter_async_context(Connection(self.server.port))) for user in users]

    async def database_bytes(self) -> int:
        """The size of the server's database on disk, indexes in, once dead rows are gone and pages written."""
        connection = await self.postgres.connect(self.server.name)
        try:
            await connection.execute("VACUUM")
            await connection.execute("CHECKPOINT")
            return int(await connection.fetchval("SELECT pg_database_size(current_database())"))
        finally:
            await connection.close()


# The clock is `time.perf_counter` throughout: that of uvloop counts whole milliseconds.


async def run_together(jobs: Iterable[tuple[Session, bytes]], concurrency: int = _SETUP_CONCURRENCY) -> list[float]:
    """Fetch every request, at most `concurrency` at a time; how long each took, in seconds."""
    queue = iter(list(jobs))
    durations: list[float] = []

    async def work() -> None:
        for session, request in queue:
            started = time.perf_counter()
            await session.fetch(request)
            durations.append(time.perf_counter() - started)

    await run_all([work() for _ in range(concurrency)])
    return durations


async def run_for(seconds: float, jobs: Sequence[Callable[[], Awaitable[object]]]) -> list[float]:
    """Call each of `jobs` again and again, all side by side, until the time is over; each call's duration in s."""
    deadline = time.perf_counter() + seconds
    durations: list[float] = []

    async def work(job: Callable[[], Awaitable[object]]) -> None:
        started = time.perf_counter()
        while started < deadline:
            await job()
            ended = time.perf_counter()
            durations.append(ended - started)
            started = ended

    await run_all([work(job) for job in jobs])
    return durations


async def run_all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run side by side; the first failure ends all of them and is raised as it is."""
    with bare_http_errors():
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)


@contextlib.contextmanager
def bare_http_errors() -> Iterator[None]:
    """Of a group of `HttpError`s raise one: side by side, all fail for the same reason."""
    try:
        yield
    except* HttpError as errors:
        failure: BaseException = errors
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        raise failure from None
