"""One mailbox's end of the log: finds where it stands, commits events and cursor together, settles lost answers.

Used by mailbox.py. Decides nothing itself: plan.py does. The fence is docs/decisions/0001-log-is-the-cursor.md.
"""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from service.bus import CommitUnknown, EventLog, FenceRefused, OutMessage, Staged, Tail
from service.clock import Clock, backoff_s
from service.contract import CURSOR_HEADER, DEAD_HEADER
from service.errors import Halted, Inward, MailbusError, Superseded, Transient, verdict_of
from service.ingest.copies import Copies
from service.ingest.cursor import Copy, Cursor, copy_key, dump_cursor, load_cursor
from service.ingest.dead import DeadLetters, dump_places, load_places
from service.ingest.erased import Erased
from service.ingest.plan import (
    FENCE_LIMIT_S,
    CopySeq,
    Position,
    Settled,
    StreamView,
    TailView,
    Why,
    is_foreign,
    is_other,
    needs_lookup,
    resume,
    same_place,
    settle,
)
from service.observe import log, metrics, step
from service.tasks import TaskGroup

COMMIT_TRIES: Final = 5
# A smaller batch is at the server before a head start would be.
STAGE_FROM_MESSAGES: Final = 20
# A reader may for an instant see the first part of a batch, whose end alone carries the cursor.
LOOK_AGAIN_S: Final = 0.2
# A log may go back without this process's connection having noticed anything: in a cluster, another server's disk.
LOOK_EVERY_S: Final = 900.0
# A mailbox without a connection is not woken by anything: so soon after a reconnect it looks.
LOOK_AT_REST_S: Final = 240.0
# Strangers' messages that are stepped over one by one, 0.3 ms each: beyond, a person shall look first.
FOREIGN_LIMIT: Final = 10_000


