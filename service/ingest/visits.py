"""A maildrop's sessions: one after another, each as short as may be, and when the next one is due. Used by the sources
that read POP3: from_pop3.py, stand_in.py, paired.py.
"""

import asyncio
from contextlib import suppress
from typing import Final

from service.clock import Clock
from service.pop3 import Door, Listing, Session

# Polls of many accounts that began together do not stay together.
JITTER: Final = 0.2


class Visits:
    """Of one source. While a session is open everybody else is locked out."""

    def __init__(self, door: Door, poll_s: float, clock: Clock) -> None:
        self._door = door
        self._poll_s = poll_s
        self._clock = clock
        self._session: Session | None = None
        self._next_at = 0.0
        self._nudged = asyncio.Event()

    @property
    def session(self) -> Session:
        """The one that is open."""
        if self._session is None:
            raise RuntimeError("a message's number without its session")
        return self._session

    async def is_open(self) -> bool:
        """Whether there is one, and its server still answers.

        A connection that was lost while nothing was read (NATS or memory was waited for) is no message's fault.
        """
        return self._session is not None and await self._session.is_alive()

    @property
    def is_due(self) -> bool:
        """Whether it is time for another."""
        return self._clock.monotonic() >= self._next_at

    async def begin(self) -> Session:
        """Another one. Raises as Door.enter does."""
        await self.leave()
        self._session = await self._door.enter()
        return self._session

    async def listed(self) -> Listing:
        """What there is. Raises as Door.listed does."""
        return await self._door.listed(self.session)

    async def take_stock(self) -> Listing:
        """What there is, by its content where there are no unique ids. Raises as Door.take_stock does."""
        return await self._door.take_stock(self.session)

    def looked(self) -> None:
        """What there is was seen: the next look is due in a while."""
        pause_s = self._poll_s * (1 - JITTER / 2 + JITTER * self._clock.chance())
        self._next_at = max(self._clock.monotonic() + pause_s, self._door.not_before)

    async def pause(self, limit_s: float) -> bool:
        """Let others have the maildrop until another look is due, `limit_s` at most; gives whether it is."""
        await self.leave()
        pause_s = max(0.0, min(limit_s, self._next_at - self._clock.monotonic()))
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._nudged.wait()
        if self._nudged.is_set():
            self._nudged.clear()
            self._next_at = 0.0
            return False
        return self.is_due

    def nudge(self) -> None:
        """Have `pause` end, and a look be due."""
        self._nudged.set()

    async def leave(self) -> None:
        """QUIT."""
        session, self._session = self._session, None
        if session is not None:
            await self._door.leave(session)

    def abort(self) -> None:
        """Drop the session."""
        session, self._session = self._session, None
        if session is not None:
            self._door.abort(session)
