"""Time that moves when a test says so: what waits on it wakes in order, at once."""

import asyncio
import heapq
import itertools
from datetime import UTC, datetime, timedelta


class FakeClock:
    """A Clock (service/clock.py): `advance` moves it, `slept` lists what was asked of `sleep`, `luck` is `chance()`."""

    def __init__(self, *, luck: float = 0.0) -> None:
        self.luck = luck
        self.slept: list[float] = []
        self._start = datetime(2026, 11, 24, tzinfo=UTC)
        self._passed_s = 0.0
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """The start plus what has passed."""
        return self._start + timedelta(seconds=self._passed_s)

    def monotonic(self) -> float:
        """What has passed, in seconds."""
        return self._passed_s

    def chance(self) -> float:
        """`luck`."""
        return self.luck

    async def sleep(self, seconds: float) -> None:
        """Until the clock was advanced this far."""
        self.slept.append(seconds)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (self._passed_s + seconds, next(self._numbers), done))
        await done

    async def advance(self, seconds: float) -> None:
        """Let time pass; everyone whose time has come runs, in order, as far as it can."""
        end = self._passed_s + seconds
        await self.settle()
        while self._waiting and self._waiting[0][0] <= end:
            when, _, done = heapq.heappop(self._waiting)
            self._passed_s = max(self._passed_s, when)
            if not done.done():
                done.set_result(None)
            await self.settle()
        self._passed_s = end

    async def settle(self) -> None:
        """Let every task run until it waits for something."""
        for _ in range(20):
            await asyncio.sleep(0)
