"""The engine as a program: a request a line on standard input, an answer a line on standard output, both JSON.

It is a process of its own so that the bot stays small: the libraries that rank are loaded when somebody asks, and gone
when nobody has asked for a while.
"""

from __future__ import annotations

import os
import sys

NICENESS = 10
"""Whoever shares the machine goes first."""


def main() -> int:
    """Answers until its standard input ends."""
    os.nice(NICENESS)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"

    import msgspec

    from appservices.summary_bot.engines.extractive.contract import Order
    from appservices.summary_bot.engines.extractive.summarise import relevant, summarise

    decoder = msgspec.json.Decoder(Order)
    for line in sys.stdin.buffer:
        order = decoder.decode(line)
        answer: object
        if order.topic is not None:
            answer = [message.event_id for message in relevant(order.request.messages, order.topic)]
        else:
            answer = summarise(order.request)
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
