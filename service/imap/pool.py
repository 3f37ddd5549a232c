"""An account's connections for commands: opened on demand, kept for a while, each used by one at a time.

Used by service/commands. Ingest's connections are not among them, so that nobody's IDLE is disturbed. Who waits, waits
in a bounded queue; a login that was refused is not tried again at once, for providers lock accounts.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from service.clock import Clock, backoff_s
from service.errors import AuthRefused, MailbusError, Permanent, Transient, verdict_of
from service.imap.writing import WritingSession
from service.observe import log
from service.tasks import TaskGroup

# Gmail allows 15 connections, others 10 or fewer, and each mailbox that is followed has one already.
CONNECTIONS_LIMIT: Final = 1
# More than this would wait longer than who asks does.
WAITING_LIMIT: Final = 8
WAIT_LIMIT_S: Final = 20.0
# A burst of commands logs in once; servers end idle connections after 30 minutes (RFC 9051 5.4).
IDLE_LIMIT_S: Final = 60.0
SWEEP_EVERY_S: Final = 5.0
# Those that are left at a time: a server that does not answer takes three seconds.
LEAVE_AT_ONCE: Final = 32
# A connection that was idle and died in silence shall not cost a command its time.
PROBE_LIMIT_S: Final = 5.0
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 60.0
REFUSED_PAUSE_S: Final = 300.0
# A server that says how long it wants to be left alone is believed as far as this.
TOLD_LIMIT_S: Final = 3600.0


class NotConnected(Transient):
    """Nothing was asked of the mail server: it cannot be reached, refuses the login, or too many wait already."""


class Unanswered(Transient):
    """The connection was lost while a command was under way: it may have been done."""


class Pool:
    """Connections of one account."""

    def __init__(self, open_session: Callable[[], Awaitable[WritingSession]], clock: Clock, *, where: str) -> None:
        self._open = open_session
        self._clock = clock
        self._where = where
        self._places = asyncio.Semaphore(CONNECTIONS_LIMIT)
        self._waiting = 0
        self._idle: list[WritingSession] = []
        self._idle_since = 0.0
        self._failures = 0
        self._closed_until = 0.0
        self._failure: MailbusError | None = None
        self._over = False

    @asynccontextmanager
    async def session(self) -> AsyncIterator[WritingSession]:
        """A connection for the length of the block. Raises NotConnected before it, Unanswered in it."""
        await self._turn()
        try:
            session = await self._take()
            try:
                yield session
            except Transient as exc:
                if session.protocol.failure is None:
                    raise
                raise Unanswered(
                    exc.what, where=exc.where, remedy="it may have been done: look, then ask again"
                ) from exc
            finally:
                self._give(session)
        finally:
            self._places.release()

    async def _turn(self) -> None:
        if self._waiting >= WAITING_LIMIT:
            raise NotConnected(f"{WAITING_LIMIT} commands wait already", where=self._where, remedy="ask again later")
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_LIMIT_S):
                await self._places.acquire()
        except TimeoutError:
            raise NotConnected(
                f"busy with other commands for {WAIT_LIMIT_S:g} s", where=self._where, remedy="ask again later"
            ) from None
        finally:
            self._waiting -= 1

    async def _take(self) -> WritingSession:
        self._check()
        while self._idle:
            session = self._idle.pop()
            if await self._lives(session):
                return session
            session.abort()
        if self._failure is not None and self._clock.monotonic() < self._closed_until:
            raise self._not_connected(self._failure)
        try:
            session = await self._open()
        except (Transient, Permanent) as exc:
            self._failures += 1
            self._failure = exc
            self._closed_until = self._clock.monotonic() + self._pause(exc)
            raise self._not_connected(exc) from exc
        self._failures, self._failure = 0, None
        if self._over:
            session.abort()
        self._check()
        return session

    def _check(self) -> None:
        if self._over:
            raise NotConnected("the account has ended here", where=self._where, remedy="ask again later")

    async def _lives(self, session: WritingSession) -> bool:
        """The server answers, and says what is new in the mailbox that is open. No more: a SELECT may take long."""
        try:
            async with asyncio.timeout(PROBE_LIMIT_S):
                await session.noop()
        except (Transient, Permanent, TimeoutError) as exc:
            log.debug("idle_connection_lost", where=self._where, error=str(exc))
            return False
        return True

    def _pause(self, exc: MailbusError) -> float:
        if isinstance(exc, AuthRefused):
            return REFUSED_PAUSE_S
        chance = self._clock.chance()
        pause_s = backoff_s(self._failures, first_s=RETRY_FIRST_S, factor=2, max_s=RETRY_MAX_S, chance=chance)
        told_s = exc.retry_after_s or 0.0 if isinstance(exc, Transient) else 0.0
        return max(pause_s, min(told_s, TOLD_LIMIT_S))

    def _not_connected(self, exc: MailbusError) -> NotConnected:
        return NotConnected(exc.what, where=exc.where or self._where, remedy=exc.remedy or "ask again later")

    def _give(self, session: WritingSession) -> None:
        # A command that was given up half-way has failed its connection by now; of a pool that is over, nobody sweeps.
        if self._over or session.protocol.failure is not None:
            session.abort()
            return
        self._idle.append(session)
        self._idle_since = self._clock.monotonic()

    def sweep(self) -> list[WritingSession]:
        """Let go of what has been idle for long: whoever takes it leaves it."""
        if not self._idle or self._clock.monotonic() - self._idle_since <= IDLE_LIMIT_S:
            return []
        idle, self._idle = self._idle, []
        return idle

    def abort(self) -> None:
        """For ever: drop the idle connections at once, one that is in use with its command's end, and open none."""
        self._over = True
        while self._idle:
            self._idle.pop().abort()


async def sweep_all(pools: Iterable[Pool], clock: Clock) -> None:
    """Close idle connections of many accounts until cancelled; an account that ends drops its own. `pools`: looked at
    each time."""
    while True:
        await clock.sleep(SWEEP_EVERY_S)
        await leave([session for pool in list(pools) for session in pool.sweep()])


async def leave(sessions: Sequence[WritingSession]) -> None:
    """Log out of all, LEAVE_AT_ONCE at a time; cancelled, drop those that are left."""
    try:
        for at in range(0, len(sessions), LEAVE_AT_ONCE):
            async with TaskGroup() as group:
                for session in sessions[at : at + LEAVE_AT_ONCE]:
                    group.create_task(session.logout(), name="leave")
    except BaseExceptionGroup as failed:
        raise verdict_of(failed) from failed
    finally:
        for session in sessions:
            session.abort()
