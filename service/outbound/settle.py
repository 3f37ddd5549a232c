"""An outcome → stored, then said, then what follows from it, then the job acknowledged. In this order, always.

Used by deliver.py. A crash between any two steps is found by the job's next delivery, which goes on from what is
stored: a status that was stored is published with the same id again.
"""

from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import msgspec

from service.bus import Bus, Conflict, Job
from service.clock import Clock
from service.contract import DeadReason, Problem, RequestProblems, State, decode_request
from service.errors import Permanent
from service.observe import log, metrics, step
from service.outbound.insist import insist
from service.outbound.mail import own_message_id
from service.outbound.options import TOGETHER, OutboundOptions
from service.outbound.outbox import Bundle, Outbox
from service.outbound.retry import Decision, Phase, break_off
from service.outbound.sends import KEY_HEADER, SendRecord, Sends, new_owner, source_of
from service.outbound.status import cancellation, publish, quoted, refusal, statuses_of

ID_HEADER: Final = "Mail-Request-Id"
ATTEMPT_HEADER: Final = "Mail-Attempt"
# An account's name may be what somebody wrote into a subject; percent-encoded, a character has twelve bytes.
NAME_LIMIT_CHARS: Final = 64
WHY_LIMIT_CHARS: Final = 200
DEAD_ROOM_BYTES: Final = 8 * 1024
# 150 bytes each.
COUNTED_LIMIT: Final = 100_000
# Objects in the outbox that no record names yet: one for each job in hand, and those that another settled.
LOOSE_LIMIT: Final = 1_000
_TAKEN: Final = (State.SENT, State.UNCERTAIN)


class Settled(msgspec.Struct, frozen=True):
    """What is stored of a request now."""

    record: SendRecord
    revision: int


