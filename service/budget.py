"""How many bytes of mail the process may hold at once, first come first served: what is read, and what is sent.

A byte here stands for about two of memory: a mail is in hand as it came and as what is made of it.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

# Of a share: what is as small as that is not held up by what is larger.
SMALL_PART: Final = 32


class _Memory(ABC):
    """What may be taken and is given back."""

    @abstractmethod
    async def take(self, size: int) -> int: ...

    @abstractmethod
    def give(self, taken: int) -> None: ...

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """`size` bytes for the length of a block."""
        taken = await self.take(size)
        try:
            yield
        finally:
            self.give(taken)


class Budget(_Memory):
    """A semaphore of bytes. What is larger than the whole budget waits until it has all of it to itself."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit = limit_bytes
        self._free = limit_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take_now(self, size: int) -> int | None:
        """What `take` gives, where nobody has to be waited for; None otherwise."""
        size = min(size, self.limit)
        if self._waiting or size > self._free:
            return None
        self._free -= size
        return size

    async def take(self, size: int) -> int:
        """Wait for `size` bytes; gives what was taken, to be handed to `give` later."""
        if (taken := self.take_now(size)) is not None:
            return taken
        size = min(size, self.limit)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(size)
            else:
                # Whoever was served meanwhile may have found it cancelled, and taken it out.
                with suppress(ValueError):
                    self._waiting.remove(entry)
                self._serve()
            raise
        return size

    def give(self, taken: int) -> None:
        """Give back what `take` gave."""
        self._free += taken
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= size
                turn.set_result(None)


class Share(_Memory):
    """At most so much of a budget, for work that may be slow: it cannot keep all of it. A quarter is for what is small,
    which waits for nothing that is large. What is larger than its part goes alone, and has of the whole what it needs.

    The share first, then the whole, and nobody who has of the whole waits for a share: so none waits for ever.
    """

    def __init__(self, whole: Budget, limit_bytes: int) -> None:
        limit = min(limit_bytes, whole.limit)
        self._whole = whole
        self._small_bytes = limit // SMALL_PART
        self._small, self._large = Budget(limit // 4), Budget(limit - limit // 4)

    def take_now(self, size: int) -> int | None:
        """What `take` gives, where nobody has to be waited for; None otherwise."""
        part = self._part(size)
        if (own := part.take_now(size)) is None:
            return None
        if (taken := self._whole.take_now(size)) is None:
            part.give(own)
        return taken

    async def take(self, size: int) -> int:
        """Wait for `size` bytes; gives what was taken, to be handed to `give` later."""
        part = self._part(size)
        own = await part.take(size)
        try:
            return await self._whole.take(size)
        except BaseException:
            part.give(own)
            raise

    def give(self, taken: int) -> None:
        """Give back what `take` gave."""
        part = self._part(taken)
        self._whole.give(taken)
        part.give(min(taken, part.limit))

    def _part(self, size: int) -> Budget:
        return self._small if size <= self._small_bytes else self._large
