"""Messages → one stream, all or none: an atomic batch, or an ordinary publish where there is only one.

Used by log.py; fences are headers like any other. NATS ADR-50.
"""

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.nuid import NUID

from service.bus.errors import BATCH_PLACES_TAKEN, ApiError, raise_api_error
from service.bus.frames import OutMessage, hpub
from service.errors import Transient, verdict_of
from service.observe import step
from service.tasks import TaskGroup

BATCH_LIMIT_MESSAGES: Final = 1_000
ANSWER_TIMEOUT_S: Final = 10.0
# A stream takes 50 unfinished batches over all its writers: a process keeps to a share of them.
OPEN_BATCHES_LIMIT: Final = 8
PLACES_TRIES: Final = 20


class Batches:
    """What this process publishes atomically to one stream."""

    def __init__(self, nc: Client, stream: str) -> None:
        self._nc = nc
        self._stream = stream
        self._open = asyncio.Semaphore(OPEN_BATCHES_LIMIT)
        self._ids = NUID()

    async def publish(self, messages: Sequence[OutMessage]) -> int:
        """Put all messages into the stream, or none; gives the sequence of the last one.

        All of them stand in memory: a batch that stalls holds its place for ten seconds. Raises ApiError with the
        server's refusal, nats-py's errors where no answer came, Transient where no batch could be opened.
        """
        if len(messages) == 1:
            return await self._finish(messages[0], messages[0].headers)
        async with self._open:
            for _ in range(PLACES_TRIES):
                try:
                    return await self._once(messages)
                except ApiError as exc:
                    if exc.err_code != BATCH_PLACES_TAKEN:
                        raise
                await asyncio.sleep(random.uniform(0.05, 0.3))
        raise Transient("all places for unfinished batches are taken", where=self._stream, remedy="tried again")

    async def _once(self, messages: Sequence[OutMessage]) -> int:
        batch = self._ids.next().decode()
        first, *middle, last = [
            (message, message.headers | {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)})
            for number, message in enumerate(messages, start=1)
        ]
        frames = b"".join([hpub(message.subject, headers, message.payload) for message, headers in middle])
        step("batch.before")
        try:
            async with TaskGroup() as group:
                # The first and the last are asked for their answers; the rest does not wait for the first's.
                opening = self._nc.request(
                    first[0].subject, first[0].payload, headers=first[1], timeout=ANSWER_TIMEOUT_S
                )
                opened = group.create_task(opening, name="batch")
                await asyncio.sleep(0)
                step("batch.open")
                await send_frames(self._nc, frames)
                try:
                    return await self._finish(last[0], last[1] | {"Nats-Batch-Commit": "1"})
                except ApiError:
                    # Why a batch was not opened stands in the first answer; the last one only says that there is none.
                    _raise_refusal(await opened)
                    raise
        except BaseExceptionGroup as failed:
            raise verdict_of(failed) from None

    async def _finish(self, message: OutMessage, headers: dict[str, str]) -> int:
        step("commit.sending")
        reply = await self._nc.request(message.subject, message.payload, headers=headers, timeout=ANSWER_TIMEOUT_S)
        step("commit.answered")
        return int(_raise_refusal(reply)["seq"])


async def send_frames(nc: Client, frames: bytes) -> None:
    """Put ready-made frames on the wire. Raises nats-py's error where there is no connection."""
    if not nc.is_connected:
        raise nats.errors.ConnectionReconnectingError
    await nc._send_command(frames)
    await nc._flush_pending()


def _raise_refusal(reply: Msg) -> dict[str, Any]:
    """A PubAck, or the empty answer to a batch's first message. Raises ApiError."""
    answer: dict[str, Any] = json.loads(reply.data) if reply.data else {}
    raise_api_error(answer)
    return answer
