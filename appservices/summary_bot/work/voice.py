"""`!transcribe`: the words of a voice message, by a provider's audio API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from appservices.summary_bot.answers.render import heading, paragraph
from appservices.summary_bot.answers.split import Piece
from appservices.summary_bot.commands.model import Command
from appservices.summary_bot.encryption.attachments import decrypt_attachment
from appservices.summary_bot.engines.contract import Ask
from appservices.summary_bot.engines.models.chain import Chain, NoModel
from appservices.summary_bot.events import RawEvent, clean, mapping, text
from appservices.summary_bot.history.reader import HistoryReader, HistoryRefused
from appservices.summary_bot.matrix.client import MatrixFailure
from appservices.summary_bot.matrix.media import Media
from appservices.summary_bot.storage.settings import SettingsRepository
from appservices.summary_bot.work.conversation import Conversation, Talk
from appservices.summary_bot.work.quoting import Quoting, Rest

AUDIO_TYPES = ("m.audio", "m.voice")
MAX_PARAGRAPH_CHARACTERS = 1500
SUFFIXES = {
    "audio/mpeg": ".mp3",
    "audio/mp3": ".mp3",
    "audio/mp4": ".m4a",
    "audio/x-m4a": ".m4a",
    "audio/aac": ".m4a",
    "audio/wav": ".wav",
    "audio/x-wav": ".wav",
    "audio/webm": ".webm",
    "audio/flac": ".flac",
}


class Voice:
    """Transcribes what a command replies to."""

    def __init__(
        self,
        media: Media,
        history: HistoryReader,
        settings: SettingsRepository,
        chain: Chain,
        talk: Talk,
        quoting: Quoting,
        *,
        any_models: bool,
    ) -> None:
        """`any_models`: whether recordings of encrypted rooms may be given to models that are not local."""
        self._media = media
        self._history = history
        self._settings = settings
        self._chain = chain
        self._talk = talk
        self._quoting = quoting
        self._any_models = any_models

    async def transcribe(self, talk: Conversation, _command: Command) -> None:
        """Sends the words to the asker. The event is one of a room that both are in, and that they replied to."""
        room = await self._settings.load_room(talk.room_id)
        encrypted = await self._history.is_encrypted(talk.room_id)
        local_only = room.local_models_only or (encrypted and not self._any_models)
        ask = Ask(talk.room_id, talk.asker, local_only=local_only)
        if not self._chain.can_transcribe(ask):
            await self._talk.reply(talk, "transcribe_off")
            return
        try:
            event = await self._recording(talk)
        except HistoryRefused as refused:
            await self._talk.reply(talk, refused.line)
            return
        if event is None:
            await self._talk.reply(talk, "transcribe_nothing")
            return
        try:
            audio = await self._load(event["content"])
            words = await self._chain.transcribe(ask, _file_name(event), audio)
        except NoModel as none:
            await self._refuse(talk, none)
            return
        except MatrixFailure:
            await self._talk.reply(talk, "transcribe_failed")
            return
        pieces = [
            heading(talk.text("transcript"), level=4),
            *_paragraphs(clean(words) or talk.text("transcribe_silent")),
        ]
        rest = Rest(talk.room_id, [], [event["event_id"]], event["origin_server_ts"])
        target = await self._talk.private_target(talk, encrypted=encrypted)
        await self._quoting.send(pieces, target, talk.asker, talk.key, [rest])
        await self._talk.sign(talk)

    async def _load(self, content: Mapping[str, Any]) -> bytes:
        """The sound of a voice message. Raises MatrixFailure."""
        sealed = content.get("file")
        if sealed is None:
            return await self._media.load(text(content.get("url")) or "")
        return decrypt_attachment(await self._media.load(text(mapping(sealed).get("url")) or ""), mapping(sealed))

    async def _refuse(self, talk: Conversation, none: NoModel) -> None:
        if none.reason == "budget":
            await self._talk.reply(talk, "transcribe_budget", scope=talk.text(f"scope_{none.scope}"))
        else:
            await self._talk.reply(talk, "transcribe_failed")

    async def _recording(self, talk: Conversation) -> RawEvent | None:
        """The recording that was replied to; None where there is none that the asker may see, or its sender has opted
        out."""
        if talk.reply_to is None:
            await self._history.check_member(talk.room_id, talk.asker)
            return None
        event = await self._history.access_event(talk.room_id, talk.asker, talk.reply_to)
        if event is None or event["content"].get("msgtype") not in AUDIO_TYPES:
            return None
        return None if await self._settings.load_opted_out([event["sender"]]) else event


def _file_name(event: RawEvent) -> str:
    """A name by which a provider knows what kind of file it gets: voice messages are Ogg where they do not say.

    https://spec.matrix.org/v1.19/client-server-api/#maudio
    """
    kind = text(mapping(event["content"].get("info")).get("mimetype")) or ""
    return f"voice{SUFFIXES.get(kind.partition(';')[0].strip().lower(), '.ogg')}"


def _paragraphs(words: str) -> list[Piece]:
    """A long text as pieces, each of which fits into an event with others."""
    return [
        paragraph(words[start : start + MAX_PARAGRAPH_CHARACTERS])
        for start in range(0, len(words), MAX_PARAGRAPH_CHARACTERS)
    ]
