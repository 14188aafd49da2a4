"""What holds for every request: routing, CORS, HEAD, compression, access tokens, paths of older releases, probes.

https://spec.matrix.org/v1.19/client-server-api/#api-standards
"""

from __future__ import annotations

import zlib

import orjson
import pytest

from config.schema import RateLimit, RateLimits
from homeserver.client_api.routes import ROUTES
from tests.client import Homeserver, User
from tests.client_api.support import encode, raw_http
from tests.conftest import StartServer


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


def assert_cors(headers: object) -> None:
    get = headers.get  # type: ignore[attr-defined]
    assert get("Access-Control-Allow-Origin") == "*"
    methods = {method.strip() for method in get("Access-Control-Allow-Methods").split(",")}
    assert {"GET", "POST", "PUT", "DELETE", "OPTIONS"} <= methods
    allowed = {name.strip().lower() for name in get("Access-Control-Allow-Headers").split(",")}
    assert {"x-requested-with", "content-type", "authorization"} <= allowed


@pytest.mark.parametrize(
    "path",
    [
        "/_matrix/client/v3/nonsense",
        "/_matrix/client/v3",
        "/_matrix/client/v3/",
        "/_matrix/client/v3/sync/",
        "/_matrix/client/v2/sync",
        "/_matrix",
        "/nonsense",
        "//",
        "/_matrix/client/v3/rooms//x/y/z",
        "/_matrix/client/v3//sync",
        "/%2e%2e/x",
    ],
)
async def test_unknown_paths(shared_homeserver: Homeserver, path: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
        answer = await shared_homeserver.request(method, path)
        answer.error(404, "M_UNRECOGNIZED")
        assert_cors(answer.headers)


async def test_unknown_methods_of_known_paths(shared_homeserver: Homeserver) -> None:
    for method, path, allowed in (
        ("DELETE", "/_matrix/client/v3/sync", {"GET"}),
        ("GET", "/_matrix/client/v3/createRoom", {"POST"}),
        ("PATCH", "/_matrix/client/versions", {"GET"}),
        ("POST", "/_matrix/client/v3/directory/room/x", {"GET", "PUT", "DELETE"}),
    ):
        answer = await shared_homeserver.request(method, path)
        answer.error(405, "M_UNRECOGNIZED")
        assert allowed <= {name.strip() for name in answer.headers["Allow"].split(",")}
        assert_cors(answer.headers)


async def test_a_preflight_of_any_path_is_allowed(shared_homeserver: Homeserver) -> None:
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "PUT"}
    for path in (*{route.path for route in ROUTES}, "/_matrix/client/v3/nonsense"):
        answer = await shared_homeserver.request("OPTIONS", path.replace("{", "").replace("}", ""), headers=headers)
        assert answer.status in (200, 204)
        assert answer.json == ""
        assert_cors(answer.headers)


async def test_every_answer_of_the_api_may_be_read_by_web_clients(alice: User) -> None:
    room_id = await alice.create_room()
    for answer in (
        await alice.request("GET", "sync"),
        await alice.request("GET", "sync", filter="nonsense"),
        await alice.in_room("PUT", room_id, "send/m.room.message/1", {}),
        await alice.in_room("PUT", room_id, "send/m.room.message/1", data=b"x"),
        await alice.homeserver.request("GET", "/_matrix/client/v3/sync"),
        await alice.homeserver.request("GET", "/.well-known/matrix/client"),
        await alice.homeserver.request("GET", "/_matrix/client/versions"),
    ):
        assert_cors(answer.headers)
        assert answer.headers["Content-Type"] == "application/json"


async def test_head_is_get_without_the_body(alice: User) -> None:
    for path in ("/_matrix/client/versions", "/_matrix/client/v3/sync", "/_matrix/client/v3/nonsense", "/"):
        got = await alice.request("GET", path)
        asked = await alice.request("HEAD", path)
        assert asked.status == got.status
    got = await alice.request("GET", "/_matrix/client/versions")
    asked = await alice.request("HEAD", "/_matrix/client/versions")
    assert (asked.json or "", asked.headers["Content-Length"]) == ("", got.headers["Content-Length"])


async def test_answers_are_compressed_for_who_asks(alice: User) -> None:
    room_id = await alice.create_room()
    for number in range(10):
        await alice.send(room_id, {"body": "x" * 1000, "n": number})
    target = b"GET /_matrix/client/v3/sync HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s\r\n"
    token = alice.token.encode()
    ((_, head, plain),) = await raw_http(alice.homeserver, target % (token, b""))
    assert b"content-encoding" not in head.lower()
    ((status, head, packed),) = await raw_http(alice.homeserver, target % (token, b"Accept-Encoding: gzip, br\r\n"))
    assert status == 200
    assert b"content-encoding: gzip" in head.lower()
    assert b"vary: accept-encoding" in head.lower()
    assert len(packed) < len(plain) / 5
    assert orjson.loads(zlib.decompress(packed, 31))["rooms"]["join"].keys() == {room_id}
    for refusal in (b"Accept-Encoding: identity\r\n", b"Accept-Encoding: gzip;q=0\r\n"):
        ((_, head, _),) = await raw_http(alice.homeserver, target % (token, refusal))
        assert b"content-encoding" not in head.lower()