@dataclass(frozen=True, slots=True)
class WriterIdentity:
    """Who writes: `instance/boot`, and how to ask whether another writer is alive."""

    name: str
    is_alive: Callable[[str], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class _HeadStart:
    of: Sequence[OutMessage]
    batch: Staged


@dataclass(frozen=True, slots=True)
class _End:
    """The log's end as it was read; `as_left`: of ours it lost nothing but what retention or a purge took."""

    tail: TailView | None
    as_left: bool
    reconnects: int


class MailboxLog:
    """The events of one mailbox in `MAIL_IN`: one writer at a time, enforced by the server."""

    def __init__(
        self,
        events: EventLog,
        copies: Copies,
        dead: DeadLetters,
        *,
        account: str,
        mailbox: str,
        filter_subject: str,
        writer: WriterIdentity,
        alarm: Callable[[MailbusError], None],
        clock: Clock,
    ) -> None:
        self._events = events
        self._copies = copies
        self._dead = dead
        self._where = f"{account}, {mailbox}"
        self._filter = filter_subject
        self._mailbox = mailbox
        self._key = copy_key(account, mailbox)
        self._writer = writer
        self._alarm = alarm
        self._clock = clock
        self._alarmed = 0
        self._fence = 0
        self._at = 0
        self._fence_read = 0.0
        self._reconnects = 0
        # What the copy says of our last event, or of the one that we went on from.
        self._left: Copy | None = None
        self._stream: StreamView | None = None
        self._start: Cursor | None = None
        self._staged: _HeadStart | None = None

    @property
    def writer(self) -> str:
        """The name that this process writes under."""
        return self._writer.name

    async def resume(self, *, contest: bool) -> Position:
        """Where the mailbox goes on.

        Raises Superseded where another living writer wrote last and `contest` is False: this process
        was refused before, and the two must not take turns.
        """
        reconnects = self._events.reconnects
        tail = await self._tail()
        if tail is not None and not contest:
            await self._give_way(tail)
        copy = await self._copies.load(self._key)
        bounds = await self._events.bounds()
        self._stream = StreamView(bounds.created, bounds.first_seq, bounds.last_seq)
        same_stream = copy is not None and copy.stream_created == self._stream.created
        known_seq = copy.seq if copy is not None and same_stream else 0
        at_copy = CopySeq.UNKNOWN
        if copy is not None and needs_lookup(tail, copy, self._stream):
            at_copy = await self._look_up(copy)
        position = resume(tail, copy, self._stream, at_copy)
        self._fence, self._fence_read, self._reconnects = position.fence, self._clock.monotonic(), reconnects
        self._start = copy.start if copy is not None and same_stream else position.cursor
        self._left = self._copy(position.seq, position.cursor) if position.seq and position.cursor else None
        if tail is not None:
            self._tell_foreign(tail, known_seq)
            # The copy of a position is written once its commit's dead letters are there.
            if tail.dead and known_seq < tail.at:
                await self._make_up(tail)
        at = tail.at if tail is not None else 0
        if position.why is Why.ROLLED_BACK:
            metrics.LOG_ROLLBACK.inc()
            log.error("log_rollback", where=self._where, copy_seq=known_seq, tail_seq=at)
            if position.cursor is not None:
                await self._copies.replace(self._key, self._copy(at, position.cursor))
        elif position.why is Why.TAIL and position.cursor is not None and known_seq < at:
            await self._copies.write(self._key, self._copy(at, position.cursor))
        return position

    async def look(self) -> None:
        """See whether the log still ends as it was left: once after each reconnect, and now and then.

        Raises as `commit` does where it does not; where NATS does not say, the next look will do.
        """
        is_old = self._clock.monotonic() - self._fence_read > LOOK_EVERY_S
        if not is_old and self._events.reconnects == self._reconnects:
            return
        try:
            end = await self._read_end()
        except Transient as exc:
            log.debug("log_not_seen", where=self._where, error=str(exc))
            return
        await self._go_on_from(end)

    async def looking(self, rest: Coroutine[Any, Any, None]) -> None:
        """Await what may take hours, and look meanwhile. Raises as `look` does."""

        async def look() -> None:
            while True:
                await self._clock.sleep(LOOK_AT_REST_S)
                await self.look()

        try:
            async with TaskGroup() as group:
                looks = group.create_task(look(), name="look")
                await rest
                looks.cancel()
        except BaseExceptionGroup as failed:
            raise verdict_of(failed) from failed

    async def stage(self, messages: Sequence[OutMessage]) -> None:
        """Give the next commit, of these very messages, a head start while another one is under way."""
        if len(messages) >= STAGE_FROM_MESSAGES and (batch := await self._events.stage(messages)) is not None:
            self.let_go()
            self._staged = _HeadStart(messages, batch)

    def let_go(self) -> None:
        """Give up a head start that no commit will come for."""
        if self._staged is not None:
            self._staged.batch.close()
            self._staged = None

    async def commit(self, messages: Sequence[OutMessage], cursor: Cursor, *, dead: Sequence[int] = ()) -> None:
        """Put events and cursor into the log, together or not at all; then copy those at `dead` to the dead letters.

        A refusal or a lost answer is settled by reading the log. Raises Transient where the log has moved on
        (resume again), Superseded where another living writer moved it, MessageTooLarge before anything is sent.
        """
        last = messages[-1]
        marks = {CURSOR_HEADER: dump_cursor(cursor)}
        if dead:
            marks[DEAD_HEADER] = dump_places([len(messages) - 1 - index for index in dead])
        marked = replace(last, headers=last.headers | marks)
        staged, self._staged = self._staged, None
        head_start = staged.batch if staged is not None and staged.of is messages else None
        try:
            at = await self._put([*messages[:-1], marked], cursor, last.headers.get("ce-id", ""), head_start)
        finally:
            # Its place, where it was of others, or nothing was sent.
            if staged is not None:
                staged.batch.close()
        await self._dead.put([messages[index] for index in dead])
        self._note(at, cursor)

    async def _put(self, batch: Sequence[OutMessage], cursor: Cursor, id: str, head_start: Staged | None) -> int:
        """Where the log has it; `id`: the last event's. Raises as `commit` does."""
        reason = ""
        for attempt in range(1, COMMIT_TRIES + 1):
            if self._clock.monotonic() - self._fence_read > FENCE_LIMIT_S:
                await self._go_on_from(await self._read_end())
            reconnects = self._events.reconnects
            step("commit.before")
            try:
                fence = at = await self._events.commit(
                    batch, filter_subject=self._filter, fence=self._fence, staged=head_start if attempt == 1 else None
                )
            except (FenceRefused, CommitUnknown) as exc:
                tail = await self._tail()
                match settle(tail, self._fence, cursor, id):
                    case Settled.LANDED if tail is not None:
                        fence, at = tail.seq, tail.at
                    case Settled.NOT_THERE:
                        reason = exc.what
                        log.info("commit_again", where=self._where, attempt=attempt, error=reason)
                        self._fence_on(tail)
                        pause = backoff_s(attempt, first_s=0.05, factor=3, max_s=2, chance=self._clock.chance())
                        await self._clock.sleep(pause)
                        continue
                    case _:
                        await self._moved(tail)
            step("commit.done")
            self._fence, self._fence_read, self._reconnects = fence, self._clock.monotonic(), reconnects
            return at
        raise Inward(
            f"the log does not take events: {reason}",
            where=self._where,
            remedy="nothing is lost, it is tried again; look at the stream's limits and NATS's disk",
        )

    async def _read_end(self) -> _End:
        """The log's end, and whether it is as we left it. Raises Transient, and Permanent as _tail does."""
        reconnects, left = self._events.reconnects, self._left
        tail = await self._tail()
        if left is None:
            return _End(tail, tail is None or tail.cursor is None, reconnects)
        if tail is not None and tail.cursor is not None and tail.at >= left.seq:
            return _End(tail, tail.at == left.seq and same_place(tail.cursor, left.cursor), reconnects)
        # Ours is not there any more: what a start would make of that.
        bounds = await self._events.bounds()
        stream = StreamView(bounds.created, bounds.first_seq, bounds.last_seq)
        at_left = await self._look_up(left) if needs_lookup(tail, left, stream) else CopySeq.UNKNOWN
        return _End(tail, resume(tail, left, stream, at_left).why is Why.COPY, reconnects)

    async def _go_on_from(self, end: _End) -> None:
        if not end.as_left:
            await self._moved(end.tail)
        self._fence_on(end.tail)
        self._reconnects = end.reconnects

    async def _moved(self, tail: TailView | None) -> None:
        if tail is not None:
            await self._give_way(tail)
        raise Inward("the log is not as it was left", where=self._where, remedy="it is read again")

    def _fence_on(self, tail: TailView | None) -> None:
        """The fence is always the tail that is really there: lower after retention, higher after a stranger."""
        if tail is not None:
            self._tell_foreign(tail, self._fence)
        self._fence, self._fence_read = tail.seq if tail else 0, self._clock.monotonic()

    def _tell_foreign(self, tail: TailView, known_seq: int) -> None:
        """Say that somebody else published here: once for each end of the log."""
        if not is_foreign(tail, known_seq) or tail.seq <= self._alarmed:
            return
        self._alarmed = tail.seq
        metrics.FOREIGN_EVENTS.inc()
        log.error("foreign_event", where=self._where, seq=tail.seq, position_seq=tail.at)
        self._alarm(
            Transient(
                f"message {tail.seq} of the log is none of mailbus's; it goes on from its own last one",
                where=self._where,
                remedy="only mailbus may publish on the events' subjects: set permissions, look who else did",
            )
        )

    async def _give_way(self, tail: TailView) -> None:
        other = tail.cursor.writer if tail.cursor is not None else self._writer.name
        if is_other(other, self._writer.name) and await self._writer.is_alive(other):
            raise Superseded(
                f"{other} writes this mailbox now",
                where=self._where,
                remedy="give each account to one deployment; this one lets go until the other is gone",
            )

    async def _make_up(self, tail: TailView) -> None:
        """The dead letters of the last commit: whoever wrote it may have been killed before they were published."""
        # A commit's messages stand side by side: NATS puts a batch into the stream as one.
        events = [await self._events.get(tail.at - place) for place in tail.dead]
        prefix = self._filter.removesuffix("*")
        ours = [event for event in events if event and event.subject.startswith(prefix) and "ce-id" in event.headers]
        if ours:
            await self._dead.make_up(ours)

    def _note(self, at: int, cursor: Cursor) -> None:
        self._at = at
        if self._start is None:
            self._start = cursor
        self._left = self._copy(at, cursor)
        self._copies.note(self._key, self._left)

    @property
    def fence(self) -> int:
        """The sequence of the mailbox's last message, whoever published it; 0 without one."""
        return self._fence

    @property
    def at(self) -> int:
        """The sequence of the last event that was committed here."""
        return self._at

    async def bounds(self) -> tuple[int, int]:
        """The log's first and last sequence. Raises Transient."""
        bounds = await self._events.bounds()
        return bounds.first_seq, bounds.last_seq

    async def erased(self) -> list[Erased]:
        """What was taken out of the mailbox's events by an erasure. Raises Transient."""
        created = self._stream.created if self._stream is not None else None
        return await self._copies.erased(self._filter, stream_created=created) if created is not None else []

    def note(self, seq: int, cursor: Cursor) -> None:
        """Have the copy say what is known of a place that no commit moves on from now."""
        self._copies.note(self._key, self._copy(seq, cursor))

    def new_epoch(self, start: Cursor) -> None:
        """The starting point that the copies carry from the next commit on."""
        self._start = start

    def _copy(self, seq: int, cursor: Cursor) -> Copy:
        if self._stream is None:
            raise RuntimeError("commit before resume")
        return Copy(self._stream.created, seq, cursor, self._start or cursor, self._mailbox)

    async def _tail(self) -> TailView | None:
        """The mailbox's last message, and the last one that carries a cursor.

        Raises Permanent for a newer version's cursor, and where too many messages without one lie on top.
        """
        last = await self._events.tail(self._filter)
        if last is not None and self._cursor_of(last) is None:
            await self._clock.sleep(LOOK_AGAIN_S)
            last = await self._events.tail(self._filter)
        if last is None:
            return None
        ours: Tail | None = last
        for _ in range(FOREIGN_LIMIT):
            if ours is None:
                return TailView(last.seq, 0, None)
            if (cursor := self._cursor_of(ours)) is not None:
                headers = ours.headers
                dead = load_places(headers.get(DEAD_HEADER, ""))
                return TailView(last.seq, ours.seq, cursor, dead, headers.get("ce-id", ""))
            ours = await self._events.before(self._filter, ours.seq)
        raise Halted(
            f"more than {FOREIGN_LIMIT} messages that are none of mailbus's hide its last event",
            where=self._where,
            remedy=f"stop who publishes on {self._filter}, and remove them: nats stream purge --subject",
        )

    def _cursor_of(self, message: Tail) -> Cursor | None:
        text = message.headers.get(CURSOR_HEADER, "")
        return load_cursor(text, where=f"{self._where}, message {message.seq} of the log")

    async def _look_up(self, copy: Copy) -> CopySeq:
        message = await self._events.get(copy.seq)
        if message is None:
            return CopySeq.DELETED
        ours = message.subject.startswith(self._filter.removesuffix("*"))
        # Where the log was rolled back, somebody else's message may stand there, on our own subject too.
        there = self._cursor_of(message) if ours else None
        return CopySeq.OURS if there is not None and same_place(there, copy.cursor) else CopySeq.FOREIGN
