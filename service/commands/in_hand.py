"""An account's commands that are under way, and their end with it. Used by serve.py, and by whoever runs the account.

Whoever has the account next shall have its connections alone: what has not ended in its time is cut, and its
connection with it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


class InHand:
    """Each of them is a task of its own. `ending`: they have less time than they were given."""

    def __init__(self) -> None:
        self._limits: dict[asyncio.Task[Any], asyncio.Timeout] = {}
        self.ending = False

    @asynccontextmanager
    async def within(self, limit_s: float) -> AsyncIterator[None]:
        """The block is a command of this task. Raises TimeoutError where it is cut."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a command outside of a task")
        async with asyncio.timeout(limit_s) as limit:
            self._limits[task] = limit
            try:
                yield
            finally:
                del self._limits[task]

    async def end(self, limit_s: float) -> None:
        """Returns once they have ended, and are answered; what takes longer is cut. Cancelled: all are, at once."""
        self.ending = True
        self._shorten(limit_s)
        try:
            if self._limits:
                await asyncio.wait(self._limits)
        except asyncio.CancelledError:
            self._shorten(0.0)
            raise

    def _shorten(self, limit_s: float) -> None:
        until = asyncio.get_running_loop().time() + limit_s
        for limit in self._limits.values():
            when = limit.when()
            # One that has passed is on its way out.
            if not limit.expired() and (when is None or until < when):
                limit.reschedule(until)
