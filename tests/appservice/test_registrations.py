"""Registrations that come, change and go while the server runs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from config.errors import ConfigError
from config.schema import RateLimit, RateLimits
from tests.appservice.support import Appservice, ServiceUser, ghost, listening
from tests.client import Homeserver
from tests.client_api.support import encode
from tests.conftest import StartServer
from tests.engine.process import server_process, write_config

WAIT_S = 20.0


async def until_known(sender: ServiceUser) -> None:
    """Waits until the server takes a service's token."""
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while (await sender.request("GET", "account/whoami")).status != 200:
        assert asyncio.get_running_loop().time() < deadline, "the server does not know the service"
        await asyncio.sleep(0.05)


async def read_again(homeserver: Homeserver) -> None:
    """Has the server look at the files now, not in two seconds."""
    assert homeserver.running is not None
    await homeserver.running.server.appservices.registrations.check()


def ids(homeserver: Homeserver) -> list[str]:
    """The services that the server knows."""
    assert homeserver.running is not None
    return [service.id for service in homeserver.running.server.appservices.services.all()]


async def test_a_registration_is_picked_up_changed_and_removed(start_server: StartServer, tmp_path: Path) -> None:
    service = Appservice("late")
    async with listening(service), start_server() as homeserver:
        sender = ServiceUser(homeserver, service)
        (await sender.request("GET", "account/whoami")).error(401, "M_UNKNOWN_TOKEN")
        path = service.write(tmp_path)
        await until_known(sender)  # without anybody's doing
        user = await ghost(homeserver, service, "a")
        human = await homeserver.register()
        room_id = await human.create_room(preset="public_chat")
        (await user.request("POST", f"join/{encode(room_id)}", {})).ok()
        await service.wait_for_event(await human.send(room_id, "the first"))

        # Elsewhere and with another token: what it has not got goes there.
        await service.stop()
        missed = await human.send(room_id, "while it moves")
        service.port, old_token = 0, service.as_token
        await service.start()
        service.as_token, service.hs_token = "another_as_token", "another_hs_token"
        service.write(tmp_path)
        await read_again(homeserver)
        await service.wait_for_event(missed)
        assert service.transactions()[-1].token == "another_hs_token"
        whoami = await homeserver.request("GET", "/_matrix/client/v3/account/whoami", token=old_token)
        whoami.error(401, "M_UNKNOWN_TOKEN")

        # A broken version changes nothing.
        path.write_text("id: [")
        await read_again(homeserver)
        assert ids(homeserver) == ["late"]
        (await user.request("GET", "account/whoami")).ok()

        path.unlink()
        await read_again(homeserver)
        assert ids(homeserver) == []
        (await user.request("GET", "account/whoami")).error(401, "M_UNKNOWN_TOKEN")
        told = len(service.transactions())
        unheard = await human.send(room_id, "nobody listens")
        assert len(service.transactions()) == told

        # What it missed is told when it is back.
        service.write(tmp_path)
        await read_again(homeserver)
        await service.wait_for_event(unheard)


async def test_a_narrower_namespace_holds_at_once(start_server: StartServer, tmp_path: Path) -> None:
    service = Appservice("narrow")
    service.write(tmp_path)
    async with start_server() as homeserver:
        user = await ghost(homeserver, service, "a")
        (await user.request("GET", "account/whoami")).ok()
        service.changes = {"namespaces": {}}
        service.write(tmp_path)
        await read_again(homeserver)
        (await user.request("GET", "account/whoami")).error(403, "M_FORBIDDEN")


async def test_a_server_does_not_start_with_a_registration_that_it_cannot_use(
    start_server: StartServer, tmp_path: Path
) -> None:
    path = Appservice("broken", as_token="").write(tmp_path)
    with pytest.raises(ConfigError, match=f"{path}: as_token"):
        async with start_server():
            raise AssertionError("it has started")


async def test_a_signal_has_registrations_read_again(tmp_path: Path, database_url: str) -> None:
    service = Appservice("signalled")
    async with server_process(write_config(tmp_path, database_url=database_url)) as process:
        path = service.write(tmp_path / "data")
        # A file that looks the same as before: only the signal has it read.
        process.signal(signal.SIGHUP)
        async with Homeserver(process.base_url) as homeserver:
            sender = ServiceUser(homeserver, service)
            await until_known(sender)
            stat = path.stat()
            document = {**json.loads(path.read_text()), "as_token": service.as_token[::-1]}
            with path.open("r+") as file:
                file.write(json.dumps(document))
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            process.signal(signal.SIGHUP)
            service.as_token = document["as_token"]
            await until_known(sender)
            assert (await sender.request("GET", "account/whoami")).ok()["user_id"] == service.sender


@pytest.mark.parametrize("rate_limited", [True, False])
async def test_limits_are_not_for_services(start_server: StartServer, tmp_path: Path, rate_limited: bool) -> None:
    service = Appservice("limits", rate_limited=rate_limited)
    service.write(tmp_path)
    limits = RateLimits(message=RateLimit(0.001, 2), room_creation=RateLimit(0.001, 2))
    async with start_server(rate_limits=limits) as homeserver:
        user, sender = await ghost(homeserver, service, "a"), ServiceUser(homeserver, service)
        room_id = encode((await sender.request("POST", "createRoom", {"preset": "public_chat"})).ok()["room_id"])
        (await user.request("POST", f"join/{room_id}", {})).ok()
        of_user = [(await user.send(room_id, "x", f"{number}")).status for number in range(4)]
        of_sender = [(await sender.send(room_id, "x", f"{number}")).status for number in range(4)]
    assert of_sender == [200] * 4
    assert of_user == ([200, 200, 429, 429] if rate_limited else [200] * 4)
