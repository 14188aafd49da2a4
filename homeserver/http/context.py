"""What handlers work with: the services, put together by `homeserver.building`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from config.schema import Config
from homeserver.clock import Clock
from homeserver.metrics import Metrics
from homeserver.services.account_data import AccountData
from homeserver.services.accounts.deactivation import Deactivation
from homeserver.services.accounts.interactive_auth import InteractiveAuth
from homeserver.services.accounts.login import Login
from homeserver.services.accounts.moderation import Moderation
from homeserver.services.accounts.openid import OpenId
from homeserver.services.accounts.passwords import Passwords
from homeserver.services.accounts.registration import Registration
from homeserver.services.accounts.sessions import Sessions
from homeserver.services.accounts.shared_secret import SharedSecretRegistration
from homeserver.services.accounts.third_party_ids import ThirdPartyIds
from homeserver.services.appservices.parts import Appservices
from homeserver.services.encryption.cross_signing import CrossSigning
from homeserver.services.encryption.dehydrated_devices import DehydratedDevices
from homeserver.services.encryption.device_keys import DeviceKeys
from homeserver.services.encryption.device_lists import DeviceLists
from homeserver.services.encryption.key_backup import KeyBackup
from homeserver.services.encryption.to_device import ToDevice
from homeserver.services.event_views import EventViews
from homeserver.services.federation.parts import FederationParts
from homeserver.services.filters import Filters
from homeserver.services.media.service import ContentRepository
from homeserver.services.notifications import Notifications
from homeserver.services.presence import Presence
from homeserver.services.profile_lookup import ProfileLookup
from homeserver.services.profiles import Profiles
from homeserver.services.push.following import PushFollower
from homeserver.services.push.pushers import Pushers
from homeserver.services.push_rules import PushRules
from homeserver.services.rate_limits import RateLimiter
from homeserver.services.receipts import Receipts
from homeserver.services.relations import Relations
from homeserver.services.remote import Network
from homeserver.services.reports import Reports
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.aliases import Aliases
from homeserver.services.rooms.creation import Creation
from homeserver.services.rooms.directory import Directory
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.membership import Membership
from homeserver.services.rooms.sending import Sending
from homeserver.services.rooms.spaces import Spaces
from homeserver.services.rooms.tags import RoomTags
from homeserver.services.rooms.timelines import Timelines
from homeserver.services.rooms.upgrades import Upgrades
from homeserver.services.rooms.user_rooms import UserRooms
from homeserver.services.stream import Stream
from homeserver.services.sync.service import Sync
from homeserver.services.typing import Typing
from homeserver.services.user_directory import UserDirectory
from matrix.signatures import SigningKey
from storage.database import Database

if TYPE_CHECKING:
    from homeserver.services.email_parts import EmailParts


@dataclass(frozen=True, slots=True)
class Server:
    """The services of one server. Handlers take what they need and hold nothing of their own.

    `email` is None where no e-mail is sent.
    """

    config: Config
    clock: Clock
    metrics: Metrics
    database: Database
    signing_key: SigningKey
    network: Network
    federation: FederationParts
    stream: Stream
    sessions: Sessions
    login: Login
    passwords: Passwords
    third_party_ids: ThirdPartyIds
    email: EmailParts | None
    registration: Registration
    shared_secret_registration: SharedSecretRegistration
    interactive_auth: InteractiveAuth
    moderation: Moderation
    openid: OpenId
    reports: Reports
    deactivation: Deactivation
    profiles: Profiles
    profile_lookup: ProfileLookup
    account_data: AccountData
    filters: Filters
    rate_limits: RateLimiter
    access: Access
    aliases: Aliases
    creation: Creation
    directory: Directory
    spaces: Spaces
    upgrades: Upgrades
    room_tags: RoomTags
    user_directory: UserDirectory
    events: EventCache
    event_views: EventViews
    membership: Membership
    sending: Sending
    media: ContentRepository
    relations: Relations
    timelines: Timelines
    user_rooms: UserRooms
    push_rules: PushRules
    pushers: Pushers
    push_follower: PushFollower
    notifications: Notifications
    receipts: Receipts
    typing: Typing
    presence: Presence
    device_lists: DeviceLists
    device_keys: DeviceKeys
    cross_signing: CrossSigning
    key_backup: KeyBackup
    to_device: ToDevice
    dehydrated_devices: DehydratedDevices
    sync: Sync
    appservices: Appservices
