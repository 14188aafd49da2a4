"""Notifications by e-mail: who has not read something for a while gets a mail, one for all, and a way to end it.

https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3pushersset
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from homeserver.clock import now_ms
from storage.email_pushers import EmailPusherRepository
from tests.client import Answer, Homeserver, User
from tests.conftest import started
from tests.email.smtp import SILENCE, Mailbox, add_email, email_config, link_of, mailbox_started, text_of

NOTIFY_AFTER_MS = 600_000
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
ENCRYPTED = "m.room.encrypted"
GERMAN = {
    "notifications.txt": """Neues in {{ rooms|length }} Räumen

{% for room in rooms %}
{{ room.name if not room.members else "Mit " ~ room.members|join(", ") }}{{ " und " ~ room.others if room.others }}:
{% for message in room.messages %}
{% set kind = {"encrypted": "Verschlüsselt", "image": "Ein Bild"}.get(message.kind, "") %}
{{ message.sent_at.day }}. {{ kind }} {{ message.body }}
{% endfor %}
{% endfor %}
""",
    "notifications.html": '{% extends "base.html" %}{% block content %}{{ rooms[0].messages[0].body }}{% endblock %}',
    "base.html": '<html lang="de">{% block content %}{% endblock %}</html>',
}


class MovingClock:
    """The time, and what a test adds to it."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return now_ms() + self.ahead_ms


class Post:
    """A server whose pushers look when a test says so."""

    def __init__(self, homeserver: Homeserver, mailbox: Mailbox, clock: MovingClock) -> None:
        assert homeserver.running is not None
        assert homeserver.running.server.email is not None
        self.homeserver = homeserver
        self.mailbox = mailbox
        self.clock = clock
        self.email = homeserver.running.server.email
        self.pool = homeserver.running.server.database.pool
        self._armed = asyncio.Semaphore(0)
        wake = self.email.notifications.on_armed
        self.email.notifications.on_armed = lambda: (wake(), self._armed.release())

    async def user(self, name: str) -> tuple[User, str]:
        """A user who wants mails, and their address."""
        user = await self.homeserver.register(name)
        address = f"{name}@example.org"
        await add_email(user, self.mailbox, address)
        (await set_pusher(user, address)).ok()
        return user, address

    async def pass_time(self, ms: int = NOTIFY_AFTER_MS) -> None:
        """Lets time pass once a pusher has been set to look."""
        async with asyncio.timeout(20):
            await self._armed.acquire()
        self.wait(ms)

    def wait(self, ms: int) -> None:
        """Lets time pass."""
        self.clock.ahead_ms += ms
        self.email.notification_mails.wake()

    async def looked(self, address: str) -> None:
        """Returns when a pusher has looked and there is nothing that it waits for."""
        [row] = await self.pool.fetch("SELECT pusher FROM pushers WHERE pushkey = $1", address)
        repository = EmailPusherRepository(self.pool)
        async with asyncio.timeout(20):
            while any(  # noqa: ASYNC110 -- the database tells nobody
                due.pusher == row["pusher"] for due in await repository.load_due(2**60, limit=1000)
            ):
                await asyncio.sleep(0)


@pytest.fixture(scope="module")
async def post(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Post]:
    clock = MovingClock()
    async with mailbox_started() as (mailbox, port):
        directory = tmp_path_factory.mktemp("server")
        (directory / "mails" / "de").mkdir(parents=True)
        for name, text in GERMAN.items():
            (directory / "mails" / "de" / name).write_text(text)
        config = email_config(
            directory, port, client_base_url="https://chat.weft.test/", template_dir=directory / "mails"
        )
        async with started(config, module_database_url, clock) as homeserver:
            yield Post(homeserver, mailbox, clock)


def pusher(address: str, **changes: Any) -> dict[str, Any]:
    return {
        "app_id": "m.email",
        "pushkey": address,
        "kind": "email",
        "app_display_name": "Email Notifications",
        "device_display_name": address,
        "lang": "en",
        "data": {"brand": "Weft"},
        **changes,
    }


async def set_pusher(user: User, address: str, **changes: Any) -> Answer:
    return await user.request("POST", "pushers/set", pusher(address, **changes))


async def common_room(owner: User, *members: User, **options: Any) -> str:
    room_id = await owner.create_room(preset="public_chat", **options)
    for member in members:
        await member.join(room_id)
    return room_id


