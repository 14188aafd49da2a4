"""Checks that each line of an answer is borne out by what it cites, and takes out of it what is not.

What a model says is a claim. A line stays if each of its sources is a message that the asker may see, if the words
quoted from it stand in it, and if no number, name or link is in the line that is not in its sources; where line and
source are in the same script, a good part of the line's words have to be in the source, too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import replace

from appservices.summary_bot.answers.model import Bullet, Source
from appservices.summary_bot.events import Message

MAX_BULLET_CHARACTERS = 600
MAX_SOURCES = 8
MIN_QUOTE_CHARACTERS = 6
SCRIPTS = {
    "zh": "han",
    "ja": "kana",
    "ko": "hangul",
    "ru": "cyrillic",
    "uk": "cyrillic",
    "bg": "cyrillic",
    "el": "greek",
}
"""In which script languages are written that are not in Latin letters."""

WORDS_SHARED = 0.5
"""Of the telling words of a line, more than this part has to be in its sources, if both are in the same script."""

LINK = re.compile(
    r"(?:[a-z][a-z0-9+.-]{1,20}:(?://)?[^\s<>\"')\]]+|www\.[^\s<>\"')\]]+"
    r"|\b(?:[a-z0-9-]+\.)+(?:com|org|net|io|de|cn|ru|xyz|info|biz|co|app|dev|ly|me|example|test|invalid)\b(?:/[^\s<>\"')\]]*)?)",
    re.IGNORECASE,
)
MENTION = re.compile(r"@room\b|[@#!$][\w.=/+-]+:[\w.-]+(?::\d+)?|@[\w.=/+-]{2,}")
MARKUP = re.compile(r"<[^<>]{1,500}>|!?\[([^\[\]]{0,200})\]\([^()]{0,1000}\)")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_WORD = re.compile(r"\w+")
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\x00-\x08\x0b-\x1f\x7f-\x9f]")


def normal(text: str) -> str:
    """Text for comparing: one form of each character, case folded, runs of blanks as one."""
    return " ".join(_INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).casefold().split())


def verify(
    bullet: Bullet, messages: Mapping[str, Message], names: Mapping[str, str], language: str = "en"
) -> Bullet | None:
    """The line with what its sources do not have taken out; None if they do not bear it out.

    `messages`: what the asker may see, by event ID. `names`: display names by user ID. `language`: of the answer.
    """
    sources = tuple(source for source in bullet.sources[:MAX_SOURCES] if _is_quoted(source, messages))
    if not sources:
        return None
    cited = [messages[source.event_id] for source in sources]
    evidence = normal(" ".join(message.body for message in cited))
    people = {message.sender for message in cited} | {user for message in cited for user in message.mentions}
    known = evidence + " " + normal(" ".join([*people, *(names.get(user, "") for user in people)]))
    text = sanitise(bullet.text, known)
    if not text or not _bears_out(text, evidence, known, language):
        return None
    owner = bullet.owner if bullet.owner in people else None
    return replace(bullet, text=text, sources=sources, owner=owner)


def _is_quoted(source: Source, messages: Mapping[str, Message]) -> bool:
    message = messages.get(source.event_id)
    if message is None:
        return False
    body, quote = normal(message.body), normal(source.quote)
    return bool(quote) and quote in body and (len(quote) >= MIN_QUOTE_CHARACTERS or quote == body or _is_dense(quote))


def _is_dense(quote: str) -> bool:
    """Two Chinese characters say as much as six letters."""
    return len(quote) >= 2 and script(quote) == "han"


def sanitise(text: str, evidence: str) -> str:
    """A line of plain text: no markup, no links or mentions that are not in the evidence, nothing invisible."""
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", text))
    text = MARKUP.sub(lambda match: match[1] or "", text)
    for pattern in (LINK, MENTION):
        text = pattern.sub(lambda match: match[0] if normal(match[0]) in evidence else "", text)
    text = " ".join(text.replace("@room", "room").split())
    return text[:MAX_BULLET_CHARACTERS].strip()


def _bears_out(text: str, evidence: str, known: str, language: str) -> bool:
    line = normal(text)
    numbers = set(_NUMBER.findall(known))
    parts = {part for number in numbers for part in re.split(r"[.,:]", number)} | numbers
    if any(number not in parts for number in _NUMBER.findall(line)):
        return False
    if script(line) != script(evidence):  # a translation, which is right only into the language of the answer
        return script(line) == SCRIPTS.get(language, "latin")
    words = telling_words(line)
    if not words:
        return True
    have = telling_words(known)
    return sum(word in have for word in words) > WORDS_SHARED * len(words)


def script(text: str) -> str:
    """The script that most letters of a text are in: han, kana, hangul, latin, cyrillic, or another's first word."""
    counts: dict[str, int] = {}
    for character in text[:2000]:
        if character.isalpha():
            name = "latin" if character.isascii() else script_of(character)
            counts[name] = counts.get(name, 0) + 1
    return max(counts, key=lambda name: counts[name]) if counts else "none"


def script_of(character: str) -> str:
    """The script of a letter."""
    if "\u4e00" <= character <= "\u9fff" or "\u3400" <= character <= "\u4dbf":
        return "han"
    if "\u3040" <= character <= "\u30ff":
        return "kana"
    return unicodedata.name(character, "unknown").partition(" ")[0].lower()


def telling_words(text: str) -> set[str]:
    """The beginnings of a text's longer words, and the pairs of characters where words are not parted by blanks."""
    words = set()
    for word in _WORD.findall(text):
        if any(script_of(character) in ("han", "kana") for character in word if not character.isascii()):
            words |= {word[position : position + 2] for position in range(max(1, len(word) - 1))}
        elif len(word) >= 4:
            words.add(word[:6])
    return words


def verify_all(
    bullets: Iterable[Bullet], messages: Mapping[str, Message], names: Mapping[str, str], language: str = "en"
) -> tuple[list[Bullet], int]:
    """The lines that hold, each once, and how many were dropped."""
    kept: dict[str, Bullet] = {}
    dropped = 0
    for bullet in bullets:
        checked = verify(bullet, messages, names, language)
        if checked is None:
            dropped += 1
        else:
            kept.setdefault(normal(checked.text), checked)
    return list(kept.values()), dropped
