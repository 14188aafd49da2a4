"""`kill -9` while files come in: what was acknowledged is whole, what was not is nowhere; large files, flat memory."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import psutil

from tests.client import Homeserver, User
from tests.engine.process import ServerProcess, server_process, write_config
from tests.engine.waiting import eventually
from tests.media.support import DOWNLOAD, download, files_in, json_of, try_upload, upload

GONE = (aiohttp.ClientError, ConnectionError, asyncio.TimeoutError)
LARGE_BYTES = int(os.environ.get("WEFT_TEST_LARGE_BYTES", 256 * 1024 * 1024))
PIECE_BYTES = 256 * 1024
MAX_GROWTH_BYTES = 48 * 1024 * 1024


def media_config(directory: Path, url: str | None = None) -> Path:
    """A server in a process of its own that serves files, also large ones."""
    path = write_config(directory, database_url=url)
    text = path.read_text().replace("[client, health]", "[client, media, health]")
    path.write_text(text + f"media: {{max_upload_bytes: {LARGE_BYTES}}}\n")
    return path


async def test_what_was_acknowledged_is_whole(tmp_path: Path, database_url: str) -> None:
    rng = random.Random(7)
    config, kept = media_config(tmp_path, database_url), {}
    data_dir = tmp_path / "data" / "media"
    for _ in range(3):
        async with server_process(config) as server, Homeserver(server.base_url) as homeserver:
            users = [await homeserver.register() for _ in range(4)]

            async def work(user: User, seed: int, kept: dict[str, str] = kept) -> None:
                sizes = random.Random(seed)
                try:
                    while True:
                        data = sizes.randbytes(sizes.choice((1000, 300_000, 3_000_000)))
                        answer = await try_upload(user, data)
                        if answer.status == 200:
                            name = json_of(answer)["content_uri"].removeprefix("mxc://")
                            kept[name] = hashlib.sha256(data).hexdigest()
                except GONE:
                    return

            before = len(kept)
            workers = [asyncio.create_task(work(user, rng.getrandbits(32))) for user in users]
            await eventually(lambda before=before: len(kept) > before + 10)  # type: ignore[misc]
            await asyncio.sleep(rng.uniform(0, 0.1))  # the random moment
            await server.kill()
            await asyncio.gather(*workers)
    async with server_process(config) as server, Homeserver(server.base_url) as homeserver:
        reader = await homeserver.register()
        assert files_in(data_dir / "incoming") == []
        for name, digest in kept.items():
            assert hashlib.sha256((await download(reader, name)).ok()).hexdigest() == digest
    await check_store(database_url, data_dir / "files")


async def check_store(url: str, directory: Path) -> None:
    """Every name has its bytes; every file has its row, so that what is left over can be found."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT blob, sha256, bytes, stored FROM blobs")
        named = {row[0] for row in await connection.fetch("SELECT blob FROM media")}
    finally:
        await connection.close()
    names = {f"{row['sha256'].hex()}-{row['blob']}": row for row in rows}
    files = {path.name: path for path in files_in(directory)}
    assert set(files) <= set(names)
    for name, row in names.items():
        assert row["stored"] == (row["blob"] in named)
        if row["stored"]:
            assert files[name].stat().st_size == row["bytes"]
            assert hashlib.sha256(files[name].read_bytes()).digest() == row["sha256"]


async def test_what_was_left_over_is_deleted(database_url: str, tmp_path: Path) -> None:
    """A content that was put into the store just before a crash, and another one whose deletion was cut short."""
    from homeserver.clock import now_ms
    from homeserver.main import running
    from homeserver.services.media.retention import UNFINISHED_AFTER_MS
    from storage.media import MediaRepository, blob_name
    from tests.conftest import make_config

    shift = 0
    async with (
        running(make_config(tmp_path), database_url, lambda: now_ms() + shift) as server,
        Homeserver(f"http://{server.addresses[0]}", server) as homeserver,
    ):
        alice = await homeserver.register()
        media = server.server.media
        rows = MediaRepository(server.server.database.pool)
        half = await rows.reserve_blob(hashlib.sha256(b"half").digest(), 4, now_ms())
        (tmp_path / "half").write_bytes(b"half")
        await media.store.put(blob_name(half.sha256, half.blob), tmp_path / "half")
        name = await upload(alice, b"doomed")
        row = await rows.load_media("weft.test", name.partition("/")[2])
        assert row is not None
        await rows.delete_media("weft.test", row.media_id)
        assert await rows.doom_blob(row.blob, [number for number, _ in await rows.load_garbage(limit=10)])
        again = await upload(alice, b"doomed")  # in the middle of the deletion
        assert len(files_in(tmp_path / "media" / "files")) == 3
        shift = UNFINISHED_AFTER_MS + 1000
        await media.retention.clean()
        assert len(files_in(tmp_path / "media" / "files")) == 1
        assert (await download(alice, again)).ok() == b"doomed"
        assert (await download(alice, await upload(alice, b"half"))).ok() == b"half"


async def test_a_large_file_takes_no_memory(tmp_path: Path, database_url: str) -> None:
    config = media_config(tmp_path, database_url)
    async with server_process(config) as server, Homeserver(server.base_url) as homeserver:
        alice = await homeserver.register()
        await download(alice, await upload(alice, os.urandom(3_000_000)))  # what the first file alone brings along
        memory = Memory(server)
        sent = hashlib.sha256()
        name = await memory.watch(upload(alice, random_pieces(sent)))
        digest = await memory.watch(read_all(homeserver, alice, name))
        assert digest == sent.hexdigest()
        assert memory.growth < MAX_GROWTH_BYTES, f"{memory.growth // 2**20} MiB"


async def random_pieces(digest: Any) -> AsyncIterator[bytes]:
    """LARGE_BYTES in pieces, none like another; `digest` is told of them."""
    seed = os.urandom(PIECE_BYTES)
    for number in range(LARGE_BYTES // PIECE_BYTES):
        piece = number.to_bytes(8, "big") + seed[8:]
        digest.update(piece)
        yield piece


async def read_all(homeserver: Homeserver, user: User, name: str) -> str:
    """The hash of a file, read in pieces."""
    digest = hashlib.sha256()
    async with (
        aiohttp.ClientSession() as session,
        session.get(
            f"{homeserver.base_url}{DOWNLOAD}/{name}",
            headers={"Authorization": f"Bearer {user.token}"},
            timeout=aiohttp.ClientTimeout(total=None),
        ) as response,
    ):
        assert response.content_length == LARGE_BYTES
        async for piece in response.content.iter_any():
            digest.update(piece)
    return digest.hexdigest()


class Memory:
    """How much more memory a server takes at most than at the beginning."""

    def __init__(self, server: ServerProcess) -> None:
        self._process = psutil.Process(server.pid)
        self._before = self._process.memory_info().rss
        self.growth = 0

    async def watch(self, work: Any) -> Any:
        """The result of some work, during which memory is looked at."""
        task = asyncio.create_task(work)
        while not task.done():
            self.growth = max(self.growth, self._process.memory_info().rss - self._before)
            await asyncio.wait((task,), timeout=0.02)
        return task.result()
