"""One job → in hand once, carried the way it takes, and what becomes of one that fails, or ends processes.

Used by sender.py; ways.py knows which way it takes.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Final

from service.bus import Bus, Conflict, Job
from service.clock import Clock
from service.errors import MailbusError, Permanent, Transient
from service.observe import log, metrics
from service.outbound.bundles import Bundles
from service.outbound.inhand import AGAIN_S, InHand
from service.outbound.lanes import Lanes
from service.outbound.options import OutboundOptions
from service.outbound.outbox import Outbox
from service.outbound.pace import Pace
from service.outbound.places import NOT_ALONE_S, Deliveries, NoTurn, Place
from service.outbound.relays import Relays
from service.outbound.replies import nameable
from service.outbound.request import Taken, made_id, take
from service.outbound.retry import Phase
from service.outbound.sends import KEY_HEADER, SendRecord, Sends, new_record, source_of
from service.outbound.sent import SentMailbox
from service.outbound.settle import ATTEMPT_HEADER, Settler, changed
from service.outbound.suspects import GIVEN_UP_AT, OvertakenError, Suspects
from service.outbound.waiting import Waiting
from service.outbound.ways import Ways
from service.smtp import Relay, TurnedAway

# A request that mailbus fails at by a bug goes to the dead letters then, and stops nobody else's mail.
BUG_FAILURES: Final = 3


class Deliverer:
    """Carries jobs of one account through. `handle` may run several times at once."""

    def __init__(
        self,
        bus: Bus,
        relays: Sequence[Relay],
        options: OutboundOptions,
        clock: Clock,
        *,
        shared: Deliveries,
        sent: SentMailbox | None = None,
    ) -> None:
        self._bus = bus
        self._options = options
        self._sends = Sends(bus.key_value(bus.subjects.sends), bus.key_value(bus.subjects.cursors), clock)
        outbox = Outbox(bus.blobs(bus.subjects.outbox))
        self._settler = Settler(bus, self._sends, outbox, options, clock)
        self.waiting = Waiting(bus, options.account, self._sends, self._settler, clock)
        self.pace = Pace(options.interval_s, clock)
        self.relays = Relays(relays, options.account, self.pace, clock)
        self.lanes = Lanes(options.account, options.domains, clock)
        self._bundles = Bundles(bus, outbox, options.account)
        self._ways = Ways(
            bus,
            self._sends,
            self._settler,
            self._bundles,
            self.relays,
            self.lanes,
            self.pace,
            options,
            clock,
            sent=sent,
        )
        self._created: datetime | None = None
        self._in_hand = InHand(self._sends, self._settler)
        self._bugs = shared.bugs
        sends = bus.key_value(bus.subjects.sends)
        self._suspects = Suspects(sends, writer=shared.writer, lives=shared.lives)

    async def handle(self, job: Job, place: Place) -> None:
        """Carry a job as far as it goes now, and acknowledge it or give it back; leave `place` after the relay.

        Raises Transient where NATS is away.
        """
        if self.relays.just_lost:
            # The queue keeps the request.
            await job.give_back(AGAIN_S)
            return
        # By subject and not by header: a requester may send any header, but cannot publish here.
        if job.subject == self._bus.subjects.due(self._options.account):
            key, taken = job.headers.get(KEY_HEADER, ""), None
        else:
            taken = take(self._options.account, job.payload, job.headers, made_id=await self._maker(job))
            key = taken.key
        if key in self._in_hand:
            await self._in_hand.again(key, job, due=taken is None)
            return
        with self._in_hand.having(key, job) as asked:
            await self._try(key, job, taken, place)
        place.leave()
        await self._in_hand.answer(key, asked)

    async def _try(self, key: str, job: Job, taken: Taken | None, place: Place) -> None:
        try:
            if job.delivered > 1:
                await self._again(key, job, taken, place)
            else:
                await self._ways.carry(key, job, taken, place)
        except Conflict as exc:
            log.info("send_taken_elsewhere", account=self._options.account, key=key)
            # What is said of one delivery NATS takes for the message: given back here, it would come to a third process
            # while the one that has it is at it.
            if not isinstance(exc, OvertakenError) and not await self._is_begun(key, job):
                await job.give_back(AGAIN_S)
        except (NoTurn, TurnedAway):
            await job.give_back(AGAIN_S if self.relays.just_lost else 0)
        except Transient:
            raise
        except Exception as exc:
            # What fails the same way each time is one request's: the verdicts of who sends are relays.py's.
            if self._bugs.count(key) < BUG_FAILURES:
                if not isinstance(exc, MailbusError):
                    raise
                log.warning("request_fails", account=self._options.account, key=key, error=exc.what)
                await job.give_back(AGAIN_S)
                return
            metrics.BUGS.inc()
            log.error("bug", where=f"{self._options.account}, request {key}", exc_info=exc)
            said = exc.what if isinstance(exc, MailbusError) else type(exc).__name__
            await self._bury(key, job, taken, f"mailbus fails at it: {said}")

    async def _is_begun(self, key: str, job: Job) -> bool:
        """Whether another delivery of this very message is what the request's record is of."""
        record, _ = await self._sends.get(key)
        if job.subject == self._bus.subjects.due(self._options.account):
            return record is not None and job.headers.get(ATTEMPT_HEADER) == str(record.attempt)
        return record is not None and record.source == source_of(job)

    async def _maker(self, job: Job) -> Callable[[], str]:
        """What makes an id for a request that brought none."""
        if self._created is None:
            self._created = await self._bus.stream_created(self._bus.subjects.stream_out)
        return partial(made_id, self._created, job.seq)

    async def _again(self, key: str, job: Job, taken: Taken | None, place: Place) -> None:
        """Delivered before: it was given back, or its process ended, perhaps by it."""
        found = await self._suspects.look(job)
        over = None
        if found.ended:
            log.warning("request_suspected", account=self._options.account, key=key, ended=found.ended)
            # Before: whoever waits alone, for memory, the account's turn or a connection, keeps everybody out.
            await self._bundles.room_ahead((await self._sends.get(key))[0], taken, job.payload, place)
            await place.turn()
            if (alone := await place.alone(self.relays.book if found.ended < GIVEN_UP_AT else None)) is None:
                place.give_turn_back()
                await job.give_back(NOT_ALONE_S)
                return
            over = alone.over
        async with self._suspects.having(job, found, over):
            if found.ended >= GIVEN_UP_AT:
                await self._give_up(key, job, taken, place, found.ended)
            else:
                await self._ways.carry(key, job, taken, place)

    async def _give_up(self, key: str, job: Job, taken: Taken | None, place: Place, ended: int) -> None:
        record, revision = await self._sends.get(key)
        payload = job.payload
        if record is not None and record.outbox is not None and ended <= GIVEN_UP_AT + (record.phase is Phase.FINAL):
            # Once, and once more for its letter alone: where reading it ends the process, it is given up without.
            with suppress(Permanent):
                payload = (await self._bundles.kept(record, place)).request
        why = f"{ended + 1} processes ended while they had it in hand"
        await self._settler.give_up(key, job, record or self._new(taken, job), revision, why, payload)

    async def _bury(self, key: str, job: Job, taken: Taken | None, why: str) -> None:
        record, revision = await self._sends.get(key)
        await self._settler.bury(key, job, record or self._new(taken, job), revision, why)

    def _new(self, taken: Taken | None, job: Job) -> SendRecord:
        """A request of which nothing is stored, with its recipients where they can be read."""
        everybody = nameable(taken.request if taken is not None else None, self._bus.max_payload)
        record = new_record(taken.id if taken is not None else "", job, job.stored_at)
        return changed(record, phase=Phase.WAITING, pending=dict.fromkeys(everybody, ""))
