"""Notifications by e-mail: who has not read something for a while gets a mail, one for all, and a way to end it.

https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3pushersset
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from homeserver.clock import now_ms
from storage.email_pushers import EmailPusherRepository
from tests.client import Answer, Homeserver, User
from tests.conftest import started
from tests.email.smtp import SILENCE, Mailbox, add_email, email_config, link_of, mailbox_started, text_of

NOTIFY_AFTER_MS = 600_000
HOUR_MS, DAY_MS = 3_600_000, 86_400_000


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
        assert self.homeserver.running is not None
        pool = self.homeserver.running.server.database.pool
        [row] = await pool.fetch("SELECT pusher FROM pushers WHERE pushkey = $1", address)
        repository = EmailPusherRepository(pool)
        async with asyncio.timeout(20):
            while any(  # noqa: ASYNC110 -- the database tells nobody
                due.pusher == row["pusher"] for due in await repository.load_due(2**60, limit=1000)
            ):
                await asyncio.sleep(0)


@pytest.fixture(scope="module")
async def post(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Post]:
    clock = MovingClock()
    async with mailbox_started() as (mailbox, port):
        config = email_config(tmp_path_factory.mktemp("server"), port, client_base_url="https://chat.weft.test/")
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


async def read(user: User, room_id: str, event_id: str) -> None:
    (await user.in_room("POST", room_id, f"receipt/m.read/{event_id}", {})).ok()


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
    login = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": alice.user_id},
        "password": "password of leaving",
    }
    made = (await post.homeserver.request("POST", "/_matrix/client/v3/login", login)).ok()
    alice = User(post.homeserver, alice.user_id, made["access_token"], made["device_id"])
    await say(bob, room_id, "still there?")
    (await alice.request("POST", "account/deactivate", {"auth": login})).ok()
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
