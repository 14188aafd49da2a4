"""What no well-behaved client sends: each request gets an answer in JSON, and breaks nothing for anybody else.

https://spec.matrix.org/v1.19/client-server-api/#api-standards
"""

from __future__ import annotations

import secrets
from typing import Any

import orjson
import pytest

from config.schema import Limits
from tests.client import Homeserver, User
from tests.client_api.support import encode, make_room, raw_http
from tests.conftest import StartServer

SEND = "/_matrix/client/v3/rooms/{}/send/m.room.message/{}"


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def put_raw(user: User, room_id: str, body: bytes, **more: Any) -> Any:
    path = SEND.format(encode(room_id), secrets.token_hex(8))
    return await user.request("PUT", path, data=body, **more)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1} {"b": 2}',
        b'{"a": 1, "a": 2}',
        b'{"b": {"a": 1, "\\u0061": 2}}',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\\ud800"}',
        b'{"\\udc00": 1}',
        b'{"a": "\\ud800\\u0061"}',
        b'{"a": "\x01"}',
        b'\xef\xbb\xbf{"a": 1}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b"[" * 1_000_000,
        b'{"a": 1' + b"0" * 10_000 + b"}",
        b'{"a": 1e400}',
    ],
)
async def test_what_is_no_unambiguous_json_is_refused(alice: User, body: bytes) -> None:
    room_id = await alice.create_room()
    (await put_raw(alice, room_id, body)).error(400, "M_NOT_JSON")


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"text"', b"true", b'[{"a": 1}]'])
async def test_what_is_json_but_no_object_is_refused(alice: User, body: bytes) -> None:
    room_id = await alice.create_room()
    (await put_raw(alice, room_id, body)).error(400, "M_BAD_JSON")


@pytest.mark.parametrize("version", ["1", "5", "6", "12"])
@pytest.mark.parametrize(
    "value",
    [b"1.5", b"1e3", b"-0.0", b"9007199254740992", b"-9007199254740992", b"1" + b"0" * 30, b"-1" + b"0" * 19],
)
async def test_numbers_that_events_cannot_have_are_refused_in_every_room_version(
    shared_homeserver: Homeserver, version: str, value: bytes
) -> None:
    alice = await shared_homeserver.register()
    room_id = await alice.create_room(room_version=version)
    (await put_raw(alice, room_id, b'{"a": [{"b": ' + value + b"}]}")).error(400, "M_BAD_JSON")
    path = f"/_matrix/client/v3/rooms/{encode(room_id)}/state/org.example/"
    (await alice.request("PUT", path, data=b'{"a": ' + value + b"}")).error(400, "M_BAD_JSON")


@pytest.mark.parametrize("value", [b"9007199254740991", b"-9007199254740991", b"0", b"-0"])
async def test_whole_numbers_of_53_bits_are_kept(alice: User, value: bytes) -> None:
    room_id = await alice.create_room()
    event_id = (await put_raw(alice, room_id, b'{"a": ' + value + b"}")).ok()["event_id"]
    event = (await alice.in_room("GET", room_id, f"event/{encode(event_id)}")).ok()
    assert event["content"] == {"a": int(value)}


async def test_every_character_that_json_can_carry_survives(alice: User) -> None:
    text = 'nul \0, quote ", backslash \\, line \u2028, emoji \N{GRINNING FACE}, noncharacter \uffff, \x7f'
    room_id = await alice.create_room()
    event_id = await alice.send(room_id, {"msgtype": "m.text", "body": text, text: {text: [text]}})
    event = (await alice.in_room("GET", room_id, f"event/{encode(event_id)}")).ok()
    assert event["content"] == {"msgtype": "m.text", "body": text, text: {text: [text]}}


async def test_deep_but_bearable_nesting_is_accepted(alice: User) -> None:
    room_id = await alice.create_room()
    (await put_raw(alice, room_id, b'{"a":' * 90 + b"1" + b"}" * 90)).ok()


