"""Encrypted conversations with matrix-nio, whose cryptography is vodozemac: two people, two devices each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nio

from tests.client import Homeserver
from tests.clients.test_nio import PASSWORD, expect
from tests.conftest import StartServer

ENCRYPTION = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}


class Phone:
    """A device that reads what it is sent. Its keys are in a folder, as those of a program that ends are."""

    def __init__(self, client: nio.AsyncClient) -> None:
        self.client = client
        self.read: list[tuple[str, str]] = []
        self.unreadable: list[str] = []
        client.add_event_callback(self._take, nio.RoomMessageText)
        client.add_event_callback(self._fail, nio.MegolmEvent)

    async def _take(self, _room: object, event: nio.RoomMessageText) -> None:
        self.read.append((event.sender, event.body) if event.decrypted else ("in the clear", event.body))

    async def _fail(self, _room: object, event: nio.MegolmEvent) -> None:
        self.unreadable.append(event.event_id)

    async def sync(self) -> None:
        """Takes in what is new, and does what is to be done after it, as the library's `sync_forever` does."""
        expect(nio.SyncResponse, await self.client.sync(timeout=0))
        for response in await self.client.run_response_callbacks([]) or ():
            assert response
        if self.client.should_upload_keys:
            expect(nio.KeysUploadResponse, await self.client.keys_upload())
        if self.client.should_query_keys:
            expect(nio.KeysQueryResponse, await self.client.keys_query())
        if self.client.should_claim_keys:
            await self.client.keys_claim(self.client.get_users_for_key_claiming())
        await self.client.send_to_device_messages()

    async def send(self, room_id: str, text: str) -> None:
        """Sends a text, its key going to every device that the room's members have."""
        content = {"msgtype": "m.text", "body": text}
        sent = await self.client.room_send(room_id, "m.room.message", content, ignore_unverified_devices=True)
        expect(nio.RoomSendResponse, sent)


@asynccontextmanager
async def phone(
    base_url: str, user_id: str, device_id: str, store: Path, tokens: dict[str, str]
) -> AsyncIterator[Phone]:
    """A device that is logged in anew, or goes on with its token and the keys that it has in the folder."""
    config = nio.AsyncClientConfig(encryption_enabled=True, store_sync_tokens=True)
    client = nio.AsyncClient(base_url, user_id, device_id=device_id, store_path=str(store), config=config)
    try:
        if device_id in tokens:
            client.restore_login(user_id, device_id, tokens[device_id])
        else:
            expect(nio.LoginResponse, await client.login(PASSWORD))
            tokens[device_id] = client.access_token
        yield Phone(client)
    finally:
        await client.close()


async def register(homeserver: Homeserver, name: str) -> None:
    body = {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}, "inhibit_login": True}
    (await homeserver.request("POST", "/_matrix/client/v3/register", body)).ok()


async def settle(*phones: Phone) -> None:
    """Syncs until everybody has what the others have sent: keys first, then what they open."""
    for _ in range(3):
        for one in phones:
            await one.sync()


async def test_two_people_with_two_devices_each_read_each_other(start_server: StartServer, tmp_path: Path) -> None:
    names = [("@alice:weft.test", "A1"), ("@alice:weft.test", "A2"), ("@bob:weft.test", "B1"), ("@bob:weft.test", "B2")]
    expected: list[tuple[str, str]] = []
    tokens: dict[str, str] = {}

    @asynccontextmanager
    async def phones(homeserver: Homeserver) -> AsyncIterator[list[Phone]]:
        async with (
            phone(homeserver.base_url, *names[0], tmp_path, tokens) as a1,
            phone(homeserver.base_url, *names[1], tmp_path, tokens) as a2,
            phone(homeserver.base_url, *names[2], tmp_path, tokens) as b1,
            phone(homeserver.base_url, *names[3], tmp_path, tokens) as b2,
        ):
            yield [a1, a2, b1, b2]

    async with start_server() as homeserver:
        for name in ("alice", "bob"):
            await register(homeserver, name)
        async with phones(homeserver) as everyone:
            a1, _, b1, b2 = everyone
            await settle(*everyone)
            created = await a1.client.room_create(invite=["@bob:weft.test"], initial_state=[ENCRYPTION])
            room_id = expect(nio.RoomCreateResponse, created).room_id
            await settle(*everyone)
            expect(nio.JoinResponse, await b1.client.join(room_id))
            await settle(*everyone)
            for number, sender in enumerate(everyone):
                await sender.send(room_id, f"message {number}")
                expected.append((names[number][0], f"message {number}"))
                await settle(*everyone)
            assert [one.read for one in everyone] == [expected] * 4
            await b2.send(room_id, "the last before the end")
    async with start_server() as homeserver, phones(homeserver) as everyone:
        await settle(*everyone)
        assert [one.read for one in everyone] == [[("@bob:weft.test", "the last before the end")]] * 4
        await everyone[1].send(room_id, "the first after it")
        await settle(*everyone)
        assert [one.read[1:] for one in everyone] == [[("@alice:weft.test", "the first after it")]] * 4
        assert [one.unreadable for one in everyone] == [[]] * 4


async def test_a_device_that_comes_later_reads_what_comes_after_it(start_server: StartServer, tmp_path: Path) -> None:
    tokens: dict[str, str] = {}
    async with start_server() as homeserver:
        await register(homeserver, "carol")
        user = "@carol:weft.test"
        async with phone(homeserver.base_url, user, "C1", tmp_path, tokens) as first:
            await settle(first)
            created = await first.client.room_create(initial_state=[ENCRYPTION])
            room_id = expect(nio.RoomCreateResponse, created).room_id
            await settle(first)
            await first.send(room_id, "before")
            async with phone(homeserver.base_url, user, "C2", tmp_path, tokens) as second:
                await settle(second, first)
                await first.send(room_id, "after")
                await settle(second, first)
                assert second.read == [(user, "after")]
                assert len(second.unreadable) == 1
                assert first.read == [(user, "before"), (user, "after")]
