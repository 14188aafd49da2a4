"""What encryption has a service be told: MSC3202 and MSC4203.

https://github.com/matrix-org/matrix-spec-proposals/pull/3202 and …/pull/4203
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.appservice.support import Appservice, ServiceUser, ghost, listening
from tests.client import Answer, Homeserver, User
from tests.client_api.encryption import Device, claim, new_device, new_signing_key, sign_as
from tests.client_api.support import encode
from tests.conftest import StartServer

MEGOLM = {"algorithm": "m.megolm.v1.aes-sha2"}
ENCRYPTED = [{"type": "m.room.encryption", "content": MEGOLM}]
TO_DEVICE = "de.sorunome.msc2409.to_device"
LISTS = "org.matrix.msc3202.device_lists"
COUNTS = "org.matrix.msc3202.device_one_time_keys_count"
FALLBACK = "org.matrix.msc3202.device_unused_fallback_key_types"


class WithDevice:
    """A service's user with a device, for what else is done with a `User`."""

    def __init__(self, user: ServiceUser, device_id: str) -> None:
        self._user = user
        self.user_id = user.user_id
        self.device_id = device_id

    async def request(self, method: str, path: str, json: Any = None, **query: Any) -> Answer:
        """A request that is made with the device."""
        return await self._user.request(method, path, json, **{"device_id": self.device_id, **query})


async def new_service_device(homeserver: Homeserver, service: Appservice, name: str) -> Device:
    """A service's user with a device that has keys."""
    user = await ghost(homeserver, service, name)
    assert (await user.request("PUT", "devices/DEVICE", {})).status == 201
    device = Device(WithDevice(user, "DEVICE"))  # type: ignore[arg-type]
    await device.upload(
        device_keys=device.keys, one_time_keys=device.one_time_keys(2), fallback_keys=device.fallback_key()
    )
    return device


def told(service: Appservice, name: str) -> list[Any]:
    """Parts of this name of all transactions, each counted once by its ID."""
    bodies = {asked.id: asked.body for asked in service.transactions()}
    return [body[name] for body in bodies.values() if name in body]


def changed(service: Appservice) -> list[str]:
    return [user_id for lists in told(service, LISTS) for user_id in lists["changed"]]


def left(service: Appservice) -> list[str]:
    return [user_id for lists in told(service, LISTS) for user_id in lists["left"]]


def messages(service: Appservice) -> list[dict[str, Any]]:
    return [message for part in told(service, TO_DEVICE) for message in part]


async def send_to(sender: User, device: Device, text: str) -> None:
    """A message to a device."""
    for_devices = {device.user.user_id: {device.user.device_id: {"text": text}}}
    path = f"sendToDevice/org.example.note/{encode(f'{text} {device.user.user_id}')}"
    (await sender.request("PUT", path, {"messages": for_devices})).ok()


async def test_a_service_is_told_what_its_devices_need(start_server: StartServer, tmp_path: Path) -> None:
    plain, service = Appservice("plain", receive_ephemeral=True), Appservice("secret", **{"org.matrix.msc3202": True})
    async with listening(plain), listening(service):
        plain.write(tmp_path)
        service.write(tmp_path)
        async with start_server() as homeserver:
            ours, ignorant = [await new_service_device(homeserver, each, "a") for each in (service, plain)]
            human, other = await new_device(homeserver), await new_device(homeserver)
            room_id = await human.user.create_room(preset="public_chat", initial_state=ENCRYPTED)
            for device in (ours, ignorant):
                (await device.user.request("POST", f"join/{encode(room_id)}", {})).ok()
            await service.wait(lambda: human.user.user_id in changed(service))
            assert other.user.user_id not in changed(service)
            await other.user.join(room_id)
            await service.wait(lambda: other.user.user_id in changed(service))
            (await other.user.in_room("POST", room_id, "leave", {})).ok()
            await service.wait(lambda: left(service) == [other.user.user_id])

            keys = {"signed_curve25519": 1}
            assert len(await claim(human.user, ours.user)) == 1
            await service.wait(lambda: {ours.user.user_id: {"DEVICE": keys}} in told(service, COUNTS))
            fallback = {ours.user.user_id: {"DEVICE": ["signed_curve25519"]}}
            assert fallback in told(service, FALLBACK)

            for device in (ours, ignorant):
                await send_to(human.user, device, "hello")
            await service.wait(lambda: messages(service))
            # Nothing is left for the device's own /sync, unless the service wants none of it.
            synced = [(await device.user.request("GET", "sync")).ok() for device in (ours, ignorant)]
    assert messages(service) == [
        {
            "type": "org.example.note",
            "sender": human.user.user_id,
            "content": {"text": "hello"},
            "to_user_id": ours.user.user_id,
            "to_device_id": "DEVICE",
        }
    ]
    assert [len(answer["to_device"]["events"]) for answer in synced] == [0, 1]
    assert not any(told(plain, name) for name in (TO_DEVICE, LISTS, COUNTS, FALLBACK))


async def test_messages_to_devices_wait_for_a_service(start_server: StartServer, tmp_path: Path) -> None:
    service = Appservice("waiting", **{"org.matrix.msc3202": True})
    await service.start()
    service.write(tmp_path)
    async with start_server() as homeserver:
        ours, human = await new_service_device(homeserver, service, "a"), await new_device(homeserver)
        room_id = await human.user.create_room(preset="public_chat", initial_state=ENCRYPTED)
        (await ours.user.request("POST", f"join/{encode(room_id)}", {})).ok()
        await send_to(human.user, ours, "at once")
        await service.wait(lambda: messages(service))
        service.status = 500
        tries = len(service.transactions())
        await send_to(human.user, ours, "on its way")
        await service.wait(lambda: len(service.transactions()) > tries)
        await service.stop()
        for number in range(150):
            await send_to(human.user, ours, f"{number}")
        await human.upload(device_keys=Device(human.user).keys)
    service.status = 200
    seen = len(service.transactions())
    await service.start()
    async with start_server():
        await service.wait(lambda: len(messages(service)) == 152)
        later = {asked.id: asked.body for asked in service.transactions()[seen:]}
        await service.wait(lambda: changed(service).count(human.user.user_id) >= 2)
    await service.stop()
    texts = [message["content"]["text"] for message in messages(service)]
    assert texts == ["at once", "on its way", *map(str, range(150))]
    assert max(len(body.get(TO_DEVICE, ())) for body in later.values()) == 100


async def test_a_service_without_a_device_has_no_keys(start_server: StartServer, tmp_path: Path) -> None:
    service = Appservice("none")
    service.write(tmp_path)
    async with start_server() as homeserver:
        user = await ghost(homeserver, service, "a")
        (await user.request("POST", "keys/upload", {})).error(400, "M_MISSING_PARAM")


async def test_a_service_replaces_cross_signing_keys_without_a_password(
    start_server: StartServer, tmp_path: Path
) -> None:
    service = Appservice("signs")
    service.write(tmp_path)
    async with start_server() as homeserver:
        user = await ghost(homeserver, service, "a")
        for _ in range(2):
            key = new_signing_key("x")
            public = key.public_key_base64
            body = {"user_id": user.user_id, "usage": ["master"], "keys": {f"ed25519:{public}": public}}
            master = sign_as(user.user_id, f"ed25519:{public}", key, body)
            (await user.request("POST", "keys/device_signing/upload", {"master_key": master})).ok()
        made = await user.request("PUT", f"devices/{encode(public)}", {})
        made.error(400, "M_INVALID_PARAM")
