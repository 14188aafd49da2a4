"""Stripped state: what those are told of a room who are not in it.

https://spec.matrix.org/v1.19/client-server-api/#stripped-state
"""

from __future__ import annotations

from typing import Any

from matrix.pdu import Pdu
from storage.events import StoredEvent

STRIPPED_STATE = (
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
)


def stripped_event(pdu: Pdu) -> dict[str, Any]:
    """An event in that form, which has no more than these four properties."""
    return {"type": pdu.type, "sender": pdu.sender, "state_key": pdu.state_key, "content": pdu.content}


def foreign_stripped_state(event: StoredEvent) -> list[Any]:
    """What another server told of a room along with a member event of a user here, and that event.

    It is not passed on as it came: https://spec.matrix.org/v1.19/client-server-api/#stripped-state
    """
    unsigned = event.pdu.json.get("unsigned")
    told: list[Any] = []
    if isinstance(unsigned, dict):
        for key in ("invite_room_state", "knock_room_state"):
            found = unsigned.get(key)
            told += found if isinstance(found, list) else []
    own = [event.pdu.type, event.pdu.state_key]
    others = [pruned for one in told if (pruned := _pruned(one)) and [pruned["type"], pruned["state_key"]] != own]
    return [*others, stripped_event(event.pdu)]


def _pruned(told: object) -> dict[str, Any] | None:
    """What another server told, without what does not belong into stripped state; None for what is no state at all."""
    if not isinstance(told, dict) or not isinstance(told.get("content"), dict):
        return None
    if not all(isinstance(told.get(name), str) for name in ("type", "sender", "state_key")):
        return None
    return {name: told[name] for name in ("type", "sender", "state_key", "content")}
