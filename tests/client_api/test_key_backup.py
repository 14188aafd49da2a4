"""https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeserver.services.encryption.key_backup import KEYS_AT_ONCE
from tests.client import Answer, Homeserver, User
from tests.client_api.encryption import password_auth
from tests.client_api.support import encode
from tests.conftest import StartServer

ALGORITHM = "m.megolm_backup.v1.curve25519-aes-sha2"
BACKUP = {"algorithm": ALGORITHM, "auth_data": {"public_key": "abcdefg", "signatures": {}}}
ROOM = "!room:weft.test"


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def new_backup(user: User) -> str:
    version: str = (await user.request("POST", "room_keys/version", BACKUP)).ok()["version"]
    return version


def key(index: int = 0, forwarded: int = 0, verified: bool = False, text: str = "x") -> dict[str, Any]:
    return {
        "first_message_index": index,
        "forwarded_count": forwarded,
        "is_verified": verified,
        "session_data": {"ciphertext": text},
    }


async def put(user: User, version: str, path: str, body: Any) -> Answer:
    return await user.request("PUT", f"room_keys/keys{path}", body, version=version)


async def get(user: User, version: str, path: str = "") -> Any:
    return (await user.request("GET", f"room_keys/keys{path}", version=version)).ok()


async def test_a_backup_is_made_found_changed_and_deleted(alice: User) -> None:
    (await alice.request("GET", "room_keys/version")).error(404, "M_NOT_FOUND")
    version = await new_backup(alice)
    whole = {**BACKUP, "count": 0, "etag": "0", "version": version}
    assert (await alice.request("GET", "room_keys/version")).ok() == whole
    assert (await alice.request("GET", f"room_keys/version/{version}")).ok() == whole

    path = f"room_keys/version/{version}"
    changed = {**BACKUP, "auth_data": {"public_key": "other"}}
    assert (await alice.request("PUT", path, changed)).ok() == {}
    assert (await alice.request("PUT", path, {**changed, "version": version})).ok() == {}
    (await alice.request("PUT", path, {**changed, "version": "77"})).error(400, "M_INVALID_PARAM")
    (await alice.request("PUT", path, {**changed, "algorithm": "other"})).error(400, "M_INVALID_PARAM")
    assert (await alice.request("GET", path)).ok()["auth_data"] == {"public_key": "other"}

    second = await new_backup(alice)
    assert second != version
    assert (await alice.request("GET", "room_keys/version")).ok()["version"] == second
    for _ in range(2):
        assert (await alice.request("DELETE", f"room_keys/version/{second}")).ok() == {}
    assert (await alice.request("GET", "room_keys/version")).ok()["version"] == version
    assert await new_backup(alice) not in (version, second)
    for method, body in (("GET", None), ("PUT", changed)):
        (await alice.request(method, f"room_keys/version/{second}", body)).error(404, "M_NOT_FOUND")
        (await alice.request(method, "room_keys/version/77", body)).error(404, "M_NOT_FOUND")
    (await alice.request("DELETE", "room_keys/version/77")).error(404, "M_NOT_FOUND")
    (await alice.request("GET", "room_keys/version/nonsense")).error(404, "M_NOT_FOUND")


async def test_keys_are_stored_and_read_by_all_by_room_and_alone(alice: User) -> None:
    version = await new_backup(alice)
    rooms = {ROOM: {"sessions": {"a": key(), "b/c": key(1)}}, "!other:weft.test": {"sessions": {"a": key(2)}}}
    etags = ["0"]

    def check(answer: Answer, count: int, *, changed: bool = True) -> None:
        assert answer.ok()["count"] == count
        assert (answer.json["etag"] != etags[-1]) is changed
        etags.append(answer.json["etag"])

    check(await put(alice, version, "", {"rooms": rooms}), 3)
    check(await put(alice, version, "", {"rooms": rooms}), 3, changed=False)
    check(await put(alice, version, f"/{encode(ROOM)}", {"sessions": {"d": key(3)}}), 4)
    check(await put(alice, version, f"/{encode(ROOM)}/e", key(4)), 5)
    check(await put(alice, version, "", {"rooms": {}}), 5, changed=False)
    sessions = rooms[ROOM]["sessions"] | {"d": key(3), "e": key(4)}
    assert await get(alice, version) == {"rooms": {**rooms, ROOM: {"sessions": sessions}}}
    assert await get(alice, version, f"/{encode(ROOM)}") == {"sessions": sessions}
    assert await get(alice, version, f"/{encode(ROOM)}/b%2Fc") == key(1)
    current = (await alice.request("GET", "room_keys/version")).ok()
    assert (current["count"], current["etag"]) == (5, etags[-1])

    path = "room_keys/keys"
    check(await alice.request("DELETE", f"{path}/{encode(ROOM)}/e", version=version), 4)
    check(await alice.request("DELETE", f"{path}/{encode(ROOM)}/e", version=version), 4, changed=False)
    check(await alice.request("DELETE", f"{path}/{encode(ROOM)}", version=version), 1)
    assert await get(alice, version, f"/{encode(ROOM)}") == {"sessions": {}}
    (await alice.request("GET", f"{path}/{encode(ROOM)}/e", version=version)).error(404, "M_NOT_FOUND")
    check(await alice.request("DELETE", path, version=version), 0)
    assert await get(alice, version) == {"rooms": {}}
    assert len(set(etags)) == 7, "an etag that comes back would hide a change"


async def test_large_backups_are_sent_as_they_are_read(alice: User) -> None:
    version = await new_backup(alice)
    rooms = {
        f"!{number}:weft.test": {"sessions": {f"s{n}": key(n, text="x" * 1000) for n in range(count)}}
        for number, count in enumerate((KEYS_AT_ONCE, 1, 2 * KEYS_AT_ONCE + 7))
    }
    for room in rooms.items():
        (await put(alice, version, "", {"rooms": dict([room])})).ok()
    for encoding in ("identity", "gzip"):
        path, headers = "/_matrix/client/v3/room_keys/keys", {"Accept-Encoding": encoding}
        answer = await alice.homeserver.fetch("GET", path, token=alice.token, headers=headers, version=version)
        assert answer.headers.get("Content-Encoding", "identity") == encoding
        assert "Content-Length" not in answer.headers
        assert json.loads(answer.ok()) == {"rooms": rooms}
    for room_id, keys in rooms.items():
        assert await get(alice, version, f"/{encode(room_id)}") == keys


async def test_keys_go_into_the_current_backup_alone(alice: User) -> None:
    (await put(alice, "1", "", {"rooms": {}})).error(404, "M_NOT_FOUND")
    old = await new_backup(alice)
    (await put(alice, old, f"/{encode(ROOM)}/a", key())).ok()
    new = await new_backup(alice)
    for path, body in (
        ("", {"rooms": {}}),
        (f"/{encode(ROOM)}", {"sessions": {"a": key()}}),
        (f"/{encode(ROOM)}/a", key()),
    ):
        refused = (await put(alice, old, path, body)).error(403, "M_WRONG_ROOM_KEYS_VERSION")
        assert refused["current_version"] == new
    assert await get(alice, old) == {"rooms": {ROOM: {"sessions": {"a": key()}}}}
    (await alice.request("DELETE", "room_keys/keys", version=old)).ok()
    assert await get(alice, old) == {"rooms": {}}
    for method in ("GET", "DELETE"):
        (await alice.request(method, "room_keys/keys", version="77")).error(404, "M_NOT_FOUND")
        (await alice.request(method, "room_keys/keys")).error(400, "M_MISSING_PARAM")
    (await alice.request("PUT", "room_keys/keys", {"rooms": {}})).error(400, "M_MISSING_PARAM")


async def test_backups_are_each_users_own(alice: User, shared_homeserver: Homeserver) -> None:
    bob = await shared_homeserver.register()
    version = await new_backup(alice)
    (await put(alice, version, f"/{encode(ROOM)}/a", key())).ok()
    (await bob.request("GET", f"room_keys/version/{version}")).error(404, "M_NOT_FOUND")
    assert await new_backup(bob) == version
    assert await get(bob, version) == {"rooms": {}}


@pytest.mark.parametrize(
    "change",
    [
        {"first_message_index": -1},
        {"first_message_index": 2**53},
        {"forwarded_count": "1"},
        {"forwarded_count": 1.5},
        {"is_verified": 1},
        {"session_data": "x"},
        {"session_data": {"n": 10**30}},
        {"is_verified": None},
    ],
)
async def test_what_is_no_key_is_refused(alice: User, change: dict[str, Any]) -> None:
    version = await new_backup(alice)
    wrong = {**key(), **change}
    for path, body in (
        ("", {"rooms": {ROOM: {"sessions": {"good": key(), "wrong": wrong}}}}),
        (f"/{encode(ROOM)}", {"sessions": {"wrong": wrong}}),
        (f"/{encode(ROOM)}/wrong", wrong),
    ):
        (await put(alice, version, path, body)).error(400, "M_BAD_JSON")
    assert await get(alice, version) == {"rooms": {}}


async def test_what_is_too_large_or_has_no_name_is_refused(alice: User) -> None:
    version = await new_backup(alice)
    (await put(alice, version, f"/{encode(ROOM)}/a", key(text="x" * 70_000))).error(413, "M_TOO_LARGE")
    (await put(alice, version, f"/{encode(ROOM)}/%00", key())).error(400, "M_INVALID_PARAM")
    (await put(alice, version, f"/{'x' * 300}/a", key())).error(400, "M_INVALID_PARAM")
    (await alice.request("DELETE", "room_keys/keys/%00/a", version=version)).error(400, "M_INVALID_PARAM")
    large = {**BACKUP, "auth_data": {"public_key": "x" * 70_000}}
    (await alice.request("POST", "room_keys/version", large)).error(413, "M_TOO_LARGE")
    (await alice.request("POST", "room_keys/version", {**BACKUP, "algorithm": "\0"})).error(400, "M_INVALID_PARAM")
    (await alice.request("POST", "room_keys/version", {"algorithm": ALGORITHM})).error(400, "M_MISSING_PARAM")


KEYS = st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(uploads=st.lists(st.dictionaries(st.sampled_from("abc"), KEYS, max_size=3), max_size=6))
async def test_the_better_key_stays(
    shared_homeserver: Homeserver, uploads: list[dict[str, tuple[int, int, bool]]]
) -> None:
    """Against the rule in the words of the specification, key by key."""
    user = await shared_homeserver.register()
    version = await new_backup(user)
    kept: dict[str, tuple[int, int, bool, str]] = {}
    etag = "0"
    for number, upload in enumerate(uploads):
        before = dict(kept)
        for session_id, new in upload.items():
            if is_better(new, kept.get(session_id)):
                kept[session_id] = (*new, f"{number}")
        sessions = {session_id: key(*new, text=f"{number}") for session_id, new in upload.items()}
        answer = (await put(user, version, f"/{encode(ROOM)}", {"sessions": sessions})).ok()
        assert answer["count"] == len(kept)
        assert (answer["etag"] == etag) == (before == kept)
        etag = answer["etag"]
    assert await get(user, version, f"/{encode(ROOM)}") == {"sessions": {name: key(*row) for name, row in kept.items()}}


def is_better(new: tuple[int, int, bool], old: tuple[int, int, bool, str] | None) -> bool:
    if old is None:
        return True
    if new[2] != old[2]:
        return new[2]
    if new[0] != old[0]:
        return new[0] < old[0]
    return new[1] < old[1]


async def test_many_uploads_at_once_count_right(alice: User) -> None:
    version = await new_backup(alice)
    uploads = [{f"{n % 7}-{m}": key(n) for m in range(5)} for n in range(20)]
    answers = await asyncio.gather(
        *(put(alice, version, f"/{encode(ROOM)}", {"sessions": sessions}) for sessions in uploads)
    )
    assert all(answer.status == 200 for answer in answers)
    sessions = (await get(alice, version, f"/{encode(ROOM)}"))["sessions"]
    assert sessions == {f"{n}-{m}": key(n) for n in range(7) for m in range(5)}
    assert (await alice.request("GET", "room_keys/version")).ok()["count"] == 35


async def test_a_backup_outlives_a_restart_and_goes_with_the_account(start_server: StartServer) -> None:
    async with start_server() as homeserver:
        alice = await homeserver.register("alice")
        version = await new_backup(alice)
        (await put(alice, version, f"/{encode(ROOM)}/a", key())).ok()
    async with start_server() as homeserver:
        alice.homeserver = homeserver
        assert await get(alice, version, f"/{encode(ROOM)}/a") == key()
        (await alice.request("POST", "account/deactivate", {"auth": password_auth(alice)})).ok()
        assert homeserver.running is not None
        pool = homeserver.running.server.database.pool
        assert await pool.fetchval("SELECT count(*) FROM backed_up_keys") == 0


@pytest.mark.parametrize("path", [f"room_keys/keys/{encode(ROOM)}", f"room_keys/keys/{encode(ROOM)}/session"])
async def test_keys_of_a_backup_that_is_not_there_are_not_found(alice: User, path: str) -> None:
    for method, body in (("GET", None), ("PUT", {"sessions": {}}), ("DELETE", None)):
        if method == "PUT" and path.endswith("/session"):
            continue
        (await alice.request(method, path, body, version="99")).error(404, "M_NOT_FOUND")
