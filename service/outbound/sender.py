"""An account's queues → jobs in hand, a few at a time, each kept alive and carried to its end.

Supervised by fleet/supervise.py, which is given the verdicts. Consumers are there only while something is queued;
news comes by the bell, and by looking every 30 s in case a ring was lost.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final

from service.bus import Bus, WorkQueue
from service.clock import Clock
from service.errors import AuthRefused, MailbusError, Permanent, verdict_of
from service.observe import metrics
from service.outbound.deliver import Deliverer
from service.outbound.hands import Hands
from service.outbound.insist import INSIST_S
from service.outbound.options import OutboundOptions
from service.outbound.places import Deliveries
from service.outbound.sends import consumer_of_out
from service.outbound.sent import SentMailbox
from service.outbound.waiting import Waiting
from service.smtp import Relay, RelayUnreachable
from service.tasks import TaskGroup

LOOK_EVERY_S: Final = 30.0
# Empty fetches of a second each before a consumer is let go.
LINGER_FETCHES: Final = 3
FINISH_TIMEOUT_S: Final = 10.0
# Of one account: some at the relay, some whose outcome is being stored, some that come next. MAX_ACK_PENDING is 64.
IN_HAND_LIMIT: Final = 32
IN_HAND_REFILL: Final = 24
# Of urgent ones so many whatever else is in hand: a mailing is so until each recipient was tried, perhaps for hours.
URGENT_IN_HAND: Final = 8
# What comes next may hold about this much, as far as the last request's size tells.
AHEAD_BYTES: Final = 1024 * 1024


class Sender:
    """All that one account sends. `others` are relays for while the first is away; `sent`: where copies go.

    `deliveries` and `connecting` bound the process, shared by its senders in turn.
    """

    def __init__(
        self,
        bus: Bus,
        relay: Relay,
        options: OutboundOptions,
        *,
        deliveries: Deliveries,
        connecting: AbstractAsyncContextManager[None],
        clock: Clock,
        others: Sequence[Relay] = (),
        sent: SentMailbox | None = None,
    ) -> None:
        self._bus = bus
        self._relay = relay
        self._options = options
        self._connecting = connecting
        self._others = others
        self._deliverer = Deliverer(bus, [relay, *others], options, clock, sent=sent, shared=deliveries)
        self._hands = Hands(
            self._deliverer.handle,
            account=options.account,
            own=relay.options.connections,
            shared=deliveries,
            pace=self._deliverer.pace,
        )
        self._queued: dict[str, int] = {}
        # Whether something failed, and the account's work is not ended by others.
        self._failed = False

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
            self._deliverer.relays.lost(exc)
            raise
        self._deliverer.relays.found()
        await self._deliverer.relays.wait_taking()
        proved()
        raise await self._deliverer.relays.wait_lost()

    async def run(self, proved: Callable[[], None]) -> None:
        """Take requests until cancelled; what is in hand then has 10 s to end. `proved` is called once it works.

        Raises Transient where NATS cannot be reached.
        """
        self._failed = False
        subjects, account = self._bus.subjects, self._options.account
        bells = (asyncio.Event(), asyncio.Event(), asyncio.Event())

        def ring() -> None:
            for bell in bells[:-1]:
                bell.set()

        ways = (
            (consumer_of_out(subjects.out(account)), subjects.stream_out, subjects.out(account)),
            (f"due-{account}", subjects.stream_later, subjects.due(account)),
            # A queue of its own: whoever asks for the next jobs asks as often as those who have thousands to ask for.
            (consumer_of_out(subjects.out_urgent(account)), subjects.stream_out, subjects.out_urgent(account)),
        )
        try:
            async with (
                self._bus.hearing(subjects.bell(account), ring),
                self._bus.hearing(subjects.bell_urgent(account), bells[-1].set),
                TaskGroup() as group,
            ):
                group.create_task(self._to_their_end(), name="hands")
                group.create_task(self._watch(), name="watch")
                for bell, (name, stream, subject) in zip(bells, ways, strict=True):
                    group.create_task(self._serve(name, stream, subject, bell, proved), name=name)
        except BaseExceptionGroup as failed:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # What failed while finishing must not hide that we are to stop.
                raise asyncio.CancelledError from failed
            raise verdict_of(failed) from failed
        finally:
            for relay in (self._relay, *self._others):
                await relay.close()
            self._count(dict.fromkeys(self._queued, 0))
            for name, _, _ in ways:
                metrics.QUEUE_AGE.nothing(name)

    def _count(self, queued: dict[str, int]) -> None:
        """Keep `mailbus_waiting` right, which is of all accounts. `queued`: by consumer."""
        for name, count in queued.items():
            metrics.WAITING.labels(where="queue").inc(count - self._queued.get(name, 0))
            self._queued[name] = count

    async def _to_their_end(self) -> None:
        """The hands. Where the account's work ends, what is in hand has FINISH_TIMEOUT_S.

        Where something fails beside them, NATS as a rule, it has as long as an outcome is insisted on (insist.py): cut
        off before that, a mail whose answer is known would be sent again.
        """
        async with TaskGroup() as group:
            hands = group.create_task(self._hands.run(), name="run")
            try:
                await asyncio.shield(hands)
            except asyncio.CancelledError:
                # Others may end the account's work while it is insisted.
                for limit_s in (INSIST_S, FINISH_TIMEOUT_S) if self._failed else (FINISH_TIMEOUT_S,):
                    with suppress(asyncio.CancelledError):
                        await asyncio.wait([hands], timeout=limit_s)
                        break
                raise

    async def _watch(self) -> None:
        try:
            await self._hands.watch()
        except Exception:
            self._failed = True
            raise

    async def _serve(
        self, name: str, stream: str, subject: str, bell: asyncio.Event, proved: Callable[[], None]
    ) -> None:
        try:
            await self._take_all(name, stream, subject, bell, proved)
        except Exception:
            self._failed = True
            raise
        finally:
            self._hands.stop()
            for relay in (self._relay, *self._others):
                relay.turn_away(until_closed=True)

    async def _take_all(
        self, name: str, stream: str, subject: str, bell: asyncio.Event, proved: Callable[[], None]
    ) -> None:
        queue = self._bus.queue(stream)
        while True:
            bell.clear()
            waiting = await self._bus.pending(stream, subject)
            self._count({name: waiting})
            proved()
            if not waiting:
                try:
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await bell.wait()
                except TimeoutError:
                    continue
            await self._drain(queue, name, stream, subject)

    async def _drain(self, queue: WorkQueue, name: str, stream: str, subject: str) -> None:
        async with TaskGroup() as group:
            # By itself: whoever takes jobs may wait for the relay for long.
            counting = group.create_task(self._keep_counting(name, stream, subject), name=f"count {name}")
            await self._take_queued(queue, name, stream, subject)
            counting.cancel()
        self._count({name: 0})

    async def _keep_counting(self, name: str, stream: str, subject: str) -> None:
        while True:
            self._count({name: await self._bus.pending(stream, subject)})
            await asyncio.sleep(LOOK_EVERY_S)

    async def _take_queued(self, queue: WorkQueue, name: str, stream: str, subject: str) -> None:
        puller = await queue.puller(name, subject)
        own = URGENT_IN_HAND if subject == self._bus.subjects.out_urgent(self._options.account) else 0
        try:
            empty, size = 0, AHEAD_BYTES
            while empty < LINGER_FETCHES:
                # Not one by one: a pull costs as much as a mail's other half.
                await self._hands.wait_below(IN_HAND_REFILL, or_below=own, of=subject)
                room = max(IN_HAND_LIMIT - len(self._hands), own - self._hands.count(subject))
                room = min(room, AHEAD_BYTES // size)
                jobs = await puller.fetch(max(1, room))
                for job in jobs:
                    self._hands.take(job)
                    size = max(1, len(job.payload))
                if jobs and stream == self._bus.subjects.stream_out:
                    metrics.QUEUE_AGE.since(name, min(job.stored_at for job in jobs))
                # One look a second or less: a full queue is not counted at every fetch.
                waiting = 1 if jobs else await self._bus.pending(stream, subject)
                empty = 0 if waiting else empty + 1
            metrics.QUEUE_AGE.nothing(name)
        finally:
            with suppress(MailbusError):
                await puller.close()
