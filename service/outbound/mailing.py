"""An attempt of a request with a message for each recipient: a few at a time, each as a mail of its own.

Used by attempt.py. docs/decisions/0024-a-message-for-each.md
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from service.bus import Conflict
from service.clock import Clock
from service.contract import Problem, Recipient, RequestProblems, blob_ids, for_one
from service.errors import verdict_of
from service.observe import metrics, step
from service.outbound.hands import Place
from service.outbound.lanes import Lanes
from service.outbound.mail import own_message_id
from service.outbound.options import TOGETHER
from service.outbound.proof import mark_of
from service.outbound.relays import Relays
from service.outbound.retry import Said, Verdict
from service.outbound.sends import Sends
from service.outbound.settle import Settler, changed
from service.outbound.suppressions import Suppressions
from service.outbound.task import Steps, Task, mails_at_once
from service.smtp import Reply
from service.tasks import TaskGroup

# Where the account's work ends, mails under way may be answered for so long: of FINISH_TIMEOUT_S in sender.py, the rest
# is for storing what was said of the others.
ENDING_S: Final = 5.0


class Mailings:
    """Those of one account."""

    def __init__(
        self,
        sends: Sends,
        settler: Settler,
        relays: Relays,
        suppressions: Suppressions,
        lanes: Lanes,
        steps: Steps,
        clock: Clock,
    ) -> None:
        self._sends = sends
        self._settler = settler
        self._relays = relays
        self._suppressions = suppressions
        self._lanes = lanes
        self._steps = steps
        self._clock = clock

    async def make(self, task: Task, place: Place) -> None:
        """A few at a time: an intent for them, their mails, their outcome.

        Between two of these the record is as after any attempt: if this process ends there, whoever was not tried yet
        waits for the next one.
        """
        attempt = task.record.attempt + 1
        missing = [blob for blob in blob_ids(task.request) if blob not in task.bundle.blobs]
        if missing:
            problems = [Problem("attachments", f"no such blob: {blob}") for blob in missing]
            await self._steps.refuse(task, attempt, problems)
            return
        # Each mail takes a place like a request of its own.
        place.leave()
        waiting = list(task.record.pending)
        addresses = {one.email: one for one in task.request.to}
        while waiting and not place.ending and self._left_s(task) > 0:
            now, waiting = waiting[:TOGETHER], waiting[TOGETHER:]
            barred = await self._suppressions.among(now)
            task.record = changed(task.intent(attempt), trying=now, refused=barred)
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
            decision = self._steps.decide(task.record, said, attempt)
            try:
                settled = await self._steps.told(task, decision, attempt)
            except Conflict:
                # A cancellation takes out whoever was not tried yet, and nobody else.
                record, task.revision = await self._sends.get(task.key)
                if record is None or record.others or not record.cancelled or record.owner != task.record.owner:
                    raise
                task.record = changed(record, outbox=task.record.outbox, trying=task.record.trying)
                waiting = []
                settled = await self._steps.told(task, self._steps.decide(task.record, said, attempt), attempt)
            task.record, task.revision = settled.record, settled.revision
        if not task.revision:
            # Nobody was tried, and the queue alone knows of it. What is in the outbox gets the same name again.
            await task.job.give_back()
            return
        await self._settler.go_on(task.key, task.record)
        await task.job.done()

    async def _ask_for_each(self, task: Task, going: Sequence[Recipient], place: Place) -> dict[str, Said]:
        """What was said of each; without those who were not asked yet when the account's work ended, or it expired."""
        if not going:
            return {}
        mails = [_Mailing(one, place.another()) for one in going]
        # Before any turn or place: what waits for memory holds up nobody.
        room = asyncio.Semaphore(mails_at_once(task.size, split=True))

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
                mail = await self._steps.mail(task, for_one(task.request, one), [one.email], own, seed=seed)
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
