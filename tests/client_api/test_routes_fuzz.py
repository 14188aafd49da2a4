"""Structured nonsense for every route: an answer in JSON, never the server's own failure, and nothing half done.

Driven by the table of routes, so a new route is tested from the day that it is there.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeserver.client_api.routes import ROUTES
from homeserver.http.request import Route
from tests.client import Answer, Homeserver, User
from tests.client_api.support import encode

# These end the session that the others use; their own tests are with the accounts'.
ENDS_SESSIONS = ("logout", "logout_all", "deactivateAccount", "deleteDevice", "deleteDevices", "changePassword")

JUNK_TEXT = st.one_of(
    st.sampled_from(
        ("", " ", ".", "..", "*", "%", "\0", "a" * 256, "é" * 300, "null", "-1", "0", "1e9", "💥", "'\"\\")
    ),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
)
EVENT_TYPES = (
    "m.room.message",
    "m.room.member",
    "m.room.create",
    "m.room.power_levels",
    "m.room.redaction",
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.canonical_alias",
    "m.room.third_party_invite",
    "m.room.encryption",
    "org.example.custom",
)
BACKED_UP_KEY = {"first_message_index": 0, "forwarded_count": 0, "is_verified": False, "session_data": {}}
# Valid values, by name; the ones in braces are filled in from the world that the test has made.
VALUES: dict[str, tuple[Any, ...]] = {
    "roomId": ("{room}", "{other_room}", "!unknown:weft.test"),
    "room_id": ("{room}", "{other_room}", "!unknown:weft.test"),
    "roomIdOrAlias": ("{room}", "{other_room}", "#nobody:weft.test"),
    "roomAlias": ("#nobody:weft.test", "#made:weft.test"),
    "eventId": ("{event}", "$unknown", "$" + "A" * 43),
    "userId": ("{user}", "{other_user}", "@nobody:elsewhere.test"),
    "user_id": ("{user}", "{other_user}", "@nobody:elsewhere.test"),
    "eventType": EVENT_TYPES,
    "type": (*EVENT_TYPES, "m.tag", "m.fully_read", "m.push_rules", "m.login.password", "m.login.dummy"),
    "stateKey": ("", "{user}", "{other_user}", "key"),
    "state_key": ("", "{user}", "{other_user}", "key"),
    "txnId": ("1", "2"),
    "keyName": ("displayname", "avatar_url", "m.tz", "org.example.x"),
    "receiptType": ("m.read", "m.read.private", "m.fully_read"),
    "filterId": ("0", "1"),
    "deviceId": ("DEVICE",),
    "dir": ("b", "f"),
    "limit": ("0", "1", "1000", 1),
    "from": ("s0", "s1", "s99999999", "s-1"),
    "to": ("s0", "s1", "s99999999", "s-1"),
    "at": ("s0", "s1", "s99999999", "s-1"),
    "since": ("s0", "s1", "s99999999", "s-1"),
    "timeout": ("0", 0, 5),
    "filter": ("0", "{}", '{"room":{"timeline":{"limit":1}}}', '{"types":["m.*"]}'),
    "format": ("content", "event"),
    "membership": ("join", "leave", "invite", "ban", "knock"),
    "not_membership": ("join", "leave"),
    "full_state": ("true", "false"),
    "visibility": ("public", "private"),
    "preset": ("private_chat", "public_chat", "trusted_private_chat"),
    "room_version": ("1", "6", "11", "12"),
    "room_alias_name": ("made", "other"),
    "invite": (["{other_user}"], ["{user}"], ["@nobody:weft.test"]),
    "initial_state": ([{"type": "m.room.name", "content": {"name": "x"}}], [{"type": "m.room.create", "content": {}}]),
    "creation_content": ({"m.federate": False}, {"additional_creators": ["{other_user}"]}, {"room_version": "1"}),
    "power_level_content_override": ({"users": {"{user}": 100}}, {"ban": 101}, {"events": {"a": 1}}),
    "reason": ("because",),
    "presence": ("online", "unavailable", "offline"),
    "status_msg": ("busy", None),
    "tag": ("m.favourite", "u.x"),
    "order": (0, 0.5, 1),
    "tags": ({"u.x": {"order": 0.5}}, {"u.x": {"order": "1"}}, {"u.x": 1}),
    "search_term": ("user", "%"),
    "generic_search_term": ("room", ""),
    "room_types": ([None], ["m.space"]),
    "new_version": ("1", "6", "11", "12"),
    "additional_creators": (["{other_user}"], ["x"]),
    "suggested_only": ("true", "false"),
    "max_depth": ("0", "1"),
    "typing": (True, False),
    "thread_id": ("main", "{event}"),
    "m.read": ("{event}", "$unknown"),
    "m.fully_read": ("{event}",),
    "redacts": ("{event}", "$unknown"),
    "join_rule": ("public", "invite", "knock", "restricted", "knock_restricted"),
    "allow": (
        [{"type": "m.room_membership", "room_id": "{other_room}"}],
        [{"type": "m.room_membership", "room_id": []}],
    ),
    "history_visibility": ("joined", "shared", "world_readable"),
    "users": ({"{user}": 100}, {"{user}": "100"}, {"{user}": 100, "nobody": 1}),
    "alias": ("#nobody:weft.test", "#made:weft.test"),
    "alt_aliases": (["#made:weft.test"], [1]),
    "displayname": ("Alice", None),
    "avatar_url": ("mxc://weft.test/x",),
    "m.relates_to": ({"rel_type": "m.thread", "event_id": "{event}"}, {"rel_type": "m.annotation", "event_id": 1}),
    "m.mentions": ({"room": True}, {"user_ids": ["{other_user}"]}, {"user_ids": "x"}),
    "third_party_invite": ({"signed": {"token": "x"}}, {}),
    "version": ("1", "2", "0", 1),
    "algorithm": ("m.megolm_backup.v1.curve25519-aes-sha2", "other"),
    "auth_data": ({"public_key": "x"}, {}),
    "sessionId": ("session",),
    "sessions": ({"session": BACKED_UP_KEY}, {"session": {}}),
    "rooms": ({"{room}": {"sessions": {"session": BACKED_UP_KEY}}}, {"{room}": {}}),
    "first_message_index": (0, 1),
    "forwarded_count": (0, 1),
    "is_verified": (True, False),
    "session_data": ({"ciphertext": "x"},),
    "device_keys": ({"{user}": []}, {"{other_user}": ["DEVICE"]}, {"user_id": "{user}", "device_id": "DEVICE"}),
    "one_time_keys": ({"{user}": {"DEVICE": "signed_curve25519"}}, {"curve25519:A": "x"}, {"curve25519": {}}),
    "fallback_keys": ({"curve25519:A": "x"}, {"curve25519:A": {"key": "x", "signatures": {}}}),
    "messages": ({"{user}": {"*": {}}}, {"{other_user}": {"DEVICE": {"n": 1}}}, {"@nobody:elsewhere.test": {"*": {}}}),
    "master_key": ({"user_id": "{user}", "usage": ["master"], "keys": {"ed25519:A": "A"}},),
    "device_id": ("DEVICE", "OTHER"),
    "device_data": ({"algorithm": "x"}, {}),
    "next_batch": ("d0", "d1", "x"),
    "auth": ({"type": "m.login.dummy"}, {"type": "m.login.password"}, {"session": "x"}),
    "identifier": ({"type": "m.id.user", "user": "{user}"},),
    "password": ("pass word",),
    "username": ("someone",),
    "serverName": ("weft.test",),
    "mediaId": ("unknown", "A" * 24),
    "width": ("32", "0", "-1"),
    "height": ("32", "99999999999"),
    "method": ("crop", "scale"),
    "timeout_ms": ("0",),
    "url": ("http://127.0.0.1/", "ftp://a/"),
}
QUERY_NAMES = (
    *("dir", "limit", "from", "to", "at", "since", "timeout", "filter", "format", "membership", "not_membership"),
    *("suggested_only", "max_depth", "user_id", "server"),
    *("width", "height", "method", "timeout_ms", "url"),
    *("full_state", "set_presence", "kind", "username", "token", "server_name", "via"),
)
NUMBERS = st.one_of(
    st.sampled_from((0, -1, 1, 1.5, -0.0, 2**53, -(2**53), 2**63, 2**64, 10**30, 1e300)), st.integers(), st.booleans()
)
JUNK_JSON = st.recursive(
    st.none() | NUMBERS | JUNK_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(JUNK_TEXT, inner, max_size=3),
    max_leaves=6,
)


def value_of(name: str) -> st.SearchStrategy[Any]:
    """Mostly a value that fits the name, sometimes anything."""
    fitting = st.sampled_from(VALUES.get(name, ("x",)))
    return st.one_of(fitting, fitting, fitting, JUNK_JSON)


BODIES = st.one_of(
    st.lists(st.sampled_from(sorted(VALUES)), max_size=6, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: value_of(name) for name in names})
    ),
    st.dictionaries(JUNK_TEXT, JUNK_JSON, max_size=4),
    JUNK_JSON,
)


class World:
    """A user in two rooms, with whom nonsense is tried, and a witness who sees whether anything came of it."""

    def __init__(self, user: User, witness: User, room_id: str, other_room_id: str, event_id: str) -> None:
        self.user = user
        self.witness = witness
        self.room_id = room_id
        self.other_room_id = other_room_id
        self.names = {
            "{room}": room_id,
            "{other_room}": other_room_id,
            "{event}": event_id,
            "{user}": user.user_id,
            "{other_user}": witness.user_id,
        }

    def fill(self, value: Any) -> Any:
        """The value with the names in braces replaced."""
        if isinstance(value, str):
            return self.names.get(value, value)
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if isinstance(value, dict):
            return {self.fill(key): self.fill(item) for key, item in value.items()}
        return value

    async def look(self) -> list[Any]:
        """What the rooms hold: their states and the ends of their timelines, as far as the witness may see them."""
        seen: list[Any] = []
        for room_id in (self.room_id, self.other_room_id):
            state = await self.witness.in_room("GET", room_id, "state")
            page = await self.witness.in_room("GET", room_id, "messages", dir="b", limit=3)
            events = [*state.json, *page.json["chunk"]] if state.status == page.status == 200 else []
            seen.append([(event["event_id"], event["content"]) for event in events])
        return seen


async def make_world(homeserver: Homeserver) -> World:
    user, witness = await homeserver.register(), await homeserver.register()
    room_id = await user.create_room(preset="public_chat", room_version="11")
    other_room_id = await witness.create_room(preset="public_chat")
    await witness.join(room_id)
    (
        await user.in_room("PUT", room_id, "state/m.room.history_visibility/", {"history_visibility": "world_readable"})
    ).ok()
    other = {"history_visibility": "world_readable"}
    (await witness.in_room("PUT", other_room_id, "state/m.room.history_visibility/", other)).ok()
    return World(user, witness, room_id, other_room_id, await user.send(room_id, "to be meddled with"))


def check_answer(answer: Answer, method: str, *, asks_others: bool = False) -> None:
    """No failure of the server's own; an error is JSON with a code."""
    assert answer.status < 500 or (asks_others and answer.status == 502), answer.json
    if answer.status >= 400 and method != "HEAD":
        assert isinstance(answer.json, dict), answer.json
        if "flows" not in answer.json:  # user-interactive authentication goes on
            assert re.fullmatch(r"M_[A-Z_]+", answer.json["errcode"])
            assert isinstance(answer.json["error"], str)


