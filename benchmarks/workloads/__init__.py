"""What is measured: a function per measurement, each given a `Target` and answering with named figures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from benchmarks.workloads.federating import (
    FederatedTarget,
    inbound,
    inbound_branches,
    remote_delivery,
    remote_joins,
    served_joins,
)
from benchmarks.workloads.rooms import joins, room_creation, scrollback
from benchmarks.workloads.sending import Figures, hot_room, one_sender, sender, sends, shared_room, storage
from benchmarks.workloads.syncing import delivery, empty_sync, initial_sync
from benchmarks.workloads.target import Target, run_for

Workload = Callable[[Target], Awaitable[Figures]]
FederatedWorkload = Callable[[FederatedTarget], Awaitable[Figures]]

WORKLOADS: dict[str, Workload] = {
    "sends": sends,
    "hot_room": hot_room,
    "one_sender": one_sender,
    "delivery": delivery,
    "storage": storage,
    "scrollback": scrollback,
    "initial_sync": initial_sync,
    "empty_sync": empty_sync,
    "joins": joins,
    "room_creation": room_creation,
}
"""In the order of the run: the same for every server, since what is there already may slow down what follows."""

FEDERATION: dict[str, FederatedWorkload] = {
    "inbound": inbound,
    "inbound_branches": inbound_branches,
    "remote_joins": remote_joins,
    "served_joins": served_joins,
    "remote_delivery": remote_delivery,
}
"""The same for servers that federate, which are others, so that federation is not in the way of the rest."""


async def warm_up(target: Target) -> None:
    """A little of everything, so that no measurement pays for connections, prepared statements and first imports."""
    async with target.sessions(await target.users("warm", 4)) as sessions:
        room_id = await shared_room(target, sessions, target.unique("Warm-up "))
        await run_for(1.0, [sender(session, room_id, target.unique("w")) for session in sessions])
        for session in sessions:
            since = (await session.call("GET", "/sync"))["next_batch"]
            await session.call("GET", f"/sync?timeout=0&since={since}")


__all__ = [
    "FEDERATION",
    "WORKLOADS",
    "FederatedTarget",
    "FederatedWorkload",
    "Figures",
    "Target",
    "Workload",
    "warm_up",
]
