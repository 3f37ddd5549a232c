"""One attempt of a request: its mail to the relay once for all recipients, or a mail for each; then what it came to.

Used by deliver.py, which knows which way a job takes. The intent stands before the first dot, the outcome before its
status.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from service.bus import Conflict, Job
from service.clock import Clock
from service.contract import Problem, Recipient, RequestProblems, SendRequest, blob_ids, for_one
from service.errors import Transient, verdict_of
from service.observe import metrics, step
from service.outbound.evidence import Evidence
from service.outbound.hands import Place
from service.outbound.lanes import Lanes
from service.outbound.mail import Mail, make_mail, own_message_id, sent_copy
from service.outbound.names import Names, names_of
from service.outbound.options import TOGETHER, OutboundOptions
from service.outbound.outbox import Bundle
from service.outbound.proof import mark_of, proof_of
from service.outbound.relays import BusAwayError, Relays, each
from service.outbound.replies import shortened
from service.outbound.retry import Decision, Phase, Said, Verdict, decide
from service.outbound.sends import SendRecord, Sends
from service.outbound.sent import SentMailbox
from service.outbound.settle import Settled, Settler, changed
from service.outbound.suppressions import Suppressions
from service.smtp import Reply
from service.tasks import TaskGroup

# Building runs at about 200 MB/s: more than this would hold the loop for over a millisecond.
THREAD_FROM_BYTES: Final = 256 * 1024
# Where the account's work ends, mails under way may be answered for so long: of FINISH_TIMEOUT_S in sender.py, the rest
# is for storing what was said of the others.
ENDING_S: Final = 5.0
# Of a request with a message for each, where they are as large as that.
LARGE_TOGETHER: Final = 2


@dataclass(slots=True)
class Task:
    """A request in hand. `record` and `revision` are what `mail-sends` has of it."""

    key: str
    job: Job
    record: SendRecord
    revision: int
    bundle: Bundle
    request: SendRequest


class Attempts:
    """Attempts of one account."""

    def __init__(
        self,
        sends: Sends,
        settler: Settler,
        relays: Relays,
        suppressions: Suppressions,
        names: Names,
        options: OutboundOptions,
        clock: Clock,
        *,
        evidence: Evidence,
        lanes: Lanes,
        sent: SentMailbox | None,
    ) -> None:
        self._sends = sends
        self._names = names
        self._settler = settler
        self._relays = relays
        self._suppressions = suppressions
        self._options = options
        self._clock = clock
        self._sent = sent
        self._evidence = evidence
        self._lanes = lanes

    def decide(self, record: SendRecord, said: Mapping[str, Said], attempt: int) -> Decision:
        """What follows from what was said of those that were tried."""
        return decide(
            shortened(said, len(record.pending)),
            held=record.held,
            attempt=attempt - record.overfull,
            now=self._clock.now(),
            expires_at=record.expires_at,
            options=self._options,
            chance=self._clock.chance(),
            others=record.others,
        )

    async def make(self, task: Task, place: Place) -> None:
        """Try whoever waits, settle, acknowledge; leave `place` after the relay. Raises Conflict, Transient."""
        names = names_of(task.request, task.record.message_id, self._options.address)
        if names:
            await self._names.keep(names, task.key)
        if task.request.split:
            await self._one_by_one(task, place)
        else:
            await self._together(task, place)

    async def _refuse(self, task: Task, attempt: int, problems: list[Problem]) -> None:
        wrong = changed(task.record, attempt=attempt)
        await self._settler.refuse(task.key, task.job, wrong, task.revision, problems, task.bundle.request)

    # -- one mail for all -------------------------------------------------------------------------------------

    async def _together(self, task: Task, place: Place) -> None:
        record = task.record
        attempt = record.attempt + 1
        began = self._clock.monotonic()
        turn = record.open
        barred = await self._suppressions.among(turn)
        going = [recipient for recipient in turn if recipient not in barred]
        try:
            mail = await self._mail(task, task.request, going, record.message_id, seed=task.key)
        except RequestProblems as exc:
            await self._refuse(task, attempt, exc.problems)
            return
        intent = _intent(record, attempt)

        async def write_intent(relay: str, refused: Mapping[str, Reply]) -> None:
            nonlocal intent
            words = shortened(barred | each(mail, refused), len(record.pending))
            intent = changed(intent, relay=relay, refused=words)
            step("intent.before")
            try:
                task.revision = await self._sends.put(task.key, intent, task.revision)
            except Transient as exc:
                raise BusAwayError(exc.what, where=exc.where) from exc
            step("intent.done")

        said: dict[str, Said] = {}
        if going:
            asked = self._relays.away is None
            said = await self._relays.ask(mail, write_intent)
            self._lanes.heard(said)
            if asked:
                metrics.SEND_SECONDS.observe(self._clock.monotonic() - began)
        step("replies")
        place.leave()
        mail = Mail(mail.mail_from, mail.wire, b"")  # what is stored or copied now takes as much again
        said = await self._evidence.of_attempt(record, said)
        decision = self.decide(record, said | barred, attempt)
        task.record = changed(intent, copy=record.copy or self._wants_copy(said))
        settled = await self._told(task, decision, attempt)
        if settled.record.copy and not record.copy:
            await self.keep_copy(task)
        await self._settler.go_on(task.key, settled.record)
        await task.job.done()

    def _wants_copy(self, said: Mapping[str, Said]) -> bool:
        sends = self._sent is not None and self._sent.wants_copies and self._options.redirect is None
        return sends and any(one.verdict is Verdict.ACCEPTED for one in said.values())

    async def keep_copy(self, task: Task) -> None:
        """Have a copy put into Sent; a second time changes nothing. Raises Transient."""
        if self._sent is None or any(blob not in task.bundle.blobs for blob in blob_ids(task.request)):
            return
        proof = proof_of(task.key, await self._sends.secret())

        def make() -> bytes:
            return sent_copy(
                task.request,
                task.bundle.blobs,
                message_id=task.record.message_id,
                date=task.record.date,
                address=self._options.address,
                proof=proof,
            )

        mail = make() if _size(task) < THREAD_FROM_BYTES else await asyncio.to_thread(make)
        await self._sent.queue(task.key, mail, sent_at=task.record.date)

    # -- a mail for each --------------------------------------------------------------------------------------

    async def _one_by_one(self, task: Task, place: Place) -> None:
        """A few at a time: an intent for them, their mails, their outcome.

        Between two of these the record is as after any attempt: if this process ends there, whoever was not tried yet
        waits for the next one.
        """
        attempt = task.record.attempt + 1
        missing = [blob for blob in blob_ids(task.request) if blob not in task.bundle.blobs]
        if missing:
            await self._refuse(task, attempt, [Problem("attachments", f"no such blob: {blob}") for blob in missing])
            return
        # Each mail takes a place like a request of its own.
        place.leave()
        waiting = list(task.record.pending)
        addresses = {one.email: one for one in task.request.to}
        while waiting and not place.ending and self._left_s(task) > 0:
            now, waiting = waiting[:TOGETHER], waiting[TOGETHER:]
            barred = await self._suppressions.among(now)
            task.record = changed(_intent(task.record, attempt), trying=now, refused=barred)
            step("intent.before")
            task.revision = await self._sends.put(task.key, task.record, task.revision)
            step("intent.done")
            if waiting:
                task.record = await self._settler.kept(task.record, task.bundle)
            going = [addresses[who] for who in now if who not in barred]
            said = barred | await self._ask_for_each(task, going, place)
            step("replies")
            # Nobody who was not asked is in doubt.
            task.record = changed(task.record, trying=[who for who in now if who in said])
            decision = self.decide(task.record, said, attempt)
            try:
                settled = await self._told(task, decision, attempt)
            except Conflict:
                # A cancellation takes out whoever was not tried yet, and nobody else.
                record, task.revision = await self._sends.get(task.key)
                if record is None or record.others or not record.cancelled or record.owner != task.record.owner:
                    raise
                task.record = changed(record, outbox=task.record.outbox, trying=task.record.trying)
                waiting = []
                settled = await self._told(task, self.decide(task.record, said, attempt), attempt)
            task.record, task.revision = settled.record, settled.revision
        if not task.revision:
            # Nobody was tried, and the queue alone knows of it. What is in the outbox gets the same name again.
            await task.job.give_back()
            return
        await self._settler.go_on(task.key, task.record)
        await task.job.done()

    async def _told(self, task: Task, decision: Decision, attempt: int) -> Settled:
        return await self._settler.told(task.key, task.record, task.revision, decision, task.bundle, attempt=attempt)

    async def _ask_for_each(self, task: Task, going: Sequence[Recipient], place: Place) -> dict[str, Said]:
        """What was said of each; without those who were not asked yet when the account's work ended, or it expired."""
        if not going:
            return {}
        mails = [_Mailing(one, place.another()) for one in going]
        # Before any turn or place: what waits for memory holds up nobody.
        room = asyncio.Semaphore(mails_at_once(_size(task), split=True))

        async def ask_for(mailing: _Mailing) -> Said:
            async with room:
                return await self._ask_for(task, mailing)

        try:
            async with TaskGroup() as group:
                asking = [group.create_task(ask_for(one), name="mail") for one in mails]
                under_way = list(zip(mails, asking, strict=True))
                hurry = group.create_task(_hurry(place, under_way, self._left_s(task)), name="hurry")
                await asyncio.wait(asking)
                hurry.cancel()
        except BaseExceptionGroup as failed:
            raise verdict_of(failed) from None
        said: dict[str, Said] = {}
        for one, asked in zip(mails, asking, strict=True):
            if not asked.cancelled():
                said[one.recipient.email] = asked.result()
            elif one.dot:
                said[one.recipient.email] = Said(Verdict.UNKNOWN, "")
        return said

    def _left_s(self, task: Task) -> float:
        """Until it expires."""
        return (task.record.expires_at - self._clock.now()).total_seconds()

    async def _ask_for(self, task: Task, mailing: "_Mailing") -> Said:
        one, place = mailing.recipient, mailing.place

        async def dot(_relay: str, _refused: Mapping[str, Reply]) -> None:
            # The intent stands already.
            mailing.dot = True

        turn = await self._lanes.wait([one.email])
        try:
            await place.take()
            began = self._clock.monotonic()
            own = own_message_id(task.record.message_id, one.email, await self._sends.secret())
            seed = f"{task.key}{mark_of(one.email)}"
            try:
                mail = await self._mail(task, for_one(task.request, one), [one.email], own, seed=seed)
            except RequestProblems as exc:
                # RFC 3463 3.2: a bad address is its recipient's affair alone.
                return Said(Verdict.REFUSED, f"553 5.1.3 not sent by mailbus: {exc.problems[0].message}")
            said = await self._relays.ask(mail, dot)
            self._lanes.heard(said)
            metrics.SEND_SECONDS.observe(self._clock.monotonic() - began)
            return said[one.email]
        finally:
            self._lanes.give_back(turn)
            place.leave()

    # -- bytes ------------------------------------------------------------------------------------------------

    async def _mail(
        self, task: Task, request: SendRequest, going: Sequence[str], message_id: str, *, seed: str
    ) -> Mail:
        proof = proof_of(seed, await self._sends.secret())

        def make() -> Mail:
            return make_mail(
                request,
                going,
                task.bundle.blobs,
                message_id=message_id,
                date=task.record.date,
                address=self._options.address,
                redirect=self._options.redirect,
                proof=proof,
                verp=self._options.verp,
                dkim=self._options.dkim,
            )

        # A signature with RSA takes a millisecond.
        if not self._options.dkim and _size(task) < THREAD_FROM_BYTES:
            return make()
        return await asyncio.to_thread(make)


def mails_at_once(size: int, *, split: bool) -> int:
    """How many mails of a request of `size` bytes, with its blobs, are in memory at once."""
    if not split:
        return 1
    return TOGETHER if size < THREAD_FROM_BYTES else LARGE_TOGETHER


def _size(task: Task) -> int:
    return len(task.bundle.request) + sum(map(len, task.bundle.blobs.values()))


def _intent(record: SendRecord, attempt: int) -> SendRecord:
    return changed(record, owner=secrets.token_hex(16), phase=Phase.INTENT, attempt=attempt, statuses=[], next_at=None)


@dataclass(slots=True)
class _Mailing:
    """One recipient's mail, where each has one. `dot`: it may be out."""

    recipient: Recipient
    place: Place
    dot: bool = False


async def _hurry(place: Place, mails: Sequence[tuple[_Mailing, asyncio.Task[Said]]], left_s: float) -> None:
    """Once the account's work ends, or the request expires: who waits for a turn goes without.

    Mails under way are not waited for long where the work ends.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(left_s):
            await place.wait_ending()
    for one, asking in mails:
        if not one.place.taken:
            asking.cancel()
    await place.wait_ending()
    await asyncio.sleep(ENDING_S)
    for _, asking in mails:
        asking.cancel()
