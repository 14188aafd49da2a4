"""Servers that do not answer are left alone, for longer each time, over restarts, until they show a sign of life."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from federation.outbound.destinations import Destinations
from storage.database import Database
from storage.destinations import DestinationRepository

MIN_MS, MAX_MS = 1000, 60_000
NAME = "a.example"


class Hour:
    """A clock that the test moves."""

    now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
async def rows(database_url: str) -> AsyncIterator[DestinationRepository]:
    database = Database(database_url, max_connections=2)
    await database.open()
    yield DestinationRepository(database.pool)
    await database.close()


def backoff(rows: DestinationRepository, clock: Hour) -> Destinations:
    return Destinations(rows, clock, min_retry_ms=MIN_MS, max_retry_ms=MAX_MS)


async def test_waits_double_up_to_a_ceiling_with_chance_in_them(rows: DestinationRepository) -> None:
    clock = Hour()
    destinations = backoff(rows, clock)
    assert destinations.retry_ts(NAME) == 0
    for n in range(12):
        destinations.failed(NAME)
        destinations.failed(NAME)  # at the same time: one failure
        wait = destinations.retry_ts(NAME) - clock.now
        full = min(MIN_MS * 2**n, MAX_MS)
        assert full * 3 // 4 <= wait <= full
        clock.now += wait
    waits = set()
    for n in range(20):
        destinations.failed(f"{n}.example")
        waits.add(destinations.retry_ts(f"{n}.example"))
    assert len(waits) > 1


async def test_a_sign_of_life_ends_it_and_is_told(rows: DestinationRepository) -> None:
    destinations, told = backoff(rows, Hour()), list[str]()
    destinations.on_recovered.append(told.append)
    destinations.is_alive(NAME)
    assert told == []
    destinations.failed(NAME)
    destinations.is_alive(NAME)
    destinations.is_alive(NAME)
    assert told == [NAME]
    assert destinations.retry_ts(NAME) == 0
    destinations.failed(NAME)
    assert destinations.retry_ts(NAME) - Hour.now <= MIN_MS


async def test_a_restart_forgets_nothing(rows: DestinationRepository) -> None:
    clock = Hour()
    before = backoff(rows, clock)
    for _ in range(3):
        before.failed(NAME)
        clock.now = before.retry_ts(NAME)
    before.failed("b.example")
    await before.persist()
    before.is_alive("b.example")
    before.failed("c.example")
    await before.persist()

    after = backoff(rows, clock)
    await after.open()
    for name in (NAME, "b.example", "c.example"):
        assert after.retry_ts(name) == before.retry_ts(name)
    after.failed(NAME)
    assert after.retry_ts(NAME) - clock.now > 4 * MIN_MS  # it goes on where it was
