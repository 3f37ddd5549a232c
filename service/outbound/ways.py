"""A job → the way it takes by what is known of its request, and at most one attempt at the relay.

Used by deliver.py; attempt.py makes the attempt, settle.py stores and says what comes of it. A job is new, a repeat,
due, or its answer was lost.
"""

from datetime import timedelta
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
from service.errors import Permanent
from service.observe import log, metrics
from service.outbound.attempt import Attempts
from service.outbound.broken import BrokenOff
from service.outbound.bundles import Bundles
from service.outbound.evidence import Evidence
from service.outbound.inhand import AGAIN_S
from service.outbound.lanes import NO_TURN, Lanes, Turn
from service.outbound.mail import message_id
from service.outbound.names import Names
from service.outbound.options import OutboundOptions
from service.outbound.originals import Originals
from service.outbound.pace import Pace
from service.outbound.places import Place
from service.outbound.relays import Relays
from service.outbound.replies import too_wide
from service.outbound.request import Taken
from service.outbound.retry import Decision, Phase, expire
from service.outbound.sends import NOT_YET, SendRecord, Sends, new_owner, new_record, source_of
from service.outbound.sent import SentMailbox
from service.outbound.settle import ATTEMPT_HEADER, Settler, changed
from service.outbound.suppressions import Suppressions
from service.outbound.task import Steps, Task
from service.outbound.turns import Turns

# While it is away, a request that waits is looked at again after its first pause, or this, without an attempt.
AWAY_LIMIT_S: Final = 60.0
# NATS's clock says when a request is due, and ours may be behind: so much early is in time.
CLOCK_SKEW: Final = timedelta(seconds=10)
# A `sendAt` that is as near is now.
SOON: Final = timedelta(seconds=1)


class Ways:
    """Those of one account's jobs. `sent`: where copies go, and are looked for."""

    def __init__(
        self,
        bus: Bus,
        sends: Sends,
        settler: Settler,
        bundles: Bundles,
        relays: Relays,
        lanes: Lanes,
        pace: Pace,
        options: OutboundOptions,
        clock: Clock,
        *,
        sent: SentMailbox | None,
    ) -> None:
        self._bus = bus
        self._sends = sends
        self._settler = settler
        self._bundles = bundles
        self._relays = relays
        self._lanes = lanes
        self._pace = pace
        self._options = options
        self._clock = clock
        evidence = Evidence(options.account, sends, sent)
        steps = Steps(sends, settler, options, clock)
        self._turns = Turns(lanes, relays, pace, clock)
        self._attempts = Attempts(
            sends,
            settler,
            relays,
            Suppressions(bus, options.account, clock),
            Names(bus.key_value(bus.subjects.sends)),
            options,
            clock,
            steps=steps,
            evidence=evidence,
            lanes=lanes,
            pace=pace,
            sent=sent,
        )
        self._broken = BrokenOff(settler, bundles, self._attempts, evidence, steps, options, clock)
        self._originals = Originals(bus, options.account, options.address)

    async def carry(self, key: str, job: Job, taken: Taken | None, place: Place) -> None:
        """Carry it as far as it goes now, and acknowledge it or give it back. Raises Conflict, Transient.

        `taken`: the request as it came; None where its time has come.
        """
        plain = taken is not None and (taken.request is None or taken.request.original_id is None)
        if taken is not None and plain and job.delivered == 1 and not self._pace.interval_s:
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
                self._lanes.give_back(turn, spent=place.spent)

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
            if await self._broken.found(key, job, record, revision, place):
                return
            if await self._expired(key, job, record, revision):
                return
            if record.next_at is not None and record.next_at > self._clock.now() + CLOCK_SKEW:
                await self._too_early(key, job, record)
                return
            if self._relays.away is not None:
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
                self._lanes.give_back(turn, spent=place.spent)
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
