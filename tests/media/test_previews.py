"""URL previews: what pages say, within bounds, and from no address that is private."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from config.media import Media
from config.schema import Federation, RateLimit, RateLimits
from homeserver.services.media.pages import decode, read_page
from homeserver.services.media.previews import MAX_PAGE_BYTES
from homeserver.services.media.robots import parse_robots
from tests.client import Answer, Homeserver, User
from tests.conftest import StartServer, make_config, started
from tests.media.site import Site, running_site
from tests.media.support import download, image_bytes, opened

PREVIEW = "/_matrix/client/v1/media/preview_url"


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with running_site() as site:
        yield site


@asynccontextmanager
async def previewing(start_server: StartServer, **changes: Any) -> AsyncIterator[tuple[Homeserver, User]]:
    """A server that makes previews of sites at 127.0.0.1, and a user."""
    allowed = (ipaddress.ip_network("127.0.0.1/32"),)
    options = {"media": Media(url_previews=True), "federation": Federation(allowed_ip_ranges=allowed), **changes}
    async with start_server(**options) as homeserver:
        yield homeserver, await homeserver.register()


@pytest.fixture(scope="module")
async def alice(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[User]:
    """A user of a server that makes previews, which the tests of this module share."""
    config = replace(
        make_config(tmp_path_factory.mktemp("server")),
        media=Media(url_previews=True),
        federation=Federation(allowed_ip_ranges=(ipaddress.ip_network("127.0.0.1/32"),)),
    )
    async with started(config, module_database_url) as homeserver:
        yield await homeserver.register()


async def ask(user: User, url: str, **query: Any) -> Answer:
    return await user.request("GET", PREVIEW, url=url, **query)


async def test_what_a_page_says_of_itself(alice: User, site: Site) -> None:
    image = image_bytes((120, 80))
    site.add("/a.png", image, "image/png")
    url = site.add(
        "/page",
        """<html><head><title>Unused</title><base href="/">
        <meta property="og:title" content="A &amp; B"><meta property="og:description" content="  about\n it ">
        <meta property="og:image" content="a.png"><meta property="og:site_name" content="Site">
        <meta property="og:video" content="http://elsewhere/"><meta property="og:image:width" content="9999">
        </head></html>""",
    )
    preview = (await ask(alice, url)).ok()
    name = preview.pop("og:image").removeprefix("mxc://weft.test/")
    assert preview == {
        "og:title": "A & B",
        "og:description": "about it",
        "og:site_name": "Site",
        "og:image:type": "image/png",
        "og:image:width": 120,
        "og:image:height": 80,
        "matrix:image:size": len(image),
    }
    assert (await download(alice, f"weft.test/{name}")).ok() == image
    again = await alice.request("GET", "/_matrix/media/v3/preview_url", url=url + "#part")
    assert again.ok()["og:image"] == f"mxc://weft.test/{name}"
    assert site.asked.count("/page") == 1
    assert site.asked.count("/robots.txt") == 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<title>Only a title</title>", {"og:title": "Only a title"}),
        (
            "<h1>Head</h1><nav><p>menu</p></nav><script><p>no</p></script><p>First</p><p>second.</p>",
            {"og:title": "Head", "og:description": "First second."},
        ),
        ("<meta name=description content=words><title>T</title>", {"og:title": "T", "og:description": "words"}),
        ("<meta name='twitter:title' content='Tw'>", {"og:title": "Tw"}),
        ("", {}),
        ("<<<>>><html", {}),
        ("<title>a\0b</title>", {"og:title": "ab"}),
        ("<meta property='og:title' content='" + "x" * 5000 + "'>", {"og:title": "x" * 1000}),
        ("<title>cut" + "<p>" * 600_000, {"og:title": "cut"}),
        ("<title>slow</title>" + "<a" * 500_000, {"og:title": "slow"}),
        ("<title>one &amp; &amp", {"og:title": "one & &"}),
        ("<title>marked</title><![ nonsense", {"og:title": "marked"}),
    ],
)
async def test_pages_that_say_less(alice: User, site: Site, body: str, expected: dict[str, str]) -> None:
    answer = (await ask(alice, site.add("/", body))).ok()
    assert {key: value for key, value in answer.items() if key in expected} == expected
    assert len(answer) <= 2


@pytest.mark.parametrize(
    ("text", "encoding", "header", "inside"),
    [
        ("Größe", "iso-8859-1", "text/html; charset=ISO-8859-1", ""),
        ("“quoted”", "cp1252", "text/html; charset=iso-8859-1", ""),
        ("Привет", "windows-1251", "text/html", "<meta charset='windows-1251'>"),
        ("日本", "shift_jis", "text/html", '<meta http-equiv="content-type" content="text/html; charset=Shift_JIS">'),
        ("한국뷁", "cp949", "text/html; charset=euc-kr", ""),
        ("朱镕基", "gbk", "text/html", "<meta charset=gb2312>"),
        ("①髙", "cp932", "text/html", "<meta charset=x-sjis>"),
        ("ไทย", "cp874", "text/html; charset=windows-874", ""),
        ("plain ü", "utf-8", "text/html", "<meta charset=utf-16>"),
        ("plain ü", "utf-8", "text/html; charset=nonsense", ""),
        ("plain ü", "utf-8", "text/html; charset=zlib", ""),
        ("marked", "utf-16", "text/html", ""),
        ("Größe", "iso-8859-1", "text/html", ""),
    ],
)
async def test_charsets(alice: User, site: Site, text: str, encoding: str, header: str, inside: str) -> None:
    url = site.add("/", f"<html>{inside}<title>{text}</title></html>".encode(encoding), header)
    assert (await ask(alice, url)).ok() == {"og:title": text}


async def test_pictures_themselves_and_other_files(alice: User, site: Site) -> None:
    preview = (await ask(alice, site.add("/i", image_bytes((30, 20), "JPEG"), "image/jpeg"))).ok()
    assert (preview["og:image:width"], preview["og:image:height"]) == (30, 20)
    assert opened((await download(alice, preview["og:image"].removeprefix("mxc://"))).ok()).size == (30, 20)
    assert (await ask(alice, site.add("/svg", b"<svg/>", "image/svg+xml"))).ok() == {}
    assert (await ask(alice, site.add("/liar", b"<html>", "image/png"))).ok() == {}
    assert (await ask(alice, site.add("/pdf", b"%PDF", "application/pdf"))).ok() == {}
    site.add("/huge.png", b"\0" * (11 * 1024 * 1024), "image/png")
    url = site.add("/huge", "<title>t</title><meta property='og:image' content='/huge.png'>")
    assert (await ask(alice, url)).ok() == {"og:title": "t"}


async def test_oembed_fills_in_what_a_page_does_not_say(alice: User, site: Site) -> None:
    link = '<link rel="alternate" type="application/json+oembed" href="/embed?url=x">'
    embed = {"type": "video", "title": "Film", "author_name": "Me", "thumbnail_url": "/t.png", "html": "<script>"}
    site.add("/embed", json.dumps(embed), "application/json")
    site.add("/t.png", image_bytes((40, 40)), "image/png")
    site.add("/bad", b"[" * 1000, "application/json")
    preview = (await ask(alice, site.add("/page", link))).ok()
    assert (preview["og:title"], preview["og:description"]) == ("Film", "Me")
    assert preview["og:image:width"] == 40
    url = site.add("/page2", link.replace("/embed", "/bad") + "<title>own</title>")
    assert (await ask(alice, url)).ok() == {"og:title": "own"}


async def test_urls_that_are_none_leave_the_rest_of_a_page_alone(alice: User, site: Site) -> None:
    site.add("/embed", json.dumps({"title": "unused", "thumbnail_url": "http://["}), "application/json")
    link = '<link rel="alternate" type="application/json+oembed" href="/embed">'
    image = '<meta property="og:image" content="http://[">'
    for number, head in enumerate((link, image, '<base href="http://[">')):
        page = site.add(f"/{number}", f"{head}<meta property='og:title' content='t'>")
        assert (await ask(alice, page)).ok() == {"og:title": "t"}


async def test_private_addresses_are_not_connected_to(start_server: StartServer, site: Site) -> None:
    inside = site.add("/secret", "<title>secret</title>")
    port = site.port
    async with previewing(start_server) as (_, alice):
        lead = site.add("/away", "", status=302, Location=f"http://127.0.0.2:{port}/secret")
        (await ask(alice, lead)).error(502, "M_UNKNOWN")
        page = site.add("/page", f"<title>t</title><meta property='og:image' content='http://127.0.0.2:{port}/a.png'>")
        assert (await ask(alice, page)).ok() == {"og:title": "t"}
    async with previewing(start_server, federation=Federation()) as (_, alice):
        site.asked.clear()
        for host in ("127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "2130706433", "0x7f000001"):
            (await ask(alice, f"http://{host}:{port}/secret")).error(502, "M_UNKNOWN")
        (await ask(alice, inside)).error(502, "M_UNKNOWN")
        assert site.asked == []


async def test_robots_are_heeded(start_server: StartServer, site: Site) -> None:
    site.add("/robots.txt", "User-agent: *\nDisallow: /private\nAllow: /private/but*.html$\n", "text/plain")
    closed = site.add("/private/page", "<title>private</title>")
    half_open = site.add("/private/but-this.html", "<title>public</title>")
    lead = site.add("/lead", "", status=301, Location="/private/page")
    async with previewing(start_server) as (_, alice):
        (await ask(alice, closed)).error(502, "M_UNKNOWN")
        (await ask(alice, lead)).error(502, "M_UNKNOWN")
        assert (await ask(alice, half_open)).ok() == {"og:title": "public"}
        assert "/private/page" not in site.asked
    async with previewing(start_server) as (_, alice):
        site.add("/robots.txt", "", status=503)
        (await ask(alice, site.add("/open", "<title>t</title>"))).error(502, "M_UNKNOWN")


async def test_redirects_and_failures_are_bounded(alice: User, site: Site) -> None:
    target = "<title>there</title>"
    site.add("/5", target)
    for number in range(5):
        site.add(f"/{number}", "", status=302, Location=f"/{number + 1}")
    assert (await ask(alice, site.url + "/0")).ok() == {"og:title": "there"}
    loop = site.add("/loop", "", status=302, Location="/loop")
    (await ask(alice, loop)).error(502, "M_UNKNOWN")
    asked = len(site.asked)
    (await ask(alice, loop)).error(502, "M_UNKNOWN")  # remembered
    assert len(site.asked) == asked
    for status in (404, 500):
        (await ask(alice, site.add(f"/{status}", "x", status=status))).error(502, "M_UNKNOWN")
    for number, place in enumerate(("file:///etc/passwd", "http://[")):
        (await ask(alice, site.add(f"/away{number}", "", status=302, Location=place))).error(502, "M_UNKNOWN")

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/html"})
        await answer.prepare(request)
        await answer.write(b"<title>endless</title>")
        for _ in range(4 * MAX_PAGE_BYTES // 65_536):
            await answer.write(b" " * 65_536)
        return answer

    site.pages["/endless"] = endless
    assert (await ask(alice, site.url + "/endless")).ok() == {"og:title": "endless"}


async def test_many_who_ask_share_one_fetch(alice: User, site: Site) -> None:
    url = site.add("/page", "<title>t</title>")
    answers = await asyncio.gather(*(ask(alice, url) for _ in range(20)))
    assert all(answer.ok() == {"og:title": "t"} for answer in answers)
    assert site.asked.count("/page") == 1


async def test_what_is_no_url_is_refused(alice: User) -> None:
    bad = (
        "",
        "no",
        "ftp://a/",
        "http://",
        "http://a b/",
        "http://u:p@h/",
        "javascript:x",
        "http://[::1",
        "http://a:x/",
    )
    for url in (*bad, "http://h/" + "a" * 2048, "file:///etc/passwd", "http://h/\0"):
        (await ask(alice, url)).error(400, "M_INVALID_PARAM")
    (await alice.request("GET", PREVIEW)).error(400, "M_MISSING_PARAM")
    (await ask(alice, "http://h/", ts="now")).error(400, "M_INVALID_PARAM")


async def test_previews_are_off_by_default_and_limited(start_server: StartServer, site: Site) -> None:
    url = site.add("/page", "<title>t</title>")
    async with start_server() as homeserver:
        alice = await homeserver.register()
        (await ask(alice, url)).error(404, "M_UNRECOGNIZED")
    limits = RateLimits(url_preview=RateLimit(per_second=0.001, burst=1))
    async with previewing(start_server, rate_limits=limits) as (_, alice):
        (await ask(alice, url)).ok()
        (await ask(alice, url)).error(429, "M_LIMIT_EXCEEDED")


async def test_previews_are_made_anew_and_forgotten(database_url: str, tmp_path: Any, site: Site) -> None:
    from homeserver.clock import now_ms
    from homeserver.main import running
    from homeserver.services.media.previews import FRESH_MS
    from homeserver.services.media.retention import PREVIEWS_KEPT_MS
    from tests.media.support import files_in

    shift = 0
    allowed = (ipaddress.ip_network("127.0.0.1/32"),)
    config = replace(
        make_config(tmp_path), media=Media(url_previews=True), federation=Federation(allowed_ip_ranges=allowed)
    )
    async with (
        running(config, database_url, lambda: now_ms() + shift) as server,
        Homeserver(f"http://{server.addresses[0]}", server) as homeserver,
    ):
        alice = await homeserver.register()
        retention = server.server.media.retention
        pictures = []
        for number in range(2):
            shift = number * (FRESH_MS + 1000)
            url = site.add("/", image_bytes((50 + number, 50)), "image/png")
            asked_at = now_ms() + shift
            preview = (await ask(alice, url)).ok()
            assert preview["og:image:width"] == 50 + number
            pictures.append(preview["og:image"].removeprefix("mxc://"))
            await retention.clean()
        (await download(alice, pictures[0])).error(404, "M_NOT_FOUND")
        assert (await download(alice, pictures[1])).status == 200
        shift += FRESH_MS + 1000
        site.add("/", "<title>changed</title>")
        assert (await ask(alice, url, ts=asked_at)).ok()["og:image:width"] == 51  # as it was then
        shift += PREVIEWS_KEPT_MS
        await retention.clean()
        assert files_in(tmp_path / "media" / "files") == []
        assert (await ask(alice, url)).ok() == {"og:title": "changed"}


@given(data=st.binary(max_size=300), charset=st.none() | st.text(max_size=12))
def test_any_bytes_are_some_page(data: bytes, charset: str | None) -> None:
    assert isinstance(decode(data, charset), str)


@given(st.text(st.sampled_from("<>/=\"' !-abmeta&#;og:titlepropertycontent"), max_size=200))
def test_any_text_is_some_page(text: str) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(text.encode())
        file.flush()
        job = {"job": "page", "source": file.name, "url": "http://h/", "charset": None}
        page = read_page(job, 0)
    assert set(page) == {"og", "image", "oembed"}
    json.dumps(page)


@pytest.mark.parametrize(
    ("robots", "path", "allowed"),
    [
        ("", "/", True),
        ("User-agent: *\nDisallow: /", "/x", False),
        ("User-agent: *\nDisallow:", "/x", True),
        ("User-agent: other\nDisallow: /", "/x", True),
        ("User-agent: *\nDisallow: /\n\nUser-agent: Weft\nAllow: /", "/x", True),
        ("User-agent: weft\nUser-agent: b\nDisallow: /a", "/a/b", False),
        ("User-agent: *\nDisallow: /a\nAllow: /a/b", "/a/b/c", True),
        ("User-agent: *\nDisallow: /*.gif$", "/x.gif", False),
        ("User-agent: *\nDisallow: /*.gif$", "/x.gif?y", True),
        ("User-agent: *\nDisallow: /a*b*c", "/a-b-c-d", False),
        ("User-agent: *\nDisallow: /a$", "/ab", True),
        ("User-agent: *\nDisallow: /%7Ejoe", "/~joe", False),
        ("User-agent: *\nDisallow: /é", "/%C3%A9", False),
        ("User-agent: *\nAllow: /p\nDisallow: /p", "/p", True),
        ("\ufeffUser-agent: *\nDisallow: /", "/x", False),
        ("Disallow: /\nnonsense\n: :\nUser-agent", "/x", True),
    ],
)
def test_rules_of_robots(robots: str, path: str, allowed: bool) -> None:
    assert parse_robots(robots).allow(f"http://h{path}") == allowed


def test_rules_that_take_long_to_match_do_not() -> None:
    robots = parse_robots("User-agent: *\n" + f"Disallow: /{'a*' * 1000}b\n" * 1000)
    assert robots.allow("http://h/" + "a" * 2000)
