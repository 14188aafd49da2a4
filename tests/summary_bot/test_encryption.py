"""The bot in encrypted rooms, with people whose client is matrix-nio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import asyncpg
import msgspec
import nio
import pytest
import vodozemac
from nio.crypto.attachments import encrypt_attachment

from appservices.summary_bot.config import ConfigError, Registration, check_registration, parse_config
from appservices.summary_bot.encryption.attachments import decrypt_attachment
from appservices.summary_bot.encryption.devices import read_devices, read_identity
from appservices.summary_bot.encryption.plaintexts import decode
from appservices.summary_bot.matrix.client import MatrixFailure
from appservices.summary_bot.storage.database import StorageError
from tests.clients.test_nio import expect
from tests.clients.test_nio_encryption import ENCRYPTION, Phone, phone, register
from tests.summary_bot.model_server import ModelServer, model_server, provider
from tests.summary_bot.rogue import Rogue
from tests.summary_bot.support import BOT, ENCRYPTION_KEY, WAIT_S, Event, RunningBot, Site

KEYS_QUERY = "/_matrix/client/v3/keys/query"


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    """A model server."""
    async with model_server() as server:
        yield server


class Talker(Phone):
    """Somebody whose device reads along in encrypted rooms, and follows the bot's invitations."""

    def __init__(self, client: nio.AsyncClient) -> None:
        super().__init__(client)
        self.heard: list[tuple[str, nio.RoomMessage]] = []
        client.add_event_callback(self._hear, nio.RoomMessage)
        client.add_event_callback(self._join, nio.InviteMemberEvent)

    async def _hear(self, room: nio.MatrixRoom, event: nio.RoomMessage) -> None:
        if event.sender == BOT:
            self.heard.append((room.room_id, event))

    async def _join(self, room: nio.MatrixRoom, event: nio.InviteMemberEvent) -> None:
        if event.membership == "invite" and event.state_key == self.client.user_id:
            expect(nio.JoinResponse, await self.client.join(room.room_id))

    async def wait(self, is_it: Callable[[], Any]) -> Any:
        """Syncs until something is there."""
        async with asyncio.timeout(WAIT_S):
            while not (found := is_it()):
                await self.sync()
                await asyncio.sleep(0.02)
            return found

    async def wait_answer(self, *words: str, room_id: str | None = None) -> nio.RoomMessage:
        """The bot's message with these words, which has to have come encrypted."""
        found = await self.wait(
            lambda: [
                event
                for where, event in self.heard
                if all(word in event.body for word in words) and (room_id is None or where == room_id)
            ]
        )
        assert found[-1].decrypted
        return found[-1]


@asynccontextmanager
async def talker(site: Site, name: str, store: Path) -> AsyncIterator[Talker]:
    """Somebody new."""
    await register(site.homeserver, name)
    async with phone(site.server.base_url, f"@{name}:weft.test", "PHONE", store, {}) as one:
        yield Talker(one.client)


@asynccontextmanager
async def secret_bot(
    site: Site, tmp_path: Path, schema: str, *, key: str = ENCRYPTION_KEY, **options: Any
) -> AsyncIterator[RunningBot]:
    """A bot that reads encrypted rooms, with the keys of its schema."""
    (tmp_path / "key").write_text(key)
    database = {"url": site.database_url, "schema": schema}
    async with site.bot(database=database, encryption={"key": {"file": str(tmp_path / "key")}}, **options) as bot:
        yield bot


