"""Answers by models: checked line by line, streamed, cached, and replaced by the built-in engine's when models fail."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import pytest

from appservices.summary_bot.engines.models.cache import MIN_KNOWN
from appservices.summary_bot.engines.models.chunks import OVERLAP_MESSAGES
from appservices.summary_bot.engines.models.folding import MAX_FACTS
from tests.summary_bot.model_server import Items, ModelServer, honest_facts, model_server, provider
from tests.summary_bot.support import BOT, Event, Person, Site, is_answer
from tests.summary_bot.test_trust import ask_api, texts

TALK = (
    "We decided to ship version 2 on Friday.",
    "Who writes the release notes?",
    "I'll prepare the migration guide.",
    "I disagree about Friday, it is too early.",
)


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    """A model server."""
    async with model_server() as server:
        yield server


async def room_with_talk(person: Person, *lines: str) -> str:
    room_id = await person.room_with_bot(name="Release")
    for line in lines or TALK:
        await person.user.send(room_id, line)
    return room_id


def bodies(person: Person) -> list[str]:
    return [e["content"]["body"] for events in person.rooms.values() for e in events if is_answer(e)]


def last_version(person: Person, event: Event) -> dict[str, Any]:
    """What a message says after its edits."""
    content: dict[str, Any] = event["content"]
    for events in person.rooms.values():
        for other in events:
            relates = other["content"].get("m.relates_to", {})
            if relates.get("rel_type") == "m.replace" and relates.get("event_id") == event["event_id"]:
                content = other["content"]["m.new_content"]
    return content


async def test_every_line_of_a_models_answer_is_borne_out(site: Site, model: ModelServer) -> None:
    async with site.bot(providers=[provider(model)]):
        alice = await site.person()
        room_id = await room_with_talk(alice)
        await alice.user.send(room_id, "!summary 2h")
        answer = await alice.wait_answer("Written by test-model", without=room_id)
        body = answer["content"]["body"]
        assert all(line in body for line in TALK)
        assert "4 of 4 messages" in body
        assert model.requests[0]["response_format"]["type"] == "json_schema"
        assert f"{alice.user_id}" not in model.prompts


async def test_lies_are_dropped_and_counted(site: Site, model: ModelServer) -> None:
    model.always = "lie"
    async with site.bot(providers=[provider(model)]):
        alice = await site.person()
        room_id = await room_with_talk(alice)
        await alice.user.send(room_id, "!summary 2h")
        answer = await alice.wait_answer("4 lines were dropped", without=room_id)
        assert "900 million" not in answer["content"]["body"]


@pytest.mark.parametrize(
    ("plan", "calls"),
    [([429, 503, "honest"], 3), (["invalid", "honest"], 2)],
    ids=["retried", "repaired"],
)
async def test_what_may_pass_is_tried_again(site: Site, model: ModelServer, plan: list[object], calls: int) -> None:
    model.plan = list(plan)
    async with site.bot(providers=[provider(model)]):
        alice = await site.person()
        room_id = await room_with_talk(alice)
        await alice.user.send(room_id, "!summary 2h")
        await alice.wait_answer("Written by test-model", without=room_id)
        assert len(model.requests) == calls


@pytest.mark.parametrize(
    ("always", "reason", "calls"),
    [(500, "none answered", 3), (401, "none answered", 1), ("invalid", "the answer made no sense", 2)],
    ids=["down", "refused", "nonsense"],
)
async def test_the_built_in_engine_steps_in_and_says_so(
    site: Site, model: ModelServer, always: object, reason: str, calls: int
) -> None:
    model.always = always
    async with site.bot(providers=[provider(model)]):
        alice = await site.person()
        room_id = await room_with_talk(alice)
        await alice.user.send(room_id, "!summary 2h")
        answer = await alice.wait_answer(f"No model could be used ({reason})", without=room_id)
        assert "ship version 2" in answer["content"]["body"]
        assert len(model.requests) == calls


async def test_the_next_provider_is_asked_when_one_stalls(site: Site, model: ModelServer) -> None:
    async with model_server() as other:
        other.always = "stall"
        first = provider(other, name="first", try_timeout_ms=300, tries=1)
        async with site.bot(providers=[first, provider(model)]):
            alice = await site.person()
            room_id = await room_with_talk(alice)
            await alice.user.send(room_id, "!summary 2h")
            await alice.wait_answer("Written by test-model", without=room_id)
            assert len(other.requests) == 1


async def test_a_room_can_be_kept_to_local_models(site: Site, model: ModelServer) -> None:
    async with site.bot(providers=[provider(model)]):
        alice = await site.person()
        room_id = await room_with_talk(alice)
        await alice.user.send(room_id, "!local on")
        await alice.wait_answer("kept to local models", room_id=room_id)
        await alice.user.send(room_id, "!summary 2h")
        await alice.wait_answer("none is set up", without=room_id)
        assert model.requests == []


async def test_a_second_summary_pays_only_for_what_is_new(site: Site, model: ModelServer) -> None:
    async with site.bot(providers=[provider(model)]) as bot:
        alice = await site.person()
        lines = [f"The part number {n} of the long report is about the harvest of field {n}." for n in range(200)]
        room_id = await alice.room_with_bot(name="Release")
        said = [await alice.user.send(room_id, line) for line in lines]
        await alice.user.send(room_id, "!summary 2h")
        await alice.wait_answer("200 of 200 messages", without=room_id)
        first = model.input_tokens
        assert len(folds(model)) == 1
        asked = await alice.user.send(room_id, "!summary 2h")
        await alice.wait(lambda _, event: asked in str(event["content"].get("m.relates_to")))
        await bot.until_idle()
        assert model.input_tokens == first
        for n in range(3):
            await alice.user.send(room_id, f"The new part number {n} is about the price of straw in the region {n}.")
        model.requests.clear()
        await alice.user.send(room_id, "!summary 2h")
        await alice.wait_answer("203 of 203 messages", without=room_id)
        assert len(model.requests) in (2, 3)  # two where the new messages do not end a chunk, as nearly always
        # Where chunks end follows from the IDs of events: a last one of a few messages is shown whole again.
        assert len(model.seen) < 3 + max(OVERLAP_MESSAGES + 1, MIN_KNOWN)
        # Then all is folded anew, too, else what is new into the earlier answer.
        assert model.input_tokens < (0.4 if folds(model)[0] < 200 else 0.55) * first
        pool = bot.bot.database.pool
        assert await pool.fetchval("SELECT count(DISTINCT fold) FROM fold_parts") == 2
        (await alice.user.in_room("PUT", room_id, f"redact/{quote(said[0], safe='')}/r1", {})).ok()
        await alice.user.send(room_id, "!usage")
        await alice.wait_answer("Used today", without=room_id)
        assert await pool.fetchval("SELECT count(*) FROM fold_parts") == 0


async def test_a_long_history_is_folded_in_groups_and_loses_nothing(site: Site, model: ModelServer) -> None:
    async with site.bot(providers=[provider(model)]):
        alice = await site.person()
        lines = [f"The report number {n} tells of the harvest of field {n}." for n in range(600)]
        lines[7] = "We decided to sell the old tractor to the museum."
        room_id = await room_with_talk(alice, *lines)
        model.always = only_decisions_of_folds
        answer = (await ask_api(site, alice, room_id, range="2h")).ok()
        assert "We decided to sell the old tractor to the museum." in texts(answer)
        assert all(fold <= MAX_FACTS for fold in folds(model))
        assert len(folds(model)) >= 2  # wherever chunks end: 60 facts of at most 80 messages each are more than 240


def folds(model: ModelServer) -> list[int]:
    """How many facts each fold was made of."""
    asked = [json.loads(request["messages"][1]["content"]) for request in model.requests]
    return [len(data["facts"]) for data in asked if "facts" in data]


def only_decisions_of_folds(data: dict[str, Any]) -> Items:
    """What an honest model does that folds much into little."""
    if "facts" not in data:
        return honest_facts(data)
    found = [fact for fact in data["facts"] if fact["kind"] == "decision"] + data["facts"][:10]
    return [{"kind": f["kind"], "text": f["text"], "owner": None, "facts": [f["id"]]} for f in found]


async def test_an_answer_is_shown_while_it_is_written(site: Site, model: ModelServer) -> None:
    model.pause_s = 0.15
    async with site.bot(providers=[provider(model)]):
        alice = await site.person()
        room_id = await room_with_talk(alice)
        await alice.user.send(room_id, "!summary 2h")
        begun = await alice.wait_answer("Reading…", without=room_id)
        await alice.wait_answer("Written by test-model", without=room_id)
        whole = last_version(alice, begun)
        assert "Reading…" not in whole["body"]
        assert all(line in whole["body"] for line in TALK)
        assert whole["m.mentions"] == {}
        edits = [e for events in alice.rooms.values() for e in events if "m.new_content" in e["content"]]
        times = [e["origin_server_ts"] for e in edits]
        assert all(b - a >= 900 for a, b in pairwise(times[:-1]))
        assert all(e["sender"] == BOT for e in edits)


async def test_a_redacted_question_stops_the_work(site: Site, model: ModelServer) -> None:
    model.always = "stall"
    async with site.bot(providers=[provider(model)]) as bot:
        alice = await site.person()
        room_id = await room_with_talk(alice)
        asked = await alice.user.send(room_id, "!summary 2h")
        await model.stalled.wait()
        (await alice.user.in_room("PUT", room_id, f"redact/{asked}/r1", {})).ok()
        await bot.until_idle()
        usage = await bot.bot.budgets.sum_usage(0, alice.user_id, None)
        assert usage.calls == 1
        await alice.look()
        assert not any("Summary of" in body for body in bodies(alice))
