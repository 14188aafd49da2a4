"""The rules on events other than memberships and power levels, and the order of the rules.

https://spec.matrix.org/v1.19/rooms/v12/#authorisation-rules
"""

from typing import Any

import pytest

from matrix.event_auth import redaction_applies
from matrix.power_levels import PowerLevels
from matrix.room_versions import RoomVersion
from tests.matrix.rooms import ALICE, ALL_VERSIONS, BOB, CREATOR, Room, versions

pytestmark = pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda version: version.identifier)


def check_create(version: RoomVersion, content: dict[str, Any], **properties: Any) -> str | None:
    """The reason why a create event with the content is rejected, None if it is not."""
    room = Room(version)
    rejection = room.check(room.event("m.room.create", CREATOR, content, "", **properties))
    return rejection.reason if rejection else None


def test_a_create_event_is_allowed_with_nothing_but_a_creator(version: RoomVersion) -> None:
    assert check_create(version, {"creator": CREATOR}) is None
    room = Room(version)
    assert room.check(room.create) is None


def test_a_create_event_has_no_prev_events(version: RoomVersion) -> None:
    room = Room(version)
    content = {"creator": CREATOR}
    reason = check_create(version, content, prev_events=[room.reference(room.create)])
    assert reason == "m.room.create has prev_events"


def test_the_room_id_of_a_create_event_has_the_senders_domain_or_is_absent(version: RoomVersion) -> None:
    reason = check_create(version, {"creator": CREATOR}, room_id="!room:elsewhere.example")
    assert reason is not None
    if version in versions(12):
        assert check_create(version, {}, room_id="!room:example.org") == "m.room.create has a room_id"
    else:
        assert check_create(version, {"creator": CREATOR}, room_id="!room:example.org") is None


@pytest.mark.parametrize("identifier", ["1", "12"])
def test_a_recognised_room_version_is_allowed(version: RoomVersion, identifier: str) -> None:
    assert check_create(version, {"creator": CREATOR, "room_version": identifier}) is None


@pytest.mark.parametrize("identifier", ["13", "org.example", "", 1, None, ["1"], {}])
def test_other_room_versions_are_rejected(version: RoomVersion, identifier: Any) -> None:
    assert check_create(version, {"creator": CREATOR, "room_version": identifier}) is not None


def test_a_creator_is_required_until_version_10(version: RoomVersion) -> None:
    assert (check_create(version, {}) is None) is (version in versions(11))


@pytest.mark.parametrize("creators", [None, {}, ALICE, [1], [ALICE, "bob"], [[ALICE]]])
def test_additional_creators_must_be_user_ids_from_version_12(version: RoomVersion, creators: Any) -> None:
    content = {"creator": CREATOR, "additional_creators": creators}
    assert (check_create(version, content) is None) is (version in versions(1, 11))
    assert check_create(version, {**content, "additional_creators": [ALICE, BOB]}) is None
    assert check_create(version, {**content, "additional_creators": []}) is None


def test_without_a_create_event_nothing_is_allowed(version: RoomVersion) -> None:
    room = Room(version)
    del room.state["m.room.create", ""]
    assert not room.allows("m.room.message", CREATOR)


def test_the_room_id_must_be_that_of_the_create_event_in_version_12(version: RoomVersion) -> None:
    room = Room(version)
    other_id = "!" + "A" * 43
    assert room.allows("m.room.message", CREATOR)
    assert room.allows("m.room.message", CREATOR, room_id=other_id) is (version in versions(1, 11))


def test_other_servers_stay_out_of_rooms_that_are_not_federated(version: RoomVersion) -> None:
    room = Room(version, **{"m.federate": False})
    room.member(ALICE, "join")
    room.member(BOB, "join")
    assert room.allows("m.room.message", ALICE)
    assert not room.allows("m.room.message", BOB)
    assert not room.allows_member(BOB, BOB, "leave")
    federated = Room(version, **{"m.federate": True})
    federated.member(BOB, "join")
    assert federated.allows("m.room.message", BOB)


def test_aliases_are_special_until_version_5(version: RoomVersion) -> None:
    room = Room(version)
    is_special = version in versions(1, 5)
    # From outside of the room, for the sender's own domain.
    assert room.allows("m.room.aliases", BOB, {}, "elsewhere.example") is is_special
    assert not room.allows("m.room.aliases", BOB, {}, "example.org")
    assert not room.allows("m.room.aliases", BOB, {})
    # By the creator, for another domain.
    assert room.allows("m.room.aliases", CREATOR, {}, "elsewhere.example") is not is_special


