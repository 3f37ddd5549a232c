"""A request of which nobody stored the end → what became of it: whose dot may be out, who has the mail all the same.

Used by ways.py for a job that comes again. What mailboxes tell of it is evidence.py's.
"""

from collections.abc import Mapping

from service.bus import Job
from service.clock import Clock
from service.contract import decode_request
from service.errors import Permanent
from service.observe import log
from service.outbound.attempt import Attempts
from service.outbound.bundles import Bundles
from service.outbound.evidence import Evidence
from service.outbound.options import OutboundOptions
from service.outbound.places import Place
from service.outbound.retry import Said, Verdict
from service.outbound.retry import found as found_between
from service.outbound.sends import SendRecord
from service.outbound.settle import Settler, changed
from service.outbound.task import Steps, Task


class BrokenOff:
    """Those of one account."""

    def __init__(
        self,
        settler: Settler,
        bundles: Bundles,
        attempts: Attempts,
        evidence: Evidence,
        steps: Steps,
        options: OutboundOptions,
        clock: Clock,
    ) -> None:
        self._settler = settler
        self._bundles = bundles
        self._attempts = attempts
        self._evidence = evidence
        self._steps = steps
        self._account = options.account
        self._clock = clock

    async def copy_again(self, key: str, job: Job, record: SendRecord, revision: int, place: Place) -> None:
        """Whoever stored that there is to be a copy in Sent may have ended before it was queued."""
        try:
            if record.outbox is not None:
                bundle = await self._bundles.kept(record, place)
            else:
                bundle = await self._bundles.again(key, job, place)
            request = decode_request(bundle.request)
        except Permanent:
            return  # the request's bytes go once its copy is queued
        await self._attempts.keep_copy(Task(key, job, record, revision, bundle, request))

    async def found(self, key: str, job: Job, record: SendRecord, revision: int, place: Place) -> bool:
        """Settle whoever certainly has the mail though no answer came; False where there is nobody."""
        taken = await self._evidence.of_waiting(record)
        if taken:
            next_at = record.next_at or self._clock.now()
            decision = found_between(taken, record.pending, record.held, next_at=next_at, expires_at=record.expires_at)
            record = await self._with_copy(key, job, record, revision, taken, place)
            await self._settler.settle(key, job, record, revision, decision, None, attempt=record.attempt)
        return bool(taken)

    async def lost(self, key: str, job: Job, record: SendRecord, revision: int, place: Place) -> None:
        """An intent without an outcome: the dot may have been sent, its reply is lost."""
        log.warning("send_uncertain", account=self._account, key=key, attempt=record.attempt)
        bundle = None
        if record.outbox is None:
            bundle = await self._bundles.again(key, job, place)
        said = dict.fromkeys(record.open, Said(Verdict.UNKNOWN, "")) | record.refused
        said = await self._evidence.of_attempt(record, said)
        decision = self._steps.decide(record, said, record.attempt)
        record = await self._with_copy(key, job, record, revision, said, place)
        await self._settler.settle(key, job, record, revision, decision, bundle, attempt=record.attempt)

    async def _with_copy(
        self, key: str, job: Job, record: SendRecord, revision: int, said: Mapping[str, Said], place: Place
    ) -> SendRecord:
        """A copy in Sent, where somebody is found to have the mail. Before that is stored: it is so in any case."""
        if record.copy or record.split or not self._attempts.wants_copy(said):
            return record
        await self.copy_again(key, job, record, revision, place)
        return changed(record, copy=True)
