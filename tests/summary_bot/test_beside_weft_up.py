"""`weft up` runs the bot: it answers in a room of the administrator, and ends when the server is killed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import psutil

from tests.client import Homeserver, User
from tests.engine.process import kill_postgres, postmaster_pid
from tests.ports import free_port
from tests.summary_bot.support import WAIT_S, Person

BOT = "@summary:localhost"


async def test_weft_up_brings_the_bot_along(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "homeserver.cli", "up", "--data-dir", str(tmp_path / "data"), "--port", str(port)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=tmp_path)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            said = ""
            while "with the password" not in said:
                said = (await process.stdout.readline()).decode()
        password = re.findall(r"password (\S+)", said)[0]
        async with Homeserver(f"http://127.0.0.1:{port}") as homeserver:
            login = {
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": "admin"},
                "password": password,
            }
            answer = (await homeserver.request("POST", "/_matrix/client/v3/login", login)).ok()
            admin = Person(User(homeserver, answer["user_id"], answer["access_token"], answer["device_id"]))
            async with asyncio.timeout(WAIT_S):
                while True:
                    if (await admin.user.request("GET", f"profile/{BOT}")).json.get("displayname") is not None:
                        break
                    await asyncio.sleep(0.1)
            room_id = await admin.user.create_room(name="Home", invite=[BOT])
            await admin.wait_answer("Hello", room_id=room_id, sender=BOT)
            await admin.user.send(room_id, "!enable")
            await admin.wait_answer("I am on", room_id=room_id, sender=BOT)
            await admin.user.send(room_id, "We decided to bake bread on Saturday.")
            await admin.user.send(room_id, "!summary 2h")
            await admin.wait_answer("bake bread", without=room_id, sender=BOT)
        children = psutil.Process(process.pid).children(recursive=True)
        bots = [child for child in children if "appservices.summary_bot" in child.cmdline()]
        assert len(bots) == 1
        os.kill(process.pid, signal.SIGKILL)
        await asyncio.to_thread(psutil.wait_procs, bots, WAIT_S)
        assert not bots[0].is_running()
    finally:
        if process.returncode is None:
            process.kill()
        if postmaster_pid(tmp_path / "data") is not None:
            kill_postgres(tmp_path / "data")  # which outlives a server that is killed
        await process.wait()