async def test_an_event_may_have_65536_bytes_and_no_more(alice: User) -> None:
    room_id = await alice.create_room()
    (await put_raw(alice, room_id, orjson.dumps({"body": "x" * 64_000}))).ok()
    (await put_raw(alice, room_id, orjson.dumps({"body": "x" * 65_536}))).error(413, "M_TOO_LARGE")
    (await alice.in_room("PUT", room_id, "state/a/b", {"body": "x" * 65_536})).error(413, "M_TOO_LARGE")
    redaction = await alice.in_room(
        "PUT", room_id, f"redact/{encode(await alice.send(room_id, 'x'))}/1", {"x": "y" * 65_536}
    )
    redaction.error(413, "M_TOO_LARGE")


@pytest.mark.parametrize("long", ["x" * 256, "é" * 128, "\N{GRINNING FACE}" * 64])
async def test_types_and_state_keys_may_have_255_bytes_and_no_more(alice: User, long: str) -> None:
    room_id = await alice.create_room()
    (await alice.in_room("PUT", room_id, f"send/{encode(long)}/1", {})).error(413, "M_TOO_LARGE")
    (await alice.in_room("PUT", room_id, f"state/{encode(long)}/", {})).error(413, "M_TOO_LARGE")
    (await alice.in_room("PUT", room_id, f"state/t/{encode(long)}", {})).error(413, "M_TOO_LARGE")
    (await alice.in_room("PUT", room_id, f"state/{'x' * 255}/{'y' * 255}", {})).ok()


async def test_a_transaction_id_or_account_data_type_of_any_length_breaks_no_others_request(alice: User) -> None:
    room_id = await alice.create_room()
    long = secrets.token_urlsafe(5000)
    answers = [
        await alice.in_room("PUT", room_id, f"send/m.room.message/{long}", {}),
        await alice.request("PUT", f"user/{encode(alice.user_id)}/account_data/{long}", {}),
        await alice.in_room("PUT", room_id, f"redact/{encode(await alice.send(room_id, 'x'))}/{long}", {}),
    ]
    for answer in answers:
        answer.error(400, "M_INVALID_PARAM")


@pytest.mark.parametrize(
    "path",
    [
        "rooms/{room}/send/m.room%00message/1",
        "rooms/{room}/send/m.room.message/%00",
        "rooms/{room}/state/m.room.topic/%00",
        "rooms/{room}/state/%00",
        "rooms/%00/state/m.room.topic/",
        "rooms/{room}/send/%ff/1",
        "rooms/{room}/send/%ed%a0%80/1",
        "user/{user}/account_data/%00",
    ],
)
async def test_nul_and_broken_utf8_in_the_path_are_refused(alice: User, path: str) -> None:
    room_id = await alice.create_room()
    path = path.format(room=encode(room_id), user=encode(alice.user_id))
    (await alice.request("PUT", path, {})).error(400, "M_INVALID_PARAM")


async def test_nul_in_strings_of_a_body_is_refused_where_it_cannot_be_stored(alice: User) -> None:
    room_id = await alice.create_room()
    event_id = await alice.send(room_id, "x")
    receipt = f"receipt/m.read/{encode(event_id)}"
    (await alice.in_room("POST", room_id, receipt, {"thread_id": "\0"})).error(400, "M_INVALID_PARAM")
    (await alice.in_room("POST", room_id, "invite", {"user_id": "@\0:weft.test"})).error(400, "M_INVALID_PARAM")
    (await alice.in_room("POST", room_id, "read_markers", {"m.read": "\0"})).error(404, "M_NOT_FOUND")
    (await alice.request("POST", "createRoom", {"room_alias_name": "\0"})).error(400, "M_INVALID_PARAM")
    for state in ({"type": "\0", "content": {}}, {"type": "a", "state_key": "\0", "content": {}}):
        (await alice.request("POST", "createRoom", {"initial_state": [state]})).error(400, "M_BAD_JSON")
    alias = encode(f"#{secrets.token_hex(4)}:weft.test")
    (await alice.request("PUT", f"directory/room/{alias}", {"room_id": "\0"})).error(403, "M_FORBIDDEN")
    await alice.send(room_id, "the writer is alive")


