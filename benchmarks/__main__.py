"""`python -m benchmarks`: start the servers, give them the same work in turn, print and write down what it cost."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import uvloop

from benchmarks import report, servers
from benchmarks.authority import Authority
from benchmarks.http_client import HttpError
from benchmarks.measure import percentile
from benchmarks.peer import running_peer
from benchmarks.workloads import FEDERATION, WORKLOADS, FederatedTarget, Figures, Target, warm_up

_RESULTS_FILE = Path(__file__).with_name("RESULTS.md")
_WORKLOAD_TIMEOUT_S = 180.0
_COMMITS = 200
_QUICK_NOTE = "Quick: single short stretches, 1,000 messages in `storage`, 15 rooms instead of 60 in the syncs."


_START = {"synapse": servers.synapse, "weft": servers.weft}


class Run:
    """One run: what has been found out about the servers."""

    def __init__(self, server_names: Sequence[str]) -> None:
        self.results: dict[str, dict[str, float]] = {name: {} for name in server_names}
        self.versions: dict[str, str] = {}
        self.failures: list[str] = []

    async def execute(self, targets: Sequence[Target], names: Sequence[str]) -> None:
        """Measurements for every server: a server at a time, the other one idle meanwhile."""
        for target in targets:
            await target.meter.settle()
            self.results[target.server.kind]["idle_memory_mib"] = target.meter.memory_mib()
        for target in targets:
            await self._attempt(target, "warm_up", lambda target=target: warm_up(target))
        for name in names:
            for target in targets:
                await self._attempt(target, name, lambda name=name, target=target: WORKLOADS[name](target))
        for target in targets:
            await target.meter.settle()
            self.results[target.server.kind]["memory_after_load_mib"] = target.meter.memory_mib()

    async def execute_federated(self, targets: Sequence[FederatedTarget], names: Sequence[str]) -> None:
        """The same for servers that federate."""
        for target in targets:
            await self._attempt(target, "warm_up", lambda target=target: warm_up(target))
        for name in names:
            for target in targets:
                await self._attempt(target, name, lambda name=name, target=target: FEDERATION[name](target))

    async def _attempt(self, target: Target, name: str, work: Callable[[], Awaitable[Figures | None]]) -> None:
        """A measurement that fails is reported, and the others go on."""
        server = target.server.kind
        self.versions[server] = target.server.version
        print(f"{name:16} {server:8}", end=" ", flush=True)
        started = time.monotonic()
        try:
            async with asyncio.timeout(_WORKLOAD_TIMEOUT_S):
                self.results[server] |= await work() or {}
        except TimeoutError:
            self.failures.append(f"{name}, {server}: not done after {time.monotonic() - started:.0f} s")
        except HttpError as error:
            self.failures.append(f"{name}, {server}: {error}")
        else:
            print(f"{time.monotonic() - started:5.1f} s", flush=True)
            return
        print(f"failed: {self.failures[-1]}", flush=True)


async def benchmark(options: argparse.Namespace) -> int:
    """Run what the options ask for; the exit code."""
    wanted = ["synapse", "weft"] if options.server == "both" else [options.server]
    names = [name for name in WORKLOADS if options.only is None or name in options.only]
    federated = [name for name in FEDERATION if options.only is None or name in options.only]
    if "synapse" in wanted:
        servers.install_synapse()
    run = Run(wanted)
    with servers.run_directory() as run_dir, servers.postgres(run_dir) as postgres:
        postgres_version, commit_p50_ms = await _measure_commits(postgres)
        if names:
            async with contextlib.AsyncExitStack() as stack:
                running = [await stack.enter_async_context(_START[name](run_dir, postgres)) for name in wanted]
                await run.execute([Target(server, postgres, quick=options.quick) for server in running], names)
        if federated:
            async with _federation(run_dir, postgres, wanted, quick=options.quick) as targets:
                await run.execute_federated(targets, federated)
    versions = [f"{name}: {version}" for name, version in run.versions.items()]
    machine = report.machine(postgres_version, versions, commit_p50_ms)
    if options.quick:
        machine = f"- {_QUICK_NOTE}\n{machine}"
    _publish(
        options, run, machine, is_local=len(names) == len(WORKLOADS), is_federated=len(federated) == len(FEDERATION)
    )
    for failure in run.failures:
        print(f"Not measured: {failure}", file=sys.stderr)
    return 1 if run.failures else 0


@contextlib.asynccontextmanager
async def _federation(
    run_dir: Path, postgres: servers.Postgres, kinds: Sequence[str], *, quick: bool
) -> AsyncIterator[list[FederatedTarget]]:
    """Two servers of each kind that federate over TLS on loopback, and two peers of the benchmark's own."""
    directory = run_dir / "federation"
    directory.mkdir()
    authority = Authority(directory)
    tls = servers.Tls(*authority.certificate("localhost"), authority.ca_file)
    async with contextlib.AsyncExitStack() as stack:
        targets = []
        for kind in kinds:
            server, neighbour = [
                await stack.enter_async_context(_START[kind](run_dir, postgres, name=f"{kind}{number}", tls=tls))
                for number in (1, 2)
            ]
            peers = [await stack.enter_async_context(running_peer(authority, number)) for number in (1, 2)]
            target = FederatedTarget(server, postgres, quick=quick, neighbour=neighbour, peers=(peers[0], peers[1]))
            targets.append(target)
        yield targets


def _publish(options: argparse.Namespace, run: Run, machine: str, *, is_local: bool, is_federated: bool) -> None:
    """Print the tables, and write them where they are complete or were asked for: a part replaces its part alone."""
    print(f"\n{report.budget_table(run.results)}\n\n{report.figures_table(run.results)}\n\n{machine}")
    date = datetime.datetime.now().astimezone().strftime("%Y-%m-%d")
    output = options.output
    if output is None and options.server == "both" and not options.quick and is_federated:
        if is_local:
            output = _RESULTS_FILE
        elif options.only is not None and set(options.only) == set(FEDERATION):
            section = report.federation(run.results, machine, date, run.failures)
            _RESULTS_FILE.write_text(report.replace_federation(_RESULTS_FILE.read_text(), section))
            print(f"\nWritten to {_RESULTS_FILE}, the part on federation")
    if output is not None:
        output.write_text(report.document(run.results, machine, date, run.failures))
        print(f"\nWritten to {output}")


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
    parser.add_argument(
        "--only",
        metavar="NAME[,NAME]",
        type=_workload_names,
        help=f"of {', '.join([*WORKLOADS, *FEDERATION])}; `federation` is all of the last {len(FEDERATION)}",
    )
    parser.add_argument("--server", choices=["weft", "synapse", "both"], default="both")
    parser.add_argument(
        "--output",
        type=Path,
        help="write the report to this file (a complete run: to RESULTS.md unless told otherwise)",
    )
    return parser.parse_args(arguments)


def _workload_names(text: str) -> list[str]:
    names = set(text.split(","))
    if "federation" in names:
        names = names - {"federation"} | FEDERATION.keys()
    unknown = names - WORKLOADS.keys() - FEDERATION.keys()
    if unknown:
        raise argparse.ArgumentTypeError(f"no measurement named {', '.join(sorted(unknown))}")
    return sorted(names)


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
