"""`python -m benchmarks`: start the servers, give them the same work in turn, print and write down what it cost."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from benchmarks import report, servers
from benchmarks.http_client import HttpError
from benchmarks.measure import percentile
from benchmarks.workloads import WORKLOADS, Target, warm_up

_RESULTS_FILE = Path(__file__).with_name("RESULTS.md")
_WORKLOAD_TIMEOUT_S = 180.0
_COMMITS = 200
_QUICK_NOTE = "Quick: single short stretches, 1,000 messages in `storage`, 15 rooms instead of 60 in the syncs."


class Run:
    """One run: the servers under measurement and what has been found out about them."""

    def __init__(self, targets: Sequence[Target], names: Sequence[str]) -> None:
        self._targets = targets
        self._names = names
        self.results: dict[str, dict[str, float]] = {target.server.name: {} for target in targets}
        self.failures: list[str] = []

    async def execute(self) -> None:
        """Every measurement for every server: a server at a time, the other one idle meanwhile."""
        for target in self._targets:
            await target.meter.settle()
            self.results[target.server.name]["idle_memory_mib"] = target.meter.memory_mib()
        for target in self._targets:
            await self._attempt(target, "warm_up")
        for name in self._names:
            for target in self._targets:
                await self._attempt(target, name)
        for target in self._targets:
            await target.meter.settle()
            self.results[target.server.name]["memory_after_load_mib"] = target.meter.memory_mib()

    async def _attempt(self, target: Target, name: str) -> None:
        """A measurement that fails is reported, and the others go on."""
        server = target.server.name
        print(f"{name:14} {server:8}", end=" ", flush=True)
        started = time.monotonic()
        try:
            async with asyncio.timeout(_WORKLOAD_TIMEOUT_S):
                if name == "warm_up":
                    await warm_up(target)
                else:
                    self.results[server] |= await WORKLOADS[name](target)
        except TimeoutError:
            self.failures.append(f"{name}, {server}: not done after {_WORKLOAD_TIMEOUT_S:.0f} s")
        except HttpError as error:
            self.failures.append(f"{name}, {server}: {error}")
        else:
            print(f"{time.monotonic() - started:5.1f} s", flush=True)
            return
        print(f"failed: {self.failures[-1]}", flush=True)


async def benchmark(options: argparse.Namespace) -> int:
    """Run what the options ask for; the exit code."""
    wanted = ["synapse", "weft"] if options.server == "both" else [options.server]
    names = list(WORKLOADS) if options.only is None else options.only
    async with contextlib.AsyncExitStack() as stack:
        if "synapse" in wanted:
            servers.install_synapse()
        run_dir = stack.enter_context(servers.run_directory())
        postgres = stack.enter_context(servers.postgres(run_dir))
        start = {"synapse": servers.synapse, "weft": servers.weft}
        running = [await stack.enter_async_context(start[name](run_dir, postgres)) for name in wanted]
        postgres_version, commit_p50_ms = await _measure_commits(postgres)
        run = Run([Target(server, postgres, quick=options.quick) for server in running], names)
        await run.execute()
        machine = report.machine(
            postgres_version, [f"{server.name}: {server.version}" for server in running], commit_p50_ms
        )
    if options.quick:
        machine = f"- {_QUICK_NOTE}\n{machine}"
    text = report.document(
        run.results, machine, datetime.datetime.now().astimezone().strftime("%Y-%m-%d"), run.failures
    )
    print(f"\n{report.budget_table(run.results)}\n\n{report.figures_table(run.results)}\n\n{machine}")
    complete = options.server == "both" and options.only is None and not options.quick
    output = options.output or (_RESULTS_FILE if complete else None)
    if output is not None:
        output.write_text(text)
        print(f"\nWritten to {output}")
    for failure in run.failures:
        print(f"Not measured: {failure}", file=sys.stderr)
    return 1 if run.failures else 0


async def _measure_commits(postgres: servers.Postgres) -> tuple[str, float]:
    """PostgreSQL's version, and the p50 in ms of a transaction of one row: nothing acknowledged can be faster."""
    connection = await postgres.connect()
    try:
        version = str(await connection.fetchval("SHOW server_version"))
        await connection.execute("CREATE TABLE commits (value integer)")
        durations = []
        for number in range(_COMMITS):
            started = time.perf_counter()
            await connection.execute("INSERT INTO commits VALUES ($1)", number)
            durations.append(time.perf_counter() - started)
        await connection.execute("DROP TABLE commits")
    finally:
        await connection.close()
    return version, 1000 * percentile(durations, 0.5)


def _parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter measurements, for a first impression")
    parser.add_argument("--only", metavar="NAME[,NAME]", type=_workload_names, help=f"of {', '.join(WORKLOADS)}")
    parser.add_argument("--server", choices=["weft", "synapse", "both"], default="both")
    parser.add_argument(
        "--output",
        type=Path,
        help="write the report to this file (a complete run: to RESULTS.md unless told otherwise)",
    )
    return parser.parse_args(arguments)


def _workload_names(text: str) -> list[str]:
    names = text.split(",")
    unknown = set(names) - set(WORKLOADS)
    if unknown:
        raise argparse.ArgumentTypeError(f"no measurement named {', '.join(sorted(unknown))}")
    return [name for name in WORKLOADS if name in names]


async def _until_signalled(options: argparse.Namespace) -> int:
    """Have the signals that end a program end the run in an orderly way: every `finally` gets its turn."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await benchmark(options)
    except servers.ServerError as error:
        print(f"\n{error}", file=sys.stderr)
    except asyncio.CancelledError:
        print("\nInterrupted; everything is stopped.", file=sys.stderr)
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(uvloop.run(_until_signalled(_parse())))
