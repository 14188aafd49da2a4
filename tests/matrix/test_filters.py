"""Filtering: https://spec.matrix.org/v1.19/client-server-api/#filtering"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.filters import (
    DEFAULT_FILTER,
    MAX_ENTRIES,
    MAX_ENTRY_CHARS,
    MAX_WILDCARD_TYPES,
    EventFilter,
    InvalidFilter,
    RoomEventFilter,
    compile_filter,
    compile_room_event_filter,
    select_fields,
)

ALICE, BOB = "@alice:example.org", "@bob:example.org"
ROOM, OTHER_ROOM = "!room:example.org", "!other:example.org"


def event(event_type: str = "m.room.message", **rest: Any) -> dict[str, Any]:
    return {"type": event_type, "sender": ALICE, "room_id": ROOM, "content": {"body": "hello"}} | rest


def test_an_empty_filter_is_the_default_and_passes_everything() -> None:
    compiled = compile_filter({})
    assert compiled == DEFAULT_FILTER
    assert compiled.event_format == "client"
    assert compiled.event_fields is None
    assert not compiled.room.include_leave
    assert compiled.room.allows_room(ROOM)
    assert compiled.account_data.is_trivial
    assert compiled.presence.is_trivial
    for part in (compiled.room.state, compiled.room.timeline, compiled.room.ephemeral, compiled.room.account_data):
        assert part == RoomEventFilter()
        assert part.is_trivial
        assert part.matches(event())


def test_every_property_is_read() -> None:
    compiled = compile_filter(
        {
            "event_fields": ["type", "content"],
            "event_format": "federation",
            "presence": {"not_senders": [ALICE], "limit": 3},
            "account_data": {"types": ["m.*"]},
            "room": {
                "rooms": [ROOM, OTHER_ROOM],
                "not_rooms": [OTHER_ROOM],
                "include_leave": True,
                "state": {"lazy_load_members": True, "include_redundant_members": True},
                "timeline": {"limit": 10, "unread_thread_notifications": True, "contains_url": False},
                "ephemeral": {"rooms": [ROOM], "not_rooms": [OTHER_ROOM]},
                "account_data": {"related_by_rel_types": ["m.thread"], "related_by_senders": [BOB]},
            },
            "org.example.unknown": [1],
        }
    )
    room = compiled.room
    assert (compiled.event_fields, compiled.event_format) == (("type", "content"), "federation")
    assert compiled.presence == EventFilter(limit=3, not_senders=frozenset({ALICE}))
    assert compiled.account_data.allows("m.direct", None)
    assert not compiled.account_data.allows("org.example", None)
    assert (room.include_leave, room.allows_room(ROOM), room.allows_room(OTHER_ROOM)) == (True, True, False)
    assert room.state == RoomEventFilter(lazy_load_members=True, include_redundant_members=True)
    assert room.timeline == RoomEventFilter(limit=10, unread_thread_notifications=True, contains_url=False)
    assert room.ephemeral == RoomEventFilter(rooms=frozenset({ROOM}), not_rooms=frozenset({OTHER_ROOM}))
    assert room.account_data.related_by_rel_types == frozenset({"m.thread"})
    assert room.account_data.related_by_senders == frozenset({BOB})


def test_equal_filters_are_one_cache_key() -> None:
    source = {"room": {"timeline": {"types": ["m.*", "x*", "a"], "senders": [ALICE, BOB]}}}
    reordered = {"room": {"timeline": {"types": ["a", "x*", "m.*"], "senders": [BOB, ALICE]}}}
    assert len({compile_filter(source), compile_filter(reordered), DEFAULT_FILTER}) == 2


@pytest.mark.parametrize(
    ("source", "candidate", "expected"),
    [
        ({"types": ["m.room.message"]}, event(), True),
        ({"types": ["m.room.*"]}, event(), True),
        ({"types": ["*"]}, event(), True),
        ({"types": ["m.*.message"]}, event(), True),
        ({"types": ["*.message", "x"]}, event("m.room.messages"), False),
        ({"types": ["M.Room.*"]}, event(), False),
        ({"types": ["m.room.messag?"]}, event(), False),
        ({"types": ["m?*"]}, event(), False),
        ({"types": ["m?*"]}, event("m?x"), True),
        ({"types": ["m.room*"]}, event("mxroom"), False),
        ({"types": []}, event(), False),
        ({"not_types": []}, event(), True),
        ({"not_types": ["m.room.*"]}, event(), False),
        ({"types": ["m.room.message"], "not_types": ["m.*"]}, event(), False),
        ({"senders": [ALICE]}, event(), True),
        ({"senders": [BOB]}, event(), False),
        ({"senders": []}, event(), False),
        ({"not_senders": [ALICE]}, event(), False),
        ({"senders": [ALICE], "not_senders": [ALICE]}, event(), False),
        ({"rooms": [ROOM]}, event(), True),
        ({"rooms": [OTHER_ROOM]}, event(), False),
        ({"rooms": []}, event(), False),
        ({"not_rooms": [ROOM]}, event(), False),
        ({"rooms": [ROOM], "not_rooms": [ROOM]}, event(), False),
        ({"rooms": [OTHER_ROOM]}, event(room_id=None), True),
        ({"contains_url": True}, event(content={"url": "mxc://a/b"}), True),
        ({"contains_url": True}, event(content={"url": None}), True),
        ({"contains_url": True}, event(), False),
        ({"contains_url": True}, event(content=None), False),
        ({"contains_url": False}, event(), True),
        ({"contains_url": False}, event(content={"url": "mxc://a/b"}), False),
        ({"senders": [ALICE]}, {"type": "x"}, False),
        ({"types": ["x"]}, {"sender": ALICE}, False),
        ({"lazy_load_members": True, "limit": 1}, event(), True),
    ],
)
def test_room_event_filter(source: dict[str, Any], candidate: dict[str, Any], expected: bool) -> None:
    compiled = compile_room_event_filter(source)
    assert compiled.matches(candidate) is expected
    assert compiled == compile_filter({"room": {"timeline": source}}).room.timeline


@pytest.mark.parametrize("source", [{"senders": [ALICE]}, {"not_types": ["x"]}, {"rooms": []}, {"contains_url": False}])
def test_filters_that_exclude_something_are_not_trivial(source: dict[str, Any]) -> None:
    assert not compile_room_event_filter(source).is_trivial


@pytest.mark.parametrize("source", [{"limit": 1}, {"lazy_load_members": True}, {"not_types": [], "not_rooms": []}])
def test_filters_that_exclude_nothing_are_trivial(source: dict[str, Any]) -> None:
    assert compile_room_event_filter(source).is_trivial


INVALID: list[tuple[object, str]] = [
    (None, "The filter must be an object"),
    ([], "The filter must be an object"),
    ({"event_format": "xml"}, "event_format must be 'client' or 'federation'"),
    ({"event_format": None}, "event_format must be 'client' or 'federation'"),
    ({"event_fields": "type"}, "event_fields must be an array of strings"),
    ({"event_fields": [1]}, "event_fields must be an array of strings"),
    ({"presence": []}, "presence must be an object"),
    ({"account_data": None}, "account_data must be an object"),
    ({"room": "x"}, "room must be an object"),
    ({"room": {"state": 1}}, "room.state must be an object"),
    ({"room": {"rooms": ["room"]}}, "room.rooms must have entries that start with '!'"),
    ({"room": {"rooms": None}}, "room.rooms must be an array of strings"),
    ({"room": {"include_leave": 1}}, "room.include_leave must be a boolean"),
    ({"room": {"timeline": {"limit": 0}}}, "room.timeline.limit must be an integer greater than 0"),
    ({"room": {"timeline": {"limit": True}}}, "room.timeline.limit must be an integer greater than 0"),
    ({"room": {"timeline": {"limit": 1.5}}}, "room.timeline.limit must be an integer greater than 0"),
    ({"room": {"timeline": {"limit": "5"}}}, "room.timeline.limit must be an integer greater than 0"),
    ({"room": {"timeline": {"senders": ["a"]}}}, "room.timeline.senders must have entries that start with '@'"),
    ({"room": {"timeline": {"contains_url": None}}}, "room.timeline.contains_url must be a boolean"),
    ({"presence": {"types": ["x"] * (MAX_ENTRIES + 1)}}, f"presence.types must have at most {MAX_ENTRIES} entries"),
    (
        {"presence": {"types": ["x" * (MAX_ENTRY_CHARS + 1)]}},
        f"presence.types must have entries of at most {MAX_ENTRY_CHARS} characters",
    ),
    (
        {"presence": {"types": [f"{n}*" for n in range(MAX_WILDCARD_TYPES + 1)]}},
        f"presence.types must have at most {MAX_WILDCARD_TYPES} entries with a '*'",
    ),
]


@pytest.mark.parametrize(("source", "complaint"), INVALID)
def test_invalid_filters_are_refused_with_what_is_wrong(source: object, complaint: str) -> None:
    with pytest.raises(InvalidFilter) as refusal:
        compile_filter(source)
    assert str(refusal.value) == complaint


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["type"], {"type": "m.x"}),
        (["content.body"], {"content": {"body": "hi"}}),
        ([r"content.m\.relates_to.rel_type"], {"content": {"m.relates_to": {"rel_type": "m.thread"}}}),
        (
            [r"content.m\.relates_to.rel_type", r"content.m\.relates_to.event_id", "content.body"],
            {"content": {"body": "hi", "m.relates_to": {"rel_type": "m.thread", "event_id": "$e"}}},
        ),
        (["content.m.relates_to"], {}),
        (["content.body.deeper", "nothing", "content.nothing"], {}),
        (["content.null"], {"content": {"null": None}}),
        (["content.empty"], {"content": {"empty": {}}}),
        ([], {}),
    ],
)
def test_select_fields(fields: list[str], expected: dict[str, Any]) -> None:
    content = {"body": "hi", "null": None, "empty": {}, "m.relates_to": {"rel_type": "m.thread", "event_id": "$e"}}
    assert select_fields({"type": "m.x", "content": content}, fields) == expected


@pytest.mark.parametrize("fields", [["content", "content.body"], ["content.body", "content"]])
def test_a_field_within_a_selected_one_changes_nothing(fields: list[str]) -> None:
    source = {"content": {"body": "hi", "other": 1}}
    assert select_fields(source, fields) == source
    assert source == {"content": {"body": "hi", "other": 1}}


_names = st.sampled_from(["a", "b", "c.d"])
_json = st.recursive(
    st.none() | st.integers(0, 2), lambda children: st.dictionaries(_names, children, max_size=3), max_leaves=10
)
_paths = st.lists(_names.map(lambda name: name.replace(".", r"\.")), min_size=1, max_size=4).map(".".join)


def _is_part_of(part: object, whole: object) -> bool:
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and _is_part_of(value, whole[name]) for name, value in part.items())
    return part == whole


@given(st.dictionaries(_names, _json, max_size=3), st.lists(_paths, max_size=4))
def test_selecting_twice_is_selecting_once(source: dict[str, Any], fields: list[str]) -> None:
    selected = select_fields(source, fields)
    assert _is_part_of(selected, source)
    assert select_fields(selected, fields) == selected
    assert select_fields(source, [name.replace(".", r"\.") for name in source]) == source
