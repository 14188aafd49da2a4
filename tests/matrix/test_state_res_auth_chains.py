"""The index of auth chains, on graphs that rooms have and on such as only a hostile server would think of."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.pdu import Pdu
from matrix.room_versions import ROOM_VERSIONS
from matrix.state_res import AuthChains, ChainsTooLong, MissingEvents, resolve_state
from tests.matrix.rooms import CREATOR, Room

V2 = ROOM_VERSIONS["2"]
LONG = 20_000

Graph = dict[int, list[int]]
GRAPHS = st.dictionaries(st.integers(0, 9), st.lists(st.integers(0, 9), max_size=4), min_size=1)


def make_events(graph: Mapping[int, list[int]]) -> dict[str, Pdu]:
    """Events with these auth events, in whose version IDs are whatever a server calls them."""
    room = Room(V2)
    return {
        f"${number}:x": room.event(
            "org.example",
            CREATOR,
            {},
            str(number),
            event_id=f"${number}:x",
            auth_events=[[f"${auth}:x", {"sha256": ""}] for auth in auth_events],
        )
        for number, auth_events in graph.items()
    }


def reachable(graph: Graph, start: int) -> set[int]:
    found: set[int] = set()
    todo = list(graph[start])
    while todo:
        if (number := todo.pop()) not in found:
            found.add(number)
            todo.extend(graph[number])
    return found


@given(GRAPHS, st.data())
def test_chains_are_what_auth_events_lead_to(graph: Graph, data: st.DataObject) -> None:
    """Whatever the order of additions; and of what leads to a circle, what does not is left."""
    graph = {number: [auth for auth in auths if auth in graph] for number, auths in graph.items()}
    events = make_events(graph)
    circular = {
        number
        for number in graph
        if any(other in reachable(graph, other) for other in {number, *reachable(graph, number)})
    }
    sound = {number: [auth for auth in auths if auth not in circular] for number, auths in graph.items()}
    chains = AuthChains()
    for number in data.draw(st.permutations(sorted(graph))):
        chains.extend([f"${number}:x"], events)
        chain = set(chains.ids(chains.chain(f"${number}:x")))
        assert chain == {f"${auth}:x" for auth in reachable(sound, number)}
    assert len(chains) == len(graph)
    numbers = data.draw(st.sets(st.sampled_from(sorted(graph))))
    ids = {f"${number}:x" for number in numbers}
    everything = chains.bits(events)
    assert set(chains.ids(chains.bits(ids))) == ids
    # Each comes after what it builds on.
    order = chains.ids(everything)
    assert all(order.index(f"${auth}:x") < order.index(f"${number}:x") for number in sound for auth in sound[number])


@given(GRAPHS)
def test_nothing_is_taken_in_by_halves(graph: Graph) -> None:
    events = make_events(graph)
    chains = AuthChains()
    unknown = {f"${auth}:x" for auths in graph.values() for auth in auths if auth not in graph}
    if not unknown:
        chains.extend(events, events)
        assert len(chains) == len(graph)
        return
    with pytest.raises(MissingEvents) as missing:
        chains.extend(events, events)
    assert missing.value.event_ids == unknown
    assert len(chains) == 0


@given(GRAPHS, st.data())
def test_circles_end(graph: Graph, data: st.DataObject) -> None:
    """Resolutions of states with circles in their auth events come to one end, whatever the order."""
    events = make_events({number: [auth for auth in auths if auth in graph] for number, auths in graph.items()})
    ids = sorted(events)
    states = [
        {
            ("org.example", event_id.partition(":")[0][1:]): event_id
            for event_id in data.draw(st.sets(st.sampled_from(ids)))
        }
        for _ in range(3)
    ]
    resolved = resolve_state(V2, states, events)
    assert resolve_state(V2, states[::-1], dict(reversed(events.items()))) == resolved
    chains = AuthChains()
    for event_id in data.draw(st.permutations(ids)):
        chains.extend([event_id], events)
    assert resolve_state(V2, states, events, chains=chains) == resolved


def test_long_chains_are_followed_without_recursion() -> None:
    events = make_events({number: [number - 1] if number else [] for number in range(LONG)})
    chains = AuthChains()
    chains.extend([f"${LONG - 1}:x"], events)
    assert chains.chain(f"${LONG - 1}:x").bit_count() == LONG - 1
    assert f"${LONG - 1}:x" in chains
    # Each of these chains is a set of its own: together they are beyond the bound, and are made anew when asked for.
    chains.trim()
    assert chains.chain("$1:x").bit_count() == 1
    assert len(chains) == LONG


def test_an_index_beyond_its_bound_starts_over() -> None:
    events = make_events({0: [], 1: [0], 2: [1]})
    chains = AuthChains(max_events=2)
    chains.extend(["$1:x"], events)
    chains.trim()
    assert len(chains) == 2
    chains.extend(["$2:x"], events)
    chains.trim()
    assert len(chains) == 0
    chains.extend(["$2:x"], events)
    assert chains.ids(chains.chain("$2:x")) == ["$0:x", "$1:x"]


def test_chains_that_take_too_much_memory_are_not_followed() -> None:
    events = make_events({number: [number - 1] if number else [] for number in range(1000)})
    chains = AuthChains(max_chain_bytes=40_000, max_resolution_bytes=50_000)
    chains.extend(["$999:x"], events)
    assert chains.chain("$500:x").bit_count() == 500
    with pytest.raises(ChainsTooLong):
        chains.chain("$999:x")
    chains.trim()  # as a resolution does when it ends, in whichever way
    assert chains.chain("$500:x").bit_count() == 500
