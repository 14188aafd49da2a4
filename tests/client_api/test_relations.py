"""Relations: aggregations served with events, the lists of what relates to an event, and of a room's threads.

https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events
"""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from homeserver.clock import now_ms
from tests.client import Homeserver, User
from tests.client_api.support import encode, joined, make_room, timeline_ids
from tests.conftest import StartServer
from tests.engine.waiting import eventually


def related(rel_type: str, parent: str, **more: Any) -> dict[str, Any]:
    """A content that relates to an event."""
    return {"msgtype": "m.text", "body": "related", "m.relates_to": {"rel_type": rel_type, "event_id": parent, **more}}


def edit(parent: str, body: str) -> dict[str, Any]:
    """A content that replaces a message."""
    return {**related("m.replace", parent), "m.new_content": {"msgtype": "m.text", "body": body}}


async def event_of(user: User, room_id: str, event_id: str) -> dict[str, Any]:
    event: dict[str, Any] = (await user.in_room("GET", room_id, f"event/{encode(event_id)}")).ok()
    return event


async def relations_of(user: User, room_id: str, event_id: str) -> dict[str, Any]:
    """The bundled aggregations of an event."""
    found: dict[str, Any] = (await event_of(user, room_id, event_id))["unsigned"].get("m.relations", {})
    return found


async def redact(user: User, room_id: str, event_id: str) -> None:
    (await user.in_room("PUT", room_id, f"redact/{encode(event_id)}/{encode('r' + event_id)}", {})).ok()


async def list_relations(user: User, room_id: str, rest: str, **query: Any) -> dict[str, Any]:
    path = f"/_matrix/client/v1/rooms/{encode(room_id)}/relations/{rest}"
    page: dict[str, Any] = (await user.request("GET", path, **query)).ok()
    return page


async def list_threads(user: User, room_id: str, **query: Any) -> dict[str, Any]:
    page: dict[str, Any] = (
        await user.request("GET", f"/_matrix/client/v1/rooms/{encode(room_id)}/threads", **query)
    ).ok()
    return page


def ids(page: dict[str, Any]) -> list[str]:
    return [event["event_id"] for event in page["chunk"]]


async def ignore(user: User, *ignored: User) -> None:
    """Replaces whom a user ignores."""
    path = f"user/{encode(user.user_id)}/account_data/m.ignored_user_list"
    (await user.request("PUT", path, {"ignored_users": {other.user_id: {} for other in ignored}})).ok()


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def room_id(alice: User, bob: User) -> str:
    return await make_room(bob, creator=alice)


async def test_the_newest_edit_comes_along_and_the_content_stays(alice: User, bob: User, room_id: str) -> None:
    original = await alice.send(room_id, "first")
    assert await relations_of(bob, room_id, original) == {}
    await alice.send(room_id, edit(original, "second"))
    newest = await alice.send(room_id, edit(original, "third"))
    event = await event_of(bob, room_id, original)
    assert event["content"]["body"] == "first"
    replacement = event["unsigned"]["m.relations"]["m.replace"]
    assert (replacement["event_id"], replacement["room_id"]) == (newest, room_id)
    assert replacement["content"]["m.new_content"]["body"] == "third"
    assert replacement["origin_server_ts"] > 0


async def test_invalid_edits_are_not_aggregated(alice: User, bob: User, room_id: str) -> None:
    original = await alice.send(room_id, "first")
    await bob.send(room_id, edit(original, "of somebody else"))
    await alice.send(room_id, edit(original, "of another type"), type="org.example.other")
    await alice.send(room_id, related("m.replace", original))  # without m.new_content
    await alice.set_state(room_id, "m.room.message", edit(original, "a state event"))
    assert await relations_of(alice, room_id, original) == {}
    valid = await alice.send(room_id, edit(original, "second"))
    await alice.send(room_id, edit(valid, "an edit of an edit"))
    assert await relations_of(alice, room_id, valid) == {}
    assert (await relations_of(alice, room_id, original))["m.replace"]["event_id"] == valid
    topic = await alice.set_state(room_id, "m.room.topic", {"topic": "state"})
    await alice.send(room_id, edit(topic, "no"), type="m.room.topic")
    assert await relations_of(alice, room_id, topic) == {}


