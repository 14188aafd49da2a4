"""https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels"""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.power_levels import PowerLevels, get_creators, parse_level
from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from tests.matrix.rooms import ALICE, ALL_VERSIONS, BOB, CREATOR, Room, versions
from tests.matrix.test_canonical_json import JSON_VALUES


def levels_of(room: Room) -> PowerLevels:
    return PowerLevels.of(room.room_version, room.create, room.state.get(("m.room.power_levels", "")))


@pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda version: version.identifier)
def test_defaults_without_the_event(version: RoomVersion) -> None:
    levels = levels_of(Room(version))
    assert levels.user(CREATOR) == (100 if version in versions(1, 11) else math.inf)
    assert levels.user(ALICE) == 0
    assert (levels.ban, levels.kick, levels.redact, levels.invite) == (50, 50, 50, 0)
    assert (levels.event("m.room.name", True), levels.event("m.room.message", False)) == (50, 0)
    assert levels.notification("room") == 50


@pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda version: version.identifier)
def test_the_event_overrides_the_defaults(version: RoomVersion) -> None:
    room = Room(version)
    room.set(
        "m.room.power_levels",
        {
            "users": {ALICE: 7},
            "users_default": 1,
            "events": {"m.room.name": 2, "m.room.message": 3},
            "events_default": 4,
            "state_default": 5,
            "ban": 6,
            "kick": 8,
            "redact": 9,
            "invite": 10,
            "notifications": {"room": 11},
        },
    )
    levels = levels_of(room)
    assert (levels.user(ALICE), levels.user(BOB)) == (7, 1)
    assert levels.user(CREATOR) == (1 if version in versions(1, 11) else math.inf)
    assert (levels.event("m.room.name", True), levels.event("m.room.name", False)) == (2, 2)
    assert (levels.event("other", True), levels.event("other", False)) == (5, 4)
    assert (levels.ban, levels.kick, levels.redact, levels.invite) == (6, 8, 9, 10)
    assert (levels.users_default, levels.events_default, levels.state_default) == (1, 4, 5)
    assert (levels.notification("room"), levels.notification("other")) == (11, 50)


def test_additional_creators_have_infinite_power_from_version_12() -> None:
    for version in versions(11):
        room = Room(version, additional_creators=[ALICE, 1, None])
        is_creator = version in versions(12)
        assert get_creators(version, room.create) == ({CREATOR, ALICE} if is_creator else {CREATOR})
        assert (levels_of(room).user(ALICE) == math.inf) is is_creator


def test_the_creator_is_named_by_the_content_until_version_10() -> None:
    for version in ALL_VERSIONS:
        expected = BOB if version in versions(1, 10) else CREATOR
        assert get_creators(version, Room(version, creator=BOB).create) == {expected}
    assert get_creators(ROOM_VERSIONS["1"], Room(ROOM_VERSIONS["1"], creator=["junk"]).create) == set()


@pytest.mark.parametrize(
    ("value", "level", "until"),
    [
        (50, 50, 12),
        (-5, -5, 12),
        ("100", 100, 9),
        ("000100", 100, 9),
        ("+100", 100, 9),
        ("-100", -100, 9),
        (" \t100 \n", 100, 9),
        (" -00100 ", -100, 9),
        (50.57, 50, 5),
        (5.114698e4, 51146, 5),
        (-1.9, -1, 5),
        ("1.5", None, 0),
        ("1_000", None, 0),
        ("+-1", None, 0),
        ("- 1", None, 0),
        ("", None, 0),
        ("٣", None, 0),
        ("9" * 5000, None, 0),
        (math.inf, None, 0),
        (math.nan, None, 0),
        (True, None, 0),
        (None, None, 0),
        ([1], None, 0),
        ({}, None, 0),
    ],
)
def test_levels_in_other_forms(value: Any, level: int | None, until: int) -> None:
    for version in ALL_VERSIONS:
        assert parse_level(value, version) == (level if int(version.identifier) <= until else None)


CONTENT = st.dictionaries(
    st.sampled_from(["users", "events", "notifications", "ban", "users_default", "state_default", "invite"]),
    JSON_VALUES | st.dictionaries(st.sampled_from([ALICE, CREATOR, "m.room.name", "room"]), JSON_VALUES),
)


@given(CONTENT, CONTENT, st.sampled_from(ALL_VERSIONS))
def test_odd_content_of_stored_events_counts_as_absent(content: Any, create: Any, version: RoomVersion) -> None:
    room = Room(version, **create)
    room.set("m.room.power_levels", content)
    levels = levels_of(room)
    found = [levels.user(ALICE), levels.event("m.room.name", True), levels.notification("room"), levels.ban]
    assert all(level == math.inf or type(level) is int for level in found)
    if not isinstance(content.get("ban", 0), int | float | str):
        assert levels.ban == 50
