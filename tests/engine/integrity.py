"""What must be true of a database of local rooms, whatever happened to the server that wrote it."""

from __future__ import annotations

import asyncpg
import orjson

from matrix.relations import kept_relation
from storage.snapshots import SnapshotRepository

EVENTS = "SELECT * FROM events WHERE kind = 0 AND room = $1 ORDER BY position"


async def check_database(url: str) -> int:
    """Checks every room of a database; returns how many events there are.

    Rooms without other servers are a line: each event stands on the one before it. What snapshots, state keys,
    memberships and running counts say has to be what a replay of that line gives.
    """
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool:
        rooms = [row["room"] for row in await pool.fetch("SELECT room FROM rooms")]
        events = 0
        for room in rooms:
            events += await _check_room(pool, room)
        assert events == await pool.fetchval("SELECT count(*) FROM events"), "events without a room"
        for table in ("state_keys", "memberships", "receipts", "aliases", "personal_counts", "relations"):
            orphans = await pool.fetchval(f"SELECT count(*) FROM {table} WHERE room <> ALL($1::int[])", rooms)
            assert orphans == 0, f"{table} without a room"
        last = await pool.fetchval("SELECT coalesce(max(position), 0) FROM events")
        assert last <= await pool.fetchval("SELECT reserved_until FROM stream"), "a position that was not reserved"
        return events


async def _check_room(pool: asyncpg.Pool, room: int) -> int:
    rows = await pool.fetch(EVENTS, room)
    assert rows, f"room {room} has no events"
    numbers = {
        (row["type"], row["state_key"]): row["key"]
        for row in await pool.fetch("SELECT * FROM state_keys WHERE room = $1", room)
    }
    state: dict[tuple[str, str], int] = {}
    members: dict[str, str] = {}
    relations: list[tuple[int, str, str, str, str]] = []
    previous = None
    snapshot, notify_count, highlight_count = 0, 0, 0
    for row in rows:
        pdu = orjson.loads(row["json"])
        previous_ids = [reference if isinstance(reference, str) else reference[0] for reference in pdu["prev_events"]]
        assert previous_ids == ([previous] if previous else []), f"{row['event_id']} does not stand on the one before"
        previous = row["event_id"]
        if (relation := kept_relation(pdu["type"], pdu.get("state_key"), pdu["content"])) is not None:
            relations.append((row["position"], relation.event_id, relation.rel_type, pdu["type"], pdu["sender"]))
        if "state_key" in pdu:
            key = (pdu["type"], pdu["state_key"])
            assert row["replaces"] == state.get(key)
            state[key] = snapshot = row["position"]
            assert key in numbers, f"{key} of {previous} has no number"
            if pdu["type"] == "m.room.member":
                members[pdu["state_key"]] = pdu["content"]["membership"]
        assert row["snapshot"] == snapshot, f"{previous} is not on the snapshot before it"
        assert row["notify_count"] == notify_count + row["notifies"]
        assert 0 <= row["highlight_count"] - highlight_count <= 1
        notify_count, highlight_count = row["notify_count"], row["highlight_count"]
    loaded = await SnapshotRepository(pool).load(snapshot)
    assert loaded == {numbers[key]: position for key, position in state.items()}
    stored = await pool.fetch("SELECT user_id, membership FROM memberships WHERE room = $1", room)
    assert {row["user_id"]: row["membership"] for row in stored} == members
    query = "SELECT position, parent, rel_type, type, sender FROM relations WHERE room = $1 ORDER BY position"
    assert [tuple(row) for row in await pool.fetch(query, room)] == relations
    return len(rows)