@pytest.mark.parametrize("membership", [None, "leave", "invite", "ban", "knock", ["join"]])
def test_only_members_send_events(version: RoomVersion, membership: Any) -> None:
    room = Room(version)
    if membership is not None:
        room.member(ALICE, membership)
    assert not room.allows("m.room.message")
    room.member(ALICE, "join")
    assert room.allows("m.room.message")


def test_third_party_invites_need_the_invite_level_and_no_other(version: RoomVersion) -> None:
    room = Room(version)
    room.member(ALICE, "join")
    room.levels({ALICE: 10}, invite=10, state_default=50, events={"m.room.third_party_invite": 90})
    assert room.allows("m.room.third_party_invite", ALICE, {}, "token")
    room.levels({ALICE: 9}, invite=10, state_default=0)
    assert not room.allows("m.room.third_party_invite", ALICE, {}, "token")


def test_events_need_the_level_of_their_type(version: RoomVersion) -> None:
    room = Room(version)
    room.member(ALICE, "join")
    room.levels({ALICE: 10}, events_default=10, state_default=10, events={"org.example": 11, "m.room.topic": 10})
    assert room.allows("m.room.message")
    assert room.allows("m.room.name", ALICE, {}, "")
    assert room.allows("m.room.topic", ALICE, {}, "")
    assert not room.allows("org.example")
    assert not room.allows("org.example", ALICE, {}, "")
    room.levels({ALICE: 9}, events_default=10, state_default=10)
    assert not room.allows("m.room.message")
    assert not room.allows("m.room.name", ALICE, {}, "")


def test_ready_made_power_levels_are_used(version: RoomVersion) -> None:
    room = Room(version)
    room.member(ALICE, "join")
    strict = PowerLevels.of(version, room.create, room.event("m.room.power_levels", CREATOR, {"events_default": 1}, ""))
    message = room.event("m.room.message")
    assert room.check(message) is None
    assert room.check(message, power_levels=strict) is not None


def test_state_keys_that_are_user_ids_belong_to_those_users(version: RoomVersion) -> None:
    room = Room(version)
    assert room.allows("org.example", CREATOR, {}, CREATOR)
    assert room.allows("org.example", CREATOR, {}, ALICE.removeprefix("@"))
    assert not room.allows("org.example", CREATOR, {}, ALICE)
    assert not room.allows("org.example", CREATOR, {}, "@")


def test_redactions_are_rejected_by_level_or_domain_until_version_2(version: RoomVersion) -> None:
    room = Room(version)
    room.member(BOB, "join")
    is_ruled = version in versions(1, 2)

    def allows_redaction(redacts: Any) -> bool:
        where: dict[str, Any] = (
            {"content": {"redacts": redacts}} if version.redacts_in_content else {"redacts": redacts}
        )
        return room.allows("m.room.redaction", BOB, **where)

    assert allows_redaction("$event:elsewhere.example")
    assert allows_redaction("$event:example.org") is not is_ruled
    assert allows_redaction(None) is not is_ruled
    room.levels({BOB: 50})
    assert allows_redaction("$event:example.org")
    room.levels({BOB: 50}, redact=51)
    assert allows_redaction("$event:example.org") is not is_ruled


def test_an_accepted_redaction_has_an_effect_by_level_or_domain(version: RoomVersion) -> None:
    room = Room(version)
    was_judged_before = version in versions(1, 2)

    def applies(sender: str, target_sender: str, redacts: str | None = None, **properties: Any) -> bool:
        target = room.event("m.room.message", target_sender, **properties)
        redacts = redacts or target.event_id
        content = {"redacts": redacts} if version.redacts_in_content else {}
        redaction = room.event("m.room.redaction", sender, content, redacts=redacts)
        levels = PowerLevels.of(version, room.create, room.levels({BOB: 50}))
        return redaction_applies(redaction, target, levels)

    assert applies(ALICE, ALICE)
    assert applies(ALICE, CREATOR)
    assert applies(BOB, ALICE)
    assert applies(ALICE, BOB) is was_judged_before
    assert not applies(BOB, ALICE, redacts="$another:example.org")
    assert not applies(BOB, ALICE, room_id="!another:example.org")
