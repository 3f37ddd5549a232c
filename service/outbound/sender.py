"""An account's queues → jobs in hand, a few at a time, each kept alive and carried to its end.

Supervised by fleet/supervise.py, which is given the verdicts. Consumers are there only while something is queued;
news comes by the bell, and by looking every 30 s in case a ring was lost.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from service.bus import ACK_WAIT_S, Bus, Job, Puller, WorkQueue
from service.clock import Clock
from service.errors import AuthRefused, MailbusError, Permanent, Transient, verdict_of
from service.observe import log, metrics
from service.outbound.deliver import Deliverer
from service.outbound.options import OutboundOptions
from service.outbound.waiting import Waiting
from service.smtp import Relay, RelayUnreachable
from service.tasks import TaskGroup, finished

LOOK_EVERY_S: Final = 30.0
# Empty fetches of a second each before a consumer is let go.
LINGER_FETCHES: Final = 3
FINISH_TIMEOUT_S: Final = 10.0
GIVE_BACK_TIMEOUT_S: Final = 2.0


class Sender:
    """All that one account sends. `deliveries` and `connecting` bound the process, shared by its senders in turn."""

    def __init__(
        self,
        bus: Bus,
        relay: Relay,
        options: OutboundOptions,
        *,
        deliveries: asyncio.Semaphore,
        connecting: asyncio.Semaphore,
        clock: Clock,
    ) -> None:
        self._bus = bus
        self._relay = relay
        self._options = options
        self._deliveries = deliveries
        self._connecting = connecting
        self._deliverer = Deliverer(bus, relay, options, clock)
        self._places = asyncio.Semaphore(options.parallel)
        self._free = asyncio.Event()
        self._in_hand = 0
        self._queued: dict[str, int] = {}

    @property
    def waiting(self) -> Waiting:
        """What may be decided of requests that were not sent yet."""
        return self._deliverer.waiting

    async def watch_relay(self, proved: Callable[[], None]) -> None:
        """Try the relay at no request's cost, then wait until a delivery finds it lost; supervised by itself.

        Raises what was found: RelayUnreachable, AuthRefused or Permanent. Until this is run again and finds the
        relay there, requests are put off without an attempt, and expire.
        """
        try:
            async with self._connecting:
                await self._relay.probe()
        except (RelayUnreachable, AuthRefused, Permanent) as exc:
            self._deliverer.relay_lost(exc)
            raise
        self._deliverer.relay_found()
        proved()
        raise await self._deliverer.wait_relay_lost()

    async def run(self, proved: Callable[[], None]) -> None:
        """Take requests until cancelled; what is in hand then has 10 s to end. `proved` is called once it works.

        Raises Transient where NATS cannot be reached.
        """
        subjects, account = self._bus.subjects, self._options.account
        self._in_hand = 0
        bells = (asyncio.Event(), asyncio.Event())

        def ring() -> None:
            for bell in bells:
                bell.set()

        ways = (
            (f"out-{account}", subjects.stream_out, subjects.out(account)),
            (f"due-{account}", subjects.stream_later, subjects.due(account)),
        )
        try:
            async with self._bus.hearing(subjects.bell(account), ring), TaskGroup() as group:
                for bell, (name, stream, subject) in zip(bells, ways, strict=True):
                    group.create_task(self._serve(group, name, stream, subject, bell, proved), name=name)
        except BaseExceptionGroup as failed:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # What failed while finishing must not hide that we are to stop.
                raise asyncio.CancelledError from failed
            raise verdict_of(failed) from failed
        finally:
            await self._relay.close()
            self._count(dict.fromkeys(self._queued, 0))

    def _count(self, queued: dict[str, int]) -> None:
        """Keep `mailbus_waiting` right, which is of all accounts."""
        for stream, count in queued.items():
            metrics.WAITING.labels(where="queue").inc(count - self._queued.get(stream, 0))
            self._queued[stream] = count

    async def _serve(
        self,
        group: TaskGroup,
        name: str,
        stream: str,
        subject: str,
        bell: asyncio.Event,
        proved: Callable[[], None],
    ) -> None:
        queue = self._bus.queue(stream)
        while True:
            bell.clear()
            waiting = await self._bus.pending(stream, subject)
            self._count({stream: waiting})
            proved()
            if not waiting:
                try:
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await bell.wait()
                except TimeoutError:
                    continue
            await self._drain(group, queue, name, stream, subject)

    async def _drain(self, group: TaskGroup, queue: WorkQueue, name: str, stream: str, subject: str) -> None:
        puller = await queue.puller(name, subject)
        try:
            empty = 0
            while empty < LINGER_FETCHES:
                jobs = await self._fetch(puller)
                for job in jobs:
                    self._in_hand += 1
                    group.create_task(self._job(job), name=f"{name} {job.seq}")
                # One look a second or less: a full queue is not counted at every fetch.
                waiting = 1 if jobs else await self._bus.pending(stream, subject)
                empty = 0 if waiting else empty + 1
            self._count({stream: 0})
        finally:
            with suppress(MailbusError):
                await puller.close()

    async def _fetch(self, puller: Puller) -> list[Job]:
        while self._in_hand >= self._options.parallel:
            self._free.clear()
            await self._free.wait()
        return await puller.fetch(self._options.parallel - self._in_hand)

    async def _job(self, job: Job) -> None:
        metrics.WAITING.labels(where="send").inc()
        begun = False
        try:
            async with TaskGroup() as group:
                alive = group.create_task(self._keep_alive(job), name="keep_alive")
                try:
                    async with self._places, self._deliveries:
                        begun = True
                        await finished(self._deliverer.handle(job), FINISH_TIMEOUT_S)
                finally:
                    alive.cancel()
        except asyncio.CancelledError:
            if not begun:
                with suppress(MailbusError, TimeoutError):
                    async with asyncio.timeout(GIVE_BACK_TIMEOUT_S):
                        await job.give_back()
            raise
        finally:
            metrics.WAITING.labels(where="send").dec()
            self._in_hand -= 1
            self._free.set()

    async def _keep_alive(self, job: Job) -> None:
        """RFC 5321 grants the relay 10 minutes; the job would come back after ACK_WAIT_S."""
        while True:
            await asyncio.sleep(ACK_WAIT_S / 3)
            try:
                await job.in_progress()
            except Transient as exc:
                log.warning("job_not_kept_alive", account=self._options.account, error=exc.what)
