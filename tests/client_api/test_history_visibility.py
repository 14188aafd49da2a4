"""Who sees what of a room's past: https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility"""

from __future__ import annotations

import pytest

from tests.client import Homeserver, User
from tests.client_api.support import encode, joined, page_through, timeline_ids

VISIBILITIES = ("joined", "invited", "shared", "world_readable")


class Story:
    """A room with a message in each chapter of a guest's stay: before the invitation, invited, joined, and after."""

    def __init__(self, host: User, guest: User, stranger: User, room_id: str) -> None:
        self.host, self.guest, self.stranger, self.room_id = host, guest, stranger, room_id
        self.messages: dict[str, str] = {}

    async def say(self, chapter: str) -> None:
        self.messages[chapter] = await self.host.send(self.room_id, chapter)

    async def seen_by(self, user: User) -> dict[str, set[str]]:
        """The chapters that a user sees, by each way of looking."""
        chapters = {event_id: chapter for chapter, event_id in self.messages.items()}
        ways: dict[str, set[str]] = {"event": set(), "forwards": set(), "backwards": set()}
        for event_id, chapter in chapters.items():
            if (await user.in_room("GET", self.room_id, f"event/{encode(event_id)}")).status == 200:
                ways["event"].add(chapter)
        for way, direction in (("forwards", "f"), ("backwards", "b")):
            if (await user.in_room("GET", self.room_id, "messages", dir=direction)).status == 200:
                events = await page_through(user, self.room_id, direction, limit=3)
                ways[way] = {chapters[event["event_id"]] for event in events if event["event_id"] in chapters}
        sync = await user.sync(filter='{"room":{"include_leave":true,"timeline":{"limit":100}}}')
        part = joined(sync, self.room_id) or sync["rooms"].get("leave", {}).get(self.room_id, {})
        if part:
            ways["sync"] = {chapters[event_id] for event_id in timeline_ids(part) if event_id in chapters}
        return ways


async def tell(homeserver: Homeserver, visibility: str, *, leaves: bool) -> Story:
    host, guest, stranger = [await homeserver.register() for _ in range(3)]
    setting = {"type": "m.room.history_visibility", "content": {"history_visibility": visibility}}
    room_id = await host.create_room(preset="private_chat", initial_state=[setting])
    story = Story(host, guest, stranger, room_id)
    await story.say("before")
    (await host.in_room("POST", room_id, "invite", {"user_id": guest.user_id})).ok()
    await story.say("invited")
    await guest.join(room_id)
    await story.say("joined")
    if leaves:
        (await guest.in_room("POST", room_id, "leave", {})).ok()
        await story.say("after")
    return story


SEEN_BY_MEMBERS = {
    "joined": {"joined"},
    "invited": {"invited", "joined"},
    "shared": {"before", "invited", "joined"},
    "world_readable": {"before", "invited", "joined"},
}


@pytest.mark.parametrize("visibility", VISIBILITIES)
async def test_what_a_member_sees(shared_homeserver: Homeserver, visibility: str) -> None:
    story = await tell(shared_homeserver, visibility, leaves=False)
    for way, seen in (await story.seen_by(story.guest)).items():
        assert seen == SEEN_BY_MEMBERS[visibility], way
    for way, seen in (await story.seen_by(story.host)).items():
        assert seen == {"before", "invited", "joined"}, way


@pytest.mark.parametrize("visibility", VISIBILITIES)
async def test_what_a_former_member_sees(shared_homeserver: Homeserver, visibility: str) -> None:
    story = await tell(shared_homeserver, visibility, leaves=True)
    expected = SEEN_BY_MEMBERS[visibility]
    for way, seen in (await story.seen_by(story.guest)).items():
        if way != "sync" and visibility == "world_readable":
            assert seen == {*expected, "after"}, way
        else:
            assert seen == expected, way


