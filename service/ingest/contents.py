"""What is learnt of a maildrop's messages by reading them: what their contents are known by, and their dates.

Used by from_pop3.py where numbers say nothing: after all unique ids changed, and for a starting line by date.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from service.clock import Clock
from service.ingest.marks import MARK_BYTES
from service.mime import received_at
from service.pop3 import Listing, Session, content_of

CONTENT_CHARS: Final = 2 * MARK_BYTES


@dataclass(frozen=True, slots=True)
class Content:
    """`mark` in hex digits, empty where only the header was read; `date`: when the server took the message."""

    mark: str
    date: datetime | None


UNREAD: Final = Content("", None)


class Contents:
    """One connection's. Kept by identity, as long as they are asked for."""

    def __init__(self, message_limit: int, clock: Clock) -> None:
        self._message_limit = message_limit
        self._clock = clock
        self._read: dict[bytes, Content] = {}

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
        """Read messages by index, those that were not; what the server refuses is left out. Raises Transient."""
        unread = [at for at in places if not self.get(listing.identity(at)).mark]
        for whole in (True, False):
            numbers = {listing.numbers[at]: at for at in unread if (listing.sizes[at] <= self._message_limit) is whole}

            def take(number: int, body: bytes, numbers: dict[int, int] = numbers, whole: bool = whole) -> None:
                at = numbers[number]
                self._read[listing.identity(at)] = self.of(body, listing.sizes[at], whole=whole)

            if numbers:
                await session.read(list(numbers), take, whole=whole)
        return [found for at in places if (found := self.get(listing.identity(at))).mark]

    async def dates(self, session: Session, listing: Listing, places: Sequence[int]) -> dict[int, datetime | None]:
        """Dates by index, from headers alone where the server has TOP, which it need not. Raises Transient."""
        numbers = {listing.numbers[at]: at for at in places if listing.identity(at) not in self._read}

        def take(number: int, header: bytes) -> None:
            self._read[listing.identity(numbers[number])] = Content("", self.date(header))

        refused = await session.read(list(numbers), take, whole=False)
        small = [number for number in refused if listing.sizes[numbers[number]] <= self._message_limit]
        await session.read(small, take, whole=True)
        return {at: self.get(listing.identity(at)).date for at in places}
