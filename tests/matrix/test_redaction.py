"""https://spec.matrix.org/v1.19/rooms/v11/#redactions and the same section of the other versions."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.redaction import redact_event
from matrix.room_versions import RoomVersion
from tests.matrix.rooms import ALL_VERSIONS, versions
from tests.matrix.test_canonical_json import EVENT_VALUES, STRINGS

KEPT_BY_ALL = [
    *("event_id", "type", "room_id", "sender", "state_key", "content", "hashes", "signatures", "depth"),
    *("prev_events", "auth_events", "origin_server_ts"),
]
KEPT_UNTIL_10 = ["prev_state", "origin", "membership"]

TYPES = [
    "m.room.member",
    "m.room.create",
    "m.room.join_rules",
    "m.room.power_levels",
    "m.room.aliases",
    "m.room.history_visibility",
    "m.room.redaction",
    "m.room.message",
]
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys([*KEPT_BY_ALL, *KEPT_UNTIL_10, "unsigned", "redacts"], EVENT_VALUES),
        "type": st.sampled_from(TYPES),
        "content": EVENT_VALUES
        | st.dictionaries(
            STRINGS | st.sampled_from(["membership", "third_party_invite", "users", "signed"]),
            EVENT_VALUES | st.dictionaries(st.sampled_from(["signed", "display_name"]), EVENT_VALUES),
        ),
    },
)


def redact_content(version: RoomVersion, type: str, content: dict[str, Any]) -> Any:
    return redact_event({"type": type, "content": content}, version)["content"]


@pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda version: version.identifier)
def test_top_level_keys(version: RoomVersion) -> None:
    event = {key: key for key in [*KEPT_BY_ALL, *KEPT_UNTIL_10, "unsigned", "redacts", "age", "org.example"]}
    kept = KEPT_BY_ALL if version in versions(11) else KEPT_BY_ALL + KEPT_UNTIL_10
    assert redact_event(event, version) == {key: key for key in kept} | {"content": {}}


@pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda version: version.identifier)
@pytest.mark.parametrize(
    ("type", "key", "since", "until"),
    [
        ("m.room.member", "membership", 1, 12),
        ("m.room.member", "join_authorised_via_users_server", 9, 12),
        ("m.room.member", "displayname", 13, 12),
        ("m.room.create", "creator", 1, 12),
        ("m.room.create", "m.federate", 11, 12),
        ("m.room.join_rules", "join_rule", 1, 12),
        ("m.room.join_rules", "allow", 8, 12),
        *(("m.room.power_levels", key, 1, 12) for key in ("ban", "events", "events_default", "kick", "redact")),
        *(("m.room.power_levels", key, 1, 12) for key in ("state_default", "users", "users_default")),
        ("m.room.power_levels", "invite", 11, 12),
        ("m.room.power_levels", "notifications", 13, 12),
        ("m.room.aliases", "aliases", 1, 5),
        ("m.room.history_visibility", "history_visibility", 1, 12),
        ("m.room.redaction", "redacts", 11, 12),
        ("m.room.message", "body", 13, 12),
        ("m.room.message", "membership", 13, 12),
    ],
)
def test_content_keys(version: RoomVersion, type: str, key: str, since: int, until: int) -> None:
    kept = {key: "value"} if since <= int(version.identifier) <= until else {}
    assert redact_content(version, type, {key: "value"}) == kept


@pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda version: version.identifier)
def test_what_third_party_signed_of_an_invite_stays_from_version_11(version: RoomVersion) -> None:
    content = {"third_party_invite": {"display_name": "a", "signed": {"token": "t"}}}
    kept = {"third_party_invite": {"signed": {"token": "t"}}} if version in versions(11) else {}
    assert redact_content(version, "m.room.member", content) == kept
    assert redact_content(version, "m.room.member", {"third_party_invite": "junk"}) == {}


@given(EVENTS, st.sampled_from(ALL_VERSIONS))
def test_redacting_twice_changes_nothing_more(event: dict[str, Any], version: RoomVersion) -> None:
    once = redact_event(event, version)
    assert redact_event(once, version) == once
    assert once.keys() <= event.keys()
