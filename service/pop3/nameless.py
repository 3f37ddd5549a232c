"""Messages that have no unique id → by what they are known: each is downloaded once, and looked at by TOP from then on.

One account's, used by maildrop.py, over all sessions: a listing has numbers and sizes, which say nothing of who is who.
A header that has the Received field of its delivery, with the size, is one message's. Of any other header that holds
where the listing is the one before, place by place; so where the server has no TOP, which it need not. What a session
has read stays known where it breaks off; what cannot be had three times is known by its header and size alone. Failures
are a message's, too: of one without a header of its own they are counted by its place.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from service.errors import Transient
from service.pop3.reading import read_at
from service.pop3.session import Session
from service.pop3.stock import Listing, content_of

# So many messages are looked at and then read, before the next ones are: a session that breaks off got somewhere.
STEP: Final = 500
TRIES: Final = 3
# What could not be had: more is nothing that single messages make.
FAILED_LIMIT: Final = 10_000
# Of sessions that broke off so many messages stay known: beyond, a maildrop is not to be followed without unique ids.
KEPT_LIMIT: Final = 100_000
_RECEIVED: Final = re.compile(rb"^received:", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Header:
    """Of a message: a hash of it and the size; `delivered`: no sender can have written it twice (RFC 5321 4.4)."""

    hash: bytes
    delivered: bool


def _header_of(body: bytes, size: int) -> _Header:
    # Some servers leave the empty line out of what TOP gives.
    header = body.partition(b"\r\n\r\n")[0].rstrip(b"\r\n")
    return _Header(hashlib.sha256(b"%d\0%b" % (size, header)).digest(), _RECEIVED.search(header) is not None)


@dataclass(frozen=True, slots=True)
class _Read:
    """A message that was read: its header, and what its content is known by."""

    header: _Header
    content: str


def _unread(header: _Header) -> _Read:
    """A message that cannot be had."""
    return _Read(header, hashlib.sha256(b"unread\0" + header.hash).hexdigest())


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A message that is asked for, whole or its header: known by its header, or else by its index of a listing."""

    at: int
    header: bytes
    size: int
    whole: bool


def _wanted(at: int, size: int, header: _Header | None, *, whole: bool) -> _Wanted:
    if header is not None and header.delivered:
        return _Wanted(-1, header.hash, size, whole)
    return _Wanted(at, b"", size, whole)


