"""Habits that a linter does not know: nothing unfinished, nothing swallowed, no hidden clock, chance or task."""

from __future__ import annotations

import ast
import re

import pytest

from tests.tidy.sources import PRODUCT, TOOLS, Module, calls, functions, imports, modules

# Put together from parts, so that this file does not find itself.
UNFINISHED = re.compile(
    "|".join(
        (
            r"\bTO" + "DO",
            r"\bFIX" + "ME",
            r"\bXX" + "X\b",
            "NotImplemented" + "Error",
            r"\.xf" + "ail",
            r"pytest\.sk" + "ip",
        )
    )
)

# https://docs.python.org/3/library/time.html: clocks that only measure how long a thing takes are free to use.
WALL_CLOCKS = {
    "time.time",
    "time.time_ns",
    "time.localtime",
    "time.gmtime",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
}
CLOCK_MODULES = {"homeserver/clock.py", "appservices/summary_bot/clock.py"}  # the bot shares no code with the server

# Chance that decides something has to come from `secrets`, or from a generator that the caller passes in.
PURE_BANS = ("asyncio", "logging", "random", "secrets", "socket", "subprocess", "time", "uuid", "pathlib", "os")

# Where tasks are started. Each of these keeps the task it starts, and sees its failure: a task that nobody holds may
# be collected while it runs, and its exception is lost.
TASK_MODULES = {
    "federation/outbound/key_ring.py": "one fetch that all who ask share",
    "federation/outbound/well_known.py": "one fetch that all who ask share",
    "homeserver/services/push/delivery.py": "one for each pusher that has something to push, cancelled at the stop",
    "homeserver/main.py": "the server's own loops, cancelled and waited for on the way out",
    "homeserver/services/account_data.py": "one load that all who ask share",
    "homeserver/services/federation/gathering.py": "one for each batch, kept, and waited for when all have come",
    "homeserver/services/federation/partial_rooms.py": "one for each room, kept, and looked at when it ends",
    "homeserver/services/federation/incoming_transactions.py": "one reception that all who repeat it share",
    "homeserver/services/federation/sending/sender.py": "one for each destination, kept, and looked at when it ends",
    "homeserver/services/media/shared.py": "one piece of work that all who ask share, broken off at the end",
    "homeserver/services/appservices/deliveries.py": "a delivery for each service, cancelled at the stop",
    "homeserver/services/receipts.py": "one load that all who ask share",
    "homeserver/services/rooms/registry.py": "one load that all who ask share",
    "homeserver/services/rooms/timelines.py": "one load that all who ask share",
    "homeserver/services/rooms/user_rooms.py": "one load that all who ask share",
    "appservices/summary_bot/main.py": "the bot's own loops, cancelled and waited for on the way out",
    "appservices/summary_bot/engines/models/engine.py": "chunks of one answer, cancelled and waited for with it",
    "appservices/summary_bot/work/summaries.py": "shows an answer while it is written, ended before the whole is sent",
    "appservices/summary_bot/work/queue.py": "workers, and the job of each, which can be cancelled alone",
}
# Functions that do nothing, and for which that is right.
MEANT_TO_BE_EMPTY = {
    "homeserver/services/accounts/deactivation.py nothing_more": "what follows where no rooms are at hand",
    "homeserver/http/answer.py write_eof": "there is nothing left to write",
}

TASK_CALLS = ("create_task", "ensure_future", "run_coroutine_threadsafe")


def product() -> tuple[Module, ...]:
    return modules(*PRODUCT)


def test_nothing_is_unfinished() -> None:
    marks = [
        f"{module.name}:{number} {line.strip()}"
        for module in modules(*PRODUCT, *TOOLS)
        for number, line in enumerate(module.text.splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert marks == []


def test_no_failure_is_swallowed() -> None:
    swallowed = [
        f"{module.name}:{node.lineno}"
        for module in modules(*PRODUCT, *TOOLS)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ExceptHandler) and _catches_all(node) and _does_nothing(node.body)
    ]
    assert swallowed == []


def _catches_all(handler: ast.ExceptHandler) -> bool:
    names = [node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)] if handler.type else []
    return handler.type is None or bool({"Exception", "BaseException"} & set(names))


def _does_nothing(body: list[ast.stmt]) -> bool:
    return all(isinstance(node, ast.Pass | ast.Continue) or _is_constant(node) for node in body)


def _is_constant(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def test_no_function_is_a_stub() -> None:
    empty = {
        f"{module.name} {node.name}"
        for module in product()
        for _, node in functions(module)
        if _does_nothing(node.body) and "Protocol" not in module.text
    }
    assert empty == set(MEANT_TO_BE_EMPTY)


def test_the_wall_clock_is_read_in_one_place() -> None:
    readers = {module.name for module in product() for _, name in calls(module) if name in WALL_CLOCKS}
    assert readers == CLOCK_MODULES


def test_chance_comes_from_secrets() -> None:
    careless = [
        f"{module.name}:{line} {name}"
        for module in product()
        for line, name in calls(module)
        if name.startswith(("random.", "uuid.")) and name != "random.Random"
    ]
    assert careless == []


@pytest.mark.parametrize("module", modules("matrix"), ids=lambda module: module.name)
def test_the_specification_is_pure(module: Module) -> None:
    impure = [name for name in imports(module) if name.partition(".")[0] in PURE_BANS]
    assert impure == []
    opened = [f"line {line}: {name}" for line, name in calls(module) if name in ("open", "print", "input")]
    assert opened == []


def test_tasks_are_started_where_somebody_minds_them() -> None:
    starters = {
        module.name for module in product() for _, name in calls(module) if name.rpartition(".")[2] in TASK_CALLS
    }
    assert starters <= set(TASK_MODULES), "keep the task, look at its failure, and add the module with its reason"
    assert set(TASK_MODULES) <= starters, "these start no task any more: take them off the list"


def test_every_test_checks_something() -> None:
    idle = [
        where
        for module in modules("tests")
        for where, node in functions(module)
        if node.name.startswith("test_") and not _checks(node)
    ]
    assert idle == []


def _checks(function: ast.AST) -> bool:
    """Whether a test asserts, expects an exception, or calls what does so: `ok()`, `error()`, `check_…()`, …"""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("raises", "ok", "error", "fail") or name.startswith(("check_", "assert_", "expect_")):
                return True
    return False
