"""Whatever the order of events, answers and crashes, a destination gets every event, in order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from homeserver.services.federation.sending import queue as queues
from homeserver.services.federation.sending.edus import Edu, combine
from homeserver.services.federation.sending.queue import Batch, DestinationQueue

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("events"), st.integers(1, 260)),
        st.tuples(st.just("compose"), st.just(0)),
        st.tuples(st.just("answer"), st.just(0)),
        st.tuples(st.just("persist"), st.just(0)),
        st.tuples(st.just("crash"), st.just(0)),
    ),
    max_size=40,
)


class World:
    """One destination: `stored` is what the database has, `got` what the destination was sent, in order."""

    def __init__(self) -> None:
        self.stored: list[int] = []
        self.persisted = 0
        self.got: list[int] = []
        self.batch: Batch | None = None
        self.queue = DestinationQueue("a.example", 0)

    def add(self, count: int) -> None:
        for _ in range(count):
            position = (self.stored[-1] if self.stored else 0) + 2
            self.stored.append(position)
            self.queue.add_event(position)

    def compose(self) -> None:
        """Makes a batch, if there is none under way, and brings it to the destination."""
        if self.batch is not None or not self.queue.has_work:
            return
        queue = self.queue
        if not queue.is_behind:
            self.batch = queue.from_memory()
        else:
            found = [position for position in self.stored if position > queue.acknowledged]
            self.batch = queue.from_storage(found[: queues.FAR_BEHIND_EVENTS], queue.newest)
        assert len(self.batch.positions) <= queues.MAX_PDUS
        assert len(set(self.batch.positions)) == len(self.batch.positions)
        self.got += self.batch.positions

    def answer(self) -> None:
        if self.batch is not None:
            self.queue.acknowledge(self.batch)
            self.batch = None

    def persist(self) -> None:
        self.persisted = self.queue.acknowledged

    def crash(self) -> None:
        self.batch = None
        self.queue = DestinationQueue("a.example", self.persisted)
        if self.stored and self.stored[-1] > self.persisted:
            self.queue.fall_behind(self.stored[-1])


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_every_event_arrives_in_order(steps: list[tuple[str, int]]) -> None:
    world = World()
    for step, count in steps:
        if step == "events":
            world.add(count)
        else:
            getattr(world, step)()
        assert len(world.queue.events) <= queues.MAX_PENDING_EVENTS
    while world.queue.has_work:
        world.compose()
        world.answer()
    assert list(dict.fromkeys(world.got)) == world.stored, "what is sent again after a crash does not count"
    assert world.queue.acknowledged >= (world.stored[-1] if world.stored else 0)


def test_who_is_far_behind_gets_the_newest_event_of_each_room() -> None:
    queue = DestinationQueue("a.example", 0)
    queue.fall_behind(5_000)
    rooms = list(range(5_000, 4_880, -1))
    queue.leap(rooms, 5_000)
    got: list[int] = []
    while queue.is_leaping:
        batch = queue.from_leap()
        assert queue.acknowledged == 0, "a crash begins anew"
        got += batch.positions
        queue.add_event(5_001)
        queue.acknowledge(batch)
    assert got == rooms
    assert queue.acknowledged == 5_000
    assert queue.is_behind, "what came meanwhile is read on"


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30))
def test_a_newer_edu_replaces_an_older_one(edus: list[tuple[int, bool]]) -> None:
    queue = DestinationQueue("a.example", 0)
    for room, typing in edus:
        queue.add_edu(("m.typing", str(room)), Edu("m.typing", {"room_id": str(room), "typing": typing}))
    taken = [edu.content for edu in queue.take_edus(100)]
    assert {content["room_id"]: content["typing"] for content in taken} == {str(room): t for room, t in edus}
    assert len(taken) == len({room for room, _ in edus})


def test_receipts_and_presence_are_put_together() -> None:
    def receipt(room: str, user: str, event_id: str) -> Edu:
        return Edu("m.receipt", {room: {"m.read": {user: {"event_ids": [event_id]}}}})

    parts = [receipt("!a", "@a", "$1"), receipt("!a", "@b", "$1"), receipt("!b", "@a", "$2"), receipt("!a", "@a", "$3")]
    presence = [Edu("m.presence", {"push": [{"user_id": user}]}) for user in ("@a", "@b")]
    combined = combine([*parts, *presence])
    assert [edu["edu_type"] for edu in combined] == ["m.receipt", "m.receipt", "m.presence"]
    assert combined[0]["content"]["!a"]["m.read"].keys() == {"@a", "@b"}
    assert combined[1]["content"] == parts[3].content
    assert combined[2]["content"] == {"push": [{"user_id": "@a"}, {"user_id": "@b"}]}
    assert parts[0].content == {"!a": {"m.read": {"@a": {"event_ids": ["$1"]}}}}, "what waits elsewhere is left alone"
