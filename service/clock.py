"""Time and chance, handed in: so that waiting and jitter are tested without waiting or luck."""

import asyncio
import random
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What a component may know of time. `monotonic` for durations (clock jumps are harmless), `now` for stamps."""

    def now(self) -> datetime: ...
    def monotonic(self) -> float: ...
    def chance(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clock and the process's random numbers."""

    def now(self) -> datetime:
        """The time of day in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back."""
        return time.monotonic()

    def chance(self) -> float:
        """A number in [0, 1)."""
        return random.random()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


def backoff_s(attempt: int, *, first_s: float, factor: float, max_s: float, chance: float) -> float:
    """Seconds to wait before the next try, after `attempt` failures in a row (1 is the first).

    Grows by `factor` up to `max_s`; the upper half is jitter, so that a thousand
    accounts that failed together do not come back together.
    """
    # The exponent is bounded: 2.0 ** 1100 would overflow after a week of failures.
    whole = min(max_s, first_s * factor ** min(attempt - 1, 64))
    return whole * (0.5 + 0.5 * chance)
