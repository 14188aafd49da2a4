"""What services are told: https://spec.matrix.org/v1.19/application-service-api/#pushing-events"""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.appservice.conftest import Pair
from tests.appservice.support import Appservice, ServiceUser, ghost, listening
from tests.client_api.support import encode
from tests.conftest import StartServer


async def test_a_room_of_its_user_is_told_in_order_and_once(pair: Pair) -> None:
    human, user = await pair.homeserver.register(), await ghost(*pair, "order")
    room_id = await human.create_room(preset="public_chat", invite=[user.user_id])
    before = await human.send(room_id, "not for the bridge")
    (await user.request("POST", f"join/{encode(room_id)}", {})).ok()
    sent = await asyncio.gather(*(human.send(room_id, f"{number}") for number in range(250)))
    own = (await user.send(encode(room_id), "mine", "txn own")).ok()["event_id"]
    await pair.service.wait_for_event(own)
    told = [event for event in pair.service.events() if event["room_id"] == room_id]
    types = [event["type"] for event in told if "state_key" in event]
    assert types == ["m.room.member", "m.room.member"]  # the invitation and the join
    assert before not in [event["event_id"] for event in told]
    messages = [event["event_id"] for event in told if event["type"] == "m.room.message"]
    assert len(messages) == 251
    assert sorted(messages[:-1]) == sorted(sent)
    history = (await human.in_room("GET", room_id, "messages", dir="b", limit=1000)).ok()["chunk"]
    order = [event["event_id"] for event in reversed(history)]
    assert [event["event_id"] for event in told] == [i for i in order if i in {e["event_id"] for e in told}]
    # Its own event comes back with the ID that it was sent with, those of others without.
    assert told[-1]["unsigned"]["transaction_id"] == "txn own"
    assert "transaction_id" not in told[-2]["unsigned"]
    assert all(len(asked.body["events"]) <= 100 for asked in pair.service.transactions())
    assert {asked.token for asked in pair.service.transactions()} == {pair.service.hs_token}
    assert not any("access_token" in asked.query for asked in pair.service.transactions())
    assert len({asked.id for asked in pair.service.transactions()}) == len(pair.service.transactions())


async def test_what_is_none_of_its_business_is_not_told(pair: Pair) -> None:
    human, user = await pair.homeserver.register(), await ghost(*pair, "leaver")
    private = await human.create_room()
    await human.send(private, "secret")
    room_id = await human.create_room(preset="public_chat")
    (await user.request("POST", f"join/{encode(room_id)}", {})).ok()
    kicked = await human.in_room("POST", room_id, "kick", {"user_id": user.user_id})
    assert kicked.status == 200
    await human.send(room_id, "after")
    (await user.request("POST", f"join/{encode(room_id)}", {})).ok()
    last = await human.send(room_id, "back")
    await pair.service.wait_for_event(last)
    told = [event for event in pair.service.events() if event["room_id"] in (private, room_id)]
    assert [event["content"].get("membership") or event["content"]["body"] for event in told] == [
        "join",
        "leave",
        "join",
        "back",
    ]
    assert told[1]["unsigned"]["prev_content"]["membership"] == "join"


async def test_rooms_and_aliases_interest_by_their_names(start_server: StartServer, tmp_path: object) -> None:
    assert hasattr(tmp_path, "joinpath")
    by_alias = Appservice("named")
    by_alias.changes = {"namespaces": {"aliases": [{"exclusive": False, "regex": "#named-.*"}]}}
    everything = Appservice("all")
    everything.changes = {"namespaces": {"rooms": [{"exclusive": False, "regex": "!.*"}]}}
    async with listening(by_alias), listening(everything):
        by_alias.write(tmp_path)
        everything.write(tmp_path)
        async with start_server() as homeserver:
            human = await homeserver.register()
            named = await human.create_room(room_alias_name="named-1")
            later = await human.create_room()
            unheard = await human.send(later, "nobody is here yet")
            (await human.request("PUT", f"directory/room/{encode('#named-2:weft.test')}", {"room_id": later})).ok()
            heard = await human.send(later, "a name is enough")
            (await human.request("DELETE", f"directory/room/{encode('#named-2:weft.test')}")).ok()
            silent = await human.send(later, "gone again")
            new = (await human.in_room("POST", named, "upgrade", {"new_version": "11"})).ok()["replacement_room"]
            last = await human.send(new, "the name has moved")
            await by_alias.wait_for_event(last)
            await everything.wait_for_event(last)
        told = [event["event_id"] for event in by_alias.events()]
        assert heard in told
        assert unheard not in told
        assert silent not in told
        types = [event["type"] for event in by_alias.events() if event["room_id"] == named]
        assert (types[0], "m.room.tombstone" in types) == ("m.room.create", True)
        of_new = [event["type"] for event in by_alias.events() if event["room_id"] == new]
        assert (of_new[0], of_new[-1]) == ("m.room.create", "m.room.message")
        assert {unheard, heard, silent, last} <= {event["event_id"] for event in everything.events()}


