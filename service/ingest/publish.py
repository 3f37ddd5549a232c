"""One mailbox's end of the log: finds where it stands, commits events and cursor together, settles lost answers.

Used by mailbox.py. Decides nothing itself: plan.py does. The fence is docs/decisions/0001-log-is-the-cursor.md.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from service.bus import CommitUnknown, EventLog, FenceRefused, OutMessage, Tail
from service.clock import Clock, backoff_s
from service.contract import CURSOR_HEADER
from service.errors import Superseded, Transient
from service.ingest.copies import Copies
from service.ingest.cursor import Copy, Cursor, copy_key, dump_cursor, load_cursor
from service.ingest.plan import (
    FENCE_LIMIT_S,
    CopySeq,
    Position,
    Settled,
    StreamView,
    TailView,
    Why,
    is_other,
    needs_lookup,
    resume,
    settle,
)
from service.observe import log, metrics, step

COMMIT_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class WriterIdentity:
    """Who writes: `instance/boot`, and how to ask whether another writer is alive."""

    name: str
    is_alive: Callable[[str], Awaitable[bool]]


class MailboxLog:
    """The events of one mailbox in `MAIL_IN`: one writer at a time, enforced by the server."""

    def __init__(
        self,
        events: EventLog,
        copies: Copies,
        *,
        account: str,
        mailbox: str,
        filter_subject: str,
        writer: WriterIdentity,
        clock: Clock,
    ) -> None:
        self._events = events
        self._copies = copies
        self._where = f"{account}, {mailbox}"
        self._filter = filter_subject
        self._key = copy_key(account, mailbox)
        self._writer = writer
        self._clock = clock
        self._fence = 0
        self._fence_read = 0.0
        self._stream: StreamView | None = None
        self._start: Cursor | None = None

    @property
    def writer(self) -> str:
        """The name that this process writes under."""
        return self._writer.name

    async def resume(self, *, contest: bool) -> Position:
        """Where the mailbox goes on.

        Raises Superseded where another living writer wrote last and `contest` is False: this process
        was refused before, and the two must not take turns.
        """
        tail = await self._tail()
        if tail is not None and not contest:
            await self._give_way(tail)
        copy = await self._copies.load(self._key)
        bounds = await self._events.bounds()
        self._stream = StreamView(bounds.created, bounds.first_seq, bounds.last_seq)
        at_copy = CopySeq.UNKNOWN
        if copy is not None and needs_lookup(tail, copy, self._stream):
            at_copy = await self._look_up(copy.seq)
        position = resume(tail, copy, self._stream, at_copy)
        self._fence, self._fence_read = position.fence, self._clock.monotonic()
        same_stream = copy is not None and copy.stream_created == self._stream.created
        self._start = copy.start if copy is not None and same_stream else position.cursor
        if position.why is Why.ROLLED_BACK:
            metrics.LOG_ROLLBACK.inc()
            log.error("log_rollback", where=self._where, copy_seq=copy.seq if copy else 0, tail_seq=position.fence)
            if position.cursor is not None:
                await self._copies.replace(self._key, self._copy(position.fence, position.cursor))
        elif tail is not None and position.why is Why.TAIL and (not same_stream or (copy and copy.seq < tail.seq)):
            await self._copies.write(self._key, self._copy(tail.seq, tail.cursor))
        return position

    async def commit(self, messages: Sequence[OutMessage], cursor: Cursor) -> None:
        """Put events and cursor into the log, together or not at all.

        A refusal or a lost answer is settled by reading the log. Raises Transient where the log has moved on
        (resume again), Superseded where another living writer moved it, MessageTooLarge before anything is sent.
        """
        last = messages[-1]
        marked = replace(last, headers={**last.headers, CURSOR_HEADER: dump_cursor(cursor)})
        batch = [*messages[:-1], marked]
        reason = ""
        for attempt in range(1, COMMIT_TRIES + 1):
            if self._clock.monotonic() - self._fence_read > FENCE_LIMIT_S:
                tail = await self._tail()
                self._fence_read = self._clock.monotonic()
                if (tail.seq if tail else 0) > self._fence:
                    await self._moved(tail)
                # Lower is retention: the fence is always the tail that is really there.
                self._fence = tail.seq if tail else 0
            step("commit.before")
            try:
                seq = await self._events.commit(batch, filter_subject=self._filter, fence=self._fence)
            except (FenceRefused, CommitUnknown) as exc:
                tail = await self._tail()
                match settle(tail, self._fence, cursor):
                    case Settled.LANDED if tail is not None:
                        seq = tail.seq
                    case Settled.NOT_THERE:
                        reason = exc.what
                        log.info("commit_again", where=self._where, attempt=attempt, error=reason)
                        pause = backoff_s(attempt, first_s=0.05, factor=3, max_s=2, chance=self._clock.chance())
                        await self._clock.sleep(pause)
                        continue
                    case _:
                        await self._moved(tail)
            step("commit.done")
            self._note(seq, cursor)
            return
        raise Transient(
            f"the log does not take events: {reason}",
            where=self._where,
            remedy="nothing is lost, it is tried again; look at the stream's limits and NATS's disk",
        )

    async def _moved(self, tail: TailView | None) -> None:
        if tail is not None:
            await self._give_way(tail)
        raise Transient("the log has moved on", where=self._where, remedy="it is read again")

    async def _give_way(self, tail: TailView) -> None:
        other = tail.cursor.writer
        if is_other(other, self._writer.name) and await self._writer.is_alive(other):
            raise Superseded(
                f"{other} writes this mailbox now",
                where=self._where,
                remedy="give each account to one deployment; this one lets go until the other is gone",
            )

    def _note(self, seq: int, cursor: Cursor) -> None:
        self._fence, self._fence_read = seq, self._clock.monotonic()
        if self._start is None:
            self._start = cursor
        self._copies.note(self._key, self._copy(seq, cursor))

    @property
    def fence(self) -> int:
        """The sequence of the mailbox's last event; 0 without one."""
        return self._fence

    async def bounds(self) -> tuple[int, int]:
        """The log's first and last sequence. Raises Transient."""
        bounds = await self._events.bounds()
        return bounds.first_seq, bounds.last_seq

    def note(self, seq: int, cursor: Cursor) -> None:
        """Have the copy say what is known of a place that no commit moves on from now."""
        self._copies.note(self._key, self._copy(seq, cursor))

    def new_epoch(self, start: Cursor) -> None:
        """The starting point that the copies carry from the next commit on."""
        self._start = start

    def _copy(self, seq: int, cursor: Cursor) -> Copy:
        if self._stream is None:
            raise RuntimeError("commit before resume")
        return Copy(stream_created=self._stream.created, seq=seq, cursor=cursor, start=self._start or cursor)

    async def _tail(self) -> TailView | None:
        tail = await self._events.tail(self._filter)
        return None if tail is None else TailView(tail.seq, self._cursor_of(tail))

    def _cursor_of(self, tail: Tail) -> Cursor:
        return load_cursor(tail.headers.get(CURSOR_HEADER, ""))

    async def _look_up(self, seq: int) -> CopySeq:
        message = await self._events.get(seq)
        if message is None:
            return CopySeq.DELETED
        prefix = self._filter.removesuffix("*")
        return CopySeq.OURS if message.subject.startswith(prefix) else CopySeq.FOREIGN
