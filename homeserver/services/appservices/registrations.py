"""Keeping registrations as the files have them: read at the start, on SIGHUP, and when a file has changed."""

from __future__ import annotations

import asyncio

from config.appservices import Mark, load_registrations, mark_registrations
from config.errors import ConfigError
from config.schema import Config
from homeserver.logs import get_logger
from homeserver.services.appservices.services import Services

log = get_logger(__name__)

CHECK_INTERVAL_S = 2.0


class Registrations:
    """Reads the files. A version that cannot be used leaves everything as it was, and is complained about once."""

    def __init__(self, config: Config, services: Services) -> None:
        self._config = config
        self._services = services
        self._marks: tuple[Mark, ...] = ()
        self._wanted = asyncio.Event()

    def load(self) -> None:
        """Reads them for the first time. Raises ConfigError."""
        self._marks = mark_registrations(self._config)
        self._services.replace(load_registrations(self._config))

    def reload(self) -> None:
        """Has them read again now, whatever the files look like."""
        self._wanted.set()

    async def follow_forever(self) -> None:
        """Reads them again when there is reason to, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(CHECK_INTERVAL_S):
                    await self._wanted.wait()
            except TimeoutError:
                await self.check()
            else:
                self._wanted.clear()
                self._marks = ()
                await self.check()

    async def check(self) -> None:
        """Reads them again if a file has changed, come or gone since the last time."""
        try:
            marks = await asyncio.to_thread(mark_registrations, self._config)
            if marks == self._marks:
                return
            self._marks = marks
            registrations = await asyncio.to_thread(load_registrations, self._config)
        except (ConfigError, OSError) as error:
            problems = error.problems if isinstance(error, ConfigError) else (str(error),)
            log.error("application services stay as they were: a registration cannot be used", problems=problems)
            return
        self._services.replace(registrations)
        log.info("application services were read again", services=[entry.id for entry in registrations])
