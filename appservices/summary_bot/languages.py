"""A guess at the language of a text, good enough to answer in it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from appservices.summary_bot.answers.citations import script

MIN_WORDS = 2

_CODES = """
aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo es
et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj
kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv
ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti
tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu fil yue
"""
LANGUAGE_CODES = frozenset(_CODES.split())
"""The languages that somebody may choose: ISO 639-1, and two that have no code there."""

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
