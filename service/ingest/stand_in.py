"""A maildrop in the place of a mailbox that IMAP does not give now, as a Source: new mail, and nothing else.

What is removed or flagged meanwhile IMAP tells on its return, which compares in full. LinkedStandIn is for servers that
make their unique ids of IMAP's UIDs: then a mail that is announced by either way has the same number, the same id and
the same place in the log, and the way back is no more than a reconnect. For the others there is paired.py.
Rules: docs/decisions/0014-pop3-stands-in.md.
"""

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from service.clock import Clock
from service.contract import Sync
from service.errors import Permanent, Transient
from service.ingest.contents import Contents
from service.ingest.cursor import Cursor, source_id
from service.ingest.known import Flagged
from service.ingest.learnt import Shown
from service.ingest.memory import Memory
from service.ingest.plan import SURVEY_LIMIT_ROWS, Position, Recalled
from service.ingest.reading import SINGLE_TRIES
from service.ingest.source import Epoch, Looked, Stirred, Told
from service.ingest.surveyed import Fetched, Surveyed
from service.ingest.visits import Visits
from service.observe import log
from service.pop3 import Door, Session, linked_uid

# A connection that breaks names one of them: more is nothing that a server does.
TRIES_LIMIT: Final = 1_000


@dataclass(frozen=True, slots=True)
class Row:
    """A message that is new: its number in the session, its size; and by what it is known again (paired.py)."""

    number: int
    size: int
    identity: str = ""
    print: str = ""


class Tries:
    """Messages that were asked for when a connection broke, and how often: outlives the connections of an outage.

    By what they are known by in each of them: a number that no commit has told may be another message's next time.
    """

    def __init__(self) -> None:
        self._failed: Counter[str] = Counter()
        # What TOP showed in a look that its connection did not last for, by identity and size: the next one goes on.
        self.shown: dict[tuple[bytes, int], Shown] = {}

    def failed(self, key: str) -> bool:
        """A connection broke; gives whether the message is left to IMAP from now on."""
        if key not in self._failed and len(self._failed) >= TRIES_LIMIT:
            return False
        self._failed[key] += 1
        return self._failed[key] == SINGLE_TRIES

    def came(self, key: str) -> None:
        """It was read."""
        self._failed.pop(key, None)

    def are_over(self, key: str) -> bool:
        """Whether the message is left to IMAP."""
        return self._failed[key] >= SINGLE_TRIES


