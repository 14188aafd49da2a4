"""Who did what to the bot: never what anybody wrote."""

from __future__ import annotations

from appservices.summary_bot.storage.database import Database

INSERT_ENTRY = "INSERT INTO audit (ts, actor, action, room_id, detail) VALUES ($1, $2, $3, $4, $5)"

PURGE = "DELETE FROM audit WHERE ts < $1"


class AuditRepository:
    """Writes the audit log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def persist_entry(self, ts: int, actor: str, action: str, room_id: str, detail: str = "") -> None:
        """Adds a line. `detail` is a setting's value or a count, never text of a message."""
        await self._database.pool.execute(INSERT_ENTRY, ts, actor, action, room_id, detail)

    async def purge(self, before: int) -> None:
        """Drops lines from before a time."""
        await self._database.pool.execute(PURGE, before)
