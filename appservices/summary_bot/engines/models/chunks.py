"""Cuts a history into chunks that stay the same when the history grows. Pure.

A chunk is what was said in one thread, or in the room's main line between two pauses. A long one is cut where the
messages themselves say so (by a hash of an event's ID), not where a count is reached: reading on from another
beginning finds the same cuts again, and with them the facts that were paid for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from appservices.summary_bot.clock import MINUTE_MS
from appservices.summary_bot.engines.models.tokens import estimate_tokens
from appservices.summary_bot.events import Message

PAUSE_MS = 45 * MINUTE_MS
MIN_MESSAGES = 12
"""A chunk ends neither at a pause nor at a cut before it has this many messages: each chunk costs a call."""

CUT_ONE_IN = 24
MAX_MESSAGES = 80
MAX_TOKENS = 6000

Chunk = tuple[Message, ...]


def chunks_of(messages: Sequence[Message]) -> list[Chunk]:
    """The chunks, those that end first coming first. Every message is in exactly one."""
    lines: dict[str | None, list[Message]] = {}
    roots = {message.thread for message in messages if message.thread is not None}
    for message in messages:
        thread = message.thread or (message.event_id if message.event_id in roots else None)
        lines.setdefault(thread, []).append(message)
    chunks = [chunk for line in _merged(lines) for chunk in _cut(line)]
    return sorted(chunks, key=lambda chunk: (chunk[-1].ts, chunk[-1].event_id))


def _merged(lines: dict[str | None, list[Message]]) -> Iterator[list[Message]]:
    """Short threads go with the main line, beside what they began with."""
    main = lines.pop(None, [])
    short = [line for line in lines.values() if len(line) < MIN_MESSAGES]
    merged = main + [message for line in short for message in line]
    yield sorted(merged, key=lambda message: message.ts)
    yield from (line for line in lines.values() if len(line) >= MIN_MESSAGES)


def _cut(line: Sequence[Message]) -> Iterator[Chunk]:
    chunk: list[Message] = []
    tokens = 0
    for message in line:
        size = estimate_tokens(message.body)
        is_long = len(chunk) >= MIN_MESSAGES
        paused = is_long and message.ts - chunk[-1].ts > PAUSE_MS
        if chunk and (paused or len(chunk) >= MAX_MESSAGES or tokens + size > MAX_TOKENS):
            yield tuple(chunk)
            chunk, tokens = [], 0
        chunk.append(message)
        tokens += size
        if len(chunk) >= MIN_MESSAGES and _is_cut(message.event_id):
            yield tuple(chunk)
            chunk, tokens = [], 0
    if chunk:
        yield tuple(chunk)


def _is_cut(event_id: str) -> bool:
    return hashlib.blake2b(event_id.encode(), digest_size=4).digest()[0] % CUT_ONE_IN == 0


def chunk_hash(chunk: Chunk, *parts: str) -> bytes:
    """What the facts of a chunk depend on: its events, their edits, and (as `parts`) prompt, model and language."""
    lines = [f"{message.event_id}\x1f{message.edit_id}\x1f{message.body}" for message in chunk]
    return hashlib.blake2b("\x1e".join([*parts, *lines]).encode("utf-8", "surrogatepass"), digest_size=32).digest()