class Settler:
    """Outcomes of one account's requests."""

    def __init__(self, bus: Bus, sends: Sends, outbox: Outbox, options: OutboundOptions, clock: Clock) -> None:
        self._bus = bus
        self._sends = sends
        self._outbox = outbox
        self._options = options
        self._clock = clock
        self._later = bus.queue(bus.subjects.stream_later)
        self._counted: dict[str, str] = {}
        self._loose: dict[str, str] = {}

    async def settle(
        self,
        key: str,
        job: Job,
        record: SendRecord,
        revision: int,
        decision: Decision,
        bundle: Bundle | None,
        *,
        attempt: int,
    ) -> None:
        """After an attempt, or without one. `bundle` is what waits, if it is not in the outbox yet. Raises Conflict."""
        settled = await self.told(key, record, revision, decision, bundle, attempt=attempt)
        await self.go_on(key, settled.record)
        await job.done()

    async def told(
        self,
        key: str,
        record: SendRecord,
        revision: int,
        decision: Decision,
        bundle: Bundle | None,
        *,
        attempt: int,
    ) -> Settled:
        """Store an outcome and say it; what follows from it is left to the caller. Raises Conflict."""
        if decision.phase is not Phase.FINAL and bundle is not None:
            record = await insist(partial(self.kept, record, bundle), key, self._clock)
        # A command may have taken out who was not tried yet, and have died before it said so.
        statuses = [one for one in record.statuses if record.phase is Phase.INTENT and one.state is State.CANCELLED]
        statuses += statuses_of(
            decision,
            key=key,
            id=record.id,
            message_ids=await self._message_ids(record, decision),
            attempt=attempt,
            now=self._clock.now(),
            relay=record.relay,
            taken=[*record.taken, *decision.states.get(State.UNCERTAIN, ())],
        )
        taken = [who for state in _TAKEN for who in decision.states.get(state, ())]
        # What is heard between attempts changes nothing of whose turn it is.
        turn = decision.at_once if record.phase is Phase.INTENT else record.trying
        outcome = changed(
            record,
            owner=new_owner(),
            phase=decision.phase,
            attempt=attempt,
            pending=decision.pending,
            held=decision.held,
            refused={},
            trying=[who for who in turn if who in decision.pending],
            overfull=record.overfull + bool(decision.at_once),
            next_at=decision.next_at,
            turn=False,
            statuses=statuses,
            taken=list(dict.fromkeys([*record.taken, *taken])),
            unsure=record.unsure + (State.UNCERTAIN in decision.states),
        )
        revision = await self._store(key, outcome, revision)
        for state, replies in decision.states.items():
            metrics.recipients(state).inc(len(replies))
        await say(self._bus, self._options.account, outcome)
        return Settled(outcome, revision)

    async def kept(self, record: SendRecord, bundle: Bundle) -> SendRecord:
        """With the bundle in the outbox, until the request is final."""
        if record.outbox is not None:
            return record
        name = await self._outbox.put(bundle, stored_at=record.date)
        # Until a record names it, which another process may keep it from.
        self._loose[bundle.key] = name
        while len(self._loose) > LOOSE_LIMIT:
            del self._loose[next(iter(self._loose))]
        return changed(record, outbox=name)

    async def _message_ids(self, record: SendRecord, decision: Decision) -> dict[str, str] | str:
        """That of the message, or those of each recipient's; an event about many at once has none."""
        if not record.split:
            return record.message_id
        about = [who for replies in decision.states.values() for who in replies]
        if len(about) > TOGETHER:
            return ""
        secret = await self._sends.secret()
        return {who: own_message_id(record.message_id, who, secret) for who in about}

    async def say(self, record: SendRecord, *, asked_again: int | None = None) -> None:
        """Publish what is stored of a request. `asked_again`: as publish() has it. Raises Transient."""
        await say(self._bus, self._options.account, record, asked_again=asked_again)

    async def unschedule(self, key: str) -> None:
        """Its time shall not come any more. Raises Transient."""
        step("unschedule.before")
        await self._later.cancel(self._bus.subjects.later(self._options.account, key))
        step("unschedule.done")

    async def again(
        self, key: str, job: Job, record: SendRecord, revision: int, at: datetime, *, turn: bool = False
    ) -> None:
        """Nothing was tried: the schedule is set anew, up to the expiry, and nobody is told. Raises Conflict."""
        phase = Phase.HELD if record.phase is Phase.HELD else Phase.WAITING
        next_at = min(at, record.expires_at)
        later = changed(record, owner=new_owner(), phase=phase, next_at=next_at, turn=turn)
        await self._store(key, later, revision)
        await self.go_on(key, later)
        await job.done()

    async def _store(self, key: str, outcome: SendRecord, revision: int) -> int:
        step("outcome.before")
        revision = await self._sends.put(key, outcome, revision)
        if outcome.outbox is not None:
            self._loose.pop(key, None)
        step("outcome.done")
        return revision

    async def go_on(self, key: str, record: SendRecord, *, ahead: timedelta = timedelta()) -> None:
        """What follows from an outcome: a schedule while it waits, nothing left behind when it is final.

        `ahead`: NATS's clock is so much before ours.
        """
        if record.phase is Phase.FINAL:
            self.count(key, None)
            if record.outbox is not None:
                await self._outbox.free(record.outbox)
        elif record.next_at is not None:
            step("schedule.before")
            await schedule(self._bus, self._options.account, key, record, record.next_at + ahead)
            step("schedule.done")
            self.count(key, "held" if record.phase is Phase.HELD else "retry")
            newer, _ = await self._sends.get(key)
            if newer is None or newer.phase is Phase.INTENT:
                return
            if newer.owner == record.owner:
                if newer.held and await self._sends.reported(key, newer.held):
                    # A report was between (returned.py): who is on hold need not be.
                    await schedule(self._bus, self._options.account, key, record, self._clock.now())
            # A command was between: what it set may stand no more.
            elif newer.phase is Phase.FINAL:
                self.count(key, None)
                await self.unschedule(key)
            else:
                await self.go_on(key, newer)

    def count(self, key: str, where: str | None) -> None:
        """Keep `mailbus_waiting` right: a request is in one place."""
        before = self._counted.pop(key, None)
        if before is not None:
            metrics.WAITING.labels(where=before).dec()
        # What another process cancels or sends is never heard of here: bounded, and then the figure is too low.
        if where is not None and len(self._counted) < COUNTED_LIMIT:
            self._counted[key] = where
            metrics.WAITING.labels(where=where).inc()

    def uncount(self) -> None:
        """Count nothing that waits any more."""
        for key in list(self._counted):
            self.count(key, None)

    async def resume(
        self, key: str, job: Job, record: SendRecord, *, its_own: bool, reason: DeadReason = DeadReason.REQUEST
    ) -> None:
        """An outcome is stored: say it again, do what follows from it again, let the job go."""
        if record.unseen:
            record = await self._seen(key, job, record)
        await self._let_loose(key, record)
        if record.dead and its_own:
            payload = await self.payload(job, record)
            # What is due brings none: where the outbox has it no more, its letter is out.
            if payload or not self._is_due(job):
                await self.dead_letter(key, payload, "wrong request", reason)
        # A job that comes back after its request went on asks nothing anew; nor does one that was cancelled unseen.
        await self.say(record, asked_again=None if self._brought(job, record) else job.seq)
        if its_own:
            await self.go_on(key, record)
        await job.done()

    def _brought(self, job: Job, record: SendRecord) -> bool:
        """Whether it is the request's own job, and not the same id once more."""
        return self._is_due(job) or record.source in ("", source_of(job))

    def is_own(self, job: Job, record: SendRecord) -> bool:
        """Whether it is the job that goes on with the request: not the same id once more, nor one it went on from."""
        if self._is_due(job):
            return int(job.headers.get(ATTEMPT_HEADER, "0")) >= record.attempt
        return record.source == source_of(job) and record.attempt <= 1

    async def _say_first(self, job: Job, record: SendRecord) -> None:
        """What stands may not have been said yet; whose time has come was said before it was scheduled."""
        if not self._is_due(job) or int(job.headers.get(ATTEMPT_HEADER, "0")) == record.attempt:
            await self.say(record)

    def _is_due(self, job: Job) -> bool:
        return job.subject == self._bus.subjects.due(self._options.account)

    async def _seen(self, key: str, job: Job, record: SendRecord) -> SendRecord:
        """A request that was cancelled unseen is here: its recipients are known. Raises Conflict, Transient."""
        everybody: list[str] = []
        with suppress(RequestProblems):
            everybody = decode_request(job.payload).recipients()
        waits = changed(record, phase=Phase.WAITING, pending=dict.fromkeys(everybody, ""))
        _, revision = await self._sends.get(key)
        seen = changed(
            record,
            source=source_of(job),
            owner=new_owner(),
            cancelled=everybody,
            statuses=[cancellation(waits, key=key, now=self._clock.now())],
        )
        await self._store(key, seen, revision)
        metrics.recipients(State.CANCELLED).inc(len(everybody))
        return seen

    async def _let_loose(self, key: str, record: SendRecord) -> None:
        """What was put into the outbox before somebody else settled the request, by whom it is not named."""
        if record.phase is Phase.FINAL and (name := self._loose.pop(key, None)) not in (None, record.outbox):
            await self._outbox.free(str(name))

    async def payload(self, job: Job, record: SendRecord) -> bytes:
        """The request as it was published, if it is still to be had."""
        if record.outbox is None:
            return job.payload
        try:
            return (await self._outbox.get(record.outbox)).request
        except Permanent:
            return job.payload

    async def refuse(
        self,
        key: str,
        job: Job,
        record: SendRecord,
        revision: int,
        problems: list[Problem],
        payload: bytes,
        *,
        reason: DeadReason = DeadReason.REQUEST,
    ) -> None:
        """A wrong request: `failed` with all that is wrong, and whole in the dead letters."""
        recipients = record.waiting
        status = refusal(problems, record, key=key, now=self._clock.now())
        outcome = changed(
            record, owner=new_owner(), phase=Phase.FINAL, pending={}, held=[], statuses=[status], dead=True
        )
        await self._store(key, outcome, revision)
        metrics.DEAD.labels(reason=reason).inc()
        metrics.recipients(State.FAILED).inc(len(recipients))
        log.info("request_refused", account=self._options.account, key=key, fields=[one.field for one in problems])
        await self.dead_letter(key, payload, problems[0].message, reason)
        await self.say(outcome)
        await self.go_on(key, outcome)
        await job.done()

    async def bury(self, key: str, job: Job, record: SendRecord, revision: int, why: str) -> None:
        """A request that mailbus fails at: `failed`, and whole in the dead letters."""
        if record.phase is Phase.FINAL or not self.is_own(job, record):
            # Its outcome stands, whatever failed after it; or another job goes on with it.
            await self.resume(key, job, record, its_own=False)
            return
        await self._say_first(job, record)
        if record.phase is Phase.INTENT:
            # The dot of an attempt that broke off may be out.
            record = changed(record, taken=list(dict.fromkeys([*record.taken, *record.open])))
        payload = await self.payload(job, record)
        with suppress(Conflict):  # it comes back, and finds what a command or a report wrote
            await self.refuse(key, job, record, revision, [Problem("", why)], payload)

    async def give_up(self, key: str, job: Job, record: SendRecord, revision: int, why: str, payload: bytes) -> None:
        """A request that ends processes: `failed`, before that `uncertain` for whom its dot may be out, and whole in
        the dead letters."""
        log.error("request_given_up", account=self._options.account, key=key, phase=record.phase, why=why)
        if record.phase is Phase.FINAL:
            if self._brought(job, record):
                # The process that stored it may have ended before its letter was out.
                if record.dead:
                    await self.dead_letter(key, payload, why, DeadReason.POISON)
                await self.go_on(key, record)
            await self.resume(key, job, record, its_own=False)
        elif not self.is_own(job, record):
            await self.resume(key, job, record, its_own=False)
        else:
            await self.end(key, job, record, revision, Problem("", why), payload, DeadReason.POISON)

    async def end(
        self,
        key: str,
        job: Job,
        record: SendRecord,
        revision: int,
        problem: Problem,
        payload: bytes,
        reason: DeadReason,
    ) -> None:
        """One that nobody goes on with, by its own job. Raises Conflict, Transient."""
        if record.phase is not Phase.INTENT:
            await self._say_first(job, record)
            # A schedule may be set: its time would come for what is over.
            await self.unschedule(key)
            await self.refuse(key, job, record, revision, [problem], payload, reason=reason)
            return
        # The dot of an attempt that broke off may be out, and nobody will find out any more.
        others = record.others | dict.fromkeys(record.held, "")
        decision = break_off(record.open, record.refused, others, problem)
        dead = changed(record, dead=True)
        ended = (await self.told(key, dead, revision, decision, None, attempt=record.attempt)).record
        metrics.DEAD.labels(reason=reason).inc()
        await self.dead_letter(key, payload, problem.message, reason)
        await self.go_on(key, ended)
        await job.ack()

    async def dead_letter(self, key: str, payload: bytes, why: str, reason: DeadReason = DeadReason.REQUEST) -> None:
        """Publish what could not be understood, whole, once."""
        account, reason_said = self._options.account[:NAME_LIMIT_CHARS], why[:WHY_LIMIT_CHARS]
        headers = {KEY_HEADER: key, "Mail-Account": quoted(account), "Mail-Reason": quoted(reason_said)}
        headers["Nats-Msg-Id"] = f"dead-{key}"
        if len(payload) > self._bus.max_payload - DEAD_ROOM_BYTES:
            headers["Mail-Blob-Id"] = await self._bus.blobs().put(payload, now=self._clock.now())
            payload = b""
        step("dead.before")
        await self._bus.publish(self._bus.subjects.dead(reason), payload, headers)
        step("dead.done")


async def say(bus: Bus, account: str, record: SendRecord, *, asked_again: int | None = None) -> None:
    """Publish what is stored of a request. `asked_again`: as publish() has it. Raises Transient."""
    for status in record.statuses:
        await publish(bus, account, record.id, status, asked_again=asked_again)


async def schedule(bus: Bus, account: str, key: str, record: SendRecord, at: datetime) -> None:
    """Have a request looked at again, then and not at another time. Raises Transient."""
    headers = {KEY_HEADER: key, ID_HEADER: quoted(record.id), ATTEMPT_HEADER: str(record.attempt + 1)}
    later, due = bus.subjects.later(account, key), bus.subjects.due(account)
    await bus.queue(bus.subjects.stream_later).schedule(later, due, at, b"", headers)


def changed(record: SendRecord, **changes: object) -> SendRecord:
    """A record with some of its fields anew."""
    return msgspec.structs.replace(record, **changes)
