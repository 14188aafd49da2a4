"""The rules for m.room.member, https://spec.matrix.org/v1.19/rooms/v12/#authorisation-rules (rule 5)."""

from typing import Any

import pytest

from matrix.room_versions import RoomVersion
from matrix.signatures import SigningKey, sign_json
from tests.matrix.rooms import ALICE, ALL_VERSIONS, BOB, CAROL, CREATOR, Room, versions

pytestmark = pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda version: version.identifier)

MEMBERSHIPS = ["join", "invite", "leave", "ban", "knock"]


def room_with(version: RoomVersion, *, join_rule: str | None = None, **memberships: str) -> Room:
    """A room of the creator with the join rule and these memberships of alice, bob and carol."""
    room = Room(version)
    if join_rule is not None:
        room.set("m.room.join_rules", {"join_rule": join_rule})
    for name, membership in memberships.items():
        room.member({"alice": ALICE, "bob": BOB, "carol": CAROL}[name], membership)
    return room


def test_state_key_and_membership_are_required(version: RoomVersion) -> None:
    room = room_with(version, join_rule="public")
    assert room.allows("m.room.member", ALICE, {"membership": "join"}, ALICE)
    assert not room.allows("m.room.member", ALICE, {"membership": "join"})
    assert not room.allows("m.room.member", ALICE, {}, ALICE)


@pytest.mark.parametrize("membership", ["dance", "", None, 1, ["join"], {}])
def test_other_memberships_are_unknown(version: RoomVersion, membership: Any) -> None:
    room = room_with(version, join_rule="public", alice="join")
    assert not room.allows_member(ALICE, ALICE, membership)


def test_the_creator_joins_right_after_the_create_event(version: RoomVersion) -> None:
    room = Room(version)
    del room.state["m.room.member", CREATOR]
    prev_events = [room.reference(room.create)]
    content = {"membership": "join"}
    assert room.allows("m.room.member", CREATOR, content, CREATOR, prev_events=prev_events)
    assert not room.allows("m.room.member", ALICE, content, ALICE, prev_events=prev_events)
    assert not room.allows("m.room.member", CREATOR, content, CREATOR)
    assert not room.allows("m.room.member", CREATOR, content, CREATOR, prev_events=prev_events * 2)


def test_the_creator_who_joins_first_is_the_sender_of_the_create_event_from_version_11(version: RoomVersion) -> None:
    room = Room(version, creator=ALICE)
    prev_events = [room.reference(room.create)]
    allowed = ALICE if version in versions(1, 10) else CREATOR
    for user_id in (ALICE, CREATOR):
        room.state.pop(("m.room.member", CREATOR), None)
        is_allowed = room.allows("m.room.member", user_id, {"membership": "join"}, user_id, prev_events=prev_events)
        assert is_allowed is (user_id == allowed)


def test_nobody_joins_for_others(version: RoomVersion) -> None:
    assert not room_with(version, join_rule="public").allows_member(CREATOR, ALICE, "join")


@pytest.mark.parametrize("current", [None, *MEMBERSHIPS])
@pytest.mark.parametrize(
    ("join_rule", "open_to", "since"),
    [
        (None, {"invite", "join"}, 1),
        ("invite", {"invite", "join"}, 1),
        ("knock", {"invite", "join"}, 7),
        ("restricted", {"invite", "join"}, 8),
        ("knock_restricted", {"invite", "join"}, 10),
        ("public", {None, "invite", "join", "leave", "knock"}, 1),
        ("private", set(), 1),
        ("org.example", set(), 1),
    ],
)
def test_joining_by_join_rule(
    version: RoomVersion, current: str | None, join_rule: str | None, open_to: set[str | None], since: int
) -> None:
    room = room_with(version, join_rule=join_rule, **({} if current is None else {"alice": current}))
    expected = version in versions(since) and current in open_to
    assert room.allows_member(ALICE, ALICE, "join") is expected


@pytest.mark.parametrize("join_rule", [None, 1, ["public"]])
def test_a_join_rule_of_another_type_lets_nobody_in(version: RoomVersion, join_rule: Any) -> None:
    room = room_with(version, alice="invite")
    room.set("m.room.join_rules", {"join_rule": join_rule})
    assert not room.allows_member(ALICE, ALICE, "join")


VERIFIED = {"verified_servers": ["elsewhere.example"]}


