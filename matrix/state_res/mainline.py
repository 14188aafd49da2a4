"""The mainline ordering: events by the power levels that they were sent under, oldest first."""

from collections.abc import Iterable

from matrix.pdu import Pdu
from matrix.state_res.auth_chains import AuthChains
from matrix.state_res.common import EventId


def order_by_mainline(pdus: Iterable[Pdu], power_levels_id: EventId | None, chains: AuthChains) -> list[Pdu]:
    """Return the events in the mainline ordering based on an m.room.power_levels event.

    All of them must be in `chains`. Without such an event no event has a mainline position.
    https://spec.matrix.org/v1.19/rooms/v2/#definitions
    """
    positions = _Positions(get_mainline(power_levels_id, chains), chains)
    # 1. The greater mainline position first; 2. then the earlier by its timestamp; 3. then the lesser by its ID.
    return sorted(pdus, key=lambda pdu: (-positions.get(pdu.event_id), pdu.origin_server_ts, pdu.event_id))


def get_mainline(power_levels_id: EventId | None, chains: AuthChains) -> list[EventId]:
    """Return the mainline of an m.room.power_levels event, that event first."""
    mainline: list[EventId] = []
    # "Repeatedly fetch P_(i+1), the m.room.power_levels event in the auth_events of P_i."
    while power_levels_id is not None:
        mainline.append(power_levels_id)
        power_levels_id = chains.power_levels_of(power_levels_id)
    return mainline


class _Positions:
    """Mainline positions. Those of m.room.power_levels events on the way are remembered for the next event."""

    def __init__(self, mainline: list[EventId], chains: AuthChains) -> None:
        self._chains = chains
        self._known: dict[EventId | None, int] = {event_id: index for index, event_id in enumerate(mainline)}
        # "Otherwise set i = ∞": this is greater than any index, which is all that is asked of it.
        self._known[None] = len(mainline)

    def get(self, event_id: EventId) -> int:
        """Return the mainline position of an event."""
        # "Find the smallest index j ≥ 1 for which e_j belongs to the mainline of P." The event itself, e_0, does not
        # count.
        power_levels_id = self._chains.power_levels_of(event_id)
        passed: list[EventId] = []
        while power_levels_id is not None and power_levels_id not in self._known:
            passed.append(power_levels_id)
            power_levels_id = self._chains.power_levels_of(power_levels_id)
        position = self._known[power_levels_id]
        self._known.update(dict.fromkeys(passed, position))
        return position
