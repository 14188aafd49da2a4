"""Names that are made before their files: https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav1create"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from config.media import Media
from homeserver.services.media.uploads import AWAITED_LIFETIME_MS, MAX_AWAITED_UPLOADS
from tests.client import Fetched, Homeserver, User
from tests.conftest import StartServer, make_config
from tests.engine.waiting import eventually
from tests.media.support import download, thumbnail, try_upload


async def create(user: User) -> str:
    body = (await user.request("POST", "/_matrix/media/v1/create")).ok()
    assert body["unused_expires_at"] > 0
    return str(body["content_uri"]).removeprefix("mxc://")


async def put(user: User, name: str, data: Any, **query: Any) -> Fetched:
    headers = {"Content-Type": "text/plain"}
    path = f"/_matrix/media/v3/upload/{name}"
    return await user.homeserver.fetch("PUT", path, token=user.token, data=data, headers=headers, **query)


async def test_a_download_waits_for_its_upload(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    name = await create(alice)
    assert shared_homeserver.running is not None
    arrivals = shared_homeserver.running.server.media.arrivals
    waiting = [asyncio.create_task(download(user, name, timeout_ms=60_000)) for user in (alice, bob, bob)]
    await eventually(lambda: len(arrivals._waiting.get(("weft.test", name.partition("/")[2]), ())) == 3)
    assert (await put(alice, name, b"here", filename="it.txt")).ok() == b"{}"
    for answer in await asyncio.gather(*waiting):
        assert answer.ok() == b"here"
        assert answer.headers["Content-Disposition"] == 'inline; filename="it.txt"'
    assert arrivals._waiting == {}


async def test_what_is_not_there_in_time_is_not_yet_uploaded(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    name = await create(alice)
    (await download(alice, name, timeout_ms=0)).error(504, "M_NOT_YET_UPLOADED")
    (await download(alice, name, timeout_ms=50)).error(504, "M_NOT_YET_UPLOADED")
    (await thumbnail(alice, name, 32, 32, timeout_ms=1)).error(504, "M_NOT_YET_UPLOADED")


async def test_a_name_gets_one_file_from_whoever_made_it(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    name = await create(alice)
    (await put(bob, name, b"not his")).error(403, "M_FORBIDDEN")
    (await put(alice, "weft.test/unknown", b"x")).error(404, "M_NOT_FOUND")
    (await put(alice, "elsewhere.test/" + name.partition("/")[2], b"x")).error(404, "M_NOT_FOUND")
    answers = await asyncio.gather(*(put(alice, name, f"file {n}".encode()) for n in range(8)))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 7
    (await put(alice, name, b"again")).error(409, "M_CANNOT_OVERWRITE_MEDIA")
    (winner,) = (n for n, answer in enumerate(answers) if answer.status == 200)
    assert (await download(bob, name)).ok() == f"file {winner}".encode()
    assert shared_homeserver.running is not None
    await shared_homeserver.running.server.media.retention.clean()  # the losers' contents
    assert (await download(bob, name)).ok() == f"file {winner}".encode()
    assert (await try_upload(bob, f"file {(winner + 1) % 8}".encode())).status == 200


async def test_a_name_gives_no_right_to_more_than_an_upload_has(start_server: StartServer) -> None:
    async with start_server(media=Media(max_upload_bytes=1_000, user_quota_bytes=1_200)) as homeserver:
        alice = await homeserver.register()
        first, second = await create(alice), await create(alice)
        (await put(alice, first, bytes(1_001))).error(413, "M_TOO_LARGE")
        assert (await put(alice, first, bytes(1_000))).ok() == b"{}"
        (await put(alice, second, bytes(201))).error(403, "M_FORBIDDEN")
        assert (await put(alice, second, bytes(200))).ok() == b"{}"
        (await alice.request("POST", "/_matrix/media/v1/create")).error(403, "M_FORBIDDEN")


async def test_names_without_files_are_bounded_and_expire(database_url: str, tmp_path: Path) -> None:
    from homeserver.clock import now_ms
    from homeserver.main import running

    shift = 0
    async with (
        running(make_config(tmp_path), database_url, lambda: now_ms() + shift) as server,
        Homeserver(f"http://{server.addresses[0]}", server) as homeserver,
    ):
        alice, bob = await homeserver.register(), await homeserver.register()
        names = [await create(alice) for _ in range(MAX_AWAITED_UPLOADS)]
        refused = await alice.request("POST", "/_matrix/media/v1/create")
        assert 0 < refused.error(429, "M_LIMIT_EXCEEDED")["retry_after_ms"] <= AWAITED_LIFETIME_MS
        await create(bob)
        (await put(alice, names[0], b"one")).ok()
        await create(alice)
        shift = AWAITED_LIFETIME_MS + 60_000
        (await put(alice, names[1], b"late")).error(404, "M_NOT_FOUND")
        (await download(alice, names[1])).error(404, "M_NOT_FOUND")
        assert (await download(bob, names[0])).ok() == b"one"
        await create(alice)
        await server.server.media.retention.clean()
        (await put(alice, names[2], b"late")).error(404, "M_NOT_FOUND")
