"""The composition root: makes every part of the bot, starts and stops them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from appservices.summary_bot.budget.ledger import Ledger
from appservices.summary_bot.clock import Clock, now_ms
from appservices.summary_bot.config import Config, Registration, check_registration, load_registration
from appservices.summary_bot.encryption.parts import Encryption
from appservices.summary_bot.engines.extractive.process import ExtractiveEngine
from appservices.summary_bot.engines.models.chain import Chain
from appservices.summary_bot.engines.models.engine import ModelEngine
from appservices.summary_bot.engines.summariser import Summariser
from appservices.summary_bot.events import RawEvent
from appservices.summary_bot.history.reader import PAUSE_MS, HistoryReader
from appservices.summary_bot.http_api.routes import SummaryApi
from appservices.summary_bot.matrix.appservice import BotService, NotNow
from appservices.summary_bot.matrix.client import MatrixClient, MatrixFailure
from appservices.summary_bot.matrix.courier import Courier
from appservices.summary_bot.matrix.intake import Intake
from appservices.summary_bot.matrix.media import Media
from appservices.summary_bot.roles import all_roles
from appservices.summary_bot.schedules.keeping import Keeper
from appservices.summary_bot.schedules.timer import Timer
from appservices.summary_bot.storage.answers import AnswerRepository
from appservices.summary_bot.storage.audit import AuditRepository
from appservices.summary_bot.storage.budgets import BudgetRepository
from appservices.summary_bot.storage.database import Database
from appservices.summary_bot.storage.facts import FactRepository
from appservices.summary_bot.storage.inbox import InboxRepository
from appservices.summary_bot.storage.jobs import JobRepository, NewJob
from appservices.summary_bot.storage.schedules import ScheduleRepository
from appservices.summary_bot.storage.settings import SettingsRepository
from appservices.summary_bot.storage.uploads import UploadRepository
from appservices.summary_bot.work.choices import Choices
from appservices.summary_bot.work.conversation import Talk
from appservices.summary_bot.work.costs import Costs
from appservices.summary_bot.work.digests import Digests
from appservices.summary_bot.work.dispatch import Dispatch
from appservices.summary_bot.work.membership import Membership
from appservices.summary_bot.work.queue import Workers
from appservices.summary_bot.work.quoting import Quoting
from appservices.summary_bot.work.summaries import Summaries
from appservices.summary_bot.work.voice import Voice
from appservices.summary_bot.work.wardrobe import Wardrobe

CONNECT_INTERVAL_S = 1.0
MAX_CONNECT_INTERVAL_S = 30.0

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Bot:
    """A bot that runs, and its parts."""

    config: Config
    database: Database
    service: BotService
    workers: Workers
    timer: Timer
    chain: Chain
    jobs: JobRepository
    settings: SettingsRepository
    budgets: BudgetRepository
    client: MatrixClient
    wardrobe: Wardrobe
    encryption: Encryption | None
    port: int = 0
    introduced: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the homeserver knows the bot's user and its name."""