async def test_an_encrypted_edit_needs_no_new_content(alice: User, room_id: str) -> None:
    content = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x"}
    original = await alice.send(room_id, content, type="m.room.encrypted")
    relates_to = {"m.relates_to": {"rel_type": "m.replace", "event_id": original}}
    replacement = await alice.send(room_id, content | relates_to, type="m.room.encrypted")
    assert (await relations_of(alice, room_id, original))["m.replace"]["event_id"] == replacement


async def test_redacting_an_edit_goes_back_to_the_one_before(alice: User, room_id: str) -> None:
    original = await alice.send(room_id, "first")
    second = await alice.send(room_id, edit(original, "second"))
    sent = (await event_of(alice, room_id, second))["origin_server_ts"]
    await eventually(lambda: now_ms() > sent)  # of two in one millisecond the IDs would decide
    third = await alice.send(room_id, edit(original, "third"))
    assert (await relations_of(alice, room_id, original))["m.replace"]["event_id"] == third
    await redact(alice, room_id, third)
    assert (await relations_of(alice, room_id, original))["m.replace"]["event_id"] == second
    await redact(alice, room_id, original)
    assert await relations_of(alice, room_id, original) == {}


async def test_a_thread_is_summed_up_for_each_reader(alice: User, bob: User, room_id: str) -> None:
    carol = await alice.homeserver.register()
    await carol.join(room_id)
    root = await alice.send(room_id, "root")
    await alice.send(room_id, related("m.thread", root))
    latest = await bob.send(room_id, related("m.thread", root))
    replacement = await bob.send(room_id, edit(latest, "edited"))
    await alice.send(room_id, "not in the thread")
    for user, participated in ((alice, True), (bob, True), (carol, False)):
        thread = (await relations_of(user, room_id, root))["m.thread"]
        assert (thread["count"], thread["current_user_participated"]) == (2, participated)
        assert thread["latest_event"]["event_id"] == latest
        assert thread["latest_event"]["unsigned"]["m.relations"]["m.replace"]["event_id"] == replacement
    await ignore(carol, bob)
    thread = (await relations_of(carol, room_id, root))["m.thread"]
    assert (thread["count"], thread["latest_event"]["sender"]) == (1, alice.user_id)
    await redact(bob, room_id, latest)
    thread = (await relations_of(bob, room_id, root))["m.thread"]
    assert (thread["count"], thread["latest_event"]["sender"]) == (1, alice.user_id)
    assert not thread["current_user_participated"]
    await redact(alice, room_id, root)
    assert (await relations_of(bob, room_id, root))["m.thread"]["count"] == 1


async def test_a_thread_does_not_start_in_a_thread(alice: User, bob: User, room_id: str) -> None:
    root = await alice.send(room_id, "root")
    in_thread = await alice.send(room_id, related("m.thread", root))
    path = "send/m.room.message/nested"
    (await bob.in_room("PUT", room_id, path, related("m.thread", in_thread))).error(400, "M_UNKNOWN")
    reply = await bob.send(
        room_id, {"msgtype": "m.text", "body": "r", "m.relates_to": {"m.in_reply_to": {"event_id": root}}}
    )
    await alice.send(room_id, related("m.thread", reply))
    assert (await relations_of(alice, room_id, reply))["m.thread"]["count"] == 1


async def test_references_are_listed(alice: User, bob: User, room_id: str) -> None:
    parent = await alice.send(room_id, "parent")
    one = await bob.send(room_id, related("m.reference", parent))
    two = await alice.send(room_id, related("m.reference", parent), type="org.example.other")
    assert await relations_of(alice, room_id, parent) == {
        "m.reference": {"chunk": [{"event_id": one}, {"event_id": two}]}
    }
    await ignore(alice, bob)
    assert await relations_of(alice, room_id, parent) == {"m.reference": {"chunk": [{"event_id": two}]}}


async def test_annotations_are_listed_but_not_aggregated_and_not_repeated(alice: User, bob: User, room_id: str) -> None:
    parent = await alice.send(room_id, "parent")
    thumb = related("m.annotation", parent, key="👍")
    first = await alice.send(room_id, thumb, type="m.reaction")
    (await alice.in_room("PUT", room_id, "send/m.reaction/again", thumb)).error(400, "M_DUPLICATE_ANNOTATION")
    other = await alice.send(room_id, related("m.annotation", parent, key="🎉"), type="m.reaction")
    of_bob = await bob.send(room_id, thumb, type="m.reaction")
    assert await relations_of(alice, room_id, parent) == {}
    listed = await list_relations(bob, room_id, f"{encode(parent)}/m.annotation/m.reaction")
    assert ids(listed) == [of_bob, other, first]
    await redact(alice, room_id, first)
    again = await alice.send(room_id, thumb, type="m.reaction")
    assert ids(await list_relations(bob, room_id, encode(parent))) == [again, of_bob, other]


