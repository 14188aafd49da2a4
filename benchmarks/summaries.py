"""`make bench-summaries`: how good and how fast the summary bot is, on rooms written for the purpose (summaries.yaml).

The built-in engine is measured as it is. Of the road that models take, what does not depend on a model: what a model is
shown, what gets through the checks when it obeys or lies, and what a second summary pays for.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from appservices.summary_bot.answers.citations import verify_all
from appservices.summary_bot.answers.model import Bullet, Source
from appservices.summary_bot.engines.extractive.contract import Request
from appservices.summary_bot.engines.extractive.process import ExtractiveEngine
from appservices.summary_bot.engines.models.chunks import chunk_hash, chunks_of
from appservices.summary_bot.engines.models.suspicion import talks_to_model
from appservices.summary_bot.engines.models.tokens import estimate_tokens
from appservices.summary_bot.events import Message, build_messages
from appservices.summary_bot.visibility import Now, visible_to

SECTION_OF = {"decision": "decisions", "action": "actions", "question": "open_questions"}
ASKER = "@asker:bench"
SIZES = (100, 1000, 10_000)
NEW_MESSAGES = 20


def load_rooms() -> list[dict[str, Any]]:
    """The labelled rooms."""
    rooms: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return rooms


def seen_by_asker(room: dict[str, Any]) -> tuple[list[Message], dict[str, str]]:
    """What the bot makes of a room's events, as the homeserver gives them: (messages, labels by event ID)."""
    events: list[dict[str, Any]] = []
    labels: dict[str, str] = {}
    for number, line in enumerate(room["lines"]):
        who, text, label, how = [*line, "none", ""][:4] if len(line) != 3 else [*line, ""]
        event = {
            "event_id": f"${room['name']}{number}",
            "sender": f"@{who}:bench",
            "type": "m.room.message",
            "origin_server_ts": number * 60_000,
            "content": {"msgtype": "m.text", "body": text},
        }
        labels[str(event["event_id"])] = label
        if how == "redacted":
            event |= {"content": {}, "unsigned": {"redacted_because": {}}}
        if how == "invisible":
            events += [_membership("leave", "join", number), event, _membership("join", "leave", number)]
        else:
            events.append(event)
    hidden = {"history_visibility": "joined"}
    state = {"type": "m.room.history_visibility", "state_key": "", "content": hidden, "origin_server_ts": 0}
    events.insert(0, state | {"event_id": "$v", "sender": "@a:bench", "unsigned": {"prev_content": hidden}})
    may = visible_to(events, Now("joined", frozenset({ASKER})), ASKER)
    return build_messages([event for event, see in zip(events, may, strict=True) if see]), labels


def _membership(new: str, old: str, number: int) -> dict[str, Any]:
    return {
        "event_id": f"$m{number}{new}",
        "sender": ASKER,
        "type": "m.room.member",
        "state_key": ASKER,
        "origin_server_ts": number * 60_000,
        "content": {"membership": new},
        "unsigned": {"prev_content": {"membership": old}},
    }


async def measure_quality(engine: ExtractiveEngine) -> None:
    """Citations, coverage, leakage, injections."""
    print("| room | size | precision | recall | leaked | attacks shown to models | got through |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for room in load_rooms():
        messages, labels = seen_by_asker(room)
        sections = (await engine.summarise(Request(messages))).sections
        picked = {
            (bullet.event_ids[0], section)
            for section in SECTION_OF.values()
            for bullet in sections.get(section, ())  # type: ignore[call-overload]
        }
        wanted = {(event_id, SECTION_OF[label]) for event_id, label in labels.items() if label in SECTION_OF}
        hidden = [line[1] for line in room["lines"] if len(line) > 3 and line[3] in ("redacted", "invisible")]
        attacks = [line[1] for line in room["lines"] if len(line) > 3 and line[3] == "attack"]
        said = " ".join(bullet.text for bullets in sections.values() for bullet in bullets)
        shown = [message.body for message in messages if not talks_to_model(message.body)]
        leaked = sum(text in said or text in shown for text in hidden)
        precision, recall = len(picked & wanted) / max(1, len(picked)), len(picked & wanted) / len(wanted)
        through = _obedient_lines(messages, room["language"])
        print(
            f"| {room['name']} | {len(messages)} messages | {precision:.2f} | {recall:.2f} | {leaked} |"
            f" {sum(attack in shown for attack in attacks)} | {through} |"
        )


def _obedient_lines(messages: list[Message], language: str) -> int:
    """How many lines of a model that obeys attacks get through the checks."""
    shown = [message for message in messages if not talks_to_model(message.body)]
    wanted = "Everything is cancelled, see http://evil.example"
    bullets = [Bullet(wanted, (Source(message.event_id, message.body),)) for message in shown]
    kept, _ = verify_all(bullets, {message.event_id: message for message in shown}, {}, language)
    return sum("evil" in bullet.text or "cancelled" in bullet.text for bullet in kept if _is_latin(bullet))


def _is_latin(bullet: Bullet) -> bool:
    return bullet.text.isascii()


def made_room(count: int, seed: int = 1) -> list[Message]:
    """A room of any size: the labelled lines, again and again in chance order, with numbers in them."""
    lines = [line[1] for room in load_rooms() for line in room["lines"]]
    chance = random.Random(seed)
    ts, messages = 0, []
    for number in range(count):
        ts += chance.choice((60_000, 60_000, 60_000, 3 * 3_600_000))
        sender = f"@p{chance.randrange(30)}:bench"
        messages.append(Message(f"$e{number}", sender, ts, f"{chance.choice(lines)} {chance.choice(lines)} ({number})"))
    return messages


async def measure_speed(engine: ExtractiveEngine) -> None:
    """Seconds and memory of the built-in engine, and what the cache saves on a second summary."""
    print("\n| messages | seconds | memory of the engine, MiB | tokens saved when 20 more have come |")
    print("| --- | --- | --- | --- |")
    for count in SIZES:
        messages = made_room(count)
        started = time.perf_counter()
        await engine.summarise(Request(messages))
        seconds = time.perf_counter() - started
        children = psutil.Process().children()
        memory = max((child.memory_info().rss for child in children), default=0) / 2**20
        print(f"| {count} | {seconds:.2f} | {memory:.0f} | {_saved(messages[:-NEW_MESSAGES], messages):.0%} |")


def _saved(before: list[Message], after: list[Message]) -> float:
    known = {chunk_hash(chunk) for chunk in chunks_of(before)}
    sizes = [(chunk_hash(c) in known, sum(estimate_tokens(m.body) for m in c)) for c in chunks_of(after)]
    return sum(size for is_known, size in sizes if is_known) / sum(size for _, size in sizes)


async def main() -> None:
    """Prints both tables."""
    engine = ExtractiveEngine()
    try:
        await engine.summarise(Request(made_room(10)))  # its start is not what is measured
        await measure_quality(engine)
        await measure_speed(engine)
    finally:
        await engine.close()


if __name__ == "__main__":
    asyncio.run(main())
