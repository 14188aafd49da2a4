"""Other people's devices, fetched when they are needed and kept until the homeserver says that they have changed.

https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from appservices.summary_bot.encryption.devices import Device, read_devices, read_identity
from appservices.summary_bot.events import mapping
from appservices.summary_bot.matrix.client import MatrixFailure
from appservices.summary_bot.matrix.keys import KeysClient
from appservices.summary_bot.storage.devices import DeviceRepository

USERS_PER_QUERY = 200


class DeviceList:
    """Which devices people have."""

    def __init__(self, keys: KeysClient, repository: DeviceRepository) -> None:
        self._keys = keys
        self._repository = repository

    async def load(self, user_ids: Iterable[str]) -> list[Device]:
        """The devices of these users. Of those whose server does not answer, what was known before. Raises
        MatrixFailure."""
        wanted = sorted(set(user_ids))
        await self._refresh(wanted)
        return await self._repository.load_devices(wanted)

    async def find(self, user_id: str, identity_key: str) -> Device | None:
        """A user's device by what it encrypts with; asked for anew where it is not known. Raises MatrixFailure, a
        temporary one where the user's server does not answer."""
        found = _with_key(await self.load([user_id]), identity_key)
        if found is None:
            await self._repository.note_changes([user_id])
            if user_id not in await self._refresh([user_id]):
                raise MatrixFailure("the devices of a user are not to be had", is_temporary=True)
            found = _with_key(await self._repository.load_devices([user_id]), identity_key)
        return found

    async def _refresh(self, user_ids: Sequence[str]) -> set[str]:
        """Fetches what is out of date; those of whom there was an answer."""
        outdated = await self._repository.load_outdated(user_ids)
        users = list(outdated)
        answered: set[str] = set()
        for start in range(0, len(users), USERS_PER_QUERY):
            batch = users[start : start + USERS_PER_QUERY]
            answer = await self._keys.query_keys(batch)
            device_keys, failures = mapping(answer.get("device_keys")), mapping(answer.get("failures"))
            for user_id in batch:
                if user_id not in device_keys and user_id.partition(":")[2] in failures:
                    continue
                signer_key = read_identity(user_id, answer)
                devices = read_devices(user_id, device_keys.get(user_id), signer_key)
                await self._repository.persist_devices(
                    user_id, list(devices.values()), outdated[user_id], has_identity=signer_key is not None
                )
                answered.add(user_id)
        return answered


def _with_key(devices: Iterable[Device], identity_key: str) -> Device | None:
    return next((device for device in devices if device.identity_key == identity_key), None)
