"""A command that comes again under the same id → the first one's answer. For verbs that would do it twice.

What it was answered, and what it had begun, is kept on the bus (begun.py): another process knows it as well. In one
process the same command waits for the one that is under way.
"""

import asyncio
from collections.abc import Awaitable, Callable

from service.commands.begun import Beginnings, Keeper
from service.errors import MailbusError


class Answered:
    """The commands under ids that a process does."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._under_way: dict[str, tuple[asyncio.Event, Beginnings]] = {}

    async def once(self, account: str, command: str, payload: bytes, work: Callable[[], Awaitable[bytes]]) -> bytes:
        """The answer of `work`, or what it was the first time; `command`: verb and id.

        Raises what `work` raises, ServiceError 400 where another command came under the id, 503 where another process
        is at it, Transient.
        """
        key = f"{account} {command}"
        while (other := self._under_way.get(key)) is not None:
            await other[0].wait()
        done, begun = asyncio.Event(), Beginnings(self._keeper, account, command, payload)
        self._under_way[key] = done, begun
        try:
            answer = await begun.answered()
            if answer is None:
                try:
                    answer = await work()
                except MailbusError:
                    await begun.left()
                    raise
                await begun.done(answer)
            return answer
        finally:
            del self._under_way[key]
            done.set()

    def begun(self, account: str, command: str) -> Beginnings | None:
        """What is known of a command that is under way; None where it came without an id."""
        under_way = self._under_way.get(f"{account} {command}")
        return under_way[1] if under_way is not None else None
