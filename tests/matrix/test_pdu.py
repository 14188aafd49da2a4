"""https://spec.matrix.org/v1.19/rooms/v1/#event-format and the same section of the later versions."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.canonical_json import encode_canonical_json
from matrix.hashes import content_hash_matches, reference_hash
from matrix.pdu import EventReference, EventTooLarge, InvalidPdu, Pdu, build_pdu, load_pdu, parse_pdu
from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from matrix.signatures import SigningKey, verify_event_signature
from matrix.unpadded_base64 import encode_base64
from tests.matrix.rooms import ALL_VERSIONS, versions
from tests.matrix.test_canonical_json import EVENT_VALUES, JSON_VALUES

KEY = SigningKey.from_seed("a_1", bytes(32))
REFERENCE = EventReference("$" + "A" * 43, "hash")
V1, V5, V11, V12 = (ROOM_VERSIONS[identifier] for identifier in ("1", "5", "11", "12"))


def build(version: RoomVersion = V12, **properties: Any) -> Pdu:
    """A message, or what the properties make of it."""
    arguments: dict[str, Any] = {
        "room_id": "!" + "B" * 43 if version.room_id_is_create_event_hash else "!room:example.org",
        "type": "m.room.message",
        "sender": "@alice:example.org",
        "state_key": None,
        "content": {"body": "é"},
        "prev_events": [REFERENCE],
        "auth_events": [REFERENCE],
        "depth": 7,
        "origin_server_ts": 1_700_000_000_000,
        "opaque_id": "opaque",
    }
    return build_pdu(room_version=version, server_name="example.org", signing_key=KEY, **{**arguments, **properties})


@pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda version: version.identifier)
@pytest.mark.parametrize("state_key", [None, "", "key"])
def test_a_built_event_is_valid_hashed_and_signed(version: RoomVersion, state_key: str | None) -> None:
    pdu = build(version, state_key=state_key, unsigned={"age": 1})
    parsed = parse_pdu(pdu.json, version)
    assert parsed.event_id == pdu.event_id
    assert content_hash_matches(pdu.json)
    assert verify_event_signature(pdu.json, version, "example.org", KEY.key_id, KEY.public_key)
    assert (pdu.state_key, pdu.is_state) == (state_key, state_key is not None)
    assert pdu.prev_events == pdu.auth_events == (REFERENCE.event_id,)
    assert (pdu.depth, pdu.origin_server_ts, pdu.content) == (7, 1_700_000_000_000, {"body": "é"})
    assert pdu.json["unsigned"] == {"age": 1}
    loaded = load_pdu(pdu.json, version, pdu.event_id)
    assert all(getattr(loaded, name) == getattr(pdu, name) for name in Pdu.__slots__)


@pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda version: version.identifier)
def test_references_have_the_form_of_the_version(version: RoomVersion) -> None:
    pdu = build(version)
    if version in versions(1, 2):
        assert pdu.json["prev_events"] == [[REFERENCE.event_id, {"sha256": "hash"}]]
        assert pdu.reference == ("$opaque:example.org", encode_base64(reference_hash(pdu.json, version)))
        assert pdu.json["event_id"] == pdu.event_id
    else:
        assert pdu.json["prev_events"] == [REFERENCE.event_id]
        assert pdu.reference == (pdu.event_id, "")
        assert "event_id" not in pdu.json


@pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda version: version.identifier)
def test_the_target_of_a_redaction_stands_where_the_version_has_it(version: RoomVersion) -> None:
    pdu = build(version, type="m.room.redaction", redacts="$x:example.org", content={"reason": "spam"})
    assert pdu.redacts == "$x:example.org"
    assert ("redacts" in pdu.json) is (version in versions(1, 10))
    assert ("redacts" in pdu.content) is (version in versions(11))
    assert build(version, content={"redacts": "$x:example.org"}).redacts is None


def test_room_ids_of_version_12_are_the_hash_of_the_create_event() -> None:
    pdu = build(V12, type="m.room.create", state_key="", room_id=None)
    assert "room_id" not in pdu.json
    assert pdu.room_id == "!" + pdu.event_id[1:]
    assert parse_pdu(pdu.json, V12).room_id == pdu.room_id


@pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda version: version.identifier)
def test_depth_stays_at_the_limit(version: RoomVersion) -> None:
    limit = 2**63 - 1 if version in versions(1, 5) else 2**53 - 1
    pdu = build(version, depth=limit + 5)
    assert pdu.depth == parse_pdu(pdu.json, version).depth == limit


@pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda version: version.identifier)
def test_floats_are_valid_until_version_5(version: RoomVersion) -> None:
    if version in versions(1, 5):
        pdu = build(version, content={"a": 1.5e300, "b": 2**70})
        assert parse_pdu(pdu.json, version).event_id == pdu.event_id
        return
    with pytest.raises(InvalidPdu, match="float"):
        build(version, content={"a": 1.5})
    with pytest.raises(InvalidPdu, match="float"):
        parse_pdu({**build(version).json, "content": {"a": 1.5}}, version)


@given(st.dictionaries(st.text(), EVENT_VALUES, max_size=5), st.none() | st.dictionaries(st.text(), EVENT_VALUES))
def test_the_size_of_a_built_event_is_known_before_it_is_signed(content: Any, unsigned: Any) -> None:
    room = 65_536 - len(encode_canonical_json(build(content={**content, "\0": ""}, unsigned=unsigned).json))
    largest = build(content={**content, "\0": "x" * room}, unsigned=unsigned)
    assert len(encode_canonical_json(largest.json)) == 65_536
    assert parse_pdu(largest.json, V12).event_id == largest.event_id
    with pytest.raises(EventTooLarge):
        build(content={**content, "\0": "x" * (room + 1)}, unsigned=unsigned)


def test_a_received_event_may_not_exceed_the_size_limit() -> None:
    pdu = build()
    room = 65_536 - len(encode_canonical_json({**pdu.json, "unsigned": {"a": ""}}))
    assert parse_pdu({**pdu.json, "unsigned": {"a": "x" * room}}, V12).event_id == pdu.event_id
    with pytest.raises(EventTooLarge):
        parse_pdu({**pdu.json, "unsigned": {"a": "x" * (room + 1)}}, V12)


@pytest.mark.parametrize("key", ["type", "state_key"])
def test_types_and_state_keys_have_at_most_255_bytes(key: str) -> None:
    longest = build(V12, **{key: "é" * 127 + "x"})
    assert parse_pdu(longest.json, V12).event_id == longest.event_id
    with pytest.raises(EventTooLarge, match=key):
        build(V12, **{key: "é" * 128})
    with pytest.raises(EventTooLarge, match=key):
        parse_pdu({**longest.json, key: "é" * 128}, V12)


def test_built_events_cannot_have_overlong_identifiers() -> None:
    with pytest.raises(EventTooLarge, match="sender"):
        build(sender="@" + "a" * 255 + ":example.org")
    with pytest.raises(EventTooLarge, match="event_id"):
        build(V1, opaque_id="a" * 250)
    with pytest.raises(InvalidPdu, match="surrogate"):
        build(type="\ud800" * 100)


MISSING = object()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("type", MISSING),
        ("type", 1),
        ("sender", MISSING),
        ("sender", "alice"),
        ("sender", "@alice:" + "a" * 255),
        ("room_id", MISSING),
        ("room_id", "#room:example.org"),
        ("state_key", None),
        ("state_key", 1),
        ("content", MISSING),
        ("content", []),
        ("depth", MISSING),
        ("depth", -1),
        ("depth", True),
        ("depth", "1"),
        ("depth", 2**63),
        ("origin_server_ts", MISSING),
        ("origin_server_ts", 1.5),
        ("origin_server_ts", 2**63),
        ("hashes", MISSING),
        ("hashes", {}),
        ("hashes", {"sha256": 1}),
        ("signatures", MISSING),
        ("signatures", {"example.org": "signature"}),
        ("signatures", {"example.org": {"ed25519:1": 1}}),
        ("unsigned", []),
        ("prev_events", MISSING),
        ("prev_events", {}),
        ("prev_events", [1]),
        ("prev_events", ["event"]),
        ("prev_events", [["$a:example.org"]]),
        ("prev_events", [["$a:example.org", {"sha256": 1}]]),
        ("auth_events", MISSING),
        ("auth_events", [{}]),
        ("auth_events", [["event", {"sha256": "hash"}]]),
    ],
)
@pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda version: version.identifier)
def test_events_with_a_wrong_format_are_invalid(version: RoomVersion, key: str, value: Any) -> None:
    event = dict(build(version).json)
    event[key] = value
    if value is MISSING:
        del event[key]
    with pytest.raises(InvalidPdu):
        parse_pdu(event, version)


@pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda version: version.identifier)
def test_values_that_no_version_has_are_not_built(version: RoomVersion) -> None:
    for value in (float("nan"), "\ud800", {1, 2}):
        with pytest.raises(InvalidPdu):
            build(version, content={"a": value})


def test_a_pdu_shows_what_it_is() -> None:
    pdu = build(state_key="key")
    assert repr(pdu) == f"<Pdu {pdu.event_id} m.room.message 'key' by @alice:example.org in {pdu.room_id}>"
    assert pdu.state_key_pair == ("m.room.message", "key")


@pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda version: version.identifier)
def test_events_have_at_most_20_prev_events_and_10_auth_events(version: RoomVersion) -> None:
    allowed = build(version, prev_events=[REFERENCE] * 20, auth_events=[REFERENCE] * 10)
    assert len(parse_pdu(allowed.json, version).prev_events) == 20
    for too_many in ({"prev_events": [REFERENCE] * 21}, {"auth_events": [REFERENCE] * 11}):
        with pytest.raises(InvalidPdu, match="at most"):
            parse_pdu(build(version, **too_many).json, version)


@pytest.mark.parametrize("version", versions(1, 10), ids=lambda version: version.identifier)
def test_a_top_level_redacts_must_be_a_string(version: RoomVersion) -> None:
    with pytest.raises(InvalidPdu, match="redacts"):
        parse_pdu({**build(version).json, "redacts": 1}, version)


@pytest.mark.parametrize("redacts", [None, 1, ["$a"], {}])
def test_a_redacts_in_content_that_is_no_string_names_no_event(redacts: Any) -> None:
    pdu = build(V11, type="m.room.redaction", content={"redacts": redacts})
    assert parse_pdu(pdu.json, V11).redacts is None


def test_events_of_versions_1_and_2_bring_their_id() -> None:
    event = build(V1).json
    assert parse_pdu(event, V1, "$opaque:example.org").event_id == "$opaque:example.org"
    with pytest.raises(InvalidPdu, match="event_id"):
        parse_pdu(event, V1, "$other:example.org")
    for event_id in (REFERENCE.event_id, 1, None):
        with pytest.raises(InvalidPdu, match="event_id"):
            parse_pdu({**event, "event_id": event_id}, V1)


def test_a_stray_event_id_is_left_out_in_later_versions() -> None:
    pdu = build(V5)
    parsed = parse_pdu({**pdu.json, "event_id": "$spoofed:example.org"}, V5)
    assert (parsed.event_id, parsed.json) == (pdu.event_id, pdu.json)


def test_a_create_event_with_a_room_id_is_left_to_the_authorisation_rules() -> None:
    pdu = build(V12, type="m.room.create", state_key="", room_id=None)
    parsed = parse_pdu({**pdu.json, "room_id": "!room:example.org"}, V12)
    assert parsed.room_id == "!" + parsed.event_id[1:]


@given(JSON_VALUES, st.sampled_from(ALL_VERSIONS), st.data())
def test_parsing_raises_nothing_but_invalid_pdu(value: Any, version: RoomVersion, data: st.DataObject) -> None:
    event = build(version).json
    key = data.draw(st.sampled_from([*event, "state_key", "redacts", "unsigned"]))
    for candidate in (value, {**event, key: value}):
        try:
            parsed = parse_pdu(candidate, version)
        except InvalidPdu:
            continue
        assert parse_pdu(parsed.json, version).event_id == parsed.event_id
