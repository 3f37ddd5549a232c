"""How fast one account's mails go: its rate, and what the relay was heard to say. Used by places.py and relays.py.

A turn is spent by what is about to go to the relay and by nothing else.

Mails are spread evenly: what a provider counts in any minute is then never more than it allows, and none comes in a
burst. What is a domain's affair slows down that domain (lanes.py).
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from service.clock import Clock
from service.outbound.blame import Spread, is_too_fast
from service.outbound.retry import Said, Verdict
from service.tasks import TaskGroup

# Between two mails, once the relay says that it is too much: doubled each time, halved with each mail that is taken.
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 60.0
SHORTEST_PAUSE_S: Final = 0.1
NEVER: Final = float("-inf")


class Pace:
    """One account's. `interval_s`: between two mails at the least; 0 without a rate."""

    def __init__(self, interval_s: float, clock: Clock) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._learned_s = 0.0
        self._spread = Spread()
        self._last = self._before = NEVER
        self._turns = asyncio.Lock()
        # The next turn is earlier than it was.
        self._sooner = asyncio.Event()

    @property
    def interval_s(self) -> float:
        """Between two mails, now."""
        return max(self._interval_s, self._learned_s)

    @property
    def waits(self) -> bool:
        """Whether who wants a turn now has to wait for it."""
        early = self._last + self.interval_s > self._clock.monotonic()
        return self._turns.locked() or (self.interval_s > 0 and early)

    async def turn(self, ending: asyncio.Event) -> float | None:
        """Wait for one's turn, first come, first served; gives when it is, or None once the account's work ends.

        No wait where there is nothing to wait for: that is nobody's turn, and was never.
        """
        if not self.interval_s and not self._turns.locked():
            return NEVER
        async with self._turns:
            while (wait_s := self._last + self.interval_s - self._clock.monotonic()) > 0:
                if ending.is_set():
                    return None
                await self._wait(wait_s, ending)
            self._before, self._last = self._last, self._clock.monotonic()
            return self._last

    async def _wait(self, wait_s: float, ending: asyncio.Event) -> None:
        """So long, or until the turn is earlier or the account's work ends, where that is worth being told."""
        if wait_s <= FIRST_PAUSE_S:
            await self._clock.sleep(wait_s)
            return
        self._sooner.clear()
        async with TaskGroup() as group:
            waits = [
                group.create_task(one, name="turn")
                for one in (self._clock.sleep(wait_s), self._sooner.wait(), ending.wait())
            ]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for one in waits:
                one.cancel()

    def give_back(self, last: float) -> None:
        """Whoever had the turn that was then does not go after all: the next one does, if nobody had one since."""
        if self._last == last:
            self._last = self._before
            self._sooner.set()

    def heard(self, said: Mapping[str, Said]) -> None:
        """Learn from what the relay said of each recipient of a mail."""
        if any(one.verdict is Verdict.ACCEPTED for one in said.values()):
            self._spread.clear()
            if self._learned_s:
                self._learned_s = self._learned_s / 2 if self._learned_s > SHORTEST_PAUSE_S else 0.0
                self._sooner.set()
            return
        too_fast = {who: one for who, one in said.items() if is_too_fast(one)}
        if too_fast and self._spread.is_the_accounts(too_fast):
            self._learned_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, self._learned_s * 2))
