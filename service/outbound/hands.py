"""Jobs in hand: each a task with a place (places.py), all kept alive together, ended gently. Used by sender.py."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from typing import Final

from service.bus import ACK_WAIT_S, Job
from service.errors import MailbusError, Transient
from service.observe import log, metrics
from service.outbound.pace import Pace
from service.outbound.places import Deliveries, Place
from service.tasks import TaskGroup

GIVE_BACK_TIMEOUT_S: Final = 2.0


class Hands:
    """The jobs of one account. `handle` is given a job and its place."""

    def __init__(
        self,
        handle: Callable[[Job, Place], Awaitable[None]],
        *,
        account: str,
        own: int,
        shared: Deliveries,
        pace: Pace,
    ) -> None:
        self._pace = pace
        self._handle = handle
        self._account = account
        self._own = asyncio.Semaphore(own)
        self._shared = shared
        self._group: TaskGroup | None = None
        self._held: dict[Job, asyncio.Task[None]] = {}
        self._begun: set[Job] = set()
        self._stop = asyncio.Event()
        self._free = asyncio.Event()
        # Whoever waits for room looks once fewer than this are in hand: not at each job's end, but for one queue's.
        self._look_below = 0.0
        self._failed = asyncio.Event()
        self._failure: Exception | None = None

    def __len__(self) -> int:
        return len(self._held)

    def take(self, job: Job) -> None:
        """Have it worked on."""
        if self._group is None:
            raise RuntimeError("hands that do not run")
        self._held[job] = self._group.create_task(self._work(job), name=f"job {job.seq}")

    def count(self, subject: str) -> int:
        """How many of one queue are in hand."""
        return sum(job.subject == subject for job in self._held)

    async def wait_below(self, count: int, *, or_below: int, of: str) -> None:
        """Until fewer than `count` are in hand, or fewer than `or_below` of one queue."""
        while len(self._held) >= count and (not or_below or self.count(of) >= or_below):
            self._look_below = max(self._look_below, inf if or_below else count)
            self._free.clear()
            await self._free.wait()

    async def watch(self) -> None:
        """Until a job fails; raises what it failed with. The other jobs do not end by it."""
        await self._failed.wait()
        if self._failure is not None:
            raise self._failure

    async def run(self) -> None:
        """Until `stop`, then until what was begun has ended; what was not goes back to the queue."""
        self._stop.clear()
        self._failed.clear()
        self._failure = None
        async with TaskGroup() as group:
            self._group = group
            alive = group.create_task(self._keep_alive(), name="keep_alive")
            try:
                await self._stop.wait()
                for job, task in self._held.items():
                    if job not in self._begun:
                        task.cancel()
                while self._held:
                    self._free.clear()
                    await self._free.wait()
            finally:
                self._group = None
                alive.cancel()

    def stop(self) -> None:
        """Take no more."""
        self._stop.set()

    async def _work(self, job: Job) -> None:
        metrics.SENDING.count += 1
        place = Place(self._own, self._shared, self._stop, self._pace)
        try:
            await place.take()
            self._begun.add(job)
            await self._handle(job, place)
        except asyncio.CancelledError:
            if job not in self._begun:
                with suppress(MailbusError, TimeoutError):
                    async with asyncio.timeout(GIVE_BACK_TIMEOUT_S):
                        await job.give_back()
            raise
        except Exception as exc:  # noqa: BLE001 raised by watch: it ends the account's work, not its other jobs
            self._failure = self._failure or exc
            self._failed.set()
        finally:
            place.end()
            metrics.SENDING.count -= 1
            self._begun.discard(job)
            self._held.pop(job, None)
            if self._stop.is_set() or len(self._held) < self._look_below:
                self._look_below = 0.0
                self._free.set()

    async def _keep_alive(self) -> None:
        """RFC 5321 grants the relay 10 minutes; a job would come back after ACK_WAIT_S."""
        while True:
            await asyncio.sleep(ACK_WAIT_S / 3)
            try:
                for job in list(self._held):
                    await job.in_progress()
            except Transient as exc:
                log.warning("job_not_kept_alive", account=self._account, error=exc.what)
