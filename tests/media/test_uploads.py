"""Files go in and come out again: names, types, limits, quotas, equal files, deletion."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest

from config.media import Media
from config.schema import RateLimit, RateLimits
from tests.client import Homeserver
from tests.conftest import StartServer
from tests.engine.waiting import eventually
from tests.media.support import DOWNLOAD, download, files_in, json_of, pieces, try_upload, upload


async def test_a_file_comes_back_as_it_was(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    data = os.urandom(300_000)
    name = await upload(alice, data, "application/pdf", filename="report.pdf")
    answer = await download(bob, name)
    assert answer.ok() == data
    assert answer.headers["Content-Type"] == "application/pdf"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="report.pdf"'
    assert answer.headers["Content-Length"] == str(len(data))
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Content-Security-Policy"] == (
        "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; "
        "style-src 'unsafe-inline'; object-src 'self';"
    )
    answer = await shared_homeserver.fetch("GET", f"{DOWNLOAD}/{name}")
    answer.error(401, "M_MISSING_TOKEN")


@pytest.mark.parametrize("size", [0, 1, 65_536, 1_048_576, 1_048_577])
async def test_files_of_every_size_and_of_unknown_length(shared_homeserver: Homeserver, size: int) -> None:
    alice = await shared_homeserver.register()
    data = os.urandom(size)
    assert (await download(alice, await upload(alice, data))).ok() == data
    assert (await download(alice, await upload(alice, pieces(data, 70_000)))).ok() == data


@pytest.mark.parametrize(
    "filename",
    ["photo.png", 'a "b" \\ c.txt', "Война и мир.pdf", "東京.jpg", "🎂.gif", "ملف.txt", "50%.txt", "a\r\nb.txt", "é"],
)
async def test_names_in_every_script(shared_homeserver: Homeserver, filename: str) -> None:
    alice = await shared_homeserver.register()
    name = await upload(alice, b"x", "text/html", filename=filename)
    given = await upload(alice, b"x", "text/html")
    header = (await download(alice, name)).headers["Content-Disposition"]
    renamed = await alice.homeserver.fetch("GET", f"{DOWNLOAD}/{given}/{quote(filename, safe='')}", token=alice.token)
    assert renamed.headers["Content-Disposition"] == header
    assert header.startswith("attachment; ")
    assert "Content-Disposition" in (await download(alice, given)).headers
    if filename.isascii() and filename.isprintable() and "%" not in filename and '"' not in filename:
        assert header == f'attachment; filename="{filename}"'
    else:
        assert header.endswith(f"; filename*=utf-8''{quote(filename, safe='!#$&+-.^_`|~')}")


@pytest.mark.parametrize(
    ("sent", "served", "disposition"),
    [
        ("image/png", "image/png", "inline"),
        ("text/plain; charset=utf-8", "text/plain; charset=utf-8", "inline"),
        ("audio/ogg", "audio/ogg", "inline"),
        ("text/html", "text/html", "attachment"),
        ("image/svg+xml", "image/svg+xml", "attachment"),
        ("application/javascript", "application/javascript", "attachment"),
        ("nonsense", "application/octet-stream", "attachment"),
        ("image/png\u00e9", "application/octet-stream", "attachment"),
        ("a/" + "b" * 300, "application/octet-stream", "attachment"),
    ],
)
async def test_only_safe_types_are_shown_inline(
    shared_homeserver: Homeserver, sent: str, served: str, disposition: str
) -> None:
    alice = await shared_homeserver.register()
    answer = await download(alice, await upload(alice, b"<script>alert(1)</script>", sent))
    assert answer.headers["Content-Type"] == served
    assert answer.headers["Content-Disposition"] == disposition


async def test_names_that_are_none_are_not_found(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    for name in ("weft.test/unknown", "weft.test/..%2F..%2Fetc", "weft.test/a.b", "%2E%2E/x", "a%00b/x", "-:-:-/x"):
        answer = await download(alice, name)
        assert answer.status in (400, 404), name
        assert json_of(answer)["errcode"] in ("M_NOT_FOUND", "M_INVALID_PARAM")
    (await download(alice, "elsewhere.test/abc")).error(404, "M_NOT_FOUND")
    (await download(alice, "weft.test/unknown", timeout_ms="soon")).error(400, "M_INVALID_PARAM")


async def test_file_names_are_bounded(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    (await try_upload(alice, b"x", filename="a" * 1025)).error(400, "M_INVALID_PARAM")
    (await try_upload(alice, b"x", filename="a\0b")).error(400, "M_INVALID_PARAM")
    assert await upload(alice, b"x", filename="a" * 1024)


async def test_sizes_are_bounded(start_server: StartServer, tmp_path: Path) -> None:
    async with start_server(media=Media(max_upload_bytes=200_000)) as homeserver:
        alice = await homeserver.register()
        assert (await alice.request("GET", "/_matrix/client/v1/media/config")).ok() == {"m.upload.size": 200_000}
        assert (await alice.request("GET", "/_matrix/media/v3/config")).ok() == {"m.upload.size": 200_000}
        await upload(alice, os.urandom(200_000))
        (await try_upload(alice, os.urandom(200_001))).error(413, "M_TOO_LARGE")
        (await try_upload(alice, pieces(os.urandom(300_000), 50_000))).error(413, "M_TOO_LARGE")
        assert files_in(tmp_path / "media" / "incoming") == []
        assert len(files_in(tmp_path / "media" / "files")) == 1


async def test_a_user_has_a_quota(start_server: StartServer) -> None:
    async with start_server(media=Media(user_quota_bytes=100_000)) as homeserver:
        alice, bob = await homeserver.register(), await homeserver.register()
        await upload(alice, os.urandom(60_000))
        (await try_upload(alice, os.urandom(60_000))).error(403, "M_FORBIDDEN")
        (await try_upload(alice, pieces(os.urandom(60_000), 10_000))).error(403, "M_FORBIDDEN")
        await upload(bob, os.urandom(60_000))
        # Each of these fits alone.
        answers = await asyncio.gather(*(try_upload(alice, pieces(os.urandom(30_000), 5_000)) for _ in range(5)))
        assert sorted(answer.status for answer in answers) == [200, 403, 403, 403, 403]


async def test_uploads_are_limited_in_number(start_server: StartServer) -> None:
    limits = RateLimits(media_upload=RateLimit(per_second=0.001, burst=2))
    async with start_server(rate_limits=limits) as homeserver:
        alice = await homeserver.register()
        await upload(alice, b"1")
        await upload(alice, b"2")
        answer = await try_upload(alice, b"3")
        assert answer.error(429, "M_LIMIT_EXCEEDED")["retry_after_ms"] > 0


async def test_equal_files_are_kept_once_and_deleted_with_the_last(homeserver: Homeserver, tmp_path: Path) -> None:
    alice, bob = await homeserver.register(), await homeserver.register()
    data = os.urandom(50_000)
    names = [await upload(user, data, "image/png", filename=user.user_id) for user in (alice, bob)]
    assert len(set(names)) == 2
    (path,) = files_in(tmp_path / "media" / "files")
    assert path.read_bytes() == data
    assert homeserver.running is not None
    retention = homeserver.running.server.media.retention

    await bob.request("POST", "account/deactivate", {"erase": True, "auth": password_of(bob.user_id)})
    await retention.clean()
    assert (await download(alice, names[0])).ok() == data
    (await download(alice, names[1])).error(404, "M_NOT_FOUND")
    carol = await homeserver.register()
    await alice.request("POST", "account/deactivate", {"erase": True, "auth": password_of(alice.user_id)})
    await retention.clean()
    (await download(carol, names[0])).error(404, "M_NOT_FOUND")
    assert files_in(tmp_path / "media" / "files") == []
    assert (await download(carol, await upload(carol, data))).ok() == data


def password_of(user_id: str) -> dict[str, object]:
    """The authentication of a user whom `register` made."""
    localpart = user_id[1:].partition(":")[0]
    return {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user_id},
        "password": f"password of {localpart}",
    }


async def test_many_upload_the_same_at_once(homeserver: Homeserver, tmp_path: Path) -> None:
    users = [await homeserver.register() for _ in range(4)]
    contents = [os.urandom(100_000) for _ in range(3)]

    async def work(number: int) -> None:
        user, data = users[number % 4], contents[number % 3]
        name = await upload(user, pieces(data, 9_000))
        assert (await download(user, name)).ok() == data

    await asyncio.gather(*(work(number) for number in range(36)))
    assert len(files_in(tmp_path / "media" / "files")) == 3
    assert files_in(tmp_path / "media" / "incoming") == []


async def test_a_suspended_user_uploads_nothing(start_server: StartServer) -> None:
    async with start_server() as homeserver:
        alice = await homeserver.register()
        assert homeserver.running is not None
        accounts = homeserver.running.server.moderation
        await accounts._accounts.set_suspended(alice.user_id, True)
        homeserver.running.server.sessions.session_ended(alice.user_id)
        (await try_upload(alice, b"x")).error(403, "M_USER_SUSPENDED")


async def test_without_a_token_what_came_before_the_freeze_is_served(start_server: StartServer) -> None:
    old = "/_matrix/media/v3/download/"
    async with start_server(media=Media(unauthenticated_until="2100-01-01")) as homeserver:
        alice = await homeserver.register()
        name = await upload(alice, b"hello", "text/plain")
        answer = await homeserver.fetch("GET", old + name)
        assert answer.ok() == b"hello"
        assert answer.headers["Cache-Control"].startswith("public")
        assert (await homeserver.fetch("GET", f"{old}{name}/other.txt")).headers["Content-Disposition"] == (
            'inline; filename="other.txt"'
        )
        assert (await homeserver.fetch("GET", old.replace("v3", "r0") + name)).ok() == b"hello"
    for day in ("2020-01-01", None):
        async with start_server(media=replace(Media(), unauthenticated_until=day)) as homeserver:
            (await homeserver.fetch("GET", old + name)).error(404, "M_NOT_FOUND")
            alice.homeserver = homeserver
            assert (await download(alice, name)).ok() == b"hello"


async def test_an_upload_that_breaks_off_leaves_nothing(homeserver: Homeserver, tmp_path: Path) -> None:
    alice = await homeserver.register()
    host, port = homeserver.base_url.removeprefix("http://").split(":")
    incoming = tmp_path / "media" / "incoming"
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /_matrix/media/v3/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice.token}\r\n"
    writer.write(head.encode() + b"Content-Length: 9000000\r\n\r\n" + os.urandom(4_000_000))
    await eventually(lambda: files_in(incoming))
    writer.close()
    await eventually(lambda: not files_in(incoming))
    assert files_in(tmp_path / "media" / "files") == []
    assert await upload(alice, b"next")


async def test_who_asks_whether_to_go_on_is_told(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    host, port = shared_homeserver.base_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /_matrix/media/v3/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice.token}\r\n"
    writer.write(head.encode() + b"Content-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"data")
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), 10)).startswith(b"HTTP/1.1 200 ")
    writer.write(head.encode() + b"Content-Length: 400000000\r\nExpect: 100-continue\r\n\r\n")
    await asyncio.wait_for(reader.readuntil(b"}"), 10)
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), 10)).startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_a_file_that_the_disk_has_lost_is_not_sent_as_if_it_were_whole(
    homeserver: Homeserver, tmp_path: Path
) -> None:
    alice = await homeserver.register()
    name = await upload(alice, os.urandom(2_000_000))
    (path,) = files_in(tmp_path / "media" / "files")
    os.truncate(path, 1_000_000)
    with pytest.raises(aiohttp.ClientPayloadError):
        await download(alice, name)
    path.unlink()
    (await download(alice, name)).error(404, "M_NOT_FOUND")
    assert (await download(alice, await upload(alice, b"next"))).ok() == b"next"
