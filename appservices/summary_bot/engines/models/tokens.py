"""How many tokens a text takes, estimated on the high side: models differ, budgets must not be overspent. Pure."""

from __future__ import annotations

BYTES_PER_TOKEN = 3
OVERHEAD_TOKENS = 16


def estimate_tokens(text: str) -> int:
    """At least what common tokenizers make of it: three bytes a token, which for Chinese is a token a character."""
    return len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN + OVERHEAD_TOKENS


AUDIO_BYTES_PER_TOKEN = 200
"""Ten tokens a second, and at least two kilobytes a second: that is speech at 16 kbit/s."""


def estimate_audio_tokens(audio: bytes) -> int:
    """What a recording takes: how long it is its sender claims, how large it is can be counted."""
    return len(audio) // AUDIO_BYTES_PER_TOKEN + OVERHEAD_TOKENS
