"""What is learnt of a maildrop's messages by looking at them: what they are known by, and their dates.

Used by from_pop3.py where numbers say nothing: after unique ids changed, and for a starting line by date. Looked at by
TOP: a provider may act on what is read whole (Gmail does on RETR, not on TOP), and it costs a download.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from service.clock import Clock
from service.ingest.marks import MARK_BYTES
from service.ingest.prints import CONTENT_LINES, print_of
from service.mime import received_at
from service.pop3 import Listing, Session, content_of

CONTENT_CHARS: Final = 2 * MARK_BYTES


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
    """One connection's. Kept by identity, as long as they are asked for."""

    def __init__(self, message_limit: int, clock: Clock) -> None:
        self._message_limit = message_limit
        self._clock = clock
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
        limit = self._message_limit
        wanted = [at for at in places if listing.identity(at) not in self._read]
        for lines, is_small in ((CONTENT_LINES, True), (0, False)):
            numbers = {listing.numbers[at]: at for at in wanted if (listing.sizes[at] <= limit) is is_small}

            def show(number: int, top: bytes, numbers: dict[int, int] = numbers, is_small: bool = is_small) -> None:
                at = numbers[number]
                # Of what is too large nobody ever reads more than its header.
                mark = "" if is_small else content_of(top, listing.sizes[at], whole=False)[:CONTENT_CHARS]
                self._read[listing.identity(at)] = Content(mark, self.date(top), print_of(top, whole=is_small))

            def take(number: int, body: bytes, numbers: dict[int, int] = numbers) -> None:
                at = numbers[number]
                content = self.of(body, listing.sizes[at], whole=True)
                self._read[listing.identity(at)] = replace(content, print=print_of(body, whole=True))

            refused = await session.read(list(numbers), show, whole=False, lines=lines)
            if is_small and (unread := list(numbers) if self.by_content else refused):
                await session.read(unread, take, whole=True)
        return [found for at in places if (found := self._read.get(listing.identity(at))) is not None]
