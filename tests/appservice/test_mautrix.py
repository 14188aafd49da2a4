"""mautrix-python, which most bridges are written with, beside this server: its own `AppService`, nothing of ours."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from mautrix.appservice import AppService
from mautrix.appservice.state_store import FileASStateStore
from mautrix.errors import MatrixRequestError
from mautrix.types import (
    EphemeralEvent,
    Event,
    EventType,
    Membership,
    MessageType,
    PresenceState,
    RoomAlias,
    RoomCreatePreset,
    UserID,
)

from tests.appservice.support import Appservice
from tests.client import Homeserver
from tests.client_api.support import encode
from tests.conftest import StartServer

WAIT_S = 20.0


class Bridge:
    """A bridge by the library: what it was told, and the users whom it makes when it is asked for them."""

    def __init__(self, service: AppService) -> None:
        self.service = service
        self.told: asyncio.Queue[Event | EphemeralEvent] = asyncio.Queue()
        service.matrix_event_handler(self.told.put)
        service.query_user = self.make_user
        service.query_alias = self.make_room

    async def make_user(self, user_id: UserID) -> dict[str, str]:
        await self.service.intent.user(user_id).ensure_registered()
        return {"made": "yes"}

    async def make_room(self, alias: RoomAlias) -> dict[str, str]:
        localpart = alias[1:].partition(":")[0]
        await self.service.intent.create_room(alias_localpart=localpart, preset=RoomCreatePreset.PUBLIC)
        return {"made": "yes"}

    async def next(self, type: EventType, **content: object) -> Event | EphemeralEvent:
        """The next event of a type, with this content; others are passed over."""
        async with asyncio.timeout(WAIT_S):
            while True:
                event = await self.told.get()
                if event.type == type and all(getattr(event.content, key) == value for key, value in content.items()):
                    return event


@pytest.fixture
async def bridged(start_server: StartServer, tmp_path: Path) -> AsyncIterator[tuple[Homeserver, Bridge]]:
    """A server and a bridge that runs beside it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = Appservice("mau", receive_ephemeral=True, url=f"http://127.0.0.1:{port}")
    known.write(tmp_path)
    async with start_server() as homeserver:
        service = AppService(
            server=homeserver.base_url,
            domain="weft.test",
            as_token=known.as_token,
            hs_token=known.hs_token,
            bot_localpart="mau",
            id="mau",
            state_store=FileASStateStore(path=str(tmp_path / "mx-state.json"), binary=False),
            ephemeral_events=True,
        )
        await service.start("127.0.0.1", port)
        try:
            yield homeserver, Bridge(service)
        finally:
            await service.stop()


async def test_a_bridge_talks_and_listens(bridged: tuple[Homeserver, Bridge]) -> None:
    homeserver, bridge = bridged
    assert await bridge.service.ping_self("hello") >= 0
    human = await homeserver.register()
    bot = bridge.service.intent
    await bot.ensure_registered()
    room_id = await bot.create_room(preset=RoomCreatePreset.PRIVATE, invitees=[UserID(human.user_id)])
    await human.join(room_id)
    await bridge.next(EventType.ROOM_MEMBER, membership=Membership.JOIN)

    puppet = bot.user(UserID("@_mau_puppet:weft.test"))
    await puppet.ensure_joined(room_id)
    await puppet.set_displayname("Puppet")
    event_id = await puppet.send_text(room_id, "from far away", timestamp=1_500_000_000_000)
    event = (await human.in_room("GET", room_id, f"event/{encode(event_id)}")).ok()
    assert (event["sender"], event["origin_server_ts"]) == (puppet.mxid, 1_500_000_000_000)
    await bridge.next(EventType.ROOM_MESSAGE, body="from far away")

    sent = await human.send(room_id, "from here")
    told = await bridge.next(EventType.ROOM_MESSAGE, body="from here")
    assert (told.event_id, told.sender, told.content.msgtype) == (sent, human.user_id, MessageType.TEXT)
    await puppet.mark_read(room_id, sent)
    await bridge.next(EventType.RECEIPT)
    typing = {"typing": True, "timeout": 20_000}
    (await human.in_room("PUT", room_id, f"typing/{encode(human.user_id)}", typing)).ok()
    await bridge.next(EventType.TYPING, user_ids=[human.user_id])
    await puppet.set_presence(PresenceState.ONLINE)
    await puppet.leave_room(room_id)
    await bridge.next(EventType.ROOM_MEMBER, membership=Membership.LEAVE)


async def test_a_bridge_makes_what_is_asked_for(bridged: tuple[Homeserver, Bridge]) -> None:
    homeserver, bridge = bridged
    human = await homeserver.register()
    room_id = await human.create_room(invite=["@_mau_asked:weft.test"])
    invited = await bridge.next(EventType.ROOM_MEMBER, membership=Membership.INVITE)
    assert (invited.room_id, invited.state_key) == (room_id, "@_mau_asked:weft.test")
    (await human.request("POST", f"join/{encode('#_mau_portal:weft.test')}", {})).ok()
    with pytest.raises(MatrixRequestError):
        await bridge.service.intent.user(UserID(human.user_id)).whoami()