@pytest.mark.parametrize(("join_rule", "since"), [("restricted", 8), ("knock_restricted", 10)])
def test_a_member_who_may_invite_lets_others_into_restricted_rooms(
    version: RoomVersion, join_rule: str, since: int
) -> None:
    room = room_with(version, join_rule=join_rule, bob="join")
    authorised: dict[str, Any] = {"join_authorised_via_users_server": BOB}
    expected = version in versions(since)
    assert room.allows_member(ALICE, ALICE, "join", VERIFIED, **authorised) is expected
    # None stands for a signature that was verified before.
    assert room.allows_member(ALICE, ALICE, "join", {"verified_servers": None}, **authorised) is expected
    # Without the signature, without an authoriser, by one who is not joined, by one who may not invite.
    assert not room.allows_member(ALICE, ALICE, "join", **authorised)
    assert not room.allows_member(ALICE, ALICE, "join", VERIFIED)
    room.levels({BOB: 5}, invite=6)
    assert not room.allows_member(ALICE, ALICE, "join", VERIFIED, **authorised)
    room.levels({BOB: 6}, invite=6)
    assert room.allows_member(ALICE, ALICE, "join", VERIFIED, **authorised) is expected
    room.member(BOB, "invite")
    assert not room.allows_member(ALICE, ALICE, "join", VERIFIED, **authorised)


def test_banned_users_do_not_join_restricted_rooms(version: RoomVersion) -> None:
    room = room_with(version, join_rule="restricted", alice="ban", bob="join")
    assert not room.allows_member(ALICE, ALICE, "join", VERIFIED, join_authorised_via_users_server=BOB)


@pytest.mark.parametrize("authoriser", [None, 1, "bob", [BOB], ""])
def test_an_authoriser_must_be_a_user_id_from_version_8(version: RoomVersion, authoriser: Any) -> None:
    room = room_with(version, join_rule="public")
    options = {"verified_servers": ["elsewhere.example", ""]}
    is_allowed = room.allows_member(ALICE, ALICE, "join", options, join_authorised_via_users_server=authoriser)
    assert is_allowed is (version in versions(1, 7))


def test_the_signature_of_an_authoriser_is_needed_for_any_membership_from_version_8(version: RoomVersion) -> None:
    room = room_with(version, alice="join")
    authorised: dict[str, Any] = {"join_authorised_via_users_server": BOB}
    assert room.allows_member(ALICE, ALICE, "leave", **authorised) is (version in versions(1, 7))
    assert room.allows_member(ALICE, ALICE, "leave", VERIFIED, **authorised)


@pytest.mark.parametrize("current", [None, *MEMBERSHIPS])
def test_members_invite_who_is_neither_joined_nor_banned(version: RoomVersion, current: str | None) -> None:
    room = room_with(version, alice="join", **({} if current is None else {"bob": current}))
    assert room.allows_member(ALICE, BOB, "invite") is (current not in ("join", "ban"))


def test_inviting_needs_membership_and_the_invite_level(version: RoomVersion) -> None:
    room = room_with(version, alice="invite", carol="join")
    assert not room.allows_member(ALICE, BOB, "invite")
    room.levels({CAROL: 10}, invite=10)
    assert room.allows_member(CAROL, BOB, "invite")
    room.levels({CAROL: 9}, invite=10)
    assert not room.allows_member(CAROL, BOB, "invite")


@pytest.mark.parametrize("current", [None, *MEMBERSHIPS])
def test_users_leave_who_are_joined_or_invited_or_knocking(version: RoomVersion, current: str | None) -> None:
    room = room_with(version, **({} if current is None else {"alice": current}))
    expected = current in ("join", "invite") or (current == "knock" and version in versions(7))
    assert room.allows_member(ALICE, ALICE, "leave") is expected


def test_kicking_needs_membership_the_kick_level_and_more_power(version: RoomVersion) -> None:
    room = room_with(version, alice="join", bob="join")
    room.levels({ALICE: 50, BOB: 49})
    assert room.allows_member(ALICE, BOB, "leave")
    room.levels({ALICE: 50, BOB: 50})
    assert not room.allows_member(ALICE, BOB, "leave")
    room.levels({ALICE: 49})
    assert not room.allows_member(ALICE, BOB, "leave")
    room.levels({ALICE: 49}, kick=49)
    assert room.allows_member(ALICE, BOB, "leave")
    room.member(ALICE, "leave")
    assert not room.allows_member(ALICE, BOB, "leave")


def test_lifting_a_ban_needs_the_ban_level_too(version: RoomVersion) -> None:
    room = room_with(version, alice="join", bob="ban")
    room.levels({ALICE: 50}, ban=50, kick=50)
    assert room.allows_member(ALICE, BOB, "leave")
    room.levels({ALICE: 50}, ban=51, kick=50)
    assert not room.allows_member(ALICE, BOB, "leave")
    room.levels({ALICE: 50}, ban=50, kick=51)
    assert not room.allows_member(ALICE, BOB, "leave")
    assert not room.allows_member(BOB, BOB, "leave")


def test_banning_needs_membership_the_ban_level_and_more_power(version: RoomVersion) -> None:
    room = room_with(version, alice="join")
    room.levels({ALICE: 50, BOB: 49})
    assert room.allows_member(ALICE, BOB, "ban")
    room.levels({ALICE: 50, BOB: 50})
    assert not room.allows_member(ALICE, BOB, "ban")
    room.levels({ALICE: 49})
    assert not room.allows_member(ALICE, BOB, "ban")
    room.member(CAROL, "invite")
    room.levels({CAROL: 50})
    assert not room.allows_member(CAROL, BOB, "ban")


