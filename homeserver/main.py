"""The server as a whole: started, listening, and stopped without leaving anybody unanswered."""

from __future__ import annotations

import asyncio
import gc
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import uvloop
from aiohttp import web

from config.errors import ConfigError
from config.schema import Config, Listener
from federation.inbound.authentication import authenticate_origin
from federation.inbound.routes import ROUTES as FEDERATION_ROUTES
from homeserver.appservice_api.client import HttpServiceClient
from homeserver.building.server import build_server
from homeserver.client_api.routes import ROUTES as CLIENT_ROUTES
from homeserver.clock import Clock, now_ms
from homeserver.http.context import Server
from homeserver.http.handler import HttpHandler
from homeserver.http.protocol import HttpServer
from homeserver.http.push_gateway import HttpPushGateway
from homeserver.logs import get_logger
from homeserver.services.notifier import Notifier
from storage.database import CONNECTION_ERRORS, Database
from storage.embedded import EmbeddedPostgres

if TYPE_CHECKING:
    from homeserver.smtp.client import SmtpClient

log = get_logger(__name__)

SHUTDOWN_TIMEOUT_S = 10.0
KEEPALIVE_S = 75.0
CLEAN_INTERVAL_S = 3600.0


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers: its services, and where it listens. `writer` ends early only if it cannot go on."""

    server: Server
    addresses: tuple[str, ...]
    writer: asyncio.Task[None]


@asynccontextmanager
async def running(
    config: Config, database_url: str, clock: Clock = now_ms, *, revive: Callable[[], None] | None = None
) -> AsyncIterator[RunningServer]:
    """A server that answers inside the `async with`; on the way out it finishes what is in flight and stops.

    `revive` is called when the database cannot be reached, where it is the server's own.

    Raises StorageError, SigningKeyError, ConfigError (a registration of an application service that cannot be used),
    OSError (an address that cannot be bound).
    """
    async with AsyncExitStack() as stack:
        database = Database(database_url, max_connections=config.database.max_connections, revive=revive)
        stack.push_async_callback(database.close)
        await database.open()
        notifier = Notifier()
        push_gateway, service_client = HttpPushGateway(config.push), HttpServiceClient()
        stack.push_async_callback(push_gateway.close)
        stack.push_async_callback(service_client.close)
        mail_transport = _mail_transport(config)
        if mail_transport is not None:
            stack.push_async_callback(mail_transport.close)
        server = await build_server(
            config, database, clock, notifier, push_gateway, service_client, mail_transport=mail_transport
        )
        server.media.open()
        stack.push_async_callback(server.media.close)
        writer = asyncio.create_task(server.stream.run(), name="stream writer")
        stack.push_async_callback(_finish_writing, server, writer)
        stack.push_async_callback(server.network.close)
        await server.federation.sender.open(server.stream.current)
        stack.push_async_callback(server.federation.sender.close)
        if config.federation.enabled:
            await server.federation.partial_rooms.open()
        stack.push_async_callback(server.federation.partial_rooms.close)
        stack.push_async_callback(server.push_follower.stop)
        for loop in (
            server.push_follower.run(),
            server.push_follower.save_forever(),
            server.typing.expire_forever(),
            server.presence.publish_forever(),
            server.device_lists.announce_forever(),
            _clean_forever(server),
            server.sessions.write_seen_forever(),
            server.sessions.follow_ended_forever(),
            server.network.run_forever(),
            server.federation.sender.persist_forever(),
            server.media.retention.clean_forever(),
            server.appservices.registrations.follow_forever(),
            server.appservices.deliveries.save_forever(),
            server.federation.outgoing_edus.flush_forever(),
            server.federation.dummy_events.run_forever(),
            *([server.email.validation_mails.run(), server.email.notification_mails.run()] if server.email else ()),
        ):
            stack.push_async_callback(_cancel, _background(loop))
        stack.push_async_callback(server.appservices.deliveries.stop)
        server.appservices.deliveries.start()
        addresses = [await _listen(server, listener, stack) for listener in config.listeners]
        stack.callback(notifier.stop)  # before the listeners wait for requests to end
        stack.callback(server.media.arrivals.stop)
        yield RunningServer(server, tuple(addresses), writer)
        log.info("stopping")


def _mail_transport(config: Config) -> SmtpClient | None:
    """The way to the SMTP server, if the configuration names one."""
    if config.email.host is None:
        return None
    # Imported where it is wanted, for the memory that it takes.
    from homeserver.smtp.client import SmtpClient

    return SmtpClient(config.email)


async def _finish_writing(server: Server, writer: asyncio.Task[None]) -> None:
    server.stream.stop()
    await writer
    await server.sessions.write_seen()


async def _clean_forever(server: Server) -> None:
    """Removes what nobody needs any more, now and then, until cancelled."""
    while True:
        await asyncio.sleep(CLEAN_INTERVAL_S)
        try:
            await server.to_device.clean()
            await server.device_keys.clean()
            await server.federation.sender.clean()
            await server.federation.cached_keys.clean()
        except CONNECTION_ERRORS as error:
            log.warning("not cleaned up, trying again later", error=repr(error))


def _background(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(work)
    task.add_done_callback(_report)
    return task


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a background task ended", exc_info=error)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))


async def _listen(server: Server, listener: Listener, stack: AsyncExitStack) -> str:
    """Starts answering on one listener; returns its address for people."""
    routes, resources = CLIENT_ROUTES + FEDERATION_ROUTES, frozenset(listener.resources)
    handler = HttpHandler(server, routes, resources, authenticate_origin)
    factory = partial(_make_request, max_bytes=server.config.limits.max_request_bytes)
    http = HttpServer(handler, request_factory=factory, access_log=None, keepalive_timeout=KEEPALIVE_S)
    runner = web.ServerRunner(http, handle_signals=False, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site: web.BaseSite
    if listener.unix_socket is not None:
        site = web.UnixSite(runner, listener.unix_socket)
    else:
        site = web.TCPSite(runner, listener.address, listener.port, ssl_context=_tls(listener), backlog=1024)
    await site.start()
    if listener.unix_socket is not None or listener.port:
        return listener.endpoint
    host, port = runner.addresses[0][:2]
    return f"{host}:{port}"


def _tls(listener: Listener) -> ssl.SSLContext | None:
    """What a listener that speaks TLS needs for it. Raises ConfigError for a certificate and key that are of no use."""
    if listener.tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    files = f"{listener.tls_certificate} and {listener.tls_key}"
    try:
        # Without a terminal to ask on, a key that is locked by a password is one that cannot be used.
        context.load_cert_chain(listener.tls_certificate, listener.tls_key, password="")
    except ssl.SSLError as error:
        reason = f"not a certificate and its key, in PEM and without a password ({error.reason or error})"
        raise ConfigError([f"listeners: {listener.endpoint}: {files} are {reason}"]) from None
    except OSError as error:
        raise ConfigError([f"listeners: {listener.endpoint}: {files} cannot be read: {error.strerror}"]) from None
    return context


def _make_request(
    message: Any, payload: Any, protocol: Any, writer: Any, task: Any, *, max_bytes: int
) -> web.BaseRequest:
    return web.BaseRequest(
        message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=max_bytes
    )


def run(config: Config, *, on_ready: Callable[[RunningServer], Awaitable[None]] | None = None) -> None:
    """Runs a server until SIGINT or SIGTERM, with an embedded PostgreSQL if the configuration names no other.

    `on_ready` is called once it answers. Raises what `running` raises.
    """
    with ExitStack() as stack:
        url, revive = config.database.url, None
        if url is None:
            embedded = stack.enter_context(EmbeddedPostgres(config.postgres_dir))
            url, revive = embedded.url(), embedded.revive
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(config, url, revive, on_ready))


def tune_garbage_collection() -> None:
    """Requests leave few cycles behind: look for them seldom, and never again among what was made at the start."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def _run(
    config: Config,
    url: str,
    revive: Callable[[], None] | None,
    on_ready: Callable[[RunningServer], Awaitable[None]] | None,
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with running(config, url, revive=revive) as server:
        loop.add_signal_handler(signal.SIGHUP, server.server.appservices.registrations.reload)
        tune_garbage_collection()
        log.info("ready", addresses=server.addresses)
        if on_ready is not None:
            await on_ready(server)
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((stopped, server.writer), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
