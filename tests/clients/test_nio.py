"""A client library that somebody else wrote, matrix-nio, does with a running server what chat programs do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import nio
import pytest

from tests.client import Homeserver

PASSWORD = "correct horse battery staple"
DEADLINE_S = 20
LONG_POLL_MS = 10_000

Response = TypeVar("Response")


def expect(kind: type[Response], response: object) -> Response:
    """The library's answer, which has to be of this kind and not an error."""
    assert isinstance(response, kind), response
    return response


@asynccontextmanager
async def client(homeserver: Homeserver, username: str) -> AsyncIterator[nio.AsyncClient]:
    """A registered user's client, logged in."""
    made = nio.AsyncClient(homeserver.base_url, username, config=nio.AsyncClientConfig(encryption_enabled=False))
    try:
        expect(nio.RegisterResponse, await made.register(username, PASSWORD, device_name="first"))
        yield made
    finally:
        await made.close()


async def sync(of: nio.AsyncClient) -> nio.SyncResponse:
    """One sync that does not wait for news."""
    return expect(nio.SyncResponse, await of.sync(timeout=0))


async def message(sender: nio.AsyncClient, room_id: str, text: str) -> str:
    """Sends a text; its event ID."""
    content = {"msgtype": "m.text", "body": text}
    return expect(nio.RoomSendResponse, await sender.room_send(room_id, "m.room.message", content)).event_id


class Inbox:
    """What a client's `sync_forever` brings, for a test to wait for."""

    def __init__(self, of: nio.AsyncClient) -> None:
        self._client = of
        self._news: asyncio.Queue[Any] = asyncio.Queue()
        of.add_event_callback(self._take, nio.RoomMessageText)
        of.add_event_callback(self._take, nio.RedactionEvent)
        of.add_event_callback(self._take, nio.RoomMemberEvent)
        of.add_event_callback(self._take, nio.InviteMemberEvent)
        of.add_ephemeral_callback(self._take, nio.TypingNoticeEvent)
        of.add_ephemeral_callback(self._take, nio.ReceiptEvent)

    async def _take(self, _room: object, event: Any) -> None:
        await self._news.put(event)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Syncs for as long as the `async with` lasts."""
        syncing = asyncio.create_task(self._client.sync_forever(timeout=LONG_POLL_MS, full_state=True))
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._client.synced.wait()
            yield
        finally:
            syncing.cancel()
            await asyncio.wait((syncing,))

    async def expect(self, matches: Callable[[Any], bool]) -> Any:
        """The next event of this sort; fails when none comes."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                event = await self._news.get()
                if matches(event):
                    return event


async def shared_room(alice: nio.AsyncClient, bob: nio.AsyncClient) -> str:
    """A room of Alice's that Bob is invited to and joins."""
    created = await alice.room_create(name="Garden", topic="Beans", invite=[bob.user_id])
    room_id = expect(nio.RoomCreateResponse, created).room_id
    await sync(bob)
    assert room_id in bob.invited_rooms
    assert bob.invited_rooms[room_id].inviter == alice.user_id
    expect(nio.JoinResponse, await bob.join(room_id))
    return room_id


async def test_registers_logs_in_and_out(shared_homeserver: Homeserver) -> None:
    async with client(shared_homeserver, "nina") as nina:
        first = expect(nio.WhoamiResponse, await nina.whoami())
        assert (first.user_id, first.device_id) == ("@nina:weft.test", nina.device_id)
        again = nio.AsyncClient(shared_homeserver.base_url, "@nina:weft.test")
        try:
            login = expect(nio.LoginResponse, await again.login(PASSWORD, device_name="second"))
            assert login.device_id != first.device_id
            # The library wants every device to have been seen, which the specification leaves open.
            expect(nio.WhoamiResponse, await again.whoami())
            devices = expect(nio.DevicesResponse, await nina.devices())
            assert {device.id for device in devices.devices} == {first.device_id, login.device_id}
            expect(nio.LogoutResponse, await again.logout())
            wrong = nio.AsyncClient(shared_homeserver.base_url, "nina")
            refused = expect(nio.LoginError, await wrong.login("wrong"))
            await wrong.close()
        finally:
            await again.close()
        assert refused.status_code == "M_FORBIDDEN"
        devices = expect(nio.DevicesResponse, await nina.devices())
        assert [device.id for device in devices.devices] == [first.device_id]
        expect(nio.LogoutResponse, await nina.logout())
        refused_whoami = expect(nio.WhoamiError, await nina.whoami())
    assert refused_whoami.status_code in ("M_UNKNOWN_TOKEN", "M_MISSING_TOKEN")


