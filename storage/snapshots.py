"""Room state at any event, as layered differences (migration 0001 says how; docs/adr/0003 says why).

A snapshot at depth d keeps the changes since its base at depth `d & (d - 1)`. The bases of a snapshot are its Fenwick
decomposition: at most log2(d) of them, each of them an ancestor in the same chain, whatever forks the room has.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import asyncpg

CHUNK_ENTRIES = 1024
GROUND_DEPTH = 2**24
"""The depth of a *ground*: a state that another server told when this one came into a room.

What stands on it has it for its last base and never merges it: a large state is written once, and what it lacks of the
members of a room (docs/adr/0016) can be put into it later, beneath all that was built on it meanwhile.
"""
EMPTY = 0
GONE = 0
"""The position of what a snapshot does not have any more though its base had it."""


class Layer(NamedTuple):
    """One stored difference. `positions[i]` is the event that has `keys[i]` of the room's state keys."""

    base: int
    depth: int
    entries: Mapping[int, int]


class NewSnapshot(NamedTuple):
    """A snapshot to be written: `changes` (key -> position) on top of `parent`."""

    snapshot: int
    parent: int
    changes: Mapping[int, int]
    is_ground: bool = False


class GroundRow(NamedTuple):
    """All entries of a ground (see GROUND_DEPTH), of which some were not known when it was written."""

    snapshot: int
    entries: Mapping[int, int]


INSERT_SNAPSHOTS = """
INSERT INTO snapshots (snapshot, first_key, base, depth, keys, positions)
SELECT snapshot, first_key, base, depth, keys::int[], positions::bigint[]
FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::int[], $5::text[], $6::text[])
    AS new (snapshot, first_key, base, depth, keys, positions)
"""

DELETE_SNAPSHOTS = "DELETE FROM snapshots WHERE snapshot = ANY($1::bigint[])"
HAS_SNAPSHOT = "SELECT EXISTS (SELECT FROM snapshots WHERE snapshot = $1)"

LAYER = "SELECT base, depth, keys, positions FROM snapshots WHERE snapshot = $1"

# All layers of a snapshot, newest first.
LAYERS = """
WITH RECURSIVE chain AS (
    SELECT snapshot, base, depth FROM snapshots WHERE snapshot = $1
    UNION
    SELECT s.snapshot, s.base, s.depth FROM snapshots s JOIN chain ON s.snapshot = chain.base
)
SELECT s.keys, s.positions FROM chain JOIN snapshots s USING (snapshot) ORDER BY s.depth DESC
"""

# Some keys of a snapshot: of each layer only the chunks that can hold them.
LAYERS_FOR_KEYS = """
WITH RECURSIVE chain AS (
    SELECT snapshot, base, depth FROM snapshots WHERE snapshot = $1
    UNION
    SELECT s.snapshot, s.base, s.depth FROM snapshots s JOIN chain ON s.snapshot = chain.base
)
SELECT DISTINCT ON (chain.depth, chunk.first_key) chunk.keys, chunk.positions
FROM chain CROSS JOIN unnest($2::int[]) AS wanted (key)
CROSS JOIN LATERAL (
    SELECT first_key, keys, positions FROM snapshots s
    WHERE s.snapshot = chain.snapshot AND s.first_key <= wanted.key ORDER BY s.first_key DESC LIMIT 1
) AS chunk
ORDER BY chain.depth DESC, chunk.first_key
"""


# The layers that snapshots consist of.
CHAINS = """
WITH RECURSIVE chain AS (
    SELECT DISTINCT snapshot AS top, snapshot, base, depth FROM snapshots WHERE snapshot = ANY($1::bigint[])
    UNION
    SELECT chain.top, s.snapshot, s.base, s.depth FROM snapshots s JOIN chain ON s.snapshot = chain.base
)
SELECT top, snapshot FROM chain ORDER BY depth DESC
"""
ENTRIES = "SELECT snapshot, keys, positions FROM snapshots WHERE snapshot = ANY($1::bigint[])"


