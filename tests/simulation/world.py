"""Servers that share rooms over a bad network, users who do as they like there, and what must hold in the end.

Everything that happens follows from a seed: who does what and when, what the network does to it, which server crashes.
The servers are whole, with PostgreSQL and all; only time and the network are not real.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from homeserver.appservice_api.client import HttpServiceClient
from homeserver.building.server import build_server
from homeserver.http.context import Server
from homeserver.http.push_gateway import HttpPushGateway
from homeserver.services.accounts.sessions import Requester
from homeserver.services.errors import MatrixError
from homeserver.services.notifier import Notifier
from homeserver.services.rooms.authoring import Draft
from homeserver.services.rooms.creation import RoomOptions
from homeserver.services.rooms.room import Room, StateKey
from matrix.pdu import Pdu, load_pdu
from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from matrix.signatures import SigningKey
from storage.database import StorageError
from storage.events import EventKind
from tests.conftest import make_config
from tests.simulation.databases import SimulatedDatabase
from tests.simulation.expectation import Expectation
from tests.simulation.malice import Malice
from tests.simulation.network import Internet, SimulatedNetwork, Weather
from tests.simulation.report import describe
from tests.simulation.virtual_time import VirtualTimeLoop

USERS_PER_SERVER = 2
MAX_PAUSE_S = 2.0
SETTLES_WITHIN_S = 24 * 3600.0

KINDS = "SELECT event_id, kind FROM events WHERE room = $1"
EVENTS = "SELECT event_id, json FROM events JOIN rooms USING (room) WHERE room_id = $1"


@dataclass
class SimServer:
    """A server that can crash and come back."""

    name: str
    url: str
    directory: Path
    internet: Internet
    server: Server | None = None
    database: SimulatedDatabase | None = None
    tasks: tuple[asyncio.Task[None], ...] = ()
    omit_from_events: int = 100

    async def start(self) -> None:
        """Comes (back) to life on its data."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        config = replace(make_config(self.directory), server_name=self.name)
        config = replace(config, federation=replace(config.federation, enabled=True))
        database = SimulatedDatabase(self.url)
        await database.open()
        server = await build_server(
            config,
            database,
            loop.clock_ms,
            Notifier(),
            HttpPushGateway(config.push),
            HttpServiceClient(),
            make_network=lambda *_: SimulatedNetwork(self.internet, self.name),
        )
        sender = server.federation.sender
        await sender.open(server.stream.current)
        server.federation.resident.omit_from_events = self.omit_from_events
        self.server, self.database = server, database
        self.tasks = tuple(asyncio.create_task(work) for work in (server.stream.run(), sender.persist_forever()))
        self.internet.servers[self.name] = server
        self.internet.keys[self.name] = server.signing_key
        await server.federation.partial_rooms.open()

    async def crash(self) -> None:
        """Ends at once, in the middle of whatever it does."""
        assert self.server is not None
        assert self.database is not None
        del self.internet.servers[self.name]
        await self.database.crash()
        self.server.federation.sender.abandon()
        self.server.federation.partial_rooms.abandon()
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)
        self.server = self.database = None

    async def stop(self) -> None:
        """Ends for good."""
        if self.server is not None:
            await self.crash()


