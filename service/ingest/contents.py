"""What is learnt of a maildrop's messages by looking at them: what they are known by, and their dates.

Used by from_pop3.py where numbers say nothing: after unique ids changed, and for a starting line by date. Looked at by
TOP: a provider may act on what is read whole (Gmail does on RETR, not on TOP), and it costs a download.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from service.clock import Clock
from service.errors import Transient
from service.ingest.marks import MARK_BYTES
from service.ingest.prints import CONTENT_LINES, print_of
from service.mime import received_at
from service.observe import log
from service.pop3 import Listing, Session, content_of

CONTENT_CHARS: Final = 2 * MARK_BYTES
# A connection that breaks names one of them: more suspects is nothing that a server makes.
BREAKS_LIMIT: Final = 3
SUSPECTS_LIMIT: Final = 1_000


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


class Contents:
    """One connection's. Kept by identity, as long as they are asked for.

    `broke`: how often a connection broke at a message, over all connections: the third time it is passed by.
    """

    def __init__(self, message_limit: int, clock: Clock, broke: Counter[bytes] | None = None) -> None:
        self._message_limit = message_limit
        self._clock = clock
        self._broke = Counter[bytes]() if broke is None else broke
        self._read: dict[bytes, Content] = {}
        # Whether what is to be recognised is known by nothing else than its content.
        self.by_content = False

    def get(self, identity: bytes) -> Content:
        """What is known of a message."""
        return self._read.get(identity, UNREAD)

    def forget(self) -> None:
        """Nothing of it is asked for any more."""
        self._read.clear()

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
                self._read.setdefault(listing.identity(at), UNREAD)
        unread = [at for at in places if listing.identity(at) not in self._read]
        for lines, is_small in ((CONTENT_LINES, True), (0, False)):
            some = [at for at in unread if (listing.sizes[at] <= self._message_limit) is is_small]
            try:
                await self._look(session, listing, some, lines, is_small=is_small)
            except Transient as exc:
                self._suspect(exc, [listing.identity(at) for at in some])
                raise
        return [found for at in places if (found := self._read.get(listing.identity(at))) is not None]

    def _suspect(self, exc: Transient, identities: Sequence[bytes]) -> None:
        """The first one that is missing may be why. Where the server says when to come back, none is."""
        missing = next((identity for identity in identities if identity not in self._read), None)
        if missing is None or exc.retry_after_s is not None or len(self._broke) > SUSPECTS_LIMIT:
            return
        self._broke[missing] += 1
        if self._broke[missing] == BREAKS_LIMIT:
            log.warning("pop3_passes_a_mail", where=exc.where, tries=BREAKS_LIMIT)

    async def _look(
        self, session: Session, listing: Listing, places: Sequence[int], lines: int, *, is_small: bool
    ) -> None:
        numbers = {listing.numbers[at]: at for at in places}

        def show(number: int, top: bytes) -> None:
            at = numbers[number]
            # Of what is too large nobody ever reads more than its header.
            mark = "" if is_small else content_of(top, listing.sizes[at], whole=False)[:CONTENT_CHARS]
            self._read[listing.identity(at)] = Content(mark, self.date(top), print_of(top, whole=is_small))

        def take(number: int, body: bytes) -> None:
            at = numbers[number]
            content = self.of(body, listing.sizes[at], whole=True)
            self._read[listing.identity(at)] = replace(content, print=print_of(body, whole=True))

        refused = await session.read(list(numbers), show, whole=False, lines=lines)
        if is_small:
            await session.read(list(numbers) if self.by_content else refused, take, whole=True)