@pytest.mark.parametrize(
    "target", [b"rooms/\xff/joined_members", b"rooms/!a/event/\xff\xfe", b"sync?since=\xff", b"sync?filter=%ff"]
)
async def test_raw_bytes_in_the_request_line_are_refused(alice: User, target: bytes) -> None:
    request = b"GET /_matrix/client/v3/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n"
    ((status, _, body),) = await raw_http(alice.homeserver, request % (target, alice.token.encode()))
    assert (status, orjson.loads(body)["errcode"]) in ((400, "M_UNKNOWN"), (400, "M_INVALID_PARAM"))


async def test_a_body_above_the_limit_is_refused_unread(start_server: StartServer) -> None:
    async with start_server(limits=Limits(max_request_bytes=70_000)) as homeserver:
        alice = await homeserver.register()
        room_id = await alice.create_room()
        (await put_raw(alice, room_id, b'{"a":"' + b"x" * 70_000 + b'"}')).error(413, "M_TOO_LARGE")
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [b" " * 10_000] * 8) + b"0\r\n\r\n"
        head = b"PUT %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nTransfer-Encoding: chunked\r\n\r\n"
        path = SEND.format(encode(room_id), "1").encode()
        ((status, _, body),) = await raw_http(homeserver, head % (path, alice.token.encode()) + chunks)
        assert (status, orjson.loads(body)["errcode"]) == (413, "M_TOO_LARGE")
        await alice.send(room_id, "still there")


async def test_a_chunked_body_is_read(alice: User) -> None:
    room_id = await alice.create_room()
    head = b"PUT %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b'4\r\n{"a"\r\n3\r\n:1}\r\n0\r\n\r\n'
    path = SEND.format(encode(room_id), "1").encode()
    ((status, _, answer),) = await raw_http(alice.homeserver, head % (path, alice.token.encode()) + body)
    assert status == 200
    event = (await alice.in_room("GET", room_id, f"event/{encode(orjson.loads(answer)['event_id'])}")).ok()
    assert event["content"] == {"a": 1}


async def test_pipelined_requests_are_answered_in_order(alice: User) -> None:
    room_id = await alice.create_room()
    requests = b""
    for number in range(20):
        body = b'{"n":%d}' % number
        path = SEND.format(encode(room_id), f"p{number}").encode()
        head = b"PUT %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n"
        requests += head % (path, alice.token.encode(), len(body)) + body
    answers = await raw_http(alice.homeserver, requests, answers=20)
    sent = [orjson.loads(body)["event_id"] for _, _, body in answers]
    page = (await alice.in_room("GET", room_id, "messages", dir="b", limit=20)).ok()
    assert [event["event_id"] for event in reversed(page["chunk"])] == sent
    assert [event["content"]["n"] for event in reversed(page["chunk"])] == list(range(20))


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "nonsense", ""])
async def test_the_content_type_of_a_body_does_not_matter(alice: User, content_type: str) -> None:
    room_id = await alice.create_room()
    (await put_raw(alice, room_id, b'{"a": 1}', headers={"Content-Type": content_type})).ok()


async def test_a_body_that_is_not_in_its_declared_encoding_is_refused(alice: User) -> None:
    room_id = await alice.create_room()
    answer = await put_raw(alice, room_id, b'{"a": 1}', headers={"Content-Encoding": "gzip"})
    answer.error(400, "M_UNKNOWN")
    await alice.send(room_id, "still there")


async def test_a_long_path_is_refused(alice: User) -> None:
    for path in (f"rooms/{'x' * 8000}/state", f"rooms/{'x' * 9000}/state"):
        answer = await alice.request("GET", path)
        assert answer.status in (403, 414, 431)
        assert answer.json["errcode"] in ("M_TOO_LARGE", "M_FORBIDDEN")


async def test_giant_queries_and_headers_get_an_error(alice: User) -> None:
    many = "&".join(f"a{number}=1" for number in range(1000))
    assert (await alice.request("GET", f"sync?{many}")).status in (200, 400)
    request = b"GET /_matrix/client/versions HTTP/1.1\r\nHost: x\r\nX-Long: %s\r\n\r\n" % (b"x" * 100_000)
    ((status, _, body),) = await raw_http(alice.homeserver, request)
    assert (status, orjson.loads(body)["errcode"]) == (431, "M_TOO_LARGE")


