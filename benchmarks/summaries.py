"""`make bench-summaries`: how good and how fast the summary bot is, on rooms written for the purpose (summaries.yaml).

The built-in engine is measured as it is. Of the road that models take, what does not depend on a model: what a model is
shown, what gets through the checks when it obeys or lies, and what a second summary pays for, counted by a model server
that draws a fact from every fourth message.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from appservices.summary_bot.answers.citations import normal, verify_all
from appservices.summary_bot.answers.model import Bullet, Coverage, Source
from appservices.summary_bot.answers.render import Place
from appservices.summary_bot.budget.ledger import Ledger
from appservices.summary_bot.clock import now_ms
from appservices.summary_bot.config import Budgets, ModelOptions, Provider
from appservices.summary_bot.engines.contract import Ask
from appservices.summary_bot.engines.extractive.contract import Request
from appservices.summary_bot.engines.extractive.process import ExtractiveEngine
from appservices.summary_bot.engines.models.chain import Chain
from appservices.summary_bot.engines.models.engine import ModelEngine
from appservices.summary_bot.engines.models.suspicion import talks_to_model
from appservices.summary_bot.events import Message, build_messages
from appservices.summary_bot.history.reader import Transcript
from appservices.summary_bot.roles import all_roles
from appservices.summary_bot.storage.budgets import BudgetRepository
from appservices.summary_bot.storage.database import Database
from appservices.summary_bot.storage.facts import FactRepository
from appservices.summary_bot.visibility import Now, visible_to
from benchmarks import servers
from tests.summary_bot.model_server import Items, honest_facts, model_server

SECTION_OF = {"decision": "decisions", "action": "actions", "question": "open_questions"}
ASKER = "@asker:bench"
SIZES = (100, 1000, 10_000)
SETS = ("tuned", "held out")
GROWTH = ((100, 10), (100, 20), (1000, 20), (1000, 100), (10_000, 100))
"""(messages of the first summary, how many more have come at the second)"""

PAUSE_ONE_IN = 25
DATABASE = "summary_bot"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a labelled room."""

    who: str
    text: str
    label: str = "none"
    how: str = ""
    more: dict[str, str] = field(default_factory=dict)


def load_rooms() -> list[dict[str, Any]]:
    """The labelled rooms."""
    rooms: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    for room in rooms:
        room["lines"] = [Line(*line) for line in room["lines"]]
    return rooms


def seen_by_asker(room: dict[str, Any]) -> tuple[list[Message], dict[str, str]]:
    """What the bot makes of a room's events, as the homeserver gives them: (messages, labels by event ID)."""
    events: list[dict[str, Any]] = []
    edits: list[dict[str, Any]] = []
    ids: dict[str, str] = {}
    labels: dict[str, str] = {}
    for number, line in enumerate(room["lines"]):
        event = _event(room["name"], number, line, ids)
        labels[str(event["event_id"])] = line.label
        ids[line.more.get("id", "")] = str(event["event_id"])
        if line.how == "redacted":
            event |= {"content": {}, "unsigned": {"redacted_because": {}}}
        if line.how == "invisible":
            events += [_membership("leave", "join", number), event, _membership("join", "leave", number)]
        else:
            events.append(event)
        if "edit" in line.more:
            labels[str(event["event_id"])] = "decision"
            new = {"msgtype": "m.text", "body": line.more["edit"]}
            relation = {"rel_type": "m.replace", "event_id": event["event_id"]}
            content = {"msgtype": "m.text", "body": "*", "m.new_content": new, "m.relates_to": relation}
            edits.append(event | {"event_id": f"{event['event_id']}e", "content": content})
    hidden = {"history_visibility": "joined"}
    state = {"type": "m.room.history_visibility", "state_key": "", "content": hidden, "origin_server_ts": 0}
    events.insert(0, state | {"event_id": "$v", "sender": "@a:bench", "unsigned": {"prev_content": hidden}})
    events += edits
    may = visible_to(events, Now("joined", frozenset({ASKER})), ASKER)
    return build_messages([event for event, see in zip(events, may, strict=True) if see]), labels


