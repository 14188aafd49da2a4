"""The account services on a database of their own, with a clock that a test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from argon2 import PasswordHasher

from config import schema
from config.secret import Secret
from homeserver.services.accounts.deactivation import Deactivation
from homeserver.services.accounts.interactive_auth import InteractiveAuth
from homeserver.services.accounts.login import Login
from homeserver.services.accounts.passwords import Passwords
from homeserver.services.accounts.registration import Registration
from homeserver.services.accounts.sessions import Sessions
from homeserver.services.accounts.shared_secret import SharedSecretRegistration
from homeserver.services.rate_limits import RateLimiter
from storage.accounts import AccountRepository
from storage.database import Database
from storage.tokens import TokenRepository

SHARED_SECRET = "the tools' secret"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, max_connections=4)
    await database.open()
    yield database
    await database.close()


@dataclass
class FakeClock:
    """A clock that stands still until a test moves it; in milliseconds."""

    now: int = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now


@dataclass
class Services:
    """The services as `homeserver.main` puts them together."""

    database: Database
    mode: schema.RegistrationMode = "open"
    clock: FakeClock = field(default_factory=FakeClock)
    left_rooms: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.accounts = AccountRepository(self.database.pool)
        config = schema.Registration(mode=self.mode, tokens=(Secret("t0ken"),), shared_secret=Secret(SHARED_SECRET))
        # The least that argon2 can do: what these tests are about does not depend on its cost.
        hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        limits = schema.RateLimits(
            login=schema.RateLimit(0.5, 50), login_failed=schema.RateLimit(0.1, 3), registration=None
        )
        self.sessions = Sessions(self.accounts, self.clock, max_cached_tokens=16)
        self.passwords = Passwords(self.accounts, self.sessions, hasher=hasher)
        self.tokens = TokenRepository(self.database.pool)
        self.login = Login(
            "hs.test",
            self.accounts,
            self.passwords,
            self.sessions,
            RateLimiter(limits, self.clock),
            self.tokens,
            self.clock,
        )
        self.registration = Registration(
            config,
            "hs.test",
            self.accounts,
            self.passwords,
            self.login,
            self.clock,
            self.tokens,
            is_exclusive=lambda user_id: user_id.startswith("@bridge_"),
        )
        self.shared_secret = SharedSecretRegistration(config.shared_secret, self.registration, self.login, self.clock)
        self.interactive_auth = InteractiveAuth(self.accounts, self.login, self.registration, self.clock)
        self.deactivation = Deactivation(self.accounts, self.sessions, self._leave_rooms)

    async def _leave_rooms(self, user_id: str) -> None:
        self.left_rooms.append(user_id)


@pytest.fixture
def services(database: Database) -> Services:
    return Services(database)
