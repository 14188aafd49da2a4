"""What the bot says, in the languages that it speaks. Models may answer in others; these lines then are English."""

from __future__ import annotations

from appservices.summary_bot.texts.chinese import TEXTS as CHINESE
from appservices.summary_bot.texts.english import TEXTS as ENGLISH
from appservices.summary_bot.texts.french import TEXTS as FRENCH
from appservices.summary_bot.texts.german import TEXTS as GERMAN
from appservices.summary_bot.texts.spanish import TEXTS as SPANISH

LANGUAGES: dict[str, dict[str, str]] = {
    "en": ENGLISH,
    "de": GERMAN,
    "fr": FRENCH,
    "es": SPANISH,
    "zh": CHINESE,
}
DEFAULT_LANGUAGE = "en"


def say(language: str, line: str, **values: object) -> str:
    """A line in a language, in English where it has none, with its values filled in."""
    texts = LANGUAGES.get(language, ENGLISH)
    return texts.get(line, ENGLISH[line]).format(**values)
