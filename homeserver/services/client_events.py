"""Events as clients see them. Each is serialised once; every answer that carries it embeds the same bytes.

https://spec.matrix.org/v1.19/client-server-api/#room-event-format

What differs between answers is small and goes in at the end: the room ID (absent in /sync), and in `unsigned` the
age, the reader's membership, for the device that sent it the transaction ID, and what relates to the event.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from homeserver.services.rooms.event_cache import EventCache
from storage.events import StoredEvent

COPIED = ("content", "sender", "type", "origin_server_ts")


class ClientEvents:
    """Serialises events for clients."""

    def __init__(self, events: EventCache) -> None:
        self._events = events

    async def prepare(self, events: Iterable[StoredEvent]) -> None:
        """Loads what the events' `unsigned` needs of other events; `serialise` works on prepared events only."""
        unprepared = [event for event in events if event.unsigned_json is None]
        if not unprepared:
            return
        others = {event.replaces for event in unprepared if event.replaces is not None}
        others |= {event.redacted_by for event in unprepared if event.redacted_by is not None}
        loaded = await self._events.load(others) if others else {}
        for event in unprepared:
            prepare_one(event, loaded.get(event.replaces or 0), loaded.get(event.redacted_by or 0))

    def prepare_new(self, event: StoredEvent) -> bool:
        """Prepares a new event that depends on no other, without awaiting; False if it depends on some."""
        if event.unsigned_json is None:
            if event.replaces is not None or event.redacted_by is not None:
                return False
            prepare_one(event, None, None)
        return True


def prepare_one(event: StoredEvent, replaced: StoredEvent | None, redaction: StoredEvent | None) -> None:
    """Serialises the parts of an event that are the same in every answer."""
    if event.client_json is None:
        event.client_json = orjson.dumps(_client_fields(event))[:-1]
    unsigned: dict[str, Any] = {}
    if replaced is not None:
        unsigned["replaces_state"] = replaced.event_id
        unsigned["prev_content"] = replaced.pdu.content
        unsigned["prev_sender"] = replaced.pdu.sender
    if redaction is not None:
        unsigned["redacted_by"] = redaction.event_id
        unsigned["redacted_because"] = {**_client_fields(redaction), "room_id": redaction.pdu.room_id}
    event.unsigned_json = b"," + orjson.dumps(unsigned)[1:-1] if unsigned else b""


def _client_fields(event: StoredEvent) -> dict[str, Any]:
    pdu = event.pdu
    fields: dict[str, Any] = {
        "content": pdu.content,
        "event_id": event.event_id,
        "origin_server_ts": pdu.origin_server_ts,
        "sender": pdu.sender,
        "type": pdu.type,
    }
    if pdu.state_key is not None:
        fields["state_key"] = pdu.state_key
    if pdu.redacts is not None:
        # Room version 11 moved it into the content; both places are filled for clients of either age.
        # https://spec.matrix.org/v1.19/rooms/v11/#moving-the-redacts-property-of-mroomredaction-events-to-a-content-property
        fields["redacts"] = pdu.redacts
        fields["content"] = {**pdu.content, "redacts": pdu.redacts}
    return fields


def serialise(
    event: StoredEvent,
    *,
    now_ms: int,
    device: int | None,
    membership: str | None,
    with_room_id: bool,
    relations: bytes | None = None,
) -> bytes:
    """A prepared event as JSON for one reader. `device` is the reader's, `membership` theirs at the event.

    `relations` is the JSON of its bundled aggregations (homeserver/services/aggregations.py).
    """
    assert event.client_json is not None
    assert event.unsigned_json is not None
    age = now_ms - event.pdu.origin_server_ts
    parts = [event.client_json]
    if with_room_id:
        parts.append(b',"room_id":"' + event.pdu.room_id.encode() + b'"')
    parts.append(b',"unsigned":{"age":%d' % max(0, age))
    if membership is not None:
        parts.append(b',"membership":"' + membership.encode() + b'"')
    if device is not None and event.device == device and event.txn_id is not None:
        parts.append(b',"transaction_id":' + orjson.dumps(event.txn_id))
    parts.append(event.unsigned_json)
    if relations is not None:
        parts += (b',"m.relations":', relations)
    parts.append(b"}}")
    return b"".join(parts)


def client_json(
    event: StoredEvent,
    *,
    now_ms: int,
    device: int | None,
    membership: str | None,
    with_room_id: bool = True,
    relations: bytes | None = None,
) -> dict[str, Any]:
    """The same as a dict, for filters that select fields."""
    decoded: dict[str, Any] = orjson.loads(
        serialise(
            event,
            now_ms=now_ms,
            device=device,
            membership=membership,
            with_room_id=with_room_id,
            relations=relations,
        )
    )
    return decoded
