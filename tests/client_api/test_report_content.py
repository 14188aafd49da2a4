"""https://spec.matrix.org/v1.19/client-server-api/#reporting-content"""

from __future__ import annotations

from typing import Any

import pytest

from config.schema import RateLimit, RateLimits
from storage.reports import ReportRepository
from tests.client import Homeserver
from tests.conftest import StartServer


async def last_report(homeserver: Homeserver) -> tuple[Any, ...]:
    """(reporter, room, event, user, reason) of the newest report, which only the command line shows."""
    assert homeserver.running is not None
    reports = await ReportRepository(homeserver.running.server.database.pool).load_reports(limit=1000)
    return reports[-1][2:]


async def test_rooms_events_and_users_are_reported(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    room_id = await alice.create_room(preset="public_chat")
    event_id = await alice.send(room_id, "rude")
    reason = {"reason": "this makes me sad"}

    assert (await bob.in_room("POST", room_id, "report", reason)).ok() == {}
    assert await last_report(shared_homeserver) == (bob.user_id, room_id, None, None, "this makes me sad")

    (await bob.in_room("POST", room_id, f"report/{event_id}", reason)).error(404, "M_NOT_FOUND")
    await bob.join(room_id)
    assert (await bob.in_room("POST", room_id, f"report/{event_id}", {**reason, "score": -100})).ok() == {}
    assert await last_report(shared_homeserver) == (bob.user_id, room_id, event_id, None, "this makes me sad")

    assert (await bob.in_room("POST", room_id, f"report/{event_id}", {})).ok() == {}
    assert await last_report(shared_homeserver) == (bob.user_id, room_id, event_id, None, "")

    for user_id in (alice.user_id, "@somebody:elsewhere.test"):
        assert (await bob.request("POST", f"users/{user_id}/report", {"reason": ""})).ok() == {}
        assert await last_report(shared_homeserver) == (bob.user_id, None, None, user_id, "")


async def test_what_is_not_there_cannot_be_reported(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    room_id = await alice.create_room()
    reason = {"reason": ""}

    (await alice.in_room("POST", "!unknown:weft.test", "report", reason)).error(404, "M_NOT_FOUND")
    (await alice.in_room("POST", "!unknown:weft.test", "report/$event", reason)).error(404, "M_NOT_FOUND")
    (await alice.in_room("POST", room_id, "report/$event", reason)).error(404, "M_NOT_FOUND")
    (await alice.request("POST", "users/@nobody:weft.test/report", reason)).error(404, "M_NOT_FOUND")
    (await alice.request("POST", "users/nobody/report", reason)).error(404, "M_NOT_FOUND")


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"reason": 1}, "M_BAD_JSON"),
        ({"reason": "a\0b"}, "M_INVALID_PARAM"),
        ({"reason": "ä" * 3000}, "M_INVALID_PARAM"),
    ],
)
async def test_an_unusable_report_is_refused(shared_homeserver: Homeserver, body: Any, errcode: str) -> None:
    alice = await shared_homeserver.register()
    room_id = await alice.create_room()

    (await alice.in_room("POST", room_id, "report", body)).error(400, errcode)
    (await alice.request("POST", f"users/{alice.user_id}/report", body)).error(400, errcode)


async def test_reports_are_limited(start_server: StartServer) -> None:
    async with start_server(rate_limits=RateLimits(report=RateLimit(0.001, 2))) as homeserver:
        alice = await homeserver.register("alice")
        room_id = await alice.create_room()

        (await alice.in_room("POST", room_id, "report", {"reason": ""})).ok()
        (await alice.request("POST", f"users/{alice.user_id}/report", {"reason": ""})).ok()
        (await alice.in_room("POST", room_id, "report", {"reason": ""})).error(429, "M_LIMIT_EXCEEDED")
        (await alice.request("POST", f"users/{alice.user_id}/report", {"reason": ""})).error(429, "M_LIMIT_EXCEEDED")
