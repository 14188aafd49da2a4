"""Whatever JSON an event and a state contain, the rules decide; they never fail."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from matrix.event_auth import Rejection, auth_event_keys, check_auth_event_selection, check_event_auth
from matrix.pdu import Pdu, load_pdu
from matrix.power_levels import PowerLevels
from matrix.room_versions import ROOM_VERSIONS
from tests.matrix.rooms import ALICE, ALL_VERSIONS, BOB, CREATOR, Room
from tests.matrix.test_canonical_json import JSON_VALUES

USERS = st.sampled_from([ALICE, BOB, CREATOR])
TYPES = st.sampled_from(
    [
        "m.room.create",
        "m.room.member",
        "m.room.power_levels",
        "m.room.join_rules",
        "m.room.third_party_invite",
        "m.room.aliases",
        "m.room.redaction",
        "m.room.message",
    ]
)
KEYS = [
    *("membership", "third_party_invite", "join_authorised_via_users_server", "join_rule", "public_key", "public_keys"),
    *("users", "users_default", "events", "events_default", "state_default", "notifications", "ban", "kick", "invite"),
    *(
        "creator",
        "additional_creators",
        "room_version",
        "m.federate",
        "redacts",
        "signed",
        "token",
        "mxid",
        "signatures",
    ),
]
VALUES = (
    JSON_VALUES
    | USERS
    | st.sampled_from(["join", "invite", "leave", "ban", "knock", "public", "restricted", "knock_restricted", "token"])
    | st.dictionaries(USERS | st.sampled_from([*KEYS, "ed25519:1"]), JSON_VALUES | USERS, max_size=4)
    | st.lists(USERS | st.dictionaries(st.sampled_from(KEYS), JSON_VALUES), max_size=3)
    | st.fixed_dictionaries({"signed": st.fixed_dictionaries({"mxid": USERS, "token": st.just("token")})})
)
CONTENTS = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), VALUES, max_size=5)
STATE_KEYS = USERS | st.sampled_from(["", "token", "example.org"])
STATES = st.dictionaries(st.tuples(TYPES, STATE_KEYS), st.tuples(USERS, CONTENTS), max_size=6)


@given(
    st.sampled_from(ALL_VERSIONS), TYPES, USERS, st.none() | STATE_KEYS, CONTENTS, STATES, st.none() | st.just(["x"])
)
def test_the_rules_decide_on_anything(
    version: Any, type: str, sender: str, state_key: str | None, content: Any, contents: Any, verified: Any
) -> None:
    room = Room(version)
    if version.restricted_allowed:
        room.member(BOB, "join")
    for (state_type, key), (state_sender, state_content) in contents.items():
        room.set(state_type, state_content, sender=state_sender, state_key=key)
    pdu = room.event(type, sender, content, state_key)
    first = check_event_auth(pdu, room.state, verified_servers=verified)
    assert first is None or isinstance(first, Rejection)
    assert check_event_auth(pdu, room.state, verified_servers=verified) == first
    keys = auth_event_keys(version, type, sender, state_key, content)
    selected = {key: room.state[key] for key in keys if key in room.state}
    # The selection is all that the rules read, apart from the create event.
    everything = {("m.room.create", ""): room.state["m.room.create", ""], **selected}
    assert check_event_auth(pdu, everything, verified_servers=verified) == first
    selection = check_auth_event_selection(pdu, list(selected.values()))
    assert selection is None or "another room" in selection.reason


@given(CONTENTS, CONTENTS)
def test_users_without_power_cannot_give_themselves_any(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Whatever the levels were, an allowed change leaves the sender with no more than before."""
    for identifier in ("1", "6", "10", "12"):
        version = ROOM_VERSIONS[identifier]
        room = Room(version)
        room.member(ALICE, "join")
        before: Pdu = room.set("m.room.power_levels", old)
        pdu = room.event("m.room.power_levels", ALICE, new, "")
        if room.check(pdu) is None:
            level_before = PowerLevels.of(version, room.create, before).user(ALICE)
            assert PowerLevels.of(version, room.create, load_pdu(pdu.json, version, "$x")).user(ALICE) <= level_before