class World:
    """Some servers, their users, and one room after another."""

    def __init__(self, seed: int, urls: list[str]) -> None:
        self.rng = random.Random(seed)
        self.malice_rng = random.Random(f"malice {seed}")
        self.has_malice = seed % 3 == 0
        self.internet = Internet(self.rng)
        self._directory = tempfile.TemporaryDirectory(prefix="weft-simulation-")
        self.servers: list[SimServer] = []
        for number, url in enumerate(urls):
            name = f"server{number}.test"
            directory = Path(self._directory.name) / name
            directory.mkdir()
            key = SigningKey("a", self.rng.randbytes(32))
            (directory / "signing.key").write_text(key.to_line() + "\n")
            self.servers.append(SimServer(name, url, directory, self.internet))
        self.users = [
            (server, f"@user{number}:{server.name}") for server in self.servers for number in range(USERS_PER_SERVER)
        ]
        self.acknowledged: set[str] = set()

    async def start(self) -> None:
        """Every server runs."""
        for server in self.servers:
            await server.start()
            assert server.server is not None
            for _, user_id in self.users:
                if user_id.endswith(":" + server.name):
                    localpart = user_id[1:].partition(":")[0]
                    await server.server.registration.create_user(localpart, None)

    async def stop(self) -> None:
        """No server runs any more."""
        for server in self.servers:
            await server.stop()
        self._directory.cleanup()

    async def room(self, actions: int) -> None:
        """Has users do things in a new room while the network and the servers fail, then lets all come to rest.

        Checks that every server that is in the room then has the same events and the same state, and that no event
        that was acknowledged is missing.
        """
        self.acknowledged = set()
        room_id = await self._open_room()
        weather = self.internet.weather = Weather(
            lost=self.rng.choice((0, 0.1, 0.3)),
            answers_lost=self.rng.choice((0, 0.1, 0.3)),
            repeated=self.rng.choice((0, 0.2)),
            max_delay_s=self.rng.choice((0.05, 1.0, 5.0)),
        )
        if self.has_malice:
            liar, share = self.malice_rng.choice(self.servers).name, self.malice_rng.choice((0.1, 0.3))
            self.internet.malice = Malice(self.malice_rng, liar, share)
        tasks = []
        for _ in range(actions):
            await asyncio.sleep(self.rng.random() * MAX_PAUSE_S)
            tasks.append(asyncio.create_task(self._act(room_id)))
            if self.rng.random() < 0.15:
                await self._disturb()
        await self._heal()
        await asyncio.gather(*tasks)
        await self._settle()
        await self._last_words(room_id)
        await self._check(room_id)
        history = self.internet.history.hexdigest()
        print(f"{room_id}: {len(self.acknowledged)} events acknowledged, weather {weather}, history {history}")

    async def _open_room(self) -> str:
        self.internet.weather, self.internet.cut = Weather(), set()
        server, creator = self.rng.choice(self.users)
        assert server.server is not None
        version = self.rng.choice(list(ROOM_VERSIONS))
        levels = {user_id: 50 for _, user_id in self.users if self.rng.random() < 0.4 and user_id != creator}
        if not ROOM_VERSIONS[version].creators_have_infinite_power:
            levels[creator] = 100
        options = RoomOptions(
            preset="public_chat", room_version=version, power_level_content_override={"users": levels}
        )
        room_id = await server.server.creation.create(_requester(creator), options)
        # The others come when the weather is bad, and may be told who is in the room only afterwards.
        share = self.rng.choice((0.9, 0.4))
        omit_from_events = self.rng.choice((0, 0, 100))
        for one in self.servers:
            one.omit_from_events = omit_from_events
            assert one.server is not None
            one.server.federation.resident.omit_from_events = omit_from_events
        for other, user_id in self.users:
            if user_id != creator and self.rng.random() < share:
                assert other.server is not None
                await other.server.membership.join(user_id, room_id, None, [server.name])
        await self._settle()
        return room_id

    async def _disturb(self) -> None:
        """Something goes wrong, or right again."""
        match self.rng.choice(("cut", "join", "crash")):
            case "cut":
                one, other = self.rng.sample(self.servers, 2)
                self.internet.cut.add(frozenset((one.name, other.name)))
            case "join":
                self.internet.cut.clear()
            case "crash":
                server = self.rng.choice(self.servers)
                if server.server is not None:
                    await server.crash()
                    await asyncio.sleep(self.rng.random() * 20)
                    await server.start()

    async def _heal(self) -> None:
        self.internet.weather, self.internet.cut, self.internet.malice = Weather(), set(), None
        for server in self.servers:
            if server.server is None:
                await server.start()

    async def _act(self, room_id: str) -> None:
        """A user does something, which may be forbidden, or fail with their server."""
        at, user_id = self.rng.choice(self.users)
        act = self.rng.choice(ACTS)
        target = self.rng.choice(self.users)[1]
        via = [server.name for server in self.servers]
        number = self.rng.randrange(10**6)
        server = at.server
        if server is None:
            return
        try:
            event_id = await act(server, user_id, room_id, target, number, via)
        except (MatrixError, StorageError, *server.database.connection_errors):
            return
        if event_id is not None:
            self.acknowledged.add(event_id)

    async def _settle(self) -> None:
        """Waits until nobody has anything to send any more."""
        async with asyncio.timeout(SETTLES_WITHIN_S):
            while await self._is_busy():  # noqa: ASYNC110 -- seconds that cost nothing
                await asyncio.sleep(1)

    async def _is_busy(self) -> bool:
        running = [server.server for server in self.servers if server.server is not None]
        if self.internet.under_way > 0 or any(server.federation.sender.is_busy for server in running):
            return True
        incomplete = {room_id for server in running for room_id in server.federation.partial_rooms.incomplete}
        return any([await self._may_be_told(room_id) for room_id in incomplete])

    async def _may_be_told(self, room_id: str) -> bool:
        """Whether any server in a room knows who else is there: where all who did have left, nobody can tell."""
        for server in self.servers:
            if server.server is not None:
                room = await server.server.access.find_resident_room(room_id)
                if room is not None and room.local_joined and room.partial is None:
                    return True
        return False

    async def _last_words(self, room_id: str) -> None:
        """Two of each server say something: what a server has missed it hears of now, and all branches meet.

        Two, since what one says may be soft-failed by others for ever, whose state theirs then becomes no part of.
        """
        for place in (0, -1):
            for server in self.servers:
                assert server.server is not None
                room = await server.server.access.find_resident_room(room_id)
                if room is None or not room.local_joined:
                    continue
                speaker = sorted(room.local_joined)[place]
                try:
                    await _message(server.server, speaker, room_id, "", self.rng.randrange(10**6), [])
                except MatrixError:
                    continue  # not everybody may speak
                await self._settle()

    async def _check(self, room_id: str) -> None:
        rooms = await self._rooms(room_id)
        for name, room in rooms.items():
            if room.partial is not None:
                assert not await self._may_be_told(room_id), f"{name} does not know who is in {room_id}"
                return  # what others there say waits
        if not rooms:
            return
        states = {server: await self._state_of(server, room) for server, room in rooms.items()}
        await self._check_by_history(room_id, rooms, states)
        for one, other in _holding_together(rooms):
            keys = sorted({*states[one], *states[other]})
            differing = [key for key in keys if states[one].get(key) != states[other].get(key)]
            if differing:
                await self._describe(room_id, states, differing)
            assert not differing, f"{one} and {other} differ in {differing} of {room_id}"
        missing = self.acknowledged - await self._known(room_id, rooms)
        if missing:
            await self._describe(room_id, states, ())
        assert not missing, f"{missing} were acknowledged and are nowhere"

    async def _check_by_history(
        self, room_id: str, rooms: Mapping[str, Room], states: Mapping[str, dict[StateKey, str]]
    ) -> None:
        """Whether every server has that state which follows from the events that it stands on."""
        version = next(iter(rooms.values())).version
        expectation = Expectation(version, await self._all_events(room_id, version))
        for name, room in rooms.items():
            extremities = [extremity.reference.event_id for extremity in room.tip.extremities]
            expected = expectation.state_after(extremities)
            if expected != states[name]:
                keys = [key for key in {*expected, *states[name]} if expected.get(key) != states[name].get(key)]
                await self._describe(room_id, {**states, "expected": expected}, sorted(keys))
                raise AssertionError(f"{name} has another state of {room_id} than follows from its events: {keys}")

    async def _describe(
        self, room_id: str, states: Mapping[str, dict[StateKey, str]], keys: Iterable[StateKey]
    ) -> None:
        for server in self.servers:
            assert server.server is not None
            if (room := await server.server.access.find_resident_room(room_id)) is not None:
                await describe(server.name, server.server, room, states.get(server.name, {}), keys)

    async def _rooms(self, room_id: str) -> dict[str, Room]:
        """The room as each server has it that is in it, by its own account."""
        rooms = {}
        for server in self.servers:
            room = await self._running(server.name).access.find_resident_room(room_id)
            if room is not None and room.local_joined:
                rooms[server.name] = room
        return rooms

    async def _state_of(self, name: str, room: Room) -> dict[StateKey, str]:
        server = self._running(name)
        state = await self._event_ids(server, room.state)
        stored = await self._event_ids(server, await server.access.state_at(room, room.tip.snapshot))
        assert stored == state, f"{name} has stored another state of {room.room_id} than it has"
        return state

    async def _event_ids(self, server: Server, positions: Mapping[StateKey, int]) -> dict[StateKey, str]:
        events = await server.events.load(positions.values())
        return {key: events[position].event_id for key, position in positions.items()}

    async def _events(self, server: Server, room: Room) -> set[str]:
        rows = await server.database.pool.fetch(KINDS, room.room)
        return {row["event_id"] for row in rows if row["kind"] != EventKind.REJECTED}

    async def _known(self, room_id: str, rooms: Mapping[str, Room]) -> set[str]:
        """The events that servers in a room have, and what was before: of that a server that left may have some."""
        everything = await self._all_events(room_id, next(iter(rooms.values())).version)
        pending: set[str] = set()
        for name, room in rooms.items():
            pending |= await self._events(self._running(name), room)
        known: set[str] = set()
        while pending:
            known |= pending
            before = {previous for event_id in pending for previous in everything[event_id].prev_events}
            pending = (before & everything.keys()) - known
        return known

    async def _all_events(self, room_id: str, version: RoomVersion) -> dict[str, Pdu]:
        """The events that any server has, rejected or not."""
        events = {}
        for server in self.servers:
            for row in await self._running(server.name).database.pool.fetch(EVENTS, room_id):
                events[row["event_id"]] = load_pdu(orjson.loads(row["json"]), version, row["event_id"])
        return events

    def _running(self, name: str) -> Server:
        server = self.internet.servers[name]
        assert server is not None
        return server


