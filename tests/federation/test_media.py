"""Files between servers: fetched once, kept for a while, and nothing that a hostile server could do with them."""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from moto.server import ThreadedMotoServer
from yarl import URL

from benchmarks.authority import Authority
from config.media import S3, Media
from config.secret import Secret
from homeserver.services.media.retention import SWEEP_EVERY_MS
from matrix.request_authentication import sign_request
from tests.client import Answer, Homeserver, User
from tests.engine.waiting import eventually
from tests.federation.conftest import MakeServer, name_of
from tests.federation.peer import Peer, json, raw
from tests.media.support import download, image_bytes, opened, thumbnail, upload

FETCH = "/_matrix/federation/v1/media"
OLD = "/_matrix/media/v3/download"


def multipart(body: bytes, headers: str = "Content-Type: image/png\r\n", boundary: str = "b") -> Any:
    """A handler that answers with two parts."""
    head = f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n{headers}\r\n".encode()
    return raw(
        head + body + f"\r\n--{boundary}--\r\n".encode(), **{"Content-Type": f"multipart/mixed; boundary={boundary}"}
    )


async def test_files_of_another_server(make_server: MakeServer) -> None:
    ours, theirs = await make_server("localhost"), await make_server("127.0.0.1")
    alice, bob = await theirs.register("alice"), await ours.register("bob")
    data = os.urandom(700_000) + b"\r\n--"
    name = await upload(alice, data, "video/mp4", filename="фильм.mp4")
    assert name.startswith(name_of(theirs))
    answers = await asyncio.gather(*(download(bob, name) for _ in range(5)))
    for answer in answers:
        assert answer.ok() == data
        assert answer.headers["Content-Type"] == "video/mp4"
        assert answer.headers["Content-Disposition"].endswith("%D1%84%D0%B8%D0%BB%D1%8C%D0%BC.mp4")
    assert (await download(bob, name, {"Range": "bytes=1-3"})).body == data[1:4]
    page = (await theirs.request("GET", "/metrics")).json
    assert 'http_requests_total{operation="getContent",status="200"} 1.0' in page

    picture = await upload(alice, image_bytes((900, 600)), "image/png")
    assert opened((await thumbnail(bob, picture, 96, 96, "crop")).ok()).size == (96, 96)
    empty = await upload(alice, b"")
    assert (await download(bob, empty)).ok() == b""
    (await download(bob, f"{name_of(theirs)}/unknown")).error(404, "M_NOT_FOUND")
    old = await ours.fetch("GET", f"{OLD}/{empty}")
    old.error(404, "M_NOT_FOUND")


async def test_a_file_that_is_still_to_come(make_server: MakeServer) -> None:
    ours, theirs = await make_server("localhost"), await make_server("127.0.0.1")
    alice, bob = await theirs.register("alice"), await ours.register("bob")
    uri = (await alice.request("POST", "/_matrix/media/v1/create")).ok()["content_uri"]
    name = uri.removeprefix("mxc://")
    (await download(bob, name, timeout_ms=1)).error(504, "M_NOT_YET_UPLOADED")
    waiting = asyncio.create_task(download(bob, name, timeout_ms=20_000))
    assert theirs.running is not None
    arrivals = theirs.running.server.media.arrivals
    await eventually(lambda: arrivals._waiting)
    put = await theirs.fetch("PUT", f"/_matrix/media/v3/upload/{name}", token=alice.token, data=b"here")
    assert put.ok() == b"{}"
    assert (await waiting).ok() == b"here"


async def test_copies_go_when_nobody_asks_for_them(make_server: MakeServer, peer: Peer) -> None:
    media = Media(remote_retention_ms=SWEEP_EVERY_MS, max_remote_bytes=250_000)
    ours = await make_server("localhost", media=media)
    bob = await ours.register()
    assert ours.running is not None
    server = ours.running.server
    for number in range(3):
        peer.handlers[f"{FETCH}/download/{number}"] = multipart(os.urandom(100_000))
        (await download(bob, f"{peer.name}/{number}")).ok()
        (await download(bob, f"{peer.name}/{number}")).ok()
        assert peer.count(f"{FETCH}/download/{number}") == 1
    own = await upload(bob, os.urandom(300_000))
    await server.media.retention._sweep(server.clock())
    await server.media.retention.clean()
    for number in range(3):
        (await download(bob, f"{peer.name}/{number}")).ok()
    assert sum(peer.count(f"{FETCH}/download/{number}") for number in range(3)) == 4  # one had to go
    assert await server.media.moderation.purge_remote(before_ts=server.clock() + 1) == 3
    (await download(bob, f"{peer.name}/0")).ok()
    assert (await download(bob, own)).status == 200


