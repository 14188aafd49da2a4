"""What rooms shared with other servers are made of, for handlers and for those who start it."""

from __future__ import annotations

from dataclasses import dataclass

from homeserver.services.federation.backfill import Backfill
from homeserver.services.federation.closest_events import ClosestEvents
from homeserver.services.federation.dummy_events import DummyEvents
from homeserver.services.federation.edus.cached_keys import CachedKeys
from homeserver.services.federation.edus.incoming import IncomingEdus
from homeserver.services.federation.edus.outgoing import OutgoingEdus
from homeserver.services.federation.foreign_rooms import ForeignRooms
from homeserver.services.federation.history import History
from homeserver.services.federation.incoming_events import IncomingEvents
from homeserver.services.federation.incoming_transactions import IncomingTransactions
from homeserver.services.federation.inviting import Inviting
from homeserver.services.federation.joining import Joining
from homeserver.services.federation.missing_events import MissingEvents
from homeserver.services.federation.outliers import Outliers
from homeserver.services.federation.partial_rooms import PartialRooms
from homeserver.services.federation.receiving import Receiving
from homeserver.services.federation.redactions import Redactions
from homeserver.services.federation.resident import Resident
from homeserver.services.federation.sending.sender import Sender
from homeserver.services.federation.third_party_invites import ThirdPartyInvites
from homeserver.services.federation.verification import Verification
from homeserver.services.rooms.branches import Branches


class RemoteRooms:
    """The `RemoteMembership` of this server: how its users get into rooms of others, and out of them."""

    def __init__(self, joining: Joining, inviting: Inviting) -> None:
        self.join = joining.join
        self.join_through = joining.join_through
        self.knock = joining.knock
        self.leave = joining.leave
        self.invite = inviting.invite


@dataclass(frozen=True, slots=True)
class FederationParts:
    """The services that handlers of the server-server API work with."""

    incoming: IncomingEvents
    transactions: IncomingTransactions
    receiving: Receiving
    redactions: Redactions
    resident: Resident
    inviting: Inviting
    third_party_invites: ThirdPartyInvites
    foreign_rooms: ForeignRooms
    joining: Joining
    history: History
    backfill: Backfill
    closest_events: ClosestEvents
    dummy_events: DummyEvents
    sender: Sender
    cached_keys: CachedKeys
    incoming_edus: IncomingEdus
    outgoing_edus: OutgoingEdus
    branches: Branches
    verification: Verification
    missing_events: MissingEvents
    outliers: Outliers
    partial_rooms: PartialRooms
