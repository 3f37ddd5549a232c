"""One mailbox: find the position, begin an epoch, catch up in pages, wait, catch up again.

Built by supervision for one connection's life; what must outlive it is MailboxStatus and the suspects.
Four stages overlap, each with a page or two: read | parse | store blobs | commit.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import msgspec

from service.clock import Clock
from service.contract import EventType, Reset, ResetReason
from service.errors import Transient, verdict_of
from service.ingest.announce import Announced, Announcer
from service.ingest.budget import Budget
from service.ingest.cursor import Cursor
from service.ingest.finish import finish
from service.ingest.plan import (
    SURVEY_LIMIT_ROWS,
    SURVEY_LIMIT_UIDS,
    Position,
    Why,
    announced,
    epoch_break,
    fingerprint_of,
    pages,
)
from service.ingest.publish import MailboxLog
from service.ingest.source import Epoch, Fetched, Source, Surveyed
from service.observe import log, metrics, step
from service.parsing import Made
from service.tasks import TaskGroup

SINGLE_TRIES: Final = 3
SUSPECTS_LIMIT: Final = 1_000
# An empty window of UIDs is widened up to this: gaps are crossed fast, and a full one still fits in memory.
WINDOW_LIMIT_UIDS: Final = SURVEY_LIMIT_ROWS
PROGRESS_EVERY_S: Final = 10.0


@dataclass(slots=True)
class MailboxStatus:
    """What a mailbox shows of itself; lives as long as the account does."""

    name: str
    state: str = "starting"
    last_uid: int = 0
    top_uid: int = 0
    announced: int = 0
    last_event_at: datetime | None = None
    # UIDs that were in hand when a connection broke, and how often.
    suspects: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """`initial`: "new", "all", or the moment from which existing mail is announced. Sizes in bytes."""

    initial: datetime | str
    message_limit: int


@dataclass(slots=True)
class Page:
    """What one commit will announce."""

    wanted: list[Surveyed]
    fetched: list[Fetched]
    unavailable: list[Surveyed]
    held: int
    made: list[Made] = field(default_factory=list)
    announced: Announced = field(default_factory=lambda: Announced([], []))


class MailboxIngest:
    """Turns one opened mailbox into events. Raises the verdict that ended it; never returns otherwise."""

    def __init__(
        self,
        source: Source,
        events: MailboxLog,
        announcer: Announcer,
        *,
        options: IngestOptions,
        status: MailboxStatus,
        budget: Budget,
        proved: Callable[[], None],
        clock: Clock,
        account: str,
    ) -> None:
        self._source = source
        self._events = events
        self._announcer = announcer
        self._options = options
        self._status = status
        self._budget = budget
        self._proved = proved
        self._clock = clock
        self._account = account
        self._held = 0
        self._told = 0.0

    async def run(self, position: Position) -> None:
        """Catch up from `position`, then follow the mailbox."""
        epoch = await self._source.open()
        cursor = await self._begin(position, epoch)
        self._status.top_uid = max(epoch.uidnext - 1, cursor.last)
        self._status.state = "syncing"
        noticed: float | None = None
        top: int | None = epoch.uidnext - 1
        while True:
            cursor = await self._catch_up(cursor, top, noticed)
            self._status.state = "watching"
            self._proved()
            noticed, top = await self._source.wait(), None

    # -- epochs -----------------------------------------------------------------------------------------------

    async def _begin(self, position: Position, epoch: Epoch) -> Cursor:
        cursor = position.cursor
        if cursor is None:
            if position.why is Why.OTHER_STREAM:
                log.error("log_made_anew", account=self._account, mailbox=self._status.name)
            return await self._reset(await self._starting_point(epoch), ResetReason.START, None)
        if position.again:
            return await self._reset(self._mine(cursor), ResetReason.START, None)
        at_last = await self._source.survey(cursor.last, cursor.last) if cursor.last and cursor.fingerprint else []
        reason = epoch_break(cursor, self._source.id, epoch, at_last)
        if reason is not None:
            return await self._reset(await self._starting_point(epoch), reason, cursor.uidvalidity)
        return self._mine(cursor)

    async def _starting_point(self, epoch: Epoch) -> Cursor:
        """The `initial` rule as a cursor."""
        existing = epoch.uidnext - 1
        first = Cursor(self._source.id, epoch.uidvalidity, existing, existing, self._events.writer)
        match self._options.initial:
            case "all":
                return msgspec.structs.replace(first, last=0, line=0)
            case datetime() as since:
                lowest = await self._source.since(since)
                return msgspec.structs.replace(first, last=existing if lowest is None else lowest - 1, since=since)
            case _:
                return first

    async def _reset(self, cursor: Cursor, reason: ResetReason, old: int | None) -> Cursor:
        body = Reset(self._status.name, reason, cursor.uidvalidity, old)
        log.info("epoch_begins", account=self._account, mailbox=self._status.name, reason=reason)
        self._events.new_epoch(cursor)
        await finish(self._events.commit([self._announcer.reset(body, cursor)], cursor))
        metrics.EVENTS.labels(type=EventType.RESET).inc()
        return cursor

    def _mine(self, cursor: Cursor) -> Cursor:
        return msgspec.structs.replace(cursor, writer=self._events.writer)

    # -- catching up ------------------------------------------------------------------------------------------

    async def _catch_up(self, cursor: Cursor, top: int | None, noticed: float | None) -> Cursor:
        """Announce what lies above the cursor, up to `top` (None: whatever there is)."""
        window = SURVEY_LIMIT_UIDS
        while top is None or cursor.last < top:
            last = None if top is None else min(top, cursor.last + window)
            found = await self._source.survey(cursor.last + 1, last)
            window = min(window * 2, WINDOW_LIMIT_UIDS) if not found else SURVEY_LIMIT_UIDS
            wanted = [message for message in found if announced(message, cursor)]
            if wanted:
                cursor = await self._announce(cursor, wanted, noticed)
            if found:
                cursor = self._passed(cursor, found[-1])
            elif last is not None:
                cursor = msgspec.structs.replace(cursor, last=last, fingerprint="")
            if last is None and len(found) < SURVEY_LIMIT_ROWS:
                break
        return cursor

    def _passed(self, cursor: Cursor, message: Surveyed) -> Cursor:
        self._status.last_uid = message.uid
        self._status.top_uid = max(self._status.top_uid, message.uid)
        return msgspec.structs.replace(
            cursor, first=cursor.last + 1, last=message.uid, fingerprint=fingerprint_of(message)
        )

    async def _announce(self, cursor: Cursor, wanted: list[Surveyed], noticed: float | None) -> Cursor:
        alone = frozenset(self._status.suspects)
        cut = list(pages(wanted, self._options.message_limit, alone))
        try:
            if len(cut) == 1:
                page = await self._read(cut[0])
                page.made = await self._announcer.make(page.fetched, page.unavailable, cursor)
                await self._store(page)
                return await self._commit(page, cursor, noticed)
            return await self._overlapped(cut, cursor, noticed)
        finally:
            self._events.let_go()
            self._budget.give(self._held)
            self._held = 0

    async def _overlapped(self, cut: list[list[Surveyed]], cursor: Cursor, noticed: float | None) -> Cursor:
        making: asyncio.Queue[tuple[Page, asyncio.Task[list[Made]]] | None] = asyncio.Queue(maxsize=2)
        stored: asyncio.Queue[Page | None] = asyncio.Queue(maxsize=1)

        async def reading() -> None:
            for wanted in cut:
                page = await self._read(wanted)
                made = group.create_task(self._announcer.make(page.fetched, page.unavailable, cursor), name="parse")
                await making.put((page, made))
            await making.put(None)

        async def storing() -> None:
            while (taken := await making.get()) is not None:
                page, made = taken
                page.made = await made
                await self._store(page)
                await stored.put(page)
            await stored.put(None)

        async def committing() -> Cursor:
            reached, page = cursor, await stored.get()
            while page is not None:
                async with TaskGroup() as ahead:
                    following = ahead.create_task(staging(), name="stage")
                    reached = await self._commit(page, reached, noticed)
                page = following.result()
            return reached

        async def staging() -> Page | None:
            page = await stored.get()
            if page is not None:
                await self._events.stage(page.announced.events)
            return page

        try:
            async with TaskGroup() as group:
                group.create_task(reading(), name="read")
                group.create_task(storing(), name="store")
                committed = group.create_task(committing(), name="commit")
        except BaseExceptionGroup as failed:
            raise verdict_of(failed) from failed
        return committed.result()

    async def _read(self, wanted: list[Surveyed]) -> Page:
        """Read one page. What the server does not give is tried alone, then announced as unavailable."""
        limit = self._options.message_limit
        whole = [message for message in wanted if message.size <= limit]
        headers = [message for message in wanted if message.size > limit]
        held = await self._budget.take(sum(message.size for message in whole))
        self._held += held
        page = Page(wanted, [], [], held)
        for messages, is_whole in ((whole, True), (headers, False)):
            if messages:
                await self._fetch(page, messages, whole=is_whole)
        if len(page.fetched) + len(page.unavailable) < len(wanted):
            await self._fetch_missing(page)
        step("fetch.done")
        return page

    async def _fetch(self, page: Page, wanted: list[Surveyed], *, whole: bool) -> None:
        if len(wanted) == 1 and self._status.suspects.get(wanted[0].uid, 0) > SINGLE_TRIES:
            page.unavailable.append(wanted[0])
            del self._status.suspects[wanted[0].uid]
            return
        left = {message.uid: message for message in wanted}

        def take(message: Fetched) -> None:
            if left.pop(message.surveyed.uid, None) is not None:
                page.fetched.append(message)
                metrics.BYTES_FETCHED.inc(len(message.body))

        try:
            await self._source.fetch(wanted, take, whole=whole)
        except Transient:
            # The connection broke; the first message still missing may be why. Next time it is read alone.
            suspect = next(iter(left), None)
            if suspect is not None and len(self._status.suspects) < SUSPECTS_LIMIT:
                self._status.suspects[suspect] = self._status.suspects.get(suspect, 0) + 1
            raise
        for message in wanted:
            if message.uid not in left:
                self._status.suspects.pop(message.uid, None)

    async def _fetch_missing(self, page: Page) -> None:
        settled = {m.surveyed.uid for m in page.fetched} | {m.uid for m in page.unavailable}
        for message in [m for m in page.wanted if m.uid not in settled]:
            whole = message.size <= self._options.message_limit
            before = len(page.fetched)
            for _ in range(SINGLE_TRIES):
                await self._fetch(page, [message], whole=whole)
                if len(page.fetched) > before:
                    break
            # Expunged meanwhile: not promised. Still shown: passed only with an event that says so.
            if len(page.fetched) == before and await self._source.survey(message.uid, message.uid):
                page.unavailable.append(message)

    async def _store(self, page: Page) -> None:
        page.fetched = []
        page.announced = await self._announcer.stored(page.made, page.unavailable)
        page.made = []

    async def _commit(self, page: Page, cursor: Cursor, noticed: float | None) -> Cursor:
        reached = self._passed(cursor, page.wanted[-1])
        if events := page.announced.events:
            started = self._clock.monotonic()
            await finish(self._events.commit(events, reached, dead=page.announced.dead))
            self._tell(len(events), noticed, started, reached)
        self._budget.give(page.held)
        self._held -= page.held
        return reached

    def _tell(self, events: int, noticed: float | None, started: float, reached: Cursor) -> None:
        now = self._clock.monotonic()
        metrics.EVENTS.labels(type=EventType.RECEIVED).inc(events)
        if noticed is not None:
            metrics.INGEST_SECONDS.observe(now - noticed)
        self._status.announced += events
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