ROUTES_TO_TRY = [route for route in ROUTES if route.name not in ENDS_SESSIONS]


@pytest.fixture
async def world(shared_homeserver: Homeserver) -> World:
    return await make_world(shared_homeserver)


@pytest.mark.parametrize("route", ROUTES_TO_TRY, ids=lambda route: f"{route.method} {route.path}")
@settings(max_examples=6, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
async def test_nonsense_gets_an_error_and_changes_nothing(world: World, route: Route, data: st.DataObject) -> None:
    target = draw_target(world, route, data)
    body: bytes | None = None
    if route.method in ("PUT", "POST"):
        encoded = dump(world.fill(data.draw(BODIES, label="body")))
        body = data.draw(st.one_of(st.just(encoded), st.just(encoded), st.binary(max_size=20)), label="raw")
    before = await world.look()
    answer = await world.user.request(route.method, target, data=body)
    check_answer(answer, route.method, asks_others="{serverName}" in route.path)
    if answer.status >= 400 or route.method == "GET":
        assert await world.look() == before, (answer.status, answer.json)


def draw_target(world: World, route: Route, data: st.DataObject) -> str:
    """A path of the route and a query."""
    target = route.path
    for name in re.findall(r"{(\w+)}", route.path):
        value = world.fill(data.draw(value_of(name), label=name))
        target = target.replace("{" + name + "}", encode(str(value)))
    query = []
    for name in data.draw(st.lists(st.sampled_from(QUERY_NAMES), max_size=4, unique=True), label="query"):
        value = str(world.fill(data.draw(value_of(name), label=name)))
        if not (name == "timeout" and value.isdigit() and len(value) > 1):  # the test does not wait
            query.append(f"{name}={encode(value)}")
    return f"{target}?{'&'.join(query)}"


def dump(value: Any) -> bytes:
    """JSON, also of integers that the C encoder refuses."""
    return json.dumps(value, ensure_ascii=False).encode()