async def test_two_people_talk_live(shared_homeserver: Homeserver) -> None:
    async with client(shared_homeserver, "alice") as alice, client(shared_homeserver, "bob") as bob:
        room_id = await shared_room(alice, bob)
        alices, bobs = Inbox(alice), Inbox(bob)
        async with alices.open(), bobs.open():
            expect(nio.RoomTypingResponse, await alice.room_typing(room_id, True, timeout=5_000))
            await bobs.expect(lambda e: isinstance(e, nio.TypingNoticeEvent) and e.users == [alice.user_id])
            event_id = await message(alice, room_id, "The beans are up")
            seen = await bobs.expect(lambda e: isinstance(e, nio.RoomMessageText) and e.event_id == event_id)
            assert (seen.body, seen.sender) == ("The beans are up", alice.user_id)

            expect(nio.UpdateReceiptMarkerResponse, await bob.update_receipt_marker(room_id, event_id))
            receipt = await alices.expect(lambda e: isinstance(e, nio.ReceiptEvent))
            assert [(r.event_id, r.user_id, r.receipt_type) for r in receipt.receipts] == [
                (event_id, bob.user_id, "m.read")
            ]

            expect(nio.RoomRedactResponse, await alice.room_redact(room_id, event_id, reason="They are peas"))
            redaction = await bobs.expect(lambda e: isinstance(e, nio.RedactionEvent))
            assert (redaction.redacts, redaction.reason) == (event_id, "They are peas")

            expect(nio.RoomLeaveResponse, await bob.room_leave(room_id))
            left = await alices.expect(lambda e: isinstance(e, nio.RoomMemberEvent) and e.membership == "leave")
            assert left.state_key == bob.user_id


async def test_a_long_poll_ends_with_the_news(shared_homeserver: Homeserver) -> None:
    async with client(shared_homeserver, "carol") as carol, client(shared_homeserver, "dave") as dave:
        room_id = await shared_room(carol, dave)
        await sync(dave)
        waiting = asyncio.create_task(dave.sync(timeout=LONG_POLL_MS))
        event_id = await message(carol, room_id, "hello")
        async with asyncio.timeout(DEADLINE_S):
            news = expect(nio.SyncResponse, await waiting)
        timeline = news.rooms.join[room_id].timeline.events
        assert [event.event_id for event in timeline] == [event_id]


async def test_state_and_members_are_what_the_library_keeps(shared_homeserver: Homeserver) -> None:
    async with client(shared_homeserver, "erin") as erin, client(shared_homeserver, "frank") as frank:
        room_id = await shared_room(erin, frank)
        expect(nio.ProfileSetDisplayNameResponse, await frank.set_displayname("Frank N."))
        expect(
            nio.RoomPutStateResponse, await erin.room_put_state(room_id, "m.room.topic", {"topic": "Beans and peas"})
        )
        await sync(erin)
        room = erin.rooms[room_id]
        assert (room.name, room.topic, room.member_count) == ("Garden", "Beans and peas", 2)
        assert room.user_name(frank.user_id) == "Frank N."
        assert room.room_version == "12"
        state = expect(nio.RoomGetStateEventResponse, await frank.room_get_state_event(room_id, "m.room.topic"))
        assert state.content["topic"] == "Beans and peas"
        everything = expect(nio.RoomGetStateResponse, await frank.room_get_state(room_id))
        types = {event["type"] for event in everything.events}
        assert {"m.room.create", "m.room.member", "m.room.power_levels", "m.room.join_rules", "m.room.name"} <= types
        members = expect(nio.JoinedMembersResponse, await frank.joined_members(room_id))
        assert {member.user_id for member in members.members} == {erin.user_id, frank.user_id}


@pytest.mark.parametrize("direction", [nio.MessageDirection.back, nio.MessageDirection.front])
async def test_pages_through_history(shared_homeserver: Homeserver, direction: nio.MessageDirection) -> None:
    async with client(shared_homeserver, f"pages_{direction.name}") as reader:
        room_id = expect(nio.RoomCreateResponse, await reader.room_create()).room_id
        sent = [await message(reader, room_id, f"page {number}") for number in range(25)]
        token = (await sync(reader)).next_batch if direction is nio.MessageDirection.back else "s0"
        found: list[str] = []
        for _ in range(20):
            page = await reader.room_messages(room_id, token, direction=direction, limit=7)
            page = expect(nio.RoomMessagesResponse, page)
            found += [event.event_id for event in page.chunk if isinstance(event, nio.RoomMessageText)]
            if page.end is None:
                break
            token = page.end
        assert found == (sent if direction is nio.MessageDirection.front else sent[::-1])


async def test_unread_counts_reach_the_library(shared_homeserver: Homeserver) -> None:
    async with client(shared_homeserver, "grace") as grace, client(shared_homeserver, "heidi") as heidi:
        room_id = await shared_room(grace, heidi)
        await sync(heidi)
        await message(grace, room_id, "one")
        last = await message(grace, room_id, "two")
        await sync(heidi)
        assert heidi.rooms[room_id].unread_notifications == 2
        expect(nio.RoomReadMarkersResponse, await heidi.room_read_markers(room_id, last, last))
        await message(heidi, room_id, "seen")
        await sync(heidi)
        assert heidi.rooms[room_id].unread_notifications == 0
