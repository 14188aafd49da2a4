"""Which events stand in `auth_events`, https://spec.matrix.org/v1.19/server-server-api/#auth-events-selection."""

from typing import Any

import pytest

from matrix.event_auth import auth_event_keys, check_auth_event_selection
from matrix.pdu import Pdu
from matrix.room_versions import RoomVersion
from tests.matrix.rooms import ALICE, ALL_VERSIONS, BOB, CAROL, CREATOR, Room, versions

pytestmark = pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda version: version.identifier)

CREATE = ("m.room.create", "")
POWER_LEVELS = ("m.room.power_levels", "")
JOIN_RULES = ("m.room.join_rules", "")


def member(user_id: str) -> tuple[str, str]:
    return ("m.room.member", user_id)


def select(
    version: RoomVersion, state_key: str | None, content: dict[str, Any], type: str = "m.room.member"
) -> set[Any]:
    """What an event by alice has besides those that all of its version have."""
    keys = auth_event_keys(version, type, ALICE, state_key, content)
    assert len(keys) == len(set(keys))
    common = {POWER_LEVELS, member(ALICE)} | ({CREATE} if version in versions(1, 11) else set())
    assert set(keys) >= common
    return set(keys) - common


def test_a_create_event_has_no_auth_events(version: RoomVersion) -> None:
    assert auth_event_keys(version, "m.room.create", ALICE, "", {}) == []


@pytest.mark.parametrize("content", [{}, {"membership": "join", "third_party_invite": {"signed": {"token": "t"}}}])
def test_other_types_have_create_power_levels_and_sender(version: RoomVersion, content: dict[str, Any]) -> None:
    assert select(version, None, content, "m.room.message") == set()
    assert select(version, BOB, content, "org.example") == set()


@pytest.mark.parametrize("membership", ["leave", "ban", "org.example", None, ["join"], {}])
def test_memberships_have_the_target_too(version: RoomVersion, membership: Any) -> None:
    assert select(version, BOB, {"membership": membership}) == {member(BOB)}
    assert select(version, ALICE, {"membership": membership}) == set()
    assert select(version, None, {"membership": membership}) == set()


@pytest.mark.parametrize("membership", ["join", "invite", "knock"])
def test_some_memberships_have_the_join_rules_too(version: RoomVersion, membership: str) -> None:
    assert select(version, BOB, {"membership": membership}) == {member(BOB), JOIN_RULES}


@pytest.mark.parametrize(
    ("third_party_invite", "expected"),
    [
        ({"signed": {"token": "t"}}, {("m.room.third_party_invite", "t")}),
        ({"signed": {"token": 1}}, set()),
        ({"signed": []}, set()),
        ({}, set()),
        (None, set()),
    ],
)
def test_invites_have_the_third_party_invite_of_their_token(
    version: RoomVersion, third_party_invite: Any, expected: set[Any]
) -> None:
    content = {"membership": "invite", "third_party_invite": third_party_invite}
    assert select(version, BOB, content) == {member(BOB), JOIN_RULES} | expected
    assert select(version, BOB, {**content, "membership": "leave"}) == {member(BOB)}


def test_joins_have_the_user_who_authorised_them_from_version_8(version: RoomVersion) -> None:
    expected = {member(CAROL)} if version in versions(8) else set()
    content = {"membership": "join", "join_authorised_via_users_server": CAROL}
    assert select(version, ALICE, content) == {JOIN_RULES} | expected
    assert select(version, ALICE, {**content, "join_authorised_via_users_server": ALICE}) == {JOIN_RULES}
    assert select(version, ALICE, {**content, "join_authorised_via_users_server": [CAROL]}) == {JOIN_RULES}
    assert select(version, ALICE, {**content, "membership": "leave"}) == set()


def check(room: Room, auth_events: list[Pdu], rejected: tuple[str, ...] = (), pdu: Pdu | None = None) -> bool:
    """Whether a message by the creator, or the given event, may have these auth_events besides m.room.create."""
    if room.room_version in versions(1, 11):
        auth_events = [room.create, *auth_events]
    return check_auth_event_selection(pdu or room.event("m.room.message", CREATOR), auth_events, rejected) is None


def test_the_selected_events_are_allowed(version: RoomVersion) -> None:
    room = Room(version)
    sender = room.state[member(CREATOR)]
    assert check(room, [sender])
    assert check(room, [sender, room.levels()])
    assert check_auth_event_selection(room.create, []) is None


def test_the_create_event_is_required_until_version_11_and_forbidden_from_version_12(version: RoomVersion) -> None:
    room = Room(version)
    message, sender = room.event("m.room.message", CREATOR), room.state[member(CREATOR)]
    is_required = version in versions(1, 11)
    assert (check_auth_event_selection(message, [sender]) is None) is not is_required
    assert (check_auth_event_selection(message, [sender, room.create]) is None) is is_required


def test_no_key_may_have_two_entries(version: RoomVersion) -> None:
    room = Room(version)
    sender = room.state[member(CREATOR)]
    assert not check(room, [sender, sender])
    assert not check(room, [sender, room.member(CREATOR, "join")])


def test_only_selected_events_are_allowed(version: RoomVersion) -> None:
    room = Room(version)
    assert not check(room, [room.member(ALICE, "join")])
    assert not check(room, [room.set("m.room.join_rules", {"join_rule": "public"})])
    assert not check(room, [room.event("m.room.power_levels", CREATOR, {})])
    invite = room.event("m.room.member", CREATOR, {"membership": "invite"}, ALICE)
    assert check(room, list(room.state.values())[1:], pdu=invite)


def test_rejected_entries_are_not_allowed(version: RoomVersion) -> None:
    room = Room(version)
    sender = room.state[member(CREATOR)]
    assert check(room, [sender], ("$other",))
    assert not check(room, [sender], (sender.event_id,))


def test_entries_of_other_rooms_are_not_allowed(version: RoomVersion) -> None:
    room = Room(version)
    content = {"membership": "join"}
    stranger = room.event("m.room.member", CREATOR, content, CREATOR, room_id="!other:example.org")
    assert not check(room, [stranger])
