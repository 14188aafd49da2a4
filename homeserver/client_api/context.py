"""What handlers work with: the services, put together by `homeserver.main`."""

from __future__ import annotations

from dataclasses import dataclass

from config.schema import Config
from homeserver.clock import Clock
from homeserver.metrics import Metrics
from homeserver.services.account_data import AccountData
from homeserver.services.accounts.interactive_auth import InteractiveAuth
from homeserver.services.accounts.registration import Registration
from homeserver.services.accounts.sessions import Sessions
from homeserver.services.filters import Filters
from homeserver.services.profiles import Profiles
from homeserver.services.rate_limits import RateLimiter
from homeserver.services.receipts import Receipts
from homeserver.services.rooms.service import Rooms
from homeserver.services.sync.service import Sync
from homeserver.services.typing import Typing
from storage.database import Database


@dataclass(frozen=True, slots=True)
class Server:
    """The services of one server. Handlers take what they need and hold nothing of their own."""

    config: Config
    clock: Clock
    metrics: Metrics
    database: Database
    sessions: Sessions
    registration: Registration
    interactive_auth: InteractiveAuth
    profiles: Profiles
    account_data: AccountData
    filters: Filters
    rate_limits: RateLimiter
    rooms: Rooms
    receipts: Receipts
    typing: Typing
    sync: Sync