def _holding_together(rooms: Mapping[str, Room]) -> list[tuple[str, str]]:
    """The servers that hold each other for being in a room, two and two.

    State resolution may forget members who had joined when the room was still public, on a branch on which it is so no
    more: the others do not talk to their servers then, and nothing tells these.
    https://spec.matrix.org/v1.19/rooms/v12/#state-resolution
    """
    pairs = itertools.combinations(rooms, 2)
    return [(one, other) for one, other in pairs if one in rooms[other].servers and other in rooms[one].servers]


def _requester(user_id: str) -> Requester:
    return Requester(user_id, 1, "DEVICE", False)


async def _author(server: Server, room_id: str, draft: Draft) -> str | None:
    room = await server.access.access_joined_room(draft.sender, room_id)
    made = await server.sending.author(room, lambda _: (draft,))
    return made[0].event_id if made else None


async def _message(server: Server, user: str, room_id: str, _target: str, number: int, _via: list[str]) -> str | None:
    return await _author(server, room_id, Draft("m.room.message", user, {"body": str(number), "msgtype": "m.text"}))


async def _topic(server: Server, user: str, room_id: str, _target: str, number: int, _via: list[str]) -> str | None:
    return await _author(server, room_id, Draft("m.room.topic", user, {"topic": str(number)}, ""))


