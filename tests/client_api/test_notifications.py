"""https://spec.matrix.org/v1.19/client-server-api/#listing-notifications"""

from __future__ import annotations

from typing import Any

import pytest

from tests.client import Homeserver, User
from tests.client_api.support import encode, make_room


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def notifications(user: User, **query: Any) -> dict[str, Any]:
    page: dict[str, Any] = (await user.request("GET", "notifications", **query)).ok()
    return page


def ids(page: dict[str, Any]) -> list[str]:
    return [notification["event"]["event_id"] for notification in page["notifications"]]


def mention(user: User) -> dict[str, Any]:
    return {"msgtype": "m.text", "body": "psst", "m.mentions": {"user_ids": [user.user_id]}}


async def test_what_notified_is_listed_newest_first(alice: User, bob: User) -> None:
    before = await alice.create_room(preset="public_chat")
    await alice.send(before, "before the join")
    await bob.join(before)
    one, two = await make_room(bob, creator=alice), await make_room(bob, creator=alice)
    first = await alice.send(one, "first")
    own = await bob.send(one, "own")
    await alice.send(one, {"msgtype": "m.notice", "body": "quiet"})
    second = await alice.send(two, mention(bob))
    third = await alice.send(one, "third")
    (await bob.in_room("POST", one, f"receipt/m.read/{encode(first)}", {})).ok()
    page = await notifications(bob)
    assert ids(page) == [third, second, first]
    assert "next_token" not in page
    newest, mentioned, oldest = page["notifications"]
    assert (newest["read"], mentioned["read"], oldest["read"]) == (False, False, True)
    assert (newest["room_id"], mentioned["room_id"]) == (one, two)
    assert newest["actions"][0] == "notify"
    assert {"set_tweak": "highlight"} in mentioned["actions"]
    assert newest["ts"] == newest["event"]["origin_server_ts"]
    assert ids(await notifications(bob, only="highlight")) == [second]
    assert ids(await notifications(alice)) == [own]


async def test_pages(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    sent = [await alice.send(room_id, str(number)) for number in range(5)]
    found: list[str] = []
    page = await notifications(bob, limit=2)
    while True:
        found += ids(page)
        if "next_token" not in page:
            break
        page = await notifications(bob, **{"limit": 2, "from": page["next_token"]})
    assert found == sent[::-1]


async def test_redacted_events_and_muted_rooms_are_left_out(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    event_id = await alice.send(room_id, "x")
    stays = await alice.send(room_id, "y")
    (await alice.in_room("PUT", room_id, f"redact/{encode(event_id)}/1", {})).ok()
    assert ids(await notifications(bob)) == [stays]
    (await bob.request("PUT", f"pushrules/global/room/{encode(room_id)}", {"actions": []})).ok()
    assert ids(await notifications(bob)) == []


async def test_nonsense_is_refused(alice: User) -> None:
    for query in ({"from": "x"}, {"limit": "x"}, {"limit": "0"}):
        (await alice.request("GET", "notifications", **query)).error(400, "M_INVALID_PARAM")