async def test_relations_are_paged_in_both_directions(alice: User, room_id: str) -> None:
    parent = await alice.send(room_id, "parent")
    sent = [await alice.send(room_id, related("m.thread", parent)) for _ in range(5)]
    await alice.send(room_id, related("m.reference", parent))
    for direction, expected in (("b", sent[::-1]), ("f", sent)):
        found: list[str] = []
        query: dict[str, Any] = {}
        while True:
            page = await list_relations(alice, room_id, f"{encode(parent)}/m.thread", dir=direction, limit=2, **query)
            assert page.get("prev_batch") == query.get("from")
            found += ids(page)
            if "next_batch" not in page:
                break
            query = {"from": page["next_batch"]}
        assert found == expected
    first = await list_relations(alice, room_id, f"{encode(parent)}/m.thread", limit=2)
    rest = await list_relations(alice, room_id, f"{encode(parent)}/m.thread", to=first["next_batch"])
    assert ids(rest) == sent[:2:-1]
    assert "recursion_depth" not in first


async def test_relations_are_followed_to_a_depth(alice: User, room_id: str) -> None:
    root = await alice.send(room_id, "root")
    chain = [root]
    for _ in range(4):
        chain.append(await alice.send(room_id, related("m.reference", chain[-1])))
    page = await list_relations(alice, room_id, encode(root), recurse="true")
    assert (ids(page), page["recursion_depth"]) == (chain[3:0:-1], 3)
    assert ids(await list_relations(alice, room_id, encode(root), recurse="false")) == [chain[1]]
    aside = await alice.send(room_id, related("m.annotation", chain[1], key="x"), type="m.reaction")
    below = await alice.send(room_id, related("m.reference", aside))
    page = await list_relations(alice, room_id, f"{encode(root)}/m.reference", recurse="true")
    assert below not in ids(page)
    assert ids(page) == chain[3:0:-1]


async def test_requests_for_relations_that_are_not_well_formed(alice: User, room_id: str) -> None:
    parent = await alice.send(room_id, "parent")
    path = f"/_matrix/client/v1/rooms/{encode(room_id)}/relations/"
    for query in ({"dir": "x"}, {"limit": "0"}, {"limit": "many"}, {"from": "x"}, {"to": "x"}, {"recurse": "x"}):
        (await alice.request("GET", path + encode(parent), **query)).error(400, "M_INVALID_PARAM")
    (await alice.request("GET", path + "$unknown")).error(404, "M_NOT_FOUND")
    stranger = await alice.homeserver.register()
    (await stranger.request("GET", path + encode(parent))).error(404, "M_NOT_FOUND")
    (await alice.request("GET", path + encode(parent) + "/%00")).error(400, "M_INVALID_PARAM")
    threads = f"/_matrix/client/v1/rooms/{encode(room_id)}/threads"
    for query in ({"include": "x"}, {"limit": "0"}, {"from": "x"}):
        (await alice.request("GET", threads, **query)).error(400, "M_INVALID_PARAM")
    (await stranger.request("GET", threads)).error(403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    "relates_to",
    [
        {"rel_type": "r" * 300},
        {"rel_type": "nul\0nul"},
        {"rel_type": "m.thread", "event_id": "$" + "e" * 300},
        {"rel_type": "m.thread", "event_id": "$nul\0"},
        {"rel_type": "m.thread", "event_id": "no event ID"},
        {"rel_type": "", "event_id": "$e"},
        {"rel_type": 1},
        [],
    ],
)
async def test_relations_that_cannot_be_are_sent_and_ignored(alice: User, room_id: str, relates_to: Any) -> None:
    parent = await alice.send(room_id, "parent")
    if isinstance(relates_to, dict):
        relates_to = {"event_id": parent, **relates_to}
    await alice.send(room_id, {"msgtype": "m.text", "body": "x", "m.relates_to": relates_to})
    assert ids(await list_relations(alice, room_id, encode(parent))) == []


