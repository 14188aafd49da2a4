"""`!transcribe`: the words of a voice message, by a provider's audio API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from appservices.summary_bot.answers.render import heading, paragraph
from appservices.summary_bot.commands.model import Command
from appservices.summary_bot.encryption.attachments import decrypt_attachment
from appservices.summary_bot.engines.models.chain import Chain
from appservices.summary_bot.engines.models.provider import ProviderFailed
from appservices.summary_bot.events import clean, mapping, text
from appservices.summary_bot.history.reader import HistoryReader, HistoryRefused
from appservices.summary_bot.matrix.client import MatrixFailure
from appservices.summary_bot.matrix.media import Media
from appservices.summary_bot.storage.settings import SettingsRepository
from appservices.summary_bot.work.conversation import Conversation, Talk

AUDIO_TYPES = ("m.audio", "m.voice")


class Voice:
    """Transcribes what a command replies to."""

    def __init__(
        self,
        media: Media,
        history: HistoryReader,
        settings: SettingsRepository,
        chain: Chain,
        talk: Talk,
        *,
        any_models: bool,
    ) -> None:
        """`any_models`: whether recordings of encrypted rooms may be given to models that are not local."""
        self._media = media
        self._history = history
        self._settings = settings
        self._chain = chain
        self._talk = talk
        self._any_models = any_models

    async def transcribe(self, talk: Conversation, _command: Command) -> None:
        """Sends the words to the asker. The event is one of a room that both are in, and that they replied to."""
        room = await self._settings.load_room(talk.room_id)
        encrypted = await self._history.is_encrypted(talk.room_id)
        local_only = room.local_models_only or (encrypted and not self._any_models)
        providers = [p for p in self._chain.usable(local_only=local_only) if p.options.transcription_model]
        if not providers:
            await self._talk.reply(talk, "transcribe_off")
            return
        try:
            await self._history.check_member(talk.room_id, talk.asker)
        except HistoryRefused as refused:
            await self._talk.reply(talk, refused.line)
            return
        recording = await self._recording(talk)
        if recording is None:
            await self._talk.reply(talk, "transcribe_nothing")
            return
        try:
            audio = await self._load(recording)
            words = clean(await providers[0].transcribe("voice.ogg", audio))
        except (ProviderFailed, MatrixFailure):
            await self._talk.reply(talk, "transcribe_failed")
            return
        pieces = [heading(talk.text("transcript"), level=4), paragraph(words)]
        await self._talk.reply_directly(talk, pieces, encrypted=encrypted)

    async def _load(self, content: Mapping[str, Any]) -> bytes:
        """The sound of a voice message. Raises MatrixFailure."""
        sealed = content.get("file")
        if sealed is None:
            return await self._media.load(text(content.get("url")) or "")
        return decrypt_attachment(await self._media.load(text(mapping(sealed).get("url")) or ""), mapping(sealed))

    async def _recording(self, talk: Conversation) -> Mapping[str, Any] | None:
        """The voice message that was replied to; None where there is none, or its sender has opted out."""
        if talk.reply_to is None:
            return None
        event = await self._history.load_event(talk.room_id, talk.reply_to)
        if event is None or event["content"].get("msgtype") not in AUDIO_TYPES:
            return None
        if await self._settings.load_opted_out([event["sender"]]):
            return None
        return mapping(event["content"])
