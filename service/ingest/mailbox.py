"""One mailbox: find the position, begin an epoch, catch up in pages, wait, catch up again.

Built by supervision for one connection's life; what must outlive it is MailboxStatus and the suspects.
Four stages overlap, each with a page or two: read | parse | store blobs | commit.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import msgspec

from service.budget import Budget
from service.clock import Clock
from service.contract import NUMBERS_FROM, EventType
from service.errors import MailbusError, Transient, verdict_of
from service.ingest.announce import Announcer
from service.ingest.compare import Compared, Comparer
from service.ingest.cursor import Cursor
from service.ingest.epochs import Epochs
from service.ingest.kinship import ALONE, Kinship
from service.ingest.memory import Memory
from service.ingest.pages import Page
from service.ingest.plan import (
    Look,
    Position,
    Recalled,
    Why,
    fingerprint_of,
    first_look,
    pages,
)
from service.ingest.publish import MailboxLog
from service.ingest.reading import Reader
from service.ingest.resync import Counts, Desk, Stands
from service.ingest.source import Looked, Source
from service.ingest.status import MailboxStatus
from service.ingest.surveyed import Surveyed
from service.ingest.windows import Window, Windows
from service.observe import log, metrics
from service.parsing import Made
from service.tasks import TaskGroup

PROGRESS_EVERY_S: Final = 10.0
# How often a quiet mailbox looks whether the log is about to forget what it has not saved.
BOUNDS_EVERY_S: Final = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """`initial`: "new", "all", or the moment from which existing mail is announced. Sizes in bytes."""

    initial: datetime | str
    message_limit: int


class MailboxIngest:
    """Turns one opened mailbox into events. Raises the verdict that ended it; never returns otherwise."""

    def __init__(
        self,
        source: Source,
        events: MailboxLog,
        memory: Memory,
        announcer: Announcer,
        *,
        options: IngestOptions,
        status: MailboxStatus,
        desk: Desk,
        budget: Budget,
        proved: Callable[[], None],
        degraded: Callable[[MailbusError], None],
        clock: Clock,
        account: str,
        announced: Callable[[], None] = lambda: None,
        kinship: Kinship = ALONE,
    ) -> None:
        self._source = source
        self._events = events
        self._memory = memory
        self._announcer = announcer
        self._options = options
        self._status = status
        self._desk = desk
        self._counts = Counts()
        self._reader = Reader(source, status, budget, message_limit=options.message_limit)
        self._proved = proved
        self._degraded = degraded
        self._clock = clock
        self._account = account
        self._announced = announced
        self._told = 0.0
        self._bounds_at = clock.monotonic()
        self._uidnext = 0
        self._comparer = Comparer(source, memory, announcer, clock=clock, where=f"{account}, {status.name}")
        self._epochs = Epochs(
            source,
            memory,
            announcer,
            initial=options.initial,
            account=account,
            mailbox=status.name,
            writer=events.writer,
            degraded=degraded,
            clock=clock,
            kinship=kinship,
        )

    async def run(self, position: Position) -> None:
        """Catch up from `position`, then follow the mailbox; open it anew from time to time, and after a rest."""
        self._status.state = "syncing"
        self._desk.begin(self._source.nudge)
        try:
            while True:
                cursor = await self._follow(position)
                position = Position(Why.TAIL, self._events.fence, cursor, seq=self._memory.seq)
                if self._source.displaced and not self._desk.is_asked():
                    await self._rest(cursor)
        finally:
            self._desk.end()

    async def _rest(self, cursor: Cursor) -> None:
        """Leave the connection to other mailboxes for a while."""
        limit_s = (
            self._comparer.rest_s(self._status.calm_s(self._clock.now())) if self._status.state == "watching" else 0.0
        )
        if limit_s:
            self._status.state = "resting"
            self._memory.rest()
        looked = Looked(cursor.uidvalidity, max(self._uidnext, cursor.last + 1), cursor.modseq)
        await self._events.looking(self._source.rest(looked, limit_s))

    async def _follow(self, position: Position) -> Cursor:
        asked, self._counts = self._desk.take(), Counts()
        epoch = await self._source.open()
        self._uidnext = epoch.uidnext
        self._comparer.opened()
        begun = await self._epochs.begin(position, epoch)
        cursor = begun.cursor
        self._desk.stands = Stands(cursor.uidvalidity, cursor.box, cursor.turn)
        self._status.top_uid = max(epoch.uidnext - 1, cursor.last)
        cursor = await self._catch_up(cursor, epoch.uidnext - 1, None, shared=not asked)
        if cursor.last < epoch.uidnext - 1 and self._source.displaced:
            self._status.state = "syncing"
            return cursor
        if epoch.exists:
            # A server may say UIDNEXT as it was before the last of them came, and nothing more of that one.
            cursor = await self._catch_up(cursor, None, None, shared=not asked)
        if self._memory.numbers.waiting and not epoch.is_part:
            cursor = await self._late(await self._comparer.missed(cursor))
        look = Look.ALL if asked else first_look(cursor, epoch, self._source.sync, begun.recalled)
        compared = await self._comparer.look(look, cursor, adopt=begun.recalled is not Recalled.WHOLE)
        while True:
            cursor = await self._kept(await self._late(compared))
            self._status.state = "watching"
            self._proved()
            self._desk.passed()
            self._desk.found(self._counts, messages=len(self._memory.known), reset=begun.reset)
            patience_s = self._comparer.patience_s()
            if not patience_s or self._desk.is_asked():
                return cursor
            noticed = await self._source.wait(patience_s)
            if self._desk.is_asked() or (noticed is None and self._source.displaced):
                return cursor
            if await self._source.replaced():
                return cursor
            stirred = self._source.stirred()
            cursor = await self._catch_up(cursor, None, noticed)
            compared = await self._comparer.after(stirred, cursor)

    async def _late(self, compared: Compared) -> Cursor:
        """Announce what came below numbers that were given already, and say what the server does not do."""
        cursor = compared.cursor
        if compared.changed or compared.removed:
            self._status.announced += compared.changed + compared.removed
            self._status.last_event_at = self._clock.now()
        self._counts.changed += compared.changed
        self._counts.removed += compared.removed
        self._status.sync = self._source.sync
        for name in set(self._source.refused) - self._status.refused:
            self._status.refused.add(name)
            self._degraded(_refused(name))
        for uid in compared.late:
            if found := await self._source.survey(uid, uid):
                # Where labels say where a message is, it may have been another mailbox's until now.
                if not found[0].mailboxes:
                    metrics.PROTOCOL_VIOLATION.labels(kind="late_uid").inc()
                cursor = await self._announce(cursor, found)
        return cursor

    async def _kept(self, cursor: Cursor) -> Cursor:
        """Save what is known, where a start would have to read much of the log, or the log is about to forget it."""
        self._status.last_uid = cursor.last
        await self._events.look()
        due = self._memory.due(idle=True)
        if not due and self._clock.monotonic() - self._bounds_at > BOUNDS_EVERY_S:
            self._bounds_at = self._clock.monotonic()
            due = self._memory.near_its_end(*await self._events.bounds())
        return await self._memory.save(cursor) if due else cursor

    # -- catching up ------------------------------------------------------------------------------------------

    async def _catch_up(
        self, cursor: Cursor, top: int | None, noticed: float | None, *, shared: bool = False
    ) -> Cursor:
        """Announce what lies above the cursor, up to `top` (None: whatever there is).

        `shared`: as far as other mailboxes let it; what is left comes after their turn.
        """
        windows = Windows(self._source, top, shared=shared)
        while (window := await windows.next(cursor.last)) is not None:
            cut = self._cut(window, cursor)
            try:
                if len(cut) > 1:
                    cursor = await self._overlapped(window, cut, windows, cursor, noticed)
                else:
                    cursor = await self._one_by_one(cut, cursor, noticed)
                    cursor = await self._through(window, cursor)
            finally:
                self._events.let_go()
                self._reader.let_all_go()
        return cursor

    def _cut(self, window: Window, cursor: Cursor, *, begun: bool = False) -> list[list[Surveyed]]:
        wanted = self._epochs.choose(window.found, cursor)
        return list(pages(wanted, self._options.message_limit, frozenset(self._status.suspects), begun=begun))

    async def _through(self, window: Window, cursor: Cursor) -> Cursor:
        """All of it is announced that is."""
        if window.found:
            cursor = self._passed(cursor, window.found[-1])
        elif window.last is not None:
            cursor = msgspec.structs.replace(cursor, last=window.last, fingerprint="")
        cursor = await self._epochs.settled(cursor)
        return await self._memory.save(cursor) if self._memory.due(idle=False) else cursor

    def _passed(self, cursor: Cursor, message: Surveyed) -> Cursor:
        # A number that is no UID is passed by being known.
        if message.uid <= cursor.last or message.uid >= NUMBERS_FROM:
            return cursor
        self._status.last_uid = message.uid
        self._status.top_uid = max(self._status.top_uid, message.uid)
        return msgspec.structs.replace(
            cursor, first=cursor.last + 1, last=message.uid, fingerprint=fingerprint_of(message)
        )

    async def _announce(self, cursor: Cursor, late: list[Surveyed]) -> Cursor:
        """What came below the cursor."""
        try:
            return await self._one_by_one([late], cursor, None)
        finally:
            self._events.let_go()
            self._reader.let_all_go()

    async def _one_by_one(self, cut: list[list[Surveyed]], cursor: Cursor, noticed: float | None) -> Cursor:
        for rest in cut:
            # Where the server gives more than it listed a page ends sooner.
            while rest:
                page = await self._reader.read(rest, self._memory.numbers)
                rest = rest[len(page.wanted) :]
                page.made = await self._announcer.make(page.fetched, page.unavailable, cursor)
                await self._store(page, cursor)
                cursor = await self._commit(page, cursor, noticed)
        return cursor

    async def _overlapped(
        self, window: Window, cut: list[list[Surveyed]], windows: Windows, cursor: Cursor, noticed: float | None
    ) -> Cursor:
        """The same with a page in each stage; while the last pages of a window are under way the next is surveyed."""
        making: asyncio.Queue[tuple[Page, asyncio.Task[list[Made]]] | Window | None] = asyncio.Queue(maxsize=2)
        stored: asyncio.Queue[Page | Window | None] = asyncio.Queue(maxsize=1)
        ended: list[MailbusError] = []

        async def reading() -> None:
            try:
                await read()
            except MailbusError as exc:
                # What was read by then is announced all the same.
                ended.append(exc)
            await making.put(None)

        async def read() -> None:
            now: Window | None = window
            wanted = cut
            while now is not None:
                for rest in wanted:
                    while rest:
                        page = await self._reader.read(rest, self._memory.numbers)
                        rest = rest[len(page.wanted) :]
                        made = self._announcer.make(page.fetched, page.unavailable, cursor)
                        await making.put((page, group.create_task(made, name="parse")))
                end = now.end
                # Its last message is all that is wanted of it from here on.
                await making.put(replace(now, found=now.found[-1:]))
                # What is recognised depends on what has passed.
                now = await windows.next(end) if cursor.before is None and end is not None else None
                wanted = self._cut(now, cursor, begun=True) if now is not None else []

        async def storing() -> None:
            before: Page | None = None
            while (taken := await making.get()) is not None:
                if isinstance(taken, Window):
                    await stored.put(taken)
                    before = None
                    continue
                page, made = taken
                page.made = await made
                await self._store(page, cursor)
                # One that still waits for its commit takes this one with it.
                if before is None or stored.empty() or not before.join(page):
                    await stored.put(page)
                    before = page
            await stored.put(None)

        async def committing() -> Cursor:
            reached, taken = cursor, await stored.get()
            while taken is not None:
                async with TaskGroup() as ahead:
                    following = ahead.create_task(staging(), name="stage")
                    if isinstance(taken, Window):
                        reached = await self._through(taken, reached)
                    else:
                        reached = await self._commit(taken, reached, noticed)
                taken = following.result()
            return reached

        async def staging() -> Page | Window | None:
            taken = await stored.get()
            if isinstance(taken, Page):
                await self._events.stage(taken.announced.events)
            return taken

        try:
            async with TaskGroup() as group:
                group.create_task(reading(), name="read")
                group.create_task(storing(), name="store")
                committed = group.create_task(committing(), name="commit")
        except BaseExceptionGroup as failed:
            raise verdict_of(failed) from failed
        if ended:
            raise ended[0]
        return committed.result()

    async def _store(self, page: Page, cursor: Cursor) -> None:
        page.fetched = []
        page.announced = await self._announcer.stored(page.made, page.unavailable)
        page.announced.events.extend(self._announcer.paired(row, number, cursor) for row, number in page.paired)
        page.made = []

    async def _commit(self, page: Page, cursor: Cursor, noticed: float | None) -> Cursor:
        reached = self._passed(cursor, page.wanted[-1])
        if events := page.announced.events:
            started = self._clock.monotonic()
            reached = await self._memory.commit(events, reached, dead=page.announced.dead)
            self._announced()
            self._tell(len(events) - len(page.paired), noticed, started, reached)
        self._reader.let_go(page)
        return reached

    def _tell(self, events: int, noticed: float | None, started: float, reached: Cursor) -> None:
        now = self._clock.monotonic()
        metrics.EVENTS.labels(type=EventType.RECEIVED).inc(events)
        if noticed is not None:
            metrics.INGEST_SECONDS.observe(now - noticed)
        self._status.announced += events
        self._counts.received += events
        self._status.last_event_at = self._clock.now()
        behind = max(0, self._status.top_uid - reached.last)
        level = log.info if behind and now - self._told > PROGRESS_EVERY_S else log.debug
        if level is log.info:
            self._told = now
        level(
            "batch_committed",
            account=self._account,
            mailbox=self._status.name,
            events=events,
            uid=reached.last,
            behind=behind,
            took_s=round(now - started, 4),
        )


def _refused(name: str) -> Transient:
    return Transient(
        f"the server offers {name} and refuses it",
        where="IMAP",
        remedy="done without on this connection; tell its operator",
    )
