"""The bot in encrypted rooms, with people whose client is matrix-nio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nio

from tests.clients.test_nio import expect
from tests.clients.test_nio_encryption import ENCRYPTION, Phone, phone, register
from tests.summary_bot.support import BOT, ENCRYPTION_KEY, WAIT_S, RunningBot, Site


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
async def secret_bot(site: Site, tmp_path: Path, schema: str, **options: Any) -> AsyncIterator[RunningBot]:
    """A bot that reads encrypted rooms, with the keys of its schema."""
    (tmp_path / "key").write_text(ENCRYPTION_KEY)
    database = {"url": site.database_url, "schema": schema}
    async with site.bot(database=database, encryption={"key": {"file": str(tmp_path / "key")}}, **options) as bot:
        yield bot


async def test_a_conversation_in_an_encrypted_room(site: Site, tmp_path: Path) -> None:
    async with talker(site, "seal", tmp_path) as alice:
        async with secret_bot(site, tmp_path, "bot_sealed") as bot:
            created = await alice.client.room_create(name="Vault", invite=[BOT], initial_state=[ENCRYPTION])
            room_id = expect(nio.RoomCreateResponse, created).room_id
            await alice.wait_answer("Hello", room_id=room_id)
            await alice.send(room_id, "!enable")
            await alice.wait_answer("I am on in this encrypted room", room_id=room_id)
            await alice.send(room_id, "We decided to bury the chest under the old oak.")
            await alice.send(room_id, "!summary 2h")
            answer = await alice.wait_answer("Summary of Vault", "under the old oak", "Covered: 1 of 1")
            assert answer
            assert bot
