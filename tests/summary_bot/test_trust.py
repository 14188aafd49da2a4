"""What is redacted, opted out or over budget is nowhere; what the asker may not see is not in any answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from appservices.summary_bot.answers.model import SECTIONS
from appservices.summary_bot.budget.ledger import Ledger, OverBudget
from appservices.summary_bot.clock import DAY_MS
from appservices.summary_bot.config import Budgets, ModelOptions
from appservices.summary_bot.engines.models.provider import Prompt
from tests.client import Answer
from tests.summary_bot.model_server import ModelServer, model_server, provider
from tests.summary_bot.support import Event, Person, Site

API = "/_weft/summary/v1"


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    """A model server."""
    async with model_server() as server:
        yield server


def is_redacted(person: Person, event: Event) -> bool:
    """Whether somebody has seen an event being redacted."""
    return any(
        event["event_id"] in (other.get("redacts"), other["content"].get("redacts"))
        for events in person.rooms.values()
        for other in events
        if other["type"] == "m.room.redaction"
    )


async def in_pieces(body: dict[str, Any]) -> AsyncIterator[bytes]:
    """JSON that takes its time, as it may over the network."""
    data = json.dumps(body).encode()
    yield data[:5]
    await asyncio.sleep(0.01)
    yield data[5:]


async def ask_api(site: Site, person: Person, room_id: str, **body: Any) -> Answer:
    """Asks by the HTTP API."""
    homeserver = person.user.homeserver
    url, homeserver.base_url = homeserver.base_url, site.switchboard.bot_url or ""
    try:
        path = f"{API}/rooms/{quote(room_id, safe='')}"
        return await homeserver.request("POST", path, token=person.user.token, data=in_pieces(body))
    finally:
        homeserver.base_url = url


def texts(answer: Any) -> str:
    """All lines of an answer."""
    return "\n".join(item["text"] for section in answer["sections"] for item in section["items"])


async def test_a_redaction_takes_back_what_was_said_of_it(site: Site, model: ModelServer) -> None:
    async with site.bot(providers=[provider(model)]) as bot:
        alice = await site.person()
        room_id = await alice.room_with_bot()
        secret = await alice.user.send(room_id, "We decided to sell the yellow submarine next week.")
        await alice.user.send(room_id, "!summary 2h")
        answer = await alice.wait_answer("Written by", without=room_id)
        connection = await asyncpg.connect(site.database_url)
        schema = bot.bot.config.database.schema
        assert await connection.fetchval(f"SELECT count(*) FROM {schema}.chunks") == 1
        (await alice.user.in_room("PUT", room_id, f"redact/{quote(secret, safe='')}/r1", {})).ok()
        shown = answer["content"].get("m.relates_to", {}).get("event_id", answer["event_id"])
        await alice.wait(lambda _, __: is_redacted(alice, {"event_id": shown}))
        await bot.until_idle()
        assert await connection.fetchval(f"SELECT count(*) FROM {schema}.chunks") == 0
        assert await connection.fetchval(f"SELECT count(*) FROM {schema}.answers") == 0
        await connection.close()


async def test_whoever_leaves_loses_what_they_were_told(site: Site) -> None:
    async with site.bot():
        alice, bob = await site.person(), await site.person()
        room_id = await alice.room_with_bot(bob)
        await alice.user.send(room_id, "We decided to meet at the old lighthouse on Sunday.")
        await bob.user.send(room_id, "!summary 2h")
        answer = await bob.wait_answer("lighthouse", without=room_id)
        body = {"user_id": bob.user_id}
        (await alice.user.in_room("POST", room_id, "kick", body)).ok()
        await bob.wait(lambda _, __: is_redacted(bob, answer))
        assert answer["content"]["msgtype"] == "m.notice"


async def test_who_opts_out_is_in_no_prompt_and_no_answer(site: Site, model: ModelServer) -> None:
    async with site.bot(providers=[provider(model)]):
        alice, bob = await site.person(), await site.person()
        room_id = await alice.room_with_bot(bob)
        await bob.user.send(room_id, "We decided to hide the treasure under the oak.")
        await alice.user.send(room_id, "We decided to leave the harbour at dawn.")
        await bob.user.send(room_id, "!optout")
        await bob.wait_answer("kept out of every summary", room_id=room_id)
        await alice.user.send(room_id, "!summary 2h")
        answer = await alice.wait_answer("harbour", "1 people are left out", without=room_id)
        assert "treasure" not in answer["content"]["body"]
        assert "treasure" not in model.prompts


async def test_the_api_answers_what_the_owner_of_the_token_may_see(site: Site) -> None:
    async with site.bot():
        alice, bob, eve = await site.person(), await site.person(), await site.person()
        joined = [{"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "joined"}}]
        room_id = await alice.room_with_bot(initial_state=joined)
        await alice.user.send(room_id, "We decided to keep the password of the vault secret from newcomers.")
        await bob.user.join(room_id)
        await alice.user.send(room_id, "We decided to welcome the newcomers with cake.")
        ignored = {"ignored_users": {alice.user_id: {}}}
        of_alice = (await ask_api(site, alice, room_id, range="2h")).ok()
        of_bob = (await ask_api(site, bob, room_id, range="2h")).ok()
        assert "vault" in texts(of_alice)
        assert "vault" not in texts(of_bob)
        assert "cake" in texts(of_bob)
        assert of_bob["coverage"]["covered"] == 1
        assert {section["name"] for section in of_alice["sections"]} <= set(SECTIONS)
        await bob.user.request("PUT", f"user/{quote(bob.user_id)}/account_data/m.ignored_user_list", ignored)
        assert texts((await ask_api(site, bob, room_id, range="2h")).ok()) == ""
        (await ask_api(site, eve, room_id, range="2h")).error(403, "M_FORBIDDEN")
        (await ask_api(site, alice, room_id, range="2 hours")).error(400, "M_INVALID_PARAM")
        (await ask_api(site, alice, room_id, nonsense=1)).error(400, "M_BAD_JSON")
        eve.user.token = "nobody's"
        (await ask_api(site, eve, room_id)).error(401, "M_UNKNOWN_TOKEN")


async def test_an_answer_in_the_room_has_only_what_all_its_members_may_see(site: Site) -> None:
    async with site.bot():
        alice, bob = await site.person(), await site.person()
        joined = [{"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "joined"}}]
        room_id = await alice.room_with_bot(initial_state=joined)
        await alice.user.send(room_id, "We decided to buy Bob a telescope for his birthday.")
        await bob.user.join(room_id)
        await alice.user.send(room_id, "We decided to order pizza for the evening.")
        await alice.user.send(room_id, "!summary 2h here")
        answer = await alice.wait_answer("pizza", room_id=room_id)
        assert "telescope" not in answer["content"]["body"]


async def test_twenty_five_asks_at_once_cannot_overspend(site: Site) -> None:
    async with site.bot() as bot:
        prompt = Prompt("x" * 2700, "{}", "facts", {}, 100)
        ledger = Ledger(Budgets(person_tokens=prompt.tokens * 7), bot.bot.budgets, bot.clock)
        model = ModelOptions(name="m", input_price=3.0, output_price=9.0)
        tries = [ledger.reserve("@a:b", f"!{n}:b", model, prompt) for n in range(25)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        refused = [result for result in results if isinstance(result, OverBudget)]
        assert len(refused) == 18
        assert {over.scope for over in refused} == {"person"}
        spent = await bot.bot.budgets.load_spent("person", "@a:b", now=bot.clock())
        assert spent.tokens == 7 * prompt.tokens


async def test_a_spent_budget_is_said_and_costs_nothing_more(site: Site, model: ModelServer) -> None:
    async with site.bot(providers=[provider(model)], budgets={"room_tokens": 100}):
        alice = await site.person()
        room_id = await alice.room_with_bot()
        await alice.user.send(room_id, "We decided to close the shop at noon.")
        await alice.user.send(room_id, "!summary 2h")
        await alice.wait_answer("the budget of the room for today is spent", "noon", without=room_id)
        assert model.requests == []


async def test_what_is_too_old_is_dropped_and_taken_back(site: Site, model: ModelServer) -> None:
    limits = {"keep_days": 30, "keep_usage_days": 2, "keep_audit_days": 3}
    async with site.bot(providers=[provider(model)], limits=limits) as bot:
        alice = await site.person()
        room_id = await alice.room_with_bot()
        await alice.user.set_state(room_id, "m.room.retention", {"max_lifetime": DAY_MS})
        await alice.user.send(room_id, "We decided to burn the old letters on Sunday.")
        await alice.user.send(room_id, "!summary 2h")
        answer = await alice.wait_answer("Written by", without=room_id)
        shown = answer["content"].get("m.relates_to", {}).get("event_id", answer["event_id"])
        await bot.until_idle()
        connection = await asyncpg.connect(site.database_url)
        schema = bot.bot.config.database.schema

        async def counts_after(days: float) -> list[int]:
            bot.clock.ahead_ms = int(days * DAY_MS)
            await bot.bot.timer.tick()
            tables = ("chunks", "answers", "usage", "ledgers", "audit")
            return [await connection.fetchval(f"SELECT count(*) FROM {schema}.{table}") for table in tables]

        try:
            assert await counts_after(0.5) == [1, 1, 1, 3, 2]
            assert await counts_after(1.1) == [0, 0, 1, 3, 2]
            await alice.wait(lambda _, __: is_redacted(alice, {"event_id": shown}))
            assert await counts_after(3.2) == [0, 0, 0, 0, 0]
        finally:
            await connection.close()
