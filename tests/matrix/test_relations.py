"""Relationships: https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.relations import Relation, edited_event_id, kept_relation, relation_of, replied_to_event_id, thread_root

THREAD = {
    "rel_type": "m.thread",
    "event_id": "$root",
    "m.in_reply_to": {"event_id": "$target"},
    "is_falling_back": True,
}


@pytest.mark.parametrize(
    ("relates_to", "expected"),
    [
        ({"rel_type": "m.reference", "event_id": "$a"}, Relation("m.reference", "$a")),
        ({"rel_type": "org.example.x", "event_id": "$a", "key": "k"}, Relation("org.example.x", "$a", "k")),
        ({"rel_type": "org.example.x", "event_id": "$a", "key": 1}, Relation("org.example.x", "$a")),
        ({"rel_type": "m.annotation", "event_id": "$a", "key": "👍"}, Relation("m.annotation", "$a", "👍")),
        ({"rel_type": "m.annotation", "event_id": "$a"}, None),
        ({"rel_type": "m.annotation", "event_id": "$a", "key": 1}, None),
        (THREAD, Relation("m.thread", "$root", None, True)),
        (THREAD | {"is_falling_back": "true"}, Relation("m.thread", "$root")),
        ({"m.in_reply_to": {"event_id": "$target"}}, None),
        ({"rel_type": "m.reference"}, None),
        ({"event_id": "$a"}, None),
        ({"rel_type": "", "event_id": "$a"}, None),
        ({"rel_type": 1, "event_id": "$a"}, None),
        ({"rel_type": "m.reference", "event_id": "a"}, None),
        ({"rel_type": "m.reference", "event_id": ["$a"]}, None),
        ([], None),
        ("m.thread", None),
        (None, None),
    ],
)
def test_relation_of(relates_to: object, expected: Relation | None) -> None:
    assert relation_of({"m.relates_to": relates_to}) == expected


def related(rel_type: str, event_id: str = "$a", **more: object) -> dict[str, object]:
    return {"m.relates_to": {"rel_type": rel_type, "event_id": event_id}, **more}


@pytest.mark.parametrize(
    ("event_type", "state_key", "content", "is_kept"),
    [
        ("m.room.message", None, related("m.thread"), True),
        ("m.room.topic", "", related("m.reference"), True),
        ("m.room.message", None, related("m.replace", **{"m.new_content": {}}), True),
        ("m.room.message", "", related("m.replace", **{"m.new_content": {}}), False),
        ("m.room.message", None, related("m.replace"), False),
        ("m.room.message", None, related("m.replace", **{"m.new_content": "new"}), False),
        ("m.room.encrypted", None, related("m.replace"), True),
        ("m.room.message", None, related("r" * 255), True),
        ("m.room.message", None, related("é" * 128), False),
        ("m.room.message", None, related("m.thread", "$" + "a" * 255), False),
        ("m.room.message", None, related("nul\0"), False),
        ("m.room.message", None, related("m.thread", "$\0"), False),
        ("m.room.message", None, {}, False),
    ],
)
def test_relations_are_kept_where_they_can_be(
    event_type: str, state_key: str | None, content: dict[str, object], is_kept: bool
) -> None:
    assert (kept_relation(event_type, state_key, content) is not None) == is_kept


def test_threads_edits_and_replies_are_told_apart() -> None:
    thread = {"m.relates_to": THREAD}
    edit = {"m.relates_to": {"rel_type": "m.replace", "event_id": "$first"}}
    reply = {"m.relates_to": {"m.in_reply_to": {"event_id": "$target"}}}
    found = [
        (thread_root(content), edited_event_id(content), replied_to_event_id(content))
        for content in (thread, edit, reply, {})
    ]
    assert found == [("$root", None, "$target"), (None, "$first", None), (None, None, "$target"), (None, None, None)]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["$a", "m.thread", "m.replace", "m.annotation"]),
    lambda children: (
        st.lists(children, max_size=2)
        | st.dictionaries(
            st.sampled_from(["m.relates_to", "rel_type", "event_id", "key", "m.in_reply_to", "is_falling_back"]),
            children,
        )
    ),
)


@given(st.dictionaries(st.just("m.relates_to"), _json))
def test_junk_is_ignored_and_what_is_found_is_well_formed(content: dict[str, object]) -> None:
    relation = relation_of(content)
    root, edited, replied_to = thread_root(content), edited_event_id(content), replied_to_event_id(content)
    assert all(event_id is None or event_id.startswith("$") for event_id in (root, edited, replied_to))
    assert (root or edited) in (None, relation and relation.event_id)