class Receiver:
    """Takes transactions: stores what matters of each before it is acknowledged, then wakes the workers."""

    def __init__(
        self, intake: Intake, inbox: InboxRepository, courier: Courier, encryption: Encryption | None, clock: Clock
    ) -> None:
        self._intake = intake
        self._inbox = inbox
        self._courier = courier
        self._encryption = encryption
        self._clock = clock
        self.workers: Workers | None = None

    async def take(self, transaction_id: str, body: Mapping[str, Any]) -> None:
        """Raises NotNow when the database cannot be reached."""
        now = self._clock()
        delivery = self._intake.sort(body, self._courier.direct_rooms, now)
        if self._encryption is not None:
            self._note_counts(self._encryption, body)
        if not delivery:
            return
        try:
            if delivery.secrets.messages and self._encryption is not None and await self._encryption.is_full():
                log.warning("a transaction has to wait: too many messages to the bot's device are not read yet")
                raise NotNow
            is_new = await self._inbox.persist_delivery(transaction_id, delivery, now=now, pause_ms=PAUSE_MS)
        except Database.connection_errors as error:
            log.warning("a transaction could not be stored: %s", type(error).__name__)
            raise NotNow from None
        if delivery.secrets and self._encryption is not None:
            self._encryption.incoming.wake()
        if is_new and self.workers is not None:
            self.workers.cancel(delivery.redacted, delivery.gone)
            await self.workers.wake()

    def sort_decrypted(self, event: RawEvent) -> list[NewJob]:
        """What is asked in an event that came encrypted."""
        return self._intake.sort_decrypted(event, self._courier.direct_rooms, self._clock())

    def _note_counts(self, encryption: Encryption, body: Mapping[str, Any]) -> None:
        """How many keys are left is told again and again: it need not be stored."""
        assert encryption.own.device is not None
        counts = self._intake.counts(body, encryption.own.device.device_id)
        if counts is not None:
            encryption.own.note_counts(*counts)
            encryption.incoming.wake()


@asynccontextmanager
async def running(config: Config, *, clock: Clock = now_ms) -> AsyncIterator[Bot]:
    """A bot at work, until the `with` ends. Raises StorageError, ConfigError and OSError when it cannot start."""
    registration = load_registration(Path(config.appservice.registration))
    check_registration(config, registration)
    database = Database(
        config.database.url.reveal(), schema=config.database.schema, max_connections=config.database.max_connections
    )
    await database.open()
    built_in = ExtractiveEngine()
    try:
        bot, receiver, courier = _build(config, registration, database, built_in, clock)
        await courier.open()
        if bot.encryption is not None:
            await bot.encryption.open()
        await bot.budgets.forget_reservations()
        await bot.service.start(config.appservice.address, config.appservice.port)
        try:
            assert bot.service.runner is not None
            bot.port = bot.service.runner.addresses[0][1]
            loops = (bot.workers.run(), bot.timer.run(), _introduce(bot, receiver))
            tasks = [asyncio.create_task(loop) for loop in loops]
            try:
                yield bot
            finally:
                receiver.workers = None
                for task in tasks:
                    task.cancel()
                for result in await asyncio.gather(*tasks, return_exceptions=True):
                    if isinstance(result, Exception):
                        log.error("a part of the bot failed", exc_info=result)
        finally:
            await bot.service.stop()
            await bot.chain.close()
    finally:
        await built_in.close()
        await database.close()


