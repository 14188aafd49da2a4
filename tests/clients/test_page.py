"""The page at `/`, and the API, in a real browser."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.client import Homeserver
from tests.clients.browser import Tab, browser_tab

# The least contrast that text needs: https://www.w3.org/TR/WCAG22/#contrast-minimum
MIN_CONTRAST = 4.5

# For each piece of text on the page, the contrast with what is behind it, by the formula of WCAG 2.2.
CONTRASTS = """
(() => {
  const rgba = color => {
    const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const background = element => {
    for (; element; element = element.parentElement) {
      const color = rgba(getComputedStyle(element).backgroundColor);
      if (color[3] === 1) return color;
    }
    return [255, 255, 255, 1];
  };
  const luminance = color => {
    const [r, g, b] = color.map(part => part / 255).map(
      part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    if (!text) continue;
    const element = walker.currentNode.parentElement;
    const [dark, light] = [luminance(rgba(getComputedStyle(element).color)), luminance(background(element))]
      .sort((a, b) => a - b);
    found[text] = (light + 0.05) / (dark + 0.05);
  }
  return found;
})()
"""

# A client of a few lines, as a web page of another origin would run it: registers, makes a room, says hello, syncs.
WEB_CLIENT = """
(async () => {
  const base = BASE_URL + "/_matrix/client/v3/";
  let token;
  const ask = async (method, path, body) => {
    const headers = {"Content-Type": "application/json"};
    if (token) headers.Authorization = "Bearer " + token;
    const answer = await fetch(base + path, {method, headers, body: body && JSON.stringify(body)});
    if (!answer.ok) throw new Error(answer.status + " " + await answer.text());
    return await answer.json();
  };
  const auth = {type: "m.login.dummy"};
  const account = await ask("POST", "register", {username: "webster", password: "spider's silk", auth});
  token = account.access_token;
  const {room_id} = await ask("POST", "createRoom", {name: "Web"});
  const {event_id} = await ask("PUT", `rooms/${encodeURIComponent(room_id)}/send/m.room.message/1`,
                               {msgtype: "m.text", body: "Grüße ✨"});
  const news = await ask("GET", "sync");
  const timeline = news.rooms.join[room_id].timeline.events;
  const last = timeline[timeline.length - 1];
  return {origin, same: last.event_id === event_id, body: last.content.body, user: account.user_id};
})()
"""


@pytest.fixture(scope="module")
async def tab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tab]:
    """A tab that the tests of this module share."""
    async with browser_tab(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


async def test_the_page_says_where_one_is(tab: Tab, shared_homeserver: Homeserver) -> None:
    tab.problems.clear()
    tab.requested.clear()
    await tab.open(shared_homeserver.base_url + "/")
    assert await tab.evaluate("document.title") == "weft.test: a Matrix homeserver"
    assert await tab.evaluate("document.querySelector('h1').textContent") == "weft.test"
    text = await tab.evaluate("document.body.innerText")
    assert "https://weft.test" in text
    assert "@name:weft.test" in text
    assert "{" not in text, "a placeholder was left"
    assert tab.problems == [], "the browser complains"
    assert set(tab.requested) == {shared_homeserver.base_url + "/"}, "the page loads nothing from anywhere"


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_all_text_can_be_read(tab: Tab, shared_homeserver: Homeserver, scheme: str) -> None:
    await tab.prefer(color_scheme=scheme)
    await tab.open(shared_homeserver.base_url + "/")
    contrasts = await tab.evaluate(CONTRASTS)
    assert len(contrasts) > 8
    assert {text: round(value, 2) for text, value in contrasts.items() if value < MIN_CONTRAST} == {}
    page = await tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(page) < 64) if scheme == "dark" else (min(page) > 192)


@pytest.mark.parametrize("width", [320, 768, 1920])
async def test_the_page_fits_every_screen(tab: Tab, shared_homeserver: Homeserver, width: int) -> None:
    await tab.resize(width, 640)
    await tab.open(shared_homeserver.base_url + "/")
    assert await tab.evaluate("document.documentElement.scrollWidth") <= width


async def test_its_link_leads_to_the_api(tab: Tab, shared_homeserver: Homeserver) -> None:
    await tab.open(shared_homeserver.base_url + "/")
    link = await tab.evaluate("document.querySelector('footer a').href")
    await tab.open(link)
    assert "v1.1" in json.loads(await tab.evaluate("document.body.innerText"))["versions"]


# What a client does that shows the page of the server in a window of its own.
LOG_IN = """
new Promise(resolve => {
  window.matrixLogin = {onLogin: resolve};
  const form = document.querySelector("form");
  form.elements.user.value = "paula";
  form.elements.password.value = PASSWORD;
  form.requestSubmit();
  new MutationObserver(() => resolve({failure: document.querySelector(".failure").textContent}))
    .observe(document.querySelector(".failure"), {childList: true});
})
"""


async def test_clients_log_in_by_the_page(tab: Tab, shared_homeserver: Homeserver) -> None:
    """https://spec.matrix.org/v1.19/client-server-api/#login-fallback"""
    await shared_homeserver.register("paula")
    page = f"{shared_homeserver.base_url}/_matrix/static/client/login/?device_id=PAGE&initial_device_display_name=P"
    for password, expected in (("wrong", "failure"), ("password of paula", "access_token")):
        await tab.open(page)
        result = await tab.evaluate(LOG_IN.replace("PASSWORD", json.dumps(password)))
        assert expected in result, result
    assert (result["user_id"], result["device_id"]) == ("@paula:weft.test", "PAGE")


async def test_a_stage_is_completed_on_a_page(tab: Tab, shared_homeserver: Homeserver) -> None:
    """https://spec.matrix.org/v1.19/client-server-api/#fallback"""
    register = "/_matrix/client/v3/register"
    session = (await shared_homeserver.request("POST", register, {"password": "spider's silk"})).json["session"]
    tab.problems.clear()
    await tab.open(f"{shared_homeserver.base_url}/_matrix/client/v3/auth/m.login.dummy/fallback/web?session={session}")
    await tab.leave("document.querySelector('button').click()")
    assert await tab.evaluate("document.title") == "Done"
    assert tab.problems == [], "the browser complains"
    body = {"password": "spider's silk", "auth": {"session": session}}
    (await shared_homeserver.request("POST", register, body)).ok()


async def _page_elsewhere(_request: web.Request) -> web.Response:
    no_icon = '<link rel="icon" href="data:,">'
    return web.Response(text=f"<!doctype html><title>A web client</title>{no_icon}", content_type="text/html")


async def test_a_web_client_of_another_origin_can_chat(tab: Tab, shared_homeserver: Homeserver) -> None:
    """https://spec.matrix.org/v1.19/client-server-api/#web-browser-clients"""
    tab.problems.clear()
    app = web.Application()
    app.router.add_get("/", _page_elsewhere)
    async with TestServer(app) as elsewhere:
        await tab.open(str(elsewhere.make_url("/")))
        result = await tab.evaluate(WEB_CLIENT.replace("BASE_URL", json.dumps(shared_homeserver.base_url)))
        origin = str(elsewhere.make_url("")).rstrip("/")
    assert result == {"origin": origin, "same": True, "body": "Grüße ✨", "user": "@webster:weft.test"}
    assert tab.problems == []
