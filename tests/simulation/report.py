"""What the servers of a simulation know of a room on which they do not agree."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from homeserver.http.context import Server
from homeserver.services.rooms.room import Room, StateKey
from storage.events import EventKind

EVENTS = "SELECT position, kind, event_id, json FROM events WHERE room = $1 ORDER BY position"
ID_CHARS = 8


async def describe(name: str, server: Server, room: Room, state: dict[StateKey, str], keys: Iterable[StateKey]) -> None:
    """Prints a server's view: its extremities, the state under these keys, and every event with what it stands on."""
    extremities = [extremity.reference.event_id[:ID_CHARS] for extremity in room.tip.extremities]
    print(f"{name}: room version {room.version.identifier}, members {dict(room.servers)}, extremities {extremities}")
    for key in keys:
        print(f"    {key}: {state.get(key, 'nothing')[:ID_CHARS]}")
    for row in await server.database.pool.fetch(EVENTS, room.room):
        event = orjson.loads(row["json"])
        content = event["content"]
        what = content.get("membership") or content.get("topic") or content.get("join_rule") or ""
        before = [
            (reference if isinstance(reference, str) else reference[0])[:ID_CHARS] for reference in event["prev_events"]
        ]
        kind = EventKind(row["kind"]).name
        subject = event.get("state_key", "")
        print(
            f"    {row['position']:>9} {kind:11} {row['event_id'][:ID_CHARS]} {event['sender']} {event['type']}"
            f" {subject} {what} after {before}"
        )
