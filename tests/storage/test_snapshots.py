"""Layered snapshots read as if each were stored whole, and cost what changed."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.snapshots import CHUNK_ENTRIES, GroundRow, NewSnapshot, SnapshotRepository, insert_snapshots

MAX_KEY = 3 * CHUNK_ENTRIES


@pytest.fixture(scope="module")
async def pool(module_database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(module_database_url, min_size=1, max_size=2) as pool:
        yield pool


def make_tree(rng: random.Random) -> list[tuple[int, dict[int, int]]]:
    """Snapshots as (index of the parent, -1 for none; changes).

    Most go on from the last one, as in a room; some fork off from any older one, or begin anew; now and then a great
    many keys change at once.
    """
    max_key = rng.choice([4, 40, MAX_KEY])
    snapshots = []
    for index in range(rng.randint(1, 40)):
        parent = rng.randint(-1, index - 1) if rng.random() < 0.2 else index - 1
        changes = {rng.randint(1, max_key): rng.randint(1, 2**40) for _ in range(rng.choice([1, 1, 1, 3]))}
        if rng.random() < 0.06:
            changes |= {key: key + index for key in range(1, rng.choice([2, 30, MAX_KEY]))}
        snapshots.append((parent, changes))
    return snapshots


async def write(pool: asyncpg.Pool, repository: SnapshotRepository, new: list[NewSnapshot]) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await insert_snapshots(connection, await repository.plan(connection, new))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), batch=st.integers(1, 9), max_cached_entries=st.sampled_from([1, 50, 500_000]))
async def test_any_tree_of_snapshots_reads_like_whole_copies(
    pool: asyncpg.Pool, seed: int, batch: int, max_cached_entries: int
) -> None:
    await pool.execute("TRUNCATE snapshots")
    rng = random.Random(seed)
    repository = SnapshotRepository(pool, max_cached_entries=max_cached_entries)
    model: list[dict[int, int]] = []
    waiting: list[NewSnapshot] = []
    tree = make_tree(rng)
    for index, (parent, changes) in enumerate(tree):
        model.append({**(model[parent] if parent >= 0 else {}), **changes})
        waiting.append(NewSnapshot(index + 1, parent + 1, changes))
        if len(waiting) == batch or index == len(tree) - 1:
            if rng.random() < 0.2:
                repository.forget_cached()
            await write(pool, repository, waiting)
            waiting = []
    for index in {0, len(tree) - 1, *rng.choices(range(len(tree)), k=12)}:
        expected = model[index]
        assert await repository.load(index + 1) == expected
        keys = [rng.randint(1, MAX_KEY + 1) for _ in range(4)] + rng.choices(list(expected), k=4)
        assert await repository.load_keys(index + 1, keys) == {key: expected[key] for key in keys if key in expected}
    assert await repository.load(10**9) == {}


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), is_cached=st.booleans())
async def test_what_is_put_into_a_ground_is_in_all_that_stands_on_it(
    pool: asyncpg.Pool, seed: int, is_cached: bool
) -> None:
    await pool.execute("TRUNCATE snapshots")
    rng = random.Random(seed)
    repository = SnapshotRepository(pool)
    known = {key: key for key in range(1, rng.randint(2, 20))}
    lacking = {key: 10**9 + key for key in rng.sample(range(20, MAX_KEY), rng.choice([1, 30, 2 * CHUNK_ENTRIES]))}
    await write(pool, repository, [NewSnapshot(1, 0, known, is_ground=True)])
    model = [known]
    for index in range(1, 20):
        parent = rng.randrange(index)
        changes = {rng.choice([*known, *list(lacking)[:9]]): 10**6 + index}
        model.append({**model[parent], **changes})
        await write(pool, repository, [NewSnapshot(index + 1, parent + 1, changes)])
    if not is_cached:
        repository.forget_cached()
    async with pool.acquire() as connection, connection.transaction():
        await repository.rewrite_grounds(connection, [GroundRow(1, {**lacking, **known})])
    model.append({**model[-1], 1: 5})
    await write(pool, repository, [NewSnapshot(21, 20, {1: 5})])
    whole = [{**lacking, **state} for state in model]
    for index, state in enumerate(whole):
        assert await repository.load(index + 1) == state
    some = list(lacking)[:3]
    assert await repository.load_keys(7, some) == {key: whole[6][key] for key in some}
    assert await repository.load_differences([3, 17]) == {
        key: [whole[2][key], whole[16][key]] for key in whole[2] if whole[2][key] != whole[16][key]
    }
    most = await pool.fetchval("SELECT max(cardinality(keys)) FROM snapshots WHERE snapshot > 1")
    assert most < 20, "the ground was copied"


async def test_snapshots_cost_what_changed(pool: asyncpg.Pool) -> None:
    """n changes, each of a key of its own: at most n/2 * log2(n) + n entries, and as many bytes as that."""
    await pool.execute("TRUNCATE snapshots")
    repository = SnapshotRepository(pool)
    for n in (256, 2048):
        await write(pool, repository, [NewSnapshot(i, i - 1, {i: i}) for i in range(1, n + 1)])
        entries, longest = await pool.fetchrow("SELECT sum(cardinality(keys)), max(cardinality(keys)) FROM snapshots")
        assert entries <= n / 2 * math.log2(n) + n
        assert longest <= CHUNK_ENTRIES
        assert await repository.load(n) == {i: i for i in range(1, n + 1)}
        layers = await pool.fetchval(
            "WITH RECURSIVE c AS (SELECT snapshot, base FROM snapshots WHERE snapshot = $1 UNION"
            " SELECT s.snapshot, s.base FROM snapshots s JOIN c ON s.snapshot = c.base) SELECT count(*) FROM c",
            n - 1,
        )
        assert layers <= math.log2(n)
        await pool.execute("TRUNCATE snapshots")
        repository.forget_cached()


async def test_what_a_rolled_back_batch_planned_is_not_built_upon(pool: asyncpg.Pool) -> None:
    await pool.execute("TRUNCATE snapshots")
    repository = SnapshotRepository(pool)
    await write(pool, repository, [NewSnapshot(1, 0, {1: 1})])
    with pytest.raises(asyncpg.UniqueViolationError):
        await write(pool, repository, [NewSnapshot(2, 1, {2: 2}), NewSnapshot(1, 0, {1: 9})])
    repository.forget_cached()
    await write(pool, repository, [NewSnapshot(2, 1, {3: 3})])
    assert await repository.load(2) == {1: 1, 3: 3}
