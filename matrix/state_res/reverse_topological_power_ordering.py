"""The reverse topological power ordering: what an event builds on comes first, then who has more power."""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from matrix.event_auth.common import CREATE_KEY, POWER_LEVELS_KEY
from matrix.pdu import Pdu
from matrix.power_levels import DEFAULT_LEVELS, PowerLevels
from matrix.state_res.auth_chains import AuthChains
from matrix.state_res.common import Conflict, EventId

_SortKey = tuple[float, int, EventId]


def order_by_power(event_ids: Iterable[EventId], conflict: Conflict, chains: AuthChains) -> list[Pdu]:
    """Return the events in reverse topological power ordering.

    They, their auth events, and the m.room.create that their room is named after must be among the conflict's events,
    and they must be in `chains`.
    https://spec.matrix.org/v1.19/rooms/v2/#definitions
    """
    # Kahn's algorithm. An event waits for one of those before it at a time, the latest; when that one has been taken,
    # it waits for the next, and becomes a candidate once there is none.
    waiting: dict[EventId, list[EventId]] = {}
    candidates: list[_SortKey] = []
    levels = _SenderLevels(conflict)
    wanted = list(event_ids)
    left = chains.bits(wanted)
    for event_id in wanted:
        before = chains.chain(event_id) & left
        if before:
            waiting.setdefault(chains.highest(before), []).append(event_id)
        else:
            candidates.append(levels.sort_key(event_id))
    heapify(candidates)
    ordered: list[Pdu] = []
    while candidates:
        # "At each step selecting, among all the candidate vertices, the smallest vertex."
        event_id = heappop(candidates)[2]
        ordered.append(conflict.events[event_id])
        left ^= chains.bits((event_id,))
        for dependant in waiting.pop(event_id, ()):
            before = chains.chain(dependant) & left
            if before:
                waiting.setdefault(chains.highest(before), []).append(dependant)
            else:
                heappush(candidates, levels.sort_key(dependant))
    return ordered


class _SenderLevels:
    """The power levels of senders by the auth events of what they sent."""

    def __init__(self, conflict: Conflict) -> None:
        self._conflict = conflict
        self._known: dict[tuple[EventId | None, EventId | None], PowerLevels] = {}

    def sort_key(self, event_id: EventId) -> _SortKey:
        """Return what the definition compares events by."""
        pdu = self._conflict.events[event_id]
        # 1. Greater power level first; 2. then the earlier by its timestamp; 3. then the lesser by its ID.
        return (-self._get_level(pdu), pdu.origin_server_ts, event_id)

    def _get_level(self, pdu: Pdu) -> float:
        """Return the sender's level, "when looking at their respective auth_events"."""
        events = self._conflict.events
        create_id, power_levels_id = self._conflict.create_id(pdu), None
        for auth_id in pdu.auth_events:
            auth_event = events[auth_id]
            key = (auth_event.type, auth_event.state_key)
            if key == POWER_LEVELS_KEY and power_levels_id is None:
                power_levels_id = auth_id
            elif key == CREATE_KEY and create_id is None:
                create_id = auth_id
        known = self._known.get((create_id, power_levels_id))
        if known is None:
            if create_id is None:
                # This is m.room.create itself, or no event that could have been accepted.
                return DEFAULT_LEVELS["users_default"]
            power_levels = None if power_levels_id is None else events[power_levels_id]
            known = PowerLevels.of(self._conflict.room_version, events[create_id], power_levels)
            self._known[create_id, power_levels_id] = known
        return known.user(pdu.sender)
