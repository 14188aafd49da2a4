"""What administrators do with files, by `weft media`, beside the server that runs."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from homeserver import cli
from tests.client import Homeserver
from tests.media.support import download, files_in, image_bytes, thumbnail, upload

Weft = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def weft(database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Weft:
    """Runs `weft media …` on the database of `homeserver`: exit status, output, complaints."""
    path = tmp_path / "homeserver.yaml"
    path.write_text(f"server_name: weft.test\ndatabase: {{url: '{database_url}'}}\n")

    async def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = await asyncio.to_thread(cli.main, ["media", *arguments, "--config", str(path)])
        return status, *capsys.readouterr()

    return run


async def test_files_are_listed_and_deleted(homeserver: Homeserver, weft: Weft, tmp_path: Path) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    names = [await upload(alice, os.urandom(100 + n), "text/plain", filename=f"datei {n} ü") for n in range(3)]
    other = await upload(bob, b"bob's")
    status, output, _ = await weft("list", "alice")
    rows = [line.split("\t") for line in output.splitlines()]
    assert status == 0
    assert [row[0] for row in rows] == [f"mxc://{name}" for name in names]
    assert [(row[2], row[3], row[4], json.loads(row[5])) for row in rows] == [
        (str(100 + n), "text/plain", "served", f"datei {n} ü") for n in range(3)
    ]
    assert (await weft("delete", f"mxc://{names[0]}"))[0] == 0
    (await download(bob, names[0])).error(404, "M_NOT_FOUND")
    assert (await weft("delete", f"mxc://{names[0]}"))[::2] == (2, f"weft: There is no file mxc://{names[0]}\n")
    assert (await weft("delete-of", "@alice:weft.test"))[1] == "2 files of @alice:weft.test are deleted.\n"
    assert (await download(alice, other)).ok() == b"bob's"
    assert homeserver.running is not None
    await homeserver.running.server.media.retention.clean()
    assert len(files_in(tmp_path / "media" / "files")) == 1
    for mxc in ("nonsense", "mxc://weft.test/", "mxc://weft.test/../x", "http://weft.test/abc"):
        status, _, complaint = await weft("delete", mxc)
        assert (status, complaint.count("\n")) == (2, 1)
    assert (await weft("list", "@alice:elsewhere.test"))[0] == 2


async def test_a_quarantined_content_is_served_under_no_name(homeserver: Homeserver, weft: Weft) -> None:
    alice, bob = await homeserver.register(), await homeserver.register()
    data = image_bytes((400, 300))
    names = [await upload(user, data, "image/png") for user in (alice, bob)]
    (await thumbnail(alice, names[1], 32, 32)).ok()
    assert (await weft("quarantine", f"mxc://{names[0]}"))[0] == 0
    names.append(await upload(bob, data, "image/png"))
    for name in names:
        (await download(bob, name)).error(404, "M_NOT_FOUND")
        (await thumbnail(bob, name, 32, 32)).error(404, "M_NOT_FOUND")
    assert "quarantined" in (await weft("list", bob.user_id))[1]
    for name in names:  # deleting it all does not let it come back
        assert (await weft("delete", f"mxc://{name}"))[0] == 0
    assert homeserver.running is not None
    await homeserver.running.server.media.retention.clean()
    names = [await upload(user, data, "image/png") for user in (alice, bob, bob)]
    (await download(bob, names[0])).error(404, "M_NOT_FOUND")
    assert (await weft("quarantine", "--lift", f"mxc://{names[2]}"))[0] == 0
    for name in names:
        assert (await download(alice, name)).ok() == data
