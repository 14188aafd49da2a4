"""A real browser for tests: Chromium without a window, driven by its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
START_TIMEOUT_S = 30
ANSWER_TIMEOUT_S = 20


def find_browser() -> str:
    """The program to run. Debian's Chromium is installed where that can be done without asking anybody."""
    named = os.environ.get("CHROMIUM")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None and shutil.which("apt-get") and os.geteuid() == 0:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium", "fonts-dejavu-core"]
        for command in (["apt-get", "update", "-qq"], install):
            subprocess.run(command, check=True, capture_output=True, env=environment)
        found = shutil.which("chromium")
    assert found is not None, "the tests of the page need Chromium or Chrome: install it, or name it in CHROMIUM"
    return found


class Tab:
    """One tab. `problems` collects what the browser complains about, `requested` the URLs it has asked for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._loaded = asyncio.Event()
        self.problems: list[str] = []
        self.requested: list[str] = []

    async def listen(self) -> None:
        """Takes in what the browser says, until the connection ends."""
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            else:
                self._take_event(said["method"], said["params"])

    def _take_event(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Network.requestWillBeSent":
                self.requested.append(params["request"]["url"])
            case "Log.entryAdded":
                entry = params["entry"]
                if not entry.get("url", "").endswith("/favicon.ico"):  # which browsers ask for by themselves
                    self.problems.append(f"{entry.get('url')}: {entry['text']}")
            case "Runtime.exceptionThrown":
                self.problems.append(str(params["exceptionDetails"]))

    async def call(self, method: str, **params: Any) -> Any:
        """A command of the protocol; its result."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            said = await answer
        assert "error" not in said, f"{method}: {said}"
        return said["result"]

    async def open(self, url: str) -> None:
        """Goes to a page, and waits until it is there with all that belongs to it."""
        self._loaded.clear()
        result = await self.call("Page.navigate", url=url)
        assert "errorText" not in result, f"{url}: {result}"
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await self._loaded.wait()

    async def leave(self, expression: str) -> None:
        """Evaluates what leads to another page, and waits until that is there."""
        self._loaded.clear()
        await self.evaluate(expression)
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await self._loaded.wait()

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise; fails where it throws."""
        result = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def prefer(self, *, color_scheme: str) -> None:
        """Says which colours the user likes, `light` or `dark`."""
        await self.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": color_scheme}]
        )

    async def resize(self, width: int, height: int) -> None:
        """Makes the window this many CSS pixels large."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )


@asynccontextmanager
async def browser_tab(profile: Path) -> AsyncIterator[Tab]:
    """A tab of a browser of its own, whose files are in `profile`."""
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
    process = await asyncio.create_subprocess_exec(
        find_browser(),
        *options,
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        "about:blank",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        address = await _devtools_address(process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{address}/json/list") as response:
                pages = [target for target in await response.json() if target["type"] == "page"]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                listening = asyncio.create_task(tab.listen())
                for domain in ("Page", "Network", "Log", "Runtime"):
                    await tab.call(f"{domain}.enable")
                yield tab
            await listening
    finally:
        process.terminate()
        await process.wait()


async def _devtools_address(process: asyncio.subprocess.Process) -> str:
    """Host and port of the DevTools, which the browser prints once it is up."""
    assert process.stderr is not None
    said = []
    async with asyncio.timeout(START_TIMEOUT_S):
        async for line in process.stderr:
            text = line.decode()
            if "DevTools listening on ws://" in text:
                return text.partition("ws://")[2].partition("/")[0]
            said.append(text)
    raise AssertionError(f"the browser does not start: {''.join(said)}")