class SnapshotRepository:
    """Reads snapshots, and works out what new ones have to store.

    Layers just written are kept in memory (bounded by `max_cached_entries`), so that a chain is extended without
    reading it back.
    """

    def __init__(self, pool: asyncpg.Pool, *, max_cached_entries: int = 500_000) -> None:
        self._pool = pool
        self._layers: OrderedDict[int, Layer] = OrderedDict()
        self._cached_entries = 0
        self._max_cached_entries = max_cached_entries

    async def load(self, snapshot: int) -> dict[int, int]:
        """The whole state: key -> position."""
        state: dict[int, int] = {}
        for row in await self._pool.fetch(LAYERS, snapshot):
            for key, position in zip(row["keys"], row["positions"], strict=True):
                state.setdefault(key, position)
        if GONE in state.values():
            return {key: position for key, position in state.items() if position != GONE}
        return state

    async def load_keys(self, snapshot: int, keys: Sequence[int]) -> dict[int, int]:
        """Those of `keys` that the state has."""
        found: dict[int, int] = {}
        for row in await self._pool.fetch(LAYERS_FOR_KEYS, snapshot, list(keys)):
            chunk_keys = row["keys"]
            for key in keys:
                index = bisect_right(chunk_keys, key) - 1
                if index >= 0 and chunk_keys[index] == key:
                    found.setdefault(key, row["positions"][index])
        return {key: position for key, position in found.items() if position != GONE}

    async def load_differences(self, snapshots: Sequence[int]) -> dict[int, list[int]]:
        """Where states differ: key -> its position in each of them, GONE where one does not have it.

        Costs what differs: layers that all of them stand on are not read.
        """
        chains: dict[int, list[int]] = {snapshot: [] for snapshot in snapshots}
        for row in await self._pool.fetch(CHAINS, [snapshot for snapshot in chains if snapshot != EMPTY]):
            chains[row["top"]].append(row["snapshot"])
        shared = set.intersection(*(set(chain) for chain in chains.values()))
        own = {layer for chain in chains.values() for layer in chain} - shared
        entries: dict[int, dict[int, int]] = {layer: {} for layer in own}
        for row in await self._pool.fetch(ENTRIES, list(own)):
            entries[row["snapshot"]].update(zip(row["keys"], row["positions"], strict=True))
        keys = {key for layer in entries.values() for key in layer}
        # Chains that meet stay together: all stand on the first layer that they share.
        ground = next((layer for layer in chains[snapshots[0]] if layer in shared), EMPTY)
        below = await self.load_keys(ground, list(keys)) if ground != EMPTY and keys else {}
        differences = {}
        for key in keys:
            values = []
            for snapshot in snapshots:
                layers = (entries[layer] for layer in chains[snapshot] if layer in own)
                values.append(next((layer[key] for layer in layers if key in layer), below.get(key, GONE)))
            if len(set(values)) > 1:
                differences[key] = values
        return differences

    async def plan(self, connection: asyncpg.Connection, new: Sequence[NewSnapshot]) -> list[tuple[int, Layer]]:
        """The layers to write for new snapshots, in order; a later one may stand on an earlier one."""
        planned: dict[int, Layer] = {}  # these are not stored yet, and have to be found whatever the cache forgets
        for snapshot, parent, changes, is_ground in new:
            if is_ground:
                assert parent == EMPTY, "a ground stands on nothing"
                planned[snapshot] = Layer(EMPTY, GROUND_DEPTH, dict(changes))
            else:
                planned[snapshot] = await self._layer_on(connection, parent, changes, planned)
            self._remember(snapshot, planned[snapshot])
        return list(planned.items())

    async def _layer_on(
        self, connection: asyncpg.Connection, parent: int, changes: Mapping[int, int], planned: Mapping[int, Layer]
    ) -> Layer:
        if parent == EMPTY:
            return Layer(EMPTY, 1, dict(changes))
        ancestor = planned.get(parent) or await self._layer(connection, parent)
        depth = ancestor.depth + 1
        base_depth = depth & (depth - 1)
        merged = dict(changes)
        base = parent
        while ancestor.depth > base_depth:
            for key, position in ancestor.entries.items():
                merged.setdefault(key, position)
            base = ancestor.base
            if base == EMPTY:
                break
            ancestor = planned.get(base) or await self._layer(connection, base)
        return Layer(base, depth, merged)

    async def _layer(self, connection: asyncpg.Connection, snapshot: int) -> Layer:
        if (layer := self._layers.get(snapshot)) is not None:
            self._layers.move_to_end(snapshot)
            return layer
        entries: dict[int, int] = {}
        base = depth = 0
        for row in await connection.fetch(LAYER, snapshot):
            base, depth = row["base"], row["depth"]
            entries.update(zip(row["keys"], row["positions"], strict=True))
        assert depth, f"snapshot {snapshot} is not stored"
        layer = Layer(base, depth, entries)
        self._remember(snapshot, layer)
        return layer

    def _remember(self, snapshot: int, layer: Layer) -> None:
        if (known := self._layers.pop(snapshot, None)) is not None:
            self._cached_entries -= len(known.entries)
        self._layers[snapshot] = layer
        self._cached_entries += len(layer.entries)
        while self._cached_entries > self._max_cached_entries and len(self._layers) > 1:
            _, old = self._layers.popitem(last=False)
            self._cached_entries -= len(old.entries)

    async def rewrite_grounds(self, connection: asyncpg.Connection, rows: Sequence[GroundRow]) -> None:
        """Writes grounds anew, with more in them than before."""
        await connection.execute(DELETE_SNAPSHOTS, [row.snapshot for row in rows])
        layers = [(row.snapshot, Layer(EMPTY, GROUND_DEPTH, row.entries)) for row in rows]
        await insert_snapshots(connection, layers)
        for snapshot, layer in layers:
            self._remember(snapshot, layer)

    def forget_cached(self) -> None:
        """Drops what is remembered: a transaction that wrote some of it was rolled back."""
        self._layers.clear()
        self._cached_entries = 0


async def insert_snapshots(connection: asyncpg.Connection, planned: Sequence[tuple[int, Layer]]) -> None:
    """Writes planned layers, each in chunks sorted by key."""
    rows: list[tuple[int, int, int, int, str, str]] = []
    for snapshot, layer in planned:
        entries = sorted(layer.entries.items())
        for start in range(0, len(entries), CHUNK_ENTRIES):
            chunk = entries[start : start + CHUNK_ENTRIES]
            keys = "{" + ",".join(str(key) for key, _ in chunk) + "}"
            positions = "{" + ",".join(str(position) for _, position in chunk) + "}"
            rows.append((snapshot, chunk[0][0], layer.base, layer.depth, keys, positions))
    await connection.execute(INSERT_SNAPSHOTS, *(list(column) for column in zip(*rows, strict=True)))
