"""The same on a local disk and in an S3-compatible store: what comes back, in parts too, and what is deleted.

The store is moto's HTTP server. To test with another one, give its URL as `WEFT_TEST_S3`, and its keys as
`AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`; the bucket `weft-test` is made there.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiobotocore.session import get_session

from config.media import S3
from config.secret import Secret
from storage.blobs.s3 import PART_BYTES
from tests.conftest import StartServer
from tests.media.support import download, files_in, image_bytes, opened, pieces, thumbnail, try_upload, upload

KEY, SECRET = os.environ.get("AWS_ACCESS_KEY_ID", "key"), os.environ.get("AWS_SECRET_ACCESS_KEY", "secret")
BUCKET = "weft-test"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    if url := os.environ.get("WEFT_TEST_S3"):
        yield url
        return
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
async def bucket(endpoint: str) -> AsyncIterator[Any]:
    """A client for the empty bucket."""
    async with get_session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=endpoint,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
    ) as client:
        names = [bucket["Name"] for bucket in (await client.list_buckets())["Buckets"]]
        if BUCKET not in names:
            await client.create_bucket(Bucket=BUCKET)
        for key in await keys(client):
            await client.delete_object(Bucket=BUCKET, Key=key)
        yield client


async def keys(client: Any) -> list[str]:
    listed = await client.list_objects_v2(Bucket=BUCKET)
    return [entry["Key"] for entry in listed.get("Contents", ())]


def options(endpoint: str, **changes: Any) -> S3:
    values = {"bucket": BUCKET, "endpoint": endpoint, "access_key_id": KEY, "secret_access_key": Secret(SECRET)}
    return S3(**{**values, **changes})


async def test_files_are_kept_in_the_store(
    start_server: StartServer, endpoint: str, bucket: Any, tmp_path: Path
) -> None:
    async with start_server(s3=options(endpoint)) as homeserver:
        alice, bob = await homeserver.register(), await homeserver.register()
        data = random.Random(2).randbytes(PART_BYTES + 3_000_000)  # two parts
        names = [await upload(user, pieces(data, 500_000), "video/mp4", filename="фильм") for user in (alice, bob)]
        for name in names:
            answer = await download(bob, name)
            assert answer.ok() == data
            assert answer.headers["Content-Type"] == "video/mp4"
        assert (await download(alice, names[0], {"Range": "bytes=5-1000004"})).body == data[5:1_000_005]
        picture = await upload(alice, image_bytes((900, 500)), "image/png")
        assert opened((await thumbnail(bob, picture, 32, 32, "crop")).ok()).size == (32, 32)
        assert opened((await thumbnail(bob, picture, 900, 900)).ok()).size == (900, 500)
        empty = await upload(bob, b"")
        assert (await download(bob, empty)).ok() == b""
        assert len(await keys(bucket)) == 4
        assert all(key.startswith("media/") for key in await keys(bucket))
        assert files_in(tmp_path / "media") == []

        assert homeserver.running is not None
        retention = homeserver.running.server.media.retention
        await erase(alice)
        await retention.clean()
        assert (await download(bob, names[1])).ok() == data
        assert len(await keys(bucket)) == 2
        await erase(bob)
        await retention.clean()
        assert await keys(bucket) == []


async def erase(user: Any) -> None:
    auth = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user.user_id},
        "password": f"password of {user.user_id[1:].partition(':')[0]}",
    }
    (await user.request("POST", "account/deactivate", {"erase": True, "auth": auth})).ok()


async def test_clients_are_redirected_where_they_allow_it(
    start_server: StartServer, endpoint: str, bucket: Any
) -> None:
    from config.media import Media

    public = Media(unauthenticated_until="2100-01-01")
    async with start_server(s3=options(endpoint, redirect=True), media=public) as homeserver:
        alice = await homeserver.register()
        data = os.urandom(1000)
        name = await upload(alice, data, "text/html", filename="página.html")
        answer = await download(alice, name)
        assert answer.status == 307
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        async with aiohttp.ClientSession() as session, session.get(answer.headers["Location"]) as response:
            assert await response.read() == data
            assert response.headers["Content-Type"] == "text/html"
            assert response.headers["Content-Disposition"].startswith("attachment; filename=")
        old = f"/_matrix/media/v3/download/{name}"
        assert (await homeserver.fetch("GET", old)).ok() == data
        assert (await homeserver.fetch("GET", old, allow_redirect="false")).ok() == data
        assert (await homeserver.fetch("GET", old, allow_redirect="true")).status == 307
        picture = await upload(alice, image_bytes((900, 500)), "image/png")
        assert (await thumbnail(alice, picture, 32, 32, "crop")).status == 307


async def test_a_store_that_is_away_fails_files_alone(start_server: StartServer, endpoint: str, bucket: Any) -> None:
    async with start_server(s3=options(endpoint)) as homeserver:
        alice = await homeserver.register()
        name = await upload(alice, b"here")
        (key,) = await keys(bucket)
        await bucket.delete_object(Bucket=BUCKET, Key=key)
        (await download(alice, name)).error(404, "M_NOT_FOUND")
    async with start_server(s3=options("http://127.0.0.1:9")) as homeserver:
        alice = await homeserver.register()
        answers = await asyncio.gather(try_upload(alice, b"1"), download(alice, name))
        for answer in answers:
            answer.error(503, "M_UNKNOWN")
        assert await alice.create_room()


async def test_a_library_for_a_store_is_loaded_only_for_a_store() -> None:
    """Checked in a process of its own: here, other tests have loaded it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "import sys, homeserver.main; print('botocore' in sys.modules, 'PIL' in sys.modules)"),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert output == b"False False\n"