def test_nobody_has_power_over_creators_from_version_12(version: RoomVersion) -> None:
    room = room_with(version, alice="join")
    room.levels({ALICE: 101})
    expected = version in versions(1, 11)
    assert room.allows_member(ALICE, CREATOR, "leave") is expected
    assert room.allows_member(ALICE, CREATOR, "ban") is expected
    assert room.allows_member(CREATOR, ALICE, "ban") is not expected


@pytest.mark.parametrize("current", [None, *MEMBERSHIPS])
@pytest.mark.parametrize(
    ("join_rule", "since"),
    [("knock", 7), ("knock_restricted", 10), ("public", 13), ("invite", 13), ("restricted", 13), (None, 13)],
)
def test_knocking_by_join_rule(version: RoomVersion, current: str | None, join_rule: str | None, since: int) -> None:
    room = room_with(version, join_rule=join_rule, **({} if current is None else {"alice": current}))
    expected = int(version.identifier) >= since and current in (None, "leave", "knock")
    assert room.allows_member(ALICE, ALICE, "knock") is expected
    assert not room.allows_member(CREATOR, ALICE, "knock")


KEY = SigningKey.from_seed("1", b"1" * 32)
OTHER_KEY = SigningKey.from_seed("2", b"2" * 32)
SIGNED = sign_json({"mxid": ALICE, "token": "token"}, "id.example", KEY)


@pytest.fixture
def room(version: RoomVersion) -> Room:
    """A room in which bob, who has left it since, has invited a third party."""
    room = Room(version)
    room.set("m.room.third_party_invite", {"public_key": KEY.public_key_base64}, sender=BOB, state_key="token")
    return room


def allows_exchange(room: Room, signed: Any, sender: str = BOB, target: str = ALICE) -> bool:
    third_party_invite = {"display_name": "alice", "signed": signed}
    return room.allows_member(sender, target, "invite", third_party_invite=third_party_invite)


def test_a_signed_third_party_invite_is_allowed(room: Room) -> None:
    assert allows_exchange(room, SIGNED)


def test_any_of_several_public_keys_may_have_signed(room: Room) -> None:
    keys: list[Any] = [{"public_key": OTHER_KEY.public_key_base64}, {"public_key": "!"}, {}, 1]
    content = {"public_key": 1, "public_keys": keys}
    room.set("m.room.third_party_invite", content, sender=BOB, state_key="token")
    assert not allows_exchange(room, SIGNED)
    keys.append({"public_key": KEY.public_key_base64.replace("+", "-").replace("/", "_")})
    assert allows_exchange(room, SIGNED)
    assert allows_exchange(room, sign_json(SIGNED, "other.example", SigningKey.from_seed("3", b"3" * 32)))


def test_a_third_party_invite_is_for_one_user_by_one_sender(room: Room) -> None:
    assert not allows_exchange(room, SIGNED, target=CAROL)
    assert not allows_exchange(room, SIGNED, sender=CREATOR)
    room.member(ALICE, "ban")
    assert not allows_exchange(room, SIGNED)


@pytest.mark.parametrize(
    "signed",
    [
        None,
        "signed",
        {},
        {key: value for key, value in SIGNED.items() if key != "mxid"},
        {key: value for key, value in SIGNED.items() if key != "token"},
        {key: value for key, value in SIGNED.items() if key != "signatures"},
        {**SIGNED, "token": "other"},
        {**SIGNED, "token": ["token"]},
        {**SIGNED, "mxid": [ALICE]},
        {**SIGNED, "signatures": []},
        {**SIGNED, "signatures": {"id.example": []}},
        {**SIGNED, "added": "later"},
        sign_json({"mxid": ALICE, "token": "token"}, "id.example", OTHER_KEY),
    ],
)
def test_other_third_party_invites_are_rejected(room: Room, signed: Any) -> None:
    assert not allows_exchange(room, signed)


def test_a_third_party_invite_without_signed_does_not_fall_back_to_an_invite(room: Room) -> None:
    assert not room.allows_member(CREATOR, ALICE, "invite", third_party_invite={})
    assert not room.allows_member(CREATOR, ALICE, "invite", third_party_invite=None)
    assert room.allows_member(CREATOR, ALICE, "invite")


def test_the_number_of_signatures_tried_is_bounded(room: Room) -> None:
    false = {f"ed25519:false{number}": "A" * 86 for number in range(100)}
    true = SIGNED["signatures"]["id.example"]
    assert not allows_exchange(room, {**SIGNED, "signatures": {"id.example": {**false, **true}}})
    assert allows_exchange(room, {**SIGNED, "signatures": {"id.example": {**true, **false}}})