async def test_threads_are_listed_by_their_latest_event(alice: User, bob: User, room_id: str) -> None:
    roots = [await alice.send(room_id, f"root {n}") for n in range(3)]
    for root in (roots[0], roots[1], roots[2], roots[0]):
        await alice.send(room_id, related("m.thread", root))
    assert ids(await list_threads(bob, room_id)) == [roots[0], roots[2], roots[1]]
    page = await list_threads(bob, room_id, limit=2)
    assert ids(page) == [roots[0], roots[2]]
    assert page["chunk"][0]["unsigned"]["m.relations"]["m.thread"]["count"] == 2
    page = await list_threads(bob, room_id, **{"from": page["next_batch"], "limit": 2})
    assert (ids(page), "next_batch" in page) == ([roots[1]], False)
    assert ids(await list_threads(bob, room_id, include="participated")) == []
    of_bob = await bob.send(room_id, related("m.thread", roots[1]))
    assert ids(await list_threads(bob, room_id, include="participated")) == [roots[1]]
    assert ids(await list_threads(alice, room_id, include="participated")) == [roots[1], roots[0], roots[2]]
    await redact(bob, room_id, of_bob)
    assert ids(await list_threads(bob, room_id, include="participated")) == []
    assert ids(await list_threads(alice, room_id)) == [roots[0], roots[2], roots[1]]


async def test_the_root_of_an_ignored_user_is_shown_redacted(alice: User, bob: User, room_id: str) -> None:
    root = await bob.send(room_id, "of bob")
    await bob.send(room_id, edit(root, "edited by bob"))
    await alice.send(room_id, related("m.thread", root))
    only_bob = await alice.send(room_id, "of alice")
    await bob.send(room_id, related("m.thread", only_bob))
    await ignore(alice, bob)
    (shown,) = (await list_threads(alice, room_id))["chunk"]
    assert (shown["event_id"], shown["content"]) == (root, {})
    assert list(shown["unsigned"]["m.relations"]) == ["m.thread"]
    assert shown["unsigned"]["m.relations"]["m.thread"]["count"] == 1
    assert (await event_of(bob, room_id, root))["content"]["body"] == "of bob"


async def test_aggregations_hold_only_what_the_reader_may_see(alice: User, shared_homeserver: Homeserver) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    bob = await shared_homeserver.register()
    await bob.join(room_id)
    root = await alice.send(room_id, "root")
    first = await alice.send(room_id, related("m.thread", root))
    await alice.send(room_id, edit(root, "edited"))
    await bob.send(room_id, related("m.reference", root))
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    await alice.send(room_id, related("m.thread", root))
    await alice.send(room_id, edit(root, "edited again"))
    shown = await relations_of(bob, room_id, root)
    assert (shown["m.thread"]["count"], shown["m.thread"]["latest_event"]["event_id"]) == (1, first)
    assert shown["m.replace"]["content"]["m.new_content"]["body"] == "edited"
    assert len(shown["m.reference"]["chunk"]) == 1
    assert (await relations_of(alice, room_id, root))["m.thread"]["count"] == 2
    assert ids(await list_relations(bob, room_id, f"{encode(root)}/m.thread")) == [first]
    (thread,) = (await list_threads(bob, room_id))["chunk"]
    assert thread["unsigned"]["m.relations"]["m.thread"]["count"] == 1


async def test_aggregations_come_with_pages_and_limited_timelines(alice: User, bob: User, room_id: str) -> None:
    since = (await bob.sync())["next_batch"]
    parent = await alice.send(room_id, "parent")
    child = await alice.send(room_id, related("m.thread", parent))
    for _ in range(2):  # the second time from what the first has put aside
        page = (await bob.in_room("GET", room_id, "messages", dir="b", limit=5)).ok()
        found = {event["event_id"]: event["unsigned"].get("m.relations") for event in page["chunk"]}
        assert found[parent]["m.thread"]["latest_event"]["event_id"] == child
        assert found[child] is None
        limited = joined(await bob.sync(filter='{"room":{"timeline":{"limit":2}}}'), room_id)
        (shown, _) = limited["timeline"]["events"]
        thread = shown["unsigned"]["m.relations"]["m.thread"]
        assert (shown["event_id"], thread["latest_event"]["event_id"]) == (parent, child)
        assert "room_id" not in thread["latest_event"]
    whole = joined(await bob.sync(since), room_id)
    assert timeline_ids(whole) == [parent, child]
    assert not any("m.relations" in event["unsigned"] for event in whole["timeline"]["events"])
    federation = '{"event_format":"federation","room":{"timeline":{"limit":2}}}'
    assert timeline_ids(
        joined(await bob.sync(filter='{"event_fields":["event_id"],"room":{"timeline":{"limit":2}}}'), room_id)
    )
    assert len(joined(await bob.sync(filter=federation), room_id)["timeline"]["events"]) == 2


