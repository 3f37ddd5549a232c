"""What comes for thousands in the same instant → a few in each turn of the event loop, with others' work between.

A network that goes away ends all connections at once. What follows from each (tasks that end, a state, a log line, an
event) takes 0.3 ms over some turns: 10,000 in one turn hold up everybody else for seconds.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from service.clock import Clock

# 6 ms of what follows, where a turn may be late by 100.
AT_ONCE: Final = 20
# It is measured: a mail of 60 KB that was made to takes fifty times as long as its size says.
YIELD_AFTER_S: Final = 0.001


class Turns:
    """A queue of calls. Who is alone in it waits for a turn."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._called = False

    def soon(self, call: Callable[[], None]) -> None:
        """Have it called in one of the next turns, after those that were here before."""
        self._waiting.append(call)
        if not self._called:
            self._called = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(min(AT_ONCE, len(self._waiting))):
            # By the loop, which says what one raises and goes on with the others.
            loop.call_soon(self._waiting.popleft())
        self._called = bool(self._waiting)
        if self._called:
            loop.call_soon(self._next)


class Breather:
    """Long work on the event loop, in pieces: whenever it has gone on for YIELD_AFTER_S, others have their turn."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.monotonic()

    async def pause(self) -> None:
        """Between two pieces."""
        if self._clock.monotonic() - self._began > YIELD_AFTER_S:
            await asyncio.sleep(0)
            self._began = self._clock.monotonic()
