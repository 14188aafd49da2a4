"""Ports for servers of tests that have to know theirs before they listen."""

from __future__ import annotations

import random
import socket

BELOW_EPHEMERAL = range(10_000, 32_000)
"""Where no client's connection comes from: it would take the port before the server does."""

_chance = random.SystemRandom()
_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, and that was not given out before: servers go by it, and are remembered by it."""
    while True:
        port = _chance.choice(BELOW_EPHEMERAL)
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
