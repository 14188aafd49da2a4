"""The figures as tables: the budget of the project's design on top, everything that was measured below."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Results = Mapping[str, Mapping[str, float]]
"""Figures by name, by server name. A figure that could not be measured is absent."""


@dataclass(frozen=True, slots=True)
class Row:
    """One unit of work that has a budget."""

    label: str
    figure: str
    unit: str
    budgets: tuple[float, ...] = ()
    """The first step and, where there is one, the aim. None where there is nothing to compare with but the ratio."""
    more_is_better: bool = False

    def ratio(self, ours: float, theirs: float) -> float | None:
        """How many times better ours is; None where a figure is too small to have been seen."""
        better, worse = (theirs, ours) if self.more_is_better else (ours, theirs)
        return worse / better if better > 0 else None

    def met(self, value: float) -> str:
        """Whether the value keeps to the budget."""
        if not self.budgets:
            return "–"
        kept = [value >= budget if self.more_is_better else value <= budget for budget in self.budgets]
        if all(kept):
            return "yes"
        return "first step" if kept[0] else "no"


ROWS = (
    Row("acknowledged send, server CPU", "send_cpu_ms", "ms", (0.4, 0.25)),
    Row("the same, PostgreSQL CPU", "send_pg_cpu_ms", "ms", (0.4,)),
    Row("32 senders, 16 rooms", "send_rate", "events/s", (2000, 3000), more_is_better=True),
    Row("32 senders, one hot room", "hot_rate", "events/s", (1500,), more_is_better=True),
    Row("one send at a time, p50", "single_p50_ms", "ms", (2,)),
    Row("one event to one waiting member, server CPU", "delivery_cpu_ms", "ms", (0.2, 0.12)),
    Row("send to delivery, 150 waiting members, p50", "delivery_p50_ms", "ms", (40,)),
    Row("database bytes per message, indexes in", "bytes_per_message", "B", (1300,)),
    Row("local join of a public room, server CPU", "join_cpu_ms", "ms", (1.5,)),
    Row("create a room, server CPU", "create_cpu_ms", "ms", (5,)),
    Row("initial /sync, 60 rooms of 10 members, p50", "initial_sync_p50_ms", "ms", (30,)),
    Row("empty incremental /sync, server CPU", "empty_sync_cpu_ms", "ms", (0.1,)),
    Row("scrollback through /messages", "scrollback_rate", "events/s", (30_000,), more_is_better=True),
    Row("idle memory without PostgreSQL", "idle_memory_mib", "MiB", (70,)),
)


FEDERATION_ROWS = (
    Row("inbound PDUs of one stream", "inbound_rate", "PDUs/s", (1000,), more_is_better=True),
    Row("one such PDU, server CPU", "inbound_cpu_ms", "ms"),
    Row("the same with two branches", "branches_rate", "PDUs/s", (1000,), more_is_better=True),
    Row("one such PDU, server CPU", "branches_cpu_ms", "ms"),
    Row("join a room of 1,000, until one may send", "remote_join_1000_may_send_s", "s"),
    Row("the same, until all members are known", "remote_join_1000_complete_s", "s"),
    Row("the same, server CPU", "remote_join_1000_cpu_s", "s"),
    Row("join a room of 5,000, until one may send", "remote_join_5000_may_send_s", "s"),
    Row("the same, until all members are known", "remote_join_5000_complete_s", "s"),
    Row("the same, server CPU", "remote_join_5000_cpu_s", "s"),
    Row("let one into a room of 1,000, p50", "served_join_1000_full_p50_ms", "ms"),
    Row("the same, server CPU", "served_join_1000_full_cpu_ms", "ms"),
    Row("the same without members, p50", "served_join_1000_brief_p50_ms", "ms"),
    Row("let one into a room of 5,000, p50", "served_join_5000_full_p50_ms", "ms"),
    Row("the same, server CPU", "served_join_5000_full_cpu_ms", "ms"),
    Row("the same without members, p50", "served_join_5000_brief_p50_ms", "ms"),
    Row("send to the other server's /sync, p50", "remote_delivery_p50_ms", "ms"),
    Row("the same, CPU of the sending server", "remote_delivery_sender_cpu_ms", "ms"),
    Row("the same, CPU of the receiving server", "remote_delivery_receiver_cpu_ms", "ms"),
)
_FEDERATED_FIGURES = ("inbound_", "branches_", "remote_", "served_")
_FEDERATION_TITLE = "## Federation"


def budget_table(results: Results, rows: Sequence[Row] = (*ROWS, *FEDERATION_ROWS)) -> str:
    """The table of the budget, in Markdown."""
    lines = [["unit of work", "Synapse", "Weft", "ratio", "budget", "met?"]]
    for row in rows:
        theirs, ours = (results.get(name, {}).get(row.figure) for name in ("synapse", "weft"))
        if theirs is None and ours is None:
            continue
        ratio = row.ratio(ours, theirs) if ours is not None and theirs is not None else None
        lines.append(
            [
                row.label,
                "–" if theirs is None else f"{number(theirs)} {row.unit}",
                "–" if ours is None else f"{number(ours)} {row.unit}",
                "–" if ratio is None else f"{number(ratio)}×",
                ", then ".join(number(budget) for budget in row.budgets) + f" {row.unit}" if row.budgets else "–",
                "–" if ours is None else row.met(ours),
            ]
        )
    return table(lines)


def figures_table(results: Results) -> str:
    """Everything that was measured, in Markdown. Units are the last part of the names."""
    names = list(dict.fromkeys(name for figures in results.values() for name in figures))
    servers = [server for server in ("synapse", "weft") if server in results]
    lines = [["figure", *(server.capitalize() for server in servers)]]
    for name in names:
        values = [results[server].get(name) for server in servers]
        lines.append([f"`{name}`", *("–" if value is None else number(value) for value in values)])
    return table(lines)


def table(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table of these cells, the first line of which is its heading."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rows = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    rows.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(rows)


def number(value: float) -> str:
    """Three significant digits, whole above 100, thousands set apart."""
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    return f"{value:.4f}".rstrip("0").rstrip(".") if "e" in text else text


def processor() -> str:
    """The name of the machine's processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def machine(postgres_version: str, versions: Sequence[str], commit_p50_ms: float) -> str:
    """What the figures were measured on, as a Markdown list."""
    lines = [
        f"CPU: {processor()}, {os.cpu_count()} cores",
        f"Kernel: {platform.system()} {platform.release()}",
        f"Python: {platform.python_version()}",
        f"PostgreSQL: {postgres_version}; one durable commit of one row takes {number(commit_p50_ms)} ms (p50)",
        f"Servers: {', '.join(versions)}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def document(results: Results, machine_list: str, date: str, failures: Sequence[str]) -> str:
    """The whole of RESULTS.md."""
    federated = {
        server: {name: value for name, value in figures.items() if name.startswith(_FEDERATED_FIGURES)}
        for server, figures in results.items()
    }
    local = {
        server: {name: value for name, value in figures.items() if name not in federated[server]}
        for server, figures in results.items()
    }
    return f"""# Benchmark results

Measured on {date} by `make bench`. [README.md](README.md) says how, and how to read it; a ratio above 1 means that
Weft is that many times better. Absolute times drift from machine to machine: the ratio is what counts.

{budget_table(local, ROWS)}
{_not_measured(failures)}
## Machine

{machine_list}

## All figures

Names end in their unit. `cpu` is the server's process tree, `pg_cpu` the backends of its database, `pg_background_cpu`
what PostgreSQL does for everybody; `client_share` is the part of one core that the load generator used.

{figures_table(local)}

{federation(federated, machine_list, date, ())}"""


def federation(results: Results, machine_list: str, date: str, failures: Sequence[str]) -> str:
    """The part of RESULTS.md on federation, which can be measured alone and is the last one."""
    return f"""{_FEDERATION_TITLE}

Measured on {date} by `make bench` or `python -m benchmarks --only federation`.

{budget_table(results, FEDERATION_ROWS)}
{_not_measured(failures)}
{machine_list}

{figures_table(results)}
"""


def replace_federation(document: str, section: str) -> str:
    """RESULTS.md with another part on federation."""
    before, _, _ = document.partition(_FEDERATION_TITLE)
    return f"{before.rstrip()}\n\n{section}"


def _not_measured(failures: Sequence[str]) -> str:
    failed = "".join(f"\n- {failure}" for failure in failures)
    return f"\nNot measured:\n{failed}\n" if failures else ""
