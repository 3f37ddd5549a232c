"""One job → the way it takes by what is known of its request, and at most one attempt at the relay.

Used by sender.py; settle.py stores and says what comes of it. A job is new, a repeat, due, or its answer was lost.
"""

import asyncio
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from service.bus import Bus, Conflict, Job
from service.clock import Clock
from service.contract import (
    DeadReason,
    Problem,
    RequestProblems,
    SendRequest,
    beyond,
    blob_ids,
    decode_request,
    times,
)
from service.errors import AuthRefused, MailbusError, Permanent, Transient, Uncertain
from service.observe import log, metrics, step
from service.outbound.breaker import Breaker
from service.outbound.hands import Place
from service.outbound.mail import Mail, make_mail, message_id
from service.outbound.options import OutboundOptions
from service.outbound.outbox import Bundle, Outbox
from service.outbound.request import Taken, made_id, take
from service.outbound.retry import Decision, Phase, Said, Verdict, decide, expire
from service.outbound.sends import SendRecord, Sends, new_record, source_of
from service.outbound.settle import ATTEMPT_HEADER, KEY_HEADER, Settler, changed
from service.outbound.suppressions import Suppressions
from service.outbound.waiting import Waiting
from service.smtp import BeforeDot, DotUnanswered, Relay, RelayUnreachable, Reply

# Another process has this request in hand: how long until it is looked at again.
AGAIN_S: Final = 5.0
# How long a relay may be away before its requests are put off.
PATIENCE_S: Final = 15.0
# While it is away, a request that waits is looked at again after its first pause, or this, without an attempt.
AWAY_LIMIT_S: Final = 60.0
# A request that mailbus fails at by a bug goes to the dead letters then, and stops nobody else's mail.
BUG_DELIVERIES: Final = 3
# Building runs at about 200 MB/s: more than this would hold the loop for over a millisecond.
THREAD_FROM_BYTES: Final = 256 * 1024


class _BusAwayError(Uncertain):
    """The intent could not be written: not the relay's fault."""


