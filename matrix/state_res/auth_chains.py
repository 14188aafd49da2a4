"""An index of a room's auth events, in which auth chains are sets of bits.

See docs/adr/0011-state-resolution-on-bit-sets.md.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from matrix.event_auth.common import POWER_LEVELS_KEY
from matrix.pdu import Pdu
from matrix.state_res.common import ChainsTooLong, EventId, MissingEvents, StateKey

MAX_EVENTS: Final = 200_000
MAX_CHAIN_BYTES: Final = 16 * 1024 * 1024
MAX_RESOLUTION_BYTES: Final = 512 * 1024 * 1024
"""How much one resolution may need: a chain of 90,000 events that each stand on the one before."""

BitSet = int
"""A set of events: bit n stands for the event with the number n."""


class AuthChains:
    """The events of one room's auth graph, numbered so that each has a higher number than its auth events.

    An event is here only with the whole of its auth chain. The index may be kept for as long as the room is in use, and
    grows by what resolutions ask for. It holds what follows from events alone, so it may be thrown away at any time.
    """

    __slots__ = (
        "_auth_numbers",
        "_chain_bytes",
        "_chains",
        "_circular",
        "_dependants",
        "_ids",
        "_keys",
        "_max_chain_bytes",
        "_max_events",
        "_max_resolution_bytes",
        "_numbers",
        "_power_levels",
    )

    def __init__(
        self,
        *,
        max_events: int = MAX_EVENTS,
        max_chain_bytes: int = MAX_CHAIN_BYTES,
        max_resolution_bytes: int = MAX_RESOLUTION_BYTES,
    ) -> None:
        """Make an empty index. A resolution that leaves it beyond the first two bounds has the next start over with an
        empty one; one that gets beyond the last is given up."""
        self._max_events = max_events
        self._max_chain_bytes = max_chain_bytes
        self._max_resolution_bytes = max_resolution_bytes
        self._ids: list[EventId] = []
        self._numbers: dict[EventId, int] = {}
        self._auth_numbers: list[tuple[int, ...]] = []
        self._keys: list[StateKey] = []
        self._dependants: dict[int, list[int]] = {}
        self._power_levels: set[int] = set()
        self._circular: set[EventId] = set()
        self._chains: dict[tuple[int, ...], BitSet] = {(): 0}
        self._chain_bytes = 0

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self._ids)

    def __contains__(self, event_id: object) -> bool:
        """Tell whether the event is here."""
        return event_id in self._numbers

    def trim(self) -> None:
        """Forget everything if there is too much of it. Numbers and sets of bits given out before are void then."""
        if len(self._ids) > self._max_events:
            self._ids.clear()
            self._numbers.clear()
            self._auth_numbers.clear()
            self._keys.clear()
            self._dependants.clear()
            self._power_levels.clear()
            self._circular.clear()
        elif self._chain_bytes <= self._max_chain_bytes:
            return
        self._chains = {(): 0}
        self._chain_bytes = 0

    def extend(self, event_ids: Iterable[EventId], events: Mapping[EventId, Pdu]) -> None:
        """Take in events with their auth chains, as far as they are not here already.

        Raises MissingEvents with all those that the chains lead to and that are not among `events`; nothing changes
        then. Auth events that lead back to the event itself, which servers can only make up where event IDs are not
        hashes, are no auth events: of events with such a circle in their chain those are left out that have one too.
        """
        new = self._collect(event_ids, events)
        if not new:
            return
        waiting: dict[EventId, int] = {}
        dependants: dict[EventId, list[EventId]] = {}
        ready: list[EventId] = []
        for event_id, pdu in new.items():
            unnumbered = {auth_id for auth_id in pdu.auth_events if auth_id in new or auth_id in self._circular}
            for auth_id in unnumbered:
                dependants.setdefault(auth_id, []).append(event_id)
            if unnumbered:
                waiting[event_id] = len(unnumbered)
            else:
                ready.append(event_id)
        while ready:
            event_id = ready.pop()
            self._add(new[event_id])
            for dependant in dependants.get(event_id, ()):
                waiting[dependant] -= 1
                if not waiting[dependant]:
                    ready.append(dependant)
                    del waiting[dependant]
        # What is left leads to a circle. That depends on its chain alone, whatever else is taken in, in whatever order.
        self._circular.update(waiting)
        for event_id in waiting:
            self._add(new[event_id])

    def _collect(self, event_ids: Iterable[EventId], events: Mapping[EventId, Pdu]) -> dict[EventId, Pdu]:
        numbers = self._numbers
        new: dict[EventId, Pdu] = {}
        missing: set[EventId] = set()
        frontier = [event_id for event_id in event_ids if event_id not in numbers]
        while frontier:
            event_id = frontier.pop()
            if event_id in new:
                continue
            pdu = events.get(event_id)
            if pdu is None:
                missing.add(event_id)
                continue
            new[event_id] = pdu
            frontier.extend([auth_id for auth_id in pdu.auth_events if auth_id not in numbers and auth_id not in new])
        if missing:
            raise MissingEvents(missing)
        return new

    def _add(self, pdu: Pdu) -> None:
        number = len(self._ids)
        numbers, circular = self._numbers, self._circular
        # The order of the auth events is kept, repetitions are not.
        auth_ids = dict.fromkeys(pdu.auth_events)
        auth_numbers = tuple([numbers[auth_id] for auth_id in auth_ids if auth_id not in circular])
        self._auth_numbers.append(auth_numbers)
        self._ids.append(pdu.event_id)
        numbers[pdu.event_id] = number
        for auth_number in auth_numbers:
            self._dependants.setdefault(auth_number, []).append(number)
        key = (pdu.type, "" if pdu.state_key is None else pdu.state_key)
        self._keys.append(key)
        if pdu.state_key is not None and key == POWER_LEVELS_KEY:
            self._power_levels.add(number)

    def bits(self, event_ids: Iterable[EventId]) -> BitSet:
        """Return the set of these events, which must all be here."""
        numbers = self._numbers
        result = 0
        for event_id in event_ids:
            result |= 1 << numbers[event_id]
        return result

    def ids(self, bits: BitSet) -> list[EventId]:
        """Return the events of a set, those that others depend on first."""
        ids = self._ids
        return [ids[number] for number in iterate_bits(bits)]

    def highest(self, bits: BitSet) -> EventId:
        """Return the event with the highest number in a set that is not empty."""
        return self._ids[bits.bit_length() - 1]

    def chain(self, event_id: EventId) -> BitSet:
        """Return the auth chain of an event that is here, without the event itself. Raises ChainsTooLong.

        https://spec.matrix.org/v1.19/rooms/v2/#definitions
        """
        wanted = self._auth_numbers[self._numbers[event_id]]
        chains, auth_numbers = self._chains, self._auth_numbers
        found = chains.get(wanted)
        if found is not None:
            return found
        # Events with the same auth events, such as most of those who join a public room, share one chain.
        stack = [wanted]
        while stack:
            top = stack[-1]
            unknown = [auth_numbers[number] for number in top if auth_numbers[number] not in chains]
            if unknown:
                stack.extend(unknown)
                continue
            stack.pop()
            if top not in chains:
                bits = 0
                for number in top:
                    bits |= chains[auth_numbers[number]] | (1 << number)
                chains[top] = bits
                self._chain_bytes += bits.bit_length() >> 3
                if self._chain_bytes > self._max_resolution_bytes:
                    raise ChainsTooLong
        return chains[wanted]

    def full_chain(self, event_ids: Iterable[EventId]) -> BitSet:
        """Return the union of the auth chains of events that are here."""
        result = 0
        for event_id in event_ids:
            result |= self.chain(event_id)
        return result

    def supporting(self, targets: BitSet, state: Callable[[StateKey], EventId | None]) -> BitSet:
        """Return those targets that are in the auth chain of an event of the state, of those events that are here.

        What refers to a target is looked through, newest first, until one event is found that is in the state.
        """
        result = 0
        unsupporting: set[int] = set()
        for target in iterate_bits(targets):
            seen: set[int] = set()
            stack = list(self._dependants.get(target, ()))
            while stack:
                number = stack.pop()
                if number in seen or number in unsupporting:
                    continue
                if state(self._keys[number]) == self._ids[number]:
                    result |= 1 << target
                    break
                seen.add(number)
                stack.extend(self._dependants.get(number, ()))
            else:
                unsupporting |= seen
        return result

    def power_levels_of(self, event_id: EventId) -> EventId | None:
        """Return the m.room.power_levels event among the auth events of an event that is here."""
        for number in self._auth_numbers[self._numbers[event_id]]:
            if number in self._power_levels:
                return self._ids[number]
        return None


def iterate_bits(bits: BitSet) -> Iterator[int]:
    """Yield the numbers in a set, ascending."""
    digits = bin(bits)[:1:-1]
    number = digits.find("1")
    while number >= 0:
        yield number
        number = digits.find("1", number + 1)