async def say(user: User, room_id: str, body: str, **content: Any) -> str:
    return await user.send(room_id, {"msgtype": "m.text", "body": body, **content})


async def read(user: User, room_id: str, event_id: str, kind: str = "m.read", **body: str) -> None:
    (await user.in_room("POST", room_id, f"receipt/{kind}/{event_id}", body)).ok()


def login(user: User) -> dict[str, Any]:
    """What a registered user logs in with, or confirms something."""
    name = user.user_id[1:].partition(":")[0]
    identifier = {"type": "m.id.user", "user": user.user_id}
    return {"type": "m.login.password", "identifier": identifier, "password": f"password of {name}"}


def notifications(mailbox: Mailbox, address: str) -> list[str]:
    return [text_of(mail) for mail in mailbox.to(address) if mail["List-Unsubscribe"] is not None]


async def next_notification(post: Post, address: str, number: int = 1) -> str:
    """The text of the notification of that number."""
    await post.mailbox.wait(lambda: len(notifications(post.mailbox, address)) >= number)
    assert len(notifications(post.mailbox, address)) == number
    return notifications(post.mailbox, address)[number - 1]


async def test_one_mail_tells_of_what_was_not_read(post: Post) -> None:
    alice, address = await post.user("alice")
    bob, eve = await post.homeserver.register("bob"), await post.homeserver.register("eve")
    name = "Bob & <b>Co</b>\u202e \U0001f469\u200d\U0001f373"
    (await bob.request("PUT", f"profile/{bob.user_id}/displayname", {"displayname": name})).ok()
    tea, quiet = await common_room(bob, alice, eve, name="Tea"), await common_room(bob, alice, name="Quiet\r\nX: 1")
    await say(bob, tea, "of before there was anything to notify of", msgtype="m.notice")
    await read(alice, quiet, await say(bob, quiet, "nothing of this"))
    ignored = {"ignored_users": {eve.user_id: {}}}
    (await alice.request("PUT", f"user/{alice.user_id}/account_data/m.ignored_user_list", ignored)).ok()
    await say(eve, tea, "what nobody wants")
    taken_back = await say(bob, tea, "a secret")
    (await bob.in_room("PUT", tea, f"redact/{taken_back}/1", {})).ok()
    for number in range(7):
        await say(bob, tea, f"message <i>{number}</i>")
    await bob.send(tea, {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "AwgAEn"}, type="m.room.encrypted")
    cellar = await bob.create_room(name="Cellar", invite=[alice.user_id])
    await post.pass_time()
    text = await next_notification(post, address)
    assert "message <i>6</i>" in text
    assert "message <i>2</i>" not in text
    assert "(3 more before these)" in text
    assert "An encrypted message" in text
    assert "Bob & <b>Co</b> \U0001f469\u200d\U0001f373, " in text, "nothing turns the direction of the text"
    assert f"https://matrix.to/#/{tea}/$" in text
    assert f"https://matrix.to/#/{cellar}/$" in text
    assert "Invites you to this room" in text
    assert "https://chat.weft.test/" in text
    for absent in ("Quiet", "secret", "nobody wants", "AwgAEn", "of before"):
        assert absent not in text
    [mail] = [mail for mail in post.mailbox.to(address) if mail["List-Unsubscribe"]]
    assert mail["Subject"] == "New messages in Cellar and 1 other room"
    page = text_of(mail, "html")
    assert "Bob &amp; &lt;b&gt;Co&lt;/b&gt;" in page
    assert "message &lt;i&gt;6&lt;/i&gt;" in page
    assert "<i>" not in page


async def test_what_was_read_in_time_is_not_told(post: Post) -> None:
    alice, address = await post.user("reader")
    bob = await post.homeserver.register()
    room_id = await common_room(bob, alice, name="Quiet\r\nBcc: x@example.org")
    await read(alice, room_id, await say(bob, room_id, "read soon"))
    await post.pass_time()
    await post.looked(address)
    assert notifications(post.mailbox, address) == []
    await say(bob, room_id, "read late")
    await post.pass_time()
    assert "read late" in await next_notification(post, address)
    [mail] = [mail for mail in post.mailbox.to(address) if mail["List-Unsubscribe"]]
    assert (mail["Subject"], mail["Bcc"]) == ("New messages in Quiet Bcc: x@example.org", None)
    assert "read soon" not in text_of(mail)


