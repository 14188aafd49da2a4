"""The part of `benchmarks.state_res` that runs in Synapse's virtual environment: resolve, and tell how long it took.

Called with a file of JSON as `state_res.py` writes it. What Synapse would ask its database, it is told at once, from
memory: the figures are those of its algorithm alone. Only what `inspect.signature` and docstrings tell is relied on.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import synapse.server  # noqa: F401 (the modules below can only be imported after it)
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
from synapse.events import make_event_from_dict
from synapse.state.v2 import resolve_events_with_store
from synapse.storage.databases.main.event_federation import StateDifference


class Store:
    """A `StateResolutionStore` that has all the answers."""

    def __init__(self, events: dict[str, Any], difference: StateDifference) -> None:
        self._events = events
        self._difference = difference

    async def get_events(self, event_ids: Any, allow_rejected: bool = False) -> dict[str, Any]:
        """Events by ID."""
        return {event_id: self._events[event_id] for event_id in event_ids}

    async def get_auth_chain_difference(self, *_: Any) -> StateDifference:
        """The auth difference and, for version 2.1, the conflicted subgraph."""
        return self._difference


class Clock:
    """A `Clock` whose sleeps, which let other work go on, are over at once."""

    async def sleep(self, duration: Any) -> None:
        """Do not sleep."""


def main() -> None:
    """Print the milliseconds of CPU time of each repetition, and what the resolved state changes in the room's."""
    given = json.loads(Path(sys.argv[1]).read_text())
    version = KNOWN_ROOM_VERSIONS[given["version"]]
    made = [make_event_from_dict(event, version) for event in given["events"]]
    events = {event.event_id: event for event in made}
    base = {(type, state_key): event_id for type, state_key, event_id in given["state"]}
    states = [base | {(type, key): event_id for type, key, event_id in fork} for fork in given["forks"]]
    subgraph = None if given["subgraph"] is None else set(given["subgraph"])
    store = Store(events, StateDifference(set(given["difference"]), subgraph))
    taken = []
    for _ in range(given["repetitions"]):
        started = time.process_time()
        resolved = asyncio.run(resolve_events_with_store(Clock(), made[0].room_id, version, states, None, store))
        taken.append((time.process_time() - started) * 1000)
    changed = [[*key, event_id] for key, event_id in resolved.items() if base.get(key) != event_id]
    json.dump({"taken_ms": taken, "changed": changed, "size": len(resolved)}, sys.stdout)


if __name__ == "__main__":
    main()
