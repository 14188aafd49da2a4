"""https://spec.matrix.org/v1.19/client-server-api/#push-rules-api"""

from __future__ import annotations

from typing import Any

import pytest

from homeserver.services.push_rules import MAX_RULES
from tests.client import Answer, Homeserver, User
from tests.client_api.support import encode, joined, make_room
from tests.conftest import StartServer

BY_THREAD = '{"room":{"timeline":{"unread_thread_notifications":true}}}'


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def rules(user: User, method: str, path: str, body: Any = None, **query: Any) -> Answer:
    return await user.request(method, f"pushrules/global/{path}", body, **query)


async def rule_ids(user: User, kind: str) -> list[str]:
    return [rule["rule_id"] for rule in (await rules(user, "GET", "")).ok()[kind]]


async def unread(user: User, room_id: str) -> tuple[int, int]:
    counts = joined(await user.sync(), room_id)["unread_notifications"]
    return counts["notification_count"], counts["highlight_count"]


async def mute(user: User, room_id: str) -> None:
    conditions = [{"kind": "event_match", "key": "room_id", "pattern": room_id}]
    (await rules(user, "PUT", f"override/{encode(room_id)}", {"conditions": conditions, "actions": []})).ok()


async def test_everyone_starts_with_the_predefined_rules(alice: User) -> None:
    whole = (await alice.request("GET", "pushrules/")).ok()
    assert whole == {"global": (await rules(alice, "GET", "")).ok()}
    assert set(whole["global"]) == {"override", "content", "room", "sender", "underride"}
    master = (await rules(alice, "GET", "override/.m.rule.master")).ok()
    assert (master["default"], master["enabled"], master["actions"]) == (True, False, [])
    mention = (await rules(alice, "GET", "override/.m.rule.is_user_mention")).ok()
    assert mention["conditions"][0]["value"] == alice.user_id
    events = (await alice.sync())["account_data"]["events"]
    assert {"type": "m.push_rules", "content": whole} in events


async def test_rules_are_made_changed_and_deleted(alice: User) -> None:
    since = (await alice.sync())["next_batch"]
    (await rules(alice, "PUT", "content/cake", {"pattern": "cake", "actions": ["notify"]})).ok()
    rule = {"rule_id": "cake", "default": False, "enabled": True, "actions": ["notify"], "pattern": "cake"}
    assert (await rules(alice, "GET", "content/cake")).ok() == rule
    news = await alice.sync(since)
    [event] = news["account_data"]["events"]
    assert event["content"]["global"]["content"] == [rule]
    (await rules(alice, "PUT", "content/cake/enabled", {"enabled": False})).ok()
    assert (await rules(alice, "GET", "content/cake/enabled")).ok() == {"enabled": False}
    (await rules(alice, "PUT", "content/cake/actions", {"actions": ["dont_notify"]})).ok()
    assert (await rules(alice, "GET", "content/cake/actions")).ok() == {"actions": []}
    (await rules(alice, "PUT", "content/cake", {"pattern": "pie", "actions": []})).ok()
    changed = (await rules(alice, "GET", "content/cake")).ok()
    assert (changed["pattern"], changed["enabled"]) == ("pie", False), "changing a rule does not enable it"
    assert (await rules(alice, "DELETE", "content/cake")).ok() == {}
    (await rules(alice, "GET", "content/cake")).error(404, "M_NOT_FOUND")
    (await rules(alice, "DELETE", "content/cake")).error(404, "M_NOT_FOUND")
    assert await rule_ids(alice, "content") == []


async def test_rules_stand_where_they_are_wanted(alice: User) -> None:
    async def put(rule_id: str, **query: str) -> Answer:
        return await rules(alice, "PUT", f"underride/{rule_id}", {"actions": []}, **query)

    for rule_id in ("a", "b"):
        (await put(rule_id)).ok()
    (await put("c", after="a")).ok()
    (await put("d", before="a")).ok()
    (await put("e", before="b", after="c")).ok()
    assert (await rule_ids(alice, "underride"))[:5] == ["e", "b", "d", "a", "c"]
    (await put("c", before="e")).ok()
    (await put("b")).ok()
    assert (await rule_ids(alice, "underride"))[:5] == ["c", "e", "b", "d", "a"]
    for wrong in ("nothing", ".m.rule.message", "f"):
        (await put("f", before=wrong)).error(400, "M_UNKNOWN")
        (await put("f", after=wrong)).error(400, "M_UNKNOWN")
    assert "f" not in await rule_ids(alice, "underride")


async def test_predefined_rules_are_changed_and_not_deleted(alice: User) -> None:
    path = "underride/.m.rule.message"
    (await rules(alice, "DELETE", path)).error(400, "M_INVALID_PARAM")
    (await rules(alice, "PUT", path, {"actions": []})).error(400, "M_INVALID_PARAM")
    (await rules(alice, "PUT", f"{path}/actions", {"actions": []})).ok()
    (await rules(alice, "PUT", f"{path}/enabled", {"enabled": False})).ok()
    rule = (await rules(alice, "GET", path)).ok()
    assert (rule["enabled"], rule["actions"], rule["default"]) == (False, [], True)