async def fetched(homeserver: Homeserver, peer: Peer, handler: Any) -> tuple[User, str]:
    """A user, and a name of a file at which the peer answers so."""
    media_id = f"m{len(peer.handlers)}"
    peer.handlers[f"{FETCH}/download/{media_id}"] = handler
    return await homeserver.register(), f"{peer.name}/{media_id}"


async def test_what_a_server_says_of_a_file(weft: Homeserver, peer: Peer) -> None:
    headers = 'Content-Type: text/html\r\nContent-Disposition: attachment; filename="a.html"\r\n'
    answer = await download(*await fetched(weft, peer, multipart(b"<html>", headers)))
    assert answer.ok() == b"<html>"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="a.html"'
    answer = await download(*await fetched(weft, peer, multipart(b"x", "Content-Type: a b c\r\n")))
    assert answer.headers["Content-Type"] == "application/octet-stream"
    answer = await download(*await fetched(weft, peer, multipart(b"x", "")))
    assert (answer.ok(), answer.headers["Content-Type"]) == (b"x", "application/octet-stream")


@pytest.mark.parametrize(
    ("handler", "status", "errcode"),
    [
        (json({"errcode": "M_NOT_FOUND", "error": "no"}, 404), 404, "M_NOT_FOUND"),
        (json({"errcode": "M_FORBIDDEN", "error": "no"}, 403), 404, "M_NOT_FOUND"),
        (json({"errcode": "M_NOT_YET_UPLOADED", "error": "no"}, 504), 504, "M_NOT_YET_UPLOADED"),
        (json({"errcode": "M_TOO_LARGE", "error": "no"}, 502), 502, "M_TOO_LARGE"),
        (json({"errcode": "M_LIMIT_EXCEEDED", "error": "no"}, 429), 502, "M_UNKNOWN"),
        (raw(b"gone", 500), 502, "M_UNKNOWN"),
        (json({}), 502, "M_UNKNOWN"),
        (raw(b"nothing", **{"Content-Type": "multipart/mixed"}), 502, "M_UNKNOWN"),
        (raw(b"nothing", **{"Content-Type": "multipart/mixed; boundary=b"}), 502, "M_UNKNOWN"),
        (raw(b"--b\r\n\r\n{}\r\n--b--", **{"Content-Type": "multipart/mixed; boundary=b"}), 502, "M_UNKNOWN"),
        (raw(b"--b\r\n\r\n{}\r\n--b\r\n\r\nhalf", **{"Content-Type": "multipart/mixed; boundary=b"}), 502, "M_UNKNOWN"),
        (
            raw(b"--b\r\n\r\n" + b"x" * 200_000 + b"\r\n--b--", **{"Content-Type": "multipart/mixed; boundary=b"}),
            502,
            "M_UNKNOWN",
        ),
        (raw(b"--b\r\n" + b"x" * 200_000, **{"Content-Type": "multipart/mixed; boundary=b"}), 502, "M_UNKNOWN"),
        (multipart(b"", "Location: http://127.0.0.1/x\r\n"), 502, "M_UNKNOWN"),
        (multipart(b"", "Location: https://169.254.169.254/latest\r\n"), 502, "M_UNKNOWN"),
        (multipart(b"", "Location: file:///etc/passwd\r\n"), 502, "M_UNKNOWN"),
    ],
)
async def test_servers_that_do_not_give_a_file(
    weft: Homeserver, peer: Peer, handler: Any, status: int, errcode: str
) -> None:
    user, name = await fetched(weft, peer, handler)
    (await download(user, name)).error(status, errcode)
    assert weft.running is not None
    assert weft.running.server.media.spool._directory.exists()
    assert list(weft.running.server.media.spool._directory.iterdir()) == []


async def test_a_file_that_is_elsewhere(weft: Homeserver, peer: Peer) -> None:
    headers = {"Content-Type": "text/plain; charset=koi8-r", "Content-Disposition": "inline; filename=f.txt"}
    peer.handlers["/store/file"] = raw(b"from the store", **headers)
    peer.handlers["/store/moved"] = raw(b"", 307, Location="file")
    for path in ("file", "moved"):
        handler = multipart(b"", f"Location: https://{peer.name}/store/{path}\r\n")
        answer = await download(*await fetched(weft, peer, handler))
        assert answer.ok() == b"from the store"
        assert answer.headers["Content-Type"] == "text/plain; charset=koi8-r"
        assert answer.headers["Content-Disposition"] == 'inline; filename="f.txt"'
    lost = multipart(b"", f"Location: https://{peer.name}/store/lost\r\n")
    (await download(*await fetched(weft, peer, lost))).error(502, "M_UNKNOWN")


