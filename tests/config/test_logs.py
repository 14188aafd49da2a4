"""The log: the shape of a line, the request that it belongs to, and the secrets that it leaves out."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
import structlog

from homeserver.logs import HIDDEN, bind_request, clear_request, current_request_id, get_logger, setup_logging


class Log:
    """A set-up log, and what has been written to it."""

    def __init__(self, level: str, format: Literal["json", "console"]) -> None:
        self.stream = io.StringIO()
        setup_logging(level, format, self.stream)
        self.logger = get_logger("test.module")

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    clear_request()
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()
    clear_request()


def test_a_json_line_has_its_shape() -> None:
    log = Log("INFO", "json")
    log.logger.info("room upgraded", room_id="!a:b", events=3)
    (line,) = log.lines
    assert list(line)[:4] == ["timestamp", "level", "logger", "message"]
    timestamp = datetime.fromisoformat(line.pop("timestamp"))
    assert timestamp.tzinfo == UTC
    assert line == {
        "level": "info",
        "logger": "test.module",
        "message": "room upgraded",
        "room_id": "!a:b",
        "events": 3,
    }


def test_libraries_write_the_same_lines() -> None:
    log = Log("INFO", "json")
    bind_request("r1")
    logging.getLogger("asyncpg.pool").warning("lost %d connections", 2)
    (line,) = log.lines
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "asyncpg.pool",
        "message": "lost 2 connections",
        "request_id": "r1",
    }


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("DEBUG", ["debug", "info", "warning", "error"]),
        ("INFO", ["info", "warning", "error"]),
        ("WARNING", ["warning", "error"]),
        ("ERROR", ["error"]),
    ],
)
def test_leaves_out_what_is_below_the_level(level: str, written: list[str]) -> None:
    log = Log(level, "json")
    library = logging.getLogger("library")
    for name in ("debug", "info", "warning", "error"):
        getattr(log.logger, name)("ours")
        getattr(library, name)("theirs")
    assert [line["level"] for line in log.lines if line["message"] == "ours"] == written
    assert [line["level"] for line in log.lines if line["message"] == "theirs"] == written


def test_aiohttp_does_not_log_requests_a_second_time() -> None:
    log = Log("DEBUG", "json")
    logging.getLogger("aiohttp.access").info("GET /")
    assert log.text == ""


def test_a_second_set_up_replaces_the_first() -> None:
    first, second = Log("INFO", "json"), Log("INFO", "json")
    logging.getLogger("library").info("hello")
    assert (len(first.lines), len(second.lines)) == (0, 1)


async def test_the_request_id_travels_into_tasks_and_nowhere_else() -> None:
    log = Log("INFO", "json")

    async def work() -> None:
        await asyncio.sleep(0)
        log.logger.info("working")

    async def handle(request_id: str, user_id: str) -> None:
        bind_request(request_id)
        log.logger.info("received")
        bind_request(request_id, user_id)
        await asyncio.create_task(work())

    await asyncio.gather(
        asyncio.create_task(handle("r1", "@a:example.org")), asyncio.create_task(handle("r2", "@b:example.org"))
    )
    log.logger.info("idle")
    seen = [(line["message"], line.get("request_id"), line.get("user_id")) for line in log.lines]
    assert sorted(seen[:-1]) == [
        ("received", "r1", None),
        ("received", "r2", None),
        ("working", "r1", "@a:example.org"),
        ("working", "r2", "@b:example.org"),
    ]
    assert seen[-1] == ("idle", None, None)


def test_the_request_id_is_there_to_be_sent_along() -> None:
    assert current_request_id() is None
    bind_request("r1", "@a:example.org")
    assert current_request_id() == "r1"
    clear_request()
    assert current_request_id() is None


SECRET = "s3cr3t"


@pytest.mark.parametrize("format", ["json", "console"])
@pytest.mark.parametrize(
    ("message", "values"),
    [
        ("login", {"password": SECRET}),
        ("login", {"body": {"Access_Token": SECRET}}),
        ("login", {"body": {"auth": [{"token": SECRET}]}}),
        ("request", {"headers": {"Authorization": f"Bearer {SECRET}"}}),
        ("request", {"header": f"Bearer {SECRET}"}),
        ("request", {"url": f"/sync?since=1&access_token={SECRET}&timeout=0"}),
        ("request", {"body": f'{{"password": "{SECRET}"}}'}),
        (f"GET /login?loginToken={SECRET}", {}),
        (f"connecting to postgresql://weft:{SECRET}@db/weft", {}),
        ("connecting", {"url": f"redis://:{SECRET}@cache:6379"}),
        ("deep", {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"password": SECRET}}}}}}}}}}),
    ],
)
def test_leaves_secrets_out(format: Literal["json", "console"], message: str, values: dict[str, Any]) -> None:
    log = Log("INFO", format)
    log.logger.info(message, **values)
    assert SECRET not in log.text
    assert HIDDEN in log.text or "…" in log.text


@pytest.mark.parametrize("format", ["json", "console"])
def test_leaves_secrets_out_of_tracebacks(format: Literal["json", "console"]) -> None:
    log = Log("INFO", format)
    password = SECRET
    try:
        raise ValueError(f"access_token={password} is unknown")
    except ValueError:
        log.logger.exception("failed")
        logging.getLogger("library").exception("failed")
    assert log.text.count(f"ValueError: access_token={HIDDEN} is unknown") == 2
    assert log.text.count("Traceback (most recent call last)") == 2
    assert SECRET not in log.text


def test_keeps_what_only_looks_like_a_secret() -> None:
    log = Log("INFO", "json")
    log.logger.info("listening on http://127.0.0.1:8008, mail me@example.org", tokens=3, rooms=["!a:b"])
    (line,) = log.lines
    assert line["message"] == "listening on http://127.0.0.1:8008, mail me@example.org"
    assert (line["tokens"], line["rooms"]) == (3, ["!a:b"])


@pytest.mark.parametrize("awkward", [2**80, "\ud800", object(), {1: {2}}, b"\xff", float("nan"), {(1, 2): 3}])
def test_no_value_loses_its_line(awkward: object) -> None:
    log = Log("INFO", "json")
    log.logger.info("odd", value=awkward)
    (line,) = log.lines
    assert line["message"] == "odd"


def test_a_broken_stream_stops_nobody() -> None:
    log = Log("INFO", "json")
    log.stream.close()
    log.logger.info("unheard")
    assert log.stream.closed


def test_console_lines_are_for_people() -> None:
    log = Log("INFO", "console")
    bind_request("r1")
    log.logger.warning("disk is almost full", free_bytes=5)
    assert "[warning  ] disk is almost full" in log.text
    assert "free_bytes=5" in log.text
    assert "request_id=r1" in log.text
