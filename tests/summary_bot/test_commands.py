"""The bot as people use it: every command that is not a plain summary, its answers, and what must not be in them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from appservices.summary_bot.clock import DAY_MS, MINUTE_MS
from tests.summary_bot.homeservers import DOMAIN
from tests.summary_bot.model_server import ModelServer, model_server, provider
from tests.summary_bot.support import BOT, Person, RunningBot, Site
from tests.summary_bot.test_trust import is_redacted

BOSS = f"@boss:{DOMAIN}"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)


@dataclass(frozen=True, slots=True)
class Office:
    """A bot with a model, a role of its administrators' own, and the model."""

    running: RunningBot
    model: ModelServer


@pytest.fixture(scope="module")
async def office(site: Site, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Office]:
    """One for all tests here."""
    avatar = Path(tmp_path_factory.mktemp("roles")) / "pirate.png"
    avatar.write_bytes(PNG)
    pirate = {"name": "pirate", "description": "Arr.", "prompt": "Write as a pirate.", "avatar_file": str(avatar)}
    async with model_server() as model:
        options = {"providers": [provider(model, transcription_model="ears")], "roles": [pirate]}
        async with site.bot(**options, administrators=[BOSS]) as running:
            yield Office(running, model)


@pytest.fixture(autouse=True)
def honest(office: Office) -> None:
    """Each test begins with a model that is asked for nothing yet."""
    office.model.requests.clear()
    office.running.clock.ahead_ms = 0


async def say(person: Person, room_id: str, body: str, **content: Any) -> str:
    """Sends a message with more in its content."""
    return await person.user.send(room_id, {"msgtype": "m.text", "body": body, **content})


def reply_to(event_id: str) -> dict[str, Any]:
    return {"m.relates_to": {"m.in_reply_to": {"event_id": event_id}}}


async def test_a_catch_up_puts_what_matters_first_and_can_be_asked_why(site: Site, office: Office) -> None:
    alice, bob = await site.person(), await site.person()
    talk = await alice.room_with_bot(bob, name="Talk")
    work = await alice.room_with_bot(bob, name="Work")
    others = await bob.room_with_bot(name="Others", preset="private_chat")
    await bob.user.send(talk, "The weather over the harbour is grey and windy today.")
    mention = {"m.mentions": {"user_ids": [alice.user_id]}}
    decision = await say(bob, work, "We decided to move the warehouse to Hamburg in June.", **mention)
    await bob.user.send(others, "We decided to give Alice a surprise party.")
    await alice.user.send(talk, "!catchup")
    answer = await alice.wait_answer("What matters in your rooms", without=talk)
    body = answer["content"]["body"]
    assert (
        body.index("Work: 1 new messages") < body.index("warehouse") < body.index("Talk: 1 new") < body.index("harbour")
    )
    assert "surprise" not in body
    await alice.user.send(talk, "!why 2")
    why = await alice.wait_answer("Line 2 rests on", "harbour", without=talk)
    await alice.user.send(talk, "!why 1")
    await alice.wait_answer("Line 1 rests on", "warehouse", without=talk)
    await alice.user.send(talk, "!why 3")
    await alice.wait_answer("has no line 3", room_id=talk)
    (await bob.user.in_room("PUT", work, f"redact/{quote(decision, safe='')}/r1", {})).ok()
    await alice.wait(lambda _, __: is_redacted(alice, answer))
    assert not is_redacted(alice, why)


async def test_why_explains_an_answer_in_the_room(site: Site, office: Office) -> None:
    alice = await site.person()
    room_id = await alice.room_with_bot()
    await alice.user.send(room_id, "We decided to rent the blue boat for August.")
    await alice.user.send(room_id, "!decisions here")
    await alice.wait_answer("blue boat", room_id=room_id)
    await alice.user.send(room_id, "!why")
    answer = await alice.wait_answer("Line 1 rests on", without=room_id)
    assert "We decided to rent the blue boat for August." in answer["content"]["body"]


