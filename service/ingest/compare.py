"""What is known of a mailbox against what its server says → `changed` and `removed`, each once.

Used by mailbox.py after each look for new mail. A notice never becomes an event by itself: it is a reason to ask, and
what the server answers is compared with what is known. So whatever is said twice, or is said of nobody, is no event.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from service.clock import Clock
from service.contract import EventType, Sync
from service.ingest.announce import Announcer, known_of
from service.ingest.cursor import Cursor
from service.ingest.known import Change, Flagged, differences, missing, runs_of, without
from service.ingest.memory import Memory
from service.ingest.plan import Look, announced, beyond, mark_of
from service.ingest.source import Source, Stirred
from service.observe import log, metrics, step
from service.turns import Breather

# What one question is about: so many known messages, and no more unknown ones than a source gives.
WINDOW_SINCE: Final = 50_000
WINDOW_ALL: Final = 5_000
COMMIT_LIMIT_EVENTS: Final = 500
# However quiet the server is: by then the mailbox is opened anew and asked. It may have been deleted and made again
# under the session (Dovecot 2.3 says nothing), and not every server tells of flags.
OPEN_AGAIN_SNAPSHOT_S: Final = 300.0
OPEN_AGAIN_MODSEQ_S: Final = 900.0
# At rest a mailbox is looked at when its figures move. What moves none of them: flags, but for \Seen, where there is
# no modseq: there it is looked at after as long as nothing has happened in it, for people flag what came lately. And a
# log that forgets what a mailbox has not saved says nothing either.
REST_SNAPSHOT_LEAST_S: Final = 300.0
REST_SNAPSHOT_S: Final = 3600.0
REST_MODSEQ_S: Final = 6 * 3600.0
# A comparison in full takes a tenth of the time at most.
COST: Final = 10
MOMENT_S: Final = 0.01
LATE_LIMIT: Final = 10_000


@dataclass(slots=True)
class Compared:
    """Where the cursor is, and UIDs below it that were never announced: late ones, a violation of RFC 9051 2.3.1.1."""

    cursor: Cursor
    late: list[int] = field(default_factory=list)
    changed: int = 0
    removed: int = 0


class Comparer:
    """One connection's comparisons of one mailbox."""

    def __init__(self, source: Source, memory: Memory, announcer: Announcer, *, clock: Clock, where: str) -> None:
        self._source = source
        self._memory = memory
        self._announcer = announcer
        self._clock = clock
        self._where = where
        self._opened = clock.monotonic()
        self._not_before = 0.0
        self._waiting = Stirred(False, False, frozenset())

    def patience_s(self) -> float:
        """How long the source may wait before there is something to ask again; 0: the mailbox is to be opened anew."""
        now = self._clock.monotonic()
        quiet = OPEN_AGAIN_SNAPSHOT_S if self._source.sync is Sync.SNAPSHOT else OPEN_AGAIN_MODSEQ_S
        open_again = max(self._opened + quiet, self._not_before) - now
        if self._waiting and open_again > 0:
            return max(MOMENT_S, min(open_again, self._not_before - now))
        return max(0.0, open_again)

    def rest_s(self, calm_s: float) -> float:
        """How long the mailbox may go unlooked at while its figures stand still; nothing has happened for `calm_s`."""
        busy_s = self._not_before - self._clock.monotonic()
        quiet = REST_MODSEQ_S
        if self._source.sync is Sync.SNAPSHOT:
            quiet = min(REST_SNAPSHOT_S, max(REST_SNAPSHOT_LEAST_S, calm_s, busy_s))
        return max(MOMENT_S, min(quiet, busy_s)) if self._waiting else quiet

    def opened(self) -> None:
        """The mailbox was opened just now."""
        self._opened = self._clock.monotonic()

    async def after(self, stirred: Stirred, cursor: Cursor) -> Compared:
        """Ask what was noticed."""
        waiting = self._waiting
        gone, flags = stirred.gone or waiting.gone, stirred.flags or waiting.flags
        numbers = stirred.numbers if not waiting.flags else frozenset[int]()
        if not (gone or flags):
            return Compared(cursor)
        if self._source.sync is Sync.SNAPSHOT and flags and numbers and not gone:
            return await self._some(numbers, cursor)
        modseq = self._source.sync is not Sync.SNAPSHOT and cursor.modseq > 0
        cheap = modseq and (self._source.sync is Sync.QRESYNC or not gone)
        if not cheap and self._clock.monotonic() < self._not_before:
            self._waiting = Stirred(gone, flags, frozenset())
            return Compared(cursor)
        return await self.look(Look.SINCE if modseq else Look.ALL, cursor, gone=gone)

    async def _some(self, numbers: frozenset[int], cursor: Cursor) -> Compared:
        """A server that tells nothing but message numbers: ask for these."""
        compared = Compared(cursor)
        there = [row for row in await self._source.flags_of(numbers) if self._memory.known.get(row.uid) is not None]
        await self._tell(differences(self._memory.known, there, []), compared)
        return compared

    async def look(self, look: Look, cursor: Cursor, *, gone: bool = True, adopt: bool = False) -> Compared:
        """Compare all that is known. `gone`: messages may have gone. `adopt`: what is there was announced.

        The modseq of the cursor moves with the last commit of all: it is what was told before anything was asked, so
        whatever changes meanwhile is asked for again.
        """
        self._waiting = Stirred(False, False, frozenset())
        compared = Compared(cursor)
        if look is not Look.NOTHING:
            began = self._clock.monotonic()
            await (self._adopt(compared) if adopt else self._windows(look, compared, gone=gone))
            ended = self._clock.monotonic()
            self._not_before = ended + COST * (ended - began)
        return compared

    async def missed(self, cursor: Cursor) -> Compared:
        """What POP3 announced and IMAP, which has shown all that there is, did not: it is in this mailbox no more."""
        compared = Compared(cursor)
        await self._tell([Change(number, None) for number in sorted(self._memory.numbers.waiting)], compared)
        return compared

    async def _windows(self, look: Look, compared: Compared, *, gone: bool) -> None:
        cursor, known = compared.cursor, self._memory.known
        target = self._source.modseq
        since = cursor.modseq if look is Look.SINCE else 0
        first = min(known.first_uid() or cursor.last + 1, cursor.line + 1)
        changes: list[Change] = []
        while first <= cursor.last:
            await self._tell(changes, compared)
            limit = WINDOW_SINCE if since else WINDOW_ALL
            last = known.window_end(first, cursor.last, limit)
            if not since:
                last = await self._source.reach(first, last)
            changes = await self._window(first, last, since, compared, gone=gone)
            first = last + 1
        step("compare.done")
        # Not what the answers hold: one may show flags that are newer than a removal which it does not tell yet.
        await self._tell(changes, compared, modseq=0 if self._source.sync is Sync.SNAPSHOT else target)

    async def _window(self, first: int, last: int, since: int, compared: Compared, *, gone: bool) -> list[Change]:
        known, source = self._memory.known, self._source
        told = await source.flags(first, last, since)
        went = told.gone
        if told.whole:
            went = missing(known, first, last, runs_of(row.uid for row in told.there))
            if went:
                # A server that leaves something out for once would have us say that it is gone.
                went = without(went, await source.present(first, last))
        elif went is None and gone:
            went = missing(known, first, last, await source.present(first, last))
        self._note_late(told.there, compared)
        return differences(known, told.there, went or [])

    def _note_late(self, there: Iterable[Flagged], compared: Compared) -> None:
        cursor, known = compared.cursor, self._memory.known
        for row in there:
            new = cursor.line < row.uid <= cursor.last and known.get(row.uid) is None
            if new and not row.elsewhere and len(compared.late) < LATE_LIMIT:
                compared.late.append(row.uid)

    async def _adopt(self, compared: Compared) -> None:
        """Compare with a state of which something is missing: what is there and unknown was announced once."""
        cursor, known = compared.cursor, self._memory.known
        target = self._source.modseq if self._source.sync is not Sync.SNAPSHOT else 0
        first = 1 if cursor.since is not None else cursor.line + 1
        changes: list[Change] = []
        while first <= cursor.last:
            await self._tell(changes, compared)
            last = await self._source.reach(first, cursor.last)
            found = await self._source.survey(first, last)
            last = beyond(found, last) - 1
            there: list[Flagged] = []
            breather = Breather(self._clock)
            for message in found:
                await breather.pause()
                keywords = known_of(message)
                if known.get(message.uid) is not None:
                    there.append(Flagged(message.uid, keywords, 0))
                elif announced(message, cursor):
                    self._memory.adopt(message.uid, mark_of(message), keywords)
            went = missing(known, first, last, runs_of(message.uid for message in found))
            changes = differences(known, there, went)
            first = last + 1
        await self._tell(changes, compared, modseq=target)
        compared.cursor = await self._memory.save(compared.cursor)

    async def _tell(self, changes: list[Change], compared: Compared, *, modseq: int | None = None) -> None:
        """Publish; the last commit carries the modseq that is reached with it."""
        for at in range(0, len(changes), COMMIT_LIMIT_EVENTS):
            some = changes[at : at + COMMIT_LIMIT_EVENTS]
            cursor = compared.cursor
            name_of = self._memory.numbers.name_of
            events = [
                self._announcer.change(one, cursor, cursor.events + n, name=name_of(one.uid))
                for n, one in enumerate(some)
            ]
            if modseq is not None and at + COMMIT_LIMIT_EVENTS >= len(changes):
                cursor = replace(cursor, modseq=modseq)
            compared.cursor = await self._memory.commit(events, cursor)
            removed = sum(one.keywords is None for one in some)
            compared.changed += len(some) - removed
            compared.removed += removed
            metrics.EVENTS.labels(type=EventType.REMOVED).inc(removed)
            metrics.EVENTS.labels(type=EventType.CHANGED).inc(len(some) - removed)
            log.debug("changes_committed", where=self._where, removed=removed, changed=len(some) - removed)
        if modseq is not None and compared.cursor.modseq != modseq:
            compared.cursor = replace(compared.cursor, modseq=modseq)
