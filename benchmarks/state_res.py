"""`python -m benchmarks.state_res`: what state resolution costs, beside Synapse's resolver called as a library."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import report, servers
from benchmarks.state_res_rooms import BenchRoom
from matrix.room_versions import ROOM_VERSIONS
from matrix.state_res import AuthChains, StateKey, StateMap, resolve_conflict, resolve_state
from matrix.state_res.common import Conflict
from matrix.state_res.conflicted_subgraph import conflicted_subgraph
from matrix.state_res.split_conflicted import split_conflicted

_RESULTS_FILE = Path(__file__).with_name("STATE_RES.md")
_PEER = Path(__file__).with_name("state_res_synapse.py")
_MEMBERS = (1_000, 10_000, 50_000)
_FORKS = (2, 10, 50)
_VERSIONS = ("11", "12")
_REPETITIONS = 5
_PEER_TIMEOUT_S = 300.0

State = dict[StateKey, str]


class Case:
    """A number of forks of a room."""

    def __init__(self, room: BenchRoom, states: Sequence[State]) -> None:
        self.room = room
        self.states = states
        _, self.conflicted = split_conflicted(states)
        self.conflicted_keys = {key for state in self.conflicted for key in state}

    def resolve_anew(self) -> State:
        """From whole states, knowing nothing of the room's auth chains."""
        return resolve_state(self.room.version, self.states, self.room.events)

    def resolve_again(self, chains: AuthChains) -> State:
        """From whole states, with the room's index of auth chains."""
        return resolve_state(self.room.version, self.states, self.room.events, chains=chains)

    def resolve_conflict(self, chains: AuthChains) -> State:
        """From what differs, with the room's index of auth chains."""
        state: StateMap = self.room.state
        events = self.room.events
        return resolve_conflict(
            self.room.version, state.get, self.conflicted, events, unconflicted_ids=state.values, chains=chains
        )

    def ask_synapse(self, python: Path) -> tuple[float, State]:
        """The median of Synapse's milliseconds, and its result."""
        difference, subgraph = self._differences()
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(
                {
                    "version": self.room.version.identifier,
                    "events": [pdu.json for pdu in self.room.events.values()],
                    "state": [[*key, event_id] for key, event_id in self.room.state.items()],
                    "forks": [
                        [[*key, state[key]] for key in self.conflicted_keys if key in state] for state in self.states
                    ],
                    "difference": difference,
                    "subgraph": subgraph,
                    "repetitions": _REPETITIONS,
                },
                file,
            )
            file.flush()
            done = subprocess.run(
                [python, _PEER, file.name], capture_output=True, text=True, timeout=_PEER_TIMEOUT_S, check=False
            )
        if done.returncode:
            raise servers.ServerError(f"Synapse's resolver failed:\n{done.stderr[-2000:]}")
        answer = json.loads(done.stdout)
        state = self.room.state | {(type, key): event_id for type, key, event_id in answer["changed"]}
        return statistics.median(answer["taken_ms"]), state

    def _differences(self) -> tuple[list[str], list[str] | None]:
        """The auth difference, from whole auth chains, and the conflicted subgraph where the room version has it."""
        chains = AuthChains()
        chains.extend(self.room.events, self.room.events)
        common = chains.full_chain(self.room.state[key] for key in self.room.state if key not in self.conflicted_keys)
        full = [common | chains.full_chain(state.values()) for state in self.conflicted]
        union = intersection = full[0]
        for chain in full[1:]:
            union |= chain
            intersection &= chain
        if not self.room.version.room_id_is_create_event_hash:
            return chains.ids(union & ~intersection), None
        nothing: State = {}
        conflict = Conflict(self.room.version, self.conflicted, nothing.get, nothing.values, self.room.events, ())
        subgraph = conflicted_subgraph(conflict, chains) | chains.bits(conflict.event_ids)
        return chains.ids(union & ~intersection), chains.ids(subgraph)


def measure(work: Callable[[], State]) -> tuple[float, State]:
    """The median of the CPU time in milliseconds, and the result."""
    taken = []
    for _ in range(_REPETITIONS):
        started = time.process_time()
        result = work()
        taken.append((time.process_time() - started) * 1000)
    return statistics.median(taken), result


def run_case(case: Case, python: Path | None) -> list[str]:
    """Measure one case: a line of the table. All results must be the same."""
    anew_ms, resolved = measure(case.resolve_anew)
    chains = AuthChains()
    case.resolve_again(chains)
    again_ms, again = measure(lambda: case.resolve_again(chains))
    conflict_ms, changed = measure(lambda: case.resolve_conflict(chains))
    assert resolved == again
    assert changed == {key: event_id for key, event_id in resolved.items() if key in case.conflicted_keys}
    cells = [
        case.room.version.identifier,
        f"{len(case.room.state):,}",
        str(len(case.states)),
        str(len(case.conflicted_keys)),
        *(report.number(value) for value in (anew_ms, again_ms, conflict_ms)),
    ]
    if python is not None:
        synapse_ms, theirs = case.ask_synapse(python)
        agrees = {key: theirs.get(key) for key in resolved} == resolved
        cells += [report.number(synapse_ms), f"{report.number(synapse_ms / again_ms)}×", "yes" if agrees else "no"]
    return cells


def main() -> None:
    """Measure, print, and write down."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.state_res", description=__doc__)
    parser.add_argument("--without-synapse", action="store_true", help="do not install or ask Synapse")
    parser.add_argument("--members", type=int, nargs="*", default=_MEMBERS, help="sizes of rooms")
    options = parser.parse_args()
    python = None if options.without_synapse else servers.install_synapse()
    header = ["room version", "state events", "forks", "keys that differ", "anew", "index kept", "conflict alone"]
    lines = [header if python is None else [*header, "Synapse", "ratio", "same result"]]
    for version in _VERSIONS:
        for members in options.members:
            room = BenchRoom(ROOM_VERSIONS[version], members)
            forks = [room.fork(number, members) for number in range(max(_FORKS))]
            for count in _FORKS:
                lines.append(run_case(Case(room, forks[:count]), python))
                print("  ".join(f"{cell:>10}" for cell in lines[-1]), flush=True)
    table = report.table(lines)
    print(table)
    if python is not None and options.members == _MEMBERS:
        _RESULTS_FILE.write_text(_document(table), encoding="utf-8")


def _document(table: str) -> str:
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    synapse = servers.SYNAPSE_REQUIREMENT.partition("==")[2]
    return f"""# Results: state resolution

Measured on {day} by `make bench-state-res`, beside Synapse {synapse}, with Python
{platform.python_version()} on {report.processor()}. Milliseconds of CPU time, medians of {_REPETITIONS}.
[README.md](README.md#state-resolution) says what was measured.

{table}
"""


if __name__ == "__main__":
    sys.exit(main())