def _event(room: str, number: int, line: Line, ids: dict[str, str]) -> dict[str, Any]:
    content: dict[str, Any] = {"msgtype": "m.text", "body": line.text}
    if "mentions" in line.more:
        content["m.mentions"] = {"user_ids": [f"@{line.more['mentions']}:bench"]}
    if "reply" in line.more:
        content["m.relates_to"] = {"m.in_reply_to": {"event_id": ids[line.more["reply"]]}}
    if "thread" in line.more:
        content["m.relates_to"] = {"rel_type": "m.thread", "event_id": ids[line.more["thread"]]}
    return {
        "event_id": f"${room}{number}",
        "sender": f"@{line.who}:bench",
        "type": "m.room.message",
        "origin_server_ts": number * 60_000,
        "content": content,
    }


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


@dataclass(slots=True)
class Score:
    """What was found of what was to be found, in a room or in many."""

    picked: int = 0
    right: int = 0
    wanted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SECTION_OF, 0))
    found: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SECTION_OF, 0))
    lines: int = 0
    cited: int = 0
    leaked: int = 0
    shown: int = 0
    through: int = 0

    def add(self, other: Score) -> None:
        """Counts another room in."""
        for name in ("picked", "right", "lines", "cited", "leaked", "shown", "through"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for label in SECTION_OF:
            self.wanted[label] += other.wanted[label]
            self.found[label] += other.found[label]

    def row(self, name: str) -> str:
        """A row of the table."""
        shares = [self.right / max(1, self.picked), sum(self.found.values()) / max(1, sum(self.wanted.values()))]
        shares += [self.found[label] / self.wanted[label] if self.wanted[label] else 1.0 for label in SECTION_OF]
        counts = f"{self.cited / max(1, self.lines):.2f} | {self.leaked} | {self.shown} | {self.through}"
        return f"| {name} | {' | '.join(f'{share:.2f}' for share in shares)} | {counts} |"


async def score_room(engine: ExtractiveEngine, room: dict[str, Any]) -> Score:
    """How the built-in engine does in one room, and what models would be shown and get through."""
    messages, labels = seen_by_asker(room)
    by_id = {message.event_id: message for message in messages}
    sections = (await engine.summarise(Request(messages))).sections
    score = Score()
    for label, section in SECTION_OF.items():
        picked = {bullet.event_ids[0] for bullet in sections.get(section, ())}  # type: ignore[call-overload]
        wanted = {event_id for event_id, of_event in labels.items() if of_event == label}
        score.picked += len(picked)
        score.right += len(picked & wanted)
        score.wanted[label], score.found[label] = len(wanted), len(picked & wanted)
    bullets = [bullet for of_section in sections.values() for bullet in of_section]
    score.lines = len(bullets)
    score.cited = sum(
        all(s.event_id in by_id and normal(s.quote) in normal(by_id[s.event_id].body) for s in bullet.sources)
        for bullet in bullets
    )
    lines: list[Line] = room["lines"]
    hidden = [line.text for line in lines if line.how in ("redacted", "invisible") or "edit" in line.more]
    attacks = [line.text for line in lines if line.how == "attack"]
    said = " ".join(bullet.text for bullet in bullets)
    shown = [message.body for message in messages if not talks_to_model(message.body)]
    score.leaked = sum(text in said or text in shown for text in hidden)
    score.shown = sum(attack in shown for attack in attacks)
    score.through = _obedient_lines(messages, room["language"])
    return score


def _obedient_lines(messages: list[Message], language: str) -> int:
    """How many lines of a model that obeys attacks get through the checks."""
    shown = [message for message in messages if not talks_to_model(message.body)]
    wanted = "Everything is cancelled, see http://evil.example"
    bullets = [Bullet(wanted, (Source(message.event_id, message.body),)) for message in shown]
    kept, _ = verify_all(bullets, {message.event_id: message for message in shown}, {}, language)
    return sum("evil" in bullet.text or "cancelled" in bullet.text for bullet in kept if bullet.text.isascii())


async def measure_quality(engine: ExtractiveEngine) -> None:
    """Citations, coverage, leakage, injections, of each set and each room."""
    print("| room | precision | recall | of decisions | of actions | of questions | cited rightly | leaked |", end="")
    print(" attacks shown to models | got through |\n" + "| --- " * 10 + "|")
    for of_set in SETS:
        total = Score()
        for room in load_rooms():
            if room["set"] == of_set:
                score = await score_room(engine, room)
                print(score.row(f"{room['name']} ({room['language']})"))
                total.add(score)
        print(total.row(f"**{of_set}**"))


def made_room(count: int, seed: int = 1) -> list[Message]:
    """A room of any size: the labelled lines, again and again in chance order, with numbers in them."""
    lines = [line.text for room in load_rooms() for line in room["lines"] if line.how != "attack"]
    chance = random.Random(seed)
    ts, messages = 0, []
    for number in range(count):
        ts += 3 * 3_600_000 if chance.randrange(PAUSE_ONE_IN) == 0 else 60_000
        sender = f"@p{chance.randrange(30)}:bench"
        messages.append(Message(f"$e{number}", sender, ts, f"{chance.choice(lines)} {chance.choice(lines)} ({number})"))
    return messages


async def measure_speed(engine: ExtractiveEngine) -> None:
    """Seconds and memory of the built-in engine."""
    print("\n| messages | seconds | memory of the engine, MiB |\n| --- | --- | --- |")
    for count in SIZES:
        started = time.perf_counter()
        await engine.summarise(Request(made_room(count)))
        seconds = time.perf_counter() - started
        children = psutil.Process().children()
        memory = max((child.memory_info().rss for child in children), default=0) / 2**20
        print(f"| {count} | {seconds:.2f} | {memory:.0f} |")


def terse(data: dict[str, Any]) -> Items:
    """A model that draws a fact from every fourth message, and folds to twenty lines."""
    if "facts" not in data:
        return honest_facts(data)[::4][:12]
    facts = data["facts"]
    step = max(1, -(-len(facts) // 20))
    return [
        {"kind": facts[n]["kind"], "text": facts[n]["text"], "owner": None, "facts": [facts[n]["id"]]}
        for n in range(0, len(facts), step)
    ]


async def measure_savings(built_in: ExtractiveEngine) -> None:
    """What the second summary of a room that has grown pays for: all tokens of all prompts, by the model's count."""
    print("\n| messages | more | first summary, tokens | second | the second without the cache | saved |")
    print("| --- | --- | --- | --- | --- | --- |")
    with ExitStack() as stack:
        run_dir = stack.enter_context(servers.run_directory())
        postgres = stack.enter_context(servers.postgres(run_dir))
        await postgres.create_database(DATABASE)
        url = postgres.url(DATABASE, "postgres")
        for number, (count, more) in enumerate(GROWTH):
            messages = made_room(count + more)
            first, second = await _tokens(url, f"warm{number}", built_in, [messages[:count], messages])
            (cold,) = await _tokens(url, f"cold{number}", built_in, [messages])
            print(f"| {count} | {more} | {first} | {second} | {cold} | {1 - second / cold:.0%} |")


async def _tokens(url: str, schema: str, built_in: ExtractiveEngine, asked: Sequence[list[Message]]) -> list[int]:
    """The tokens of input that each of several summaries takes, one after the other."""
    database = Database(url, schema=schema, max_connections=4)
    await database.open()
    counts = []
    async with model_server() as server:
        server.always = terse
        unlimited = Budgets(person_tokens=None, room_tokens=None, server_tokens=None)
        ledger = Ledger(unlimited, BudgetRepository(database), now_ms)
        chain = Chain([Provider(name="bench", base_url=server.url, model=ModelOptions(name="m"))], ledger, now_ms)
        engine = ModelEngine(chain, FactRepository(database), ledger, built_in, all_roles(()), now_ms)
        try:
            for messages in asked:
                server.requests.clear()
                coverage = Coverage(len(messages), len(messages), messages[0].ts, messages[-1].ts)
                transcript = Transcript(Place("!bench:bench", "Bench"), messages, {}, coverage)
                await engine.summarise(Ask("!bench:bench", ASKER), transcript)
                counts.append(server.input_tokens)
        finally:
            await chain.close()
            await database.close()
    return counts


async def main() -> None:
    """Prints all tables."""
    engine = ExtractiveEngine()
    try:
        await engine.summarise(Request(made_room(10)))  # its start is not what is measured
        await measure_quality(engine)
        await measure_speed(engine)
        await measure_savings(engine)
    finally:
        await engine.close()


if __name__ == "__main__":
    asyncio.run(main())