@pytest.mark.parametrize(
    ("query", "errcode"),
    [
        ("since=nonsense", "M_INVALID_PARAM"),
        ("since=s", "M_INVALID_PARAM"),
        ("since=s-", "M_INVALID_PARAM"),
        ("since=s1.5", "M_INVALID_PARAM"),
        ("since=s99999999999999999999", "M_INVALID_PARAM"),
        ("since=s%D9%A1", "M_INVALID_PARAM"),
        ("timeout=nonsense", "M_INVALID_PARAM"),
        ("timeout=-1", "M_INVALID_PARAM"),
        ("timeout=1.5", "M_INVALID_PARAM"),
        ("timeout=%C2%B2", "M_INVALID_PARAM"),
        ("full_state=1", "M_INVALID_PARAM"),
        ("set_presence=busy", "M_INVALID_PARAM"),
        ("filter={", "M_INVALID_PARAM"),
        ("filter=%7B%22room%22:1%7D", "M_INVALID_PARAM"),
        ("filter=%7B%22room%22:%7B%22timeline%22:%7B%22limit%22:%22a%22%7D%7D%7D", "M_INVALID_PARAM"),
    ],
)
async def test_garbage_in_the_query_of_sync_is_refused(alice: User, query: str, errcode: str) -> None:
    (await alice.request("GET", f"sync?{query}")).error(400, errcode)


@pytest.mark.parametrize("filter_id", ["0", "1", "99999999999999999999", "nonsense", "-1", "%00"])
async def test_an_unknown_filter_is_refused(alice: User, filter_id: str) -> None:
    answer = await alice.request("GET", f"sync?filter={filter_id}")
    assert answer.json["errcode"] in ("M_NOT_FOUND", "M_INVALID_PARAM")
    assert 400 <= answer.status < 500


@pytest.mark.parametrize(
    "query",
    [
        "",
        "dir=x",
        "dir=b&from=nonsense",
        "dir=b&to=s",
        "dir=f&limit=ten",
        "dir=b&limit=-1",
        "dir=b&filter=nonsense",
        "dir=b&filter=[]",
        "dir=b&filter=%7B%22types%22:1%7D",
    ],
)
async def test_garbage_in_the_query_of_messages_is_refused(alice: User, query: str) -> None:
    room_id = await alice.create_room()
    answer = await alice.in_room("GET", room_id, f"messages?{query}")
    answer.error(400, "M_INVALID_PARAM" if query else "M_MISSING_PARAM")


async def test_a_token_of_the_future_is_as_good_as_now(alice: User) -> None:
    room_id = await alice.create_room()
    sync = await alice.sync("s4000000000000000000")
    assert sync["rooms"] == {}
    event_id = await alice.send(room_id, "x")
    news = await alice.sync(sync["next_batch"])
    assert [event["event_id"] for event in news["rooms"]["join"][room_id]["timeline"]["events"]] == [event_id]
    page = (await alice.in_room("GET", room_id, "messages?dir=b&from=s4000000000000000000")).ok()
    assert page["chunk"][0]["event_id"] == event_id
    assert (await alice.in_room("GET", room_id, "messages?dir=f&from=s4000000000000000000")).ok()["chunk"] == []


@pytest.mark.parametrize("room_id", ["!unknown:weft.test", "!" + "A" * 43, "nonsense", "#alias:weft.test", "", "%20"])
async def test_unknown_rooms_are_refused_without_a_word_about_them(alice: User, room_id: str) -> None:
    room = room_id if "%" in room_id else encode(room_id)
    for method, rest, body in (
        ("GET", "state", None),
        ("GET", "state/m.room.create/", None),
        ("GET", "messages?dir=b", None),
        ("GET", "members", None),
        ("GET", "joined_members", None),
        ("GET", "event/$x", None),
        ("GET", "aliases", None),
        ("PUT", "send/m.room.message/1", {}),
        ("PUT", "state/m.room.topic/", {}),
        ("PUT", "redact/$x/1", {}),
        ("PUT", f"typing/{encode(alice.user_id)}", {"typing": True}),
        ("POST", "receipt/m.read/$x", {}),
        ("POST", "read_markers", {"m.read": "$x"}),
        ("POST", "invite", {"user_id": alice.user_id}),
        ("POST", "kick", {"user_id": alice.user_id}),
        ("POST", "ban", {"user_id": alice.user_id}),
        ("POST", "unban", {"user_id": alice.user_id}),
        ("POST", "join", {}),
        ("POST", "leave", {}),
        ("POST", "forget", {}),
    ):
        answer = await alice.request(method, f"rooms/{room}/{rest}", body)
        assert answer.status in (400, 403, 404), rest
        assert answer.json["errcode"] in ("M_FORBIDDEN", "M_NOT_FOUND", "M_INVALID_PARAM"), rest


