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

OVERLAP_MESSAGES = 2
"""How many known messages are shown again with new ones that go on in the same chunk."""

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
    return prefix_hashes(chunk, *parts)[-1]


def prefix_hashes(chunk: Chunk, *parts: str) -> list[bytes]:
    """The hash of each beginning of a chunk, the shortest first and the whole last."""
    lines = (f"{message.event_id}\x1f{message.edit_id}\x1f{message.body}" for message in chunk)
    return rolling_hashes([line.encode("utf-8", "surrogatepass") for line in lines], *parts)


def rolling_hashes(items: Sequence[bytes], *parts: str) -> list[bytes]:
    """The hash of each beginning of a list, the shortest first. `parts` go before all."""
    state = hashlib.blake2b(digest_size=32)
    for part in parts:
        state.update(_framed(part.encode("utf-8", "surrogatepass")))
    hashes = []
    for item in items:
        state.update(_framed(item))
        hashes.append(state.copy().digest())
    return hashes


def _framed(item: bytes) -> bytes:
    return len(item).to_bytes(4) + item


def rest_after(chunk: Chunk, known: int) -> Chunk:
    """What is left of a chunk whose first `known` messages are known, with a few of these: what is said next is often
    said of them."""
    return chunk[max(0, known - OVERLAP_MESSAGES) :]
