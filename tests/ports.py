"""Ports for servers of tests that have to know theirs before they listen."""

from __future__ import annotations

import random
import socket

BELOW_EPHEMERAL = range(10_000, 32_000)
"""Where no client's connection comes from: it would take the port before the server does."""

_chance = random.SystemRandom()


def free_port() -> int:
    """A port that nobody listens on."""
    while True:
        port = _chance.choice(BELOW_EPHEMERAL)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
