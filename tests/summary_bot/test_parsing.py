"""The pure parts: commands, ranges, messages from events, visibility, splitting, chunks, breakers, digests' times."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appservices.summary_bot.answers.split import MAX_CONTENT_BYTES, Piece, split
from appservices.summary_bot.clock import DAY_MS, HOUR_MS, MINUTE_MS
from appservices.summary_bot.commands.model import Command, Mistake
from appservices.summary_bot.commands.parse import address, parse_message
from appservices.summary_bot.engines.models.breaker import FAILURES_TO_OPEN, FIRST_PAUSE_MS, Breaker
from appservices.summary_bot.engines.models.chunks import chunk_hash, chunks_of
from appservices.summary_bot.events import Message, build_messages
from appservices.summary_bot.matrix.courier import Target, edit, notice
from appservices.summary_bot.ranges import Range
from appservices.summary_bot.schedules.times import next_time
from appservices.summary_bot.texts import LANGUAGES, say
from appservices.summary_bot.texts.english import TEXTS
from appservices.summary_bot.visibility import Now, visible_to, visible_to_all

NAMES = ("@summary:weft.test", "Summary")


def parse(text: str, *, is_direct: bool = False) -> Command | Mistake | None:
    return parse_message(text, names=NAMES, is_direct=is_direct, max_messages=10_000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("!summary 2h", Range("duration", duration_ms=2 * HOUR_MS)),
        ("！summary today", Range("today")),
        ("!summary 200", Range("count", count=200)),
        ("Summary: summary 3d", Range("duration", duration_ms=3 * DAY_MS)),
        ("@summary:weft.test !summary 3d", Range("duration", duration_ms=3 * DAY_MS)),
    ],
)
def test_ranges_are_read(text: str, expected: Range) -> None:
    command = parse(text)
    assert isinstance(command, Command)
    assert command.scope.range == expected


def test_arguments_combine_and_about_takes_the_rest() -> None:
    command = parse("!summary @bob 2026-11-01..03 here thread about the big 2h release")
    assert isinstance(command, Command)
    scope = command.scope
    assert (scope.sender, scope.here, scope.thread, scope.about) == ("@bob", True, True, "the big 2h release")
    assert scope.range.span(0) == (
        int(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1000),
        int(datetime(2026, 11, 4, tzinfo=UTC).timestamp() * 1000),
    )


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("What was decided about the bridge, Summary?", "What was decided about the bridge?"),
        ("Hey @summary:weft.test, who paints it?", "Hey who paints it?"),
        ("Summary who paints it?", "who paints it?"),
        ("问一下@Summary昨天定了什么？", "问一下昨天定了什么？"),
    ],
)
def test_a_mention_may_stand_anywhere(text: str, question: str) -> None:
    command = parse(address(text, NAMES) or "")
    assert isinstance(command, Command)
    assert (command.verb, command.text) == ("ask", question)


@pytest.mark.parametrize("text", ["thanks!", "@summary:other.test knows", "Summaryx knows", ""])
def test_without_its_name_it_is_not_mentioned(text: str) -> None:
    assert address(text, NAMES) is None


@pytest.mark.parametrize("text", ["hello", "!weather Berlin", "summary of the day", "Summaryx: help", "1!summary"])
def test_what_is_not_meant_for_the_bot_is_nothing_to_it(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    "text",
    ["!summary 0", "!summary 2026-13-01", "!summary 2026-11-03..01", "!summary 2h today", "!ask", "!digest daily 25:00",
     "!digest daily 08:00 Mars/Base", "!lang xx", "!role use", "!ignore bob", "!budget person @a:b lots"],
)  # fmt: skip
def test_wrong_arguments_are_mistakes(text: str) -> None:
    mistake = parse(text)
    assert isinstance(mistake, Mistake)
    assert f"mistake_{mistake.hint}" in TEXTS


@given(st.text(max_size=300), st.booleans())
def test_any_text_is_read_without_failing(text: str, is_direct: bool) -> None:
    found = parse(text, is_direct=is_direct)
    assert found is None or isinstance(found, Command | Mistake)
    if isinstance(found, Mistake):
        assert say("de", f"mistake_{found.hint}", word=found.word)


def test_every_line_of_every_language_has_the_values_of_the_english_one() -> None:
    for language, texts in LANGUAGES.items():
        for name, line in texts.items():
            wanted = {part.split("}")[0] for part in TEXTS[name].split("{")[1:]}
            assert {part.split("}")[0] for part in line.split("{")[1:]} <= wanted, f"{language} {name}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
HOSTILE = st.fixed_dictionaries(
    {
        "event_id": st.sampled_from(["$a", "$b", "$c", 1]),
        "sender": st.sampled_from(["@a:x", "@b:x", None]),
        "type": st.sampled_from(["m.room.message", "m.reaction", "m.room.member"]),
        "origin_server_ts": st.integers(0, 10) | st.text(max_size=2),
        "content": st.dictionaries(st.sampled_from(["msgtype", "body", "m.relates_to", "m.mentions"]), JSON) | JSON,
    },
    optional={"unsigned": JSON, "state_key": JSON},
)


@given(st.lists(HOSTILE, max_size=8))
def test_hostile_events_make_no_failure(events: list[Any]) -> None:
    for message in build_messages(events):
        assert message.body
        assert message.event_id.startswith("$")


def said(event_id: str, body: str, sender: str = "@a:x", ts: int = 0, **content: Any) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "sender": sender,
        "type": "m.room.message",
        "origin_server_ts": ts,
        "content": {"msgtype": "m.text", "body": body, **content},
    }


def test_the_authors_newest_edit_counts_and_nobody_elses() -> None:
    def edited(event_id: str, sender: str, body: str, ts: int) -> dict[str, Any]:
        relation = {"rel_type": "m.replace", "event_id": "$1"}
        new = {"msgtype": "m.text", "body": body}
        return said(event_id, f"* {body}", sender, ts, **{"m.relates_to": relation, "m.new_content": new})

    events = [said("$1", "first"), edited("$3", "@a:x", "third", 3), edited("$2", "@a:x", "second", 2)]
    events.append(edited("$4", "@b:x", "forged", 4))
    (message,) = build_messages(events)
    assert (message.body, message.edit_id) == ("third", "$3")


STEPS = st.lists(
    st.tuples(st.sampled_from(["world_readable", "shared", "invited", "joined"]), st.just("visibility"))
    | st.tuples(st.sampled_from(["join", "leave", "invite", "ban"]), st.sampled_from(["@a:x", "@b:x"]))
    | st.just(("message", "")),
    max_size=25,
)


def history(steps: list[tuple[str, str]]) -> tuple[list[dict[str, Any]], list[tuple[str, dict[str, str]]], Now]:
    """(events with what each replaced, the true state before each, the state in the end)."""
    visibility, members = "shared", {"@a:x": "leave", "@b:x": "leave"}
    events, truth = [], []
    for number, (what, who) in enumerate(steps):
        truth.append((visibility, dict(members)))
        event = said(f"${number}", "hello", ts=number)
        if who == "visibility":
            before = {"history_visibility": visibility}
            state = {"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": what}}
            event |= state | {"unsigned": {"prev_content": before}}
            visibility = what
        elif who:
            state = {"type": "m.room.member", "state_key": who, "content": {"membership": what}}
            event |= state | {"unsigned": {"prev_content": {"membership": members[who]}}}
            members[who] = what
        events.append(event)
    joined = frozenset(user for user, membership in members.items() if membership == "join")
    return events, truth, Now(visibility, joined)


def may_see(visibility: str, membership: str) -> bool:
    """The specification's rules for somebody who is in the room in the end."""
    if visibility in ("world_readable", "shared") or membership == "join":
        return True
    return visibility == "invited" and membership == "invite"


