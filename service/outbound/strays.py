"""Requests for accounts that do not exist → `failed`, and whole in the dead letters. One task a process.

Who sends them: a name misspelt, an account that was taken out. While the processes under one prefix were not all
given the same accounts, nobody refuses anything: what one does not know another may. Then the one does it that would
have the account, once NATS itself says that there is none: what was heard of the accounts may be a moment old.
What waited for another try or its time when the account went is refused once that comes: an account that is back by
then goes on.
Compare-and-set in `mail-sends` keeps it to one status where two take it for theirs.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Final

from service.bus import Bus, Conflict, Job
from service.clock import Clock
from service.contract import ACCOUNT_ID, DeadReason, Problem, account_of_out
from service.errors import Transient
from service.observe import log, metrics
from service.outbound.options import OutboundOptions
from service.outbound.outbox import Outbox
from service.outbound.replies import nameable
from service.outbound.request import made_id, take
from service.outbound.retry import Phase
from service.outbound.sends import KEY_HEADER, SendRecord, Sends, consumer_of_out, consumer_of_stray, new_record
from service.outbound.settle import Settler, changed

LOOK_EVERY_S: Final = 30.0
TOGETHER: Final = 50
_WILDCARD: Final = re.compile(r"[*>]")
WRONG: Final = Problem("account", "no such account, or one that sends nothing: look at the subject")


class Strays:
    """What is queued for nobody.

    `sends`: whether an account is there and sends; `decides`: whether all processes know the same of it, and it is for
    this one to say that it is not there; `coming`: whether NATS has an account that is not known here as it is there.
    """

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        *,
        sends: Callable[[str], bool],
        decides: Callable[[str], bool],
        coming: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._is_there = sends
        self._decides = decides
        self._coming = coming
        self._sends = Sends(bus.key_value(bus.subjects.sends), bus.key_value(bus.subjects.cursors), clock)
        self._outbox = Outbox(bus.blobs(bus.subjects.outbox))

    async def run(self) -> None:
        """Refuse strays as they come, for ever."""
        bell = asyncio.Event()
        while True:
            try:
                async with self._bus.hearing(self._bus.subjects.bell("*"), bell.set):
                    while True:
                        bell.clear()
                        await self.refuse_all()
                        try:
                            async with asyncio.timeout(LOOK_EVERY_S):
                                await bell.wait()
                        except TimeoutError:
                            continue
            except Transient as exc:
                log.debug("strays_not_seen", error=str(exc))
                await self._clock.sleep(LOOK_EVERY_S)

    async def refuse_all(self) -> None:
        """Refuse what is queued for nobody now. Raises Transient."""
        subjects = self._bus.subjects
        for subject in await self._bus.queued(subjects.stream_later, subjects.due("*")):
            account = account_of_out(subject)
            if await self._is_stray(account):
                await self._each(subjects.stream_later, f"due-{account}", subject, partial(self._end_due, account))
        queued = await self._bus.queued(subjects.stream_out, subjects.out("*"))
        names = {subject: account_of_out(subject) for subject in queued}
        strays = [subject for subject, name in names.items() if await self._is_stray(name)]
        if not strays:
            return
        created = await self._bus.stream_created(subjects.stream_out)
        for subject in strays:
            if _WILDCARD.search(subject):
                # NATS takes such a subject for a publish; a consumer of it would be everybody's. Left to the operator.
                log.warning("unknown_account", account=names[subject], remedy="purge it by its sequence")
                continue
            account = names[subject]
            # What cannot be an account's name cannot name a consumer either.
            nobodys = ACCOUNT_ID.fullmatch(account) is None
            name = consumer_of_stray(subject) if nobodys else consumer_of_out(subject)
            await self._each(subjects.stream_out, name, subject, partial(self._refuse, account, created))
            if nobodys:
                # There are more such names than a stream takes consumers.
                with suppress(Transient):
                    await self._bus.queue(subjects.stream_out).drop(name)

    async def _is_stray(self, account: str) -> bool:
        if self._is_there(account) or not self._decides(account):
            return False
        return ACCOUNT_ID.fullmatch(account) is None or not await self._coming(account)

    async def _each(self, stream: str, name: str, subject: str, refuse: Callable[[Job], Awaitable[None]]) -> None:
        account = account_of_out(subject)
        puller = await self._bus.queue(stream).puller(name, subject)
        try:
            # Many take minutes, in which the account may be added.
            while await self._is_stray(account) and (jobs := await puller.fetch(TOGETHER)):
                for job in jobs:
                    log.warning("unknown_account", account=account[:64], seq=job.seq)
                    try:
                        await refuse(job)
                    except Conflict:
                        await job.give_back()
        finally:
            await puller.close()

    def _settler(self, account: str) -> Settler:
        return Settler(self._bus, self._sends, self._outbox, OutboundOptions(account, ""), self._clock)

    async def _refuse(self, account: str, created: datetime, job: Job) -> None:
        settler = self._settler(account)
        taken = take(account, job.payload, job.headers, made_id=partial(made_id, created, job.seq))
        if not ACCOUNT_ID.fullmatch(account):
            metrics.DEAD.labels(reason=DeadReason.UNKNOWN_ACCOUNT).inc()
            await settler.dead_letter(taken.key, job.payload, WRONG.message, DeadReason.UNKNOWN_ACCOUNT)
            await job.ack()
            return
        record, revision = await self._sends.get(taken.key)
        recipients = nameable(taken.request, self._bus.max_payload)
        if record is None:
            record = changed(new_record(taken.id, job, job.stored_at), pending=dict.fromkeys(recipients, ""))
            await settler.refuse(
                taken.key, job, record, revision, [WRONG], job.payload, reason=DeadReason.UNKNOWN_ACCOUNT
            )
        elif settler.is_own(job, record):
            # Its account's sender ended with it in hand: what was to follow from the attempt may be undone.
            await self._end(settler, taken.key, job, record, revision)
        else:
            await settler.resume(taken.key, job, record, its_own=False)

    async def _end_due(self, account: str, job: Job) -> None:
        """A request that waited, whose time has come."""
        settler, key = self._settler(account), job.headers.get(KEY_HEADER, "")
        record, revision = await self._sends.get(key)
        if record is None:
            metrics.DEAD.labels(reason=DeadReason.UNKNOWN_ACCOUNT).inc()
            await settler.dead_letter(key, b"", "its state is gone", DeadReason.UNKNOWN_ACCOUNT)
            await job.ack()
        elif settler.is_own(job, record) or record.phase is Phase.FINAL:
            # Also where the next schedule was not set any more.
            await self._end(settler, key, job, record, revision)
        else:
            await settler.resume(key, job, record, its_own=False)

    async def _end(self, settler: Settler, key: str, job: Job, record: SendRecord, revision: int) -> None:
        """A request with its own job. Raises Conflict, Transient."""
        if record.phase is Phase.FINAL:
            await settler.resume(key, job, record, its_own=True, reason=DeadReason.UNKNOWN_ACCOUNT)
            return
        payload = await settler.payload(job, record)
        await settler.end(key, job, record, revision, WRONG, payload, DeadReason.UNKNOWN_ACCOUNT)
