"""One attempt of a request: its mail to the relay once for all recipients; then what it came to.

Used by ways.py, which knows which way a job takes; where each recipient has a mail, it is mailing.py's. The intent
stands before the first dot, the outcome before its status.
"""

import asyncio
from collections.abc import Mapping

from service.clock import Clock
from service.contract import RequestProblems, blob_ids
from service.errors import MailbusError, Transient
from service.observe import log, metrics, step
from service.outbound.evidence import Evidence
from service.outbound.lanes import Lanes
from service.outbound.mail import Mail, sent_copy
from service.outbound.mailing import Mailings
from service.outbound.names import Names, names_of
from service.outbound.options import OutboundOptions
from service.outbound.pace import Pace
from service.outbound.places import Place
from service.outbound.proof import proof_of
from service.outbound.relays import BusAwayError, Relays, each
from service.outbound.replies import shortened
from service.outbound.retry import Said, Verdict, expire
from service.outbound.sends import SendRecord, Sends
from service.outbound.sent import SentMailbox
from service.outbound.settle import Settler, changed
from service.outbound.suppressions import Suppressions
from service.outbound.task import Steps, Task
from service.smtp import JOINED_BYTES, Reply, TurnedAway


class ExpiredError(MailbusError):
    """A request's time is over before the end of its mail went out."""


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
        steps: Steps,
        evidence: Evidence,
        lanes: Lanes,
        pace: Pace,
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
        self._steps = steps
        self._mailings = Mailings(sends, settler, relays, suppressions, evidence, lanes, pace, steps, clock)

    async def make(self, task: Task, place: Place) -> None:
        """Try whoever waits, settle, acknowledge; leave `place` after the relay. Raises Conflict, Transient."""
        names = names_of(task.request, task.record.message_id, self._options.address)
        if names:
            await self._names.keep(names, task.key)
        if task.request.split:
            await self._mailings.make(task, place)
        else:
            await self._together(task, place)

    async def _together(self, task: Task, place: Place) -> None:
        record = task.record
        attempt = record.attempt + 1
        began = self._clock.monotonic()
        turn = record.open
        barred = await self._suppressions.among(turn)
        going = [recipient for recipient in turn if recipient not in barred]
        try:
            mail = await self._steps.mail(task, task.request, going, record.message_id, seed=task.key)
        except RequestProblems as exc:
            place.give_turn_back()
            await self._steps.refuse(task, exc.problems)
            return
        intent: SendRecord | None = None

        async def write_intent(relay: str, refused: Mapping[str, Reply]) -> None:
            nonlocal intent
            if self._clock.now() >= record.expires_at:
                # It waited for a connection, or for the relay's answers.
                raise ExpiredError("its time is over")
            words = shortened(barred | each(mail, refused, taken=True), len(record.pending))
            intent = task.intent(attempt, relay=relay, refused=words)
            if len(mail.data) <= JOINED_BYTES:
                # Its envelope is answered: the next one's may go out with its end (smtp/pool.py).
                place.leave()
            step("intent.before")
            try:
                task.revision = await self._sends.put(task.key, intent, task.revision)
            except Transient as exc:
                raise BusAwayError(exc.what, where=exc.where) from exc
            step("intent.done")

        said: dict[str, Said] = {}
        if going:
            asked = self._relays.away is None
            place.spend_turn()
            try:
                said = await self._relays.ask(mail, write_intent, place.booking)
            except ExpiredError:
                over = expire(record.pending, record.held)
                await self._settler.settle(
                    task.key, task.job, record, task.revision, over, None, attempt=record.attempt
                )
                return
            except TurnedAway:
                place.keep_turn()
                raise
            self._lanes.heard(said)
            if asked:
                metrics.SEND_SECONDS.observe(self._clock.monotonic() - began)
        else:
            place.give_turn_back()
        step("replies")
        place.leave()
        mail = Mail(mail.mail_from, mail.wire, b"")  # what is stored or copied now takes as much again
        said = await self._evidence.of_attempt(record, said)
        decision = self._steps.decide(record, said | barred, attempt)
        task.record = intent or task.intent(attempt)
        if not record.copy and self.wants_copy(said):
            task.record = changed(task.record, copy=True)
        settled = await self._steps.told(task, decision, attempt)
        if settled.record.copy and not record.copy:
            await self.keep_copy(task)
        await self._settler.go_on(task.key, settled.record)
        await task.job.done()

    def wants_copy(self, said: Mapping[str, Said]) -> bool:
        """Whether somebody has the mail, and a copy of it is to be put into Sent."""
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

        try:
            mail = await asyncio.to_thread(make) if task.large else make()
        except RequestProblems as exc:
            # The mail is out. What its header may hold is wider than its copy's: that one has Bcc.
            log.warning("copy_not_made", account=self._options.account, key=task.key, error=exc.what)
            return
        await self._sent.queue(task.key, mail, sent_at=task.record.date)
