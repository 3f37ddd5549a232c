"""A mail that a relay took → a copy of it in the account's Sent mailbox, once; and whether one is there.

Used by attempt.py, which queues a copy once its outcome is stored, and by evidence.py. Copies wait in MAIL_LATER, in a
queue of their own: a mail server that is slow or away holds up no mail. One that is there already, by its Message-ID,
is never put there again: not after a crash, nor where the provider keeps what it sends.
RFC 9051 6.3.12 (APPEND), RFC 6154 (\\Sent).
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from service.budget import Share
from service.bus import Bus, Job
from service.clock import Clock
from service.errors import MailbusError, Permanent, Transient
from service.imap import NONE_NAMED, Pool, Refused, WritingSession, by_role, identity_of, list_mailboxes
from service.observe import log, metrics, step
from service.outbound.outbox import SENT, Bundle, Outbox
from service.outbound.places import MEMORY_TIMES
from service.outbound.sends import KEY_HEADER

OUTBOX_HEADER: Final = "Mail-Outbox"
HEADERS_ROOM_BYTES: Final = 1024
LOOK_EVERY_S: Final = 60.0
# While some wait that were given back, or are another process's yet.
STILL_S: Final = 5.0
# On one turn with the account's connection, which commands use too.
TOGETHER: Final = 8
AGAIN_S: Final = 2.0
# Once is a connection that was lost, or commands that were many: no state of an account.
FAILING_FROM: Final = 2
# What the server may take later: over quota, too busy.
PUT_OFF_S: Final = 300.0
# A mailbox that was not there is looked for again.
MISSING_S: Final = 3600.0
# A job waits for the answer: a mail server that is slow to find one tells nothing.
LOOK_LIMIT_S: Final = 15.0
# SINCE disregards time and zone (RFC 9051 6.4.4), and two clocks may differ.
BEFORE: Final = timedelta(days=2)
_HEADER_END: Final = re.compile(rb"\r?\n\r?\n")


class Result(StrEnum):
    """What became of a copy."""

    KEPT = "kept"
    FOUND = "found"  # it was there already
    REFUSED = "refused"
    NO_MAILBOX = "no_mailbox"


@dataclass(frozen=True, slots=True)
class SentOptions:
    """`copies`: whether mailbus puts copies there; `insists`: whether it is an error where there is no such mailbox.

    `named`: mailboxes by role, where the server does not say them. `life_s`: how long a copy may wait.
    """

    account: str
    copies: bool
    insists: bool
    life_s: float
    named: Mapping[str, str] = field(default_factory=lambda: NONE_NAMED)


class SentMailbox:
    """One account's. `memory` is what all deliveries share; `degraded` is told what the server refuses.

    Copies are put there one at a time: the largest of those in hand has its memory for all of them.
    """

    def __init__(
        self,
        bus: Bus,
        pool: Pool,
        options: SentOptions,
        clock: Clock,
        *,
        memory: Share,
        degraded: Callable[[MailbusError], None],
    ) -> None:
        self._bus = bus
        self._pool = pool
        self._options = options
        self._clock = clock
        self._memory = memory
        self._degraded = degraded
        self._outbox = Outbox(bus.blobs(bus.subjects.outbox))
        self._subject = bus.subjects.sent_copies(options.account)
        self._bell = asyncio.Event()
        self._name: str | None = None
        self._missing_until = float("-inf")
        self._trouble = False

    @property
    def wants_copies(self) -> bool:
        """Whether what is sent is to be put there."""
        return self._options.copies and self._clock.monotonic() >= self._missing_until

    # -- for who sends ----------------------------------------------------------------------------------------

    async def queue(self, key: str, mail: bytes, *, sent_at: datetime) -> None:
        """Have a copy put there; a second time within two minutes does nothing, later it is found. Raises Transient."""
        headers = {KEY_HEADER: key, "Nats-Msg-Id": f"sent-{key}", "Nats-TTL": f"{max(1, int(self._options.life_s))}s"}
        if len(mail) > self._bus.max_payload - HEADERS_ROOM_BYTES:
            headers[OUTBOX_HEADER] = await self._outbox.put(Bundle(f"{SENT}{key}", mail, {}), stored_at=sent_at)
            mail = b""
        step("copy.before")
        seq = await self._bus.publish(self._subject, mail, headers)
        step("copy.done")
        kept = headers.get(OUTBOX_HEADER)
        if kept is not None and not await self._bus.queue(self._bus.subjects.stream_later).holds(seq):
            # The first time it was put there is over, and freed what was kept for it, before this one kept it again.
            await self._outbox.free(kept)
        self._bell.set()

    async def which(self, message_ids: Iterable[str], *, since: datetime) -> set[str]:
        """Which of some mails are there, as far as that can be found out now."""
        found: set[str] = set()
        try:
            async with asyncio.timeout(LOOK_LIMIT_S), self._pool.session() as session:
                name = await self._find(session)
                for id in message_ids if name is not None else ():
                    if id.isascii() and await self._holds(session, str(name), f"<{id}>".encode(), since):
                        found.add(id)
        except (MailbusError, TimeoutError) as exc:
            log.info("sent_not_looked_at", account=self._options.account, error=str(exc))
        return found

    # -- putting them there -----------------------------------------------------------------------------------

    async def run(self, proved: Callable[[], None]) -> None:
        """Put copies there until cancelled. Raises Transient, and Permanent where there must be such a mailbox."""
        failures = 0
        while True:
            self._bell.clear()
            try:
                if await self._waiting():
                    await self._drain()
                pause_s = STILL_S if await self._waiting() else LOOK_EVERY_S
            except Transient as exc:
                failures += 1
                if failures >= FAILING_FROM:
                    raise
                log.info("copies_wait", account=self._options.account, error=str(exc))
                await self._clock.sleep(AGAIN_S)
                continue
            failures = 0
            if not self._trouble:
                proved()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._bell.wait()

    async def _waiting(self) -> int:
        return await self._bus.pending(self._bus.subjects.stream_later, self._subject)

    async def _drain(self) -> None:
        queue = self._bus.queue(self._bus.subjects.stream_later)
        puller = await queue.puller(f"sent-{self._options.account}", self._subject)
        try:
            while jobs := await puller.fetch(TOGETHER):
                await self._put_all(jobs)
        finally:
            with suppress(MailbusError):
                await puller.close()

    async def _put_all(self, jobs: Sequence[Job]) -> None:
        left = deque(jobs)
        try:
            size = max([await self._size(job) for job in jobs])
            # Before the connection: commands wait for that, and deliveries at a slow relay may have all the memory. A
            # `get` that has the connection and waits for memory gets it: nobody waits for a turn for over 20 s.
            async with self._memory.hold(MEMORY_TIMES * size), self._pool.session() as session:
                name = await self._find(session)
                while left:
                    await self._put(session, name, left[0])
                    left.popleft()
                    for job in left:
                        await job.in_progress()
        except (Transient, Permanent):
            for job in left:
                with suppress(Transient):
                    await job.give_back(AGAIN_S)
            raise

    async def _put(self, session: WritingSession, name: str | None, job: Job) -> None:
        kept = job.headers.get(OUTBOX_HEADER)
        if name is None:
            result = Result.NO_MAILBOX
        else:
            try:
                result = await self._once(session, name, await self._mail(job, kept), job)
            except Refused as exc:
                self._trouble = True
                self._degraded(exc)
                if exc.missing or exc.later:
                    self._name = None
                    await job.give_back(PUT_OFF_S)
                    return
                log.warning("copy_refused", account=self._options.account, error=str(exc))
                result = Result.REFUSED
            else:
                self._trouble = False
        metrics.SENT_COPIES.labels(result=result).inc()
        step("copy.kept")
        if kept is not None:
            await self._outbox.free(kept)
        await job.ack()

    async def _size(self, job: Job) -> int:
        kept = job.headers.get(OUTBOX_HEADER)
        return len(job.payload) if kept is None else await self._outbox.size(kept)

    async def _mail(self, job: Job, kept: str | None) -> bytes | None:
        if kept is None:
            return job.payload
        try:
            return (await self._outbox.get(kept)).request
        except Permanent:
            # It goes once the copy is there: this is the job of a process that ended before it said so.
            return None

    async def _once(self, session: WritingSession, name: str, mail: bytes | None, job: Job) -> Result:
        if mail is None:
            return Result.FOUND
        end = _HEADER_END.search(mail)
        identity = identity_of(mail[: end.start() + 2] if end else mail, len(mail))
        if identity is not None and await self._holds(session, name, identity.message_id, job.stored_at):
            return Result.FOUND
        step("copy.append")
        await session.append(name, mail, flags=[r"\Seen"], received_at=job.stored_at)
        return Result.KEPT

    async def _holds(self, session: WritingSession, name: str, message_id: bytes, since: datetime) -> bool:
        await session.open_mailbox(name, writing=False)
        return await session.holds(message_id, since=since - BEFORE)

    async def _find(self, session: WritingSession) -> str | None:
        """The mailbox; None where there is none, and none is insisted on. Raises Permanent where one is, Transient."""
        if self._name is None:
            self._name = by_role(await list_mailboxes(session), self._options.named).get("sent")
        if self._name is None:
            if self._options.insists:
                raise Permanent(
                    "the mail server has no Sent mailbox",
                    where=self._options.account,
                    remedy="make one, name it by `incoming.roles: {sent: NAME}`, or write `outgoing.sent: auto`",
                )
            self._missing_until = self._clock.monotonic() + MISSING_S
            log.info("no_sent_mailbox", account=self._options.account, remedy="incoming.roles: {sent: NAME}")
        return self._name
