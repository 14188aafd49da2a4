"""The bot comes when it is invited, does nothing until it is turned on, and says what was missed."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from appservices.summary_bot.clock import HOUR_MS
from tests.summary_bot.support import BOT, Event, RunningBot, Site


def links(event: Event) -> list[str]:
    return [word for word in event["content"]["body"].split() if word.startswith("https://matrix.to/")]


def encoded(value: str) -> str:
    return quote(value, safe="")


async def test_a_summary_goes_to_the_asker_alone_and_links_what_was_said(site: Site, bot: RunningBot) -> None:
    alice, bob = await site.person(), await site.person()
    room_id = await alice.room_with_bot(bob, name="Release")
    decision = await bob.user.send(room_id, "We decided to ship version 2 on Friday.")
    question = await bob.user.send(room_id, "Who writes the release notes for the website?")
    await bob.user.send(room_id, "The database was slow yesterday because an index was missing.")
    action = await bob.user.send(room_id, "I'll prepare the migration guide for the database.")
    asked = await alice.user.send(room_id, "!summary 2h")

    answer = await alice.wait_answer("Summary of Release", without=room_id)
    content = answer["content"]
    assert content["msgtype"] == "m.notice"
    assert content["m.mentions"] == {}
    assert "Covered: 4 of 4 messages" in content["body"]
    assert "Decisions:" in content["body"]
    assert "<h4>Decisions</h4>" in content["formatted_body"]
    for event_id in (decision, question, action):
        assert any(f"{encoded(room_id)}/{encoded(event_id)}?via=weft.test" in link for link in links(answer))
    _, reaction = await alice.wait(lambda where, event: event["type"] == "m.reaction" and event["sender"] == BOT)
    assert reaction["content"]["m.relates_to"]["event_id"] == asked
    await bob.look()
    assert not any("Summary of" in str(event["content"].get("body")) for event in bob.rooms[room_id])


async def test_an_answer_in_the_room_replies_to_the_question(site: Site, bot: RunningBot) -> None:
    alice = await site.person()
    room_id = await alice.room_with_bot()
    await alice.user.send(room_id, "We agreed to move the meeting to Tuesday morning.")
    asked = await alice.user.send(room_id, "!decisions here")
    answer = await alice.wait_answer("move the meeting", room_id=room_id)
    assert answer["content"]["m.relates_to"]["m.in_reply_to"]["event_id"] == asked


async def test_it_is_off_until_somebody_with_the_power_turns_it_on(site: Site, bot: RunningBot) -> None:
    alice, bob = await site.person(), await site.person()
    room_id = await alice.room_with_bot(bob, enable=False)
    await bob.user.send(room_id, "!summary")
    await bob.wait_answer("I am off in this room", room_id=room_id)
    await bob.user.send(room_id, "!enable")
    await bob.wait_answer("That takes the power", room_id=room_id)
    assert not (await bot.bot.settings.load_room(room_id)).enabled
    await alice.user.send(room_id, "!enable")
    await alice.wait_answer("I am on in this room", room_id=room_id)
    assert (await bot.bot.settings.load_room(room_id)).enabled


async def test_what_is_new_begins_where_the_asker_left_off(site: Site, bot: RunningBot) -> None:
    alice, bob = await site.person(), await site.person()
    room_id = await alice.room_with_bot(bob)
    await bob.user.send(room_id, "We decided to paint the old shed green.")
    seen = await bob.user.send(room_id, "The colours were bought in the city yesterday.")
    (await alice.user.in_room("POST", room_id, f"receipt/m.read/{encoded(seen)}", {})).ok()
    await bot.until_read(room_id, alice.user_id, seen)
    await bob.user.send(room_id, "We decided to rent a bigger van for the tour.")
    bot.clock.ahead_ms = HOUR_MS
    await alice.user.send(room_id, "!summary")
    answer = await alice.wait_answer("Since you left off", without=room_id)
    assert "bigger van" in answer["content"]["body"]
    assert "shed" not in answer["content"]["body"]


async def test_mistakes_get_one_helpful_line(site: Site, bot: RunningBot) -> None:
    alice = await site.person()
    room_id = await alice.room_with_bot()
    for wrong, line in {
        "!sumary": "Did you mean `!summary`?",
        "!summary yesteryear": "I do not understand “yesteryear”",
        "!digest hourly": "Try `!digest daily",
        "!why x": "Try `!why 2`",
    }.items():
        await alice.user.send(room_id, wrong)
        answer = await alice.wait_answer(line, room_id=room_id)
        assert "\n" not in answer["content"]["body"]


async def test_encrypted_rooms_are_refused(site: Site, bot: RunningBot) -> None:
    alice = await site.person()
    room_id = await alice.room_with_bot()
    await alice.user.set_state(room_id, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    await alice.user.send(room_id, "!summary")
    await alice.wait_answer("This room is encrypted", room_id=room_id)
    assert bot.bot.port


def body_of(event: dict[str, Any]) -> str:
    return str(event["content"]["body"])


async def test_a_direct_chat_needs_no_prefix_and_asks_which_room(site: Site, bot: RunningBot) -> None:
    alice = await site.person()
    room_id = await alice.room_with_bot(name="Garden", preset="private_chat")
    await alice.user.send(room_id, "We decided to plant apple trees behind the house.")
    direct = await alice.user.create_room(invite=[BOT], is_direct=True, preset="trusted_private_chat")
    await alice.wait_answer("Invite me into a room", room_id=direct)
    await alice.user.send(direct, "summary")
    await alice.wait_answer("About which room?", room_id=direct)
    await alice.user.send(direct, f"decisions {room_id}")
    answer = await alice.wait_answer("Summary of Garden", room_id=direct)
    assert "apple trees" in body_of(answer)


async def test_nobody_is_told_about_a_room_that_they_are_not_in(site: Site, bot: RunningBot) -> None:
    alice, eve = await site.person(), await site.person()
    room_id = await alice.room_with_bot(preset="private_chat")
    await alice.user.send(room_id, "We decided to surprise Eve on Sunday.")
    direct = await eve.user.create_room(invite=[BOT], is_direct=True, preset="trusted_private_chat")
    await eve.wait_answer("Invite me into a room", room_id=direct)
    await eve.user.send(direct, f"!summary {room_id}")
    await eve.wait_answer("You are not in that room", room_id=direct)
    await eve.look()
    assert not any("surprise" in str(event) for events in eve.rooms.values() for event in events)