async def _tag(server: Server, user: str, room_id: str, target: str, number: int, _via: list[str]) -> str | None:
    return await _author(server, room_id, Draft("test.tag", user, {"number": number}, f"key{number % 3}"))


async def _power(server: Server, user: str, room_id: str, target: str, number: int, _via: list[str]) -> str | None:
    room = await server.access.access_joined_room(user, room_id)
    event = room.tip_event(("m.room.power_levels", ""))
    assert event is not None
    users = {**event.pdu.content.get("users", {}), target: number % 60}
    return await _author(server, room_id, Draft("m.room.power_levels", user, {**event.pdu.content, "users": users}, ""))


async def _rules(server: Server, user: str, room_id: str, _target: str, number: int, _via: list[str]) -> str | None:
    rule = "public" if number % 3 else "invite"
    return await _author(server, room_id, Draft("m.room.join_rules", user, {"join_rule": rule}, ""))


async def _join(server: Server, user: str, room_id: str, _target: str, _number: int, via: list[str]) -> None:
    await server.membership.join(user, room_id, None, via)


async def _leave(server: Server, user: str, room_id: str, _target: str, _number: int, _via: list[str]) -> None:
    await server.membership.leave(user, room_id, None)


async def _kick(server: Server, user: str, room_id: str, target: str, _number: int, _via: list[str]) -> None:
    await server.membership.kick(user, room_id, target, None)


async def _ban(server: Server, user: str, room_id: str, target: str, number: int, _via: list[str]) -> None:
    if number % 2:
        await server.membership.ban(user, room_id, target, None)
    else:
        await server.membership.unban(user, room_id, target, None)


async def _invite(server: Server, user: str, room_id: str, target: str, _number: int, _via: list[str]) -> None:
    await server.membership.invite(user, room_id, target, None)


Act = Callable[[Server, str, str, str, int, list[str]], Awaitable[Any]]
ACTS: list[Act] = [
    *(_message,) * 5,
    *(_topic,) * 2,
    *(_tag,) * 3,
    *(_join,) * 3,
    _power,
    _rules,
    _leave,
    _kick,
    _ban,
    _invite,
]
