"""Messages that have no unique id → by what they are known: each is downloaded once, and looked at by TOP from then on.

One account's, used by maildrop.py, over all sessions: a listing has numbers and sizes, which say nothing of who is who.
A header that has the Received field of its delivery, with the size, is one message's. Of any other header that holds
where the listing is the one before, place by place; so where the server has no TOP, which it need not.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from service.pop3.session import Session
from service.pop3.stock import Listing, content_of

_RECEIVED: Final = re.compile(rb"^received:", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Header:
    """Of a message: a hash of it and the size; `delivered`: no sender can have written it twice (RFC 5321 4.4)."""

    hash: bytes
    delivered: bool


def _header_of(body: bytes, size: int) -> _Header:
    header = body.partition(b"\r\n\r\n")[0]
    return _Header(hashlib.sha256(b"%d\0%b" % (size, header)).digest(), _RECEIVED.search(header) is not None)


@dataclass(frozen=True, slots=True)
class _Read:
    """A message that was read: its header, and what its content is known by."""

    header: _Header
    content: str


class Nameless:
    """Of one account. `message_limit`: bytes of the largest message that is read whole."""

    def __init__(self, message_limit: int) -> None:
        self._message_limit = message_limit
        # Of the last listing that had such messages, by index; and those whose header is enough.
        self._before: Listing | None = None
        self._by_place: dict[int, _Read] = {}
        self._by_header: dict[bytes, _Read] = {}

    async def name(self, session: Session, listing: Listing) -> None:
        """Give them identities; what the server refuses stays without. Raises Transient, PeerError."""
        found = await self._look(session, listing) if listing.unnamed else {}
        self._before = listing if found else None
        self._by_place = found
        self._by_header = {read.header.hash: read for read in found.values() if read.header.delivered}
        listing.name({at: read.content for at, read in found.items()})

    async def _look(self, session: Session, listing: Listing) -> dict[int, _Read]:
        before = self._before
        is_same = before is not None and before.sizes == listing.sizes and _alike(before, listing)
        by_number = {listing.numbers[at]: at for at in listing.unnamed}
        large = {number for number, at in by_number.items() if listing.sizes[at] > self._message_limit}
        shown: dict[int, _Header] = {}
        found: dict[int, _Read] = {}

        def take(number: int, body: bytes) -> None:
            at = by_number[number]
            content = content_of(body, listing.sizes[at], whole=number not in large)
            found[at] = _Read(_header_of(body, listing.sizes[at]), content)

        def top(number: int, header: bytes) -> None:
            if number in large:
                take(number, header)
            else:
                at = by_number[number]
                shown[at] = _header_of(header, listing.sizes[at])

        await session.read(list(by_number) if before is not None else sorted(large), top, whole=False)
        for at in listing.unnamed:
            header, there = shown.get(at), self._by_place.get(at) if is_same else None
            read = self._by_header.get(header.hash) if header is not None else None
            if read is None and there is not None and header in (None, there.header):
                read = there
            if read is not None:
                found.setdefault(at, read)
        await session.read([n for n, at in by_number.items() if at not in found and n not in large], take, whole=True)
        return found


def _alike(before: Listing, listing: Listing) -> bool:
    unnamed = set(listing.unnamed)
    return all(at in unnamed or before.identity(at) == listing.identity(at) for at in range(len(listing)))