async def test_servers_are_sent_to_the_store_too(make_server: MakeServer, peer: Peer, authority: Authority) -> None:
    store = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    store.start()
    try:
        host, port = store.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        async with aiohttp.ClientSession() as session:
            await session.put(f"{endpoint}/files")
            keys = {"access_key_id": "k", "secret_access_key": Secret("s")}
            options = S3(bucket="files", endpoint=endpoint, redirect=True, **keys)  # type: ignore[arg-type]
            ours = await make_server("localhost", s3=options)
            name = await upload(await ours.register(), b"hello", "text/plain")
            uri = f"{FETCH}/download/{name.partition('/')[2]}"
            signed = sign_request("GET", uri, origin=peer.name, destination=name_of(ours), key=peer.key)
            url, tls = f"https://{name_of(ours)}{uri}", ssl.create_default_context(cafile=authority.ca_file)
            async with session.get(url, headers={"Authorization": str(signed)}, ssl=tls) as response:
                parts = aiohttp.MultipartReader.from_response(response)
                first, second = await parts.next(), await parts.next()
            assert isinstance(first, aiohttp.BodyPartReader)
            assert isinstance(second, aiohttp.BodyPartReader)
            assert first.headers["Content-Type"] == "application/json"
            async with session.get(URL(second.headers["Location"], encoded=True)) as response:
                assert await response.read() == b"hello"
    finally:
        store.stop()


async def test_files_of_other_servers_are_bounded(make_server: MakeServer, peer: Peer) -> None:
    ours = await make_server("localhost", media=Media(max_upload_bytes=100_000))
    user, name = await fetched(ours, peer, multipart(b"x" * 300_000))
    (await download(user, name)).error(502, "M_TOO_LARGE")

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "multipart/mixed; boundary=b"})
        await answer.prepare(request)
        await answer.write(b"--b\r\n\r\n{}\r\n--b\r\n\r\n")
        for _ in range(100):
            await answer.write(b"x" * 65_536)
        return answer

    (await download(*await fetched(ours, peer, endless))).error(502, "M_TOO_LARGE")
    user, name = await fetched(ours, peer, multipart(image_bytes((9000, 9000), "PNG", "1")))
    (await thumbnail(user, name, 32, 32)).error(502, "M_TOO_LARGE")


async def test_an_older_server_is_asked_in_the_old_way(weft: Homeserver, peer: Peer) -> None:
    media_id, user = "older", await weft.register()
    peer.handlers[f"{OLD}/{peer.name}/{media_id}"] = raw(
        b"old", **{"Content-Type": "text/plain", "Content-Disposition": "inline; filename=old.txt"}
    )
    answer = await download(user, f"{peer.name}/{media_id}")
    assert answer.ok() == b"old"
    assert answer.headers["Content-Disposition"] == 'inline; filename="old.txt"'
    (asked,) = (request for request in peer.asked if request.path.startswith(OLD))
    assert "Authorization" not in asked.headers
    assert asked.query["allow_remote"] == "false"


async def ask_for(peer: Peer, homeserver: Homeserver, path: str) -> Answer:
    return await peer.ask(name_of(homeserver), "GET", f"{FETCH}/{path}")


async def test_who_asks_for_a_file_has_to_be_a_server(weft: Homeserver, peer: Peer) -> None:
    alice = await weft.register()
    name = await upload(alice, b"hello", "text/plain")
    media_id = name.partition("/")[2]
    (await weft.request("GET", f"{FETCH}/download/{media_id}")).error(401, "M_UNAUTHORIZED")
    (await ask_for(peer, weft, "download/unknown")).error(404, "M_NOT_FOUND")
    (await ask_for(peer, weft, "download/..%2F..")).error(404, "M_NOT_FOUND")
    (await ask_for(peer, weft, f"thumbnail/{media_id}?width=a&height=1")).error(400, "M_INVALID_PARAM")
    (await ask_for(peer, weft, f"thumbnail/{media_id}?width=5&height=5")).error(400, "M_UNKNOWN")