@pytest.mark.parametrize("visibility", VISIBILITIES)
async def test_what_a_stranger_sees(shared_homeserver: Homeserver, visibility: str) -> None:
    story = await tell(shared_homeserver, visibility, leaves=True)
    everything = {"before", "invited", "joined", "after"}
    for way, seen in (await story.seen_by(story.stranger)).items():
        assert seen == (everything if visibility == "world_readable" else set()), way
    for rest in ("state", "members", "messages?dir=b", "state/m.room.create/", "aliases"):
        answer = await story.stranger.in_room("GET", story.room_id, rest)
        if visibility == "world_readable":
            answer.ok()
        else:
            answer.error(403, "M_FORBIDDEN")
    (await story.stranger.in_room("GET", story.room_id, "joined_members")).error(403, "M_FORBIDDEN")


@pytest.mark.parametrize("visibility", ["joined", "invited", "shared"])
async def test_what_an_invited_user_sees(shared_homeserver: Homeserver, visibility: str) -> None:
    host, guest = await shared_homeserver.register(), await shared_homeserver.register()
    setting = {"type": "m.room.history_visibility", "content": {"history_visibility": visibility}}
    room_id = await host.create_room(preset="private_chat", initial_state=[setting], invite=[guest.user_id])
    event_id = await host.send(room_id, "x")
    (await guest.in_room("GET", room_id, f"event/{encode(event_id)}")).error(404, "M_NOT_FOUND")
    (await guest.in_room("GET", room_id, "messages", dir="b")).error(403, "M_FORBIDDEN")
    (await guest.in_room("GET", room_id, "state")).error(403, "M_FORBIDDEN")


async def test_a_change_of_visibility_counts_from_then_on(shared_homeserver: Homeserver) -> None:
    host, guest = await shared_homeserver.register(), await shared_homeserver.register()
    room_id = await host.create_room(preset="public_chat")
    shared = await host.send(room_id, "shared")
    await host.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    joined_only = await host.send(room_id, "joined")
    await host.set_state(room_id, "m.room.history_visibility", {"history_visibility": "shared"})
    shared_again = await host.send(room_id, "shared again")
    await guest.join(room_id)
    for direction in ("f", "b"):
        ids = {event["event_id"] for event in await page_through(guest, room_id, direction, limit=2)}
        assert {shared, shared_again} <= ids
        assert joined_only not in ids
    (await guest.in_room("GET", room_id, f"event/{encode(joined_only)}")).error(404, "M_NOT_FOUND")


async def test_who_has_left_sees_the_state_of_then(shared_homeserver: Homeserver) -> None:
    host, guest = await shared_homeserver.register(), await shared_homeserver.register()
    room_id = await host.create_room(preset="public_chat", topic="then")
    await guest.join(room_id)
    (await guest.in_room("POST", room_id, "leave", {})).ok()
    await host.set_state(room_id, "m.room.topic", {"topic": "now"})
    await host.set_state(room_id, "org.example.new", {})
    assert (await guest.in_room("GET", room_id, "state/m.room.topic/")).ok()["topic"] == "then"
    (await guest.in_room("GET", room_id, "state/org.example.new/")).error(404, "M_NOT_FOUND")
    state = {event["type"]: event["content"] for event in (await guest.in_room("GET", room_id, "state")).ok()}
    assert state["m.room.topic"]["topic"] == "then"
    assert "org.example.new" not in state


async def test_members_before_ones_time_are_hidden_where_history_is(shared_homeserver: Homeserver) -> None:
    host, early, guest = [await shared_homeserver.register() for _ in range(3)]
    setting = {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
    room_id = await host.create_room(preset="public_chat", initial_state=[setting])
    await early.join(room_id)
    then = (await host.sync())["next_batch"]
    (await early.in_room("POST", room_id, "leave", {})).ok()
    await guest.join(room_id)
    chunk = await guest.in_room("GET", room_id, "members", at=then, membership="join")
    memberships = {event["state_key"] for event in chunk.json.get("chunk", [])}
    assert early.user_id not in memberships
