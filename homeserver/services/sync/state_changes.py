"""What of a room's state a /sync has to tell: what changed since the last one, and before the timeline began."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from homeserver.services.rooms.room import Room
from storage.events import StoredEvent

NO_RESOLVED_KEYS: Mapping[tuple[str, str], int] = {}


def state_since(
    state: Mapping[tuple[str, str], int], since: int, resolved: Mapping[tuple[str, str], int] = NO_RESOLVED_KEYS
) -> dict[tuple[str, str], int]:
    """A copy of what changed in a state after a position: new events, and old ones that resolution brought back."""
    if not since:
        return dict(state)
    changed = {key: position for key, position in state.items() if position > since}
    for key, resolved_at in resolved.items():
        if resolved_at > since and key in state:
            changed[key] = state[key]
    return changed


def is_resolved_since(room: Room, since: int) -> bool:
    """Whether the state changed after a position without an event of its own, by resolution."""
    return any(position > since for position in room.resolved.values())


def before_timeline(
    state: dict[tuple[str, str], int], timeline: Iterable[StoredEvent], since: int
) -> dict[tuple[str, str], int]:
    """A state as it was before the first event of a timeline slice at its end, without what is older than `since`."""
    seen = set()
    for event in timeline:
        if event.pdu.state_key is None or (key := event.pdu.state_key_pair) in seen:
            continue
        seen.add(key)
        if event.replaces is not None and event.replaces > since:
            state[key] = event.replaces
        else:
            state.pop(key, None)
    return state
