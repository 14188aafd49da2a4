"""The key under which everything secret of the encryption is kept in the database."""

from __future__ import annotations

import hashlib

import vodozemac

from appservices.summary_bot.secret import Secret


class Vault:
    """Pickles are vodozemac's own, which encrypt and authenticate what is in them."""

    def __init__(self, secret: Secret) -> None:
        """`secret` is long and random, and no password: it is made fit for pickles and not slowed down."""
        self._key = hashlib.blake2b(secret.reveal().encode(), digest_size=32, person=b"weft-summary-bot").digest()

    def seal(self, value: vodozemac.Account | vodozemac.Session | vodozemac.GroupSession) -> str:
        """A pickle."""
        return value.pickle(self._key)

    def seal_inbound(self, value: vodozemac.InboundGroupSession) -> str:
        """A pickle of somebody else's group session."""
        return value.pickle(self._key)

    def open_account(self, pickle: str) -> vodozemac.Account:
        """Raises PickleException where another key sealed it; so do the other three."""
        return vodozemac.Account.from_pickle(pickle, self._key)

    def open_session(self, pickle: str) -> vodozemac.Session:
        """A session with one device."""
        return vodozemac.Session.from_pickle(pickle, self._key)

    def open_outbound(self, pickle: str) -> vodozemac.GroupSession:
        """A group session of the bot's own."""
        return vodozemac.GroupSession.from_pickle(pickle, self._key)

    def open_inbound(self, pickle: str) -> vodozemac.InboundGroupSession:
        """Somebody else's group session."""
        return vodozemac.InboundGroupSession.from_pickle(pickle, self._key)
