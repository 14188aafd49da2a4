"""A guess at the language of a text, good enough to answer in it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from appservices.summary_bot.answers.citations import script

MIN_WORDS = 2

_WORDS = {
    "en": "the and is are you to of in that it for we have this be with not what was will i can do from",
    "de": "der die das und ist nicht wir ich sie es ein eine zu den mit auf für was haben auch wird kann noch bitte",
    "fr": "le la les et est pas nous vous je que qui un une des pour dans ce il on avec sur être plus bien du",
    "es": "el los las es no que de en un una por para con lo se está pero muy hay como qué más sí nos del",
    "it": "il che è non di per una sono con del della anche ma ho si questo gli nel abbiamo più",
    "pt": "o os não é que de em um uma para com por mais está isso você são mas foi tem do da",
    "nl": "de het een en is niet wij ik van dat op te voor met zijn maar ook wordt heeft naar",
    "ru": "и в не на я что он с как это мы но по для так же бы вы она",
}
_KNOWN = {language: frozenset(words.split()) for language, words in _WORDS.items()}
_BY_SCRIPT = {"han": "zh", "kana": "ja", "hangul": "ko"}


def guess_language(texts: Iterable[str]) -> str | None:
    """The language that most of these texts are in; None if they do not tell."""
    counts: dict[str, int] = {}
    for text in texts:
        sample = text[:500].casefold()
        if (language := _BY_SCRIPT.get(script(sample))) is not None:
            if language == "zh" and re.search("[\u3040-\u30ff]", sample):
                language = "ja"
            counts[language] = counts.get(language, 0) + MIN_WORDS
            continue
        words = set(re.findall(r"[^\W\d_]+", sample))
        for language, known in _KNOWN.items():
            counts[language] = counts.get(language, 0) + len(words & known)
    best = max(counts, key=lambda language: counts[language], default=None)
    return best if best is not None and counts[best] >= MIN_WORDS else None