def _build(
    config: Config, registration: Registration, database: Database, built_in: ExtractiveEngine, clock: Clock
) -> tuple[Bot, Receiver, Courier]:
    user_id = f"@{registration.sender_localpart}:{config.homeserver.domain}"
    names = (user_id, f"@{registration.sender_localpart}", config.display_name, registration.sender_localpart)
    settings, jobs = SettingsRepository(database), JobRepository(database)
    budgets = BudgetRepository(database)
    answers, audit = AnswerRepository(database), AuditRepository(database)
    api = _LateApi()
    client = MatrixClient(api, user_id)
    encryption = None
    if config.encryption is not None:
        encryption = Encryption(config.encryption, api, client, database, clock)
    any_models = encryption is not None and encryption.any_models
    courier = Courier(client, settings, encryption)
    talk = Talk(client, settings, courier)
    intake = Intake(user_id, names, config.limits.max_messages, encrypts=encryption is not None)
    receiver = Receiver(intake, InboxRepository(database), courier, encryption, clock)
    history = HistoryReader(
        client,
        settings,
        encryption,
        names=names,
        max_messages=config.limits.max_messages,
        permalink_base=config.permalink_base,
    )
    roles = all_roles(config.roles)
    media = Media(config.homeserver.url, registration.as_token, lambda: api.service.http_session)
    wardrobe = Wardrobe(client, media, UploadRepository(database), settings, roles)
    membership = Membership(client, settings, answers, audit, courier, wardrobe, encryption, clock)
    choices = Choices(settings, audit, membership, history, talk, roles, wardrobe, clock)
    quoting = Quoting(answers, courier, clock)
    ledger = Ledger(config.budgets, budgets, clock)
    chain = Chain(config.providers, ledger, clock)
    models = ModelEngine(chain, FactRepository(database), ledger, built_in, roles, clock) if chain else None
    summariser = Summariser(built_in, models)
    summaries = Summaries(settings, answers, history, built_in, summariser, talk, quoting, clock, any_models=any_models)
    costs = Costs(budgets, ledger, audit, talk, config.administrators, config.budgets.currency, clock)
    schedules, facts = ScheduleRepository(database), FactRepository(database)
    timer_changed = _Late[None]()
    digests = Digests(client, settings, schedules, history, built_in, summaries, talk, quoting, timer_changed, clock)
    voice = Voice(media, history, settings, chain, talk, quoting, any_models=any_models)
    dispatch = Dispatch(
        client,
        jobs,
        settings,
        talk,
        membership,
        choices,
        summaries,
        costs,
        digests,
        voice,
        names=names,
        limits=config.limits,
    )
    workers = _build_workers(config, jobs, dispatch, clock)
    keeper = Keeper(client, facts, answers, budgets, audit, membership.take_back, config.limits)
    timer = Timer(schedules, keeper, workers, clock, encryption=encryption)
    timer_changed.call = timer.change
    receiver.workers = workers
    summary_api = SummaryApi(
        config.homeserver.url, lambda: api.service.http_session, settings, history, summaries, config.limits
    )
    service = BotService(config, registration, receiver.take, summary_api.routes)
    api.service = service
    bot = Bot(config, database, service, workers, timer, chain, jobs, settings, budgets, client, wardrobe, encryption)
    return bot, receiver, courier


def _build_workers(config: Config, jobs: JobRepository, dispatch: Dispatch, clock: Clock) -> Workers:
    return Workers(
        jobs,
        dispatch.handle,
        dispatch.failed,
        dispatch.cancelled,
        clock=clock,
        workers=config.limits.workers,
        timeout_ms=config.limits.answer_timeout_ms,
    )


class _Late(Generic[T]):
    """Calls what is made later than whoever calls it."""

    call: Callable[[], T]

    def __call__(self) -> T:
        return self.call()


class _LateApi:
    """mautrix's client, which is there from the listener's start on."""

    service: BotService

    async def request(self, method: Any, path: str, content: Any = None, **options: Any) -> Any:
        return await self.service.intent.api.request(method, path, content, **options)


async def _introduce(bot: Bot, receiver: Receiver) -> None:
    """Registers the bot's user and gives it its name and its device, as soon as the homeserver answers; then takes in
    what comes encrypted."""
    wait_s = CONNECT_INTERVAL_S
    while True:
        try:
            await bot.service.intent.ensure_registered()
            if (await bot.client.load_profile()).get("displayname") != bot.config.display_name:
                await bot.client.set_display_name(bot.config.display_name)
            if bot.encryption is not None:
                await bot.encryption.publish()
            bot.introduced.set()
            await bot.wardrobe.dress_all()
            break
        except MatrixFailure as failure:
            log.warning("the bot cannot introduce itself: %s", failure)
            if not failure.is_temporary:
                return
        except Exception as error:  # noqa: BLE001 -- mautrix raises whatever its transport does
            log.warning("the homeserver does not answer as it should: %r", error)
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, MAX_CONNECT_INTERVAL_S)
    if bot.encryption is not None:
        await bot.encryption.incoming.run(receiver.sort_decrypted, bot.workers.wake)


async def run(config: Config, stop: asyncio.Event) -> None:
    """Runs a bot until it is told to stop."""
    async with running(config) as bot:
        log.info("the bot listens on %s:%s", config.appservice.address, bot.port)
        await stop.wait()
