"""Every operation answers, and every EDU is, as the schemas of the specification say.

tests/data/federation_schemas.json has them: of the OpenAPI files of Matrix 1.19 what stands there for each answer of
200 and for each EDU, without descriptions and references.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import jsonschema

from matrix.hashes import content_hash
from matrix.pdu import EventReference, Pdu, build_pdu, parse_pdu
from matrix.room_versions import ROOM_VERSIONS
from matrix.signatures import SigningKey, hash_and_sign_event, sign_event
from tests.client import User
from tests.client_api.encryption import Device
from tests.client_api.test_cross_signing import new_identity
from tests.federation.conftest import MakeServer, name_of, network_of
from tests.federation.peer import Peer
from tests.federation.test_chat import shared_room, two_users
from tests.federation.test_edus import type_in
from tests.federation.test_sending import Receiver, join
from tests.federation.test_third_party_invites import promise, signed_for
from tests.tidy.sources import ROOT

SCHEMAS = json.loads((ROOT / "tests" / "data" / "federation_schemas.json").read_bytes())
V1, V2, KEY = "/_matrix/federation/v1", "/_matrix/federation/v2", "/_matrix/key/v2"
VERSIONS = [("ver", version) for version in ROOM_VERSIONS]


def path_of(*identifiers: str) -> str:
    return "/".join(quote(identifier, safe="") for identifier in identifiers)


class Asker:
    """Bob's server, which asks Alice's, and holds what is answered against the schemas."""

    def __init__(self, alice: User, bob: User) -> None:
        self.alice, self.bob = alice, bob
        self.server, self.name = name_of(alice.homeserver), name_of(bob.homeserver)
        assert bob.homeserver.running is not None
        self.key: SigningKey = bob.homeserver.running.server.signing_key
        self.answered: set[str] = set()

    async def get(self, operation: str, path: str, *query: tuple[str, str]) -> Any:
        return await self._ask(operation, "GET", path, query, None)

    async def put(self, operation: str, path: str, content: Any) -> Any:
        return await self._ask(operation, "PUT", path, (), content)

    async def post(self, operation: str, path: str, content: Any) -> Any:
        return await self._ask(operation, "POST", path, (), content)

    async def _ask(self, operation: str, method: str, path: str, query: Any, content: Any) -> Any:
        transport = network_of(self.bob.homeserver).transport
        answer = await transport.request(self.server, method, path, query=query, content=content)
        jsonschema.validate(answer, SCHEMAS["answers"][operation])
        self.answered.add(operation)
        return answer

    def complete(self, template: dict[str, Any], event_id: str) -> Pdu:
        """The event of a template."""
        version = ROOM_VERSIONS[template["room_version"]]
        event = {**template["event"], "origin": self.name, "origin_server_ts": int(time.time() * 1000)}
        if version.event_references_have_hashes:
            event["event_id"] = f"${event_id}:{self.name}"
        event["hashes"] = {"sha256": content_hash(event)}
        return parse_pdu(sign_event(event, version, self.name, self.key), version)


async def ask_about_rooms(asker: Asker, version: str) -> None:
    """Events and states of a room, and how users get into it and out of it."""
    alice, carol = asker.alice, f"@carol:{asker.name}"
    room_id = await shared_room(alice, asker.bob, room_version=version)
    event_id = await alice.send(room_id, "hello")
    room = path_of(room_id)
    for operation, what in (("getRoomState", "state"), ("getRoomStateIds", "state_ids")):
        await asker.get(operation, f"{V1}/{what}/{room}", ("event_id", event_id))
    await asker.get("getEvent", f"{V1}/event/{path_of(event_id)}")
    await asker.get("getEventAuth", f"{V1}/event_auth/{path_of(room_id, event_id)}")
    await asker.get("getEventByTimestamp", f"{V1}/timestamp_to_event/{room}", ("ts", "0"), ("dir", "f"))
    await asker.get("backfillRoom", f"{V1}/backfill/{room}", ("v", event_id), ("limit", "3"))
    gap = {"earliest_events": [], "latest_events": [event_id]}
    await asker.post("getMissingPreviousEvents", f"{V1}/get_missing_events/{room}", gap)
    steps = [("Join", "join", V2), ("Leave", "leave", V2)]
    if ROOM_VERSIONS[version].knock_allowed:
        steps.append(("Knock", "knock", V1))
    for name, step, base in steps:
        if step == "knock":
            await alice.set_state(room_id, "m.room.join_rules", {"join_rule": "knock"})
        template = await asker.get(f"make{name}", f"{V1}/make_{step}/{path_of(room_id, carol)}", *VERSIONS)
        pdu = asker.complete(template, step)
        operation = f"send{name}{'' if step == 'knock' else 'V2'}"
        await asker.put(operation, f"{base}/send_{step}/{path_of(room_id, pdu.event_id)}", pdu.json)


async def be_invited(asker: Asker) -> None:
    """Invitations as another server hands them over, and as it gets them by a promise."""
    alice, bob = asker.alice, asker.bob
    server, version = asker.name, ROOM_VERSIONS["1"]
    links = [EventReference("$before:a.example", "A" * 43)]
    invite = build_pdu(
        room_version=version,
        room_id=f"!somewhere:{server}",
        type="m.room.member",
        sender=bob.user_id,
        state_key=alice.user_id,
        content={"membership": "invite"},
        prev_events=links,
        auth_events=links,
        depth=1,
        origin_server_ts=1,
        server_name=server,
        signing_key=asker.key,
        opaque_id="invite",
    )
    event = {**invite.json, "origin": server}
    event = hash_and_sign_event({**event, "signatures": {}}, version, server, asker.key)
    path = path_of(invite.room_id, invite.event_id)
    content = {"room_version": "1", "event": event, "invite_room_state": []}
    await asker.put("sendInviteV2", f"{V2}/invite/{path}", content)
    await asker.put("sendInviteV1", f"{V1}/invite/{path}", {**event, "unsigned": {"invite_room_state": []}})
    room_id = await promise(alice)
    third_party = {"display_name": "b", "signed": signed_for(bob.user_id)}
    event = {"type": "m.room.member", "room_id": room_id, "sender": alice.user_id, "state_key": bob.user_id}
    event["content"] = {"membership": "invite", "third_party_invite": third_party}
    await asker.put("exchangeThirdPartyInvite", f"{V1}/exchange_third_party_invite/{path_of(room_id)}", event)
    binding = {"medium": "email", "address": "a@b.example", "mxid": alice.user_id, "invites": []}
    await asker.put("onBindThirdPartyIdentifier", f"{V1}/3pid/onbind", binding)


async def ask_about_users(asker: Asker) -> None:
    """Profiles, devices and keys."""
    alice, user = asker.alice, path_of(asker.alice.user_id)
    device = Device(alice)
    await device.upload(device_keys=device.keys, one_time_keys=device.one_time_keys(2))
    await new_identity(alice)
    (await alice.request("PUT", f"devices/{alice.device_id}", {"display_name": "Phone"})).ok()
    for field, value in (("displayname", "Älice"), ("avatar_url", "mxc://a/b")):
        (await alice.request("PUT", f"profile/{user}/{field}", {field: value})).ok()
    devices = await asker.get("getUserDevices", f"{V1}/user/devices/{user}")
    assert devices["devices"][0]["device_display_name"] == "Phone"
    wanted: Any = {alice.user_id: []}
    await asker.post("queryUserEncryptionKeys", f"{V1}/user/keys/query", {"device_keys": wanted})
    wanted = {alice.user_id: {alice.device_id: "signed_curve25519"}}
    await asker.post("claimUserEncryptionKeys", f"{V1}/user/keys/claim", {"one_time_keys": wanted})
    await asker.get("queryProfile", f"{V1}/query/profile", ("user_id", alice.user_id))
    await asker.get("queryProfile", f"{V1}/query/profile", ("user_id", alice.user_id), ("field", "avatar_url"))
    token = (await alice.request("POST", f"user/{user}/openid/request_token", {})).ok()["access_token"]
    await asker.get("exchangeOpenIdToken", f"{V1}/openid/userinfo", ("access_token", token))


async def ask_about_the_server(asker: Asker) -> None:
    """What it lists, what it is, its keys and those of others; and what it makes of a transaction."""
    alice = asker.alice
    options = {"preset": "public_chat", "visibility": "public", "name": "Meadow", "topic": "Grass"}
    room_id = await alice.create_room(room_alias_name="meadow", **options)
    space = await alice.create_room(preset="public_chat", creation_content={"type": "m.space"})
    for child in (room_id, await alice.create_room()):
        await alice.set_state(space, "m.space.child", {"via": [asker.server]}, child)
    await asker.get("queryRoomDirectory", f"{V1}/query/directory", ("room_alias", f"#meadow:{asker.server}"))
    await asker.get("getPublicRooms", f"{V1}/publicRooms", ("limit", "1"))
    await asker.post("queryPublicRooms", f"{V1}/publicRooms", {"filter": {"generic_search_term": "mead"}})
    tree = await asker.get("getSpaceHierarchy", f"{V1}/hierarchy/{path_of(space)}")
    assert (len(tree["children"]), len(tree["inaccessible_children"])) == (1, 1)
    await asker.get("getVersion", f"{V1}/version")
    await asker.get("getServerKey", f"{KEY}/server")
    await asker.get("perspectivesKeyQuery", f"{KEY}/query/{asker.name}")
    await asker.post("bulkPerspectivesKeyQuery", f"{KEY}/query", {"server_keys": {asker.name: {}, asker.server: {}}})
    transaction = {"origin": asker.name, "origin_server_ts": 1, "pdus": [], "edus": []}
    await asker.put("sendTransaction", f"{V1}/send/1", transaction)


async def test_answers_are_as_specified(make_server: MakeServer) -> None:
    asker = Asker(*await two_users(make_server))
    for version in ("1", "12"):
        await ask_about_rooms(asker, version)
    await be_invited(asker)
    await ask_about_users(asker)
    await ask_about_the_server(asker)
    assert asker.answered == SCHEMAS["answers"].keys()


async def test_edus_are_as_specified(make_server: MakeServer, peer: Peer) -> None:
    alice, receiver = await (await make_server("localhost")).register("alice"), Receiver(peer)
    room_id = await alice.create_room(preset="public_chat")
    eve = await join(peer, alice, room_id)
    device, event_id = Device(alice), await alice.send(room_id, "hello")
    await device.upload(device_keys=device.keys)
    await new_identity(alice)
    (await alice.request("PUT", "sendToDevice/org.example/1", {"messages": {eve: {"*": {"n": 1}}}})).ok()
    await type_in(alice, room_id, True)
    (await alice.in_room("POST", room_id, f"receipt/m.read/{quote(event_id)}", {"thread_id": "main"})).ok()
    status = {"presence": "unavailable", "status_msg": "weaving"}
    (await alice.request("PUT", f"presence/{quote(alice.user_id)}/status", status)).ok()

    def edus() -> dict[str, Any]:
        return {edu["edu_type"]: edu for content in receiver.taken for edu in content["edus"]}

    assert alice.homeserver.running is not None
    flush: Callable[[], None] = alice.homeserver.running.server.federation.outgoing_edus.flush
    flush()
    await receiver.until(lambda: edus().keys() == SCHEMAS["edus"].keys())
    for edu_type, edu in edus().items():
        jsonschema.validate(edu, SCHEMAS["edus"][edu_type])