class Deliverer:
    """Carries jobs of one account through. `handle` may run several times at once."""

    def __init__(self, bus: Bus, relay: Relay, options: OutboundOptions, clock: Clock) -> None:
        self._bus = bus
        self._relay = relay
        self._options = options
        self._clock = clock
        self._sends = Sends(bus.key_value(bus.subjects.sends), bus.key_value(bus.subjects.cursors), clock)
        self._outbox = Outbox(bus.blobs(bus.subjects.outbox))
        self._settler = Settler(bus, self._sends, self._outbox, options, clock)
        self.waiting = Waiting(bus, options.account, self._sends, self._settler, clock)
        self._breaker = Breaker(options.account)
        self._suppressions = Suppressions(bus, options.account, clock)
        self._created: datetime | None = None
        self._in_hand: set[str] = set()
        # Why the relay is not asked at the moment, and since when.
        self._away: MailbusError | None = None
        self._away_since = 0.0
        self._relay_gone = asyncio.Event()

    def relay_lost(self, why: MailbusError) -> None:
        """No attempt is made until `relay_found`."""
        if self._away is None:
            self._away_since = self._clock.monotonic()
        # Kept for long: a traceback would keep the mail that was in hand.
        why.__traceback__ = why.__cause__ = why.__context__ = None
        self._away = why
        self._relay_gone.set()

    def relay_found(self) -> None:
        """The relay is there."""
        self._away = None
        self._relay_gone.clear()

    async def wait_relay_lost(self) -> MailbusError:
        """Until a delivery finds the relay lost; gives why."""
        await self._relay_gone.wait()
        return self._away or Transient("the relay was lost", where=self._options.account)

    async def handle(self, job: Job, place: Place) -> None:
        """Carry a job as far as it goes now, and acknowledge it or give it back; leave `place` after the relay.

        Raises Transient where NATS is away.
        """
        if self._away is not None and self._clock.monotonic() - self._away_since < PATIENCE_S:
            # Most relays are back in a moment: nobody need hear of it, and the queue keeps the request.
            await job.give_back(AGAIN_S)
            return
        # By subject and not by header: a requester may send any header, but cannot publish here.
        if job.subject == self._bus.subjects.due(self._options.account):
            key, taken = job.headers.get(KEY_HEADER, ""), None
        else:
            taken = take(self._options.account, job.payload, job.headers, made_id=await self._made_id(job))
            key = taken.key
        if key in self._in_hand:
            # Delivered again while the first delivery waits for the relay.
            await job.give_back(AGAIN_S)
            return
        self._in_hand.add(key)
        try:
            await self._carry(key, job, taken, place)
        except Conflict:
            log.info("send_taken_elsewhere", account=self._options.account, key=key)
            await job.give_back(AGAIN_S)
        except MailbusError:
            raise
        except Exception as exc:
            if job.delivered < BUG_DELIVERIES:
                raise
            metrics.BUGS.inc()
            log.error("bug", where=f"{self._options.account}, request {key}", exc_info=exc)
            await self._bury(key, job, f"mailbus fails at it: {type(exc).__name__}")
        finally:
            self._in_hand.discard(key)

    async def _made_id(self, job: Job) -> str:
        if self._created is None:
            self._created = await self._bus.stream_created(self._bus.subjects.stream_out)
        return made_id(self._created, job.seq)

    # -- which way --------------------------------------------------------------------------------------------

    async def _carry(self, key: str, job: Job, taken: Taken | None, place: Place) -> None:
        if taken is not None and job.delivered == 1:
            # Nearly always new: its first write finds out if not, before the dot, and saves a look-up.
            try:
                await self._first(key, job, taken, place)
            except Conflict:
                log.info("send_id_known", account=self._options.account, key=key)
            else:
                return
        record, revision = await self._sends.get(key)
        if taken is not None and record is None:
            await self._first(key, job, taken, place)
        elif record is None:
            log.error("send_state_missing", account=self._options.account, key=key)
            metrics.DEAD.labels(reason=DeadReason.REQUEST).inc()
            await self._settler.dead_letter(key, b"", "its state is gone")
            await job.ack()
        elif taken is not None:
            await self._known(key, job, record, revision)
        else:
            await self._due(key, job, record, revision, place)

    async def _first(self, key: str, job: Job, taken: Taken, place: Place) -> None:
        options = self._options
        request, problems = taken.request, taken.problems
        if request is not None:
            problems = beyond(request, job.stored_at, options.limits)
        if request is None or problems:
            await self._settler.refuse(key, job, new_record(taken.id, job, job.stored_at), 0, problems, job.payload)
            return
        first_at, expires_at = times(request, job.stored_at, options.limits)
        record = new_record(taken.id, job, expires_at)
        bundle = await self._gather(key, request, job.payload)
        raw = bundle.blobs.get(request.raw_blob_id or "")
        named = message_id(request, key, address=options.address, secret=await self._sends.secret(), raw=raw)
        record = changed(record, message_id=named, pending=dict.fromkeys(request.recipients(), ""))
        if self._clock.now() >= expires_at:
            await self._settler.settle(key, job, record, 0, expire(record.pending, []), None, attempt=0)
            return
        if first_at > self._clock.now() + timedelta(seconds=1):
            later = Decision(Phase.WAITING, {}, record.pending, [], first_at)
            await self._settler.settle(key, job, record, 0, later, bundle, attempt=0)
            return
        await self._attempt(key, job, record, 0, bundle, request, place)

    async def _known(self, key: str, job: Job, record: SendRecord, revision: int) -> None:
        """A request whose id is known: the same job again, or the same id a second time."""
        same = record.source == source_of(job)
        if record.phase is Phase.INTENT and same and record.attempt == 1:
            await self._lost(key, job, record, revision)
        elif record.phase is Phase.INTENT:
            # Its attempt is under way elsewhere, or that job will come back and say what became of it.
            await job.give_back(AGAIN_S)
        else:
            await self._settler.resume(key, job, record, its_own=same and record.attempt <= 1)

    async def _due(self, key: str, job: Job, record: SendRecord, revision: int, place: Place) -> None:
        attempt = int(job.headers.get(ATTEMPT_HEADER, "0"))
        if record.phase in (Phase.WAITING, Phase.HELD) and attempt == record.attempt + 1:
            self._settler.count(key, None)
            if record.phase is Phase.HELD or self._clock.now() >= record.expires_at:
                decision = expire(record.pending, record.held)
                await self._settler.settle(key, job, record, revision, decision, None, attempt=attempt)
                return
            if self._away is not None:
                pause_s = min(self._options.retry_first_s, AWAY_LIMIT_S) * (1 + self._clock.chance())
                await self._settler.again(key, job, record, revision, self._clock.now() + timedelta(seconds=pause_s))
                return
            try:
                bundle = await self._outbox.get(record.outbox or "")
                request = decode_request(bundle.request)
            except Permanent as exc:
                problems = [Problem("", f"what was kept of it cannot be read: {exc.what}")]
                await self._settler.refuse(key, job, changed(record, attempt=attempt), revision, problems, b"")
                return
            await self._attempt(key, job, record, revision, bundle, request, place)
        elif record.phase is Phase.INTENT and attempt == record.attempt:
            await self._lost(key, job, record, revision)
        else:
            final = record.phase is Phase.FINAL
            await self._settler.resume(key, job, record, its_own=final or attempt == record.attempt)

    # -- an attempt -------------------------------------------------------------------------------------------

    async def _gather(self, key: str, request: SendRequest, payload: bytes) -> Bundle:
        """A request with its blobs; those that are not there are left out."""
        blobs: dict[str, bytes] = {}
        for blob in blob_ids(request):
            try:
                blobs[blob] = await self._bus.blobs().get(blob)
            except Permanent:
                log.warning("blob_missing", account=self._options.account, blob=blob)
        return Bundle(key, payload, blobs)

    async def _attempt(
        self,
        key: str,
        job: Job,
        record: SendRecord,
        revision: int,
        bundle: Bundle,
        request: SendRequest,
        place: Place,
    ) -> None:
        attempt = record.attempt + 1
        began = self._clock.monotonic()
        barred = await self._suppressions.among(record.pending)
        going = [recipient for recipient in record.pending if recipient not in barred]
        try:
            mail = await self._make(key, record, bundle, request, going)
        except RequestProblems as exc:
            wrong = changed(record, attempt=attempt)
            await self._settler.refuse(key, job, wrong, revision, exc.problems, bundle.request)
            return
        intent = changed(
            record, owner=secrets.token_hex(16), phase=Phase.INTENT, attempt=attempt, statuses=[], next_at=None
        )

        async def write_intent(refused: Mapping[str, Reply]) -> None:
            nonlocal intent, revision
            intent = changed(intent, refused=barred | _each(mail, refused))
            step("intent.before")
            try:
                revision = await self._sends.put(key, intent, revision)
            except Transient as exc:
                raise _BusAwayError(exc.what, where=exc.where) from exc
            step("intent.done")

        if not going:
            said = {}
        elif self._away is not None:
            said = _not_sent(record, "4.4.1", self._away)
        else:
            said = await self._ask_relay(record, mail, write_intent)
            metrics.SEND_SECONDS.observe(self._clock.monotonic() - began)
        step("replies")
        place.leave()
        if (why := self._breaker.heard(said)) is not None:
            self.relay_lost(why)
        decision = self._decide(record, said | barred, attempt)
        await self._settler.settle(key, job, intent, revision, decision, bundle, attempt=attempt)

    async def _ask_relay(self, record: SendRecord, mail: Mail, write_intent: BeforeDot) -> dict[str, Said]:
        """What the relay said of each recipient, or why nothing was sent. Raises Transient where NATS is away."""
        try:
            replies = await self._relay.deliver(
                mail.mail_from, list(mail.wire), mail.data, before_final_dot=write_intent, extras=mail.extras
            )
            return _each(mail, replies)
        except (RelayUnreachable, AuthRefused, Permanent) as exc:
            said = _not_sent(record, "4.4.1", exc)
            self.relay_lost(exc)
            return said
        except DotUnanswered as exc:
            return _all(record, Verdict.UNKNOWN, "") | _each(mail, exc.refused)
        except _BusAwayError as exc:
            raise Transient(exc.what, where=exc.where) from exc
        except Transient as exc:
            return _not_sent(record, "4.4.2", exc)

    async def _make(self, key: str, record: SendRecord, bundle: Bundle, request: SendRequest, going: list[str]) -> Mail:
        def make() -> Mail:
            return make_mail(
                request,
                going,
                bundle.blobs,
                key=key,
                message_id=record.message_id,
                date=record.date,
                address=self._options.address,
                redirect=self._options.redirect,
                dkim=self._options.dkim,
            )

        # A signature with RSA takes a millisecond.
        if not self._options.dkim and len(bundle.request) + sum(map(len, bundle.blobs.values())) < THREAD_FROM_BYTES:
            return make()
        return await asyncio.to_thread(make)

    async def _lost(self, key: str, job: Job, record: SendRecord, revision: int) -> None:
        """An intent without an outcome: the dot may have been sent, its reply is lost."""
        log.warning("send_uncertain", account=self._options.account, key=key, attempt=record.attempt)
        bundle = None
        if record.outbox is None:
            bundle = await self._gather(key, decode_request(job.payload), job.payload)
        said = _all(record, Verdict.UNKNOWN, "") | record.refused
        decision = self._decide(record, said, record.attempt)
        await self._settler.settle(key, job, record, revision, decision, bundle, attempt=record.attempt)

    def _decide(self, record: SendRecord, said: dict[str, Said], attempt: int) -> Decision:
        return decide(
            said,
            held=record.held,
            attempt=attempt,
            now=self._clock.now(),
            expires_at=record.expires_at,
            options=self._options,
            chance=self._clock.chance(),
        )

    async def _bury(self, key: str, job: Job, why: str) -> None:
        taken = take(self._options.account, job.payload, job.headers, made_id=await self._made_id(job))
        record, revision = await self._sends.get(key)
        record = record or new_record(taken.id, job, job.stored_at)
        await self._settler.refuse(key, job, record, revision, [Problem("", why)], job.payload)


def _not_sent(record: SendRecord, status: str, why: MailbusError) -> dict[str, Said]:
    """Put off by us: RFC 3463 3.5 says where it failed."""
    return _all(record, Verdict.PUT_OFF, f"451 {status} not sent by mailbus: {why.what}")


def _all(record: SendRecord, verdict: Verdict, reply: str) -> dict[str, Said]:
    return {recipient: Said(verdict, reply) for recipient in record.pending}


def _each(mail: Mail, replies: Mapping[str, Reply]) -> dict[str, Said]:
    """The relay's replies by address → what they say of each recipient."""
    said: dict[str, Said] = {}
    taken = any(reply.accepted for reply in replies.values())
    for address, reply in replies.items():
        if reply.accepted:
            verdict = Verdict.ACCEPTED
        elif taken and reply.overfull:
            verdict = Verdict.OVERFULL
        else:
            verdict = Verdict.REFUSED if reply.refused else Verdict.PUT_OFF
        said.update(dict.fromkeys(mail.wire[address], Said(verdict, str(reply))))
    return said