async def column(site: Site, query: str) -> list[Any]:
    """The first column of a query."""
    connection = await asyncpg.connect(site.database_url)
    try:
        return [row[0] for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def until(site: Site, query: str, expected: list[Any]) -> None:
    """Waits for what a query finds."""
    async with asyncio.timeout(WAIT_S):
        while True:
            if await column(site, query) == expected:
                return
            await asyncio.sleep(0.02)


async def test_a_conversation_in_an_encrypted_room(site: Site, tmp_path: Path, model: ModelServer) -> None:
    async with talker(site, "sealed", tmp_path) as alice:
        async with secret_bot(site, tmp_path, "bot_sealed", providers=[provider(model)]):
            created = await alice.client.room_create(name="Vault", invite=[BOT], initial_state=[ENCRYPTION])
            room_id = expect(nio.RoomCreateResponse, created).room_id
            await alice.wait_answer("Hello", room_id=room_id)
            await alice.send(room_id, "!enable")
            await alice.wait_answer("I am on in this encrypted room", room_id=room_id)
            await alice.send(room_id, "We decided to bury the chest under the old oak.")
            await alice.send(room_id, "!summary 2h")
            await alice.wait_answer("Summary of Vault", "under the old oak", "Covered: 1 of 1", "kept to local models")
            assert model.requests == []
        # The bot begins anew with the keys that it has. A model of the house may read along; nothing of it is kept.
        async with secret_bot(site, tmp_path, "bot_sealed", providers=[provider(model, local=True)]):
            await alice.send(room_id, "!decisions 2h")
            await alice.wait_answer("Summary of Vault", "Written by", "Covered: 1 of 1")
            assert await column(site, "SELECT count(*) FROM bot_sealed.chunks") == [0]
            await column(site, "DELETE FROM bot_sealed.inbound_sessions")
            alice.client.invalidate_outbound_session(room_id)
            await alice.send(room_id, "We decided to guard the oak at night.")
            await alice.send(room_id, "!summary 2h here")
            # Three commands and a message went with the key that is lost.
            await alice.wait_answer(
                "at night", "Covered: 1 of 1", "4 encrypted messages could not be read", room_id=room_id
            )
    assert alice.unreadable == []
    with pytest.raises(StorageError, match="not the key"):
        async with secret_bot(site, tmp_path, "bot_sealed", key=ENCRYPTION_KEY.upper()):
            pass


async def test_what_is_secret_stays_where_it_is_encrypted(site: Site, tmp_path: Path) -> None:
    async with talker(site, "careful", tmp_path) as alice, secret_bot(site, tmp_path, "bot_careful"):
        direct = expect(nio.RoomCreateResponse, await alice.client.room_create(invite=[BOT], is_direct=True)).room_id
        await alice.wait(lambda: any(where == direct and "Hello" in event.body for where, event in alice.heard))
        created = await alice.client.room_create(name="Crypt", invite=[BOT], initial_state=[ENCRYPTION])
        room_id = expect(nio.RoomCreateResponse, created).room_id
        await alice.wait_answer("Hello", room_id=room_id)
        await alice.send(room_id, "!enable")
        await alice.wait_answer("I am on", room_id=room_id)
        await alice.send(room_id, "We decided to sleep in the cellar tonight.")
        # Asked where the homeserver reads along, answered where it does not.
        await alice.send(direct, f"summary {room_id} 2h")
        await alice.wait_answer("in the cellar")
        # Whoever asks in the clear may be the homeserver.
        token = alice.client.access_token
        path = f"/_matrix/client/v3/rooms/{quote(room_id)}/send/m.room.message/clear"
        asked = {"msgtype": "m.text", "body": "!disable"}
        (await site.homeserver.request("PUT", path, asked, token=token)).ok()
        await alice.wait_answer("I answer only what is asked encrypted", room_id=room_id)
        url = f"{site.switchboard.bot_url}/_weft/summary/v1/rooms/{quote(room_id, safe='')}"
        async with aiohttp.request("POST", url, headers={"Authorization": f"Bearer {token}"}) as answer:
            assert (answer.status, "encrypted" in await answer.text()) == (403, True)
        keys = (await site.homeserver.request("POST", KEYS_QUERY, {"device_keys": {BOT: []}}, token=token)).ok()
    signer = read_identity(BOT, keys)
    devices = read_devices(BOT, keys["device_keys"][BOT], signer)
    assert [device.is_trusted for device in devices.values()] == [True]


async def test_what_lies_is_not_believed(site: Site, tmp_path: Path) -> None:
    async with secret_bot(site, tmp_path, "bot_wary") as bot:
        encryption = bot.bot.encryption
        assert encryption is not None
        rogue, other = Rogue((await site.person()).user), (await site.person()).user
        await rogue.meet(BOT)
        room_id, elsewhere = "!here:weft.test", "!elsewhere:weft.test"
        for lie in (
            {"recipient": other.user_id},
            {"recipient_keys": {"ed25519": rogue.signing_key}},
            {"sender": other.user_id},
            {"keys": {"ed25519": rogue.bot_key("ed25519")}},
            {"sender_device_keys": {"user_id": rogue.user.user_id, "device_id": rogue.user.device_id}},
        ):
            await rogue.send_key(room_id, **lie)
        await rogue.send_key(room_id, "m.forwarded_room_key")
        session = await rogue.send_key(room_id)
        await until(site, "SELECT session_id FROM bot_wary.inbound_sessions", [session.session_id])

        async def read(event: Event, room: str = room_id) -> bool:
            return (await encryption.open_event(room, event))["type"] == "m.room.message"

        true = rogue.event(session, room_id, "This is true.")
        assert [await read(true), await read(true)] == [True, True]
        assert not await read(true | {"event_id": "$again"})
        unread = rogue.event(session, room_id, "This, too.")
        assert not await read(unread | {"sender": other.user_id})
        assert not await read(unread, elsewhere)
        assert not await read(rogue.event(session, elsewhere, "Moved."))
        assert not await read(unread | {"content": unread["content"] | {"ciphertext": "AwgAEhA"}})
        assert await read(unread)

        # A session that no longer works is replaced, once.
        since = (await rogue.user.sync())["next_batch"]
        for _ in range(2):
            await rogue.send_parcel({"type": 1, "body": "AwogAAAA"})
        (arrived,) = (await rogue.user.sync(since, timeout=10_000))["to_device"]["events"]
        parcel = arrived["content"]["ciphertext"][rogue.identity_key]
        sender = vodozemac.Curve25519PublicKey.from_base64(arrived["content"]["sender_key"])
        first = vodozemac.AnyOlmMessage.from_parts(0, decode(parcel["body"])).to_pre_key()
        assert first is not None
        _, plain = rogue.account.create_inbound_session(sender, first)
        assert msgspec.json.decode(plain)["type"] == "m.dummy"


async def test_questions_wait_for_their_keys_and_answers_go_to_who_may_read_them(site: Site, tmp_path: Path) -> None:
    async with secret_bot(site, tmp_path, "bot_patient") as bot:
        rogue, bob = Rogue((await site.person()).user), await site.person()
        await rogue.meet(BOT)
        room_id = await rogue.user.create_room(invite=[BOT], preset="public_chat", initial_state=[ENCRYPTION])
        await until(site, "SELECT withheld FROM bot_patient.outbound_shares", [None])  # the bot has said hello

        session = rogue.new_session(room_id)
        asked = rogue.event(session, room_id, "!enable")
        (await rogue.user.in_room("PUT", room_id, "send/m.room.encrypted/1", asked["content"])).ok()
        await until(site, "SELECT is_waiting FROM bot_patient.sealed_events", [True])
        assert await column(site, "SELECT room_id FROM bot_patient.rooms") == []
        await rogue.send("m.room_key", rogue.key_of(session))
        await until(site, "SELECT room_id FROM bot_patient.rooms WHERE enabled", [room_id])
        assert await column(site, "SELECT event_id FROM bot_patient.sealed_events") == []
        await bot.until_idle()

        # Somebody comes without a device and leaves: nobody who had the key then has the next one by that.
        before = await column(site, "SELECT session_id FROM bot_patient.outbound_sessions")
        await bob.user.join(room_id)
        (await bob.user.in_room("POST", room_id, "leave", {})).ok()
        await until(site, "SELECT session_id FROM bot_patient.outbound_sessions", [])

        # A device that its owner does not sign, although they could, may be the homeserver's.
        await rogue.sign_nothing()
        await until(site, "SELECT changes > fetched_changes FROM bot_patient.tracked_users", [True])
        again = rogue.event(session, room_id, "!lang en")
        (await rogue.user.in_room("PUT", room_id, "send/m.room.encrypted/2", again["content"])).ok()
        await until(site, "SELECT withheld FROM bot_patient.outbound_shares", ["m.unverified"])
        assert await column(site, "SELECT session_id FROM bot_patient.outbound_sessions") != before
        forged = await rogue.send_key(room_id)
        keys = "SELECT was_trusted FROM bot_patient.inbound_sessions ORDER BY received_ts"
        await until(site, keys, [True, False])
        event = rogue.event(forged, room_id, "Written in somebody's name.")
        assert bot.bot.encryption is not None
        assert await bot.bot.encryption.open_event(room_id, event) == event


def test_encryption_needs_a_long_key_and_its_registration(tmp_path: Path) -> None:
    raw = {"homeserver": {"url": "http://unknown.test", "domain": "unknown.test"}, "database": {"url": "postgresql://"}}
    raw |= {"encryption": {"key": {"env": "KEY"}}}
    with pytest.raises(ConfigError, match="32 characters"):
        parse_config(raw, tmp_path, {"KEY": "short"})
    config = parse_config(raw, tmp_path, {"KEY": ENCRYPTION_KEY})
    registration = Registration(id="bot", as_token="a" * 16, hs_token="h" * 16, sender_localpart="summary")
    with pytest.raises(ConfigError, match="msc3202"):
        check_registration(config, registration)
    check_registration(config, msgspec.structs.replace(registration, is_told_of_devices=True))


def test_an_encrypted_file_is_read_if_it_is_the_one_that_was_sent() -> None:
    data, file = encrypt_attachment(b"Hello, this is a voice.")
    assert decrypt_attachment(data, file) == b"Hello, this is a voice."
    for changed in (file | {"v": "v1"}, file | {"hashes": {}}, file | {"key": {"k": "!"}}, {}):
        with pytest.raises(MatrixFailure):
            decrypt_attachment(data, changed)
    with pytest.raises(MatrixFailure):
        decrypt_attachment(data[:-1] + b"x", file)
