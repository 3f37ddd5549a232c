"""A request in hand, and what every attempt does with it: its mails are made, what was said is decided, stored, told.

Used by attempt.py and mailing.py, and by ways.py, which makes tasks.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from service.bus import Job
from service.clock import Clock
from service.contract import Problem, SendRequest
from service.outbound.mail import Mail, make_mail
from service.outbound.options import TOGETHER, OutboundOptions
from service.outbound.outbox import Bundle
from service.outbound.proof import proof_of
from service.outbound.replies import shortened
from service.outbound.retry import Decision, Phase, Said, decide
from service.outbound.sends import SendRecord, Sends, new_owner
from service.outbound.settle import Settled, Settler, changed

# Building runs at about 200 MB/s: more than this would hold the loop for over a millisecond.
THREAD_FROM_BYTES: Final = 256 * 1024
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

    @property
    def large(self) -> bool:
        """Whether its mails are made in a thread."""
        return self.size >= THREAD_FROM_BYTES

    @property
    def size(self) -> int:
        """With its blobs."""
        return len(self.bundle.request) + sum(map(len, self.bundle.blobs.values()))

    def intent(self, attempt: int, **more: object) -> SendRecord:
        """What is to stand before the first dot of an attempt."""
        owner = new_owner()
        return changed(self.record, owner=owner, phase=Phase.INTENT, attempt=attempt, statuses=[], next_at=None, **more)


class Steps:
    """Those of one account's attempts."""

    def __init__(self, sends: Sends, settler: Settler, options: OutboundOptions, clock: Clock) -> None:
        self._sends = sends
        self._settler = settler
        self._options = options
        self._clock = clock

    async def mail(self, task: Task, request: SendRequest, going: Sequence[str], message_id: str, *, seed: str) -> Mail:
        """Make one for some of its recipients. Raises RequestProblems, Transient."""
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
        if not self._options.dkim and not task.large:
            return make()
        return await asyncio.to_thread(make)

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

    async def told(self, task: Task, decision: Decision, attempt: int) -> Settled:
        """Store what was decided, and say it. Raises Conflict, Transient."""
        return await self._settler.told(task.key, task.record, task.revision, decision, task.bundle, attempt=attempt)

    async def refuse(self, task: Task, problems: list[Problem]) -> None:
        """It cannot be sent as it is: nothing was tried, and the attempt is the last one that was.

        Raises Conflict, Transient.
        """
        await self._settler.refuse(task.key, task.job, task.record, task.revision, problems, task.bundle.request)


def mails_at_once(size: int, *, split: bool) -> int:
    """How many mails of a request of `size` bytes, with its blobs, are in memory at once."""
    if not split:
        return 1
    return TOGETHER if size < THREAD_FROM_BYTES else LARGE_TOGETHER
