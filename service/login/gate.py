"""Many who log in with one password → one try at a time until it is known to be right, and a pause where it is not.

An account has a gate for each of its servers: all its mailboxes share one. Providers lock accounts that try a wrong
password often; ten mailboxes would try it ten times, and ten again whenever they come back together.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from service.clock import Clock
from service.errors import AuthRefused, MailbusError
from service.login.sasl import TokenSource

T = TypeVar("T")

# One wrong password in five minutes is less than what any provider is known to lock for.
LOGIN_PAUSE_S: Final = 300.0
# After a break all connections come back at once; what was right a moment ago needs no proof again.
PROVED_FOR_S: Final = 60.0


class LoginGate:
    """Where everybody passes who logs in to one server for one account."""

    def __init__(self, pause_s: float = LOGIN_PAUSE_S) -> None:
        self._pause_s = pause_s
        self._turn = asyncio.Lock()
        self._proved_until = 0.0
        self._refused_until = 0.0
        self._failure: MailbusError | None = None
        self._tries = 0

    async def through(self, login: Callable[[], Awaitable[T]], clock: Clock) -> T:
        """What `login` gives. Raises what it raises; or, without a try, what the one before us found.

        Whoever waited while another tried and failed hears the same: a server that is away is not asked by
        everybody in turn, and a wrong password is not tried by everybody.
        """
        if clock.monotonic() >= self._proved_until:
            tries = self._tries
            async with self._turn:
                if clock.monotonic() >= self._proved_until:
                    self._hear(tries, clock)
                    return await self._try(login, clock)
        return await self._try(login, clock)

    def _hear(self, tries: int, clock: Clock) -> None:
        if self._failure is not None and (tries != self._tries or clock.monotonic() < self._refused_until):
            raise copy.copy(self._failure)

    async def _try(self, login: Callable[[], Awaitable[T]], clock: Clock) -> T:
        try:
            done = await login()
        except MailbusError as exc:
            self._tries += 1
            # A copy: an exception that is raised twice grows its traceback.
            self._failure = copy.copy(exc)
            if isinstance(exc, AuthRefused):
                self._proved_until = 0.0
                self._refused_until = clock.monotonic() + self._pause_s
            raise
        self._failure = None
        self._proved_until = clock.monotonic() + PROVED_FOR_S
        return done


async def with_token(tokens: TokenSource | None, connect: Callable[[str | None], Awaitable[T]]) -> T:
    """What `connect` gives, with a token where there are any. Raises what both raise."""
    if tokens is None:
        return await connect(None)
    token = await tokens.get()
    try:
        return await connect(token)
    except AuthRefused:
        # It may be void before its time: one more try, with another and on another connection.
        return await connect(await tokens.renew(token))
