"""Room history visibility: https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.history_visibility import VISIBILITIES, Standing, is_event_visible, may_see_event, visibility_of

ALICE = "@alice:example.org"
MEMBERSHIPS = ("join", "invite", "knock", "leave", "ban", None)

# For each visibility: the memberships that see an event, first with no later join, then with one.
VISIBLE_TO: dict[str, tuple[set[str | None], set[str | None]]] = {
    "world_readable": (set(MEMBERSHIPS), set(MEMBERSHIPS)),
    "shared": ({"join"}, set(MEMBERSHIPS)),
    "invited": ({"join", "invite"}, {"join", "invite"}),
    "joined": ({"join"}, {"join"}),
}


@pytest.mark.parametrize("joined_since", [False, True])
@pytest.mark.parametrize("membership", MEMBERSHIPS)
@pytest.mark.parametrize("visibility", sorted(VISIBILITIES))
def test_every_visibility_for_every_membership(visibility: str, membership: str | None, joined_since: bool) -> None:
    visible = is_event_visible(visibility=visibility, membership=membership, joined_since=joined_since)
    assert visible is (membership in VISIBLE_TO[visibility][joined_since])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        *(({"history_visibility": visibility}, visibility) for visibility in sorted(VISIBILITIES)),
        (None, "shared"),
        ({}, "shared"),
        ({"history_visibility": "org.example.mine"}, "shared"),
        ({"history_visibility": "World_Readable"}, "shared"),
        ({"history_visibility": ["joined"]}, "shared"),
        ({"history_visibility": None}, "shared"),
    ],
)
def test_visibility_that_is_not_set_or_not_understood_is_shared(content: dict[str, object], expected: str) -> None:
    assert visibility_of(content) == expected


def see(event: dict[str, object], before: tuple[str, str | None], after: tuple[str, str | None]) -> bool:
    return may_see_event(event, ALICE, before=Standing(*before), after=Standing(*after), joined_since=False)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("world_readable", "joined", True),
        ("joined", "world_readable", True),
        ("joined", "shared", False),
        ("invited", "joined", False),
    ],
)
def test_change_of_visibility_is_seen_by_the_old_or_the_new_one(before: str, after: str, expected: bool) -> None:
    event: dict[str, object] = {"type": "m.room.history_visibility", "state_key": ""}
    assert see(event, (before, None), (after, None)) is expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, "join", True),
        ("join", "leave", True),
        ("join", "ban", True),
        ("leave", "invite", False),
        (None, "knock", False),
    ],
)
def test_own_membership_events_are_seen_by_the_old_or_the_new_membership(
    before: str | None, after: str, expected: bool
) -> None:
    event: dict[str, object] = {"type": "m.room.member", "state_key": ALICE}
    assert see(event, ("joined", before), ("joined", after)) is expected


@pytest.mark.parametrize("before", ["leave", None])
def test_own_invite_is_seen_where_invites_open_history(before: str | None) -> None:
    event: dict[str, object] = {"type": "m.room.member", "state_key": ALICE}
    assert see(event, ("invited", before), ("invited", "invite"))
    assert see(event, ("invited", "invite"), ("invited", before))


@pytest.mark.parametrize(
    "event",
    [
        {"type": "m.room.message"},
        {"type": "m.room.member", "state_key": "@bob:example.org"},
        {"type": "m.room.member"},
        {"type": "m.room.history_visibility", "state_key": "x"},
        {"type": "m.room.history_visibility"},
        {},
    ],
)
def test_other_events_are_judged_by_the_state_before_them(event: dict[str, object]) -> None:
    assert not see(event, ("joined", None), ("world_readable", "join"))
    assert see(event, ("world_readable", None), ("joined", None))


_standings = st.builds(Standing, st.sampled_from(sorted(VISIBILITIES)), st.sampled_from(MEMBERSHIPS))


@given(_standings, st.booleans())
def test_joining_later_never_hides_an_event(standing: Standing, joined_since: bool) -> None:
    visibility, membership = standing.visibility, standing.membership
    if is_event_visible(visibility=visibility, membership=membership, joined_since=False):
        assert is_event_visible(visibility=visibility, membership=membership, joined_since=joined_since)
    assert is_event_visible(visibility=visibility, membership="join", joined_since=joined_since)


@given(_standings, _standings, st.booleans(), st.sampled_from(["m.room.message", "m.room.member"]))
def test_what_the_state_before_shows_is_seen(
    before: Standing, after: Standing, joined_since: bool, event_type: str
) -> None:
    event: dict[str, object] = {"type": event_type, "state_key": ALICE}
    shown = is_event_visible(visibility=before.visibility, membership=before.membership, joined_since=joined_since)
    seen = may_see_event(event, ALICE, before=before, after=after, joined_since=joined_since)
    assert seen or not shown