async def test_unknown_access_tokens_are_refused(shared_homeserver: Homeserver) -> None:
    path = "/_matrix/client/v3/sync"
    (await shared_homeserver.request("GET", path)).error(401, "M_MISSING_TOKEN")
    for token in ("nonsense", "x" * 7000, "é"):
        answer = await shared_homeserver.request("GET", path, access_token=token)
        assert answer.error(401, "M_UNKNOWN_TOKEN")["soft_logout"] is False
    for value in ("Bearer", "Bearer ", "Basic eDp5"):
        answer = await shared_homeserver.request("GET", path, headers={"Authorization": value})
        answer.error(401, "M_MISSING_TOKEN")


async def test_wrong_types_in_every_field_of_a_new_room_are_refused(alice: User) -> None:
    wrong: dict[str, list[Any]] = {
        "visibility": [1, "secret", None],
        "preset": [1, "other"],
        "room_alias_name": [1, [], ""],
        "name": [1, {}],
        "topic": [1, {}],
        "invite": ["@a:b", [1], ["nobody"], {}],
        "creation_content": [[], "x"],
        "initial_state": [
            {},
            ["x"],
            [{}],
            [{"type": 1, "content": {}}],
            [{"type": "a", "content": 1}],
            [{"type": "a", "content": {}, "state_key": 1}],
            [{"type": "a", "content": {"x": 1.5}}],
        ],
        "power_level_content_override": [[], {"ban": "high"}, {"users": []}, {"users": {"nobody": 1}}, {"events": 1}],
        "is_direct": [1, "yes"],
        "room_version": [1, {}, "nonsense", ""],
    }
    for field, values in wrong.items():
        for value in values:
            answer = await alice.request("POST", "createRoom", {field: value})
            assert answer.status == 400, (field, value, answer.json)
            assert answer.json["errcode"].startswith("M_")
    assert (await alice.request("GET", "joined_rooms")).ok() == {"joined_rooms": []}


async def test_wrong_types_in_the_bodies_of_membership_requests_are_refused(alice: User) -> None:
    room_id = await alice.create_room()
    for action in ("invite", "kick", "ban", "unban"):
        (await alice.in_room("POST", room_id, action, {})).error(400, "M_MISSING_PARAM")
        for body in ({"user_id": 1}, {"user_id": None}, {"user_id": alice.user_id, "reason": 1}):
            (await alice.in_room("POST", room_id, action, body)).error(400, "M_BAD_JSON")
        (await alice.in_room("POST", room_id, action, {"user_id": "nobody"})).error(400, "M_INVALID_PARAM")
    for action in ("join", "leave"):
        (await alice.in_room("POST", room_id, action, {"reason": 1})).error(400, "M_BAD_JSON")
        (await alice.in_room("POST", room_id, action, data=b"x")).error(400, "M_NOT_JSON")
    assert (await alice.request("GET", "joined_rooms")).ok() == {"joined_rooms": [room_id]}


async def test_junk_of_one_user_does_not_fail_the_messages_of_another(alice: User) -> None:
    bob = await alice.homeserver.register()
    room_id = await make_room(bob, creator=alice)
    await put_raw(bob, room_id, b'{"a": 1e999}')
    await put_raw(bob, room_id, b'{"a": "\\ud800"}')
    assert await alice.send(room_id, "fine")
