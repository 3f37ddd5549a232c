"""A maildrop as a Source: looked at again and again, one session each. Used by supervision.

What POP3 lacks is made here: UIDs are handed out in the order of first sight (drop.py) and kept in the known state
(seen.py); an epoch ends when the server's unique ids do. Rules: docs/decisions/0013-pop3.md.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from service.clock import Clock
from service.contract import Sync
from service.errors import MailbusError, Transient
from service.ingest.contents import Contents
from service.ingest.cursor import Cursor, has_same_marks, maildrop_id
from service.ingest.doubts import STEP, Doubts, slowly
from service.ingest.drop import GENERATION_BITS, Drop, Lasting
from service.ingest.known import Flagged, Known, runs_of
from service.ingest.memory import Memory
from service.ingest.plan import SURVEY_LIMIT_ROWS, Position
from service.ingest.seen import Seen
from service.ingest.source import Epoch, Looked, Stirred, Told
from service.ingest.surveyed import Fetched, Surveyed
from service.ingest.visits import Visits
from service.pop3 import Door, Listing


class Pop3Source:
    """One maildrop. Its session is open while there is something to read, and no longer: it locks everybody else out.

    `lasting`: what is known of it over all connections; `said`: what was said already.
    Both live as long as the account.
    """

    sync = Sync.SNAPSHOT
    modseq = 0
    refused: Sequence[str] = ()

    def __init__(
        self,
        door: Door,
        memory: Memory,
        position: Position,
        *,
        mailbox: str,
        poll_s: float,
        lasting: Lasting,
        said: set[str],
        degraded: Callable[[MailbusError], None],
        clock: Clock,
    ) -> None:
        options = door.options
        self.id = maildrop_id(options.host, options.username, mailbox)
        self._where = options.where
        self._visits = Visits(door, poll_s, clock)
        self._memory = memory
        self._position = position
        self._said = said
        self._degraded = degraded
        self._clock = clock
        self._lasting = lasting
        self._drop = Drop(lasting)
        self._contents = Contents(options.message_limit, clock, lasting.broke, lasting.shown)
        # UIDs of what was refused → at which look first.
        self._refused: dict[int, int] = {}
        self._looks = 0
        self._uidvalidity = 0
        self._marked = 0  # up to this UID messages are known by their contents, which are read
        self._looked = False
        self._fresh = False
        self._gone = False

    # -- opening ----------------------------------------------------------------------------------------------

    async def open(self) -> Epoch:
        """The maildrop as it is; as it was at the last look, where that was not long ago."""
        if not self._looked:
            await self._begin()
        elif self._visits.is_due:
            await self._look()
        return Epoch(self._uidvalidity, self._drop.next, len(self._drop))

    async def _begin(self) -> None:
        cursor, drop = self._position.cursor, self._drop
        await slowly(self._contents.bound())
        if cursor is None:
            self._uidvalidity = int(self._clock.now().timestamp())
            drop.renew(self._uidvalidity)
        elif self._position.again:
            drop.begun = await self._memory.start_of(cursor) or Seen()
            self._lasting.begin(cursor.uidvalidity)
            self._go_on(cursor, drop.begun)
        else:
            await self._memory.recall(cursor, self._position.seq, self._position.older)
            seen = self._memory.seen
            if cursor.source != self.id or self._memory.partial or seen is None:
                self._renew(cursor)
            else:
                self._go_on(cursor, seen)
        if await self._look() and cursor is not None:
            self._say(
                "uidls",
                "all unique ids of the maildrop changed: a new epoch begins, known mail is recognised by its content",
                "find out whether the mail moved to another server",
            )
            listing = drop.listing
            self._renew(cursor)
            await self._take(listing)
        if drop.begun is not None:
            self._memory.begin_with(drop.begun)
            if self._marked:
                self._marked = drop.next - 1
        if self._marked and cursor is not None:
            before = cursor.before
            recogniser = await (self._memory.recogniser(before) if before else self._memory.recollect())
            self._contents.by_content = recogniser is not None and recogniser.by_fingerprint

    def _go_on(self, cursor: Cursor, seen: Seen) -> None:
        self._uidvalidity = cursor.uidvalidity
        last = max(cursor.last, seen.top(), cursor.rollbacks << GENERATION_BITS)
        self._lasting.go_on(cursor.uidvalidity, seen, last)
        # Killed before all that may be recognised had passed: go on recognising.
        self._marked = cursor.before.top if cursor.before is not None else 0

    def _renew(self, old: Cursor) -> None:
        """Nothing that is known by its unique id is here: another epoch, another number."""
        self._uidvalidity = max(int(self._clock.now().timestamp()), old.uidvalidity + 1)
        self._drop.renew(self._uidvalidity)
        self._marked = 1 if has_same_marks(old.source, self.id) and not self._memory.partial else 0

    # -- looking ----------------------------------------------------------------------------------------------

    async def _look(self, *, reading: bool = False) -> bool:
        """Log in and take stock. Gives whether, at the first look, all unique ids are others than before.

        `reading`: what was read may wait for its commit.
        """
        before = self._drop.listing
        await self._visits.begin()
        self._looks += 1
        listing = await self._visits.take_stock()
        self._visits.looked()
        if listing.missing:
            self._say(
                "short",
                f"the server has {listing.missing} messages more than it lists: nothing is told to be removed",
                "find out what it keeps to itself, or use IMAP",
            )
        elif reading and not listing.starts_as(before):
            # What of it has another unique id by now is known again once it is announced.
            raise Transient("mail went, or has other unique ids, while it was read", where=self._where)
        else:
            self._gone = self._gone or not listing.starts_as(before)
        changed = await self._take(listing)
        if changed and self._looked:
            raise Transient("all unique ids of the maildrop changed", where=self._where, remedy="it is looked at anew")
        self._looked = True
        return changed

    async def _take(self, listing: Listing) -> bool:
        """UIDs for what there is. Gives whether all unique ids are others than before: then nothing new has one."""
        drop, seen, fresh = self._drop, self._seen(), list[int]()
        # What is known is of the epoch before until another has begun.
        known = self._memory.known if drop.begun is None else Known()
        await slowly(drop.lookup(listing, seen, known, fresh))
        doubts = Doubts(drop, seen, self._memory, self._contents, self._visits.session)
        if drop.doubtful and await doubts.are_reused(fresh):
            return True
        if fresh and drop.is_doubtful(seen) and await doubts.are_others(fresh):
            return True
        if fresh and drop.begun is None and (self._gone or not self._looked):
            fresh = await doubts.without_renamed(fresh)
        await slowly(drop.number(fresh))
        self._fresh = bool(fresh)
        outdated, kept = set[int](), Seen()
        await slowly(drop.outdated(seen, self._memory.known, outdated))
        if outdated:
            await slowly(seen.without(outdated, kept))
            self._memory.keep(kept)
        if listing.nameless:
            self._say(
                "nameless",
                f"{listing.nameless} messages have no unique id of their own: they are read to be known by content",
                "keep the maildrop small (`after: delete`), or use IMAP",
            )
        return False

    def _seen(self) -> Seen:
        drop = self._drop
        if drop.begun is not None and self._memory.seen is drop.begun:
            drop.begun = None
        seen = drop.begun if drop.begun is not None else self._memory.seen
        if seen is None:
            raise RuntimeError("a maildrop without what was seen in it")
        return seen

    def _say(self, what: str, text: str, remedy: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self._degraded(Transient(text, where=self._where, remedy=remedy))

    # -- reading ----------------------------------------------------------------------------------------------

    async def survey(self, first: int, last: int | None) -> list[Surveyed]:
        """From the listing; contents and dates of what is to be recognised are read."""
        drop = self._drop
        marked = first <= self._marked
        # A message that was refused may be gone: only another session shows that, one for all that were until then.
        if first == last and self._refused.get(first) == self._looks:
            await self._look()
        elif marked:
            await self._ready()
        places = drop.places(first, last)[:SURVEY_LIMIT_ROWS]
        if marked:
            for at in range(0, len(places), STEP):
                step = [place for place in places[at : at + STEP] if drop.uid(place) <= self._marked]
                await self._contents.read(self._visits.session, drop.listing, step)
                for place in step:
                    if print := self._contents.get(drop.listing, place).print:
                        self._lasting.recognise(drop.uid(place), print)
        return [self._row(place) for place in places]

    def _row(self, at: int) -> Surveyed:
        listing = self._drop.listing
        identity = listing.identity(at)
        content = self._contents.get(listing, at)
        return Surveyed(
            self._drop.uid(at),
            listing.sizes[at],
            frozenset(),
            content.date,
            identity=identity.hex(),
            content=content.mark,
            print=content.print,
        )

    async def reach(self, first: int, last: int) -> int:
        """As many numbers as messages that may be given: there are no wide gaps."""
        return min(last, first + SURVEY_LIMIT_ROWS - 1)

    async def since(self, moment: datetime) -> int | None:
        """POP3 tells no dates: headers are read from the newest message on, until all of a step are older."""
        await self._ready()
        drop, lowest = self._drop, None
        places = drop.places(1, None)
        for end in range(len(places), 0, -STEP):
            step = places[max(0, end - STEP) : end]
            await self._contents.read(self._visits.session, drop.listing, step)
            dates = {at: self._contents.get(drop.listing, at).date for at in step}
            found = [at for at in step if (date := dates[at]) is not None and date >= moment]
            if not found:
                break
            lowest = drop.uid(found[0])
        return lowest

    async def fetch(self, wanted: Sequence[Surveyed], give: Callable[[Fetched], None], *, whole: bool) -> None:
        """RETR, or TOP for the header alone."""
        if not await self._visits.is_open():
            await self._look(reading=True)
        drop, numbers = self._drop, dict[int, tuple[int, Surveyed]]()
        for message in wanted:
            for at in drop.places(message.uid, message.uid):
                numbers[drop.listing.numbers[at]] = (at, message)

        def take(number: int, body: bytes) -> None:
            at, message = numbers[number]
            content = self._contents.of(body, drop.listing.sizes[at], whole=whole)
            size = len(body) if whole else message.size
            date = content.date or self._clock.now()
            if whole:
                self._lasting.read(message.uid, drop.listing.sizes[at])
            given = replace(message, size=size, internal_date=date, content=content.mark, print="")
            give(Fetched(given, body, whole))

        refused = await self._visits.session.read(list(numbers), take, whole=whole)
        for number in refused:
            self._refused.setdefault(numbers[number][1].uid, self._looks)

    async def _ready(self) -> None:
        if not await self._visits.is_open():
            await self._look()

    async def highest(self) -> int:
        """As it was at the last look."""
        return self._drop.highest()

    # -- following --------------------------------------------------------------------------------------------

    async def wait(self, limit_s: float) -> float | None:
        """Let others have the maildrop until it is time to look again."""
        if not await self._visits.pause(limit_s):
            return None
        # Whoever waits has recognised all that there was to recognise.
        self._contents.forget()
        self._marked = 0
        await self._look()
        if self._fresh:
            return self._clock.monotonic()
        await self._visits.leave()
        return None

    @property
    def displaced(self) -> bool:
        """Never: a maildrop is all that there is of its account."""
        return False

    async def rest(self, _looked: Looked, limit_s: float) -> None:
        """As `wait`, without a word."""
        await self.wait(limit_s)

    def nudge(self) -> None:
        """Look at once."""
        self._visits.nudge()

    async def replaced(self) -> bool:
        """Never: a maildrop has no name."""
        return False

    def stirred(self) -> Stirred:
        """POP3 knows no flags; what is gone is seen by comparing."""
        gone, self._gone = self._gone, False
        return Stirred(gone, False, frozenset())

    async def flags(self, first: int, last: int, since: int) -> Told:
        """Of the known messages those that are there, with what is known of them: it never changes."""
        await asyncio.sleep(0)
        known, there = self._memory.known, list[Flagged]()
        if self._drop.listing.missing:
            # What is not listed may be there.
            return Told([], [], whole=False)
        for at in self._drop.places(first, last):
            uid = self._drop.uid(at)
            if (keywords := known.get(uid)) is not None:
                there.append(Flagged(uid, keywords, 0))
        return Told(there, None, whole=True)

    async def flags_of(self, numbers: frozenset[int]) -> list[Flagged]:
        """None: no number is ever noticed."""
        return []

    async def present(self, first: int, last: int) -> Sequence[range]:
        """As it was at the last look."""
        return runs_of(map(self._drop.uid, self._drop.places(first, last)))

    async def close(self) -> None:
        """QUIT."""
        await self._visits.leave()

    def abort(self) -> None:
        """Drop the session."""
        self._visits.abort()
