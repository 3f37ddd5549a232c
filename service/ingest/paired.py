"""A maildrop in the place of a mailbox, where POP3 and IMAP share no number: new is what neither way has told.

What was learnt while both worked (learnt.py) says which messages are old: by their unique ids, or, of those that came
since, by TOP and the prints of what IMAP told. The others get numbers of their own (numbers.py), which IMAP's return
turns into UIDs. What cannot be told apart surely waits for IMAP: late, and never twice.
Rules: docs/decisions/0018-numbers-for-what-pop3-announces.md.
"""

import asyncio
from datetime import timedelta

from service.clock import Clock
from service.contract import NUMBERS_FROM
from service.errors import Transient
from service.ingest.cursor import Cursor
from service.ingest.drop import GENERATION_BITS
from service.ingest.learnt import AT_ONCE, Learner, Learnt, Shown, key_of, show
from service.ingest.memory import Memory
from service.ingest.numbers import WAITING_LIMIT
from service.ingest.plan import NEAR_S, Position
from service.ingest.stand_in import Row, StandIn, Tries
from service.ingest.surveyed import Surveyed
from service.pop3 import NO_IDENTITY, Door, Listing, Session


class PairedStandIn(StandIn):
    """INBOX by POP3, under numbers of its own."""

    def __init__(
        self,
        door: Door,
        memory: Memory,
        position: Position,
        tries: Tries,
        learner: Learner,
        *,
        host: str,
        mailbox: str,
        poll_s: float,
        clock: Clock,
    ) -> None:
        super().__init__(door, memory, position, tries, host=host, mailbox=mailbox, poll_s=poll_s, clock=clock)
        self._learner = learner
        self._learnt = Learnt()
        self._last = 0
        self._next = 0
        self._given: dict[bytes, tuple[int, str]] = {}  # identity → UID, print: of what is announced here
        self._known: set[int] = set()  # keys of what was told before, or waits for IMAP

    async def _start(self) -> Cursor:
        cursor = await super()._start()
        learnt = await self._learner.recall(cursor, self._position.seq)
        if learnt is None:
            raise self._cannot("which mail of the maildrop is which was not learnt while both worked")
        self._learnt, self._known = learnt, set(learnt.told.keys)
        self._next = max(self._memory.numbers.top, NUMBERS_FROM + (cursor.rollbacks << GENERATION_BITS)) + 1
        self._last, self._base = cursor.last, self._next - 1
        return cursor

    def _uidnext(self) -> int:
        # What is new has no UID: all of it comes by `wait`.
        return self._last + 1

    async def _look_on(self) -> None:
        self._base = max(self._base, self._memory.numbers.top)
        await self._look()

    async def survey(self, first: int, last: int | None) -> list[Surveyed]:
        """Of what is new. The cursor stands where IMAP left it: what is announced is known by its number."""
        return await super().survey(max(first, self._memory.numbers.top + 1), last)

    async def _new(self, session: Session) -> dict[int, Row]:
        listing = await self._visits.listed()
        fresh: list[int] = []
        rows: dict[int, Row] = {}
        is_other = len(self._learnt.keys) > 0
        for at in range(len(listing)):
            identity = listing.identity(at)
            if identity in self._given:
                is_other = False
                uid, print = self._given[identity]
                if uid > self._base:
                    rows[uid] = _row(listing, at, print)
            elif self._learnt.keys.has(key_of(identity)) or key_of(identity) in self._known:
                is_other = False
            elif identity != NO_IDENTITY and not self._tries.are_over(identity.hex()):
                fresh.append(at)
            if at % AT_ONCE == 0:
                await asyncio.sleep(0)
        if len(self._memory.numbers.waiting) + len(fresh) > WAITING_LIMIT:
            raise self._cannot(f"over {WAITING_LIMIT} mails would wait for IMAP")
        shown: dict[int, Shown] = {}
        for at in fresh:
            if (before := self._tries.shown.get(_key(listing, at))) is not None:
                shown[at] = before
        try:
            await show(session, listing, [at for at in fresh if at not in shown], self._message_limit, shown)
        except Transient as exc:
            self._tries.shown = {_key(listing, at): one for at, one in shown.items()}
            self._broke(exc, [listing.identity(at).hex() for at in fresh if at not in shown])
            raise
        self._tries.shown = {}
        for at in fresh:
            one = shown.get(at)
            if one is None or self._is_told(one) or self._is_old(one, is_other=is_other) or self._may_be_told():
                self._known.add(key_of(listing.identity(at)))
                continue
            self._given[listing.identity(at)] = self._next, one.print
            rows[self._next] = _row(listing, at, one.print)
            self._next += 1
        return rows

    def _is_told(self, one: Shown) -> bool:
        """Whether IMAP has told it. Of mails with the same print as many are known as it told."""
        if not one.print:
            return True
        told = self._learnt.told.prints
        told[one.print] -= 1
        return told[one.print] >= 0

    def _may_be_told(self) -> bool:
        """Whether IMAP has told mail of which it could read nothing: so many unknown ones wait until it is back."""
        unprinted = self._learnt.told.unprinted
        if unprinted:
            unprinted.pop()
            return True
        return False

    def _is_old(self, one: Shown, *, is_other: bool) -> bool:
        """Whether it was there long before the maildrop was looked at, and is not known all the same.

        Then its unique id is another than it was, or it came from elsewhere: IMAP will say. `is_other`: nothing that
        was known is there any more.
        """
        if one.date is None:
            return is_other
        return one.date < self._learnt.at - timedelta(seconds=NEAR_S)


def _key(listing: Listing, at: int) -> tuple[bytes, int]:
    return listing.identity(at), listing.sizes[at]


def _row(listing: Listing, at: int, print: str) -> Row:
    return Row(listing.numbers[at], listing.sizes[at], listing.identity(at).hex(), print)
