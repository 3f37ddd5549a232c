"""A mailbox followed by a process of its own, which may be killed: `follow_mailbox` of harness.py, as in production.

Processes are forked from one that has everything imported: each lives after some tens of milliseconds.
"""

import asyncio
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Final

from service.ingest import compare, memory
from service.observe import steps
from service.tasks import TaskGroup, cut_short
from tests.ingest.harness import Box, follow_mailbox
from tests.servers.bus import bus_at
from tests.servers.forked import CONTEXT

MODULES: Final = {"compare": compare, "memory": memory}


@dataclass(frozen=True)
class Follower:
    """Where, what, and constants of modules (`memory.IDLE_EVENTS_LIMIT`). `dies_at`: the durable step that ends it."""

    nats_url: str
    prefix: str
    port: int
    user: str
    mailbox: str
    constants: Mapping[str, float]
    dies_at: int = 0

    def start(self) -> BaseProcess:
        """A process of it."""
        process = CONTEXT.Process(target=_follow, args=(self,), daemon=True)
        process.start()
        return process


def _follow(follower: Follower) -> None:
    for name, value in follower.constants.items():
        module, _, constant = name.partition(".")
        setattr(MODULES[module], constant, value)
    # Read from the environment where it was imported, in the process that all are forked from.
    vars(steps)["_stop_at"] = str(follower.dies_at)
    asyncio.run(_followed(follower))


async def _followed(follower: Follower) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with TaskGroup() as group:
        task = group.create_task(_announced(follower), name="follower")
        await stopped.wait()
        # As app.py does it: up to 3.11 a cancellation that comes together with NATS's answer is lost.
        await cut_short([task])


async def _announced(follower: Follower) -> None:
    box = Box(follower.port, follower.user, mailbox=follower.mailbox, idle_s=0.5, poll_s=0.05)
    async with bus_at(follower.nats_url, follower.prefix) as bus:
        await follow_mailbox(bus, box)