async def test_a_voice_message_is_written_out_for_who_may_hear_it(site: Site, office: Office) -> None:
    alice, bob = await site.person(), await site.person()
    joined = [{"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "joined"}}]
    room_id = await alice.room_with_bot(initial_state=joined)
    headers = {"Content-Type": "audio/mpeg"}
    audio = b"x" * 40_000
    url = (
        await site.homeserver.request(
            "POST", "/_matrix/media/v3/upload", data=audio, headers=headers, token=alice.user.token
        )
    ).ok()["content_uri"]
    recording = {"msgtype": "m.audio", "body": "Voice message", "url": url, "info": {"mimetype": "audio/mpeg"}}
    voice = await alice.user.send(room_id, recording)
    await alice.user.send(room_id, "!transcribe")
    await alice.wait_answer("Reply to a voice message", room_id=room_id)
    await say(alice, room_id, "!transcribe", **reply_to(voice))
    answer = await alice.wait_answer("Transcript:", office.model.transcript, without=room_id)
    assert office.model.requests == [{"model": "ears", "file": "voice.mp3", "bytes": 40_000}]
    used = await office.running.bot.budgets.sum_usage(0, alice.user_id, None)
    assert used.tokens >= 200
    await bob.user.join(room_id)
    await say(bob, room_id, "!transcribe", **reply_to(voice))
    await bob.wait_answer("Reply to a voice message", room_id=room_id)
    (await alice.user.in_room("PUT", room_id, f"redact/{quote(voice, safe='')}/r1", {})).ok()
    await alice.wait(lambda _, __: is_redacted(alice, answer))
    assert len(office.model.requests) == 1


async def test_usage_and_budgets_are_shown_and_set(site: Site, office: Office) -> None:
    alice, boss = await site.person(), Person(await site.homeserver.register("boss"))
    room_id = await alice.room_with_bot(boss)
    await alice.user.send(room_id, "We decided to plant roses along the fence.")
    await alice.user.send(room_id, "!summary 2h")
    await alice.wait_answer("Written by test-model", without=room_id)
    await alice.user.send(room_id, "!usage")
    used = await alice.wait_answer("Used today:", "in 1 calls; 0 from the cache", without=room_id)
    tokens = int(used["content"]["body"].split()[2])
    assert tokens >= office.model.input_tokens > 0
    for refused in ("!usage all", "!budget server 5"):
        asked = await alice.user.send(room_id, refused)
        await alice.wait(lambda _, e, asked=asked: asked in str(e["content"]) and "administrators" in str(e["content"]))
    await boss.user.send(room_id, "!usage all")
    await boss.wait_answer("All together today:", without=room_id)
    await boss.user.send(room_id, f"!budget person {alice.user_id} 10")
    await boss.wait_answer("The budget is set", room_id=room_id)
    await alice.user.send(room_id, "!budget")
    await alice.wait_answer(f"yours: {tokens} of 10 tokens today", "the server:", without=room_id)
    await alice.user.send(room_id, "!actions 2h")
    await alice.wait_answer("the budget of yours for today is spent", without=room_id)


async def looks_of_bot(person: Person, room_id: str) -> dict[str, Any]:
    looks: dict[str, Any] = (await person.user.in_room("GET", room_id, f"state/m.room.member/{quote(BOT)}")).ok()
    return looks


async def test_a_role_has_its_prompt_and_its_looks(site: Site, office: Office) -> None:
    alice, bob = await site.person(), await site.person()
    room_id = await alice.room_with_bot(bob)
    await alice.user.send(room_id, "!role list")
    listed = await alice.wait_answer("assistant is in use", room_id=room_id)
    assert all(name in listed["content"]["body"] for name in ("assistant", "writer", "expert", "casual", "pirate"))
    await bob.user.send(room_id, "!role use pirate")
    await bob.wait_answer("That takes the power", room_id=room_id)
    await alice.user.send(room_id, "!role use corsair")
    await alice.wait_answer("There is no such role", room_id=room_id)
    await alice.user.send(room_id, "!role use pirate")
    await alice.wait_answer("The role here is pirate", room_id=room_id)
    looks = await looks_of_bot(alice, room_id)
    assert (looks["displayname"], looks["avatar_url"][:6]) == ("Summary", "mxc://")
    await alice.user.send(room_id, "We decided to sail at dawn.")
    await alice.user.send(room_id, "!summary 2h here")
    await alice.wait_answer("sail at dawn", room_id=room_id)
    assert "Write as a pirate." in office.model.prompts
    await bob.user.send(room_id, "!help")
    direct, _ = await bob.wait(lambda where, e: where != room_id and e["sender"] == BOT)
    await bob.user.send(direct, "!role use casual")
    await bob.wait_answer("The role here is casual", room_id=direct)
    office.model.requests.clear()
    await bob.user.send(room_id, "!summary 2h")
    await bob.wait_answer("sail at dawn", room_id=direct)
    assert "relaxed and friendly" in office.model.prompts
    assert "avatar_url" not in await looks_of_bot(bob, direct)
    assert "pirate" not in office.model.prompts
    await bob.user.send(direct, "!enable")
    await bob.wait_answer("Say `!enable` in the room", room_id=direct)


async def test_a_language_is_chosen_and_given_up(site: Site, office: Office) -> None:
    alice = await site.person()
    room_id = await alice.room_with_bot(name="Garten")
    await alice.user.send(room_id, "We decided to plant beans.")
    await alice.user.send(room_id, "!lang de")
    await alice.wait_answer("Von jetzt an antworte ich dir in dieser Sprache.", room_id=room_id)
    await alice.user.send(room_id, "!summary 2h")
    await alice.wait_answer("Zusammenfassung von Garten", "beans", without=room_id)
    assert "code 'de'" in office.model.prompts
    await alice.user.send(room_id, "!lang auto")
    await alice.wait_answer("Von jetzt an errate ich deine Sprache.", room_id=room_id)
    await alice.user.send(room_id, "!decisions 2h")
    await alice.wait_answer("Summary of Garten", "beans", without=room_id)


async def test_a_thread_is_summed_up_where_it_is(site: Site, office: Office) -> None:
    alice = await site.person()
    room_id = await alice.room_with_bot()
    root = await alice.user.send(room_id, "Where do we put the new shelf?")
    in_thread = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    await say(alice, room_id, "We decided to put the shelf into the cellar.", **in_thread)
    await alice.user.send(room_id, "We decided to sell the piano.")
    await alice.user.send(room_id, "!summary thread")
    await alice.wait_answer("Say that in a thread", room_id=room_id)
    asked = await say(alice, room_id, "!summary thread here", **in_thread)
    answer = await alice.wait_answer("cellar", "2 of 2 messages", room_id=room_id)
    _, shown = await alice.wait(
        lambda _, e: e["sender"] == BOT and e["content"].get("m.relates_to", {}).get("event_id") == root
    )
    assert shown["content"]["m.relates_to"]["rel_type"] == "m.thread"
    assert shown["content"]["m.relates_to"]["m.in_reply_to"]["event_id"] == asked
    assert "piano" not in answer["content"]["body"]


async def test_a_mention_is_as_good_as_a_command(site: Site, office: Office) -> None:
    alice = await site.person()
    room_id = await alice.room_with_bot()
    await alice.user.send(room_id, "We decided to build the bridge from oak.")
    mention = {"m.mentions": {"user_ids": [BOT]}}
    await say(alice, room_id, "What was decided about the bridge, Summary?", **mention)
    answer = await alice.wait_answer("bridge from oak", without=room_id)
    asked = {"m.mentions": {"user_ids": [BOT]}}
    await say(alice, room_id, "Summary: !actions 2h", **asked)
    await alice.wait_answer("No actions were agreed on", without=room_id)
    assert "Summary?" not in " ".join(office.model.seen)
    office.model.requests.clear()
    thanks = mention | reply_to(answer["event_id"])
    await say(alice, room_id, "Thanks, that is very kind of you!", **thanks)
    await say(alice, room_id, "Summary: !help", **mention)
    await alice.wait_answer("I say what you missed", without=room_id)
    assert office.model.requests == []


def clock_time(ts: int) -> str:
    minutes = ts // MINUTE_MS % (24 * 60)
    return f"{minutes // 60:02}:{minutes % 60:02}"


async def test_a_digest_comes_when_it_is_due_and_only_with_news(site: Site, office: Office) -> None:
    alice, bob, bot = await site.person(), await site.person(), office.running
    room_id = await alice.room_with_bot(bob, name="Farm")
    await bob.user.send(room_id, "We decided to buy two more goats.")
    soon = clock_time(bot.clock() + 2 * MINUTE_MS)
    await bob.user.send(room_id, f"!digest daily {soon} here")
    await bob.wait_answer("That takes the power", room_id=room_id)
    await bob.user.send(room_id, "!digest")
    await bob.wait_answer("You have no digest", room_id=room_id)
    await bob.user.send(room_id, f"!digest daily {soon}")
    await bob.wait_answer(f"every day at {soon} (UTC)", room_id=room_id)
    await alice.user.send(room_id, f"!digest weekly sunday {soon} Asia/Kolkata here")
    await alice.wait_answer("This room gets a digest every week", "(Asia/Kolkata)", room_id=room_id)
    bot.clock.ahead_ms = 3 * MINUTE_MS
    bot.bot.timer.change()
    digest = await bob.wait_answer("Digest of Farm", "goats", without=room_id)
    assert "m.relates_to" not in digest["content"]
    bot.clock.ahead_ms += DAY_MS  # nothing was said since
    await bot.bot.timer.tick()
    await bot.until_idle()
    bot.clock.ahead_ms = 0
    await bob.user.send(room_id, "!digest off")
    await bob.wait_answer("No more digests", room_id=room_id)
    private = [e for where, es in bob.rooms.items() if where != room_id for e in es]
    assert [e for e in private if "Digest of" in str(e["content"].get("body"))] == [digest]
