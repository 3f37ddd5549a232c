"""The record of one mailbox in the bucket `mail-after`: read, checked against the log, written by compare-and-set.

Used by work.py. It names who is at it: two processes at once would move a mail twice.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from msgspec.structs import replace

from service.after.plan import AtRecord, Record, dump_record, load_record, started
from service.bus import EventLog, KeyValue, StreamBounds

# A process that lives is given so many looks to notice that the mailbox is not its own any more.
OTHERS_WAITS: Final = 3


class Kept:
    """A mailbox's. `writer`: this process, as `is_alive` is asked for others."""

    def __init__(
        self,
        records: KeyValue,
        events: EventLog,
        key: str,
        *,
        mark: str,
        writer: str,
        is_alive: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._records = records
        self._events = events
        self._key = key
        self._mark = mark
        self._writer = writer
        self._is_alive = is_alive
        self._record: Record | None = None
        self._revision = 0
        self._last_writer = ""
        self._waits = 0

    @property
    def record(self) -> Record:
        """As it was read or written last."""
        if self._record is None:
            raise RuntimeError("a record before it is read")
        return self._record

    async def load(self, bounds: StreamBounds) -> None:
        """Read it. Raises Transient."""
        entry = await self._records.get(self._key)
        there = load_record(entry.value) if entry is not None else None
        at = AtRecord.GONE
        if there is not None and bounds.first_seq <= there.seq <= bounds.last_seq:
            message = await self._events.get(there.seq)
            # Where the log was rolled back another event may stand there.
            if message is not None:
                at = AtRecord.OURS if message.headers.get("ce-id") == there.id else AtRecord.OTHER
        self._record = started(there, created=bounds.created, last_seq=bounds.last_seq, at=at, mark=self._mark)
        self._revision = entry.revision if entry is not None else 0
        self._last_writer = there.writer if there is not None else ""

    def go_on(self, record: Record) -> None:
        """From another record than the one that was read; what is written next keeps it."""
        self._record = record

    async def others(self) -> bool:
        """Whether another process may be at it: look again in a while, and read it anew. Raises Transient."""
        free = self._last_writer in ("", self._writer) or self._waits >= OTHERS_WAITS
        if free or not await self._is_alive(self._last_writer):
            self._waits = 0
            return False
        self._waits += 1
        return True

    async def claim(self) -> None:
        """Before anything is done. Whoever was at it finds another revision from now on. Raises as write does."""
        if self._last_writer != self._writer:
            await self.write(self.record)

    async def write(self, record: Record) -> None:
        """Write it. Raises Conflict where another process did, Transient."""
        record = replace(record, writer=self._writer)
        value = dump_record(record)
        if self._revision:
            self._revision = await self._records.update(self._key, value, self._revision)
        else:
            self._revision = await self._records.create(self._key, value)
        self._record, self._last_writer = record, self._writer
