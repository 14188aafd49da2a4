"""The commands by which rooms and people choose: short, and answered where they were written."""

from __future__ import annotations

from collections.abc import Mapping

from appservices.summary_bot.clock import Clock
from appservices.summary_bot.commands.model import Command
from appservices.summary_bot.config import Role
from appservices.summary_bot.history.reader import HistoryReader, HistoryRefused
from appservices.summary_bot.storage.audit import AuditRepository
from appservices.summary_bot.storage.settings import SettingsRepository
from appservices.summary_bot.texts import LANGUAGES
from appservices.summary_bot.work.conversation import Conversation, Talk
from appservices.summary_bot.work.membership import Membership
from appservices.summary_bot.work.wardrobe import Wardrobe


class Choices:
    """`!enable`, `!disable`, `!local`, `!role`, `!lang`, `!optout`, `!optin`, `!ignore` and `!unignore`."""

    def __init__(
        self,
        settings: SettingsRepository,
        audit: AuditRepository,
        membership: Membership,
        history: HistoryReader,
        talk: Talk,
        roles: Mapping[str, Role],
        wardrobe: Wardrobe,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._audit = audit
        self._membership = membership
        self._history = history
        self._talk = talk
        self._roles = roles
        self._wardrobe = wardrobe
        self._clock = clock

    async def enable(self, talk: Conversation, _command: Command) -> None:
        """Turns the bot on in a room: in an encrypted one only if it reads such rooms."""
        if not await self._has_power(talk):
            return
        try:
            await self._history.check_member(talk.room_id, talk.asker)
        except HistoryRefused as refused:
            await self._talk.reply(talk, refused.line)
            return
        await self._settings.set_enabled(talk.room_id, True, talk.asker)
        await self._note(talk, "enabled")
        is_encrypted = await self._history.is_encrypted(talk.room_id)
        await self._talk.reply(talk, "enabled_encrypted" if is_encrypted else "enabled")

    async def disable(self, talk: Conversation, _command: Command) -> None:
        """Turns the bot off in a room, and forgets what it knew of it."""
        if await self._has_power(talk):
            await self._settings.forget_room(talk.room_id)
            await self._note(talk, "disabled")
            await self._talk.reply(talk, "disabled")

    async def local(self, talk: Conversation, command: Command) -> None:
        """Keeps a room to local models."""
        if await self._has_power(talk):
            is_on = command.words == ("on",)
            await self._settings.set_local_only(talk.room_id, is_on)
            await self._note(talk, "local", command.words[0])
            await self._talk.reply(talk, "local_on" if is_on else "local_off")

    async def role(self, talk: Conversation, command: Command) -> None:
        """Lists roles, or chooses one: for the room, or in a direct chat for all that the asker is told there."""
        if command.words[0] == "list":
            of_room = (await self._settings.load_room(talk.room_id)).role
            current = talk.person.role or of_room if talk.is_direct else of_room
            lines = [f"`{role.name}` – {role.description}" for role in self._roles.values()]
            await self._talk.reply_lines(talk, [talk.text("role_list", current=current), *lines])
            return
        name = command.words[1]
        if name not in self._roles:
            await self._talk.reply(talk, "role_unknown")
        elif talk.is_direct or await self._has_power(talk):
            if talk.is_direct:
                await self._settings.set_personal_role(talk.asker, name)
            else:
                await self._settings.set_role(talk.room_id, name)
            await self._note(talk, "role", name)
            await self._wardrobe.dress(talk.room_id, name)
            await self._talk.reply(talk, "role_set", role=name)

    async def lang(self, talk: Conversation, command: Command) -> None:
        """Chooses in which language somebody is answered. A model writes in any; the bot's own lines know some."""
        language = command.words[0]
        await self._settings.set_language(talk.asker, None if language == "auto" else language)
        spoken = language if language in LANGUAGES else talk.language
        line = "language_auto" if language == "auto" else "language_set"
        await self._talk.reply(talk.in_language(spoken), line)

    async def optout(self, talk: Conversation, _command: Command) -> None:
        """Keeps somebody's words out of everything."""
        await self._membership.opt_out(talk.asker)
        await self._note(talk, "opted out")
        await self._talk.reply(talk, "opted_out")

    async def optin(self, talk: Conversation, _command: Command) -> None:
        """Takes that back."""
        await self._settings.set_opted_out(talk.asker, False)
        await self._note(talk, "opted in")
        await self._talk.reply(talk, "opted_in")

    async def ignore(self, talk: Conversation, command: Command) -> None:
        """Leaves somebody out of what the asker is told. Which users they ignore in Matrix no service can read."""
        user = command.words[0]
        await self._settings.set_ignored(talk.asker, sorted({*talk.person.ignored, user}))
        await self._talk.reply(talk, "ignored", user=user)

    async def unignore(self, talk: Conversation, command: Command) -> None:
        """Takes that back."""
        user = command.words[0]
        await self._settings.set_ignored(talk.asker, sorted({*talk.person.ignored} - {user}))
        await self._talk.reply(talk, "unignored", user=user)

    async def _has_power(self, talk: Conversation) -> bool:
        if await self._talk.may_change_settings(talk.room_id, talk.asker):
            return True
        await self._talk.reply(talk, "no_power")
        return False

    async def _note(self, talk: Conversation, action: str, detail: str = "") -> None:
        await self._audit.persist_entry(self._clock(), talk.asker, action, talk.room_id, detail)