async def test_a_failed_transaction_is_sent_again_as_it_was(pair: Pair) -> None:
    human, user = await pair.homeserver.register(), await ghost(*pair, "retry")
    room_id = await human.create_room(preset="public_chat")
    (await user.request("POST", f"join/{encode(room_id)}", {})).ok()
    await pair.service.wait_for_event(await human.send(room_id, "in step"))
    before = len(pair.service.transactions())
    pair.service.status = 503
    first = await human.send(room_id, "first")
    await pair.service.wait(lambda: len(pair.service.transactions()) > before + 1)
    others = [await human.send(room_id, f"{number}") for number in range(5)]
    pair.service.status = 200
    await pair.service.wait_for_event(others[-1])
    attempts = pair.service.transactions()[before:]
    assert [event["event_id"] for event in attempts[0].body["events"]] == [first]
    again = [asked for asked in attempts if asked.path == attempts[0].path]
    assert len(again) >= 2
    assert all(asked.body == attempts[0].body for asked in again)
    rest = [event["event_id"] for asked in attempts[len(again) :] for event in asked.body["events"]]
    assert rest == others


async def test_older_paths_are_tried_where_todays_are_unknown(pair: Pair) -> None:
    human, user = await pair.homeserver.register(), await ghost(*pair, "old")
    room_id = await human.create_room(preset="public_chat")
    (await user.request("POST", f"join/{encode(room_id)}", {})).ok()
    pair.service.answer = lambda asked: (404, {}) if asked.path.startswith("/_matrix/app/v1/") else None
    try:
        event_id = await human.send(room_id, "to an old service")
        await pair.service.wait(lambda: [a for a in pair.service.transactions() if a.path.startswith("/transactions/")])
        await pair.service.wait_for_event(event_id)
    finally:
        pair.service.answer = lambda _: None
    older = [asked for asked in pair.service.transactions() if asked.path.startswith("/transactions/")]
    assert all(asked.query == {"access_token": pair.service.hs_token} for asked in older)


async def test_what_a_service_missed_is_told_after_a_restart(start_server: StartServer, tmp_path: object) -> None:
    service = Appservice("restarted")
    await service.start()
    service.write(tmp_path)  # type: ignore[arg-type]
    async with start_server() as homeserver:
        human, user = await homeserver.register(), await ghost(homeserver, service, "a")
        other = await ghost(homeserver, service, "b")
        room_id = await human.create_room(preset="public_chat")
        quiet = await human.create_room(preset="public_chat")
        for room in (room_id, quiet):
            (await user.request("POST", f"join/{encode(room)}", {})).ok()
        await service.wait_for_event(await human.send(room_id, "told at once"))
        service.status = 500
        tries = len(service.transactions())
        in_flight = await human.send(room_id, "on its way")
        await service.wait(lambda: len(service.transactions()) > tries)
        await service.stop()
        missed = [await human.send(room_id, f"{number}") for number in range(150)]
        missed.append(await human.send(quiet, "then it leaves"))
        (await user.request("POST", f"rooms/{encode(quiet)}/leave", {})).ok()
        unheard = await human.send(quiet, "nobody hears")
        (await other.request("POST", f"join/{encode(quiet)}", {})).ok()
        missed.append(await human.send(quiet, "the other one has come"))
        nobodys = await human.create_room()
        unheard_too = await human.send(nobodys, "nothing to do with it")
        (await human.in_room("POST", nobodys, "invite", {"user_id": other.user_id})).ok()
        invited_at = nobodys
    service.status = 200
    first_attempt = service.transactions()[tries]
    seen = len(service.transactions())
    await service.start()
    async with start_server() as homeserver:
        await service.wait_for_event(missed[-1])
        await service.wait(lambda: [e for e in service.events() if e["room_id"] == invited_at])
        human = await homeserver.register()
    again = service.transactions()[seen]
    assert again.path == first_attempt.path
    assert [e["event_id"] for e in again.body["events"]] == [in_flight]
    told = [event["event_id"] for event in service.events()]
    assert len(told) == len(set(told))
    assert [event_id for event_id in told if event_id in set(missed)] == missed
    assert not {unheard, unheard_too} & set(told)