async def test_waiting_members_are_told_the_same_of_an_event_with_and_without_relations(
    alice: User, bob: User, room_id: str
) -> None:
    carol = await alice.homeserver.register()
    await carol.join(room_id)
    tokens = {user: (await user.sync())["next_batch"] for user in (bob, carol)}
    waiting = [asyncio.create_task(user.sync(since, timeout=10_000)) for user, since in tokens.items()]
    parent = await alice.send(room_id, "parent")
    told = await asyncio.gather(*waiting)
    assert [timeline_ids(joined(answer, room_id)) for answer in told] == [[parent], [parent]]
    child = await alice.send(room_id, edit(parent, "edited"))
    for user, since in tokens.items():
        assert timeline_ids(joined(await user.sync(since), room_id)) == [parent, child]


async def test_relations_outlive_a_restart(start_server: StartServer) -> None:
    async with start_server() as homeserver:
        alice = await homeserver.register("alice")
        room_id = await alice.create_room()
        root = await alice.send(room_id, "root")
        await alice.send(room_id, related("m.thread", root))
        replacement = await alice.send(room_id, edit(root, "edited"))
    async with start_server() as homeserver:
        alice.homeserver = homeserver
        found = await relations_of(alice, room_id, root)
        assert (found["m.thread"]["count"], found["m.replace"]["event_id"]) == (1, replacement)
        await redact(alice, room_id, replacement)
        assert "m.replace" not in await relations_of(alice, room_id, root)
    async with start_server() as homeserver:
        alice.homeserver = homeserver
        assert list(await relations_of(alice, room_id, root)) == ["m.thread"]
        assert len((await list_threads(alice, room_id))["chunk"]) == 1


async def test_a_relation_that_races_with_readers_is_seen_afterwards(alice: User, room_id: str) -> None:
    """What is put aside is never older than what was published: readers and writers run side by side."""
    root = await alice.send(room_id, "root")
    for count in range(1, 11):
        reading = [asyncio.create_task(relations_of(alice, room_id, root)) for _ in range(4)]
        await alice.send(room_id, related("m.thread", root))
        await asyncio.gather(*reading)
        assert (await relations_of(alice, room_id, root))["m.thread"]["count"] == count


async def test_relations_of_an_older_database_are_found_in_its_events(
    start_server: StartServer, database_url: str
) -> None:
    async with start_server() as homeserver:
        alice = await homeserver.register("alice")
        room_id = await alice.create_room()
        root = await alice.send(room_id, "root")
        await alice.send(room_id, {**related("m.thread", root), "body": "nul \0 and \\u0000"})
        await alice.send(room_id, edit(root, "edited"))
        await alice.send(room_id, related("m.replace", root))
        gone = await alice.send(room_id, related("m.reference", root))
        await redact(alice, room_id, gone)
        await alice.send(room_id, {"body": "x", "msgtype": "m.text", "m.relates_to": {"rel_type": 1, "event_id": root}})
    connection = await asyncpg.connect(database_url)
    query = "SELECT * FROM relations ORDER BY position"
    times = "SELECT position, origin_server_ts FROM events ORDER BY position"
    before = await connection.fetch(query), await connection.fetch(times)
    assert len(before[0]) == 2
    # As it was before the migration.
    await connection.execute("DROP TABLE relations; ALTER TABLE events DROP COLUMN origin_server_ts")
    await connection.execute("DELETE FROM migrations WHERE name LIKE '%relations%'")
    async with start_server() as homeserver:
        alice.homeserver = homeserver
        assert set(await relations_of(alice, room_id, root)) == {"m.thread", "m.replace"}
    assert (await connection.fetch(query), await connection.fetch(times)) == before
    await connection.close()