@pytest.mark.parametrize(
    ("path", "body", "errcode"),
    [
        ("nonsense/x", {"actions": []}, "M_INVALID_PARAM"),
        ("override/.m.rule.master", {"actions": []}, "M_INVALID_PARAM"),
        ("override/a%2Fb", {"actions": []}, "M_INVALID_PARAM"),
        ("override/a%5Cb", {"actions": []}, "M_INVALID_PARAM"),
        ("override/" + "x" * 256, {"actions": []}, "M_INVALID_PARAM"),
        ("override/x", {}, "M_MISSING_PARAM"),
        ("override/x", {"actions": "notify"}, "M_BAD_JSON"),
        ("override/x", {"actions": ["explode"]}, "M_INVALID_PARAM"),
        ("override/x", {"actions": [{"value": 1}]}, "M_INVALID_PARAM"),
        ("override/x", {"actions": [], "conditions": [{}]}, "M_INVALID_PARAM"),
        ("override/x", {"actions": [], "conditions": {}}, "M_BAD_JSON"),
        ("override/x", {"actions": ["notify"] * 101}, "M_INVALID_PARAM"),
        ("override/x", {"actions": [], "conditions": [{"kind": "x"}] * 101}, "M_INVALID_PARAM"),
        ("content/x", {"actions": []}, "M_MISSING_PARAM"),
        ("content/x", {"actions": [], "pattern": 1}, "M_BAD_JSON"),
        ("room/x", {"actions": []}, "M_INVALID_PARAM"),
        ("sender/x", {"actions": []}, "M_INVALID_PARAM"),
        ("override/x/enabled", {"enabled": "yes"}, "M_BAD_JSON"),
        ("override/x/actions", {}, "M_MISSING_PARAM"),
    ],
)
async def test_nonsense_is_refused_and_changes_nothing(alice: User, path: str, body: Any, errcode: str) -> None:
    before = (await rules(alice, "GET", "")).ok()
    (await rules(alice, "PUT", path, body)).error(400, errcode)
    assert (await rules(alice, "GET", "")).ok() == before


async def test_the_master_rule_stands_before_all_others(alice: User) -> None:
    for rule_id, query in (("a", {}), ("b", {}), ("c", {"before": "b"}), ("d", {"after": "a"})):
        (await rules(alice, "PUT", f"override/{rule_id}", {"actions": []}, **query)).ok()
    assert (await rule_ids(alice, "override"))[:6] == [
        ".m.rule.master",
        "c",
        "b",
        "a",
        "d",
        ".m.rule.suppress_notices",
    ]
    (await rules(alice, "PUT", "override/.m.rule.master/enabled", {"enabled": True})).ok()
    assert (await rule_ids(alice, "override"))[0] == ".m.rule.master"


async def test_rules_that_are_not_there(alice: User) -> None:
    (await rules(alice, "PUT", "override/.m.rule.nothing", {"actions": []})).error(404, "M_NOT_FOUND")
    for suffix, body in (("", None), ("/enabled", {"enabled": True}), ("/actions", {"actions": []})):
        (await rules(alice, "GET", f"override/nothing{suffix}")).error(404, "M_NOT_FOUND")
        if body is not None:
            (await rules(alice, "PUT", f"override/nothing{suffix}", body)).error(404, "M_NOT_FOUND")


async def test_rules_have_a_bound(shared_homeserver: Homeserver, alice: User) -> None:
    assert shared_homeserver.running is not None
    push_rules = shared_homeserver.running.server.push_rules
    rule = {"default": False, "enabled": True, "actions": [], "conditions": []}
    predefined = sum(map(len, (await push_rules.ruleset(alice.user_id)).values()))
    many = [{**rule, "rule_id": str(number)} for number in range(MAX_RULES - predefined)]
    await push_rules.change(alice.user_id, lambda ruleset: {**ruleset, "override": many + ruleset["override"]})
    (await rules(alice, "PUT", "override/more", {"actions": []})).error(400, "M_LIMIT_EXCEEDED")
    (await rules(alice, "PUT", "override/1", {"actions": ["notify"]})).ok()
    pattern = "x" * 60_000
    for number in range(4):
        (await rules(alice, "DELETE", f"override/{number}")).ok()
    answers = [
        await rules(alice, "PUT", f"content/{number}", {"actions": [], "pattern": pattern}) for number in range(4)
    ]
    answers[-1].error(413, "M_TOO_LARGE")


