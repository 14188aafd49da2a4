"""https://spec.matrix.org/v1.19/client-server-api/#rate-limiting"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from config.schema import RateLimit, RateLimits, Turn
from config.secret import Secret
from tests.client import Answer, Homeserver, User
from tests.client_api.support import encode
from tests.conftest import StartServer
from tests.tidy.operations import Operation, served

ONCE = RateLimit(0.0001, 1)
EVERYTHING_ONCE = RateLimits(
    **{field.name: ONCE for field in dataclasses.fields(RateLimits) if field.name != "enabled"}
)
TURN = Turn(uris=("turn:turn.weft.test",), shared_secret=Secret("x"))
ALICES_PASSWORD = {"type": "m.login.password", "user": "alice", "password": "password of alice"}
VALIDATION = {"client_secret": "s", "sid": "s"}
MAX_TRIES = 3

# What it takes for a request to get as far as its limit.
BODIES: dict[str, dict[str, Any]] = {
    "add3PID": VALIDATION,
    "bind3PID": {**VALIDATION, "id_server": "id.test", "id_access_token": "x"},
    "changePassword": {"new_password": "another"},
    "generateLoginToken": {"auth": ALICES_PASSWORD},
    "inviteBy3PID": {"user_id": "@bob:weft.test"},
    "inviteUser": {"user_id": "@bob:weft.test"},
    "login": ALICES_PASSWORD,
    "postPusher": {
        "app_id": "app",
        "pushkey": "key",
        "kind": "http",
        "app_display_name": "App",
        "device_display_name": "Device",
        "lang": "en",
        "data": {"url": "https://push.test/_matrix/push/v1/notify"},
    },
    "refresh": {"refresh_token": "x"},
    "register": {"password": "x", "auth": {"type": "m.login.dummy"}},
    "reportRoom": {"reason": ""},
    "reportUser": {"reason": ""},
    "searchUserDirectory": {"search_term": "x"},
    "setPresence": {"presence": "online"},
    "setProfileField": {"displayname": "Alice"},
    "setPushRule": {"actions": []},
    "setTyping": {"typing": True},
}
QUERIES = {
    "checkUsernameAvailability": "?username=carol",
    "getContentThumbnail": "?width=32&height=32",
    "getContentThumbnailAuthed": "?width=32&height=32",
    "getEventByTimestamp": "?ts=0&dir=f",
    "getMutualRooms": "?user_id=%40bob:weft.test",
    "registrationTokenValidity": "?token=x",
}


async def ask(homeserver: Homeserver, operation: Operation, alice: User, room_id: str, event_id: str) -> Answer:
    """A request of Alice for an operation."""
    values = {
        "userId": alice.user_id,
        "roomId": room_id,
        "roomIdOrAlias": room_id,
        "eventId": event_id,
        "receiptType": "m.read",
        "keyName": "displayname",
        "kind": "override",
        "ruleId": "x",
        "serverName": "weft.test",
    }
    path = re.sub(r"\{(\w+)\}", lambda name: encode(values.get(name[1], "x")), operation.path)
    name = operation.operation_id
    path += QUERIES.get(name, "")
    body = BODIES.get(name, {}) if operation.method != "GET" else None
    token = alice.token if operation.auth != "none" else None
    return await homeserver.request(operation.method, path, body, token=token)


async def test_what_the_specification_wants_limited_is_limited(start_server: StartServer) -> None:
    async with start_server() as homeserver:
        alice, _ = await homeserver.register("alice"), await homeserver.register("bob")
        room_id = await alice.create_room()
        event_id = await alice.send(room_id, "x")
    unlimited = []
    async with start_server(rate_limits=EVERYTHING_ONCE, turn=TURN) as homeserver:
        for operation in sorted(served()):
            if operation.api != "client-server" or not operation.rate_limited:
                continue
            for _ in range(MAX_TRIES):
                answer = await ask(homeserver, operation, alice, room_id, event_id)
                if answer.status == 429:
                    break
            else:
                unlimited.append(f"{operation.operation_id}: {answer.status} {answer.json}")
                continue
            body = answer.error(429, "M_LIMIT_EXCEEDED")
            assert 0 < body["retry_after_ms"] <= 10_000_001
            assert 0 <= int(answer.headers["Retry-After"]) - body["retry_after_ms"] / 1000 < 1
    assert unlimited == [], "\n".join(unlimited)
