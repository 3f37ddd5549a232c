"""A command that comes again under the same id → the first one's answer. For verbs that would do it twice.

Kept by the process, for a while: it is for an answer that was lost. What outlives a process is looked for in the
mailbox itself (transfer.py, append.py).
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from service.clock import Clock
from service.commands.errors import problem

# Whoever asks again does it within minutes; an answer is 30 KB at the most.
KEPT_S: Final = 600.0
KEPT_LIMIT: Final = 1000


@dataclass(frozen=True, slots=True)
class _Kept:
    at: float
    digest: bytes
    answer: bytes


class Answered:
    """The answers of a process, by account, verb and id."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._under_way: dict[str, asyncio.Event] = {}

    async def once(self, key: str | None, payload: bytes, work: Callable[[], Awaitable[bytes]]) -> bytes:
        """The answer of `work`, or what it was the first time; None is no id. Raises what `work` raises."""
        if key is None:
            return await work()
        while (other := self._under_way.get(key)) is not None:
            await other.wait()
        digest = hashlib.sha256(payload).digest()
        kept = self._kept.get(key)
        if kept is not None and self._clock.monotonic() - kept.at < KEPT_S:
            if kept.digest != digest:
                raise problem(400, "Nats-Msg-Id", "another command came under this id: give each its own")
            return kept.answer
        done = self._under_way[key] = asyncio.Event()
        try:
            answer = await work()
            self._kept[key] = _Kept(self._clock.monotonic(), digest, answer)
            self._kept.move_to_end(key)
            if len(self._kept) > KEPT_LIMIT:
                self._kept.popitem(last=False)
            return answer
        finally:
            del self._under_way[key]
            done.set()