async def test_a_muted_room_counts_for_nothing_until_it_is_unmuted(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    other = await make_room(bob, creator=alice)
    await alice.send(room_id, "counts")
    await mute(bob, room_id)
    for number in range(3):
        await alice.send(room_id, str(number))
    await alice.send(room_id, {"msgtype": "m.text", "body": "x", "m.mentions": {"user_ids": [bob.user_id]}})
    await alice.send(other, "counts")
    assert await unread(bob, room_id) == (1, 0)
    assert await unread(bob, other) == (1, 0)
    (await rules(bob, "DELETE", f"override/{encode(room_id)}")).ok()
    await alice.send(room_id, "counts again")
    assert await unread(bob, room_id) == (2, 0)


async def test_mentions_only(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    (await rules(bob, "PUT", f"room/{encode(room_id)}", {"actions": []})).ok()
    await alice.send(room_id, "x")
    await alice.send(room_id, {"msgtype": "m.text", "body": "x", "m.mentions": {"user_ids": [bob.user_id]}})
    assert await unread(bob, room_id) == (1, 1)


async def test_display_names_and_keywords(alice: User, bob: User) -> None:
    path = f"profile/{encode(bob.user_id)}/displayname"
    (await bob.request("PUT", path, {"displayname": "Bobby"})).ok()
    room_id = await make_room(bob, creator=alice)
    loud = ["notify", {"set_tweak": "highlight"}]
    named = {"actions": loud, "conditions": [{"kind": "contains_display_name"}]}
    (await rules(bob, "PUT", "override/name", named)).ok()
    (await rules(bob, "PUT", "content/word", {"actions": loud, "pattern": "word"})).ok()
    for body in ("hello bobby", "one Word", "nothing"):
        await alice.send(room_id, body)
    assert await unread(bob, room_id) == (3, 2)


async def test_rules_made_before_a_join_count(alice: User, bob: User) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await mute(bob, room_id)
    await bob.join(room_id)
    await alice.send(room_id, "x")
    assert await unread(bob, room_id) == (0, 0)
    own = await bob.create_room(preset="public_chat")
    await alice.join(own)
    (await rules(bob, "PUT", "override/.m.rule.master/enabled", {"enabled": True})).ok()
    await alice.send(own, "x")
    assert await unread(bob, own) == (0, 0)


async def test_muting_writes_no_row_per_message(shared_homeserver: Homeserver, alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    await mute(bob, room_id)
    for _ in range(5):
        await alice.send(room_id, "x")
    assert shared_homeserver.running is not None
    pool = shared_homeserver.running.server.database.pool
    assert await pool.fetchval("SELECT count(*) FROM personal_counts WHERE user_id = $1", bob.user_id) == 0


async def test_rules_survive_a_restart(start_server: StartServer) -> None:
    async with start_server() as homeserver:
        alice, bob = await homeserver.register(), await homeserver.register()
        room_id = await make_room(bob, creator=alice)
        await mute(bob, room_id)
        (await rules(bob, "PUT", "underride/.m.rule.call/enabled", {"enabled": False})).ok()
        before = (await rules(bob, "GET", "")).ok()
        await alice.send(room_id, "x")
    async with start_server() as homeserver:
        alice = User(homeserver, alice.user_id, alice.token, alice.device_id)
        bob = User(homeserver, bob.user_id, bob.token, bob.device_id)
        assert (await rules(bob, "GET", "")).ok() == before
        await alice.send(room_id, "x")
        assert await unread(bob, room_id) == (0, 0)


async def test_counts_by_thread(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    root = await alice.send(room_id, "root")
    in_thread = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}, "msgtype": "m.text", "body": "x"}
    first = await alice.send(room_id, in_thread)
    mention = {**in_thread, "m.mentions": {"user_ids": [bob.user_id]}}
    last = await alice.send(room_id, mention)
    assert await unread(bob, room_id) == (3, 1)

    async def by_thread() -> tuple[Any, Any]:
        part = joined(await bob.sync(filter=BY_THREAD), room_id)
        return part["unread_notifications"], part.get("unread_thread_notifications")

    main = {"notification_count": 1, "highlight_count": 0}
    assert await by_thread() == (main, {root: {"notification_count": 2, "highlight_count": 1}})

    async def read(event_id: str, thread_id: str) -> None:
        path = f"receipt/m.read/{encode(event_id)}"
        (await bob.in_room("POST", room_id, path, {"thread_id": thread_id})).ok()

    await read(first, root)
    assert await by_thread() == (main, {root: {"notification_count": 1, "highlight_count": 1}})
    await read(root, "main")
    main["notification_count"] = 0
    assert await by_thread() == (main, {root: {"notification_count": 1, "highlight_count": 1}})
    await read(last, root)
    assert await by_thread() == (main, None)
    receipts = [e for e in joined(await bob.sync(), room_id)["ephemeral"]["events"] if e["type"] == "m.receipt"]
    threads = {
        (event_id, receipt["m.read"][bob.user_id]["thread_id"])
        for event in receipts
        for event_id, receipt in event["content"].items()
    }
    assert threads == {(root, "main"), (last, root)}
