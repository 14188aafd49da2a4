"""Making events: the one road by which an event of this server comes into a room.

1. Select the auth events from the state at the tip (or say which of them are not in memory).
2. Build the event on the tip: hashes, signature, ID.
3. Check the authorisation rules.
4. Take it into the room (homeserver/services/rooms/acceptance.py): counts, position, state, what is to be written.
5. Submit; when it is durable, publish it and tell the observers.

Everything up to 5 runs without awaiting, so events of one room are made one after another, and nothing of it reads
the database: a warm room has all that it needs in memory.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from homeserver.clock import Clock
from homeserver.services.errors import BadJson, Forbidden, NotResident, TooLarge
from homeserver.services.rooms.acceptance import Acceptance, Accepted, Origin
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import CREATE, MEMBER, NotLoaded, Room
from homeserver.services.stream import Stream
from matrix.canonical_json import JsonError, check_event_value
from matrix.event_auth import auth_event_keys, check_event_auth
from matrix.pdu import EventTooLarge, InvalidPdu, Pdu, build_pdu
from matrix.pdu_format import MAX_PREV_EVENTS
from matrix.room_versions import EventIdFormat
from matrix.signatures import SigningKey
from storage.events import StoredEvent
from storage.stream import Writes


@dataclass(slots=True)
class Draft:
    """An event to be made. `device` and `txn_id` are the sending device's; `target` is what a redaction redacts.

    `thread` is that of the event it relates to, where it does not say itself which thread it is in. `ts` is its time
    in milliseconds, None for now.
    """

    type: str
    sender: str
    content: dict[str, Any]
    state_key: str | None = None
    redacts: str | None = None
    target: StoredEvent | None = None
    device: int | None = None
    txn_id: str | None = None
    thread: str | None = None
    ts: int | None = None


class Authoring:
    """Makes events of local users, and publishes them once they are durable."""

    def __init__(
        self,
        stream: Stream,
        events: EventCache,
        clock: Clock,
        acceptance: Acceptance,
        *,
        server_name: str,
        signing_key: SigningKey,
    ) -> None:
        self._stream = stream
        self._events = events
        self._clock = clock
        self._acceptance = acceptance
        self._server_name = server_name
        self._signing_key = signing_key

    def author(
        self, room: Room, drafts: Sequence[Draft], writes: Writes | None = None
    ) -> tuple[list[StoredEvent], asyncio.Future[None]]:
        """Makes events on the room's tip, all or none; what is to be written is added to `writes`, if given.

        Returns the events and a future that is done when they are durable and published. Raises NotLoaded when state
        has to be read first, Forbidden when the rules do not allow an event, TooLarge and BadJson for contents that
        no event can have.
        """
        made, own = self._make(room, drafts)
        if writes is None:
            writes = own
        else:
            writes.extend(own)
        room.pending += 1
        done = self._stream.submit(
            made[-1].event.position,
            writes,
            lambda: self._acceptance.publish(room, made, writes),
            lambda: self._acceptance.undo(room),
        )
        return [accepted.event for accepted in made], done

    def author_both(
        self,
        new: Room,
        new_drafts: Sequence[Draft],
        room: Room,
        drafts: Callable[[], Sequence[Draft]],
        writes: Writes,
    ) -> asyncio.Future[None]:
        """Makes a new room and, when that is done, events in another one, which may name it: all or none of them.

        What is to be written is added to `writes`. Raises what `author` raises; of the new room nothing is left then.
        """
        made_new, own_new = self._make(new, new_drafts)
        made, own = self._make(room, drafts())
        writes.extend(own_new)
        writes.extend(own)

        def publish() -> None:
            self._acceptance.publish(new, made_new, own_new)
            self._acceptance.publish(room, made, own)

        def undo() -> None:
            self._acceptance.undo(new)
            self._acceptance.undo(room)

        new.pending += 1
        room.pending += 1
        return self._stream.submit(made[-1].event.position, writes, publish, undo)

    def _make(self, room: Room, drafts: Sequence[Draft]) -> tuple[list[Accepted], Writes]:
        """Makes events on the tip, which goes back to where it was if one of them cannot be made."""
        if room.resolving is not None:
            raise NotLoaded((), busy=room.resolving)
        before = room.tip.copy() if len(drafts) > 1 else None
        own = Writes()
        made: list[Accepted] = []
        try:
            for draft in drafts:
                made.append(self._author_one(room, draft, own))
        except BaseException:
            if before is not None:
                room.tip = before
                for row in own.state_keys:
                    del room.keys[row.type, row.state_key]
            raise
        self._acceptance.summarise(room, made, own)
        return made, own

    def _author_one(self, room: Room, draft: Draft, writes: Writes) -> Accepted:
        pdu = self.build(room, draft)
        if not room.room_id:
            room.room_id = pdu.room_id  # the hash of its create event, in room versions from 12 on
        origin = Origin(draft.device, draft.txn_id, draft.thread, draft.target)
        return self._acceptance.accept(room, pdu, origin, writes)

    def build(self, room: Room, draft: Draft) -> Pdu:
        """Makes an event on the tip that the rules allow, without taking it in.

        Raises what `author` raises, and NotResident for a join to a room that this server has left, be it just now:
        what it knows of the room is of the past.
        """
        if draft.type == MEMBER and draft.state_key is not None:
            if draft.content.get("membership") == "join" and not room.is_resident:
                raise NotResident
            room.check_known(draft.state_key)
        pdu, auth_state = self._build(room, draft)
        power_levels = room.power_levels if CREATE in auth_state else None
        rejection = check_event_auth(pdu, auth_state, power_levels=power_levels, verified_servers=(self._server_name,))
        if rejection is not None:
            raise Forbidden(rejection.reason)
        return pdu

    def _build(self, room: Room, draft: Draft) -> tuple[Pdu, dict[tuple[str, str], Pdu]]:
        keys = auth_event_keys(room.version, draft.type, draft.sender, draft.state_key, draft.content)
        auth_events = self._tip_events(room, keys)
        opaque_id = secrets.token_urlsafe(18) if room.version.event_id_format is EventIdFormat.OPAQUE else ""
        is_hashed_create = draft.type == "m.room.create" and room.version.room_id_is_create_event_hash
        if not room.version.strict_canonical_json:
            _check_content(draft.content)
        try:
            pdu = build_pdu(
                room_version=room.version,
                room_id=None if is_hashed_create else room.room_id,
                type=draft.type,
                sender=draft.sender,
                state_key=draft.state_key,
                content=draft.content,
                prev_events=[extremity.reference for extremity in room.tip.extremities[-MAX_PREV_EVENTS:]],
                auth_events=[event.pdu.reference for event in auth_events],
                depth=room.tip.depth + 1,
                origin_server_ts=self._clock() if draft.ts is None else draft.ts,
                server_name=self._server_name,
                signing_key=self._signing_key,
                redacts=draft.redacts,
                opaque_id=opaque_id,
            )
        except EventTooLarge as error:
            raise TooLarge(str(error)) from None
        except InvalidPdu as error:
            raise BadJson(str(error)) from None
        auth_state = {event.pdu.state_key_pair: event.pdu for event in auth_events}
        if CREATE not in auth_state and (create := room.tip_event(CREATE)):
            auth_state[CREATE] = create.pdu
        return pdu, auth_state

    def _tip_events(self, room: Room, keys: Sequence[tuple[str, str]]) -> list[StoredEvent]:
        """Those of these state events that the room has at its tip. Raises NotLoaded."""
        found, missing = [], []
        for key in keys:
            event = room.tip_event(key)
            if event is None and (position := room.tip_position(key)) is not None:
                event = self._events.get(position)
                if event is None:
                    missing.append(position)
            if event is not None:
                found.append(event)
        if missing:
            raise NotLoaded(missing)
        return found


def _check_content(content: dict[str, Any]) -> None:
    """Holds new events of old room versions to the values that later ones allow.

    Their rules let any number pass, but servers do not agree on the encoding of floats and of large integers, and so
    not on the hashes. https://spec.matrix.org/v1.19/rooms/v6/#canonical-json
    """
    try:
        check_event_value(content)
    except JsonError as error:
        raise BadJson(str(error)) from None
