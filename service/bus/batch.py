"""Messages → one stream, all or none: an atomic batch, or an ordinary publish where there is only one.

Used by log.py; fences are headers like any other. NATS ADR-50.
"""

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from nats.nuid import NUID

from service.bus.asks import seq_in, told
from service.bus.client import BusClient
from service.bus.errors import BATCH_PLACES_TAKEN, ApiError
from service.bus.frames import BATCH, BATCH_SEQUENCE, OutMessage, batched
from service.errors import Inward
from service.observe import step

BATCH_LIMIT_MESSAGES: Final = 1_000
ANSWER_TIMEOUT_S: Final = 10.0
# A stream takes 50 unfinished batches over all its writers: a process keeps to a share of them.
OPEN_BATCHES_LIMIT: Final = 8
# Head starts: beside those, so that they never keep the others waiting.
STAGED_LIMIT: Final = 4
PLACES_TRIES: Final = 20
# Between two pieces of a batch whatever else is asked has its turn: 2 s of 10 Mbit/s, and answers are waited for five.
GROUP_BYTES: Final = 2 * 1024 * 1024


class Staged:
    """A batch that stands at the server but for its last message, and keeps one of this process's places."""

    def __init__(self, id: str, count: int, places: "_Places") -> None:
        self.id = id
        self.count = count
        self._places: _Places | None = places

    def close(self) -> None:
        """Give the place back; what was not finished the server forgets in ten seconds."""
        if self._places is not None:
            self._places.staged -= 1
            self._places = None


@dataclass(slots=True)
class _Places:
    open: asyncio.Semaphore
    staged: int = 0


class Batches:
    """What this process publishes atomically to one stream."""

    def __init__(self, nc: BusClient, stream: str) -> None:
        self._nc = nc
        self._stream = stream
        self._places = _Places(asyncio.Semaphore(OPEN_BATCHES_LIMIT))
        self._ids = NUID()

    async def publish(self, messages: Sequence[OutMessage]) -> int:
        """Put all messages into the stream, or none; gives the sequence of the last one.

        All of them stand in memory: a batch that stalls holds its place for ten seconds. Raises ApiError with the
        server's refusal, nats-py's errors where no answer came, Transient where no batch could be opened.
        """
        if len(messages) == 1:
            return await self._ask(messages[0], messages[0].headers)
        async with self._places.open:
            for attempt in range(PLACES_TRIES):
                try:
                    # Where there was no place the rest is not sent again before there is one.
                    batch = await self._begin(messages[:-1], at_once=not attempt)
                    return await self._finish(batch, len(messages), messages[-1])
                except ApiError as exc:
                    if exc.err_code != BATCH_PLACES_TAKEN:
                        raise
                await asyncio.sleep(random.uniform(0.05, 0.3))
        raise Inward("all places for unfinished batches are taken", where=self._stream, remedy="tried again")

    async def stage(self, messages: Sequence[OutMessage]) -> Staged | None:
        """Send all messages of a batch but the last; None where no place is free. Raises as publish does."""
        if self._places.staged >= STAGED_LIMIT:
            return None
        self._places.staged += 1
        try:
            return Staged(await self._begin(messages), len(messages) + 1, self._places)
        except BaseException:
            self._places.staged -= 1
            raise

    async def finish(self, staged: Staged, last: OutMessage) -> int:
        """Send a batch's last message: all of it is in the stream then, or nothing. Raises as publish does."""
        try:
            return await self._finish(staged.id, staged.count, last)
        finally:
            staged.close()

    async def _begin(self, messages: Sequence[OutMessage], *, at_once: bool = True) -> str:
        batch = self._ids.next().decode()
        first, rest = messages[0], _groups(messages, batch)
        step("batch.before")
        # The rest waits for no answer: the server is at work with it at once, and forgets it where no batch is open.
        opened = await self._nc.asks.ask(
            first.subject,
            first.payload,
            first.headers | {BATCH: batch, BATCH_SEQUENCE: "1"},
            behind=rest if at_once else (),
        )
        # It is empty where the batch is open.
        seq_in(opened)
        step("batch.open")
        if not at_once:
            await self._nc.pour(rest)
        return batch

    async def _finish(self, batch: str, count: int, last: OutMessage) -> int:
        marks = {BATCH: batch, BATCH_SEQUENCE: str(count), "Nats-Batch-Commit": "1"}
        return await self._ask(last, last.headers | marks)

    async def _ask(self, message: OutMessage, headers: dict[str, str]) -> int:
        step("commit.sending")
        reply = await self._nc.request(message.subject, message.payload, headers=headers, timeout=ANSWER_TIMEOUT_S)
        seq = told(seq_in(reply.data))
        step("commit.answered")
        return seq


def _groups(messages: Sequence[OutMessage], batch: str) -> Iterator[list[bytes]]:
    """The frames of a batch's messages but the first, no more at once than what others may wait for."""
    start, size = 1, 0
    for at in range(1, len(messages)):
        size += len(messages[at].payload)
        if size >= GROUP_BYTES or at + 1 == len(messages):
            yield batched(messages[start : at + 1], batch, start + 1)
            start, size = at + 1, 0
