"""https://element-hq.github.io/synapse/latest/admin_api/register_api.html"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest

from homeserver.services.accounts.shared_secret import NONCE_LIFETIME_MS, SharedSecretRegistration
from homeserver.services.errors import MatrixError
from tests.accounts.conftest import SHARED_SECRET, Services


def mac_of(*parts: str, key: str = SHARED_SECRET) -> str:
    return hmac.new(key.encode(), "\0".join(parts).encode(), hashlib.sha1).hexdigest()


async def register(services: Services, nonce: str, mac: str, **changes: Any) -> dict[str, Any]:
    user = {"username": "alice", "password": "wonderland", "admin": False, "user_type": None, "displayname": None}
    return await services.shared_secret.register(nonce=nonce, mac=mac, **{**user, **changes})


async def refusal(services: Services, nonce: str, mac: str, **changes: Any) -> tuple[int, str]:
    with pytest.raises(MatrixError) as refused:
        await register(services, nonce, mac, **changes)
    return refused.value.status, refused.value.errcode


async def test_whoever_has_the_secret_registers_users(services: Services) -> None:
    nonce = services.shared_secret.new_nonce()

    answer = await register(services, nonce, mac_of(nonce, "alice", "wonderland", "notadmin"))

    assert answer["user_id"] == "@alice:hs.test"
    assert not (await services.sessions.access_session(answer["access_token"])).is_admin
    assert await services.accounts.load_profile("@alice:hs.test") == {"displayname": "alice"}


async def test_administrators_and_user_types_are_part_of_the_mac(services: Services) -> None:
    nonce = services.shared_secret.new_nonce()
    mac = mac_of(nonce, "alice", "wonderland", "admin", "bot")
    assert await refusal(services, nonce, mac, admin=True) == (403, "M_FORBIDDEN")

    answer = await register(services, nonce, mac, admin=True, user_type="bot", displayname="Alice")

    assert (await services.sessions.access_session(answer["access_token"])).is_admin
    assert await services.accounts.load_profile("@alice:hs.test") == {"displayname": "Alice"}


async def test_a_nonce_is_good_once(services: Services) -> None:
    nonce = services.shared_secret.new_nonce()
    await register(services, nonce, mac_of(nonce, "alice", "wonderland", "notadmin"))

    mac = mac_of(nonce, "bob", "wonderland", "notadmin")

    assert await refusal(services, nonce, mac, username="bob") == (400, "M_UNKNOWN")


async def test_a_nonce_expires(services: Services) -> None:
    nonce = services.shared_secret.new_nonce()
    services.clock.now += NONCE_LIFETIME_MS

    assert await refusal(services, nonce, mac_of(nonce, "alice", "wonderland", "notadmin")) == (400, "M_UNKNOWN")


@pytest.mark.parametrize("nonce", ["", "made up", "a.9999999999999.b", "ä.1.2"])
async def test_a_nonce_must_be_the_servers_own(services: Services, nonce: str) -> None:
    assert await refusal(services, nonce, mac_of(nonce, "alice", "wonderland", "notadmin")) == (400, "M_UNKNOWN")


async def test_a_mac_of_another_secret_is_refused(services: Services) -> None:
    nonce = services.shared_secret.new_nonce()

    for mac in (mac_of(nonce, "alice", "wonderland", "notadmin", key="another secret"), "", "ä"):
        assert await refusal(services, nonce, mac) == (403, "M_FORBIDDEN")
    assert await services.accounts.count_users() == 0


async def test_without_a_secret_there_is_no_such_registration(services: Services) -> None:
    disabled = SharedSecretRegistration(None, services.registration, services.login, services.clock)

    with pytest.raises(MatrixError) as refused:
        disabled.new_nonce()
    assert refused.value.status == 403
