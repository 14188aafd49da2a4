"""Takes in what has arrived encrypted, in its order: messages to the bot's device first, for keys are among them, then
events that may be questions. All of it was stored with the transaction that brought it, and is taken off the list
together with what came of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import vodozemac

from appservices.summary_bot.clock import HOUR_MS, SECOND_MS, Clock
from appservices.summary_bot.encryption.devices import Device
from appservices.summary_bot.encryption.olm import Olm, Opened
from appservices.summary_bot.encryption.own_device import OwnDevice
from appservices.summary_bot.encryption.plaintexts import RoomKey, Unreadable, read_room_key
from appservices.summary_bot.encryption.reading import RoomReader
from appservices.summary_bot.encryption.vault import Vault
from appservices.summary_bot.events import RawEvent, mapping, matrix_id
from appservices.summary_bot.matrix.client import MatrixFailure
from appservices.summary_bot.storage.database import CONNECTION_ERRORS
from appservices.summary_bot.storage.jobs import NewJob
from appservices.summary_bot.storage.room_keys import InboundRow
from appservices.summary_bot.storage.sealed import DeviceMessage, SealedEvent, SealedRepository

BATCH = 100
MAX_ATTEMPTS = 8
RETRY_MS = 5 * SECOND_MS
MAX_RETRY_MS = HOUR_MS
MAX_WAIT_S = 300.0
RECONNECT_S = 2.0

Sort = Callable[[RawEvent], Sequence[NewJob]]
"""What a decrypted event asks for."""

log = logging.getLogger(__name__)


class Incoming:
    """One loop, so that everything is taken in once and in its order."""

    def __init__(
        self, own: OwnDevice, olm: Olm, reader: RoomReader, repository: SealedRepository, vault: Vault, clock: Clock
    ) -> None:
        self._own = own
        self._olm = olm
        self._reader = reader
        self._repository = repository
        self._vault = vault
        self._clock = clock
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Says that something has arrived."""
        self._news.set()

    async def run(self, sort: Sort, found: Callable[[], Any]) -> None:
        """Works until cancelled, once the device is published. `found` is awaited when there are new jobs."""
        while True:
            self._news.clear()
            wait_s = MAX_WAIT_S
            try:
                if await self._take_in(sort):
                    await found()
                await self._own.replenish()
                wait_s = await self._wait_s()
            except CONNECTION_ERRORS as error:
                log.warning("the database cannot be reached: %s", type(error).__name__)
                wait_s = RECONNECT_S
            except MatrixFailure as failure:
                log.warning("what is encrypted has to wait: %s", failure)
                wait_s = RETRY_MS / 1000
            try:
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _wait_s(self) -> float:
        due = await self._repository.load_next_due()
        return MAX_WAIT_S if due is None else min(MAX_WAIT_S, max(0.01, (due - self._clock()) / 1000))

    async def _take_in(self, sort: Sort) -> bool:
        """Everything there is; whether there is something to do for somebody."""
        found = False
        while True:
            messages = await self._repository.load_messages(self._clock(), BATCH)
            for message in messages:
                await self._take_message(message)
            events = [] if len(messages) == BATCH else await self._repository.load_events(BATCH)
            for event in events:
                found |= await self._take_event(event, sort)
            if not messages and not events:
                return found

    # Messages to the device -------------------------------------------------------------------------------------------

    async def _take_message(self, message: DeviceMessage) -> None:
        try:
            await self._open_message(message)
        except Unreadable as problem:
            log.info("a message to the bot's device is left out: %s", problem)
            await self._repository.finish_message(message.number)
        except MatrixFailure as failure:
            if not failure.is_temporary or message.attempts >= MAX_ATTEMPTS:
                log.warning("a message to the bot's device is given up: %s", failure)
                await self._repository.finish_message(message.number)
                return
            delay_ms = min(MAX_RETRY_MS, RETRY_MS * 4**message.attempts)
            await self._repository.postpone_message(message.number, self._clock() + delay_ms)
        except CONNECTION_ERRORS:
            raise
        except Exception as error:
            log.error("a message to the bot's device is given up", exc_info=error)
            await self._repository.finish_message(message.number)

    async def _open_message(self, message: DeviceMessage) -> None:
        event: Mapping[str, Any] = msgspec.json.decode(message.body)
        sender, content = matrix_id(event.get("sender"), "@"), mapping(event.get("content"))
        if event.get("type") != "m.room.encrypted" or sender is None:
            raise Unreadable("nothing that the bot takes in")
        device = await self._olm.find_sender(sender, content)
        try:
            async with self._own.lock:
                opened = await self._olm.open(device, content)
                await self._repository.finish_message(
                    message.number,
                    account_pickle=opened.account_pickle,
                    session=opened.session,
                    key=self._key_in(opened),
                )
        except Unreadable as problem:
            if problem.is_broken:
                await self._olm.repair(device)
            raise

    def _key_in(self, opened: Opened) -> InboundRow | None:
        """The room key that a message brings. Keys that somebody passes on (`m.forwarded_room_key`) are not taken: the
        bot asks for none, and has no other device to get them from."""
        if opened.event_type != "m.room_key":
            return None
        try:
            key = read_room_key(opened.content)
            session = _inbound_session(key)
        except Unreadable as problem:
            log.info("a room key is left out: %s", problem)
            return None
        return self._row(key, session, opened.device)

    def _row(self, key: RoomKey, session: vodozemac.InboundGroupSession, device: Device) -> InboundRow:
        return InboundRow(
            key.session_id,
            key.room_id,
            device.user_id,
            device.identity_key,
            self._vault.seal_inbound(session),
            session.first_known_index,
            device.is_trusted,
            self._clock(),
        )

    # Events -----------------------------------------------------------------------------------------------------------

    async def _take_event(self, waiting: SealedEvent, sort: Sort) -> bool:
        try:
            event = await self._reader.open_event(waiting.room_id, msgspec.json.decode(waiting.body))
        except Unreadable as problem:
            if problem.key_is_missing:
                await self._repository.let_wait(waiting)
            else:
                log.info("an event is left out: %s", problem)
                await self._repository.finish_event(waiting.event_id, [])
            return False
        try:
            jobs = sort(event)
        except Exception as error:
            log.error("an event is given up", exc_info=error)
            jobs = []
        await self._repository.finish_event(waiting.event_id, jobs)
        return bool(jobs)


def _inbound_session(key: RoomKey) -> vodozemac.InboundGroupSession:
    """The session of a key, which has to be the one that it says. Raises Unreadable."""
    try:
        session = vodozemac.InboundGroupSession(vodozemac.SessionKey(key.session_key))
    except ValueError:
        raise Unreadable("no key of a session") from None
    if session.session_id != key.session_id:
        raise Unreadable("the key of another session")
    return session