class StandIn:
    """INBOX by POP3, from where the log stands. `host`: of the IMAP server that it stands in for.

    A message that breaks the connection three times waits for IMAP, so that the others come.
    """

    sync = Sync.SNAPSHOT
    modseq = 0
    refused: Sequence[str] = ()
    # Never: a maildrop is all that there is here.
    displaced = False

    def __init__(
        self,
        door: Door,
        memory: Memory,
        position: Position,
        tries: Tries,
        *,
        host: str,
        mailbox: str,
        poll_s: float,
        clock: Clock,
    ) -> None:
        options = door.options
        self.id = source_id(host, options.username, mailbox)
        self._where = options.where
        self._memory = memory
        self._position = position
        self._tries = tries
        self._message_limit = options.message_limit
        self._clock = clock
        self._contents = Contents(options.message_limit, clock)
        self._visits = Visits(door, poll_s, clock)
        self._uidvalidity = 0
        self._base = 0  # up to this UID everything is announced, or is not ours to announce
        self._uids = array("Q")  # of what is new, ascending
        self._is_shown = False  # whether whoever asks has seen them all
        self._rows: dict[int, Row] = {}

    async def open(self) -> Epoch:
        """The maildrop, where it can stand in. Raises Permanent where it cannot."""
        if not self._uidvalidity:
            self._uidvalidity = (await self._start()).uidvalidity
        if self._visits.is_due:
            await self._look_on()
        return Epoch(self._uidvalidity, self._uidnext(), len(self._uids), uidnext_told=False, is_part=True)

    async def _start(self) -> Cursor:
        """Where to go on: only from what IMAP has left in good order."""
        cursor = self._position.cursor
        if cursor is None or cursor.source != self.id or self._position.again:
            raise self._cannot("IMAP has not said yet where the mailbox begins")
        recalled = await self._memory.recall(cursor, self._position.seq, self._position.older)
        is_behind = cursor.since is not None and cursor.last < cursor.line
        if recalled is not Recalled.WHOLE or cursor.before is not None or is_behind:
            raise self._cannot("what is known of the mailbox has to be compared by IMAP first")
        self._base = cursor.last
        return cursor

    def _cannot(self, why: str) -> Permanent:
        return Permanent(f"POP3 cannot stand in: {why}", where=self._where, remedy="mail comes when IMAP is back")

    async def _look_on(self) -> None:
        """Look again: all that was shown is announced."""
        if self._is_shown:
            self._base = max(self._base, await self.highest())
        await self._look()

    async def _look(self) -> None:
        rows = await self._new(await self._visits.begin())
        self._rows = {uid: row for uid, row in rows.items() if not self._tries.are_over(_key(uid, row))}
        self._uids = array("Q", sorted(self._rows))
        self._is_shown = False
        self._visits.looked()

    async def _new(self, session: Session) -> dict[int, Row]:
        """What the maildrop has that is not announced, by UID."""
        raise NotImplementedError

    def _uidnext(self) -> int:
        """Up to which UID there is something to announce at once."""
        raise NotImplementedError

    async def survey(self, first: int, last: int | None) -> list[Surveyed]:
        """Of what is new. Sizes and dates of POP3 are not those of IMAP: they mark nothing."""
        self._is_shown = self._is_shown or last is None or last >= await self.highest()
        found: list[Surveyed] = []
        for uid in self._uids[bisect_left(self._uids, first) :]:
            if (last is not None and uid > last) or len(found) >= SURVEY_LIMIT_ROWS:
                break
            row = self._rows[uid]
            found.append(
                Surveyed(uid, row.size, frozenset(), None, identity=row.identity, content=row.print, unmarked=True)
            )
        return found

    async def reach(self, first: int, last: int) -> int:
        """As many numbers as messages that may be given: there are no wide gaps."""
        return min(last, first + SURVEY_LIMIT_ROWS - 1)

    async def since(self, moment: datetime) -> int | None:
        """Never asked: no epoch begins here."""
        return None

    async def fetch(self, wanted: Sequence[Surveyed], give: Callable[[Fetched], None], *, whole: bool) -> None:
        """RETR, or TOP for the header alone."""
        if not await self._visits.is_open():
            await self._look()
        there = {self._rows[message.uid].number: message for message in wanted if message.uid in self._rows}
        left = dict(there)

        def take(number: int, body: bytes) -> None:
            message = left.pop(number)
            self._tries.came(_key(message.uid, self._rows[message.uid]))
            size = len(body) if whole else message.size
            date = self._contents.date(body) or self._clock.now()
            give(Fetched(replace(message, size=size, internal_date=date), body, whole))

        try:
            refused = await self._visits.session.read(list(there), take, whole=whole)
        except Transient as exc:
            self._broke(exc, [_key(message.uid, self._rows[message.uid]) for message in left.values()])
            raise
        for number in refused:
            # It may be gone, or not to be had by POP3: IMAP will say.
            del self._rows[there[number].uid]
            self._uids.remove(there[number].uid)

    def _broke(self, exc: Transient, missing: Sequence[str]) -> None:
        """The first one that is missing may be why. Where the server says when to come back, none is."""
        if missing and exc.retry_after_s is None and self._tries.failed(missing[0]):
            log.warning("pop3_leaves_a_mail_to_imap", where=self._where, tries=SINGLE_TRIES)

    async def highest(self) -> int:
        """As it was at the last look."""
        return self._uids[-1] if self._uids else self._base

    async def wait(self, limit_s: float) -> float | None:
        """Let others have the maildrop until it is time to look again."""
        if self._is_shown or not self._uids:
            if not await self._visits.pause(limit_s):
                return None
            await self._look_on()
        return self._clock.monotonic() if self._uids else None

    async def rest(self, _looked: Looked, limit_s: float) -> None:
        """As `wait`, without a word."""
        await self.wait(limit_s)

    def nudge(self) -> None:
        """Nobody asks a stand-in to compare."""

    async def replaced(self) -> bool:
        """Never: a maildrop has no name."""
        return False

    def stirred(self) -> Stirred:
        """Nothing but new mail is told here."""
        return Stirred(gone=False, flags=False, numbers=frozenset())

    async def flags(self, first: int, last: int, since: int) -> Told:
        """Nothing: IMAP compares when it is back."""
        return Told([], [], whole=False)

    async def flags_of(self, numbers: frozenset[int]) -> list[Flagged]:
        """Nothing."""
        return []

    async def present(self, first: int, last: int) -> Sequence[range]:
        """Everything, as far as is known here."""
        return [range(first, last + 1)]

    async def close(self) -> None:
        """QUIT."""
        await self._visits.leave()

    def abort(self) -> None:
        """Drop the session."""
        self._visits.abort()


def _key(uid: int, row: Row) -> str:
    return row.identity or str(uid)


class LinkedStandIn(StandIn):
    """Where the server's unique ids are made of IMAP's UIDs: it shows what has one above the cursor."""

    def _uidnext(self) -> int:
        return (self._uids[-1] if self._uids else self._base) + 1

    async def _new(self, session: Session) -> dict[int, Row]:
        sizes: dict[int, int] = {}
        new: dict[int, Row] = {}
        uidvalidity = self._uidvalidity
        linked = count = 0

        def take(rows: list[tuple[int, bytes]]) -> None:
            nonlocal linked, count
            count += len(rows)
            for number, uidl in rows:
                uid = linked_uid(uidl, uidvalidity)
                linked += uid > 0
                if uid > self._base and number in sizes:
                    new[uid] = Row(number, sizes[number])

        await session.sizes(sizes.update)
        await session.uidls(take)
        if count and not linked:
            raise self._cannot(
                "the server's unique ids (UIDL) are not made of IMAP's UIDs, and which mail is which was not learnt"
            )
        return new
