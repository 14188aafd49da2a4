"""Addresses of accounts: proved, added, used to register, to log in and to reset a password, removed.

https://spec.matrix.org/v1.19/client-server-api/#adding-account-administrative-contact-information
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

from config.errors import ConfigError
from config.schema import RateLimit, RateLimits
from homeserver.clock import now_ms
from homeserver.services.email.validations import LIFETIME_MS
from tests.client import Fetched, Homeserver, User
from tests.conftest import started
from tests.email.smtp import (
    BREAK,
    Mailbox,
    add_email,
    ask,
    confirm,
    credentials,
    email_config,
    link_of,
    mailbox_started,
    text_of,
)

REGISTER = "/_matrix/client/v3/register"
PASSWORD = "/_matrix/client/v3/account/password"
LOGIN = "/_matrix/client/v3/login"


@pytest.fixture(scope="module")
async def mailbox_and_port() -> AsyncIterator[tuple[Mailbox, int]]:
    async with mailbox_started() as both:
        yield both


@pytest.fixture
def mailbox(mailbox_and_port: tuple[Mailbox, int]) -> Mailbox:
    return mailbox_and_port[0]


@pytest.fixture(scope="module")
async def shared_homeserver(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory, mailbox_and_port: tuple[Mailbox, int]
) -> AsyncIterator[Homeserver]:
    config = email_config(
        tmp_path_factory.mktemp("server"), mailbox_and_port[1], client_base_url="https://chat.weft.test/app/"
    )
    async with started(config, module_database_url) as homeserver:
        yield homeserver


async def log_in(homeserver: Homeserver, address: str, password: str) -> Any:
    identifier = {"type": "m.id.thirdparty", "medium": "email", "address": address}
    return await homeserver.request(
        "POST", LOGIN, {"type": "m.login.password", "identifier": identifier, "password": password}
    )


async def test_an_account_is_registered_with_an_address(shared_homeserver: Homeserver, mailbox: Mailbox) -> None:
    homeserver = shared_homeserver
    sid = (await ask(homeserver, "register", "New@Example.org")).ok()["sid"]
    body: dict[str, Any] = {"username": "newcomer", "password": "first password"}
    answer = await homeserver.request("POST", REGISTER, body)
    assert [flow["stages"] for flow in answer.json["flows"]] == [["m.login.dummy"], ["m.login.email.identity"]]
    auth = {**credentials(sid), "session": answer.json["session"]}
    refused = await homeserver.request("POST", REGISTER, {**body, "auth": auth})
    refused.error(401, "M_THREEPID_AUTH_FAILED")
    mail = await mailbox.next_to("new@example.org")
    assert mail["Subject"] == "Confirm your address for Weft"
    assert mail["From"] == "Weft <noreply@weft.test>"
    await confirm(homeserver, mail)
    wrong = {**credentials(sid, "another"), "session": answer.json["session"]}
    (await homeserver.request("POST", REGISTER, {**body, "auth": wrong})).error(401, "M_THREEPID_AUTH_FAILED")
    made = (await homeserver.request("POST", REGISTER, {**body, "auth": auth})).ok()
    user = User(homeserver, made["user_id"], made["access_token"], made["device_id"])
    (threepid,) = (await user.request("GET", "account/3pid")).ok()["threepids"]
    assert (threepid["medium"], threepid["address"]) == ("email", "new@example.org")
    assert (await log_in(homeserver, "NEW@example.org", "first password")).ok()["user_id"] == user.user_id
    (await log_in(homeserver, "new@example.org", "wrong")).error(403, "M_FORBIDDEN")
    (await log_in(homeserver, "nobody@example.org", "x")).error(403, "M_FORBIDDEN")
    again = {"username": "another", "password": "x", "auth": credentials(sid)}
    (await homeserver.request("POST", REGISTER, again)).error(401, "M_THREEPID_AUTH_FAILED")


async def test_nobody_learns_whose_addresses_are_here(shared_homeserver: Homeserver, mailbox: Mailbox) -> None:
    alice = await shared_homeserver.register()
    await add_email(alice, mailbox, "known@example.org")
    for what, address, subject in (
        ("register", "known@example.org", "You have an account on weft.test"),
        ("account/3pid", "known@example.org", "This address is in use on weft.test"),
        ("account/password", "unknown@example.org", "No account with this address on weft.test"),
    ):
        sent = len(mailbox.to(address))
        assert list((await ask(shared_homeserver, what, address, "other")).ok()) == ["sid"]
        mail = await mailbox.next_to(address, sent + 1)
        assert mail["Subject"] == subject
        assert "/email/confirm" not in text_of(mail) + text_of(mail, "html")


async def test_a_forgotten_password_is_reset(shared_homeserver: Homeserver, mailbox: Mailbox) -> None:
    homeserver = shared_homeserver
    bob = await homeserver.register()
    await add_email(bob, mailbox, "bob@example.org")
    sid = (await ask(homeserver, "account/password", "bob@example.org")).ok()["sid"]
    answer = await homeserver.request("POST", PASSWORD, {"new_password": "second"})
    assert (answer.status, answer.json["flows"]) == (401, [{"stages": ["m.login.email.identity"]}])
    auth = {**credentials(sid), "session": answer.json["session"]}
    body = {"new_password": "second", "auth": auth}
    (await homeserver.request("POST", PASSWORD, body)).error(401, "M_THREEPID_AUTH_FAILED")
    mail = await mailbox.next_to("bob@example.org", 2)
    assert bob.user_id in text_of(mail)
    await confirm(homeserver, mail)
    # What proves an address for one purpose is worth nothing for another.
    other = {"username": "thief", "password": "x", "auth": credentials(sid)}
    (await homeserver.request("POST", REGISTER, other)).error(401, "M_THREEPID_AUTH_FAILED")
    (await homeserver.request("POST", PASSWORD, body)).ok()
    (await bob.request("GET", "account/whoami")).error(401, "M_UNKNOWN_TOKEN")
    made = (await log_in(homeserver, "bob@example.org", "second")).ok()
    again = {"new_password": "third", "auth": credentials(sid)}
    (await homeserver.request("POST", PASSWORD, again)).error(401, "M_THREEPID_AUTH_FAILED")

    sid = (await ask(homeserver, "account/password", "bob@example.org", "s2")).ok()["sid"]
    await confirm(homeserver, await mailbox.next_to("bob@example.org", 3))
    body = {"new_password": "third", "logout_devices": False, "auth": credentials(sid, "s2")}
    (await homeserver.request("POST", PASSWORD, body)).ok()
    (await homeserver.request("GET", "/_matrix/client/v3/account/whoami", token=made["access_token"])).ok()


async def test_a_client_repeats_itself_and_no_mail_is_sent(shared_homeserver: Homeserver, mailbox: Mailbox) -> None:
    address = "again@example.org"
    first = (await ask(shared_homeserver, "register", address)).ok()
    await mailbox.next_to(address)
    assert (await ask(shared_homeserver, "register", "Again@EXAMPLE.org")).ok() == first
    assert (await ask(shared_homeserver, "register", address, send_attempt=0)).ok() == first
    assert (await ask(shared_homeserver, "register", address, send_attempt=2)).ok() == first
    assert link_of(await mailbox.next_to(address, 2)) == link_of(mailbox.to(address)[0])
    assert (await ask(shared_homeserver, "register", address, "another")).ok() != first
    await mailbox.next_to(address, 3)
    assert len({mail["Message-ID"] for mail in mailbox.to(address)}) == len(mailbox.to(address)) == 3


async def test_an_address_is_one_account_s(shared_homeserver: Homeserver, mailbox: Mailbox) -> None:
    homeserver = shared_homeserver
    alice, bob = await homeserver.register(), await homeserver.register()
    sid = (await ask(homeserver, "account/3pid", "both@example.org", "bobs")).ok()["sid"]
    await confirm(homeserver, await mailbox.next_to("both@example.org"))
    await add_email(alice, mailbox, "both@example.org")
    password = f"password of {bob.user_id[1:].partition(':')[0]}"
    auth = {"type": "m.login.password", "user": bob.user_id, "password": password}
    body = {"sid": sid, "client_secret": "bobs", "auth": auth}
    (await bob.request("POST", "account/3pid/add", body)).error(400, "M_THREEPID_IN_USE")
    address = {"medium": "email", "address": "Both@example.org"}
    for user in (bob, alice):
        assert (await user.request("POST", "account/3pid/delete", address)).ok() == {
            "id_server_unbind_result": "no-support"
        }
        if user is bob:
            assert len((await alice.request("GET", "account/3pid")).ok()["threepids"]) == 1
    assert (await alice.request("GET", "account/3pid")).ok() == {"threepids": []}
    (await bob.request("POST", "account/3pid/add", body)).ok()
    (await bob.request("POST", "account/deactivate", {"auth": auth})).ok()
    await add_email(alice, mailbox, "both@example.org")


async def test_a_link_is_whole_and_leads_on_where_it_may(shared_homeserver: Homeserver, mailbox: Mailbox) -> None:
    homeserver = shared_homeserver
    (await ask(homeserver, "register", "own@example.org", next_link="https://chat.weft.test/done?a=1")).ok()
    link = link_of(await mailbox.next_to("own@example.org"))
    page = await homeserver.fetch("GET", link)
    assert "form-action 'self' https://chat.weft.test;" in page.headers["Content-Security-Policy"]
    answer = await homeserver.fetch("POST", link)
    assert (answer.status, answer.headers["Location"]) == (303, "https://chat.weft.test/done?a=1")

    (await ask(homeserver, "register", "foreign@example.org", next_link='https://elsewhere.test/?"><b>')).ok()
    link = link_of(await mailbox.next_to("foreign@example.org"))
    for broken in (link[:-1], link.replace("token=", "token=x"), link.partition("&")[0]):
        assert (await homeserver.fetch("POST", broken)).status == 400
    body = (await homeserver.fetch("POST", link)).ok()
    assert b'<a href="https://elsewhere.test/?&quot;&gt;&lt;b&gt;"' in body
    for _ in range(10):
        assert (await homeserver.fetch("GET", link + "x")).status == 400
    assert (await homeserver.fetch("GET", link)).status == 400, "too many wrong tokens"
    for path in ("confirm", "confirm?sid=%00", "confirm?sid=" + "a" * 3000):
        assert (await homeserver.fetch("GET", f"/_matrix/static/client/email/{path}")).status == 400
    for wrong in (
        "javascript:alert(1)",
        "https://a@b/",
        "//x/",
        "https://x\\y",
        "https:/x",
        "ftp://x",
        "https://x/\r\n",
    ):
        (await ask(homeserver, "register", "x@example.org", next_link=wrong)).error(400, "M_INVALID_PARAM")


async def test_hostile_addresses_are_none(shared_homeserver: Homeserver, mailbox: Mailbox) -> None:
    hostile = ["a@e.org\r\nBcc: x@e.org", "a@e.org, b@e.org", "<a@e.org>", '"a b"@e.org', "a@e.org\0", "a@[127.0.0.1]"]
    for email in [*hostile, "Alice <a@e.org>", "a@" + "x" * 64 + ".org", "mailto:", "a@e..org", "a\u202e@e.org"]:
        (await ask(shared_homeserver, "register", email)).error(400, "M_INVALID_PARAM")
    for send_attempt in (-1, 2**53):
        (await ask(shared_homeserver, "register", "a@e.org", send_attempt=send_attempt)).error(400, "M_INVALID_PARAM")
    assert mailbox.to("x@e.org") == mailbox.to("b@e.org") == []


async def test_addresses_in_other_scripts(shared_homeserver: Homeserver, mailbox: Mailbox) -> None:
    alice = await shared_homeserver.register()
    await add_email(alice, mailbox, "Jörg@Bücher.example", "jörg@xn--bcher-kva.example")
    await add_email(alice, mailbox, "Strauß@Example.com", "strauss@example.com")
    threepids = (await alice.request("GET", "account/3pid")).ok()["threepids"]
    assert [row["address"] for row in threepids] == ["jörg@xn--bcher-kva.example", "strauss@example.com"]


async def test_a_mail_that_is_not_taken_is_tried_again(shared_homeserver: Homeserver, mailbox: Mailbox) -> None:
    mailbox.answers += ["451 later", "452 full"]
    (await ask(shared_homeserver, "register", "later@example.org")).ok()
    await mailbox.next_to("later@example.org")
    mailbox.answers.append("550 no such mailbox")
    tried = mailbox.tried
    (await ask(shared_homeserver, "register", "never@example.org")).ok()
    await mailbox.wait(lambda: mailbox.tried == tried + 1)
    (await ask(shared_homeserver, "register", "next@example.org")).ok()
    await mailbox.next_to("next@example.org")
    assert mailbox.to("never@example.org") == []


async def test_what_is_sent_twice_is_one_message_and_what_says_more_is_another(
    shared_homeserver: Homeserver, mailbox: Mailbox
) -> None:
    assert shared_homeserver.running is not None
    server = shared_homeserver.running.server
    assert server.email is not None
    mailbox.answers.append(BREAK)
    (await ask(shared_homeserver, "register", "twice@example.org")).ok()
    again = await mailbox.next_to("twice@example.org", 2)
    assert again["Message-ID"] == mailbox.to("twice@example.org")[0]["Message-ID"]
    values = {"server_name": "weft.test", "address": "a@e.org"}
    ids = [
        message_from_bytes(server.email.writer.write("add_known", to, values | more, about=about))["Message-ID"]
        for to, about, more in (
            ("a@e.org", "1", {}),
            ("a@e.org", "1", {}),
            ("a@e.org", "2", {}),
            ("b@e.org", "1", {}),
            ("a@e.org", "1", {"server_name": "other.test"}),
        )
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


async def test_a_dead_smtp_server_loses_nothing(database_url: str, tmp_path: Path) -> None:
    async with mailbox_started() as (_, port):
        pass
    limits = RateLimits(email=RateLimit(0.001, 2), login=None)
    config = replace(
        email_config(tmp_path, port, allowed_domains=("allowed.example",), reveal_addresses=True), rate_limits=limits
    )
    async with started(config, database_url) as homeserver:
        assert (await (await homeserver.register()).request("GET", "capabilities")).ok()["capabilities"][
            "m.3pid_changes"
        ] == {"enabled": True}
        for what in ("register", "account/3pid"):
            (await ask(homeserver, what, "a@other.example")).error(403, "M_THREEPID_DENIED")
        (await ask(homeserver, "account/password", "a@allowed.example")).error(400, "M_THREEPID_NOT_FOUND")
        (await ask(homeserver, "register", "a@allowed.example")).ok()
    async with mailbox_started(port) as (mailbox, _), started(config, database_url) as homeserver:
        alice = await homeserver.register()
        await mailbox.next_to("a@allowed.example")
        await add_email(alice, mailbox, "b@allowed.example")
        (await ask(homeserver, "register", "b@allowed.example", "new")).error(400, "M_THREEPID_IN_USE")
        (await ask(homeserver, "account/3pid", "b@allowed.example", "new")).error(400, "M_THREEPID_IN_USE")
        (await ask(homeserver, "register", "c@allowed.example")).ok()
        (await ask(homeserver, "register", "d@allowed.example")).error(429, "M_LIMIT_EXCEEDED")


FALLBACK = "/_matrix/client/v3/auth/m.login.email.identity/fallback/web"
HIDDEN = re.compile(r'name="(\w+)" value="([^"]*)"')


async def submit(homeserver: Homeserver, page: bytes, **fields: str) -> Fetched:
    """Sends the form of a page, with what somebody writes into it."""
    form = dict(HIDDEN.findall(page.decode())) | fields
    return await homeserver.fetch("POST", FALLBACK, data=form)


@pytest.mark.parametrize("is_reset", [False, True])
async def test_a_client_that_does_not_know_the_stage_shows_a_page(
    shared_homeserver: Homeserver, mailbox: Mailbox, is_reset: bool
) -> None:
    homeserver = shared_homeserver
    address = f"page{is_reset}@example.org".lower()
    if is_reset:
        user = await homeserver.register()
        await add_email(user, mailbox, address)
    path = PASSWORD if is_reset else REGISTER
    body = {"new_password": "new"} if is_reset else {"username": "paged", "password": "new"}
    session = (await homeserver.request("POST", path, body)).json["session"]
    page = (await homeserver.fetch("GET", f"{FALLBACK}?session={session}")).ok()
    assert (await submit(homeserver, page, email="nobody")).status == 400
    assert (await submit(homeserver, page, email=address, session="none")).status == 403
    page = (await submit(homeserver, page, email=address)).ok()
    early = await submit(homeserver, page)
    assert early.status == 403
    assert (await submit(homeserver, early.body, client_secret="guessed")).status == 403
    await confirm(homeserver, await mailbox.next_to(address, 1 + is_reset))
    assert b"<form" not in (await submit(homeserver, early.body)).ok()
    (await homeserver.request("POST", path, {**body, "auth": {"session": session}})).ok()
    (await log_in(homeserver, address, "new")).ok()


async def test_an_address_may_be_a_must(
    database_url: str, tmp_path: Path, mailbox: Mailbox, mailbox_and_port: tuple[Mailbox, int]
) -> None:
    config = email_config(tmp_path, mailbox_and_port[1])
    config = replace(config, registration=replace(config.registration, require_email=True))
    async with started(config, database_url) as homeserver:
        body: dict[str, Any] = {"username": "must", "password": "x"}
        answer = await homeserver.request("POST", REGISTER, body)
        assert [flow["stages"] for flow in answer.json["flows"]] == [["m.login.email.identity"]]
        auth = {"type": "m.login.dummy", "session": answer.json["session"]}
        (await homeserver.request("POST", REGISTER, {**body, "auth": auth})).error(401, "M_UNRECOGNIZED")
        sid = (await ask(homeserver, "register", "must@example.org")).ok()["sid"]
        await confirm(homeserver, await mailbox.next_to("must@example.org"))
        auth = {**credentials(sid), "session": answer.json["session"]}
        (await homeserver.request("POST", REGISTER, {**body, "auth": auth})).ok()


async def test_administrators_have_words_of_their_own(
    database_url: str, tmp_path: Path, mailbox: Mailbox, mailbox_and_port: tuple[Mailbox, int]
) -> None:
    own = tmp_path / "mails"
    own.mkdir()
    (own / "register.txt").write_text("Moin von {{ app_name }}\n\nHier entlang: {{ link }}\n")
    config = email_config(tmp_path, mailbox_and_port[1], template_dir=own)
    async with started(config, database_url) as homeserver:
        (await ask(homeserver, "register", "moin@example.org")).ok()
        mail = await mailbox.next_to("moin@example.org")
        assert mail["Subject"] == "Moin von Weft"
        assert text_of(mail).startswith("Hier entlang: https://weft.test/")
        assert "confirm" in text_of(mail, "html"), "what is not replaced is the server's own"
    (own / "register.txt").write_text("{% if %}")
    with pytest.raises(ConfigError, match=r"email\.template_dir"):
        async with started(config, database_url):
            pass


async def test_a_link_is_good_for_a_day(
    database_url: str, tmp_path: Path, mailbox: Mailbox, mailbox_and_port: tuple[Mailbox, int]
) -> None:
    ahead_ms = 0
    config = email_config(tmp_path, mailbox_and_port[1])
    async with started(config, database_url, lambda: now_ms() + ahead_ms) as homeserver:
        for waits in (LIFETIME_MS - 60_000, LIFETIME_MS + 60_000):
            address = f"after{waits}@example.org"
            sid = (await ask(homeserver, "register", address)).ok()["sid"]
            link = link_of(await mailbox.next_to(address))
            ahead_ms += waits
            is_late = waits > LIFETIME_MS
            assert (await homeserver.fetch("POST", link)).status == (400 if is_late else 200)
            if not is_late:  # proved, it is good for another day
                ahead_ms += waits
            body = {"username": f"u{waits}", "password": "x", "auth": credentials(sid)}
            assert (await homeserver.request("POST", REGISTER, body)).status == (401 if is_late else 200)


async def test_a_new_password_unlocks_nothing(shared_homeserver: Homeserver, mailbox: Mailbox) -> None:
    homeserver = shared_homeserver
    assert homeserver.running is not None
    user = await homeserver.register()
    await add_email(user, mailbox, "locked@example.org")
    pool = homeserver.running.server.database.pool
    await pool.execute("UPDATE users SET locked = true WHERE user_id = $1", user.user_id)
    sid = (await ask(homeserver, "account/password", "locked@example.org")).ok()["sid"]
    await confirm(homeserver, await mailbox.next_to("locked@example.org", 2))
    body = {"new_password": "new", "auth": credentials(sid)}
    (await homeserver.request("POST", PASSWORD, body)).error(401, "M_USER_LOCKED")
    password = f"password of {user.user_id[1:].partition(':')[0]}"
    (await log_in(homeserver, "locked@example.org", password)).error(401, "M_USER_LOCKED")
    (await log_in(homeserver, "locked@example.org", "new")).error(403, "M_FORBIDDEN")
