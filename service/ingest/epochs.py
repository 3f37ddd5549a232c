"""Where a mailbox goes on, or begins anew: which epoch, from which line, and what of the old epoch is recognised.

Used by mailbox.py. An epoch begins with a `reset`. What was known before is carried over in silence, what was below
the starting line stays there, and what came while the server changed is announced.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import UNSET
from msgspec.structs import replace

from service.clock import Clock
from service.contract import EventType, Reset, ResetReason, email_id
from service.errors import MailbusError, Transient
from service.ingest.announce import Announcer
from service.ingest.cursor import Before, Cursor, before_of, has_same_marks, name_id
from service.ingest.kinship import Kinship
from service.ingest.marks import Recogniser
from service.ingest.memory import Memory
from service.ingest.notes import Line
from service.ingest.plan import (
    NEAR_S,
    SURVEY_LIMIT_ROWS,
    Former,
    Position,
    Recalled,
    Why,
    announced,
    beyond,
    drawn,
    epoch_break,
    fingerprint_of,
    mark_of,
    runs_backwards,
)
from service.ingest.source import Epoch, Source
from service.ingest.surveyed import Surveyed
from service.observe import log, metrics

# Before any mail: without a floor, everything that is not recognised is new.
EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
NO_LINE: Final = Line(None, ())


@dataclass(frozen=True, slots=True)
class Begun:
    """Where to go on, and how much is known of what was announced before."""

    cursor: Cursor
    recalled: Recalled
    reset: bool = False


class Epochs:
    """The beginnings of one mailbox, on one connection. `kinship`: what it may have been called until now."""

    def __init__(
        self,
        source: Source,
        memory: Memory,
        announcer: Announcer,
        *,
        initial: datetime | str,
        account: str,
        mailbox: str,
        writer: str,
        degraded: Callable[[MailbusError], None],
        clock: Clock,
        kinship: Kinship,
    ) -> None:
        self._source = source
        self._memory = memory
        self._announcer = announcer
        self._initial = initial
        self._account = account
        self._mailbox = mailbox
        self._writer = writer
        self._degraded = degraded
        self._clock = clock
        self._kinship = kinship
        self._recogniser: Recogniser | None = None

    async def begin(self, position: Position, epoch: Epoch) -> Begun:
        """Go on from a position, or begin an epoch and say so."""
        begun = await self._begin(position, epoch)
        self._kinship.began()
        return begun

    async def _begin(self, position: Position, epoch: Epoch) -> Begun:
        cursor = position.cursor
        if cursor is None and (renamed := await self._gone_on(None, epoch)) is not None:
            return renamed
        if cursor is None:
            if position.why is Why.OTHER_STREAM:
                log.error("log_made_anew", account=self._account, mailbox=self._mailbox)
            start, line = await self._start(epoch)
            return Begun(await self._reset(start, ResetReason.START, None, line), Recalled.WHOLE, reset=True)
        if position.again:
            start, line = replace(cursor, writer=self._writer), await self._drawn(epoch, cursor)
            return Begun(await self._reset(start, ResetReason.START, None, line), Recalled.WHOLE, reset=True)
        reason = await self._broken(cursor, epoch)
        recalled = await self._memory.recall(cursor, position.seq, position.older)
        if reason is not None:
            return await self._renew(cursor, epoch, reason, recalled, seq=position.seq)
        if (former := await self._later(cursor, epoch, position.seq)) is not None:
            return await self._renamed(former, cursor, epoch)
        if recalled is Recalled.PARTIAL:
            self._degraded(_incomplete())
        for over in await self._kinship.stayed(cursor):
            self._memory.passed_by(over)
        cursor = replace(cursor, writer=self._writer, box=epoch.mailbox_id)
        if cursor.before is not None:
            await self._recognise(cursor.before)
            await self._skim(cursor.before, cursor.last)
        return Begun(cursor, recalled)

    # -- which epoch it is ------------------------------------------------------------------------------------

    async def _broken(self, cursor: Cursor, epoch: Epoch) -> ResetReason | None:
        backwards = runs_backwards(cursor, epoch)
        wanted = cursor.last and (cursor.fingerprint or backwards)
        at_last = await self._source.survey(cursor.last, cursor.last) if wanted else []
        reason = epoch_break(cursor, self._source.id, epoch, at_last)
        if reason is None and backwards:
            metrics.PROTOCOL_VIOLATION.labels(kind="uidnext_backwards").inc()
            # Where the last message is still there, the server is wrong about what comes next, and about nothing else.
            return None if at_last else ResetReason.SOURCE
        return reason

    async def _is_renamed(self, former: Former, epoch: Epoch) -> bool:
        """Whether this is the mailbox that had the other name: the server says so, or nothing says otherwise."""
        old = former.cursor
        # RFC 8474 4: as for epoch_break.
        if old.box and epoch.mailbox_id and old.box != epoch.mailbox_id:
            return False
        if former.proved:
            return True
        if old.uidvalidity != epoch.uidvalidity or epoch.uidnext <= old.last:
            return False
        at_last = await self._source.survey(old.last, old.last) if old.last and old.fingerprint else []
        return all(fingerprint_of(message) == old.fingerprint for message in at_last)

    # -- starting lines ---------------------------------------------------------------------------------------

    async def _start(self, epoch: Epoch) -> tuple[Cursor, Line]:
        """The `initial` rule as a cursor."""
        existing = epoch.uidnext - 1
        first = Cursor(
            self._source.id,
            epoch.uidvalidity,
            existing,
            existing,
            self._writer,
            modseq=epoch.modseq,
            box=epoch.mailbox_id,
        )
        match self._initial:
            case "all":
                return replace(first, last=0, line=0), NO_LINE
            case datetime() as since:
                lowest = await self._source.since(since)
                # All that arrived since then is announced: nothing needs a mark.
                return replace(first, last=existing if lowest is None else lowest - 1, since=since), Line(since, ())
            case _:
                return first, await self._drawn(epoch, first)

    async def _drawn(self, epoch: Epoch, cursor: Cursor) -> Line:
        if cursor.line == 0:
            return NO_LINE
        floor = self._clock.now() - timedelta(seconds=NEAR_S)
        return drawn([row for row in await self._since(floor, epoch) if not announced(row, cursor)], floor)

    async def _since(self, moment: datetime, epoch: Epoch) -> list[Surveyed]:
        """What arrived since, of the newest SURVEY_LIMIT_ROWS numbers at the most."""
        existing = epoch.uidnext - 1
        lowest = await self._source.since(moment) if epoch.exists else None
        if lowest is None:
            return []
        rows = await self._source.survey(max(lowest, existing - SURVEY_LIMIT_ROWS + 1), existing)
        return [row for row in rows if row.internal_date is not None and row.internal_date >= moment]

    # -- a new epoch after another ----------------------------------------------------------------------------

    async def _renew(self, old: Cursor, epoch: Epoch, reason: ResetReason, recalled: Recalled, *, seq: int) -> Begun:
        here = old.source == self._source.id
        if has := recalled is Recalled.WHOLE and has_same_marks(old.source, self._source.id):
            old = await self._memory.save(old)
        if here:
            # Before it looks for its own: two that have swapped names wait for each other otherwise.
            for over in await self._kinship.entered(epoch):
                self._memory.passed_by(over)
            if has:
                for over in await self._kinship.left(old, seq):
                    self._memory.passed_by(over)
            # Another may have been renamed to what this one was called.
            if (renamed := await self._gone_on(old, epoch)) is not None:
                return renamed
        salt = old.salt + 1 if here and old.uidvalidity == epoch.uidvalidity else 0
        start, line = await self._start(epoch)
        if has:
            start, line = await self._after(before_of(old, elsewhere=not here), start, epoch)
        elif self._initial != "all":
            self._degraded(_not_recognised())
        start = replace(start, salt=salt, rollbacks=old.rollbacks, turn=_next_turn(old, epoch))
        begun = Begun(await self._reset(start, reason, old.uidvalidity, line), Recalled.WHOLE, reset=True)
        await self._let_go(old, begun.cursor)
        return begun

    async def _gone_on(self, own: Cursor | None, epoch: Epoch) -> Begun | None:
        """As `_renamed`; None where it had no other name. `own`: where another mailbox of this name stood."""
        for one in await self._kinship.former(epoch, begun=own is not None):
            if await self._is_renamed(one, epoch):
                return await self._renamed(one, own, epoch)
        return None

    async def _later(self, cursor: Cursor, epoch: Epoch, seq: int) -> Former | None:
        """What it was called since it stood at its own position: it was renamed, and has its name back."""
        for one in await self._kinship.later(epoch, seq):
            # It only went on since: whoever shows less is another, or has not gone through all that is known here.
            if one.cursor.last >= cursor.last and await self._is_renamed(one, epoch):
                return one
        return None

    async def _renamed(self, former: Former, own: Cursor | None, epoch: Epoch) -> Begun:
        """An epoch after that of the same mailbox under another name, by what is known of that.

        `own`: where it, or another mailbox, stood under this name.
        """
        old = former.cursor
        self._initial = former.initial
        before = before_of(old, mailbox=former.mailbox)
        await self._kinship.taken(before)
        start, line = await self._after(before, (await self._start(epoch))[0], epoch)
        start = replace(start, former=name_id(former.mailbox))
        if own is not None:
            again = own.uidvalidity == epoch.uidvalidity
            turn = _next_turn(own, epoch)
            start = replace(start, salt=own.salt + 1 if again else 0, rollbacks=own.rollbacks, turn=turn)
        begun = Begun(await self._reset(start, ResetReason.RENAMED, old.uidvalidity, line), Recalled.WHOLE, reset=True)
        if own is not None:
            await self._let_go(own, begun.cursor)
        return begun

    async def _after(self, before: Before, start: Cursor, epoch: Epoch) -> tuple[Cursor, Line]:
        """The `initial` rule where the epoch before is known: only what it does not recognise is announced."""
        # What the server shows counts, whatever it says of the next number.
        top = max(epoch.uidnext - 1, await self._source.highest())
        before = replace(before, top=top)
        found = await self._recognise(before)
        if start.line == 0:
            return replace(start, before=before), NO_LINE
        floor = max(filter(None, (self._initial_since(), found.floor if found else None)), default=EVER)
        lowest = await self._source.since(floor) if floor > EVER else 1
        first = top + 1 if lowest is None else lowest
        before = replace(before, first=first)
        near_since = self._clock.now() - timedelta(seconds=NEAR_S)
        seen = [
            row
            for row in await self._since(near_since, epoch)
            if row.internal_date is not None
            and (row.internal_date < floor or (found is not None and found.has(mark_of(row))))
        ]
        return replace(start, last=first - 1, line=top, since=floor, before=before), drawn(seen, near_since)

    def _initial_since(self) -> datetime | None:
        return self._initial if isinstance(self._initial, datetime) else None

    async def _recognise(self, before: Before) -> Recogniser | None:
        self._recogniser = await self._memory.recogniser(before)
        if self._recogniser is None or not self._recogniser.whole:
            self._degraded(_not_recognised())
        return self._recogniser

    async def _skim(self, before: Before, last: int) -> None:
        """What was looked at before a restart is recognised once more, so that nothing else is taken for it."""
        first, last = before.first, min(last, before.top)
        while first <= last and self._recogniser is not None:
            reached = await self._source.reach(first, last)
            rows = await self._source.survey(first, reached)
            for row in rows:
                self._recogniser.take(mark_of(row))
            first = beyond(rows, reached)

    def choose(self, found: Sequence[Surveyed], cursor: Cursor) -> list[Surveyed]:
        """What of the surveyed messages is announced, with the id that it had in the epoch before."""
        before, recogniser = cursor.before, self._recogniser
        if before is None:
            return [row for row in found if announced(row, cursor)]
        # The first in which something was announced: what is recognised has its UIDs.
        named = next(iter(before.chain()), before)
        chosen: list[Surveyed] = []
        for row in found:
            uid = None
            if recogniser is not None and row.uid <= before.top:
                uid = recogniser.take(mark_of(row))
            if row.uid > cursor.line and not row.elsewhere:
                name = recogniser.name_of(uid) if recogniser is not None and uid else 0
                box = named.mailbox or self._mailbox
                chosen.append(_with_id(row, email_id(box, named.uidvalidity, name, named.turn) if name else ""))
            elif uid is None and recogniser is not None and announced(row, cursor):
                chosen.append(row)
        return chosen

    async def settled(self, cursor: Cursor) -> Cursor:
        """Forget the epoch before once all that may be recognised has passed."""
        if cursor.before is None or cursor.last < cursor.before.top:
            return cursor
        self._recogniser = None
        for one in cursor.before.chain():
            await self._done_with(one.id, one.mailbox)
        return replace(cursor, before=None)

    async def _let_go(self, old: Cursor, cursor: Cursor) -> None:
        """What was known in an epoch, and what it still recognised by, unless the one after it recognises by that."""
        if old.state is not None and old.state.id not in ("", *cursor.needed):
            await self._done_with(old.state.id)
        for one in old.before.chain() if old.before is not None else ():
            if one.id not in cursor.needed:
                await self._done_with(one.id, one.mailbox)

    async def _done_with(self, snapshot: str, mailbox: str = "") -> None:
        """It needs what was known in an epoch before no more; another one may."""
        if mailbox:
            # What another name's log refers to stays, or may turn out to.
            await self._kinship.settled(snapshot)
        else:
            self._memory.passed_by(snapshot)

    async def _reset(self, cursor: Cursor, reason: ResetReason, old: int | None, line: Line) -> Cursor:
        former = cursor.before.mailbox if cursor.before is not None and reason is ResetReason.RENAMED else ""
        body = Reset(self._mailbox, reason, cursor.uidvalidity, old, former or UNSET)
        log.info("epoch_begins", account=self._account, mailbox=self._mailbox, reason=reason)
        written = await self._memory.begin(self._announcer.reset(body, cursor, line), cursor)
        metrics.EVENTS.labels(type=EventType.RESET).inc()
        return written


def _next_turn(old: Cursor, epoch: Epoch) -> int:
    # RFC 9051 2.3.1.1: it only rises, in one mailbox of one server. With the turn before it, it always does.
    return old.turn + (epoch.uidvalidity <= old.uidvalidity)


def _with_id(row: Surveyed, previous_id: str) -> Surveyed:
    return dataclasses.replace(row, previous_id=previous_id) if previous_id else row


def _incomplete() -> Transient:
    return Transient(
        "what is known of the mailbox is incomplete: removals from before may be missing",
        where="mail-state",
        remedy="it is compared in full; find out who removed events or snapshots, or keep events for longer",
    )


def _not_recognised() -> Transient:
    return Transient(
        "the mailbox begins anew and what was announced cannot be recognised",
        where="mail-state",
        remedy="mail that came meanwhile counts as old; `initial: all` announces everything",
    )
