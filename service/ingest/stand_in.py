"""A maildrop in the place of a mailbox that IMAP does not give now, as a Source: new mail, and nothing else.

Only where the server's unique ids are made of IMAP's UIDs: then a mail that is announced by either way has the same
number, the same id and the same place in the log, and the way back is no more than a reconnect. What is removed or
flagged meanwhile IMAP tells on its return, which compares in full. Rules: docs/decisions/0014-pop3-stands-in.md.
"""

import asyncio
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Final

from service.clock import Clock
from service.contract import Sync
from service.errors import Permanent
from service.ingest.contents import Contents
from service.ingest.cursor import Cursor, source_id
from service.ingest.known import Flagged, Uids
from service.ingest.memory import Memory
from service.ingest.plan import SURVEY_LIMIT_ROWS, Position, Recalled
from service.ingest.source import Epoch, Fetched, Looked, Stirred, Surveyed, Told
from service.pop3 import Door, Session, linked_uid

JITTER: Final = 0.2


class StandIn:
    """INBOX by POP3, from where the log stands. `host`: of the IMAP server that it stands in for."""

    sync = Sync.SNAPSHOT
    modseq = 0
    refused: Sequence[str] = ()

    def __init__(
        self,
        door: Door,
        memory: Memory,
        position: Position,
        *,
        host: str,
        mailbox: str,
        poll_s: float,
        clock: Clock,
    ) -> None:
        options = door.options
        self.id = source_id(host, options.username, mailbox)
        self._where = options.where
        self._door = door
        self._memory = memory
        self._position = position
        self._poll_s = poll_s
        self._clock = clock
        self._contents = Contents(options.message_limit, clock)
        self._session: Session | None = None
        self._uidvalidity = 0
        self._base = 0  # up to this UID everything is announced, or is not ours to announce
        self._uids = array("I")  # of what is new, ascending
        self._numbers: dict[int, tuple[int, int]] = {}  # UID → number in this session, size
        self._look_at = 0.0

    async def open(self) -> Epoch:
        """The maildrop, where it can stand in. Raises Permanent where it cannot."""
        if not self._uidvalidity:
            cursor = await self._start()
            self._uidvalidity, self._base = cursor.uidvalidity, cursor.last
        if self._clock.monotonic() >= self._look_at:
            await self._look()
        last = self._uids[-1] if self._uids else self._base
        return Epoch(self._uidvalidity, last + 1, len(self._uids), uidnext_told=False)

    async def _start(self) -> Cursor:
        """Where to go on: only from what IMAP has left in good order."""
        cursor = self._position.cursor
        if cursor is None or cursor.source != self.id or self._position.again:
            raise self._cannot("IMAP has not said yet where the mailbox begins")
        recalled = await self._memory.recall(cursor, self._position.seq, self._position.older)
        is_behind = cursor.since is not None and cursor.last < cursor.line
        if recalled is not Recalled.WHOLE or cursor.before is not None or is_behind:
            raise self._cannot("what is known of the mailbox has to be compared by IMAP first")
        return cursor

    def _cannot(self, why: str) -> Permanent:
        return Permanent(f"POP3 cannot stand in: {why}", where=self._where, remedy="mail comes when IMAP is back")

    async def _look(self) -> None:
        await self._leave()
        self._session = session = await self._door.enter()
        sizes: dict[int, int] = {}
        numbers: dict[int, tuple[int, int]] = {}
        linked = count = 0

        def take(rows: list[tuple[int, bytes]]) -> None:
            nonlocal linked, count
            count += len(rows)
            for number, uidl in rows:
                uid = linked_uid(uidl, self._uidvalidity)
                linked += uid > 0
                if uid > self._base and number in sizes:
                    numbers[uid] = (number, sizes[number])

        await session.sizes(sizes.update)
        await session.uidls(take)
        if count and not linked:
            raise self._cannot("the server's unique ids (UIDL) are not made of IMAP's UIDs")
        self._numbers, self._uids = numbers, array("I", sorted(numbers))
        pause_s = self._poll_s * (1 - JITTER / 2 + JITTER * self._clock.chance())
        self._look_at = max(self._clock.monotonic() + pause_s, self._door.not_before)

    async def survey(self, first: int, last: int | None) -> list[Surveyed]:
        """Of what is new. Sizes and dates of POP3 are not those of IMAP: they mark nothing."""
        found: list[Surveyed] = []
        for uid in self._uids[bisect_left(self._uids, first) :]:
            if (last is not None and uid > last) or len(found) >= SURVEY_LIMIT_ROWS:
                break
            found.append(Surveyed(uid, self._numbers[uid][1], frozenset(), None, unmarked=True))
        return found

    async def since(self, moment: datetime) -> int | None:
        """Never asked: no epoch begins here."""
        return None

    async def fetch(self, wanted: Sequence[Surveyed], give: Callable[[Fetched], None], *, whole: bool) -> None:
        """RETR, or TOP for the header alone."""
        if self._session is None:
            await self._look()
        there = {self._numbers[message.uid][0]: message for message in wanted if message.uid in self._numbers}

        def take(number: int, body: bytes) -> None:
            message = there[number]
            date = self._contents.of(body, message.size, whole=whole).date or self._clock.now()
            give(Fetched(replace(message, internal_date=date), body, whole))

        if self._session is None:
            raise RuntimeError("a message's number without its session")
        refused = await self._session.read(list(there), take, whole=whole)
        for number in refused:
            # It may be gone, or not to be had by POP3: IMAP will say.
            uid = there[number].uid
            self._uids.remove(uid)
            del self._numbers[uid]

    async def highest(self) -> int:
        """As it was at the last look."""
        return self._uids[-1] if self._uids else self._base

    async def wait(self, limit_s: float) -> float | None:
        """Let others have the maildrop until it is time to look again."""
        await self._leave()
        pause_s = max(0.0, min(limit_s, self._look_at - self._clock.monotonic()))
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await asyncio.Event().wait()
        if self._clock.monotonic() < self._look_at:
            return None
        self._base = max(self._base, await self.highest())
        await self._look()
        return self._clock.monotonic() if self._uids else None

    @property
    def displaced(self) -> bool:
        """Never: a maildrop is all that there is here."""
        return False

    async def rest(self, _looked: Looked, limit_s: float) -> None:
        """As `wait`, without a word."""
        await self.wait(limit_s)

    def nudge(self) -> None:
        """Nobody asks a stand-in to compare."""

    def stirred(self) -> Stirred:
        """Nothing but new mail is told here."""
        return Stirred(gone=False, flags=False, numbers=frozenset())

    async def flags(self, first: int, last: int, since: int) -> Told:
        """Nothing: IMAP compares when it is back."""
        return Told([], [], whole=False)

    async def flags_of(self, numbers: frozenset[int]) -> list[Flagged]:
        """Nothing."""
        return []

    async def present(self, first: int, last: int) -> list[Uids]:
        """Everything, as far as is known here."""
        return [Uids(first, last)]

    async def close(self) -> None:
        """QUIT."""
        await self._leave()

    def abort(self) -> None:
        """Drop the session."""
        session, self._session = self._session, None
        if session is not None:
            self._door.abort(session)

    async def _leave(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await self._door.leave(session)
