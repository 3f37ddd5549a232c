"""What is learnt of a maildrop's messages by looking at them: what they are known by, and their dates.

Used by from_pop3.py where numbers say nothing: after unique ids changed, and for a starting line by date. Looked at by
TOP: a provider may act on what is read whole (Gmail does on RETR, not on TOP), and it costs a download.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from service.clock import Clock
from service.ingest.marks import MARK_BYTES
from service.ingest.prints import CONTENT_LINES, print_of
from service.mime import received_at
from service.observe import log
from service.pop3 import Listing, Session, content_of, read_at

CONTENT_CHARS: Final = 2 * MARK_BYTES
# A connection that breaks names one of them: more suspects is nothing that a server makes.
BREAKS_LIMIT: Final = 3
SUSPECTS_LIMIT: Final = 1_000
# What a broken connection leaves to the next one: 20 MB. Of more the first ones, so that each goes on behind the last.
SHOWN_LIMIT: Final = 50_000
AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Content:
    """`mark` and `print` in hex digits; the former is empty where a message was not read whole, the latter where its
    header says too little. `date`: when the server took it."""

    mark: str
    date: datetime | None
    print: str = ""

    @property
    def known_by(self) -> str:
        """As a mark."""
        return f"{self.mark}:{self.print}" if self.print else self.mark


UNREAD: Final = Content("", None)
# By identity and size: another message may have the id by the next connection; and whether it was to be read whole.
Shown = dict[tuple[bytes, int, bool], Content]


class Contents:
    """One connection's. What was read is kept as long as it is asked for.

    Over all connections: `broke`, how often one broke at a message, which the third time is passed by; `shown`, what
    was read, so that a look that one connection does not last for goes on over the next.
    """

    def __init__(
        self, message_limit: int, clock: Clock, broke: Counter[bytes] | None = None, shown: Shown | None = None
    ) -> None:
        self._message_limit = message_limit
        self._clock = clock
        self._broke = Counter[bytes]() if broke is None else broke
        self._read: Shown = {} if shown is None else shown
        # Whether what is to be recognised is known by nothing else than its content.
        self.by_content = False

    def get(self, listing: Listing, at: int) -> Content:
        """What is known of the message at an index."""
        return self._read.get(self._key(listing, at), UNREAD)

    def bound(self) -> Iterator[None]:
        """Of what the connections before have left no more than the limit stays. Pauses now and then."""
        surplus = max(0, len(self._read) - SHOWN_LIMIT)
        for count in range(surplus):
            if count % AT_ONCE == 0:
                yield
            self._read.popitem()

    def forget(self) -> None:
        """Nothing of it is asked for any more."""
        self._read.clear()
        self.by_content = False

    def _key(self, listing: Listing, at: int, *, whole: bool = True) -> tuple[bytes, int, bool]:
        return listing.identity(at), listing.sizes[at], self.by_content and whole

    def of(self, body: bytes, size: int, *, whole: bool) -> Content:
        """Of a message as it was read; `size` as the server lists it."""
        return Content(content_of(body, size, whole=whole)[:CONTENT_CHARS], self.date(body))

    def date(self, body: bytes) -> datetime | None:
        """When the server took a message: never in the future, whatever a mail says."""
        date, now = received_at(body), self._clock.now()
        return min(date, now) if date is not None else None

    async def read(self, session: Session, listing: Listing, places: Sequence[int]) -> list[Content]:
        """Look at messages by index, those that were not; what the server refuses is left out. Raises Transient.

        Whole ones are read where `by_content`, and where the server has no TOP, which it need not.
        """
        for at in places:
            if self._broke[listing.identity(at)] >= BREAKS_LIMIT:
                # What TOP showed of it, where it was the rest that broke.
                shown = self._read.get(self._key(listing, at, whole=False), UNREAD)
                self._read.setdefault(self._key(listing, at), shown)
        unread = [at for at in places if self._key(listing, at) not in self._read]
        for lines, is_small in ((CONTENT_LINES, True), (0, False)):
            some = [at for at in unread if (listing.sizes[at] <= self._message_limit) is is_small]
            await self._look(session, listing, some, lines, is_small=is_small)
        return [found for at in places if (found := self._read.get(self._key(listing, at))) is not None]

    async def _look(
        self, session: Session, listing: Listing, places: Sequence[int], lines: int, *, is_small: bool
    ) -> None:
        def show(at: int, top: bytes) -> None:
            # Of what is too large nobody ever reads more than its header.
            mark = "" if is_small else content_of(top, listing.sizes[at], whole=False)[:CONTENT_CHARS]
            # Where the rest is to be read it is not read yet: the connection may break at that.
            if not (is_small and self.by_content):
                self._trust(listing.identity(at))
            key = self._key(listing, at, whole=not is_small)
            self._read[key] = Content(mark, self.date(top), print_of(top, whole=is_small))

        def take(at: int, body: bytes) -> None:
            self._trust(listing.identity(at))
            content = self.of(body, listing.sizes[at], whole=True)
            self._read[self._key(listing, at)] = replace(content, print=print_of(body, whole=True))

        def broke(at: int) -> None:
            self._suspect(listing.identity(at), session.where)

        refused = await read_at(session, listing, places, show, whole=False, lines=lines, broke=broke)
        if not is_small:
            return
        unread = places if self.by_content else refused
        refused = await read_at(session, listing, unread, take, whole=True, broke=broke)
        for at in places if self.by_content else ():
            top = self._read.pop(self._key(listing, at, whole=False), None)
            if at in refused and top is not None:
                self._read[self._key(listing, at)] = top

    def _trust(self, identity: bytes) -> None:
        """It came: what broke was the line."""
        self._broke.pop(identity, None)

    def _suspect(self, identity: bytes, where: str) -> None:
        """A connection broke at it."""
        if len(self._broke) > SUSPECTS_LIMIT:
            return
        self._broke[identity] += 1
        if self._broke[identity] == BREAKS_LIMIT:
            log.warning("pop3_passes_a_mail", where=where, tries=BREAKS_LIMIT)
