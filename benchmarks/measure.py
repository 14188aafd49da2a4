"""What work costs: CPU seconds by process, memory, percentiles. Reads Linux's /proc, so it runs on Linux only.

A server's CPU time is that of its whole process tree. PostgreSQL's is that of the backends that serve the server's
own database; what the instance does for everybody (WAL writer, checkpointer, background writer, I/O workers,
autovacuum) is counted too, but apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_SAMPLE_INTERVAL_S = 1.0
"""How often backends are looked at while work goes on: what a backend that ends used since then is lost."""

_QUIET_CPU_S = 0.02
_QUIET_INTERVAL_S = 0.3
_MAX_SETTLE_S = 5.0


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _cpu_fields(pid: int) -> tuple[float, float]:
    """CPU seconds, user and system, of a process and of the children that it has waited for; zeros if it is gone.

    https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html, fields 14 to 17.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0, 0.0
    # The name in field 2 may hold spaces and parentheses; it ends at the last one.
    fields = stat.rpartition(")")[2].split()
    user, system, waited_user, waited_system = map(int, fields[11:15])
    return (user + system) / _TICKS_PER_S, (waited_user + waited_system) / _TICKS_PER_S


def _children(pid: int) -> list[int]:
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += map(int, task.read_text().split())
    return children


def tree_cpu_s(pid: int) -> float:
    """CPU seconds that a process and everything below it have used, ended children included."""
    return sum(_cpu_fields(pid)) + sum(tree_cpu_s(child) for child in _children(pid))


def tree_memory_mib(pid: int) -> float:
    """Resident memory of a process tree, in MiB: each process's own pages, and those it shares once for all of them.

    The proportional set size would split Python's own pages with the other server and with the benchmark itself, so
    that a server looked smaller for not being alone.
    """
    private_kib, shared_kib = _resident_kib(pid)
    return (private_kib + shared_kib) / 1024


def _resident_kib(pid: int) -> tuple[int, int]:
    """The private pages of a tree, and the shared pages of that process of the tree which has most of them."""
    kib = {"Private": 0, "Shared": 0}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            kind, separator, _ = line.partition("_")
            if separator and kind in kib and "Hugetlb" not in line:
                kib[kind] += int(line.split()[1])
    below = [_resident_kib(child) for child in _children(pid)]
    private_kib = kib["Private"] + sum(private for private, _ in below)
    return private_kib, max(kib["Shared"], *(shared for _, shared in below), 0)


class PostgresCpu:
    """Running totals of the CPU seconds of a PostgreSQL instance's processes, since this object was made."""

    def __init__(self, postmaster_pid: int, database: str) -> None:
        self._postmaster_pid = postmaster_pid
        self._database = database
        self.backends_s = 0.0
        self.background_s = 0.0
        self._last = self._read()

    def sample(self) -> None:
        """Add what each process has used since the last call."""
        now = self._read()
        for pid, cpu_s in now.items():
            used = cpu_s - self._last.get(pid, 0.0)
            kind = self._kind(pid)
            if kind == "backend":
                self.backends_s += used
            elif kind == "background":
                self.background_s += used
        self._last = now

    def _read(self) -> dict[int, float]:
        return {pid: _cpu_fields(pid)[0] for pid in _children(self._postmaster_pid)}

    def _kind(self, pid: int) -> str:
        """By the process title, `postgres: user database client activity` for a backend.

        https://www.postgresql.org/docs/18/monitoring-ps.html. A server's role is named as its database.
        """
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode(errors="replace").split()
        except OSError:
            return "gone"
        if title[1:3] == [self._database, self._database]:
            return "backend"
        if len(title) > 3 and title[1] == title[2]:
            return "another database's backend"
        return "background"


@dataclass(slots=True)
class Usage:
    """What a stretch of work took. Filled in when the stretch is over."""

    wall_s: float = 0.0
    server_cpu_s: float = 0.0
    postgres_cpu_s: float = 0.0
    background_cpu_s: float = 0.0
    client_cpu_s: float = 0.0

    @property
    def client_share(self) -> float:
        """The share of one core that the load generator used: at 1.0 it would be what was measured."""
        return self.client_cpu_s / self.wall_s


class Meter:
    """Measures one server and its database's backends."""

    def __init__(self, server_pid: int, postmaster_pid: int, database: str) -> None:
        self._server_pid = server_pid
        self._postmaster_pid = postmaster_pid
        self._database = database

    @contextlib.asynccontextmanager
    async def measure(self) -> AsyncIterator[Usage]:
        """Measure the work done inside the `async with`.

        The wall clock stops with the work, the CPU clocks only once the server has become quiet: what it puts off
        until after the answers is part of their price.
        """
        await self.settle()
        usage = Usage()
        postgres = PostgresCpu(self._postmaster_pid, self._database)
        sampler = asyncio.create_task(_sample_for_ever(postgres))
        server_before_s = tree_cpu_s(self._server_pid)
        client_before_s = time.process_time()
        started = time.perf_counter()
        try:
            yield usage
            usage.wall_s = time.perf_counter() - started
            usage.client_cpu_s = time.process_time() - client_before_s
            await self.settle()
            usage.server_cpu_s = tree_cpu_s(self._server_pid) - server_before_s
            postgres.sample()
            usage.postgres_cpu_s = postgres.backends_s
            usage.background_cpu_s = postgres.background_s
        finally:
            sampler.cancel()

    async def settle(self) -> None:
        """Wait until the server and its backends have next to nothing to do, but not for ever."""
        deadline = time.monotonic() + _MAX_SETTLE_S
        postgres = PostgresCpu(self._postmaster_pid, self._database)
        server_s = tree_cpu_s(self._server_pid)
        while time.monotonic() < deadline:
            backends_s = postgres.backends_s
            await asyncio.sleep(_QUIET_INTERVAL_S)
            postgres.sample()
            last_server_s, server_s = server_s, tree_cpu_s(self._server_pid)
            if (server_s - last_server_s) + (postgres.backends_s - backends_s) <= _QUIET_CPU_S:
                return

    def memory_mib(self) -> float:
        """Memory of the server's process tree, PostgreSQL apart."""
        return tree_memory_mib(self._server_pid)


async def _sample_for_ever(postgres: PostgresCpu) -> None:
    while True:
        await asyncio.sleep(_SAMPLE_INTERVAL_S)
        postgres.sample()