class Nameless:
    """Of one account. `message_limit`: bytes of the largest message that is read whole."""

    def __init__(self, message_limit: int) -> None:
        self._message_limit = message_limit
        # Of the last listing that had such messages, by index; and those whose header is enough.
        self._before: Listing | None = None
        self._by_place: dict[int, _Read] = {}
        self._by_header: dict[bytes, _Read] = {}
        # How often it could not be had.
        self._failed: Counter[_Wanted] = Counter()

    async def name(self, session: Session, listing: Listing) -> None:
        """Give them identities. Raises Transient, PeerError: also where one is refused, until it was three times."""
        before = self._before
        is_same = before is not None and before.sizes == listing.sizes and _alike(before, listing)
        there = self._by_place if is_same else {}
        if not is_same:
            self._failed = _moved(self._failed, before, listing)
        found: dict[int, _Read] = {}
        # First what was not had: so a line that never lasts for all of them gets on.
        places = sorted(listing.unnamed, key=there.__contains__)
        try:
            for start in range(0, len(places), STEP):
                await self._look(session, listing, places[start : start + STEP], there, found)
            if missing := len(places) - len(found):
                raise Transient(
                    f"the server refuses {missing} messages that have no unique id",
                    where=session.where,
                    remedy="they are asked for again; after three times they are said to be unavailable",
                )
        except Transient:
            self._before, self._by_place = listing, {**there, **found}
            self._by_header |= _delivered(found.values())
            for hash in list(self._by_header)[: max(0, len(self._by_header) - KEPT_LIMIT)]:
                del self._by_header[hash]
            raise
        self._before = listing if found else None
        self._by_place, self._by_header = found, _delivered(found.values())
        # Of mail that is gone nothing is kept.
        self._failed = Counter(
            {one: times for one, times in self._failed.items() if one.header in self._by_header or one.at in found}
        )
        listing.name({at: read.content for at, read in found.items()})

    async def _look(
        self,
        session: Session,
        listing: Listing,
        places: Sequence[int],
        there: Mapping[int, _Read],
        found: dict[int, _Read],
    ) -> None:
        """What is known by TOP, and by RETR what is not; of what is too large TOP is all that is ever read."""
        sizes = listing.sizes
        large = [at for at in places if sizes[at] > self._message_limit]
        shown: dict[int, _Header] = {}

        def top(at: int, header: bytes) -> None:
            shown[at] = _header_of(header, sizes[at])
            self._recognise(at, sizes[at], shown[at])
            if sizes[at] > self._message_limit:
                found[at] = _Read(shown[at], content_of(header, sizes[at], whole=False))

        def take(at: int, body: bytes) -> None:
            found[at] = _Read(_header_of(body, sizes[at]), content_of(body, sizes[at], whole=True))

        is_known = bool(there or self._by_header or self._failed)
        refused = await self._ask(session, listing, places if is_known else large, {}, top, whole=False)
        # The server need not have TOP: of what RETR gives, that is no failure.
        self._fail(one for one in refused if one.size > self._message_limit)
        for at in places:
            header, before = shown.get(at), there.get(at)
            read = self._by_header.get(header.hash) if header is not None else None
            if read is None and before is not None and header in (None, before.header):
                read = before
            if read is not None:
                found.setdefault(at, read)
        small = [at for at in places if at not in found and sizes[at] <= self._message_limit]
        self._fail(await self._ask(session, listing, small, shown, take, whole=True))
        for at in places:
            whole = sizes[at] <= self._message_limit
            wanted = _wanted(at, sizes[at], shown.get(at) if whole else None, whole=whole)
            if at not in found and self._failed[wanted] >= TRIES:
                found[at] = _unread(shown.get(at) or _header_of(b"", sizes[at]))

    async def _ask(
        self,
        session: Session,
        listing: Listing,
        places: Sequence[int],
        shown: Mapping[int, _Header],
        give: Callable[[int, bytes], None],
        *,
        whole: bool,
    ) -> list[_Wanted]:
        """For what did not fail too often; gives what is refused."""
        wanted = {at: _wanted(at, listing.sizes[at], shown.get(at), whole=whole) for at in places}

        def take(at: int, body: bytes) -> None:
            self._failed.pop(wanted[at], None)
            give(at, body)

        def broke(at: int) -> None:
            self._fail([wanted[at]])

        left = [at for at, one in wanted.items() if self._failed[one] < TRIES]
        refused = await read_at(session, listing, left, take, whole=whole, broke=broke)
        return [wanted[at] for at in refused]

    def _recognise(self, at: int, size: int, header: _Header) -> None:
        """What failed of it at its place, before its header was read, failed of it: to be counted once.

        What was given up there is asked for again.
        """
        by_place, by_header = _wanted(at, size, None, whole=True), _wanted(at, size, header, whole=True)
        if by_header != by_place and 0 < (times := self._failed.pop(by_place, 0)) < TRIES:
            self._failed[by_header] += times

    def _fail(self, these: Iterable[_Wanted]) -> None:
        if len(self._failed) > FAILED_LIMIT:
            self._failed.clear()
        self._failed.update(these)


def _delivered(read: Iterable[_Read]) -> dict[bytes, _Read]:
    return {one.header.hash: one for one in read if one.header.delivered}


def _moved(failed: Counter[_Wanted], before: Listing | None, listing: Listing) -> Counter[_Wanted]:
    """The same failures in another listing: those of a place are its message's where nobody else has its size.

    Of any other they are forgotten: a message is asked for again rather than not read for another's failures.
    """
    if before is None or listing.sizes[: len(before)] == before.sizes:
        return failed  # some came behind them
    were, are = Counter(before.sizes), Counter(listing.sizes)
    moved: Counter[_Wanted] = Counter()
    for one, times in failed.items():
        if one.header:
            moved[one] = times
        elif were[one.size] == are[one.size] == 1:
            moved[replace(one, at=listing.sizes.index(one.size))] = times
    return moved


def _alike(before: Listing, listing: Listing) -> bool:
    unnamed = set(listing.unnamed)
    return all(at in unnamed or before.identity(at) == listing.identity(at) for at in range(len(listing)))