async def test_an_access_token_may_stand_in_the_query(alice: User) -> None:
    path = "/_matrix/client/v3/account/whoami"
    answer = await alice.homeserver.request("GET", path, access_token=alice.token)
    assert answer.ok()["user_id"] == alice.user_id
    lower = await alice.homeserver.request("GET", path, headers={"Authorization": f"bearer {alice.token}"})
    assert lower.ok()["user_id"] == alice.user_id


@pytest.mark.parametrize("old", ["/_matrix/client/r0/", "/_matrix/client/api/v1/"])
async def test_paths_of_older_releases_go_on_working(alice: User, old: str) -> None:
    room_id = (await alice.request("POST", f"{old}createRoom", {})).ok()["room_id"]
    event_id = (await alice.request("PUT", f"{old}rooms/{encode(room_id)}/send/m.room.message/1", {})).ok()["event_id"]
    assert (await alice.request("GET", f"{old}rooms/{encode(room_id)}/event/{encode(event_id)}")).ok()
    assert room_id in (await alice.request("GET", f"{old}sync")).ok()["rooms"]["join"]


async def test_paths_of_proposals_that_became_stable_go_on_working(alice: User) -> None:
    profile = f"/_matrix/client/unstable/uk.tcpip.msc4133/profile/{encode(alice.user_id)}/m.tz"
    (await alice.request("PUT", profile, {"m.tz": "Europe/Berlin"})).ok()
    assert (await alice.request("GET", profile)).ok() == {"m.tz": "Europe/Berlin"}
    room_id = await alice.create_room()
    old = f"/_matrix/client/unstable/org.matrix.msc2432/rooms/{encode(room_id)}/aliases"
    assert (await alice.request("GET", old)).ok() == {"aliases": []}


async def test_probes_and_pages(shared_homeserver: Homeserver) -> None:
    assert (await shared_homeserver.request("GET", "/health")).ok() == {"status": "ok"}
    assert (await shared_homeserver.request("GET", "/ready")).ok() == {"status": "ready"}
    metrics = await shared_homeserver.request("GET", "/metrics")
    assert metrics.status == 200
    assert "# TYPE" in metrics.json
    page = await shared_homeserver.request("GET", "/")
    assert page.status == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert "weft.test" in page.json
    versions = (await shared_homeserver.request("GET", "/_matrix/client/versions")).ok()
    assert "v1.1" in versions["versions"]


async def test_capabilities(alice: User) -> None:
    capabilities = (await alice.request("GET", "capabilities")).ok()["capabilities"]
    assert capabilities["m.room_versions"]["default"] == "12"
    assert capabilities["m.room_versions"]["available"] == {str(number): "stable" for number in range(1, 13)}
    assert capabilities["m.change_password"] == {"enabled": True}


async def test_too_many_requests_are_told_when_to_come_back(start_server: StartServer) -> None:
    limits = RateLimits(
        message=RateLimit(0.1, 2), join=RateLimit(0.1, 1), invite=RateLimit(0.1, 1), room_creation=RateLimit(0.1, 1)
    )
    async with start_server(rate_limits=limits) as homeserver:
        alice, bob = await homeserver.register(), await homeserver.register()
        room_id = await alice.create_room(preset="private_chat")
        refused = [await alice.request("POST", "createRoom", {})]
        for number in range(2):
            await alice.send(room_id, str(number), txn_id=str(number))
        refused.append(await alice.in_room("PUT", room_id, "send/m.room.message/3", {}))
        refused.append(await alice.in_room("PUT", room_id, "state/m.room.topic/", {}))
        (await alice.in_room("POST", room_id, "invite", {"user_id": bob.user_id})).ok()
        refused.append(await alice.in_room("POST", room_id, "invite", {"user_id": bob.user_id}))
        await bob.join(room_id)
        refused.append(await bob.request("POST", f"join/{encode(room_id)}", {}))
        for answer in refused:
            body = answer.error(429, "M_LIMIT_EXCEEDED")
            assert 0 < body["retry_after_ms"] <= 20_000
            assert 1 <= int(answer.headers["Retry-After"]) <= 20
        await bob.send(room_id, "another's limit is another's")
