"""Sentences and terms of messages in any script. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from appservices.summary_bot.events import Message

MIN_SENTENCE_CHARACTERS = 2
MAX_SENTENCE_CHARACTERS = 400
MAX_SENTENCES_PER_MESSAGE = 40
MAX_TERMS_PER_SENTENCE = 80

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_LINK = re.compile(r"https?://\S+")
_END = re.compile(r"(?<=[.!?…])[\"'”’)]*\s+(?=\S)|(?<=[。！？])[”’」』）]*|\n+")
_TERM = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")

_STOP_WORDS = """
a an and are as at be been but by can could did do does for from had has have he her his how i if in into is it
its just me my no not of on or our out she so some than that the their them then there these they this to up us
was we were what when where which who will with would you your yes ok okay thanks thank hi hello aber alle als
am auch auf aus bei bin bis bist da das dass dem den der des die doch du ein eine einen einem einer er es für
hab habe haben hat hier ich ihr im ist ja kann kein keine man mein mit nach nicht noch nur ob oder schon sehr
sein sich sie sind und uns vom von vor war wenn wer wie wir wird wo zu zum zur danke hallo au aux avec ce ces
cette dans de elle en est et être eux il ils je la le les leur lui ma mais mes moi mon ne nous ou par pas pour
qu que qui sa se ses son sur ta te tes toi ton tu un une vos votre vous oui merci al como con del el ella esta
este está hay las lo los más mi muy nos o para pero por qué si sí sin su sus una y ya gracias hola и в во не что
он на я с со как а то все она так его но да ты к у же вы за бы по ее мне было вот от меня о из ему для мы это
если есть или ни быть
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a message; `position` is the message's place among all."""

    position: int
    text: str
    terms: tuple[str, ...]
    is_whole: bool
    """Whether it is all that the message says."""


def sentences_of(messages: Sequence[Message]) -> list[Sentence]:
    """Every sentence that says something, in order. Code and bare links say nothing that could be quoted."""
    return list(_sentences(messages))


def _sentences(messages: Sequence[Message]) -> Iterator[Sentence]:
    for position, message in enumerate(messages):
        if message.is_file:
            continue
        parts = split_sentences(message.body)
        for part in parts:
            terms = terms_of(_LINK.sub(" ", part))
            if terms:
                yield Sentence(position, part, terms, len(parts) == 1)


def split_sentences(body: str) -> list[str]:
    """The sentences of a body."""
    parts = []
    for part in _END.split(_CODE.sub(" ", body)):
        text = " ".join(part.split())
        if len(text) >= MIN_SENTENCE_CHARACTERS:
            parts.append(text if len(text) <= MAX_SENTENCE_CHARACTERS else text[: MAX_SENTENCE_CHARACTERS - 1] + "…")
    return parts[:MAX_SENTENCES_PER_MESSAGE]


def terms_of(text: str) -> tuple[str, ...]:
    """What a text is about: the beginnings of its words, and pairs of characters where no blanks part words."""
    terms: list[str] = []
    for match in _TERM.finditer(text.casefold()):
        word = match[0]
        unspaced = _UNSPACED.findall(word)
        if unspaced:
            for run in unspaced:
                terms += [run[start : start + 2] for start in range(max(1, len(run) - 1))]
        elif len(word) > 1 and word not in STOP_WORDS:
            terms.append(word[:7])
        if len(terms) >= MAX_TERMS_PER_SENTENCE:
            break
    return tuple(terms[:MAX_TERMS_PER_SENTENCE])
