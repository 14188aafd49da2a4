"""Reads the events of encrypted rooms, as far as there are keys.

An event is believed to be its sender's if the key of its session came from a device of that sender, to be of its room
if the room stands inside, and to be new if no other event has had its place in the session: the homeserver may have
moved or repeated it otherwise. https://spec.matrix.org/v1.19/client-server-api/#mmegolmv1aes-sha2
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import vodozemac

from appservices.summary_bot.encryption.plaintexts import Sealed, Unreadable, is_sealed, read_sealed, unsealed
from appservices.summary_bot.encryption.vault import Vault
from appservices.summary_bot.events import RawEvent
from appservices.summary_bot.storage.room_keys import Index, RoomKeyRepository

MAX_MESSAGE_INDEX = 100_000
"""A session with more messages is not read on: its owner should long have begun another."""


class RoomReader:
    """Reads events of rooms. Keeps no plain text."""

    def __init__(self, repository: RoomKeyRepository, vault: Vault) -> None:
        self._repository = repository
        self._vault = vault

    async def open_event(self, room_id: str, event: RawEvent) -> RawEvent:
        """What an event says; one that is not encrypted as it is. Raises Unreadable."""
        if not is_sealed(event):
            return event
        result = (await self._open(room_id, [event]))[event["event_id"]]
        if isinstance(result, Unreadable):
            raise result
        return result

    async def open_events(self, room_id: str, events: Sequence[RawEvent]) -> list[RawEvent]:
        """The events, each that can be read in the place of its encrypted form."""
        found = await self._open(room_id, [event for event in events if is_sealed(event)])
        results = []
        for event in events:
            result = found.get(event["event_id"], event)
            results.append(event if isinstance(result, Unreadable) else result)
        return results

    async def _open(self, room_id: str, events: Sequence[RawEvent]) -> dict[str, RawEvent | Unreadable]:
        """By event ID: what each says, or why it cannot be read. Of two with the same place, the older is the one."""
        results: dict[str, RawEvent | Unreadable] = {}
        sealed: list[Sealed] = []
        for event in sorted(events, key=lambda event: event["origin_server_ts"]):
            try:
                sealed.append(read_sealed(event))
            except Unreadable as problem:
                results[event["event_id"]] = problem
        sessions = await self._load(room_id, sealed)
        opened: dict[str, tuple[Index, RawEvent]] = {}
        for each in sealed:
            event_id = each.event["event_id"]
            try:
                opened[event_id] = _decrypt(room_id, each, sessions.get((each.event["sender"], each.session_id)))
            except Unreadable as problem:
                results[event_id] = problem
        if opened:
            owners = await self._repository.claim_indices([(place, id_) for id_, (place, _) in opened.items()])
            for event_id, (place, event) in opened.items():
                is_first = owners.get(place) == event_id
                results[event_id] = event if is_first else Unreadable("a message that was there before")
        return results

    async def _load(
        self, room_id: str, sealed: Sequence[Sealed]
    ) -> Mapping[tuple[str, str], vodozemac.InboundGroupSession]:
        if not sealed:
            return {}
        wanted = {(each.event["sender"], each.session_id) for each in sealed}
        pickles = await self._repository.load_inbound(room_id, sorted({session_id for _, session_id in wanted}))
        return {key: self._vault.open_inbound(pickle) for key, pickle in pickles.items() if key in wanted}


def _decrypt(room_id: str, sealed: Sealed, session: vodozemac.InboundGroupSession | None) -> tuple[Index, RawEvent]:
    """An event's place in its session, and what it says. Raises Unreadable."""
    if session is None:
        raise Unreadable("no key", key_is_missing=True)
    try:
        message = vodozemac.MegolmMessage.from_base64(sealed.ciphertext)
        if message.message_index() < session.first_known_index:
            raise Unreadable("from before the key", key_is_missing=True)
        if message.message_index() > MAX_MESSAGE_INDEX:
            raise Unreadable("too many messages in its session")
        decrypted = session.decrypt(message)
    except ValueError as error:  # all of vodozemac's are
        raise Unreadable(type(error).__name__) from None
    return (sealed.session_id, decrypted.message_index), unsealed(sealed.event, room_id, decrypted.plaintext)