async def test_a_dead_service_delays_nobody(pair: Pair) -> None:
    human, user = await pair.homeserver.register(), await ghost(*pair, "dead")
    room_id = await human.create_room(preset="public_chat")
    (await user.request("POST", f"join/{encode(room_id)}", {})).ok()
    release = asyncio.Event()

    async def stall() -> dict[str, str]:
        await release.wait()
        return {}

    before = len(pair.service.transactions())
    pair.service.answer = lambda asked: (200, stall()) if "/transactions/" in asked.path else None
    sent = [await human.send(room_id, f"{number}") for number in range(30)]
    synced = await human.sync()
    assert synced["rooms"]["join"][room_id]["timeline"]["events"][-1]["event_id"] == sent[-1]
    assert len(pair.service.transactions()) <= before + 1, "one transaction at a time"
    pair.service.answer = lambda _: None
    release.set()
    await pair.service.wait_for_event(sent[-1])
    sender = ServiceUser(*pair)
    assert (await sender.request("GET", "account/whoami")).status == 200


async def test_what_is_too_much_at_once_is_read_from_the_stream(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("homeserver.services.appservices.delivery.MAX_QUEUED_EVENTS", 5)
    monkeypatch.setattr("homeserver.services.appservices.delivery.MAX_TRANSACTION_EVENTS", 7)
    monkeypatch.setattr("homeserver.services.appservices.catch_up.EVENTS_AT_ONCE", 3)
    human, user = await pair.homeserver.register(), await ghost(*pair, "flood")
    room_id, elsewhere = await human.create_room(preset="public_chat"), await human.create_room()
    (await user.request("POST", f"join/{encode(room_id)}", {})).ok()
    await pair.service.wait_for_event(await human.send(room_id, "in step"))
    before = len(pair.service.transactions())
    pair.service.status = 503
    sent = [await human.send(room_id, "first")]
    await pair.service.wait(lambda: len(pair.service.transactions()) > before)
    for number in range(40):
        await human.send(elsewhere, "of no interest")
        sent.append(await human.send(room_id, f"{number}"))
    pair.service.status = 200
    await pair.service.wait_for_event(sent[-1])
    sent += [await human.send(room_id, "in step again")]
    await pair.service.wait_for_event(sent[-1])
    taken = {asked.id: asked.body["events"] for asked in pair.service.transactions()[before:]}
    assert [event["event_id"] for events in taken.values() for event in events] == sent
    assert max(map(len, taken.values())) == 7


async def test_large_events_are_spread_over_transactions(pair: Pair) -> None:
    human, user = await pair.homeserver.register(), await ghost(*pair, "large")
    room_id = await human.create_room(preset="public_chat")
    (await user.request("POST", f"join/{encode(room_id)}", {})).ok()
    pair.service.status = 503
    before = len(pair.service.transactions())
    sent = [await human.send(room_id, "x" * 60_000) for _ in range(20)]
    pair.service.status = 200
    await pair.service.wait_for_event(sent[-1])
    taken = {asked.id: asked.body for asked in pair.service.transactions()[before:]}
    told = [event["event_id"] for body in taken.values() for event in body["events"]]
    assert [event_id for event_id in told if event_id in sent] == sent
    assert max(len(json.dumps(body)) for body in taken.values()) < 600_000
