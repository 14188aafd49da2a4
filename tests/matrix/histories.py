"""Histories of rooms that fork and merge, as servers would make them, and as they could not."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from matrix.event_auth import auth_event_keys, check_event_auth
from matrix.pdu import Pdu
from matrix.room_versions import RoomVersion
from matrix.state_res import StateMap, resolve_state
from tests.matrix.rooms import ALICE, ALL_VERSIONS, BOB, CAROL, CREATOR, Room

USERS = (CREATOR, ALICE, BOB, CAROL)
ACTIONS = ("join", "leave", "invite", "kick", "ban", "levels", "join_rules", "topic", "setting")
LEVELS = (0, 25, 50, 75, 100)
JOIN_RULES = ("public", "invite", "knock", "restricted")


class History:
    """All events of a room, and the state after each. It begins with a public room that the creator has joined."""

    def __init__(self, version: RoomVersion, levels: Mapping[str, int] | None = None, **level: int) -> None:
        self.version = version
        self.room = Room(version)
        self.events: dict[str, Pdu] = {}
        self.states: dict[str, StateMap] = {}
        self.ids: list[str] = []
        self._keep(self.room.create, {})
        self.add("m.room.member", CREATOR, {"membership": "join"}, CREATOR)
        users = dict(levels or {})
        if not version.creators_have_infinite_power:
            users.setdefault(CREATOR, 100)
        self.add("m.room.power_levels", CREATOR, {"users": users, **level}, "")
        self.add("m.room.join_rules", CREATOR, {"join_rule": "public"}, "")

    @property
    def newest(self) -> Pdu:
        """The event that was added last."""
        return self.events[self.ids[-1]]

    def at(self, pdu: Pdu) -> "History":
        """The history as far as this event, to go on from there. Both have all events of both."""
        branch = copy(self)
        branch.ids = self.ids[: self.ids.index(pdu.event_id) + 1]
        return branch

    def state(self, *parents: Pdu) -> dict[tuple[str, str], str]:
        """The state before an event with these prev_events."""
        return resolve_state(self.version, [self.states[pdu.event_id] for pdu in parents], self.events)

    def make(
        self,
        type: str,
        sender: str,
        content: Mapping[str, Any],
        state_key: str | None,
        parents: Sequence[Pdu] | None = None,
        ts: int | None = None,
        auth: Sequence[Pdu] | None = None,
    ) -> tuple[Pdu, dict[tuple[str, str], str]]:
        """An event after its parents, by default the newest, and the state before it. It is not added."""
        parents = [self.newest] if parents is None else parents
        state = self.state(*parents)
        if auth is None:
            keys = auth_event_keys(self.version, type, sender, state_key, content)
            auth = [self.events[state[key]] for key in keys if key in state]
        depth = 1 + max(parent.depth for parent in parents)
        pdu = self.room.event(
            type,
            sender,
            content,
            state_key,
            prev_events=[self.room.reference(parent) for parent in parents],
            auth_events=[self.room.reference(event) for event in auth],
            depth=depth,
            origin_server_ts=depth if ts is None else ts,
        )
        return pdu, state

    def try_add(self, *arguments: Any, **properties: Any) -> Pdu | None:
        """Add an event with these arguments of `make` if the rules allow it."""
        pdu, state = self.make(*arguments, **properties)
        auth_state = {key: self.events[event_id] for key, event_id in state.items()}
        if check_event_auth(pdu, auth_state, verified_servers=None) is not None:
            return None
        self._keep(pdu, state)
        return pdu

    def add(self, *arguments: Any, **properties: Any) -> Pdu:
        """Add an event with these arguments of `make`, which the rules must allow."""
        pdu = self.try_add(*arguments, **properties)
        assert pdu is not None, f"not allowed: {arguments}"
        return pdu

    def force(self, *arguments: Any, **properties: Any) -> Pdu:
        """Add an event with these arguments of `make`, whatever the rules say."""
        pdu, state = self.make(*arguments, **properties)
        self._keep(pdu, state)
        return pdu

    def member(self, sender: str, target: str, membership: str, *parents: Pdu, **properties: Any) -> Pdu:
        """Add a membership after these parents, by default the newest."""
        content = {"membership": membership}
        return self.add("m.room.member", sender, content, target, parents=parents or None, **properties)

    def levels(self, sender: str, users: Mapping[str, int], *parents: Pdu, ts: int | None = None, **level: int) -> Pdu:
        """Add power levels; the creator has 100 where levels of creators are finite."""
        users = dict(users)
        if not self.version.creators_have_infinite_power:
            users.setdefault(CREATOR, 100)
        content = {"users": users, **level}
        return self.add("m.room.power_levels", sender, content, "", parents=parents or None, ts=ts)

    def topic(self, sender: str, topic: str, *parents: Pdu, ts: int | None = None) -> Pdu:
        """Add a topic."""
        return self.add("m.room.topic", sender, {"topic": topic}, "", parents=parents or None, ts=ts)

    def resolve(self, *tips: Pdu, **options: Any) -> dict[tuple[str, str], str]:
        """The resolution of the states after these events."""
        return resolve_state(self.version, [self.states[pdu.event_id] for pdu in tips], self.events, **options)

    def _keep(self, pdu: Pdu, state: StateMap) -> None:
        self.events[pdu.event_id] = pdu
        self.ids.append(pdu.event_id)
        self.states[pdu.event_id] = {**state, pdu.state_key_pair: pdu.event_id} if pdu.is_state else state


@dataclass(frozen=True)
class Step:
    """What somebody does somewhere in a history. All numbers count in circles."""

    action: str
    actor: int
    target: int
    value: int
    parents: tuple[int, ...]
    """How far back in the order of making."""
    ts: int
    forced_auth: int | None = None
    """If given, the event is added even if the rules forbid it, and its auth events are from a state this far back."""

    def apply(self, history: History) -> None:
        """Add the event, if that is allowed or forced."""
        sender, target = USERS[self.actor % len(USERS)], USERS[self.target % len(USERS)]
        count = len(history.ids)
        parent_ids = dict.fromkeys(history.ids[-1 - back % count] for back in self.parents)
        parents = [history.events[event_id] for event_id in parent_ids]
        type, state_key, content = self._content(history, sender, target)
        if self.forced_auth is None:
            history.try_add(type, sender, content, state_key, parents=parents, ts=self.ts)
            return
        state = history.states[history.ids[-1 - self.forced_auth % count]]
        keys = auth_event_keys(history.version, type, sender, state_key, content)
        auth = [history.events[state[key]] for key in keys if key in state]
        history.force(type, sender, content, state_key, parents=parents, ts=self.ts, auth=auth)

    def _content(self, history: History, sender: str, target: str) -> tuple[str, str, dict[str, Any]]:
        if self.action in ("join", "leave"):
            return "m.room.member", sender, {"membership": self.action}
        if self.action in ("invite", "kick", "ban"):
            return "m.room.member", target, {"membership": "leave" if self.action == "kick" else self.action}
        if self.action == "levels":
            users = {user: LEVELS[(self.value >> 3 * index) % len(LEVELS)] for index, user in enumerate(USERS[1:])}
            if not history.version.creators_have_infinite_power:
                users[CREATOR] = 100
            return "m.room.power_levels", "", {"users": users}
        if self.action == "join_rules":
            return "m.room.join_rules", "", {"join_rule": JOIN_RULES[self.value % len(JOIN_RULES)]}
        if self.action == "topic":
            return "m.room.topic", "", {"topic": str(self.value)}
        return "org.example.setting", str(self.value % 3), {}


def steps(actors: Sequence[int] = range(4), *, hostile: bool, max_size: int = 20) -> st.SearchStrategy[list[Step]]:
    """What some of the users do; hostile ones do what the rules forbid, too."""
    step = st.builds(
        Step,
        action=st.sampled_from(ACTIONS),
        actor=st.sampled_from(actors),
        target=st.integers(0, 3),
        value=st.integers(0, 511),
        parents=st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple),
        ts=st.integers(0, 8),
        forced_auth=st.none() | st.integers(0, 9) if hostile else st.none(),
    )
    return st.lists(step, min_size=1, max_size=max_size)


@st.composite
def histories(
    draw: st.DrawFn, versions: Sequence[RoomVersion] = tuple(ALL_VERSIONS), *, hostile: bool = False
) -> History:
    """A history of one to twenty steps; hostile ones have events in them that the rules forbid."""
    history = History(draw(st.sampled_from(versions)))
    for user in USERS[1:]:
        history.member(user, user, "join")
    history.levels(CREATOR, {ALICE: draw(st.sampled_from(LEVELS)), BOB: draw(st.sampled_from(LEVELS))})
    for step in draw(steps(hostile=hostile)):
        step.apply(history)
    return history


@st.composite
def conflicts(
    draw: st.DrawFn, versions: Sequence[RoomVersion] = tuple(ALL_VERSIONS), *, hostile: bool = False
) -> tuple[History, list[StateMap]]:
    """A history and the states after some of its events; hostile ones are put together at random now and then."""
    history = draw(histories(versions, hostile=hostile))
    back = draw(st.lists(st.integers(0, len(history.ids) - 1), min_size=1, max_size=4, unique=True))
    states = [history.states[history.ids[-1 - index]] for index in back]
    if hostile and draw(st.booleans()):
        values: dict[tuple[str, str], list[str | None]] = {}
        for pdu in history.events.values():
            values.setdefault(pdu.state_key_pair, [None]).append(pdu.event_id)
        chosen = st.fixed_dictionaries({key: st.sampled_from(ids) for key, ids in values.items()})
        made_up = {key: event_id for key, event_id in draw(chosen).items() if event_id is not None}
        states.append(made_up)
    return history, states
