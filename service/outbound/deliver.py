"""One job → the way it takes by what is known of its request, and at most one attempt at the relay.

Used by sender.py; attempt.py makes the attempt, settle.py stores and says what comes of it. A job is new, a repeat,
due, or its answer was lost.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from service.bus import Bus, Conflict, Job
from service.clock import Clock
from service.contract import (
    DeadReason,
    Problem,
    RequestProblems,
    beyond,
    blob_ids,
    decode_request,
    encode,
    expiry_of,
    wrong_sizes,
)
from service.errors import MailbusError, Permanent, Transient
from service.observe import log, metrics
from service.outbound.attempt import Attempts
from service.outbound.broken import BrokenOff
from service.outbound.bundles import Bundles
from service.outbound.evidence import Evidence
from service.outbound.inhand import AGAIN_S, InHand
from service.outbound.lanes import NO_TURN, Lanes, Turn
from service.outbound.mail import message_id
from service.outbound.names import Names
from service.outbound.options import OutboundOptions
from service.outbound.originals import Originals
from service.outbound.outbox import Outbox
from service.outbound.pace import Pace
from service.outbound.places import NOT_ALONE_S, Deliveries, NoTurn, Place
from service.outbound.relays import Relays
from service.outbound.replies import nameable, too_wide
from service.outbound.request import Taken, made_id, take
from service.outbound.retry import Decision, Phase, expire
from service.outbound.sends import KEY_HEADER, NOT_YET, SendRecord, Sends, new_owner, new_record, source_of
from service.outbound.sent import SentMailbox
from service.outbound.settle import ATTEMPT_HEADER, Settler, changed
from service.outbound.suppressions import Suppressions
from service.outbound.suspects import GIVEN_UP_AT, OvertakenError, Suspects
from service.outbound.task import Steps, Task
from service.outbound.turns import Turns
from service.outbound.waiting import Waiting
from service.smtp import Relay, TurnedAway

# While it is away, a request that waits is looked at again after its first pause, or this, without an attempt.
AWAY_LIMIT_S: Final = 60.0
# NATS's clock says when a request is due, and ours may be behind: so much early is in time.
CLOCK_SKEW: Final = timedelta(seconds=10)
# A `sendAt` that is as near is now.
SOON: Final = timedelta(seconds=1)
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
        self._clock = clock
        self._sends = Sends(bus.key_value(bus.subjects.sends), bus.key_value(bus.subjects.cursors), clock)
        outbox = Outbox(bus.blobs(bus.subjects.outbox))
        self._settler = Settler(bus, self._sends, outbox, options, clock)
        self.waiting = Waiting(bus, options.account, self._sends, self._settler, clock)
        self.pace = Pace(options.interval_s, clock)
        self.relays = Relays(relays, options.account, self.pace, clock)
        suppressions = Suppressions(bus, options.account, clock)
        evidence = Evidence(options.account, self._sends, sent)
        self.lanes = Lanes(options.account, options.domains, clock)
        self._turns = Turns(self.lanes, self.relays, self.pace, clock)
        self._steps = Steps(self._sends, self._settler, options, clock)
        self._bundles = Bundles(bus, outbox, options.account)
        self._attempts = Attempts(
            self._sends,
            self._settler,
            self.relays,
            suppressions,
            Names(bus.key_value(bus.subjects.sends)),
            options,
            clock,
            steps=self._steps,
            evidence=evidence,
            lanes=self.lanes,
            pace=self.pace,
            sent=sent,
        )
        self._broken = BrokenOff(self._settler, self._bundles, self._attempts, evidence, self._steps, options, clock)
        self._originals = Originals(bus, options.account, options.address)
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
                await self._carry(key, job, taken, place)
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
                await self._carry(key, job, taken, place)

    async def _give_up(self, key: str, job: Job, taken: Taken | None, place: Place, ended: int) -> None:
        record, revision = await self._sends.get(key)
        payload = job.payload
        if record is not None and record.outbox is not None and ended <= GIVEN_UP_AT + (record.phase is Phase.FINAL):
            # Once, and once more for its letter alone: where reading it ends the process, it is given up without.
            with suppress(Permanent):
                payload = (await self._bundles.kept(record, place)).request
        why = f"{ended + 1} processes ended while they had it in hand"
        await self._settler.give_up(key, job, record or self._new(taken, job), revision, why, payload)

    # -- which way --------------------------------------------------------------------------------------------

    async def _carry(self, key: str, job: Job, taken: Taken | None, place: Place) -> None:
        plain = taken is not None and (taken.request is None or taken.request.original_id is None)
        if taken is not None and plain and job.delivered == 1 and not self.pace.interval_s:
            # Nearly always new: its first write finds out if not, before the dot, and saves a look-up. Where there is a
            # rate, the same id once more would spend a turn.
            try:
                await self._first(key, job, taken, place)
            except Conflict:
                log.info("send_id_known", account=self._options.account, key=key)
                record, _ = await self._sends.get(key)
                if record is not None and record.phase is Phase.INTENT:
                    # Whoever wrote that is at it, as far as this job tells: it came here before it went to him.
                    raise
            else:
                return
        record, revision = await self._sends.get(key)
        if taken is not None and record is None:
            await self._first(key, job, taken, place)
        elif record is None:
            log.error("send_state_missing", account=self._options.account, key=key)
            metrics.DEAD.labels(reason=DeadReason.REQUEST).inc()
            await self._settler.dead_letter(key, b"", "its state is gone")
            await job.done()
        elif taken is not None:
            await self._known(key, job, record, revision, place)
        else:
            await self._due(key, job, record, revision, place)

    async def _first(self, key: str, job: Job, taken: Taken, place: Place) -> None:
        options = self._options
        request, problems = taken.request, taken.problems
        payload = job.payload
        if request is not None:
            problems = beyond(request, job.stored_at, options.limits) + too_wide(request, self._bus.max_payload)
        if request is not None and request.original_id is not None:
            try:
                request = await self._originals.resolved(request)
                payload = encode(request)
            except RequestProblems as exc:
                problems = exc.problems
        if request is None or problems:
            await self._settler.refuse(key, job, new_record(taken.id, job, job.stored_at), 0, problems, job.payload)
            return
        sizes = await self._bus.blobs().sizes(blob_ids(request))
        if problems := wrong_sizes(request, sizes):
            await self._settler.refuse(key, job, new_record(taken.id, job, job.stored_at), 0, problems, job.payload)
            return
        expires_at = expiry_of(request, job.stored_at, options.limits)
        waiting = dict.fromkeys(request.recipients(), NOT_YET if request.split else "")
        # It enters the mail's way at its `sendAt`; the same at each attempt.
        date = max(job.stored_at, request.send_at or job.stored_at)
        record = changed(new_record(taken.id, job, expires_at), date=date, pending=waiting, split=request.split)
        now = self._clock.now()
        later = request.send_at if request.send_at is not None and request.send_at > now + SOON else None
        room = partial(self._bundles.room, request, payload, sizes, place)
        turn = NO_TURN if later is not None or now >= expires_at else await self._turns.take(record, place, room)
        try:
            bundle = await self._bundles.gather(key, request, payload, sizes, place)
            raw = bundle.blobs.get(request.raw_blob_id or "")
            named = message_id(request, key, address=options.address, secret=await self._sends.secret(), raw=raw)
            record = changed(record, message_id=named)
            if self._clock.now() >= expires_at:
                place.give_turn_back()
                await self._settler.settle(key, job, record, 0, expire(record.pending, []), None, attempt=0)
                return
            if taken.request is not request or isinstance(turn, float):
                # What it takes from another message the log may forget before anybody asks for it again.
                record = await self._settler.kept(record, bundle)
            if later is not None:
                waits = Decision(Phase.WAITING, {}, record.pending, [], later)
                await self._settler.settle(key, job, record, 0, waits, bundle, attempt=0)
            elif isinstance(turn, float):
                await self._put_off(key, job, record, 0, turn)
            else:
                await self._attempts.make(Task(key, job, record, 0, bundle, request), place)
        finally:
            if isinstance(turn, Turn):
                self.lanes.give_back(turn, spent=place.spent)

    async def _known(self, key: str, job: Job, record: SendRecord, revision: int, place: Place) -> None:
        """A request whose id is known: the same job again, or the same id a second time."""
        same = record.source == source_of(job)
        if record.phase is Phase.INTENT and same and record.attempt == 1:
            await self._broken.lost(key, job, record, revision, place)
        elif record.phase is Phase.INTENT:
            # Its attempt is under way elsewhere, or that job will come back and say what became of it.
            await job.give_back(AGAIN_S)
        else:
            await self._resume(key, job, record, revision, place, its_own=same and record.attempt <= 1)

    async def _due(self, key: str, job: Job, record: SendRecord, revision: int, place: Place) -> None:
        attempt = int(job.headers.get(ATTEMPT_HEADER, "0"))
        if record.phase in (Phase.WAITING, Phase.HELD) and attempt == record.attempt + 1:
            self._settler.count(key, None)
            if await self._broken.found(key, job, record, revision):
                return
            if await self._expired(key, job, record, revision):
                return
            if record.next_at is not None and record.next_at > self._clock.now() + CLOCK_SKEW:
                await self._too_early(key, job, record)
                return
            if self.relays.away is not None:
                pause_s = min(self._options.retry_first_s, AWAY_LIMIT_S) * (1 + self._clock.chance())
                await self._settler.again(key, job, record, revision, self._clock.now() + timedelta(seconds=pause_s))
                return
            turn = await self._turns.take(record, place, partial(self._bundles.room_of_kept, record, place))
            if isinstance(turn, float):
                await self._put_off(key, job, record, revision, turn)
                return
            try:
                await self._try_again(key, job, record, revision, place)
            finally:
                self.lanes.give_back(turn, spent=place.spent)
        elif record.phase is Phase.INTENT and attempt == record.attempt:
            await self._broken.lost(key, job, record, revision, place)
        else:
            final = record.phase is Phase.FINAL
            await self._resume(key, job, record, revision, place, its_own=final or attempt == record.attempt)

    async def _try_again(self, key: str, job: Job, record: SendRecord, revision: int, place: Place) -> None:
        try:
            bundle = await self._bundles.read(record)
            request = decode_request(bundle.request)
        except Permanent as exc:
            problems = [Problem("", f"what was kept of it cannot be read: {exc.what}")]
            await self._settler.refuse(key, job, record, revision, problems, b"")
            return
        # Who waited for a turn or for memory may have waited for long.
        if self._clock.now() >= record.expires_at:
            place.give_turn_back()
        if not await self._expired(key, job, record, revision):
            await self._attempts.make(Task(key, job, record, revision, bundle, request), place)

    async def _expired(self, key: str, job: Job, record: SendRecord, revision: int) -> bool:
        """Settle a request whose time is over; False where it is not."""
        # Where nothing was to come before, NATS said when: it would come again and again up to our own clock.
        at_its_end = record.phase is Phase.HELD or (record.next_at or record.expires_at) >= record.expires_at
        early = CLOCK_SKEW if at_its_end else timedelta()
        if self._clock.now() < record.expires_at - early:
            return False
        decision = expire(record.pending, record.held)
        # Nothing was tried: the attempt is the last one that was.
        await self._settler.settle(key, job, record, revision, decision, None, attempt=record.attempt)
        return True

    async def _too_early(self, key: str, job: Job, record: SendRecord) -> None:
        """Something was heard of it (returned.py), or NATS's clock is before ours: then NATS is told a later time.

        At its own time it would come back at once, again and again.
        """
        ahead = max(timedelta(), job.stored_at - self._clock.now())
        if ahead > CLOCK_SKEW:
            log.warning(
                "clocks_differ",
                account=self._options.account,
                ahead_s=round(ahead.total_seconds()),
                remedy="set the clocks of NATS and of mailbus by NTP",
            )
        await self._settler.go_on(key, record, ahead=ahead)
        await job.ack()

    async def _resume(
        self, key: str, job: Job, record: SendRecord, revision: int, place: Place, *, its_own: bool
    ) -> None:
        """An outcome stands: what follows from it, again."""
        if its_own and record.split and record.phase is not Phase.FINAL:
            # Whoever has it in hand between two parts may only be slow, and his job is acknowledged here: by this write
            # he loses the request. Or he would go on, and end in a part of which nobody has a job to find out about it.
            record = changed(record, owner=new_owner())
            revision = await self._sends.put(key, record, revision)
        if its_own and record.copy:
            await self._broken.copy_again(key, job, record, revision, place)
        await self._settler.resume(key, job, record, its_own=its_own)

    async def _put_off(self, key: str, job: Job, record: SendRecord, revision: int, turn: float) -> None:
        """Until its domains have a turn it is in no other mail's way."""
        at = self._clock.now() + timedelta(seconds=turn)
        await self._settler.again(key, job, record, revision, at, turn=True)

    async def _bury(self, key: str, job: Job, taken: Taken | None, why: str) -> None:
        record, revision = await self._sends.get(key)
        await self._settler.bury(key, job, record or self._new(taken, job), revision, why)

    def _new(self, taken: Taken | None, job: Job) -> SendRecord:
        """A request of which nothing is stored, with its recipients where they can be read."""
        everybody = nameable(taken.request if taken is not None else None, self._bus.max_payload)
        record = new_record(taken.id if taken is not None else "", job, job.stored_at)
        return changed(record, phase=Phase.WAITING, pending=dict.fromkeys(everybody, ""))
