"""Puts ranked sentences into the sections of an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from appservices.summary_bot.answers.model import Bullet, SectionName, Source
from appservices.summary_bot.engines.extractive import cues
from appservices.summary_bot.engines.extractive.contract import Picked, Request
from appservices.summary_bot.engines.extractive.rank import Ranking
from appservices.summary_bot.engines.extractive.sentences import Sentence, sentences_of
from appservices.summary_bot.events import Message

MAX_OUTCOMES = 8
MAX_LINES = 8
MAX_LINES_ALONE = 30
"""How long a section may be, and how long where it is the only one."""

MAX_ANSWERS = 5
MIN_RELEVANCE = 0.12
ANSWER_WINDOW = 8
"""Among how many of the messages after a question an answer to it is looked for."""

SAME_SUBJECT = 0.3
CHANGED_SUBJECT = 0.2
"""How much two decisions have in common if the later says of itself that it changes something."""

MAX_CHANGES = 50


def summarise(request: Request) -> Picked:
    """The sections for a request; empty ones are left out."""
    sentences = sentences_of(request.messages)
    if not sentences:
        return Picked({})
    composer = _Composer(request.messages, sentences)
    if request.purpose == "ask":
        sections: dict[SectionName, list[Bullet]] = {"outcome": composer.answers(request.question)}
    elif request.purpose == "actions":
        sections = {"actions": composer.actions(MAX_LINES_ALONE)}
    elif request.purpose == "decisions":
        sections = {"decisions": composer.decisions(MAX_LINES_ALONE)}
    else:
        sections = composer.all_sections()
    return Picked({name: bullets for name, bullets in sections.items() if bullets})


def relevant(messages: Sequence[Message], topic: str) -> list[Message]:
    """The messages about a topic, with those of their threads and what they reply to."""
    sentences = sentences_of(messages)
    if not sentences:
        return []
    similarity = Ranking(sentences, messages).similarity_to(topic)
    hits = {sentence.position for sentence, like in zip(sentences, similarity, strict=True) if like >= MIN_RELEVANCE}
    threads = {messages[hit].thread or messages[hit].event_id for hit in hits}
    replied = {messages[hit].reply_to for hit in hits}
    return [
        message
        for position, message in enumerate(messages)
        if position in hits or message.thread in threads or message.event_id in threads | replied
    ]


class _Composer:
    def __init__(self, messages: Sequence[Message], sentences: Sequence[Sentence]) -> None:
        self._messages = messages
        self._sentences = sentences
        self._ranking = Ranking(sentences, messages)
        self._used: set[int] = set()
        self._repliers: dict[str, set[str]] = {}
        for message in messages:
            if message.reply_to is not None:
                self._repliers.setdefault(message.reply_to, set()).add(message.sender)

    def all_sections(self) -> dict[SectionName, list[Bullet]]:
        decisions = self.decisions(MAX_LINES)
        actions = self.actions(MAX_LINES)
        questions = self.open_questions(MAX_LINES)
        disagreements = self.disagreements(MAX_LINES)
        return {
            "outcome": self.outcome(),
            "decisions": decisions,
            "open_questions": questions,
            "actions": actions,
            "disagreements": disagreements,
        }

    def outcome(self) -> list[Bullet]:
        count = min(MAX_OUTCOMES, 2 + len(self._sentences) // 15)
        free = [index for index, sentence in enumerate(self._sentences) if sentence.position not in self._used]
        statements = [index for index in free if not cues.is_question(self._sentences[index].text)]
        return self._bullets(self._ranking.pick(statements, count))

    def decisions(self, limit: int) -> list[Bullet]:
        found = self._standing(self._matching(cues.is_decision))
        return self._bullets(self._ranking.pick(found, limit, novelty=0.9))

    def _standing(self, decisions: list[int]) -> list[int]:
        """The decisions that no later one on the same subject takes back."""
        changes = [index for index in decisions if cues.is_change(self._sentences[index].text)][-MAX_CHANGES:]
        return [
            index
            for index in decisions
            if not any(
                index < later
                and self._ranking.are_alike(self._sentences[index], self._sentences[later]) >= CHANGED_SUBJECT
                for later in changes
            )
        ]

    def disagreements(self, limit: int) -> list[Bullet]:
        found = self._matching(cues.is_objection)
        return self._bullets(self._ranking.pick(found, limit, novelty=0.9))

    def actions(self, limit: int) -> list[Bullet]:
        own = self._matching(cues.is_own_action)
        asked = [index for index in self._matching(cues.is_request) if self._asked_of(index) is not None]
        owners = {index: self._message(index).sender for index in own}
        for index in asked:
            owners.setdefault(index, self._asked_of(index) or "")
        picked = self._ranking.pick(list(owners), limit, novelty=0.9)
        return self._bullets(picked, owners)

    def open_questions(self, limit: int) -> list[Bullet]:
        asked = [
            index
            for index, sentence in enumerate(self._sentences)
            if sentence.position not in self._used
            and cues.is_question(sentence.text)
            and len(sentence.terms) >= 2
            and not self._is_answered(index)
        ]
        return self._bullets(self._ranking.pick(asked, limit, novelty=0.9))

    def answers(self, question: str) -> list[Bullet]:
        similarity = self._ranking.similarity_to(question)
        found = [
            index
            for index, sentence in enumerate(self._sentences)
            if similarity[index] >= MIN_RELEVANCE and not cues.is_question(sentence.text)
        ]
        scores = similarity + 0.15 * self._ranking.scores
        return self._bullets(self._ranking.pick(found, MAX_ANSWERS, scores=scores, novelty=0.4))

    def _matching(self, is_cue: Callable[[str], bool]) -> list[int]:
        return [
            index
            for index, sentence in enumerate(self._sentences)
            if sentence.position not in self._used and is_cue(sentence.text)
        ]

    def _message(self, index: int) -> Message:
        return self._messages[self._sentences[index].position]

    def _asked_of(self, index: int) -> str | None:
        """Who is asked to do something: the first who is mentioned, or whom the message replies to."""
        message = self._message(index)
        others = [user for user in message.mentions if user != message.sender]
        return others[0] if others else None

    def _is_answered(self, index: int) -> bool:
        """Whether somebody else replied, or soon after said something on the same subject in the same thread."""
        message, position = self._message(index), self._sentences[index].position
        if self._repliers.get(message.event_id, set()) - {message.sender}:
            return True
        asked = self._sentences[index]
        later = {
            place
            for place, other in enumerate(self._messages[position + 1 : position + 1 + ANSWER_WINDOW], position + 1)
            if other.sender != message.sender and other.thread == message.thread
        }
        following = index + 1
        while following < len(self._sentences) and self._sentences[following].position <= position + ANSWER_WINDOW:
            sentence = self._sentences[following]
            if sentence.position in later and not cues.is_question(sentence.text):
                is_reply = sentence.position == min(later) and cues.is_answer(sentence.text)
                if is_reply or self._ranking.are_alike(asked, sentence) >= SAME_SUBJECT:
                    return True
            following += 1
        return False

    def _bullets(self, indexes: Iterable[int], owners: dict[int, str] | None = None) -> list[Bullet]:
        """The sentences in the order in which they were said."""
        bullets = []
        for index in sorted(indexes):
            sentence, message = self._sentences[index], self._message(index)
            self._used.add(sentence.position)
            bullets.append(
                Bullet(
                    text=sentence.text,
                    sources=(Source(message.event_id, sentence.text.rstrip("…")),),
                    owner=None if owners is None else owners[index] or None,
                    speaker=message.sender,
                )
            )
        return bullets
