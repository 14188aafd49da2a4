"""What redactions of other servers do: they may come before what they redact, and may be nobody's to make.

Readers are shown a redaction only if it is applied: their clients would apply it themselves.
https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from homeserver.services.rooms.branches import Branches, State
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import CREATE, POWER_LEVELS, Room
from matrix.event_auth import redaction_applies
from matrix.identifiers import is_event_id
from matrix.pdu import Pdu
from matrix.power_levels import PowerLevels
from matrix.redaction import redact_event
from storage.events import StoredEvent
from storage.federation import FederationRepository, PendingRedaction
from storage.stream import Writes

MAX_AWAITED: Final = 100_000
"""How many events that were redacted before they came are kept in mind."""


class Redacting(NamedTuple):
    """`target` is what the event redacts, `awaits` the ID of that where it is not known yet; `by` what redacts it.

    `is_void`: it is a redaction of what is not known, or not its sender's to redact.
    """

    target: StoredEvent | None = None
    awaits: str | None = None
    by: StoredEvent | None = None
    is_void: bool = False

    @classmethod
    def of(cls, pdu: Pdu, target: StoredEvent | None, levels: PowerLevels, by: StoredEvent | None) -> Redacting:
        """What a redaction does to its target, None where that is not known, by the power levels in force."""
        applies = target is not None and redaction_applies(pdu, target.pdu, levels)
        awaits = pdu.redacts if target is None and is_event_id(pdu.redacts) else None
        is_done = target is not None and target.redacted_by is not None
        # Where the authorisation rules have judged it, there is nothing more to say.
        is_void = not applies and not pdu.room_version.authorise_redactions
        return cls(target if applies and not is_done else None, awaits, by, is_void)

    def taken_in(self, pdu: Pdu) -> Pdu:
        """The event as it is to be taken in: what was redacted before it came is never kept otherwise."""
        if self.by is None:
            return pdu
        return Pdu(pdu.room_version, pdu.event_id, redact_event(pdu.json, pdu.room_version))


NO_REDACTION: Final = Redacting()


class Redactions:
    """Brings redactions and what they redact together, whichever comes first."""

    def __init__(self, events: EventCache, branches: Branches, repository: FederationRepository) -> None:
        self._events = events
        self._branches = branches
        self._repository = repository
        self._awaited: set[str] = set()

    async def open(self) -> None:
        """Finds out which events are awaited that have been redacted already."""
        self._awaited = await self._repository.load_awaited(limit=MAX_AWAITED)

    def concern(self, pdu: Pdu, known: StoredEvent | None = None) -> bool:
        """Whether an event redacts another, or was redacted before it came, or as what is `known` of it."""
        is_redacted = pdu.event_id in self._awaited or (known is not None and known.redacted_by is not None)
        return pdu.type == "m.room.redaction" or is_redacted

    async def around(self, room: Room, pdu: Pdu, levels: PowerLevels, known: StoredEvent | None = None) -> Redacting:
        """What redactions there are around an event: of others by it, and of it by others that came before it.

        `levels` are those in force at the event.
        """
        by = (await self.before(room, [pdu])).get(pdu.event_id)
        if known is not None and known.redacted_by is not None:
            by = (await self._events.load([known.redacted_by])).get(known.redacted_by)
        if pdu.type != "m.room.redaction":
            return Redacting(by=by)
        target = None if pdu.redacts is None else await self._events.load_id(pdu.redacts)
        return Redacting.of(pdu, target, levels, by)

    async def before(self, room: Room, pdus: Iterable[Pdu]) -> dict[str, StoredEvent]:
        """The redactions of these events that came before them, by the IDs of the events."""
        awaited = {pdu.event_id: pdu for pdu in pdus if pdu.event_id in self._awaited}
        found: dict[str, StoredEvent] = {}
        if awaited:
            rows = await self._repository.load_pending_redactions(awaited)
            redactions = await self._events.load(row.position for row in rows)
            for redaction in redactions.values():
                pdu = awaited.get(redaction.pdu.redacts or "")
                if pdu is None or redaction.room != room.room:
                    continue
                if redaction_applies(redaction.pdu, pdu, await self.load_levels(room, State(redaction.snapshot))):
                    found.setdefault(pdu.event_id, redaction)
        return found

    def note(self, event: StoredEvent, redacting: Redacting, writes: Writes) -> None:
        """Notes on a new event what redacted it before it came, and that it awaits what it redacts."""
        if redacting.awaits is not None and len(self._awaited) < MAX_AWAITED:
            writes.pending_redactions.append(PendingRedaction(redacting.awaits, event.room, event.position))
            self._awaited.add(redacting.awaits)
        if redacting.by is not None:
            event.redacted_by = redacting.by.position
            self._awaited.discard(event.event_id)

    async def load_levels(self, room: Room, state: State) -> PowerLevels:
        """The power levels of a state."""
        auth_state = await self._branches.load_auth_state(room, state, (CREATE, POWER_LEVELS))
        return PowerLevels.of(room.version, auth_state[CREATE], auth_state.get(POWER_LEVELS))
