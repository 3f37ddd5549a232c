"""A maildrop's door, where one session at a time goes through; and a session's messages with their identities.

Used by ingest and after: two sessions of one account would lock each other out (RFC 1939 4, RFC 2449 8.1.2).
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from service.clock import Clock, backoff_s
from service.errors import Transient
from service.observe import log
from service.pop3.nameless import Nameless
from service.pop3.refusals import NotNow
from service.pop3.session import Pop3Options, Session
from service.pop3.stock import Listing

# Where another session holds the maildrop: most of them last seconds. After so long it is no accident any more.
LOCKED_MAX_S: Final = 120.0
LOCKED_LIMIT_S: Final = 3600.0
# RFC 2449 6.5 has 864000 as an example of nothing; no login is put off for longer than this.
DELAY_LIMIT_S: Final = 3600.0
# A listing that falls short is an accident; so many in a row that fall short alike are how the server is.
SHORT_LOOKS: Final = 3

SeeUidls = Callable[[list[tuple[int, bytes]]], None]


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
        self._short: tuple[int, int | None] = (0, 0)
        self._short_looks = 0
        self._had_uidls = False
        self._nameless = Nameless(options.message_limit)

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

    # -- what there is ----------------------------------------------------------------------------------------

    async def listed(self, session: Session, see: SeeUidls | None = None) -> Listing:
        """As `listed`, of this account. `see`: is given the lines of UIDL.

        One that falls short is not believed: Transient, until it has done so alike three times in a row.
        """
        listing = await listed(session, see)
        # A server that says nothing of what it can may refuse for once what it did before.
        tells_none = self._had_uidls and not listing.has_uidls
        short = listing.missing, len(listing) if tells_none else listing.untold
        if not any(short):
            self._short_looks = 0
            self._had_uidls = listing.has_uidls
            return listing
        # Mail may come meanwhile: none is told is alike, of however many.
        alike = listing.missing, None if tells_none else listing.untold
        self._short_looks = self._short_looks + 1 if alike == self._short else 1
        self._short = alike
        if self._short_looks < SHORT_LOOKS:
            raise Transient(
                f"the server's listing falls short: of {len(listing) + short[0]} messages it lists {len(listing)}, and"
                f" of these it tells no unique id of {short[1]}",
                where=session.where,
                remedy="it is asked again: nothing counts as gone meanwhile",
            )
        self._had_uidls = listing.has_uidls
        return listing

    async def take_stock(self, session: Session) -> Listing:
        """As `listed`, and the contents of what has no unique id. Raises Transient, PeerError."""
        listing = await self.listed(session)
        await self._nameless.name(session, listing)
        return listing


async def listed(session: Session, see: SeeUidls | None = None) -> Listing:
    """LIST and UIDL: what has no unique id has no identity. Raises Transient, PeerError."""
    listing = Listing()

    def take(rows: list[tuple[int, bytes]]) -> None:
        listing.take_uidls(rows)
        if see is not None:
            see(rows)

    count = await session.count()
    await session.sizes(listing.take_sizes)
    has_uidls = await session.uidls(take)
    for _ in listing.close(count, has_uidls=has_uidls):
        await asyncio.sleep(0)
    return listing
