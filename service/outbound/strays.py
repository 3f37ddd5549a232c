"""Requests for accounts that do not exist → `failed`, and whole in the dead letters. One task a process.

Who sends them: a name misspelt, an account that was taken out. While the processes under one prefix were not all
given the same accounts, nobody refuses anything: what one does not know another may. Then the one does it that would
have the account, once NATS itself says that there is none: what was heard of the accounts may be a moment old.
Compare-and-set in `mail-sends` keeps it to one status where two take it for theirs.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Final

from service.bus import Bus, Conflict, Job
from service.clock import Clock
from service.contract import ACCOUNT_ID, DeadReason, Problem, account_of_out
from service.errors import Transient
from service.observe import log
from service.outbound.options import OutboundOptions
from service.outbound.outbox import Outbox
from service.outbound.request import made_id, take
from service.outbound.sends import Sends, consumer_of_out, new_record
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
            await self._refuse(names[subject], subject, created)

    async def _is_stray(self, account: str) -> bool:
        if self._is_there(account) or not self._decides(account):
            return False
        return ACCOUNT_ID.fullmatch(account) is None or not await self._coming(account)

    async def _refuse(self, account: str, subject: str, created: datetime) -> None:
        queue = self._bus.queue(self._bus.subjects.stream_out)
        # What cannot be an account's name cannot name a consumer either.
        name = consumer_of_out(subject) if ACCOUNT_ID.fullmatch(account) else "out-stray"
        puller = await queue.puller(name, subject)
        try:
            while jobs := await puller.fetch(TOGETHER):
                for job in jobs:
                    await self._refuse_one(account, job, created)
        finally:
            await puller.close()

    async def _refuse_one(self, account: str, job: Job, created: datetime) -> None:
        log.warning("unknown_account", account=account[:64], seq=job.seq)
        settler = Settler(self._bus, self._sends, self._outbox, OutboundOptions(account, ""), self._clock)
        taken = take(account, job.payload, job.headers, made_id=partial(made_id, created, job.seq))
        if not ACCOUNT_ID.fullmatch(account):
            await settler.dead_letter(taken.key, job.payload, WRONG.message, DeadReason.UNKNOWN_ACCOUNT)
            await job.ack()
            return
        record, revision = await self._sends.get(taken.key)
        recipients = taken.request.recipients() if taken.request is not None else []
        try:
            if record is not None:
                await settler.resume(taken.key, job, record, its_own=False)
                return
            record = changed(new_record(taken.id, job, job.stored_at), pending=dict.fromkeys(recipients, ""))
            await settler.refuse(
                taken.key, job, record, revision, [WRONG], job.payload, reason=DeadReason.UNKNOWN_ACCOUNT
            )
        except Conflict:
            await job.give_back()