@given(STEPS, st.integers(0, 25))
def test_everybody_sees_what_the_specification_lets_them_see(steps: list[tuple[str, str]], cut: int) -> None:
    events, truth, now = history(steps)
    events, truth = events[cut:], truth[cut:]  # the bot reads the newest part alone
    for user in ("@a:x", "@b:x"):
        inside = user in now.joined
        expected = [inside and may_see(visibility, members[user]) for visibility, members in truth]
        assert visible_to(events, now, user) == expected
    expected = [all(may_see(visibility, members[user]) for user in now.joined) for visibility, members in truth]
    assert visible_to_all(events, now) == expected


@given(st.lists(st.tuples(st.text(max_size=3000), st.booleans()), max_size=60))
def test_parts_fit_into_events_and_keep_the_order(lines: list[tuple[str, bool]]) -> None:
    parts = split([Piece(text, f"<p>{len(text)}</p>", is_item) for text, is_item in lines])
    for part in parts:
        for content in (notice(part, Target("!r", "$e", "$t")), edit(part, "$e")):
            assert len(json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")) < 60_000
        assert part.html.count("<ul>") == part.html.count("</ul>")
    assert all(len(part.plain) <= MAX_CONTENT_BYTES for part in parts)


@given(st.integers(0, 400), st.integers(0, 300), st.randoms(use_true_random=False))
def test_a_longer_history_has_the_same_chunks(count: int, skip: int, random: Any) -> None:
    ts, messages = 0, []
    for number in range(count):
        ts += random.choice([MINUTE_MS, MINUTE_MS, 3 * HOUR_MS])
        thread = random.choice([None, None, "$t"])
        messages.append(Message(f"$event{number}", "@a:x", ts, f"text {number}", thread))
    whole = chunks_of(messages)
    assert sorted(m.event_id for chunk in whole for m in chunk) == sorted(m.event_id for m in messages)
    grown = [*messages, Message("$new", "@a:x", ts + 1, "new")]
    before, after = {chunk_hash(c) for c in whole}, {chunk_hash(c) for c in chunks_of(grown)}
    assert len(before - after) <= 1
    assert skip >= 0


def test_an_edit_changes_the_hash_of_its_chunk() -> None:
    message = Message("$1", "@a:x", 0, "one")
    assert chunk_hash((message,)) != chunk_hash((replace(message, edit_id="$2"),))
    assert chunk_hash((message,), "en") != chunk_hash((message,), "de")


def test_a_breaker_lets_one_call_try_after_a_pause_that_doubles() -> None:
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN):
        assert breaker.may_call(0)
        breaker.fail(0)
    assert not breaker.may_call(FIRST_PAUSE_MS - 1)
    assert breaker.may_call(FIRST_PAUSE_MS)
    assert not breaker.may_call(FIRST_PAUSE_MS)
    breaker.fail(FIRST_PAUSE_MS)
    assert not breaker.may_call(3 * FIRST_PAUSE_MS - 1)
    assert breaker.may_call(3 * FIRST_PAUSE_MS)
    breaker.succeed()
    assert breaker.may_call(0)


@given(st.integers(0, 4_000_000_000_000), st.integers(0, 1439), st.sampled_from(["day", "week:0", "week:6"]),
       st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"]))  # fmt: skip
def test_the_next_digest_is_ahead_and_not_too_far(now: int, minute: int, every: str, zone: str) -> None:
    found = next_time(now, every, minute, zone)
    assert now < found <= now + (8 if every != "day" else 2) * DAY_MS


def test_digests_follow_the_clock_on_the_wall() -> None:
    before = int(datetime(2026, 3, 28, 12, tzinfo=UTC).timestamp() * 1000)  # the clock goes forward in the night
    assert next_time(before, "day", 480, "Europe/Berlin") == int(
        datetime(2026, 3, 29, 6, tzinfo=UTC).timestamp() * 1000
    )
