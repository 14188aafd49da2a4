"""The rules for m.room.power_levels, https://spec.matrix.org/v1.19/rooms/v12/#authorisation-rules (rule 10)."""

from typing import Any

import pytest

from matrix.room_versions import RoomVersion
from tests.matrix.rooms import ALICE, ALL_VERSIONS, BOB, CAROL, CREATOR, Room, versions

pytestmark = pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda version: version.identifier)

LEVELS = ["users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"]


def allows(room: Room, content: dict[str, Any], sender: str = CREATOR) -> bool:
    return room.allows("m.room.power_levels", sender, content, "")


def allows_change(version: RoomVersion, old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether alice, who has 50, may change the levels from the old to the new ones."""
    room = Room(version)
    room.member(ALICE, "join")
    old = {"users": {ALICE: 50}, "state_default": 50, **old}
    room.set("m.room.power_levels", old)
    return allows(room, {"users": {ALICE: 50}, "state_default": 50, **new}, ALICE)


@pytest.mark.parametrize("key", LEVELS)
@pytest.mark.parametrize("value", ["50", 1.5, None, True, [], {}])
def test_single_levels_must_be_integers_from_version_10(version: RoomVersion, key: str, value: Any) -> None:
    assert allows(Room(version), {key: value}) is (version in versions(1, 9))
    assert allows(Room(version), {key: 50})


@pytest.mark.parametrize("key", ["events", "notifications"])
@pytest.mark.parametrize("value", [{"a": "50"}, {"a": None}, {"a": 1, "b": 1.5}, {"a": False}, [], "50", None])
def test_maps_of_levels_must_hold_integers_from_version_10(version: RoomVersion, key: str, value: Any) -> None:
    assert allows(Room(version), {key: value}) is (version in versions(1, 9))
    assert allows(Room(version), {key: {"a": 50}})


@pytest.mark.parametrize(
    "users", [[], None, "x", {"alice": 1}, {ALICE: None}, {ALICE: []}, {ALICE: "1.5"}, {ALICE: True}]
)
def test_users_must_be_user_ids_with_levels(version: RoomVersion, users: Any) -> None:
    assert not allows(Room(version), {"users": users})
    assert allows(Room(version), {"users": {ALICE: 1}})
    assert allows(Room(version), {})


def test_levels_of_users_may_be_strings_until_version_9_and_floats_until_version_5(version: RoomVersion) -> None:
    assert allows(Room(version), {"users": {ALICE: " +50 "}}) is (version in versions(1, 9))
    assert allows(Room(version), {"users": {ALICE: 50.5}}) is (version in versions(1, 5))


def test_creators_are_not_among_the_users_from_version_12(version: RoomVersion) -> None:
    room = Room(version, additional_creators=[BOB])
    assert allows(room, {"users": {CREATOR: 100}}) is (version in versions(1, 11))
    assert allows(room, {"users": {BOB: 100}}) is (version in versions(1, 11))
    assert allows(room, {"users": {ALICE: 100}})


def test_the_first_event_may_set_any_level(version: RoomVersion) -> None:
    assert allows(Room(version), {"users": {ALICE: 1000}, "ban": 1000, "events": {"a": 1000}})


@pytest.mark.parametrize("key", [key for key in LEVELS if key != "state_default"])
def test_single_levels_are_altered_up_to_the_senders_own(version: RoomVersion, key: str) -> None:
    assert allows_change(version, {key: 50}, {key: 49})
    assert allows_change(version, {key: 49}, {key: 50})
    assert allows_change(version, {}, {key: 50})
    assert allows_change(version, {key: 50}, {})
    assert allows_change(version, {key: 51}, {key: 51})
    assert not allows_change(version, {key: 51}, {key: 50})
    assert not allows_change(version, {key: 50}, {key: 51})
    assert not allows_change(version, {}, {key: 51})
    assert not allows_change(version, {key: 51}, {})


@pytest.mark.parametrize(("key", "since"), [("events", 1), ("notifications", 6)])
def test_entries_are_altered_up_to_the_senders_own(version: RoomVersion, key: str, since: int) -> None:
    is_free = version not in versions(since)
    assert allows_change(version, {key: {"a": 50}}, {key: {"a": 49}})
    assert allows_change(version, {}, {key: {"a": 50}})
    assert allows_change(version, {key: {"a": 50}}, {})
    assert allows_change(version, {key: {"a": 51}}, {key: {"a": 51}})
    assert allows_change(version, {key: {"a": 51}}, {key: {"a": 50}}) is is_free
    assert allows_change(version, {key: {"a": 50}}, {key: {"a": 51}}) is is_free
    assert allows_change(version, {}, {key: {"a": 51}}) is is_free
    assert allows_change(version, {key: {"a": 51}}, {}) is is_free


def test_levels_of_users_with_as_much_power_stay(version: RoomVersion) -> None:
    def allows_users(old: dict[str, int], new: dict[str, int]) -> bool:
        return allows_change(version, {"users": {ALICE: 50, **old}}, {"users": {ALICE: 50, **new}})

    assert allows_users({BOB: 49}, {BOB: 50})
    assert allows_users({BOB: 49}, {})
    assert allows_users({}, {BOB: 50})
    assert allows_users({BOB: 50, CAROL: 51}, {BOB: 50, CAROL: 51})
    assert not allows_users({BOB: 50}, {BOB: 49})
    assert not allows_users({BOB: 50}, {})
    assert not allows_users({BOB: 49}, {BOB: 51})
    assert not allows_users({}, {BOB: 51})


def test_senders_lower_but_do_not_raise_themselves(version: RoomVersion) -> None:
    assert allows_change(version, {}, {"users": {ALICE: 0}})
    assert allows_change(version, {}, {"users": {}})
    assert not allows_change(version, {}, {"users": {ALICE: 51}})


def test_another_form_of_the_same_level_is_no_change(version: RoomVersion) -> None:
    assert allows_change(version, {"ban": "51"}, {"ban": 51}) is (version in versions(1, 9))
    assert allows_change(version, {"ban": 51.5}, {"ban": 51}) is (version in versions(1, 5))
    assert not allows_change(version, {"ban": "51"}, {"ban": "50"})


def test_creators_change_any_level_from_version_12(version: RoomVersion) -> None:
    room = Room(version)
    room.levels({ALICE: 2**53 - 1}, ban=101)
    unchanged = {} if version.creators_have_infinite_power else {CREATOR: 100}
    assert allows(room, {"users": unchanged}) is (version in versions(12))


def test_the_level_for_the_event_type_itself_is_needed(version: RoomVersion) -> None:
    room = Room(version)
    room.member(ALICE, "join")
    room.levels({ALICE: 49})
    content = room.state["m.room.power_levels", ""].content
    assert not allows(room, content, ALICE)
    room.levels({ALICE: 50})
    assert allows(room, room.state["m.room.power_levels", ""].content, ALICE)
