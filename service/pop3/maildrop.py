"""A maildrop's door, where one session at a time goes through; and a session's messages with their identities.

Used by ingest and after: two sessions of one account would lock each other out (RFC 1939 4, RFC 2449 8.1.2).
"""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from service.clock import Clock, backoff_s
from service.observe import log
from service.pop3.refusals import NotNow
from service.pop3.session import Pop3Options, Session
from service.pop3.stock import Listing, content_of

# Where another session holds the maildrop: most of them last seconds. After so long it is no accident any more.
LOCKED_MAX_S: Final = 120.0
LOCKED_LIMIT_S: Final = 3600.0
# RFC 2449 6.5 has 864000 as an example of nothing; no login is put off for longer than this.
DELAY_LIMIT_S: Final = 3600.0


class Door:
    """One account's."""

    def __init__(
        self, options: Pop3Options, connecting: AbstractAsyncContextManager[None], clock: Clock, *, locked_s: float
    ) -> None:
        """`locked_s`: how long to wait at first where the maildrop is locked."""
        self._options = options
        self._connecting = connecting
        self._clock = clock
        self._locked_s = locked_s
        self._turn = asyncio.Lock()
        self._not_before = 0.0

    @property
    def options(self) -> Pop3Options:
        """How the maildrop is reached."""
        return self._options

    @property
    def not_before(self) -> float:
        """When the server may be logged in to again (monotonic)."""
        return self._not_before

    async def enter(self) -> Session:
        """A session of one's own, to be given back by `leave` or `abort`. Raises as Session.open does.

        A maildrop that is locked is waited for, an hour at the most: then NotNow.
        """
        await self._turn.acquire()
        try:
            return await self._open()
        except BaseException:
            self._turn.release()
            raise

    async def _open(self) -> Session:
        clock = self._clock
        began, attempt = clock.monotonic(), 0
        while True:
            if (pause_s := self._not_before - clock.monotonic()) > 0:
                await clock.sleep(pause_s)
            try:
                async with self._connecting:
                    session = await Session.open(self._options, clock=clock)
            except NotNow as exc:
                attempt += 1
                if clock.monotonic() - began > LOCKED_LIMIT_S:
                    raise
                log.info("maildrop_locked", where=self._options.where, tries=attempt, error=exc.what)
                pause_s = backoff_s(
                    attempt, first_s=self._locked_s, factor=2, max_s=LOCKED_MAX_S, chance=clock.chance()
                )
                await clock.sleep(pause_s)
                continue
            self._not_before = clock.monotonic() + min(session.login_delay_s, DELAY_LIMIT_S)
            return session

    async def leave(self, session: Session) -> None:
        """Give it back, with nothing marked."""
        try:
            await session.leave()
        finally:
            self._turn.release()

    async def quit(self, session: Session) -> None:
        """Give it back, and have what is marked taken away. Raises Transient where the server did not say +OK."""
        try:
            await session.quit()
        finally:
            self._turn.release()

    def abort(self, session: Session) -> None:
        """Give it back at once."""
        session.abort()
        self._turn.release()


async def listed(session: Session) -> Listing:
    """LIST and UIDL: what has no unique id has no identity. Raises Transient, PeerError."""
    listing = Listing()
    await session.sizes(listing.take_sizes)
    await session.uidls(listing.take_uidls)
    for _ in listing.close():
        await asyncio.sleep(0)
    return listing


async def take_stock(session: Session, message_limit: int, before: Listing | None = None) -> Listing:
    """LIST and UIDL, and the contents of what has no unique id. Raises Transient, PeerError.

    `before`: the listing of the session before. Where all sizes and unique ids are the same, so are the messages that
    have none: they are not read again.
    """
    listing = await listed(session)
    if not listing.unnamed:
        return listing
    if before is not None and before.sizes == listing.sizes and _alike(before, listing):
        listing.identities, listing.unnamed = before.identities, list(before.unnamed)
        return listing
    listing.name(await contents(session, listing, listing.unnamed, message_limit))
    return listing


def _alike(before: Listing, listing: Listing) -> bool:
    unnamed = set(listing.unnamed)
    return all(at in unnamed or before.identity(at) == listing.identity(at) for at in range(len(listing)))


async def contents(session: Session, listing: Listing, places: Sequence[int], message_limit: int) -> dict[int, str]:
    """What messages are known by where nothing else tells, by index; those that the server refuses are left out."""
    found: dict[int, str] = {}
    by_number = {listing.numbers[at]: at for at in places}
    for whole in (True, False):
        numbers = [n for n, at in by_number.items() if (listing.sizes[at] <= message_limit) is whole]

        def take(number: int, body: bytes, whole: bool = whole) -> None:
            at = by_number[number]
            found[at] = content_of(body, listing.sizes[at], whole=whole)

        if numbers:
            await session.read(numbers, take, whole=whole)
    return found