async def test_what_is_not_to_be_seen_when_a_mail_is_due_is_not_told(post: Post) -> None:
    alice, address = await post.user("careful")
    bob, carol, eve = [await post.homeserver.register(name) for name in ("writer", "carol", "ignored")]
    (await carol.request("PUT", f"profile/{carol.user_id}/displayname", {"displayname": "Carol C."})).ok()
    open_to_all = {"type": "m.room.history_visibility", "content": {"history_visibility": "world_readable"}}
    for_members = {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
    shared = await common_room(bob, alice, carol, eve, name="Shared")
    erased = await common_room(carol, alice, bob, name="Erased")
    left, banned, back = [
        await common_room(bob, alice, name=name, initial_state=[open_to_all]) for name in ("Left", "Banned", "Back")
    ]
    taken_back, muted, threads = [await common_room(bob, alice, name=name) for name in ("Redacted", "Muted", "Threads")]
    hidden = await common_room(bob, name="Hidden", initial_state=[for_members])
    withdrawn, declined = [await bob.create_room(name="Cellar", invite=[alice.user_id]) for _ in range(2)]
    await say(bob, hidden, "before her time")
    await alice.join(hidden)
    for room_id in (left, banned, back, muted):
        await say(bob, room_id, "out of sight")
    for room_id in (shared, erased):
        await say(carol, room_id, "words of one who is gone")
    await say(eve, shared, "words of one who is ignored")
    redacted = await say(bob, taken_back, "words that were taken back")
    edited = await say(bob, shared, "words that were a password")
    root = await say(bob, threads, "the root")
    thread = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    in_thread = await say(bob, threads, "what was read in its thread", **thread)
    await read(alice, threads, root, thread_id="main")
    await say(bob, hidden, "in her time")
    await say(bob, shared, "to all")
    await bob.send(
        shared, {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "AwgAEn", "body": "clear"}, type=ENCRYPTED
    )
    # What happens before the mail is due.
    (await bob.in_room("PUT", taken_back, f"redact/{redacted}/1", {})).ok()
    new = {"msgtype": "m.text", "body": "put otherwise"}
    await say(
        bob, shared, "* ", **{"m.new_content": new, "m.relates_to": {"rel_type": "m.replace", "event_id": edited}}
    )
    await read(alice, threads, in_thread, kind="m.read.private", thread_id=root)
    for room_id in (left, back, declined):
        (await alice.in_room("POST", room_id, "leave", {})).ok()
    await say(bob, back, "while she was out of sight")
    await alice.join(back)
    for room_id, how in ((banned, "ban"), (withdrawn, "kick")):
        (await bob.in_room("POST", room_id, how, {"user_id": alice.user_id})).ok()
    ignored = {"ignored_users": {eve.user_id: {}}}
    (await alice.request("PUT", f"user/{alice.user_id}/account_data/m.ignored_user_list", ignored)).ok()
    (await alice.request("PUT", f"pushrules/global/room/{quote(muted)}", {"actions": []})).ok()
    (await carol.request("POST", "account/deactivate", {"auth": login(carol), "erase": True})).ok()
    (await alice.request("PUT", f"profile/{alice.user_id}/displayname", {"displayname": "Alice A."})).ok()
    await post.pass_time()
    text = await next_notification(post, address)
    for told in ("Shared", "to all", "put otherwise", "An encrypted message", "Hidden", "in her time"):
        assert text.count(told) == 1, f"{told}: {text}"
    absent = ("sight", "words of", "words that", "Carol", "Erased", "before", "thread", "Cellar", "AwgAEn", "clear")
    assert [words for words in absent if words in text] == []
    [mail] = [mail for mail in post.mailbox.to(address) if mail["List-Unsubscribe"]]
    assert mail["Subject"] == "New messages in Shared and 1 other room"


async def test_only_who_has_the_account_and_the_address_still_gets_a_mail(post: Post) -> None:
    users = [await post.user(name) for name in ("locked", "suspended", "deactivated", "moved")]
    (locked, _), (suspended, _), (deactivated, _), (moved, its_address) = users
    bob = await post.homeserver.register()
    room_id = await common_room(bob, *(user for user, _ in users))
    await say(bob, room_id, "one")
    for _ in users:
        await post.pass_time(0)
    pool = post.pool
    await pool.execute("UPDATE users SET locked = true WHERE user_id = $1", locked.user_id)
    await pool.execute("UPDATE users SET suspended = true WHERE user_id = $1", suspended.user_id)
    (await deactivated.request("POST", "account/deactivate", {"auth": login(deactivated)})).ok()
    (await moved.request("POST", "account/3pid/delete", {"medium": "email", "address": its_address})).ok()
    await add_email(bob, post.mailbox, its_address)
    post.wait(NOTIFY_AFTER_MS)
    assert "one" in await next_notification(post, users[1][1])
    await post.looked(users[0][1])
    for user, address in users[:1] + users[2:]:
        assert notifications(post.mailbox, address) == [], user.user_id
    left = await pool.fetch("SELECT pushkey FROM pushers WHERE user_id = ANY($1)", [user.user_id for user, _ in users])
    assert {row["pushkey"] for row in left} == {users[0][1], users[1][1]}
    await pool.execute("UPDATE users SET locked = false WHERE user_id = $1", locked.user_id)
    await say(bob, room_id, "two")
    for _ in users[:2]:
        await post.pass_time(0)
    post.wait(NOTIFY_AFTER_MS)
    text = await next_notification(post, users[0][1])
    assert [word in text for word in ("one", "two")] == [True, True], "what came while it was locked is not lost"


async def test_a_mail_is_in_its_user_s_language(post: Post) -> None:
    alice, address = await post.user("karin")
    (await set_pusher(alice, address, lang="de-AT")).ok()
    bob, carol = await post.homeserver.register("bert"), await post.homeserver.register("clara")
    room_id, named = await common_room(bob, alice, carol), await common_room(bob, alice, name="Küche")
    await say(bob, room_id, "a&b.png", msgtype="m.image")
    await bob.send(room_id, {"algorithm": "m.megolm.v1.aes-sha2", "body": "AwgAEn"}, type=ENCRYPTED)
    await say(bob, named, "moin")
    await post.pass_time()
    text = await next_notification(post, address)
    assert "Mit @bert:weft.test, @clara:weft.test:\r\n" in text
    assert "Küche:\r\n" in text
    for line in (". Ein Bild a&b.png", ". Verschlüsselt \r\n", ".  moin\r\n"):
        assert line in text
    [mail] = [mail for mail in post.mailbox.to(address) if mail["List-Unsubscribe"]]
    assert mail["Subject"] == "Neues in 2 Räumen"
    assert text_of(mail, "html").startswith('<html lang="de">')


async def test_who_does_not_read_gets_mails_less_and_less_often(post: Post) -> None:
    alice, address = await post.user("absent")
    bob = await post.homeserver.register()
    room_id, other = await common_room(bob, alice, name="Tea"), await common_room(bob, alice, name="Other")
    await say(bob, room_id, "number 0")
    await post.pass_time()
    assert "number 0" in await next_notification(post, address, 1)
    await say(bob, room_id, "number 1")
    await post.pass_time()
    assert "number 0" not in await next_notification(post, address, 2)
    # Now the room waits for an hour, and another does not wait for it.
    await say(bob, room_id, "number 2")
    await say(bob, other, "elsewhere")
    await post.pass_time()
    text = await next_notification(post, address, 3)
    assert "elsewhere" in text
    assert "number 2" not in text
    await say(bob, other, "elsewhere again")
    await post.pass_time()
    text = await next_notification(post, address, 4)
    assert "elsewhere again" in text
    assert "number 2" not in text
    post.wait(HOUR_MS - 2 * NOTIFY_AFTER_MS)
    assert "number 2" in await next_notification(post, address, 5)
    # Whoever has read is told as soon as at first.
    await read(alice, room_id, await say(bob, room_id, "number 3"))
    newest = await say(bob, room_id, "number 4")
    await post.pass_time()
    text = await next_notification(post, address, 6)
    assert "number 4" in text
    assert "number 3" not in text
    assert newest in text


async def test_the_link_in_a_mail_ends_them(post: Post) -> None:
    alice, address = await post.user("weary")
    bob = await post.homeserver.register()
    room_id = await common_room(bob, alice)
    await say(bob, room_id, "hello")
    await post.pass_time()
    await next_notification(post, address)
    [mail] = [mail for mail in post.mailbox.to(address) if mail["List-Unsubscribe"]]
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    link = link_of(mail)
    assert dict(mail.raw_items())["List-Unsubscribe"] == f"<https://weft.test{link}>", "and not as encoded words"
    for broken in (link[:-1], link.replace("pusher=", "pusher=1"), link.partition("&")[0], link + "%00"):
        assert (await post.homeserver.fetch("POST", broken)).status == 400
    assert b"<button>" in (await post.homeserver.fetch("GET", link)).ok()
    assert len((await alice.request("GET", "pushers")).ok()["pushers"]) == 1
    for _ in range(2):  # the second time, too, there are none
        (await post.homeserver.fetch("POST", link, data=b"List-Unsubscribe=One-Click")).ok()
        assert (await alice.request("GET", "pushers")).ok() == {"pushers": []}
    # A new one has a link of its own.
    (await set_pusher(alice, address)).ok()
    (await post.homeserver.fetch("POST", link)).ok()
    assert len((await alice.request("GET", "pushers")).ok()["pushers"]) == 1


async def test_only_an_address_of_one_s_own_gets_mails(post: Post) -> None:
    alice, address = await post.user("owner")
    bob = await post.homeserver.register()
    (await set_pusher(bob, address)).error(400, "M_THREEPID_NOT_FOUND")
    (await set_pusher(alice, "other@example.org")).error(400, "M_THREEPID_NOT_FOUND")
    (await set_pusher(alice, "no address")).error(400, "M_THREEPID_NOT_FOUND")
    (await set_pusher(alice, address, app_id="org.example")).error(400, "M_INVALID_PARAM")
    (await set_pusher(alice, "OWNER@Example.org", lang="de")).ok()
    [shown] = (await alice.request("GET", "pushers")).ok()["pushers"]
    assert (shown["kind"], shown["pushkey"], shown["lang"]) == ("email", address, "de")
    (await set_pusher(alice, "Owner@Example.org", kind=None)).ok()
    assert (await alice.request("GET", "pushers")).ok() == {"pushers": []}
    (await set_pusher(alice, address)).ok()
    (await alice.request("POST", "account/3pid/delete", {"medium": "email", "address": address})).ok()
    assert (await alice.request("GET", "pushers")).ok() == {"pushers": []}


async def test_mails_go_on_without_a_device_and_end_with_the_account(post: Post) -> None:
    alice, address = await post.user("leaving")
    bob = await post.homeserver.register()
    room_id = await common_room(bob, alice)
    (await alice.request("POST", "logout", {})).ok()
    await say(bob, room_id, "are you there?")
    await post.pass_time()
    assert "are you there?" in await next_notification(post, address)
    made = (await post.homeserver.request("POST", "/_matrix/client/v3/login", login(alice))).ok()
    alice = User(post.homeserver, alice.user_id, made["access_token"], made["device_id"])
    await say(bob, room_id, "still there?")
    (await alice.request("POST", "account/deactivate", {"auth": login(alice)})).ok()
    post.wait(DAY_MS)
    await say(bob, room_id, "gone")
    assert len(notifications(post.mailbox, address)) == 1


async def test_a_mail_that_was_due_is_sent_after_a_death_and_failures(database_url: str, tmp_path: Path) -> None:
    clock = MovingClock()
    async with mailbox_started() as (mailbox, port):
        config = email_config(tmp_path, port)
        async with started(config, database_url, clock) as homeserver:
            post = Post(homeserver, mailbox, clock)
            alice, address = await post.user("alice")
            bob = await homeserver.register("bob")
            room_id = await common_room(bob, alice)
            await say(bob, room_id, "hello")
            mailbox.answers += [SILENCE, "451 not now", "451 nor now"]
            await post.pass_time()
            assert "hello" in await next_notification(post, address)
        async with started(config, database_url, clock) as homeserver:
            post = Post(homeserver, mailbox, clock)
            assert "hello" in await next_notification(post, address, 2)
            await post.looked(address)
        async with started(config, database_url, clock) as homeserver:
            post = Post(homeserver, mailbox, clock)
            await say(User(homeserver, bob.user_id, bob.token, bob.device_id), room_id, "again")
            await post.pass_time()
            assert "hello" not in await next_notification(post, address, 3)
    first, again, other = [mail["Message-ID"] for mail in mailbox.to(address) if mail["List-Unsubscribe"]]
    assert first == again, "nobody knew whether it had come through"
    assert other != first


async def test_without_e_mail_there_are_no_such_pushers(homeserver: Homeserver) -> None:
    alice = await homeserver.register()
    (await set_pusher(alice, "alice@example.org")).error(400, "M_INVALID_PARAM")
    path = "/_matrix/static/client/email/unsubscribe?pusher=1&token=x"
    assert (await homeserver.fetch("POST", path)).status == 404
