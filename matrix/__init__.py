"""The Matrix specification as pure functions: no I/O, clock, randomness, logging or asyncio."""
