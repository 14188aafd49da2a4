"""`!transcribe`: the words of a voice message, by a provider's audio API."""

from __future__ import annotations

from appservices.summary_bot.answers.render import heading, paragraph
from appservices.summary_bot.commands.model import Command
from appservices.summary_bot.engines.models.chain import Chain
from appservices.summary_bot.engines.models.provider import ProviderFailed
from appservices.summary_bot.events import clean, is_event, mapping, text
from appservices.summary_bot.history.reader import HistoryReader, HistoryRefused
from appservices.summary_bot.matrix.client import MatrixClient, MatrixFailure
from appservices.summary_bot.matrix.media import Media
from appservices.summary_bot.storage.settings import SettingsRepository
from appservices.summary_bot.work.conversation import Conversation, Talk

AUDIO_TYPES = ("m.audio", "m.voice")


class Voice:
    """Transcribes what a command replies to."""

    def __init__(
        self,
        client: MatrixClient,
        media: Media,
        history: HistoryReader,
        settings: SettingsRepository,
        chain: Chain,
        talk: Talk,
    ) -> None:
        self._client = client
        self._media = media
        self._history = history
        self._settings = settings
        self._chain = chain
        self._talk = talk

    async def transcribe(self, talk: Conversation, _command: Command) -> None:
        """Sends the words to the asker. The event is one of a room that both are in, and that they replied to."""
        room = await self._settings.load_room(talk.room_id)
        providers = [p for p in self._chain.usable(local_only=room.local_models_only) if p.options.transcription_model]
        if not providers:
            await self._talk.reply(talk, "transcribe_off")
            return
        try:
            await self._history.check_member(talk.room_id, talk.asker)
        except HistoryRefused as refused:
            await self._talk.reply(talk, refused.line)
            return
        url = await self._recording(talk)
        if url is None:
            await self._talk.reply(talk, "transcribe_nothing")
            return
        try:
            audio = await self._media.load(url)
            words = clean(await providers[0].transcribe("voice.ogg", audio))
        except (ProviderFailed, MatrixFailure):
            await self._talk.reply(talk, "transcribe_failed")
            return
        await self._talk.reply_directly(talk, [heading(talk.text("transcript"), level=4), paragraph(words)])

    async def _recording(self, talk: Conversation) -> str | None:
        """Where the recording is that was replied to; None where there is none, or its sender has opted out."""
        if talk.reply_to is None:
            return None
        event = await self._client.load_event(talk.room_id, talk.reply_to)
        if event is None or not is_event(event) or event["content"].get("msgtype") not in AUDIO_TYPES:
            return None
        if await self._settings.load_opted_out([event["sender"]]):
            return None
        return text(mapping(event["content"]).get("url"))
